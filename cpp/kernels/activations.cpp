// The sweeps over a panel that depend on the activation, compiled once for each.
#include <array>
#include <cstdint>

#include "mfld/activations.hpp"
#include "mfld/panels.hpp"
#include "mfld/simd.hpp"
#include "network.hpp"
#include "tiles.hpp"

namespace mfld {
namespace {

template <class A, class T>
struct Sweep {
  using V = Vec<T>;
  static constexpr int lanes = panel_lanes<T>;

  static MFLD_INLINE void store(V z, std::int64_t at, T* value, T* slope) {
    if constexpr (A::slope_from_value) {
      A::value(z).store(value + at);
    } else {
      const ValueSlope<T> both = A::value_and_slope(z);
      both.value.store(value + at);
      both.slope.store(slope + at);
    }
  }

  static void apply(T* z, T* slope, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += V::size) store(V::load(z + i), i, z, slope);
  }

  static void bend(T* z, T* slope, T* curvature, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += V::size) {
      const V at = V::load(z + i);
      const ValueSlope<T> both = A::value_and_slope(at);
      both.value.store(z + i);
      both.slope.store(slope + i);
      A::curvature(at, both).store(curvature + i);
    }
  }

  static void forward(const T* panel, std::int64_t n_features, const T* bias, const T* z, std::int64_t n_rows,
                      T* values, T* slope) {
    // What comes from registers spares a store and a load. Where there are 16, the sums of a tile leave too few for
    // most activations, and spills cost more than that (measured).
    if constexpr (A::few_registers || vector_registers == 32) {
      affine<Sweep>(panel, n_features, bias, z, n_rows, values, slope);
    } else {
      affine(panel, n_features, bias, z, n_rows, values);
      apply(values, slope, n_rows * lanes);
    }
  }

  static constexpr auto forward_of_pairs = [] {
    if constexpr (has_bfloat16<T>)
      return &affine_of_pairs<Sweep>;
    else
      return nullptr;
  }();

  // g act', from the value, its product with g, and the slope where it is stored
  static MFLD_INLINE V times_slope(V g, V value, V g_value, const T* slope, std::int64_t at) {
    if constexpr (A::slope_from_value)
      return A::times_slope(g, value, g_value);
    else
      return g * V::load(slope + at);
  }

  static void gains(const T* value, const T* slope, const T* cotangent, std::int64_t n_rows, T* gain, T* weighted,
                    T* total) {
    V w0 = V::load(weighted), w1 = V::load(weighted + V::size), t0 = V::load(total), t1 = V::load(total + V::size);
    for (std::int64_t i = 0; i < n_rows; ++i) {
      const std::int64_t at = i * lanes;
      const V g = in_register(V(cotangent[i]));
      const V v0 = in_register(V::load(value + at)), v1 = in_register(V::load(value + at + V::size));
      const V p0 = g * v0, p1 = g * v1;
      const V g0 = times_slope(g, v0, p0, slope, at), g1 = times_slope(g, v1, p1, slope, at + V::size);
      g0.store(gain + at);
      g1.store(gain + at + V::size);
      w0 += p0;
      w1 += p1;
      t0 += g0;
      t1 += g1;
    }
    w0.store(weighted);
    w1.store(weighted + V::size);
    t0.store(total);
    t1.store(total + V::size);
  }

  static void lane_gains(const T* value, const T* slope, std::int64_t n_rows, T* gain, T* total) {
    const auto at_lanes = [&](std::int64_t at) __attribute__((always_inline)) {
      const V g = V::load(gain + at), v = V::load(value + at), pulled = times_slope(g, v, g * v, slope, at);
      pulled.store(gain + at);
      return pulled;
    };
    V t0 = V::load(total), t1 = V::load(total + V::size);
    for (std::int64_t at = 0; at < n_rows * lanes; at += lanes) {
      t0 += at_lanes(at);
      t1 += at_lanes(at + V::size);
    }
    t0.store(total);
    t1.store(total + V::size);
  }
};

template <class T, class... A>
constexpr auto table_of(ActivationList<A...>*) {
  return std::array{ActivationKernel<T>{!A::slope_from_value, &Sweep<A, T>::apply, &Sweep<A, T>::bend,
                                        &Sweep<A, T>::forward, Sweep<A, T>::forward_of_pairs, &Sweep<A, T>::gains,
                                        &Sweep<A, T>::lane_gains}...};
}

}  // namespace

template <class T>
const ActivationKernel<T>& activation_kernel(std::int32_t id) {
  static constexpr auto table = table_of<T>(static_cast<Activations*>(nullptr));
  return table[id];
}

template const ActivationKernel<float>& activation_kernel<float>(std::int32_t);
template const ActivationKernel<double>& activation_kernel<double>(std::int32_t);

}  // namespace mfld
