// Pools and identities, which all edges have in common.

#pragma once

#include "dense.h"
#include "windows.h"

namespace {

struct Pools : Dense {
  using Dense::Dense;

  float* pooled(const Kind& kind, int n) const {
    return kind.type == IDENTITY ? input(n) : result(kind) + int64_t(n) * out_pixels * P;
  }

  void pool(const Kind& kind, int n) const {
    const Shape in(s.H, s.W, 0);
    if (kind.type == MAX_POOL)
      (backward ? max_pool<true> : max_pool<false>)(input(n), in, s.stride, P, h, w,
                                                    pooled(kind, n), where(n));
    else if (kind.type == AVG_POOL)
      average_pool(input(n), in, s.stride, P, h, w, pooled(kind, n));
  }
  int32_t* where(int n) const {
    return reinterpret_cast<int32_t*>(T2) + int64_t(n) * out_pixels * P;
  }

  void pool_gradient(const Kind& kind, int n, float* d, float* dx) const {
    const Shape in(s.H, s.W, 0);
    if (kind.type == MAX_POOL)
      return pool_backward<true>(in, s.stride, P, h, w, where(n), d, dx);
    share_out(in, s.stride, P, h, w, d);
    pool_backward<false>(in, s.stride, P, h, w, nullptr, d, dx);
  }

  void shared_forward(const Kind& kind) const {
#pragma omp single
    load_gates(kind);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      pool(kind, n);
      float* to = partial + int64_t(n) * 2 * P;
      if (s.training && kind.norm) moments(pooled(kind, n), P, out_pixels, to, to + P);
    }
#pragma omp single
    last_norm(kind, 0);
  }

  void shared_backward(const Kind& kind) const {
#pragma omp single
    {
      load_gates(kind);
      load_norm(kind, 0);
    }
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      pool(kind, n);
      for (int b = 0; b < blocks; b++)
        products(output(n, b), pooled(kind, n), row(MEAN) + b * P, P, out_pixels,
                 partial + (int64_t(n) * blocks + b) * 2 * P);
    }
#pragma omp single
    norm_gradient(kind, 0, row(GATE));
    const Buffers k = buffers();
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      for (int v = 0; v < P; v += LANES) {
        vec b = {}, c = {};
        for (int block = 0; block < blocks; block++) {
          b += load(row(B_) + block * P + v);
          c += load(row(C_) + block * P + v);
        }
        for (int64_t i = 0; i < out_pixels; i++) {
          vec d = b * load(pooled(kind, n) + i * P + v) + c;
          for (int block = 0; block < blocks; block++)
            d += load(row(A) + block * P + v) * load(output(n, block) + i * P + v);
          store(k.d + i * P + v, d);
        }
      }
      float* dx = input_gradient(n);
      if (kind.type == IDENTITY)
        for (int64_t i = 0; i < int64_t(in_pixels) * P; i += LANES)
          store(dx + i, load(dx + i) + load(k.d + i));
      else
        pool_gradient(kind, n, k.d, dx);
    }
  }
};

}  // namespace
