// One step of preconditioned Langevin dynamics (pSGLD) on a panel, its noise included.
//
//   b = g + r theta;  S <- decay S + (1 - decay) b^2;  G = 1 / (epsilon + sqrt(S));  theta <- theta - h G b + s sqrt(G)
//   xi
//
// with r = 2 l2 and s^2 = 2 temperature h. From step `frozen_from` on S stays. Li, Chen, Carlson, Carin 2016. Noise:
// stream MFLD_STREAM_MOVE, one normal per moving coordinate.
#pragma once

#include <algorithm>
#include <cstdint>

#include "mfld/kernels.h"
#include "mfld/noise.hpp"
#include "move.hpp"

namespace mfld {

template <class T>
struct PreconditionedStep {
  using V = Vec<T>;
  static constexpr int lanes = panel_lanes<T>;

  T pull, step_size, noise_scale, decay, epsilon;
  bool averages;

  PreconditionedStep(const double* row, const mfld_dynamics& dynamics, std::uint64_t step)
      : pull(static_cast<T>(row[0])),
        step_size(static_cast<T>(row[1])),
        noise_scale(static_cast<T>(row[2])),
        decay(static_cast<T>(dynamics.decay)),
        epsilon(static_cast<T>(dynamics.epsilon)),
        averages(step < dynamics.frozen_from) {}

  // As in Affine.
  static double ridge(const double* row) { return row[0]; }

  // gradient and moment: (n_moving, lanes). Returns the first lane of a real particle that is not finite afterwards, or
  // -1.
  std::int64_t operator()(const T* from, T* to, T* moment, const T* gradient, std::int64_t n_moving,
                          std::int64_t first_particle, std::int64_t n_particles, const NoisePlace& place) const {
    const V r(pull), h(-step_size), s(noise_scale), kept(decay), added(T(1) - decay), least(epsilon);
    const bool noisy = noise_scale != T(0);
    FiniteWatch<T> watch;
    with_normals<T>(place, first_particle, n_moving, noisy,
                    [&](std::int64_t j, const V(&xi)[2]) __attribute__((always_inline)) {
                      V y[2];
                      for (int half = 0; half < 2; ++half) {
                        const std::int64_t at = j * lanes + half * V::size;
                        const V x = V::load(from + at), b = multiply_add(r, x, V::load(gradient + at));
                        V average = V::load(moment + at);
                        if (averages) {
                          average = multiply_add(kept, average, added * b * b);
                          average.store(moment + at);
                        }
                        const V inverse = least + sqrt(average);
                        V change = h * b / inverse;
                        if (noisy) change += s * xi[half] / sqrt(inverse);
                        y[half] = x + change;
                        y[half].store(to + at);
                      }
                      watch.see(y[0], y[1]);
                    });
    const std::int64_t count = std::min<std::int64_t>(lanes, n_particles - first_particle);
    clear_empty_lanes(to, n_moving, count);
    return watch.first_bad_lane(count);
  }
};

}  // namespace mfld
