// One pass of the edges that leave a state: its memory, the block layout, the channels that bypass.

#pragma once

#include <omp.h>

#include <vector>

#include "lanes.h"

namespace {

struct Layout {
  const Source& s;
  const int per_block, P, blocks, M, h, w;  // M lanes of all blocks; outputs are h x w
  const int in_pixels, out_pixels, all;  // `all` channels, those that bypass included
  bool backward;
  float *X, *DX, *Y, *T1, *T2, *T3, *T4;  // maps of all images
  float *lanes, *partial, *weight_partial, *packed;
  struct Buffers { float *a, *b, *d, *e; };  // two padded maps, two dense ones
  std::vector<Buffers> thread;
  std::vector<float> factor_parts;
  int64_t padded, weight_floats;

  static int width(int C) { return (C + LANES - 1) / LANES * LANES; }

  Layout(const Source& s, bool backward)
      : s(s), per_block(s.C < LANES ? LANES / s.C : 1), P(width(s.C)),
        blocks((s.E + per_block - 1) / per_block), M(blocks * P), h((s.H - 1) / s.stride + 1),
        w((s.W - 1) / s.stride + 1), in_pixels(s.H * s.W), out_pixels(h * w), all(s.C * s.k),
        backward(backward) {
    int pad = 0, taps = 0, halves = 1;
    int64_t matrices = 1;  // of P x P
    bool pooled = false;
    for (int i = 0; i < s.kinds; i++) {
      const Kind& kind = s.kind[i];
      pad = std::max(pad, kind.dilation * (kind.kernel - 1) / 2);
      taps = std::max(taps, kind.kernel * kind.kernel);
      halves = std::max(halves, kind.halves);
      pooled |= kind.type == MAX_POOL || kind.type == AVG_POOL;
      if (kind.type == FACTORISED) matrices = std::max<int64_t>(matrices, 2);
      if (kind.type == DENSE) matrices = std::max<int64_t>(matrices, kind.kernel * kind.kernel);
    }
    const bool weights = backward && std::any_of(s.kind, s.kind + s.kinds,
                                                 [](const Kind& k) { return k.gradients; });
    const int64_t all_in = int64_t(s.B) * in_pixels * P, all_out = int64_t(s.B) * out_pixels * M;
    const int64_t dense = int64_t(in_pixels) * P, bypass = int64_t(out_pixels) * width(s.C * s.k);
    padded = std::max({int64_t(Shape(s.H, s.W, pad).pixels()) * P, 2 * int64_t(out_pixels) * P,
                       bypass});
    weight_floats = int64_t(taps) * P + matrices * P * P;
    const int64_t packed_floats = 2 * 2 * weight_floats * blocks;
    const int64_t partials = weights ? int64_t(s.B) * blocks * weight_floats : 0;
    struct Want { float** where; int64_t floats; } wants[] = {
        {&X, all_in}, {&Y, all_out}, {&T1, all_out},
        {&DX, backward ? all_in : 0},
        {&T2, backward && (weights || pooled) ? all_out : 0},
        {&T3, backward && halves == 2 ? all_out : 0},
        {&T4, weights && halves == 2 ? all_out : 0},
        {&lanes, int64_t(LANE_ROWS) * M}, {&partial, int64_t(s.B) * 2 * M},
        {&weight_partial, partials}, {&packed, packed_floats}};
    size_t total = 2 * (arena.room(padded) + arena.room(dense)) * s.threads;
    for (auto& want : wants) total += arena.room(want.floats);
    arena.reserve(total);
    for (auto& want : wants) *want.where = arena.take(want.floats);
    for (int t = 0; t < s.threads; t++)
      thread.push_back(
          {arena.take(padded), arena.take(padded), arena.take(dense), arena.take(dense)});
    factor_parts.assign(int64_t(s.B) * s.E, 0.0f);
  }

