/* Base plus product: what adapters add to a tensor of 16 or 32 bits, in float32 as far as its error decides nothing.

   The result is defined in float64: factors are cut to grids on which every order of the sum is exact
   (soup/merging/low_rank.py). What lies on these grids are float32 numbers too, and sums in float32 are twice as fast.
   Their error has a bound, so that for nearly all elements both ends of the interval round to the same 16 bits; only
   the others are added up in float64. So neither the order of the sum in float32 nor fused steps change a bit.

   For a tensor of 32 bits factors are cut into two slices. The product of the first ones is added up in float64, in which
   it is exact; what the second ones add lies so far below that float32 will do, up to the same question. */

/* What is made of base plus product: their mean with other inputs, in recipe order, or just themselves. `weights`: NULL
   where all weigh the same. */
struct mean {
    const void *const *x; /* the inputs' elements; number `place` is the base */
    int64_t count, place;
    const double *weights;
    double divisor;
};

/* A row of a tile: its left factors, cut, with their lengths; a panel of the right ones, with the lengths of its columns. */
struct row {
    const struct product *product;
    const float *left, *left_lengths, *right, *right_lengths;
    const float *rest_lengths; /* those of the second slice */
    const float *sums;         /* of one slice; of two, what the second ones add */
    const double *firsts;      /* of two slices: the sums of the first ones */
    float error;               /* the bound of the error of `sums` where the lengths are 1 */
    int64_t skipped;           /* the first of the panel's columns that are not asked for */
};

/* The row's sums in float64, as torch's operations round them. */
static void exact_product(const struct row *row, double *out)
{
    int64_t rank = row->product->rank;
    if (row->product->slices == 1) {
        exact_sums(row->left, row->right, rank, out);
        return;
    }
    double rest[TILE_COLUMNS], first[TILE_COLUMNS];
    exact_sums(row->left, row->right, rank, out);
    exact_sums(row->left + rank, row->right + rank * TILE_COLUMNS, rank, rest);
    exact_sums(row->left, row->right + rank * TILE_COLUMNS, rank, first);
    for (int i = 0; i < TILE_COLUMNS; i++) out[i] = (out[i] + rest[i]) + first[i] + 0.0;
}

/* The ends of an interval that holds base plus product. */
#define BOUND_OF_ONE(low, high, base)                                                                                  \
    float value = base + row->sums[i];                                                                                 \
    float away = row->error * row->left_lengths[0] * row->right_lengths[i] + fabsf(value) * 0x1p-22f;                  \
    low = value - away, high = value + away;
#define BOUND_OF_TWO(low, high, base)                                                                                  \
    double value = row->sums[i], lengths = (double)row->left_lengths[0] * row->rest_lengths[i] +                       \
                                           (double)row->left_lengths[1] * row->right_lengths[i];                       \
    double away = row->error * lengths + LOST;                                                                         \
    low = ((value - away) + row->firsts[i]) + base, high = ((value + away) + row->firsts[i]) + base;

INLINE double double_of_float(uint32_t bits) { return (double)float_of(bits); }

INLINE uint32_t round_to_float32(double value) { return bits_of((float)value); }

/* The mean, where `sum` [n] stands for input number `place`, into `sum`. */
#define DEFINE_MEAN(name, T, A, LOAD)                                                                                  \
    INLINE void name(const struct mean *mean, int64_t at, A *sum, int n)                                               \
    {                                                                                                                  \
        A total[TILE_COLUMNS], divisor = (A)mean->divisor;                                                             \
        for (int64_t k = 0; k < mean->count; k++) {                                                                    \
            const T *x = (const T *)mean->x[k] + at;                                                                   \
            A value[TILE_COLUMNS];                                                                                     \
            if (k == mean->place)                                                                                      \
                for (int i = 0; i < n; i++) value[i] = sum[i];                                                         \
            else                                                                                                       \
                for (int i = 0; i < n; i++) value[i] = LOAD(x[i]);                                                     \
            if (mean->weights) {                                                                                       \
                A weight = (A)mean->weights[k];                                                                        \
                for (int i = 0; i < n; i++) value[i] *= weight;                                                        \
            }                                                                                                          \
            if (k == 0)                                                                                                \
                for (int i = 0; i < n; i++) total[i] = value[i];                                                       \
            else                                                                                                       \
                for (int i = 0; i < n; i++) total[i] += value[i];                                                      \
        }                                                                                                              \
        for (int i = 0; i < n; i++) sum[i] = total[i] / divisor;                                                       \
    }

