// Noise as a pure function of its place: no generator state exists.
//
//   counter  [0] particle   [1] coordinate block (24 bits) | stream << 24   [2] step, low 32 bits
//            [3] step, bits 32..47 | population << 16
//   key      the two words, low and high, of the 64-bit key = noise_key(seed, replica)
//   words    w0 w1 w2 w3 = Philox4x32-10(counter, key)                       Salmon, Moraes, Dror & Shaw, SC11
//
// Normals are Box-Muller pairs, two or four words each, never a rejection:
//
//   float32   block c holds coordinates 4c .. 4c+3: (w0, w1) gives the first two, (w2, w3) the others
//             u = (w0 + 1/2) 2^-32,   a = (w1 + 1/2) 2^-32                                       |z| <= 6.764
//   float64   block c holds coordinates 2c and 2c+1
//             u = (((w0 | w1 << 32) >> 11) + 1/2) 2^-53,   a = (((w2 | w3 << 32) >> 11) + 1/2) 2^-53   |z| <= 8.653
//   both      z0 = sqrt(-2 ln u) cos(2 pi a),   z1 = sqrt(-2 ln u) sin(2 pi a)
//
// so float32 and float64 noise are different numbers. Both ends of u keep the relative accuracy of the radius, since
// the logarithm is taken of the integer and not of a rounded u (see box_muller). Against the formulas in exact
// arithmetic, with R = sqrt(-2 ln u): float32 within 4e-7 R (1e-6 absolute up to R = 2.5), float64 within 1e-15 |z| +
// 4e-16 R (tests/cpp/test_noise.cpp).
//
// Uniform numbers on (0, 1) take two words each, the same in both precisions up to their bits: block c holds
// coordinates 2c and 2c+1, of (w0, w1) and (w2, w3),
//
//   float64   u as above;   float32   its leading 23 bits, (((w0 | w1 << 32) >> 41) + 1/2) 2^-23
//
// One place gives the same bits in any batch, panel or thread of one build: every multiply-add below is written out as
// multiply_add, so that inlining into different loops cannot contract it differently. (A caller who adds a normal to
// something should multiply it by its scale first, else the last product here may fuse with that sum.)
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "mfld/kernels.h"
#include "mfld/panels.hpp"
#include "mfld/simd.hpp"

namespace mfld {

// Round multipliers and key increments: Salmon et al., SC11.
inline constexpr int philox_rounds = 10;
inline constexpr std::uint32_t philox_multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
inline constexpr std::uint32_t philox_increment[2] = {0x9E3779B9u, 0xBB67AE85u};

using PhiloxBlock = std::array<std::uint32_t, 4>;

inline PhiloxBlock philox4x32(PhiloxBlock counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < philox_rounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{philox_multiplier[0]} * counter[0];
    const std::uint64_t p1 = std::uint64_t{philox_multiplier[1]} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(p0)};
    key0 += philox_increment[0];
    key1 += philox_increment[1];
  }
  return counter;
}

// A 32-bit word in the low half of each 64-bit lane. What stands above it is garbage that the multiplications ignore.
using HalfVec = Vec<std::uint64_t>;
using Words = Vec<std::uint32_t>;

MFLD_INLINE HalfVec xor3(HalfVec a, HalfVec b, HalfVec c) {
#if defined(__AVX512F__)
  return HalfVec(HalfVec::Raw(_mm512_ternarylogic_epi64(__m512i(a.raw), __m512i(b.raw), __m512i(c.raw), 0x96)));
#else
  return a ^ b ^ c;
#endif
}

// The low (high) words of `even` in the even 32-bit lanes, those of `odd` in the odd ones.
MFLD_INLINE HalfVec pack_low(HalfVec even, HalfVec odd) {
#if defined(__AVX512F__)
  return HalfVec(HalfVec::Raw(_mm512_mask_shuffle_epi32(__m512i(even.raw), 0xAAAA, __m512i(odd.raw), _MM_PERM_CDAB)));
#elif defined(__AVX2__)
  return HalfVec(HalfVec::Raw(_mm256_blend_epi32(__m256i(even.raw), __m256i((odd << 32).raw), 0xAA)));
#elif defined(__SSE4_1__)
  return HalfVec(HalfVec::Raw(_mm_blend_epi16(__m128i(even.raw), __m128i((odd << 32).raw), 0xCC)));
#else
  return (even & HalfVec(0xffffffffu)) | (odd << 32);
#endif
}

