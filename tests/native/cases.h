// The cases: sizes, kinds and arrangements, the same on every machine.

#pragma once

#include <algorithm>

#include "tensors.h"

namespace check {

struct Case {
  int number, C, E, B, H, W, stride, k, threads;
  bool training, weights, coarse, projection, affine, keep, adds_dx;
  bool kept;                  // what convolutions give, for the backward pass
  std::vector<int32_t> adds;  // of each edge
  int inputs, parts;  // of a projection
  std::vector<Kind> kinds;
  Arrangement x, y, dx, dy;

  std::string name() const;
};

std::string Case::name() const {
  static const char* types[] = {"separable", "max pool",   "avg pool",
                                "identity",  "factorised", "dense"};
  char text[400];
  std::snprintf(text, sizeof text, "case %d: C=%d E=%d B=%d H=%d W=%d stride=%d k=%d%s%s%s%s, "
                "x %s, y %s, dx %s, dy %s;", number, C, E, B, H, W, stride, k,
                training ? " training" : "", weights ? "" : " gates only", affine ? " affine" : "",
                keep ? " drop-path" : "", NAMES[x], NAMES[y], NAMES[dx], NAMES[dy]);
  std::string found = text;
  if (projection) return found + " projection of " + std::to_string(inputs) + " channels in " +
                         std::to_string(parts);
  for (const Kind& kind : kinds) {
    found += std::string(" ") + types[kind.type];
    if (kind.type == SEPARABLE)
      found += " x" + std::to_string(kind.halves) + " kernel " + std::to_string(kind.kernel) +
               " dilation " + std::to_string(kind.dilation);
    if (kind.type == DENSE) found += " kernel " + std::to_string(kind.kernel);
    if (!kind.norm) found += " without norm";
    found += ",";
  }
  return found;
}

// A dilation of 11 is larger than every map.
constexpr int DILATIONS[] = {1, 2, 3, 11};

Kind draw_kind(Random& random, int kernel, int stride, int C) {
  std::vector<Type> types = {SEPARABLE, MAX_POOL, AVG_POOL};
  if (stride == 1) types.insert(types.end(), {IDENTITY, DENSE});
  if (stride == 2 && C > 1) types.push_back(FACTORISED);
  Kind kind{};
  kind.type = types[random.below(int(types.size()))];
  kind.norm = 1, kind.halves = 0, kind.kernel = kind.dilation = 1;
  if (kind.type == SEPARABLE) {
    kind.kernel = kernel, kind.halves = 1 + random.below(2);
    kind.dilation = DILATIONS[random.below(4)];
  } else if (kind.type == DENSE) {
    kind.kernel = random.chance(2) ? 1 : 3;
  } else if (kind.type == FACTORISED) {
    kind.halves = 1;
  } else {
    kind.norm = random.below(2);
  }
  return kind;
}

Arrangement draw_arrangement(Random& random, bool gradient = false) {
  return Arrangement(random.below(gradient ? ARRANGEMENTS : EXPANDED));
}

// Sizes that are 0 are drawn, like all that is not given.
Case case_of(int number, int C, int stride, int kernel, int H, int W, int E, int k) {
  Random random(7919u * unsigned(number) + 1);
  Case c{};
  c.number = number, c.C = C, c.stride = stride;
  const bool largest = random.chance(4);  // more often than its share: a kernel's loops are longest
  c.H = H ? H : largest ? 9 : 1 + random.below(9), c.W = W ? W : largest ? 7 : 1 + random.below(7);
  c.E = E ? E : 1 + random.below(14), c.k = k ? k : 1 << random.below(3);
  c.threads = 1 + random.below(4), c.training = !random.chance(4), c.weights = !random.chance(4);
  c.coarse = random.chance(4), c.B = 1 + random.below(4);
  if (c.H <= stride && c.W <= stride) c.B = std::max(c.B, 2);  // has a variance
  for (int more = random.below(4); more >= 0; more--)
    c.kinds.push_back(draw_kind(random, kernel, stride, C));
  c.x = draw_arrangement(random), c.y = draw_arrangement(random);
  c.affine = random.chance(2);
  c.dx = draw_arrangement(random), c.dy = draw_arrangement(random, true);
  if (random.chance(6)) {
    c.projection = true, c.kinds.clear(), c.E = c.k = 1, c.inputs = 1 + random.below(40);
    c.parts = stride == 2 && C > 1 ? 1 + random.below(2) : 1;
  } else {
    c.keep = c.k == 1 && random.chance(2);
  }
  for (int e = 0; e < c.E; e++) c.adds.push_back(!c.projection && random.chance(2));
  c.adds_dx = !c.projection && random.chance(2);
  c.kept = random.chance(2);
  return c;
}

}  // namespace check
