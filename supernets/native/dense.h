// Dense convolutions: ReLU, K x K convolution (K 1 or 3) at stride 1, batch norm.

#pragma once

#include "factorised.h"

namespace {

struct Dense : Factorised {
  using Factorised::Factorised;

  static int taps(const Kind& kind) { return kind.kernel * kind.kernel; }
  float* dense_of(int b, bool turned) const { return depthwise_of(0, b, turned); }

  // f(tap, input, output, position) of all weights of an edge; outputs, or inputs, change fastest.
  template <bool OUTPUTS, class F>
  void each_dense(const Kind& kind, F f) const {
    const int count = taps(kind), C = s.C;
    for (int slow = 0; slow < C; slow++)
      for (int t = 0; t < count; t++)
        for (int fast = 0; fast < C; fast++) {
          const int i = OUTPUTS ? slow : fast, o = OUTPUTS ? fast : slow;
          f(t, i, o, (int64_t(o) * C + i) * count + t);
        }
  }

  void pack_dense(const Kind& kind) const {
    const int64_t matrix = int64_t(P) * P;
    if (s.C < P) std::memset(packed, 0, sizeof(float) * 4 * weight_floats * blocks);
    for (int e = 0; e < s.E; e++) {
      const float* weight = kind.weights[e];
      const int64_t lanes = P, first = e % per_block * int64_t(s.C) * (P + 1), last = taps(kind) - 1;
      float* to = dense_of(e / per_block, false) + first;
      each_dense<true>(kind, [=](int t, int i, int o, int64_t position) HERE {
        to[t * matrix + i * lanes + o] = weight[position];
      });
      if (!backward) continue;
      float* turned = dense_of(e / per_block, true) + first;
      each_dense<false>(kind, [=](int t, int i, int o, int64_t position) HERE {
        turned[(last - t) * matrix + o * lanes + i] = weight[position];
      });
    }
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
      if (!kind.kept) relu_input(n, in, k.a);
      for (int b = 0; b < blocks; b++) {
        if (!kind.kept) dense_map(kind, n, b, k.a, in);
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
    if (kind.gradients) reduce_dense(kind);
  }

  // Adds the images' weight gradients, in order, into the tensors of the edges.
  void reduce_dense(const Kind& kind) const {
    const int64_t floats = int64_t(taps(kind)) * P * P, own = int64_t(taps(kind)) * s.C * s.C;
#pragma omp for schedule(static)
    for (int b = 0; b < blocks; b++) {
      float* total = weight_part(0, b);
      for (int n = 1; n < s.B; n++)
        for (int64_t i = 0; i < floats; i += LANES)
          store(total + i, load(total + i) + load(weight_part(n, b) + i));
      for (int slot = 0; slot < per_block && edge_of(b, slot) < s.E; slot++) {
        float* to = kind.gradients + edge_of(b, slot) * own;
        const float* from = total + slot * int64_t(s.C) * (P + 1);
        const int64_t lanes = P;
        each_dense<true>(kind, [=](int t, int i, int o, int64_t position) HERE {
          to[position] = from[(t * lanes + i) * lanes + o];
        });
      }
    }
  }
};

}  // namespace
