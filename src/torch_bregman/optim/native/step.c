/* One optimizer step over contiguous float32 memory: the dual v moves, its image θ is written, in one pass.
 *
 * Memory is the cost. Entries are worked on in blocks that stay in the first cache, a plain loop for each part of the
 * formula, which any compiler turns into vector code; θ, which most steps never read, is written past the caches where
 * the whole does not fit into them. Nothing here depends on the width of the vectors: no sum but that of the squares
 * of a group, which has its own fixed order, and no fused multiply-add (-ffp-contract=off).
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define WIDTH 16
#define STREAM(to, from) _mm512_stream_ps(to, _mm512_loadu_ps(from))
#elif defined(__AVX__)
#include <immintrin.h>
#define WIDTH 8
#define STREAM(to, from) _mm256_stream_ps(to, _mm256_loadu_ps(from))
#elif defined(__SSE2__)
#include <emmintrin.h>
#define WIDTH 4
#define STREAM(to, from) _mm_stream_ps(to, _mm_loadu_ps(from))
#endif

#define BLOCK 128  /* entries of a block; longer ones hide less of the memory's latency */
#define LANES 16   /* partial sums of squares */
#define LINE 64    /* bytes of a cache line */

enum update { SGD, ADAM };
enum mirror { SCALE, SOFT, POSITIVE, GROUPS };

/* What all pieces of a call share; `Numbers` in kernel.py mirrors it. */
struct numbers {
    int32_t update, mirror, nesterov, weighted, stream;
    float sign;             /* -1 to ascend */
    float momentum, gain;   /* b <- momentum b + gain g; no buffer: no momentum */
    float beta1, gain1, beta2, gain2, eps;
    float decay;            /* lr · weight decay */
    float before, threshold, after; /* θ = after · S(before · v), S the threshold */
};

/* Some whole groups, where they lie and how far they move; `_LAYOUT` in kernel.py mirrors it. */
struct piece {
    float *dual;
    const float *grad;
    float *param;                  /* null where v is θ */
    float *first, *second, *third; /* momentum buffer; or means of g and g², and the largest of the latter */
    size_t groups, size;           /* groups of so many entries each, one after the other */
    float rate, root;              /* τ, or τ/(1 − β₁ᵗ); 1/√(1 − β₂ᵗ) */
};

static void sgd(const struct numbers *k, const float *restrict g, float *restrict b, float *restrict d, size_t n) {
    const float momentum = k->momentum, gain = k->gain, sign = k->sign;
    for (size_t i = 0; i < n; i++) b[i] = momentum * b[i] + gain * g[i];
    if (k->nesterov)
        for (size_t i = 0; i < n; i++) d[i] = sign * g[i] + momentum * b[i];
    else
        memcpy(d, b, n * sizeof *d);
}

static void adam(const struct numbers *k, const float *restrict g, float *restrict m, float *restrict s,
                 float *restrict peak, float *restrict d, size_t n, float root) {
    const float beta1 = k->beta1, gain1 = k->gain1, beta2 = k->beta2, gain2 = k->gain2, eps = k->eps;
    if (peak) {
        for (size_t i = 0; i < n; i++) {
            m[i] = beta1 * m[i] + gain1 * g[i];
            s[i] = beta2 * s[i] + gain2 * (g[i] * g[i]);
            peak[i] = peak[i] >= s[i] ? peak[i] : s[i]; /* nan stays */
            d[i] = m[i] / (sqrtf(peak[i]) * root + eps);
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + gain1 * g[i];
        s[i] = beta2 * s[i] + gain2 * (g[i] * g[i]);
        d[i] = m[i] / (sqrtf(s[i]) * root + eps);
    }
}

/* Moves the dual of n ≤ BLOCK entries. */
static void move(const struct numbers *k, const struct piece *p, size_t at, size_t n) {
    float direction[BLOCK], rate = p->rate, *restrict v = p->dual + at;
    const float *restrict d = direction;
    if (k->update == ADAM)
        adam(k, p->grad + at, p->first + at, p->second + at, p->third ? p->third + at : NULL, direction, n, p->root);
    else if (p->first)
        sgd(k, p->grad + at, p->first + at, direction, n);
    else {
        d = p->grad + at;
        rate *= k->sign;
    }
    if (k->decay != 0 && p->param) {
        const float *restrict theta = p->param + at;
        for (size_t i = 0; i < n; i++) v[i] -= k->decay * theta[i];
    } else if (k->decay != 0)
        for (size_t i = 0; i < n; i++) v[i] -= k->decay * v[i];
    for (size_t i = 0; i < n; i++) v[i] -= rate * d[i];
}

/* Maps n ≤ BLOCK entries, each alone: nan stays nan, and what is within the threshold is 0 exactly. */
static void map(const struct numbers *k, const float *restrict v, float *restrict theta, size_t n, int mirror) {
    const float before = k->before, after = k->after, upper = k->threshold, lower = -upper;
    if (mirror == SOFT)
        for (size_t i = 0; i < n; i++) {
            float x = before * v[i], low = x < lower ? lower : x, kept = low > upper ? upper : low;
            theta[i] = after * (x - kept);
        }
    else if (mirror == POSITIVE)
        for (size_t i = 0; i < n; i++) {
            float x = v[i] - upper;
            theta[i] = after * (x < 0 ? 0 : x);
        }
    else
        for (size_t i = 0; i < n; i++) theta[i] = after * v[i];
}

/* Writes n entries past the caches, but for those that share a line with others. */
static void put(float *restrict to, const float *restrict from, size_t n, int stream) {
#ifdef WIDTH
    size_t i = 0;
    if (stream) {
        for (; i < n && (uintptr_t)(to + i) % LINE; i++) to[i] = from[i];
        for (; i + LINE / sizeof *to <= n; i += LINE / sizeof *to)
            for (size_t j = 0; j < LINE / sizeof *to; j += WIDTH) STREAM(to + i + j, from + i + j);
    }
    to += i, from += i, n -= i;
#else
    (void)stream;
#endif
    memcpy(to, from, n * sizeof *to);
}

/* Adds squares in double precision: none of a float overflows there, or vanishes. */
static void add_squares(double part[LANES], const float *restrict x, size_t n) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) part[j] += (double)x[i + j] * x[i + j];
    for (size_t j = 0; i + j < n; j++) part[j] += (double)x[i + j] * x[i + j];
}

