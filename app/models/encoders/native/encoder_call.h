// What a pass over the layers of an encoder is told, and the memory that it works in.

#pragma once

#include "panels.h"

extern "C" {

// A weight (num_out, num_in), its strides in numbers, and a bias or null.
struct Matrix {
    const float *weight, *bias;
    int64_t num_in, num_out, out_stride, in_stride;
};

struct Norm {
    const float *weight, *bias;
};

struct Layer {
    Matrix query, key, value, attended, up, down;
    Norm attention_norm, output_norm;
};

struct Call {
    int64_t num_layers, num_tokens, num_texts, longest, num_threads;
    int64_t hidden, num_heads, head_dim, intermediate, activation;
    // Whether only the first token of each text is wanted: then they are the first rows of the states at the end.
    int64_t is_first_enough;
    float epsilon, scaling;
    const Layer* layers;
    // Where each text begins, and behind them where the last one ends.
    const int64_t* begins;
    float *states, *scratch;
};
}

namespace {

// Memory for floats, piece by piece, each at the beginning of a cache line; without any it only counts.
struct Room {
    float* from;
    int64_t used = 0;

    float* take(int64_t num) {
        float* found = from ? from + used : nullptr;
        used += (num + 15) / 16 * 16;
        return found;
    }
};

inline int64_t width_of(const Call& call) { return call.num_heads * call.head_dim; }

// Layer norm of a row of states.
inline void norm_row(const Call& call, const Norm& norm, float* row) {
    const int64_t size = call.hidden;
    Floats sums = {};
    float total = 0;
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) sums += load(row + i);
    for (; i < size; i++) total += row[i];
    const float mean = (total + sum(sums)) / float(size);
    Floats squares = {};
    total = 0;
    for (i = 0; i + WIDTH <= size; i += WIDTH) {
        const Floats rest = load(row + i) - mean;
        squares += rest * rest;
    }
    for (; i < size; i++) total += (row[i] - mean) * (row[i] - mean);
    const float scale = 1.0f / __builtin_sqrtf((total + sum(squares)) / float(size) + call.epsilon);
    for (i = 0; i + WIDTH <= size; i += WIDTH)
        put(row + i, (load(row + i) - mean) * scale * load(norm.weight + i) + load(norm.bias + i));
    for (; i < size; i++) row[i] = (row[i] - mean) * scale * norm.weight[i] + norm.bias[i];
}

}  // namespace
