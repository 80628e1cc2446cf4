// Kernels of pairs: functions of a distance, and on the torus functions of a difference.
//
// To add one: write a struct and append it to its list. The place in the lists, radial ones first, is its id; tests,
// bindings and the pair loop find it there.
//
//   radial     k(x, y) = kappa(s),  s = |x - y|^2 in units of the length scale: `at` gives kappa and its derivatives
//              in s
//   periodic   k(x, y) = product over coordinates of phi(x_c - y_c), the period being 2 pi: `at` gives phi and its
//              derivatives
//   derivatives   how many the pair loop may use: 1 for gradients, 2 for Stein sums, 3 for gradients of those
//
// A derivative that is infinite at distance 0 is taken as 0 there: it is multiplied by the difference, and the mean
// over directions is 0.
#pragma once

#include <array>
#include <cstdint>

#include "mfld/math.hpp"
#include "mfld/simd.hpp"

namespace mfld {

template <class T>
struct Jet {
  Vec<T> value, first, second, third;
};

// Numbers of a kernel: an exponent, a length in radians, or the coefficients of a series.
template <class T>
struct KernelNumbers {
  T parameter;
  const T* coefficients;
  std::int64_t n_coefficients;
};

namespace detail {
// 1 / r, and 0 where r is 0
template <class T>
MFLD_INLINE Vec<T> inverse_or_zero(Vec<T> r) {
  return select(r == Vec<T>(0), Vec<T>(0), Vec<T>(1) / r);
}
}  // namespace detail

// exp(-s / 2)
struct GaussianProfile {
  static constexpr const char* name = "gaussian";
  static constexpr int derivatives = 3;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> s, const KernelNumbers<T>&) {
    const Vec<T> k = math::exp_not_positive(s * Vec<T>(T(-0.5)));
    return {k, k * Vec<T>(T(-0.5)), k * Vec<T>(T(0.25)), k * Vec<T>(T(-0.125))};
  }
};

// (1 + s)^e, e < 0
struct InverseMultiquadricProfile {
  static constexpr const char* name = "inverse_multiquadric";
  static constexpr int derivatives = 3;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> s, const KernelNumbers<T>& numbers) {
    using V = Vec<T>;
    const V e(numbers.parameter), inverse = V(1) / (V(1) + s);
    const V k = math::exp(e * math::log1p(s));
    const V first = e * k * inverse, second = (e - V(1)) * first * inverse;
    return {k, first, second, (e - V(2)) * second * inverse};
  }
};

// (1 + s)^(-1/2), which needs no logarithm
struct InverseRootProfile {
  static constexpr const char* name = "inverse_root";
  static constexpr int derivatives = 3;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> s, const KernelNumbers<T>&) {
    using V = Vec<T>;
    const V inverse = V(1) / (V(1) + s), k = sqrt(inverse);
    const V first = V(T(-0.5)) * k * inverse, second = V(T(-1.5)) * first * inverse;
    return {k, first, second, V(T(-2.5)) * second * inverse};
  }
};

// (1 + q + q^2 / 3) e^-q, q = sqrt(5 s)
struct Matern52Profile {
  static constexpr const char* name = "matern52";
  static constexpr int derivatives = 3;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> s, const KernelNumbers<T>&) {
    using V = Vec<T>;
    const V r = sqrt(s), q = V(T(2.2360679774997896964)) * r, decay = math::exp_not_positive(-q);
    return {(V(1) + q + q * q * V(T(1.0 / 3))) * decay, V(T(-5.0 / 6)) * (V(1) + q) * decay, V(T(25.0 / 12)) * decay,
            V(T(-25.0 / 24 * 2.2360679774997896964)) * detail::inverse_or_zero(r) * decay};
  }
};

