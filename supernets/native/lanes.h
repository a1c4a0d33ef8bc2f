// Vectors as wide as the target's registers, memory, and the kernels of single maps.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>

#include "interface.h"

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes)
#endif

namespace {

// A vector is one register: a wider one would live in memory. `REGISTERS` bounds what a kernel
// keeps in them at once.
#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 32;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

#define INLINE inline __attribute__((always_inline))
#define HERE __attribute__((always_inline))  // of a lambda

template <int N>
using number = std::integral_constant<int, N>;

template <class F, int... I>
INLINE void each_of(F f, std::integer_sequence<int, I...>) {
  (f(number<I>{}), ...);
}

// f(0), f(1), ... f(N - 1), as constants, so that arrays indexed by them are registers.
template <int N, class F>
INLINE void unrolled(F f) {
  each_of(f, std::make_integer_sequence<int, N>{});
}

constexpr int smaller(int tile) { return tile < 6 ? 1 : tile / 2; }

// f(first, T): a row of n pixels in tiles of T, or of fewer where the row is shorter. The last tile
// may overlap the one before it.
template <int T, class F>
INLINE void tiles(int n, F f) {
  if constexpr (T > 1)
    if (n < T) return tiles<smaller(T)>(n, f);
  for (int x = 0; x < n; x += T) f(std::min(x, n - T), number<T>{});
}

// As `tiles`, each pixel once.
template <int T, class F>
INLINE void parts(int n, F f, int x = 0) {
  for (; x + T <= n; x += T) f(x, number<T>{});
  if constexpr (T > 1) parts<smaller(T)>(n, f, x);
}

// f(first lane, V): the P lanes of a pixel in steps of V vectors, a cache line where there is one.
template <class F>
INLINE void lines(int P, F f) {
  int v = 0;
  for (; v + 16 <= P; v += 16) f(v, number<16 / LANES>{});
  for (; v < P; v += LANES) f(v, number<1>{});
}

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec*>(p) = v; }
// Of any address.
template <class T>
INLINE T get(const float* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <class T>
INLINE void put(float* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

// f(first, a vec or a float): n numbers in vectors, what is left over one by one.
template <class F>
INLINE void vectors(int n, F f) {
  int c = 0;
  for (; c + LANES <= n; c += LANES) f(c, vec{});
  for (; c < n; c++) f(c, float{});
}

inline vec select(ivec mask, vec a, vec b) { return mask ? a : b; }
inline vec positive(vec v) { return select(v <= 0.0f, vec{}, v); }  // a NaN stays

// Memory that stays between calls: fresh pages would cost more than the arithmetic. An address
// sanitiser sees what is read or written beside the parts that were taken.
struct Arena {
  static constexpr size_t PAGE = size_t(2) << 20;  // a large one, where the system has them
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
      size = (bytes + PAGE - 1) / PAGE * PAGE;
      memory = static_cast<char*>(std::aligned_alloc(PAGE, size));
      if (!memory) {
        size = 0;
        throw std::bad_alloc();
      }
#ifdef MADV_HUGEPAGE
      madvise(memory, size, MADV_HUGEPAGE);
#endif
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
      unrolled<V>([&](auto v) HERE { sum[t][v] = load(gradient + int64_t(q + t) * P + v * LANES); });
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
      unrolled<V>([&](auto v) HERE { store(gradient + int64_t(q + t) * P + v * LANES, sum[t][v]); });
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

// Mean and sum of squared deviations of one image, per lane.
void moments(const float* z, int P, int pixels, float* mean, float* squares) {
  lines(P, [&](int v, auto V) HERE {
    vec sum[2][V] = {}, square[2][V] = {}, m[V];
    parts<2>(pixels, [&](int n, auto T) HERE {
      unrolled<T>([&](auto t) HERE {
        unrolled<V>([&](auto l) HERE { sum[t][l] += load(z + int64_t(n + t) * P + v + l * LANES); });
      });
    });
    unrolled<V>([&](auto l) HERE { m[l] = (sum[0][l] + sum[1][l]) / float(pixels); });
    parts<2>(pixels, [&](int n, auto T) HERE {
      unrolled<T>([&](auto t) HERE {
        unrolled<V>([&](auto l) HERE {
          const vec d = load(z + int64_t(n + t) * P + v + l * LANES) - m[l];
          square[t][l] += d * d;
        });
      });
    });
    unrolled<V>([&](auto l) HERE {
      store(mean + v + l * LANES, m[l]);
      store(squares + v + l * LANES, square[0][l] + square[1][l]);
    });
  });
}

// Sums of d and of d * (z - mean), per lane.
void products(const float* d, const float* z, const float* mean, int P, int pixels, float* sums) {
  lines(P, [&](int v, auto V) HERE {
    vec m[V], a[2][V] = {}, b[2][V] = {};
    unrolled<V>([&](auto l) HERE { m[l] = load(mean + v + l * LANES); });
    parts<2>(pixels, [&](int n, auto T) HERE {
      unrolled<T>([&](auto t) HERE {
        unrolled<V>([&](auto l) HERE {
          const int64_t at = int64_t(n + t) * P + v + l * LANES;
          const vec g = load(d + at);
          a[t][l] += g;
          b[t][l] += g * (load(z + at) - m[l]);
        });
      });
    });
    unrolled<V>([&](auto l) HERE {
      store(sums + v + l * LANES, a[0][l] + a[1][l]);
      store(sums + P + v + l * LANES, b[0][l] + b[1][l]);
    });
  });
}

// out = a * d + b * z + c, per lane.
void combine(const float* d, const float* z, const float* abc, int64_t M, int P, int pixels,
             float* out) {
  lines(P, [&](int v, auto V) HERE {
    vec a[V], b[V], c[V];
    unrolled<V>([&](auto l) HERE {
      const float* lane = abc + v + l * LANES;
      a[l] = load(lane), b[l] = load(lane + M), c[l] = load(lane + 2 * M);
    });
    for (int64_t n = 0; n < pixels; n++)
      unrolled<V>([&](auto l) HERE {
        const int64_t at = n * P + v + l * LANES;
        store(out + at, a[l] * load(d + at) + b[l] * load(z + at) + c[l]);
      });
  });
}

// out += scale * z + shift, per lane.
void add_normalised(const float* z, const float* scale, const float* shift, int P, int pixels,
                    float* out) {
  lines(P, [&](int v, auto V) HERE {
    vec a[V], b[V];
    unrolled<V>([&](auto l) HERE {
      a[l] = load(scale + v + l * LANES), b[l] = load(shift + v + l * LANES);
    });
    for (int64_t n = 0; n < pixels; n++)
      unrolled<V>([&](auto l) HERE {
        const int64_t at = n * P + v + l * LANES;
        store(out + at, load(out + at) + (a[l] * load(z + at) + b[l]));
      });
  });
}

// relu(scale * z + shift) into a padded map.
void activate(const float* z, const float* scale, const float* shift, int P, const Shape& s,
              float* out) {
  for (int y = 0; y < s.h; y++)
    lines(P, [&](int v, auto V) HERE {
      vec a[V], b[V];
      unrolled<V>([&](auto l) HERE {
        a[l] = load(scale + v + l * LANES), b[l] = load(shift + v + l * LANES);
      });
      const float* from = z + int64_t(y) * s.w * P + v;
      float* to = out + int64_t(s.at(y, 0)) * P + v;
      for (int64_t x = 0; x < s.w; x++)
        unrolled<V>([&](auto l) HERE {
          const int64_t at = x * P + l * LANES;
          store(to + at, positive(a[l] * load(from + at) + b[l]));
        });
    });
}

// Rows, or columns: those that a window of a 3x3 pool sees, clipped at the border, and the windows
// that see a given one.
struct Range {
  int first, size;
};
Range seen_by(int window, int stride, int all) {
  const int first = std::max(window * stride - 1, 0);
  return {first, std::min(window * stride + 2, all) - first};
}
Range seers_of(int at, int stride, int windows) {
  const int first = (std::max(at - 1, 0) + stride - 1) / stride;
  return {first, std::min((at + 1) / stride, windows - 1) - first + 1};
}

// 1 / (the pixels of a window)
constexpr float SHARE[] = {0, 1, 1 / 2.0f, 1 / 3.0f, 1 / 4.0f, 0, 1 / 6.0f, 0, 0, 1 / 9.0f};

// f(row, column); 3x3 are unrolled.
template <class F>
INLINE void each_pixel(const Range& rows, const Range& columns, F f) {
  if (rows.size == 3 && columns.size == 3) {
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++)
#pragma GCC unroll 3
      for (int j = 0; j < 3; j++) f(rows.first + i, columns.first + j);
  } else {
    for (int i = 0; i < rows.size; i++)
      for (int j = 0; j < columns.size; j++) f(rows.first + i, columns.first + j);
  }
}

// z is h x w; `where` gets the pixel of the first maximum, if that is wanted.
template <bool WANTED>
void max_pool(const float* x, const Shape& in, int stride, int P, int h, int w, float* z,
              int32_t* where) {
  for (int oy = 0; oy < h; oy++)
    for (int ox = 0; ox < w; ox++) {
      const Range rows = seen_by(oy, stride, in.h), columns = seen_by(ox, stride, in.w);
      const int64_t to = (int64_t(oy) * w + ox) * P;
      lines(P, [&](int v, auto V) HERE {
        vec found[V];
        ivec first[V];
        const int start = rows.first * in.w + columns.first;
        unrolled<V>([&](auto l) HERE {
          found[l] = load(x + int64_t(start) * P + v + l * LANES), first[l] = ivec{} + start;
        });
        each_pixel(rows, columns, [&](int i, int j) HERE {
          const int pixel = i * in.w + j;
          unrolled<V>([&](auto l) HERE {
            const vec value = load(x + int64_t(pixel) * P + v + l * LANES);
            const ivec larger = (value > found[l]) | (value != value);
            found[l] = select(larger, value, found[l]);
            if constexpr (WANTED) first[l] = larger ? ivec{} + pixel : first[l];
          });
        });
        unrolled<V>([&](auto l) HERE {
          store(z + to + v + l * LANES, found[l]);
          if constexpr (WANTED) *reinterpret_cast<ivec*>(where + to + v + l * LANES) = first[l];
        });
      });
    }
}

void average_pool(const float* x, const Shape& in, int stride, int P, int h, int w, float* z) {
  for (int oy = 0; oy < h; oy++)
    for (int ox = 0; ox < w; ox++) {
      const Range rows = seen_by(oy, stride, in.h), columns = seen_by(ox, stride, in.w);
      const float share = SHARE[rows.size * columns.size];
      lines(P, [&](int v, auto V) HERE {
        vec sum[V] = {};
        each_pixel(rows, columns, [&](int i, int j) HERE {
          const float* from = x + (int64_t(i) * in.w + j) * P + v;
          unrolled<V>([&](auto l) HERE { sum[l] += load(from + l * LANES); });
        });
        float* to = z + (int64_t(oy) * w + ox) * P + v;
        unrolled<V>([&](auto l) HERE { store(to + l * LANES, sum[l] * share); });
      });
    }
}

// d(window) *= its share of each pixel
void share_out(const Shape& in, int stride, int P, int h, int w, float* d) {
  for (int oy = 0; oy < h; oy++)
    for (int ox = 0; ox < w; ox++) {
      const float share = SHARE[seen_by(oy, stride, in.h).size * seen_by(ox, stride, in.w).size];
      for (int v = 0; v < P; v += LANES, d += LANES) store(d, load(d) * share);
    }
}

// dx(pixel) += d of the windows that see it; where there is a `where`, of those whose maximum it is.
template <bool MAXIMUM>
void pool_backward(const Shape& in, int stride, int P, int h, int w, const int32_t* where,
                   const float* d, float* dx) {
  for (int y = 0; y < in.h; y++)
    for (int x = 0; x < in.w; x++) {
      const Range rows = seers_of(y, stride, h), columns = seers_of(x, stride, w);
      const int pixel = y * in.w + x;
      lines(P, [&](int v, auto V) HERE {
        float* to = dx + int64_t(pixel) * P + v;
        vec sum[V];
        unrolled<V>([&](auto l) HERE { sum[l] = load(to + l * LANES); });
        each_pixel(rows, columns, [&](int i, int j) HERE {
          const int64_t at = (int64_t(i) * w + j) * P + v;
          unrolled<V>([&](auto l) HERE {
            const vec value = load(d + at + l * LANES);
            if constexpr (MAXIMUM) {
              const ivec first = *reinterpret_cast<const ivec*>(where + at + l * LANES);
              sum[l] += select(first == pixel, value, vec{});
            } else {
              sum[l] += value;
            }
          });
        });
        unrolled<V>([&](auto l) HERE { store(to + l * LANES, sum[l]); });
      });
    }
}

}  // namespace
