// ReLU, 1x1 convolution and batch norm; a factorised reduction has two, on shifted pixels.

#pragma once

#include <omp.h>

#include <vector>

#include "convolutions.h"
#include "maps.h"

namespace {

struct Projector {
  const Projection& s;
  const int h, w, pixels, P, inner, Q;  // Q lanes in, P lanes out
  const int rows;  // of outputs that are computed together, so that they stay in the first cache
  bool backward;
  float *z, *lanes, *partial, *weight, *turned, *weight_partial;
  struct Buffers { float *a, *b, *d; };  // `rows` of two gathered maps, a map of the outputs
  std::vector<Buffers> thread;

  static int width(int C) { return (C + LANES - 1) / LANES * LANES; }

  Projector(const Projection& s, bool backward)
      : s(s), h((s.H - 1) / s.stride + 1), w((s.W - 1) / s.stride + 1), pixels(h * w),
        P(width(s.C)), inner(width(s.inputs)), Q(inner * s.parts),
        rows(std::min(h, std::max(1, 4096 / (w * Q)))), backward(backward) {
    const int64_t wide = int64_t(rows) * w * Q, narrow = int64_t(pixels) * P;
    const int64_t all = int64_t(s.B) * pixels * P, matrix = int64_t(P) * Q;
    struct Want { float** where; int64_t floats; } wants[] = {
        {&z, s.kept ? 0 : all}, {&lanes, int64_t(ROWS) * P}, {&partial, int64_t(s.B) * 2 * P},
        {&weight, matrix}, {&turned, matrix},
        {&weight_partial, backward && s.gradients ? s.B * matrix : 0}};
    size_t total = (2 * arena.room(wide) + arena.room(narrow)) * s.threads;
    for (auto& want : wants) total += arena.room(want.floats);
    arena.reserve(total);
    for (auto& want : wants) *want.where = arena.take(want.floats);
    if (s.kept) z = s.kept;
    for (int t = 0; t < s.threads; t++)
      thread.push_back({arena.take(wide), arena.take(wide), arena.take(narrow)});
  }

  enum { MEAN, A, B_, C_, ROWS };
  float* row(int which) const { return lanes + int64_t(which) * P; }
  int outputs(int part) const { return s.parts == 1 ? s.C : part ? s.C - s.C / 2 : s.C / 2; }
  float* map(int n) const { return z + int64_t(n) * pixels * P; }
  int64_t at(int y) const { return int64_t(y) * w * P; }  // row y of a map of the outputs

  template <class F>
  void each_weight(F f) const {  // f(input lane, output lane, position in the tensors)
    int64_t position = 0;
    for (int part = 0, first = 0; part < s.parts; first += outputs(part++))
      for (int o = 0; o < outputs(part); o++)
        for (int i = 0; i < s.inputs; i++)
          f(part * inner + i, first + o, position++);
  }

  void pack_weights() const {
    std::memset(weight, 0, sizeof(float) * P * Q);
    std::memset(turned, 0, sizeof(float) * P * Q);
    each_weight([&](int i, int o, int64_t position) {
      const int64_t first = int64_t(outputs(0)) * s.inputs;
      const float value =
          position < first ? s.weights[0][position] : s.weights[1][position - first];
      weight[int64_t(i) * P + o] = turned[int64_t(o) * Q + i] = value;
    });
  }

  // f(pixel, channel, its place) of `pixels` in a row and C channels.
  // Channels that lie apart are taken one after the other: a pixel's would share a cache set.
  template <class F>
  static void each_value(const int64_t* step, int64_t pixel_step, int pixels, int C, F f) {
    if (step[1] == 1)
      for (int x = 0; x < pixels; x++)
#pragma omp simd
        for (int c = 0; c < C; c++) f(x, c, x * pixel_step + c);
    else
      for (int c = 0; c < C; c++)
        for (int x = 0; x < pixels; x++) f(x, c, x * pixel_step + c * step[1]);
  }

