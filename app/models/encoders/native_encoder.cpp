// Layers of BERT's kind over texts that lie end to end, all in float32: what an encoder's pass spends its time on.
//
// Compiled for one machine; everything else comes in with the call: sizes, weights where they lie. A few outputs' weights
// are laid out in panels that the processor's caches hold, and all tokens are multiplied by them then; attention's
// two products are made the same way. Parts are handed out as threads become free.

#include "native/first_tokens.h"
#include "native/shared_products.h"

namespace {

// What the threads work in together: numbers of each token, and of each text where its first one is wanted.
struct SharedRoom {
    Heads heads;
    float* activated;
    Firsts firsts;

    static SharedRoom in(const Call& call, Room& room) {
        const int64_t heads = call.num_tokens * width_of(call);
        SharedRoom found = {{room.take(heads), room.take(heads), room.take(heads), room.take(heads)},
                            room.take(call.num_tokens * call.intermediate),
                            {}};
        if (call.is_first_enough) found.firsts = Firsts::in(call, room);
        return found;
    }
};

// Numbers that each thread has to itself.
int64_t own_size(const Call& call) {
    const int64_t widest = most(most(call.hidden, call.intermediate), width_of(call));
    const int64_t size = most(PART_PANELS * PANEL * widest, attention_size(call.longest, call.head_dim));
    return (most(size, call.is_first_enough ? first_size(call) : 0) + 15) / 16 * 16;
}

// All heads of all texts. A loop of the threads'.
void attended(const Call& call, const Heads& heads, float* scratch) {
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < call.num_texts * call.num_heads; task++) {
        const int64_t text = task / call.num_heads, head = task % call.num_heads, begin = call.begins[text];
        attend(call, heads.behind(begin * width_of(call) + head * call.head_dim), call.begins[text + 1] - begin, scratch);
    }
}

void normed(const Call& call, const Norm& norm) {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < call.num_tokens; t++) norm_row(call, norm, call.states + t * call.hidden);
}

void shared_layer(const Call& call, const Layer& layer, const SharedRoom& room, float* scratch) {
    const Use plain = {FROM_BIAS, NONE}, added = {FROM_OUTPUT, NONE}, active = {FROM_BIAS, call.activation};
    const int64_t n = call.num_tokens;
    const Product heads[] = {
        {&layer.key, room.heads.keys}, {&layer.value, room.heads.values}, {&layer.query, room.heads.queries}};
    const Product mixed = {&layer.attended, call.states}, up = {&layer.up, room.activated};
    const Product down = {&layer.down, call.states};
    multiplied(call.states, n, heads, 3, plain, scratch);
    attended(call, room.heads, scratch);
    multiplied(room.heads.out, n, &mixed, 1, added, scratch);
    normed(call, layer.attention_norm);
    multiplied(call.states, n, &up, 1, active, scratch);
    multiplied(room.activated, n, &down, 1, added, scratch);
    normed(call, layer.output_norm);
}

}  // namespace

// Numbers of scratch that a call needs.
extern "C" int64_t forklift_encoder_scratch(const Call* call) {
    Room room = {nullptr};
    SharedRoom::in(*call, room);
    return room.used + call->num_threads * own_size(*call);
}

extern "C" void forklift_encoder(const Call* given) {
    const Call& call = *given;
    Room used = {call.scratch};
    const SharedRoom room = SharedRoom::in(call, used);
    const int64_t num_whole = call.num_layers - (call.is_first_enough ? 1 : 0);
#pragma omp parallel num_threads(call.num_threads)
    {
        float* scratch = call.scratch + used.used + omp_get_thread_num() * own_size(call);
        for (int64_t l = 0; l < num_whole; l++) shared_layer(call, call.layers[l], room, scratch);
        if (call.is_first_enough) first_layer(call, room.firsts, scratch);
    }
}
