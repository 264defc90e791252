// A pass through decoder layers of the Llama kind: any number of tokens, of rows that decode and of prompts, end to end.
//
// Compiled for one machine, one kind of weight and one kind of cache (WEIGHT, CACHE). Everything else comes in with the
// call: sizes, weights where they lie, the cache's own buffers. Sums and what lies between two products are float32. A
// weight is read from memory once for all tokens and widened in registers; a part of it stays in the processor's cache
// while all tokens are multiplied by it. Parts are handed out as threads become free: one that has lost its core to
// another process holds the others up by one part at most.

#include <cstdint>
#include <cstring>
#include <omp.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef float LooseFloats __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));

// Weights of a part: with the tokens' inputs they fit into a core's own cache.
constexpr int64_t PART_BYTES = 1 << 17;
// A multiple of every number of outputs that is computed at once.
constexpr int64_t PART_STEP = 12;
// Tokens whose products by a part are kept before something is done with them.
constexpr int64_t BLOCK_TOKENS = 32;
constexpr int64_t MOST_PART_OUTPUTS = 1024;
// Tokens of a prompt whose scores are kept at once.
constexpr int64_t ATTENTION_TOKENS = 8;

struct Float32 {
    typedef float Type;
    static Floats load(const float* from) { return *(const LooseFloats*)from; }
    static float one(float value) { return value; }
    static float from(float value) { return value; }
};

struct BFloat16 {
    typedef uint16_t Type;
    static Floats load(const uint16_t* from) {
#if defined(__AVX512F__)
        return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#elif defined(__AVX2__)
        // g++ 12 takes half a register of 16-bit numbers from memory by way of the stack.
        return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16);
#else
        Floats found;
        for (int i = 0; i < WIDTH; i++) found[i] = one(from[i]);
        return found;
#endif
    }
    static float one(uint16_t value) {
        const uint32_t bits = uint32_t(value) << 16;
        float found;
        memcpy(&found, &bits, 4);
        return found;
    }
    // To the nearest, ties to even.
    static uint16_t from(float value) {
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (value != value) return 0x7fc0;
        return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
};

#if defined(__F16C__)
struct Float16 {
    typedef uint16_t Type;
    static Floats load(const uint16_t* from) {
#if defined(__AVX512F__)
        return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#else
        return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#endif
    }
    static float one(uint16_t value) { return _cvtsh_ss(value); }
    static uint16_t from(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
};
#endif

struct Int8 {
    typedef int8_t Type;
    static Floats load(const int8_t* from) {
#if defined(__AVX512F__)
        return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#elif defined(__AVX2__)
        return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#else
        Floats found;
        for (int i = 0; i < WIDTH; i++) found[i] = from[i];
        return found;
#endif
    }
    static float one(int8_t value) { return value; }
};

typedef WEIGHT Weight;
typedef CACHE Cache;

inline Floats all(float value) { return value - Floats{}; }

inline void put(float* to, Floats values) { *(LooseFloats*)to = values; }

inline float sum(Floats values) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)values);
#elif defined(__AVX2__)
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)values), _mm256_extractf128_ps((__m256)values, 1));
    half = _mm_hadd_ps(half, half);
    return _mm_cvtss_f32(_mm_hadd_ps(half, half));
#else
    float found = 0;
    for (int i = 0; i < WIDTH; i++) found += values[i];
    return found;
#endif
}

// The sums of four, one behind the other.
inline void sum_four(const Floats* values, float* out) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256 first = _mm256_hadd_ps((__m256)values[0], (__m256)values[1]);
    const __m256 second = _mm256_hadd_ps((__m256)values[2], (__m256)values[3]);
    const __m256 both = _mm256_hadd_ps(first, second);
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1)));
#else
    for (int i = 0; i < 4; i++) out[i] = sum(values[i]);
#endif
}

