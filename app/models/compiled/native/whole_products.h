// Products of whole numbers of 16 bits, whose sums of 32 bits are exact: twice as many per instruction as of floats.
//
// Each token's inputs, and each row of a matrix of floats, are multiples of a step of its own; codes of weights are whole
// already. A step is so large that no sum overflows: by Cauchy and Schwarz no part of a sum is beyond the product of the
// norms of its factors. With norms of some 40,000 what is rounded off is less than bfloat16 rounds off of the inputs.

#pragma once

#include "vectors.h"

namespace {

// Outputs whose pairs of weights lie side by side.
constexpr int64_t BLOCK_OUTPUTS = 16;
// The largest whole number, and the largest norm of a row of a matrix of floats.
constexpr float MOST_WHOLE = 32000.0f, MOST_NORM = 38000.0f, MOST_SUM = 2147483000.0f;
// Less is taken for 0: its inverse would not be finite.
constexpr float LEAST_PEAK = 1e-30f;

typedef int32_t Eight __attribute__((vector_size(32)));

inline int64_t padded(int64_t size) { return (size + 15) / 16 * 16; }

inline __m256 absolute(__m256 values) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), values); }

inline float peak_of(__m256 values) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

// Sixteen floats as whole multiples of one step, whose inverse is given.
inline __m256i rounded(__m256 low, __m256 high, __m256 inverse) {
    const __m256i first = _mm256_cvtps_epi32(_mm256_mul_ps(low, inverse));
    const __m256i second = _mm256_cvtps_epi32(_mm256_mul_ps(high, inverse));
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8);
}

// Weights as whole numbers, 16 at a time or one.
template <class Q>
struct Wholes {
    static __m256i load(const typename Q::Type* from, float inverse) {
        return rounded(Q::eight(from), Q::eight(from + 8), _mm256_set1_ps(inverse));
    }
    static int16_t one(typename Q::Type value, float inverse) { return int16_t(__builtin_lrintf(Q::one(value) * inverse)); }
};

template <>
struct Wholes<Int8> {
    static __m256i load(const int8_t* from, float) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)from)); }
    static int16_t one(int8_t value, float) { return value; }
};

inline __m256i added(__m256i sum, __m256i a, __m256i b) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpwssd_epi32(sum, a, b);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

// The step of values whose largest is peak, if their norm as whole numbers is to be `most_norm` at most. Not a number or
// infinite where one of them is.
inline float step_of(float peak, float norm, float most_norm) {
    const float by_norm = norm / most_norm, by_peak = peak / MOST_WHOLE;
    return by_norm <= by_peak ? by_peak : by_norm;
}

inline float inverse_of(float step) { return step > 0 ? 1.0f / step : 0.0f; }

// A padded row of float32 as whole numbers of a norm up to most_norm; their step.
inline float round_row(const float* row, int64_t size, float most_norm, int16_t* out) {
    __m256 peaks = {};
    for (int64_t i = 0; i < size; i += 8) peaks = _mm256_max_ps(peaks, absolute(_mm256_loadu_ps(row + i)));
    const float peak = peak_of(peaks), scale = peak >= LEAST_PEAK ? 1.0f / peak : 1.0f;
    // Of shares of the peak, since squares may be beyond what a float holds.
    __m256 squares = {};
    for (int64_t i = 0; i < size; i += 8) {
        const __m256 share = _mm256_mul_ps(_mm256_loadu_ps(row + i), _mm256_set1_ps(scale));
        squares = _mm256_fmadd_ps(share, share, squares);
    }
    const float norm = __builtin_sqrtf(sum_eight(squares)) / scale;
    const float step = peak < LEAST_PEAK ? norm * 0 : step_of(peak, norm, most_norm);
    const __m256 inverse = _mm256_set1_ps(inverse_of(step));
    for (int64_t i = 0; i < size; i += 16)
        _mm256_storeu_si256((__m256i*)(out + i), rounded(_mm256_loadu_ps(row + i), _mm256_loadu_ps(row + i + 8), inverse));
    return step;
}

