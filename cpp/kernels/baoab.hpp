// The BAOAB splitting of underdamped Langevin dynamics, on one panel, its noise included.
//
//   open:   v -= a g + r theta;  theta += a v;  v = e v + s xi;  theta += a v
//   close:  v -= a g + r theta
//
// With a half of the step size, the caller's r = 2 l2 a, e = exp(-2 friction a) and s^2 = temperature (1 - e^2) it is
// of weak order 2, and the position's law is exact on a quadratic potential. Leimkuhler and Matthews 2013. One gradient
// a step: that of `close` serves the next `open`. Noise: stream MFLD_STREAM_MOVE, one normal per moving coordinate.
#pragma once

#include <cstdint>

#include "mfld/kernels.h"
#include "mfld/noise.hpp"
#include "move.hpp"

namespace mfld {

template <class T>
struct Baoab {
  using V = Vec<T>;
  static constexpr int lanes = panel_lanes<T>;

  T half_step, pull, persistence, noise_scale;

  Baoab() = default;
  explicit Baoab(const double* row)
      : half_step(static_cast<T>(row[0])),
        pull(static_cast<T>(row[1])),
        persistence(static_cast<T>(row[2])),
        noise_scale(static_cast<T>(row[3])) {}

  // As in Affine.
  static double ridge(const double* row) { return row[1] / row[0]; }

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
                        x[half] = multiply_add(h, v[half], x[half]);
                        v[half] = multiply_add(e, v[half], s * xi[half]);
                        x[half] = multiply_add(h, v[half], x[half]);
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
    return velocity + multiply_add(V(-pull), x, V(-half_step) * gradient);
  }
};

}  // namespace mfld
