// One pass of the edges that leave a state: its memory, the block layout, the channels that bypass.

#pragma once

#include <omp.h>

#include <vector>

#include "convolutions.h"
#include "maps.h"

namespace {

struct Layout {
  const Source& s;
  const int per_block, P, blocks, M, h, w;  // M lanes of all blocks; outputs are h x w
  const int in_pixels, out_pixels, all;  // `all` channels, those that bypass included
  bool backward;
  // Maps of all images; Y, the gradients of the outputs, and T2 to T4 only in the backward pass.
  float *X, *DX, *Y, *T1, *T2, *T3, *T4;
  std::vector<float*> results;  // in the forward pass what each kind gives, before its last norm
  float *lanes, *partial, *weight_partial, *packed, *coefficients;
  struct Buffers { float *a, *b, *d, *e, *y; };  // two padded maps, two dense ones, the outputs
  std::vector<Buffers> thread;
  std::vector<float> factor_parts;
  bool x_lies, dx_lies;      // whether a tensor serves as a map, where it lies
  std::vector<bool> y_lies;  // of each edge
  int64_t padded, weight_floats;

  static int width(int C) { return (C + LANES - 1) / LANES * LANES; }
  static int edges_of_block(int C) { return C < LANES ? LANES / C : 1; }
  static int lanes_of(int C, int E) {  // of all blocks
    return (E + edges_of_block(C) - 1) / edges_of_block(C) * width(C);
  }

  Layout(const Source& s, bool backward)
      : s(s), per_block(edges_of_block(s.C)), P(width(s.C)),
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
    x_lies = lies(s.x, s.W), dx_lies = backward && lies(s.dx, s.W);
    for (int e = 0; e < s.E; e++) y_lies.push_back(!s.keep && lies(s.y[e], w));
    const int64_t all_in = int64_t(s.B) * in_pixels * P, all_out = int64_t(s.B) * out_pixels * M;
    const int64_t bypass = int64_t(out_pixels) * width(all);
    const int64_t dense = std::max(int64_t(in_pixels) * P, int64_t(all));
    const int64_t outputs = backward ? 0 : int64_t(out_pixels) * M;
    padded = std::max({int64_t(Shape(s.H, s.W, pad).pixels()) * P, 2 * int64_t(out_pixels) * P,
                       bypass});
    weight_floats = int64_t(taps) * P + matrices * P * P;
    results.resize(s.kinds);
    std::vector<Want> wants = {
        {&X, x_lies ? 0 : all_in},
        {&DX, backward && !dx_lies ? all_in : 0},
        {&Y, backward && !std::all_of(y_lies.begin(), y_lies.end(), [](bool lies) { return lies; })
                 ? all_out : 0},
        {&T1, backward ? all_out : 0},
        {&T2, backward && (weights || pooled) ? all_out : 0},
        {&T3, backward && halves == 2 ? all_out : 0},
        {&T4, weights && halves == 2 ? all_out : 0},
        {&lanes, int64_t(LANE_ROWS) * M},
        {&coefficients, int64_t(s.kinds) * 2 * M},
        {&partial, int64_t(s.B) * 2 * M},
        {&weight_partial, weights ? int64_t(s.B) * blocks * weight_floats : 0},
        {&packed, 2 * 2 * weight_floats * blocks}};
    for (int i = 0; i < s.kinds && !backward; i++)
      if (s.kind[i].kept) results[i] = kept(s.kind[i], kept_maps(s.kind[i]) - 1);
      else if (s.kind[i].type != IDENTITY)
        wants.push_back({&results[i], shared(s.kind[i]) ? int64_t(s.B) * out_pixels * P : all_out});
    thread.resize(s.threads);
    for (Buffers& mine : thread)
      for (Want want : {Want{&mine.a, padded}, {&mine.b, padded}, {&mine.d, dense},
                        {&mine.e, dense}, {&mine.y, outputs}})
        wants.push_back(want);
    take(wants);
    factor_parts.assign(int64_t(s.B) * s.E, 0.0f);
  }

  struct Want { float** where; int64_t floats; };
  static void take(const std::vector<Want>& wants) {
    size_t total = 0;
    for (const Want& want : wants) total += arena.room(want.floats);
    arena.reserve(total);
    for (const Want& want : wants) *want.where = arena.take(want.floats);
  }

  // Whether all edges have what the kind gives in common.
  static bool shared(const Kind& kind) {
    return kind.type == MAX_POOL || kind.type == AVG_POOL || kind.type == IDENTITY;
  }

