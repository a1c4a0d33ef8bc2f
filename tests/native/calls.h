// What a case hands over to the kernels, and what comes back.

#pragma once

#include "kernels.cpp"

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "cases.h"

namespace check {

struct Results {
  std::vector<Tensor> y;
  Tensor dx;
  std::vector<std::vector<float>> stats, gates, weights, affine;
  std::vector<float> factors;
};

int norms_of(const Kind& kind) { return kind.norm ? std::max(1, kind.halves) : 0; }

struct Problem {
  Case c;
  int h, w;
  Random random;
  Tensor x;
  std::vector<Tensor> dy;
  std::vector<std::vector<int>> sizes;                 // of the weights of an edge, per kind
  std::vector<std::vector<std::vector<float>>> weights;  // per kind, per convolution and edge
  std::vector<std::vector<float>> stats, gates, affine;
  std::vector<float> factors, keep;
  std::vector<std::vector<const float*>> pointers;

  explicit Problem(const Case& given)
      : c(given), h((c.H - 1) / c.stride + 1), w((c.W - 1) / c.stride + 1), random(c.number),
        x(c.x, c.B, c.projection ? c.inputs : c.C * c.k, c.H, c.W),
        factors(random.vector(c.E, -1, 1)) {
    random.fill(x, c.coarse);
    if (c.keep)  // an image is dropped, or weighs more
      for (int i = 0; i < c.B * c.E; i++) keep.push_back(random.below(3) ? 1.5f : 0.0f);
    for (int e = 0; e < c.E; e++) {
      dy.emplace_back(c.dy, c.B, c.C * c.k, h, w);
      random.fill(dy.back(), false);
    }
    if (c.projection) add(weight_sizes(projection()), 1, c.inputs);
    for (const Kind& kind : c.kinds) add(weight_sizes(kind, c.C), norms_of(kind), c.C);
  }

  // What belongs to one kind; the weights keep the variance of what they see about 1.
  void add(const std::vector<int>& each, int norms, int inputs) {
    sizes.push_back(each);
    weights.emplace_back();
    pointers.emplace_back();
    for (int size : each)
      for (int e = 0; e < c.E; e++) {
        const float most = 1.5f / std::sqrt(float(std::max(1, std::min(size / c.C, inputs))));
        weights.back().push_back(random.vector(size, -most, most));
        pointers.back().push_back(weights.back().back().data());
      }
    stats.push_back(random.vector(size_t(norms) * 3 * c.E * c.C, 0.25f, 2.0f));
    affine.push_back(random.vector(c.affine ? size_t(norms) * 2 * c.E * c.C : 0, -1, 1));
    gates.push_back(random.vector(c.E, -1, 1));
  }

  Projection projection() const {
    Projection p{};
    p.B = c.B, p.inputs = c.inputs, p.H = c.H, p.W = c.W, p.C = c.C, p.stride = c.stride;
    p.parts = c.parts, p.training = c.training, p.eps = 1e-5f;
    return p;
  }

