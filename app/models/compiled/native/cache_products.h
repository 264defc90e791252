// Attention's own: scores to shares of one, and sums of a cache's entries by these.

#pragma once

#include <type_traits>

#include "vectors.h"

namespace {

// R rows of weights (of `stride`) over length entries by entries of head_dim values, times share: into out[r * head_dim].
template <class C, int R, int N>
inline void mix_strip(const float* weights, int64_t stride, const float* shares, int64_t length, const typename C::Type* values,
                      int64_t head_dim, float* out) {
    Floats sums[R][N] = {};
    for (int64_t l = 0; l < length; l++) {
        Floats wide[N];
        for (int v = 0; v < N; v++) wide[v] = C::load(values + l * head_dim + v * WIDTH);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < N; v++) sums[r][v] += weights[r * stride + l] * wide[v];
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < N; v++) put(out + r * head_dim + v * WIDTH, sums[r][v] * shares[r]);
}

template <class C, int R>
void mix_rows(const float* weights, int64_t stride, const float* shares, int64_t length, const typename C::Type* values,
              int64_t head_dim, float* out) {
    int64_t d = 0;
    for (; d + 4 * WIDTH <= head_dim; d += 4 * WIDTH)
        mix_strip<C, R, 4>(weights, stride, shares, length, values + d, head_dim, out + d);
    for (; d + WIDTH <= head_dim; d += WIDTH)
        mix_strip<C, R, 1>(weights, stride, shares, length, values + d, head_dim, out + d);
    for (; d < head_dim; d++)
        for (int r = 0; r < R; r++) {
            float found = 0;
            for (int64_t l = 0; l < length; l++) found += weights[r * stride + l] * C::one(values[l * head_dim + d]);
            out[r * head_dim + d] = found * shares[r];
        }
}

template <class C>
void mix(const float* weights, int64_t stride, const float* shares, int64_t rows, int64_t length,
         const typename C::Type* values, int64_t head_dim, float* out) {
    int64_t r = 0;
    const auto some = [&](auto num) {
        mix_rows<C, decltype(num)::value>(weights + r * stride, stride, shares + r, length, values, head_dim, out + r * head_dim);
    };
    for (; r + 3 <= rows; r += 3) some(std::integral_constant<int, 3>());
    if (rows - r == 2) some(std::integral_constant<int, 2>());
    if (rows - r == 1) some(std::integral_constant<int, 1>());
}

// Entries of a cache that are widened at once for many rows: their keys, or their values.
constexpr int64_t KEYS_WIDENED = 2 * WIDTH, VALUES_WIDENED = 64;
// Rows that are multiplied at once by two vectors: as many sums as there are registers for.
constexpr int MOST_ROWS = 6;

