// The candidates of all edges that leave one state.

#pragma once

#include <omp.h>

#include <vector>

#include "lanes.h"

namespace {

struct Runner {
  const Source& s;
  const int per_block, P, blocks, M, h, w;  // M lanes of all blocks; outputs are h x w
  const int in_pixels, out_pixels, all;  // `all` channels, those that bypass included
  bool backward;
  float *X, *DX, *Y, *T1, *T2, *T3, *T4;  // maps of all images
  float *lanes, *partial, *weight_partial, *packed;
  std::vector<float*> thread;
  std::vector<float> factor_parts;
  int64_t scratch, weight_floats;

  static int width(int C) { return (C + LANES - 1) / LANES * LANES; }

  Runner(const Source& s, bool backward)
      : s(s), per_block(s.C < LANES ? LANES / s.C : 1), P(width(s.C)),
        blocks((s.E + per_block - 1) / per_block), M(blocks * P), h((s.H - 1) / s.stride + 1),
        w((s.W - 1) / s.stride + 1), in_pixels(s.H * s.W), out_pixels(h * w), all(s.C * s.k),
        backward(backward) {
    int pad = 0, taps = 0, halves = 1;
    bool pooled = false, factorised = false;
    for (int i = 0; i < s.kinds; i++) {
      const Kind& kind = s.kind[i];
      pad = std::max(pad, kind.dilation * (kind.kernel - 1) / 2);
      taps = std::max(taps, kind.kernel * kind.kernel);
      halves = std::max(halves, kind.halves);
      pooled |= kind.type == MAX_POOL || kind.type == AVG_POOL;
      factorised |= kind.type == FACTORISED;
    }
    const bool weights = backward && std::any_of(s.kind, s.kind + s.kinds,
                                                 [](const Kind& k) { return k.gradients; });
    const int64_t all_in = int64_t(s.B) * in_pixels * P, all_out = int64_t(s.B) * out_pixels * M;
    const int64_t dense = int64_t(in_pixels) * P, bypass = int64_t(out_pixels) * width(s.C * s.k);
    const int64_t padded = std::max({int64_t(Shape(s.H, s.W, pad).pixels()) * P,
                                     2 * int64_t(out_pixels) * P, bypass});
    weight_floats = std::max(int64_t(taps) * P, factorised * int64_t(P) * P) + int64_t(P) * P;
    scratch = 2 * padded + 2 * dense;
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
    int64_t total = 0;
    auto rounded = [](int64_t floats) { return (floats + 2 * LANES + 15) / 16 * 16; };
    for (auto& want : wants) total += rounded(want.floats);
    total += rounded(scratch) * s.threads;
    arena.reserve(size_t(total) * sizeof(float));
    float* next = reinterpret_cast<float*>(arena.memory);
    for (auto& want : wants) *want.where = next, next += rounded(want.floats);
    for (int t = 0; t < s.threads; t++) thread.push_back(next), next += rounded(scratch);
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
  void move_output(int n) const {  // the maps Y of all edges, to or from their tensors
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
        for (int y = 0; y < h; y++)
          for (int x = 0; x < w; x++, mine += P) {
            float* theirs = image.data + n * image.strides[0] + y * image.strides[2] +
                            x * image.strides[3];
            if (whole && image.strides[1] == 1)
              std::memcpy(IN ? mine : theirs, IN ? theirs : mine, sizeof(float) * P);
            else if (IN)
              for (int c = 0; c < s.C; c++) mine[c] = theirs[c * s.k * image.strides[1]];
            else
              for (int c = 0; c < s.C; c++) theirs[c * s.k * image.strides[1]] = mine[c];
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

  // Weights of a half: per block, depthwise (K * K, P) and pointwise (P in, P out), and for the
  // backward pass the depthwise kernel turned round and the pointwise one transposed.
  float* depthwise_of(int half, int b, bool turned) const {
    return packed + ((half * 2 + turned) * int64_t(blocks) + b) * weight_floats;
  }
  float* pointwise_of(const Kind& kind, int half, int b, bool turned) const {
    return depthwise_of(half, b, turned) + int64_t(kind.kernel) * kind.kernel * P;
  }

  void pack_weights(const Kind& kind) const {
    const int taps = kind.kernel * kind.kernel;
    std::memset(packed, 0, sizeof(float) * 4 * weight_floats * blocks);
    for (int half = 0; half < kind.halves; half++)
      for (int e = 0; e < s.E; e++) {
        const int b = e / per_block, first = e % per_block * s.C;
        const float* dw = kind.weights[(half * 2) * s.E + e];
        const float* pw = kind.weights[(half * 2 + 1) * s.E + e];
        for (int turned = 0; turned <= int(backward); turned++) {
          float* d = depthwise_of(half, b, turned);
          float* p = pointwise_of(kind, half, b, turned);
          for (int c = 0; c < s.C; c++) {
            for (int t = 0; t < taps; t++)
              d[(turned ? taps - 1 - t : t) * P + first + c] = dw[c * taps + t];
            for (int i = 0; i < s.C; i++)  // pw is (out, in)
              p[(first + (turned ? c : i)) * int64_t(P) + first + (turned ? i : c)] =
                  pw[c * s.C + i];
          }
        }
      }
  }

  void convolve(const Kind& kind, const float* in, int row, int stride, const float* weight,
                float* out, int h, int w) const {
    (kind.kernel == 3 ? depthwise<3> : depthwise<5>)(in, row, kind.dilation, stride, weight, P,
                                                     out, h, w);
  }

  // ---- batch norm

  // Statistics of the last `partial` moments; also to `stats`, for the running averages.
  void norm_from_moments(const Kind& kind, int half, bool shared) const {
    float* out = kind.stats + int64_t(half) * 3 * s.E * s.C;
    const int64_t EC = int64_t(s.E) * s.C;
    each_lane([&](int lane, int e, int c) {
      if (s.training && kind.norm) {
        const int64_t step = 2 * (shared ? P : M), from = shared ? lane % P : lane;
        double mean = 0, squares = 0, count = double(s.B) * out_pixels;
        for (int n = 0; n < s.B; n++) mean += partial[n * step + from] / double(s.B);
        for (int n = 0; n < s.B; n++) {
          const double d = partial[n * step + from] - mean;
          squares += partial[n * step + step / 2 + from] + d * d * out_pixels;
        }
        out[e * s.C + c] = float(mean);
        out[EC + e * s.C + c] = float(1.0 / std::sqrt(squares / count + kind.eps));
        out[2 * EC + e * s.C + c] = float(squares / (count - 1));
      }
    });
    load_norm(kind, half);
  }

  void load_norm(const Kind& kind, int half) const {
    const float* from = kind.stats + int64_t(half) * 3 * s.E * s.C;
    const int base = half ? MEAN2 : MEAN;
    std::memset(row(base), 0, sizeof(float) * 3 * M);
    each_lane([&](int lane, int e, int c) {
      const float mean = kind.norm ? from[e * s.C + c] : 0.0f;
      const float rstd = kind.norm ? from[(int64_t(s.E) + e) * s.C + c] : 1.0f;
      row(base)[lane] = mean;
      row(base + 1)[lane] = rstd;
      row(base + 2)[lane] = -mean * rstd;
    });
  }

  void load_gates(const Kind& kind) const {
    std::memset(row(GATE), 0, sizeof(float) * M);
    each_lane([&](int lane, int e, int) { row(GATE)[lane] = kind.gates[e]; });
  }

  // dz = A d + B z + C, from the sums of d and d * (z - mean); d are gradients behind the norm,
  // `gate` null where no gate multiplies it. Also the gradient of the gates.
  void norm_gradient(const Kind& kind, int half, const float* gate) const {
    const int base = half ? MEAN2 : MEAN;
    const double count = double(s.B) * out_pixels;
    std::memset(row(A), 0, sizeof(float) * 3 * M);
    if (gate) std::fill(kind.gate_gradients, kind.gate_gradients + s.E, 0.0f);
    std::vector<double> gate_sums(s.E, 0.0);
    each_lane([&](int lane, int e, int) {
      double sum = 0, product = 0;
      for (int n = 0; n < s.B; n++) {
        sum += partial[int64_t(n) * 2 * M + lane / P * 2 * P + lane % P];
        product += partial[int64_t(n) * 2 * M + lane / P * 2 * P + P + lane % P];
      }
      const double mean = row(base)[lane], rstd = row(base + 1)[lane];
      const double g = gate ? gate[lane] : 1.0;
      gate_sums[e] += rstd * product;
      double b = 0, c = 0;
      if (s.training && kind.norm) {
        b = -g * rstd * rstd * rstd * product / count;
        c = -g * rstd * sum / count - b * mean;
      }
      row(A)[lane] = float(g * rstd);
      row(B_)[lane] = float(b);
      row(C_)[lane] = float(c);
    });
    if (gate)
      for (int e = 0; e < s.E; e++) kind.gate_gradients[e] = float(gate_sums[e]);
  }

  // ---- separable convolutions

  Shape padded(const Kind& kind, bool input) const {
    const int pad = kind.dilation * (kind.kernel - 1) / 2;
    return input ? Shape(s.H, s.W, pad) : Shape(h, w, pad);
  }

  struct Buffers { float *a, *b, *d, *e; };  // two padded maps, two dense ones
  Buffers buffers() const {
    float* base = thread[omp_get_thread_num()];
    const int64_t padded = (scratch - 2 * int64_t(in_pixels) * P) / 2;
    return {base, base + padded, base + 2 * padded, base + 2 * padded + int64_t(in_pixels) * P};
  }
  void clear(const Buffers& k) const {
    std::memset(k.a, 0, sizeof(float) * (scratch - 2 * int64_t(in_pixels) * P));
  }

  void relu_input(int n, const Shape& in, float* to) const {
    for (int y = 0; y < in.h; y++)
      for (int64_t i = 0; i < int64_t(in.w) * P; i += LANES)
        store(to + int64_t(in.at(y, 0)) * P + i,
              positive(load(image(X, n) + int64_t(y) * in.w * P + i)));
  }

  // z of a half of one image and block; `in` is padded, `d` gets the depthwise result.
  void half_forward(const Kind& kind, int half, int b, const float* in, const Shape& shape,
                    float* d, float* z) const {
    convolve(kind, in + int64_t(shape.at(0, 0)) * P, shape.row, half ? 1 : s.stride,
             depthwise_of(half, b, false), d, h, w);
    pointwise(d, P, pointwise_of(kind, half, b, false), P, z, w, 1, h, w);
  }

  void moments_of(int n, int b, const float* z) const {
    float* to = partial + int64_t(n) * 2 * M + b * P;
    moments(z, P, out_pixels, to, to + M);
  }

  void separable_forward(const Kind& kind) const {
    const Shape in = padded(kind, true), middle = padded(kind, false);
#pragma omp single
    {
      pack_weights(kind);
      load_gates(kind);
    }
    const Buffers k = buffers();
    clear(k);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      relu_input(n, in, k.a);
      for (int b = 0; b < blocks; b++) {
        half_forward(kind, 0, b, k.a, in, k.d, map(T1, n, b));
        if (s.training) moments_of(n, b, map(T1, n, b));
      }
    }
#pragma omp single
    norm_from_moments(kind, 0, false);
    if (kind.halves == 2) {
      clear(k);
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++)
        for (int b = 0; b < blocks; b++) {
          activate(map(T1, n, b), row(RSTD) + b * P, row(SHIFT) + b * P, P, middle, k.a);
          half_forward(kind, 1, b, k.a, middle, k.d, map(T1, n, b));
          if (s.training) moments_of(n, b, map(T1, n, b));
        }
#pragma omp single
      norm_from_moments(kind, 1, false);
    }
    add_to_output(kind.halves == 2, T1, false);
  }

  // Y += gate * norm(z)
  void add_to_output(int half, const float* z, bool shared) const {
    const int base = half ? MEAN2 : MEAN;
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++)
      for (int b = 0; b < blocks; b++) {
        const float* from = z + (shared ? int64_t(n) : int64_t(n) * blocks + b) * out_pixels * P;
        float* to = map(Y, n, b);
        for (int v = 0; v < P; v += LANES) {
          const int lane = b * P + v;
          const vec gate = load(row(GATE) + lane);
          const vec scale = gate * load(row(base + 1) + lane);
          const vec shift = gate * load(row(base + 2) + lane);
          for (int64_t i = 0; i < out_pixels; i++)
            store(to + i * P + v, load(to + i * P + v) + scale * load(from + i * P + v) + shift);
        }
      }
  }

