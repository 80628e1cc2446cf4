// Elementary functions on one SIMD register, without branches and without libm.
//
// Relative error against the exact function (tests/cpp/test_math.cpp): float within 4e-7, and 5e-7 on levels without
// fused multiply-adds; double within 1e-15, and 4e-15 for erf and erfc. For sine and cosine the error is absolute.
// NaN gives NaN, an infinite argument the limit. Results that would be subnormal may be 0, and without AVX-512 so may
// results up to 1.5 times the smallest normal number.
//
// Constants are printed, with the errors quoted here, by cpp/tools/fit_coefficients.py. Polynomials stand lowest power
// first.
//
// Multiply-adds are spelled out, so that a function is compiled the same way wherever it is inlined. In min and max the
// constant comes first: that order lets a NaN of the argument through.
#pragma once

#include <cstddef>
#include <limits>

#include "mfld/simd.hpp"

namespace mfld::math {

namespace detail {

// Whether multiply_add is known to round once: only where it is an instruction asked for by name.
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__)) || defined(__aarch64__)
inline constexpr bool has_fused = true;
#else
inline constexpr bool has_fused = false;
#endif

// Whether p 2^n is one instruction, right also where 2^n or the result is not a normal number.
#if defined(__AVX512F__)
inline constexpr bool has_scale = true;
#else
inline constexpr bool has_scale = false;
#endif

template <class T>
inline constexpr T root_two = T(1.41421356237309504880);

template <class T>
struct Constants;

template <>
struct Constants<float> {
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
  // Adding it rounds to an integer, which then stands in the low mantissa bits.
  static constexpr float round_to_integer = 0x1.8p23f;

  // ln2 in parts of 15 and 24 bits, remainder 5.5e-14: n times the first part is exact.
  static constexpr float log2_e = 0x1.715476p0f, ln2[] = {0x1.62e4p-1f, 0x1.7f7d1cp-20f};
  // e^x is 0 at the first and inf at the second; both exponents can be built.
  static constexpr float exp_lowest = has_scale ? -105.0f : -87.33f, exp_highest = 89.0f;
  // (e^r - 1) / r, |r| <= ln2/2: 9.2e-8 relative to e^r
  static constexpr float exp[] = {0.999999702f, 0.499991477f, 0.166676477f, 0.0418981574f, 0.00828975998f};
  // (e^r - 1 - r) / r^2, |r| <= ln2/2: 1.4e-8 relative to e^r - 1
  static constexpr float expm1[] = {0.49999997f, 0.166665465f, 0.0416674428f, 0.00836625602f, 0.00138699345f};
  static constexpr float expm1_lowest = -18.0f;  // e^x - 1 rounds to -1

  // (log(1+f) - f) / f^2, sqrt(1/2) <= 1+f <= sqrt(2): 3e-8 relative to log(1+f)
  static constexpr float log[] = {-0.499999911f, 0.333339483f, -0.250017852f, 0.199621499f,
                                  -0.165700287f, 0.149169132f, -0.14309977f,  0.0874011144f};
  // log(1+f) / f, 0 <= f <= 1: 6e-8
  static constexpr float log1p_unit[] = {0.99999994f,   -0.499993205f, 0.333163589f,   -0.24824214f,  0.190392926f,
                                         -0.135306492f, 0.0767397955f, -0.0286276452f, 0.00502042705f};

  // tanh(x) / x = top / bottom in x^2, x to 9.1: 3.3e-8
  static constexpr float tanh_highest = 9.1f;
  static constexpr float tanh_top[] = {1293697.25f, 173061.0f, 4516.28223f, 26.5585995f, 0.0171243642f};
  static constexpr float tanh_bottom[] = {1293697.25f, 604293.25f, 33454.6914f, 424.065125f};

  // erf(x) / x = top / bottom in x^2, x to 4: 4.4e-8
  static constexpr float erf_highest = 4.0f;
  static constexpr float erf_top[] = {30154.8652f, 5172.24609f, 1419.08337f, 103.775421f, 7.60455942f, 0.0530942716f};
  static constexpr float erf_bottom[] = {26724.0547f, 13491.7803f, 3082.5918f, 406.393005f, 31.6822262f};
  // e^(y^2/2) P(Z > y) = top / bottom for a standard normal Z, y to 14.6: 1.7e-8
  static constexpr float tail_top[] = {48.7320709f, 42.6700706f, 17.8207207f, 3.94667315f, 0.398946941f};
  static constexpr float tail_bottom[] = {97.4641418f, 163.105301f, 117.048187f, 45.6552048f, 9.89347553f};
  // e^(-a^2) and e^(-a^2 / 2) are 0 here; both exponents can be built.
  static constexpr float erfc_highest = has_scale ? 10.3f : 9.34f, normal_highest = has_scale ? 14.5f : 13.215f;

