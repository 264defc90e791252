// What a pass is told, as `native_tables.py` lays it out; and which of its places belong to whom.

#pragma once

#include "team.h"
#include "vectors.h"

typedef WEIGHT Weight;
typedef HEAD Head;
typedef CACHE Cache;

extern "C" {

// A matrix (num_out, width) and what belongs to it; null where there is none. Of codes: columns behind the first num_in
// read the inputs that `extra` names; all are multiplied by factors before. `steps` are what weights are multiples of as
// whole numbers, padded; input_norm is what the norm of a token's inputs may be as whole numbers.
struct Matrix {
    const void* weight;
    int64_t num_in, num_out, width;
    const float *steps, *bias;
    const int64_t* extra;
    const float* factors;
    float input_norm;
};

// Null where there is none: states stay what they are. is_centered: the mean is taken off before.
struct Norm {
    const float* weight;
    float epsilon;
    int32_t is_centered;
};

// Gated products of which a token takes the `top_k` that `router` (num_experts, hidden) gives most for, times its shares: of
// a softmax of all where is_of_all, else of those that were taken. is_interleaved: a gate and what it is for lie in turn.
// num_experts 0: none, the layer has gate_up and down of its own.
struct Experts {
    const float *router, *router_bias;
    const Matrix *gate_up, *down;
    int64_t num_experts, top_k, is_interleaved, is_of_all;
};

// A token sees the `reach` entries up to its own, all of them where that is 0; position p lies at p modulo `size`. Sinks are
// logits of the heads that no value has. `turn` says which cosines and sines of the call turn its heads; -1: none.
struct Layer {
    Norm before_attention, after_attention, before_mlp, after_mlp, query_norm, key_norm;
    const float* sinks;
    Matrix qkv, o, gate_up, down;
    Experts experts;
    int64_t turn, reach, size, capacity;
    Cache::Type *keys, *values;
};

// Cosines and sines of each token.
struct Turn {
    const float *cos, *sin;
};

enum { SILU, GELU_TANH, CLAMPED };

// Tokens of one row of the cache, from position start on.
struct Piece {
    int64_t row, start, count;
};

// What an adapter adds to `count` outputs of a matrix from `first` on: inputs by down (rank, num_in), then by up (rank, count).
struct Part {
    const float *down, *up;
    int64_t rank, first, count;
};

struct Change {
    const Part* parts;
    int64_t num_parts;
};

// Tokens one behind the other of one adapter; its changes of the four matrices of each layer.
struct Run {
    int64_t first, count;
    const Change* changes;
};

struct Call {
    int64_t num_layers, num_tokens, num_pieces, num_wanted, num_threads;
    int64_t hidden, num_queries, num_kv_heads, head_dim, intermediate;
    // Numbers of a head that turn; what activates a gate.
    int64_t num_turned, activation;
    // Neighbours turn together; norms of queries and keys are those of all heads together; a layer's halves read the same.
    int64_t has_pairs, has_whole_norms, is_parallel;
    // What is added to the states is multiplied by `scale`, logits of attention stay below `softcap` where it is above 0;
    // clamped gates stay below `limit`, and turn by `slope` times themselves.
    float scaling, scale, softcap, slope, limit;
    const Layer* layers;
    const Piece* pieces;
    float* states;
    const Turn* turns;
    const int64_t* wanted;
    Norm last_norm;
    const Matrix* head;
    float* logits;
    // Tokens of a piece whose scores are kept at once.
    int64_t task_tokens;
    // Scratch of each token: inputs, heads, attended, activated, what is added to its states, and inputs as whole numbers with their steps. Of inputs
    // there is room for ALONE_TOKENS of each thread.
    float *inputs, *heads, *attended, *activated, *added;
    // Of experts: what a router gives each token, shares of those taken; their inputs and outputs. `choice`: see Routing.
    float *given, *shares, *gathered, *taken;
    int64_t* choice;
    int16_t* wholes;
    float* units;
    int32_t* totals;
    // Scratch of each thread: scores, a row, weights as whole numbers.
    float *scores, *row;
    int16_t* packed;
    int64_t scores_size, row_size, packed_size;
    // Tokens that an adapter changes something for; of each token room for the ranks of a matrix, as of inputs.
    const Run* runs;
    int64_t num_runs, lowered_size;
    float* lowered;
};

// Which of a layer's matrices an adapter changes; none of the head.
enum { QKV, O, GATE_UP, DOWN, NUM_CHANGED };
}

namespace {

// So few tokens are prepared for a product by every thread for itself: that takes less time than to wait for another.
constexpr int64_t ALONE_TOKENS = 2;

// A thread's places of what the inputs of n tokens become; those of all threads where they share that work.
struct Own {
    const Member& me;
    bool is_alone;
    float* inputs;
    int16_t* wholes;
    int32_t* totals;
    float *units, *row, *scores;
    int16_t* packed;
    float* lowered;

    Own(const Call& call, int64_t n, const Member& me)
        : me(me), is_alone(n <= ALONE_TOKENS), inputs(call.inputs), wholes(call.wholes), totals(call.totals), units(call.units),
          row(call.row + me.thread * call.row_size), scores(call.scores + me.thread * call.scores_size),
          packed(call.packed + me.thread * call.packed_size), lowered(call.lowered) {
        if (!is_alone) return;
        inputs += me.thread * ALONE_TOKENS * call.hidden;
        wholes += me.thread * ALONE_TOKENS * call.row_size;
        units += me.thread * ALONE_TOKENS;
        lowered += me.thread * ALONE_TOKENS * call.lowered_size;
        totals += me.thread * ALONE_TOKENS * call.row_size;
    }
};

// use(t) for each of n tokens: all by every thread, or shared out among all.
template <class Use>
inline void each_token(const Own& own, int64_t n, Use use) {
    if (own.is_alone) {
        for (int64_t t = 0; t < n; t++) use(t);
    } else {
        own.me.share(n, use);
    }
}

}  // namespace