// Eight rows of eight floats, turned.
inline void turn_floats(const __m256* rows, float* out, int64_t stride) {
    __m256 pairs[8], fours[8];
    for (int i = 0; i < 4; i++) {
        pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            const __m256d low = _mm256_castps_pd(pairs[i + j]), high = _mm256_castps_pd(pairs[i + j + 2]);
            fours[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
            fours[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
        }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * stride, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
        _mm256_storeu_ps(out + (i + 4) * stride, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
}

// Keys of KEYS_WIDENED entries, the first of each beside one another, then the second ones; 0 behind `num` of them.
// head_dim is a multiple of 8.
template <class C>
void turn_keys(const typename C::Type* keys, int64_t num, int64_t head_dim, float* out) {
    for (int64_t e = 0; e < KEYS_WIDENED; e += 8)
        for (int64_t d = 0; d < head_dim; d += 8) {
            __m256 rows[8];
            for (int j = 0; j < 8; j++)
                rows[j] = e + j < num ? C::eight(keys + (e + j) * head_dim + d) : _mm256_setzero_ps();
            turn_floats(rows, out + d * KEYS_WIDENED + e, KEYS_WIDENED);
        }
}

// R rows, by what each step of k has for two vectors of columns: added to `out`, or in the place of what is there.
template <int R, bool ADDS>
inline void outer_tile(const float* rows, int64_t row_stride, int64_t k, const float* columns, int64_t column_stride,
                       float* out, int64_t stride) {
    Floats sums[R][2];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < 2; v++) sums[r][v] = ADDS ? Float32::load(out + r * stride + v * WIDTH) : Floats{};
    for (int64_t i = 0; i < k; i++) {
        const Floats first = Float32::load(columns + i * column_stride);
        const Floats second = Float32::load(columns + i * column_stride + WIDTH);
        for (int r = 0; r < R; r++) {
            const Floats value = all(rows[r * row_stride + i]);
            sums[r][0] += value * first;
            sums[r][1] += value * second;
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < 2; v++) put(out + r * stride + v * WIDTH, sums[r][v]);
}

// The same for any number of rows.
template <bool ADDS>
void outer(const float* rows, int64_t num_rows, int64_t row_stride, int64_t k, const float* columns,
           int64_t column_stride, float* out, int64_t stride) {
    int64_t r = 0;
    for (; r + MOST_ROWS <= num_rows; r += MOST_ROWS)
        outer_tile<MOST_ROWS, ADDS>(rows + r * row_stride, row_stride, k, columns, column_stride, out + r * stride, stride);
    for (; r < num_rows; r++)
        outer_tile<1, ADDS>(rows + r * row_stride, row_stride, k, columns, column_stride, out + r * stride, stride);
}

// Scores of many queries by all keys; those of a row up to the next multiple of KEYS_WIDENED, `stride` apart.
template <class C>
void score_many(const float* queries, int64_t num_rows, const typename C::Type* keys, int64_t length, int64_t head_dim,
                float* wide, float* scores, int64_t stride) {
    for (int64_t e = 0; e < length; e += KEYS_WIDENED) {
        turn_keys<C>(keys + e * head_dim, length - e, head_dim, wide);
        outer<false>(queries, num_rows, head_dim, head_dim, wide, KEYS_WIDENED, scores + e, stride);
    }
}

// Sums of values by shares, times what makes each row's shares 1. head_dim is a multiple of two vectors.
template <class C>
void mix_many(const float* scores, int64_t stride, const float* shares, int64_t num_rows, int64_t length,
              const typename C::Type* values, int64_t head_dim, float* wide, float* out) {
    memset(out, 0, num_rows * head_dim * sizeof(float));
    for (int64_t e = 0; e < length; e += VALUES_WIDENED) {
        const int64_t num = least(VALUES_WIDENED, length - e);
        for (int64_t i = 0; i < num * head_dim; i += WIDTH) put(wide + i, C::load(values + e * head_dim + i));
        for (int64_t d = 0; d < head_dim; d += 2 * WIDTH)
            outer<true>(scores + e, num_rows, stride, num, wide + d, head_dim, out + d, head_dim);
    }
    for (int64_t r = 0; r < num_rows; r++)
        for (int64_t d = 0; d < head_dim; d++) out[r * head_dim + d] *= shares[r];
}

// Scores held between -cap and cap.
inline void cap_scores(float* scores, int64_t length, float cap) {
    int64_t i = 0;
    for (; i + WIDTH <= length; i += WIDTH) put(scores + i, cap * tangent(Float32::load(scores + i) / cap));
    for (; i < length; i++) scores[i] = cap * tangent(all(scores[i] / cap))[0];
}

// `seen` scores as powers of e; what each is to be multiplied by for shares of 1, of which a sink has one that is lost.
inline float softmax(float* scores, int64_t seen, const float* sink) {
    Floats peaks = all(scores[0]);
    int64_t i = 0;
    for (; i + WIDTH <= seen; i += WIDTH) {
        const Floats some = Float32::load(scores + i);
        peaks = some > peaks ? some : peaks;
    }
    float most = peaks[0];
    for (int lane = 1; lane < WIDTH; lane++) most = peaks[lane] > most ? peaks[lane] : most;
    for (; i < seen; i++) most = scores[i] > most ? scores[i] : most;
    if (sink && *sink > most) most = *sink;
    Floats sums = {};
    for (i = 0; i + WIDTH <= seen; i += WIDTH) {
        const Floats found = exponential(Float32::load(scores + i) - most);
        sums += found;
        put(scores + i, found);
    }
    float total = sum(sums);
    for (; i < seen; i++) total += scores[i] = exponential(all(scores[i] - most))[0];
    if (sink) total += exponential(all(*sink - most))[0];
    return 1.0f / total;
}

}  // namespace
