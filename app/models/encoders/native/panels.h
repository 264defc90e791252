// Products of rows by a few outputs' weights at a time, which are laid out in panels that a core's caches hold.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vectors.h"

namespace {

// A panel: the weights of so many outputs, input by input. Sums of ROWS tokens by a panel fill the registers.
constexpr int ROWS = 6, PANEL = 2 * WIDTH;
// Inputs of a panel that are gone through at once: they stay in a core's first cache with ROWS tokens.
constexpr int64_t DEPTH = 6144 / PANEL;
// Tokens that are multiplied by one panel after the other: they stay in the second cache.
constexpr int64_t BLOCK_TOKENS = 16 * ROWS;

inline Floats load(const float* from) { return Float32::load(from); }

inline int64_t panels_of(int64_t num_out) { return (num_out + PANEL - 1) / PANEL; }

// The error function by a quotient of polynomials, as Eigen has it, to 3e-7; beyond 4 it is 1.
inline Floats error_function(Floats x) {
    x = x > 4.0f ? all(4.0f) : x;
    x = x < -4.0f ? all(-4.0f) : x;
    const Floats square = x * x;
    Floats above = square * -2.72614225801306e-10f + 2.77068142495902e-08f;
    above = above * square - 2.10102402082508e-06f;
    above = above * square - 5.69250639462346e-05f;
    above = above * square - 7.34990630326855e-04f;
    above = above * square - 2.95459980854025e-03f;
    above = above * square - 1.60960333262415e-02f;
    Floats below = square * -1.45660718464996e-05f - 2.13374055278905e-04f;
    below = below * square - 1.68282697438203e-03f;
    below = below * square - 7.37332916720468e-03f;
    below = below * square - 1.42647390514189e-02f;
    return x * above / below;
}

// x times the normal distribution's integral up to x.
inline Floats gelu(Floats x) { return 0.5f * x * (1.0f + error_function(0.70710678f * x)); }

// The same by a hyperbolic tangent, as GPT-2 has it.
inline Floats gelu_by_tanh(Floats x) {
    const Floats inner = 1.5957691216f * (x + 0.044715f * x * x * x);
    return x / (1.0f + exponential(-inner));
}

enum Start { FROM_BIAS, FROM_OUTPUT };

// What a product begins with and what is done with its sums in the end.
struct Use {
    Start start;
    int64_t activation;
};

constexpr int64_t NONE = 0, GELU = 1, GELU_TANH = 2, RELU = 3;

inline Floats activated(Floats x, int64_t activation) {
    switch (activation) {
        case GELU:
            return gelu(x);
        case GELU_TANH:
            return gelu_by_tanh(x);
        case RELU:
            return x > 0.0f ? x : Floats{};
        default:
            return x;
    }
}

// R rows of x by a panel, k inputs deep, on top of what sums has.
template <int R>
inline void multiply(const float* x, int64_t stride, int64_t k, const float* panel, Floats (&sums)[ROWS][2]) {
    Floats found[R][2];
    for (int r = 0; r < R; r++) found[r][0] = sums[r][0], found[r][1] = sums[r][1];
    for (int64_t i = 0; i < k; i++) {
        const Floats first = *(const Floats*)(panel + i * PANEL), second = *(const Floats*)(panel + i * PANEL + WIDTH);
        for (int r = 0; r < R; r++) {
            const Floats row = all(x[r * stride + i]);
            found[r][0] += row * first;
            found[r][1] += row * second;
        }
    }
    for (int r = 0; r < R; r++) sums[r][0] = found[r][0], sums[r][1] = found[r][1];
}

template <int R>
using Rows = std::integral_constant<int, R>;

// `run(Rows<R>, first)` for n rows, R at a time: as few that do not fill the registers as can be.
template <typename Run>
inline void by_rows(int64_t n, Run run) {
    for (int64_t r = 0; r < n;) {
        const int64_t rest = n - r, here = rest >= 2 * ROWS ? ROWS : rest > ROWS ? (rest + 1) / 2 : rest;
        switch (here) {
            case 6: run(Rows<6>(), r); break;
            case 5: run(Rows<5>(), r); break;
            case 4: run(Rows<4>(), r); break;
            case 3: run(Rows<3>(), r); break;
            case 2: run(Rows<2>(), r); break;
            case 1: run(Rows<1>(), r); break;
        }
        r += here;
    }
}

inline Floats loaded(const float* from, int64_t num) {
    if (num >= WIDTH) return load(from);
    Floats found = {};
    for (int64_t i = 0; i < num; i++) found[i] = from[i];
    return found;
}

inline void stored(float* to, Floats values, int64_t num) {
    if (num >= WIDTH) return put(to, values);
    for (int64_t i = 0; i < num; i++) to[i] = values[i];
}

// Products of R rows by a panel of num outputs: a part of the inputs, which may be the first and the last one. The sum
// of a part begins at zero: on top of a larger number its terms would lose their last digits one by one.
template <int R>
void tile(const float* x, int64_t stride, int64_t k, const float* panel, const float* bias, int64_t num, float* out,
          int64_t out_stride, bool is_first, bool is_last, Use use) {
    Floats sums[ROWS][2] = {};
    multiply<R>(x, stride, k, panel, sums);
    const bool goes_on = !is_first || use.start == FROM_OUTPUT;
    for (int half = 0; half < 2; half++) {
        const int64_t here = num - half * WIDTH;
        if (here <= 0) continue;
        const Floats added = is_first && bias ? loaded(bias + half * WIDTH, here) : Floats{};
        for (int r = 0; r < R; r++) {
            float* to = out + r * out_stride + half * WIDTH;
            const Floats found = sums[r][half] + (goes_on ? loaded(to, here) + added : added);
            stored(to, is_last ? activated(found, use.activation) : found, here);
        }
    }
}

// n rows of x by one panel of num outputs, k inputs deep.
inline void by_panel(const float* x, int64_t stride, int64_t n, int64_t k, const float* panel, const float* bias,
                     int64_t num, float* out, int64_t out_stride, Use use) {
    for (int64_t i = 0; i < k; i += DEPTH) {
        const int64_t depth = least(DEPTH, k - i);
        by_rows(n, [&](auto rows, int64_t r) {
            tile<decltype(rows)::value>(x + r * stride + i, stride, depth, panel + i * PANEL, bias, num,
                                        out + r * out_stride, out_stride, i == 0, i + depth == k, use);
        });
    }
}

// The weights of num outputs (at most PANEL) as a panel; zeros for those that are missing.
inline void lay_out(const float* weight, int64_t out_stride, int64_t in_stride, int64_t num, int64_t k, float* panel) {
    if (num < PANEL) memset(panel, 0, sizeof(float) * PANEL * k);
    if (out_stride == 1 && num == PANEL) {
        for (int64_t i = 0; i < k; i++)
            for (int v = 0; v < PANEL; v += WIDTH) put(panel + i * PANEL + v, load(weight + i * in_stride + v));
        return;
    }
    // A few inputs of all outputs at a time, so that what is written stays in the first cache.
    for (int64_t i = 0; i < k; i += 16)
        for (int64_t o = 0; o < num; o++)
            for (int64_t j = i; j < least(i + 16, k); j++) panel[j * PANEL + o] = weight[o * out_stride + j * in_stride];
}

}  // namespace