  // pi in parts of 24 and 24 bits, remainder 3.4e-15; of 8, 9 and 24 bits, remainder 1.1e-14
  static constexpr float inverse_pi = 0x1.45f306p-2f;
  static constexpr float pi_fused[] = {0x1.921fb6p1f, -0x1.777a5cp-24f};
  static constexpr float pi_split[] = {0x1.92p1f, 0x1.fbp-11f, 0x1.5110b4p-21f};
  // (sin r - r) / r^3 in r^2, |r| <= 1.5775: 5.6e-9 relative to r
  static constexpr float sine[] = {-0.166666597f, 0.00833306648f, -0.000198093781f, 2.60482693e-06f};
  // (cos r - 1) / r^2 in r^2, |r| <= 1.5775: 5.7e-8 absolute
  static constexpr float cosine[] = {-0.499999285f, 0.0416638851f, -0.00138551241f, 2.31758349e-05f};
};

template <>
struct Constants<double> {
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
  static constexpr double round_to_integer = 0x1.8p52;

  // ln2 in parts of 41 and 53 bits, remainder 1.9e-31
  static constexpr double log2_e = 0x1.71547652b82fep0, ln2[] = {0x1.62e42fefa4p-1, -0x1.8432a1b0e2634p-43};
  static constexpr double exp_lowest = has_scale ? -747.0 : -708.39, exp_highest = 710.0;
  // (e^r - 1 - r) / r^2, |r| <= ln2/2: 1.8e-17 relative to e^r - 1
  static constexpr double expm1[] = {0.50000000000000056,   0.16666666666666649,    0.04166666666657632,
                                     0.0083333333333604851, 0.0013888888931367892,  0.000198412697692035,
                                     2.480150564131601e-05, 2.7557370582085828e-06, 2.7625874834878532e-07,
                                     2.5063648721358767e-08};
  static constexpr double expm1_lowest = -38.0;

  // (2 atanh(s) - 2 s) / s^3 in s^2, s to 3 - sqrt(8): 1.2e-18 relative to 2 atanh(s)
  static constexpr double log[] = {0.6666666666666734,  0.39999999999417019, 0.28571428741905031, 0.22222198619807854,
                                   0.18183562023990132, 0.15314106851695461, 0.14795408910148908};
  // The same, s to 1/3: 1.3e-18
  static constexpr double log1p_unit[] = {
      0.66666666666666308, 0.40000000000155705, 0.28571428548054378, 0.22222223957158035, 0.18181744366432595,
      0.15386550616326847, 0.13301093963248906, 0.12105150687451631, 0.0834411119575766,  0.17011292646684376};

  // tanh(r/2) / r = top / bottom in r^2, |r| <= ln2/2: 5.4e-18
  static constexpr double tanh_highest = 20.0;  // tanh rounds to 1
  static constexpr double tanh_top[] = {504.14899609074678, 14.002660466511347, 0.03331856674698716};
  static constexpr double tanh_bottom[] = {1008.2979921814936, 112.03015361481238};

  // erf(x) / x in x^2, x to 1/2: 1.4e-17
  static constexpr double erf_small[] = {1.1283791670955126,    -0.3761263890318326,     0.11283791670913251,
                                         -0.026866170629814719, 0.0052239773316778981,   -0.00085482946015084883,
                                         0.0001205319835739701, -1.4842702630223938e-05, 1.469607189573991e-06};
  // e^(y^2/2) P(Z > y) = top / bottom for a standard normal Z, y to 38.8: 8.3e-17
  static constexpr double tail_top[] = {144598.13666462904, 224000.39111328451, 171663.62480839872, 83578.355433658347,
                                        28210.910843073525, 6818.1025351315757, 1179.7255854654093, 141.40239297898043,
                                        10.734450028595722, 0.39894228040021013};
  static constexpr double tail_bottom[] = {
      289196.27332925808, 678746.02375770756, 740290.08601485309, 495364.80964451423, 225891.50245402713,
      73617.582292261621, 17442.891955303519, 2984.0407814907981, 355.44323640047452, 26.90727595365906};
  static constexpr double erfc_highest = has_scale ? 27.4 : 26.61, normal_highest = has_scale ? 38.7 : 37.64;

