// The last layer where only the first token of each text is wanted.
//
// Its query meets keys and values that are products of all tokens. Instead the query is taken back through the keys'
// weight, so that it meets the tokens themselves, and their mean goes through the values' weight: sums in another order,
// without a product for each token. The keys' bias adds the same to all scores of a query, which is nothing to a softmax.

#pragma once

#include "shared_products.h"
#include "text_attention.h"

namespace {

struct Firsts {
    // Of each text: its first token; of each of its heads what it is looked for by, and the mean of what was found.
    float *states, *queries, *asked, *found, *attended, *activated;

    static Firsts in(const Call& call, Room& room) {
        const int64_t n = call.num_texts, heads = n * call.num_heads * call.hidden;
        return {room.take(n * call.hidden),      room.take(n * width_of(call)), room.take(heads), room.take(heads),
                room.take(n * width_of(call)), room.take(n * call.intermediate)};
    }
};

inline int64_t first_size(const Call& call) {
    const int64_t widest = most(most(call.hidden, call.intermediate), most(width_of(call), call.longest));
    return PART_PANELS * PANEL * widest + call.num_heads * panels_of(call.longest) * PANEL;
}

// What the heads of a text's first token find among its n tokens.
inline void look_up(const Call& call, const float* asked, const float* tokens, int64_t n, float* found,
                    float* scratch) {
    const int64_t size = call.hidden, padded = panels_of(n) * PANEL;
    float *scores = scratch, *panel = scratch + call.num_heads * panels_of(call.longest) * PANEL;
    const Use plain = {FROM_BIAS, NONE};
    for (int64_t k = 0; k < n; k += PANEL) {
        lay_out(tokens + k * size, size, 1, least(PANEL, n - k), size, panel);
        by_panel(asked, size, call.num_heads, size, panel, nullptr, PANEL, scores + k, padded, plain);
    }
    weigh(scores, call.num_heads, n, padded, call.scaling);
    for (int64_t d = 0; d < size; d += PANEL) {
        lay_out(tokens + d, 1, size, least(PANEL, size - d), n, panel);
        by_panel(scores, padded, call.num_heads, n, panel, nullptr, least(PANEL, size - d), found + d, size, plain);
    }
}

// From the states before the layer; a row for each text comes to be their first rows.
inline void first_layer(const Call& call, const Firsts& firsts, float* scratch) {
    const Layer& layer = call.layers[call.num_layers - 1];
    const int64_t n = call.num_texts, size = call.hidden, head = call.head_dim, heads = call.num_heads;
    const Use plain = {FROM_BIAS, NONE}, added = {FROM_OUTPUT, NONE}, active = {FROM_BIAS, call.activation};
    const auto normed = [&](const Norm& norm, float* rows) {
#pragma omp for schedule(static)
        for (int64_t text = 0; text < n; text++) norm_row(call, norm, rows + text * size);
    };
#pragma omp for schedule(static)
    for (int64_t text = 0; text < n; text++)
        memcpy(firsts.states + text * size, call.states + call.begins[text] * size, sizeof(float) * size);
    const Product query = {&layer.query, firsts.queries};
    multiplied(firsts.states, n, &query, 1, plain, scratch);
#pragma omp for schedule(dynamic, 1)
    for (int64_t h = 0; h < heads; h++) {
        const Matrix& key = layer.key;
        const Matrix back = {key.weight + h * head * key.out_stride, nullptr, head, size, key.in_stride, key.out_stride};
        for (int64_t part = 0; part < parts_of(back); part++)
            multiply_part(firsts.queries + h * head, heads * head, n, back, part, firsts.asked + h * size, heads * size,
                          plain, scratch);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t text = 0; text < n; text++)
        look_up(call, firsts.asked + text * heads * size, call.states + call.begins[text] * size,
                call.begins[text + 1] - call.begins[text], firsts.found + text * heads * size, scratch);
#pragma omp for schedule(dynamic, 1)
    for (int64_t h = 0; h < heads; h++) {
        const Matrix& value = layer.value;
        const Matrix through = {value.weight + h * head * value.out_stride, value.bias ? value.bias + h * head : nullptr,
                                size, head, value.out_stride, value.in_stride};
        for (int64_t part = 0; part < parts_of(through); part++)
            multiply_part(firsts.found + h * size, heads * size, n, through, part, firsts.attended + h * head,
                          heads * head, plain, scratch);
    }
    const Product mixed = {&layer.attended, firsts.states}, up = {&layer.up, firsts.activated};
    const Product down = {&layer.down, firsts.states};
    multiplied(firsts.attended, n, &mixed, 1, added, scratch);
    normed(layer.attention_norm, firsts.states);
    multiplied(firsts.states, n, &up, 1, active, scratch);
    multiplied(firsts.activated, n, &down, 1, added, scratch);
    normed(layer.output_norm, firsts.states);
#pragma omp for schedule(static)
    for (int64_t text = 0; text < n; text++)
        memcpy(call.states + text * size, firsts.states + text * size, sizeof(float) * size);
}

}  // namespace
