/* The arithmetic of one dtype. kernels.c includes this file once for each, with

       T       the bits of a stored value        A        the type that values are added up in (ABS takes it)
       LOAD    turns T into A                    ROUND    turns A into T, to nearest even
       LIMIT   the least A that rounds to infinity in T
       NAME    gives a function's name its dtype

   Products, sums and quotients are separate roundings on purpose (-ffp-contract=off): these are the bytes of torch. */

/* total = x * w, or total += x * w */
INLINE void NAME(add)(A *total, const T *x, A w, int first, int n)
{
    if (first)
        for (int i = 0; i < n; i++) total[i] = LOAD(x[i]) * w;
    else
        for (int i = 0; i < n; i++) total[i] += LOAD(x[i]) * w;
}

/* Some summands in one pass, a constant number: the sums are touched less often. */
INLINE void NAME(add_some)(A *total, const T *const *x, int64_t start, int some, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < some; k++) total[i] += LOAD(x[k][start + i]);
}

/* A power of two has an exact reciprocal: multiplying by it gives the same at a fraction of the cost. */
INLINE void NAME(divide)(A *total, A divisor, int n)
{
    int exponent;
    if (frexp((double)divisor, &exponent) == 0.5 && exponent > -100 && exponent < 100) {
        A inverse = 1 / divisor;
        for (int i = 0; divisor != 1 && i < n; i++) total[i] *= inverse;
    } else {
        for (int i = 0; i < n; i++) total[i] /= divisor;
    }
}

INLINE void NAME(mean)(A *total, const T *const *x, int64_t count, int64_t start, int n)
{
    A divisor = (A)count;
    for (int i = 0; i < n; i++) total[i] = (A)-0.0; /* adding to it changes nothing, signs of zeros included */
    for (; count >= 4; count -= 4, x += 4) NAME(add_some)(total, x, start, 4, n);
    if (count == 3) NAME(add_some)(total, x, start, 3, n);
    if (count == 2) NAME(add_some)(total, x, start, 2, n);
    if (count == 1) NAME(add_some)(total, x, start, 1, n);
    NAME(divide)(total, divisor, n);
}

/* delta = x - middle, with DARE's mask and growth, or TIES' trimming, and total += w * delta; `first` is the index of the
   first in its tensor. What is dropped is multiplied by 0: what is not finite stays so. */
INLINE void NAME(add_delta)(A *total, A *delta, const T *x, const A *middle, const struct job *job, int64_t k,
                            uint64_t first, int n)
{
    A w = (A)job->weights[k];
    if (job->keys) {
        A grown = (A)job->grown;
        int32_t dropped = (int32_t)job->dropped;
        uint64_t state = job->keys[k] + (first + 1) * SPLIT_MIX_STEP;
        for (int i = 0; i < n; i++, state += SPLIT_MIX_STEP) {
            delta[i] = (LOAD(x[i]) - middle[i]) * (is_kept(state, dropped) ? grown : 0);
            total[i] += delta[i] * w;
        }
    } else if (job->thresholds) {
        float threshold = (float)job->thresholds[k];
        for (int i = 0; i < n; i++) {
            A d = LOAD(x[i]) - middle[i];
            delta[i] = d * (A)(fabsf((float)d) >= threshold);
            total[i] += delta[i] * w;
        }
    } else {
        for (int i = 0; i < n; i++) {
            delta[i] = LOAD(x[i]) - middle[i];
            total[i] += delta[i] * w;
        }
    }
}

/* total = sum of w * delta; two deltas in one pass where they are plain */
INLINE void NAME(sum_of_deltas)(A *total, A *spare, const T *const *x, const A *middle, const struct job *job,
                                int64_t count, int64_t start, uint64_t first, int n)
{
    int64_t k = 0;
    for (int i = 0; i < n; i++) total[i] = (A)-0.0;
    for (; !job->keys && !job->thresholds && k + 1 < count; k += 2) {
        const T *left = x[k] + start, *right = x[k + 1] + start;
        A w = (A)job->weights[k], v = (A)job->weights[k + 1];
        for (int i = 0; i < n; i++)
            total[i] = (total[i] + (LOAD(left[i]) - middle[i]) * w) + (LOAD(right[i]) - middle[i]) * v;
    }
    for (; k < count; k++) NAME(add_delta)(total, spare, x[k] + start, middle, job, k, first + (uint64_t)start, n);
    NAME(divide)(total, (A)job->divisor, n);
}

/* deltas [count, CHUNK], and total = sum of w * delta */
INLINE void NAME(all_deltas)(A *total, A *deltas, const T *const *x, const A *middle, const struct job *job,
                             int64_t count, int64_t start, uint64_t first, int n)
{
    for (int i = 0; i < n; i++) total[i] = (A)-0.0;
    for (int64_t k = 0; k < count; k++)
        NAME(add_delta)(total, deltas + k * CHUNK, x[k] + start, middle, job, k, first + (uint64_t)start, n);
}

