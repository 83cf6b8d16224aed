/* The arithmetic of one dtype. kernels.c includes this file once for each, with

       T       the bits of a stored value        A        the type that values are added up in (ABS takes it)
       LOAD    turns T into A                    ROUND    turns A into T, to nearest even
       LIMIT   the least A that rounds to infinity in T
       NAME    gives a function's name its dtype

   Products, sums and quotients are separate roundings on purpose (-ffp-contract=off): these are the bytes of torch. */

/* total = x, or total = x * w, or total += x, or total += x * w */
INLINE void NAME(add)(A *total, const T *x, A w, int weighted, int first, int n)
{
    if (first && weighted)
        for (int i = 0; i < n; i++) total[i] = LOAD(x[i]) * w;
    else if (first)
        for (int i = 0; i < n; i++) total[i] = LOAD(x[i]);
    else if (weighted)
        for (int i = 0; i < n; i++) total[i] += LOAD(x[i]) * w;
    else
        for (int i = 0; i < n; i++) total[i] += LOAD(x[i]);
}

/* Two summands in one pass: the sums are touched less often. */
INLINE void NAME(add_two)(A *total, const T *x, const T *y, int n)
{
    for (int i = 0; i < n; i++) total[i] = (total[i] + LOAD(x[i])) + LOAD(y[i]);
}

INLINE void NAME(divide)(A *total, A divisor, int n)
{
    for (int i = 0; i < n; i++) total[i] /= divisor;
}

INLINE void NAME(mean)(A *total, const T *const *x, int64_t count, int64_t start, int n)
{
    int64_t k = 1;
    NAME(add)(total, x[0] + start, 1, 0, 1, n);
    for (; k + 1 < count; k += 2) NAME(add_two)(total, x[k] + start, x[k + 1] + start, n);
    if (k < count) NAME(add)(total, x[k] + start, 1, 0, 0, n);
    NAME(divide)(total, (A)count, n);
}

/* delta = x - base, with DARE's mask and growth, or TIES' trimming */
INLINE void NAME(delta)(A *delta, const T *x, const T *base, const struct job *job, int64_t k, uint64_t first, int n)
{
    for (int i = 0; i < n; i++) delta[i] = LOAD(x[i]) - LOAD(base[i]);
    if (job->keys) {
        A grown = (A)job->grown;
        uint64_t key = job->keys[k];
        for (int i = 0; i < n; i++)
            delta[i] = delta[i] * (A)(keyed_uniform(key, first + (uint64_t)i) >= job->dropped) * grown;
    }
    if (job->thresholds) {
        float threshold = (float)job->thresholds[k];
        for (int i = 0; i < n; i++) delta[i] *= (A)(fabsf((float)delta[i]) >= threshold);
    }
}

INLINE void NAME(sum_of_deltas)(A *total, A *spare, const T *const *x, const T *base, const struct job *job,
                                int64_t count, int64_t start, uint64_t first, int n)
{
    for (int64_t k = 0; k < count; k++) {
        A w = (A)job->weights[k];
        NAME(delta)(spare, x[k] + start, base + start, job, k, first + (uint64_t)start, n);
        if (k == 0)
            for (int i = 0; i < n; i++) total[i] = spare[i] * w;
        else
            for (int i = 0; i < n; i++) total[i] += spare[i] * w;
    }
    NAME(divide)(total, (A)job->divisor, n);
}

/* keep * s of consensus; deltas [count, n] are in memory already */
INLINE void NAME(consensus)(A *total, const A *deltas, const struct job *job, int64_t count, int n)
{
    A plain[CHUNK], threshold = (A)job->threshold;
    int32_t votes[CHUNK];
    for (int i = 0; i < n; i++) plain[i] = 0, votes[i] = 0;
    for (int64_t k = 0; k < count; k++) {
        const A *d = deltas + k * CHUNK;
        A w = (A)job->weights[k];
        if (k == 0)
            for (int i = 0; i < n; i++) total[i] = d[i] * w, plain[i] = d[i];
        else
            for (int i = 0; i < n; i++) total[i] += d[i] * w, plain[i] += d[i];
    }
    for (int64_t k = 0; k < count; k++) {
        const A *d = deltas + k * CHUNK;
        for (int i = 0; i < n; i++) votes[i] += ABS(d[i]) > ABS(plain[i] - d[i]) * threshold;
    }
    for (int i = 0; i < n; i++) total[i] *= (A)(votes[i] >= job->agree);
}

