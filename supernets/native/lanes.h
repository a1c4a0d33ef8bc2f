// Vectors of 16 lanes, memory, and the kernels of single maps.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "interface.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes)
#endif

namespace {

constexpr int LANES = 16;
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec*>(p) = v; }
inline vec select(ivec mask, vec a, vec b) { return mask ? a : b; }
inline vec positive(vec v) { return select(v <= 0.0f, vec{}, v); }  // a NaN stays

// Memory that stays between calls: fresh pages would cost more than the arithmetic. An address
// sanitiser sees what is read or written beside the parts that were taken.
struct Arena {
  char* memory = nullptr;
  size_t size = 0, used = 0;
  std::mutex busy;

  static size_t room(int64_t floats) {  // bytes of a part and a gap, so that the next is aligned
    return (size_t(floats) * sizeof(float) + 2 * 64 + 63) / 64 * 64;
  }

  void reserve(size_t bytes) {
    used = 0;
    if (bytes > size) {
      std::free(memory);
      size = (bytes + 4095) / 4096 * 4096;
      memory = static_cast<char*>(std::aligned_alloc(4096, size));
      if (!memory) {
        size = 0;
        throw std::bad_alloc();
      }
    }
    ASAN_POISON_MEMORY_REGION(memory, size);
  }

  float* take(int64_t floats) {  // of what is reserved, where `room` was counted for each part
    float* part = reinterpret_cast<float*>(memory + used);
    used += room(floats);
    ASAN_UNPOISON_MEMORY_REGION(part, size_t(floats) * sizeof(float));
    return part;
  }
};
Arena arena;

struct Shape {
  int h, w, pad, row;  // `row` pixels from one line to the next
  Shape(int h, int w, int pad) : h(h), w(w), pad(pad), row(w + 2 * pad) {}
  int pixels() const { return (h + 2 * pad) * row; }
  int at(int y, int x) const { return (y + pad) * row + x + pad; }
};

// ---- elementary kernels: `in` and `out` point to the pixel (0, 0) ----------------------------

template <int K>
void depthwise(const float* in, int row, int dilation, int stride, const float* weight, int P,
               float* out, int h, int w) {
  const int reach = dilation * (K - 1) / 2;
  in -= (int64_t(reach) * row + reach) * P;
  for (int v = 0; v < P; v += LANES) {
    vec k[K * K];
    for (int t = 0; t < K * K; t++) k[t] = load(weight + t * P + v);
    for (int y = 0; y < h; y++) {
      const float* line = in + int64_t(y) * stride * row * P + v;
      float* to = out + int64_t(y) * w * P + v;
      for (int x = 0; x < w; x++) {
        const float* pixel = line + int64_t(x) * stride * P;
        vec sum = {}, second = {};
#pragma GCC unroll 5
        for (int i = 0; i < K; i++)
#pragma GCC unroll 5
          for (int j = 0; j < K; j++) {
            vec value = load(pixel + (int64_t(i) * row + j) * dilation * P);
            if ((i * K + j) % 2) second += value * k[i * K + j];
            else sum += value * k[i * K + j];
          }
        store(to + int64_t(x) * P, sum + second);
      }
    }
  }
}

// gradient[t] = sum over pixels of d(y, x) * in(y * stride + ..): d lies at steps of `step` pixels.
template <int K>
void depthwise_gradient(const float* in, int row, int dilation, int stride, const float* d,
                        int d_row, int d_step, int P, int h, int w, float* gradient) {
  const int reach = dilation * (K - 1) / 2;
  in -= (int64_t(reach) * row + reach) * P;
  for (int v = 0; v < P; v += LANES) {
    vec sum[K * K];
    for (int t = 0; t < K * K; t++) sum[t] = vec{};
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++) {
        vec g = load(d + (int64_t(y) * d_row + x) * d_step * P + v);
        const float* pixel = in + (int64_t(y) * row + x) * stride * P + v;
#pragma GCC unroll 5
        for (int i = 0; i < K; i++)
#pragma GCC unroll 5
          for (int j = 0; j < K; j++)
            sum[i * K + j] += g * load(pixel + (int64_t(i) * row + j) * dilation * P);
      }
    for (int t = 0; t < K * K; t++) store(gradient + t * P + v, sum[t]);
  }
}

