// Dense convolutions: ReLU, K x K convolution (K 1 or 3) at stride 1, batch norm.

#pragma once

#include "factorised.h"

namespace {

struct Dense : Factorised {
  using Factorised::Factorised;

  static int taps(const Kind& kind) { return kind.kernel * kind.kernel; }
  float* dense_of(int b, bool turned) const { return depthwise_of(0, b, turned); }

  // f(block, tap, input lane, output lane, edge, position in its tensor)
  template <class F>
  void each_dense(const Kind& kind, F f) const {
    for (int e = 0; e < s.E; e++)
      for (int o = 0; o < s.C; o++)
        for (int i = 0; i < s.C; i++)
          for (int t = 0; t < taps(kind); t++) {
            const int first = e % per_block * s.C;
            f(e / per_block, t, first + i, first + o, e, (int64_t(o) * s.C + i) * taps(kind) + t);
          }
  }

  void pack_dense(const Kind& kind) const {
    const int64_t matrix = int64_t(P) * P;
    std::memset(packed, 0, sizeof(float) * 4 * weight_floats * blocks);
    each_dense(kind, [&](int b, int t, int64_t i, int64_t o, int e, int64_t position) {
      const float value = kind.weights[e][position];
      dense_of(b, false)[t * matrix + i * P + o] = value;
      dense_of(b, true)[(taps(kind) - 1 - t) * matrix + o * P + i] = value;
    });
  }

  // `in` is a padded map.
  void convolve(const Kind& kind, const float* in, const Shape& shape, const float* weight,
                float* out) const {
    (kind.kernel == 3 ? convolution<3> : convolution<1>)(in, shape.row, P, weight, P, out, w, 1, h,
                                                         w);
  }

  void dense_map(const Kind& kind, int n, int b, const float* in, const Shape& shape) const {
    convolve(kind, in, shape, dense_of(b, false), map(result(kind), n, b));
  }

  void dense_forward(const Kind& kind) const {
    const Shape in = padded_shape(kind, true);
#pragma omp single
    {
      pack_dense(kind);
      load_gates(kind);
    }
    const Buffers k = buffers();
    clear(k);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      relu_input(n, in, k.a);
      for (int b = 0; b < blocks; b++) {
        dense_map(kind, n, b, k.a, in);
        if (s.training) moments_of(n, b, map(result(kind), n, b));
      }
    }
#pragma omp single
    last_norm(kind, 0);
  }

  // gradient (tap, P in, P out) from a padded input and dense d.
  void dense_gradient(const Kind& kind, const float* in, const Shape& shape, const float* d,
                      float* gradient) const {
    std::memset(gradient, 0, sizeof(float) * taps(kind) * P * P);
    const int rows = std::max(1, 4096 / (2 * P * w));  // so many stay in the first cache
    for (int y = 0; y < h; y += rows)
      for (int t = 0; t < taps(kind); t++)
        add_outer_products(
            in + (int64_t(y + t / kind.kernel) * shape.row + t % kind.kernel) * P, shape.row, P,
            d + int64_t(y) * w * P, w, P, w, std::min(rows, h - y),
            gradient + int64_t(t) * P * P);
  }

  void dense_backward(const Kind& kind) const {
    const Shape in = padded_shape(kind, true);
#pragma omp single
    {
      pack_dense(kind);
      load_gates(kind);
      load_norm(kind, 0);
    }
    const Buffers k = buffers();
    clear(k);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      relu_input(n, in, k.a);
      for (int b = 0; b < blocks; b++) {
        dense_map(kind, n, b, k.a, in);
        products(output(n, b), map(result(kind), n, b), row(MEAN) + b * P, P, out_pixels,
                 partial + (int64_t(n) * blocks + b) * 2 * P);
      }
    }
#pragma omp single
    norm_gradient(kind, 0, row(GATE));
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      relu_input(n, in, k.a);
      for (int b = 0; b < blocks; b++) {
        combine(output(n, b), map(result(kind), n, b), row(A) + b * P, M, P, out_pixels, k.d);
        if (kind.gradients) dense_gradient(kind, k.a, in, k.d, weight_part(n, b));
        for (int y = 0; y < h; y++)
          std::memcpy(k.b + int64_t(in.at(y, 0)) * P, k.d + int64_t(y) * w * P,
                      sizeof(float) * w * P);
        convolve(kind, k.b, in, dense_of(b, true), k.e);
        add_where_positive(n, k.e);
      }
    }
    if (!kind.gradients) return;
#pragma omp single
    {
      std::memset(kind.gradients, 0, sizeof(float) * s.E * s.C * s.C * taps(kind));
      for (int n = 0; n < s.B; n++)
        each_dense(kind, [&](int b, int t, int64_t i, int64_t o, int e, int64_t position) {
          kind.gradients[int64_t(e) * s.C * s.C * taps(kind) + position] +=
              weight_part(n, b)[(int64_t(t) * P + i) * P + o];
        });
    }
  }
};

}  // namespace