  Results results() const {
    Results found{{}, Tensor(c.dx, c.B, x.C, c.H, c.W), stats, {}, {}, {}, {}};
    const float nan = std::nanf("");
    Random before(c.number + 1);
    if (c.adds_dx) before.fill(found.dx, false);
    for (int e = 0; e < c.E; e++) {
      found.y.emplace_back(c.y, c.B, c.C * c.k, h, w);
      if (c.adds[e]) before.fill(found.y[e], false);
    }
    for (const auto& each : sizes) {
      int64_t total = 0;
      for (int size : each) total += size;
      found.gates.emplace_back(c.E, nan);
      found.weights.emplace_back(c.weights ? total * c.E : 0, nan);
    }
    for (const auto& each : affine) found.affine.emplace_back(c.weights ? each.size() : 0, nan);
    found.factors.assign(c.E, nan);
    return found;
  }
};

std::vector<Image> images(std::vector<Tensor>& tensors) {
  std::vector<Image> found;
  for (Tensor& tensor : tensors) found.push_back(tensor.image());
  return found;
}

float* data_of(std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

// What was left in the arena by other calls must not matter: here it is NaN.
void spoil_arena() {
  ASAN_UNPOISON_MEMORY_REGION(arena.memory, arena.size);
  if (arena.memory) std::memset(arena.memory, 0xff, arena.size);
}

void call(int status) {
  if (status) std::printf("no memory\n"), std::exit(1);
}

// So many floats, NaN at first.
float* aligned(size_t floats) {
  float* found = static_cast<float*>(std::aligned_alloc(64, (floats * 4 + 63) / 64 * 64));
  std::fill(found, found + floats, std::nanf(""));
  return found;
}

// Memory for the maps that a kind keeps.
float* kept_maps(const Problem& p, const Kind& kind) {
  const size_t maps = kind.type == DENSE ? 1 : 2 * kind.halves;
  return aligned(maps * p.c.B * p.h * p.w * map_lanes(p.c.C, p.c.E));
}

struct Called {  // the structures that a call needs, pointing into a problem and its results
  std::vector<Kind> kinds;
  std::vector<Image> y, dy;
  std::vector<std::unique_ptr<float, void (*)(void*)>> kept;
  Source source{};
  Projection projection{};

  Called(Problem& p, Results& r, int threads) : kinds(p.c.kinds), y(images(r.y)), dy(images(p.dy)) {
    const Case& c = p.c;
    for (size_t i = 0; i < kinds.size(); i++) {
      kinds[i].eps = 1e-5f;
      kinds[i].weights = p.pointers[i].data();
      kinds[i].stats = r.stats[i].data();
      kinds[i].gates = p.gates[i].data();
      kinds[i].gate_gradients = r.gates[i].data();
      kinds[i].gradients = data_of(r.weights[i]);
      kinds[i].affine = data_of(p.affine[i]);
      kinds[i].affine_gradients = data_of(r.affine[i]);
      if ((kinds[i].type == DENSE || kinds[i].type == SEPARABLE) && c.kept) {
        kept.emplace_back(kept_maps(p, kinds[i]), std::free);
        kinds[i].kept = kept.back().get();
      }
    }
    source.B = c.B, source.C = c.C, source.H = c.H, source.W = c.W, source.E = c.E;
    source.stride = c.stride, source.kinds = int(kinds.size()), source.training = c.training;
    source.threads = threads, source.k = c.k, source.kind = kinds.data();
    source.factors = p.factors.data(), source.factor_gradients = r.factors.data();
    source.keep = data_of(p.keep), source.adds = c.adds.data(), source.adds_dx = c.adds_dx;
    source.x = p.x.image(), source.dx = r.dx.image(), source.y = y.data();
    if (!c.projection) return;
    projection = p.projection();
    projection.threads = threads;
    for (int i = 0; i < c.parts; i++) projection.weights[i] = p.pointers[0][i];
    projection.stats = r.stats[0].data();
    projection.gradients = data_of(r.weights[0]);
    projection.affine = data_of(p.affine[0]);
    projection.affine_gradients = data_of(r.affine[0]);
    if (c.kept) {
      kept.emplace_back(aligned(size_t(c.B) * p.h * p.w * map_lanes(c.C, 1)), std::free);
      projection.kept = kept.back().get();
    }
    projection.x = source.x, projection.dx = source.dx, projection.y = y[0];
  }
};

Results run(Problem& p, int threads) {
  Results found = p.results();
  Called what(p, found, threads);
  spoil_arena();
  call(p.c.projection ? projection_forward(&what.projection) : source_forward(&what.source));
  what.source.y = what.dy.data();
  what.projection.y = what.dy[0];
  spoil_arena();
  call(p.c.projection ? projection_backward(&what.projection) : source_backward(&what.source));
  return found;
}

}  // namespace check
