"""Triton kernels for sweeps over all pairs: the words of the protocol as small device functions, and two programs of them.

A program owns a block of rows, goes over tiles of columns and keeps its sums in registers, so there are no atomics and a
rerun gives the same bits. Words are chosen when a program is compiled: one is made for each combination of words, never for
a loss. Products of float32 are taken in full float32, sums in the dtype of the rows, places in memory in 64 bits.

No annotation of this file is a Python type: Triton reads them.
"""

import triton
import triton.language as tl

LOGITS = ("Similarity", "LogKernel", "CosineSchedule", "ShiftedSchedule")
"""The logits that `logit_value` and `logit_slope` know, by the name of their word."""


@triton.jit
def log1p(x):
    """`log(1 + x)` of x from 0 to 1, which devices have only as an approximation: 2 artanh(x / (2 + x)), a series in 1/9."""
    z = x / (x + 2.0)
    square = z * z
    total = square * 0.0 + 1.0 / 35.0
    for k in tl.static_range(16, -1, -1):
        total = total * square + 1.0 / (2 * k + 1)
    return 2.0 * z * total


@triton.jit
def softplus(t):
    """`log(1 + exp(t))`."""
    return tl.maximum(t, 0.0) + log1p(tl.exp(-tl.abs(t)))


@triton.jit
def sigmoid(t):
    """`1 / (1 + exp(-t))`, from an exponential that does not overflow."""
    e = tl.exp(-tl.abs(t))
    return tl.where(t >= 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def fold_value(fold: tl.constexpr, t):
    """ψ(t) of a fold that is a sum."""
    if fold == "linear":
        return t
    elif fold == "exp":
        return tl.exp(t)
    elif fold == "softplus":
        return softplus(t)
    else:
        tl.static_assert(fold == "sigmoid_squared")
        s = sigmoid(t)
        return s * s


@triton.jit
def fold_slope(fold: tl.constexpr, t):
    """ψ′(t); of a log-sum-exp, whose total has gone into t, its share `exp(t)`."""
    if fold == "linear":
        return t * 0.0 + 1.0
    elif fold == "exp" or fold == "logsumexp":
        return tl.exp(t)
    elif fold == "softplus":
        return sigmoid(t)
    else:
        tl.static_assert(fold == "sigmoid_squared")
        s = sigmoid(t)
        return 2.0 * s * s * sigmoid(-t)


@triton.jit
def schedule(name: tl.constexpr, numbers: tl.constexpr, s):
    """τ(s) and its derivative."""
    pi: tl.constexpr = 3.141592653589793
    low: tl.constexpr = numbers[0]
    high: tl.constexpr = numbers[1]
    if name == "CosineSchedule":
        half = tl.sin((0.5 * pi) * s)
        return low + (high - low) * (half * half), (0.5 * pi * (high - low)) * tl.sin(pi * s)
    else:
        offset: tl.constexpr = numbers[3]
        width: tl.constexpr = numbers[4]
        angle = (pi / width) * (s + offset)
        inside = s <= -offset
        tau = tl.where(inside, low + (0.5 * (high - low)) * (1.0 + tl.cos(angle)), high)
        return tau, tl.where(inside, (-0.5 * pi * (high - low) / width) * tl.sin(angle), 0.0)


@triton.jit
def logit_value(name: tl.constexpr, numbers: tl.constexpr, s):
    """The logit of a similarity at temperature 1."""
    if name == "Similarity":
        return s
    elif name == "LogKernel":
        return s - 1.0
    else:
        tau, _ = schedule(name, numbers, s)
        return s / tau


@triton.jit
def logit_slope(name: tl.constexpr, numbers: tl.constexpr, s):
    """The declared derivative of `logit_value`."""
    if name == "Similarity" or name == "LogKernel":
        return s * 0.0 + 1.0
    else:
        held: tl.constexpr = numbers[2]
        tau, tau_slope = schedule(name, numbers, s)
        if held:
            return 1.0 / tau
        else:
            return (1.0 - s * tau_slope / tau) / tau


@triton.jit
def related(over: tl.constexpr, partners: tl.constexpr, label, key_label, sample, key_sample):
    """Which pairs are positives or negatives, as `relations` says."""
    if partners:
        return label != key_label
    elif over == "positive":
        return (label == key_label) & (sample != key_sample)
    else:
        return (label != key_label) & (sample != key_sample)


@triton.jit
def similarities(rows, columns, row, column, n, m, d, tile: tl.constexpr, entries: tl.constexpr):
    """The similarities of a tile; 0 beyond the ends."""
    kind: tl.constexpr = rows.dtype.element_ty
    s = tl.zeros((tile, tile), kind)
    for start in range(0, d, entries):
        entry = start + tl.arange(0, entries)
        a = tl.load(rows + row[:, None] * d + entry[None, :], mask=(row[:, None] < n) & (entry[None, :] < d), other=0.0)
        b = tl.load(
            columns + column[None, :] * d + entry[:, None], mask=(column[None, :] < m) & (entry[:, None] < d), other=0.0
        )
        s = tl.dot(a, b, s, input_precision="ieee", out_dtype=kind)
    return s


@triton.jit
def nothing_yet(parts: tl.constexpr, number: tl.constexpr, size: tl.constexpr, kind: tl.constexpr):
    """A vector of a number for each part."""
    result = ()
    for _ in tl.static_range(parts):
        result = result + (tl.full((size,), number, kind),)
    return result


@triton.jit
def placed(part: tl.constexpr, n, row):
    """Where the number of a part and of a row is in a table `[parts, n]`."""
    return row + tl.cast(n, tl.int64) * part


@triton.jit
def added(
    total,
    peak,
    fall,
    a,
    shift,
    seen,
    fold: tl.constexpr,
    scale: tl.constexpr,
    offset: tl.constexpr,
    falls: tl.constexpr,
):
    """A part's tally of a block of rows, with the pairs of one more tile."""
    t = a * scale + offset - shift[:, None]
    if fold == "logsumexp":
        t = tl.where(seen, t, -float("inf"))
        before = peak
        peak = tl.maximum(before, tl.max(t, axis=1))
        finite = tl.where(peak > -float("inf"), peak, 0.0)
        total = total * tl.exp(before - finite) + tl.sum(tl.exp(t - finite[:, None]), axis=1)
    else:
        t = tl.where(seen, t, 0.0)
        total += tl.sum(tl.where(seen, fold_value(fold, t), 0.0), axis=1)
        if falls:
            fall += scale * tl.sum(tl.where(seen, fold_slope(fold, t), 0.0), axis=1)
    return total, peak, fall


@triton.jit
def tally_kernel(
    rows,
    columns,
    labels,
    key_labels,
    samples,
    key_samples,
    first,
    last,
    temperature,
    bias,
    shifts,
    sums,
    peaks,
    falls,
    n,
    m,
    d,
    FOLDS: tl.constexpr,
    OVERS: tl.constexpr,
    SCALES: tl.constexpr,
    OFFSETS: tl.constexpr,
    FALLS: tl.constexpr,
    LOGIT: tl.constexpr,
    NUMBERS: tl.constexpr,
    PARTNERS: tl.constexpr,
    BAND: tl.constexpr,
    TILE: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Sums, peaks and falls `[parts, n]` of a block of rows."""
    kind: tl.constexpr = rows.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inverse, moved = 1.0 / tl.load(temperature), tl.load(bias)
    label, sample = tl.load(labels + row, mask=row < n, other=0), tl.load(samples + row, mask=row < n, other=0)
    low = tl.load(first + tl.program_id(0).to(tl.int64) * TILE)
    high = tl.load(last + tl.minimum(tl.program_id(0).to(tl.int64) * TILE + TILE, n) - 1)
    total, peak = nothing_yet(len(FOLDS), 0.0, TILE, kind), nothing_yet(len(FOLDS), -float("inf"), TILE, kind)
    fall = nothing_yet(len(FOLDS), 0.0, TILE, kind)
    for start in range(low // TILE * TILE if BAND else 0, high if BAND else m, TILE):
        column = tl.arange(0, TILE).to(tl.int64) + start
        real = column < m
        key_label = tl.load(key_labels + column, mask=real, other=0)
        key_sample = tl.load(key_samples + column, mask=real, other=0)
        s = similarities(rows, columns, row, column, n, m, d, TILE, ENTRIES)
        a = logit_value(LOGIT, NUMBERS, s) * inverse + moved
        new_total, new_peak, new_fall = (), (), ()
        for p in tl.static_range(len(FOLDS)):
            one, two, three = total[p], peak[p], fall[p]
            if OVERS[p] == "negative" or ((start < high) & (start + TILE > low)):
                seen = real[None, :] & related(
                    OVERS[p], PARTNERS, label[:, None], key_label[None, :], sample[:, None], key_sample[None, :]
                )
                shift = tl.load(shifts + placed(p, n, row), mask=row < n, other=0.0)
                one, two, three = added(one, two, three, a, shift, seen, FOLDS[p], SCALES[p], OFFSETS[p], FALLS[p])
            new_total, new_peak, new_fall = new_total + (one,), new_peak + (two,), new_fall + (three,)
        total, peak, fall = new_total, new_peak, new_fall
    for p in tl.static_range(len(FOLDS)):
        tl.store(sums + placed(p, n, row), total[p], mask=row < n)
        tl.store(peaks + placed(p, n, row), peak[p], mask=row < n)
        tl.store(falls + placed(p, n, row), fall[p], mask=row < n)


@triton.jit
def pulled(a, weight, shift, seen, fold: tl.constexpr, scale: tl.constexpr, offset: tl.constexpr):
    """A part's share of C in a tile; where a weight is 0 the rest may be infinite."""
    seen = seen & (weight != 0.0)
    t = tl.where(seen, a * scale + offset - shift, 0.0)
    return tl.where(seen, fold_slope(fold, t) * weight, 0.0)


@triton.jit
def pull_kernel(
    rows,
    columns,
    labels,
    key_labels,
    samples,
    key_samples,
    first,
    last,
    temperature,
    bias,
    weights,
    shifts,
    key_weights,
    key_shifts,
    gradient,
    sums,
    moments,
    n,
    m,
    d,
    FOLDS: tl.constexpr,
    OVERS: tl.constexpr,
    SCALES: tl.constexpr,
    OFFSETS: tl.constexpr,
    LOGIT: tl.constexpr,
    NUMBERS: tl.constexpr,
    PARTNERS: tl.constexpr,
    BAND: tl.constexpr,
    OWN: tl.constexpr,
    OTHERS: tl.constexpr,
    TILE: tl.constexpr,
    ENTRIES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Some entries of the gradient of a block of rows; the first program of a block also has Σ C and Σ C value(s)."""
    kind: tl.constexpr = rows.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    entry = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inverse, moved = 1.0 / tl.load(temperature), tl.load(bias)
    label, sample = tl.load(labels + row, mask=row < n, other=0), tl.load(samples + row, mask=row < n, other=0)
    low = tl.load(first + tl.program_id(0).to(tl.int64) * TILE)
    high = tl.load(last + tl.minimum(tl.program_id(0).to(tl.int64) * TILE + TILE, n) - 1)
    result = tl.zeros((TILE, WIDTH), kind)
    total, moment = tl.zeros((TILE,), kind), tl.zeros((TILE,), kind)
    for start in range(low // TILE * TILE if BAND else 0, high if BAND else m, TILE):
        column = tl.arange(0, TILE).to(tl.int64) + start
        real = column < m
        key_label = tl.load(key_labels + column, mask=real, other=0)
        key_sample = tl.load(key_samples + column, mask=real, other=0)
        s = similarities(rows, columns, row, column, n, m, d, TILE, ENTRIES)
        value = logit_value(LOGIT, NUMBERS, s)
        a = value * inverse + moved
        own, other = tl.zeros((TILE, TILE), kind), tl.zeros((TILE, TILE), kind)
        for p in tl.static_range(len(FOLDS)):
            if OVERS[p] == "negative" or ((start < high) & (start + TILE > low)):
                seen = real[None, :] & related(
                    OVERS[p], PARTNERS, label[:, None], key_label[None, :], sample[:, None], key_sample[None, :]
                )
                if OWN:
                    weight = tl.load(weights + placed(p, n, row), mask=row < n, other=0.0)[:, None]
                    shift = tl.load(shifts + placed(p, n, row), mask=row < n, other=0.0)[:, None]
                    own += pulled(a, weight, shift, seen, FOLDS[p], SCALES[p], OFFSETS[p])
                if OTHERS:
                    weight = tl.load(key_weights + placed(p, m, column), mask=real, other=0.0)[None, :]
                    shift = tl.load(key_shifts + placed(p, m, column), mask=real, other=0.0)[None, :]
                    other += pulled(a, weight, shift, seen, FOLDS[p], SCALES[p], OFFSETS[p])
        if OWN:
            total += tl.sum(own, axis=1)
            moment += tl.sum(own * value, axis=1)
        c = (own + other) * logit_slope(LOGIT, NUMBERS, s)
        across = tl.load(
            columns + column[:, None] * d + entry[None, :], mask=real[:, None] & (entry[None, :] < d), other=0.0
        )
        result = tl.dot(c, across, result, input_precision="ieee", out_dtype=kind)
    tl.store(gradient + row[:, None] * d + entry[None, :], result, mask=(row[:, None] < n) & (entry[None, :] < d))
    if OWN and tl.program_id(1) == 0:
        tl.store(sums + row, total, mask=row < n)
        tl.store(moments + row, moment, mask=row < n)
