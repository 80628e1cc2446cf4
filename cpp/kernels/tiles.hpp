// The register kernels: everything that costs n_particles * n_samples * n_features, and the sums over particles.
//
// A tile is two registers of particles by up to tile_width samples (forward) or features (pull back): its accumulators
// fill the register file, and every pair of loads of the panel feeds tile_width pairs of multiply-adds. Data are read
// row-major, by broadcast, without packing.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "mfld/panels.hpp"
#include "mfld/simd.hpp"

namespace mfld {

// 2 * width accumulators + 2 panel registers + 1 broadcast.
inline constexpr int tile_width = vector_registers == 32 ? 12 : 6;

// How a product stores its sums: as they are, or anything else with a `store`, which may have a second output.
struct Unchanged {
  template <class T>
  static MFLD_INLINE void store(Vec<T> z, std::int64_t at, T* out, T*) {
    z.store(out + at);
  }
};

namespace detail {

// S stores bias[lane] + sum_j panel[j][lane] z[s][j] for `width` samples from place `at` on; `bias` may be null.
template <class S, class T, int width>
void affine_tile(const T* panel, std::int64_t n_features, const T* bias, const T* z, std::int64_t z_stride,
                 std::int64_t at, T* out, T* second_out) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  V lo[width], hi[width];
  const V b0 = bias ? V::load(bias) : V(0), b1 = bias ? V::load(bias + V::size) : V(0);
#pragma GCC unroll 16
  for (int s = 0; s < width; ++s) lo[s] = b0, hi[s] = b1;
  for (std::int64_t j = 0; j < n_features; ++j) {
    const V w0 = V::load(panel + j * lanes), w1 = V::load(panel + j * lanes + V::size);
#pragma GCC unroll 16
    for (int s = 0; s < width; ++s) {
      const V x(z[s * z_stride + j]);
      lo[s] += w0 * x;
      hi[s] += w1 * x;
    }
  }
#pragma GCC unroll 16
  for (int s = 0; s < width; ++s) {
    S::store(lo[s], at + s * lanes, out, second_out);
    S::store(hi[s], at + s * lanes + V::size, out, second_out);
  }
}

// gradient[j][lane] (+)= sum_i gain[i][lane] z[i][j] for `width` features.
template <class T, int width>
void feature_tile(const T* gain, std::int64_t n_rows, const T* z, std::int64_t z_stride, T* gradient, bool add) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  V lo[width], hi[width];
#pragma GCC unroll 16
  for (int j = 0; j < width; ++j) lo[j] = V(0), hi[j] = V(0);
  for (std::int64_t i = 0; i < n_rows; ++i) {
    const V g0 = V::load(gain + i * lanes), g1 = V::load(gain + i * lanes + V::size);
#pragma GCC unroll 16
    for (int j = 0; j < width; ++j) {
      const V x(z[i * z_stride + j]);
      lo[j] += g0 * x;
      hi[j] += g1 * x;
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < width; ++j) {
    T* row = gradient + j * lanes;
    if (add) {
      lo[j] += V::load(row);
      hi[j] += V::load(row + V::size);
    }
    lo[j].store(row);
    hi[j].store(row + V::size);
  }
}

template <class T>
using AffineTile = void (*)(const T*, std::int64_t, const T*, const T*, std::int64_t, std::int64_t, T*, T*);
template <class T>
using FeatureTile = void (*)(const T*, std::int64_t, const T*, std::int64_t, T*, bool);

template <class S, class T, int... width>
constexpr auto affine_tiles(std::integer_sequence<int, width...>) {
  return std::array<AffineTile<T>, sizeof...(width)>{&affine_tile<S, T, width + 1>...};
}
template <class T, int... width>
constexpr auto feature_tiles(std::integer_sequence<int, width...>) {
  return std::array<FeatureTile<T>, sizeof...(width)>{&feature_tile<T, width + 1>...};
}

// Cuts 0..n evenly into as few tiles as there can be: 13 are 7 + 6 and not 12 + 1.
template <class Body>
MFLD_INLINE void for_tiles(std::int64_t n, const Body& body) {
  const std::int64_t count = ceil_div(n, tile_width);
  if (count <= 1) {
    if (count == 1) body(0, n);
    return;
  }
  const std::int64_t width = n / count, wider = n % count;
  std::int64_t first = 0;
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t this_width = width + (t < wider ? 1 : 0);
    body(first, this_width);
    first += this_width;
  }
}

