/* A block's arithmetic in one pass over its bytes: widen, add, divide, round, a few thousand elements at a time, so that
   all that lies between stays in the processor's first cache. soup/merging/compiled.py calls it and says what it is.

   Plain C without Python's headers; loops are written for the compiler to vectorise. */

#define _GNU_SOURCE /* preadv2 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/uio.h>
#endif

#define CHUNK 1024
#define UNIT 1024
#define LANES 64
#define INLINE static inline __attribute__((always_inline))

/* One version of a function for each generation of x86, chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define HAS_CLONES
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

enum { FORM_MEAN, FORM_SUM, FORM_DELTAS, FORM_CONSENSUS, FORM_ELECT };
enum { AROUND_NOTHING, AROUND_BASE, AROUND_MEAN };
enum { MERGED, EQUAL, LEFT };
enum { BFLOAT16, FLOAT16, FLOAT32, FLOAT64 };

/* What is done with a block: soup.merging.compiled.Arithmetic, whose docstring says what each number is. */
struct job {
    int32_t form, keep_equal, mean, agree;
    const double *weights, *thresholds;
    const uint64_t *keys;
    double scale, divisor, threshold, majority, grown;
    uint64_t dropped;
};

INLINE float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

INLINE double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

INLINE uint64_t bits_of_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

INLINE float widen_bfloat16(uint16_t half) { return float_of((uint32_t)half << 16); }

INLINE uint16_t round_to_bfloat16(float value)
{
    uint32_t bits = bits_of(value);
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

/* Exponents of float16 lie 112 below float32's; a subnormal is made of a number of the least normal size. */
INLINE float widen_float16(uint16_t half)
{
    uint32_t rest = half & 0x7FFF, sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t normal = (rest << 13) + (112u << 23) + (rest >= 0x7C00 ? 112u << 23 : 0);
    uint32_t small = bits_of(float_of((rest << 13) + (113u << 23)) - float_of(113u << 23));
    return float_of((rest < 0x0400 ? small : normal) | sign);
}

INLINE uint16_t round_to_float16(float value)
{
    uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000, rest = bits & 0x7FFFFFFF;
    uint32_t normal = (rest - (112u << 23) + 0x0FFF + ((rest >> 13) & 1)) >> 13;
    uint32_t small = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f); /* adding a half rounds at 2^-24 */
    return (uint16_t)((rest < (113u << 23) ? small : normal) | sign);
}

#define SPLIT_MIX_STEP 0x9E3779B97F4A7C15u

/* Whether SplitMix64 of a state, its upper 24 bits, is `dropped` or more; see keyed_uniform in soup.merging.methods.dare. The
   last step of SplitMix64 does not change these bits. In 32 bits they are compared as wide as what they decide. */
INLINE int is_kept(uint64_t z, int32_t dropped)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    return (int32_t)(((z ^ (z >> 27)) * 0x94D049BB133111EBu) >> 40) >= dropped;
}

#define T uint16_t
#define A float
#define LOAD(x) widen_bfloat16(x)
#define ROUND(x) round_to_bfloat16(x)
#define LIMIT 0x1.FFp127f
#define ABS(x) fabsf(x)
#define NAME(name) name##_bfloat16
#include "arithmetic.h"

#define T uint16_t
#define A float
#define LOAD(x) widen_float16(x)
#define ROUND(x) round_to_float16(x)
#define LIMIT 65520.0f
#define ABS(x) fabsf(x)
#define NAME(name) name##_float16
#include "arithmetic.h"

#define T uint32_t
#define A double
#define LOAD(x) ((double)float_of(x))
#define ROUND(x) bits_of((float)(x))
#define LIMIT 0x1.FFFFFFp127
#define ABS(x) fabs(x)
#define NAME(name) name##_float32
#include "arithmetic.h"

#define T uint64_t
#define A double
#define LOAD(x) double_of(x)
#define ROUND(x) bits_of_double(x)
#define LIMIT ((double)INFINITY)
#define ABS(x) fabs(x)
#define NAME(name) name##_float64
#include "arithmetic.h"

