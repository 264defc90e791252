// Layers of BERT's kind over texts that lie end to end, all in float32: what an encoder's pass spends its time on.
//
// Compiled for one machine; everything else comes in with the call: sizes, weights where they lie. A few outputs' weights
// are laid out in panels that the processor's caches hold, and all tokens are multiplied by them then; attention's two
// products are made the same way. Parts are handed out as threads become free.

#include <cstdint>
#include <cstring>
#include <omp.h>

#include "vectors.h"

namespace {

// A panel: the weights of so many outputs, input by input. Sums of ROWS tokens by a panel fill the registers.
constexpr int ROWS = 6, PANEL = 2 * WIDTH;
// Inputs of a panel that are gone through at once: they stay in a core's first cache with ROWS tokens.
constexpr int64_t DEPTH = 6144 / PANEL;
// Panels of a part, and tokens that are multiplied by one after the other: both stay in the second cache.
constexpr int64_t PART_PANELS = 4, BLOCK_TOKENS = 16 * ROWS;

inline Floats load(const float* from) { return Float32::load(from); }

inline int64_t panels_of(int64_t num_out) { return (num_out + PANEL - 1) / PANEL; }

// x times the normal distribution's integral up to x: by Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7.
inline Floats gelu(Floats x) {
    const Floats size = (x < 0.0f ? -x : x) * 0.70710678f;
    const Floats t = 1.0f / (1.0f + 0.3275911f * size);
    Floats found = 1.061405429f * t - 1.453152027f;
    found = found * t + 1.421413741f;
    found = found * t - 0.284496736f;
    found = found * t + 0.254829592f;
    const Floats above = 0.5f * found * t * exponential(-size * size);
    return x * (x < 0.0f ? above : 1.0f - above);
}

// The same by a hyperbolic tangent, as GPT-2 has it.
inline Floats gelu_by_tanh(Floats x) {
    const Floats inner = 1.5957691216f * (x + 0.044715f * x * x * x);
    return x / (1.0f + exponential(-inner));
}

}  // namespace

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
    float* states;
    // Scratch of each token: heads' numbers three times, what attention gives, what is activated; of each thread.
    float *queries, *keys, *values, *attended, *activated, *scratch;
    int64_t scratch_size;
};
}