  float* weight_part(int n, int b) const {
    return weight_partial + (int64_t(n) * blocks + b) * weight_floats;
  }

  // Adds the images' weight gradients, in order, into the tensors of the edges.
  void reduce_weights(const Kind& kind, int half) const {
    const int taps = kind.kernel * kind.kernel;
    float* dw = kind.gradients + int64_t(half) * s.E * s.C * (taps + s.C);
    float* pw = dw + int64_t(s.E) * s.C * taps;
#pragma omp for schedule(static)
    for (int b = 0; b < blocks; b++) {
      float* total = weight_part(0, b);
      const int64_t floats = int64_t(taps) * P + int64_t(P) * P;
      for (int n = 1; n < s.B; n++)
        for (int64_t i = 0; i < floats; i += LANES)
          store(total + i, load(total + i) + load(weight_part(n, b) + i));
      for (int slot = 0; slot < per_block && edge_of(b, slot) < s.E; slot++)
        for (int c = 0; c < s.C; c++) {
          const int64_t e = edge_of(b, slot), lane = slot * s.C + c;
          for (int t = 0; t < taps; t++) dw[(e * s.C + c) * taps + t] = total[t * P + lane];
          for (int i = 0; i < s.C; i++)
            pw[(e * s.C + c) * s.C + i] = total[(taps + slot * s.C + i) * int64_t(P) + lane];
        }
    }
  }

