// Stages on their own: predict, and pull back to particles. advance/passes.hpp composes the same parts without leaving
// the core; these serve losses written in Python, frozen potentials and evaluation.
#include <algorithm>
#include <cstdint>

#include "entries.hpp"
#include "mfld/team.hpp"
#include "network.hpp"
#include "predictions.hpp"

namespace mfld {

template <class T>
int predict(const mfld_network* description, const void* particles, const void* coefficients, std::int64_t n_particles,
            const void* inputs, std::int64_t n, void* predictions, const mfld_execution* execution) {
  return guarded([&] {
    constexpr int lanes = panel_lanes<T>;
    const NetworkPanel<T> network(*description);
    Ranks ranks(*execution);
    const PanelLayout<T> whole(n_particles, network.n_coordinates()), layout = whole.share(ranks.rank(), ranks.count());
    const std::int64_t outputs = network.n_outputs;
    const auto* z = static_cast<const T*>(inputs);
    const T* own = static_cast<const T*>(particles) + layout.first_particle * layout.n_coordinates;
    const T* shares = coefficients ? static_cast<const T*>(coefficients) + layout.first_particle : nullptr;
    auto* out = static_cast<T*>(predictions);
    const double scale = coefficients ? 1.0 : 1.0 / static_cast<double>(n_particles);
    // Activations are not kept: a block is one panel's, and bounded by the first-level cache.
    const SampleBlocks blocks(n, NetworkPanel<T>::most_rows_at_once);
    const LeafSums<T> sums(layout.n_leaves, outputs, round_up(blocks.most_rows, Vec<T>::size));
    const SumsOfRanks<T> sums_of_ranks(sums, ranks, outputs, ranks.several());
    const std::int64_t stride = sums.stride();

    const auto panel_work = static_cast<double>(lanes * blocks.most_rows * (network.n_features + 16));
    const std::int64_t own_leaves = layout.leaves.size();
    const int threads = useful_threads(execution->num_threads, own_leaves,
                                       panel_work * static_cast<double>(layout.panels_per_leaf * own_leaves));
    const std::int64_t terms_size = outputs * lanes;
    // per member: panel, coefficient, offset, share, values, slope, predictions
    const std::int64_t scratch_size =
        layout.panel_size() + 2 * terms_size + lanes + 2 * stride * lanes + outputs * stride;
    const Buffer<T> scratch(threads * scratch_size);
    StopSignal stop(*execution);

    run_team(threads, [&](int member, int members, SpinBarrier& barrier) {
      T* panel = &scratch[member * scratch_size];
      T* coefficient = panel + layout.panel_size();
      T* offset = coefficient + terms_size;
      T* share = offset + terms_size;
      T* values = share + lanes;
      T* slope = values + stride * lanes;
      T* prediction = slope + stride * lanes;
      std::fill(values, slope, T(0));
      const Sharing team = {layout.leaves, members};
      const Range leaves = team.of(member);
      const auto order = sums.order(ranks.several() ? Sharing{{0, layout.n_leaves}, ranks.count()} : team);
      for (std::int64_t b = 0; b < blocks.n_blocks; ++b) {
        const Range rows = blocks.rows(b);
        for (std::int64_t l = leaves.begin; l < leaves.end && !stop.aborting(); ++l) {
          T* leaf = sums.leaf(b, l);
          std::fill_n(leaf, outputs * stride, T(0));
          const Range panels = layout.panels_of(l);
          for (std::int64_t p = panels.begin; p < panels.end && !stop.aborting(); ++p) {
            if (member == 0) stop.poll(panel_work);
            layout.pack(own, p, panel);
            panel_share(layout, p, shares, share);
            network.terms(panel, coefficient, offset);
            network.forward(panel, z + rows.begin * network.n_features, rows.size(), values, slope);
            add_to_leaf(network, values, rows.size(), coefficient, offset, share, leaf, stride);
          }
          sums.join(b, l, leaves, outputs, rows.size());
        }
        if (member == 0) stop.publish(b);
        barrier.wait();
        if (ranks.several()) {
          if (member == 0) {
            sums.join_members(b, team, outputs, rows.size());
            if (sums_of_ranks.meet(ranks, {stop.stopped(b)}, b, outputs, rows.size()).stop || ranks.failed())
              stop.publish_stop(b);
          }
          barrier.wait();
        }
        if (stop.stopped(b)) return;
        constexpr std::int64_t step = Vec<T>::size;
        const Range mine = even_part(ceil_div(rows.size(), step), member, members);
        for (std::int64_t k = 0; k < outputs; ++k) {
          sums.total(b, order, {k * stride + mine.begin * step, k * stride + mine.end * step}, scale, prediction);
          for (std::int64_t i = mine.begin * step; i < std::min(mine.end * step, rows.size()); ++i)
            out[(rows.begin + i) * outputs + k] = prediction[k * stride + i];
        }
      }
    });
    return ranks.any(stop.aborting()) ? MFLD_STOPPED : MFLD_DONE;
  });
}

template <class T>
int pull_back(const mfld_network* description, const void* particles, std::int64_t n_particles, const void* inputs,
              std::int64_t n, const void* cotangent, void* values_out, void* gradient_out,
              const mfld_execution* execution) {
  return guarded([&] {
    constexpr int lanes = panel_lanes<T>;
    using V = Vec<T>;
    const NetworkPanel<T> network(*description);
    const PanelLayout<T> layout(n_particles, network.n_coordinates());
    const std::int64_t outputs = network.n_outputs, affine = network.n_affine(), terms_size = outputs * lanes;
    const auto* z = static_cast<const T*>(inputs);
    const SampleBlocks blocks(n, NetworkPanel<T>::most_rows_at_once);
    const std::int64_t stride = round_up(blocks.most_rows, V::size);

    // Output by output, block by block, as the panels read it.
    const Buffer<T> cotangents(blocks.n_blocks * outputs * stride);
    const Buffer<T> totals(outputs);
    StopSignal stop(*execution);
    for (std::int64_t k = 0; k < outputs; ++k) {
      double total = 0;
      for (std::int64_t b = 0; b < blocks.n_blocks; ++b) {
        const Range rows = blocks.rows(b);
        if (stop.asked(8 * rows.size())) return MFLD_STOPPED;
        for (std::int64_t i = 0; i < rows.size(); ++i) {
          const T g = static_cast<const T*>(cotangent)[(rows.begin + i) * outputs + k];
          cotangents[(b * outputs + k) * stride + i] = g;
          total += g;
        }
      }
      totals[k] = static_cast<T>(total);
    }

    const double block_work = static_cast<double>(lanes * blocks.most_rows * 2 * (network.n_features + 16));
    const int threads = useful_threads(execution->num_threads, layout.n_panels,
                                       block_work * static_cast<double>(blocks.n_blocks * layout.n_panels));
    // per member: panel, gradient, coefficient, offset, weighted, readout scratch, values, slope, gain
    const std::int64_t scratch_size = 2 * layout.panel_size() + lanes + 5 * terms_size + 3 * stride * lanes;
    const Buffer<T> scratch(threads * scratch_size);

    run_team(threads, [&](int member, int members, SpinBarrier&) {
      T* panel = &scratch[member * scratch_size];
      T* gradient = panel + layout.panel_size();
      T* coefficient = gradient + layout.panel_size() + lanes;
      T* offset = coefficient + terms_size;
      T* weighted = offset + terms_size;
      T* readout_scratch = weighted + terms_size;
      T* values = readout_scratch + 2 * terms_size;
      T* slope = values + stride * lanes;
      T* gain = slope + stride * lanes;
      const Range panels = even_part(layout.n_panels, member, members);
      for (std::int64_t p = panels.begin; p < panels.end && !stop.aborting(); ++p) {
        layout.pack(static_cast<const T*>(particles), p, panel);
        network.terms(panel, coefficient, offset);
        for (std::int64_t b = 0; b < blocks.n_blocks && !stop.aborting(); ++b) {
          if (member == 0) stop.poll(block_work);
          const Range rows = blocks.rows(b);
          const T* block = z + rows.begin * network.n_features;
          network.forward(panel, block, rows.size(), values, slope);
          network.pull_back(coefficient, values, slope, &cotangents[b * outputs * stride], stride, block, rows.size(),
                            gain, {gradient, weighted}, b > 0);
        }
        if (values_out) {
          auto* value = static_cast<T*>(values_out) + p * lanes;
          for (std::int64_t l = 0; l < layout.particles_in(p); ++l) {
            T sum = 0;
            for (std::int64_t k = 0; k < outputs; ++k)
              sum += coefficient[k * lanes + l] * weighted[k * lanes + l] + offset[k * lanes + l] * totals[k];
            value[l] = sum;
          }
        }
        if (gradient_out) {
          if (const T* factor = network.affine_factor(coefficient))
            for (std::int64_t j = 0; j < affine; ++j)
              for (int l = 0; l < lanes; ++l) gradient[j * lanes + l] *= factor[l];
          network.finish_readout(panel, totals.get(), weighted, readout_scratch);
          for (std::int64_t j = affine; j < layout.n_coordinates; ++j)
            for (int l = 0; l < lanes; ++l)
              gradient[j * lanes + l] = network.readout_moves() ? weighted[(j - affine) * lanes + l] : T(0);
          layout.unpack(gradient, p, static_cast<T*>(gradient_out));
        }
      }
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template int predict<float>(const mfld_network*, const void*, const void*, std::int64_t, const void*, std::int64_t,
                            void*, const mfld_execution*);
template int predict<double>(const mfld_network*, const void*, const void*, std::int64_t, const void*, std::int64_t,
                             void*, const mfld_execution*);
template int pull_back<float>(const mfld_network*, const void*, std::int64_t, const void*, std::int64_t, const void*,
                              void*, void*, const mfld_execution*);
template int pull_back<double>(const mfld_network*, const void*, std::int64_t, const void*, std::int64_t, const void*,
                               void*, void*, const mfld_execution*);

}  // namespace mfld
