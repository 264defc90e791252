// Keys and values into the cache, and attention of every token to what the cache has of its row.

#pragma once

#include "cache_products.h"
#include "float_products.h"
#include "tables.h"

namespace {

// From so many rows of queries on keys and values are widened once for all of them.
constexpr int64_t MANY_ROWS = 12;

// Where a row's entries of a head begin.
inline int64_t entries_of(const Call& call, const Layer& layer, int64_t row, int64_t head) {
    return (row * call.num_kv_heads + head) * layer.capacity * call.head_dim;
}

// A head's norm, where each has one, and its turn.
inline void prepare(const Call& call, const Layer& layer, const Norm& own, int64_t token, float* head) {
    if (own.weight && !call.has_whole_norms) norm(head, own.weight, own.epsilon, call.head_dim, head);
    if (layer.turn < 0) return;
    const Turn& turn = call.turns[layer.turn];
    rotate(head, turn.cos + token * call.num_turned, turn.sin + token * call.num_turned, call.num_turned, call.has_pairs);
}

// Prepare the queries of a token that share a head of keys, and its key; write key and value where they belong.
inline void store(const Call& call, const Layer& layer, int64_t token, int64_t row, int64_t position, int64_t head) {
    const int64_t size = call.head_dim, group = call.num_queries / call.num_kv_heads;
    const int64_t num_rotated = call.num_queries + call.num_kv_heads, width = (num_rotated + call.num_kv_heads) * size;
    float *heads = call.heads + token * width, *key = heads + (call.num_queries + head) * size;
    const float* value = heads + (num_rotated + head) * size;
    for (int64_t q = head * group; q < (head + 1) * group; q++) prepare(call, layer, layer.query_norm, token, heads + q * size);
    prepare(call, layer, layer.key_norm, token, key);
    const int64_t at = entries_of(call, layer, row, head) + position % layer.size * size;
    for (int64_t i = 0; i < size; i++) {
        layer.keys[at + i] = Cache::from(key[i]);
        layer.values[at + i] = Cache::from(value[i]);
    }
}

// Entries of a row that lie one behind the other, from the `at`th of those that are read on.
struct Stretch {
    int64_t at, begin, length;
};

// The first position that a token at `position` sees.
inline int64_t first_seen(const Layer& layer, int64_t position) {
    return layer.reach ? most(0, position - layer.reach + 1) : 0;
}

// Attention of some tokens of a row, for the queries that share a head of keys.
inline void attend(const Call& call, const Layer& layer, const Piece& piece, int64_t token, int64_t first, int64_t num,
                   int64_t head, float* scratch) {
    const int64_t size = call.head_dim, group = call.num_queries / call.num_kv_heads, rows = num * group;
    const int64_t width = (call.num_queries + 2 * call.num_kv_heads) * size;
    const int64_t from = first_seen(layer, piece.start + first), length = piece.start + first + num - from;
    const bool is_many = rows >= MANY_ROWS && size % (2 * WIDTH) == 0;
    const int64_t stride = is_many ? (length + 2 * KEYS_WIDENED - 1) / KEYS_WIDENED * KEYS_WIDENED : length;
    // Of a ring, up to its end and from its beginning.
    const int64_t begin = from % layer.size, ahead = least(length, layer.size - begin);
    const Stretch stretches[2] = {{0, begin, ahead}, {ahead, 0, length - ahead}};
    float *queries = scratch, *found = queries + rows * size, *more = found + rows * size, *shares = more + rows * size;
    float *wide = shares + rows, *scores = wide + VALUES_WIDENED * size;
    for (int64_t r = 0; r < rows; r++) {
        const float* query = call.heads + (token + first + r / group) * width + (head * group + r % group) * size;
        for (int64_t i = 0; i < size; i++) queries[r * size + i] = query[i] * call.scaling;
    }
    const Cache::Type *keys = layer.keys + entries_of(call, layer, piece.row, head);
    const Cache::Type *values = layer.values + entries_of(call, layer, piece.row, head);
    for (const Stretch& one : stretches) {
        if (one.length && is_many)
            score_many<Cache>(queries, rows, keys + one.begin * size, one.length, size, wide, scores + one.at, stride);
        else if (one.length)
            multiply<Cache, 3>(queries, rows, size, keys + one.begin * size, one.length, scores + one.at, stride, false);
    }
    for (int64_t r = 0; r < rows; r++) {
        const int64_t position = piece.start + first + r / group, hidden = first_seen(layer, position) - from;
        float *row = scores + r * stride, *end = row + position + 1 - from;
        if (call.softcap > 0) cap_scores(row, length, call.softcap);
        shares[r] = softmax(row + hidden, end - row - hidden, layer.sinks ? layer.sinks + head * group + r % group : nullptr);
        for (float* i = row; i < row + hidden; i++) *i = 0;
        for (float* i = end; i < row + length; i++) *i = 0;
    }
    for (const Stretch& one : stretches) {
        float* out = one.at ? more : found;
        if (one.length && is_many)
            mix_many<Cache>(scores + one.at, stride, shares, rows, one.length, values + one.begin * size, size, wide, out);
        else if (one.length)
            mix<Cache>(scores + one.at, stride, shares, rows, one.length, values + one.begin * size, size, out);
        for (int64_t i = 0; one.at && one.length && i < rows * size; i++) found[i] += more[i];
    }
    for (int64_t r = 0; r < rows; r++) {
        float* out = call.attended + ((token + first + r / group) * call.num_queries + head * group + r % group) * size;
        memcpy(out, found + r * size, size * sizeof(float));
    }
}

// Where the tokens of a pass stand: of each its row and position, of every piece its first token, of every task of
// attention its piece and first token. A pass has rows alone if no piece is longer than a token.
struct Places {
    int64_t *rows, *positions, *begins, *tasks, num_tasks = 0;
    bool has_rows_alone = true;