  // From dz (dense) to the gradient of a half's input `in`: dense in `out`, h' x w'. `spread` is a
  // zeroed padded map; its pixels lie `stride` apart.
  void half_backward(const Kind& kind, int half, int n, int b, const float* dz, float* d,
                     const float* in, const Shape& shape, float* spread, float* out) const {
    const int stride = half ? 1 : s.stride;
    float* origin = spread + int64_t(shape.at(0, 0)) * P;
    pointwise(dz, P, pointwise_of(kind, half, b, true), P, origin, shape.row, stride, h, w);
    convolve(kind, origin, shape.row, 1, depthwise_of(half, b, true), out, shape.h, shape.w);
    if (!kind.gradients) return;
    float* part = weight_part(n, b);
    (kind.kernel == 3 ? depthwise_gradient<3> : depthwise_gradient<5>)(
        in + int64_t(shape.at(0, 0)) * P, shape.row, kind.dilation, stride, origin, shape.row,
        stride, P, h, w, part);
    pointwise_gradient(d, P, dz, P, out_pixels, part + int64_t(kind.kernel) * kind.kernel * P);
  }

  void separable_backward(const Kind& kind) const {
    const Shape in = padded(kind, true), middle = padded(kind, false);
    const bool twice = kind.halves == 2, keep = kind.gradients;
#pragma omp single
    {
      pack_weights(kind);
      load_gates(kind);
      load_norm(kind, 0);
      if (twice) load_norm(kind, 1);
    }
    const Buffers k = buffers();
    clear(k);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      relu_input(n, in, k.a);
      for (int b = 0; b < blocks; b++) {
        float* z = map(T1, n, b);
        half_forward(kind, 0, b, k.a, in, keep ? map(T2, n, b) : k.d, z);
        if (twice) {
          activate(z, row(RSTD) + b * P, row(SHIFT) + b * P, P, middle, k.b);
          half_forward(kind, 1, b, k.b, middle, keep ? map(T4, n, b) : k.d, map(T3, n, b));
        }
        products(map(Y, n, b), twice ? map(T3, n, b) : z, row(twice ? MEAN2 : MEAN) + b * P, P,
                 out_pixels, partial + (int64_t(n) * blocks + b) * 2 * P);
      }
    }
#pragma omp single
    norm_gradient(kind, twice, row(GATE));
    if (twice) {
      clear(k);
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++)
        for (int b = 0; b < blocks; b++) {
          combine(map(Y, n, b), map(T3, n, b), row(A) + b * P, M, P, out_pixels, k.d);
          activate(map(T1, n, b), row(RSTD) + b * P, row(SHIFT) + b * P, P, middle, k.b);
          half_backward(kind, 1, n, b, k.d, map(T4, n, b), k.b, middle, k.a, map(T3, n, b));
          float* d = map(T3, n, b);
          for (int y = 0; y < h; y++)
            for (int64_t i = 0; i < int64_t(w) * P; i += LANES) {
              float* at = d + int64_t(y) * w * P + i;
              const vec active = load(k.b + int64_t(middle.at(y, 0)) * P + i);
              store(at, select(active <= 0.0f, vec{}, load(at)));
            }
          products(d, map(T1, n, b), row(MEAN) + b * P, P, out_pixels,
                   partial + (int64_t(n) * blocks + b) * 2 * P);
        }
#pragma omp single
      norm_gradient(kind, 0, nullptr);
      if (keep) reduce_weights(kind, 1);
    }
    clear(k);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      relu_input(n, in, k.b);
      float *dx = image(DX, n), *x = image(X, n);
      for (int b = 0; b < blocks; b++) {
        combine(map(twice ? T3 : Y, n, b), map(T1, n, b), row(A) + b * P, M, P, out_pixels, k.d);
        half_backward(kind, 0, n, b, k.d, keep ? map(T2, n, b) : nullptr, k.b, in, k.a, k.e);
        for (int64_t i = 0; i < int64_t(in_pixels) * P; i += LANES)
          store(dx + i, load(dx + i) + select(load(x + i) <= 0.0f, vec{}, load(k.e + i)));
      }
    }
    if (keep) reduce_weights(kind, 0);
  }

  // ---- factorised reduction: two 1x1 convolutions, on the pixels (2y, 2x) and (2y + 1, 2x + 1)

  void gather(int n, float* to) const {  // relu of both, side by side: (pixels, 2 P)
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++)
        for (int part = 0; part < 2; part++, to += P) {
          const int i = 2 * y + part, j = 2 * x + part;
          for (int v = 0; v < P; v += LANES)
            store(to + v, i < s.H && j < s.W
                              ? positive(load(image(X, n) + (int64_t(i) * s.W + j) * P + v))
                              : vec{});
        }
  }

  void scatter(const float* from, const float* active, float* dx) const {
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++)
        for (int part = 0; part < 2; part++, from += P, active += P) {
          const int i = 2 * y + part, j = 2 * x + part;
          if (i >= s.H || j >= s.W) continue;
          float* to = dx + (int64_t(i) * s.W + j) * P;
          for (int v = 0; v < P; v += LANES)
            store(to + v, load(to + v) + select(load(active + v) <= 0.0f, vec{}, load(from + v)));
        }
  }

  // f(block, input lane, output lane, part, position in the tensors of the part)
  template <class F>
  void each_factorised(F f) const {
    for (int part = 0; part < 2; part++) {
      const int outputs = part ? s.C - s.C / 2 : s.C / 2, first = part ? s.C / 2 : 0;
      for (int e = 0; e < s.E; e++)
        for (int o = 0; o < outputs; o++)
          for (int i = 0; i < s.C; i++)
            f(e / per_block, part * P + e % per_block * s.C + i, e % per_block * s.C + first + o,
              part, (int64_t(e) * outputs + o) * s.C + i);
    }
  }
  float* factorised_of(int b, bool turned) const { return depthwise_of(0, b, turned); }

  void pack_factorised(const Kind& kind) const {
    std::memset(packed, 0, sizeof(float) * 4 * weight_floats * blocks);
    each_factorised([&](int b, int64_t i, int64_t o, int part, int64_t position) {
      const int64_t each = int64_t(part ? s.C - s.C / 2 : s.C / 2) * s.C;
      const float value = kind.weights[part * s.E + position / each][position % each];
      factorised_of(b, false)[i * P + o] = factorised_of(b, true)[o * 2 * P + i] = value;
    });
  }

  void factorised_forward(const Kind& kind) const {
#pragma omp single
    {
      pack_factorised(kind);
      load_gates(kind);
    }
    const Buffers k = buffers();
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      gather(n, k.a);
      for (int b = 0; b < blocks; b++) {
        pointwise(k.a, 2 * P, factorised_of(b, false), P, map(T1, n, b), w, 1, h, w);
        if (s.training) moments_of(n, b, map(T1, n, b));
      }
    }