// e to the power of each: by Cephes' polynomial, to 2 units in the last place.
inline Floats exponential(Floats x) {
    x = x < -87.0f ? all(-87.0f) : x;
    x = x > 88.0f ? all(88.0f) : x;
    const float magic = 12582912.0f;
    const Floats whole = (x * 1.44269504f + magic) - magic;
    const Floats rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats found = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    found = found * rest + 8.3334519073e-3f;
    found = found * rest + 4.1665795894e-2f;
    found = found * rest + 1.6666665459e-1f;
    found = found * rest + 5.0000001201e-1f;
    found = found * rest * rest + rest + 1.0f;
    return found * (Floats)((__builtin_convertvector(whole, Ints) + 127) << 23);
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// R rows of float32 by O rows of a matrix of kind Q, all of length k, into out[r * stride + o]. Each sum is kept in U
// parts. AHEAD: bytes from what is read to what is to be read soon; 0: none is asked for.
template <class Q, int R, int O, int U, int AHEAD>
inline void tile(const float* x, int64_t k, const typename Q::Type* w, float* out, int64_t stride) {
    Floats sums[U][R][O] = {};
    int64_t i = 0;
    const auto step = [&](int u, int64_t at) {
        Floats wide[O];
        for (int o = 0; o < O; o++) {
            wide[o] = Q::load(w + o * k + at);
            if (AHEAD) __builtin_prefetch((const char*)(w + o * k + at) + AHEAD);
        }
        for (int r = 0; r < R; r++) {
            Floats row = Float32::load(x + r * k + at);
#if defined(__AVX2__)
            // Else g++ reads it anew for each product, which makes loads the limit.
            if (O > 1) asm("" : "+x"(row));
#endif
            for (int o = 0; o < O; o++) sums[u][r][o] += row * wide[o];
        }
    };
    for (; i + U * WIDTH <= k; i += U * WIDTH)
        for (int u = 0; u < U; u++) step(u, i + u * WIDTH);
    for (; i + WIDTH <= k; i += WIDTH) step(0, i);
    for (int u = 1; u < U; u++)
        for (int r = 0; r < R; r++)
            for (int o = 0; o < O; o++) sums[0][r][o] += sums[u][r][o];
    for (int r = 0; r < R; r++) {
        if (O == 4)
            sum_four(sums[0][r], out + r * stride);
        else
            for (int o = 0; o < O; o++) out[r * stride + o] = sum(sums[0][r][o]);
        for (int o = 0; o < O; o++)
            for (int64_t j = i; j < k; j++) out[r * stride + o] += x[r * k + j] * Q::one(w[o * k + j]);
    }
}

// All rows of a matrix that lies in memory: one after the other, since several at once are read at half the speed.
template <class Q, int R>
inline void cold_strip(const float* x, int64_t k, const typename Q::Type* w, int64_t num, float* out, int64_t stride) {
    constexpr int U = R <= 2 ? 4 : R == 3 ? 3 : 2, AHEAD = R <= 2 ? 0 : 1024;
    for (int64_t o = 0; o < num; o++) tile<Q, R, 1, U, AHEAD>(x, k, w + o * k, out + o, stride);
}

// Of one that lies in the processor's cache: as many products per load as there are registers for.
template <class Q, int R>
inline void warm_strip(const float* x, int64_t k, const typename Q::Type* w, int64_t num, float* out, int64_t stride) {
    constexpr int O = R == 4 ? 3 : 4;
    int64_t o = 0;
    for (; o + O <= num; o += O) tile<Q, R, O, 1, 0>(x, k, w + o * k, out + o, stride);
    for (; o < num; o++) tile<Q, R, 1, 1, 0>(x, k, w + o * k, out + o, stride);
}

template <class Q, int R>
inline void strip(const float* x, int64_t k, const typename Q::Type* w, int64_t num, float* out, int64_t stride,
                  bool is_cold) {
    if (is_cold)
        cold_strip<Q, R>(x, k, w, num, out, stride);
    else
        warm_strip<Q, R>(x, k, w, num, out, stride);
}

// n rows by num rows of a matrix, both of length k: out[row * stride + o]; MOST rows at a time.
template <class Q, int MOST>
void multiply(const float* x, int64_t n, int64_t k, const typename Q::Type* w, int64_t num, float* out, int64_t stride,
              bool is_cold) {
    int64_t r = 0;
    for (; r + MOST <= n; r += MOST) strip<Q, MOST>(x + r * k, k, w, num, out + r * stride, stride, is_cold && r == 0);
    x += r * k;
    out += r * stride;
    is_cold = is_cold && r == 0;
    if (n - r == 3) strip<Q, 3>(x, k, w, num, out, stride, is_cold);
    if (n - r == 2) strip<Q, 2>(x, k, w, num, out, stride, is_cold);
    if (n - r == 1) strip<Q, 1>(x, k, w, num, out, stride, is_cold);
}

// R rows of weights over length entries by entries of head_dim values, times share: into out[r * head_dim].
template <int R, int N>
inline void mix_strip(const float* weights, const float* shares, int64_t length, const Cache::Type* values,
                      int64_t head_dim, float* out) {
    Floats sums[R][N] = {};
    for (int64_t l = 0; l < length; l++) {
        Floats wide[N];
        for (int v = 0; v < N; v++) wide[v] = Cache::load(values + l * head_dim + v * WIDTH);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < N; v++) sums[r][v] += weights[r * length + l] * wide[v];
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < N; v++) put(out + r * head_dim + v * WIDTH, sums[r][v] * shares[r]);
}

