/* Base plus product: what adapters add to a tensor of 16 bits, in float32 as far as its error decides nothing.

   The result is defined in float64: factors are cut to grids on which every order of the sum is exact
   (soup/merging/low_rank.py). What lies on these grids are float32 numbers too, and sums in float32 are twice as fast.
   Their error has a bound, so that for nearly all elements both ends of the interval round to the same 16 bits; only
   the others are added up in float64. So neither the order of the sum in float32 nor fused steps change a bit. */

#define TILE_ROWS 6
#define TILE_COLUMNS 32
#define STEPS 16          /* products that are added up one after another; then their sums are */
#define LEFT_FLOATS 24000 /* the most that is cut of the left factors at a time: it stays in the second cache */
#define LEAST 0x1p-55     /* of a row's largest magnitude, if it is not 0: no product leaves float32's range */
#define MOST 0x1p55

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* A factor: element (i, k), k < rank, is values[i * stride + k * step]. */
struct part {
    const void *values;
    int64_t rank, stride, step;
    double scale;
    int64_t dtype;
};

/* The left factors, side by side; the right ones stacked and cut, in panels [columns / TILE_COLUMNS, rank,
   TILE_COLUMNS], with the lengths of their columns, or a little more. */
struct product {
    const struct part *lefts;
    int64_t parts, columns, rank, bits;
    const float *right, *lengths;
};

#define DEFINE_WIDEN(name, T, LOAD)                                                                 \
    INLINE void name(const T *x, int64_t step, double scale, double *out, int64_t n)                \
    {                                                                                               \
        if (step == 1)                                                                              \
            for (int64_t i = 0; i < n; i++) out[i] = (double)LOAD(x[i]) * scale;                    \
        else                                                                                        \
            for (int64_t i = 0; i < n; i++) out[i] = (double)LOAD(x[i * step]) * scale;             \
    }
DEFINE_WIDEN(widen_all_bfloat16, uint16_t, widen_bfloat16)
DEFINE_WIDEN(widen_all_float16, uint16_t, widen_float16)
DEFINE_WIDEN(widen_all_float32, uint32_t, float_of)
DEFINE_WIDEN(widen_all_float64, uint64_t, double_of)

INLINE void widen(const struct part *part, int64_t i, int64_t k, int64_t step, double *out, int64_t n)
{
    const void *x = (const char *)part->values + (size_t)(i * part->stride + k * part->step) * SIZES[part->dtype];
    switch (part->dtype) {
    case BFLOAT16: widen_all_bfloat16(x, step, part->scale, out, n); break;
    case FLOAT16: widen_all_float16(x, step, part->scale, out, n); break;
    case FLOAT32: widen_all_float32(x, step, part->scale, out, n); break;
    default: widen_all_float64(x, step, part->scale, out, n);
    }
}

INLINE int is_cuttable(double largest) { return largest == 0 || (largest >= LEAST && largest <= MOST); }

/* What is added and taken away again to cut numbers of that size, or less, to so many bits, to nearest even. */
INLINE double cutter(double largest, int64_t bits)
{
    int64_t exponent = (int64_t)(bits_of_double(largest) >> 52) - 1022;
    return largest == 0 ? 0 : 1.5 * double_of((uint64_t)(exponent - bits + 52 + 1023) << 52);
}

INLINE float length_of(double squares) { return (float)(sqrt(squares) * (1 + 0x1p-20)); }

/* Cut rows [begin, end) of the left factors into out [end - begin, rank], and say their lengths, or a little more.
   `row` [rank] is memory. Returns 0 where a row can't be cut. */
CLONES static int cut_left(const struct product *product, int64_t begin, int64_t end, double *row, float *out,
                           float *lengths)
{
    for (int64_t i = begin; i < end; i++, out += product->rank) {
        double *next = row, squares = 0;
        for (int64_t j = 0; j < product->parts; next += product->lefts[j++].rank)
            widen(product->lefts + j, i, 0, product->lefts[j].step, next, product->lefts[j].rank);
        int64_t largest = 0; /* of the bits, which are ordered as the magnitudes are */
        for (int64_t k = 0; k < product->rank; k++) {
            int64_t bits = (int64_t)bits_of_double(row[k]) & INT64_MAX;
            largest = bits > largest ? bits : largest;
        }
        if (!is_cuttable(double_of((uint64_t)largest))) return 0;
        double magic = cutter(double_of((uint64_t)largest), product->bits);
        for (int64_t k = 0; k < product->rank; k++) {
            row[k] = (row[k] + magic) - magic;
            out[k] = (float)row[k];
        }
        for (int64_t k = 0; k < product->rank; k++) squares += row[k] * row[k];
        lengths[i - begin] = length_of(squares);
    }
    return 1;
}

