// Activations, losses and conjugates on whole arrays: what Python evaluates by name.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "entries.hpp"
#include "mfld/losses.hpp"
#include "mfld/team.hpp"
#include "network.hpp"

namespace mfld {

template <class T>
int activation(std::int32_t id, const void* z, std::int64_t count, void* value, void* slope, void* curvature,
               const mfld_execution* execution) {
  StopSignal stop(*execution);
  constexpr std::int64_t lanes = panel_lanes<T>;
  // cotangent 1 turns the gain of a sweep into the slope.
  alignas(64) T v[lanes], s[lanes], gain[lanes], weighted[lanes] = {}, total[lanes] = {}, bent[lanes], c[lanes];
  const T one = 1;
  const ActivationKernel<T>& kernel = activation_kernel<T>(id);
  for (std::int64_t i = 0; i < count; i += lanes) {
    if (stop.asked(30 * lanes)) return MFLD_STOPPED;
    const std::int64_t part = std::min(lanes, count - i);
    std::fill_n(v, lanes, T(0));
    std::copy_n(static_cast<const T*>(z) + i, part, v);
    std::copy_n(v, lanes, bent);
    kernel.apply(v, s, lanes);
    kernel.gains(v, s, &one, 1, gain, weighted, total);
    std::copy_n(v, part, static_cast<T*>(value) + i);
    std::copy_n(gain, part, static_cast<T*>(slope) + i);
    kernel.bend(bent, s, c, lanes);
    std::copy_n(c, part, static_cast<T*>(curvature) + i);
  }
  return MFLD_DONE;
}

namespace {

std::int64_t target_width(const mfld_loss& loss, std::int64_t n_outputs) {
  return loss_infos[loss.id].targets == MFLD_TARGETS_CLASS ? 1 : n_outputs;
}

}  // namespace

template <class T>
int loss(const mfld_loss* loss, const void* predictions, const void* targets, std::int64_t n, std::int64_t n_outputs,
         void* value, void* derivative, const mfld_execution* execution) {
  return guarded([&] {
    StopSignal stop(*execution);
    constexpr std::int64_t at_once = Vec<T>::size;
    const std::int64_t width = target_width(*loss, n_outputs);
    std::vector<T> u(n_outputs * at_once), y(width * at_once), d(n_outputs * at_once), v(at_once);
    const LossKernel<T>& kernel = loss_kernels<T>[loss->id];
    const auto parameter = static_cast<T>(loss->parameter);
    for (std::int64_t i = 0; i < n; i += at_once) {
      if (stop.asked(30 * at_once * n_outputs)) return MFLD_STOPPED;
      const std::int64_t part = std::min(at_once, n - i);
      for (std::int64_t q = 0; q < part; ++q) {
        for (std::int64_t k = 0; k < n_outputs; ++k)
          u[k * at_once + q] = static_cast<const T*>(predictions)[(i + q) * n_outputs + k];
        for (std::int64_t k = 0; k < width; ++k)
          y[k * at_once + q] = static_cast<const T*>(targets)[(i + q) * width + k];
      }
      if (value) {
        kernel.value(u.data(), y.data(), at_once, at_once, n_outputs, parameter, v.data());
        std::copy_n(v.data(), part, static_cast<T*>(value) + i);
      }
      if (derivative) {
        kernel.derivative(u.data(), y.data(), at_once, at_once, n_outputs, parameter, d.data());
        for (std::int64_t q = 0; q < part; ++q)
          for (std::int64_t k = 0; k < n_outputs; ++k)
            static_cast<T*>(derivative)[(i + q) * n_outputs + k] = d[k * at_once + q];
      }
    }
    return MFLD_DONE;
  });
}

template <class T>
int conjugate(const mfld_loss* loss, const void* dual, const void* targets, std::int64_t n, std::int64_t n_outputs,
              void* value, const mfld_execution* execution) {
  return guarded([&] {
    StopSignal stop(*execution);
    // A dual point computed as a derivative may lie outside of the domain by its rounding.
    const double tolerance = 8.0 * std::numeric_limits<T>::epsilon();
    const std::int64_t width = target_width(*loss, n_outputs);
    std::vector<double> g(n_outputs), y(width);
    for (std::int64_t i = 0; i < n; ++i) {
      if (stop.asked(50 * n_outputs)) return MFLD_STOPPED;
      std::copy_n(static_cast<const T*>(dual) + i * n_outputs, n_outputs, g.begin());
      std::copy_n(static_cast<const T*>(targets) + i * width, width, y.begin());
      static_cast<T*>(value)[i] = static_cast<T>(
          loss_kernels<T>[loss->id].conjugate(g.data(), y.data(), n_outputs, loss->parameter, tolerance));
    }
    return MFLD_DONE;
  });
}

#define MFLD_INSTANTIATE(T)                                                                                        \
  template int activation<T>(std::int32_t, const void*, std::int64_t, void*, void*, void*, const mfld_execution*); \
  template int loss<T>(const mfld_loss*, const void*, const void*, std::int64_t, std::int64_t, void*, void*,       \
                       const mfld_execution*);                                                                     \
  template int conjugate<T>(const mfld_loss*, const void*, const void*, std::int64_t, std::int64_t, void*,         \
                            const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