template <int R>
void mix_rows(const float* weights, const float* shares, int64_t length, const Cache::Type* values, int64_t head_dim,
              float* out) {
    int64_t d = 0;
    for (; d + 4 * WIDTH <= head_dim; d += 4 * WIDTH)
        mix_strip<R, 4>(weights, shares, length, values + d, head_dim, out + d);
    for (; d + WIDTH <= head_dim; d += WIDTH) mix_strip<R, 1>(weights, shares, length, values + d, head_dim, out + d);
    for (; d < head_dim; d++)
        for (int r = 0; r < R; r++) {
            float found = 0;
            for (int64_t l = 0; l < length; l++) found += weights[r * length + l] * Cache::one(values[l * head_dim + d]);
            out[r * head_dim + d] = found * shares[r];
        }
}

void mix(const float* weights, const float* shares, int64_t rows, int64_t length, const Cache::Type* values,
         int64_t head_dim, float* out) {
    int64_t r = 0;
    for (; r + 3 <= rows; r += 3) mix_rows<3>(weights + r * length, shares + r, length, values, head_dim, out + r * head_dim);
    if (rows - r == 2) mix_rows<2>(weights + r * length, shares + r, length, values, head_dim, out + r * head_dim);
    if (rows - r == 1) mix_rows<1>(weights + r * length, shares + r, length, values, head_dim, out + r * head_dim);
}

// The first `seen` of `length` scores as powers of e, the others as 0; what each is to be multiplied by for shares of 1.
float softmax(float* scores, int64_t seen, int64_t length) {
    Floats peaks = all(scores[0]);
    int64_t i = 0;
    for (; i + WIDTH <= seen; i += WIDTH) {
        const Floats some = Float32::load(scores + i);
        peaks = some > peaks ? some : peaks;
    }
    float most = peaks[0];
    for (int lane = 1; lane < WIDTH; lane++) most = peaks[lane] > most ? peaks[lane] : most;
    for (; i < seen; i++) most = scores[i] > most ? scores[i] : most;
    Floats sums = {};
    for (i = 0; i + WIDTH <= seen; i += WIDTH) {
        const Floats found = exponential(Float32::load(scores + i) - most);
        sums += found;
        put(scores + i, found);
    }
    float total = sum(sums);
    for (; i < seen; i++) total += scores[i] = exponential(all(scores[i] - most))[0];
    for (; i < length; i++) scores[i] = 0;
    return 1.0f / total;
}