/* Cut the right factors; see struct product. `panel` [rank, TILE_COLUMNS] is memory. */
CLONES static int cut_right(const struct part *parts, int64_t count, int64_t columns, int64_t bits, double *panel,
                            float *out, float *lengths)
{
    for (int64_t first = 0; first < columns; first += TILE_COLUMNS) {
        int64_t n = columns - first < TILE_COLUMNS ? columns - first : TILE_COLUMNS, rank = 0;
        double largest[TILE_COLUMNS] = {0}, magic[TILE_COLUMNS], squares[TILE_COLUMNS] = {0};
        for (int64_t j = 0; j < count; j++)
            for (int64_t k = 0; k < parts[j].rank; k++, rank++) {
                double *row = panel + rank * TILE_COLUMNS;
                widen(parts + j, first, k, parts[j].stride, row, n);
                for (int64_t i = n; i < TILE_COLUMNS; i++) row[i] = 0;
                for (int i = 0; i < TILE_COLUMNS; i++) /* NaN stays */
                    largest[i] = fabs(row[i]) <= largest[i] ? largest[i] : fabs(row[i]);
            }
        for (int i = 0; i < TILE_COLUMNS; i++) {
            if (!is_cuttable(largest[i])) return 0;
            magic[i] = cutter(largest[i], bits);
        }
        for (int64_t k = 0; k < rank; k++, out += TILE_COLUMNS)
            for (int i = 0; i < TILE_COLUMNS; i++) {
                double value = (panel[k * TILE_COLUMNS + i] + magic[i]) - magic[i];
                squares[i] += value * value;
                out[i] = (float)value;
            }
        for (int64_t i = 0; i < n; i++) lengths[first + i] = length_of(squares[i]);
    }
    return 1;
}

#ifdef __clang__
#define FUSED
#define FUSE _Pragma("clang fp contract(fast)")
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#define FUSE
#endif

/* Rows of left [rank] times a panel of right, into out [TILE_ROWS, TILE_COLUMNS]. Twelve vectors of the sum at a time are
   what the registers hold; sums of STEPS products are added up apart, so that the bound of the error is a small one. */
#define DEFINE_TILE(name, bytes, TARGET)                                                                               \
    typedef float vector_of_##bytes __attribute__((vector_size(bytes)));                                               \
    FUSED TARGET static void name(const float *const *left, const float *right, int64_t rank, float *out)              \
    {                                                                                                                  \
        FUSE for (size_t column = 0; column < TILE_COLUMNS; column += 2 * bytes / sizeof(float))                       \
        {                                                                                                              \
            vector_of_##bytes total[TILE_ROWS][2] = {0};                                                               \
            for (int64_t k = 0; k < rank;) {                                                                           \
                vector_of_##bytes sum[TILE_ROWS][2] = {0};                                                             \
                for (int64_t last = least(k + STEPS, rank); k < last; k++) {                                           \
                    const vector_of_##bytes *x = (const vector_of_##bytes *)(right + k * TILE_COLUMNS + column);       \
                    _Pragma("GCC unroll 6") for (int i = 0; i < TILE_ROWS; i++)                                        \
                    {                                                                                                  \
                        sum[i][0] += x[0] * left[i][k];                                                                \
                        sum[i][1] += x[1] * left[i][k];                                                                \
                    }                                                                                                  \
                }                                                                                                      \
                for (int i = 0; i < TILE_ROWS; i++) total[i][0] += sum[i][0], total[i][1] += sum[i][1];                \
            }                                                                                                          \
            for (int i = 0; i < TILE_ROWS; i++) memcpy(out + i * TILE_COLUMNS + column, total[i], sizeof total[i]);    \
        }                                                                                                              \
    }

typedef void tile(const float *const *left, const float *right, int64_t rank, float *out);

DEFINE_TILE(tile_of_16, 16, )
#ifdef HAS_CLONES
DEFINE_TILE(tile_of_32, 32, __attribute__((target("avx2,fma"))))
DEFINE_TILE(tile_of_64, 64, __attribute__((target("avx512f,fma"))))
#endif

