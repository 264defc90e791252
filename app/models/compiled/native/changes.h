// What adapters add to products: a token's inputs by its adapter's first matrix, and that by the second one.

#pragma once

#include "float_products.h"
#include "tables.h"

namespace {

// Tokens of one adapter whose products by its first matrices one thread makes.
constexpr int64_t RUN_TOKENS = 8;

inline int64_t blocks_of(const Run& run) { return (run.count + RUN_TOKENS - 1) / RUN_TOKENS; }

// Tokens of a run from `token` on by the first matrices.
inline void lower(const Call& call, const Own& own, const Run& run, int64_t which, const float* rows, int64_t num_in,
                  int64_t token, int64_t some) {
    const Change& change = run.changes[which];
    float* out = own.lowered + token * call.lowered_size;
    for (int64_t p = 0; p < change.num_parts; out += change.parts[p++].rank)
        multiply<Float32, 4>(rows + token * num_in, some, num_in, change.parts[p].down, change.parts[p].rank, out,
                             call.lowered_size, false);
}

// Rows of all runs by the first matrices, for matrix `which` of all layers' (layer by layer).
inline void lowered(const Call& call, const Own& own, int64_t which, const float* rows, int64_t num_in) {
    if (which < 0 || !call.num_runs) return;
    if (own.is_alone) {
        for (int64_t i = 0; i < call.num_runs; i++)
            lower(call, own, call.runs[i], which, rows, num_in, call.runs[i].first, call.runs[i].count);
        return;
    }
    int64_t num_blocks = 0;
    for (int64_t i = 0; i < call.num_runs; i++) num_blocks += blocks_of(call.runs[i]);
    own.me.share(num_blocks, [&](int64_t task) {
        const Run* run = call.runs;
        int64_t block = task;
        for (; block >= blocks_of(*run); run++) block -= blocks_of(*run);
        lower(call, own, *run, which, rows, num_in, run->first + block * RUN_TOKENS,
              least(RUN_TOKENS, run->count - block * RUN_TOKENS));
    });
}

// Adds R rows (of `stride`) by a matrix (rank, width), N vectors of it, to out (of out_stride).
template <int R, int N>
inline void add_strip(const float* rows, int64_t stride, int64_t rank, const float* up, int64_t width, float* out,
                      int64_t out_stride) {
    Floats sums[R][N];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < N; v++) sums[r][v] = Float32::load(out + r * out_stride + v * WIDTH);
    for (int64_t i = 0; i < rank; i++) {
        Floats wide[N];
        for (int v = 0; v < N; v++) wide[v] = Float32::load(up + i * width + v * WIDTH);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < N; v++) sums[r][v] += rows[r * stride + i] * wide[v];
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < N; v++) put(out + r * out_stride + v * WIDTH, sums[r][v]);
}

template <int R>
void add_rows(const float* rows, int64_t stride, int64_t rank, const float* up, int64_t width, int64_t num, float* out,
              int64_t out_stride) {
    int64_t o = 0;
    for (; o + 4 * WIDTH <= num; o += 4 * WIDTH) add_strip<R, 4>(rows, stride, rank, up + o, width, out + o, out_stride);
    for (; o + WIDTH <= num; o += WIDTH) add_strip<R, 1>(rows, stride, rank, up + o, width, out + o, out_stride);
    for (; o < num; o++)
        for (int r = 0; r < R; r++) {
            float found = out[r * out_stride + o];
            for (int64_t i = 0; i < rank; i++) found += rows[r * stride + i] * up[i * width + o];
            out[r * out_stride + o] = found;
        }
}

// Adds what a part changes in outputs first.. to found (count, num), of the tokens whose lowered rows are `low`.
inline void raise(const Part& part, const float* low, int64_t low_size, int64_t count, int64_t first, int64_t num,
                  float* found, int64_t stride) {
    const int64_t from = most(first, part.first), to = least(first + num, part.first + part.count);
    if (from >= to) return;
    const float* up = part.up + (from - part.first);
    float* out = found + (from - first);
    int64_t r = 0;
    for (; r + 2 <= count; r += 2)
        add_rows<2>(low + r * low_size, low_size, part.rank, up, part.count, to - from, out + r * stride, stride);
    if (r < count)
        add_rows<1>(low + r * low_size, low_size, part.rank, up, part.count, to - from, out + r * stride, stride);
}

// Adds what adapters change in outputs first.. of a matrix to found (some, num), of `some` tokens from t on.
inline void raised(const Call& call, const Own& own, int64_t which, int64_t t, int64_t some, int64_t first, int64_t num,
                   float* found, int64_t stride) {
    if (which < 0) return;
    for (int64_t i = 0; i < call.num_runs; i++) {
        const Run& run = call.runs[i];
        const int64_t begin = most(run.first, t), end = least(run.first + run.count, t + some);
        const Change& change = run.changes[which];
        const float* low = own.lowered + begin * call.lowered_size;
        for (int64_t p = 0; p < change.num_parts && begin < end; low += change.parts[p++].rank)
            raise(change.parts[p], low, call.lowered_size, end - begin, first, num, found + (begin - t) * stride, stride);
    }
}

}  // namespace
