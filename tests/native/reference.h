// What the kernels compute, written out naively in double precision, with an estimate of rounding.

#pragma once

#include <cstddef>
#include <vector>

#include "interface.h"

// A value, and the variance of the error that float32 would have here, in units of 2^-24 squared.
// Every operation adds the rounding of its own result, as if all were independent (Higham and Mary
// 2019, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5)).
struct Number {
  double value = 0, noise = 0;
  Number(double value = 0, double noise = 0) : value(value), noise(noise) {}
};

inline Number operator+(const Number& a, const Number& b) {
  const double sum = a.value + b.value;
  return {sum, a.noise + b.noise + sum * sum};
}
inline Number operator*(const Number& a, const Number& b) {
  const double product = a.value * b.value, unit = 1.0 / (1 << 24), both = a.noise * b.noise;
  return {product, a.value * a.value * b.noise + b.value * b.value * a.noise + product * product +
                       both * unit * unit};
}
inline Number operator-(const Number& a) { return {-a.value, a.noise}; }
inline Number operator-(const Number& a, const Number& b) { return a + -b; }
inline Number& operator+=(Number& a, const Number& b) { return a = a + b; }

using std::size_t;
using Numbers = std::vector<Number>;

struct Map {  // (B, C, H, W)
  int B, C, H, W;
  Numbers values;

  Map(int B, int C, int H, int W) : B(B), C(C), H(H), W(W), values(size_t(B) * C * H * W) {}
  size_t index(int n, int c, int y, int x) const { return ((size_t(n) * C + c) * H + y) * W + x; }
  Number& operator()(int n, int c, int y, int x) { return values[index(n, c, y, x)]; }
  const Number& operator()(int n, int c, int y, int x) const { return values[index(n, c, y, x)]; }
};

// `stats` (of norms that take the batch's moments, else empty) and the gradients of gates, weights
// and scales and shifts (`affine`, empty without norms), per kind and laid out as `Kind` has them.
// A projection is one kind without gates. `dx` has all channels.
struct Expected {
  std::vector<Map> y;
  Map dx;
  std::vector<Numbers> stats, gates, weights, affine;
  Numbers factors;
};

// The sizes of the weights of one edge, in their order.
std::vector<int> weight_sizes(const Kind& kind, int C);
std::vector<int> weight_sizes(const Projection& p);

// The outputs, and the gradients where those of the outputs are `dy`: one an edge. `s.y` and `s.dx`
// hold what they are added to.
Expected expected(const Source& s, const Image* dy);
Expected expected(const Projection& p, const Image& dy);
