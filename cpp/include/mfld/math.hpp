// Elementary functions on SIMD registers, in both precisions: branch-free, and without a table.
//
// Accuracy, measured in tests/cpp/test_math.cpp: relative error below 4e-7 in float and 1e-15 in double (absolute where sin and
// cos vanish; erfc(x) loses x^2 further half-units in the last place in its far tail on a level without fused multiply-add).
// A NaN stays a NaN; infinities give the limits. The constants are printed by cpp/tools/fit_coefficients.py, with their errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "mfld/simd.hpp"

namespace mfld::math {

template <class T>
struct Coefficients;

template <>
struct Coefficients<float> {
  // exp float: e^r = 1 + r + r^2 E(r), |r| <= ln(2)/2: error 9.4e-9
  static constexpr float exponential[] = {0.5f, 0.166665763f, 0.0416665561f, 0.00836317893f, 0.0013926184f};
  // log float: log(1+f) = 2 s + s^3 L(s^2), s = f/(2+f), f in sqrt(1/2)-1 .. sqrt(2)-1: error 2.7e-9
  static constexpr float logarithm[] = {0.666666865f, 0.399887592f, 0.295809865f};
  // sin float: r + r^3 S(r^2), |r| <= pi/4: error 1.3e-8
  static constexpr float sine[] = {-0.166666642f, 0.00833274703f, -0.00019587639f};
  // cos float: 1 - r^2/2 + r^4 C(r^2), |r| <= pi/4: error 1.1e-9
  static constexpr float cosine[] = {0.0416666642f, -0.00138883013f, 2.45476895e-05f};
  // erf float: x P(x^2), |x| <= 1: error 4.3e-8
  static constexpr float error_centre[] = {1.12837911f, -0.376123428f, 0.112803169f, -0.0267150551f, 0.00492176181f,
      -0.000564805989f};
  // erfc float: erfc(x) = exp(-x^2) t C(y), t = 1/(1 + x/2.0), y = 2 t - 1, x >= 1: error 5.0e-8
  static constexpr float error_tail[] = {0.510791361f, 0.343580335f, 0.139738068f, 0.0182229187f, -0.0107922489f,
      -0.00330860238f, 0.00168792717f, 0.000907415f, 7.1774346e-05f};
  // tanh float: x P(x^2)/Q(x^2), |x| <= 9; P: error 5.892328402978819e-08
  static constexpr float tanh_numerator[] = {0.99999994f, 0.129192233f, 0.00292075635f, 9.2673763e-06f,
      -1.27803279e-08f, 1.82550104e-11f};
  // Q: error 5.892328402978819e-08
  static constexpr float tanh_denominator[] = {1.0f, 0.46252507f, 0.0237631463f, 0.000228099481f};
  static constexpr float error_scale = 2.0f;  // erfc's t is 1 / (1 + x / error_scale)

