// The ways to multiply a part of a matrix by some tokens, one of which is chosen for a pass by how many tokens it has.

#pragma once

#include <type_traits>

#include "float_products.h"
#include "tables.h"
#include "whole_products.h"

namespace {

// Weights of a part: with the tokens' inputs they fit into a core's own cache. Of few tokens nothing has to stay there:
// small parts let threads end together.
constexpr int64_t PART_BYTES = 1 << 17, SMALL_PART_BYTES = 1 << 15;
// A multiple of every number of outputs that floats are computed at once for.
constexpr int64_t PART_STEP = 12;
// Tokens whose products by a part are kept before something is done with them.
constexpr int64_t BLOCK_TOKENS = 32;
constexpr int64_t MOST_PART_OUTPUTS = 1024;

// Floats: inputs and sums, weights become such.
template <class Q>
struct FloatWay {
    const Matrix& m;
    const float* rows;
    int64_t num_tokens;

    FloatWay(const Own&, const Matrix& m, const float* rows, int64_t n) : m(m), rows(rows), num_tokens(n) {}
    // Outputs of a part, if `num` of them are taken at once.
    int64_t part_outputs(int64_t num) const {
        const int64_t bytes = (num_tokens <= 4 ? SMALL_PART_BYTES : PART_BYTES) / num;
        const int64_t found = bytes / (m.width * int64_t(sizeof(typename Q::Type))) / PART_STEP * PART_STEP;
        return most(PART_STEP, least(found, MOST_PART_OUTPUTS / PART_STEP * PART_STEP));
    }
    int64_t stride(int64_t num) const { return num; }
    void take(int64_t, int64_t, int64_t) const {}
    void multiply(int64_t t, int64_t some, int64_t first, int64_t num, int64_t, float* out) const {
        ::multiply<Q, 4>(rows + t * m.width, some, m.width, m.weight + first * m.width, num, out, num, t == 0);
    }
};

// A row as the columns of m read it, padded.
inline void gather(const Matrix& m, const float* row, float* out) {
    memcpy(out, row, m.num_in * sizeof(float));
    for (int64_t i = 0; m.extra && i < m.width - m.num_in; i++) out[m.num_in + i] = row[m.extra[i]];
    for (int64_t i = 0; m.factors && i < m.width; i++) out[i] *= m.factors[i];
    for (int64_t i = m.width; i < padded(m.width); i++) out[i] = 0;
}

// All rows as whole numbers.
inline void round_rows(const Own& own, const Matrix& m, const float* rows, int64_t n) {
    const int64_t width = padded(m.width);
    each_token(own, n, [&](int64_t t) {
        gather(m, rows + t * m.num_in, own.row);
        own.units[t] = round_row(own.row, width, m.input_norm, own.wholes + t * width);
    });
}

// Whole numbers, for as many tokens as pay for packing the weights.
template <class Q>
struct PackedWay {
    const Own& own;
    const Matrix& m;
    const int64_t width;

    PackedWay(const Own& own, const Matrix& m, const float* rows, int64_t n) : own(own), m(m), width(padded(m.width)) {
        round_rows(own, m, rows, n);
    }
    int64_t part_outputs(int64_t num) const {
        const int64_t found = PART_BYTES / int64_t(sizeof(int16_t)) / num / width / BLOCK_OUTPUTS * BLOCK_OUTPUTS;
        return most(BLOCK_OUTPUTS, least(found, MOST_PART_OUTPUTS));
    }
    int64_t stride(int64_t num) const { return (num + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * BLOCK_OUTPUTS; }
    int16_t* place(int64_t which, int64_t num) const { return own.packed + which * stride(num) * width; }
    void take(int64_t first, int64_t num, int64_t which) const {
        pack<Q>(m.weight + first * m.width, m.width, num, m.steps + first, place(which, num));
    }
    void multiply(int64_t t, int64_t some, int64_t first, int64_t num, int64_t which, float* out) const {
        multiply_whole(own.wholes + t * width, some, width, place(which, num), num, own.units + t, m.steps + first, out,
                       stride(num));
    }
};

// Whole numbers by codes as they lie.
template <class Q>
struct CodeWay {
    const Own& own;
    const Matrix& m;

    CodeWay(const Own& own, const Matrix& m, const float* rows, int64_t n) : own(own), m(m) { round_rows(own, m, rows, n); }
    int64_t part_outputs(int64_t num) const {
        return most(1, least(SMALL_PART_BYTES / num / m.width, MOST_PART_OUTPUTS));
    }
    int64_t stride(int64_t num) const { return num; }
    void take(int64_t, int64_t, int64_t) const {}
    void multiply(int64_t t, int64_t some, int64_t first, int64_t num, int64_t, float* out) const {
        multiply_codes(own.wholes + t * m.width, some, m.width, (const int8_t*)m.weight + first * m.width, num,
                       own.units + t, m.steps + first, out, num);
    }
};

constexpr bool HAS_CODES = std::is_same<Weight, Int8>::value, IS_EXACT = std::is_same<Weight, Float32>::value;
// As many make whole numbers pay; with codes more than those that are read as they lie.
constexpr int64_t MANY_TOKENS = HAS_CODES ? 5 : 8;
typedef std::conditional<HAS_CODES, CodeWay<Weight>, FloatWay<Weight>>::type FewWay;
// Weights in float32 say more than whole numbers of 16 bits.
typedef std::conditional<IS_EXACT, FloatWay<Weight>, PackedWay<Weight>>::type ManyWay;

// The norm that inputs may have; the steps of weights where they are floats.
template <class Q>
float measured(const Matrix& m, float* steps, int64_t num_threads) {
    float most_norm = 0;
#pragma omp parallel for num_threads(num_threads) reduction(max : most_norm)
    for (int64_t o = 0; o < m.num_out; o++) {
        if constexpr (HAS_CODES)
            most_norm = __builtin_fmaxf(most_norm, code_norm((const int8_t*)m.weight + o * m.width, m.width));
        else if constexpr (!IS_EXACT)
            steps[o] = weight_step<Q>(m.weight + o * m.width, m.width);
    }
    return input_norm(HAS_CODES ? most_norm : MOST_NORM, m.width);
}

// silu(gate) * up of num outputs; both biases lie `size` apart.
inline void activate(const float* gate, const float* up, const float* bias, int64_t size, int64_t num, float* out) {
    int64_t o = 0;
    for (; o + WIDTH <= num; o += WIDTH) {
        const Floats g = bias ? Float32::load(gate + o) + Float32::load(bias + o) : Float32::load(gate + o);
        const Floats u = bias ? Float32::load(up + o) + Float32::load(bias + size + o) : Float32::load(up + o);
        put(out + o, g / (1.0f + exponential(-g)) * u);
    }
    for (; o < num; o++) {
        const float g = gate[o] + (bias ? bias[o] : 0.0f), u = up[o] + (bias ? bias[size + o] : 0.0f);
        out[o] = g / (1.0f + exponential(all(-g))[0]) * u;
    }
}

}  // namespace
