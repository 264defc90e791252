// Products whose outputs the threads share: parts of a weight are handed out as threads become free.

#pragma once

#include <omp.h>

#include "encoder_call.h"

namespace {

// Panels of a part: they stay in the second cache.
constexpr int64_t PART_PANELS = 4;

// A product and where it goes.
struct Product {
    const Matrix* matrix;
    float* out;
};

inline int64_t parts_of(const Matrix& matrix) { return (panels_of(matrix.num_out) + PART_PANELS - 1) / PART_PANELS; }

// n rows of x by the part `at` of a matrix. `scratch` holds PART_PANELS panels of its inputs.
inline void multiply_part(const float* x, int64_t stride, int64_t n, const Matrix& m, int64_t at, float* out,
                          int64_t out_stride, Use use, float* scratch) {
    const int64_t first = at * PART_PANELS * PANEL, end = least(first + PART_PANELS * PANEL, m.num_out);
    for (int64_t o = first; o < end; o += PANEL)
        lay_out(m.weight + o * m.out_stride, m.out_stride, m.in_stride, least(PANEL, end - o), m.num_in,
                scratch + (o - first) * m.num_in);
    for (int64_t t = 0; t < n; t += BLOCK_TOKENS)
        for (int64_t o = first; o < end; o += PANEL)
            by_panel(x + t * stride, stride, least(BLOCK_TOKENS, n - t), m.num_in, scratch + (o - first) * m.num_in,
                     m.bias ? m.bias + o : nullptr, least(PANEL, end - o), out + t * out_stride + o, out_stride, use);
}

// n rows of x by each of some matrices with as many inputs. A loop of the threads', with a barrier behind it.
inline void multiplied(const float* x, int64_t n, const Product* products, int64_t num_products, Use use,
                       float* scratch) {
    int64_t num_parts = 0;
    for (int64_t p = 0; p < num_products; p++) num_parts += parts_of(*products[p].matrix);
#pragma omp for schedule(dynamic, 1)
    for (int64_t part = 0; part < num_parts; part++) {
        int64_t which = 0, at = part;
        for (; at >= parts_of(*products[which].matrix); which++) at -= parts_of(*products[which].matrix);
        const Matrix& m = *products[which].matrix;
        multiply_part(x, m.num_in, n, m, at, products[which].out, m.num_out, use, scratch);
    }
}

}  // namespace
