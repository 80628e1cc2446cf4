// The BAOAB splitting of underdamped Langevin dynamics, on one panel, its noise included.
//
//   dtheta = v dt,   dv = -(gradient + 2 l2 theta + friction v) dt + sqrt(2 friction temperature) dW
//
//   open:   v -= h/2 b(theta);  theta += h/2 v;  v = e v + sqrt(temperature (1 - e^2)) xi;  theta += h/2 v
//   close:  v -= h/2 b(theta)                    e = exp(-friction h), b = gradient + 2 l2 theta
//
// Weak order 2; the position's law is exact on a quadratic potential. Leimkuhler and Matthews 2013. One gradient a
// step: that of `close` serves the next `open`. Noise: stream MFLD_STREAM_MOVE, one normal per moving coordinate.
#pragma once

#include <cmath>
#include <cstdint>

#include "mfld/kernels.h"
#include "mfld/noise.hpp"
#include "move.hpp"

namespace mfld {

template <class T>
struct Baoab {
  using V = Vec<T>;
  static constexpr int lanes = panel_lanes<T>;

  T half_step, ridge, persistence, noise_scale;

  Baoab() = default;
  Baoab(const mfld_schedule& schedule, std::int64_t step, double friction) {
    const double h = schedule.step_size[step * schedule.stride];
    half_step = static_cast<T>(h / 2);
    ridge = static_cast<T>(2 * schedule.l2[step * schedule.stride]);
    // exp and not 1 - friction h: the Ornstein-Uhlenbeck part is then exact for every step size.
    persistence = static_cast<T>(std::exp(-friction * h));
    noise_scale =
        static_cast<T>(std::sqrt(-std::expm1(-2 * friction * h) * schedule.temperature[step * schedule.stride]));
  }

  // gradient: (n_moving, lanes). Returns the first lane of a real particle that is not finite afterwards, or -1.
  std::int64_t open(const T* from, const T* from_velocity, T* to, T* to_velocity, const T* gradient,
                    std::int64_t n_moving, std::int64_t first_particle, std::int64_t n_particles,
                    const NoisePlace& place) const {
    const V h(half_step), e(persistence), s(noise_scale);
    FiniteWatch<T> watch;
    with_normals<T>(place, first_particle, n_moving, noise_scale != T(0),
                    [&](std::int64_t j, const V(&xi)[2]) __attribute__((always_inline)) {
                      V x[2], v[2];
                      for (int half = 0; half < 2; ++half) {
                        const std::int64_t at = j * lanes + half * V::size;
                        x[half] = V::load(from + at);
                        v[half] = kicked(V::load(from_velocity + at), x[half], V::load(gradient + at));
                        x[half] += h * v[half];
                        v[half] = e * v[half] + s * xi[half];
                        x[half] += h * v[half];
                        x[half].store(to + at);
                        v[half].store(to_velocity + at);
                      }
                      // A velocity that is not finite makes its position so.
                      watch.see(x[0], x[1]);
                    });
    const std::int64_t count = std::min<std::int64_t>(lanes, n_particles - first_particle);
    clear_empty_lanes(to, n_moving, count);
    clear_empty_lanes(to_velocity, n_moving, count);
    return watch.first_bad_lane(count);
  }

  std::int64_t close(const T* panel, T* velocity, const T* gradient, std::int64_t n_moving, std::int64_t first_particle,
                     std::int64_t n_particles) const {
    FiniteWatch<T> watch;
    for (std::int64_t at = 0; at < n_moving * lanes; at += lanes) {
      V v[2];
      for (int half = 0; half < 2; ++half) {
        const std::int64_t here = at + half * V::size;
        v[half] = kicked(V::load(velocity + here), V::load(panel + here), V::load(gradient + here));
        v[half].store(velocity + here);
      }
      watch.see(v[0], v[1]);
    }
    const std::int64_t count = std::min<std::int64_t>(lanes, n_particles - first_particle);
    clear_empty_lanes(velocity, n_moving, count);
    return watch.first_bad_lane(count);
  }

 private:
  MFLD_INLINE V kicked(V velocity, V x, V gradient) const {
    return velocity - V(half_step) * (gradient + V(ridge) * x);
  }
};

}  // namespace mfld
