// Activations: value and slope of act(z), one register at a time.
//
// To add an activation: add a struct, append it to the list at the end. Its place in the list is its id; tests,
// bindings and kernels find it there.
//
//   value(z)                      act(z)
//   value_and_slope(z)            act(z) and act'(z) from one evaluation; the slope has a finite limit wherever
//                                 act' has one
//   times_slope(g, value, g_value)  g act'(z) from g, act(z) and their product, which the callers need anyway; only
//                                 when slope_from_value: then kernels keep values and no slopes
//   curvature(z, both)            act''(z), given z and both of the above; 0 at a kink
//   lowest, highest               the range of act, and steepest = sup |act'|: what bounds on a neuron are made of
//   few_registers                 whether value(z) needs at most two registers beside z
//
// Values and slopes have the accuracy of mfld/math.hpp. A slope rebuilt from the value of tanh or sigmoid has up to
// twice the value's error, relative to 1 and not to itself: 1 - value loses digits as the value saturates.
#pragma once

#include <limits>

#include "mfld/math.hpp"
#include "mfld/simd.hpp"

namespace mfld {

inline constexpr double unbounded = std::numeric_limits<double>::infinity();

template <class T>
struct ValueSlope {
  Vec<T> value, slope;
};

// For activations whose slope is a function of their value.
template <class A>
struct SlopeFromValue {
  static constexpr bool slope_from_value = true, few_registers = false;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const Vec<T> value = A::value(z);
    return {value, A::times_slope(Vec<T>(1), value, value)};
  }
};

// For the others: a value alone is the value of both, the compiler drops the rest.
template <class A>
struct SlopeFromArgument {
  static constexpr bool slope_from_value = false, few_registers = false;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return A::value_and_slope(z).value;
  }
};

namespace detail {

// An infinite factor becomes the largest number, so that its product with a vanishing one is 0 and not NaN.
template <class T>
MFLD_INLINE Vec<T> bounded_below(Vec<T> z) {
  return max(Vec<T>(-std::numeric_limits<T>::max()), z);
}
template <class T>
MFLD_INLINE Vec<T> bounded_above(Vec<T> z) {
  return min(Vec<T>(std::numeric_limits<T>::max()), z);
}

}  // namespace detail

struct Tanh : SlopeFromValue<Tanh> {
  static constexpr const char* name = "tanh";
  static constexpr double lowest = -1, highest = 1, steepest = 1;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return math::tanh(z);
  }
  template <class T>
  static MFLD_INLINE Vec<T> times_slope(Vec<T> g, Vec<T> value, Vec<T> g_value) {
    return g - g_value * value;
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T>, ValueSlope<T> at) {
    return Vec<T>(-2) * at.value * at.slope;
  }
};

// max(z, 0); the slope at 0 is 0.
struct Relu : SlopeFromValue<Relu> {
  static constexpr const char* name = "relu";
  static constexpr bool few_registers = true;
  static constexpr double lowest = 0, highest = unbounded, steepest = 1;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return max(Vec<T>(0), z);
  }
  template <class T>
  static MFLD_INLINE Vec<T> times_slope(Vec<T> g, Vec<T> value, Vec<T>) {
    return select(value > Vec<T>(0), g, Vec<T>(0));
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T>, ValueSlope<T>) {
    return Vec<T>(0);
  }
};

// z for z > 0, else z / 100; the slope at 0 is 1 / 100.
struct LeakyRelu : SlopeFromValue<LeakyRelu> {
  static constexpr const char* name = "leaky_relu";
  static constexpr bool few_registers = true;
  static constexpr double lowest = -unbounded, highest = unbounded, steepest = 1;
  static constexpr double leak = 0.01;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return max(z * Vec<T>(T(leak)), z);
  }
  template <class T>
  static MFLD_INLINE Vec<T> times_slope(Vec<T> g, Vec<T> value, Vec<T>) {
    return select(value > Vec<T>(0), g, g * Vec<T>(T(leak)));
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T>, ValueSlope<T>) {
    return Vec<T>(0);
  }
};

struct Sigmoid : SlopeFromValue<Sigmoid> {
  static constexpr const char* name = "sigmoid";
  static constexpr double lowest = 0, highest = 1, steepest = 0.25;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return Vec<T>(1) / (Vec<T>(1) + math::exp(-z));
  }
  template <class T>
  static MFLD_INLINE Vec<T> times_slope(Vec<T>, Vec<T> value, Vec<T> g_value) {
    return g_value - g_value * value;
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T>, ValueSlope<T> at) {
    return at.slope * (Vec<T>(1) - Vec<T>(2) * at.value);
  }
};