namespace {

enum Start { FROM_BIAS, FROM_OUTPUT };

// What a product begins with and what is done with its sums in the end.
struct Use {
    Start start;
    int64_t activation;
};

constexpr int64_t NONE = 0, GELU = 1, GELU_TANH = 2, RELU = 3;

inline Floats activated(Floats x, int64_t activation) {
    switch (activation) {
        case GELU:
            return gelu(x);
        case GELU_TANH:
            return gelu_by_tanh(x);
        case RELU:
            return x > 0.0f ? x : Floats{};
        default:
            return x;
    }
}

// R rows of x by a panel, k inputs deep, on top of what sums has.
template <int R>
inline void multiply(const float* x, int64_t stride, int64_t k, const float* panel, Floats (&sums)[ROWS][2]) {
    Floats found[R][2];
    for (int r = 0; r < R; r++) found[r][0] = sums[r][0], found[r][1] = sums[r][1];
    for (int64_t i = 0; i < k; i++) {
        const Floats first = *(const Floats*)(panel + i * PANEL), second = *(const Floats*)(panel + i * PANEL + WIDTH);
        for (int r = 0; r < R; r++) {
            const Floats row = all(x[r * stride + i]);
            found[r][0] += row * first;
            found[r][1] += row * second;
        }
    }
    for (int r = 0; r < R; r++) sums[r][0] = found[r][0], sums[r][1] = found[r][1];
}

inline Floats loaded(const float* from, int64_t num) {
    if (num >= WIDTH) return load(from);
    Floats found = {};
    for (int64_t i = 0; i < num; i++) found[i] = from[i];
    return found;
}

inline void stored(float* to, Floats values, int64_t num) {
    if (num >= WIDTH) return put(to, values);
    for (int64_t i = 0; i < num; i++) to[i] = values[i];
}

// Products of R rows by a panel of num outputs: a part of the inputs, which may be the first and the last one.
template <int R>
void tile(const float* x, int64_t stride, int64_t k, const float* panel, const float* bias, int64_t num, float* out,
          int64_t out_stride, bool is_first, bool is_last, Use use) {
    Floats sums[ROWS][2] = {};
    const bool goes_on = !is_first || use.start == FROM_OUTPUT;
    for (int half = 0; half < 2; half++) {
        const int64_t here = num - half * WIDTH;
        if (here <= 0) continue;
        const Floats added = is_first && bias ? loaded(bias + half * WIDTH, here) : Floats{};
        for (int r = 0; r < R; r++)
            sums[r][half] = goes_on ? loaded(out + r * out_stride + half * WIDTH, here) + added : added;
    }
    multiply<R>(x, stride, k, panel, sums);
    for (int half = 0; half < 2; half++) {
        const int64_t here = num - half * WIDTH;
        if (here <= 0) continue;
        for (int r = 0; r < R; r++) {
            const Floats found = is_last ? activated(sums[r][half], use.activation) : sums[r][half];
            stored(out + r * out_stride + half * WIDTH, found, here);
        }
    }
}

// n rows of x by one panel of num outputs, k inputs deep.
void by_panel(const float* x, int64_t stride, int64_t n, int64_t k, const float* panel, const float* bias, int64_t num,
              float* out, int64_t out_stride, Use use) {
    for (int64_t i = 0; i < k; i += DEPTH) {
        const int64_t depth = least(DEPTH, k - i);
        const bool is_first = i == 0, is_last = i + depth == k;
        const float* part = panel + i * PANEL;
        int64_t r = 0;
        const auto rows = [&](auto run) {
            run(x + r * stride + i, stride, depth, part, bias, num, out + r * out_stride, out_stride, is_first, is_last,
                use);
        };
        for (; r + ROWS <= n; r += ROWS) rows(tile<ROWS>);
        switch (n - r) {
            case 5: rows(tile<5>); break;
            case 4: rows(tile<4>); break;
            case 3: rows(tile<3>); break;
            case 2: rows(tile<2>); break;
            case 1: rows(tile<1>); break;
        }
    }
}

// The weights of num outputs (at most PANEL) as a panel; zeros for those that are missing.
void lay_out(const float* weight, int64_t out_stride, int64_t in_stride, int64_t num, int64_t k, float* panel) {
    if (num < PANEL) memset(panel, 0, sizeof(float) * PANEL * k);
    if (out_stride == 1 && num == PANEL) {
        for (int64_t i = 0; i < k; i++)
            for (int v = 0; v < PANEL; v += WIDTH) put(panel + i * PANEL + v, load(weight + i * in_stride + v));
        return;
    }
    // A few inputs of all outputs at a time, so that what is written stays in the first cache.
    for (int64_t i = 0; i < k; i += 16)
        for (int64_t o = 0; o < num; o++)
            for (int64_t j = i; j < least(i + 16, k); j++) panel[j * PANEL + o] = weight[o * out_stride + j * in_stride];
}

// A product and where it goes.
struct Product {
    const Matrix* matrix;
    float* out;
};

// n rows of x by each of some matrices with as many inputs. A loop of the threads', with a barrier behind it.
void multiplied(const float* x, int64_t n, const Product* products, int64_t num_products, Use use, float* scratch) {
    int64_t num_parts = 0;
    for (int64_t p = 0; p < num_products; p++)
        num_parts += (panels_of(products[p].matrix->num_out) + PART_PANELS - 1) / PART_PANELS;
#pragma omp for schedule(dynamic, 1)
    for (int64_t part = 0; part < num_parts; part++) {
        int64_t which = 0, at = part;
        for (;; which++) {
            const int64_t here = (panels_of(products[which].matrix->num_out) + PART_PANELS - 1) / PART_PANELS;
            if (at < here) break;
            at -= here;
        }
        const Matrix& m = *products[which].matrix;
        const int64_t first = at * PART_PANELS * PANEL, end = least(first + PART_PANELS * PANEL, m.num_out);
        for (int64_t o = first; o < end; o += PANEL)
            lay_out(m.weight + o * m.out_stride, m.out_stride, m.in_stride, least(PANEL, end - o), m.num_in,
                    scratch + (o - first) * m.num_in);
        for (int64_t t = 0; t < n; t += BLOCK_TOKENS)
            for (int64_t o = first; o < end; o += PANEL)
                by_panel(x + t * m.num_in, m.num_in, least(BLOCK_TOKENS, n - t), m.num_in,
                         scratch + (o - first) * m.num_in, m.bias ? m.bias + o : nullptr, least(PANEL, end - o),
                         products[which].out + t * m.num_out + o, m.num_out, use);
    }
}

// Scores of n entries as powers of e, whatever follows up to the end of the row as 0; their sum's inverse.
float softmax(float* scores, int64_t n, int64_t end, float scaling) {
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

// What attention of one text takes of scratch: keys and values in panels, scores of a block of queries.
inline int64_t attention_size(int64_t longest, int64_t head_dim) {
    const int64_t keys = panels_of(longest) * PANEL;
    return keys * head_dim + longest * panels_of(head_dim) * PANEL + least(BLOCK_TOKENS, longest) * keys;
}

// One head of a text: num queries that lie from `queries` on, by n keys and values.
void attend(const Call& call, const float* queries, const float* keys, const float* values, int64_t num, int64_t n,
            float* out, float* scratch) {
    const int64_t width = call.num_heads * call.head_dim, size = call.head_dim, padded = panels_of(n) * PANEL;
    float *key_panels = scratch, *value_panels = key_panels + padded * size;
    float* scores = value_panels + n * panels_of(size) * PANEL;
    const Use plain = {FROM_BIAS, NONE};
    for (int64_t k = 0; k < n; k += PANEL)
        lay_out(keys + k * width, width, 1, least(PANEL, n - k), size, key_panels + k * size);
    for (int64_t d = 0; d < size; d += PANEL)
        lay_out(values + d, 1, width, least(PANEL, size - d), n, value_panels + d * n);
    for (int64_t t = 0; t < num; t += BLOCK_TOKENS) {
        const int64_t some = least(BLOCK_TOKENS, num - t);
        for (int64_t k = 0; k < n; k += PANEL)
            by_panel(queries + t * width, width, some, size, key_panels + k * size, nullptr, PANEL, scores + k, padded,
                     plain);
        for (int64_t r = 0; r < some; r++) {
            float* row = scores + r * padded;
            const float share = softmax(row, n, padded, call.scaling);
            for (int64_t i = 0; i < padded; i += WIDTH) put(row + i, load(row + i) * share);
        }
        for (int64_t d = 0; d < size; d += PANEL)
            by_panel(scores, padded, some, n, value_panels + d * n, nullptr, least(PANEL, size - d),
                     out + t * width + d, width, plain);
    }
}

// All heads of all texts; `is_first` where a text has one query, its first token's. A loop of the threads'.
void attended(const Call& call, bool is_first, float* scratch) {
    const int64_t width = call.num_heads * call.head_dim;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < call.num_texts * call.num_heads; task++) {
        const int64_t text = task / call.num_heads, head = task % call.num_heads;
        const int64_t begin = call.begins[text], n = call.begins[text + 1] - begin;
        const int64_t at = begin * width + head * call.head_dim, to = is_first ? text * width + head * call.head_dim : at;
        attend(call, call.queries + to, call.keys + at, call.values + at, is_first ? 1 : n, n, call.attended + to,
               scratch);
    }
}

void normed(const Call& call, const Norm& norm, int64_t n) {
    const int64_t size = call.hidden;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < n; t++) {
        float* row = call.states + t * size;
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
}

// Each text's first token to the front: no text is shorter than a token, so none is written over before it was read.
void keep_firsts(const Call& call) {
#pragma omp single
    for (int64_t text = 0; text < call.num_texts; text++)
        memmove(call.states + text * call.hidden, call.states + call.begins[text] * call.hidden,
                sizeof(float) * call.hidden);
}

}  // namespace

