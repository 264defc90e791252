// Products by codes of 4 bits in groups, as torch packs them for processors with AVX2: blocks of 32 outputs, of each
// column 16 bytes, whose low halves are the first 16 outputs' codes, the high ones the others'.
//
// A weight is (code - 8) * scale + zero; each group of columns of an output has a scale and a zero in bfloat16.

#pragma once

#include "whole_products.h"

namespace {

// Outputs are filled up to a multiple of the last.
constexpr int64_t GROUP = 32, BLOCK_NIBBLES = 32, PACKED_OUTPUTS = 64;

// Codes of pairs of columns of 32 outputs, eight outputs to a vector, as 16-bit numbers.
inline void nibbles(const uint8_t* from, __m256i* pairs) {
    const __m128i half = _mm_set1_epi8(15), first = _mm_loadu_si128((const __m128i*)from);
    const __m128i second = _mm_loadu_si128((const __m128i*)(from + 16));
    const __m128i low[2] = {_mm_and_si128(first, half), _mm_and_si128(second, half)};
    const __m128i high[2] = {_mm_and_si128(_mm_srli_epi16(first, 4), half), _mm_and_si128(_mm_srli_epi16(second, 4), half)};
    pairs[0] = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(low[0], low[1]));
    pairs[1] = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(low[0], low[1]));
    pairs[2] = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(high[0], high[1]));
    pairs[3] = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(high[0], high[1]));
}

// R rows of whole numbers by a block of 32 outputs; `params` are the block's scales and zeros of the first group, those of
// the next `group_stride` numbers behind. Of each row `totals` has the sum of each group.
template <int R>
__attribute__((noinline)) void nibble_tile(const int16_t* x, int64_t width, const uint8_t* w, const uint16_t* params,
                                           int64_t group_stride, const int32_t* totals, const float* units, float* out,
                                           int64_t stride) {
    __m256 found[R][4];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) found[r][v] = _mm256_setzero_ps();
    for (int64_t g = 0; g < width / GROUP; g++) {
        Eight sums[R][4] = {};
        for (int64_t i = 0; i < GROUP; i += 2) {
            __m256i pairs[4];
            nibbles(w + (g * GROUP + i) * (BLOCK_NIBBLES / 2), pairs);
            ask_ahead<R>(w + (g * GROUP + i) * (BLOCK_NIBBLES / 2));
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                int32_t pair;
                memcpy(&pair, x + r * width + g * GROUP + i, 4);
                const __m256i both = _mm256_set1_epi32(pair);
#pragma GCC unroll 4
                for (int v = 0; v < 4; v++) sums[r][v] = (Eight)added((__m256i)sums[r][v], pairs[v], both);
            }
        }
        const uint16_t* of_group = params + g * group_stride;
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            const __m256i both = _mm256_loadu_si256((const __m256i*)(of_group + 16 * v));
            const __m256 scales = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            const __m256 zeros = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(int32_t(0xffff0000))));
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const int32_t total = totals[r * (width / GROUP) + g];
                const __m256i centred = _mm256_sub_epi32((__m256i)sums[r][v], _mm256_set1_epi32(8 * total));
                found[r][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(centred), scales, found[r][v]);
                found[r][v] = _mm256_fmadd_ps(_mm256_set1_ps(float(total)), zeros, found[r][v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            _mm256_storeu_ps(out + r * stride + 8 * v, _mm256_mul_ps(found[r][v], _mm256_set1_ps(units[r])));
}

// The sums of a row's groups.
inline void add_groups(const int16_t* x, int64_t width, int32_t* totals) {
    for (int64_t g = 0; g < width / GROUP; g++) {
        int32_t total = 0;
        for (int64_t i = 0; i < GROUP; i++) total += x[g * GROUP + i];
        totals[g] = total;
    }
}

// n rows by num outputs, whole blocks, from the block of the first one on.
inline void multiply_nibbles(const int16_t* x, int64_t n, int64_t width, const uint8_t* w, int64_t num,
                             const uint16_t* params, int64_t group_stride, const int32_t* totals, const float* units,
                             float* out, int64_t stride) {
    const int64_t num_groups = width / GROUP;
    for (int64_t o = 0; o < num; o += BLOCK_NIBBLES) {
        const uint8_t* block = w + o * width / 2;
        int64_t r = 0;
        for (; r + 2 <= n; r += 2)
            nibble_tile<2>(x + r * width, width, block, params + 2 * o, group_stride, totals + r * num_groups, units + r,
                           out + r * stride + o, stride);
        if (r < n)
            nibble_tile<1>(x + r * width, width, block, params + 2 * o, group_stride, totals + r * num_groups, units + r,
                           out + r * stride + o, stride);
    }
}

}  // namespace