  // Rows of M lanes each.
  enum { GATE, MEAN, RSTD, SHIFT, MEAN2, RSTD2, SHIFT2, A, B_, C_, SCALE, OFFSET, LANE_ROWS };
  float* row(int which) const { return lanes + int64_t(which) * M; }
  int edge_of(int b, int slot) const { return b * per_block + slot; }
  float* map(float* all, int n, int b) const {
    return all + (int64_t(n) * blocks + b) * out_pixels * P;
  }
  float* image(float* all, int n) const { return all + int64_t(n) * in_pixels * P; }

  Buffers buffers() const { return thread[omp_get_thread_num()]; }
  void clear(const Buffers& k) const {
    for (float* map : {k.a, k.b}) std::memset(map, 0, sizeof(float) * padded);
  }

  template <class F>
  void each_lane(F f) const {  // f(lane, edge, channel)
    for (int b = 0; b < blocks; b++)
      for (int slot = 0; slot < per_block && edge_of(b, slot) < s.E; slot++)
        for (int c = 0; c < s.C; c++) f(b * P + slot * s.C + c, edge_of(b, slot), c);
  }

  // ---- in and out of the block layout

  bool dense(const int64_t* strides, int w) const {  // whether an image lies as a block does
    return strides[1] == 1 && strides[3] == P && strides[2] == int64_t(w) * P;
  }

  void pack_input(int n) const {
    float* to = image(X, n);
    const float* from = s.x.data + n * s.x.strides[0];
    if (s.C == P && dense(s.x.strides, s.W))
      return void(std::memcpy(to, from, sizeof(float) * in_pixels * P));
    std::memset(to, 0, sizeof(float) * in_pixels * P);
    for (int y = 0; y < s.H; y++)
      for (int x = 0; x < s.W; x++, to += P) {
        const float* pixel = from + y * s.x.strides[2] + x * s.x.strides[3];
        for (int slot = 0; slot < per_block; slot++)
          for (int c = 0; c < s.C; c++) to[slot * s.C + c] = pixel[c * s.x.strides[1]];
      }
  }

  void unpack_input_gradient(int n) const {
    const float* from = image(DX, n);
    float* to = s.dx.data + n * s.dx.strides[0];
    if (s.C == P && dense(s.dx.strides, s.W))
      return void(std::memcpy(to, from, sizeof(float) * in_pixels * P));
    for (int y = 0; y < s.H; y++)
      for (int x = 0; x < s.W; x++, from += P) {
        float* pixel = to + y * s.dx.strides[2] + x * s.dx.strides[3];
        for (int c = 0; c < s.C; c++) {
          float sum = from[c];
          for (int slot = 1; slot < per_block; slot++) sum += from[slot * s.C + c];
          pixel[c * s.dx.strides[1]] = sum;
        }
      }
  }

  template <bool IN>
  void move_output(int n) const {  // the maps Y of all edges, to or from their tensors, as kept
    for (int b = 0; b < blocks; b++) {
      if (IN && per_block * s.C < P) std::memset(map(Y, n, b), 0, sizeof(float) * out_pixels * P);
      for (int slot = 0; slot < per_block; slot++) {
        const int e = edge_of(b, slot);
        float* mine = map(Y, n, b) + slot * s.C;
        const bool whole = s.C == P && s.k == 1;
        if (e >= s.E) {
          if (IN)
            for (int64_t i = 0; i < out_pixels; i++)
              std::memset(mine + i * P, 0, sizeof(float) * s.C);
          continue;
        }
        const Image& image = s.y[e];
        const float kept = s.keep ? s.keep[int64_t(n) * s.E + e] : 1.0f;
        for (int y = 0; y < h; y++)
          for (int x = 0; x < w; x++, mine += P) {
            float* theirs = image.data + n * image.strides[0] + y * image.strides[2] +
                            x * image.strides[3];
            if (whole && image.strides[1] == 1)
              for (int v = 0; v < P; v += LANES) {
                vec value;
                std::memcpy(&value, (IN ? theirs : mine) + v, sizeof value);
                value *= kept;
                std::memcpy((IN ? mine : theirs) + v, &value, sizeof value);
              }
            else if (IN)
              for (int c = 0; c < s.C; c++) mine[c] = kept * theirs[c * s.k * image.strides[1]];
            else
              for (int c = 0; c < s.C; c++) theirs[c * s.k * image.strides[1]] = kept * mine[c];
          }
      }
    }
  }

