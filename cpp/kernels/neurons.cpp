// h(theta, z) of every particle at every input, as a matrix: for looking at neurons, not for training. A plain product
// by Eigen and one activation sweep, hence also a check on the fused kernels that shares none of their code.
#include <Eigen/Core>
#include <algorithm>
#include <cstdint>

#include "entries.hpp"
#include "mfld/team.hpp"
#include "network.hpp"

namespace mfld {

template <class T>
int neurons(const mfld_network* description, const void* particles, std::int64_t n_particles, const void* inputs,
            std::int64_t n, void* h, const mfld_execution* execution) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return guarded([&] {
    const NetworkPanel<T> network(*description);
    const std::int64_t d = network.n_features, outputs = network.n_outputs, p = network.n_coordinates();
    const std::int64_t padded = round_up(n_particles, panel_lanes<T>);
    const Eigen::Map<const Matrix, 0, Eigen::OuterStride<>> weights(static_cast<const T*>(particles), n_particles, d,
                                                                    Eigen::OuterStride<>(p));
    const Eigen::Map<const Matrix> z(static_cast<const T*>(inputs), n, d);

    // (n_outputs, particle): what a panel holds, for all particles at once
    const Buffer<T> rho(outputs * padded), coefficient(outputs * padded), offset(outputs * padded), slope(padded);
    const Buffer<T> bias(padded), value(padded);
    std::fill_n(rho.get(), outputs * padded, T(0));
    std::fill_n(bias.get(), padded, T(0));
    for (std::int64_t m = 0; m < n_particles; ++m) {
      const T* theta = static_cast<const T*>(particles) + m * p;
      if (network.has_bias) bias[m] = theta[d];
      if (network.readout_info.has_coordinates)
        for (std::int64_t k = 0; k < outputs; ++k) rho[k * padded + m] = theta[network.n_affine() + k];
    }
    network.readout.terms(rho.get(), outputs * padded, network.scale, network.bound, coefficient.get(), offset.get());

    // A product of many particles and features takes long: then fewer rows of it are made between two looks.
    StopSignal stop(*execution);
    const std::int64_t row_work = n_particles * (d + 20 * outputs);
    const std::int64_t rows_at_once = std::clamp<std::int64_t>((std::int64_t{1} << 27) / row_work, 1, 64);
    Matrix product;
    auto* out = static_cast<T*>(h);
    for (std::int64_t first = 0; first < n; first += rows_at_once) {
      const std::int64_t rows = std::min(rows_at_once, n - first);
      if (stop.asked(rows * row_work)) return static_cast<int>(MFLD_STOPPED);
      product.noalias() = z.middleRows(first, rows) * weights.transpose();
      for (std::int64_t i = 0; i < rows; ++i) {
        std::fill_n(value.get(), padded, T(0));
        for (std::int64_t m = 0; m < n_particles; ++m) value[m] = product(i, m) + bias[m];
        network.activation.apply(value.get(), slope.get(), padded);
        for (std::int64_t m = 0; m < n_particles; ++m)
          for (std::int64_t k = 0; k < outputs; ++k)
            *out++ = coefficient[k * padded + m] * value[m] + offset[k * padded + m];
      }
    }
    return static_cast<int>(MFLD_DONE);
  });
}

template int neurons<float>(const mfld_network*, const void*, std::int64_t, const void*, std::int64_t, void*,
                            const mfld_execution*);
template int neurons<double>(const mfld_network*, const void*, std::int64_t, const void*, std::int64_t, void*,
                             const mfld_execution*);

}  // namespace mfld