static tile *best_tile(void)
{
#ifdef HAS_CLONES
    if (__builtin_cpu_supports("avx512f")) return tile_of_64;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return tile_of_32;
#endif
    return tile_of_16;
}

/* A row of left [rank] times a panel of right, exactly. */
CLONES static void exact_sums(const float *left, const float *right, int64_t rank, double *out)
{
    double sums[TILE_COLUMNS] = {0};
    for (int64_t k = 0; k < rank; k++)
        for (int i = 0; i < TILE_COLUMNS; i++)
            sums[i] += (double)left[k] * (double)right[k * TILE_COLUMNS + i];
    memcpy(out, sums, sizeof sums);
}

/* What is made of base plus product: their mean with other inputs, in recipe order, or just themselves. `weights`: NULL
   where all weigh the same. */
struct mean {
    const void *const *x; /* the inputs' elements; number `place` is the base */
    int64_t count, place;
    const double *weights;
    double divisor;
};

/* A row of a tile, added to n elements of the base from `at` on, merged with the other inputs, and rounded. `error` is the
   bound of the error for a column of length 1; left [rank] and right, a panel, are what is added up exactly where the
   bound does not decide. The first of its columns are skipped. Every step of a mean is monotone: between the means of both
   ends of an interval lie the means of all that is in it. */
#define DEFINE_SUM(name, LOAD, ROUND, LIMIT)                                                                           \
    INLINE void name##_mean(const struct mean *mean, int64_t at, float *sum, int n)                                    \
    {                                                                                                                  \
        float total[TILE_COLUMNS], divisor = (float)mean->divisor;                                                     \
        for (int64_t k = 0; k < mean->count; k++) {                                                                    \
            const uint16_t *x = (const uint16_t *)mean->x[k] + at;                                                     \
            float value[TILE_COLUMNS];                                                                                 \
            if (k == mean->place)                                                                                      \
                for (int i = 0; i < n; i++) value[i] = sum[i];                                                         \
            else                                                                                                       \
                for (int i = 0; i < n; i++) value[i] = LOAD(x[i]);                                                     \
            if (mean->weights) {                                                                                       \
                float weight = (float)mean->weights[k];                                                                \
                for (int i = 0; i < n; i++) value[i] *= weight;                                                        \
            }                                                                                                          \
            if (k == 0)                                                                                                \
                for (int i = 0; i < n; i++) total[i] = value[i];                                                       \
            else                                                                                                       \
                for (int i = 0; i < n; i++) total[i] += value[i];                                                      \
        }                                                                                                              \
        for (int i = 0; i < n; i++) sum[i] = total[i] / divisor;                                                       \
    }                                                                                                                  \
    INLINE int name##_of(const struct mean *mean, int64_t at, const float *sums, float error, const float *lengths,    \
                         const float *left, const float *right, int64_t rank, int64_t skipped, uint16_t *out, int n)   \
    {                                                                                                                  \
        const uint16_t *base = (const uint16_t *)mean->x[mean->place] + at;                                            \
        float low[TILE_COLUMNS], high[TILE_COLUMNS];                                                                   \
        uint16_t differs[TILE_COLUMNS], any = 0;                                                                       \
        int bad = 0;                                                                                                   \
        for (int i = 0; i < n; i++) {                                                                                  \
            float value = LOAD(base[i]) + sums[i], away = error * lengths[i] + fabsf(value) * 0x1p-22f;                \
            low[i] = value - away, high[i] = value + away;                                                             \
            bad |= !(fabsf(value) + away < LIMIT);                                                                     \
        }                                                                                                              \
        if (mean->count > 1) {                                                                                         \
            name##_mean(mean, at, low, n), name##_mean(mean, at, high, n);                                             \
            for (int i = 0; i < n; i++) bad |= !(fabsf(low[i]) < LIMIT) | !(fabsf(high[i]) < LIMIT);                   \
        }                                                                                                              \
        for (int i = 0; i < n; i++) {                                                                                  \
            out[at + i] = ROUND(low[i]);                                                                               \
            differs[i] = out[at + i] ^ ROUND(high[i]);                                                                 \
            any |= differs[i];                                                                                         \
        }                                                                                                              \
        if (any) {                                                                                                     \
            double exact[TILE_COLUMNS];                                                                                \
            exact_sums(left, right, rank, exact);                                                                      \
            for (int i = 0; i < n; i++) low[i] = (float)(exact[skipped + i] + (double)LOAD(base[i]));                  \
            if (mean->count > 1) name##_mean(mean, at, low, n);                                                        \
            for (int i = 0; i < n; i++) out[at + i] = ROUND(low[i]);                                                   \
        }                                                                                                              \
        return bad;                                                                                                    \
    }                                                                                                                  \
    CLONES static int name(const struct mean *mean, int64_t at, const float *sums, float error, const float *lengths,  \
                           const float *left, const float *right, int64_t rank, int64_t skipped, uint16_t *out, int n) \
    {                                                                                                                  \
        if (n == TILE_COLUMNS)                                                                                         \
            return name##_of(mean, at, sums, error, lengths, left, right, rank, skipped, out, TILE_COLUMNS);           \
        return name##_of(mean, at, sums, error, lengths, left, right, rank, skipped, out, n);                          \
    }