/* Steps 2 and 3 of TIES; deltas [count, n] are in memory already */
INLINE void NAME(elect)(A *total, const A *deltas, const struct job *job, int64_t count, int n)
{
    A sign[CHUNK], shares[CHUNK];
    A majority = (A)job->majority;
    for (int64_t k = 0; k < count; k++) {
        const A *d = deltas + k * CHUNK;
        A w = (A)job->weights[k];
        if (k == 0)
            for (int i = 0; i < n; i++) total[i] = d[i] * w;
        else
            for (int i = 0; i < n; i++) total[i] += d[i] * w;
    }
    for (int i = 0; i < n; i++) {
        A s = (A)((total[i] > 0) - (total[i] < 0));
        sign[i] = s == 0 ? majority : s;
        total[i] = 0, shares[i] = 0;
    }
    for (int64_t k = 0; k < count; k++) {
        const A *d = deltas + k * CHUNK;
        A w = (A)job->weights[k];
        for (int i = 0; i < n; i++) {
            A agrees = (A)(d[i] * sign[i] > 0);
            total[i] += d[i] * agrees * w;
            shares[i] += agrees * w;
        }
    }
    if (job->mean)
        for (int i = 0; i < n; i++) total[i] /= shares[i] == 0 ? (A)1 : shares[i];
}

/* Whether a value of an input is not finite: what 0 times it becomes would hide it. */
INLINE int NAME(nonfinite)(const T *x, int n)
{
    int bad = 0;
    for (int i = 0; i < n; i++) bad |= !(ABS(LOAD(x[i])) < LIMIT);
    return bad;
}

/* Round and store; where all inputs hold the same bits those bits stay, if the job says so. */
INLINE int NAME(store)(T *out, const A *total, const T *const *x, const T *base, const struct job *job,
                       int64_t count, int64_t start, int n)
{
    int bad = 0;
    for (int i = 0; i < n; i++) {
        bad |= !(ABS(total[i]) < LIMIT);
        out[start + i] = ROUND(total[i]);
    }
    if (!job->keep_equal) return bad;
    const T *head = x[0] + start;
    T differs[CHUNK];
    for (int i = 0; i < n; i++) differs[i] = base ? base[start + i] ^ head[i] : 0;
    for (int64_t k = 1; k < count; k++) {
        const T *other = x[k] + start;
        for (int i = 0; i < n; i++) differs[i] |= other[i] ^ head[i];
    }
    for (int i = 0; i < n; i++) out[start + i] = differs[i] ? out[start + i] : head[i];
    return bad;
}

CLONES static int NAME(merge)(const T *const *x, const struct job *job, int64_t count, const T *base, T *out,
                              int64_t elements, uint64_t first, A *deltas)
{
    A total[CHUNK], spare[CHUNK], scale = (A)job->scale;
    int bad = 0;
    for (int64_t start = 0; start < elements && !bad; start += CHUNK) {
        int n = elements - start < CHUNK ? (int)(elements - start) : CHUNK;
        if (job->form == FORM_MEAN) {
            NAME(mean)(total, x, count, start, n);
        } else {
            for (int64_t k = 0; k < count; k++) bad |= NAME(nonfinite)(x[k] + start, n);
            if (base) bad |= NAME(nonfinite)(base + start, n);
        }
        if (job->form == FORM_SUM) {
            for (int64_t k = 0; k < count; k++) NAME(add)(total, x[k] + start, (A)job->weights[k], 1, k == 0, n);
            NAME(divide)(total, (A)job->divisor, n);
        } else if (job->form == FORM_DELTAS) {
            NAME(sum_of_deltas)(total, spare, x, base, job, count, start, first, n);
        } else if (job->form != FORM_MEAN) {
            for (int64_t k = 0; k < count; k++)
                NAME(delta)(deltas + k * CHUNK, x[k] + start, base + start, job, k, first + (uint64_t)start, n);
            if (job->form == FORM_CONSENSUS)
                NAME(consensus)(total, deltas, job, count, n);
            else
                NAME(elect)(total, deltas, job, count, n);
        }
        if (base)
            for (int i = 0; i < n; i++) total[i] = LOAD(base[start + i]) + total[i] * scale;
        bad |= NAME(store)(out, total, x, base, job, count, start, n);
    }
    return bad;
}

/* Whether the first input is finite throughout. */
CLONES static int NAME(is_finite)(const T *const *x, int64_t elements)
{
    int bad = 0;
    for (int64_t start = 0; start < elements && !bad; start += CHUNK)
        bad |= NAME(nonfinite)(x[0] + start, elements - start < CHUNK ? (int)(elements - start) : CHUNK);
    return !bad;
}

/* The sum of a unit's terms [UNIT], zeros where there are fewer: by lanes, and then the lanes by halves. */
#ifndef SUM_OF_UNIT
#define SUM_OF_UNIT
INLINE double sum_of_lanes(double *lanes)
{
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[half + i];
    return lanes[0];
}

INLINE double sum_of_unit(const double *terms)
{
    double lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = terms[i];
    for (int row = LANES; row < UNIT; row += LANES)
        for (int i = 0; i < LANES; i++) lanes[i] += terms[row + i];
    return sum_of_lanes(lanes);
}

/* The same of the products of two units; a quarter of the lanes at a time stays in registers. */
INLINE double dot_of_unit(const double *left, const double *right)
{
    double lanes[LANES];
    for (int first = 0; first < LANES; first += LANES / 4) {
        double part[LANES / 4];
        for (int i = 0; i < LANES / 4; i++) part[i] = left[first + i] * right[first + i];
        for (int row = LANES; row < UNIT; row += LANES)
            for (int i = 0; i < LANES / 4; i++) part[i] += left[row + first + i] * right[row + first + i];
        for (int i = 0; i < LANES / 4; i++) lanes[first + i] = part[i];
    }
    return sum_of_lanes(lanes);
}

