// Drives the kernels over sizes, strides and threads, and compares them with `reference.cpp`.
//
//   check_kernels N    every N-th case; 1 for all of them
//
// Ends with 1 at the first difference, which it names in one line.

#include <cstdio>
#include <cstdlib>

#include "calls.h"

namespace check {

// How many times the estimate an error may be. It takes errors as independent, but all pixels, up
// to 15 * 14 of 4 images, have those of a moment in common: less than 16 was seen. Where the
// output's gradient is one value, all round the same way, and what should cancel does not: 51 was
// seen.
double limit_of(const Case& c) { return c.dy >= EXPANDED ? 128 : 32; }

[[noreturn]] void fail(const Case& c, int threads, const std::string& what) {
  std::printf("%s; %d threads: %s\n", c.name().c_str(), threads, what.c_str());
  std::exit(1);
}

struct Worst {
  double noise = 0, relative = 0;  // of what is allowed; of the largest value in its array
  long values = 0, sharp = 0;      // `sharp`: told from what is 1e-3 of the largest value off
} worst;

struct Comparison {
  const Case& c;
  std::string what;
  double largest = 0;

  Comparison(const Case& c, std::string what, const Numbers& all) : c(c), what(std::move(what)) {
    for (const Number& v : all) largest = std::max(largest, std::abs(v.value));
  }

  void operator()(const Number& wanted, float found, size_t at) {
    const double allowed = limit_of(c) * std::ldexp(std::sqrt(wanted.noise), -24);
    const double error = std::abs(found - wanted.value);
    if (!(error <= allowed)) {
      char text[200];
      std::snprintf(text, sizeof text, " at %zu is %.9g, expected %.9g within %.2g", at, found,
                    wanted.value, allowed);
      fail(c, c.threads, what + text);
    }
    worst.values++;
    const bool sharp = allowed <= 1e-3 * largest;
    worst.sharp += sharp;
    if (error > 0) worst.noise = std::max(worst.noise, error / allowed);
    if (sharp) worst.relative = std::max(worst.relative, error / largest);
  }
};

void compare(const Case& c, const std::string& what, const Map& wanted, Tensor& found) {
  Comparison same(c, what, wanted.values);
  found.each([&](int n, int channel, int y, int x) {
    same(wanted(n, channel, y, x), found.at(n, channel, y, x), wanted.index(n, channel, y, x));
  });
  if (const int spoilt = found.spoilt())
    fail(c, c.threads, what + ": " + std::to_string(spoilt) + " values beside it are written to");
}

void compare(const Case& c, const std::string& what, const Numbers& wanted,
             const std::vector<float>& found) {
  if (wanted.size() != found.size()) fail(c, c.threads, what + " has another size");
  Comparison same(c, what, wanted);
  for (size_t i = 0; i < found.size(); i++) same(wanted[i], found[i], i);
}

bool equal(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || !std::memcmp(a.data(), b.data(), 4 * a.size()));
}

void compare_bits(const Case& c, int threads, const Results& a, const Results& b) {
  bool same = equal(a.dx.memory, b.dx.memory) && equal(a.factors, b.factors);
  for (size_t e = 0; e < a.y.size(); e++) same &= equal(a.y[e].memory, b.y[e].memory);
  for (size_t i = 0; i < a.stats.size(); i++)
    same &= equal(a.stats[i], b.stats[i]) && equal(a.gates[i], b.gates[i]) &&
            equal(a.weights[i], b.weights[i]) && equal(a.affine[i], b.affine[i]);
  if (!same) fail(c, threads, "other bits than with " + std::to_string(c.threads));
}

void check(const Case& c) {
  Problem problem(c);
  Results found = run(problem, c.threads);
  Results given = problem.results();
  Called what(problem, given, 1);
  Expected all = c.projection ? expected(what.projection, what.dy[0])
                              : expected(what.source, what.dy.data());
  for (int e = 0; e < c.E; e++) compare(c, "y of edge " + std::to_string(e), all.y[e], found.y[e]);
  compare(c, "dx", all.dx, found.dx);
  if (c.k > 1) compare(c, "gradients of the factors", all.factors, found.factors);
  for (size_t i = 0; i < found.stats.size(); i++) {
    const std::string of = " of kind " + std::to_string(i);
    if (!c.projection) compare(c, "gradients of the gates" + of, all.gates[i], found.gates[i]);
    if (!found.weights[i].empty())
      compare(c, "gradients of the weights" + of, all.weights[i], found.weights[i]);
    if (!found.affine[i].empty())
      compare(c, "gradients of scale and shift" + of, all.affine[i], found.affine[i]);
    if (c.training) compare(c, "moments" + of, all.stats[i], found.stats[i]);
    else if (!equal(found.stats[i], problem.stats[i])) fail(c, c.threads, "moments are changed");
  }
  const int others = 1 + (c.threads + c.number % 3) % 4;
  compare_bits(c, others, found, run(problem, others));
}

int run_cases(int step) {
  int number = 0, run = 0;
  auto next = [&](int C, int stride, int kernel, int H, int W, int E, int k) {
    // One out of `step` that follow one another, so all channels come; drawn, so that no loop keeps
    // step with it.
    if (++number % step != Random(unsigned(number / step)).below(step)) return;
    check(case_of(number, C, stride, kernel, H, W, E, k));
    run++;
  };
  for (int C = 1; C <= 20; C++)
    for (int stride : {1, 2})
      for (int kernel : {3, 5}) {
        for (int H = 1; H <= 9; H++)
          for (int W = 1; W <= 7; W++) next(C, stride, kernel, H, W, 0, 0);
        for (int E = 1; E <= 14; E++)
          for (int k : {1, 2, 4}) next(C, stride, kernel, 0, 0, E, k);
        for (int W = 8; W <= 20; W++)  // whole tiles of a row, and sums that are cut into parts
          next(C, stride, kernel, 29 - W, W, 1 + W % 2, 0);
      }
  return run;
}

}  // namespace check

int main(int count, char** words) {
  const int step = count == 2 ? std::atoi(words[1]) : 0;
  if (step < 1) return std::printf("usage: check_kernels N, for every N-th case\n"), 2;
  const int run = check::run_cases(step);
  const auto& worst = check::worst;
  std::printf("%d cases, %d lanes: largest error %.2g of what rounding may add, "
              "%.2g of the largest value; %.2f%% of %ld values compared to 1e-3 of it or less\n",
              run, LANES, worst.noise, worst.relative,
              100.0 * worst.sharp / worst.values, worst.values);
}