// Lane l of the result: the sum of two neighbouring blocks of `block` lanes, taken from a and b in turn.
template <int block, class T, std::size_t... l>
MFLD_INLINE Vec<T> add_neighbours(Vec<T> a, Vec<T> b, std::index_sequence<l...>) {
  constexpr auto n = static_cast<int>(sizeof...(l));
  constexpr auto from = [](int lane, int side) {
    return (lane / block % 2) * n + lane / (2 * block) * (2 * block) + lane % block + side * block;
  };
  return Vec<T>(typename Vec<T>::Raw(__builtin_shufflevector(a.raw, b.raw, from(l, 0)...))) +
         Vec<T>(typename Vec<T>::Raw(__builtin_shufflevector(a.raw, b.raw, from(l, 1)...)));
}

// Lane q of the result is the sum over lanes of vector(first + q), q < count: a transposition that adds on its way.
template <class T, int count, class Source>
MFLD_INLINE Vec<T> sums_over_lanes(const Source& vector, int first) {
  if constexpr (count == 1)
    return vector(first);
  else
    return add_neighbours<count / 2>(sums_over_lanes<T, count / 2>(vector, first),
                                     sums_over_lanes<T, count / 2>(vector, first + count / 2),
                                     std::make_index_sequence<Vec<T>::size>());
}

}  // namespace detail

// out[i][lane] and second_out[i][lane]: what S stores of the pre-activations of one panel for n_rows samples.
template <class S = Unchanged, class T>
void affine(const T* panel, std::int64_t n_features, const T* bias, const T* z, std::int64_t n_rows, T* out,
            T* second_out = nullptr) {
  static constexpr auto tiles = detail::affine_tiles<S, T>(std::make_integer_sequence<int, tile_width>());
  detail::for_tiles(n_rows, [&](std::int64_t first, std::int64_t width) {
    tiles[width - 1](panel, n_features, bias, z + first * n_features, n_features, first * panel_lanes<T>, out,
                     second_out);
  });
}

// gradient[j][lane] (+)= sum_i gain[i][lane] z[i][j] for all features.
template <class T>
void accumulate_features(const T* gain, std::int64_t n_rows, const T* z, std::int64_t n_features, T* gradient,
                         bool add) {
  static constexpr auto tiles = detail::feature_tiles<T>(std::make_integer_sequence<int, tile_width>());
  detail::for_tiles(n_features, [&](std::int64_t first, std::int64_t width) {
    tiles[width - 1](gain, n_rows, z + first, n_features, gradient + first * panel_lanes<T>, add);
  });
}

// sums[i] += sum over lanes of coefficient[lane] values[i][lane]; n_rows is rounded up to whole registers of samples.
template <class T>
void add_panel_sums(const T* values, std::int64_t n_rows, const T* coefficient, T* sums) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  const V c0 = V::load(coefficient), c1 = V::load(coefficient + V::size);
  for (std::int64_t i = 0; i < n_rows; i += V::size) {
    const auto weighted = [&](int q) __attribute__((always_inline)) {
      const T* row = values + (i + q) * lanes;
      return c0 * V::load(row) + c1 * V::load(row + V::size);
    };
    (V::load(sums + i) + detail::sums_over_lanes<T, V::size>(weighted, 0)).store(sums + i);
  }
}

// The sum over the lanes of one row of a panel, in the same fixed shape for every row.
template <class T>
T sum_of_row(const T* row) {
  T sum = 0;
  for (int half = panel_lanes<T> / 2, l = 0; l < half; ++l) sum += row[l] + row[l + half];
  return sum;
}

}  // namespace mfld
