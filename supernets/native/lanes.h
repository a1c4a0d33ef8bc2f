// Vectors as wide as the target's registers, loops over them, and memory.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>

#include "interface.h"

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes)
#endif

namespace {

// A vector is one register: a wider one would live in memory. `REGISTERS` bounds what a kernel
// keeps in them at once.
#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 32;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

#define INLINE inline __attribute__((always_inline))
#define HERE __attribute__((always_inline))  // of a lambda

template <int N>
using number = std::integral_constant<int, N>;

template <class F, int... I>
INLINE void each_of(F f, std::integer_sequence<int, I...>) {
  (f(number<I>{}), ...);
}

// f(0), f(1), ... f(N - 1), as constants, so that arrays indexed by them are registers.
template <int N, class F>
INLINE void unrolled(F f) {
  each_of(f, std::make_integer_sequence<int, N>{});
}

constexpr int smaller(int tile) { return tile < 6 ? 1 : tile / 2; }

// f(first, T): a row of n pixels in tiles of T, or of fewer where the row is shorter. The last tile
// may overlap the one before it.
template <int T, class F>
INLINE void tiles(int n, F f) {
  if constexpr (T > 1)
    if (n < T) return tiles<smaller(T)>(n, f);
  for (int x = 0; x < n; x += T) f(std::min(x, n - T), number<T>{});
}

// As `tiles`, each pixel once.
template <int T, class F>
INLINE void parts(int n, F f, int x = 0) {
  for (; x + T <= n; x += T) f(x, number<T>{});
  if constexpr (T > 1) parts<smaller(T)>(n, f, x);
}

// f(first lane, V): the P lanes of a pixel in steps of V vectors, a cache line where there is one.
template <class F>
INLINE void lines(int P, F f) {
  int v = 0;
  for (; v + 16 <= P; v += 16) f(v, number<16 / LANES>{});
  for (; v < P; v += LANES) f(v, number<1>{});
}

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec*>(p) = v; }
// Of any address.
template <class T>
INLINE T get(const float* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <class T>
INLINE void put(float* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

// f(first, a vec or a float): n numbers in vectors, what is left over one by one.
template <class F>
INLINE void vectors(int n, F f) {
  int c = 0;
  for (; c + LANES <= n; c += LANES) f(c, vec{});
  for (; c < n; c++) f(c, float{});
}

inline vec select(ivec mask, vec a, vec b) { return mask ? a : b; }
inline vec positive(vec v) { return select(v <= 0.0f, vec{}, v); }  // a NaN stays

// Memory that stays between calls: fresh pages would cost more than the arithmetic. An address
// sanitiser sees what is read or written beside the parts that were taken.
struct Arena {
  static constexpr size_t PAGE = size_t(2) << 20;  // a large one, where the system has them
  char* memory = nullptr;
  size_t size = 0, used = 0;
  std::mutex busy;

  static size_t room(int64_t floats) {  // bytes of a part and a gap, so that the next is aligned
    return (size_t(floats) * sizeof(float) + 2 * 64 + 63) / 64 * 64;
  }

  void reserve(size_t bytes) {
    used = 0;
    if (bytes > size) {
      std::free(memory);
      size = (bytes + PAGE - 1) / PAGE * PAGE;
      memory = static_cast<char*>(std::aligned_alloc(PAGE, size));
      if (!memory) {
        size = 0;
        throw std::bad_alloc();
      }
#ifdef MADV_HUGEPAGE
      madvise(memory, size, MADV_HUGEPAGE);
#endif
    }
    ASAN_POISON_MEMORY_REGION(memory, size);
  }

  float* take(int64_t floats) {  // of what is reserved, where `room` was counted for each part
    float* part = reinterpret_cast<float*>(memory + used);
    used += room(floats);
    ASAN_UNPOISON_MEMORY_REGION(part, size_t(floats) * sizeof(float));
    return part;
  }
};
Arena arena;

struct Shape {
  int h, w, pad, row;  // `row` pixels from one line to the next
  Shape(int h, int w, int pad) : h(h), w(w), pad(pad), row(w + 2 * pad) {}
  int pixels() const { return (h + 2 * pad) * row; }
  int at(int y, int x) const { return (y + pad) * row + x + pad; }
};

}  // namespace