  // Past these exp is infinite or zero in this precision.
  static constexpr float exp_highest = 89.0f, exp_lowest = -104.0f;
  // ln(2) in two parts, the first short enough for its product with any exponent to be exact.
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  // pi/2 in three parts, the first two of at most 12 bits: products with up to 2^12 quarter turns are exact also without fused
  // multiply-add. sin and cos hold their accuracy up to |z| = 1e4 there, and 1e5 elsewhere.
  static constexpr float half_pi[] = {0x1.92p0f, 0x1.fb4p-12f, 0x1.4442d2p-24f};
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
};

template <>
struct Coefficients<double> {
  // exp double: e^r = 1 + r + r^2 E(r), |r| <= ln(2)/2: error 1.5e-17
  static constexpr double exponential[] = {0.5000000000000001, 0.16666666666666667, 0.041666666666624128,
      0.0083333333333300618, 0.0013888888917213717, 0.00019841269863053617, 2.4801521295954375e-5,
      2.7557268459997065e-6, 2.7620088445409748e-7, 2.5100385495510319e-8};
  // log double: log(1+f) = 2 s + s^3 L(s^2), s = f/(2+f), f in sqrt(1/2)-1 .. sqrt(2)-1: error 4.3e-18
  static constexpr double logarithm[] = {0.66666666666666697, 0.39999999999898891, 0.28571428626253838,
      0.22222211089379493, 0.18182892432537032, 0.15331611722050652, 0.14617807153462829};
  // sin double: r + r^3 S(r^2), |r| <= pi/4: error 1.3e-17
  static constexpr double sine[] = {-0.16666666666666665, 0.0083333333333309366, -0.00019841269836740532,
      2.7557316093198405e-6, -2.5051129896450182e-8, 1.5917988979397206e-10};
  // cos double: 1 - r^2/2 + r^4 C(r^2), |r| <= pi/4: error 6.3e-19
  static constexpr double cosine[] = {0.041666666666666665, -0.001388888888888739, 2.4801587298754401e-5,
      -2.755731726587808e-7, 2.0876145049413177e-9, -1.1382544645349108e-11};
  // erf double: x P(x^2), |x| <= 1: error 8.1e-18
  static constexpr double error_centre[] = {1.1283791670955126, -0.3761263890318354, 0.11283791670945006,
      -0.02686617064323777, 0.0052239776071164227, -0.00085483259753896921, 0.00012055294904839708,
      -1.492473690741966e-5, 1.6447424703317362e-6, -1.6208483801871701e-7, 1.3720064546777665e-8,
      -7.7958988270021059e-10};
  // erfc double: erfc(x) = exp(-x^2) t C(y), t = 1/(1 + x/2.5), y = 2 t - 1, x >= 1: error 3.3e-17
  static constexpr double error_tail[] = {0.42161272812228716, 0.32186073977565956, 0.18156564665923895,
      0.068500458098415165, 0.011344620052778955, -0.003357217720722804, -0.001927514209200796,
      0.00017568329773454266, 0.00028107748990191597, -2.3322958437324563e-5, -4.5041852959013759e-5,
      7.8112968021046514e-6, 7.2959173064090053e-6, -2.693835873878033e-6, -9.1744185864435675e-7,
      7.7110364332066295e-7, -5.9354255147406041e-8, -2.0566554302381568e-7, 1.2154881467085941e-7,
      1.2758406543849365e-7, 2.7462791161046138e-8};
  static constexpr double error_scale = 2.5;

