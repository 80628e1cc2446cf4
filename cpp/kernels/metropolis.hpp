// The Metropolis step of one particle: whether the proposal of an affine step (c, h, s) is accepted.
//
//   theta' = rho theta - h g + s xi,    rho = 1 - c
//   log ratio = -[V' - V - (g.(2 (theta' - rho theta) + h g) - g'.(2 (theta - rho theta') + h g')) / (2 (1 + rho))] / T
//
// for the law exp(-(V + l2 |theta|^2) / T), with g and g' the gradients of V alone at theta and theta'. It holds for
// coefficients that leave the Gaussian exp(-l2 |theta|^2 / T) invariant where g = 0, as the exact flow of the ridge
// does and the Crank-Nicolson step: they have s^2 = h (1 + rho) T, which is where T is taken from. The terms in l2 then
// cancel, and nothing large is left to. Leaves the law invariant at every step size, where particles do not interact.
// Roberts and Tweedie 1996; Cotter, Roberts, Stuart and White 2013. All in float64. Noise: stream
// MFLD_STREAM_ACCEPTANCE, one uniform per particle.
#pragma once

#include <cmath>
#include <cstdint>

#include "mfld/kernels.h"
#include "mfld/noise.hpp"

namespace mfld {

// A place in the phase space of a chain: theta, V(theta) and the gradient of V.
template <class T>
struct ChainPoint {
  const T* theta;
  double value;
  const T* gradient;
};

template <class T>
double metropolis_log_ratio(const ChainPoint<T>& now, const ChainPoint<T>& proposed, std::int64_t n_moving,
                            const double* coefficients) {
  const double c = coefficients[0], h = coefficients[1], s = coefficients[2], rho = 1 - c;
  const double temperature = s * s / (h * (2 - c));
  double forth = 0, back = 0;
  for (std::int64_t j = 0; j < n_moving; ++j) {
    const double x = now.theta[j], y = proposed.theta[j], g = now.gradient[j], f = proposed.gradient[j];
    forth += g * (2 * (y - rho * x) + h * g);
    back += f * (2 * (x - rho * y) + h * f);
  }
  return -(proposed.value - now.value - (forth - back) / (2 * (2 - c))) / temperature;
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