// log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)
struct Softplus : SlopeFromArgument<Softplus> {
  static constexpr const char* name = "softplus";
  static constexpr double lowest = 0, highest = unbounded, steepest = 1;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const Vec<T> e = math::exp_not_positive(-abs(z));
    return {max(Vec<T>(0), z) + math::log1p_unit(e), select_by_sign(z, e, Vec<T>(1)) / (Vec<T>(1) + e)};
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T>, ValueSlope<T> at) {
    return at.slope * (Vec<T>(1) - at.slope);
  }
};

struct Erf : SlopeFromArgument<Erf> {
  static constexpr const char* name = "erf";
  static constexpr double lowest = -1, highest = 1, steepest = 1.1283791670955126;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const math::ErfAndSlope<T> erf = math::erf_and_slope(z);
    return {erf.value, erf.slope};
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T> z, ValueSlope<T> at) {
    return Vec<T>(-2) * detail::bounded_above(detail::bounded_below(z)) * at.slope;
  }
};

// z P(Z <= z) for a standard normal Z; the exact form, not the one with tanh
struct Gelu : SlopeFromArgument<Gelu> {
  static constexpr const char* name = "gelu";
  static constexpr double lowest = -0.16997120747990370, highest = unbounded, steepest = 1.1289041879600470;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const math::Normal<T> normal = math::normal(z);
    const Vec<T> x = detail::bounded_below(z);
    return {x * normal.probability, multiply_add(detail::bounded_above(x), normal.density, normal.probability)};
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T> z, ValueSlope<T>) {
    const Vec<T> density = math::normal(z).density, x = detail::bounded_above(detail::bounded_below(z));
    return Vec<T>(2) * density - density * x * x;
  }
};

// z / (1 + e^-z)
struct Silu : SlopeFromArgument<Silu> {
  static constexpr const char* name = "silu";
  static constexpr double lowest = -0.27846454276107380, highest = unbounded, steepest = 1.0998393201288670;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const Vec<T> e = math::exp(-z);
    const Vec<T> s = Vec<T>(1) / (Vec<T>(1) + e);
    const Vec<T> value = detail::bounded_below(z) * s;
    // 1 - s as e s: z would multiply the rounding of 1 - s. Where e overflows, s and the value are 0.
    const Vec<T> rest = detail::bounded_above(e) * s;
    return {value, multiply_add(detail::bounded_above(value), rest, s)};
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T> z, ValueSlope<T>) {
    const Vec<T> e = math::exp_not_positive(-abs(z)), s = Vec<T>(1) / (Vec<T>(1) + e);
    return e * s * s * (Vec<T>(2) - detail::bounded_above(abs(z)) * (Vec<T>(1) - e) * s);
  }
};

// Accurate where math::sincos is.
struct Sin : SlopeFromArgument<Sin> {
  static constexpr const char* name = "sin";
  static constexpr double lowest = -1, highest = 1, steepest = 1;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const math::SinCos<T> both = math::sincos(z);
    return {both.sin, both.cos};
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T>, ValueSlope<T> at) {
    return -at.value;
  }
};

struct Cos : SlopeFromArgument<Cos> {
  static constexpr const char* name = "cos";
  static constexpr double lowest = -1, highest = 1, steepest = 1;
  template <class T>
  static MFLD_INLINE ValueSlope<T> value_and_slope(Vec<T> z) {
    const math::SinCos<T> both = math::sincos(z);
    return {both.cos, -both.sin};
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T>, ValueSlope<T> at) {
    return -at.value;
  }
};

struct Identity : SlopeFromValue<Identity> {
  static constexpr const char* name = "identity";
  static constexpr bool few_registers = true;
  static constexpr double lowest = -unbounded, highest = unbounded, steepest = 1;
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> z) {
    return z;
  }
  template <class T>
  static MFLD_INLINE Vec<T> times_slope(Vec<T> g, Vec<T>, Vec<T>) {
    return g;
  }
  template <class T>
  static MFLD_INLINE Vec<T> curvature(Vec<T>, ValueSlope<T>) {
    return Vec<T>(0);
  }
};

template <class... A>
struct ActivationList {
  static constexpr int size = sizeof...(A);
};

using Activations = ActivationList<Tanh, Relu, LeakyRelu, Sigmoid, Softplus, Erf, Gelu, Silu, Sin, Cos, Identity>;

}  // namespace mfld
