// What Python passes; supernets/native/interface.py has the same structures.

#pragma once

#include <cstdint>

extern "C" {

enum Type : int32_t { SEPARABLE, MAX_POOL, AVG_POOL, IDENTITY, FACTORISED, DENSE };

// One candidate on all edges. `weights` has, per half, E depthwise and then E pointwise kernels.
// `stats` has, per batch norm, mean, 1 / standard deviation and unbiased variance, E * C each;
// `affine` scale and shift, E * C each, and is null where the norms have none.
// `gradients` has, per half, depthwise (E, C, K, K) and then pointwise (E, C, C); it may be null.
// A factorised reduction has its two convolutions, (E, C / 2, C) and (E, C - C / 2, C), instead, a
// dense convolution its one, (E, C, C, K, K).
// `kept`, where it is not null, gets maps of the forward pass, which the backward pass reads and need
// not compute anew: what a dense convolution gives, or per half what the depthwise and the pointwise
// one give. A map has `map_lanes` floats for each of the B * h * w pixels, on an address fit for
// vectors.
struct Kind {
  int32_t type, halves, kernel, dilation, norm;
  float eps;
  const float* const* weights;
  float* stats;
  const float* gates;  // (E)
  float* gate_gradients;
  float* gradients;
  const float* affine;
  float* affine_gradients;
  float* kept;
};

struct Image {  // of all images: elements from one to the next, along B, C, H, W
  float* data;
  int64_t strides[4];
};

// With k > 1, C are the mixed channels out of k C; the others bypass, times the factors (E).
// `keep` (B, E) multiplies what an edge gives of an image (drop-path), and is null where nothing is
// dropped; with it k is 1. `adds` (E) says of which outputs the values are added to what lies there;
// `adds_dx` the same of the input's gradient.
struct Source {
  int32_t B, C, H, W, E, stride, kinds, training, threads, k, adds_dx;
  const int32_t* adds;
  const Kind* kind;
  const float* factors;
  float* factor_gradients;
  const float* keep;
  Image x, dx;
  const Image* y;  // (E): outputs, or their gradients in the backward pass
};

// `parts` is 2 for a factorised reduction. `stats` has mean, 1 / standard deviation and unbiased
// variance, C each, `affine` scale and shift, or is null; `gradients` has those of the weights
// (C / parts, inputs), or is null. `kept`, where it is not null, gets what the convolutions give, a map
// of one edge as in `Kind`.
struct Projection {
  int32_t B, inputs, H, W, C, stride, parts, training, threads;
  float eps;
  const float* weights[2];
  float *stats, *gradients;
  const float* affine;
  float *affine_gradients, *kept;
  Image x, dx, y;
};
}