MFLD_INLINE HalfVec pack_high(HalfVec even, HalfVec odd) {
#if defined(__AVX512F__)
  return HalfVec(HalfVec::Raw(_mm512_mask_shuffle_epi32(__m512i(odd.raw), 0x5555, __m512i(even.raw), _MM_PERM_CDAB)));
#elif defined(__AVX2__)
  return HalfVec(HalfVec::Raw(_mm256_blend_epi32(__m256i((even >> 32).raw), __m256i(odd.raw), 0xAA)));
#elif defined(__SSE4_1__)
  return HalfVec(HalfVec::Raw(_mm_blend_epi16(__m128i((even >> 32).raw), __m128i(odd.raw), 0xCC)));
#else
  return (even >> 32) | (odd & HalfVec(0xffffffff00000000u));
#endif
}

// Members of a measure draw from consecutive populations.
inline mfld_noise of_member(mfld_noise noise, std::int64_t member) {
  noise.population += static_cast<std::uint32_t>(member);
  return noise;
}

// Everything of a place but particle and coordinate block, broadcast once.
struct NoisePlace {
  HalfVec key[philox_rounds][2];  // each round's key in both halves of every lane
  HalfVec population_word;        // counter word 3 ^ key[0][1], which only ever meet
  std::uint32_t stream_word;      // counter word 1 ^ the low key word, less the coordinate block
  std::uint32_t step_low;
  std::uint32_t round_key1[2];  // the keys of round 1 as scalars

  NoisePlace(std::uint64_t key64, std::uint32_t stream, std::uint64_t step, std::uint32_t population) {
    std::uint32_t k[2] = {static_cast<std::uint32_t>(key64), static_cast<std::uint32_t>(key64 >> 32)};
    for (int round = 0; round < philox_rounds; ++round)
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t word = k[i] + static_cast<std::uint32_t>(round) * philox_increment[i];
        key[round][i] = HalfVec(std::uint64_t{word} << 32 | word);
        if (round == 1) round_key1[i] = word;
      }
    stream_word = (stream << 24) ^ k[0];
    step_low = static_cast<std::uint32_t>(step);
    const std::uint32_t step_high = static_cast<std::uint32_t>(step >> 32) & 0xffffu;
    population_word = HalfVec((step_high | population << 16) ^ k[1]);
  }
  NoisePlace(const mfld_noise& noise, std::uint32_t stream)
      : NoisePlace(noise.key, stream, noise.step, noise.population) {}
};

// Philox for one half-vector of particles at any coordinate block.
//
// Counter words 1 to 3 are the same in all lanes, so the first two rounds mix uniform with particle-only values: what
// depends on the particle alone is made here, once, and `after_round2` takes up in the middle of round 2 (rounds count
// from 0).
struct PhiloxLanes {
  HalfVec word3, word1, product0, word2;

  PhiloxLanes() = default;
  MFLD_INLINE PhiloxLanes(const NoisePlace& place, HalfVec particle) {
    const HalfVec m0(philox_multiplier[0]), m1(philox_multiplier[1]);
    const std::uint64_t step_product = std::uint64_t{philox_multiplier[1]} * place.step_low;
    const HalfVec round0 = multiply_low_words(m0, particle);
    const HalfVec round1 = multiply_low_words(m1, (round0 >> 32) ^ place.population_word);
    const std::uint32_t uniform = static_cast<std::uint32_t>(step_product) ^ place.round_key1[0];
    product0 = multiply_low_words(m0, (round1 >> 32) ^ HalfVec(uniform));
    word1 = round1 ^ place.key[2][0];
    word2 = (product0 >> 32) ^ place.key[2][1];
    word3 = round0;
  }

  struct State {
    HalfVec w0, w1, w2, w3;
  };

