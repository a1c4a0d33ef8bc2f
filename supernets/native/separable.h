// Separable convolutions: ReLU, depthwise, pointwise, batch norm, in one half or two.

#pragma once

#include "norms.h"

namespace {

struct Separable : Norms {
  using Norms::Norms;

  Shape padded_shape(const Kind& kind, bool input) const {
    const int pad = kind.dilation * (kind.kernel - 1) / 2;
    return input ? Shape(s.H, s.W, pad) : Shape(h, w, pad);
  }

  void relu_input(int n, const Shape& in, float* to) const {
    for (int y = 0; y < in.h; y++)
      for (int64_t i = 0; i < int64_t(in.w) * P; i += LANES)
        store(to + int64_t(in.at(y, 0)) * P + i,
              positive(load(input(n) + int64_t(y) * in.w * P + i)));
  }

  // The gradient of an image behind its ReLU, added to the image's.
  void add_where_positive(int n, const float* d) const {
    float *dx = input_gradient(n), *x = input(n);
    for (int64_t i = 0; i < int64_t(in_pixels) * P; i += LANES)
      store(dx + i, load(dx + i) + select(load(x + i) <= 0.0f, vec{}, load(d + i)));
  }

  // z of a half of one image and block; `in` is padded, `d` gets the depthwise result.
  void half_forward(const Kind& kind, int half, int b, const float* in, const Shape& shape,
                    float* d, float* z) const {
    depthwise_kernels(kind, half ? 1 : s.stride)
        .forward(in + int64_t(shape.at(0, 0)) * P, shape.row, kind.dilation,
                 depthwise_of(half, b, false), P, d, h, w);
    pointwise(d, P, pointwise_of(kind, half, b, false), P, z, w, 1, h, w);
  }

  // What the depthwise and the pointwise convolution of a half give of all images.
  float* depthwise_map(const Kind& kind, int half) const {
    return kind.kept ? kept(kind, 2 * half) : half ? T4 : T2;
  }
  float* pointwise_map(const Kind& kind, int half) const {
    if (kind.kept) return kept(kind, 2 * half + 1);
    return backward ? half ? T3 : T1 : result(kind);
  }

  void moments_of(int n, int b, const float* z) const {
    float* to = partial + int64_t(n) * 2 * M + b * P;
    moments(z, P, out_pixels, to, to + M);
  }