/* keep * s of consensus; `total` is s, and with weights of 1 the plain sum, too */
INLINE void NAME(consensus)(A *total, const A *deltas, const struct job *job, int64_t count, int n)
{
    A sum[CHUNK], threshold = (A)job->threshold, *plain = total;
    int32_t votes[CHUNK];
    for (int64_t k = 0; k < count; k++) plain = job->weights[k] == 1 ? plain : sum;
    for (int i = 0; i < n; i++) votes[i] = 0;
    if (plain == sum) {
        for (int i = 0; i < n; i++) sum[i] = 0;
        for (int64_t k = 0; k < count; k++)
            for (int i = 0; i < n; i++) sum[i] += deltas[k * CHUNK + i];
    }
    for (int64_t k = 0; k < count; k++) {
        const A *d = deltas + k * CHUNK;
        for (int i = 0; i < n; i++) votes[i] += ABS(d[i]) > ABS(plain[i] - d[i]) * threshold;
    }
    for (int i = 0; i < n; i++) total[i] *= (A)(votes[i] >= job->agree);
}

/* Steps 2 and 3 of TIES; `total` is the weighted sum, whose signs are elected */
INLINE void NAME(elect)(A *total, const A *deltas, const struct job *job, int64_t count, int n)
{
    A sign[CHUNK], shares[CHUNK];
    A majority = (A)job->majority;
    for (int i = 0; i < n; i++) {
        sign[i] = total[i] > 0 ? 1 : total[i] < 0 ? -1 : majority;
        total[i] = 0, shares[i] = 0;
    }
    for (int64_t k = 0; k < count; k++) {
        const A *d = deltas + k * CHUNK;
        A w = (A)job->weights[k];
        for (int i = 0; i < n; i++) {
            A share = d[i] * sign[i] > 0 ? w : 0; /* as a factor: what is not finite stays so */
            total[i] += d[i] * share;
            shares[i] += share;
        }
    }
    if (job->mean)
        for (int i = 0; i < n; i++) total[i] /= shares[i] == 0 ? (A)1 : shares[i];
    else
        NAME(divide)(total, (A)job->divisor, n);
}

/* Round and store total, or middle + total * scale. What is not finite in an input is not in any sum with it, nor in its
   product with 0: the result tells. */
INLINE int NAME(store)(T *out, const A *total, const A *middle, A scale, int n)
{
    int bad = 0;
    if (middle)
        for (int i = 0; i < n; i++) {
            A value = middle[i] + total[i] * scale;
            bad |= !(ABS(value) < LIMIT);
            out[i] = ROUND(value);
        }
    else
        for (int i = 0; i < n; i++) {
            bad |= !(ABS(total[i]) < LIMIT);
            out[i] = ROUND(total[i]);
        }
    return bad;
}

/* Where all inputs hold the same bits, those stay. Around a base only -0 would not: all deltas are 0, and -0 + 0 is 0. */
INLINE void NAME(keep_equal)(T *out, const T *const *x, const T *base, int64_t count, int64_t start, int n)
{
    const T *head = x[0] + start;
    T differs[CHUNK], negative_zero = (T)1 << (8 * sizeof(T) - 1);
    int doubtful = !base;
    for (int i = 0; base && i < n; i++) doubtful |= base[start + i] == negative_zero;
    if (!doubtful) return;
    for (int i = 0; i < n; i++) differs[i] = base ? base[start + i] ^ head[i] : 0;
    for (int64_t k = 1; k < count; k++) {
        const T *other = x[k] + start;
        for (int i = 0; i < n; i++) differs[i] |= other[i] ^ head[i];
        __asm__ volatile("" ::: "memory"); /* GCC would join two rounds, and then not vectorise them */
    }
    for (int i = 0; i < n; i++) out[start + i] = differs[i] ? out[start + i] : head[i];
}

