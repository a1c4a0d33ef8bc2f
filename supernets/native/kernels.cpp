// Candidates of the edges that leave one state, forward and backward, in float32 on the CPU.
//
// Layout: maps are channels last, in blocks of P lanes (a multiple of 16). A block holds one edge,
// or, where an edge has fewer than 16 channels, several side by side; unused lanes are zero.
// A thread takes whole images. Between batch norms every image is on its own, and sums over the
// batch are added in the order of the images, so results do not depend on the number of threads.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace {

constexpr int LANES = 16;
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec*>(p) = v; }
inline vec select(ivec mask, vec a, vec b) { return mask ? a : b; }
inline vec positive(vec v) { return select(v > 0.0f, v, vec{}); }

}  // namespace

extern "C" {

enum Type : int32_t { SEPARABLE, MAX_POOL, AVG_POOL, IDENTITY, FACTORISED };

// One candidate on all edges. `weights` has, per half, E depthwise and then E pointwise kernels.
// `stats` has, per batch norm, mean, 1 / standard deviation and unbiased variance, E * C each.
// `gradients` has, per half, depthwise (E, C, K, K) and then pointwise (E, C, C); it may be null.
// A factorised reduction has its two convolutions, (E, C / 2, C) and (E, C - C / 2, C), instead.
struct Kind {
  int32_t type, halves, kernel, dilation, norm;
  float eps;
  const float* const* weights;
  float* stats;
  const float* gates;  // (E)
  float* gate_gradients;
  float* gradients;
};

struct Image {  // of all images: elements from one to the next, along B, C, H, W
  float* data;
  int64_t strides[4];
};

// With k > 1, C are the mixed channels out of k C; the others bypass, times the factors (E).
struct Source {
  int32_t B, C, H, W, E, stride, kinds, training, threads, k;
  const Kind* kind;
  const float* factors;
  float* factor_gradients;
  Image x, dx;
  const Image* y;  // (E): outputs, or their gradients in the backward pass
};

// `parts` is 2 for a factorised reduction. `stats` has mean, 1 / standard deviation and unbiased
// variance, C each; `gradients` has those of the weights (C / parts, inputs), or is null.
struct Projection {
  int32_t B, inputs, H, W, C, stride, parts, training, threads;
  float eps;
  const float* weights[2];
  float *stats, *gradients;
  Image x, dx, y;
};
}

namespace {

// Memory that stays between calls: fresh pages would cost more than the arithmetic.
struct Arena {
  char* memory = nullptr;
  size_t size = 0, used = 0;
  std::mutex busy;

