// One affine step of one panel, its noise included.
//
//   theta <- theta - c theta - h g + s xi
//
// It knows neither ridge nor temperature: the Euler-Maruyama step, steps that take the ridge implicitly or exactly, and
// proposals are rows (c, h, s) of it. c is subtracted and not 1 - c multiplied: float32 rounds 1 - c to 1 below 6e-8,
// while what is subtracted joins the noise before it is rounded. Noise: stream MFLD_STREAM_MOVE, one normal per moving
// coordinate. Frozen coordinates are the last ones and are not touched.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "domain.hpp"
#include "mfld/kernels.h"
#include "mfld/noise.hpp"
#include "mfld/panels.hpp"
#include "mfld/simd.hpp"

namespace mfld {

// Remembers lanes in which a number was not finite.
template <class T>
class FiniteWatch {
  using V = Vec<T>;
  V watch0_{0}, watch1_{0};  // x - x: 0, or NaN once x is not finite

 public:
  MFLD_INLINE void see(V x0, V x1) {
    watch0_ += x0 - x0;
    watch1_ += x1 - x1;
  }
  // Among the first `count` lanes; -1: none.
  std::int64_t first_bad_lane(std::int64_t count) const {
    alignas(64) T watch[panel_lanes<T>];
    watch0_.store(watch);
    watch1_.store(watch + V::size);
    const T* bad = std::find_if(watch, watch + count, [](T w) { return w != T(0); });
    return bad == watch + count ? -1 : bad - watch;
  }
};

// Empty lanes move like particles at the origin: back to zero, so that they never overflow.
template <class T>
void clear_empty_lanes(T* panel, std::int64_t n_moving, std::int64_t count) {
  constexpr int lanes = panel_lanes<T>;
  if (count < lanes)
    for (std::int64_t j = 0; j < n_moving; ++j) std::fill(panel + j * lanes + count, panel + (j + 1) * lanes, T(0));
}

// body(j, xi) for each moving coordinate j of a panel, xi[2] its normals: zeros where there is no noise.
template <class T, class Body>
MFLD_INLINE void with_normals(const NoisePlace& place, std::int64_t first_particle, std::int64_t n_moving, bool noisy,
                              const Body& body) {
  const PanelNoise<T> noise(place, static_cast<std::uint32_t>(first_particle));
  for (std::int64_t j = 0; j < n_moving; j += 4) {
    Vec<T> xi[4][2];
    if (noisy)
      noise.normals(static_cast<std::uint32_t>(j / 4), xi);
    else
      for (auto& row : xi) row[0] = row[1] = Vec<T>(0);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      if (j + q >= n_moving) break;
      body(j + q, xi[q]);
    }
  }
}

// Rows of a panel's gradient: `factor` (lanes) multiplies the first n_affine of them, and may be null.
template <class T>
struct PanelGradient {
  T* affine;
  std::int64_t n_affine;
  const T* factor;
  T* readout;

  const T* row(std::int64_t j) const {
    constexpr int lanes = panel_lanes<T>;
    return j < n_affine ? affine + j * lanes : readout + (j - n_affine) * lanes;
  }
};

template <class T>
struct Affine {
  using V = Vec<T>;
  static constexpr int lanes = panel_lanes<T>;

  T pull, step_size, noise_scale;

  explicit Affine(const double* row)
      : pull(static_cast<T>(row[0])), step_size(static_cast<T>(row[1])), noise_scale(static_cast<T>(row[2])) {}

  // Coefficient of theta in the gradient of a potential with the ridge: 2 l2 wherever the step is made for one.
  static double ridge(const double* row) { return row[0] / row[1]; }

