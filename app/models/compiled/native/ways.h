// The ways to multiply a part of a matrix by some tokens, one of which is chosen for a pass by how many tokens it has.

#pragma once

#include <type_traits>

#include "float_products.h"
#include "nibble_products.h"
#include "tables.h"

namespace {

// Weights of a part: with the tokens' inputs they fit into a core's own cache. Of few tokens nothing has to stay there:
// small parts let threads end together.
constexpr int64_t PART_BYTES = 1 << 17, SMALL_PART_BYTES = 1 << 15;
// A multiple of every number of outputs that floats are computed at once for.
constexpr int64_t PART_STEP = 12;
// Tokens whose products by a part are kept before something is done with them.
constexpr int64_t BLOCK_TOKENS = 32;
constexpr int64_t MOST_PART_OUTPUTS = 1024;

// The row of weights of an output.
template <class Q>
const typename Q::Type* weight_at(const Matrix& m, int64_t output) {
    return (const typename Q::Type*)m.weight + output * m.width;
}

// Floats: inputs and sums, weights become such.
template <class Q>
struct FloatWay {
    const Matrix& m;
    const float* rows;
    int64_t num_tokens;
    // The only row, spread, where that is how it is read.
    const float* spread = nullptr;

    static void prepare(const Own&, const Matrix&, const float*, int64_t) {}
    // Of n prepared rows from the `first`th on.
    FloatWay(const Own& own, const Matrix& m, const float* rows, int64_t first, int64_t n)
        : m(m), rows(rows + first * m.width), num_tokens(n) {
#if !defined(__AVX512F__)
        if (!std::is_same<Q, BFloat16>::value || n != 1) return;
        spread_row(this->rows, m.width, own.row);
        spread = own.row;
#endif
    }
    // Outputs of a part, if `num` of them are taken at once.
    int64_t part_outputs(int64_t num) const {
        const int64_t bytes = (num_tokens <= 4 ? SMALL_PART_BYTES : PART_BYTES) / num;
        const int64_t found = bytes / (m.width * int64_t(sizeof(typename Q::Type))) / PART_STEP * PART_STEP;
        return most(PART_STEP, least(found, MOST_PART_OUTPUTS / PART_STEP * PART_STEP));
    }
    int64_t stride(int64_t num) const { return num; }
    void take(int64_t, int64_t, int64_t) const {}
    void multiply(int64_t t, int64_t some, int64_t first, int64_t num, int64_t, float* out) const {
#if !defined(__AVX512F__)
        if constexpr (std::is_same<Q, BFloat16>::value)
            if (spread) return spread_strip(spread, m.width, weight_at<Q>(m, first), num, out);
#endif
        ::multiply<Q, 4>(rows + t * m.width, some, m.width, weight_at<Q>(m, first), num, out, num, t == 0);
    }
};

// A row as the columns of m read it, padded.
inline void gather(const Matrix& m, const float* row, float* out) {
    memcpy(out, row, m.num_in * sizeof(float));
    for (int64_t i = 0; m.extra && i < m.width - m.num_in; i++) out[m.num_in + i] = row[m.extra[i]];
    for (int64_t i = 0; m.factors && i < m.width; i++) out[i] *= m.factors[i];
    for (int64_t i = m.extra ? m.width : m.num_in; i < padded(m.width); i++) out[i] = 0;
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
    const int64_t width, begin;

    static void prepare(const Own& own, const Matrix& m, const float* rows, int64_t n) { round_rows(own, m, rows, n); }
    PackedWay(const Own& own, const Matrix& m, const float*, int64_t first, int64_t)
        : own(own), m(m), width(padded(m.width)), begin(first) {}
    int64_t part_outputs(int64_t num) const {
        const int64_t found = PART_BYTES / int64_t(sizeof(int16_t)) / num / width / BLOCK_OUTPUTS * BLOCK_OUTPUTS;
        return most(BLOCK_OUTPUTS, least(found, MOST_PART_OUTPUTS));
    }
    int64_t stride(int64_t num) const { return (num + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * BLOCK_OUTPUTS; }
    int16_t* place(int64_t which, int64_t num) const { return own.packed + which * stride(num) * width; }
    void take(int64_t first, int64_t num, int64_t which) const {
        pack<Q>(weight_at<Q>(m, first), m.width, num, m.steps + first, place(which, num));
    }
    void multiply(int64_t t, int64_t some, int64_t first, int64_t num, int64_t which, float* out) const {
        multiply_whole(own.wholes + (begin + t) * width, some, width, place(which, num), num, own.units + begin + t, m.steps + first, out,
                       stride(num));
    }
};

// Whole numbers by codes as they lie.
template <class Q>
struct CodeWay {
    const Own& own;
    const Matrix& m;
    const int64_t begin;

    static void prepare(const Own& own, const Matrix& m, const float* rows, int64_t n) { round_rows(own, m, rows, n); }
    CodeWay(const Own& own, const Matrix& m, const float*, int64_t first, int64_t) : own(own), m(m), begin(first) {}
    int64_t part_outputs(int64_t num) const {
        return most(1, least(SMALL_PART_BYTES / num / m.width, MOST_PART_OUTPUTS));
    }
    int64_t stride(int64_t num) const { return num; }
    void take(int64_t, int64_t, int64_t) const {}
    void multiply(int64_t t, int64_t some, int64_t first, int64_t num, int64_t, float* out) const {
        multiply_codes(own.wholes + (begin + t) * m.width, some, m.width, weight_at<Q>(m, first), num,
                       own.units + begin + t, m.steps + first, out, num);
    }
};

// Whole numbers by codes of 4 bits.
template <class Q>
struct NibbleWay {
    const Own& own;
    const Matrix& m;
    const int64_t begin;

    NibbleWay(const Own& own, const Matrix& m, const float*, int64_t first, int64_t) : own(own), m(m), begin(first) {}
    static void prepare(const Own& own, const Matrix& m, const float* rows, int64_t n) {
        const int64_t width = m.width;
        each_token(own, n, [&](int64_t t) {
            gather(m, rows + t * m.num_in, own.row);
            own.units[t] = round_row(own.row, width, m.input_norm, own.wholes + t * width);
            add_groups(own.wholes + t * width, width, own.totals + t * (width / GROUP));
        });
    }
    int64_t part_outputs(int64_t num) const {
        const int64_t found = 2 * SMALL_PART_BYTES / num / m.width / BLOCK_NIBBLES * BLOCK_NIBBLES;
        return most(BLOCK_NIBBLES, least(found, MOST_PART_OUTPUTS));
    }
    int64_t stride(int64_t num) const { return (num + BLOCK_NIBBLES - 1) / BLOCK_NIBBLES * BLOCK_NIBBLES; }
    void take(int64_t, int64_t, int64_t) const {}
    void multiply(int64_t t, int64_t some, int64_t first, int64_t num, int64_t, float* out) const {
        const uint8_t* block = (const uint8_t*)m.weight + first * m.width / 2;
        const uint16_t* params = (const uint16_t*)m.steps + 2 * first;
        multiply_nibbles(own.wholes + (begin + t) * m.width, some, m.width, block, num, params,
                         (m.num_out + PACKED_OUTPUTS - 1) / PACKED_OUTPUTS * PACKED_OUTPUTS * 2,
                         own.totals + (begin + t) * (m.width / GROUP), own.units + begin + t, out, stride(num));
    }
};

// By how many tokens there are: what a few are multiplied by, and what as many as make packing pay.
template <class Q>
struct Ways {
    static constexpr int64_t MANY_TOKENS = 8;
    typedef FloatWay<Q> Few;
    typedef PackedWay<Q> Many;
    static float measured(const Matrix& m, float* steps, int64_t num_threads) {
#pragma omp parallel for num_threads(num_threads)
        for (int64_t o = 0; o < m.num_out; o++) steps[o] = weight_step<Q>(weight_at<Q>(m, o), m.width);
        return input_norm(MOST_NORM, m.width);
    }
};

// float32 says more than whole numbers of 16 bits.
template <>
struct Ways<Float32> {
    static constexpr int64_t MANY_TOKENS = 8;
    typedef FloatWay<Float32> Few;
    typedef FloatWay<Float32> Many;
    static float measured(const Matrix&, float*, int64_t) { return 0; }
};

template <>
struct Ways<Int8> {
    static constexpr int64_t MANY_TOKENS = 5;
    typedef CodeWay<Int8> Few;
    typedef PackedWay<Int8> Many;
    static float measured(const Matrix& m, float*, int64_t num_threads) {
        float most_norm = 0;
#pragma omp parallel for num_threads(num_threads) reduction(max : most_norm)
        for (int64_t o = 0; o < m.num_out; o++)
            most_norm = __builtin_fmaxf(most_norm, code_norm(weight_at<Int8>(m, o), m.width));
        return input_norm(most_norm, m.width);
    }
};

// Sums of a group are small whatever the inputs are.
template <>
struct Ways<Int4> {
    static constexpr int64_t MANY_TOKENS = 8;
    typedef NibbleWay<Int4> Few;
    typedef NibbleWay<Int4> Many;
    static float measured(const Matrix&, float*, int64_t) { return MOST_SUM; }
};

// What a gate lets through of `up`: by e to a power; GELU by tangents is such, too.
inline Floats combined(const Call& call, Floats gate, Floats up) {
    if (call.activation == CLAMPED) {
        gate = gate > call.limit ? all(call.limit) : gate;
        up = up > call.limit ? all(call.limit) : up;
        up = up < -call.limit ? all(-call.limit) : up;
        return gate / (1.0f + exponential(-call.slope * gate)) * (up + 1.0f);
    }
    const Floats power = call.activation == SILU ? gate : 1.5957691216f * (gate + 0.044715f * gate * gate * gate);
    return gate / (1.0f + exponential(-power)) * up;
}

// The activated gate times up, of num outputs; both biases lie `size` apart.
inline void activate(const Call& call, const float* gate, const float* up, const float* bias, int64_t size, int64_t num,
                     float* out) {
    int64_t o = 0;
    for (; o + WIDTH <= num; o += WIDTH) {
        const Floats g = bias ? Float32::load(gate + o) + Float32::load(bias + o) : Float32::load(gate + o);
        const Floats u = bias ? Float32::load(up + o) + Float32::load(bias + size + o) : Float32::load(up + o);
        put(out + o, combined(call, g, u));
    }
    for (; o < num; o++) {
        const float g = gate[o] + (bias ? bias[o] : 0.0f), u = up[o] + (bias ? bias[size + o] : 0.0f);
        out[o] = combined(call, all(g), all(u))[0];
    }
}

}  // namespace