/* Call a function of the dtype's; x are the inputs as pointers of the right type. */
#define OF_DTYPE(dtype, function, x, ...)                                                            \
    (dtype == BFLOAT16  ? function##_bfloat16((const uint16_t *const *)x, __VA_ARGS__)               \
     : dtype == FLOAT16 ? function##_float16((const uint16_t *const *)x, __VA_ARGS__)                \
     : dtype == FLOAT32 ? function##_float32((const uint32_t *const *)x, __VA_ARGS__)                \
                        : function##_float64((const uint64_t *const *)x, __VA_ARGS__))

static const size_t SIZES[] = {2, 2, 4, 8};

static int all_same(int64_t count, const void *const *x, const void *base, size_t bytes)
{
    /* Trained weights differ from the first element on: comparing the heads spares a comparison of all. */
    size_t head = bytes < 64 ? bytes : 64;
    for (int whole = 0; whole < 2; whole++) {
        size_t size = whole ? bytes : head;
        for (int64_t k = 1; k < count; k++)
            if (x[k] != x[0] && memcmp(x[k], x[0], size)) return 0;
        if (base && memcmp(base, x[0], size)) return 0;
    }
    return 1;
}

/* The digest of the files that this was made of, by setup.py. */
const char *soup_sources(void)
{
    return SOUP_SOURCES;
}

/* Whether all inputs hold the same bytes. */
int soup_same_bytes(int64_t count, const void *const *x, int64_t bytes)
{
    return all_same(count, x, NULL, (size_t)bytes);
}

#include "factors.h"
#include "products.h"
#include "deltas.h"

/* Merge a block. MERGED: the result is in `out`. EQUAL: all inputs hold the same finite values, and `out` is as it was.
   LEFT: something is not finite, and torch's operations have to say what; `out` is of no use. */
int soup_merge(const struct job *job, int dtype, int64_t count, const void *const *x, const void *base, void *out,
               int64_t elements, uint64_t first)
{
    if (all_same(count, x, base, (size_t)elements * SIZES[dtype]))
        return OF_DTYPE(dtype, is_finite, x, elements) ? EQUAL : LEFT;
    void *deltas = malloc((size_t)count * CHUNK * sizeof(double));
    if (!deltas) return LEFT;
    int bad = OF_DTYPE(dtype, merge, x, job, count, base, out, elements, first, deltas);
    free(deltas);
    return bad ? LEFT : MERGED;
}

/* Read what the page cache has of some bytes of a file, without waiting for the disk; returns how many bytes that is, 0
   where this system can't tell. */
static int64_t read_cached(int file, int64_t offset, void *to, int64_t bytes)
{
    int64_t done = 0;
#ifdef RWF_NOWAIT
    struct iovec part = {to, (size_t)bytes};
    done = preadv2(file, &part, 1, (off_t)offset, RWF_NOWAIT);
#endif
    return done > 0 ? done : 0;
}

/* The same of several files: done [count]. */
void soup_read_cached(int64_t count, const int *files, const int64_t *offsets, void *const *to, const int64_t *bytes,
                      int64_t *done)
{
    for (int64_t k = 0; k < count; k++) done[k] = read_cached(files[k], offsets[k], to[k], bytes[k]);
}

/* Read elements of all files and merge them, `block` at a time, as far as the page cache has them. `files` and `offsets`
   tell where each input's first one lies, and x is memory for a block of each; the base's come last. Returns how many
   elements are in `out`; the next are not in the page cache, or one of them is not finite. */
int64_t soup_merge_cached(const struct job *job, int dtype, int64_t count, int has_base, const int *files,
                          const int64_t *offsets, void *const *x, int64_t block, char *out, int64_t elements,
                          uint64_t first)
{
    int64_t done = 0;
    for (int64_t n; done < elements; done += n) {
        n = elements - done < block ? elements - done : block;
        int64_t start = done * (int64_t)SIZES[dtype], bytes = n * (int64_t)SIZES[dtype];
        for (int64_t k = 0; k < count + has_base; k++)
            if (read_cached(files[k], offsets[k] + start, x[k], bytes) < bytes) return done;
        const void *base = has_base ? x[count] : NULL, *const *inputs = (const void *const *)x;
        int result = soup_merge(job, dtype, count, inputs, base, out + start, n, first + (uint64_t)done);
        if (result == LEFT) break;
        if (result == EQUAL) memcpy(out + start, x[0], (size_t)bytes);
    }
    return done;
}

/* See dots in arithmetic.h; products [vectors * (vectors + 1) / 2], moved [vectors]. Returns 0 without memory. */
int soup_dots(int dtype, int around, int lead, int64_t count, const void *const *x, const void *base, int64_t elements,
              double *products, int64_t *moved)
{
    return OF_DTYPE(dtype, dots, x, around, lead, count, base, elements, products, moved);
}

/* See magnitudes_of_unit in arithmetic.h: bounds [count, 2] holds low and last, inside [count, elements + 1] takes bits,
   numbers [count, 3] how many are moved, over, and inside, totals [count] the sums. Returns 0 without memory. */
int soup_magnitudes(int dtype, int64_t count, const void *const *x, const void *base, int64_t elements,
                    const uint32_t *bounds, uint32_t *inside, int64_t *numbers, double *totals)
{
    int64_t units = 1;
    while (units * UNIT < elements) units *= 2;
    double *sums = calloc((size_t)(count * units), sizeof(double));
    if (!sums) return 0;
    memset(numbers, 0, (size_t)count * 3 * sizeof(int64_t));
    OF_DTYPE(dtype, magnitudes, x, count, base, elements, bounds, inside, numbers, sums, units);
    for (int64_t k = 0; k < count; k++) totals[k] = sum_of_units(sums + k * units, units);
    free(sums);
    return 1;
}

/* Count numbers, shifted to the right, into counts [rows, size]; that of a number n is at n ^ (n >> 9). Differences of
   16-bit values end in zeros, and counters at a distance of powers of two get into each other's way in the processor. */
void soup_count(int64_t rows, const uint32_t *const *numbers, const int64_t *lengths, int shift, int64_t *counts,
                int64_t size)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < lengths[row]; i++) {
            uint32_t number = numbers[row][i] >> shift;
            counts[row * size + (number ^ (number >> 9))]++;
        }
}