  // pi in parts of 53 and 53 bits, remainder 3e-33; of 27, 28 and 53 bits, remainder 8.7e-35
  static constexpr double inverse_pi = 0x1.45f306dc9c883p-2;
  static constexpr double pi_fused[] = {0x1.921fb54442d18p1, 0x1.1a62633145c07p-53};
  static constexpr double pi_split[] = {0x1.921fb54p1, 0x1.10b4612p-29, -0x1.676733ae8fe48p-59};
  // (sin r - r) / r^3 in r^2, |r| <= 1.5775: 1.3e-16 relative to r
  static constexpr double sine[] = {-0.16666666666666236,   0.0083333333332890735,   -0.00019841269825900424,
                                    2.7557316693033891e-06, -2.5051885371152154e-08, 1.6048232671657324e-10,
                                    -7.3747770097954147e-13};
  // (cos r - 1) / r^2 in r^2, |r| <= 1.5775: 4.7e-18 absolute
  static constexpr double cosine[] = {-0.49999999999999983,    0.041666666666664388,    -0.0013888888888784873,
                                      2.4801587278841543e-05,  -2.7557316485026249e-07, 2.0876565234631438e-09,
                                      -1.1462963604355345e-11, 4.60940124405377e-14};
};

// Horner's rule from `sum` down. Splitting it into shorter chains was measured slower: the loops that call this are
// bound by throughput.
template <class T, std::size_t n>
MFLD_INLINE Vec<T> horner(Vec<T> sum, Vec<T> x, const T (&c)[n], std::size_t count, T factor) {
#pragma GCC unroll 16
  for (std::size_t k = count; k > 0; --k) sum = multiply_add(sum, x, Vec<T>(factor * c[k - 1]));
  return sum;
}

// factor sum_k c[k] x^k
template <class T, std::size_t n>
MFLD_INLINE Vec<T> polynomial(Vec<T> x, const T (&c)[n], T factor = T(1)) {
  return horner(Vec<T>(factor * c[n - 1]), x, c, n - 1, factor);
}

// x^n + sum_{k<n} c[k] x^k
template <class T, std::size_t n>
MFLD_INLINE Vec<T> monic_polynomial(Vec<T> x, const T (&c)[n]) {
  return horner(x + Vec<T>(c[n - 1]), x, c, n - 1, T(1));
}

// x = n ln2 + r with |r| <= ln2/2; power is 2^(n+offset) while that is a normal number, and 0 one below.
template <class T>
struct Exponent {
  Vec<T> n, r, power;
};

template <int offset, class T>
MFLD_INLINE Exponent<T> split_exponent(Vec<T> x) {
  using C = Constants<T>;
  // The integer lands in the low mantissa bits with the bias on it: a shift makes it an exponent.
  constexpr T shift = C::round_to_integer + C::exponent_bias + offset;
  const Vec<T> shifted = multiply_add(x, Vec<T>(C::log2_e), Vec<T>(shift));
  const Vec<T> n = shifted - Vec<T>(shift);
  const Vec<T> r = multiply_add(n, Vec<T>(-C::ln2[1]), multiply_add(n, Vec<T>(-C::ln2[0]), x));
  return {n, r, bit_cast<T>(bit_cast<BitsOf<T>>(shifted) << C::mantissa_bits)};
}

// Without the instruction, e^x is 2 e^r 2^(n-1): 2^n overflows before e^x does.
inline constexpr int exp_offset = has_scale ? 0 : -1;

// e^x. short_polynomial: float's shorter one, when little else adds to its error.
template <bool short_polynomial, class T>
MFLD_INLINE Vec<T> exp_of(Exponent<T> e) {
  using C = Constants<T>;
  constexpr T unit = has_scale ? 1 : 2;
  Vec<T> p;
  if constexpr (short_polynomial && sizeof(T) == 4)
    p = polynomial(e.r, C::exp, unit);
  else
    p = multiply_add(polynomial(e.r, C::expm1, unit), e.r, Vec<T>(unit));
  p = multiply_add(p, e.r, Vec<T>(unit));
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Vec<T>(typename Vec<T>::Raw(_mm512_scalef_ps(p.raw, e.n.raw)));
  else
    return Vec<T>(typename Vec<T>::Raw(_mm512_scalef_pd(p.raw, e.n.raw)));
#else
  return p * e.power;
#endif
}