// Numbers of scratch that each thread needs.
extern "C" int64_t forklift_encoder_scratch(const Call* call) {
    const int64_t width = call->num_heads * call->head_dim;
    int64_t widest = call->hidden > call->intermediate ? call->hidden : call->intermediate;
    widest = widest > width ? widest : width;
    const int64_t panels = PART_PANELS * PANEL * widest, attention = attention_size(call->longest, call->head_dim);
    // A multiple of a cache line.
    return ((panels > attention ? panels : attention) + 15) / 16 * 16;
}

extern "C" void forklift_encoder(const Call* given) {
    const Call& call = *given;
#pragma omp parallel num_threads(call.num_threads)
    {
        float* scratch = call.scratch + omp_get_thread_num() * call.scratch_size;
        const Use plain = {FROM_BIAS, NONE}, added = {FROM_OUTPUT, NONE}, active = {FROM_BIAS, call.activation};
        for (int64_t l = 0; l < call.num_layers; l++) {
            const Layer& layer = call.layers[l];
            const bool is_first = call.is_first_enough && l == call.num_layers - 1;
            const Product heads[] = {{&layer.key, call.keys}, {&layer.value, call.values}, {&layer.query, call.queries}};
            multiplied(call.states, call.num_tokens, heads, is_first ? 2 : 3, plain, scratch);
            if (is_first) {
                keep_firsts(call);
                multiplied(call.states, call.num_texts, heads + 2, 1, plain, scratch);
            }
            const int64_t n = is_first ? call.num_texts : call.num_tokens;
            attended(call, is_first, scratch);
            const Product mixed = {&layer.attended, call.states}, up = {&layer.up, call.activated};
            const Product down = {&layer.down, call.states};
            multiplied(call.attended, n, &mixed, 1, added, scratch);
            normed(call, layer.attention_norm, n);
            multiplied(call.states, n, &up, 1, active, scratch);
            multiplied(call.activated, n, &down, 1, added, scratch);
            normed(call, layer.output_norm, n);
        }
    }
}