  // The parts that a coordinate block alone decides.
  struct Block {
    HalfVec word2, word3;
    MFLD_INLINE Block(const NoisePlace& place, std::uint32_t block) {
      const std::uint64_t step_product = std::uint64_t{philox_multiplier[1]} * place.step_low;
      const std::uint32_t w0 = static_cast<std::uint32_t>(step_product >> 32) ^ place.stream_word ^ block;
      const std::uint64_t product = std::uint64_t{philox_multiplier[0]} * w0;
      word2 = HalfVec(static_cast<std::uint32_t>(product >> 32) ^ place.round_key1[1]);
      word3 = HalfVec(static_cast<std::uint32_t>(product));
    }
  };

  MFLD_INLINE State after_round2(const Block& block) const {
    const HalfVec p1 = multiply_low_words(HalfVec(philox_multiplier[1]), block.word2 ^ word3);
    return {(p1 >> 32) ^ word1, p1, word2 ^ block.word3, product0};
  }
};

MFLD_INLINE void philox_round(const NoisePlace& place, int round, PhiloxLanes::State& s) {
  const HalfVec p0 = multiply_low_words(HalfVec(philox_multiplier[0]), s.w0);
  const HalfVec p1 = multiply_low_words(HalfVec(philox_multiplier[1]), s.w2);
  s = {xor3(p1 >> 32, s.w1, place.key[round][0]), p1, xor3(p0 >> 32, s.w3, place.key[round][1]), p0};
}

// Rounds 3 to 8, interleaved over independent half-vectors: one alone would wait for its own multiplications.
template <int n>
MFLD_INLINE void philox_middle_rounds(const NoisePlace& place, PhiloxLanes::State (&s)[n]) {
#pragma GCC unroll 16
  for (int round = 3; round < philox_rounds - 1; ++round)
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) philox_round(place, round, s[i]);
}

// The last round of two half-vectors, packed: its high words are already in the high halves that the odd lanes want.
MFLD_INLINE void philox_last_round(const NoisePlace& place, const PhiloxLanes::State& even,
                                   const PhiloxLanes::State& odd, Words (&w)[4]) {
  constexpr int last = philox_rounds - 1;
  const HalfVec m0(philox_multiplier[0]), m1(philox_multiplier[1]);
  const HalfVec even0 = multiply_low_words(m0, even.w0), even1 = multiply_low_words(m1, even.w2);
  const HalfVec odd0 = multiply_low_words(m0, odd.w0), odd1 = multiply_low_words(m1, odd.w2);
  w[0] = bit_cast<std::uint32_t>(xor3(pack_high(even1, odd1), pack_low(even.w1, odd.w1), place.key[last][0]));
  w[1] = bit_cast<std::uint32_t>(pack_low(even1, odd1));
  w[2] = bit_cast<std::uint32_t>(xor3(pack_high(even0, odd0), pack_low(even.w3, odd.w3), place.key[last][1]));
  w[3] = bit_cast<std::uint32_t>(pack_low(even0, odd0));
}

// The last round of one half-vector, as 64-bit words: first = w0 | w1 << 32, second = w2 | w3 << 32.
MFLD_INLINE void philox_last_round(const NoisePlace& place, const PhiloxLanes::State& s, HalfVec& first,
                                   HalfVec& second) {
  constexpr int last = philox_rounds - 1;
  const HalfVec p0 = multiply_low_words(HalfVec(philox_multiplier[0]), s.w0);
  const HalfVec p1 = multiply_low_words(HalfVec(philox_multiplier[1]), s.w2);
  first = pack_low((p1 >> 32) ^ s.w1 ^ place.key[last][0], p1);
  second = pack_low((p0 >> 32) ^ s.w3 ^ place.key[last][1], p0);
}

// The numbers that turn words into normals: printed by cpp/tools/fit_noise_coefficients.py. t is an angle in half
// turns.
template <class T>
struct NormalCoefficients;