/* By what a group is scaled. */
static float shrinkage(const struct numbers *k, const double part[LANES], size_t size) {
    double squares = 0, threshold = k->weighted ? k->threshold * sqrt((double)size) : k->threshold;
    for (size_t j = 0; j < LANES; j++) squares += part[j];
    double scale = threshold == 0 ? 1 : 1 - threshold / sqrt(squares); /* a zero group under a threshold: -inf */
    return (float)(k->after * (scale < 0 ? 0 : scale));                /* nan stays nan */
}

static void entrywise(const struct numbers *k, const struct piece *p, size_t count, int mirror, int stream) {
    float image[BLOCK];
    /* a first block that ends with a line of θ, so that all others begin with one */
    size_t n = BLOCK - ((uintptr_t)p->param % LINE) / sizeof(float);
    for (size_t at = 0; at < count; at += n, n = BLOCK) {
        if (n > count - at) n = count - at;
        move(k, p, at, n);
        if (p->param) {
            map(k, p->dual + at, image, n, mirror);
            put(p->param + at, image, n, stream);
        }
    }
}

/* Several whole groups that fit into a block. */
static void small_groups(const struct numbers *k, const struct piece *p, size_t at, size_t n, int stream) {
    float image[BLOCK];
    const float *v = p->dual + at;
    move(k, p, at, n);
    for (size_t start = 0; start < n; start += p->size) {
        double part[LANES] = {0};
        add_squares(part, v + start, p->size);
        float scale = shrinkage(k, part, p->size);
        for (size_t i = start; i < start + p->size; i++) image[i] = scale * v[i];
    }
    put(p->param + at, image, n, stream);
}

/* One group of many blocks: its dual is read twice, the second time from a cache if one can hold it. */
static void large_group(const struct numbers *k, const struct piece *p, size_t at, int stream) {
    float image[BLOCK];
    const float *v = p->dual + at;
    double part[LANES] = {0};
    for (size_t i = 0, n = BLOCK; i < p->size; i += n) {
        if (n > p->size - i) n = p->size - i;
        move(k, p, at + i, n);
        add_squares(part, v + i, n);
    }
    float scale = shrinkage(k, part, p->size);
    for (size_t i = 0, n = BLOCK; i < p->size; i += n) {
        if (n > p->size - i) n = p->size - i;
        for (size_t j = 0; j < n; j++) image[j] = scale * v[i + j];
        put(p->param + at + i, image, n, stream);
    }
}

static void groupwise(const struct numbers *k, const struct piece *p, int stream) {
    if (p->size > BLOCK) {
        for (size_t group = 0; group < p->groups; group++) large_group(k, p, group * p->size, stream);
        return;
    }
    size_t count = p->groups * p->size, most = BLOCK / p->size * p->size;
    for (size_t at = 0; at < count; at += most)
        small_groups(k, p, at, count - at < most ? count - at : most, stream);
}

/* Takes the step of `count` pieces. */
void torch_bregman_step(const struct numbers *k, const struct piece *pieces, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct piece *p = pieces + i;
        size_t entries = p->groups * p->size;
        int stream = k->stream && k->decay == 0; /* decay has read θ: its lines are in the cache */
        if (entries == 0) continue;
        if (k->mirror == GROUPS && p->size > 1)
            groupwise(k, p, stream);
        else
            entrywise(k, p, entries, k->mirror == GROUPS ? SOFT : k->mirror, stream);
    }
#ifdef WIDTH
    if (k->stream) _mm_sfence();
#endif
}
