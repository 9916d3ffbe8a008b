"""Triton programs that apply one word of the kernels to a vector: the interpreter wants them in a module of their own."""

import triton
import triton.language as tl

from sincere_spec.backends.torch.kernels import (
    argument,
    coefficient_dot,
    fold_slope,
    fold_value,
    logit_slope,
    logit_value,
    related,
)


@triton.jit
def folded(x, values, slopes, fold: tl.constexpr, size: tl.constexpr):
    entry = tl.arange(0, size)
    unit, _ = argument(fold, 1.0, 0.0, tl.full((), 1.0, x.dtype.element_ty), 0.0, 0.0)
    t = tl.load(x + entry) * unit
    tl.store(values + entry, fold_value(fold, t))
    tl.store(slopes + entry, fold_slope(fold, t))


@triton.jit
def logits(x, values, slopes, name: tl.constexpr, numbers: tl.constexpr, size: tl.constexpr):
    entry = tl.arange(0, size)
    s = tl.load(x + entry)
    tl.store(values + entry, logit_value(name, numbers, s))
    tl.store(slopes + entry, logit_slope(name, numbers, s))


@triton.jit
def relation(numbers, out, over: tl.constexpr, partners: tl.constexpr, size: tl.constexpr):
    pair = tl.arange(0, size)
    label, key_label = tl.load(numbers + pair), tl.load(numbers + size + pair)
    sample, key_sample = tl.load(numbers + 2 * size + pair), tl.load(numbers + 3 * size + pair)
    tl.store(out + pair, related(over, partners, label, key_label, sample, key_sample).to(tl.int32))


@triton.jit
def weighing(coefficients, rows, out, size: tl.constexpr):
    i = tl.arange(0, size)
    place = i[:, None] * size + i[None, :]
    nothing = tl.zeros((size, size), tl.float32)
    tl.store(out + place, coefficient_dot(tl.load(coefficients + place), tl.load(rows + place), nothing))
