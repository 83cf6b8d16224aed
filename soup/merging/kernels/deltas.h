/* What a look at a pool needs of a block, in one pass: the dot products of all pairs of deltas, how many elements moved,
   and the squared norm of what the deltas are taken from.

   Deltas are float32 numbers, or rounded to them. Their products are added up in float32, at most SPAN / 4 of them one after
   another, and these sums in float64: an error of at most 2^-16 |d_i| |d_j|. Where numbers are too large or too small for
   float32, all is done again in float64 (dots, in arithmetic.h). */

#define SPAN 512
#define STRIDE (SPAN + 16) /* deltas a power of two apart would push each other out of the cache */
#define TILE 4            /* so many deltas at a time, against themselves or against PAIR others: the registers hold it */
#define PAIR 2
#define SQUARES 64        /* so many sums of the center's squares */
#define DOUBLES 16        /* the most lanes that a vector has: each product has so many sums */
#define TOO_SMALL 0x1p-96 /* a mean square below which the rounding to float32's least numbers would count */

INLINE int64_t pair_of(int64_t i, int64_t j, int64_t count) { return i * count - i * (i - 1) / 2 + j - i; }

/* Deltas of n elements: out [count, STRIDE], zeros beyond n. Counts those that are not 0; `squares` are the center's. */
#define DEFINE_DELTAS(name, T, A, LOAD, MEAN)                                                                          \
    INLINE void name(const T *const *x, const T *base, int64_t count, int64_t start, int n, float *out,                \
                     double *squares, int64_t *moved)                                                                  \
    {                                                                                                                  \
        A center[SPAN];                                                                                                \
        float lanes[SQUARES] = {0};                                                                                    \
        if (base)                                                                                                      \
            for (int i = 0; i < n; i++) center[i] = LOAD(base[start + i]);                                             \
        else                                                                                                           \
            MEAN(center, x, count, start, n);                                                                          \
        for (int i = n; i < SPAN; i++) center[i] = 0;                                                                  \
        for (int row = 0; row < SPAN; row += SQUARES)                                                                  \
            for (int i = 0; i < SQUARES; i++) lanes[i] += (float)center[row + i] * (float)center[row + i];             \
        for (int i = 0; i < SQUARES; i++) squares[i] += (double)lanes[i];                                              \
        for (int64_t k = 0; k < count; k++, out += STRIDE) {                                                           \
            const T *other = x[k] + start;                                                                             \
            int differs = 0;                                                                                           \
            for (int i = 0; i < n; i++) {                                                                              \
                out[i] = (float)(LOAD(other[i]) - center[i]);                                                          \
                differs += out[i] != 0;                                                                                \
            }                                                                                                          \
            for (int i = n; i < SPAN; i++) out[i] = 0;                                                                 \
            moved[k] += differs;                                                                                       \
        }                                                                                                              \
    }
DEFINE_DELTAS(deltas_bfloat16, uint16_t, float, widen_bfloat16, mean_bfloat16)
DEFINE_DELTAS(deltas_float16, uint16_t, float, widen_float16, mean_float16)
#define LOAD_FLOAT32(x) ((double)float_of(x))
DEFINE_DELTAS(deltas_float32, uint32_t, double, LOAD_FLOAT32, mean_float32)

INLINE void deltas_of(int dtype, const void *const *x, const void *base, int64_t count, int64_t start, int n, float *out,
                      double *squares, int64_t *moved)
{
    switch (dtype) {
    case BFLOAT16: deltas_bfloat16((const uint16_t *const *)x, base, count, start, n, out, squares, moved); break;
    case FLOAT16: deltas_float16((const uint16_t *const *)x, base, count, start, n, out, squares, moved); break;
    default: deltas_float32((const uint32_t *const *)x, base, count, start, n, out, squares, moved);
    }
}

/* Add the products of deltas to their sums [pairs, DOUBLES], in the order of (0, 0), (0, 1), .. (1, 1), ..; there are
   `rows` deltas, a multiple of TILE, of which those from `count` on are zeros, and have no sums. */
