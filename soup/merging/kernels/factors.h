/* The factors of a product: cut to grids, row by row on the left and panel by panel on the right, and multiplied by tiles.
   products.h says why. */

#define TILE_ROWS 6
#define TILE_COLUMNS 32
#define STEPS 16          /* products that are added up one after another; then their sums are */
#define LEFT_FLOATS 24000 /* the most that is cut of the left factors at a time: it stays in the second cache */
#define LEAST 0x1p-55     /* of a row's largest magnitude, if it is not 0: no product leaves float32's range */
#define LEAST_REST 0x1p-100 /* the same of what is cut off: it is added to what is far larger */
#define MOST 0x1p55
#define LOST 0x1p-100     /* more than what products lose that are too small for float32 */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* A factor: element (i, k), k < rank, is values[i * stride + k * step]. */
struct part {
    const void *values;
    int64_t rank, stride, step;
    double scale;
    int64_t dtype;
};

/* The left factors, side by side; the right ones stacked and cut into slices, in panels [columns / TILE_COLUMNS, slices,
   rank, TILE_COLUMNS], the last slice first, with the lengths of their columns [slices, columns], or a little more. */
struct product {
    const struct part *lefts;
    int64_t parts, columns, rank, bits, slices;
    const float *right, *lengths;
};

#define DEFINE_WIDEN(name, T, LOAD)                                                                                    \
    INLINE void name(const T *x, int64_t step, double scale, double *out, int64_t n)                                   \
    {                                                                                                                  \
        if (step == 1)                                                                                                 \
            for (int64_t i = 0; i < n; i++) out[i] = (double)LOAD(x[i]) * scale;                                       \
        else                                                                                                           \
            for (int64_t i = 0; i < n; i++) out[i] = (double)LOAD(x[i * step]) * scale;                                \
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

INLINE int is_cuttable(double largest, int64_t slice)
{
    return largest == 0 || (largest >= (slice ? LEAST_REST : LEAST) && largest <= MOST);
}

/* What is added and taken away again to cut numbers of that size, or less, to so many bits, to nearest even. */
INLINE double cutter(double largest, int64_t bits)
{
    int64_t exponent = (int64_t)(bits_of_double(largest) >> 52) - 1022;
    return largest == 0 ? 0 : 1.5 * double_of((uint64_t)(exponent - bits + 52 + 1023) << 52);
}

INLINE float length_of(double squares) { return (float)(sqrt(squares) * (1 + 0x1p-20)); }

/* Cut rows [begin, end) of the left factors into out [end - begin, slices, rank], the first slice into `exact` too if there
   is such memory [end - begin, rank], and say their lengths [end - begin, slices], or a little more. `row` [rank] is memory.
   Returns 0 where a row can't be cut. */
CLONES static int cut_left(const struct product *product, int64_t begin, int64_t end, double *row, float *out,
                           double *exact, float *lengths)
{
    int64_t rank = product->rank;
    for (int64_t i = begin; i < end; i++) {
        double *next = row;
        for (int64_t j = 0; j < product->parts; next += product->lefts[j++].rank)
            widen(product->lefts + j, i, 0, product->lefts[j].step, next, product->lefts[j].rank);
        for (int64_t slice = 0; slice < product->slices; slice++, out += rank) {
            int64_t largest = 0; /* of the bits, which are ordered as the magnitudes are */
            double squares = 0;
            for (int64_t k = 0; k < rank; k++) {
                int64_t bits = (int64_t)bits_of_double(row[k]) & INT64_MAX;
                largest = bits > largest ? bits : largest;
            }
            if (!is_cuttable(double_of((uint64_t)largest), slice)) return 0;
            double magic = cutter(double_of((uint64_t)largest), product->bits);
            for (int64_t k = 0; k < rank; k++) {
                double value = (row[k] + magic) - magic;
                out[k] = (float)value;
                row[k] -= value;
            }
            if (exact && slice == 0)
                for (int64_t k = 0; k < rank; k++) *exact++ = out[k];
            for (int64_t k = 0; k < rank; k++) squares += (double)out[k] * (double)out[k];
            *lengths++ = length_of(squares);
        }
    }
    return 1;
}

/* Cut the right factors; see struct product. `panel` [rank, TILE_COLUMNS] is memory. */
CLONES static int cut_right(const struct part *parts, int64_t count, int64_t columns, int64_t bits, int64_t slices,
                            double *panel, float *out, float *lengths)
{
    for (int64_t first = 0; first < columns; first += TILE_COLUMNS) {
        int64_t n = columns - first < TILE_COLUMNS ? columns - first : TILE_COLUMNS, rank = 0;
        for (int64_t j = 0; j < count; j++)
            for (int64_t k = 0; k < parts[j].rank; k++, rank++) {
                double *row = panel + rank * TILE_COLUMNS;
                widen(parts + j, first, k, parts[j].stride, row, n);
                for (int64_t i = n; i < TILE_COLUMNS; i++) row[i] = 0;
            }
        for (int64_t slice = 0; slice < slices; slice++) {
            double largest[TILE_COLUMNS] = {0}, magic[TILE_COLUMNS], squares[TILE_COLUMNS] = {0};
            float *next = out + (slices - 1 - slice) * rank * TILE_COLUMNS;
            for (int64_t k = 0; k < rank; k++)
                for (int i = 0; i < TILE_COLUMNS; i++) { /* NaN stays */
                    double size = fabs(panel[k * TILE_COLUMNS + i]);
                    largest[i] = size <= largest[i] ? largest[i] : size;
                }
            for (int i = 0; i < TILE_COLUMNS; i++) {
                if (!is_cuttable(largest[i], slice)) return 0;
                magic[i] = cutter(largest[i], bits);
            }
            for (int64_t k = 0; k < rank; k++, next += TILE_COLUMNS)
                for (int i = 0; i < TILE_COLUMNS; i++) {
                    double value = (panel[k * TILE_COLUMNS + i] + magic[i]) - magic[i];
                    squares[i] += value * value;
                    next[i] = (float)value;
                    panel[k * TILE_COLUMNS + i] -= value;
                }
            for (int64_t i = 0; i < n; i++) lengths[slice * columns + first + i] = length_of(squares[i]);
        }
        out += slices * rank * TILE_COLUMNS;
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

/* The same in float64, of numbers whose sums are exact in it. */
#define DEFINE_EXACT_TILE(name, bytes, TARGET)                                                                         \
    typedef double doubles_of_##bytes __attribute__((vector_size(bytes)));                                             \
    typedef float floats_of_##bytes __attribute__((vector_size(bytes / 2)));                                           \
    FUSED TARGET static void name(const double *const *left, const float *right, int64_t rank, double *out)            \
    {                                                                                                                  \
        FUSE for (size_t column = 0; column < TILE_COLUMNS; column += 2 * bytes / sizeof(double))                      \
        {                                                                                                              \
            doubles_of_##bytes sum[TILE_ROWS][2] = {0};                                                                \
            for (int64_t k = 0; k < rank; k++) {                                                                       \
                const floats_of_##bytes *x = (const floats_of_##bytes *)(right + k * TILE_COLUMNS + column);           \
                doubles_of_##bytes x0 = __builtin_convertvector(x[0], doubles_of_##bytes);                             \
                doubles_of_##bytes x1 = __builtin_convertvector(x[1], doubles_of_##bytes);                             \
                _Pragma("GCC unroll 6") for (int i = 0; i < TILE_ROWS; i++)                                            \
                {                                                                                                      \
                    sum[i][0] += x0 * left[i][k];                                                                      \
                    sum[i][1] += x1 * left[i][k];                                                                      \
                }                                                                                                      \
            }                                                                                                          \
            for (int i = 0; i < TILE_ROWS; i++) memcpy(out + i * TILE_COLUMNS + column, sum[i], sizeof sum[i]);        \
        }                                                                                                              \
    }

struct tiles {
    void (*floats)(const float *const *left, const float *right, int64_t rank, float *out);
    void (*doubles)(const double *const *left, const float *right, int64_t rank, double *out);
};

#define DEFINE_TILES(bytes, TARGET)                                                                                    \
    DEFINE_TILE(tile_of_##bytes, bytes, TARGET)                                                                        \
    DEFINE_EXACT_TILE(exact_tile_of_##bytes, bytes, TARGET)                                                            \
    static const struct tiles tiles_of_##bytes = {tile_of_##bytes, exact_tile_of_##bytes};
DEFINE_TILES(16, )
#ifdef HAS_CLONES
DEFINE_TILES(32, __attribute__((target("avx2,fma"))))
DEFINE_TILES(64, __attribute__((target("avx512f,fma"))))
#endif

static const struct tiles *best_tiles(void)
{
#ifdef HAS_CLONES
    if (__builtin_cpu_supports("avx512f")) return &tiles_of_64;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &tiles_of_32;
#endif
    return &tiles_of_16;
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