  // From one place to another, or in place; frozen rows are neither read nor written. Returns the first lane of a real
  // particle with a coordinate that is not finite afterwards, or -1.
  std::int64_t operator()(const T* from, T* to, const PanelGradient<T>& gradient, std::int64_t n_moving,
                          std::int64_t first_particle, std::int64_t n_particles, const NoisePlace& place,
                          const Domain<T>& domain) const {
    const V c(-pull), h(-step_size), s(noise_scale);
    V h0 = h, h1 = h;
    if (gradient.factor) {
      h0 = h * V::load(gradient.factor);
      h1 = h * V::load(gradient.factor + V::size);
    }
    FiniteWatch<T> watch;
    with_normals<T>(place, first_particle, n_moving, noise_scale != T(0),
                    [&](std::int64_t j, const V(&xi)[2]) __attribute__((always_inline)) {
                      const T* g = gradient.row(j);
                      const T* x = from + j * lanes;
                      const bool affine = j < gradient.n_affine;
                      const V x0 = V::load(x), x1 = V::load(x + V::size);
                      const V b0 = multiply_add(V::load(g), affine ? h0 : h, s * xi[0]);
                      const V b1 = multiply_add(V::load(g + V::size), affine ? h1 : h, s * xi[1]);
                      const V y0 = x0 + multiply_add(c, x0, b0);
                      const V y1 = x1 + multiply_add(c, x1, b1);
                      watch.see(y0, y1);
                      y0.store(to + j * lanes);
                      y1.store(to + j * lanes + V::size);
                    });
    const std::int64_t count = std::min<std::int64_t>(lanes, n_particles - first_particle);
    const std::int64_t bad = domain.flat() ? watch.first_bad_lane(count) : domain.retract(to, count);
    clear_empty_lanes(to, n_moving, count);
    return bad;
  }

  // The same without noise, in place, of particles whose coordinates all move in flat space: of so many numbers, one
  // after the other, which need no panel. The first that is not finite afterwards, or -1.
  std::int64_t without_noise(T* x, const T* gradient, std::int64_t count) const {
    const V c(-pull), h(-step_size), no_noise(T(0));
    FiniteWatch<T> watch;
    const auto two = [&](T* at, const T* g) __attribute__((always_inline)) {
      const V x0 = V::load(at), x1 = V::load(at + V::size);
      const V y0 = x0 + multiply_add(c, x0, multiply_add(V::load(g), h, no_noise));
      const V y1 = x1 + multiply_add(c, x1, multiply_add(V::load(g + V::size), h, no_noise));
      watch.see(y0, y1);
      y0.store(at);
      y1.store(at + V::size);
    };
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) two(x + i, gradient + i);
    if (i < count) {
      T own[lanes] = {}, slope[lanes] = {};
      std::copy(x + i, x + count, own);
      std::copy(gradient + i, gradient + count, slope);
      two(own, slope);
      std::copy(own, own + (count - i), x + i);
    }
    if (watch.first_bad_lane(lanes) < 0) return -1;
    return std::find_if(x, x + count, [](T y) { return !std::isfinite(y); }) - x;
  }
};

// sum over real particles and moving coordinates of (gradient + ridge theta)^2, before a move.
template <class T>
double squared_norm(const T* panel, const PanelGradient<T>& gradient, std::int64_t n_moving, std::int64_t count,
                    double ridge) {
  double sum = 0;
  for (std::int64_t j = 0; j < n_moving; ++j) {
    const T* g = gradient.row(j);
    for (std::int64_t l = 0; l < count; ++l) {
      const double factor = gradient.factor && j < gradient.n_affine ? gradient.factor[l] : 1;
      const double b = factor * g[l] + ridge * panel[j * panel_lanes<T> + l];
      sum += b * b;
    }
  }
  return sum;
}

// The first particle from `from` on with a coordinate that is not finite, or -1.
template <class T>
std::int64_t first_non_finite(const T* particles, std::int64_t n_particles, std::int64_t p, std::int64_t from) {
  for (std::int64_t i = from; i < n_particles; ++i)
    if (!std::all_of(particles + i * p, particles + (i + 1) * p, [](T x) { return std::isfinite(x); })) return i;
  return -1;
}

}  // namespace mfld
