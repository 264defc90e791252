// Keys and values into the cache, and attention of every token to what the cache has of its row.

#pragma once

#include "cache_products.h"
#include "float_products.h"
#include "tables.h"

namespace {

// From so many rows of queries on keys and values are widened once for all of them.
constexpr int64_t MANY_ROWS = 12;

// Where a row's entries of a head begin.
inline int64_t entries_of(const Call& call, int64_t row, int64_t head) {
    return (row * call.num_kv_heads + head) * call.capacity * call.head_dim;
}

// Rotate the queries of a token that share a head of keys, and its key; write key and value where they belong.
inline void store(const Call& call, const Layer& layer, int64_t token, int64_t row, int64_t position, int64_t head) {
    const int64_t size = call.head_dim, group = call.num_queries / call.num_kv_heads;
    const int64_t num_rotated = call.num_queries + call.num_kv_heads, width = (num_rotated + call.num_kv_heads) * size;
    float *heads = call.heads + token * width, *key = heads + (call.num_queries + head) * size;
    const float *value = heads + (num_rotated + head) * size, *cos = call.cos + token * size, *sin = call.sin + token * size;
    for (int64_t q = head * group; q < (head + 1) * group; q++) rotate(heads + q * size, cos, sin, size);
    rotate(key, cos, sin, size);
    const int64_t at = entries_of(call, row, head) + position * size;
    for (int64_t i = 0; i < size; i++) {
        layer.keys[at + i] = Cache::from(key[i]);
        layer.values[at + i] = Cache::from(value[i]);
    }
}

// Attention of some tokens of a row, for the queries that share a head of keys.
inline void attend(const Call& call, const Layer& layer, const Piece& piece, int64_t token, int64_t first, int64_t num,
                   int64_t head, float* scratch) {
    const int64_t size = call.head_dim, group = call.num_queries / call.num_kv_heads, rows = num * group;
    const int64_t width = (call.num_queries + 2 * call.num_kv_heads) * size, length = piece.start + first + num;
    const bool is_many = rows >= MANY_ROWS && size % (2 * WIDTH) == 0;
    const int64_t stride = is_many ? (length + KEYS_WIDENED - 1) / KEYS_WIDENED * KEYS_WIDENED : length;
    float *queries = scratch, *found = queries + rows * size, *shares = found + rows * size, *wide = shares + rows;
    float* scores = wide + VALUES_WIDENED * size;
    for (int64_t r = 0; r < rows; r++) {
        const float* query = call.heads + (token + first + r / group) * width + (head * group + r % group) * size;
        for (int64_t i = 0; i < size; i++) queries[r * size + i] = query[i] * call.scaling;
    }
    const Cache::Type *keys = layer.keys + entries_of(call, piece.row, head);
    const Cache::Type *values = layer.values + entries_of(call, piece.row, head);
    if (is_many)
        score_many<Cache>(queries, rows, keys, length, size, wide, scores, stride);
    else
        multiply<Cache, 3>(queries, rows, size, keys, length, scores, stride, false);
    for (int64_t r = 0; r < rows; r++)
        shares[r] = softmax(scores + r * stride, piece.start + first + r / group + 1, length);
    if (is_many)
        mix_many<Cache>(scores, stride, shares, rows, length, values, size, wide, found);
    else
        mix<Cache>(scores, shares, rows, length, values, size, found);
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