/* The sum of the sums of units, a power of two of them, by halves. */
INLINE double sum_of_units(double *sums, int64_t units)
{
    for (int64_t half = units / 2; half; half /= 2)
        for (int64_t i = 0; i < half; i++) sums[i] += sums[half + i];
    return sums[0];
}
#endif

/* The dot products of all pairs of vectors, and how many elements of each are not 0.

   The vectors are x_i, or x_i - center, or the center and the x_i - center: `center` is the base, or the inputs' mean. A
   number is added up in an order that only its place in the block decides (soup.merging.methods.dot_products says it):
   in a unit of 1,024 elements by 64 lanes, then the lanes by halves, then the units by halves. */
CLONES static int NAME(dots)(const T *const *x, int around, int lead, int64_t count, const T *base, int64_t elements,
                             double *products, int64_t *moved)
{
    int64_t vectors = count + lead, pairs = vectors * (vectors + 1) / 2, units = 1;
    while (units * UNIT < elements) units *= 2;
    double *values = aligned_alloc(64, (size_t)vectors * UNIT * sizeof(double)); /* vectors across lines cost a half */
    double *sums = calloc((size_t)(pairs * units), sizeof(double));
    if (!values || !sums) {
        free(values), free(sums);
        return 0;
    }
    memset(moved, 0, (size_t)vectors * sizeof(int64_t));
    for (int64_t unit = 0, start = 0; start < elements; unit++, start += UNIT) {
        int n = elements - start < UNIT ? (int)(elements - start) : UNIT;
        A center[UNIT];
        if (n < UNIT) memset(values, 0, (size_t)vectors * UNIT * sizeof(double));
        if (around == AROUND_BASE)
            for (int i = 0; i < n; i++) center[i] = LOAD(base[start + i]);
        else if (around == AROUND_MEAN)
            NAME(mean)(center, x, count, start, n);
        else
            for (int i = 0; i < n; i++) center[i] = 0;
        if (lead)
            for (int i = 0; i < n; i++) values[i] = (double)center[i];
        for (int64_t k = 0; k < count; k++) {
            double *vector = values + (k + lead) * UNIT;
            const T *other = x[k] + start;
            if (around == AROUND_NOTHING)
                for (int i = 0; i < n; i++) vector[i] = (double)LOAD(other[i]);
            else
                for (int i = 0; i < n; i++) vector[i] = (double)(LOAD(other[i]) - center[i]);
        }
        for (int64_t k = 0, pair = 0; k < vectors; k++) {
            const double *left = values + k * UNIT;
            int count_of_moved = 0;
            for (int i = 0; i < UNIT; i++) count_of_moved += left[i] != 0;
            moved[k] += count_of_moved;
            for (int64_t j = k; j < vectors; j++, pair++)
                sums[pair * units + unit] = dot_of_unit(left, values + j * UNIT);
        }
    }
    for (int64_t pair = 0; pair < pairs; pair++) products[pair] = sum_of_units(sums + pair * units, units);
    free(values), free(sums);
    return 1;
}

/* Count the bits of |x - base| as float32: their upper halves, or the lower halves of those with a given upper one.
   `sums` [units] takes the sums of the differences in each unit, with upper halves. */
CLONES static int64_t NAME(histogram)(const T *const *x, const T *base, int64_t elements, int upper, int64_t *counts,
                                      double *sums)
{
    uint32_t bits[UNIT];
    int64_t moved = 0;
    for (int64_t start = 0; start < elements; start += UNIT) {
        int n = elements - start < UNIT ? (int)(elements - start) : UNIT;
        A differences[UNIT];
        for (int i = 0; i < n; i++) {
            differences[i] = LOAD(x[0][start + i]) - LOAD(base[start + i]);
            bits[i] = bits_of((float)differences[i]) & 0x7FFFFFFF;
            moved += bits[i] != 0;
        }
        if (upper < 0) {
            double terms[UNIT] = {0};
            for (int i = 0; i < n; i++) terms[i] = (double)differences[i];
            sums[start / UNIT] = sum_of_unit(terms);
            for (int i = 0; i < n; i++) counts[bits[i] >> 16]++;
            continue;
        }
        for (int row = 0; row < n; row += LANES) { /* few are in the bin: most rows have none */
            int last = n - row < LANES ? n : row + LANES, any = 0;
            for (int i = row; i < last; i++) any |= bits[i] >> 16 == (uint32_t)upper;
            for (int i = row; any && i < last; i++)
                if (bits[i] >> 16 == (uint32_t)upper) counts[bits[i] & 0xFFFF]++;
        }
    }
    return moved;
}

#undef T
#undef A
#undef LOAD
#undef ROUND
#undef LIMIT
#undef ABS
#undef NAME
