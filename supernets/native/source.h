// The candidates of all edges that leave one state.

#pragma once

#include "pools.h"

namespace {

struct Runner : Pools {
  using Pools::Pools;

  void run() {
#pragma omp parallel num_threads(s.threads)
    {
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++) {
        pack_input(n);
        if (backward) {
          s.k > 1 ? take_gradients(n) : move_outputs<true>(n);
          begin_input_gradient(n);
        }
      }
      for (int i = 0; i < s.kinds; i++) {
        const Kind& kind = s.kind[i];
        if (kind.type == SEPARABLE) backward ? separable_backward(kind) : separable_forward(kind);
        else if (kind.type == FACTORISED)
          backward ? factorised_backward(kind) : factorised_forward(kind);
        else if (kind.type == DENSE) backward ? dense_backward(kind) : dense_forward(kind);
        else backward ? shared_backward(kind) : shared_forward(kind);
      }
#pragma omp for schedule(static)
      for (int n = 0; n < s.B; n++) {
        if (backward) {
          unpack_input_gradient(n);
          continue;
        }
        outputs(n);
        s.k > 1 ? give_outputs(n) : move_outputs<false>(n);
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
