// Readouts: what a neuron does with its activation.
//
//   h_k(theta, z) = scale * (c_k(rho_k) act(w.z + b) + e_k(rho_k))
//
// with one coordinate rho_k per output, or none. To add one, write a struct and append it to Readouts; mfld.plain
// holds the same formula for the tests. Kernels and Python know no readout by name:
//
//   terms, derivative   scale (c, e), and their derivative in rho; has_offset is false where e is 0
//   curvature           their second derivative
//   range               of c act + e over all rho and all values of act in a range, of which one end may be infinite
//   growth              the rate at which |c| grows with |rho| in the end: 0 where it is bounded
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <tuple>

#include "mfld/kernels.h"
#include "mfld/math.hpp"
#include "mfld/simd.hpp"

namespace mfld {

template <class T>
struct ReadoutTerms {
  Vec<T> coefficient, offset;
};

namespace detail {
inline constexpr double infinite = std::numeric_limits<double>::infinity();
constexpr double largest(mfld_range values) { return std::max(-values.lowest, values.highest); }
constexpr mfld_range symmetric(double size) { return {-size, size}; }
}  // namespace detail

// scale is output_scale, bound is readout_bound.
struct FixedReadout {
  static constexpr mfld_readout_info info = {"fixed", /*has_coordinates=*/0, /*frozen=*/0};
  static constexpr bool has_offset = false;
  static constexpr mfld_range range(mfld_range act, double) { return act; }
  static constexpr double growth(double) { return 0; }
  template <class T>
  static ReadoutTerms<T> terms(Vec<T>, T scale, T) {
    return {Vec<T>(scale), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T>, T, T) {
    return {Vec<T>(0), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> curvature(Vec<T>, T, T) {
    return {Vec<T>(0), Vec<T>(0)};
  }
};

// A sign is a coordinate, so that permuting, duplicating and resampling particles stays right; it is frozen, so it
// never moves.
struct SignsReadout {
  static constexpr mfld_readout_info info = {"signs", 1, 1};
  static constexpr bool has_offset = false;
  static constexpr mfld_range range(mfld_range act, double) { return detail::symmetric(detail::largest(act)); }
  static constexpr double growth(double) { return 0; }
  template <class T>
  static ReadoutTerms<T> terms(Vec<T> sign, T scale, T) {
    return {sign * Vec<T>(scale), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T>, T, T) {
    return {Vec<T>(0), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> curvature(Vec<T>, T, T) {
    return {Vec<T>(0), Vec<T>(0)};
  }
};

struct LinearReadout {
  static constexpr mfld_readout_info info = {"linear", 1, 0};
  static constexpr bool has_offset = false;
  static constexpr mfld_range range(mfld_range act, double) {
    return detail::symmetric(detail::largest(act) * detail::infinite);
  }
  static constexpr double growth(double) { return 1; }
  template <class T>
  static ReadoutTerms<T> terms(Vec<T> r, T scale, T) {
    return {r * Vec<T>(scale), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T>, T scale, T) {
    return {Vec<T>(scale), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> curvature(Vec<T>, T, T) {
    return {Vec<T>(0), Vec<T>(0)};
  }
};

// bound * tanh(r) * act: |h| <= scale * bound * sup|act|, which PDA and P-SDCA need.
struct BoundedReadout {
  static constexpr mfld_readout_info info = {"bounded", 1, 0};
  static constexpr bool has_offset = false;
  static constexpr mfld_range range(mfld_range act, double bound) {
    return detail::symmetric(detail::largest(act) * bound);
  }
  static constexpr double growth(double) { return 0; }
  template <class T>
  static ReadoutTerms<T> terms(Vec<T> r, T scale, T bound) {
    return {math::tanh(r) * Vec<T>(scale * bound), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T> r, T scale, T bound) {
    const Vec<T> t = math::tanh(r);
    return {(Vec<T>(1) - t * t) * Vec<T>(scale * bound), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> curvature(Vec<T> r, T scale, T bound) {
    const Vec<T> t = math::tanh(r);
    return {Vec<T>(-2) * t * (Vec<T>(1) - t * t) * Vec<T>(scale * bound), Vec<T>(0)};
  }
};

// bound * (act(w.z + b) + 2 tanh(r)) / 3, the neuron of Suzuki, Wu, Oko and Nitanda 2023 for sparse parities.
struct ParityReadout {
  static constexpr mfld_readout_info info = {"parity", 1, 0};
  static constexpr bool has_offset = true;
  static constexpr mfld_range range(mfld_range act, double bound) {
    return {bound * (act.lowest - 2) / 3, bound * (act.highest + 2) / 3};
  }
  static constexpr double growth(double) { return 0; }
  template <class T>
  static ReadoutTerms<T> terms(Vec<T> r, T scale, T bound) {
    return {Vec<T>(scale * bound / 3), math::tanh(r) * Vec<T>(2 * scale * bound / 3)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T> r, T scale, T bound) {
    const Vec<T> t = math::tanh(r);
    return {Vec<T>(0), (Vec<T>(1) - t * t) * Vec<T>(2 * scale * bound / 3)};
  }
  template <class T>
  static ReadoutTerms<T> curvature(Vec<T> r, T scale, T bound) {
    const Vec<T> t = math::tanh(r);
    return {Vec<T>(0), Vec<T>(-2) * t * (Vec<T>(1) - t * t) * Vec<T>(2 * scale * bound / 3)};
  }
};

using Readouts = std::tuple<FixedReadout, SignsReadout, LinearReadout, BoundedReadout, ParityReadout>;
inline constexpr int n_readouts = std::tuple_size_v<Readouts>;

// One readout on `count` consecutive values of rho, a multiple of the vector size.
template <class T>
struct ReadoutKernel {
  bool has_offset;
  void (*terms)(const T* rho, std::int64_t count, T scale, T bound, T* coefficient, T* offset);
  void (*derivative)(const T* rho, std::int64_t count, T scale, T bound, T* coefficient, T* offset);
  void (*curvature)(const T* rho, std::int64_t count, T scale, T bound, T* coefficient, T* offset);
};

struct ReadoutFacts {
  mfld_range (*range)(mfld_range activation, double bound);
  double (*growth)(double bound);
};

namespace detail {
template <class R, class T, int order>
void readout_rows(const T* rho, std::int64_t count, T scale, T bound, T* coefficient, T* offset) {
  for (std::int64_t i = 0; i < count; i += Vec<T>::size) {
    // Without coordinates there is nothing to read.
    const Vec<T> r = R::info.has_coordinates ? Vec<T>::load(rho + i) : Vec<T>(0);
    const ReadoutTerms<T> t = order == 0   ? R::terms(r, scale, bound)
                              : order == 1 ? R::derivative(r, scale, bound)
                                           : R::curvature(r, scale, bound);
    t.coefficient.store(coefficient + i);
    t.offset.store(offset + i);
  }
}
template <class... R>
constexpr auto readout_facts(std::tuple<R...>*) {
  return std::array<ReadoutFacts, sizeof...(R)>{ReadoutFacts{&R::range, &R::growth}...};
}
template <class T, class... R>
constexpr auto readout_table(std::tuple<R...>*) {
  return std::array<ReadoutKernel<T>, sizeof...(R)>{
      ReadoutKernel<T>{R::has_offset, &readout_rows<R, T, 0>, &readout_rows<R, T, 1>, &readout_rows<R, T, 2>}...};
}
template <class... R>
constexpr auto readout_infos(std::tuple<R...>*) {
  return std::array<mfld_readout_info, sizeof...(R)>{R::info...};
}
}  // namespace detail

template <class T>
inline constexpr auto readout_kernels = detail::readout_table<T>(static_cast<Readouts*>(nullptr));
inline constexpr auto readout_facts = detail::readout_facts(static_cast<Readouts*>(nullptr));
inline constexpr auto readout_infos = detail::readout_infos(static_cast<Readouts*>(nullptr));

}  // namespace mfld
