// The moves on their own, for gradients that come from elsewhere; advance/moves.hpp composes the same schemes.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "baoab.hpp"
#include "entries.hpp"
#include "mala.hpp"
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

// body(panel, member) -> first bad lane or -1, over all panels; the first bad particle or -1 in `bad_particle`.
template <class T, class Body>
int over_panels(const PanelLayout<T>& layout, int threads, const mfld_execution& execution, std::int64_t& bad_particle,
                const Body& body) {
  const std::int64_t none = layout.n_panels * panel_lanes<T>;
  Least first_bad(none);
  StopSignal stop(execution);
  run_team(threads, [&](int member, int members, SpinBarrier&) {
    const Range panels = even_part(layout.n_panels, member, members);
    for (std::int64_t p = panels.begin; p < panels.end && !stop.aborting(); ++p) {
      if (member == 0) stop.poll(static_cast<double>(layout.panel_size() * work_of_coordinate));
      const std::int64_t lane = body(p, member);
      if (lane >= 0) first_bad.take(p * panel_lanes<T> + lane);
    }
  });
  bad_particle = first_bad.value() == none ? -1 : first_bad.value();
  return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
}

template <class T>
int threads_for(const PanelLayout<T>& layout, const mfld_execution& execution) {
  return useful_threads(execution.num_threads, layout.n_panels,
                        static_cast<double>(layout.n_particles * layout.n_coordinates * work_of_coordinate));
}

}  // namespace

template <class T>
int move(void* particles, const void* gradient, std::int64_t n_particles, std::int64_t p, std::int64_t n_moving,
         const mfld_schedule* schedule, const mfld_noise* noise, std::int64_t* bad_particle,
         const mfld_execution* execution) {
  return guarded([&] {
    const PanelLayout<T> layout(n_particles, p);
    const EulerMaruyama<T> scheme(*schedule, 0);
    const NoisePlace place(*noise, MFLD_STREAM_MOVE);
    const int threads = threads_for(layout, *execution);
    const Buffer<T> scratch(threads * 2 * layout.panel_size());
    auto* x = static_cast<T*>(particles);
    return over_panels(layout, threads, *execution, *bad_particle, [&](std::int64_t i, int member) {
      T* panel = &scratch[member * 2 * layout.panel_size()];
      T* slope = panel + layout.panel_size();
      layout.pack(x, i, panel);
      layout.pack(static_cast<const T*>(gradient), i, slope);
      const std::int64_t bad =
          scheme(panel, panel, {slope, n_moving, nullptr, nullptr}, n_moving, i * panel_lanes<T>, n_particles, place);
      layout.unpack(panel, i, x);
      return bad;
    });
  });
}

template <class T>
int baoab(void* particles, void* velocities, const void* gradient, std::int64_t n_particles, std::int64_t p,
          std::int64_t n_moving, std::int32_t part, double friction, const mfld_schedule* schedule,
          const mfld_noise* noise, std::int64_t* bad_particle, const mfld_execution* execution) {
  return guarded([&] {
    const PanelLayout<T> layout(n_particles, p);
    const Baoab<T> scheme(*schedule, 0, friction);
    const NoisePlace place(*noise, MFLD_STREAM_MOVE);
    const int threads = threads_for(layout, *execution);
    const Buffer<T> scratch(threads * 3 * layout.panel_size());
    auto *x = static_cast<T*>(particles), *v = static_cast<T*>(velocities);
    return over_panels(layout, threads, *execution, *bad_particle, [&](std::int64_t i, int member) {
      T* panel = &scratch[member * 3 * layout.panel_size()];
      T* velocity = panel + layout.panel_size();
      T* slope = velocity + layout.panel_size();
      layout.pack(x, i, panel);
      layout.pack(v, i, velocity);
      layout.pack(static_cast<const T*>(gradient), i, slope);
      const std::int64_t first = i * panel_lanes<T>;
      const std::int64_t bad =
          part == MFLD_BAOAB_OPEN
              ? scheme.open(panel, velocity, panel, velocity, slope, n_moving, first, n_particles, place)
              : scheme.close(panel, velocity, slope, n_moving, first, n_particles);
      if (part == MFLD_BAOAB_OPEN) layout.unpack(panel, i, x);
      layout.unpack(velocity, i, v);
      return bad;
    });
  });
}

template <class T>
int mala_accept(void* particles, void* values, void* gradient, const void* proposals, const void* proposal_values,
                const void* proposal_gradient, std::int64_t n_particles, std::int64_t p, std::int64_t n_moving,
                const mfld_schedule* schedule, const mfld_noise* noise, std::int64_t* accepted,
                const mfld_execution* execution) {
  return guarded([&] {
    auto *x = static_cast<T*>(particles), *u = static_cast<T*>(values), *g = static_cast<T*>(gradient);
    const auto *y = static_cast<const T*>(proposals), *w = static_cast<const T*>(proposal_values),
               *c = static_cast<const T*>(proposal_gradient);
    const double step_size = schedule->step_size[0], temperature = schedule->temperature[0], l2 = schedule->l2[0];
    const auto finite = [](T z) { return std::isfinite(z); };
    std::atomic<std::int64_t> count{0};
    const int threads =
        useful_threads(execution->num_threads, n_particles, static_cast<double>(n_particles * (n_moving + 20)));
    StopSignal stop(*execution);
    run_team(threads, [&](int member, int members, SpinBarrier&) {
      const Range mine = even_part(n_particles, member, members);
      std::int64_t count_here = 0;
      for (std::int64_t i = mine.begin; i < mine.end && !stop.aborting(); ++i) {
        if (member == 0) stop.poll(static_cast<double>(4 * n_moving + 100));
        const std::int64_t at = i * p;
        if (!finite(w[i]) || !std::all_of(y + at, y + at + n_moving, finite) ||
            !std::all_of(c + at, c + at + n_moving, finite))
          continue;
        const double log_ratio =
            mala_log_ratio<T>({x + at, static_cast<double>(u[i]), g + at}, {y + at, static_cast<double>(w[i]), c + at},
                              n_moving, step_size, temperature, l2);
        if (!(std::log(acceptance_uniform(*noise, i)) < log_ratio)) continue;
        std::copy_n(y + at, p, x + at);
        std::copy_n(c + at, p, g + at);
        u[i] = w[i];
        ++count_here;
      }
      count += count_here;
    });
    *accepted = count;
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

#define MFLD_INSTANTIATE(T)                                                                                           \
  template int move<T>(void*, const void*, std::int64_t, std::int64_t, std::int64_t, const mfld_schedule*,            \
                       const mfld_noise*, std::int64_t*, const mfld_execution*);                                      \
  template int baoab<T>(void*, void*, const void*, std::int64_t, std::int64_t, std::int64_t, std::int32_t, double,    \
                        const mfld_schedule*, const mfld_noise*, std::int64_t*, const mfld_execution*);               \
  template int mala_accept<T>(void*, void*, void*, const void*, const void*, const void*, std::int64_t, std::int64_t, \
                              std::int64_t, const mfld_schedule*, const mfld_noise*, std::int64_t*,                   \
                              const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