  static constexpr double exp_highest = 710.0, exp_lowest = -746.0;
  static constexpr double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
  // As above, 26 bits each: |z| up to 1e8.
  static constexpr double half_pi[] = {0x1.921fb5p0, 0x1.110b46p-26, 0x1.1a62633145c07p-54};
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
};

template <class T, std::size_t n>
MFLD_INLINE Vec<T> polynomial(const T (&coefficients)[n], Vec<T> x) {
  Vec<T> value(coefficients[n - 1]);
#pragma GCC unroll 32
  for (std::size_t i = n - 1; i > 0; --i) value = value * x + Vec<T>(coefficients[i - 1]);
  return value;
}

// Bounds that let a NaN pass: see max.
template <class T>
MFLD_INLINE Vec<T> clamp(Vec<T> x, T low, T high) {
  return -max(Vec<T>(-high), -max(Vec<T>(low), x));
}

// The nearest integer, as a number and (modulo its type) as an integer: adding 1.5 * 2^mantissa_bits leaves it in the low bits.
template <class T>
struct Rounded {
  Vec<T> number;
  Vec<MaskOf<T>> integer;
};
template <class T>
MFLD_INLINE Rounded<T> round_to_integer(Vec<T> x) {
  const Vec<T> shift(T(3) * T(std::int64_t(1) << (Coefficients<T>::mantissa_bits - 1)));
  const Vec<T> sum = x + shift;
  return {sum - shift, bit_cast<MaskOf<T>>(sum) - bit_cast<MaskOf<T>>(shift)};
}

// 2^n for exponents of normal numbers.
template <class T>
MFLD_INLINE Vec<T> power_of_two(Vec<MaskOf<T>> n) {
  using I = MaskOf<T>;
  return bit_cast<T>((n + Vec<I>(I(Coefficients<T>::exponent_bias))) << Coefficients<T>::mantissa_bits);
}

// x = n ln(2) + r, |r| <= ln(2)/2, for x within the bounds of exp.
template <class T>
struct ExpReduction {
  Vec<MaskOf<T>> n;
  Vec<T> r;
};
template <class T>
MFLD_INLINE ExpReduction<T> reduce_for_exp(Vec<T> x) {
  using C = Coefficients<T>;
  const Rounded<T> n = round_to_integer(x * Vec<T>(T(1.4426950408889634074L)));
  return {n.integer, (x - n.number * Vec<T>(C::ln2_high)) - n.number * Vec<T>(C::ln2_low)};
}

// An integer of magnitude below 2^22 as a number: few levels convert 64-bit integers in hardware.
template <class I>
MFLD_INLINE auto convert_small(Vec<I> n) {
  using T = std::conditional_t<sizeof(I) == 8, double, float>;
  const Vec<T> shift(T(3) * T(std::int64_t(1) << (Coefficients<T>::mantissa_bits - 1)));
  return bit_cast<T>(n + bit_cast<I>(shift)) - shift;
}

template <class T>
MFLD_INLINE Vec<T> exp(Vec<T> x) {
  using C = Coefficients<T>;
  const ExpReduction<T> reduced = reduce_for_exp(clamp(x, C::exp_lowest, C::exp_highest));
  const Vec<T> r = reduced.r;
  const Vec<T> p = Vec<T>(1) + (r + r * r * math::polynomial(C::exponential, r));
  // In two factors, so that neither overflows before the product does, and results below the normal numbers are rounded once.
  const auto half = reduced.n >> 1;
  return p * power_of_two<T>(half) * power_of_two<T>(reduced.n - half);
}

// exp(x) - 1 with full relative accuracy near 0.
template <class T>
MFLD_INLINE Vec<T> expm1(Vec<T> x) {
  using C = Coefficients<T>;
  // Below the lowest bound the result is -1 to rounding.
  const ExpReduction<T> reduced = reduce_for_exp(clamp(x, T(-0.7) * T(C::mantissa_bits + 3), C::exp_highest));
  const Vec<T> r = reduced.r;
  const Vec<T> p = r + r * r * math::polynomial(C::exponential, r);
  // 2 (2^(n-1) p + 2^(n-1) - 1/2), since 2^n itself may overflow.
  const Vec<T> scale = power_of_two<T>(reduced.n - Vec<MaskOf<T>>(1));
  return Vec<T>(2) * (scale * p + (scale - Vec<T>(T(0.5))));
}

// Natural logarithm of positive normal numbers; of 0 it is -inf, of negative numbers NaN, of +inf +inf.
template <class T>
MFLD_INLINE Vec<T> log(Vec<T> x) {
  using C = Coefficients<T>;
  using I = MaskOf<T>;
  // x = 2^n m with m in sqrt(1/2) .. sqrt(2): subtracting the bits of sqrt(1/2) carries into the exponent where m would be larger.
  const Vec<I> root_half = bit_cast<I>(Vec<T>(T(0.70710678118654752440L)));
  const Vec<I> n = (bit_cast<I>(x) - root_half) >> C::mantissa_bits;
  const Vec<T> m = bit_cast<T>(bit_cast<I>(x) - (n << C::mantissa_bits));
  const Vec<T> f = m - Vec<T>(1);
  const Vec<T> s = f / (Vec<T>(2) + f);
  const Vec<T> t = s * s;
  const Vec<T> number = convert_small(n);
  const Vec<T> value = (s * t * math::polynomial(C::logarithm, t) + number * Vec<T>(C::ln2_low)) + Vec<T>(2) * s +
                       number * Vec<T>(C::ln2_high);
  const Vec<T> inf(std::numeric_limits<T>::infinity());
  const Vec<T> outside = select(x == Vec<T>(0), -inf, (x - x) / (x - x));
  return select(x > Vec<T>(0), select(x < inf, value, inf), outside);
}

// log(1 + x) for x >= 0 with full relative accuracy near 0.
template <class T>
MFLD_INLINE Vec<T> log1p(Vec<T> x) {
  const Vec<T> sum = Vec<T>(1) + x;
  // What the addition rounded off, to first order.
  const Vec<T> lost = x - (sum - Vec<T>(1));
  const Vec<T> inf(std::numeric_limits<T>::infinity());
  return select(x < inf, log(sum) + lost / sum, x);
}

template <class T>
MFLD_INLINE Vec<T> tanh(Vec<T> x) {
  if constexpr (std::is_same_v<T, float>) {
    // Beyond 9 float tanh is 1. |P/Q| stays below 1 + 1e-7 there and is cut to 1.
    const Vec<T> z = clamp(x, -9.0f, 9.0f);
    const Vec<T> t = z * z;
    const Vec<T> y = z * math::polynomial(Coefficients<T>::tanh_numerator, t) / math::polynomial(Coefficients<T>::tanh_denominator, t);
    return clamp(y, -1.0f, 1.0f);
  } else {
    // expm1(2|x|) / (expm1(2|x|) + 2): relative accuracy near 0 comes from expm1. Beyond 20 double tanh is 1.
    const Vec<T> e = expm1(Vec<T>(2) * -max(Vec<T>(-20.0), -abs(x)));
    return with_sign(e / (e + Vec<T>(2)), x);
  }
}

// 1 / (1 + exp(-x)), with relative accuracy in the left tail.
template <class T>
MFLD_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> e = exp(-abs(x));
  return select(x < Vec<T>(0), e, Vec<T>(1)) / (Vec<T>(1) + e);
}

