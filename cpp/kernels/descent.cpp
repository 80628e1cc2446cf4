// Many steps down a discrepancy of pairs, where a step takes less time than a call from Python: small clouds.
//
// A step is the pair sums and the affine move that a caller would make by themselves, in the same order and precision:
// it has the same bits.
#include <algorithm>
#include <cstdint>

#include "entries.hpp"
#include "mfld/panels.hpp"
#include "mfld/team.hpp"

namespace mfld {
namespace {

// In a loop of its own, so that the product is rounded before it is added to anything.
template <class T>
void scale(T* values, std::int64_t count, T factor) {
  if (factor == T(1)) return;
  for (std::int64_t i = 0; i < count; ++i) values[i] *= factor;
}

}  // namespace

template <class T>
int advance_pairs(const mfld_discrepancy* discrepancy, void* particles, std::int64_t n_replicates,
                  const mfld_shape* shape, std::int64_t n_steps, const mfld_coefficients* coefficients,
                  const mfld_domain* domain, const mfld_noise* noises, mfld_report* report,
                  const mfld_execution* execution) {
  return guarded([&] {
    const std::int64_t n = shape->n_particles, p = shape->p, size = n * p, frozen = p - shape->n_moving;
    const mfld_points& target = discrepancy->target;
    auto* now = static_cast<T*>(particles);
    const Buffer<T> next(n_replicates * size), gradient(size), of_target(size);
    const double pairs = static_cast<double>(n) * static_cast<double>(n + target.n);
    StopSignal stop(*execution);
    for (std::int64_t k = 0; k < n_steps; ++k) {
      for (std::int64_t r = 0; r < n_replicates; ++r) {
        stop.poll(pairs * static_cast<double>(4 * p + 16));
        if (stop.aborting()) return static_cast<int>(MFLD_STOPPED);
        const T* x = now + r * size;
        T *moved = &next[r * size], *g = gradient.get(), *t = of_target.get();
        const mfld_points cloud = {x, nullptr, n};
        int status = pair_sums<T>(discrepancy->own, x, n, &cloud, p, nullptr, g, execution);
        if (status == MFLD_DONE) status = pair_sums<T>(discrepancy->cross, x, n, &target, p, nullptr, t, execution);
        if (status != MFLD_DONE) return status;
        scale(g, size, static_cast<T>(discrepancy->own_factor));
        scale(t, size, static_cast<T>(discrepancy->cross_factor));
        for (std::int64_t i = 0; i < size; ++i) g[i] = T(2) * (g[i] - t[i]);
        for (std::int64_t i = 0; frozen > 0 && i < n; ++i) std::fill_n(g + (i + 1) * p - frozen, frozen, T(0));
        std::copy_n(x, size, moved);
        mfld_noise noise = noises[r];
        noise.step += static_cast<std::uint64_t>(k);
        std::int64_t bad = -1;
        status = affine<T>(moved, g, shape, coefficients[r].rows + k * coefficients[r].stride, domain, &noise, &bad,
                           execution);
        if (status != MFLD_DONE) return status;
        if (bad >= 0 && report->status != MFLD_DIVERGED) {
          report->status = MFLD_DIVERGED;
          report->bad_replicate = r;
          report->bad_particle = bad;
        }
      }
      if (report->status == MFLD_DIVERGED) return static_cast<int>(MFLD_DONE);
      std::copy_n(next.get(), n_replicates * size, now);
      report->steps = k + 1;
    }
    return static_cast<int>(MFLD_DONE);
  });
}

#define MFLD_INSTANTIATE(T)                                                                                    \
  template int advance_pairs<T>(const mfld_discrepancy*, void*, std::int64_t, const mfld_shape*, std::int64_t, \
                                const mfld_coefficients*, const mfld_domain*, const mfld_noise*, mfld_report*, \
                                const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
