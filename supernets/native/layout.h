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
    const int64_t dense = std::max(int64_t(in_pixels) * P, int64_t(all)), bypass = int64_t(out_pixels) * width(s.C * s.k);
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

  // f(step from a channel to the next), which is a constant where they lie side by side.
  template <class F>
  static void adjacent(const Image& image, F f) {
    if (image.strides[1] == 1) f(number<1>{});
    else f(image.strides[1]);
  }

  // f(first lane) of the slots of a block.
  template <class F>
  void each_slot(F f) const {
    for (int slot = 0; slot < per_block; slot++) f(slot * s.C);
  }

  void pack_input(int n) const {
    float* to = image(X, n);
    const float* from = s.x.data + n * s.x.strides[0];
    if (s.C == P && dense(s.x.strides, s.W))
      return void(std::memcpy(to, from, sizeof(float) * in_pixels * P));
    std::memset(to, 0, sizeof(float) * in_pixels * P);
    adjacent(s.x, [&](auto step) HERE {
      for (int y = 0; y < s.H; y++)
        for (int x = 0; x < s.W; x++, to += P) {
          const float* pixel = from + y * s.x.strides[2] + x * s.x.strides[3];
          each_slot([&](int first) HERE {
#pragma omp simd
            for (int c = 0; c < s.C; c++) to[first + c] = pixel[c * step];
          });
        }
    });
  }

  void unpack_input_gradient(int n) const {
    float* from = image(DX, n);
    float* to = s.dx.data + n * s.dx.strides[0];
    if (s.C == P && dense(s.dx.strides, s.W))
      return void(std::memcpy(to, from, sizeof(float) * in_pixels * P));
    adjacent(s.dx, [&](auto step) HERE {
      for (int y = 0; y < s.H; y++)
        for (int x = 0; x < s.W; x++, from += P) {
          float* pixel = to + y * s.dx.strides[2] + x * s.dx.strides[3];
          each_slot([&](int first) HERE {
            if (first == 0) return;
#pragma omp simd
            for (int c = 0; c < s.C; c++) from[c] += from[first + c];
          });
#pragma omp simd
          for (int c = 0; c < s.C; c++) pixel[c * step] = from[c];
        }
    });
  }

  // f(edge, its channels in the map of its block): of an edge beyond the last, -1.
  template <class F>
  void each_output(int n, F f) const {
    for (int b = 0; b < blocks; b++)
      each_slot([&](int first) {
        const int e = edge_of(b, first / s.C);
        f(e < s.E ? e : -1, map(Y, n, b) + first);
      });
  }

  void clear_unused(int n) const {
    for (int b = 0; b < blocks; b++)
      if (per_block * s.C < P || (b + 1) * per_block > s.E)
        std::memset(map(Y, n, b), 0, sizeof(float) * out_pixels * P);
  }

  template <bool IN>
  void move_output(int n) const {  // the maps Y of all edges, to or from their tensors, as kept
    if (IN) clear_unused(n);
    each_output(n, [&](int e, float* mine) {
      if (e < 0) return;
      const Image& image = s.y[e];
      const float kept = s.keep ? s.keep[int64_t(n) * s.E + e] : 1.0f;
      auto move = [kept](float* mine, float* theirs, int count) HERE {
        vectors(count, [=](int c, auto v) HERE {
          put((IN ? mine : theirs) + c, kept * get<decltype(v)>((IN ? theirs : mine) + c));
        });
      };
      float* theirs = image.data + n * image.strides[0];
      if (s.C == P && dense(image.strides, w)) return move(mine, theirs, out_pixels * P);
      for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++, mine += P) {
          float* pixel = theirs + y * image.strides[2] + x * image.strides[3];
          if (image.strides[1] == 1)
            move(mine, pixel, s.C);
          else
            for (int c = 0; c < s.C; c++) {
              float& other = pixel[c * image.strides[1]];
              (IN ? mine[c] : other) = kept * (IN ? other : mine[c]);
            }
        }
    });
  }
};

}  // namespace