// The step of a row of weights.
template <class Q>
float weight_step(const typename Q::Type* row, int64_t size) {
    float peak = 0;
    double squares = 0;
    for (int64_t i = 0; i < size; i++) {
        const float value = Q::one(row[i]), magnitude = value < 0 ? -value : value;
        peak = magnitude > peak ? magnitude : peak;
        squares += double(value) * value;
    }
    return peak < LEAST_PEAK ? float(squares) * 0 : step_of(peak, float(__builtin_sqrt(squares)), MOST_NORM);
}

inline float code_norm(const int8_t* row, int64_t size) {
    int64_t squares = 0;
    for (int64_t i = 0; i < size; i++) squares += int64_t(row[i]) * row[i];
    return float(__builtin_sqrt(double(squares)));
}

// The largest norm that inputs may have as whole numbers, beside weights of that norm; rounding adds to both.
inline float input_norm(float weight_norm, int64_t size) {
    const float added = 0.5f * __builtin_sqrtf(float(size)) + 1;
    return MOST_SUM / (weight_norm + added) - added;
}

// Eight rows of eight pairs: the first pairs of all of them, then the second ones, and so on.
inline void turn(__m256i* rows) {
    __m256i pairs[8], fours[8];
    for (int i = 0; i < 4; i++) {
        pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            fours[i + 2 * j] = _mm256_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            fours[i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        rows[i] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
        rows[i + 4] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
    }
}

// Of num rows of k weights the pairs of columns, those of BLOCK_OUTPUTS rows side by side; what is missing is 0.
// Eight rows are read at once, so the next eight, which lie behind them, are asked for in the order of memory.
template <class Q>
void pack(const typename Q::Type* w, int64_t k, int64_t num, const float* steps, int16_t* out) {
    constexpr int64_t LINE = 64 / sizeof(typename Q::Type);
    const int64_t num_pairs = padded(k) / 2, num_whole = k / 16 * 8;
    for (int64_t first = 0; first < num; first += 8) {
        int16_t* to = out + first / BLOCK_OUTPUTS * BLOCK_OUTPUTS * 2 * num_pairs + first % BLOCK_OUTPUTS * 2;
        const int64_t some = least(8, num - first);
        const typename Q::Type *from = w + first * k, *ahead = from + 8 * k;
        float inverses[8];
        for (int j = 0; j < 8; j++) inverses[j] = j < some && steps ? inverse_of(steps[first + j]) : 0;
        for (int64_t p = 0; p < num_whole; p += 8) {
            __m256i rows[8];
            for (int64_t i = 0; i < 8 * 16 / LINE; i++) __builtin_prefetch(ahead + 16 * p + i * LINE);
            for (int j = 0; j < 8; j++)
                rows[j] = j < some ? Wholes<Q>::load(from + j * k + 2 * p, inverses[j]) : _mm256_setzero_si256();
            turn(rows);
            for (int j = 0; j < 8; j++) _mm256_storeu_si256((__m256i*)(to + (p + j) * 2 * BLOCK_OUTPUTS), rows[j]);
        }
        for (int64_t i = 2 * num_whole; i < 2 * num_pairs; i++)
            for (int j = 0; j < 8; j++)
                to[i / 2 * 2 * BLOCK_OUTPUTS + 2 * j + i % 2] =
                    j < some && i < k ? Wholes<Q>::one(from[j * k + i], inverses[j]) : int16_t(0);
    }
    // The second half of the last block, where there is nothing for it.
    if ((num + 7) / 8 % 2 == 1) {
        int16_t* to = out + num / BLOCK_OUTPUTS * BLOCK_OUTPUTS * 2 * num_pairs + BLOCK_OUTPUTS;
        for (int64_t p = 0; p < num_pairs; p++)
            _mm256_storeu_si256((__m256i*)(to + p * 2 * BLOCK_OUTPUTS), _mm256_setzero_si256());
    }
}

// R rows by a block of packed weights: their products times both steps.
template <int R>
__attribute__((noinline)) void whole_tile(const int16_t* x, int64_t width, const int16_t* w, const float* units, const float* steps,
                       float* out, int64_t stride) {
    // Vectors of g++'s own kind: an array of intrinsics' ones stays in memory.
    Eight sums[R][2] = {};
    for (int64_t p = 0; p < width / 2; p++) {
        const __m256i first = _mm256_loadu_si256((const __m256i*)(w + p * 2 * BLOCK_OUTPUTS));
        const __m256i second = _mm256_loadu_si256((const __m256i*)(w + p * 2 * BLOCK_OUTPUTS + BLOCK_OUTPUTS));
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            int32_t pair;
            memcpy(&pair, x + r * width + 2 * p, 4);
            const __m256i both = _mm256_set1_epi32(pair);
            // Else g++ 12 multiplies for all rows before it adds, and has no registers left.
            sums[r][0] = (Eight)added((__m256i)sums[r][0], first, both);
            asm("" : "+x"(sums[r][0]));
            sums[r][1] = (Eight)added((__m256i)sums[r][1], second, both);
            asm("" : "+x"(sums[r][1]));
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const __m256 found = _mm256_mul_ps(_mm256_cvtepi32_ps((__m256i)sums[r][half]), _mm256_set1_ps(units[r]));
            _mm256_storeu_ps(out + r * stride + 8 * half, _mm256_mul_ps(found, _mm256_loadu_ps(steps + 8 * half)));
        }
}

template <int R>
inline void whole_strip(const int16_t* x, int64_t width, const int16_t* w, int64_t num, const float* units,
                        const float* steps, float* out, int64_t stride) {
    for (int64_t o = 0; o < num; o += BLOCK_OUTPUTS)
        whole_tile<R>(x, width, w + o * width, units, steps + o, out + o, stride);
}

// n rows of whole numbers by num packed outputs, padded to whole blocks: out[row * stride + o].
inline void multiply_whole(const int16_t* x, int64_t n, int64_t width, const int16_t* w, int64_t num, const float* units,
                           const float* steps, float* out, int64_t stride) {
    int64_t r = 0;
    for (; r + 6 <= n; r += 6) whole_strip<6>(x + r * width, width, w, num, units + r, steps, out + r * stride, stride);
    x += r * width, units += r, out += r * stride;
    if (n - r == 5) whole_strip<5>(x, width, w, num, units, steps, out, stride);
    if (n - r == 4) whole_strip<4>(x, width, w, num, units, steps, out, stride);
    if (n - r == 3) whole_strip<3>(x, width, w, num, units, steps, out, stride);
    if (n - r == 2) whole_strip<2>(x, width, w, num, units, steps, out, stride);
    if (n - r == 1) whole_strip<1>(x, width, w, num, units, steps, out, stride);
}

// R rows by num rows of codes as they lie, one after the other; width is that of codes.
template <int R>
inline void code_strip(const int16_t* x, int64_t width, const int8_t* w, int64_t num, const float* units,
                       const float* steps, float* out, int64_t stride) {
    constexpr int U = R == 1 ? 4 : R == 2 ? 2 : 1;
    for (int64_t o = 0; o < num; o++) {
        const int8_t* row = w + o * width;
        __m256i sums[U][R] = {};
        int64_t i = 0;
        const auto step = [&](int u, int64_t at) {
            const __m256i codes = Wholes<Int8>::load(row + at, 0);
            ask_ahead<R>(row + at);
            for (int r = 0; r < R; r++)
                sums[u][r] = added(sums[u][r], codes, _mm256_loadu_si256((const __m256i*)(x + r * width + at)));
        };
        for (; i + 16 * U <= width; i += 16 * U)
            for (int u = 0; u < U; u++) step(u, i + 16 * u);
        for (; i < width; i += 16) step(0, i);
        for (int r = 0; r < R; r++) {
            for (int u = 1; u < U; u++) sums[0][r] = _mm256_add_epi32(sums[0][r], sums[u][r]);
            __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums[0][r]), _mm256_extracti128_si256(sums[0][r], 1));
            half = _mm_hadd_epi32(half, half);
            const int32_t total = _mm_cvtsi128_si32(_mm_hadd_epi32(half, half));
            out[r * stride + o] = float(total) * units[r] * steps[o];
        }
    }
}

inline void multiply_codes(const int16_t* x, int64_t n, int64_t width, const int8_t* w, int64_t num, const float* units,
                           const float* steps, float* out, int64_t stride) {
    if (n == 4) code_strip<4>(x, width, w, num, units, steps, out, stride);
    if (n == 3) code_strip<3>(x, width, w, num, units, steps, out, stride);
    if (n == 2) code_strip<2>(x, width, w, num, units, steps, out, stride);
    if (n == 1) code_strip<1>(x, width, w, num, units, steps, out, stride);
}

}  // namespace