  void separable_forward(const Kind& kind) const {
    const Shape in = padded_shape(kind, true), middle = padded_shape(kind, false);
#pragma omp single
    {
      pack_weights(kind);
      load_gates(kind);
    }
    const Buffers k = buffers();
    clear(k);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      relu_input(n, in, k.a);
      for (int b = 0; b < blocks; b++) {
        float* z = map(pointwise_map(kind, 0), n, b);
        half_forward(kind, 0, b, k.a, in, kind.kept ? map(depthwise_map(kind, 0), n, b) : k.d, z);
        if (s.training) moments_of(n, b, z);
      }
    }
#pragma omp single
    kind.halves == 2 ? norm_from_moments(kind, 0) : last_norm(kind, 0);
    if (kind.halves == 2) {
      clear(k);
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++)
        for (int b = 0; b < blocks; b++) {
          float *first = map(pointwise_map(kind, 0), n, b), *z = map(pointwise_map(kind, 1), n, b);
          activate(first, row(RSTD) + b * P, row(SHIFT) + b * P, P, middle, k.a);
          half_forward(kind, 1, b, k.a, middle, kind.kept ? map(depthwise_map(kind, 1), n, b) : k.d,
                       z);
          if (s.training) moments_of(n, b, z);
        }
#pragma omp single
      last_norm(kind, 1);
    }
  }

  float* weight_part(int n, int b) const {
    return weight_partial + (int64_t(n) * blocks + b) * weight_floats;
  }

  // Adds the images' weight gradients, in order, into the tensors of the edges.
  void reduce_weights(const Kind& kind, int half) const {
    const int taps = kind.kernel * kind.kernel;
    float* dw = kind.gradients + int64_t(half) * s.E * s.C * (taps + s.C);
    float* pw = dw + int64_t(s.E) * s.C * taps;
#pragma omp for schedule(static)
    for (int b = 0; b < blocks; b++) {
      float* total = weight_part(0, b);
      const int64_t floats = int64_t(taps) * P + int64_t(P) * P;
      for (int n = 1; n < s.B; n++)
        for (int64_t i = 0; i < floats; i += LANES)
          store(total + i, load(total + i) + load(weight_part(n, b) + i));
      for (int slot = 0; slot < per_block && edge_of(b, slot) < s.E; slot++)
        for (int c = 0; c < s.C; c++) {
          const int64_t e = edge_of(b, slot), lane = slot * s.C + c;
          for (int t = 0; t < taps; t++) dw[(e * s.C + c) * taps + t] = total[t * P + lane];
          for (int i = 0; i < s.C; i++)
            pw[(e * s.C + c) * s.C + i] = total[(taps + slot * s.C + i) * int64_t(P) + lane];
        }
    }
  }

  // From dz (dense) to the gradient of a half's input `in`: dense in `out`, h' x w'. `spread` is a
  // zeroed padded map; its pixels lie `stride` apart.
  void half_backward(const Kind& kind, int half, int n, int b, const float* dz, float* d,
                     const float* in, const Shape& shape, float* spread, float* out) const {
    const int stride = half ? 1 : s.stride;
    float* origin = spread + int64_t(shape.at(0, 0)) * P;
    pointwise(dz, P, pointwise_of(kind, half, b, true), P, origin, shape.row, stride, h, w);
    depthwise_kernels(kind, 1)
        .forward(origin, shape.row, kind.dilation, depthwise_of(half, b, true), P, out, shape.h,
                 shape.w);
    if (!kind.gradients) return;
    float* part = weight_part(n, b);
    depthwise_kernels(kind, stride)
        .gradient(in + int64_t(shape.at(0, 0)) * P, shape.row, kind.dilation, origin, P, h, w,
                  part);
    pointwise_gradient(d, P, dz, P, out_pixels, part + int64_t(kind.kernel) * kind.kernel * P);
  }

  // The maps of an image and block that were not kept; k.a holds the padded input.
  void halves_again(const Kind& kind, int n, int b, const Shape& in, const Shape& middle,
                    const Buffers& k) const {
    const auto depthwise = [&](int half) {
      return kind.gradients ? map(depthwise_map(kind, half), n, b) : k.d;
    };
    float* z = map(pointwise_map(kind, 0), n, b);
    half_forward(kind, 0, b, k.a, in, depthwise(0), z);
    if (kind.halves < 2) return;
    activate(z, row(RSTD) + b * P, row(SHIFT) + b * P, P, middle, k.b);
    half_forward(kind, 1, b, k.b, middle, depthwise(1), map(pointwise_map(kind, 1), n, b));
  }

  void separable_backward(const Kind& kind) const {
    const Shape in = padded_shape(kind, true), middle = padded_shape(kind, false);
    const bool twice = kind.halves == 2, keep = kind.gradients;
#pragma omp single
    {
      pack_weights(kind);
      load_gates(kind);
      load_norm(kind, 0);
      if (twice) load_norm(kind, 1);
    }
    const Buffers k = buffers();
    clear(k);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      if (!kind.kept) relu_input(n, in, k.a);
      for (int b = 0; b < blocks; b++) {
        if (!kind.kept) halves_again(kind, n, b, in, middle, k);
        products(output(n, b), map(pointwise_map(kind, twice), n, b),
                 row(twice ? MEAN2 : MEAN) + b * P, P, out_pixels,
                 partial + (int64_t(n) * blocks + b) * 2 * P);
      }
    }
#pragma omp single
    norm_gradient(kind, twice, row(GATE));
    if (twice) {
      clear(k);
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++)
        for (int b = 0; b < blocks; b++) {
          const float* first = map(pointwise_map(kind, 0), n, b);
          combine(output(n, b), map(pointwise_map(kind, 1), n, b), row(A) + b * P, M, P, out_pixels,
                  k.d);
          activate(first, row(RSTD) + b * P, row(SHIFT) + b * P, P, middle, k.b);
          half_backward(kind, 1, n, b, k.d, keep ? map(depthwise_map(kind, 1), n, b) : nullptr, k.b,
                        middle, k.a, map(T3, n, b));
          float* d = map(T3, n, b);
          for (int y = 0; y < h; y++)
            for (int64_t i = 0; i < int64_t(w) * P; i += LANES) {
              float* at = d + int64_t(y) * w * P + i;
              const vec active = load(k.b + int64_t(middle.at(y, 0)) * P + i);
              store(at, select(active <= 0.0f, vec{}, load(at)));
            }
          products(d, first, row(MEAN) + b * P, P, out_pixels,
                   partial + (int64_t(n) * blocks + b) * 2 * P);
        }
#pragma omp single
      norm_gradient(kind, 0, nullptr);
      if (keep) reduce_weights(kind, 1);
    }
    clear(k);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      relu_input(n, in, k.b);
      for (int b = 0; b < blocks; b++) {
        combine(twice ? map(T3, n, b) : output(n, b), map(pointwise_map(kind, 0), n, b),
                row(A) + b * P, M, P, out_pixels, k.d);
        half_backward(kind, 0, n, b, k.d, keep ? map(depthwise_map(kind, 0), n, b) : nullptr, k.b,
                      in, k.a, k.e);
        add_where_positive(n, k.e);
      }
    }
    if (keep) reduce_weights(kind, 0);
  }
};

}  // namespace
