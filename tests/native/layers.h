// The layers of the candidates, one after another: forward, backward, moments. Simple loops.

#pragma once

#include <algorithm>
#include <cmath>

#include "reference.h"

namespace {

// A ReLU whose input may be on the other side of zero in float32 may pass its gradient, or not.
constexpr double CERTAIN = 20;  // times the standard deviation of the error

struct Filter {  // of a convolution without bias
  const float* weight;  // (outputs, inputs, K, K)
  int outputs, inputs, K, stride, dilation, pad;
  bool depthwise;
  Numbers gradient;
};

struct Norm {
  float eps;
  bool training;
  Numbers mean, rstd, variance;  // (C), given where not training
  const float *scale = nullptr, *shift = nullptr;  // (C), or none
  Numbers scale_gradient, shift_gradient;
};

struct Step {
  enum { RELU, CONVOLUTION, NORM, POOL } type;
  std::vector<Filter> filters;  // their outputs lie side by side
  Norm norm;
  bool largest;
  int stride;
};

struct Chain {
  std::vector<Step> steps;
  std::vector<Map> states;  // the input, and what follows each step
};

int halved(int side, int stride) { return (side + stride - 1) / stride; }

// f(position in y, in x, in the weights) of all products.
template <class F>
void each_product(const Filter& w, const Map& x, const Map& y, int first, F f) {
  for (int n = 0; n < y.B; n++)
    for (int o = 0; o < w.outputs; o++)
      for (int row = 0; row < y.H; row++)
        for (int column = 0; column < y.W; column++)
          for (int i = 0; i < w.inputs; i++)
            for (int t = 0; t < w.K * w.K; t++) {
              const int r = row * w.stride + t / w.K * w.dilation - w.pad;
              const int c = column * w.stride + t % w.K * w.dilation - w.pad;
              if (r >= 0 && r < x.H && c >= 0 && c < x.W)
                f(y.index(n, first + o, row, column), x.index(n, w.depthwise ? o : i, r, c),
                  (o * w.inputs + i) * w.K * w.K + t);
            }
}

// f(position in y, positions in x) of all 3x3 windows, clipped at the border.
template <class F>
void each_window(int stride, const Map& x, const Map& y, F f) {
  std::vector<size_t> window;
  for (int n = 0; n < y.B; n++)
    for (int c = 0; c < y.C; c++)
      for (int i = 0; i < y.H; i++)
        for (int j = 0; j < y.W; j++) {
          window.clear();
          for (int r = i * stride - 1; r <= i * stride + 1; r++)
            for (int s = j * stride - 1; s <= j * stride + 1; s++)
              if (r >= 0 && r < x.H && s >= 0 && s < x.W) window.push_back(x.index(n, c, r, s));
          f(y.index(n, c, i, j), window);
        }
}

size_t first_largest(const Map& x, const std::vector<size_t>& window) {
  return *std::max_element(window.begin(), window.end(), [&](size_t a, size_t b) {
    return x.values[a].value < x.values[b].value;
  });
}

template <class F>  // f(position) of all values of a channel
void each_of_channel(const Map& z, int c, F f) {
  for (int n = 0; n < z.B; n++)
    for (int i = 0; i < z.H * z.W; i++) f(z.index(n, c, 0, 0) + i);
}

Number inverse_root(const Number& x) {
  const double root = 1 / std::sqrt(x.value);
  return {root, root * root * (x.noise / (4 * x.value * x.value) + 1)};
}

void take_moments(const Map& z, Norm& norm) {
  const double count = double(z.B) * z.H * z.W;
  for (int c = 0; c < z.C; c++) {
    Number sum, squares;
    each_of_channel(z, c, [&](size_t at) { sum += z.values[at]; });
    const Number mean = sum * (1 / count);
    each_of_channel(z, c, [&](size_t at) {
      const Number d = z.values[at] - mean;
      squares += d * d;
    });
    norm.mean.push_back(mean);
    norm.rstd.push_back(inverse_root(squares * (1 / count) + double(norm.eps)));
    norm.variance.push_back(squares * (1 / (count - 1)));
  }
}

Number scale_of(const Norm& norm, int c) { return norm.scale ? double(norm.scale[c]) : 1.0; }

// Not (z - mean) * rstd: a kernel multiplies and adds, and its rounding is to be estimated.
Number normed(const Norm& norm, int c, const Number& z) {
  return z * norm.rstd[c] - norm.mean[c] * norm.rstd[c];
}

Map forward(Step& step, const Map& x) {
  if (step.type == Step::CONVOLUTION) {
    int C = 0, first = 0;
    for (const Filter& w : step.filters) C += w.outputs;
    const int stride = step.filters[0].stride;
    Map y(x.B, C, halved(x.H, stride), halved(x.W, stride));
    for (const Filter& w : step.filters) {
      each_product(w, x, y, first, [&](size_t to, size_t from, int t) {
        y.values[to] += x.values[from] * double(w.weight[t]);
      });
      first += w.outputs;
    }
    return y;
  }
  if (step.type == Step::POOL) {
    Map y(x.B, x.C, halved(x.H, step.stride), halved(x.W, step.stride));
    each_window(step.stride, x, y, [&](size_t to, const std::vector<size_t>& window) {
      if (step.largest) return void(y.values[to] = x.values[first_largest(x, window)]);
      for (size_t from : window) y.values[to] += x.values[from];
      y.values[to] = y.values[to] * (1.0 / window.size());
    });
    return y;
  }
  Map y = x;
  if (step.type == Step::RELU)
    for (Number& v : y.values) v = v.value > 0 ? v : Number(0, v.noise);
  if (step.type != Step::NORM) return y;
  if (step.norm.training) take_moments(x, step.norm);
  for (int c = 0; c < x.C; c++)
    each_of_channel(x, c, [&](size_t at) {
      y.values[at] = normed(step.norm, c, x.values[at]) * scale_of(step.norm, c);
      if (step.norm.shift) y.values[at] += double(step.norm.shift[c]);
    });
  return y;
}

void norm_backward(Norm& norm, const Map& z, const Map& dy, Map& dz) {
  const double count = double(z.B) * z.H * z.W;
  for (int c = 0; c < z.C; c++) {
    Number sum, product;
    each_of_channel(z, c, [&](size_t at) {
      sum += dy.values[at];
      product += dy.values[at] * normed(norm, c, z.values[at]);
    });
    norm.scale_gradient.push_back(product);
    norm.shift_gradient.push_back(sum);
    const Number factor = norm.rstd[c] * scale_of(norm, c);
    each_of_channel(z, c, [&](size_t at) {
      dz.values[at] = factor * dy.values[at];
      if (!norm.training) return;
      const Number along = normed(norm, c, z.values[at]) * (product * (1 / count));
      dz.values[at] = dz.values[at] - factor * (sum * (1 / count)) - factor * along;
    });
  }
}

Map backward(Step& step, const Map& x, const Map& dy) {
  Map dx(x.B, x.C, x.H, x.W);
  int first = 0;
  for (Filter& w : step.filters) {
    w.gradient.resize(size_t(w.outputs) * w.inputs * w.K * w.K);
    each_product(w, x, dy, first, [&](size_t to, size_t from, int t) {
      dx.values[from] += dy.values[to] * double(w.weight[t]);
      w.gradient[t] += dy.values[to] * x.values[from];
    });
    first += w.outputs;
  }
  if (step.type == Step::NORM) norm_backward(step.norm, x, dy, dx);
  if (step.type == Step::POOL)
    each_window(step.stride, x, dy, [&](size_t to, const std::vector<size_t>& window) {
      if (step.largest) dx.values[first_largest(x, window)] += dy.values[to];
      else for (size_t from : window) dx.values[from] += dy.values[to] * (1.0 / window.size());
    });
  if (step.type == Step::RELU)
    for (size_t i = 0; i < x.values.size(); i++) {
      const Number &v = x.values[i], &d = dy.values[i];
      dx.values[i] = v.value > 0 ? d : Number(0);
      if (v.noise > 0 && std::abs(v.value) < CERTAIN * std::ldexp(std::sqrt(v.noise), -24))
        dx.values[i].noise += d.noise + std::ldexp(d.value * d.value, 48);
    }
  return dx;
}

Map forward(Chain& chain, const Map& x) {
  chain.states = {x};
  for (Step& step : chain.steps) chain.states.push_back(forward(step, chain.states.back()));
  return chain.states.back();
}

Map backward(Chain& chain, Map d) {
  for (size_t i = chain.steps.size(); i-- > 0;) d = backward(chain.steps[i], chain.states[i], d);
  return d;
}

}  // namespace