#define DEFINE_PRODUCTS(name, bytes, TARGET)                                                                           \
    typedef double wide_of_##bytes __attribute__((vector_size(2 * bytes), aligned(8), may_alias));                  \
    INLINE TARGET void name##_keep(double *sums, const vector_of_##bytes *total)                                       \
    {                                                                                                                  \
        *(wide_of_##bytes *)sums += __builtin_convertvector(*total, wide_of_##bytes);                            \
    }                                                                                                                  \
    FUSED TARGET static void name(const float *deltas, int64_t count, int64_t rows, double *sums)                      \
    {                                                                                                                  \
        FUSE enum { STEP = bytes / sizeof(float) };                                                                    \
        for (int64_t row = 0; row < rows; row += TILE) {                                                               \
            const float *left = deltas + row * STRIDE;                                                                 \
            vector_of_##bytes own[TILE][TILE], total[TILE][PAIR], zero = {0};                                          \
            _Pragma("GCC unroll 4") for (int i = 0; i < TILE; i++)                                                     \
                _Pragma("GCC unroll 4") for (int j = i; j < TILE; j++) own[i][j] = zero;                               \
            for (int n = 0; n < SPAN; n += STEP)                                                                       \
                _Pragma("GCC unroll 4") for (int i = 0; i < TILE; i++)                                                 \
                    _Pragma("GCC unroll 4") for (int j = i; j < TILE; j++)                                             \
                        own[i][j] += *(const vector_of_##bytes *)(left + i * STRIDE + n) *                             \
                                     *(const vector_of_##bytes *)(left + j * STRIDE + n);                              \
            for (int i = 0; i < TILE; i++)                                                                             \
                for (int j = i; j < TILE && row + j < count; j++)                                                      \
                    name##_keep(sums + pair_of(row + i, row + j, count) * DOUBLES, &own[i][j]);                        \
            for (int64_t column = row + TILE; column < count; column += PAIR) {                                        \
                const float *right = deltas + column * STRIDE;                                                         \
                _Pragma("GCC unroll 4") for (int i = 0; i < TILE; i++)                                                 \
                    _Pragma("GCC unroll 2") for (int j = 0; j < PAIR; j++) total[i][j] = zero;                         \
                for (int n = 0; n < SPAN; n += STEP)                                                                   \
                    _Pragma("GCC unroll 4") for (int i = 0; i < TILE; i++)                                             \
                        _Pragma("GCC unroll 2") for (int j = 0; j < PAIR; j++)                                         \
                            total[i][j] += *(const vector_of_##bytes *)(left + i * STRIDE + n) *                       \
                                           *(const vector_of_##bytes *)(right + j * STRIDE + n);                       \
                for (int i = 0; i < TILE; i++)                                                                         \
                    for (int j = 0; j < PAIR && column + j < count; j++)                                               \
                        name##_keep(sums + pair_of(row + i, column + j, count) * DOUBLES, &total[i][j]);               \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    TARGET static void name##_of_all(int dtype, const void *const *x, const void *base, int64_t count,                 \
                                     int64_t elements, float *deltas, double *squares, double *sums, int64_t *moved)   \
    {                                                                                                                  \
        int64_t rows = (count + TILE - 1) / TILE * TILE, start = 0;                                                    \
        for (; start + SPAN <= elements; start += SPAN) {                                                              \
            deltas_of(dtype, x, base, count, start, SPAN, deltas, squares, moved);                                     \
            name(deltas, count, rows, sums);                                                                           \
        }                                                                                                              \
        if (start < elements) {                                                                                        \
            deltas_of(dtype, x, base, count, start, (int)(elements - start), deltas, squares, moved);                  \
            name(deltas, count, rows, sums);                                                                           \
        }                                                                                                              \
    }

typedef void products(int dtype, const void *const *x, const void *base, int64_t count, int64_t elements, float *deltas,
                      double *squares, double *sums, int64_t *moved);

DEFINE_PRODUCTS(products_of_16, 16, )
#ifdef HAS_CLONES
DEFINE_PRODUCTS(products_of_32, 32, __attribute__((target("avx2,fma"))))
DEFINE_PRODUCTS(products_of_64, 64, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512"))))
#endif

static products *best_products(void)
{
#ifdef HAS_CLONES
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return products_of_64_of_all;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return products_of_32_of_all;
#endif
    return products_of_16_of_all;
}

/* In float32 as said above. `sums` [count * (count + 1) / 2, DOUBLES] are zeros, `deltas` is memory. Returns whether its error
   is as small as that; `moved` is right in any case. */
static int sum_products(int dtype, int64_t count, const void *const *x, const void *base, int64_t elements, float *deltas,
                        double *sums, double *center, double *result, int64_t *moved)
{
    int64_t rows = (count + TILE - 1) / TILE * TILE;
    double squares[SQUARES] = {0};
    memset(deltas + count * STRIDE, 0, (size_t)((rows - count) * STRIDE) * sizeof(float));
    best_products()(dtype, x, base, count, elements, deltas, squares, sums, moved);
    for (int i = 0; i < SQUARES; i++) *center += squares[i];
    int fine = isfinite(*center) != 0;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = i; j < count; j++, result++, sums += DOUBLES) {
            *result = 0;
            for (int lane = 0; lane < DOUBLES; lane++) *result += sums[lane];
            fine &= isfinite(*result) && (i != j || !moved[i] || *result >= TOO_SMALL * (double)elements);
        }
    return fine;
}

/* The same by dots, in float64 throughout. Returns 0 without memory, or where an input holds what is not finite. */
static int sum_exactly(int dtype, int64_t count, const void *const *x, const void *base, int64_t elements, double *center,
                       double *result, int64_t *moved)
{
    int64_t pairs = count * (count + 1) / 2, fine = 1;
    double *all = malloc((size_t)(pairs + count + 1) * sizeof(double)); /* the center is a vector, too, the first */
    int64_t *all_moved = malloc((size_t)(count + 1) * sizeof(int64_t));
    int around = base ? AROUND_BASE : AROUND_MEAN;
    int done = all && all_moved && OF_DTYPE(dtype, dots, x, around, 1, count, base, elements, all, all_moved);
    if (done) {
        *center = all[0];
        memcpy(result, all + count + 1, (size_t)pairs * sizeof(double));
        memcpy(moved, all_moved + 1, (size_t)count * sizeof(int64_t));
        fine = isfinite(*center) != 0;
        for (int64_t pair = 0; pair < pairs; pair++) fine &= isfinite(result[pair]) != 0;
    }
    free(all), free(all_moved);
    return done && fine;
}

/* The deltas to the base, or to the inputs' mean without one: `result` [count * (count + 1) / 2] takes the dot products of
   (0, 0), (0, 1), .. (1, 1), .., `moved` [count] how many of their elements are not 0, `center` the square of base or mean.
   MERGED; or LEFT where there is no memory or something is not finite. */
int soup_sum_deltas(int dtype, int64_t count, const void *const *x, const void *base, int64_t elements, double *center,
                    double *result, int64_t *moved)
{
    int done = 0;
    *center = 0;
    memset(moved, 0, (size_t)count * sizeof(int64_t));
    if (dtype != FLOAT64) {
        size_t rows = (size_t)(count + TILE - 1) / TILE * TILE, pairs = (size_t)(count * (count + 1) / 2);
        float *deltas = aligned_alloc(64, rows * STRIDE * sizeof(float));
        double *sums = calloc(pairs * DOUBLES, sizeof(double));
        done = deltas && sums &&
               sum_products(dtype, count, x, base, elements, deltas, sums, center, result, moved);
        free(deltas), free(sums);
    }
    return done || sum_exactly(dtype, count, x, base, elements, center, result, moved) ? MERGED : LEFT;
}
