// The moves on their own, for gradients that come from elsewhere; advance/moves.hpp composes the same schemes.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include "baoab.hpp"
#include "entries.hpp"
#include "metropolis.hpp"
#include "mfld/team.hpp"
#include "move.hpp"

namespace mfld {
namespace {

// The least of the numbers that several threads come up with.
class Least {
 public:
  explicit Least(std::int64_t start) : value_(start) {}
  void take(std::int64_t other) {
    std::int64_t known = value_.load();
    while (other < known && !value_.compare_exchange_weak(known, other)) {
    }
  }
  std::int64_t value() const { return value_.load(); }

 private:
  std::atomic<std::int64_t> value_;
};

// Multiply-adds that take as long as the move of one coordinate.
constexpr std::int64_t work_of_coordinate = 20;

// Particles of all members, panel after panel.
template <class T>
struct Panels {
  PanelLayout<T> layout;
  std::int64_t n_members, n_moving, first_particle;
  std::vector<NoisePlace> places;  // of each member

  Panels(const mfld_shape& shape, const mfld_noise& noise)
      : layout(shape.n_particles, shape.p),
        n_members(shape.n_members),
        n_moving(shape.n_moving),
        first_particle(shape.first_particle) {
    for (std::int64_t e = 0; e < n_members; ++e) places.emplace_back(of_member(noise, e), MFLD_STREAM_MOVE);
  }

