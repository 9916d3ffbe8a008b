"""Triton kernels for sweeps over all pairs: the words of the protocol as small device functions, and two programs of them.

A program owns a block of rows, goes over tiles of columns and keeps its sums in registers, so there are no atomics and a
rerun gives the same bits. KernelSpec are chosen when a program is compiled: one is made for each combination of words, never for
a loss. Exponentials are powers of two. A tile that is known to be full of negatives needs no mask.

Products of float32 are taken in full float32. Rows of float16 and bfloat16 are multiplied as they came, which tensor cores do
exactly, with sums in float32; what the rows are to be divided by is divided out after the product. The coefficients of the
gradient are float32, and go through tensor cores in three pieces of 8 digits, so that none is lost.

No annotation of this file is a Python type: Triton reads them.
"""

import triton
import triton.language as tl

LOG2_E, LN_2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether these kernels were made for Triton's interpreter, which multiplies bfloat16 as if it were integers."""

LOGITS = ("Similarity", "LogKernel", "CosineSchedule", "ShiftedSchedule")
"""The logits that `logit_value` and `logit_slope` know, by the name of their word."""


@triton.jit
def log1p(x):
    """`log(1 + x)` of x from 0 to 1, which devices have only as an approximation: 2 artanh(x / (2 + x)), a series in 1/9."""
    terms: tl.constexpr = 17 if x.dtype == tl.float64 else 8
    z = x / (x + 2.0)
    square = z * z
    total = square * 0.0 + 1.0 / (2 * terms + 1)
    for k in tl.static_range(terms - 1, -1, -1):
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
def unit(fold: tl.constexpr):
    """What the argument of a fold is multiplied by: exponentials are taken to the base 2."""
    if fold == "exp" or fold == "logsumexp":
        return LOG2_E
    else:
        return tl.constexpr(1.0)


@triton.jit
def fold_value(fold: tl.constexpr, t):
    """ψ of a fold that is a sum, at t in its unit."""
    if fold == "linear":
        return t
    elif fold == "exp":
        return tl.exp2(t)
    elif fold == "softplus":
        return softplus(t)
    else:
        tl.static_assert(fold == "sigmoid_squared")
        s = sigmoid(t)
        return s * s


@triton.jit
def fold_slope(fold: tl.constexpr, t):
    """ψ′ at t in its unit; of a log-sum-exp, whose total has gone into t, its share `exp(t)`."""
    if fold == "linear":
        return t * 0.0 + 1.0
    elif fold == "exp" or fold == "logsumexp":
        return tl.exp2(t)
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
def line(fold: tl.constexpr, scale: tl.constexpr, offset: tl.constexpr, inverse, moved, shift):
    """Slope and intercept of the argument of a part's fold, in its unit, by the logit at temperature 1."""
    return inverse * (scale * unit(fold)), (moved * scale + offset - shift) * unit(fold)


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
def only(x, other, masked, tile, over: tl.constexpr, partners: tl.constexpr):
    """Numbers of a tile, with another number where a pair is not a part's; without `masked` every pair is.

    `tile` has pointers to its labels and samples, and how many rows and columns are left: they are read where a mask is made.
    """
    if masked:
        labels, key_labels, samples, key_samples, rows_left, columns_left = tile
        i, j = tl.arange(0, x.shape[0]), tl.arange(0, x.shape[1])
        label, sample = (
            tl.load(labels + i, mask=i < rows_left, other=0),
            tl.load(samples + i, mask=i < rows_left, other=0),
        )
        key_label = tl.load(key_labels + j, mask=j < columns_left, other=0)
        key_sample = tl.load(key_samples + j, mask=j < columns_left, other=0)
        seen = related(over, partners, label[:, None], key_label[None, :], sample[:, None], key_sample[None, :])
        x = tl.where((j < columns_left)[None, :] & seen, x, other)
    return x


