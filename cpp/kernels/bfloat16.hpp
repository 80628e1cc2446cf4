// Products of bfloat16 numbers with float32 sums: the tiles of tiles.hpp with half as many instructions.
//
// One instruction, vdpbf16ps, adds the products of two pairs to each float32 lane. So what is summed over comes in
// pairs of bfloat16, the first of them in the low half of a word, and a word has the place that a float32 number has
// otherwise:
//
//   data of the forward product   (n_rows, ceil(n_features / 2))           neighbouring features of a row
//   panels, gains                 (ceil(rows / 2), lanes)                  neighbouring rows of a panel, `pair_rows`
//   data of the pull back         (ceil(n_rows / 2), even n_features)      a feature of neighbouring rows, `turn_pairs`
//
// Numbers become bfloat16 by rounding to nearest, ties to even. The instruction takes what is below 2^-126 for 0, and
// rounds each of its two sums to nearest.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "mfld/panels.hpp"
#include "mfld/simd.hpp"
#include "tiles.hpp"

namespace mfld {

// Whether this build has such products; whether the processor has them is for the binding to ask.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512BW__)
#define MFLD_BFLOAT16 __attribute__((target("avx512bf16")))
template <class T>
inline constexpr bool has_bfloat16 = std::is_same_v<T, float>;
#else
template <class T>
inline constexpr bool has_bfloat16 = false;
#endif

// pairs[p][lane]: rows 2p and 2p + 1 of a panel, 0 where there is no second one. It may be in place.
inline void pair_rows(const float* rows, std::int64_t n_rows, float* pairs);
// turned[p][j]: feature j of rows 2p and 2p + 1, from rows of `width` pairs of features, for pairs of rows in a range.
inline void turn_pairs(const float* z, std::int64_t n_rows, std::int64_t width, Range pairs, float* turned);
// As affine, of a panel and data in pairs of features.
template <class S>
void affine_of_pairs(const float* panel, std::int64_t n_pairs, const float* bias, const float* z, std::int64_t n_rows,
                     float* out, float* second_out);
// As accumulate_features, of gains and data in pairs of rows.
inline void accumulate_pairs(const float* gain, std::int64_t n_pairs, const float* z, std::int64_t n_features,
                             float* gradient, bool add);

#ifdef MFLD_BFLOAT16

namespace detail {

// In registers: clang 16 ends with a fault where it folds a load of bfloat16 into a product.
MFLD_BFLOAT16 MFLD_INLINE __m512bh load_pairs(const float* p) { return (__m512bh)in_register(Vec<float>::load(p)).raw; }
MFLD_BFLOAT16 MFLD_INLINE __m512bh broadcast_pair(const float* p) {
  return (__m512bh)in_register(Vec<float>(Vec<float>::Raw(_mm512_set1_ps(*p)))).raw;
}

// As affine_tile, of n_pairs pairs of features.
template <class S, int width>
MFLD_BFLOAT16 void affine_pairs_tile(const float* panel, std::int64_t n_pairs, const float* bias, const float* z,
                                     std::int64_t z_stride, std::int64_t at, float* out, float* second_out) {
  using V = Vec<float>;
  constexpr int lanes = panel_lanes<float>;
  __m512 lo[width], hi[width];
  const V b0 = bias ? V::load(bias) : V(0), b1 = bias ? V::load(bias + V::size) : V(0);
#pragma GCC unroll 16
  for (int s = 0; s < width; ++s) lo[s] = b0.raw, hi[s] = b1.raw;
  for (std::int64_t j = 0; j < n_pairs; ++j) {
    const __m512bh w0 = load_pairs(panel + j * lanes), w1 = load_pairs(panel + j * lanes + V::size);
#pragma GCC unroll 16
    for (int s = 0; s < width; ++s) {
      const __m512bh x = broadcast_pair(z + s * z_stride + j);
      lo[s] = _mm512_dpbf16_ps(lo[s], w0, x);
      hi[s] = _mm512_dpbf16_ps(hi[s], w1, x);
    }
  }
#pragma GCC unroll 16
  for (int s = 0; s < width; ++s) {
    S::store(V(V::Raw(lo[s])), at + s * lanes, out, second_out);
    S::store(V(V::Raw(hi[s])), at + s * lanes + V::size, out, second_out);
  }
}

// As feature_tile, of n_pairs pairs of rows.
template <int width>
MFLD_BFLOAT16 void feature_pairs_tile(const float* gain, std::int64_t n_pairs, const float* z, std::int64_t z_stride,
                                      float* gradient, bool add) {
  using V = Vec<float>;
  constexpr int lanes = panel_lanes<float>;
  __m512 lo[width], hi[width];
#pragma GCC unroll 16
  for (int j = 0; j < width; ++j) lo[j] = hi[j] = _mm512_setzero_ps();
  for (std::int64_t i = 0; i < n_pairs; ++i) {
    const __m512bh g0 = load_pairs(gain + i * lanes), g1 = load_pairs(gain + i * lanes + V::size);
#pragma GCC unroll 16
    for (int j = 0; j < width; ++j) {
      const __m512bh x = broadcast_pair(z + i * z_stride + j);
      lo[j] = _mm512_dpbf16_ps(lo[j], g0, x);
      hi[j] = _mm512_dpbf16_ps(hi[j], g1, x);
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < width; ++j) {
    float* row = gradient + j * lanes;
    V sum_lo = V(V::Raw(lo[j])), sum_hi = V(V::Raw(hi[j]));
    if (add) {
      sum_lo += V::load(row);
      sum_hi += V::load(row + V::size);
    }
    sum_lo.store(row);
    sum_hi.store(row + V::size);
  }
}

template <class S, int... width>
constexpr auto affine_pairs_tiles(std::integer_sequence<int, width...>) {
  return std::array<AffineTile<float>, sizeof...(width)>{&affine_pairs_tile<S, width + 1>...};
}
template <int... width>
constexpr auto feature_pairs_tiles(std::integer_sequence<int, width...>) {
  return std::array<FeatureTile<float>, sizeof...(width)>{&feature_pairs_tile<width + 1>...};
}

template <std::size_t... l>
MFLD_INLINE __m512i interleaving(int first, int second, std::index_sequence<l...>) {
  constexpr auto half = [](std::size_t lane) { return static_cast<int>(lane / 2); };
  alignas(64) const std::int16_t order[] = {static_cast<std::int16_t>((l % 2 == 0 ? first : second) + half(l))...};
  return _mm512_load_si512(order);
}

}  // namespace detail

MFLD_BFLOAT16 inline void pair_rows(const float* rows, std::int64_t n_rows, float* pairs) {
  constexpr int lanes = panel_lanes<float>, half = Vec<float>::size;
  const __m512i order = detail::interleaving(0, half, std::make_index_sequence<2 * half>());
  for (std::int64_t i = 0; i < n_rows; i += 2)
    for (int l = 0; l < lanes; l += half) {
      const float* row = rows + i * lanes + l;
      const __m512 first = _mm512_loadu_ps(row), second = i + 1 < n_rows ? _mm512_loadu_ps(row + lanes) : __m512{};
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
      _mm512_storeu_si512(pairs + i / 2 * lanes + l, _mm512_permutexvar_epi16(order, both));
    }
}

inline void turn_pairs(const float* z, std::int64_t n_rows, std::int64_t width, Range pairs, float* turned) {
  static constexpr std::int64_t words = Vec<float>::size;
  const auto order = std::make_index_sequence<2 * words>();
  const __m512i front = detail::interleaving(0, 2 * words, order), back = detail::interleaving(words, 3 * words, order);
  const auto some = [](std::int64_t count) { return static_cast<__mmask16>((1U << std::min(count, words)) - 1); };
  for (std::int64_t p = pairs.begin; p < pairs.end; ++p) {
    const float* row = z + 2 * p * width;
    float* out = turned + 2 * p * width;
    for (std::int64_t w = 0; w < width; w += words) {
      const __mmask16 there = some(width - w), second = 2 * p + 1 < n_rows ? there : __mmask16{0};
      const __m512i a = _mm512_maskz_loadu_epi32(there, row + w), b = _mm512_maskz_loadu_epi32(second, row + width + w);
      const std::int64_t left = 2 * (width - w);
      _mm512_mask_storeu_epi32(out + 2 * w, some(left), _mm512_permutex2var_epi16(a, front, b));
      if (left > words)
        _mm512_mask_storeu_epi32(out + 2 * w + words, some(left - words), _mm512_permutex2var_epi16(a, back, b));
    }
  }
}

template <class S>
void affine_of_pairs(const float* panel, std::int64_t n_pairs, const float* bias, const float* z, std::int64_t n_rows,
                     float* out, float* second_out) {
  static constexpr auto tiles = detail::affine_pairs_tiles<S>(std::make_integer_sequence<int, tile_width>());
  detail::for_tiles(n_rows, [&](std::int64_t first, std::int64_t width) {
    tiles[width - 1](panel, n_pairs, bias, z + first * n_pairs, n_pairs, first * panel_lanes<float>, out, second_out);
  });
}

inline void accumulate_pairs(const float* gain, std::int64_t n_pairs, const float* z, std::int64_t n_features,
                             float* gradient, bool add) {
  static constexpr auto tiles = detail::feature_pairs_tiles(std::make_integer_sequence<int, tile_width>());
  detail::for_tiles(n_features, [&](std::int64_t first, std::int64_t width) {
    tiles[width - 1](gain, n_pairs, z + first, round_up(n_features, 2), gradient + first * panel_lanes<float>, add);
  });
}

#endif

}  // namespace mfld
