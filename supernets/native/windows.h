// 3x3 pools of a map.

#pragma once

#include "lanes.h"

namespace {

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

// dx(pixel) += d of the windows that see it; of a maximum pool, of those whose maximum it is.
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
