// Factorised reduction: two 1x1 convolutions, on the pixels (2y, 2x) and (2y + 1, 2x + 1).

#pragma once

#include "separable.h"

namespace {

struct Factorised : Separable {
  using Separable::Separable;

  void gather(int n, float* to) const {  // relu of both, side by side: (pixels, 2 P)
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++)
        for (int part = 0; part < 2; part++, to += P) {
          const int i = 2 * y + part, j = 2 * x + part;
          for (int v = 0; v < P; v += LANES)
            store(to + v, i < s.H && j < s.W
                              ? positive(load(input(n) + (int64_t(i) * s.W + j) * P + v))
                              : vec{});
        }
  }

  void scatter(const float* from, const float* active, float* dx) const {
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++)
        for (int part = 0; part < 2; part++, from += P, active += P) {
          const int i = 2 * y + part, j = 2 * x + part;
          if (i >= s.H || j >= s.W) continue;
          float* to = dx + (int64_t(i) * s.W + j) * P;
          for (int v = 0; v < P; v += LANES)
            store(to + v, load(to + v) + select(load(active + v) <= 0.0f, vec{}, load(from + v)));
        }
  }

  // f(block, input lane, output lane, part, position in the tensors of the part)
  template <class F>
  void each_factorised(F f) const {
    for (int part = 0; part < 2; part++) {
      const int outputs = part ? s.C - s.C / 2 : s.C / 2, first = part ? s.C / 2 : 0;
      for (int e = 0; e < s.E; e++)
        for (int o = 0; o < outputs; o++)
          for (int i = 0; i < s.C; i++)
            f(e / per_block, part * P + e % per_block * s.C + i, e % per_block * s.C + first + o,
              part, (int64_t(e) * outputs + o) * s.C + i);
    }
  }
  float* factorised_of(int b, bool turned) const { return depthwise_of(0, b, turned); }

  void pack_factorised(const Kind& kind) const {
    std::memset(packed, 0, sizeof(float) * 4 * weight_floats * blocks);
    each_factorised([&](int b, int64_t i, int64_t o, int part, int64_t position) {
      const int64_t each = int64_t(part ? s.C - s.C / 2 : s.C / 2) * s.C;
      const float value = kind.weights[part * s.E + position / each][position % each];
      factorised_of(b, false)[i * P + o] = factorised_of(b, true)[o * 2 * P + i] = value;
    });
  }

  void factorised_forward(const Kind& kind) const {
#pragma omp single
    {
      pack_factorised(kind);
      load_gates(kind);
    }
    const Buffers k = buffers();
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      gather(n, k.a);
      for (int b = 0; b < blocks; b++) {
        pointwise(k.a, 2 * P, factorised_of(b, false), P, map(result(kind), n, b), w, 1, h, w);
        if (s.training) moments_of(n, b, map(result(kind), n, b));
      }
    }
#pragma omp single
    last_norm(kind, 0);
  }

  void factorised_backward(const Kind& kind) const {
#pragma omp single
    {
      pack_factorised(kind);
      load_gates(kind);
      load_norm(kind, 0);
    }
    const Buffers k = buffers();
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      gather(n, k.a);
      for (int b = 0; b < blocks; b++) {
        pointwise(k.a, 2 * P, factorised_of(b, false), P, map(result(kind), n, b), w, 1, h, w);
        products(output(n, b), map(result(kind), n, b), row(MEAN) + b * P, P, out_pixels,
                 partial + (int64_t(n) * blocks + b) * 2 * P);
      }
    }
#pragma omp single
    norm_gradient(kind, 0, row(GATE));
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      gather(n, k.a);
      for (int b = 0; b < blocks; b++) {
        combine(output(n, b), map(result(kind), n, b), row(A) + b * P, M, P, out_pixels, k.d);
        if (kind.gradients)
          pointwise_gradient(k.a, 2 * P, k.d, P, out_pixels, weight_part(n, b));
        pointwise(k.d, P, factorised_of(b, true), 2 * P, k.b, w, 1, h, w);
        scatter(k.b, k.a, input_gradient(n));
      }
    }
    if (!kind.gradients) return;
#pragma omp single
    each_factorised([&](int b, int64_t i, int64_t o, int part, int64_t position) {
      float sum = 0.0f;
      for (int n = 0; n < s.B; n++) sum += weight_part(n, b)[i * P + o];
      kind.gradients[part * int64_t(s.E) * (s.C / 2) * s.C + position] = sum;
    });
  }
};

}  // namespace
