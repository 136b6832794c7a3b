/* Products with a matrix in compressed sparse rows, of float32, on activations of features × batch.
 *
 * For every entry a row of the batch is read; what a row of the result needs stays in registers meanwhile. Columns of the
 * batch are worked on as many at a time as the registers hold, then a vector, then one by one.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

/* Vectors as wide as the machine's: wider ones are taken apart through memory, which costs seven times as much. */
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define BLOCKS 8
#define SQUARE 16

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t mask __attribute__((vector_size(4 * LANES)));

static inline vec load(const float *from) {
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(float *to, vec v) { memcpy(to, &v, sizeof v); }

static inline float total(vec v) {
    typedef float quad __attribute__((vector_size(16)));
    quad sum = {0}, part;
    for (int i = 0; i < LANES / 4; i++) {
        memcpy(&part, (const char *)&v + sizeof part * i, sizeof part);
        sum += part;
    }
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* `value` where y is above 0 or not a number, else 0: max(0, y) for value = y. */
static inline vec open_only(vec value, vec y) { return (vec)((mask)value & ~(mask)(y <= (vec){0})); }

/* Some columns of the batch, `blocks` vectors of them: y = W x + b, or y += W x without b; then max(0, y) with relu. */
#define ROWS(blocks)                                                                                                   \
    for (size_t r = 0; r < rows; r++) {                                                                                \
        float *to = y + r * batch;                                                                                     \
        vec sum[blocks];                                                                                               \
        for (int b = 0; b < blocks; b++) sum[b] = bias ? bias[r] - (vec){0} : load(to + LANES * b);                    \
        for (int32_t k = start[r]; k < start[r + 1]; k++) {                                                            \
            const float *from = x + (size_t)column[k] * batch;                                                         \
            for (int b = 0; b < blocks; b++) sum[b] += value[k] * load(from + LANES * b);                              \
        }                                                                                                              \
        for (int b = 0; b < blocks; b++) store(to + LANES * b, relu ? open_only(sum[b], sum[b]) : sum[b]);             \
    }

/* y (rows × batch) = W x + b, x (columns × batch); y += W x where b is NULL; with relu max(0, y) of it. */
void multiply(const int32_t *start, const int32_t *column, const float *value, const float *x, float *y,
              const float *bias, size_t rows, size_t batch, int relu) {
    size_t done = 0;
    for (; done + BLOCKS * LANES <= batch; done += BLOCKS * LANES, x += BLOCKS * LANES, y += BLOCKS * LANES) ROWS(BLOCKS)
    for (; done + LANES <= batch; done += LANES, x += LANES, y += LANES) ROWS(1)
    for (; done < batch; done++, x++, y++)
        for (size_t r = 0; r < rows; r++) {
            float sum = bias ? bias[r] : y[r * batch];
            for (int32_t k = start[r]; k < start[r + 1]; k++) sum += value[k] * x[(size_t)column[k] * batch];
            y[r * batch] = relu && sum <= 0 ? 0 : sum;
        }
}

/* out = dy where y = max(0, ·) let it through, 0 elsewhere; sums = those of its rows. out may be y. */
void before_relu(const float *dy, const float *y, float *out, float *sums, size_t rows, size_t batch) {
    for (size_t r = 0; r < rows; r++, dy += batch, y += batch, out += batch) {
        vec parts = {0};
        size_t k = 0;
        for (; k + LANES <= batch; k += LANES) {
            vec open = open_only(load(dy + k), load(y + k));
            store(out + k, open);
            parts += open;
        }
        float sum = total(parts);
        for (; k < batch; k++) sum += out[k] = y[k] <= 0 ? 0 : dy[k];
        sums[r] = sum;
    }
}

/* out (columns × rows) = xᵀ, by squares that stay in the cache. */
void transpose(const float *x, float *out, size_t rows, size_t columns) {
    for (size_t r = 0; r < rows; r += SQUARE)
        for (size_t c = 0; c < columns; c += SQUARE)
            for (size_t j = c; j < columns && j < c + SQUARE; j++) {
                if (r + SQUARE > rows) {
                    for (size_t i = r; i < rows; i++) out[j * rows + i] = x[i * columns + j];
                    continue;
                }
                float line[SQUARE];
                for (size_t i = 0; i < SQUARE; i++) line[i] = x[(r + i) * columns + j];
                memcpy(out + j * rows + r, line, sizeof line);
            }
}

/* out[k] (+)= the entry of dy xᵀ at the place of entry k, over some columns of the batch. */
#define SAMPLE(blocks)                                                                                                 \
    for (size_t r = 0; r < rows; r++) {                                                                                \
        vec own[blocks];                                                                                               \
        for (int b = 0; b < blocks; b++) own[b] = load(dy + r * batch + LANES * b);                                    \
        for (int32_t k = start[r]; k < start[r + 1]; k++) {                                                            \
            const float *from = x + (size_t)column[k] * batch;                                                         \
            vec sum = own[0] * load(from);                                                                             \
            for (int b = 1; b < blocks; b++) sum += own[b] * load(from + LANES * b);                                   \
            out[k] = (done ? out[k] : 0) + total(sum);                                                                 \
        }                                                                                                              \
    }

/* out = the entries of dy xᵀ on the support, dy (rows × batch), x (columns × batch). */
void sample(const int32_t *start, const int32_t *column, float *out, const float *x, const float *dy, size_t rows,
            size_t batch) {
    size_t done = 0;
    for (; done + BLOCKS * LANES <= batch; done += BLOCKS * LANES, x += BLOCKS * LANES, dy += BLOCKS * LANES) SAMPLE(BLOCKS)
    for (; done + LANES <= batch; done += LANES, x += LANES, dy += LANES) SAMPLE(1)
    for (; done < batch; done++, x++, dy++)
        for (size_t r = 0; r < rows; r++)
            for (int32_t k = start[r]; k < start[r + 1]; k++)
                out[k] = (done ? out[k] : 0) + dy[r * batch] * x[(size_t)column[k] * batch];
}

/* A bit for each of LANES entries: whether it is above lam in absolute value. */
static inline unsigned bits_above(const float *v, float lam) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(_mm512_abs_ps(_mm512_loadu_ps(v)), _mm512_set1_ps(lam), _CMP_GT_OQ);
#elif defined(__AVX__)
    __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_loadu_ps(v));
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(size, _mm256_set1_ps(lam), _CMP_GT_OQ));
#else
    unsigned bits = 0;
    for (int i = 0; i < LANES; i++) bits |= (unsigned)(fabsf(v[i]) > lam) << i;
    return bits;
#endif
}

/* Write the positions where |v| > lam, counted from `first`, to out; return how many. */
size_t above(const float *v, size_t length, float lam, int64_t first, int64_t *out) {
    size_t found = 0, k = 0;
    for (; k + LANES <= length; k += LANES)
        for (unsigned bits = bits_above(v + k, lam); bits; bits &= bits - 1)
            out[found++] = first + (int64_t)k + __builtin_ctz(bits);
    for (; k < length; k++)
        if (fabsf(v[k]) > lam) out[found++] = first + (int64_t)k;
    return found;
}