  std::int64_t count() const { return n_members * layout.n_panels; }
  // Numbers of the particles in the noise.
  std::int64_t first_of(std::int64_t panel) const { return first_particle + panel * panel_lanes<T>; }
  std::int64_t end_particle() const { return first_particle + layout.n_particles; }
  double work() const { return static_cast<double>(layout.panel_size() * work_of_coordinate); }
  // Particles of one member.
  template <class Array>
  Array* of(Array* particles, std::int64_t member) const {
    return particles + member * layout.n_particles * layout.n_coordinates;
  }
};

// body(member of the measure, its panel, member of the team) -> first bad lane or -1, over all panels.
template <class T, class Body>
int over_panels(const Panels<T>& panels, int threads, const mfld_execution& execution, std::int64_t& bad_particle,
                const Body& body) {
  const std::int64_t none = panels.count() * panel_lanes<T>, each = panels.layout.n_panels;
  Least first_bad(none);
  StopSignal stop(execution);
  run_team(threads, [&](int member, int members, SpinBarrier&) {
    const Range mine = even_part(panels.count(), member, members);
    for (std::int64_t i = mine.begin; i < mine.end && !stop.aborting(); ++i) {
      if (member == 0) stop.poll(panels.work());
      const std::int64_t e = i / each, p = i % each, lane = body(e, p, member);
      if (lane >= 0) first_bad.take(e * panels.layout.n_particles + p * panel_lanes<T> + lane);
    }
  });
  bad_particle = first_bad.value() == none ? -1 : first_bad.value();
  return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
}

template <class T>
int threads_for(const Panels<T>& panels, const mfld_execution& execution) {
  return useful_threads(execution.num_threads, panels.count(), panels.work() * static_cast<double>(panels.count()));
}

}  // namespace

template <class T>
int affine(void* particles, const void* gradient, const mfld_shape* shape, const double* coefficients,
           const mfld_domain* domain, const mfld_noise* noise, std::int64_t* bad_particle,
           const mfld_execution* execution) {
  return guarded([&] {
    const Panels<T> panels(*shape, *noise);
    const PanelLayout<T>& layout = panels.layout;
    const Affine<T> scheme(coefficients);
    const Domain<T> on(*domain);
    const int threads = threads_for(panels, *execution);
    if (scheme.noise_scale == T(0) && on.flat() && panels.n_moving == layout.n_coordinates)
      return over_panels(panels, threads, *execution, *bad_particle, [&](std::int64_t e, std::int64_t p, int) {
        const std::int64_t first = p * layout.panel_size(), width = layout.n_coordinates;
        const std::int64_t bad =
            scheme.without_noise(panels.of(static_cast<T*>(particles), e) + first,
                                 panels.of(static_cast<const T*>(gradient), e) + first, layout.particles_in(p) * width);
        return bad < 0 ? bad : bad / width;
      });
    const Buffer<T> scratch(threads * 2 * layout.panel_size());
    return over_panels(panels, threads, *execution, *bad_particle, [&](std::int64_t e, std::int64_t p, int member) {
      T* x = panels.of(static_cast<T*>(particles), e);
      T* panel = &scratch[member * 2 * layout.panel_size()];
      T* slope = panel + layout.panel_size();
      layout.pack(x, p, panel);
      layout.pack(panels.of(static_cast<const T*>(gradient), e), p, slope);
      const std::int64_t bad = scheme(panel, panel, {slope, panels.n_moving, nullptr, nullptr}, panels.n_moving,
                                      panels.first_of(p), panels.end_particle(), panels.places[e], on);
      layout.unpack(panel, p, x);
      return bad;
    });
  });
}

template <class T>
int baoab(void* particles, void* velocities, const void* gradient, const mfld_shape* shape, std::int32_t part,
          const double* coefficients, const mfld_noise* noise, std::int64_t* bad_particle,
          const mfld_execution* execution) {
  return guarded([&] {
    const Panels<T> panels(*shape, *noise);
    const PanelLayout<T>& layout = panels.layout;
    const Baoab<T> scheme(coefficients);
    const int threads = threads_for(panels, *execution);
    const Buffer<T> scratch(threads * 3 * layout.panel_size());
    return over_panels(panels, threads, *execution, *bad_particle, [&](std::int64_t e, std::int64_t p, int member) {
      T *x = panels.of(static_cast<T*>(particles), e), *v = panels.of(static_cast<T*>(velocities), e);
      T* panel = &scratch[member * 3 * layout.panel_size()];
      T* velocity = panel + layout.panel_size();
      T* slope = velocity + layout.panel_size();
      layout.pack(x, p, panel);
      layout.pack(v, p, velocity);
      layout.pack(panels.of(static_cast<const T*>(gradient), e), p, slope);
      const std::int64_t first = panels.first_of(p), n = panels.end_particle();
      if (part == MFLD_BAOAB_CLOSE) {
        const std::int64_t bad = scheme.close(panel, velocity, slope, panels.n_moving, first, n);
        layout.unpack(velocity, p, v);
        return bad;
      }
      const std::int64_t bad =
          scheme.open(panel, velocity, panel, velocity, slope, panels.n_moving, first, n, panels.places[e]);
      layout.unpack(panel, p, x);
      layout.unpack(velocity, p, v);
      return bad;
    });
  });
}

template <class T>
int accept(void* particles, void* values, void* gradient, const void* proposals, const void* proposal_values,
           const void* proposal_gradient, const mfld_shape* shape, const double* coefficients, const mfld_noise* noise,
           std::int64_t* accepted, double* probabilities, const mfld_execution* execution) {
  return guarded([&] {
    auto *x = static_cast<T*>(particles), *u = static_cast<T*>(values), *g = static_cast<T*>(gradient);
    const auto *y = static_cast<const T*>(proposals), *w = static_cast<const T*>(proposal_values),
               *f = static_cast<const T*>(proposal_gradient);
    const std::int64_t p = shape->p, n_moving = shape->n_moving, n = shape->n_members * shape->n_particles;
    const auto finite = [](T z) { return std::isfinite(z); };
    std::atomic<std::int64_t> count{0};
    const int threads = useful_threads(execution->num_threads, n, static_cast<double>(n * (n_moving + 20)));
    StopSignal stop(*execution);
    run_team(threads, [&](int member, int members, SpinBarrier&) {
      const Range mine = even_part(n, member, members);
      std::int64_t count_here = 0;
      for (std::int64_t i = mine.begin; i < mine.end && !stop.aborting(); ++i) {
        if (member == 0) stop.poll(static_cast<double>(4 * n_moving + 100));
        const std::int64_t at = i * p;
        probabilities[i] = 0;
        if (!finite(w[i]) || !std::all_of(y + at, y + at + n_moving, finite) ||
            !std::all_of(f + at, f + at + n_moving, finite))
          continue;
        const double log_ratio =
            metropolis_log_ratio<T>({x + at, static_cast<double>(u[i]), g + at},
                                    {y + at, static_cast<double>(w[i]), f + at}, n_moving, coefficients);
        if (std::isnan(log_ratio)) continue;  // of numbers so large that their squares overflow
        probabilities[i] = std::exp(std::min(log_ratio, 0.0));
        const mfld_noise own = of_member(*noise, i / shape->n_particles);
        if (!(std::log(acceptance_uniform(own, shape->first_particle + i % shape->n_particles)) < log_ratio)) continue;
        std::copy_n(y + at, p, x + at);
        std::copy_n(f + at, p, g + at);
        u[i] = w[i];
        ++count_here;
      }
      count += count_here;
    });
    if (stop.aborting()) return MFLD_STOPPED;
    *accepted = count;
    return MFLD_DONE;
  });
}

#define MFLD_INSTANTIATE(T)                                                                                            \
  template int affine<T>(void*, const void*, const mfld_shape*, const double*, const mfld_domain*, const mfld_noise*,  \
                         std::int64_t*, const mfld_execution*);                                                        \
  template int baoab<T>(void*, void*, const void*, const mfld_shape*, std::int32_t, const double*, const mfld_noise*,  \
                        std::int64_t*, const mfld_execution*);                                                         \
  template int accept<T>(void*, void*, void*, const void*, const void*, const void*, const mfld_shape*, const double*, \
                         const mfld_noise*, std::int64_t*, double*, const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