  // The pixels of a row that a part sees; those at the border may have no pixel.
  int seen(int part, int y) const {
    return y * s.stride + part < s.H ? std::min(w, (s.W - part + s.stride - 1) / s.stride) : 0;
  }

  // f(first, last): the rows of an image in blocks.
  template <class F>
  void blocks(F f) const {
    for (int y = 0; y < h; y += rows) f(y, std::min(h, y + rows));
  }

  // relu(x) of the pixels that each part sees, side by side: (pixels, Q), for rows of the outputs.
  void gather(int n, int first, int last, float* to) const {
    const int64_t* step = s.x.strides;
    if (s.inputs < inner || s.parts > 1)
      std::memset(to, 0, sizeof(float) * (last - first) * w * Q);
    for (int y = first; y < last; y++, to += int64_t(w) * Q)
      for (int part = 0; part < s.parts; part++) {
        const float* from =
            s.x.data + n * step[0] + (y * s.stride + part) * step[2] + part * step[3];
        float* mine = to + part * inner;
        const int64_t lanes = Q;
        each_value(step, s.stride * step[3], seen(part, y), s.inputs,
                   [=](int x, int c, int64_t at) {
                     mine[x * lanes + c] = from[at] <= 0.0f ? 0.0f : from[at];
                   });
      }
  }

  // The gradients of an image are zero where no part sees it.
  void clear(int n) const {
    const int64_t* step = s.dx.strides;
    float* image = s.dx.data + n * step[0];
    for (int y = 0; y < s.H; y++)
      for (int x = 0; x < s.W; x++)
        for (int c = 0; c < s.inputs; c++)
          image[y * step[2] + x * step[3] + c * step[1]] = 0.0f;
  }

  // The inverse of `gather` for gradients; `active` holds what it gathered.
  void scatter(int n, int first, int last, const float* from, const float* active) const {
    const int64_t* step = s.dx.strides;
    float* image = s.dx.data + n * step[0];
    for (int y = first; y < last; y++, from += int64_t(w) * Q, active += int64_t(w) * Q)
      for (int part = 0; part < s.parts; part++) {
        float* to = image + (y * s.stride + part) * step[2] + part * step[3];
        const float *mine = from + part * inner, *seen_by = active + part * inner;
        const int64_t lanes = Q;
        each_value(step, s.stride * step[3], seen(part, y), s.inputs,
                   [=](int x, int c, int64_t at) {
                     to[at] = seen_by[x * lanes + c] <= 0.0f ? 0.0f : mine[x * lanes + c];
                   });
      }
  }

  // Where image n of the outputs lies as the kernels have it; null where it must be copied.
  float* in_place(int n) const {
    const int64_t* step = s.y.strides;
    float* y = s.y.data + n * step[0];
    const bool dense = step[1] == 1 && step[3] == P && step[2] == int64_t(w) * P && s.C == P;
    return dense && reinterpret_cast<uintptr_t>(y) % sizeof(vec) == 0 ? y : nullptr;
  }

  // The gradients of image n, in `copy` if they must be.
  const float* gradients_of(int n, float* copy) const {
    if (const float* y = in_place(n)) return y;
    exchange(n, s.y, copy, true);
    return copy;
  }

  void exchange(int n, const Image& theirs, float* mine, bool in) const {
    const int64_t* step = theirs.strides;
    if (in && s.C < P) std::memset(mine, 0, sizeof(float) * pixels * P);
    for (int y = 0; y < h; y++, mine += int64_t(w) * P) {
      float* row = theirs.data + n * step[0] + y * step[2];
      if (step[1] == 1 && s.C == P && step[3] == P)
        std::memcpy(in ? mine : row, in ? row : mine, sizeof(float) * w * P);
      else if (in)
        each_value(step, step[3], w, s.C, [&](int x, int c, int64_t at) {
          mine[x * P + c] = row[at];
        });
      else
        each_value(step, step[3], w, s.C, [&](int x, int c, int64_t at) {
          row[at] = mine[x * P + c];
        });
    }
  }