/* A row of a tile, added to n elements of the base from `at` on, merged with the other inputs, and rounded. Every step is
   monotone: between what becomes of both ends of the interval lies what becomes of the sum; where they round apart, it is
   added up exactly. */
#define DEFINE_SUM(name, T, A, LOAD, ROUND, LIMIT, SIZE, BOUND)                                                        \
    DEFINE_MEAN(mean_for_##name, T, A, LOAD)                                                                           \
    INLINE int name##_of(const struct row *row, const struct mean *mean, int64_t at, T *out, int n)                    \
    {                                                                                                                  \
        const T *base = (const T *)mean->x[mean->place] + at;                                                          \
        A low[TILE_COLUMNS], high[TILE_COLUMNS];                                                                       \
        T differs[TILE_COLUMNS], any = 0;                                                                              \
        int bad = 0;                                                                                                   \
        for (int i = 0; i < n; i++) {                                                                                  \
            BOUND(low[i], high[i], LOAD(base[i]))                                                                      \
            bad |= !(SIZE(low[i]) < LIMIT) | !(SIZE(high[i]) < LIMIT);                                                 \
        }                                                                                                              \
        if (mean->count > 1) {                                                                                         \
            mean_for_##name(mean, at, low, n), mean_for_##name(mean, at, high, n);                                     \
            for (int i = 0; i < n; i++) bad |= !(SIZE(low[i]) < LIMIT) | !(SIZE(high[i]) < LIMIT);                     \
        }                                                                                                              \
        for (int i = 0; i < n; i++) {                                                                                  \
            out[at + i] = ROUND(low[i]);                                                                               \
            differs[i] = out[at + i] ^ ROUND(high[i]);                                                                 \
            any |= differs[i];                                                                                         \
        }                                                                                                              \
        if (any) {                                                                                                     \
            double sums[TILE_COLUMNS];                                                                                 \
            exact_product(row, sums);                                                                                  \
            for (int i = 0; i < n; i++) low[i] = (A)(sums[row->skipped + i] + (double)LOAD(base[i]));                  \
            if (mean->count > 1) mean_for_##name(mean, at, low, n);                                                    \
            for (int i = 0; i < n; i++) out[at + i] = ROUND(low[i]);                                                   \
        }                                                                                                              \
        return bad;                                                                                                    \
    }                                                                                                                  \
    CLONES static int name(const struct row *row, const struct mean *mean, int64_t at, T *out, int n)                  \
    {                                                                                                                  \
        return n == TILE_COLUMNS ? name##_of(row, mean, at, out, TILE_COLUMNS) : name##_of(row, mean, at, out, n);     \
    }
DEFINE_SUM(sum_bfloat16, uint16_t, float, widen_bfloat16, round_to_bfloat16, 0x1.FFp127f, fabsf, BOUND_OF_ONE)
DEFINE_SUM(sum_float16, uint16_t, float, widen_float16, round_to_float16, 65520.0f, fabsf, BOUND_OF_ONE)
DEFINE_SUM(sum_float32, uint32_t, double, double_of_float, round_to_float32, 0x1.FFFFFFp127, fabs, BOUND_OF_TWO)

/* Add rows [begin, end) of the product to those of their elements that lie in [first, last). `left` [end - begin, slices,
   rank] is cut already; see cut_left. */
static int add_rows(const struct product *product, int dtype, const float *left, const double *exact,
                    const float *lengths, int64_t begin, int64_t end, int64_t first, int64_t last,
                    const struct mean *mean, void *out)
{
    int64_t columns = product->columns, rank = product->rank, slices = product->slices, terms = rank * slices;
    float sums[TILE_ROWS][TILE_COLUMNS];
    double firsts[TILE_ROWS][TILE_COLUMNS];
    const struct tiles *tiles = best_tiles();
    struct row at_row = {.product = product, .error = (float)(STEPS + terms / STEPS + 4) * 0x1.04p-24f};
    int bad = 0;
    for (int64_t column = 0; column < columns; column += TILE_COLUMNS) {
        at_row.right = product->right + column * terms;
        for (int64_t row = begin; row < end && !bad; row += TILE_ROWS) {
            const float *lefts[TILE_ROWS];
            const double *exacts[TILE_ROWS];
            int64_t starts[TILE_ROWS], stops[TILE_ROWS];
            int any = 0;
            for (int i = 0; i < TILE_ROWS; i++) {
                int64_t r = least(row + i, end - 1), start = r * columns + column;
                lefts[i] = left + (r - begin) * terms;
                exacts[i] = exact ? exact + (r - begin) * rank : NULL;
                starts[i] = most(start, first);
                stops[i] = least(least(start + TILE_COLUMNS, (r + 1) * columns), row + i < end ? last : first);
                any |= starts[i] < stops[i];
            }
            if (!any) continue;
            tiles->floats(lefts, at_row.right, terms, sums[0]);
            if (slices == 2) tiles->doubles(exacts, at_row.right + rank * TILE_COLUMNS, rank, firsts[0]);
            for (int i = 0; i < TILE_ROWS; i++) {
                if (starts[i] >= stops[i]) continue;
                int64_t at = starts[i] - first, skipped = starts[i] - ((row + i) * columns + column);
                int n = (int)(stops[i] - starts[i]);
                at_row.left = lefts[i], at_row.left_lengths = lengths + (row + i - begin) * slices;
                at_row.right_lengths = product->lengths + column + skipped, at_row.skipped = skipped;
                at_row.rest_lengths = at_row.right_lengths + columns;
                at_row.sums = sums[i] + skipped, at_row.firsts = firsts[i] + skipped;
                bad |= dtype == BFLOAT16  ? sum_bfloat16(&at_row, mean, at, out, n)
                       : dtype == FLOAT16 ? sum_float16(&at_row, mean, at, out, n)
                                          : sum_float32(&at_row, mean, at, out, n);
            }
        }
    }
    return bad;
}

/* Cut the right factors, for struct product; rank is the sum of theirs. Returns 0 where they can't be cut, or there is no
   memory. */
int soup_cut_right(const struct part *parts, int64_t count, int64_t columns, int64_t rank, int64_t bits, int64_t slices,
                   float *out, float *lengths)
{
    double *panel = malloc((size_t)(rank * TILE_COLUMNS) * sizeof(double));
    int done = panel && cut_right(parts, count, columns, bits, slices, panel, out, lengths);
    free(panel);
    return done;
}

/* Add the product to `elements` of the base from element `first` on, merge, and round. MERGED, or LEFT: see soup_merge. */
int soup_add_product(const struct product *product, int dtype, const struct mean *mean, void *out, int64_t first,
                     int64_t elements)
{
    int64_t rank = product->rank, columns = product->columns, last = first + elements, end = (last - 1) / columns + 1;
    int64_t slices = product->slices, row_floats = slices == 2 ? 4 * rank : rank; /* two slices, and one in float64 */
    int64_t rows = most(LEFT_FLOATS / most(row_floats, 1) / TILE_ROWS, 1) * TILE_ROWS;
    double *row = malloc((size_t)rank * sizeof(double));
    double *exact = slices == 2 ? malloc((size_t)(rows * rank) * sizeof(double)) : NULL;
    float *left = malloc((size_t)(rows * slices * (rank + 1)) * sizeof(float)), *lengths = left + rows * slices * rank;
    int done = row && left && (exact || slices == 1);
    for (int64_t begin = first / columns; done && begin < end; begin += rows) {
        int64_t stop = least(begin + rows, end);
        done = cut_left(product, begin, stop, row, left, exact, lengths) &&
               !add_rows(product, dtype, left, exact, lengths, begin, stop, first, last, mean, out);
    }
    free(row), free(exact), free(left);
    return done ? MERGED : LEFT;
}
