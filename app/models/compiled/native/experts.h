// Experts of a layer: which ones each token takes, and products of the tokens of each by its weights.
//
// A token lies once for each expert that it takes, in a slot; the slots of an expert lie one behind the other, so each
// expert's weights are read from memory once for all its tokens.

#pragma once

#include "ways.h"

namespace {

// Places in `choice`, of n tokens: of each token and place among its experts the expert, and its slot; of each slot the
// token; the slots of each expert, with an end behind the last; the experts that have any.
struct Routing {
    int64_t *chosen, *slots, *tokens, *firsts, *ends, *busy, *num_busy;

    Routing(const Call& call, const Experts& experts)
        : chosen(call.choice), slots(chosen + call.num_tokens * experts.top_k), tokens(slots + call.num_tokens * experts.top_k),
          firsts(tokens + call.num_tokens * experts.top_k), ends(firsts + experts.num_experts + 1),
          busy(ends + experts.num_experts), num_busy(busy + experts.num_experts) {}

    int64_t count(int64_t expert) const { return firsts[expert + 1] - firsts[expert]; }
};

// The experts of a token, most first, and their shares. Whatever its inputs are, these are experts, and no two the same.
inline void choose(const Call& call, const Experts& experts, const float* row, int64_t token, int64_t* chosen) {
    const int64_t num = experts.num_experts, top_k = experts.top_k;
    float *given = call.given + token * num, *shares = call.shares + token * top_k, total = 0;
    multiply<Float32, 4>(row, 1, call.hidden, experts.router, num, given, num, false);
    for (int64_t e = 0; experts.router_bias && e < num; e++) given[e] += experts.router_bias[e];
    for (int64_t k = 0; k < top_k; k++) {
        int64_t best = -1;
        for (int64_t e = 0; e < num; e++) {
            bool is_free = best < 0 || given[e] > given[best];
            for (int64_t j = 0; is_free && j < k; j++) is_free = chosen[j] != e;
            if (is_free) best = e;
        }
        chosen[k] = best;
    }
    const float peak = given[chosen[0]];
    for (int64_t k = 0; k < top_k; k++) shares[k] = exponential(all(given[chosen[k]] - peak))[0];
    if (experts.is_of_all)
        for (int64_t e = 0; e < num; e++) total += exponential(all(given[e] - peak))[0];
    else
        for (int64_t k = 0; k < top_k; k++) total += shares[k];
    for (int64_t k = 0; k < top_k; k++) shares[k] /= total;
}

// Gives each token's choices their slots.
inline void arrange(const Call& call, const Experts& experts, const Routing& routing) {
    const int64_t num = experts.num_experts, num_slots = call.num_tokens * experts.top_k;
    for (int64_t e = 0; e <= num; e++) routing.firsts[e] = 0;
    for (int64_t i = 0; i < num_slots; i++) routing.firsts[routing.chosen[i] + 1]++;
    *routing.num_busy = 0;
    for (int64_t e = 0; e < num; e++) {
        if (routing.firsts[e + 1]) routing.busy[(*routing.num_busy)++] = e;
        routing.firsts[e + 1] += routing.firsts[e];
        routing.ends[e] = routing.firsts[e];
    }
    for (int64_t i = 0; i < num_slots; i++) {
        routing.slots[i] = routing.ends[routing.chosen[i]]++;
        routing.tokens[routing.slots[i]] = i / experts.top_k;
    }
}

// use(expert, first, num) for parts of `step` of the `outputs` outputs of each expert that has tokens.
template <class Use>
inline void each_part(const Own& own, const Routing& routing, int64_t outputs, int64_t step, Use use) {
    const int64_t num_parts = (outputs + step - 1) / step;
    own.me.share(*routing.num_busy * num_parts, [&](int64_t task) {
        const int64_t first = task % num_parts * step;
        use(routing.busy[task / num_parts], first, least(step, outputs - first));
    });
}

// Activated gates of some outputs of an expert, for its slots.
template <class Way>
inline void gate_part(const Call& call, const Experts& experts, const Matrix& m, const Way& way, int64_t begin, int64_t count,
                      int64_t first, int64_t num) {
    const int64_t size = call.intermediate;
    float both[2][BLOCK_TOKENS * MOST_PART_OUTPUTS], gate[MOST_PART_OUTPUTS], up[MOST_PART_OUTPUTS];
    const int64_t stride = way.stride(experts.is_interleaved ? 2 * num : num);
    if (experts.is_interleaved) {
        way.take(2 * first, 2 * num, 0);
    } else {
        way.take(first, num, 0);
        way.take(size + first, num, 1);
    }
    for (int64_t t = 0; t < count; t += BLOCK_TOKENS) {
        const int64_t some = least(BLOCK_TOKENS, count - t);
        if (experts.is_interleaved) {
            way.multiply(t, some, 2 * first, 2 * num, 0, both[0]);
        } else {
            way.multiply(t, some, first, num, 0, both[0]);
            way.multiply(t, some, size + first, num, 1, both[1]);
        }
        for (int64_t r = 0; r < some; r++) {
            float* out = call.activated + (begin + t + r) * size + first;
            const float *gates = both[0] + r * stride, *ups = both[1] + r * stride;
            if (experts.is_interleaved) {
                for (int64_t o = 0; o < num; o++) {
                    gate[o] = gates[2 * o] + (m.bias ? m.bias[2 * (first + o)] : 0.0f);
                    up[o] = gates[2 * o + 1] + (m.bias ? m.bias[2 * (first + o) + 1] : 0.0f);
                }
                activate(call, gate, up, nullptr, 0, num, out);
            } else {
                activate(call, gates, ups, m.bias ? m.bias + first : nullptr, size, num, out);
            }
        }
    }
}

// Products by all experts of the slots' inputs, into call.taken.
template <class Way>
inline void multiply_slots(const Call& call, const Own& own, const Experts& experts, const Routing& routing) {
    const int64_t num_slots = call.num_tokens * experts.top_k, size = call.hidden, usual = num_slots / *routing.num_busy;
    // Every expert's weights are of one kind and size, so rows that are prepared for one are for all, and parts alike.
    Way::prepare(own, experts.gate_up[0], call.gathered, num_slots);
    const int64_t gates = Way(own, experts.gate_up[0], call.gathered, 0, usual).part_outputs(2);
    each_part(own, routing, call.intermediate, least(gates, MOST_PART_OUTPUTS / 2), [&](int64_t e, int64_t first, int64_t num) {
        const int64_t begin = routing.firsts[e], count = routing.count(e);
        const Way way(own, experts.gate_up[e], call.gathered, begin, count);
        gate_part(call, experts, experts.gate_up[e], way, begin, count, first, num);
    });
    Way::prepare(own, experts.down[0], call.activated, num_slots);
    const int64_t outputs = Way(own, experts.down[0], call.activated, 0, usual).part_outputs(1);
    each_part(own, routing, size, outputs, [&](int64_t e, int64_t first, int64_t num) {
        const Matrix& m = experts.down[e];
        const int64_t begin = routing.firsts[e], count = routing.count(e);
        const Way way(own, m, call.activated, begin, count);
        const int64_t stride = way.stride(num);
        float found[BLOCK_TOKENS * MOST_PART_OUTPUTS];
        way.take(first, num, 0);
        for (int64_t t = 0; t < count; t += BLOCK_TOKENS) {
            const int64_t some = least(BLOCK_TOKENS, count - t);
            way.multiply(t, some, first, num, 0, found);
            for (int64_t r = 0; r < some; r++)
                for (int64_t o = 0; o < num; o++)
                    call.taken[(begin + t + r) * size + first + o] = found[r * stride + o] + (m.bias ? m.bias[first + o] : 0.0f);
        }
    });
}

// use(token, row): what its experts make of each token's inputs.
template <class Use>
inline void fed_by_experts(const Call& call, const Own& inputs, const Experts& experts, Use use) {
    const int64_t n = call.num_tokens, size = call.hidden, num_slots = n * experts.top_k;
    const Routing routing(call, experts);
    const Own own(call, num_slots, inputs.me);
    own.me.share(n, [&](int64_t t) {
        choose(call, experts, inputs.inputs + t * size, t, routing.chosen + t * experts.top_k);
    });
    own.me.share(1, [&](int64_t) { arrange(call, experts, routing); });
    own.me.share(num_slots, [&](int64_t slot) {
        memcpy(call.gathered + slot * size, inputs.inputs + routing.tokens[slot] * size, size * sizeof(float));
    });
    if (num_slots < Ways<Cache>::MANY_TOKENS * *routing.num_busy)
        multiply_slots<typename Ways<Cache>::Few>(call, own, experts, routing);
    else
        multiply_slots<typename Ways<Cache>::Many>(call, own, experts, routing);
    own.me.share(n, [&](int64_t t) {
        float* row = call.added + t * size;
        for (int64_t i = 0; i < size; i++) row[i] = 0;
        for (int64_t k = 0; k < experts.top_k; k++) {
            const float share = call.shares[t * experts.top_k + k];
            const float* taken = call.taken + routing.slots[t * experts.top_k + k] * size;
            for (int64_t i = 0; i < size; i++) row[i] += share * taken[i];
        }
        use(t, row);
    });
}

}  // namespace