// (1 + q) e^-q, q = sqrt(3 s)
struct Matern32Profile {
  static constexpr const char* name = "matern32";
  static constexpr int derivatives = 2;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> s, const KernelNumbers<T>&) {
    using V = Vec<T>;
    const V r = sqrt(s), q = V(T(1.7320508075688772935)) * r, decay = math::exp_not_positive(-q);
    return {(V(1) + q) * decay, V(T(-1.5)) * decay,
            V(T(0.75 * 1.7320508075688772935)) * detail::inverse_or_zero(r) * decay, V(0)};
  }
};

// exp(-r)
struct LaplaceProfile {
  static constexpr const char* name = "laplace";
  static constexpr int derivatives = 1;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> s, const KernelNumbers<T>&) {
    using V = Vec<T>;
    const V r = sqrt(s), k = math::exp_not_positive(-r);
    return {k, V(T(-0.5)) * k * detail::inverse_or_zero(r), V(0), V(0)};
  }
};

// -r
struct EnergyProfile {
  static constexpr const char* name = "energy";
  static constexpr int derivatives = 1;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> s, const KernelNumbers<T>&) {
    using V = Vec<T>;
    const V r = sqrt(s);
    return {-r, V(T(-0.5)) * detail::inverse_or_zero(r), V(0), V(0)};
  }
};

// 1 + 2 sum_k a_k cos(k t)
struct CosineSeries {
  static constexpr const char* name = "cosine_series";
  static constexpr int derivatives = 3;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> t, const KernelNumbers<T>& numbers) {
    using V = Vec<T>;
    const math::SinCos<T> one = math::sincos(t);
    V cosine = one.cos, sine = one.sin;  // of k t
    Jet<T> sum = {V(T(0.5)), V(0), V(0), V(0)};
    for (std::int64_t k = 1; k <= numbers.n_coefficients; ++k) {
      const T a = numbers.coefficients[k - 1], frequency = static_cast<T>(k);
      const V c = V(a) * cosine, s = V(a * frequency) * sine;
      sum.value += c;
      sum.first -= s;
      sum.second -= V(frequency * frequency) * c;
      sum.third += V(frequency * frequency) * s;
      const V next = cosine * one.cos - sine * one.sin;
      sine = sine * one.cos + cosine * one.sin;
      cosine = next;
    }
    return {sum.value * V(2), sum.first * V(2), sum.second * V(2), sum.third * V(2)};
  }
};

// sum_m exp(-(t + 2 pi m)^2 / (2 l^2)) for lengths l up to 1, where the three nearest images are all that counts
struct WrappedGaussian {
  static constexpr const char* name = "wrapped_gaussian";
  static constexpr int derivatives = 3;
  template <class T>
  static MFLD_INLINE Jet<T> at(Vec<T> t, const KernelNumbers<T>& numbers) {
    using V = Vec<T>;
    constexpr T turn = T(6.283185307179586477), rounder = math::detail::Constants<T>::round_to_integer;
    const V inverse(T(1) / numbers.parameter);
    const V turns = (t * V(T(1) / turn) + V(rounder)) - V(rounder);
    const V nearest = t - turns * V(turn);
    Jet<T> sum = {V(0), V(0), V(0), V(0)};
    for (int m = -1; m <= 1; ++m) {
      const V z = (nearest + V(turn * static_cast<T>(m))) * inverse, square = z * z;
      const V k = math::exp_not_positive(square * V(T(-0.5)));
      sum.value += k;
      sum.first -= z * k;
      sum.second += (square - V(1)) * k;
      sum.third += z * (V(3) - square) * k;
    }
    return {sum.value, sum.first * inverse, sum.second * inverse * inverse, sum.third * inverse * inverse * inverse};
  }
};

template <class... K>
struct KernelList {
  static constexpr int size = sizeof...(K);
};

using RadialKernels = KernelList<GaussianProfile, InverseMultiquadricProfile, InverseRootProfile, Matern52Profile,
                                 Matern32Profile, LaplaceProfile, EnergyProfile>;
using PeriodicKernels = KernelList<CosineSeries, WrappedGaussian>;

}  // namespace mfld
