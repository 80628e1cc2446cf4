// The passes over one block of rows that make a gradient: of the particles as of an anchor.
//
// A cloud's activations of the block are made panel by panel (forward) and summed over panels to predictions (total);
// from their slopes, the cotangents, each panel makes its own gradient (pull back).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "mfld/parts.hpp"
#include "move.hpp"
#include "network.hpp"
#include "predictions.hpp"
#include "problem.hpp"
#include "sizes.hpp"

namespace mfld {

template <class T>
class Passes {
  using V = Vec<T>;
  static constexpr int lanes = panel_lanes<T>;

 public:
  const Problem<T>& problem;
  const NetworkPanel<T>& network;
  const Sizes<T>& sizes;
  const Workspace<T>& memory;
  const PanelLayout<T>& layout;

  Passes(const Problem<T>& problem_, const Workspace<T>& memory_)
      : problem(problem_), network(problem_.network), sizes(memory_.sizes), memory(memory_), layout(sizes.layout) {}

  // ---- where panels lie: those of the particles at gradient q, of one or two generations

  std::int64_t generation(std::int64_t q, std::int64_t p) const {
    return (q & (sizes.generations - 1)) * layout.n_panels + p;
  }
  T* panel(std::int64_t q, std::int64_t p) const { return &memory.panels[generation(q, p) * layout.panel_size()]; }
  T* panel_of(const Buffer<T>& cloud, std::int64_t p) const { return &cloud[p * layout.panel_size()]; }
  T* terms(std::int64_t q, std::int64_t p) const { return &memory.terms[generation(q, p) * sizes.terms]; }
  void make_terms(std::int64_t q, std::int64_t p) const { make_terms(panel(q, p), terms(q, p)); }
  // coefficients of a panel, and its offsets behind them
  void make_terms(const T* panel, T* terms) const { network.terms(panel, terms, terms + network.n_outputs * lanes); }
  // cloud 0: the particles, 1: an anchor that is summed too
  std::int64_t values_at(int cloud, std::int64_t p, std::int64_t stride) const {
    return (p * sizes.kept_rows + cloud * stride) * lanes;
  }
  // of panel i, or of member i where panels need not be kept; the anchor's stands behind it
  T* gradient(std::int64_t i) const { return &memory.gradients[i * sizes.clouds * sizes.gradient]; }
  T* slopes(std::int64_t at) const { return network.activation.stores_slope ? &memory.slopes[at] : nullptr; }

  const T* inputs_of(const Block<T>& block) const {
    return block.rows.inputs + block.range.begin * network.row_width();
  }
  // The same for the pull back: of bfloat16 turned, of which each member makes a part before the barrier.
  const T* inputs_back_of(const Block<T>& block) const {
    return network.bfloat16 ? memory.turned_rows(block.turn) : inputs_of(block);
  }
  void turn_inputs([[maybe_unused]] const Block<T>& block, [[maybe_unused]] std::int64_t member,
                   [[maybe_unused]] std::int64_t members) const {
    if constexpr (has_bfloat16<T>) {
      if (!network.bfloat16) return;
      const InPart part(Part::rows);
      turn_pairs(inputs_of(block), block.size(), network.row_width(),
                 even_part(ceil_div(block.size(), 2), member, members), memory.turned_rows(block.turn));
    }
  }

  // From the caller's array to a panel; or zeros where it holds nothing.
  void load(const void* array, bool valid, std::int64_t p, T* panel) const {
    const InPart part(Part::packing);
    if (valid)
      layout.pack(static_cast<const T*>(array), p, panel);
    else
      std::fill_n(panel, layout.panel_size(), T(0));
  }
  void store(const T* panel, std::int64_t p, void* array) const {
    const InPart part(Part::packing);
    layout.unpack(panel, p, static_cast<T*>(array));
  }

  // Rows that pad a block to whole registers are summed with the rest: they must hold numbers.
  void pad_values(std::int64_t p) const {
    const auto pad = [&](const SampleBlocks& blocks, int n_clouds) {
      const std::int64_t stride = values_stride<T>(blocks);
      for (int cloud = 0; stride > 0 && cloud < n_clouds; ++cloud) {
        T* values = &memory.values[values_at(cloud, p, stride)];
        std::fill(values + (blocks.most_rows - 1) * lanes, values + stride * lanes, T(0));
      }
    };
    pad(sizes.full_blocks, 1);
    pad(sizes.batch_blocks, memory.scheme.n_summed);
  }

  // ---- from particles to predictions

  // Sums of a cloud over one leaf; q: whose panels these are.
  void forward_leaf(int cloud, std::int64_t q, std::int64_t l, const Block<T>& block, const Scratch<T>& s) const {
    const InPart part(Part::sums);
    const std::int64_t size = network.n_outputs * sizes.stride;
    T* leaf = memory.sums.leaf(block.turn, l) + cloud * size;
    std::fill_n(leaf, size, T(0));
    alignas(64) T share[lanes];
    const Range panels = layout.panels_of(l);
    for (std::int64_t p = panels.begin; p < panels.end; ++p) {
      const std::int64_t at = values_at(cloud, p, block.stride);
      panel_share<T>(layout, p, nullptr, share);
      network.forward(panel(q, p), inputs_of(block), block.size(), &memory.values[at], slopes(at), s.weights);
      const T* coefficient = terms(q, p);
      add_to_leaf(network, &memory.values[at], block.size(), coefficient, coefficient + network.n_outputs * lanes,
                  share, leaf, sizes.stride);
    }
  }

