// The kinds of candidates as layers, and what a source and a projection make of them.

#include "layers.h"

namespace {

Map read(const Image& image, int B, int first, int C, int H, int W) {
  Map found(B, C, H, W);
  for (int n = 0; n < B; n++)
    for (int c = 0; c < C; c++)
      for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
          found(n, c, y, x) = double(
              image.data[n * image.strides[0] + (first + c) * image.strides[1] +
                         y * image.strides[2] + x * image.strides[3]]);
  return found;
}

Step relu() { return {Step::RELU, {}, {}, false, 1}; }
Step convolution(std::vector<Filter> filters) {
  return {Step::CONVOLUTION, std::move(filters), {}, false, 1};
}

// `stats` and `affine`, which may be null, begin at the first channel; their rows are `step` apart.
Step norm_step(float eps, bool training, const float* stats, const float* affine, int64_t step,
               int C) {
  Norm norm;
  norm.eps = eps, norm.training = training;
  if (affine) norm.scale = affine, norm.shift = affine + step;
  for (int c = 0; c < C && !training; c++) {
    norm.mean.push_back(double(stats[c]));
    norm.rstd.push_back(double(stats[step + c]));
  }
  return {Step::NORM, {}, norm, false, 1};
}

Step norm_of(const Source& s, const Kind& kind, int half, int e) {
  const int64_t EC = int64_t(s.E) * s.C;
  const float* affine = kind.affine ? kind.affine + half * 2 * EC + e * s.C : nullptr;
  return norm_step(kind.eps, s.training, kind.stats + half * 3 * EC + e * s.C, affine, EC, s.C);
}

std::vector<Filter> factorised(const float* first, const float* second, int C, int inputs) {
  return {{first, C / 2, inputs, 1, 2, 1, 0, false, {}},
          {second, C - C / 2, inputs, 1, 2, 1, -1, false, {}}};
}

Chain chain_of(const Source& s, const Kind& kind, int e) {
  Chain chain;
  std::vector<Step>& steps = chain.steps;
  if (kind.type == SEPARABLE)
    for (int half = 0; half < kind.halves; half++) {
      const int pad = kind.dilation * (kind.kernel - 1) / 2, stride = half ? 1 : s.stride;
      const float* const* weights = kind.weights + 2 * half * s.E + e;
      steps.push_back(relu());
      steps.push_back(convolution(
          {{weights[0], s.C, 1, kind.kernel, stride, kind.dilation, pad, true, {}}}));
      steps.push_back(convolution({{weights[s.E], s.C, s.C, 1, 1, 1, 0, false, {}}}));
      steps.push_back(norm_of(s, kind, half, e));
    }
  if (kind.type == FACTORISED)
    steps = {relu(), convolution(factorised(kind.weights[e], kind.weights[s.E + e], s.C, s.C))};
  if (kind.type == DENSE)
    steps = {relu(), convolution({{kind.weights[e], s.C, s.C, kind.kernel, 1, 1, kind.kernel / 2,
                                   false, {}}})};
  if (kind.type == MAX_POOL || kind.type == AVG_POOL)
    steps = {{Step::POOL, {}, {}, kind.type == MAX_POOL, s.stride}};
  if (kind.type != SEPARABLE && kind.norm) steps.push_back(norm_of(s, kind, 0, e));
  return chain;
}

// Copies the statistics and gradients of an edge's chain to where `Kind` has them.
void collect(const Chain& chain, int e, int E, int C, int o, Expected& all) {
  size_t first = 0, half = 0;
  auto put = [](const Numbers& from, Numbers& to, size_t at) {
    to.resize(std::max(to.size(), at + from.size()));
    std::copy(from.begin(), from.end(), to.begin() + at);
  };
  for (const Step& step : chain.steps) {
    for (const Filter& w : step.filters) {
      put(w.gradient, all.weights[o], first + e * w.gradient.size());
      first += E * w.gradient.size();
    }
    if (step.type != Step::NORM) continue;
    const Norm& norm = step.norm;
    put(norm.scale_gradient, all.affine[o], half * 2 * E * C + e * C);
    put(norm.shift_gradient, all.affine[o], (half * 2 + 1) * E * C + e * C);
    int row = 0;
    if (norm.training)
      for (const Numbers* each : {&norm.mean, &norm.rstd, &norm.variance})
        put(*each, all.stats[o], (half * 3 + row++) * E * C + e * C);
    half++;
  }
}

// Per output of a channel that bypasses, the position in x: its own, or that of the first maximum
// of the 2x2 window.
size_t bypassed(const Source& s, const Map& x, int n, int c, int i, int j) {
  size_t found = x.index(n, c, i * s.stride, j * s.stride);
  for (int r = i * s.stride; r < std::min(s.H, (i + 1) * s.stride); r++)
    for (int q = j * s.stride; q < std::min(s.W, (j + 1) * s.stride); q++)
      if (x(n, c, r, q).value > x.values[found].value) found = x.index(n, c, r, q);
  return found;
}

void run_bypass(const Source& s, const Map& x, const std::vector<Map>& dy, Expected& all) {
  for (int e = 0; e < s.E; e++)
    for (int n = 0; n < s.B; n++)
      for (int c = s.C; c < x.C; c++)
        for (int i = 0; i < dy[e].H; i++)
          for (int j = 0; j < dy[e].W; j++) {
            const int place = c % s.C * s.k + c / s.C;
            const size_t from = bypassed(s, x, n, c, i, j);
            const Number factor = double(s.factors[e]), &d = dy[e](n, place, i, j);
            all.y[e](n, place, i, j) += factor * x.values[from];
            all.dx.values[from] += factor * d;
            all.factors[e] += x.values[from] * d;
          }
}

// Runs one candidate on one edge and adds its results to all.
void run_candidate(const Source& s, int o, int e, const Map& x, const Map& dy, Expected& all) {
  Chain chain = chain_of(s, s.kind[o], e);
  const Number gate = double(s.kind[o].gates[e]);
  const Map z = forward(chain, x);
  Map d(z.B, z.C, z.H, z.W);
  for (int n = 0; n < z.B; n++)
    for (int c = 0; c < z.C; c++)
      for (int i = 0; i < z.H; i++)
        for (int j = 0; j < z.W; j++) {
          const Number keep = s.keep ? double(s.keep[n * s.E + e]) : 1.0;
          const Number theirs = keep * dy(n, c * s.k, i, j);
          all.y[e](n, c * s.k, i, j) += keep * (gate * z(n, c, i, j));
          all.gates[o][e] += theirs * z(n, c, i, j);
          d(n, c, i, j) = gate * theirs;
        }
  d = backward(chain, std::move(d));
  for (int n = 0; n < x.B; n++)
    for (int c = 0; c < x.C; c++)
      for (int i = 0; i < x.H; i++)
        for (int j = 0; j < x.W; j++) all.dx(n, c, i, j) += d(n, c, i, j);
  collect(chain, e, s.E, s.C, o, all);
}

}  // namespace