// e^(-scale a^2), scale a power of two, for 0 <= a <= erfc_highest (scale 1) or normal_highest (scale 1/2). An error of
// a^2 would be a relative error of the result, so what rounding takes from a^2 is put back into r.
template <class T>
MFLD_INLINE Vec<T> exp_minus_square(Vec<T> a, T scale) {
  Vec<T> square, rest;
  if constexpr (has_fused) {
    const Vec<T> b = a * Vec<T>(-scale);
    square = a * b;
    rest = multiply_add(a, b, -square);
  } else {
    // Half of the digits, so that its square is exact.
    constexpr BitsOf<T> upper_half = ~BitsOf<T>(0) << (Constants<T>::mantissa_bits / 2 + 1);
    const Vec<T> top = bit_cast<T>(bit_cast<BitsOf<T>>(a) & Vec<BitsOf<T>>(upper_half));
    square = top * top * Vec<T>(-scale);
    rest = (a - top) * (a + top) * Vec<T>(-scale);
  }
  Exponent<T> e = split_exponent<exp_offset>(square);
  e.r += rest;
  return exp_of<false>(e);
}

// e^r - 1 for |r| <= ln2/2
template <class T>
MFLD_INLINE Vec<T> expm1_reduced(Vec<T> r) {
  return multiply_add(polynomial(r, Constants<T>::expm1), r * r, r);
}

// log(1+f) = 2 atanh(s), s = f / (2+f), with the coefficients of log or of log1p_unit
template <std::size_t n>
MFLD_INLINE Vec<double> log_by_atanh(Vec<double> f, const double (&c)[n]) {
  // 2 s = f - s f: written so, the rounding of s meets small terms alone.
  const Vec<double> s = f / (f + Vec<double>(2));
  const Vec<double> u = s * s;
  return multiply_add(-s, multiply_add(-u, polynomial(u, c), f), f);
}

// log(1+f) for sqrt(1/2) <= 1+f <= sqrt(2)
template <class T>
MFLD_INLINE Vec<T> log_reduced(Vec<T> f) {
  if constexpr (sizeof(T) == 4)
    return multiply_add(polynomial(f, Constants<T>::log), f * f, f);
  else
    return log_by_atanh(f, Constants<T>::log);
}

// The exponent k of x = 2^k m, sqrt(1/2) <= m < sqrt(2), for normal positive x; as a number, and where exponents stand.
template <class T>
struct Logarithm {
  Vec<T> k;
  Vec<BitsOf<T>> k_bits;
};

template <class T>
MFLD_INLINE Logarithm<T> split_logarithm(Vec<T> x) {
  using C = Constants<T>;
  using U = BitsOf<T>;
  constexpr U one = U(C::exponent_bias) << C::mantissa_bits;
  constexpr U root_half = sizeof(T) == 4 ? U(0x3f3504f3) : U(0x3fe6a09e667f3bcd);
  // Counted from sqrt(1/2). The bias stays on: levels below AVX-512 have no signed shift of 64-bit lanes.
  const Vec<U> biased = (bit_cast<U>(x) + Vec<U>(one - root_half)) >> C::mantissa_bits;
  constexpr T two_to_mantissa_bits = T(U(1) << C::mantissa_bits);
  const Vec<T> k =
      bit_cast<T>(biased | bit_cast<U>(Vec<T>(two_to_mantissa_bits))) - Vec<T>(two_to_mantissa_bits + C::exponent_bias);
  return {k, (biased << C::mantissa_bits) - Vec<U>(one)};
}

// k ln2 + log(1+f); inf and NaN of x pass through.
template <class T>
MFLD_INLINE Vec<T> finish_logarithm(Vec<T> x, Vec<T> k, Vec<T> f) {
  using C = Constants<T>;
  const Vec<T> y = multiply_add(k, Vec<T>(C::ln2[0]), multiply_add(k, Vec<T>(C::ln2[1]), log_reduced(f)));
  return select(x < Vec<T>(std::numeric_limits<T>::infinity()), y, x);
}

// factor P(Z > y) for a standard normal Z, from e = e^(-y^2/2)
template <class T>
MFLD_INLINE Vec<T> normal_tail(Vec<T> e, Vec<T> y, T factor) {
  using C = Constants<T>;
  return e * polynomial(y, C::tail_top, factor) / monic_polynomial(y, C::tail_bottom);
}

// z = n pi + r with |r| <= pi/2 up to the rounding of z / pi; and (-1)^n as a sign bit.
template <class T>
struct HalfTurns {
  Vec<T> r;
  Vec<BitsOf<T>> sign;
};

