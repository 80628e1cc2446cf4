// Readouts: what a neuron does with its activation.
//
//   h_k(theta, z) = c_k(rho_k) act(w.z + b) + e_k(rho_k)
//
// with one coordinate rho_k per output, or none. A readout is the pair (c, e) and its derivative, so kernels know no
// readout by name; has_offset is false where e is 0. To add one, write a struct and append it to Readouts;
// mfld.plain holds the same formula for the tests.
#pragma once

#include <array>
#include <tuple>

#include "mfld/kernels.h"
#include "mfld/math.hpp"
#include "mfld/simd.hpp"

namespace mfld {

template <class T>
struct ReadoutTerms {
  Vec<T> coefficient, offset;
};

// scale is output_scale, bound is readout_bound.
struct FixedReadout {
  static constexpr mfld_readout_info info = {"fixed", /*has_coordinates=*/0, /*frozen=*/0};
  static constexpr bool has_offset = false;
  template <class T>
  static ReadoutTerms<T> terms(Vec<T>, T scale, T) {
    return {Vec<T>(scale), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T>, T, T) {
    return {Vec<T>(0), Vec<T>(0)};
  }
};

// A sign is a coordinate, so that permuting, duplicating and resampling particles stays right; it is frozen, so it
// never moves.
struct SignsReadout {
  static constexpr mfld_readout_info info = {"signs", 1, 1};
  static constexpr bool has_offset = false;
  template <class T>
  static ReadoutTerms<T> terms(Vec<T> sign, T scale, T) {
    return {sign * Vec<T>(scale), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T>, T, T) {
    return {Vec<T>(0), Vec<T>(0)};
  }
};

struct LinearReadout {
  static constexpr mfld_readout_info info = {"linear", 1, 0};
  static constexpr bool has_offset = false;
  template <class T>
  static ReadoutTerms<T> terms(Vec<T> r, T scale, T) {
    return {r * Vec<T>(scale), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T>, T scale, T) {
    return {Vec<T>(scale), Vec<T>(0)};
  }
};

// bound * tanh(r) * act: |h| <= scale * bound * sup|act|, which PDA and P-SDCA need.
struct BoundedReadout {
  static constexpr mfld_readout_info info = {"bounded", 1, 0};
  static constexpr bool has_offset = false;
  template <class T>
  static ReadoutTerms<T> terms(Vec<T> r, T scale, T bound) {
    return {math::tanh(r) * Vec<T>(scale * bound), Vec<T>(0)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T> r, T scale, T bound) {
    const Vec<T> t = math::tanh(r);
    return {(Vec<T>(1) - t * t) * Vec<T>(scale * bound), Vec<T>(0)};
  }
};

// bound * (act(w.z + b) + 2 tanh(r)) / 3, the neuron of Suzuki, Wu, Oko and Nitanda 2023 for sparse parities.
struct ParityReadout {
  static constexpr mfld_readout_info info = {"parity", 1, 0};
  static constexpr bool has_offset = true;
  template <class T>
  static ReadoutTerms<T> terms(Vec<T> r, T scale, T bound) {
    return {Vec<T>(scale * bound / 3), math::tanh(r) * Vec<T>(2 * scale * bound / 3)};
  }
  template <class T>
  static ReadoutTerms<T> derivative(Vec<T> r, T scale, T bound) {
    const Vec<T> t = math::tanh(r);
    return {Vec<T>(0), (Vec<T>(1) - t * t) * Vec<T>(2 * scale * bound / 3)};
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
};

namespace detail {
template <class R, class T, bool differentiate>
void readout_rows(const T* rho, std::int64_t count, T scale, T bound, T* coefficient, T* offset) {
  for (std::int64_t i = 0; i < count; i += Vec<T>::size) {
    // Without coordinates there is nothing to read.
    const Vec<T> r = R::info.has_coordinates ? Vec<T>::load(rho + i) : Vec<T>(0);
    const ReadoutTerms<T> t = differentiate ? R::derivative(r, scale, bound) : R::terms(r, scale, bound);
    t.coefficient.store(coefficient + i);
    t.offset.store(offset + i);
  }
}
template <class T, class... R>
constexpr auto readout_table(std::tuple<R...>*) {
  return std::array<ReadoutKernel<T>, sizeof...(R)>{
      ReadoutKernel<T>{R::has_offset, &readout_rows<R, T, false>, &readout_rows<R, T, true>}...};
}
template <class... R>
constexpr auto readout_infos(std::tuple<R...>*) {
  return std::array<mfld_readout_info, sizeof...(R)>{R::info...};
}
}  // namespace detail

template <class T>
inline constexpr auto readout_kernels = detail::readout_table<T>(static_cast<Readouts*>(nullptr));
inline constexpr auto readout_infos = detail::readout_infos(static_cast<Readouts*>(nullptr));

}  // namespace mfld
