// What batch norms do to a map: sums over its pixels, and combinations of maps lane by lane.

#pragma once

#include "lanes.h"

namespace {

// Mean and sum of squared deviations of one image, per lane.
void moments(const float* z, int P, int pixels, float* mean, float* squares) {
  lines(P, [&](int v, auto V) HERE {
    vec sum[2][V] = {}, square[2][V] = {}, m[V];
    parts<2>(pixels, [&](int n, auto T) HERE {
      unrolled<T>([&](auto t) HERE {
        const float* pixel = z + int64_t(n + t) * P + v;
        unrolled<V>([&](auto l) HERE { sum[t][l] += load(pixel + l * LANES); });
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

}  // namespace