  // Rows of M lanes each.
  enum { GATE, MEAN, RSTD, SHIFT, MEAN2, RSTD2, SHIFT2, A, B_, C_, LANE_ROWS };
  float* row(int which) const { return lanes + int64_t(which) * M; }
  int edge_of(int b, int slot) const { return b * per_block + slot; }
  float* map(float* all, int n, int b) const {
    return all + (int64_t(n) * blocks + b) * out_pixels * P;
  }
  // What a kind gives of all images, before its last norm.
  float* result(const Kind& kind) const {
    return backward ? kind.kept ? kind.kept : T1 : results[&kind - s.kind];
  }
  static int kept_maps(const Kind& kind) { return kind.type == DENSE ? 1 : 2 * kind.halves; }
  float* kept(const Kind& kind, int which) const {
    return kind.kept + int64_t(which) * s.B * out_pixels * M;
  }
  float* input(int n) const {
    return x_lies ? s.x.data + n * s.x.strides[0] : X + int64_t(n) * in_pixels * P;
  }
  float* input_gradient(int n) const {
    return dx_lies ? s.dx.data + n * s.dx.strides[0] : DX + int64_t(n) * in_pixels * P;
  }

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

  // Whether images of w pixels a line lie as a block does, so that no copy is needed.
  bool lies(const Image& image, int w) const {
    const int64_t* step = image.strides;
    return s.C == P && step[1] == 1 && step[3] == P && step[2] == int64_t(w) * P &&
           step[0] % LANES == 0 && reinterpret_cast<uintptr_t>(image.data) % sizeof(vec) == 0;
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
    if (x_lies) return;
    float* to = input(n);
    const float* from = s.x.data + n * s.x.strides[0];
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

  // Zero, or what lies there: the sum is the same wherever it lies.
  void begin_input_gradient(int n) const {
    if (dx_lies && s.adds_dx) return;
    float* to = input_gradient(n);
    std::memset(to, 0, sizeof(float) * in_pixels * P);
    if (!s.adds_dx) return;
    const float* from = s.dx.data + n * s.dx.strides[0];
    adjacent(s.dx, [&](auto step) HERE {
      for (int y = 0; y < s.H; y++)
        for (int x = 0; x < s.W; x++, to += P) {
          const float* pixel = from + y * s.dx.strides[2] + x * s.dx.strides[3];
          for (int c = 0; c < s.C; c++) to[c] = pixel[c * step];
        }
    });
  }

  void unpack_input_gradient(int n) const {
    if (dx_lies) return;
    float* from = input_gradient(n);
    float* to = s.dx.data + n * s.dx.strides[0];
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

  // An image's outputs of a block, or their gradients.
  float* output(int n, int b) const {
    if (y_lies[b * per_block]) return s.y[b].data + n * s.y[b].strides[0];  // one edge a block
    return backward ? map(Y, n, b) : buffers().y + int64_t(b) * out_pixels * P;
  }

  // f(edge, its channels in the map of its block)
  template <class F>
  void each_output(int n, F f) const {
    for (int e = 0; e < s.E; e++) f(e, output(n, e / per_block) + e % per_block * s.C);
  }

  void clear_unused(int n) const {  // lanes of the gradients' maps
    for (int b = 0; b < blocks; b++)
      if (per_block * s.C < P || (b + 1) * per_block > s.E)
        std::memset(output(n, b), 0, sizeof(float) * out_pixels * P);
  }

  // Whether an edge's outputs are added to what is there before the kinds' results are: the same
  // sum, in the same order, wherever they lie.
  bool begins(int e) const { return s.adds[e] && s.k == 1 && !s.keep; }
  bool begun(int b) const {
    for (int e = b * per_block; e < std::min(s.E, (b + 1) * per_block); e++)
      if (begins(e)) return true;
    return false;
  }

  void begin_outputs(int n) const {
    for (int b = 0; b < blocks; b++)
      if (begun(b) && !y_lies[b * per_block])
        std::memset(output(n, b), 0, sizeof(float) * out_pixels * P);
    each_output(n, [&](int e, float* mine) {
      if (begins(e)) move_output<true>(n, e, mine);
    });
  }

  template <bool IN>
  void move_outputs(int n) const {  // the maps Y of all edges, to or from their tensors, as kept
    if (IN) clear_unused(n);
    each_output(n, [&](int e, float* mine) { move_output<IN>(n, e, mine); });
  }

  template <bool IN>
  void move_output(int n, int e, float* mine) const {
    if (y_lies[e]) return;
    const Image& image = s.y[e];
    const float kept = s.keep ? s.keep[int64_t(n) * s.E + e] : 1.0f;
    const bool adds = !IN && s.keep && s.adds[e];
    auto move = [kept, adds](float* mine, float* theirs, int count) HERE {
      vectors(count, [=](int c, auto v) HERE {
        const auto value = kept * get<decltype(v)>((IN ? theirs : mine) + c);
        put((IN ? mine : theirs) + c, adds ? get<decltype(v)>(theirs + c) + value : value);
      });
    };
    float* theirs = image.data + n * image.strides[0];
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++, mine += P) {
        float* pixel = theirs + y * image.strides[2] + x * image.strides[3];
        if (image.strides[1] == 1)
          move(mine, pixel, s.C);
        else
          for (int c = 0; c < s.C; c++) {
            float& other = pixel[c * image.strides[1]];
            if (IN) mine[c] = kept * other;
            else other = kept * mine[c] + (adds ? other : 0.0f);
          }
      }
  }
};

}  // namespace