#pragma omp single
    norm_from_moments(kind, 0, false);
    add_to_output(0, T1, false);
  }

  void factorised_backward(const Kind& kind) const {
#pragma omp single
    {
      pack_factorised(kind);
      load_gates(kind);
      load_norm(kind, 0);
    }
    const Buffers k = buffers();
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      gather(n, k.a);
      for (int b = 0; b < blocks; b++) {
        pointwise(k.a, 2 * P, factorised_of(b, false), P, map(T1, n, b), w, 1, h, w);
        products(map(Y, n, b), map(T1, n, b), row(MEAN) + b * P, P, out_pixels,
                 partial + (int64_t(n) * blocks + b) * 2 * P);
      }
    }
#pragma omp single
    norm_gradient(kind, 0, row(GATE));
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      gather(n, k.a);
      for (int b = 0; b < blocks; b++) {
        combine(map(Y, n, b), map(T1, n, b), row(A) + b * P, M, P, out_pixels, k.d);
        if (kind.gradients)
          pointwise_gradient(k.a, 2 * P, k.d, P, out_pixels, weight_part(n, b));
        pointwise(k.d, P, factorised_of(b, true), 2 * P, k.b, w, 1, h, w);
        scatter(k.b, k.a, image(DX, n));
      }
    }
    if (!kind.gradients) return;
