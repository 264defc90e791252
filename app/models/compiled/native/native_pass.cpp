// A pass through decoder layers of the Llama kind, and of kinds with further norms, windows and sinks: any number of tokens, of rows that decode and of prompts, end to end.
//
// Compiled for one machine, a kind of weight in the layers, one in the output layer and a kind of cache (WEIGHT, HEAD, CACHE). Everything else comes in with the
// call: sizes, weights where they lie, the cache's own buffers. What lies between two products is float32. A
// weight is read from memory once for all tokens; a part of it stays in the processor's cache
// while all tokens are multiplied by it. Parts are handed out as threads become free: one that has lost its core to
// another process holds the others up by one part at most.

#include <omp.h>

#include "attention.h"
#include "changes.h"
#include "experts.h"
#include "ways.h"

namespace {

// Every output of m for n rows: use(token, output, value). A loop of the threads'. `which`: the place of m among all that
// adapters change; -1 where it has none.
template <class Way, class Use>
void product(const Call& call, const Own& own, const Matrix& m, int64_t which, const float* rows, int64_t n, Use use) {
    lowered(call, own, which, rows, m.num_in);
    Way::prepare(own, m, rows, n);
    const Way way(own, m, rows, 0, n);
    const int64_t step = way.part_outputs(1), num_parts = (m.num_out + step - 1) / step;
    float found[BLOCK_TOKENS * MOST_PART_OUTPUTS];
    own.me.share(num_parts, [&](int64_t part) {
        const int64_t first = part * step, num = least(step, m.num_out - first), stride = way.stride(num);
        way.take(first, num, 0);
        for (int64_t t = 0; t < n; t += BLOCK_TOKENS) {
            const int64_t some = least(BLOCK_TOKENS, n - t);
            way.multiply(t, some, first, num, 0, found);
            raised(call, own, which, t, some, first, num, found, stride);
            for (int64_t r = 0; r < some; r++)
                for (int64_t o = 0; o < num; o++)
                    use(t + r, first + o, found[r * stride + o] + (m.bias ? m.bias[first + o] : 0.0f));
        }
    });
}

// Gate and up of the same outputs together: the activated gate times up.
template <class Way>
void gated(const Call& call, const Own& own, const Matrix& m, int64_t which, const float* rows, int64_t n) {
    lowered(call, own, which, rows, m.num_in);
    Way::prepare(own, m, rows, n);
    const Way way(own, m, rows, 0, n);
    const int64_t size = call.intermediate, step = way.part_outputs(2), num_parts = (size + step - 1) / step;
    float gate[BLOCK_TOKENS * MOST_PART_OUTPUTS], up[BLOCK_TOKENS * MOST_PART_OUTPUTS];
    own.me.share(num_parts, [&](int64_t part) {
        const int64_t first = part * step, num = least(step, size - first), stride = way.stride(num);
        way.take(first, num, 0);
        way.take(size + first, num, 1);
        for (int64_t t = 0; t < n; t += BLOCK_TOKENS) {
            const int64_t some = least(BLOCK_TOKENS, n - t);
            way.multiply(t, some, first, num, 0, gate);
            way.multiply(t, some, size + first, num, 1, up);
            raised(call, own, which, t, some, first, num, gate, stride);
            raised(call, own, which, t, some, size + first, num, up, stride);
            for (int64_t r = 0; r < some; r++)
                activate(call, gate + r * stride, up + r * stride, m.bias ? m.bias + first : nullptr, size, num,
                         call.activated + (t + r) * size + first);
        }
    });
}

// A row's norm, or the row as it is; it may be its own place.
inline void normed(const Norm& one, const float* row, int64_t size, float* out) {
    float mean = 0;
    for (int64_t i = 0; one.is_centered && i < size; i++) mean += row[i] / float(size);
    for (int64_t i = 0; i < size; i++) out[i] = row[i] - mean;
    if (one.weight) norm(out, one.weight, one.epsilon, size, out);
}

// Every token's states, into the inputs of a product.
void take(const Call& call, const Own& own, const Norm& one) {
    each_token(own, call.num_tokens,
               [&](int64_t t) { normed(one, call.states + t * call.hidden, call.hidden, own.inputs + t * call.hidden); });
}

// Adds a row to a token's states, or the norm of it, which takes its place.
inline void add_row(const Call& call, const Norm& after, float* row, float* states) {
    if (after.weight) normed(after, row, call.hidden, row);
    for (int64_t i = 0; i < call.hidden; i++) states[i] += call.scale * row[i];
}

// Adds a product to the states, or the norm of it.
template <class Way>
void add(const Call& call, const Own& own, const Matrix& m, int64_t which, const float* rows, const Norm& after) {
    const int64_t size = call.hidden;
    if (!after.weight)
        return product<Way>(call, own, m, which, rows, call.num_tokens, [&](int64_t t, int64_t o, float value) {
            call.states[t * size + o] += call.scale * value;
        });
    product<Way>(call, own, m, which, rows, call.num_tokens,
                 [&](int64_t t, int64_t o, float value) { call.added[t * size + o] = value; });
    own.me.share(call.num_tokens, [&](int64_t t) { add_row(call, after, call.added + t * size, call.states + t * size); });
}

// Adds what the experts of each token make of its inputs.
inline void add_experts(const Call& call, const Own& own, const Layer& layer) {
    fed_by_experts(call, own, layer.experts, [&](int64_t t, float* row) {
        add_row(call, layer.after_mlp, row, call.states + t * call.hidden);
    });
}

// All layers, by one thread of those that share them.
template <class Way>
void layers(const Call& call, const Places& places, const Member& me) {
    const int64_t n = call.num_tokens, width = (call.num_queries + 2 * call.num_kv_heads) * call.head_dim;
    const Own own(call, n, me);
    for (int64_t l = 0; l < call.num_layers; l++) {
        const Layer& layer = call.layers[l];
        const int64_t which = l * NUM_CHANGED;
        take(call, own, layer.before_attention);
        product<Way>(call, own, layer.qkv, which + QKV, own.inputs, n,
                     [&](int64_t t, int64_t o, float value) { call.heads[t * width + o] = value; });
        attended(call, own, layer, places);
        // What the other half reads is what this one read, where both read the same.
        if (call.is_parallel) gated<Way>(call, own, layer.gate_up, which + GATE_UP, own.inputs, n);
        add<Way>(call, own, layer.o, which + O, call.attended, layer.after_attention);
        if (!call.is_parallel) take(call, own, layer.before_mlp);
        if (layer.experts.num_experts) {
            add_experts(call, own, layer);
            continue;
        }
        if (!call.is_parallel) gated<Way>(call, own, layer.gate_up, which + GATE_UP, own.inputs, n);
        add<Way>(call, own, layer.down, which + DOWN, call.activated, layer.after_mlp);
    }
}

template <class Way>
void logits(const Call& call, const Member& me) {
    const Own own(call, call.num_wanted, me);
    each_token(own, call.num_wanted, [&](int64_t i) {
        normed(call.last_norm, call.states + call.wanted[i] * call.hidden, call.hidden, own.inputs + i * call.hidden);
    });
    product<Way>(call, own, *call.head, -1, own.inputs, call.num_wanted,
                 [&](int64_t t, int64_t o, float value) { call.logits[t * call.head->num_out + o] = value; });
}

}  // namespace

