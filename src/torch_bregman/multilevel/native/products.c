/* Products with a matrix in compressed sparse rows, of float32, on activations of features × batch.
 *
 * For every entry a row of the batch is read; what a row of the result needs stays in registers meanwhile. Columns of the
 * batch are worked on 128 at a time, then 16, then one by one.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

typedef float vec __attribute__((vector_size(4 * LANES)));

static inline vec load(const float *from) {
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(float *to, vec v) { memcpy(to, &v, sizeof v); }

static inline float total(vec v) {
    typedef float half __attribute__((vector_size(2 * LANES)));
    typedef float quarter __attribute__((vector_size(LANES)));
    half low, high;
    quarter first, second;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, (const char *)&v + sizeof low, sizeof high);
    low += high;
    memcpy(&first, &low, sizeof first);
    memcpy(&second, (const char *)&low + sizeof first, sizeof second);
    first += second;
    return (first[0] + first[2]) + (first[1] + first[3]);
}

/* Some columns of the batch, `blocks` vectors of them: y += W x. */
#define ADD_ROWS(blocks)                                                                                               \
    for (size_t r = 0; r < rows; r++) {                                                                                \
        float *to = y + r * batch;                                                                                     \
        vec sum[blocks];                                                                                               \
        for (int b = 0; b < blocks; b++) sum[b] = load(to + LANES * b);                                                \
        for (int32_t k = start[r]; k < start[r + 1]; k++) {                                                            \
            const float *from = x + (size_t)column[k] * batch;                                                         \
            for (int b = 0; b < blocks; b++) sum[b] += value[k] * load(from + LANES * b);                              \
        }                                                                                                              \
        for (int b = 0; b < blocks; b++) store(to + LANES * b, sum[b]);                                                \
    }

/* y (rows × batch) += W x, x (columns × batch). */
void multiply(const int32_t *start, const int32_t *column, const float *value, const float *x, float *y, size_t rows,
              size_t batch) {
    size_t done = 0;
    for (; done + 8 * LANES <= batch; done += 8 * LANES, x += 8 * LANES, y += 8 * LANES) ADD_ROWS(8)
    for (; done + LANES <= batch; done += LANES, x += LANES, y += LANES) ADD_ROWS(1)
    for (; done < batch; done++, x++, y++)
        for (size_t r = 0; r < rows; r++)
            for (int32_t k = start[r]; k < start[r + 1]; k++) y[r * batch] += value[k] * x[(size_t)column[k] * batch];
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
    for (; done + 8 * LANES <= batch; done += 8 * LANES, x += 8 * LANES, dy += 8 * LANES) SAMPLE(8)
    for (; done + LANES <= batch; done += LANES, x += LANES, dy += LANES) SAMPLE(1)
    for (; done < batch; done++, x++, dy++)
        for (size_t r = 0; r < rows; r++)
            for (int32_t k = start[r]; k < start[r + 1]; k++)
                out[k] = (done ? out[k] : 0) + dy[r * batch] * x[(size_t)column[k] * batch];
}
