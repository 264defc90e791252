// Products of float32 inputs by a matrix whose rows are widened to float32 in registers, as they lie in memory.

#pragma once

#include "vectors.h"

namespace {

// R rows of float32 by O rows of a matrix of kind Q, all of length k, into out[r * stride + o]. Each sum is kept in U
// parts. IS_COLD: the matrix lies in memory.
template <class Q, int R, int O, int U, bool IS_COLD>
inline void tile(const float* x, int64_t k, const typename Q::Type* w, float* out, int64_t stride) {
    Floats sums[U][R][O] = {};
    int64_t i = 0;
    const auto step = [&](int u, int64_t at) {
        Floats wide[O];
        for (int o = 0; o < O; o++) {
            wide[o] = Q::load(w + o * k + at);
            if (IS_COLD) ask_ahead<R>(w + o * k + at);
        }
        for (int r = 0; r < R; r++) {
            Floats row = Float32::load(x + r * k + at);
            // Else g++ reads it anew for each product, which makes loads the limit.
            if (O > 1) asm("" : "+x"(row));
            for (int o = 0; o < O; o++) sums[u][r][o] += row * wide[o];
        }
    };
    for (; i + U * WIDTH <= k; i += U * WIDTH)
        for (int u = 0; u < U; u++) step(u, i + u * WIDTH);
    for (; i + WIDTH <= k; i += WIDTH) step(0, i);
    for (int u = 1; u < U; u++)
        for (int r = 0; r < R; r++)
            for (int o = 0; o < O; o++) sums[0][r][o] += sums[u][r][o];
    for (int r = 0; r < R; r++) {
        if (O == 4)
            sum_four(sums[0][r], out + r * stride);
        else
            for (int o = 0; o < O; o++) out[r * stride + o] = sum(sums[0][r][o]);
        for (int o = 0; o < O; o++)
            for (int64_t j = i; j < k; j++) out[r * stride + o] += x[r * k + j] * Q::one(w[o * k + j]);
    }
}

// All rows of a matrix that lies in memory: one after the other, since several at once are read at half the speed.
template <class Q, int R>
inline void cold_strip(const float* x, int64_t k, const typename Q::Type* w, int64_t num, float* out, int64_t stride) {
    constexpr int U = R <= 2 ? 4 : R == 3 ? 3 : 2;
    for (int64_t o = 0; o < num; o++) tile<Q, R, 1, U, true>(x, k, w + o * k, out + o, stride);
}

#if !defined(__AVX512F__)
// Numbers of which 16 are spread at a time: those at even places, then those at odd ones.
constexpr int64_t SPREAD = 16;

// A row as `spread_strip` reads it; what is behind the last 16 stays as it is.
inline void spread_row(const float* row, int64_t k, float* out) {
    int64_t i = 0;
    for (; i + SPREAD <= k; i += SPREAD)
        for (int64_t j = 0; j < SPREAD / 2; j++) {
            out[i + j] = row[i + 2 * j];
            out[i + SPREAD / 2 + j] = row[i + 2 * j + 1];
        }
    for (; i < k; i++) out[i] = row[i];
}

// One spread row by all rows of a matrix of bfloat16 that lies in memory. Of 32 bits with two numbers one is the upper half,
// the other the lower one moved up: widening both takes no more than reading them.
inline void spread_strip(const float* x, int64_t k, const uint16_t* w, int64_t num, float* out) {
    constexpr int U = 4;
    const __m256i upper = _mm256_set1_epi32(int32_t(0xffff0000));
    for (int64_t o = 0; o < num; o++, w += k) {
        __m256 sums[2 * U] = {};
        int64_t i = 0;
        const auto step = [&](int u, int64_t at) {
            const __m256i both = _mm256_loadu_si256((const __m256i*)(w + at));
            ask_ahead<1>(w + at);
            sums[2 * u] = _mm256_fmadd_ps((__m256)_mm256_slli_epi32(both, 16), _mm256_loadu_ps(x + at), sums[2 * u]);
            sums[2 * u + 1] = _mm256_fmadd_ps((__m256)_mm256_and_si256(both, upper), _mm256_loadu_ps(x + at + SPREAD / 2),
                                              sums[2 * u + 1]);
        };
        for (; i + U * SPREAD <= k; i += U * SPREAD)
            for (int u = 0; u < U; u++) step(u, i + u * SPREAD);
        for (; i + SPREAD <= k; i += SPREAD) step(0, i);
        for (int u = 1; u < 2 * U; u++) sums[0] = _mm256_add_ps(sums[0], sums[u]);
        out[o] = sum_eight(sums[0]);
        for (; i < k; i++) out[o] += x[i] * BFloat16::one(w[i]);
    }
}
#endif

// Of one that lies in the processor's cache: as many products per load as there are registers for.
template <class Q, int R>
inline void warm_strip(const float* x, int64_t k, const typename Q::Type* w, int64_t num, float* out, int64_t stride) {
    constexpr int O = R == 4 ? 3 : 4;
    int64_t o = 0;
    for (; o + O <= num; o += O) tile<Q, R, O, 1, false>(x, k, w + o * k, out + o, stride);
    for (; o < num; o++) tile<Q, R, 1, 1, false>(x, k, w + o * k, out + o, stride);
}

template <class Q, int R>
inline void strip(const float* x, int64_t k, const typename Q::Type* w, int64_t num, float* out, int64_t stride,
                  bool is_cold) {
    if (is_cold)
        cold_strip<Q, R>(x, k, w, num, out, stride);
    else
        warm_strip<Q, R>(x, k, w, num, out, stride);
}

// n rows by num rows of a matrix, both of length k: out[row * stride + o]; MOST rows at a time.
template <class Q, int MOST>
void multiply(const float* x, int64_t n, int64_t k, const typename Q::Type* w, int64_t num, float* out, int64_t stride,
              bool is_cold) {
    int64_t r = 0;
    for (; r + MOST <= n; r += MOST) strip<Q, MOST>(x + r * k, k, w, num, out + r * stride, stride, is_cold && r == 0);
    x += r * k;
    out += r * stride;
    is_cold = is_cold && r == 0;
    if (n - r == 3) strip<Q, 3>(x, k, w, num, out, stride, is_cold);
    if (n - r == 2) strip<Q, 2>(x, k, w, num, out, stride, is_cold);
    if (n - r == 1) strip<Q, 1>(x, k, w, num, out, stride, is_cold);
}

}  // namespace
