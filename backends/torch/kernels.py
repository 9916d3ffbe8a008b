"""Triton kernels for sweeps over all pairs: small device functions for the vocabulary of `spec`, and two programs of them.

FlashAttention-style: a program owns a block of rows, loops over tiles of columns, recomputes their similarities and keeps its
accumulators in registers. So there are no atomics, and a rerun gives the same bits. What a loss is made of is chosen when a
program is compiled: there is one for each combination of folds, pairs and logit, never one for a loss. Exponentials are
powers of two. A tile that is known to hold negatives only needs no mask.

float32 is multiplied in full float32, without TF32. Rows of float16 and bfloat16 are multiplied as they came, which tensor
cores do exactly, and accumulated in float32; their norms are divided out after the product. The coefficients of the gradient
are float32: tensor cores multiply them as a sum of three bfloat16, which loses no digit.

No annotation of this file is a Python type: Triton reads them. It compiles under Triton 3.6 and later, where a tuple that was
given to a program has plain values, so that a word of one is named by an annotated constant before it is handed on.
"""

import triton
import triton.language as tl

LOG2_E, LN_2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether these kernels were made for Triton's interpreter, which multiplies bfloat16 as if it were integers."""

LOGITS = ("Similarity", "LogKernel", "CosineSchedule", "ShiftedSchedule")
"""The logits that `logit_value` and `logit_slope` know, by the name of their class."""


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
def fold_value(fold: tl.constexpr, t):
    """ψ(t) of a fold that is a plain sum, with t in its unit."""
    if fold == "linear":
        return t
    elif fold == "exp":
        return tl.exp2(t)
    elif fold == "softplus":
        return softplus(t)
    elif fold == "hinge":
        return tl.where(t > 0.0, t, 0.0)
    elif fold == "square":
        return t * t
    else:
        tl.static_assert(fold == "sigmoid_squared")
        s = sigmoid(t)
        return s * s


@triton.jit
def fold_slope(fold: tl.constexpr, t):
    """ψ′(t), with t in its unit; of a log-sum-exp the softmax `exp(t)`, whose normaliser is in t already."""
    if fold == "linear":
        return t * 0.0 + 1.0
    elif fold == "exp" or fold == "logsumexp":
        return tl.exp2(t)
    elif fold == "softplus":
        return sigmoid(t)
    elif fold == "hinge":
        return tl.where(t > 0.0, t * 0.0 + 1.0, 0.0)
    elif fold == "square":
        return 2.0 * t
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
        inside = s <= tl.full(s.shape, -offset, s.dtype)  # Triton takes a bare float for float32 here, and in `where`
        tau = tl.where(inside, low + (0.5 * (high - low)) * (1.0 + tl.cos(angle)), tl.full(s.shape, high, s.dtype))
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
def argument(fold: tl.constexpr, scale: tl.constexpr, offset: tl.constexpr, inverse_temperature, bias, shift):
    """Slope and intercept of a part's argument `scale * a + offset - shift`, in the fold's unit, as a line of `value(s)`.

    The unit of exponentials is log2(e): they are taken to the base 2. A constant, since Triton 3.6 returns floats as float32.
    """
    unit: tl.constexpr = LOG2_E if fold == "exp" or fold == "logsumexp" else 1.0
    return inverse_temperature * (scale * unit), (bias * scale + offset - shift) * unit


@triton.jit
def related(over: tl.constexpr, partners: tl.constexpr, label, key_label, sample, key_sample):
    """The mask of positives or negatives, as `relations` says."""
    if partners:
        return label != key_label
    elif over == "positive":
        return (label == key_label) & (sample != key_sample)
    else:
        return (label != key_label) & (sample != key_sample)