#pragma omp single
    each_factorised([&](int b, int64_t i, int64_t o, int part, int64_t position) {
      float sum = 0.0f;
      for (int n = 0; n < s.B; n++) sum += weight_part(n, b)[i * P + o];
      kind.gradients[part * int64_t(s.E) * (s.C / 2) * s.C + position] = sum;
    });
  }

  // ---- pools and identities, which all edges have in common

  float* pooled(const Kind& kind, int n) const {
    return kind.type == IDENTITY ? image(X, n) : T1 + int64_t(n) * out_pixels * P;
  }

  void pool(const Kind& kind, int n) const {
    if (kind.type != IDENTITY)
      pool_forward(kind, image(X, n), Shape(s.H, s.W, 0), s.stride, P, h, w, pooled(kind, n),
                   backward ? where(n) : nullptr);
  }
  int32_t* where(int n) const {
    return reinterpret_cast<int32_t*>(T2) + int64_t(n) * out_pixels * P;
  }

  void shared_forward(const Kind& kind) const {
#pragma omp single
    load_gates(kind);
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      pool(kind, n);
      float* to = partial + int64_t(n) * 2 * P;
      if (s.training && kind.norm) moments(pooled(kind, n), P, out_pixels, to, to + P);
    }
#pragma omp single
    norm_from_moments(kind, 0, true);
    add_to_output(0, pooled(kind, 0), true);
  }

  void shared_backward(const Kind& kind) const {
#pragma omp single
    {
      load_gates(kind);
      load_norm(kind, 0);
    }
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      pool(kind, n);
      for (int b = 0; b < blocks; b++)
        products(map(Y, n, b), pooled(kind, n), row(MEAN) + b * P, P, out_pixels,
                 partial + (int64_t(n) * blocks + b) * 2 * P);
    }