CLONES static int NAME(merge)(const T *const *x, const struct job *job, int64_t count, const T *base, T *out,
                              int64_t elements, uint64_t first, A *deltas)
{
    A total[CHUNK], middle[CHUNK], scale = (A)job->scale;
    int bad = 0;
    for (int64_t start = 0; start < elements && !bad; start += CHUNK) {
        int n = elements - start < CHUNK ? (int)(elements - start) : CHUNK;
        for (int i = 0; base && i < n; i++) middle[i] = LOAD(base[start + i]);
        if (job->form == FORM_MEAN) {
            NAME(mean)(total, x, count, start, n);
        } else if (job->form == FORM_SUM) {
            for (int64_t k = 0; k < count; k++) NAME(add)(total, x[k] + start, (A)job->weights[k], k == 0, n);
            NAME(divide)(total, (A)job->divisor, n);
        } else if (job->form == FORM_DELTAS) {
            NAME(sum_of_deltas)(total, deltas, x, middle, job, count, start, first, n);
        } else {
            NAME(all_deltas)(total, deltas, x, middle, job, count, start, first, n);
            if (job->form == FORM_CONSENSUS)
                NAME(consensus)(total, deltas, job, count, n);
            else
                NAME(elect)(total, deltas, job, count, n);
        }
        bad |= NAME(store)(out + start, total, base ? middle : NULL, scale, n);
        if (job->keep_equal) NAME(keep_equal)(out, x, base, count, start, n);
    }
    return bad;
}

/* Whether the first input is finite throughout. */
CLONES static int NAME(is_finite)(const T *const *x, int64_t elements)
{
    int bad = 0;
    for (int64_t i = 0; i < elements; i++) bad |= !(ABS(LOAD(x[0][i])) < LIMIT);
    return !bad;
}

/* A unit's terms [UNIT], zeros where there are fewer, are added up by lanes, and then the lanes by halves. */
#ifndef SUM_OF_UNIT
#define SUM_OF_UNIT
INLINE double sum_of_lanes(double *lanes)
{
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[half + i];
    return lanes[0];
}

/* The sum of the products of two units; a quarter of the lanes at a time stays in registers. */
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

/* The bits of |x - base| as float32, which are ordered as the magnitudes are, of a unit: those from low, above 0, to last go to
   `inside`, less low, in any order. Returns how many; `over` is how many are above last, `moved` how many are not 0, and
   `sum` the sum of the differences. */
INLINE int64_t NAME(magnitudes_of_unit)(const T *x, const A *middle, uint32_t low, uint32_t last, uint32_t *inside,
                                        int64_t *moved, int64_t *over, double *sum)
{
    A differences[UNIT];
    uint32_t bits[UNIT], width = last - low, not_zero = 0, above = 0, rows[LANES] = {0};
    double lanes[LANES] = {0};
    int64_t filled = 0;
    for (int i = 0; i < UNIT; i++) {
        differences[i] = LOAD(x[i]) - middle[i];
        bits[i] = bits_of((float)differences[i]) & 0x7FFFFFFF;
        not_zero += bits[i] != 0;
        above += bits[i] > last;
    }
    for (uint32_t row = 0, bit = 1; row < UNIT; row += LANES, bit *= 2)
        for (int i = 0; i < LANES; i++) {
            lanes[i] += (double)differences[row + i];
            rows[i] |= bit & -(uint32_t)(bits[row + i] - low <= width); /* a mask: GCC vectorises no choice here */
        }
    int some[LANES], count = 0; /* the lanes in which any lie: few do; without branches, which could not be foreseen */
    for (int i = 0; i < LANES; i++) {
        some[count] = i;
        count += rows[i] != 0;
    }
    for (int i = 0; i < count; i++)
        for (uint32_t rest = rows[some[i]]; rest; rest &= rest - 1)
            inside[filled++] = bits[__builtin_ctz(rest) * LANES + some[i]] - low;
    *sum = sum_of_lanes(lanes);
    *moved += not_zero;
    *over += above;
    return filled;
}

/* The same of all units and inputs; see soup_magnitudes. sums is [count, units]. */
CLONES static int NAME(magnitudes)(const T *const *x, int64_t count, const T *base, int64_t elements,
                                   const uint32_t *bounds, uint32_t *inside, int64_t *numbers, double *sums,
                                   int64_t units)
{
    for (int64_t start = 0; start < elements; start += UNIT) {
        int n = elements - start < UNIT ? (int)(elements - start) : UNIT;
        T tail[UNIT];
        A middle[UNIT];
        for (int i = 0; i < n; i++) middle[i] = LOAD(base[start + i]);
        for (int i = n; i < UNIT; i++) middle[i] = 0;
        for (int64_t k = 0; k < count; k++) {
            const T *values = x[k] + start;
            if (n < UNIT) { /* what is missing does not differ */
                memset(tail, 0, sizeof(tail));
                values = memcpy(tail, values, (size_t)n * sizeof(T));
            }
            int64_t *filled = numbers + 3 * k + 2;
            *filled += NAME(magnitudes_of_unit)(values, middle, bounds[2 * k], bounds[2 * k + 1],
                                                inside + k * (elements + 1) + *filled, numbers + 3 * k,
                                                numbers + 3 * k + 1, sums + k * units + start / UNIT);
        }
    }
    return 1;
}

#undef T
#undef A
#undef LOAD
#undef ROUND
#undef LIMIT
#undef ABS
#undef NAME
