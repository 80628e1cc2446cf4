// The Metropolis step of MALA for one particle: whether a proposal of the Euler-Maruyama step is accepted.
//
//   log ratio = -[U' - U] / T - [|theta - theta' + h b'|^2 - |theta' - theta + h b|^2] / (4 T h)
//             = -[U' - U - (theta' - theta).(b' + b) / 2 + h (|b'|^2 - |b|^2) / 4] / T
//
// with U = V + l2 |theta|^2 and b its gradient at theta, U' and b' at theta', over the moving coordinates: the second
// form has no difference of large squares. All in float64. Leaves exp(-U / T) invariant at every step size, where
// particles do not interact. Roberts and Tweedie 1996. Noise: stream MFLD_STREAM_ACCEPTANCE, one uniform per particle.
#pragma once

#include <cmath>
#include <cstdint>

#include "mfld/kernels.h"
#include "mfld/noise.hpp"

namespace mfld {

// A place in the phase space of a chain: theta, V(theta) and the gradient of V, both without the ridge.
template <class T>
struct MalaPoint {
  const T* theta;
  double value;
  const T* gradient;
};

template <class T>
double mala_log_ratio(const MalaPoint<T>& now, const MalaPoint<T>& proposed, std::int64_t n_moving, double step_size,
                      double temperature, double l2) {
  double energy = proposed.value - now.value;
  for (std::int64_t j = 0; j < n_moving; ++j) {
    const double x = now.theta[j], y = proposed.theta[j];
    const double b = now.gradient[j] + 2 * l2 * x, c = proposed.gradient[j] + 2 * l2 * y;
    energy += (y - x) * (l2 * (x + y) - (b + c) / 2) + step_size / 4 * (c * c - b * b);
  }
  return -energy / temperature;
}

// The particle's uniform number of coordinate 0.
inline double acceptance_uniform(const mfld_noise& noise, std::int64_t particle) {
  const PhiloxBlock words =
      philox4x32({static_cast<std::uint32_t>(particle), std::uint32_t{MFLD_STREAM_ACCEPTANCE} << 24,
                  static_cast<std::uint32_t>(noise.step),
                  (static_cast<std::uint32_t>(noise.step >> 32) & 0xffffu) | noise.population << 16},
                 static_cast<std::uint32_t>(noise.key), static_cast<std::uint32_t>(noise.key >> 32));
  return unit_uniform<double>(words[0] | std::uint64_t{words[1]} << 32);
}

}  // namespace mfld