  // ---- the channels that bypass, where only C of k C are mixed

  // Where in a channel's 2x2 window (clipped) the maximum is: 0 to 3.
  int largest(const float* window, int rows, int columns) const {
    const int64_t* step = s.x.strides;
    int found = 0;
    float most = *window;
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) {
        const float value = window[i * step[2] + j * step[3]];
        if (value > most || value != value) most = value, found = 2 * i + j;
      }
    return found;
  }

  // f(place in the shuffled pixel, channel, row and column of the input) of all that bypasses an
  // output pixel: the pixel itself, or the maximum of the window of stride 2.
  template <class F>
  void each_bypassed(int n, int y, int x, F f) const {
    const int64_t* step = s.x.strides;
    const float* image = s.x.data + n * step[0] + y * s.stride * step[2] + x * s.stride * step[3];
    const int rows = std::min(2, s.H - 2 * y), columns = std::min(2, s.W - 2 * x);
    for (int g = 1; g < s.k; g++)
      for (int i = 0; i < s.C; i++) {
        const int channel = g * s.C + i;
        const int at = s.stride == 1 ? 0 : largest(image + channel * step[1], rows, columns);
        f(i * s.k + g, channel, y * s.stride + at / 2, x * s.stride + at % 2);
      }
  }

  void bypass(int n, float* to) const {  // shuffled, zero where mixed channels go: (pixels, k C)
    const int64_t* step = s.x.strides;
    const float* image = s.x.data + n * step[0];
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++, to += all) {
        for (int i = 0; i < s.C; i++) to[i * s.k] = 0.0f;
        each_bypassed(n, y, x, [&](int place, int channel, int i, int j) {
          to[place] = image[i * step[2] + j * step[3] + channel * step[1]];
        });
      }
  }

  void bypass_forward(int n) const {
    float* shuffled = buffers().a;
    bypass(n, shuffled);
    for (int e = 0; e < s.E; e++) {
      const Image& image = s.y[e];
      for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
          float* to = image.data + n * image.strides[0] + y * image.strides[2] + x * image.strides[3];
          const float* from = shuffled + (int64_t(y) * w + x) * all;
          for (int c = 0; c < all; c++) to[c * image.strides[1]] = s.factors[e] * from[c];
        }
    }
  }

  void bypass_backward(int n) {
    float *shuffled = buffers().a, *d = buffers().b;
    bypass(n, shuffled);
    std::memset(d, 0, sizeof(float) * out_pixels * all);
    for (int e = 0; e < s.E; e++) {
      const Image& image = s.y[e];
      const int64_t* step = image.strides;
      float total = 0.0f;
      for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
          const float* dy = image.data + n * step[0] + y * step[2] + x * step[3];
          const int64_t at = (int64_t(y) * w + x) * all;
          float dot = 0.0f;
          if (step[1] == 1) {
            for (int c = 0; c < all; c++) d[at + c] += s.factors[e] * dy[c];
#pragma omp simd reduction(+ : dot)
            for (int c = 0; c < all; c++) dot += shuffled[at + c] * dy[c];
          } else {
            for (int c = 0; c < all; c++) {
              d[at + c] += s.factors[e] * dy[c * step[1]];
              dot += shuffled[at + c] * dy[c * step[1]];
            }
          }
          total += dot;
        }
      factor_parts[int64_t(n) * s.E + e] = total;
    }
    const int64_t* step = s.dx.strides;
    float* to = s.dx.data + n * step[0];
    if (s.stride > 1)
      for (int y = 0; y < s.H; y++)
        for (int x = 0; x < s.W; x++)
          for (int c = s.C; c < all; c++) to[y * step[2] + x * step[3] + c * step[1]] = 0.0f;
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++)
        each_bypassed(n, y, x, [&](int place, int channel, int i, int j) {
          to[i * step[2] + j * step[3] + channel * step[1]] = d[(int64_t(y) * w + x) * all + place];
        });
  }
};

}  // namespace