template <class T>
MFLD_INLINE HalfTurns<T> split_half_turns(Vec<T> z) {
  using C = Constants<T>;
  const Vec<T> shifted = multiply_add(z, Vec<T>(C::inverse_pi), Vec<T>(C::round_to_integer));
  const Vec<T> n = shifted - Vec<T>(C::round_to_integer);
  Vec<T> r = z;
  if constexpr (has_fused) {
    for (const T part : C::pi_fused) r = multiply_add(n, Vec<T>(-part), r);
  } else {
    for (const T part : C::pi_split) r = multiply_add(n, Vec<T>(-part), r);
  }
  return {r, bit_cast<BitsOf<T>>(shifted) << (8 * sizeof(T) - 1)};
}

// Far beyond the accurate range r is anything; the results still stay in [-1, 1].
template <class T>
MFLD_INLINE Vec<T> signed_unit(Vec<T> v, Vec<BitsOf<T>> sign) {
  const Vec<T> inside = min(Vec<T>(1), max(Vec<T>(-1), v));
  return bit_cast<T>(bit_cast<BitsOf<T>>(inside) ^ sign);
}

template <class T>
MFLD_INLINE Vec<T> sine_of(HalfTurns<T> h) {
  const Vec<T> u = h.r * h.r;
  return signed_unit(multiply_add(polynomial(u, Constants<T>::sine), u * h.r, h.r), h.sign);
}

template <class T>
MFLD_INLINE Vec<T> cosine_of(HalfTurns<T> h) {
  const Vec<T> u = h.r * h.r;
  return signed_unit(multiply_add(polynomial(u, Constants<T>::cosine), u, Vec<T>(1)), h.sign);
}

}  // namespace detail

// e^x for x <= 0, one operation less than exp
template <class T>
MFLD_INLINE Vec<T> exp_not_positive(Vec<T> x) {
  using C = detail::Constants<T>;
  return detail::exp_of<true>(detail::split_exponent<detail::exp_offset>(max(Vec<T>(C::exp_lowest), x)));
}

template <class T>
MFLD_INLINE Vec<T> exp(Vec<T> x) {
  return exp_not_positive(min(Vec<T>(detail::Constants<T>::exp_highest), x));
}

template <class T>
MFLD_INLINE Vec<T> expm1(Vec<T> x) {
  using C = detail::Constants<T>;
  const Vec<T> inside = min(Vec<T>(C::exp_highest), max(Vec<T>(C::expm1_lowest), x));
  // (e^x - 1) / 2, doubled at the end: 2^n overflows too early.
  const detail::Exponent<T> e = detail::split_exponent<-1>(inside);
  const Vec<T> half = multiply_add(detail::expm1_reduced(e.r), e.power, e.power - Vec<T>(T(0.5)));
  return half + half;
}

// For x > 0. What lies below the smallest normal number is taken for that number.
template <class T>
MFLD_INLINE Vec<T> log(Vec<T> x) {
  const Vec<T> normal = max(Vec<T>(std::numeric_limits<T>::min()), x);
  const auto l = detail::split_logarithm(normal);
  const Vec<T> m = bit_cast<T>(bit_cast<BitsOf<T>>(normal) - l.k_bits);
  return detail::finish_logarithm(x, l.k, m - Vec<T>(1));
}

// log(1+x) for x >= 0
template <class T>
MFLD_INLINE Vec<T> log1p(Vec<T> x) {
  const auto l = detail::split_logarithm(Vec<T>(1) + x);
  // f = (1+x) 2^-k - 1 with one rounding. 2^-k may be subnormal, 2^(2-k) is not.
  const Vec<T> scale = bit_cast<T>(bit_cast<BitsOf<T>>(Vec<T>(4)) - l.k_bits);
  const Vec<T> quarter(T(0.25));
  const Vec<T> f = multiply_add(x * quarter, scale, multiply_add(scale, quarter, Vec<T>(-1)));
  return detail::finish_logarithm(x, l.k, f);
}

// log(1+x) for 0 <= x <= 1, as softplus and logistic losses need it; cheaper than log1p.
template <class T>
MFLD_INLINE Vec<T> log1p_unit(Vec<T> x) {
  using C = detail::Constants<T>;
  if constexpr (sizeof(T) == 4)
    return detail::polynomial(x, C::log1p_unit) * x;
  else
    return detail::log_by_atanh(x, C::log1p_unit);
}