@triton.jit
def fill_masked(x, fill, masked, tile, over: tl.constexpr, partners: tl.constexpr):
    """A tile `[block_q, block_k]`, with `fill` where a pair is not one of the part's; unless `masked`, every pair is.

    `tile` has pointers to its labels and samples, and how many rows and columns are left: read only where a mask is made.
    """
    if masked:
        labels, key_labels, samples, key_samples, rows_left, columns_left = tile
        i, j = tl.arange(0, x.shape[0]), tl.arange(0, x.shape[1])
        label = tl.load(labels + i, mask=i < rows_left, other=0)  # [block_q]
        sample = tl.load(samples + i, mask=i < rows_left, other=0)  # [block_q]
        key_label = tl.load(key_labels + j, mask=j < columns_left, other=0)  # [block_k]
        key_sample = tl.load(key_samples + j, mask=j < columns_left, other=0)  # [block_k]
        mask = related(over, partners, label[:, None], key_label[None, :], sample[:, None], key_sample[None, :])
        if INTERPRETED:  # whose NumPy warns where rows beyond the end overflow; nobody reads them
            mask = mask & (i < rows_left)[:, None]
        x = tl.where((j < columns_left)[None, :] & mask, x, fill)
    return x


@triton.jit
def masked_values(fold: tl.constexpr, t, masked, tile, over: tl.constexpr, partners: tl.constexpr):
    """ψ of a tile `[block_q, block_k]`, 0 where a pair is not one of the part's."""
    if fold == "exp":
        return fold_value(fold, fill_masked(t, -float("inf"), masked, tile, over, partners))
    else:
        return fill_masked(fold_value(fold, t), 0.0, masked, tile, over, partners)


@triton.jit
def masked_slopes(fold: tl.constexpr, t, masked, tile, over: tl.constexpr, partners: tl.constexpr):
    """ψ′ of a tile `[block_q, block_k]`, 0 where a pair is not one of the part's."""
    if fold == "exp" or fold == "logsumexp":
        return fold_slope(fold, fill_masked(t, -float("inf"), masked, tile, over, partners))
    else:
        return fill_masked(fold_slope(fold, t), 0.0, masked, tile, over, partners)


@triton.jit
def dot(a, b, accumulator):
    """`accumulator + a @ b`, summed in the type of the accumulator."""
    if INTERPRETED:
        a, b = a.to(accumulator.dtype), b.to(accumulator.dtype)
    return tl.dot(a, b, accumulator, input_precision="ieee", out_dtype=accumulator.dtype)


@triton.jit
def bfloat16_head(x):
    """The first 8 digits of float32, which are a bfloat16."""
    return (x.to(tl.uint32, bitcast=True) & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def coefficient_dot(c, rows, accumulator):
    """`accumulator + c @ rows`; with rows of a half type, c is split into bfloat16 that tensor cores multiply exactly."""
    if rows.dtype == tl.bfloat16:
        for _ in tl.static_range(3):
            head = bfloat16_head(c)
            c -= head
            accumulator = dot(head.to(tl.bfloat16), rows, accumulator)
    elif rows.dtype == tl.float16:
        full = rows.to(tl.float32)
        rows_head = bfloat16_head(full)
        rows_rest = (full - rows_head).to(tl.bfloat16)
        for k in tl.static_range(3):
            head = bfloat16_head(c)
            c -= head
            accumulator = dot(head.to(tl.bfloat16), rows_head.to(tl.bfloat16), accumulator)
            if k < 2:  # the product of the two rests is less than the last digit
                accumulator = dot(head.to(tl.bfloat16), rows_rest, accumulator)
    else:
        accumulator = dot(c, rows, accumulator)
    return accumulator


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
    block_q: tl.constexpr,
    block_k: tl.constexpr,
    block_d: tl.constexpr,
):
    """The similarities of a tile, from pointers to its first row and its first column; 0 beyond the ends."""
    i, j = tl.arange(0, block_q), tl.arange(0, block_k)
    s = tl.zeros((block_q, block_k), kind)  # [block_q, block_k]
    for start in range(0, d, block_d):
        entry = start + tl.arange(0, block_d)
        inside = entry < d
        a = tl.load(  # [block_q, block_d]
            rows + i[:, None] * d + entry[None, :], mask=(i < rows_left)[:, None] & inside[None, :], other=0.0
        )
        b = tl.load(  # [block_d, block_k]
            columns + j[None, :] * d + entry[:, None], mask=(j < columns_left)[None, :] & inside[:, None], other=0.0
        )
        s = dot(a, b, s)
    if rows.dtype.element_ty != kind:
        s = s * row_factor[:, None] * column_factor[None, :]
    return s