  void statistics() const {
    const double count = double(s.B) * pixels;
    std::memset(lanes, 0, sizeof(float) * ROWS * P);
    for (int c = 0; c < s.C; c++) {
      if (s.training && !backward) {
        double mean = 0, squares = 0;
        for (int n = 0; n < s.B; n++) mean += partial[n * 2 * P + c] / double(s.B);
        for (int n = 0; n < s.B; n++) {
          const double d = partial[n * 2 * P + c] - mean;
          squares += partial[n * 2 * P + P + c] + d * d * pixels;
        }
        s.stats[c] = float(mean);
        s.stats[s.C + c] = float(1.0 / std::sqrt(squares / count + s.eps));
        s.stats[2 * s.C + c] = float(squares / (count - 1));
      }
      const float scale = s.affine ? s.affine[c] * s.stats[s.C + c] : s.stats[s.C + c];
      row(MEAN)[c] = s.stats[c];
      row(A)[c] = scale;
      row(C_)[c] = (s.affine ? s.affine[s.C + c] : 0.0f) - s.stats[c] * scale;
    }
  }

  void gradient_coefficients() const {
    const double count = double(s.B) * pixels;
    for (int c = 0; c < s.C; c++) {
      double sum = 0, product = 0;
      for (int n = 0; n < s.B; n++) {
        sum += partial[n * 2 * P + c];
        product += partial[n * 2 * P + P + c];
      }
      const double mean = s.stats[c], rstd = s.stats[s.C + c], scale = row(A)[c];
      const double b = s.training ? -scale * rstd * rstd * product / count : 0.0;
      row(B_)[c] = float(b);
      row(C_)[c] = float(s.training ? -scale * sum / count - b * mean : 0.0);
      if (!s.affine_gradients) continue;
      s.affine_gradients[c] = float(rstd * product);
      s.affine_gradients[s.C + c] = float(sum);
    }
  }

  void run() {
    pack_weights();
    if (backward) statistics();
#pragma omp parallel num_threads(s.threads)
    {
      const Buffers& mine = thread[omp_get_thread_num()];
      float *a = mine.a, *b = mine.b, *d = mine.d;
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++) {
        if (!backward || !s.kept)
          blocks([&](int first, int last) {
            gather(n, first, last, a);
            pointwise(a, Q, weight, P, map(n) + at(first), w, 1, last - first, w);
          });
        float* to = partial + int64_t(n) * 2 * P;
        if (backward) {
          products(gradients_of(n, d), map(n), row(MEAN), P, pixels, to);
        } else if (s.training) {
          moments(map(n), P, pixels, to, to + P);
        }
      }
#pragma omp single
      backward ? gradient_coefficients() : statistics();
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++) {
        if (!backward) {  // B is zero, A z + C is the norm
          float* y = in_place(n);
          combine(map(n), map(n), row(A), P, P, pixels, y ? y : d);
          if (!y) exchange(n, s.y, d, false);
          continue;
        }
        const float* dy = gradients_of(n, d);
        float* sums = weight_partial + n * int64_t(P) * Q;
        if (s.gradients) std::memset(sums, 0, sizeof(float) * P * Q);
        if (s.stride > 1) clear(n);
        blocks([&](int first, int last) {
          const int some = (last - first) * w;
          float* dz = d + at(first);
          combine(dy + at(first), map(n) + at(first), row(A), P, P, some, dz);
          gather(n, first, last, a);
          if (s.gradients) add_outer_products(a, some, Q, dz, some, P, some, 1, sums);
          pointwise(dz, P, turned, Q, b, w, 1, last - first, w);
          scatter(n, first, last, b, a);
        });
      }
    }
    if (!backward || !s.gradients) return;
    const int64_t matrix = int64_t(P) * Q;
    for (int n = 1; n < s.B; n++)
      for (int64_t i = 0; i < matrix; i += LANES)
        store(weight_partial + i, load(weight_partial + i) + load(weight_partial + n * matrix + i));
    each_weight([&](int i, int o, int64_t position) {
      s.gradients[position] = weight_partial[int64_t(i) * P + o];
    });
  }
};

}  // namespace