std::vector<int> weight_sizes(const Kind& kind, int C) {
  std::vector<int> found;
  if (kind.type == FACTORISED) found = {C / 2 * C, (C - C / 2) * C};
  if (kind.type == DENSE) found = {C * C * kind.kernel * kind.kernel};
  if (kind.type == SEPARABLE)
    for (int half = 0; half < kind.halves; half++)
      found.insert(found.end(), {C * kind.kernel * kind.kernel, C * C});
  return found;
}

std::vector<int> weight_sizes(const Projection& p) {
  if (p.parts == 1) return {p.C * p.inputs};
  return {p.C / 2 * p.inputs, (p.C - p.C / 2) * p.inputs};
}

Expected expected(const Source& s, const Image* gradients) {
  const int h = halved(s.H, s.stride), w = halved(s.W, s.stride), all = s.C * s.k;
  const Map x = read(s.x, s.B, 0, all, s.H, s.W), mixed = read(s.x, s.B, 0, s.C, s.H, s.W);
  Expected found{std::vector<Map>(s.E, Map(s.B, all, h, w)), Map(s.B, all, s.H, s.W),
                 std::vector<Numbers>(s.kinds), std::vector<Numbers>(s.kinds, Numbers(s.E)),
                 std::vector<Numbers>(s.kinds), std::vector<Numbers>(s.kinds), Numbers(s.E)};
  std::vector<Map> dy;
  for (int e = 0; e < s.E; e++) {
    dy.push_back(read(gradients[e], s.B, 0, all, h, w));
    if (s.adds[e]) found.y[e] = read(s.y[e], s.B, 0, all, h, w);
  }
  if (s.adds_dx) found.dx = read(s.dx, s.B, 0, all, s.H, s.W);
  run_bypass(s, x, dy, found);
  for (int o = 0; o < s.kinds; o++)
    for (int e = 0; e < s.E; e++) run_candidate(s, o, e, mixed, dy[e], found);
  return found;
}

Expected expected(const Projection& p, const Image& gradient) {
  Chain chain;
  std::vector<Filter> filters = {{p.weights[0], p.C, p.inputs, 1, p.stride, 1, 0, false, {}}};
  if (p.parts == 2) filters = factorised(p.weights[0], p.weights[1], p.C, p.inputs);
  chain.steps = {relu(), convolution(filters),
                 norm_step(p.eps, p.training, p.stats, p.affine, p.C, p.C)};
  const Map y = forward(chain, read(p.x, p.B, 0, p.inputs, p.H, p.W));
  Map dx = backward(chain, read(gradient, p.B, 0, p.C, y.H, y.W));
  Expected found{{y}, dx, std::vector<Numbers>(1), {}, std::vector<Numbers>(1),
                 std::vector<Numbers>(1), {}};
  collect(chain, 0, 1, p.C, 0, found);
  return found;
}
