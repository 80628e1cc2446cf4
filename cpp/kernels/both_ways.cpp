// Pull back to inputs, and to particles in the same pass: the way back of networks that stand on each other.
//
//   gain_im = act'(a_im) sum_k c_mk g_ik                     gradient in z_i     = sum_m share_m gain_im w_m
//                                                            gradient in (w, b)_m = sum_i gain_im (z_i, 1)
//
// Rows are cut into groups by their number alone, and members own whole groups. A row sums over the particles in their
// order; a particle sums over the rows of a group, and over groups in their order. So neither depends on the threads.
#include <algorithm>
#include <cstdint>

#include "entries.hpp"
#include "mfld/team.hpp"
#include "network.hpp"
#include "predictions.hpp"

namespace mfld {
namespace {

// Enough for as many threads; each costs memory of the size of the particles.
constexpr std::int64_t most_groups = 16;

// sums[i][j] += sum over lanes of values[i][lane] rows[lane][j], for `width` samples and `registers` registers of j.
template <class T, int width, int registers>
void row_tile(const T* values, const T* rows, std::int64_t stride, T* sums) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  V total[registers][width];
#pragma GCC unroll 16
  for (int s = 0; s < width; ++s)
    for (int r = 0; r < registers; ++r) total[r][s] = V::load(sums + s * stride + r * V::size);
  for (int l = 0; l < lanes; ++l) {
    V w[registers];
    for (int r = 0; r < registers; ++r) w[r] = V::load(rows + l * stride + r * V::size);
#pragma GCC unroll 16
    for (int s = 0; s < width; ++s) {
      const V x(values[s * lanes + l]);
      for (int r = 0; r < registers; ++r) total[r][s] += w[r] * x;
    }
  }
#pragma GCC unroll 16
  for (int s = 0; s < width; ++s)
    for (int r = 0; r < registers; ++r) total[r][s].store(sums + s * stride + r * V::size);
}

template <class T>
using RowTile = void (*)(const T*, const T*, std::int64_t, T*);
template <class T, int registers, int... width>
constexpr auto row_tiles(std::integer_sequence<int, width...>) {
  return std::array<RowTile<T>, sizeof...(width)>{&row_tile<T, width + 1, registers>...};
}

// The same for n_rows samples; stride: a multiple of a register, and of j there are as many.
template <class T>
void accumulate_rows(const T* values, std::int64_t n_rows, const T* rows, std::int64_t stride, T* sums) {
  static constexpr auto single = row_tiles<T, 1>(std::make_integer_sequence<int, tile_width>());
  static constexpr auto twice = row_tiles<T, 2>(std::make_integer_sequence<int, tile_width>());
  constexpr std::int64_t one = Vec<T>::size, lanes = panel_lanes<T>;
  detail::for_tiles(n_rows, [&](std::int64_t first, std::int64_t width) {
    std::int64_t j = 0;
    for (; j + 2 * one <= stride; j += 2 * one)
      twice[width - 1](values + first * lanes, rows + j, stride, sums + first * stride + j);
    if (j < stride) single[width - 1](values + first * lanes, rows + j, stride, sums + first * stride + j);
  });
}

}  // namespace