  void reserve(size_t bytes) {
    used = 0;
    if (bytes <= size) return;
    std::free(memory);
    size = (bytes + 4095) / 4096 * 4096;
    memory = static_cast<char*>(std::aligned_alloc(4096, size));
    if (!memory) {
      size = 0;
      throw std::bad_alloc();
    }
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

template <int K>
void depthwise(const float* in, int row, int dilation, int stride, const float* weight, int P,
               float* out, int h, int w) {
  const int reach = dilation * (K - 1) / 2;
  in -= (int64_t(reach) * row + reach) * P;
  for (int v = 0; v < P; v += LANES) {
    vec k[K * K];
    for (int t = 0; t < K * K; t++) k[t] = load(weight + t * P + v);
    for (int y = 0; y < h; y++) {
      const float* line = in + int64_t(y) * stride * row * P + v;
      float* to = out + int64_t(y) * w * P + v;
      for (int x = 0; x < w; x++) {
        const float* pixel = line + int64_t(x) * stride * P;
        vec sum = {}, second = {};
#pragma GCC unroll 5
        for (int i = 0; i < K; i++)
#pragma GCC unroll 5
          for (int j = 0; j < K; j++) {
            vec value = load(pixel + (int64_t(i) * row + j) * dilation * P);
            if ((i * K + j) % 2) second += value * k[i * K + j];
            else sum += value * k[i * K + j];
          }
        store(to + int64_t(x) * P, sum + second);
      }
    }
  }
}

// gradient[t] = sum over pixels of d(y, x) * in(y * stride + ..): d lies at steps of `step` pixels.
template <int K>
void depthwise_gradient(const float* in, int row, int dilation, int stride, const float* d,
                        int d_row, int d_step, int P, int h, int w, float* gradient) {
  const int reach = dilation * (K - 1) / 2;
  in -= (int64_t(reach) * row + reach) * P;
  for (int v = 0; v < P; v += LANES) {
    vec sum[K * K];
    for (int t = 0; t < K * K; t++) sum[t] = vec{};
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++) {
        vec g = load(d + (int64_t(y) * d_row + x) * d_step * P + v);
        const float* pixel = in + (int64_t(y) * row + x) * stride * P + v;
#pragma GCC unroll 5
        for (int i = 0; i < K; i++)
#pragma GCC unroll 5
          for (int j = 0; j < K; j++)
            sum[i * K + j] += g * load(pixel + (int64_t(i) * row + j) * dilation * P);
      }
    for (int t = 0; t < K * K; t++) store(gradient + t * P + v, sum[t]);
  }
}

template <int T, int V>
inline void multiply(const float* in, int Q, const float* weight, int P, float* out,
                     int64_t out_step) {
  vec sum[T][V];
  for (int t = 0; t < T; t++)
    for (int v = 0; v < V; v++) sum[t][v] = vec{};
  for (int i = 0; i < Q; i++) {
    vec k[V];
    for (int v = 0; v < V; v++) k[v] = load(weight + int64_t(i) * P + v * LANES);
#pragma GCC unroll 12
    for (int t = 0; t < T; t++)
      for (int v = 0; v < V; v++) sum[t][v] += k[v] * in[int64_t(t) * Q + i];
  }
  for (int t = 0; t < T; t++)
    for (int v = 0; v < V; v++) store(out + t * out_step + v * LANES, sum[t][v]);
}

// out(pixel) = weight^T in(pixel), weight (Q in, P out), for pixels in a row.
template <int T, int V>
inline void multiply_row(const float* in, int Q, const float* weight, int P, float* out,
                         int64_t out_step, int n) {
  int x = 0;
  for (; x + T <= n; x += T)
    multiply<T, V>(in + int64_t(x) * Q, Q, weight, P, out + x * out_step, out_step);
  for (; x < n; x++)
    multiply<1, V>(in + int64_t(x) * Q, Q, weight, P, out + x * out_step, out_step);
}

// `in` is dense; `out` has `out_row` pixels a line, and `out_step` from one to the next.
void pointwise(const float* in, int Q, const float* weight, int P, float* out, int out_row,
               int out_step, int h, int w) {
  if (out_row == w && out_step == 1) w *= h, h = 1;
  for (int y = 0; y < h; y++) {
    const float* from = in + int64_t(y) * w * Q;
    float* to = out + int64_t(y) * out_row * out_step * P;
    int v = 0;
    for (; v + 2 * LANES <= P; v += 2 * LANES)
      multiply_row<8, 2>(from, Q, weight + v, P, to + v, int64_t(out_step) * P, w);
    if (v < P) multiply_row<12, 1>(from, Q, weight + v, P, to + v, int64_t(out_step) * P, w);
  }
}

// gradient (Q in, P out) = sum over pixels of in d^T.
void pointwise_gradient(const float* in, int Q, const float* d, int P, int pixels,
                        float* gradient) {
  for (int v = 0; v < P; v += LANES)
    for (int i = 0; i < Q; i += LANES) {
      vec sum[LANES];
      for (int t = 0; t < LANES; t++) sum[t] = vec{};
      for (int64_t n = 0; n < pixels; n++) {
        vec g = load(d + n * P + v);
        const float* value = in + n * Q + i;
#pragma GCC unroll 16
        for (int t = 0; t < LANES; t++) sum[t] += g * value[t];
      }
      for (int t = 0; t < LANES; t++) store(gradient + (int64_t(i) + t) * P + v, sum[t]);
    }
}

// Mean and sum of squared deviations of one image, per lane.
void moments(const float* z, int P, int pixels, float* mean, float* squares) {
  for (int v = 0; v < P; v += LANES) {
    vec sum[4] = {}, square[4] = {};
    int n = 0;
    for (; n + 4 <= pixels; n += 4)
      for (int t = 0; t < 4; t++) sum[t] += load(z + int64_t(n + t) * P + v);
    for (; n < pixels; n++) sum[0] += load(z + int64_t(n) * P + v);
    vec m = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / float(pixels);
    for (n = 0; n + 4 <= pixels; n += 4)
      for (int t = 0; t < 4; t++) {
        vec d = load(z + int64_t(n + t) * P + v) - m;
        square[t] += d * d;
      }
    for (; n < pixels; n++) {
      vec d = load(z + int64_t(n) * P + v) - m;
      square[0] += d * d;
    }
    store(mean + v, m);
    store(squares + v, (square[0] + square[1]) + (square[2] + square[3]));
  }
}

// Sums of d and of d * (z - mean), per lane.
void products(const float* d, const float* z, const float* mean, int P, int pixels, float* sums) {
  for (int v = 0; v < P; v += LANES) {
    vec m = load(mean + v), a[2] = {}, b[2] = {};
    int n = 0;
    for (; n + 2 <= pixels; n += 2)
      for (int t = 0; t < 2; t++) {
        vec g = load(d + int64_t(n + t) * P + v);
        a[t] += g;
        b[t] += g * (load(z + int64_t(n + t) * P + v) - m);
      }
    for (; n < pixels; n++) {
      vec g = load(d + int64_t(n) * P + v);
      a[0] += g;
      b[0] += g * (load(z + int64_t(n) * P + v) - m);
    }
    store(sums + v, a[0] + a[1]);
    store(sums + P + v, b[0] + b[1]);
  }
}

// out = a * d + b * z + c, per lane.
void combine(const float* d, const float* z, const float* abc, int64_t M, int P, int pixels,
             float* out) {
  for (int v = 0; v < P; v += LANES) {
    vec a = load(abc + v), b = load(abc + M + v), c = load(abc + 2 * M + v);
    for (int64_t n = 0; n < pixels; n++)
      store(out + n * P + v, a * load(d + n * P + v) + b * load(z + n * P + v) + c);
  }
}

// relu(scale * z + shift) into a padded map.
void activate(const float* z, const float* scale, const float* shift, int P, const Shape& s,
              float* out) {
  for (int y = 0; y < s.h; y++)
    for (int v = 0; v < P; v += LANES) {
      vec a = load(scale + v), b = load(shift + v);
      const float* from = z + int64_t(y) * s.w * P + v;
      float* to = out + int64_t(s.at(y, 0)) * P + v;
      for (int64_t x = 0; x < s.w; x++) store(to + x * P, positive(a * load(from + x * P) + b));
    }
}

// 3x3 windows, clipped at the border; `where` gets the pixel of the first maximum, if not null.
void pool_forward(const Kind& kind, const float* x, const Shape& in, int stride, int P, int h,
                  int w, float* z, int32_t* where) {
  for (int oy = 0; oy < h; oy++)
    for (int ox = 0; ox < w; ox++) {
      int top = std::max(oy * stride - 1, 0), bottom = std::min(oy * stride + 2, in.h);
      int left = std::max(ox * stride - 1, 0), right = std::min(ox * stride + 2, in.w);
      float share = 1.0f / float((bottom - top) * (right - left));
      for (int v = 0; v < P; v += LANES) {
        vec found = load(x + (int64_t(top) * in.w + left) * P + v), sum = {};
        ivec first = ivec{} + (top * in.w + left);
        for (int i = top; i < bottom; i++)
          for (int j = left; j < right; j++) {
            vec value = load(x + (int64_t(i) * in.w + j) * P + v);
            const ivec larger = (value > found) | (value != value);
            found = select(larger, value, found);
            first = larger ? ivec{} + (i * in.w + j) : first;
            sum += value;
          }
        const int64_t at = (int64_t(oy) * w + ox) * P + v;
        store(z + at, kind.type == MAX_POOL ? found : sum * share);
        if (where) *reinterpret_cast<ivec*>(where + at) = first;
      }
    }
}

// dx(pixel) += what the windows that hold the pixel pass on of d.
void pool_backward(const Kind& kind, const Shape& in, int stride, int P, int h, int w,
                   const int32_t* where, const float* d, float* dx) {
  for (int y = 0; y < in.h; y++)
    for (int x = 0; x < in.w; x++) {
      const int top = (std::max(y - 1, 0) + stride - 1) / stride, bottom = (y + 1) / stride;
      const int left = (std::max(x - 1, 0) + stride - 1) / stride, right = (x + 1) / stride;
      for (int v = 0; v < P; v += LANES) {
        float* to = dx + (int64_t(y) * in.w + x) * P + v;
        vec sum = load(to);
        for (int i = top; i <= std::min(bottom, h - 1); i++)
          for (int j = left; j <= std::min(right, w - 1); j++) {
            const int64_t at = (int64_t(i) * w + j) * P + v;
            if (kind.type == MAX_POOL) {
              const ivec first = *reinterpret_cast<const ivec*>(where + at);
              sum += select(first == y * in.w + x, load(d + at), vec{});
            } else {
              const int rows = std::min(i * stride + 2, in.h) - std::max(i * stride - 1, 0);
              const int columns = std::min(j * stride + 2, in.w) - std::max(j * stride - 1, 0);
              sum += load(d + at) * (1.0f / float(rows * columns));
            }
          }
        store(to, sum);
      }
    }
}

// ---- one source ------------------------------------------------------------------------------

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
              store(at, select(active > 0.0f, load(at), vec{}));
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
          store(dx + i, load(dx + i) + select(load(x + i) > 0.0f, load(k.e + i), vec{}));
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
            store(to + v, load(to + v) + select(load(active + v) > 0.0f, load(from + v), vec{}));
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

// ---- ReLU, 1x1 convolution and batch norm; a factorised reduction has two, on shifted pixels ----

struct Projector {
  const Projection& s;
  const int h, w, pixels, P, inner, Q;  // Q lanes in, P lanes out
  bool backward;
  float *z, *lanes, *partial, *weight, *turned, *weight_partial;
  std::vector<float*> thread;