template <>
struct NormalCoefficients<float> {
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
  // -2 ln(1-x) / x, x to 1/2: relative error 4.5e-8
  static constexpr float log[] = {2.f,           0.999985695f, 0.667401254f, 0.485610157f, 0.539225519f,
                                  -0.407077968f, 2.51533961f,  -3.39162421f, 2.88221598f};
  // sin(pi t) / t in t^2, t to 1/2: relative error 4.2e-8
  static constexpr float sine[] = {3.14159274f, -5.16770983f, 2.55006981f, -0.598242104f, 0.0775603876f};
  // cos(pi t) in t^2, t to 1/2: absolute error 8.3e-8
  static constexpr float cosine[] = {0.99999994f, -4.934793f, 4.05841208f, -1.33188021f, 0.219696805f};
};

template <>
struct NormalCoefficients<double> {
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
  // 4 atanh(s) / s in s^2, s to 1/3: relative error 9.1e-17
  static constexpr double atanh[] = {4.,
                                     1.3333333333336606,
                                     0.79999999990354664,
                                     0.57142858243758143,
                                     0.44444380773872821,
                                     0.36365744326969235,
                                     0.30726974118037848,
                                     0.27185984744966046,
                                     0.19745359628727405,
                                     0.35594007700299646};
  // sin(pi t) / t in t^2, t to 1/2: relative error 4.0e-17
  static constexpr double sine[] = {3.1415926535897931,     -5.1677127800499694,     2.550164039877294,
                                    -0.5992645293187383,    0.082145886569892898,    -0.0073704304787634116,
                                    0.00046629968877318978, -2.1903185414323371e-05, 7.6947272274246932e-07};
  // cos(pi t) in t^2, t to 1/2: absolute error 1.2e-16
  static constexpr double cosine[] = {1.,
                                      -4.9348022005446763,
                                      4.0587121264164976,
                                      -1.3352627688434646,
                                      0.23533063012980829,
                                      -0.025806888739352541,
                                      0.0019295562835919126,
                                      -0.00010456658073463612,
                                      4.1495917001950073e-06};
};

// Horner's rule for n arguments side by side: one chain of multiply-adds waits for itself, several fill the pipes.
template <class T, std::size_t n_terms, int n>
MFLD_INLINE void polynomial(const T (&c)[n_terms], const Vec<T> (&x)[n], Vec<T> (&sum)[n]) {
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) sum[i] = multiply_add(Vec<T>(c[n_terms - 1]), x[i], Vec<T>(c[n_terms - 2]));
#pragma GCC unroll 16
  for (int k = static_cast<int>(n_terms) - 3; k >= 0; --k)
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) sum[i] = multiply_add(sum[i], x[i], Vec<T>(c[k]));
}

// integer - offset for integers below 2^mantissa_bits, exactly where the result is a number: under the exponent of
// 2^mantissa_bits an integer is its own mantissa.
template <class T>
MFLD_INLINE Vec<T> number(Vec<BitsOf<T>> integer, T offset) {
  using C = NormalCoefficients<T>;
  constexpr BitsOf<T> exponent = BitsOf<T>(C::exponent_bias + C::mantissa_bits) << C::mantissa_bits;
  return bit_cast<T>(integer | Vec<BitsOf<T>>(exponent)) - Vec<T>(T(BitsOf<T>(1) << C::mantissa_bits) + offset);
}

// v = mantissa * 2^(exponent + 1) with mantissa in [1/2, 1), for normal positive v.
template <class T>
MFLD_INLINE void split(Vec<T> v, Vec<T>& mantissa, Vec<T>& exponent) {
  using C = NormalCoefficients<T>;
  using U = BitsOf<T>;
  constexpr U fraction = (U(1) << C::mantissa_bits) - 1, half = U(C::exponent_bias - 1) << C::mantissa_bits;
  mantissa = bit_cast<T>((bit_cast<U>(v) & Vec<U>(fraction)) | Vec<U>(half));
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>)
    exponent = Vec<T>(typename Vec<T>::Raw(_mm512_getexp_ps(v.raw)));
  else
    exponent = Vec<T>(typename Vec<T>::Raw(_mm512_getexp_pd(v.raw)));
#else
  exponent = number<T>(bit_cast<U>(v) >> C::mantissa_bits, T(C::exponent_bias));
#endif
}

