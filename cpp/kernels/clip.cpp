// Gradients of samples, each made no longer than a bound over all particles, and their sum: private training.
//
//   G_i = (sum_k g_ik grad h_k(theta_m, z_i))_m,   |G_i|^2 = (1/N) sum_m |G_im|^2,   sum_i min(1, bound / |G_i|) G_i
//
// with g_i = l'(f_mu(z_i), y_i). No G_i is ever formed: with gain_im = (sum_k c_mk g_ik) act'(a_im)
//
//   |G_im|^2 = gain_im^2 (|z_i|^2 + 1) + sum_k (g_ik (c_mk' act(a_im) + e_mk'))^2        the 1 where there is a bias
//
// so that lengths are one more sum over particles of what the passes of a gradient make anyway. What is summed are the
// very gains whose lengths were taken, times a factor: rounding makes no sample longer than the margin of the caller.
//
// Rows come in blocks, whose sums are made in T and added up in double. Members own leaves; two barriers a block.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "entries.hpp"
#include "mfld/losses.hpp"
#include "mfld/team.hpp"
#include "network.hpp"
#include "predictions.hpp"

namespace mfld {
namespace {

// What a panel keeps during the call: its coordinates, (c, e) and (c', e').
template <class T>
struct PanelTerms {
  T *panel, *coefficient, *offset, *slope_of_coefficient, *slope_of_offset;

  PanelTerms(T* at, std::int64_t panel_size, std::int64_t terms)
      : panel(at),
        coefficient(at + panel_size),
        offset(coefficient + terms),
        slope_of_coefficient(offset + terms),
        slope_of_offset(slope_of_coefficient + terms) {}
  static std::int64_t size(std::int64_t panel_size, std::int64_t terms) { return panel_size + 4 * terms; }
};

// square[i][lane] = |G_im|^2, of one panel.
template <class T>
void squared_lengths(const NetworkPanel<T>& network, const PanelTerms<T>& terms, const T* values, const T* gain,
                     const T* cotangent, std::int64_t stride, const T* input_squares, std::int64_t n_rows, T* square) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  const std::int64_t n_moving = network.readout_moves() ? network.n_outputs : 0;
  for (std::int64_t i = 0; i < n_rows; ++i)
    for (int l = 0; l < lanes; l += V::size) {
      const V g = V::load(gain + i * lanes + l), value = V::load(values + i * lanes + l);
      V sum = g * g * V(input_squares[i]);
      for (std::int64_t k = 0; k < n_moving; ++k) {
        const std::int64_t at = k * lanes + l;
        const V slope = V::load(terms.slope_of_coefficient + at) * value + V::load(terms.slope_of_offset + at);
        const V own = slope * V(cotangent[k * stride + i]);
        sum += own * own;
      }
      sum.store(square + i * lanes + l);
    }
}

}  // namespace