DEFINE_SUM(sum_bfloat16, widen_bfloat16, round_to_bfloat16, 0x1.FFp127f)
DEFINE_SUM(sum_float16, widen_float16, round_to_float16, 65520.0f)

/* Add rows [begin, end) of the product to those of their elements that lie in [first, last). `left` [end - begin, rank]
   is cut already. */
static int add_rows(const struct product *product, int dtype, const float *left, const float *lengths, int64_t begin,
                    int64_t end, int64_t first, int64_t last, const struct mean *mean, uint16_t *out)
{
    int64_t columns = product->columns, rank = product->rank;
    float sums[TILE_ROWS][TILE_COLUMNS], bound = (float)(STEPS + rank / STEPS + 4) * 0x1.04p-24f;
    tile *multiply = best_tile();
    int bad = 0;
    for (int64_t column = 0; column < columns; column += TILE_COLUMNS) {
        const float *right = product->right + column * rank;
        for (int64_t row = begin; row < end && !bad; row += TILE_ROWS) {
            const float *lefts[TILE_ROWS];
            int64_t starts[TILE_ROWS], stops[TILE_ROWS];
            int any = 0;
            for (int i = 0; i < TILE_ROWS; i++) {
                int64_t r = least(row + i, end - 1), start = r * columns + column;
                lefts[i] = left + (r - begin) * rank;
                starts[i] = most(start, first);
                stops[i] = least(least(start + TILE_COLUMNS, (r + 1) * columns), row + i < end ? last : first);
                any |= starts[i] < stops[i];
            }
            if (!any) continue;
            multiply(lefts, right, rank, sums[0]);
            for (int i = 0; i < TILE_ROWS; i++) {
                if (starts[i] >= stops[i]) continue;
                int64_t at = starts[i] - first, skipped = starts[i] - ((row + i) * columns + column);
                bad |= (dtype == BFLOAT16 ? sum_bfloat16 : sum_float16)(
                    mean, at, sums[i] + skipped, bound * lengths[row + i - begin], product->lengths + column + skipped,
                    lefts[i], right, rank, skipped, out, (int)(stops[i] - starts[i]));
            }
        }
    }
    return bad;
}

/* Cut the right factors, for struct product; rank is the sum of theirs. Returns 0 where they can't be cut, or there is no
   memory. */
int soup_cut_right(const struct part *parts, int64_t count, int64_t columns, int64_t rank, int64_t bits, float *out,
                   float *lengths)
{
    double *panel = malloc((size_t)(rank * TILE_COLUMNS) * sizeof(double));
    int done = panel && cut_right(parts, count, columns, bits, panel, out, lengths);
    free(panel);
    return done;
}

/* Add the product to `elements` of the base from element `first` on, merge, and round. MERGED, or LEFT: see soup_merge. */
int soup_add_product(const struct product *product, int dtype, const struct mean *mean, void *out, int64_t first,
                     int64_t elements)
{
    int64_t rank = product->rank, columns = product->columns, last = first + elements, end = (last - 1) / columns + 1;
    int64_t rows = most(LEFT_FLOATS / most(rank, 1) / TILE_ROWS, 1) * TILE_ROWS;
    double *row = malloc((size_t)rank * sizeof(double));
    float *left = malloc((size_t)(rows * (rank + 1)) * sizeof(float)), *lengths = left + rows * rank;
    int done = row && left;
    for (int64_t begin = first / columns; done && begin < end; begin += rows) {
        int64_t stop = least(begin + rows, end);
        done = cut_left(product, begin, stop, row, left, lengths) &&
               !add_rows(product, dtype, left, lengths, begin, stop, first, last, mean, out);
    }
    free(row), free(left);
    return done ? MERGED : LEFT;
}