// What a pair of words stands for: `v` is the smaller of u and 1 - u, in (0, 1/2], `lower` says that it is u. The angle
// is pi t plus the half turn whose sign is the top bit of `flip`.
//
// The angle's two top bits say in which half circle it is: their exclusive or is a turn by pi, a sign on both normals.
// What is left is the doubled word as a signed number, t in (-1/2, 1/2).
template <class T>
struct PolarPlace {
  Vec<T> v;
  Vec<MaskOf<T>> lower;
  Vec<T> t;
  Vec<BitsOf<T>> flip;
};

MFLD_INLINE PolarPlace<float> polar_place(Words radius_word, Words angle_word) {
  const Vec<std::int32_t> word = bit_cast<std::int32_t>(radius_word), folded = word ^ (word >> 31);
  const Words doubled = angle_word + angle_word;
  return {multiply_add(convert<float>(folded), Vec<float>(0x1p-32f), Vec<float>(0x1p-33f)),
          word >= Vec<std::int32_t>(0),
          multiply_add(convert<float>(bit_cast<std::int32_t>(doubled)), Vec<float>(0x1p-32f), Vec<float>(0x1p-32f)),
          angle_word ^ doubled};
}

MFLD_INLINE PolarPlace<double> polar_place(HalfVec radius_word, HalfVec angle_word) {
  const HalfVec low52((std::uint64_t{1} << 52) - 1);
  const Vec<std::int64_t> word = bit_cast<std::int64_t>(radius_word);
  const HalfVec folded = ((radius_word ^ bit_cast<std::uint64_t>(word >> 63)) >> 11) & low52;
  // 2^51 added to the remaining 52 bits makes the signed number unsigned.
  const HalfVec centred = ((angle_word >> 11) & low52) ^ HalfVec(std::uint64_t{1} << 51);
  return {number<double>(folded, -0.5) * Vec<double>(0x1p-53), word >= Vec<std::int64_t>(0),
          multiply_add(number<double>(centred, 0x1p51), Vec<double>(0x1p-52), Vec<double>(0x1p-53)),
          angle_word ^ (angle_word << 1)};
}

// Box-Muller for n pairs of words side by side.
//
// -ln u = -(exponent + 1) ln 2 - ln(1 - x) with x in (0, 1/2]: for u above 1/2 x is 1 - u, made from the complement of
// the word, and the first term is absent; below, 1 - x is the mantissa of u. Both terms are positive and nothing
// cancels, so the relative accuracy is that of the arithmetic for every word.
template <class T, int n>
MFLD_INLINE void box_muller(const Vec<BitsOf<T>> (&radius_word)[n], const Vec<BitsOf<T>> (&angle_word)[n],
                            Vec<T> (&z0)[n], Vec<T> (&z1)[n]) {
  using C = NormalCoefficients<T>;
  const Vec<T> two_ln2(T(1.3862943611198906));
  Vec<T> x[n], powers[n], t[n], square[n], sum[n];
  Vec<BitsOf<T>> flip[n];
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) {
    const PolarPlace<T> place = polar_place(radius_word[i], angle_word[i]);
    Vec<T> mantissa, exponent;
    split(place.v, mantissa, exponent);
    x[i] = select(place.lower, Vec<T>(1) - mantissa, place.v);
    powers[i] = select(place.lower, multiply_add(exponent, -two_ln2, -two_ln2), Vec<T>(0));
    t[i] = place.t;
    flip[i] = place.flip;
  }
  if constexpr (std::is_same_v<T, float>) {
    polynomial(C::log, x, sum);
  } else {
    // ln(1 - x) = -2 atanh(s): half the terms in s^2, and the division runs beside the multiplications.
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
      x[i] = x[i] / (Vec<T>(2) - x[i]);
      square[i] = x[i] * x[i];
    }
    polynomial(C::atanh, square, sum);
  }
  Vec<T> radius[n], sine[n], cosine[n];
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) {
    radius[i] = with_sign(sqrt(multiply_add(sum[i], x[i], powers[i])), bit_cast<T>(flip[i]));
    square[i] = t[i] * t[i];
  }
  polynomial(C::cosine, square, cosine);
  polynomial(C::sine, square, sine);
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) {
    z0[i] = radius[i] * cosine[i];
    z1[i] = radius[i] * t[i] * sine[i];
  }
}

