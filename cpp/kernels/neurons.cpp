// h(theta, z) of every particle at every input, as a matrix: for looking at neurons, not for training. A plain product
// by Eigen and one activation sweep, hence also a check on the fused kernels that shares none of their code.
//
// Particles and rows are cut into tiles of one size, filled up with zeros, and features into strips. So every number is
// the same sum wherever its particle and its row stand, whatever else is asked for, and for any number of threads; and
// Eigen, which knows the sizes when it is compiled, needs no memory but the stack's.
#include <Eigen/Core>
#include <algorithm>
#include <cstdint>

#include "entries.hpp"
#include "mfld/team.hpp"
#include "network.hpp"

namespace mfld {
namespace {

// Whole registers and panels at every level; what Eigen copies of a strip, 112 kB at most, fits every thread's stack.
constexpr int particles_per_tile = 96, rows_per_tile = 16, features_per_strip = 128;
static_assert(particles_per_tile % panel_lanes<float> == 0);

template <class T, int size>
using Strip = Eigen::Map<const Eigen::Matrix<T, size, Eigen::Dynamic, Eigen::RowMajor, size, features_per_strip>, 0,
                         Eigen::OuterStride<>>;

// Features of a tile of vectors, `stride` apart. Where `count` are fewer than a tile, they are copied.
template <int size, class T>
Strip<T, size> strip_of(const T* vectors, std::int64_t stride, std::int64_t count, Range features, T* copy) {
  if (count >= size) return {vectors + features.begin, size, features.size(), Eigen::OuterStride<>(stride)};
  std::fill_n(copy, size * features_per_strip, T(0));
  for (std::int64_t i = 0; i < count; ++i)
    std::copy_n(vectors + i * stride + features.begin, features.size(), copy + i * features_per_strip);
  return {copy, size, features.size(), Eigen::OuterStride<>(features_per_strip)};
}

}  // namespace

template <class T>
int neurons(const mfld_network* description, const void* particles, std::int64_t n_particles, const void* inputs,
            std::int64_t n, void* h, const mfld_execution* execution) {
  using Product = Eigen::Matrix<T, rows_per_tile, particles_per_tile, Eigen::RowMajor>;
  return guarded([&] {
    const NetworkPanel<T> network(*description);
    const std::int64_t d = network.n_features, outputs = network.n_outputs, p = network.n_coordinates();
    const std::int64_t affine = network.n_affine();
    const auto* z = static_cast<const T*>(inputs);
    auto* out = static_cast<T*>(h);

    // Tiles of one range of particles follow each other.
    const std::int64_t row_tiles = ceil_div(n, rows_per_tile);
    const std::int64_t n_tiles = ceil_div(n_particles, particles_per_tile) * row_tiles;
    constexpr std::int64_t tile_size = particles_per_tile * rows_per_tile;
    const auto tile_work = static_cast<double>(tile_size * (d + 20 * outputs));
    const int threads = useful_threads(execution->num_threads, n_tiles, tile_work * static_cast<double>(n_tiles));
    // per member: values, slopes, bias, readout coordinates, coefficient, offset, copies of strips
    const std::int64_t terms_size = outputs * particles_per_tile;
    const std::int64_t scratch_size =
        2 * tile_size + particles_per_tile + 3 * terms_size + (particles_per_tile + rows_per_tile) * features_per_strip;
    const Buffer<T> scratch(threads * scratch_size);
    StopSignal stop(*execution);

    run_team(threads, [&](int member, int members, SpinBarrier&) {
      T* value = &scratch[member * scratch_size];
      T* slope = value + tile_size;
      T* bias = slope + tile_size;
      T* rho = bias + particles_per_tile;
      T* coefficient = rho + terms_size;
      T* offset = coefficient + terms_size;
      T* copied_particles = offset + terms_size;
      T* copied_rows = copied_particles + particles_per_tile * features_per_strip;
      Eigen::Map<Product> product(value);
      std::fill_n(bias, particles_per_tile + terms_size, T(0));

      const Range tiles = even_part(n_tiles, member, members);
      for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
        const std::int64_t first = tile / row_tiles * particles_per_tile, row = tile % row_tiles * rows_per_tile;
        const std::int64_t count = std::min<std::int64_t>(particles_per_tile, n_particles - first);
        const std::int64_t n_rows = std::min<std::int64_t>(rows_per_tile, n - row);
        const T* theta = static_cast<const T*>(particles) + first * p;
        if (tile == tiles.begin || row == 0) {
          for (std::int64_t m = 0; m < count; ++m) {
            if (network.has_bias) bias[m] = theta[m * p + d];
            if (network.readout_info.has_coordinates)
              for (std::int64_t k = 0; k < outputs; ++k) rho[k * particles_per_tile + m] = theta[m * p + affine + k];
          }
          network.readout.terms(rho, terms_size, network.scale, network.bound, coefficient, offset);
        }

        product.setZero();
        for (std::int64_t j = 0; j < d; j += features_per_strip) {
          const Range features = {j, std::min<std::int64_t>(d, j + features_per_strip)};
          if (member == 0) stop.poll(static_cast<double>(tile_size * features.size()));
          if (stop.aborting()) return;
          product.noalias() += strip_of<rows_per_tile>(z + row * d, d, n_rows, features, copied_rows) *
                               strip_of<particles_per_tile>(theta, p, count, features, copied_particles).transpose();
        }
        for (std::int64_t i = 0; i < n_rows; ++i)
          for (std::int64_t m = 0; m < particles_per_tile; ++m) value[i * particles_per_tile + m] += bias[m];
        network.activation.apply(value, slope, n_rows * particles_per_tile);

        if (member == 0) stop.poll(static_cast<double>(20 * tile_size * outputs));
        for (std::int64_t i = 0; i < n_rows; ++i) {
          T* to = out + ((row + i) * n_particles + first) * outputs;
          for (std::int64_t m = 0; m < count; ++m)
            for (std::int64_t k = 0; k < outputs; ++k) {
              const std::int64_t at = k * particles_per_tile + m;
              *to++ = coefficient[at] * value[i * particles_per_tile + m] + offset[at];
            }
        }
      }
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template int neurons<float>(const mfld_network*, const void*, std::int64_t, const void*, std::int64_t, void*,
                            const mfld_execution*);
template int neurons<double>(const mfld_network*, const void*, std::int64_t, const void*, std::int64_t, void*,
                             const mfld_execution*);

}  // namespace mfld