// RMS norm of a row.
void norm(const float* states, const float* weight, float epsilon, int64_t size, float* out) {
    Floats squares = {};
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) squares += Float32::load(states + i) * Float32::load(states + i);
    float total = sum(squares);
    for (; i < size; i++) total += states[i] * states[i];
    const float scale = 1.0f / __builtin_sqrtf(total / float(size) + epsilon);
    for (i = 0; i < size; i++) out[i] = states[i] * scale * weight[i];
}

void rotate(float* head, const float* cos, const float* sin, int64_t head_dim) {
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const float a = head[i], b = head[i + half];
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

}  // namespace

extern "C" {

// A matrix (num_out, width) and what belongs to it: scales of its outputs, a bias, and which input each column reads and
// by what it is multiplied before; null where there is none.
struct Matrix {
    const Weight::Type* weight;
    int64_t num_in, num_out, width;
    const float *scales, *bias;
    const int64_t* columns;
    const float* factors;
};

struct Layer {
    const float *input_norm, *attention_norm;
    Matrix qkv, o, gate_up, down;
    Cache::Type *keys, *values;
};

// Tokens of one row of the cache, from position start on.
struct Piece {
    int64_t row, start, count;
};

struct Call {
    int64_t num_layers, num_tokens, num_pieces, num_wanted, num_threads;
    int64_t hidden, num_queries, num_kv_heads, head_dim, intermediate, capacity;
    float scaling, epsilon_input, epsilon_attention, epsilon_last;
    const Layer* layers;
    const Piece* pieces;
    float* states;
    const float *cos, *sin;
    const int64_t* wanted;
    const float* last_norm;
    const Matrix* head;
    float* logits;
    // Scratch: of each token inputs (the widest of a matrix), heads, attended, activated and gathered; of each thread scores.
    float *inputs, *heads, *attended, *activated, *gathered, *scores;
    int64_t scores_size;
};
}

namespace {

// What the matrix is multiplied by: rows as they are, or its columns of them, which each thread may ask for.
const float* gathered(const Call& call, const Matrix& m, const float* rows, int64_t n) {
    if (!m.columns) return rows;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < m.width; i++)
            call.gathered[t * m.width + i] = rows[t * m.num_in + m.columns[i]] * m.factors[i];
    return call.gathered;
}

int64_t part_outputs(const Matrix& m) {
    const int64_t outputs = PART_BYTES / (m.width * int64_t(sizeof(Weight::Type))) / PART_STEP * PART_STEP;
    return outputs < PART_STEP ? PART_STEP : least(outputs, MOST_PART_OUTPUTS / PART_STEP * PART_STEP);
}

inline float finished(const Matrix& m, float sum, int64_t output) {
    if (m.scales) sum *= m.scales[output];
    return m.bias ? sum + m.bias[output] : sum;
}

// Every output of m for n rows: use(token, output, value). A loop of the threads', with a barrier behind it.
template <class Use>
void product(const Call& call, const Matrix& m, const float* rows, int64_t n, Use use) {
    rows = gathered(call, m, rows, n);
    const int64_t step = part_outputs(m), num_parts = (m.num_out + step - 1) / step;
    float found[BLOCK_TOKENS * MOST_PART_OUTPUTS];
#pragma omp for schedule(dynamic, 1)
    for (int64_t part = 0; part < num_parts; part++) {
        const int64_t first = part * step, num = least(step, m.num_out - first);
        for (int64_t t = 0; t < n; t += BLOCK_TOKENS) {
            const int64_t some = least(BLOCK_TOKENS, n - t);
            multiply<Weight, 4>(rows + t * m.width, some, m.width, m.weight + first * m.width, num, found, num, t == 0);
            for (int64_t r = 0; r < some; r++)
                for (int64_t o = 0; o < num; o++) use(t + r, first + o, finished(m, found[r * num + o], first + o));
        }
    }
}