@triton.jit
def per_part(parts: tl.constexpr, fill: tl.constexpr, block_q: tl.constexpr, kind: tl.constexpr):
    """An accumulator `[block_q]` for each part."""
    result = ()
    for _ in tl.static_range(parts):
        result = result + (tl.full((block_q,), fill, kind),)
    return result


@triton.jit
def of_part(table, part: tl.constexpr, n, first):
    """A pointer into a table `[parts, n]`: a part, from a row on."""
    return table + tl.cast(n, tl.int64) * part + first


@triton.jit
def accumulate_part(
    FOLDS: tl.constexpr,
    OVERS: tl.constexpr,
    SCALES: tl.constexpr,
    OFFSETS: tl.constexpr,
    WITH_SLOPES: tl.constexpr,
    PARTNERS: tl.constexpr,
    part: tl.constexpr,
    value,
    inverse_temperature,
    bias,
    shift,
    masked,
    tile,
    total,
    peak,
    slope_sum,
):
    """The accumulators `[block_q]` of a part with a tile added: online softmax for a log-sum-exp, else a plain sum."""
    fold: tl.constexpr = FOLDS[part]
    over: tl.constexpr = OVERS[part]
    scale: tl.constexpr = SCALES[part]
    offset: tl.constexpr = OFFSETS[part]
    slope, intercept = argument(fold, scale, offset, inverse_temperature, bias, shift)
    t = value * slope + intercept[:, None]  # [block_q, block_k]
    if fold == "logsumexp":
        t = fill_masked(t, -float("inf"), masked, tile, over, PARTNERS)
        new_peak = tl.maximum(peak, tl.max(t, axis=1))
        finite = tl.where(new_peak > -float("inf"), new_peak, 0.0)  # of a row that has met no pair yet
        total = total * tl.exp2(peak - finite) + tl.sum(tl.exp2(t - finite[:, None]), axis=1)
        peak = new_peak
    else:
        total += tl.sum(masked_values(fold, t, masked, tile, over, PARTNERS), axis=1)
        if WITH_SLOPES[part]:
            slope_sum += scale * tl.sum(masked_slopes(fold, t, masked, tile, over, PARTNERS), axis=1)
    return total, peak, slope_sum


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
    length,
    shifts,
    sums,
    peaks,
    slope_sums,
    n,
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
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sums, running maxima and slope sums `[parts, n]` of a block of rows; with BAND only where labels meet."""
    kind: tl.constexpr = shifts.dtype.element_ty
    here = tl.program_id(0).to(tl.int64) * BLOCK_Q
    i, j = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    present = i < n - here
    inverse_temperature, offset = 1.0 / tl.load(temperature), tl.load(bias)
    count = tl.load(length)  # columns that take part; those that do not are last
    row_factor = tl.load(row_factors + here + i, mask=present, other=0.0)  # [block_q]
    low, high = tl.load(firsts + here), tl.load(lasts + tl.minimum(here + BLOCK_Q, n) - 1)
    total = per_part(len(FOLDS), 0.0, BLOCK_Q, kind)  # of each part [block_q]
    peak = per_part(len(FOLDS), -float("inf"), BLOCK_Q, kind)  # of each part [block_q]
    slope_sum = per_part(len(FOLDS), 0.0, BLOCK_Q, kind)  # of each part [block_q]
    for start in range(low // BLOCK_K * BLOCK_K if BAND else 0, high if BAND else count, BLOCK_K):
        there = tl.cast(start, tl.int64)
        real = j < count - there
        column_factor = tl.load(column_factors + there + j, mask=real, other=0.0)  # [block_k]
        tile = (labels + here, key_labels + there, samples + here, key_samples + there, n - here, count - there)
        meet = (start < high) & (start + BLOCK_K > low)
        masked = meet | (start + BLOCK_K > count) if DISTINCT else True
        s = similarities(  # [block_q, block_k]
            rows + here * d,
            columns + there * d,
            row_factor,
            column_factor,
            n - here,
            count - there,
            d,
            kind,
            BLOCK_Q,
            BLOCK_K,
            BLOCK_D,
        )
        value = logit_value(LOGIT, NUMBERS, s)  # [block_q, block_k]
        new_total, new_peak, new_slope_sum = (), (), ()
        for p in tl.static_range(len(FOLDS)):
            part_total, part_peak, part_slope_sum = total[p], peak[p], slope_sum[p]
            if OVERS[p] == "negative" or meet:
                shift = tl.load(of_part(shifts, p, n, here) + i, mask=present, other=0.0)  # [block_q]
                part_total, part_peak, part_slope_sum = accumulate_part(
                    FOLDS,
                    OVERS,
                    SCALES,
                    OFFSETS,
                    WITH_SLOPES,
                    PARTNERS,
                    p,
                    value,
                    inverse_temperature,
                    offset,
                    shift,
                    masked,
                    tile,
                    part_total,
                    part_peak,
                    part_slope_sum,
                )
            new_total, new_peak = new_total + (part_total,), new_peak + (part_peak,)
            new_slope_sum = new_slope_sum + (part_slope_sum,)
        total, peak, slope_sum = new_total, new_peak, new_slope_sum
    for p in tl.static_range(len(FOLDS)):
        tl.store(of_part(sums, p, n, here) + i, total[p], mask=present)
        tl.store(of_part(peaks, p, n, here) + i, peak[p] * LN_2, mask=present)
        tl.store(of_part(slope_sums, p, n, here) + i, slope_sum[p], mask=present)


@triton.jit
def neutral_intercept(fold: tl.constexpr, weight, intercept):
    """The intercept, replaced where a weight is 0 (the shift may be infinite there) by one whose slope is finite or 0."""
    if fold == "exp" or fold == "logsumexp":
        return tl.where(weight != 0.0, intercept, -float("inf"))
    else:
        return tl.where(weight != 0.0, intercept, 0.0)


@triton.jit
def part_cotangent(
    FOLDS: tl.constexpr,
    OVERS: tl.constexpr,
    SCALES: tl.constexpr,
    OFFSETS: tl.constexpr,
    PARTNERS: tl.constexpr,
    part: tl.constexpr,
    axis: tl.constexpr,
    value,
    inverse_temperature,
    bias,
    weight,
    shift,
    masked,
    tile,
):
    """`weight * ψ′(t)` of a tile `[block_q, block_k]`; weight and shift are by row (axis 0) or by column (axis 1)."""
    fold: tl.constexpr = FOLDS[part]
    over: tl.constexpr = OVERS[part]
    scale: tl.constexpr = SCALES[part]
    offset: tl.constexpr = OFFSETS[part]
    slope, intercept = argument(fold, scale, offset, inverse_temperature, bias, shift)
    intercept = neutral_intercept(fold, weight, intercept)
    if axis == 0:
        t = value * slope + intercept[:, None]
        return masked_slopes(fold, t, masked, tile, over, PARTNERS) * weight[:, None]
    else:
        t = value * slope + intercept[None, :]
        return masked_slopes(fold, t, masked, tile, over, PARTNERS) * weight[None, :]


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
    length,
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
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICES: tl.constexpr,
):
    """SLICES * WIDTH entries of the gradient of a block of rows; the first program of a block has Σ C, Σ C value(s) too.

    C is the cotangent of the logits `[block_q, block_k]`: from the rows' own losses (OWN) and the columns' (OTHERS).
    """
    kind: tl.constexpr = gradient.dtype.element_ty
    here = tl.program_id(0).to(tl.int64) * BLOCK_Q
    i, j = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    entry = tl.program_id(1) * (SLICES * WIDTH) + tl.arange(0, WIDTH)
    present = i < n - here
    inverse_temperature, offset = 1.0 / tl.load(temperature), tl.load(bias)
    count = tl.load(length)  # columns that take part; those that do not are last
    row_factor = tl.load(row_factors + here + i, mask=present, other=0.0)  # [block_q]
    low, high = tl.load(firsts + here), tl.load(lasts + tl.minimum(here + BLOCK_Q, n) - 1)
    accumulators = ()  # of each slice [block_q, width]
    for _ in tl.static_range(SLICES):
        accumulators = accumulators + (tl.zeros((BLOCK_Q, WIDTH), kind),)
    sum_dlogits, sum_dlogits_value = tl.zeros((BLOCK_Q,), kind), tl.zeros((BLOCK_Q,), kind)
    for start in range(low // BLOCK_K * BLOCK_K if BAND else 0, high if BAND else count, BLOCK_K):
        there = tl.cast(start, tl.int64)
        real = j < count - there
        column_factor = tl.load(column_factors + there + j, mask=real, other=0.0)  # [block_k]
        tile = (labels + here, key_labels + there, samples + here, key_samples + there, n - here, count - there)
        meet = (start < high) & (start + BLOCK_K > low)
        masked = meet | (start + BLOCK_K > count) if DISTINCT else True
        s = similarities(  # [block_q, block_k]
            rows + here * d,
            columns + there * d,
            row_factor,
            column_factor,
            n - here,
            count - there,
            d,
            kind,
            BLOCK_Q,
            BLOCK_K,
            BLOCK_D,
        )
        value = logit_value(LOGIT, NUMBERS, s)  # [block_q, block_k]
        c = tl.zeros((BLOCK_Q, BLOCK_K), kind)  # [block_q, block_k]
        if OWN:
            for p in tl.static_range(len(FOLDS)):
                if OVERS[p] == "negative" or meet:
                    weight = tl.load(of_part(weights, p, n, here) + i, mask=present, other=0.0)  # [block_q]
                    shift = tl.load(of_part(shifts, p, n, here) + i, mask=present, other=0.0)  # [block_q]
                    c += part_cotangent(
                        FOLDS,
                        OVERS,
                        SCALES,
                        OFFSETS,
                        PARTNERS,
                        p,
                        0,
                        value,
                        inverse_temperature,
                        offset,
                        weight,
                        shift,
                        masked,
                        tile,
                    )
            sum_dlogits += tl.sum(c, axis=1)
            sum_dlogits_value += tl.sum(c * value, axis=1)
        if OTHERS:  # after the sums of the rows' own, so that one matrix is enough
            for p in tl.static_range(len(FOLDS)):
                if OVERS[p] == "negative" or meet:
                    key_weight = tl.load(of_part(key_weights, p, m, there) + j, mask=real, other=0.0)  # [block_k]
                    key_shift = tl.load(of_part(key_shifts, p, m, there) + j, mask=real, other=0.0)  # [block_k]
                    c += part_cotangent(
                        FOLDS,
                        OVERS,
                        SCALES,
                        OFFSETS,
                        PARTNERS,
                        p,
                        1,
                        value,
                        inverse_temperature,
                        offset,
                        key_weight,
                        key_shift,
                        masked,
                        tile,
                    )
        c = c * logit_slope(LOGIT, NUMBERS, s)
        if rows.dtype.element_ty != kind:
            c = c * column_factor[None, :]
        new_accumulators = ()
        for k in tl.static_range(SLICES):
            across = tl.load(  # [block_k, width]
                columns + there * d + j[:, None] * d + (entry + k * WIDTH)[None, :],
                mask=real[:, None] & (entry + k * WIDTH < d)[None, :],
                other=0.0,
            )
            new_accumulators = new_accumulators + (coefficient_dot(c, across, accumulators[k]),)
        accumulators = new_accumulators
    for k in tl.static_range(SLICES):
        tl.store(
            gradient + here * d + i[:, None] * d + (entry + k * WIDTH)[None, :],
            accumulators[k],
            mask=present[:, None] & (entry + k * WIDTH < d)[None, :],
        )
    if OWN and tl.program_id(1) == 0:
        tl.store(sums + here + i, sum_dlogits, mask=present)
        tl.store(moments + here + i, sum_dlogits_value, mask=present)


@triton.jit
def product_tile(products, rows_left, columns_left, stride, block_q: tl.constexpr, block_k: tl.constexpr):
    """A tile `[block_q, block_k]` from a pointer to its first product; 0 beyond the ends."""
    i, j = tl.arange(0, block_q), tl.arange(0, block_k)
    there = (i < rows_left)[:, None] & (j < columns_left)[None, :]
    return tl.load(products + i[:, None] * stride + j[None, :], mask=there, other=0.0)


@triton.jit
def strip_tally_kernel(
    products,
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
    length,
    shifts,
    sums,
    peaks,
    slope_sums,
    n,
    m,
    FOLDS: tl.constexpr,
    OVERS: tl.constexpr,
    SCALES: tl.constexpr,
    OFFSETS: tl.constexpr,
    WITH_SLOPES: tl.constexpr,
    LOGIT: tl.constexpr,
    NUMBERS: tl.constexpr,
    PARTNERS: tl.constexpr,
    DISTINCT: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Sums, running maxima, slope sums `[chunks, parts, n]` of products `[n, m]` of full types: CHUNK columns a program."""
    kind: tl.constexpr = shifts.dtype.element_ty
    here, begin = tl.program_id(0).to(tl.int64) * BLOCK_Q, tl.program_id(1) * CHUNK
    i = tl.arange(0, BLOCK_Q)
    present = i < n - here
    inverse_temperature, offset = 1.0 / tl.load(temperature), tl.load(bias)
    count = tl.load(length)  # columns that take part; those that do not are last
    low, high = tl.load(firsts + here), tl.load(lasts + tl.minimum(here + BLOCK_Q, n) - 1)
    total = per_part(len(FOLDS), 0.0, BLOCK_Q, kind)  # of each part [block_q]
    peak = per_part(len(FOLDS), -float("inf"), BLOCK_Q, kind)  # of each part [block_q]
    slope_sum = per_part(len(FOLDS), 0.0, BLOCK_Q, kind)  # of each part [block_q]
    for start in range(begin, tl.minimum(begin + CHUNK, count), BLOCK_K):
        there = tl.cast(start, tl.int64)
        tile = (labels + here, key_labels + there, samples + here, key_samples + there, n - here, count - there)
        meet = (start < high) & (start + BLOCK_K > low)
        masked = meet | (start + BLOCK_K > count) if DISTINCT else True
        s = product_tile(
            products + here * m + there, n - here, count - there, m, BLOCK_Q, BLOCK_K
        )  # [block_q, block_k]
        value = logit_value(LOGIT, NUMBERS, s)  # [block_q, block_k]
        new_total, new_peak, new_slope_sum = (), (), ()
        for p in tl.static_range(len(FOLDS)):
            part_total, part_peak, part_slope_sum = total[p], peak[p], slope_sum[p]
            if OVERS[p] == "negative" or meet:
                shift = tl.load(of_part(shifts, p, n, here) + i, mask=present, other=0.0)  # [block_q]
                part_total, part_peak, part_slope_sum = accumulate_part(
                    FOLDS,
                    OVERS,
                    SCALES,
                    OFFSETS,
                    WITH_SLOPES,
                    PARTNERS,
                    p,
                    value,
                    inverse_temperature,
                    offset,
                    shift,
                    masked,
                    tile,
                    part_total,
                    part_peak,
                    part_slope_sum,
                )
            new_total, new_peak = new_total + (part_total,), new_peak + (part_peak,)
            new_slope_sum = new_slope_sum + (part_slope_sum,)
        total, peak, slope_sum = new_total, new_peak, new_slope_sum
    for p in tl.static_range(len(FOLDS)):
        row = tl.program_id(1) * len(FOLDS) + p
        place = tl.cast(n, tl.int64) * row + here + i
        tl.store(sums + place, total[p], mask=present)
        tl.store(peaks + place, peak[p] * LN_2, mask=present)
        tl.store(slope_sums + place, slope_sum[p], mask=present)


