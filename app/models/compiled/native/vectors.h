// Vectors of floats, the kinds of numbers that become such, and what is computed of them one by one.

#pragma once

#include <cstdint>
#include <cstring>
#include <immintrin.h>

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#else
constexpr int WIDTH = 8;
#endif

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef float LooseFloats __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));

// Weights of R rows that are read from memory are asked for so long before they are needed: what a processor foresees by
// itself reads a matrix at 80 to 90% of the rate. The distances were measured, in bytes.
template <int R>
inline void ask_ahead(const void* reading) {
    constexpr int64_t AHEAD = 512 * (R < 3 ? R + 1 : 4);
    __builtin_prefetch((const char*)reading + AHEAD);
}

struct Float32 {
    typedef float Type;
    static Floats load(const float* from) { return *(const LooseFloats*)from; }
    static __m256 eight(const float* from) { return _mm256_loadu_ps(from); }
    static float one(float value) { return value; }
    static float from(float value) { return value; }
};

struct BFloat16 {
    typedef uint16_t Type;
    static Floats load(const uint16_t* from) {
#if defined(__AVX512F__)
        return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#else
        return (Floats)eight(from);
#endif
    }
    // g++ 12 takes half a register of 16-bit numbers from memory by way of the stack, if it is not told.
    static __m256 eight(const uint16_t* from) {
        return (__m256)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16);
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

struct Float16 {
    typedef uint16_t Type;
    static Floats load(const uint16_t* from) {
#if defined(__AVX512F__)
        return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#else
        return (Floats)eight(from);
#endif
    }
    static __m256 eight(const uint16_t* from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from)); }
    static float one(uint16_t value) { return _cvtsh_ss(value); }
    static uint16_t from(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
};

// Codes of weights: whole numbers, of 4 bits two in a byte.
struct Int8 {
    typedef int8_t Type;
};

struct Int4 {
    typedef uint8_t Type;
};

inline Floats all(float value) { return value - Floats{}; }

inline void put(float* to, Floats values) { *(LooseFloats*)to = values; }

inline float sum_eight(__m256 values) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
    half = _mm_hadd_ps(half, half);
    return _mm_cvtss_f32(_mm_hadd_ps(half, half));
}

inline float sum(Floats values) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)values);
#else
    return sum_eight((__m256)values);
#endif
}

// The sums of four, one behind the other.
inline void sum_four(const Floats* values, float* out) {
#if defined(__AVX512F__)
    for (int i = 0; i < 4; i++) out[i] = sum(values[i]);
#else
    const __m256 first = _mm256_hadd_ps((__m256)values[0], (__m256)values[1]);
    const __m256 second = _mm256_hadd_ps((__m256)values[2], (__m256)values[3]);
    const __m256 both = _mm256_hadd_ps(first, second);
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1)));
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

inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Hyperbolic tangents, to some units in the last place of 1.
inline Floats tangent(Floats x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

// RMS norm of a row; it may be its own place.
inline void norm(const float* states, const float* weight, float epsilon, int64_t size, float* out) {
    Floats squares = {};
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) squares += Float32::load(states + i) * Float32::load(states + i);
    float total = sum(squares);
    for (; i < size; i++) total += states[i] * states[i];
    const float scale = 1.0f / __builtin_sqrtf(total / float(size) + epsilon);
    for (i = 0; i < size; i++) out[i] = states[i] * scale * weight[i];
}

// The first `size` numbers of a head: each with the one half of them behind it, or neighbours.
inline void rotate(float* head, const float* cos, const float* sin, int64_t size, bool has_pairs) {
    if (has_pairs) {
        for (int64_t i = 0; i < size; i += 2) {
            const float a = head[i], b = head[i + 1];
            head[i] = a * cos[i] - b * sin[i];
            head[i + 1] = b * cos[i + 1] + a * sin[i + 1];
        }
        return;
    }
    const int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        const float a = head[i], b = head[i + half];
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

}  // namespace