  static int width(int C) { return (C + LANES - 1) / LANES * LANES; }

  Projector(const Projection& s, bool backward)
      : s(s), h((s.H - 1) / s.stride + 1), w((s.W - 1) / s.stride + 1), pixels(h * w),
        P(width(s.C)), inner(width(s.inputs)), Q(inner * s.parts), backward(backward) {
    const int64_t each = int64_t(pixels) * (2 * Q + P);
    const int64_t all = int64_t(s.B) * pixels * P, matrix = int64_t(P) * Q;
    struct Want { float** where; int64_t floats; } wants[] = {
        {&z, all}, {&lanes, int64_t(ROWS) * P}, {&partial, int64_t(s.B) * 2 * P},
        {&weight, matrix}, {&turned, matrix},
        {&weight_partial, backward && s.gradients ? s.B * matrix : 0}};
    int64_t total = each * s.threads;
    for (auto& want : wants) total += want.floats;
    arena.reserve(size_t(total) * sizeof(float));
    float* next = reinterpret_cast<float*>(arena.memory);
    for (auto& want : wants) *want.where = next, next += want.floats;
    for (int t = 0; t < s.threads; t++) thread.push_back(next), next += each;
  }

  enum { MEAN, RSTD, SHIFT, A, B_, C_, ROWS };
  float* row(int which) const { return lanes + int64_t(which) * P; }
  int outputs(int part) const { return s.parts == 1 ? s.C : part ? s.C - s.C / 2 : s.C / 2; }
  float* map(int n) const { return z + int64_t(n) * pixels * P; }

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
      const float value = position < first ? s.weights[0][position] : s.weights[1][position - first];
      weight[int64_t(i) * P + o] = turned[int64_t(o) * Q + i] = value;
    });
  }

  // relu(x) of the pixels each part sees, side by side: (pixels, Q).
  void gather(int n, float* to) const {
    const int64_t* step = s.x.strides;
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++)
        for (int part = 0; part < s.parts; part++, to += inner) {
          const int i = y * s.stride + part, j = x * s.stride + part;
          if (i >= s.H || j >= s.W) {
            std::memset(to, 0, sizeof(float) * inner);
            continue;
          }
          const float* from = s.x.data + n * step[0] + i * step[2] + j * step[3];
          if (step[1] == 1 && s.inputs == inner)
            for (int c = 0; c < inner; c++) to[c] = from[c] > 0.0f ? from[c] : 0.0f;
          else
            for (int c = 0; c < inner; c++)
              to[c] = c < s.inputs && from[c * step[1]] > 0.0f ? from[c * step[1]] : 0.0f;
        }
  }

  // The inverse of `gather` for gradients; `active` holds what it gathered.
  void scatter(int n, const float* from, const float* active) const {
    const int64_t* step = s.dx.strides;
    float* image = s.dx.data + n * step[0];
    if (s.stride > 1)
      for (int y = 0; y < s.H; y++)
        for (int x = 0; x < s.W; x++)
          for (int c = 0; c < s.inputs; c++)
            image[y * step[2] + x * step[3] + c * step[1]] = 0.0f;
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++)
        for (int part = 0; part < s.parts; part++, from += inner, active += inner) {
          const int i = y * s.stride + part, j = x * s.stride + part;
          if (i >= s.H || j >= s.W) continue;
          float* to = image + i * step[2] + j * step[3];
          if (step[1] == 1)
            for (int c = 0; c < s.inputs; c++) to[c] = active[c] > 0.0f ? from[c] : 0.0f;
          else
            for (int c = 0; c < s.inputs; c++)
              to[c * step[1]] = active[c] > 0.0f ? from[c] : 0.0f;
        }
  }

  void exchange(int n, const Image& theirs, float* mine, bool in) const {
    const int64_t* step = theirs.strides;
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++, mine += P) {
        float* at = theirs.data + n * step[0] + y * step[2] + x * step[3];
        if (step[1] == 1 && s.C == P)
          std::memcpy(in ? mine : at, in ? at : mine, sizeof(float) * P);
        else if (in)
          for (int c = 0; c < P; c++) mine[c] = c < s.C ? at[c * step[1]] : 0.0f;
        else
          for (int c = 0; c < s.C; c++) at[c * step[1]] = mine[c];
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
      row(MEAN)[c] = s.stats[c];
      row(A)[c] = row(RSTD)[c] = s.stats[s.C + c];
      row(C_)[c] = row(SHIFT)[c] = -s.stats[c] * s.stats[s.C + c];
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
      const double mean = row(MEAN)[c], rstd = row(RSTD)[c];
      const double b = s.training ? -rstd * rstd * rstd * product / count : 0.0;
      row(B_)[c] = float(b);
      row(C_)[c] = float(s.training ? -rstd * sum / count - b * mean : 0.0);
    }
  }

  void run() {
    pack_weights();
    if (backward) statistics();
#pragma omp parallel num_threads(s.threads)
    {
      float* a = thread[omp_get_thread_num()];
      float *b = a + int64_t(pixels) * Q, *d = b + int64_t(pixels) * Q;
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++) {
        gather(n, a);
        pointwise(a, Q, weight, P, map(n), w, 1, h, w);
        float* to = partial + int64_t(n) * 2 * P;
        if (backward) {
          exchange(n, s.y, d, true);
          products(d, map(n), row(MEAN), P, pixels, to);
        } else if (s.training) {
          moments(map(n), P, pixels, to, to + P);
        }
      }
#pragma omp single
      backward ? gradient_coefficients() : statistics();
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++) {
        if (backward) exchange(n, s.y, d, true);
        // forward: B and C are zero, A z + C is the norm
        combine(backward ? d : map(n), map(n), row(A), P, P, pixels, d);
        if (!backward) {
          exchange(n, s.y, d, false);
          continue;
        }
        gather(n, a);
        if (s.gradients) pointwise_gradient(a, Q, d, P, pixels, weight_partial + n * int64_t(P) * Q);
        pointwise(d, P, turned, Q, b, w, 1, h, w);
        scatter(n, b, a);
      }
    }
    if (backward && s.gradients)
      each_weight([&](int i, int o, int64_t position) {
        float sum = 0.0f;
        for (int n = 0; n < s.B; n++) sum += weight_partial[n * int64_t(P) * Q + int64_t(i) * P + o];
        s.gradients[position] = sum;
      });
  }
};

template <class Runs, class What>
int run(const What& what, bool backward) {
  std::lock_guard<std::mutex> lock(arena.busy);
  try {
    Runs(what, backward).run();
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

}  // namespace

// All return 0, or 1 where there is no memory.
extern "C" {
int source_forward(const Source* what) { return run<Runner>(*what, false); }
int source_backward(const Source* what) { return run<Runner>(*what, true); }
int projection_forward(const Projection* what) { return run<Projector>(*what, false); }
int projection_backward(const Projection* what) { return run<Projector>(*what, true); }
}