// Lane numbers 0, 1, 2, ..., times `stride`.
MFLD_INLINE HalfVec lane_numbers(std::uint64_t stride) {
  HalfVec::Raw numbers;
  for (int lane = 0; lane < HalfVec::size; ++lane) numbers[lane] = static_cast<std::uint64_t>(lane) * stride;
  return HalfVec(numbers);
}

// The noise of a panel: 2 * Vec<T>::size particles from first_particle on. Loops over groups of four coordinates keep
// one of these, since what the particles alone decide is then made once.
template <class T>
class PanelNoise;

template <>
class PanelNoise<float> {
 public:
  MFLD_INLINE PanelNoise(const NoisePlace& noise_place, std::uint32_t first_particle) : place(noise_place) {
    const HalfVec even = lane_numbers(2) + HalfVec(first_particle);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      lanes[i] = PhiloxLanes(place, even + HalfVec(static_cast<std::uint64_t>(i / 2 * Words::size + i % 2)));
  }

  // Coordinates 4 group .. 4 group + 3.
  MFLD_INLINE void normals(std::uint32_t group, Vec<float> (&out)[4][2]) const {
    const PhiloxLanes::Block block(place, group);
    PhiloxLanes::State s[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) s[i] = lanes[i].after_round2(block);
    philox_middle_rounds(place, s);
    Words w[2][4];
    philox_last_round(place, s[0], s[1], w[0]);
    philox_last_round(place, s[2], s[3], w[1]);
    Vec<float> z0[4], z1[4];
    box_muller<float, 4>({w[0][0], w[1][0], w[0][2], w[1][2]}, {w[0][1], w[1][1], w[0][3], w[1][3]}, z0, z1);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      out[i / 2 * 2][i % 2] = z0[i];
      out[i / 2 * 2 + 1][i % 2] = z1[i];
    }
  }

 private:
  const NoisePlace& place;
  PhiloxLanes lanes[4];  // even, odd, even, odd particles
};

template <>
class PanelNoise<double> {
 public:
  MFLD_INLINE PanelNoise(const NoisePlace& noise_place, std::uint32_t first_particle) : place(noise_place) {
    const HalfVec particle = lane_numbers(1) + HalfVec(first_particle);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
      lanes[i] = PhiloxLanes(place, particle + HalfVec(static_cast<std::uint64_t>(i * HalfVec::size)));
  }

  // w0 | w1 << 32 and w2 | w3 << 32 of coordinate blocks first_block and first_block + 1, for the panel's two vectors
  // each.
  MFLD_INLINE void words(std::uint32_t first_block, HalfVec (&first)[4], HalfVec (&second)[4]) const {
    const PhiloxLanes::Block blocks[2] = {{place, first_block}, {place, first_block + 1}};
    PhiloxLanes::State s[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) s[i] = lanes[i % 2].after_round2(blocks[i / 2]);
    philox_middle_rounds(place, s);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) philox_last_round(place, s[i], first[i], second[i]);
  }

  // Coordinates 4 group .. 4 group + 3.
  MFLD_INLINE void normals(std::uint32_t group, Vec<double> (&out)[4][2]) const {
    HalfVec radius[4], angle[4];
    words(2 * group, radius, angle);
    Vec<double> z0[4], z1[4];
    box_muller(radius, angle, z0, z1);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      out[i / 2 * 2][i % 2] = z0[i];
      out[i / 2 * 2 + 1][i % 2] = z1[i];
    }
  }

 private:
  const NoisePlace& place;
  PhiloxLanes lanes[2];
};

// Normals of the 2 * Vec<T>::size particles from first_particle on, at coordinates 4 group .. 4 group + 3.
template <class T>
MFLD_INLINE void panel_normals(const NoisePlace& place, std::uint32_t first_particle, std::uint32_t group,
                               Vec<T> (&out)[4][2]) {
  PanelNoise<T>(place, first_particle).normals(group, out);
}