@triton.jit
def strip_cotangent_kernel(
    products,
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
    length,
    row_length,
    row_scales,
    column_scales,
    weights,
    shifts,
    key_weights,
    key_shifts,
    head,
    middle,
    rest,
    sums,
    moments,
    n,
    m,
    FOLDS: tl.constexpr,
    OVERS: tl.constexpr,
    SCALES: tl.constexpr,
    OFFSETS: tl.constexpr,
    LOGIT: tl.constexpr,
    NUMBERS: tl.constexpr,
    PARTNERS: tl.constexpr,
    DISTINCT: tl.constexpr,
    OWN: tl.constexpr,
    OTHERS: tl.constexpr,
    BOTH: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The cotangents C of products `[n, m]`: in place, or with HALF times the scales of both sides, as a sum of three bfloat16.

    Of each tile also its part of Σ C and Σ C value(s), `[tiles of columns, n]`: over the rows' own losses, or of BOTH sides.
    """
    kind: tl.constexpr = sums.dtype.element_ty
    here, there = tl.program_id(0).to(tl.int64) * BLOCK_Q, tl.program_id(1).to(tl.int64) * BLOCK_K
    i, j = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    count = tl.load(length)  # columns that take part; those that do not are last
    present, real = i < tl.load(row_length) - here, j < count - there
    inverse_temperature, offset = 1.0 / tl.load(temperature), tl.load(bias)
    row_factor = tl.load(row_factors + here + i, mask=i < n - here, other=0.0)  # [block_q]
    column_factor = tl.load(column_factors + there + j, mask=real, other=0.0)  # [block_k]
    low, high = tl.load(firsts + here), tl.load(lasts + tl.minimum(here + BLOCK_Q, n) - 1)
    tile = (labels + here, key_labels + there, samples + here, key_samples + there, n - here, count - there)
    meet = (there < high) & (there + BLOCK_K > low)
    masked = meet | (there + BLOCK_K > count) if DISTINCT else True
    s = product_tile(products + here * m + there, n - here, count - there, m, BLOCK_Q, BLOCK_K)  # [block_q, block_k]
    if HALF:  # products of rows as they came
        s = s * row_factor[:, None] * column_factor[None, :]
    value = logit_value(LOGIT, NUMBERS, s)  # [block_q, block_k]
    c = tl.zeros((BLOCK_Q, BLOCK_K), kind)  # [block_q, block_k]
    if OWN:
        for p in tl.static_range(len(FOLDS)):
            if OVERS[p] == "negative" or meet:
                weight = tl.load(of_part(weights, p, n, here) + i, mask=present, other=0.0)  # [block_q]
                shift = tl.load(of_part(shifts, p, n, here) + i, mask=present, other=0.0)  # [block_q]
                c += part_cotangent(
                    FOLDS,
                    OVERS,
                    SCALES,
                    OFFSETS,
                    PARTNERS,
                    p,
                    0,
                    value,
                    inverse_temperature,
                    offset,
                    weight,
                    shift,
                    masked,
                    tile,
                )
    place = tl.program_id(1).to(tl.int64) * n + here + i
    if OWN and not BOTH:
        tl.store(sums + place, tl.sum(c, axis=1), mask=i < n - here)
        tl.store(moments + place, tl.sum(c * value, axis=1), mask=i < n - here)
    if OTHERS:  # after the sums of the rows' own, so that one matrix is enough
        for p in tl.static_range(len(FOLDS)):
            if OVERS[p] == "negative" or meet:
                key_weight = tl.load(of_part(key_weights, p, m, there) + j, mask=real, other=0.0)  # [block_k]
                key_shift = tl.load(of_part(key_shifts, p, m, there) + j, mask=real, other=0.0)  # [block_k]
                c += part_cotangent(
                    FOLDS,
                    OVERS,
                    SCALES,
                    OFFSETS,
                    PARTNERS,
                    p,
                    1,
                    value,
                    inverse_temperature,
                    offset,
                    key_weight,
                    key_shift,
                    masked,
                    tile,
                )
        c = tl.where(present[:, None], c, 0.0)  # rows that take no part are no columns of the others
    if BOTH:
        tl.store(sums + place, tl.sum(c, axis=1), mask=i < n - here)
        tl.store(moments + place, tl.sum(c * value, axis=1), mask=i < n - here)
    c = c * logit_slope(LOGIT, NUMBERS, s)
    place = i[:, None] * m + j[None, :]  # [block_q, block_k]
    inside = (i < n - here)[:, None] & (j < m - there)[None, :]  # also where no column takes part: cotangents of 0
    if HALF:
        row_scale = tl.load(row_scales + here + i, mask=i < n - here, other=0.0)  # [block_q]
        column_scale = tl.load(column_scales + there + j, mask=real, other=0.0)  # [block_k]
        c = c * row_scale[:, None] * column_scale[None, :]
        for k in tl.static_range(3):
            piece = c.to(tl.bfloat16)
            c -= piece.to(kind)
            if k == 0:
                tl.store(head + here * m + there + place, piece, mask=inside)
            elif k == 1:
                tl.store(middle + here * m + there + place, piece, mask=inside)
            else:
                tl.store(rest + here * m + there + place, piece, mask=inside)
    else:
        tl.store(products + here * m + there + place, c, mask=inside)