template <class T>
int pull_back_clipped(const mfld_network* description, const mfld_loss* loss_description, const void* particles,
                      std::int64_t n_particles, const mfld_samples* samples, const std::int64_t* ends,
                      std::int64_t n_blocks, double bound, double* norms, double* gradient_out,
                      const mfld_execution* execution) {
  return guarded([&] {
    constexpr int lanes = panel_lanes<T>;
    using V = Vec<T>;
    const NetworkPanel<T> network(*description);
    const LossKernel<T>& loss = loss_kernels<T>[loss_description->id];
    const auto parameter = static_cast<T>(loss_description->parameter);
    const std::int64_t outputs = network.n_outputs, d = network.n_features, affine = network.n_affine();
    const std::int64_t target_width = loss_infos[loss_description->id].targets == MFLD_TARGETS_CLASS ? 1 : outputs;
    const PanelLayout<T> layout(n_particles, network.n_coordinates());
    const auto* z = static_cast<const T*>(samples->inputs);
    const auto* y = static_cast<const T*>(samples->targets);
    const auto rows_of = [&](std::int64_t b) { return Range{b ? ends[b - 1] : 0, ends[b]}; };
    std::int64_t most = 1;
    for (std::int64_t b = 0; b < n_blocks; ++b) most = std::max(most, rows_of(b).size());
    const std::int64_t stride = round_up(most, V::size), kept = stride * lanes, terms_size = outputs * lanes;

    const LeafSums<T> predictions(layout.n_leaves, outputs, stride), squares(layout.n_leaves, 1, stride);
    const std::int64_t panel_memory = PanelTerms<T>::size(layout.panel_size(), terms_size);
    const Buffer<T> panels(layout.n_panels * panel_memory), values(layout.n_panels * kept),
        gains(layout.n_panels * kept), slopes(network.activation.stores_slope ? layout.n_panels * kept : 0);
    const std::int64_t sums_size = (affine + outputs) * lanes;
    const Buffer<double> sums(layout.n_panels * sums_size);
    const double packing_work = 16 * static_cast<double>(panel_memory + kept + 2 * sums_size);  // memory touched first

    const double panel_work = static_cast<double>(lanes * most * (d + 4 * outputs + 16));
    const int threads =
        useful_threads(execution->num_threads, layout.n_leaves, panel_work * static_cast<double>(layout.n_panels));
    // per member: predictions, cotangents, targets, input squares, factors, squares, gradient, weighted
    const std::int64_t scratch_size = (3 * outputs + 2) * stride + kept + sums_size;
    const Buffer<T> scratch(threads * scratch_size);
    const Buffer<double> totals(threads * outputs);
    StopSignal stop(*execution);

    run_team(threads, [&](int member, int members, SpinBarrier& barrier) {
      T* prediction = &scratch[member * scratch_size];
      T* cotangent = prediction + outputs * stride;
      T* target = cotangent + outputs * stride;
      T* input_squares = target + outputs * stride;
      T* factors = input_squares + stride;
      T* square = factors + stride;
      T* gradient = square + kept;
      T* weighted = gradient + affine * lanes;
      double* total = &totals[member * outputs];
      std::fill_n(total, outputs, 0.0);
      // What pads rows to whole registers is summed with them: it must hold numbers.
      std::fill_n(target, outputs * stride, T(0));
      std::fill_n(square, kept, T(0));
      const Range leaves = even_part(layout.n_leaves, member, members);
      const Range mine = {leaves.size() ? layout.panels_of(leaves.begin).begin : 0,
                          leaves.size() ? layout.panels_of(leaves.end - 1).end : 0};
      const auto order = predictions.order({layout.leaves, members});
      const auto terms_of = [&](std::int64_t p) {
        return PanelTerms<T>(&panels[p * panel_memory], layout.panel_size(), terms_size);
      };
      const auto slopes_of = [&](std::int64_t p) {
        return network.activation.stores_slope ? &slopes[p * kept] : nullptr;
      };
      for (std::int64_t p = mine.begin; p < mine.end && !stop.aborting(); ++p) {
        if (member == 0) stop.poll(packing_work);
        const PanelTerms<T> terms = terms_of(p);
        layout.pack(static_cast<const T*>(particles), p, terms.panel);
        network.terms(terms.panel, terms.coefficient, terms.offset);
        network.readout.derivative(network.readout_rows(terms.panel), terms_size, network.scale, network.bound,
                                   terms.slope_of_coefficient, terms.slope_of_offset);
        std::fill_n(&values[p * kept], kept, T(0));
        std::fill_n(&sums[p * sums_size], sums_size, 0.0);
      }

      alignas(64) T share[lanes], unused[lanes];
      for (std::int64_t b = 0; b < n_blocks; ++b) {
        const Range rows = rows_of(b);
        const std::int64_t n = rows.size(), padded = round_up(n, V::size);
        if (n == 0) continue;
        const T* inputs = z + rows.begin * d;

        for (std::int64_t l = leaves.begin; l < leaves.end && !stop.aborting(); ++l) {
          T* leaf = predictions.leaf(b, l);
          std::fill_n(leaf, outputs * stride, T(0));
          const Range panels_of_leaf = layout.panels_of(l);
          for (std::int64_t p = panels_of_leaf.begin; p < panels_of_leaf.end; ++p) {
            if (member == 0) stop.poll(panel_work);
            const PanelTerms<T> terms = terms_of(p);
            panel_share<T>(layout, p, nullptr, share);
            network.forward(terms.panel, inputs, n, &values[p * kept], slopes_of(p));
            add_to_leaf(network, &values[p * kept], n, terms.coefficient, terms.offset, share, leaf, stride);
          }
          predictions.join(b, l, leaves, outputs, n);
        }
        if (member == 0) stop.publish(2 * b);
        barrier.wait();
        if (stop.stopped(2 * b)) return;

        for (std::int64_t k = 0; k < outputs; ++k)
          predictions.total(b, order, {k * stride, k * stride + padded}, 1 / static_cast<double>(n_particles),
                            prediction);
        for (std::int64_t k = 0; k < target_width; ++k)
          for (std::int64_t i = 0; i < n; ++i) target[k * stride + i] = y[(rows.begin + i) * target_width + k];
        loss.derivative(prediction, target, stride, padded, outputs, parameter, cotangent);
        for (std::int64_t i = 0; i < n; ++i) {
          double sum = network.has_bias ? 1 : 0;
          for (std::int64_t j = 0; j < d; ++j) sum += static_cast<double>(inputs[i * d + j]) * inputs[i * d + j];
          input_squares[i] = static_cast<T>(sum);
        }

        for (std::int64_t l = leaves.begin; l < leaves.end && !stop.aborting(); ++l) {
          T* leaf = squares.leaf(b, l);
          std::fill_n(leaf, stride, T(0));
          const Range panels_of_leaf = layout.panels_of(l);
          for (std::int64_t p = panels_of_leaf.begin; p < panels_of_leaf.end; ++p) {
            if (member == 0) stop.poll(panel_work);
            const PanelTerms<T> terms = terms_of(p);
            T* gain = &gains[p * kept];
            detail::mix_cotangents(terms.coefficient, outputs, cotangent, stride, n, gain);
            std::fill_n(unused, lanes, T(0));
            network.activation.lane_gains(&values[p * kept], slopes_of(p), n, gain, unused);
            squared_lengths(network, terms, &values[p * kept], gain, cotangent, stride, input_squares, n, square);
            panel_share<T>(layout, p, nullptr, share);
            add_panel_sums(square, n, share, leaf);
          }
          squares.join(b, l, leaves, 1, n);
        }
        if (member == 0) stop.publish(2 * b + 1);
        barrier.wait();
        if (stop.stopped(2 * b + 1)) return;

        squares.total(b, order, {0, padded}, 1 / static_cast<double>(n_particles), factors);
        for (std::int64_t i = 0; i < n; ++i) {
          const double norm = std::sqrt(static_cast<double>(factors[i]));
          if (member == 0) norms[rows.begin + i] = norm;
          // A sample whose gradient is no number has none.
          const double factor = norm <= bound ? 1 : std::isfinite(norm) ? bound / norm : 0;
          factors[i] = static_cast<T>(factor);
          for (std::int64_t k = 0; k < outputs; ++k) {
            T& g = cotangent[k * stride + i];
            g = factor == 0 ? T(0) : g * factors[i];
            total[k] += g;
          }
        }

        for (std::int64_t p = mine.begin; p < mine.end && !stop.aborting(); ++p) {
          if (member == 0) stop.poll(panel_work);
          T* gain = &gains[p * kept];
          T* bias = network.has_bias ? gradient + d * lanes : unused;
          std::fill_n(bias, lanes, T(0));
          for (std::int64_t i = 0; i < n; ++i) {
            // What is left out may hold no numbers at all.
            if (factors[i] == 0) {
              std::fill_n(gain + i * lanes, lanes, T(0));
              std::fill_n(&values[p * kept] + i * lanes, lanes, T(0));
            }
            const V factor(factors[i]);
            for (int l = 0; l < lanes; l += V::size) {
              T* at = gain + i * lanes + l;
              const V scaled = V::load(at) * factor;
              scaled.store(at);
              (V::load(bias + l) + scaled).store(bias + l);
            }
          }
          accumulate_features(gain, n, inputs, d, gradient, false);
          std::fill_n(weighted, terms_size, T(0));
          for (std::int64_t k = 0; network.readout_moves() && k < outputs; ++k)
            detail::weigh_values<T, 1>(&values[p * kept], cotangent + k * stride, stride, n, weighted + k * lanes);
          double* sum = &sums[p * sums_size];
          for (std::int64_t j = 0; j < sums_size; ++j) sum[j] += gradient[j];
        }
      }

      for (std::int64_t p = mine.begin; p < mine.end && !stop.aborting(); ++p) {
        const PanelTerms<T> terms = terms_of(p);
        const double* sum = &sums[p * sums_size];
        double* out = gradient_out + p * lanes * layout.n_coordinates;
        for (std::int64_t l = 0; l < layout.particles_in(p); ++l, out += layout.n_coordinates) {
          for (std::int64_t j = 0; j < affine; ++j) out[j] = sum[j * lanes + l];
          for (std::int64_t j = affine; j < layout.n_coordinates; ++j) {
            const std::int64_t k = j - affine, at = k * lanes + l;
            out[j] = network.readout_moves()
                         ? terms.slope_of_coefficient[at] * sum[j * lanes + l] + terms.slope_of_offset[at] * total[k]
                         : 0;
          }
        }
      }
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

#define MFLD_INSTANTIATE(T)                                                                                           \
  template int pull_back_clipped<T>(const mfld_network*, const mfld_loss*, const void*, std::int64_t,                 \
                                    const mfld_samples*, const std::int64_t*, std::int64_t, double, double*, double*, \
                                    const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
