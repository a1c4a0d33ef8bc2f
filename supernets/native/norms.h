// Weights in blocks, and batch norms, whose scale the gates multiply.

#pragma once

#include "bypass.h"

namespace {

struct Norms : Bypass {
  using Bypass::Bypass;

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

  // ---- batch norm

  // Statistics of the last `partial` moments; also to `stats`, for the running averages.
  void norm_from_moments(const Kind& kind, int half) const {
    float* out = kind.stats + int64_t(half) * 3 * s.E * s.C;
    const int64_t EC = int64_t(s.E) * s.C;
    each_lane([&](int lane, int e, int c) {
      if (s.training && kind.norm) {
        const int64_t step = 2 * (shared(kind) ? P : M), from = shared(kind) ? lane % P : lane;
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

  struct Norm { double mean, rstd, scale, shift; };  // of a channel
  Norm norm_of(const Kind& kind, int half, int e, int c) const {
    if (!kind.norm) return {0, 1, 1, 0};
    const int64_t EC = int64_t(s.E) * s.C, at = int64_t(e) * s.C + c;
    const float* stats = kind.stats + half * 3 * EC + at;
    if (!kind.affine) return {stats[0], stats[EC], 1, 0};
    const float* affine = kind.affine + half * 2 * EC + at;
    return {stats[0], stats[EC], affine[0], affine[EC]};
  }

  // Rows of the mean, and of the factor and the summand that normalise.
  void load_norm(const Kind& kind, int half) const {
    const int base = half ? MEAN2 : MEAN;
    std::memset(row(base), 0, sizeof(float) * 3 * M);
    each_lane([&](int lane, int e, int c) {
      const Norm norm = norm_of(kind, half, e, c);
      row(base)[lane] = float(norm.mean);
      row(base + 1)[lane] = float(norm.scale * norm.rstd);
      row(base + 2)[lane] = float(norm.shift - norm.mean * norm.scale * norm.rstd);
    });
  }

  // The norm whose result the gates multiply; what they make of it is added up by `outputs`.
  void last_norm(const Kind& kind, int half) const {
    norm_from_moments(kind, half);
    const int base = half ? MEAN2 : MEAN;
    float* scale = coefficients + (&kind - s.kind) * 2 * int64_t(M);
    for (int v = 0; v < M; v += LANES) {
      const vec gate = load(row(GATE) + v);
      store(scale + v, gate * load(row(base + 1) + v));
      store(scale + M + v, gate * load(row(base + 2) + v));
    }
  }

  // An image's outputs: the kinds' results, normalised, times their gates, in parts that stay in
  // the first cache.
  void outputs(int n) const {
    constexpr int PART = 64;
    begin_outputs(n);
    for (int b = 0; b < blocks; b++)
      for (int first = 0; first < out_pixels; first += PART) {
        float* to = output(n, b) + int64_t(first) * P;
        const int pixels = std::min(PART, out_pixels - first);
        if (!begun(b)) std::memset(to, 0, sizeof(float) * pixels * P);
        for (int i = 0; i < s.kinds; i++) {
          const Kind& kind = s.kind[i];
          const float* from = kind.type == IDENTITY ? input(n)
                              : shared(kind) ? results[i] + int64_t(n) * out_pixels * P
                                             : map(results[i], n, b);
          const float* scale = coefficients + i * 2 * int64_t(M) + b * P;
          add_normalised(from + int64_t(first) * P, scale, scale + M, P, pixels, to);
        }
      }
  }

  void load_gates(const Kind& kind) const {
    std::memset(row(GATE), 0, sizeof(float) * M);
    each_lane([&](int lane, int e, int) { row(GATE)[lane] = kind.gates[e]; });
  }

  // dz = A d + B z + C, from the sums of d and d * (z - mean); d are gradients behind the norm,
  // `gate` null where no gate multiplies it. Also the gradients of gates, scale and shift.
  void norm_gradient(const Kind& kind, int half, const float* gate) const {
    const int64_t EC = int64_t(s.E) * s.C;
    const double count = double(s.B) * out_pixels;
    std::memset(row(A), 0, sizeof(float) * 3 * M);
    if (gate) std::fill(kind.gate_gradients, kind.gate_gradients + s.E, 0.0f);
    std::vector<double> gate_sums(s.E, 0.0);
    each_lane([&](int lane, int e, int channel) {
      double sum = 0, product = 0;
      for (int n = 0; n < s.B; n++) {
        sum += partial[int64_t(n) * 2 * M + lane / P * 2 * P + lane % P];
        product += partial[int64_t(n) * 2 * M + lane / P * 2 * P + P + lane % P];
      }
      const auto [mean, rstd, scale, shift] = norm_of(kind, half, e, channel);
      double g = gate ? gate[lane] : 1.0;
      gate_sums[e] += scale * rstd * product + shift * sum;
      if (kind.affine_gradients) {
        float* own = kind.affine_gradients + half * 2 * EC + int64_t(e) * s.C + channel;
        own[0] = float(g * rstd * product);
        own[EC] = float(g * sum);
      }
      g *= scale;
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
};

}  // namespace