// Uniform on (0, 1), of 53 bits or their leading 23: see the head of this file.
template <class T>
T unit_uniform(std::uint64_t word);
template <>
inline double unit_uniform<double>(std::uint64_t word) {
  // The largest of all words would round to 1.
  return std::min((static_cast<double>(word >> 11) + 0.5) * 0x1p-53, 1 - 0x1p-53);
}
template <>
inline float unit_uniform<float>(std::uint64_t word) {
  return (static_cast<float>(word >> 41) + 0.5f) * 0x1p-23f;
}

// The rows that Floyd's algorithm has drawn so far: a set by open addressing, with room for one batch size.
class FloydSet {
 public:
  explicit FloydSet(std::int64_t batch_size) {
    while (count() < 2 * batch_size) ++log2_slots_;
    slots_ = Buffer<std::int64_t>(count());
  }

  // Before the first draw. gives_up(draws): see floyd_batch.
  template <class GivesUp>
  bool clear(const GivesUp& gives_up) {
    constexpr std::int64_t part = 1 << 16, slots_per_draw = 64;  // as long as one of them takes
    for (std::int64_t first = 0; first < count(); first += part) {
      const std::int64_t size = std::min(count() - first, part);
      if (gives_up(size / slots_per_draw)) return false;
      std::fill_n(&slots_[first], size, -1);
    }
    return true;
  }

  // One draw: r = word * (j + 1) / 2^64, rounded down, on 0 .. j; if r has been drawn before, j is taken.
  std::int64_t draw(std::uint64_t word, std::int64_t j) {
    const auto scaled = static_cast<unsigned __int128>(word) * static_cast<std::uint64_t>(j + 1);
    const auto r = static_cast<std::int64_t>(scaled >> 64);
    if (insert(r)) return r;
    insert(j);
    return j;
  }

 private:
  std::int64_t count() const { return std::int64_t{1} << log2_slots_; }
  bool insert(std::int64_t row) {
    const std::int64_t mask = count() - 1;
    // Multiplicative hashing, Knuth TAOCP 6.4: 2^64 over the golden ratio spreads runs of rows.
    auto slot =
        static_cast<std::int64_t>((static_cast<std::uint64_t>(row) * 0x9E3779B97F4A7C15u) >> (64 - log2_slots_));
    for (; slots_[slot] != -1; slot = (slot + 1) & mask)
      if (slots_[slot] == row) return false;
    slots_[slot] = row;
    return true;
  }

  int log2_slots_ = 3;
  Buffer<std::int64_t> slots_;  // a row or -1
};

// Of one of its draws, in multiply-adds that take as long where the set is larger than all caches.
inline constexpr std::int64_t work_of_draw = 100;

// `batch_size` distinct rows of n in the order of the draws: Floyd's algorithm (Bentley & Floyd, CACM 30(9), 1987),
// O(batch_size) in time and memory. Draw t takes the word w0 | w1 << 32 of "particle" t, block 0, with j = n -
// batch_size + t. Each subset has its probability up to 2^-64 a draw. gives_up(draws), before so many more of them,
// ends it early: then it returns false.
template <class GivesUp>
bool floyd_batch(const mfld_noise& noise, std::int64_t n, std::int64_t batch_size, std::int64_t* rows, FloydSet& set,
                 const GivesUp& gives_up) {
  if (!set.clear(gives_up)) return false;
  const NoisePlace place(noise, MFLD_STREAM_BATCH);
  constexpr int draws = 2 * HalfVec::size;
  for (std::int64_t t0 = 0; t0 < batch_size; t0 += draws) {
    if (gives_up(draws)) return false;
    HalfVec first[4], second[4];  // block 0 alone is used: inlining drops the work for block 1
    PanelNoise<double>(place, static_cast<std::uint32_t>(t0)).words(0, first, second);
    std::uint64_t words[draws];
    first[0].store(words);
    first[1].store(words + HalfVec::size);
    for (std::int64_t t = t0; t < t0 + draws && t < batch_size; ++t)
      rows[t] = set.draw(words[t - t0], n - batch_size + t);
  }
  return true;
}

}  // namespace mfld