// exp(-x^2), keeping the bits that rounding x^2 loses (where the level has a fused multiply-add).
template <class T>
MFLD_INLINE Vec<T> exp_of_minus_square(Vec<T> x) {
  // Beyond the bound the result is 0, and the square must not overflow.
  const Vec<T> bounded = -max(Vec<T>(std::is_same_v<T, float> ? T(-11) : T(-28)), -abs(x));
  const Vec<T> square = bounded * bounded;
  const Vec<T> lost = bounded * bounded - square;
  const Vec<T> e = exp(-square);
  return e - e * lost;
}

// erf and erfc of x, and exp(-x^2), which their derivatives need.
template <class T>
struct ErrorFunctions {
  Vec<T> erf, erfc, gaussian;
};
template <class T>
MFLD_INLINE ErrorFunctions<T> error_functions(Vec<T> x) {
  using C = Coefficients<T>;
  const Vec<T> one(1), size = abs(x);
  const Vec<T> gaussian = exp_of_minus_square(x);
  const Vec<T> t = one / (one + size * Vec<T>(1 / C::error_scale));
  const Vec<T> tail = gaussian * t * math::polynomial(C::error_tail, t + t - one);
  const Vec<T> inner = -max(-one, -size);
  const Vec<T> centre = inner * math::polynomial(C::error_centre, inner * inner);
  const auto near = size < one;
  const Vec<T> erf = with_sign(select(near, centre, one - tail), x);
  const Vec<T> erfc = select(near, one - erf, select(x < Vec<T>(0), Vec<T>(2) - tail, tail));
  return {erf, erfc, gaussian};
}
template <class T>
MFLD_INLINE Vec<T> erf(Vec<T> x) {
  return error_functions(x).erf;
}
template <class T>
MFLD_INLINE Vec<T> erfc(Vec<T> x) {
  return error_functions(x).erfc;
}

// Both from one reduction to |r| <= pi/4. The bound on r keeps results within [-1, 1] for arguments beyond the stated range.
template <class T>
struct SineCosine {
  Vec<T> sine, cosine;
};
template <class T>
MFLD_INLINE SineCosine<T> sincos(Vec<T> x) {
  using C = Coefficients<T>;
  using I = MaskOf<T>;
  const Rounded<T> turns = round_to_integer(x * Vec<T>(T(0.63661977236758134308L)));
  const Vec<T> n = turns.number;
  Vec<T> r = ((x - n * Vec<T>(C::half_pi[0])) - n * Vec<T>(C::half_pi[1])) - n * Vec<T>(C::half_pi[2]);
  r = clamp(r, T(-0.7854), T(0.7854));
  const Vec<T> t = r * r;
  const Vec<T> s = r + r * t * math::polynomial(C::sine, t);
  const Vec<T> c = Vec<T>(1) - (Vec<T>(T(0.5)) * t - t * t * math::polynomial(C::cosine, t));
  const Vec<I> quarter = turns.integer;
  const auto odd = (quarter & Vec<I>(1)) == Vec<I>(1);
  const int to_sign = 8 * sizeof(T) - 2;
  const Vec<I> top = Vec<I>(I(BitsOf<T>(1) << (8 * sizeof(T) - 1)));
  const Vec<I> sine_sign = (quarter << to_sign) & top;
  const Vec<I> cosine_sign = ((quarter + Vec<I>(1)) << to_sign) & top;
  return {bit_cast<T>(bit_cast<I>(select(odd, c, s)) ^ sine_sign), bit_cast<T>(bit_cast<I>(select(odd, s, c)) ^ cosine_sign)};
}

}  // namespace mfld::math
