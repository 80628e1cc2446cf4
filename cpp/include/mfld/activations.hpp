// Activations: value and slope, one struct each.
//
// To add one: write a struct, append it to Activations; mfld.reference holds the same formula for the tests.
#pragma once

#include "mfld/math.hpp"
#include "mfld/simd.hpp"

namespace mfld {

template <class T>
struct ValueSlope {
  Vec<T> value, slope;
};

template <class... A>
struct ActivationList {};

// With slope_from_value the slope is rebuilt from the stored value (slope_of), else it is stored beside it (value_and_slope).

struct Tanh {
  static constexpr const char* name = "tanh";
  static constexpr bool slope_from_value = true;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return math::tanh(z);
  }
  template <class T>
  static MFLD_INLINE Vec<T> slope_of(Vec<T> value) {
    return Vec<T>(1) - value * value;
  }
};

// The slope at 0 is 0.
struct Relu {
  static constexpr const char* name = "relu";
  static constexpr bool slope_from_value = true;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return max(Vec<T>(0), z);  // in this order a NaN stays a NaN
  }
  template <class T>
  static MFLD_INLINE Vec<T> slope_of(Vec<T> value) {
    return select(value > Vec<T>(0), Vec<T>(1), Vec<T>(0));
  }
};

struct LeakyRelu {
  static constexpr const char* name = "leaky_relu";
  static constexpr bool slope_from_value = true;
  static constexpr double leak = 0.01;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return max(Vec<T>(T(leak)) * z, z);
  }
  template <class T>
  static MFLD_INLINE Vec<T> slope_of(Vec<T> value) {
    return select(value > Vec<T>(0), Vec<T>(1), Vec<T>(T(leak)));
  }
};

// The slope is s (1 - s) with 1 - s taken from the other tail, so it is stored: from the value alone it would be 0 near s = 1.
struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  static constexpr bool slope_from_value = false;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const Vec<T> e = math::exp(-abs(z)), q = Vec<T>(1) / (Vec<T>(1) + e);
    return {select(z < Vec<T>(0), e, Vec<T>(1)) * q, e * q * q};
  }
};

// log(1 + exp(z)); the exponential sees only -|z|.
struct Softplus {
  static constexpr const char* name = "softplus";
  static constexpr bool slope_from_value = false;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const Vec<T> e = math::exp(-abs(z));
    return {max(Vec<T>(0), z) + math::log1p(e), select(z < Vec<T>(0), e, Vec<T>(1)) / (Vec<T>(1) + e)};
  }
};

struct Erf {
  static constexpr const char* name = "erf";
  static constexpr bool slope_from_value = false;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const math::ErrorFunctions<T> e = math::error_functions(z);
    return {e.erf, Vec<T>(T(1.1283791670955125739L)) * e.gaussian};  // 2 / sqrt(pi)
  }
};

// z Phi(z) with the normal distribution function Phi(z) = erfc(-z / sqrt(2)) / 2, exactly and not by its tanh approximation.
struct Gelu {
  static constexpr const char* name = "gelu";
  static constexpr bool slope_from_value = false;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const math::ErrorFunctions<T> e = math::error_functions(-z * Vec<T>(T(0.70710678118654752440L)));
    const Vec<T> phi = Vec<T>(T(0.5)) * e.erfc;
    // Where Phi vanishes so does its product with z, also for z = -inf.
    const Vec<T> bounded = max(Vec<T>(T(-40)), z);
    const Vec<T> density = Vec<T>(T(0.39894228040143267794L)) * e.gaussian;  // 1 / sqrt(2 pi)
    return {bounded * phi, phi + math::clamp(z, T(-40), T(40)) * density};
  }
};

// z sigmoid(z)
struct Silu {
  static constexpr const char* name = "silu";
  static constexpr bool slope_from_value = false;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const Vec<T> e = math::exp(-abs(z)), q = Vec<T>(1) / (Vec<T>(1) + e);
    const Vec<T> s = select(z < Vec<T>(0), e, Vec<T>(1)) * q;
    // Beyond the bounds the products vanish, also at infinity.
    return {max(Vec<T>(T(-1000)), z) * s, s + math::clamp(z, T(-1000), T(1000)) * e * q * q};
  }
};

struct Sin {
  static constexpr const char* name = "sin";
  static constexpr bool slope_from_value = false;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const math::SineCosine<T> w = math::sincos(z);
    return {w.sine, w.cosine};
  }
};

struct Cos {
  static constexpr const char* name = "cos";
  static constexpr bool slope_from_value = false;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const math::SineCosine<T> w = math::sincos(z);
    return {w.cosine, -w.sine};
  }
};

struct Identity {
  static constexpr const char* name = "identity";
  static constexpr bool slope_from_value = true;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return z;
  }
  template <class T>
  static MFLD_INLINE Vec<T> slope_of(Vec<T>) {
    return Vec<T>(1);
  }
};

using Activations =
    ActivationList<Tanh, Relu, LeakyRelu, Sigmoid, Softplus, Erf, Gelu, Silu, Sin, Cos, Identity>;

}  // namespace mfld