template <int T, int V>
inline void multiply(const float* in, int Q, const float* weight, int P, float* out,
                     int64_t out_step) {
  vec sum[T][V];
  for (int t = 0; t < T; t++)
    for (int v = 0; v < V; v++) sum[t][v] = vec{};
  for (int i = 0; i < Q; i++) {
    vec k[V];
    for (int v = 0; v < V; v++) k[v] = load(weight + int64_t(i) * P + v * LANES);
#pragma GCC unroll 12
    for (int t = 0; t < T; t++)
      for (int v = 0; v < V; v++) sum[t][v] += k[v] * in[int64_t(t) * Q + i];
  }
  for (int t = 0; t < T; t++)
    for (int v = 0; v < V; v++) store(out + t * out_step + v * LANES, sum[t][v]);
}

// out(pixel) = weight^T in(pixel), weight (Q in, P out), for pixels in a row.
template <int T, int V>
inline void multiply_row(const float* in, int Q, const float* weight, int P, float* out,
                         int64_t out_step, int n) {
  int x = 0;
  for (; x + T <= n; x += T)
    multiply<T, V>(in + int64_t(x) * Q, Q, weight, P, out + x * out_step, out_step);
  for (; x < n; x++)
    multiply<1, V>(in + int64_t(x) * Q, Q, weight, P, out + x * out_step, out_step);
}

// `in` is dense; `out` has `out_row` pixels a line, and `out_step` from one to the next.
void pointwise(const float* in, int Q, const float* weight, int P, float* out, int out_row,
               int out_step, int h, int w) {
  if (out_row == w && out_step == 1) w *= h, h = 1;
  for (int y = 0; y < h; y++) {
    const float* from = in + int64_t(y) * w * Q;
    float* to = out + int64_t(y) * out_row * out_step * P;
    int v = 0;
    for (; v + 2 * LANES <= P; v += 2 * LANES)
      multiply_row<8, 2>(from, Q, weight + v, P, to + v, int64_t(out_step) * P, w);
    if (v < P) multiply_row<12, 1>(from, Q, weight + v, P, to + v, int64_t(out_step) * P, w);
  }
}

// gradient (Q in, P out) = sum over pixels of in d^T.
void pointwise_gradient(const float* in, int Q, const float* d, int P, int pixels,
                        float* gradient) {
  for (int v = 0; v < P; v += LANES)
    for (int i = 0; i < Q; i += LANES) {
      vec sum[LANES];
      for (int t = 0; t < LANES; t++) sum[t] = vec{};
      for (int64_t n = 0; n < pixels; n++) {
        vec g = load(d + n * P + v);
        const float* value = in + n * Q + i;
#pragma GCC unroll 16
        for (int t = 0; t < LANES; t++) sum[t] += g * value[t];
      }
      for (int t = 0; t < LANES; t++) store(gradient + (int64_t(i) + t) * P + v, sum[t]);
    }
}

// Mean and sum of squared deviations of one image, per lane.
void moments(const float* z, int P, int pixels, float* mean, float* squares) {
  for (int v = 0; v < P; v += LANES) {
    vec sum[4] = {}, square[4] = {};
    int n = 0;
    for (; n + 4 <= pixels; n += 4)
      for (int t = 0; t < 4; t++) sum[t] += load(z + int64_t(n + t) * P + v);
    for (; n < pixels; n++) sum[0] += load(z + int64_t(n) * P + v);
    vec m = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / float(pixels);
    for (n = 0; n + 4 <= pixels; n += 4)
      for (int t = 0; t < 4; t++) {
        vec d = load(z + int64_t(n + t) * P + v) - m;
        square[t] += d * d;
      }
    for (; n < pixels; n++) {
      vec d = load(z + int64_t(n) * P + v) - m;
      square[0] += d * d;
    }
    store(mean + v, m);
    store(squares + v, (square[0] + square[1]) + (square[2] + square[3]));
  }
}