@triton.jit
def values(fold: tl.constexpr, t, masked, tile, over: tl.constexpr, partners: tl.constexpr):
    """ψ of a tile, 0 where a pair is not a part's."""
    if fold == "exp":
        return fold_value(fold, only(t, -float("inf"), masked, tile, over, partners))
    else:
        return only(fold_value(fold, t), 0.0, masked, tile, over, partners)


@triton.jit
def slopes(fold: tl.constexpr, t, masked, tile, over: tl.constexpr, partners: tl.constexpr):
    """ψ′ of a tile, 0 where a pair is not a part's."""
    if fold == "exp" or fold == "logsumexp":
        return fold_slope(fold, only(t, -float("inf"), masked, tile, over, partners))
    else:
        return only(fold_slope(fold, t), 0.0, masked, tile, over, partners)


@triton.jit
def product(a, b, total):
    """`total + a @ b`, summed in the type of the total."""
    if INTERPRETED:
        a, b = a.to(total.dtype), b.to(total.dtype)
    return tl.dot(a, b, total, input_precision="ieee", out_dtype=total.dtype)


@triton.jit
def leading(x):
    """The first 8 digits of float32, which are a bfloat16."""
    return (x.to(tl.uint32, bitcast=True) & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def weighed(c, rows, total):
    """`total + c @ rows`; of half rows in pieces that tensor cores multiply exactly."""
    if rows.dtype == tl.bfloat16:
        for _ in tl.static_range(3):
            piece = leading(c)
            c -= piece
            total = product(piece.to(tl.bfloat16), rows, total)
    elif rows.dtype == tl.float16:
        long = rows.to(tl.float32)
        high = leading(long)
        low = (long - high).to(tl.bfloat16)
        for k in tl.static_range(3):
            piece = leading(c)
            c -= piece
            total = product(piece.to(tl.bfloat16), high.to(tl.bfloat16), total)
            if k < 2:  # what is left out is less than the last digit
                total = product(piece.to(tl.bfloat16), low, total)
    else:
        total = product(c, rows, total)
    return total


@triton.jit
def similarities(
    rows,
    columns,
    row_factor,
    column_factor,
    rows_left,
    columns_left,
    d,
    kind: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    entries: tl.constexpr,
):
    """The similarities of a tile, from pointers to its first row and its first column; 0 beyond the ends."""
    i, j = tl.arange(0, height), tl.arange(0, width)
    s = tl.zeros((height, width), kind)
    for start in range(0, d, entries):
        entry = start + tl.arange(0, entries)
        inside = entry < d
        a = tl.load(rows + i[:, None] * d + entry[None, :], mask=(i < rows_left)[:, None] & inside[None, :], other=0.0)
        b = tl.load(
            columns + j[None, :] * d + entry[:, None], mask=(j < columns_left)[None, :] & inside[:, None], other=0.0
        )
        s = product(a, b, s)
    if rows.dtype.element_ty != kind:
        s = s * row_factor[:, None] * column_factor[None, :]
    return s


@triton.jit
def nothing_yet(parts: tl.constexpr, number: tl.constexpr, size: tl.constexpr, kind: tl.constexpr):
    """A vector of a number for each part."""
    result = ()
    for _ in tl.static_range(parts):
        result = result + (tl.full((size,), number, kind),)
    return result


@triton.jit
def placed(table, part: tl.constexpr, n, first):
    """Where the numbers of a part and of some rows are in a table `[parts, n]`."""
    return table + tl.cast(n, tl.int64) * part + first


@triton.jit
def tally_kernel(
    rows,
    columns,
    row_factors,
    column_factors,
    labels,
    key_labels,
    samples,
    key_samples,
    firsts,
    lasts,
    temperature,
    bias,
    shifts,
    sums,
    peaks,
    slope_sums,
    n,
    m,
    d,
    FOLDS: tl.constexpr,
    OVERS: tl.constexpr,
    SCALES: tl.constexpr,
    OFFSETS: tl.constexpr,
    WITH_SLOPES: tl.constexpr,
    LOGIT: tl.constexpr,
    NUMBERS: tl.constexpr,
    PARTNERS: tl.constexpr,
    DISTINCT: tl.constexpr,
    BAND: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Sums, peaks and slope_sums `[parts, n]` of a block of rows."""
    kind: tl.constexpr = shifts.dtype.element_ty
    here = tl.program_id(0).to(tl.int64) * ROWS
    i, j = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    present = i < n - here
    inverse, moved = 1.0 / tl.load(temperature), tl.load(bias)
    row_factor = tl.load(row_factors + here + i, mask=present, other=0.0)
    low, high = tl.load(firsts + here), tl.load(lasts + tl.minimum(here + ROWS, n) - 1)
    total, peak = nothing_yet(len(FOLDS), 0.0, ROWS, kind), nothing_yet(len(FOLDS), -float("inf"), ROWS, kind)
    slope_sum = nothing_yet(len(FOLDS), 0.0, ROWS, kind)
    for start in range(low // COLUMNS * COLUMNS if BAND else 0, high if BAND else m, COLUMNS):
        there = tl.cast(start, tl.int64)
        real = j < m - there
        column_factor = tl.load(column_factors + there + j, mask=real, other=0.0)
        tile = (labels + here, key_labels + there, samples + here, key_samples + there, n - here, m - there)
        meet = (start < high) & (start + COLUMNS > low)
        masked = meet | (start + COLUMNS > m) if DISTINCT else True
        s = similarities(
            rows + here * d,
            columns + there * d,
            row_factor,
            column_factor,
            n - here,
            m - there,
            d,
            kind,
            ROWS,
            COLUMNS,
            ENTRIES,
        )
        value = logit_value(LOGIT, NUMBERS, s)
        new_total, new_peak, new_fall = (), (), ()
        for p in tl.static_range(len(FOLDS)):
            one, two, three = total[p], peak[p], slope_sum[p]
            if OVERS[p] == "negative" or meet:
                shift = tl.load(placed(shifts, p, n, here) + i, mask=present, other=0.0)
                slope, intercept = line(FOLDS[p], SCALES[p], OFFSETS[p], inverse, moved, shift)
                t = value * slope + intercept[:, None]
                if FOLDS[p] == "logsumexp":
                    t = only(t, -float("inf"), masked, tile, OVERS[p], PARTNERS)
                    before = two
                    two = tl.maximum(before, tl.max(t, axis=1))
                    finite = tl.where(two > -float("inf"), two, 0.0)
                    one = one * tl.exp2(before - finite) + tl.sum(tl.exp2(t - finite[:, None]), axis=1)
                else:
                    one += tl.sum(values(FOLDS[p], t, masked, tile, OVERS[p], PARTNERS), axis=1)
                    if WITH_SLOPES[p]:
                        three += SCALES[p] * tl.sum(slopes(FOLDS[p], t, masked, tile, OVERS[p], PARTNERS), axis=1)
            new_total, new_peak, new_fall = new_total + (one,), new_peak + (two,), new_fall + (three,)
        total, peak, slope_sum = new_total, new_peak, new_fall
    for p in tl.static_range(len(FOLDS)):
        tl.store(placed(sums, p, n, here) + i, total[p], mask=present)
        tl.store(placed(peaks, p, n, here) + i, peak[p] * LN_2, mask=present)
        tl.store(placed(slope_sums, p, n, here) + i, slope_sum[p], mask=present)


@triton.jit
def neutral_intercept(fold: tl.constexpr, weight, intercept):
    """The intercept of a part, or where its weight is 0, and the rest may be infinite, one that adds nothing."""
    if fold == "exp" or fold == "logsumexp":
        return tl.where(weight != 0.0, intercept, -float("inf"))
    else:
        return tl.where(weight != 0.0, intercept, 0.0)


@triton.jit
def pull_kernel(
    rows,
    columns,
    row_factors,
    column_factors,
    labels,
    key_labels,
    samples,
    key_samples,
    firsts,
    lasts,
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
    DISTINCT: tl.constexpr,
    BAND: tl.constexpr,
    OWN: tl.constexpr,
    OTHERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ENTRIES: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICES: tl.constexpr,
):
    """Some entries of the gradient of a block of rows; the first program of a block also has Σ C and Σ C value(s)."""
    kind: tl.constexpr = gradient.dtype.element_ty
    here = tl.program_id(0).to(tl.int64) * ROWS
    i, j = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    entry = tl.program_id(1) * (SLICES * WIDTH) + tl.arange(0, WIDTH)
    present = i < n - here
    inverse, moved = 1.0 / tl.load(temperature), tl.load(bias)
    row_factor = tl.load(row_factors + here + i, mask=present, other=0.0)
    low, high = tl.load(firsts + here), tl.load(lasts + tl.minimum(here + ROWS, n) - 1)
    result = ()
    for _ in tl.static_range(SLICES):
        result = result + (tl.zeros((ROWS, WIDTH), kind),)
    total, moment = tl.zeros((ROWS,), kind), tl.zeros((ROWS,), kind)
    for start in range(low // COLUMNS * COLUMNS if BAND else 0, high if BAND else m, COLUMNS):
        there = tl.cast(start, tl.int64)
        real = j < m - there
        column_factor = tl.load(column_factors + there + j, mask=real, other=0.0)
        tile = (labels + here, key_labels + there, samples + here, key_samples + there, n - here, m - there)
        meet = (start < high) & (start + COLUMNS > low)
        masked = meet | (start + COLUMNS > m) if DISTINCT else True
        s = similarities(
            rows + here * d,
            columns + there * d,
            row_factor,
            column_factor,
            n - here,
            m - there,
            d,
            kind,
            ROWS,
            COLUMNS,
            ENTRIES,
        )
        value = logit_value(LOGIT, NUMBERS, s)
        own, other = tl.zeros((ROWS, COLUMNS), kind), tl.zeros((ROWS, COLUMNS), kind)
        for p in tl.static_range(len(FOLDS)):
            if OVERS[p] == "negative" or meet:
                if OWN:
                    weight = tl.load(placed(weights, p, n, here) + i, mask=present, other=0.0)
                    shift = tl.load(placed(shifts, p, n, here) + i, mask=present, other=0.0)
                    slope, intercept = line(FOLDS[p], SCALES[p], OFFSETS[p], inverse, moved, shift)
                    t = value * slope + neutral_intercept(FOLDS[p], weight, intercept)[:, None]
                    own += slopes(FOLDS[p], t, masked, tile, OVERS[p], PARTNERS) * weight[:, None]
                if OTHERS:
                    weight = tl.load(placed(key_weights, p, m, there) + j, mask=real, other=0.0)
                    shift = tl.load(placed(key_shifts, p, m, there) + j, mask=real, other=0.0)
                    slope, intercept = line(FOLDS[p], SCALES[p], OFFSETS[p], inverse, moved, shift)
                    t = value * slope + neutral_intercept(FOLDS[p], weight, intercept)[None, :]
                    other += slopes(FOLDS[p], t, masked, tile, OVERS[p], PARTNERS) * weight[None, :]
        if OWN:
            total += tl.sum(own, axis=1)
            moment += tl.sum(own * value, axis=1)
        c = (own + other) * logit_slope(LOGIT, NUMBERS, s)
        if rows.dtype.element_ty != kind:
            c = c * column_factor[None, :]
        new_result = ()
        for k in tl.static_range(SLICES):
            across = tl.load(
                columns + there * d + j[:, None] * d + (entry + k * WIDTH)[None, :],
                mask=real[:, None] & (entry + k * WIDTH < d)[None, :],
                other=0.0,
            )
            new_result = new_result + (weighed(c, across, result[k]),)
        result = new_result
    for k in tl.static_range(SLICES):
        tl.store(
            gradient + here * d + i[:, None] * d + (entry + k * WIDTH)[None, :],
            result[k],
            mask=present[:, None] & (entry + k * WIDTH < d)[None, :],
        )
    if OWN and tl.program_id(1) == 0:
        tl.store(sums + here + i, total, mask=present)
        tl.store(moments + here + i, moment, mask=present)