// Gate and up of the same outputs together: activated = silu(gate) * up.
void gated(const Call& call, const Matrix& m, const float* rows, int64_t n) {
    rows = gathered(call, m, rows, n);
    const int64_t size = call.intermediate, step = part_outputs(m) / 2 > PART_STEP ? part_outputs(m) / 2 : PART_STEP;
    const int64_t num_parts = (size + step - 1) / step;
    float gate[BLOCK_TOKENS * MOST_PART_OUTPUTS], up[BLOCK_TOKENS * MOST_PART_OUTPUTS];
#pragma omp for schedule(dynamic, 1)
    for (int64_t part = 0; part < num_parts; part++) {
        const int64_t first = part * step, num = least(step, size - first);
        for (int64_t t = 0; t < n; t += BLOCK_TOKENS) {
            const int64_t some = least(BLOCK_TOKENS, n - t);
            const float* x = rows + t * m.width;
            multiply<Weight, 4>(x, some, m.width, m.weight + first * m.width, num, gate, num, t == 0);
            multiply<Weight, 4>(x, some, m.width, m.weight + (size + first) * m.width, num, up, num, t == 0);
            for (int64_t r = 0; r < some; r++) {
                float* out = call.activated + (t + r) * size + first;
                int64_t o = 0;
                for (; o < num; o++) {
                    gate[r * num + o] = finished(m, gate[r * num + o], first + o);
                    up[r * num + o] = finished(m, up[r * num + o], size + first + o);
                }
                for (o = 0; o + WIDTH <= num; o += WIDTH) {
                    const Floats g = Float32::load(gate + r * num + o);
                    put(out + o, g / (1.0f + exponential(-g)) * Float32::load(up + r * num + o));
                }
                for (; o < num; o++) {
                    const float g = gate[r * num + o];
                    out[o] = g / (1.0f + exponential(all(-g))[0]) * up[r * num + o];
                }
            }
        }
    }
}

void normed(const Call& call, const float* weight, float epsilon) {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < call.num_tokens; t++)
        norm(call.states + t * call.hidden, weight, epsilon, call.hidden, call.inputs + t * call.hidden);
}

// Where a row's entries of a head begin.
inline int64_t entries_of(const Call& call, int64_t row, int64_t head) {
    return (row * call.num_kv_heads + head) * call.capacity * call.head_dim;
}

// Rotate the heads of every token and write keys and values where they belong.
void stored(const Call& call, const Layer& layer, const int64_t* rows, const int64_t* positions) {
    const int64_t size = call.head_dim, num_rotated = call.num_queries + call.num_kv_heads;
    const int64_t width = (num_rotated + call.num_kv_heads) * size;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < call.num_tokens; t++) {
        float* heads = call.heads + t * width;
        for (int64_t h = 0; h < num_rotated; h++) rotate(heads + h * size, call.cos + t * size, call.sin + t * size, size);
        for (int64_t h = 0; h < call.num_kv_heads; h++) {
            const int64_t at = entries_of(call, rows[t], h) + positions[t] * size;
            const float *key = heads + (call.num_queries + h) * size, *value = heads + (num_rotated + h) * size;
            for (int64_t i = 0; i < size; i++) {
                layer.keys[at + i] = Cache::from(key[i]);
                layer.values[at + i] = Cache::from(value[i]);
            }
        }
    }
}