// At most 1 in size, and 1 from tanh_highest on.
template <class T>
MFLD_INLINE Vec<T> tanh(Vec<T> x) {
  using C = detail::Constants<T>;
  const Vec<T> y = min(Vec<T>(C::tanh_highest), abs(x));
  if constexpr (sizeof(T) == 4) {
    // One division hides behind the multiply-adds: faster than a table of 32 quartics held in registers (measured, Zen
    // 4).
    const Vec<T> u = y * y;
    const Vec<T> t = y * detail::polynomial(u, C::tanh_top) / detail::monic_polynomial(u, C::tanh_bottom);
    return with_sign(min(Vec<T>(1), t), x);
  } else {
    // 2y = n ln2 + r, and the addition theorem of tanh(n ln2/2) = (2^n - 1) / (2^n + 1) and tanh(r/2) = top / bottom:
    // one division in all, and nothing cancels at n = 0.
    const detail::Exponent<T> e = detail::split_exponent<0>(y + y);
    const Vec<T> u = e.r * e.r, minus = e.power - Vec<T>(1), plus = e.power + Vec<T>(1);
    const Vec<T> top = e.r * detail::polynomial(u, C::tanh_top), bottom = detail::monic_polynomial(u, C::tanh_bottom);
    const Vec<T> t = multiply_add(minus, bottom, plus * top) / multiply_add(plus, bottom, minus * top);
    return with_sign(min(Vec<T>(1), t), x);
  }
}

// Relative accuracy in the right tail, down to underflow
template <class T>
MFLD_INLINE Vec<T> erfc(Vec<T> x) {
  const Vec<T> a = min(Vec<T>(detail::Constants<T>::erfc_highest), abs(x));
  const Vec<T> tail = detail::normal_tail(detail::exp_minus_square(a, T(1)), a * Vec<T>(detail::root_two<T>), T(2));
  return select_by_sign(x, Vec<T>(2) - tail, tail);
}

// erf and its derivative 2 / sqrt(pi) e^(-x^2)
template <class T>
struct ErfAndSlope {
  Vec<T> value, slope;
};

template <class T>
MFLD_INLINE ErfAndSlope<T> erf_and_slope(Vec<T> x) {
  using C = detail::Constants<T>;
  const Vec<T> a = min(Vec<T>(C::erfc_highest), abs(x));
  const Vec<T> e = detail::exp_minus_square(a, T(1));
  const Vec<T> slope = e * Vec<T>(T(1.12837916709551257390));  // 2 / sqrt(pi)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> y = min(Vec<T>(C::erf_highest), a);
    const Vec<T> u = y * y;
    const Vec<T> t = y * detail::polynomial(u, C::erf_top) / detail::monic_polynomial(u, C::erf_bottom);
    return {with_sign(min(Vec<T>(1), t), x), slope};
  } else {
    const Vec<T> small = a * detail::polynomial(a * a, C::erf_small);
    const Vec<T> large = Vec<T>(1) - detail::normal_tail(e, a * Vec<T>(detail::root_two<T>), T(2));
    return {with_sign(select(a < Vec<T>(T(0.5)), small, large), x), slope};
  }
}

template <class T>
MFLD_INLINE Vec<T> erf(Vec<T> x) {
  return erf_and_slope(x).value;
}

// Accurate for |z| <= 1e5 in float and 1e8 in double. For every finite z within [-1, 1]; NaN for +-inf.
template <class T>
struct SinCos {
  Vec<T> sin, cos;
};

template <class T>
MFLD_INLINE SinCos<T> sincos(Vec<T> z) {
  const auto h = detail::split_half_turns(z);
  return {detail::sine_of(h), detail::cosine_of(h)};
}

template <class T>
MFLD_INLINE Vec<T> sin(Vec<T> z) {
  return sincos(z).sin;
}

template <class T>
MFLD_INLINE Vec<T> cos(Vec<T> z) {
  return sincos(z).cos;
}

// P(Z <= z) for a standard normal Z, with relative accuracy in the left tail, and the density
template <class T>
struct Normal {
  Vec<T> probability, density;
};

template <class T>
MFLD_INLINE Normal<T> normal(Vec<T> z) {
  const Vec<T> y = min(Vec<T>(detail::Constants<T>::normal_highest), abs(z));
  const Vec<T> e = detail::exp_minus_square(y, T(0.5));
  const Vec<T> tail = detail::normal_tail(e, y, T(1));
  return {select_by_sign(z, tail, Vec<T>(1) - tail), e * Vec<T>(T(0.39894228040143267794))};  // 1 / sqrt(2 pi)
}

}  // namespace mfld::math
