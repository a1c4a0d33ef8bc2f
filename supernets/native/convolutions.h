// Convolutions of a map and their weight gradients: `in` and `out` point to the pixel (0, 0).

#pragma once

#include "lanes.h"

namespace {

// Pixels of a depthwise tile: their sums, the K taps of a row and one value stay in registers. Few
// for the dilations that are rare, as each size takes time to build.
template <int D>
constexpr int TILE = D == 0 ? 2 : 8;

// f(t, j, value): the values of a row that T pixels, S apart, see through K taps, D apart; each is
// loaded once. With D = 0 the taps are `dilation` apart, and a value is loaded for each tap.
template <int K, int D, int S, int T, class F>
INLINE void seen(const float* in, int P, int dilation, F f) {
  if constexpr (D == 0) {
    unrolled<K>([&](auto j) HERE {
      unrolled<T>([&](auto t) HERE { f(t, j, load(in + int64_t(t * S + j * dilation) * P)); });
    });
  } else {
    unrolled<(T - 1) * S + (K - 1) * D + 1>([&](auto p) HERE {
      const vec value = load(in);
      in += P;
      unrolled<T>([&](auto t) HERE {
        constexpr int reach = p - t * S;
        if constexpr (reach >= 0 && reach % D == 0 && reach / D < K)
          f(t, number<reach / D>{}, value);
      });
    });
  }
}

template <int K, int D, int S>
void depthwise(const float* in, int row, int dilation, const float* weight, int P, float* out,
               int h, int w) {
  const int reach = dilation * (K - 1) / 2;
  in -= (int64_t(reach) * row + reach) * P;
  for (int y = 0; y < h; y++)
    for (int v = 0; v < P; v += LANES)
      tiles<TILE<D>>(w, [&](int x, auto T) HERE {
        const float* line = in + (int64_t(y) * row + x) * S * P + v;
        const float* tap = weight + v;
        vec sum[T] = {};
        for (int i = 0; i < K; i++, line += int64_t(dilation) * row * P) {
          vec k[K];
          unrolled<K>([&](auto j) HERE { k[j] = load(tap), tap += P; });
          seen<K, D, S, T>(line, P, dilation,
                           [&](auto t, auto j, vec value) HERE { sum[t] += value * k[j]; });
        }
        float* to = out + (int64_t(y) * w + x) * P + v;
        unrolled<T>([&](auto t) HERE { store(to, sum[t]), to += P; });
      });
}

// gradient[t] = sum over pixels of d(y, x) * in(y * S + ..); d lies as `in` does, S pixels apart.
template <int K, int D, int S>
void depthwise_gradient(const float* in, int row, int dilation, const float* d, int P, int h, int w,
                        float* gradient) {
  const int reach = dilation * (K - 1) / 2;
  in -= (int64_t(reach) * row + reach) * P;
  std::memset(gradient, 0, sizeof(float) * K * K * P);
  for (int y = 0; y < h; y++)
    for (int v = 0; v < P; v += LANES)
      parts<TILE<D>>(w, [&](int x, auto T) HERE {
        const int64_t at = (int64_t(y) * row + x) * S * P + v;
        vec g[T];
        unrolled<T>([&](auto t) HERE { g[t] = load(d + at + int64_t(t) * S * P); });
        const float* line = in + at;
        float* to = gradient + v;
        for (int i = 0; i < K; i++, line += int64_t(dilation) * row * P, to += K * P) {
          vec sum[K];
          unrolled<K>([&](auto j) HERE { sum[j] = load(to + j * P); });
          seen<K, D, S, T>(line, P, dilation,
                           [&](auto t, auto j, vec value) HERE { sum[j] += g[t] * value; });
          unrolled<K>([&](auto j) HERE { store(to + j * P, sum[j]); });
        }
      });
}

struct Depthwise {
  void (*forward)(const float*, int, int, const float*, int, float*, int, int);
  void (*gradient)(const float*, int, int, const float*, int, int, int, float*);
};

template <int K, int D, int S>
constexpr Depthwise DEPTHWISE = {depthwise<K, D, S>, depthwise_gradient<K, D, S>};

Depthwise depthwise_kernels(const Kind& kind, int stride) {
  static const Depthwise known[2][3][2] = {
      {{DEPTHWISE<3, 0, 1>, DEPTHWISE<3, 0, 2>},
       {DEPTHWISE<3, 1, 1>, DEPTHWISE<3, 1, 2>},
       {DEPTHWISE<3, 2, 1>, DEPTHWISE<3, 2, 2>}},
      {{DEPTHWISE<5, 0, 1>, DEPTHWISE<5, 0, 2>},
       {DEPTHWISE<5, 1, 1>, DEPTHWISE<5, 1, 2>},
       {DEPTHWISE<5, 2, 1>, DEPTHWISE<5, 2, 2>}}};
  return known[kind.kernel == 5][kind.dilation > 2 ? 0 : kind.dilation][stride - 1];
}

// Outputs of a product that stay in registers, T pixels by V vectors, beside one row of weights.
template <int V>
constexpr int PIXELS = (REGISTERS - V - 2) / V;

// out(t) = sum over taps and q of weight[tap][q] * in(t, tap)[q], for T pixels: `in` has Q lanes a
// pixel; the K taps of a line follow one another, and the K lines are `line` apart.
template <int K, int T, int V>
INLINE void multiply(const float* in, int64_t line, int Q, const float* weight, int P, float* out,
                     int64_t out_step) {
  vec sum[T][V] = {};
  for (int i = 0; i < K; i++, in += line) {
    const float* from = in;
    for (int q = 0; q < K * Q; q++, weight += P, from++) {
      vec k[V];
      unrolled<V>([&](auto v) HERE { k[v] = load(weight + v * LANES); });
      unrolled<T>([&](auto t) HERE {
        const float value = from[int64_t(t) * Q];
        unrolled<V>([&](auto v) HERE { sum[t][v] += k[v] * value; });
      });
    }
  }
  unrolled<T>([&](auto t) HERE {
    unrolled<V>([&](auto v) HERE { store(out + t * out_step + v * LANES, sum[t][v]); });
  });
}

// A convolution of K x K taps over all lanes: weight (K, K, Q in, P out). `in` has `row` pixels a
// line and points to the first tap; `out` has `out_row` pixels a line, `out_step` from one to the
// next.
template <int K>
void convolution(const float* in, int row, int Q, const float* weight, int P, float* out,
                 int out_row, int out_step, int h, int w) {
  if (row == w && out_row == w && out_step == 1) row = out_row = w *= h, h = 1;
  const int64_t step = int64_t(out_step) * P;
  for (int y = 0; y < h; y++) {
    const float* from = in + int64_t(y) * row * Q;
    float* to = out + int64_t(y) * out_row * step;
    auto columns = [&](int v, auto V) HERE {
      tiles<PIXELS<V>>(w, [&](int x, auto T) HERE {
        multiply<K, T, V>(from + int64_t(x) * Q, int64_t(row) * Q, Q, weight + v, P,
                          to + x * step + v, step);
      });
    };
    int v = 0;
    for (; v + 2 * LANES <= P; v += 2 * LANES) columns(v, number<2>{});
    if (v < P) columns(v, number<1>{});
  }
}

void pointwise(const float* in, int Q, const float* weight, int P, float* out, int out_row,
               int out_step, int h, int w) {
  convolution<1>(in, w, Q, weight, P, out, out_row, out_step, h, w);
}

// gradient (Q in, P out) += sum over pixels of in d^T, for h rows of w pixels.
template <int V>
INLINE void outer_products(const float* in, int row, int Q, const float* d, int d_row, int P, int w,
                           int h, float* gradient) {
  constexpr int T = REGISTERS == 16 ? 4 : std::min(LANES, 8);
  for (int q = 0; q < Q; q += T) {
    vec sum[T][V];
    unrolled<T>([&](auto t) HERE {
      float* to = gradient + int64_t(q + t) * P;
      unrolled<V>([&](auto v) HERE { sum[t][v] = load(to + v * LANES); });
    });
    for (int y = 0; y < h; y++) {
      const float *from = in + int64_t(y) * row * Q + q, *g = d + int64_t(y) * d_row * P;
      for (int x = 0; x < w; x++, from += Q, g += P) {
        vec k[V];
        unrolled<V>([&](auto v) HERE { k[v] = load(g + v * LANES); });
        unrolled<T>([&](auto t) HERE {
          unrolled<V>([&](auto v) HERE { sum[t][v] += k[v] * from[t]; });
        });
      }
    }
    unrolled<T>([&](auto t) HERE {
      float* to = gradient + int64_t(q + t) * P;
      unrolled<V>([&](auto v) HERE { store(to + v * LANES, sum[t][v]); });
    });
  }
}

void add_outer_products(const float* in, int row, int Q, const float* d, int d_row, int P, int w,
                        int h, float* gradient) {
  int v = 0;
  for (; v + 2 * LANES <= P; v += 2 * LANES)
    outer_products<2>(in, row, Q, d + v, d_row, P, w, h, gradient + v);
  if (v < P) outer_products<1>(in, row, Q, d + v, d_row, P, w, h, gradient + v);
}

void pointwise_gradient(const float* in, int Q, const float* d, int P, int pixels,
                        float* gradient) {
  std::memset(gradient, 0, sizeof(float) * P * Q);
  const int most = std::max(16, 4096 / (P + Q));  // so many stay in the first cache
  for (int first = 0; first < pixels; first += most) {
    const int n = std::min(most, pixels - first);
    add_outer_products(in + int64_t(first) * Q, n, Q, d + int64_t(first) * P, n, P, n, 1, gradient);
  }
}

}  // namespace