// Attention of some tokens of a row, for the queries that share a head of keys.
void attend(const Call& call, const Layer& layer, const Piece& piece, int64_t token, int64_t first, int64_t num,
            int64_t head, float* scratch) {
    const int64_t size = call.head_dim, group = call.num_queries / call.num_kv_heads, rows = num * group;
    const int64_t width = (call.num_queries + 2 * call.num_kv_heads) * size, length = piece.start + first + num;
    float *queries = scratch, *found = queries + rows * size, *scores = found + rows * size;
    for (int64_t r = 0; r < rows; r++) {
        const float* query = call.heads + (token + first + r / group) * width + (head * group + r % group) * size;
        for (int64_t i = 0; i < size; i++) queries[r * size + i] = query[i] * call.scaling;
    }
    const int64_t at = entries_of(call, piece.row, head);
    multiply<Cache, 3>(queries, rows, size, layer.keys + at, length, scores, length, false);
    float* shares = scores + rows * length;
    for (int64_t r = 0; r < rows; r++)
        shares[r] = softmax(scores + r * length, piece.start + first + r / group + 1, length);
    mix(scores, shares, rows, length, layer.values + at, size, found);
    for (int64_t r = 0; r < rows; r++) {
        float* out = call.attended + ((token + first + r / group) * call.num_queries + head * group + r % group) * size;
        memcpy(out, found + r * size, size * sizeof(float));
    }
}

// One task for each head of keys and few tokens of a piece; which token a piece begins with is in `begins`.
void attended(const Call& call, const Layer& layer, const int64_t* begins, const int64_t* tasks, int64_t num_tasks,
              float* scratch) {
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < num_tasks * call.num_kv_heads; i++) {
        // The longest ones come last in a prompt, so they are begun with.
        const int64_t task = num_tasks - 1 - i / call.num_kv_heads, head = i % call.num_kv_heads;
        const Piece& piece = call.pieces[tasks[2 * task]];
        const int64_t first = tasks[2 * task + 1], num = least(ATTENTION_TOKENS, piece.count - first);
        attend(call, layer, piece, begins[tasks[2 * task]], first, num, head, scratch);
    }
}

}  // namespace

extern "C" void forklift_pass(const Call* given, int64_t* places) {
    const Call& call = *given;
    // Of every token its row and position; of every piece its first token; of every task its piece and first token.
    int64_t *rows = places, *positions = rows + call.num_tokens, *begins = positions + call.num_tokens;
    int64_t *tasks = begins + call.num_pieces, num_tasks = 0, token = 0;
    for (int64_t p = 0; p < call.num_pieces; p++) {
        const Piece& piece = call.pieces[p];
        begins[p] = token;
        for (int64_t i = 0; i < piece.count; i++, token++) {
            rows[token] = piece.row;
            positions[token] = piece.start + i;
            if (i % ATTENTION_TOKENS == 0) {
                tasks[2 * num_tasks] = p;
                tasks[2 * num_tasks++ + 1] = i;
            }
        }
    }
#pragma omp parallel num_threads(call.num_threads)
    {
        float* scratch = call.scores + omp_get_thread_num() * call.scores_size;
        const int64_t n = call.num_tokens, width = (call.num_queries + 2 * call.num_kv_heads) * call.head_dim;
        const auto add = [&](int64_t t, int64_t o, float value) { call.states[t * call.hidden + o] += value; };
        for (int64_t l = 0; l < call.num_layers; l++) {
            const Layer& layer = call.layers[l];
            normed(call, layer.input_norm, call.epsilon_input);
            product(call, layer.qkv, call.inputs, n,
                    [&](int64_t t, int64_t o, float value) { call.heads[t * width + o] = value; });
            stored(call, layer, rows, positions);
            attended(call, layer, begins, tasks, num_tasks, scratch);
            product(call, layer.o, call.attended, n, add);
            normed(call, layer.attention_norm, call.epsilon_attention);
            gated(call, layer.gate_up, call.inputs, n);
            product(call, layer.down, call.activated, n, add);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < call.num_wanted; i++)
            norm(call.states + call.wanted[i] * call.hidden, call.last_norm, call.epsilon_last, call.hidden,
                 call.inputs + i * call.hidden);
        product(call, *call.head, call.inputs, call.num_wanted,
                [&](int64_t t, int64_t o, float value) { call.logits[t * call.head->num_out + o] = value; });
    }
}