template <class T>
int pull_back_inputs(const mfld_network* description, const void* particles, const void* coefficients,
                     std::int64_t n_particles, const void* inputs, std::int64_t n, const void* cotangent,
                     void* gradient, void* particle_gradient, const mfld_execution* execution) {
  return guarded([&] {
    constexpr int lanes = panel_lanes<T>;
    using V = Vec<T>;
    const NetworkPanel<T> network(*description);
    const PanelLayout<T> layout(n_particles, network.n_coordinates());
    const std::int64_t outputs = network.n_outputs, d = network.n_features, affine_size = network.n_affine() * lanes;
    const std::int64_t terms_size = outputs * lanes, wide = round_up(d, V::size);
    const auto* theta = static_cast<const T*>(particles);
    const auto* z = static_cast<const T*>(inputs);
    const auto* g = static_cast<const T*>(cotangent);
    const bool both = particle_gradient != nullptr;
    const T mass = static_cast<T>(1.0 / static_cast<double>(n_particles));
    const SampleBlocks blocks(n, NetworkPanel<T>::most_rows_at_once);
    const std::int64_t n_groups = std::min(blocks.n_blocks, most_groups);

    const double block_work = static_cast<double>(lanes * blocks.most_rows * (3 * d + 2 * outputs + 16));
    const int threads = useful_threads(execution->num_threads, n_groups,
                                       block_work * static_cast<double>(blocks.n_blocks * layout.n_panels));
    // of each panel: particles, coefficients, weights times their share by rows
    const std::int64_t packed_size = layout.panel_size() + terms_size + lanes * wide;
    const Buffer<T> packed(layout.n_panels * packed_size);
    const double packing_work = 16 * static_cast<double>(packed_size);  // memory that is touched for the first time
    // of each group and panel: gradients in (w, b), and S_k
    const std::int64_t pulled_size = affine_size + terms_size;
    const Buffer<T> pulled(both ? n_groups * layout.n_panels * pulled_size : 0);
    // per member: offset, share, total, values, slope, gain, sums; readout scratch, a gradient
    const std::int64_t block_size = round_up(blocks.most_rows, V::size) * lanes;
    const std::int64_t scratch_size =
        3 * terms_size + layout.panel_size() + 2 * lanes + 3 * block_size + blocks.most_rows * wide;
    const Buffer<T> scratch(threads * scratch_size);
    const Buffer<T> cotangent_sums(outputs);
    StopSignal stop(*execution);

    run_team(threads, [&](int member, int members, SpinBarrier& barrier) {
      T* readout_scratch = &scratch[member * scratch_size];
      T* offset = readout_scratch + 2 * terms_size;
      T* own_gradient = offset + terms_size;
      T* share = own_gradient + layout.panel_size();
      T* unused = share + lanes;
      T* values = unused + lanes;
      T* slope = values + block_size;
      T* gain = slope + block_size;
      T* sums = gain + block_size;

      const Range panels = even_part(layout.n_panels, member, members);
      for (std::int64_t p = panels.begin; p < panels.end && !stop.aborting(); ++p) {
        if (member == 0) stop.poll(packing_work);
        T* panel = &packed[p * packed_size];
        T* rows = panel + layout.panel_size() + terms_size;
        layout.pack(theta, p, panel);
        network.terms(panel, panel + layout.panel_size(), offset);
        panel_share(layout, p, static_cast<const T*>(coefficients), share);
        std::fill_n(rows, lanes * wide, T(0));
        for (std::int64_t l = 0; l < layout.particles_in(p); ++l) {
          const T factor = coefficients ? share[l] : mass;
          const T* weights = theta + (p * lanes + l) * layout.n_coordinates;
          for (std::int64_t j = 0; j < d; ++j) rows[l * wide + j] = factor * weights[j];
        }
      }
      if (both && member == 0)
        for (std::int64_t k = 0; k < outputs; ++k) {
          double sum = 0;
          for (std::int64_t i = 0; i < n; ++i) sum += g[i * outputs + k];
          cotangent_sums[k] = static_cast<T>(sum);
        }
      barrier.wait();

      const Range groups = even_part(n_groups, member, members);
      for (std::int64_t group = groups.begin; group < groups.end; ++group) {
        const Range mine = even_part(blocks.n_blocks, group, n_groups);
        for (std::int64_t b = mine.begin; b < mine.end; ++b) {
          const Range range = blocks.rows(b);
          const T* block = z + range.begin * d;
          const T* block_cotangent = g + range.begin * outputs;
          std::fill_n(sums, range.size() * wide, T(0));
          for (std::int64_t p = 0; p < layout.n_panels; ++p) {
            if (member == 0) stop.poll(block_work);
            if (stop.aborting()) break;
            const T* panel = &packed[p * packed_size];
            const T* coefficient = panel + layout.panel_size();
            network.forward(panel, block, range.size(), values, slope);
            affine(coefficient, outputs, static_cast<const T*>(nullptr), block_cotangent, range.size(), gain);
            T* gradient_in_affine = both ? &pulled[(group * layout.n_panels + p) * pulled_size] : nullptr;
            T* total = both && network.has_bias ? gradient_in_affine + d * lanes : unused;
            if (b == mine.begin || total == unused) std::fill_n(total, lanes, T(0));
            network.activation.lane_gains(values, slope, range.size(), gain, total);
            accumulate_rows(gain, range.size(), coefficient + terms_size, wide, sums);
            if (!both) continue;
            accumulate_features(gain, range.size(), block, d, gradient_in_affine, b > mine.begin);
            if (network.readout_moves())
              accumulate_features(values, range.size(), block_cotangent, outputs, gradient_in_affine + affine_size,
                                  b > mine.begin);
          }
          if (stop.aborting()) break;
          for (std::int64_t i = 0; i < range.size(); ++i)
            std::copy_n(sums + i * wide, d, static_cast<T*>(gradient) + (range.begin + i) * d);
        }
      }
      barrier.wait();
      if (!both || stop.aborting()) return;

      for (std::int64_t p = panels.begin; p < panels.end; ++p) {
        T* first = &pulled[p * pulled_size];
        for (std::int64_t group = 1; group < n_groups; ++group) {
          const T* other = &pulled[(group * layout.n_panels + p) * pulled_size];
          for (std::int64_t at = 0; at < pulled_size; at += V::size)
            (V::load(first + at) + V::load(other + at)).store(first + at);
        }
        std::fill_n(own_gradient, layout.panel_size(), T(0));
        std::copy_n(first, affine_size, own_gradient);
        if (network.readout_moves()) {
          network.finish_readout(&packed[p * packed_size], cotangent_sums.get(), first + affine_size, readout_scratch);
          std::copy_n(first + affine_size, terms_size, own_gradient + affine_size);
        }
        layout.unpack(own_gradient, p, static_cast<T*>(particle_gradient));
      }
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template int pull_back_inputs<float>(const mfld_network*, const void*, const void*, std::int64_t, const void*,
                                     std::int64_t, const void*, void*, void*, const mfld_execution*);
template int pull_back_inputs<double>(const mfld_network*, const void*, const void*, std::int64_t, const void*,
                                      std::int64_t, const void*, void*, void*, const mfld_execution*);

}  // namespace mfld
