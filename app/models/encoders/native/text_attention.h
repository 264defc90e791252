// Attention of a text to itself, head by head, by products of panels.

#pragma once

#include "encoder_call.h"

namespace {

// Scores of n entries as powers of e, whatever follows up to the end of the row as 0; their sum's inverse.
inline float softmax(float* scores, int64_t n, int64_t end, float scaling) {
    float most = scores[0];
    Floats peaks = all(most);
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        const Floats some = load(scores + i);
        peaks = some > peaks ? some : peaks;
    }
    for (int lane = 0; lane < WIDTH; lane++) most = peaks[lane] > most ? peaks[lane] : most;
    for (; i < n; i++) most = scores[i] > most ? scores[i] : most;
    for (i = n; i < end; i++) scores[i] = most - 88.0f / scaling;
    Floats sums = {};
    for (i = 0; i < end; i += WIDTH) {
        Floats found = exponential((load(scores + i) - most) * scaling);
        for (int64_t lane = i < n ? n - i : 0; lane < WIDTH; lane++) found[lane] = 0;
        sums += found;
        put(scores + i, found);
    }
    return 1.0f / sum(sums);
}

// Softmax of some rows of scores, of n entries each; 0 behind them.
inline void weigh(float* scores, int64_t num_rows, int64_t n, int64_t padded, float scaling) {
    for (int64_t r = 0; r < num_rows; r++) {
        float* row = scores + r * padded;
        const float share = softmax(row, n, padded, scaling);
        for (int64_t i = 0; i < padded; i += WIDTH) put(row + i, load(row + i) * share);
    }
}

// What attention of one text takes of scratch: keys and values in panels, scores of a block of queries.
inline int64_t attention_size(int64_t longest, int64_t head_dim) {
    const int64_t keys = panels_of(longest) * PANEL;
    return keys * head_dim + longest * panels_of(head_dim) * PANEL + least(BLOCK_TOKENS, longest) * keys;
}

// Heads of texts, a head's numbers behind the other's.
struct Heads {
    float *queries, *keys, *values, *out;

    Heads behind(int64_t num) const { return {queries + num, keys + num, values + num, out + num}; }
};

// One head of a text of n tokens.
inline void attend(const Call& call, const Heads& heads, int64_t n, float* scratch) {
    const int64_t width = width_of(call), size = call.head_dim, padded = panels_of(n) * PANEL;
    float *key_panels = scratch, *value_panels = key_panels + padded * size;
    float* scores = value_panels + n * panels_of(size) * PANEL;
    const Use plain = {FROM_BIAS, NONE};
    for (int64_t k = 0; k < n; k += PANEL)
        lay_out(heads.keys + k * width, width, 1, least(PANEL, n - k), size, key_panels + k * size);
    for (int64_t d = 0; d < size; d += PANEL)
        lay_out(heads.values + d, 1, width, least(PANEL, size - d), n, value_panels + d * n);
    for (int64_t t = 0; t < n; t += BLOCK_TOKENS) {
        const int64_t some = least(BLOCK_TOKENS, n - t);
        for (int64_t k = 0; k < n; k += PANEL)
            by_panel(heads.queries + t * width, width, some, size, key_panels + k * size, nullptr, PANEL, scores + k,
                     padded, plain);
        weigh(scores, some, n, padded, call.scaling);
        for (int64_t d = 0; d < size; d += PANEL)
            by_panel(scores, padded, some, n, value_panels + d * n, nullptr, least(PANEL, size - d),
                     heads.out + t * width + d, width, plain);
    }
}

}  // namespace
