// Partial channels: C of k C are mixed, the others bypass, and all are shuffled.

#pragma once

#include "layout.h"

namespace {

struct Bypass : Layout {
  std::vector<int> channels, places;  // those that bypass, and where the shuffle puts them

  Bypass(const Source& s, bool backward) : Layout(s, backward) {
    for (int channel = s.C; channel < all; channel++) {
      channels.push_back(channel);
      places.push_back(channel % s.C * s.k + channel / s.C);
    }
  }

  // The largest value of every channel in the 2x2 window (clipped) of an output pixel, and where in
  // it that is: 0 to 3.
  void largest(int n, int y, int x, float* most, int32_t* where) const {
    const int64_t* step = s.x.strides;
    const float* window = s.x.data + n * step[0] + 2 * y * step[2] + 2 * x * step[3];
    for (int c = 0; c < all; c++) most[c] = window[c * step[1]], where[c] = 0;
    for (int at = 1; at < 4; at++) {
      if (2 * y + at / 2 >= s.H || 2 * x + at % 2 >= s.W) continue;
      const float* pixel = window + at / 2 * step[2] + at % 2 * step[3];
      if (step[1] == 1) larger<1>(pixel, 1, at, most, where);
      else larger<0>(pixel, step[1], at, most, where);
    }
  }
  template <int ONE>
  void larger(const float* pixel, int64_t step, int at, float* most, int32_t* where) const {
    if (ONE) step = ONE;
#pragma omp simd
    for (int c = 0; c < all; c++) {
      const float value = pixel[c * step];
      const bool larger = value > most[c] || value != value;
      most[c] = larger ? value : most[c];
      where[c] = larger ? at : where[c];
    }
  }

  // f(place in the shuffled pixel, value, its offset from the first in `like`, an image of the
  // input's size) of all that bypasses an output pixel: a pixel, or the maximum of a 2x2 window.
  template <class F>
  INLINE void each_bypassed(int n, int y, int x, const Image& like, F f) const {
    const int64_t* other = like.strides;
    const int64_t base = n * other[0] + y * s.stride * other[2] + x * s.stride * other[3];
    const int *channel = channels.data(), *place = places.data();
    const int count = int(channels.size());
    if (s.stride == 1) {
      const float* pixel = s.x.data + n * s.x.strides[0] + y * s.x.strides[2] + x * s.x.strides[3];
      for (int i = 0; i < count; i++)
        f(place[i], pixel[channel[i] * s.x.strides[1]], base + channel[i] * other[1]);
      return;
    }
    float* most = buffers().d;
    int32_t* where = reinterpret_cast<int32_t*>(buffers().e);
    largest(n, y, x, most, where);
    const int64_t offsets[] = {0, other[3], other[2], other[2] + other[3]};
    for (int i = 0; i < count; i++)
      f(place[i], most[channel[i]], base + channel[i] * other[1] + offsets[where[channel[i]]]);
  }

  void shuffle(int n, float* to) const {  // zero where mixed channels go: (pixels, k C)
    std::memset(to, 0, sizeof(float) * out_pixels * all);
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++, to += all)
        each_bypassed(n, y, x, s.x, [=](int place, float value, int64_t) HERE {
          to[place] = value;
        });
  }

  // f(the pixel in an edge's tensor, the step of its channels, its place among the pixels)
  template <class F>
  void each_pixel_of(int n, int e, F f) const {
    const Image& image = s.y[e];
    float* first = image.data + n * image.strides[0];
    adjacent(image, [&](auto step) HERE {
      for (int y = 0, i = 0; y < h; y++)
        for (int x = 0; x < w; x++, i++)
          f(first + y * image.strides[2] + x * image.strides[3], step, i);
    });
  }

  // Mixed channels from the maps Y, and beside them what bypasses times the factor.
  void give_outputs(int n) const {
    float* shuffled = buffers().a;
    shuffle(n, shuffled);
    each_output(n, [&](int e, const float* mine) {
      const float factor = s.factors[e];
      const bool adds = s.adds[e];
      each_pixel_of(n, e, [&](float* to, auto step, int i) HERE {
        const float *from = shuffled + int64_t(i) * all, *mixed = mine + int64_t(i) * P;
        if constexpr (std::is_same_v<decltype(step), number<1>>)
          vectors(all, [&](int c, auto v) HERE {
            const auto value = factor * get<decltype(v)>(from + c);
            put(to + c, adds ? get<decltype(v)>(to + c) + value : value);
          });
        else
          for (int c = 0; c < all; c++)
            to[c * step] = factor * from[c] + (adds ? to[c * step] : 0.0f);
        for (int c = 0; c < s.C; c++) to[c * s.k * step] += mixed[c];
      });
    });
  }

  // Gradients of the mixed channels into the maps Y; those of what bypasses, and of the factors.
  void take_gradients(int n) {
    float *shuffled = buffers().a, *d = buffers().b;
    shuffle(n, shuffled);
    clear_unused(n);
    std::memset(d, 0, sizeof(float) * out_pixels * all);
    each_output(n, [&](int e, float* mine) {
      const int channels = s.C, k = s.k, lanes = P;
      each_pixel_of(n, e, [=](const float* dy, auto step, int i) HERE {
        for (int c = 0; c < channels; c++) mine[int64_t(i) * lanes + c] = dy[c * k * step];
      });
      float& part = factor_parts[int64_t(n) * s.E + e];
      part = 0.0f;
      if (s.y[e].strides[1] == 1)
        vectors(all, [&](int c, auto v) HERE { part += bypass_gradient(n, e, c, v, shuffled, d); });
      else
        for (int c = 0; c < all; c++) part += bypass_gradient(n, e, c, float{}, shuffled, d);
    });
    pass_on(n, d);
  }

  static float sum_of(float v) { return v; }
  static float sum_of(vec v) {
    float sum = 0.0f;
    for (int l = 0; l < LANES; l++) sum += v[l];
    return sum;
  }

  // d += factor * dy for the channels from c on, a vector of them or one; the sum of dy * shuffled.
  template <class T>
  float bypass_gradient(int n, int e, int c, T, const float* shuffled, float* d) const {
    const Image& image = s.y[e];
    const float* row = image.data + n * image.strides[0] + c * image.strides[1];
    const float* from = shuffled + c;
    const int64_t line = image.strides[2], step = image.strides[3];
    const float factor = s.factors[e];
    const int height = h, width = w, lanes = all;
    T sum{};
    d += c;
    for (int y = 0; y < height; y++, row += line)
      for (int x = 0; x < width; x++, from += lanes, d += lanes) {
        const T g = get<T>(row + x * step);
        put(d, get<T>(d) + factor * g);
        sum += g * get<T>(from);
      }
    return sum_of(sum);
  }

  void pass_on(int n, const float* d) const {  // to the input's gradient
    const int64_t* step = s.dx.strides;
    float* to = s.dx.data;
    const bool adds = s.adds_dx;
    if (s.stride > 1 && !adds)
      for (int y = 0; y < s.H; y++)
        for (int x = 0; x < s.W; x++)
          for (int c = s.C; c < all; c++)
            s.dx.data[n * step[0] + y * step[2] + x * step[3] + c * step[1]] = 0.0f;
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++, d += all)
        each_bypassed(n, y, x, s.dx, [=](int place, float, int64_t at) HERE {
          to[at] = d[place] + (adds ? to[at] : 0.0f);
        });
  }
};

}  // namespace