#pragma omp single
    norm_gradient(kind, 0, row(GATE));
    const Buffers k = buffers();
#pragma omp for schedule(static)
    for (int n = 0; n < s.B; n++) {
      for (int v = 0; v < P; v += LANES) {
        vec b = {}, c = {};
        for (int block = 0; block < blocks; block++) {
          b += load(row(B_) + block * P + v);
          c += load(row(C_) + block * P + v);
        }
        for (int64_t i = 0; i < out_pixels; i++) {
          vec d = b * load(pooled(kind, n) + i * P + v) + c;
          for (int block = 0; block < blocks; block++)
            d += load(row(A) + block * P + v) * load(map(Y, n, block) + i * P + v);
          store(k.d + i * P + v, d);
        }
      }
      float* dx = image(DX, n);
      if (kind.type == IDENTITY)
        for (int64_t i = 0; i < int64_t(in_pixels) * P; i += LANES)
          store(dx + i, load(dx + i) + load(k.d + i));
      else
        pool_backward(kind, Shape(s.H, s.W, 0), s.stride, P, h, w, where(n), k.d, dx);
    }
  }

  void run() {
#pragma omp parallel num_threads(s.threads)
    {
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++) {
        pack_input(n);
        if (backward) {
          move_output<true>(n);
          std::memset(image(DX, n), 0, sizeof(float) * in_pixels * P);
        } else {
          for (int b = 0; b < blocks; b++)
            std::memset(map(Y, n, b), 0, sizeof(float) * out_pixels * P);
        }
      }
      for (int i = 0; i < s.kinds; i++) {
        const Kind& kind = s.kind[i];
        if (kind.type == SEPARABLE) backward ? separable_backward(kind) : separable_forward(kind);
        else if (kind.type == FACTORISED)
          backward ? factorised_backward(kind) : factorised_forward(kind);
        else backward ? shared_backward(kind) : shared_forward(kind);
      }
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++) {
        if (s.k > 1) backward ? bypass_backward(n) : bypass_forward(n);
        backward ? unpack_input_gradient(n) : move_output<false>(n);
      }
    }
    if (!backward || s.k == 1) return;
    for (int e = 0; e < s.E; e++) {
      s.factor_gradients[e] = 0.0f;
      for (int n = 0; n < s.B; n++) s.factor_gradients[e] += factor_parts[int64_t(n) * s.E + e];
    }
  }
};

}  // namespace