  void total(int cloud, const typename LeafSums<T>::Order& order, const Block<T>& block, T* predictions) const {
    const InPart part(Part::sums);
    const std::int64_t padded = round_up(block.size(), V::size), first = cloud * network.n_outputs;
    for (std::int64_t k = 0; k < network.n_outputs; ++k)
      memory.sums.total(block.turn, order, {(first + k) * sizes.stride, (first + k) * sizes.stride + padded},
                        1 / static_cast<double>(layout.n_all), predictions - first * sizes.stride);
  }

  // ---- from predictions to cotangents

  // The weight of a row of the step in the loss: s_i, times n/B in a mini-batch.
  double row_weight(const Rows<T>& rows, std::int64_t i) const {
    const auto n = static_cast<double>(problem.samples.n_samples);
    return n / static_cast<double>(rows.count) * (rows.weights ? static_cast<double>(rows.weights[i]) : 1 / n);
  }

  // Targets of a block as the loss reads them: output by output.
  void turn_targets(const Block<T>& block, T* targets) const {
    const InPart part(Part::loss);
    for (std::int64_t k = 0; k < problem.target_width; ++k)
      for (std::int64_t i = 0; i < block.size(); ++i)
        targets[k * sizes.stride + i] = block.rows.targets[(block.range.begin + i) * problem.target_width + k];
  }

  // Cotangents g_ik = s_i loss'_k(u_i), and their sums over the rows of the gradient.
  void differentiate(const Block<T>& block, const T* targets, const Slopes<T>& slopes) const {
    const InPart part(Part::loss);
    const Rows<T>& rows = block.rows;
    const std::int64_t outputs = network.n_outputs, n = block.size(), padded = round_up(n, V::size);
    const std::int64_t stride = sizes.stride;
    T* cotangents = slopes.cotangents;
    problem.loss.derivative(slopes.predictions, targets, stride, padded, outputs, problem.loss_parameter, cotangents);
    if (rows.weights) {
      for (std::int64_t i = 0; i < n; ++i) {
        const T weight = static_cast<T>(row_weight(rows, block.range.begin + i));
        for (std::int64_t k = 0; k < outputs; ++k) cotangents[k * stride + i] *= weight;
      }
    } else {
      const V weight(static_cast<T>(row_weight(rows, 0)));
      for (std::int64_t k = 0; k < outputs; ++k)
        for (std::int64_t i = k * stride; i < k * stride + padded; i += V::size)
          (V::load(cotangents + i) * weight).store(cotangents + i);
    }
    for (std::int64_t k = 0; k < outputs; ++k) {
      double total = block.first ? 0 : slopes.totals[k];
      for (std::int64_t i = 0; i < n; ++i) total += cotangents[k * stride + i];
      slopes.totals[k] = static_cast<T>(total);
    }
  }

  // Weighted sum of the losses of a block, added to `sum`.
  double add_losses(const Block<T>& block, const Scratch<T>& s, double sum) const {
    const InPart part(Part::loss);
    problem.loss.value(s.own.predictions, s.targets, sizes.stride, round_up(block.size(), V::size), network.n_outputs,
                       problem.loss_parameter, s.losses);
    for (std::int64_t i = 0; i < block.size(); ++i) sum += row_weight(block.rows, block.range.begin + i) * s.losses[i];
    return sum;
  }

  // ---- from cotangents to the gradient of a panel: rows (n_affine, lanes), and behind them S_k (n_outputs, lanes)

  void pull_back(const T* coefficient, const T* values, const T* activation_slopes, const Slopes<T>& slopes,
                 const Block<T>& block, const Scratch<T>& s, T* gradient) const {
    network.pull_back(coefficient, values, activation_slopes, slopes.cotangents, sizes.stride, inputs_back_of(block),
                      block.size(), s.gain, {gradient, gradient + network.n_affine() * lanes}, !block.first);
  }
  // The same for a cloud whose forward pass has kept its activations.
  void pull_back(int cloud, std::int64_t q, std::int64_t p, const Slopes<T>& their_slopes, const Block<T>& block,
                 const Scratch<T>& s, T* gradient) const {
    const std::int64_t at = values_at(cloud, p, block.stride);
    pull_back(terms(q, p), &memory.values[at], slopes(at), their_slopes, block, s, gradient);
  }

  // Behind the last block: the gradient at a panel, whose coefficients may be a factor that is still to be applied.
  PanelGradient<T> finish(const T* panel, const T* coefficient, const Slopes<T>& slopes, const Scratch<T>& s,
                          T* gradient) const {
    T* readout = gradient + network.n_affine() * lanes;
    network.finish_readout(panel, slopes.totals, readout, s.readout);
    return {gradient, network.n_affine(), network.affine_factor(coefficient), readout};
  }

  // The gradient as plain rows (n_moving, lanes), its factor applied in place.
  PanelGradient<T> plain(const PanelGradient<T>& gradient) const {
    if (gradient.factor)
      for (std::int64_t j = 0; j < gradient.n_affine; ++j)
        for (int l = 0; l < lanes; l += V::size) {
          T* at = gradient.affine + j * lanes + l;
          (V::load(at) * V::load(gradient.factor + l)).store(at);
        }
    return plain(gradient.affine);
  }
  PanelGradient<T> plain(T* rows) const { return {rows, network.n_moving(), nullptr, nullptr}; }
};

}  // namespace mfld