extern "C" void forklift_pass(const Call* given, int64_t* scratch) {
    const Call& call = *given;
    const Places places(call, scratch);
    Team team;
#pragma omp parallel num_threads(least(call.num_threads, MOST_THREADS))
    {
        const Member me{team, omp_get_thread_num(), omp_get_num_threads()};
        if (call.num_tokens < Ways<Weight>::MANY_TOKENS)
            layers<Ways<Weight>::Few>(call, places, me);
        else
            layers<Ways<Weight>::Many>(call, places, me);
        if (call.num_wanted < Ways<Head>::MANY_TOKENS)
            logits<Ways<Head>::Few>(call, me);
        else
            logits<Ways<Head>::Many>(call, me);
    }
}

// Where a matrix belongs.
enum { IN_LAYER, IN_HEAD, IN_EXPERTS };

// What products by m need to know of its weights: their steps into `steps`, unless they have some, and m's input_norm.
extern "C" void forklift_measure(Matrix* m, float* steps, int64_t num_threads, int64_t place) {
    m->input_norm = place == IN_HEAD      ? Ways<Head>::measured(*m, steps, num_threads)
                    : place == IN_EXPERTS ? Ways<Cache>::measured(*m, steps, num_threads)
                                          : Ways<Weight>::measured(*m, steps, num_threads);
}
