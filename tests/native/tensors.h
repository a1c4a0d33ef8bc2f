// Tensors as callers hand them over: any strides, in heap blocks of exactly the bytes they address.

#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "reference.h"

namespace check {

enum Arrangement { FIRST, LAST, FIRST_VIEW, LAST_VIEW, TURNED, EXPANDED, ONE_VALUE, ARRANGEMENTS };
constexpr const char* NAMES[] = {"channels first", "channels last", "view of channels first",
                                 "view of channels last", "columns first", "a pixel expanded",
                                 "a value expanded"};

// (B, C, H, W) in some arrangement. What a view leaves out is NaN: a kernel must neither use it
// nor write to it.
struct Tensor {
  int B, C, H, W;
  int64_t first = 0;
  std::array<int64_t, 4> strides;
  std::vector<float> memory;

  Tensor(Arrangement how, int B, int C, int H, int W) : B(B), C(C), H(H), W(W) {
    const bool view = how == FIRST_VIEW || how == LAST_VIEW;
    const int64_t c = C + 3 * view, h = H + view, w = W + 2 * view;
    if (how == FIRST || how == FIRST_VIEW) strides = {c * h * w, h * w, w, 1};
    if (how == LAST || how == LAST_VIEW) strides = {h * w * c, 1, w * c, c};
    if (how == TURNED) strides = {c * h * w, h * w, 1, h};
    if (how == EXPANDED) strides = {0, 1, 0, 0};
    if (how == ONE_VALUE) strides = {0, 0, 0, 0};
    if (view) first = 1;  // also at no more than the alignment of a float
    const int sizes[] = {B, C, H, W};
    int64_t last = first;
    for (int i = 0; i < 4; i++) last += (sizes[i] - 1) * strides[i];
    memory.assign(last + 1, std::nanf(""));
  }

  Image image() {
    return {memory.data() + first, {strides[0], strides[1], strides[2], strides[3]}};
  }
  float& at(int n, int c, int y, int x) {
    return memory[first + n * strides[0] + c * strides[1] + y * strides[2] + x * strides[3]];
  }

  template <class F>
  void each(F f) {
    for (int n = 0; n < B; n++)
      for (int c = 0; c < C; c++)
        for (int y = 0; y < H; y++)
          for (int x = 0; x < W; x++) f(n, c, y, x);
  }

  // How many values that do not belong to the tensor have been written to.
  int spoilt() {
    std::vector<float> left = memory;
    each([&](int n, int c, int y, int x) {
      left[&at(n, c, y, x) - memory.data()] = std::nanf("");
    });
    int found = 0;
    for (float value : left) found += value == value;
    return found;
  }
};

// The same numbers on every machine.
struct Random {
  std::mt19937 bits;
  explicit Random(unsigned seed) : bits(seed) {}

  int below(int n) { return int(bits() % unsigned(n)); }
  bool chance(int one_in) { return below(one_in) == 0; }
  float between(float low, float high) {
    return low + (high - low) * float(bits() >> 8) / float(1 << 24);
  }
  std::vector<float> vector(size_t size, float low, float high) {
    std::vector<float> found(size);
    for (float& value : found) value = between(low, high);
    return found;
  }
  // Values in [-1, 1]; coarse ones are multiples of 1/4: many equal, many exactly zero.
  void fill(Tensor& tensor, bool coarse) {
    tensor.each([&](int n, int c, int y, int x) {
      const float value = between(-1, 1);
      tensor.at(n, c, y, x) = coarse ? std::round(4 * value) / 4 : value;
    });
  }
};

}  // namespace check