// Sums of d and of d * (z - mean), per lane.
void products(const float* d, const float* z, const float* mean, int P, int pixels, float* sums) {
  for (int v = 0; v < P; v += LANES) {
    vec m = load(mean + v), a[2] = {}, b[2] = {};
    int n = 0;
    for (; n + 2 <= pixels; n += 2)
      for (int t = 0; t < 2; t++) {
        vec g = load(d + int64_t(n + t) * P + v);
        a[t] += g;
        b[t] += g * (load(z + int64_t(n + t) * P + v) - m);
      }
    for (; n < pixels; n++) {
      vec g = load(d + int64_t(n) * P + v);
      a[0] += g;
      b[0] += g * (load(z + int64_t(n) * P + v) - m);
    }
    store(sums + v, a[0] + a[1]);
    store(sums + P + v, b[0] + b[1]);
  }
}

// out = a * d + b * z + c, per lane.
void combine(const float* d, const float* z, const float* abc, int64_t M, int P, int pixels,
             float* out) {
  for (int v = 0; v < P; v += LANES) {
    vec a = load(abc + v), b = load(abc + M + v), c = load(abc + 2 * M + v);
    for (int64_t n = 0; n < pixels; n++)
      store(out + n * P + v, a * load(d + n * P + v) + b * load(z + n * P + v) + c);
  }
}

// relu(scale * z + shift) into a padded map.
void activate(const float* z, const float* scale, const float* shift, int P, const Shape& s,
              float* out) {
  for (int y = 0; y < s.h; y++)
    for (int v = 0; v < P; v += LANES) {
      vec a = load(scale + v), b = load(shift + v);
      const float* from = z + int64_t(y) * s.w * P + v;
      float* to = out + int64_t(s.at(y, 0)) * P + v;
      for (int64_t x = 0; x < s.w; x++) store(to + x * P, positive(a * load(from + x * P) + b));
    }
}

// 3x3 windows, clipped at the border; `where` gets the pixel of the first maximum, if not null.
void pool_forward(const Kind& kind, const float* x, const Shape& in, int stride, int P, int h,
                  int w, float* z, int32_t* where) {
  for (int oy = 0; oy < h; oy++)
    for (int ox = 0; ox < w; ox++) {
      int top = std::max(oy * stride - 1, 0), bottom = std::min(oy * stride + 2, in.h);
      int left = std::max(ox * stride - 1, 0), right = std::min(ox * stride + 2, in.w);
      float share = 1.0f / float((bottom - top) * (right - left));
      for (int v = 0; v < P; v += LANES) {
        vec found = load(x + (int64_t(top) * in.w + left) * P + v), sum = {};
        ivec first = ivec{} + (top * in.w + left);
        for (int i = top; i < bottom; i++)
          for (int j = left; j < right; j++) {
            vec value = load(x + (int64_t(i) * in.w + j) * P + v);
            const ivec larger = (value > found) | (value != value);
            found = select(larger, value, found);
            first = larger ? ivec{} + (i * in.w + j) : first;
            sum += value;
          }
        const int64_t at = (int64_t(oy) * w + ox) * P + v;
        store(z + at, kind.type == MAX_POOL ? found : sum * share);
        if (where) *reinterpret_cast<ivec*>(where + at) = first;
      }
    }
}

// dx(pixel) += what the windows that hold the pixel pass on of d.
void pool_backward(const Kind& kind, const Shape& in, int stride, int P, int h, int w,
                   const int32_t* where, const float* d, float* dx) {
  for (int y = 0; y < in.h; y++)
    for (int x = 0; x < in.w; x++) {
      const int top = (std::max(y - 1, 0) + stride - 1) / stride, bottom = (y + 1) / stride;
      const int left = (std::max(x - 1, 0) + stride - 1) / stride, right = (x + 1) / stride;
      for (int v = 0; v < P; v += LANES) {
        float* to = dx + (int64_t(y) * in.w + x) * P + v;
        vec sum = load(to);
        for (int i = top; i <= std::min(bottom, h - 1); i++)
          for (int j = left; j <= std::min(right, w - 1); j++) {
            const int64_t at = (int64_t(i) * w + j) * P + v;
            if (kind.type == MAX_POOL) {
              const ivec first = *reinterpret_cast<const ivec*>(where + at);
              sum += select(first == y * in.w + x, load(d + at), vec{});
            } else {
              const int rows = std::min(i * stride + 2, in.h) - std::max(i * stride - 1, 0);
              const int columns = std::min(j * stride + 2, in.w) - std::max(j * stride - 1, 0);
              sum += load(d + at) * (1.0f / float(rows * columns));
            }
          }
        store(to, sum);
      }
    }
}

}  // namespace
