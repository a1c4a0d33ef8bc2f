// Candidates of the edges that leave one state, forward and backward, in float32 on the CPU.
//
// Layout: maps are channels last, in blocks of P lanes (a multiple of LANES). A block holds one
// edge, or, where an edge has fewer than LANES channels, several side by side; unused lanes are
// zero.
// A thread takes whole images. Between batch norms every image is on its own, and sums over the
// batch are added in the order of the images, so results do not depend on the number of threads.

#include "projection.h"
#include "source.h"

namespace {

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

extern "C" {
// Whether this processor has the instructions that the library was built with.
int runs_here() {
  bool has = true;
#if defined(__AVX512F__)
  has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
  has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#elif defined(__AVX__)
  has = __builtin_cpu_supports("avx");
#elif defined(__SSE4_2__)
  has = __builtin_cpu_supports("sse4.2");
#endif
  return has;
}

int lanes() { return LANES; }  // of a vector
int map_lanes(int C, int E) { return Layout::lanes_of(C, E); }  // of the maps of E edges

// All others return 0, or 1 where there is no memory.
int source_forward(const Source* what) { return run<Runner>(*what, false); }
int source_backward(const Source* what) { return run<Runner>(*what, true); }
int projection_forward(const Projection* what) { return run<Projector>(*what, false); }
int projection_backward(const Projection* what) { return run<Projector>(*what, true); }
}
