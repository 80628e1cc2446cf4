// A mini-batch for each particle: drawing the rows, and pulling cotangents back to a particle over its own rows.
//
// Lanes are particles here too, and each lane reads another row: rows are gathered into a panel [feature][lane], one
// draw at a time, so the work is bound by this gathering and not by arithmetic.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "entries.hpp"
#include "mfld/noise.hpp"
#include "mfld/team.hpp"
#include "network.hpp"

namespace mfld {

// rows (n_particles, batch_size). Floyd's algorithm as in floyd_batch, where the block of draw t of a particle is its
// own block t + 1: block 0 belongs to the batches that particles share.
int particle_batches(const mfld_noise* noise, std::int64_t n, std::int64_t batch_size, std::int64_t n_particles,
                     std::int64_t* rows, const mfld_execution* execution) {
  return guarded([&] {
    constexpr std::int64_t lanes = 2 * HalfVec::size;
    const NoisePlace place(*noise, MFLD_STREAM_BATCH);
    const std::int64_t n_panels = ceil_div(n_particles, lanes);
    const int threads =
        useful_threads(execution->num_threads, n_panels, static_cast<double>(n_particles * batch_size) * 20);
    const Buffer<std::uint64_t> scratch(threads * batch_size * lanes);
    std::vector<FloydSet> sets;
    for (int member = 0; member < threads; ++member) sets.emplace_back(batch_size);
    StopSignal stop(*execution);
    run_team(threads, [&](int member, int members, SpinBarrier&) {
      std::uint64_t* words = &scratch[member * batch_size * lanes];
      FloydSet& set = sets[member];
      const auto gives_up = [&](std::int64_t draws) {
        if (member == 0) stop.poll(static_cast<double>(work_of_draw * draws));
        return stop.aborting();
      };
      const Range panels = even_part(n_panels, member, members);
      for (std::int64_t p = panels.begin; p < panels.end; ++p) {
        const PanelNoise<double> panel(place, static_cast<std::uint32_t>(p * lanes));
        for (std::int64_t t = 0; t < batch_size; t += 2) {
          if (gives_up(2)) return;
          HalfVec first[4], second[4];
          panel.words(static_cast<std::uint32_t>(t + 1), first, second);
          for (std::int64_t q = 0; q < 2 && t + q < batch_size; ++q)
            for (int half = 0; half < 2; ++half)
              first[2 * q + half].store(words + (t + q) * lanes + half * HalfVec::size);
        }
        const std::int64_t count = std::min(lanes, n_particles - p * lanes);
        for (std::int64_t lane = 0; lane < count; ++lane) {
          if (!set.clear(gives_up)) return;
          std::int64_t* out = rows + (p * lanes + lane) * batch_size;
          for (std::int64_t t = 0; t < batch_size; ++t) {
            if (gives_up(1)) return;
            out[t] = set.draw(words[t * lanes + lane], n - batch_size + t);
          }
        }
      }
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template <class T>
int pull_back_rows(const mfld_network* description, const void* particles, std::int64_t n_particles, const void* inputs,
                   const void* cotangent, const std::int64_t* rows, std::int64_t batch_size, void* gradient_out,
                   const mfld_execution* execution) {
  return guarded([&] {
    constexpr int lanes = panel_lanes<T>;
    using V = Vec<T>;
    const NetworkPanel<T> network(*description);
    const PanelLayout<T> layout(n_particles, network.n_coordinates());
    const std::int64_t d = network.n_features, outputs = network.n_outputs, affine = network.n_affine();
    const std::int64_t terms_size = outputs * lanes;
    const auto* z = static_cast<const T*>(inputs);
    const auto* g = static_cast<const T*>(cotangent);
    const double row_work = static_cast<double>(lanes * (4 * d + 16));
    const double panel_work = row_work * static_cast<double>(batch_size);
    const int threads =
        useful_threads(execution->num_threads, layout.n_panels, panel_work * static_cast<double>(layout.n_panels));
    // per member: panel, gathered inputs, cotangents, their sums, coefficient, offset, derivatives of both, gradient
    // and weighted, value, slope, gain
    const std::int64_t scratch_size =
        layout.panel_size() + d * lanes + 6 * terms_size + (affine + outputs) * lanes + 3 * lanes;
    const Buffer<T> scratch(threads * scratch_size);
    StopSignal stop(*execution);

    run_team(threads, [&](int member, int members, SpinBarrier&) {
      T* panel = &scratch[member * scratch_size];
      T* x = panel + layout.panel_size();
      T* slopes = x + d * lanes;
      T* totals = slopes + terms_size;
      T* coefficient = totals + terms_size;
      T* offset = coefficient + terms_size;
      T* derivatives = offset + terms_size;
      T* gradient = derivatives + 2 * terms_size;
      T* weighted = gradient + affine * lanes;
      T* value = weighted + terms_size;
      T* slope = value + lanes;
      T* gain = slope + lanes;
      alignas(64) T unused[lanes] = {};
      T* total_gain = network.has_bias ? gradient + d * lanes : unused;

      const Range panels = even_part(layout.n_panels, member, members);
      for (std::int64_t p = panels.begin; p < panels.end && !stop.aborting(); ++p) {
        layout.pack(static_cast<const T*>(particles), p, panel);
        network.terms(panel, coefficient, offset);
        std::fill_n(gradient, (affine + outputs) * lanes, T(0));
        std::fill_n(totals, terms_size, T(0));
        std::fill_n(x, d * lanes, T(0));
        std::fill_n(slopes, terms_size, T(0));
        const std::int64_t count = layout.particles_in(p);
        for (std::int64_t b = 0; b < batch_size && !stop.aborting(); ++b) {
          if (member == 0) stop.poll(row_work);
          for (std::int64_t lane = 0; lane < count; ++lane) {
            const std::int64_t row = rows[(p * lanes + lane) * batch_size + b];
            for (std::int64_t j = 0; j < d; ++j) x[j * lanes + lane] = z[row * d + j];
            for (std::int64_t k = 0; k < outputs; ++k) slopes[k * lanes + lane] = g[row * outputs + k];
          }
          V a0 = network.has_bias ? V::load(panel + d * lanes) : V(0);
          V a1 = network.has_bias ? V::load(panel + d * lanes + V::size) : V(0);
          for (std::int64_t at = 0; at < d * lanes; at += lanes) {
            a0 += V::load(panel + at) * V::load(x + at);
            a1 += V::load(panel + at + V::size) * V::load(x + at + V::size);
          }
          a0.store(value);
          a1.store(value + V::size);
          network.activation.apply(value, slope, lanes);
          for (int half = 0; half < lanes; half += V::size) {
            const V act = V::load(value + half);
            V mixed(0);
            for (std::int64_t at = half; at < terms_size; at += lanes) {
              const V s = V::load(slopes + at);
              mixed += V::load(coefficient + at) * s;
              (V::load(weighted + at) + s * act).store(weighted + at);
              (V::load(totals + at) + s).store(totals + at);
            }
            mixed.store(gain + half);
          }
          network.activation.lane_gains(value, slope, 1, gain, total_gain);
          const V g0 = V::load(gain), g1 = V::load(gain + V::size);
          for (std::int64_t at = 0; at < d * lanes; at += lanes) {
            (V::load(gradient + at) + g0 * V::load(x + at)).store(gradient + at);
            (V::load(gradient + at + V::size) + g1 * V::load(x + at + V::size)).store(gradient + at + V::size);
          }
        }
        if (network.readout_moves()) {
          T* offset_derivative = derivatives + terms_size;
          network.readout.derivative(network.readout_rows(panel), terms_size, network.scale, network.bound, derivatives,
                                     offset_derivative);
          for (std::int64_t at = 0; at < terms_size; at += V::size)
            (V::load(derivatives + at) * V::load(weighted + at) +
             V::load(offset_derivative + at) * V::load(totals + at))
                .store(weighted + at);
        } else {
          std::fill_n(weighted, terms_size, T(0));
        }
        // weighted lies behind the affine rows: together they are the particle's gradient.
        layout.unpack(gradient, p, static_cast<T*>(gradient_out));
      }
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template int pull_back_rows<float>(const mfld_network*, const void*, std::int64_t, const void*, const void*,
                                   const std::int64_t*, std::int64_t, void*, const mfld_execution*);
template int pull_back_rows<double>(const mfld_network*, const void*, std::int64_t, const void*, const void*,
                                    const std::int64_t*, std::int64_t, void*, const mfld_execution*);

}  // namespace mfld