    Places(const Call& call, int64_t* scratch)
        : rows(scratch), positions(rows + call.num_tokens), begins(positions + call.num_tokens),
          tasks(begins + call.num_pieces) {
        int64_t token = 0;
        for (int64_t p = 0; p < call.num_pieces; p++) {
            begins[p] = token;
            has_rows_alone = has_rows_alone && call.pieces[p].count == 1;
            for (int64_t i = 0; i < call.pieces[p].count; i++, token++) {
                rows[token] = call.pieces[p].row;
                positions[token] = call.pieces[p].start + i;
                if (i % call.task_tokens == 0) {
                    tasks[2 * num_tasks] = p;
                    tasks[2 * num_tasks++ + 1] = i;
                }
            }
        }
    }
};

// Attention of all tokens. One task for each head of keys and few tokens of a piece. Keys and values of all tokens are
// written before, where one of a piece sees another one; else with the task.
inline void attended(const Call& call, const Own& own, const Layer& layer, const Places& places) {
    const int64_t size = call.head_dim, width = (call.num_queries + 2 * call.num_kv_heads) * size;
    if (call.has_whole_norms)
        own.me.share(call.num_tokens, [&](int64_t t) {
            float *queries = call.heads + t * width, *keys = queries + call.num_queries * size;
            norm(queries, layer.query_norm.weight, layer.query_norm.epsilon, call.num_queries * size, queries);
            norm(keys, layer.key_norm.weight, layer.key_norm.epsilon, call.num_kv_heads * size, keys);
        });
    if (!places.has_rows_alone)
        own.me.share(call.num_tokens, [&](int64_t t) {
            for (int64_t head = 0; head < call.num_kv_heads; head++)
                store(call, layer, t, places.rows[t], places.positions[t], head);
        });
    own.me.share(places.num_tasks * call.num_kv_heads, [&](int64_t i) {
        // The longest ones come last in a prompt, so they are begun with.
        const int64_t task = places.num_tasks - 1 - i / call.num_kv_heads, head = i % call.num_kv_heads;
        const int64_t which = places.tasks[2 * task], first = places.tasks[2 * task + 1], token = places.begins[which];
        const Piece& piece = call.pieces[which];
        if (places.has_rows_alone) store(call, layer, token, piece.row, piece.start, head);
        attend(call, layer, piece, token, first, least(call.task_tokens, piece.count - first), head, own.scores);
    });
}

}  // namespace
