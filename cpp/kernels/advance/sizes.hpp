// How large everything of a run is: a function of the problem and of the scheme alone, and the memory that it asks for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "mfld/noise.hpp"
#include "mfld/panels.hpp"
#include "mfld/ranks.hpp"
#include "mfld/team.hpp"
#include "network.hpp"
#include "predictions.hpp"
#include "problem.hpp"

namespace mfld {

// What sizes ask of an anchor (anchor.hpp) and of the moves (moves.hpp).
struct Scheme {
  bool corrects;       // mini-batch gradients, by a second one at an anchor
  int n_summed;        // clouds whose predictions on a batch are sums to be made
  bool sweeps_anchor;  // anew at each batch, panel by panel
  bool looks_back;     // at the particles of the last gradient
  bool splits_steps;   // a step begins before its gradient and ends behind it
  bool has_velocities;
  bool has_moments;
};

template <class Anchor, class Moves>
inline constexpr Scheme scheme_of = {Anchor::corrects,   Anchor::n_summed,    Anchor::sweeps_anchor,
                                     Anchor::looks_back, Moves::splits_steps, Moves::has_velocities,
                                     Moves::has_moments};

// Leaves of the rows of a full gradient, over which it is summed along a tree like predictions over particles: where
// ranks share rows, each has whole leaves. They are a power of two of whole blocks, with so many rows each that joining
// them takes no time, and so few that the gradients of all are no more numbers than the predictions of all rows, or
// take little memory.
struct RowLeaves {
  std::int64_t n_blocks = 0, count = 1;
  Range own = {0, 1};                 // of this rank
  bool summed = false;                // else the one leaf's gradient is the whole one
  std::int64_t n_turns = 0;           // blocks of the rank that has most
  std::int64_t between_meetings = 1;  // blocks after which ranks ask whether one of them stops

  Range blocks_of(std::int64_t leaf) const { return even_part(n_blocks, leaf, count); }
  std::int64_t leaf_of(std::int64_t block) const { return part_holding(block, n_blocks, count); }
  Range own_blocks() const {
    return own.size() ? Range{blocks_of(own.begin).begin, blocks_of(own.end - 1).end} : Range{0, 0};
  }
};

template <class T>
struct Sizes {
  PanelLayout<T> layout;
  SampleBlocks full_blocks, batch_blocks;
  RowLeaves row_leaves;
  std::int64_t stride = 0;                         // from one output to the next in predictions and cotangents
  std::int64_t kept_rows = 0;                      // of activations that a panel keeps from forward to pull back
  int clouds = 1;                                  // that have a gradient: the particles, and an anchor
  std::int64_t terms = 0, gradient = 0;            // of a panel of one cloud
  std::int64_t gradients = 0;                      // of all panels, or of one panel of each thread
  std::int64_t scratch = 0;                        // of a thread
  std::int64_t weights = 0;                        // of a panel in bfloat16, 0 where products are not
  std::int64_t turned = 0;                         // inputs of a block in pairs of rows, likewise
  double full_leaf_work = 0, batch_leaf_work = 0;  // multiply-adds of a leaf in one pass over a block of rows
  int threads = 1;
  int generations = 1;      // of the panels
  bool ends_steps = false;  // a stop waits for the end of the step

  const SampleBlocks& blocks(bool full) const { return full ? full_blocks : batch_blocks; }
  double leaf_work(bool full) const { return full ? full_leaf_work : batch_leaf_work; }
};

template <class T>
std::int64_t values_stride(const SampleBlocks& blocks) {
  return round_up(blocks.most_rows, Vec<T>::size);
}

// Activations of all particles for one block of rows stay in cache between the forward and the pull-back pass, so that
// neither is computed twice. But each block walks through the cloud, and between blocks the gradients of all particles
// are kept. So rows whose activations weigh no more than twice the cloud are one block, and two times `fewest` rows in
// any case; and as many make a block where not even `fewest` fit the cache. But every panel reads the data of the block
// anew, which have to come from a cache, too.
template <class T>
SampleBlocks blocks_of(const NetworkPanel<T>& network, const PanelLayout<T>& layout, std::int64_t n_rows,
                       std::int64_t n_clouds) {
  constexpr std::int64_t cache_bytes = 1 << 20, data_bytes = 4 << 20, fewest = 24, most = 1024;
  constexpr auto number = static_cast<std::int64_t>(sizeof(T));
  const std::int64_t kept = n_clouds * (network.activation.stores_slope ? 2 : 1);
  const std::int64_t fit = cache_bytes / (layout.n_panels * panel_lanes<T> * kept * number);
  const std::int64_t data_rows = data_bytes / (network.n_features * number);
  const std::int64_t worth_a_walk = std::max(std::min(2 * network.n_coordinates() / kept, data_rows), 2 * fewest);
  const bool walks_count = fit < fewest || n_rows <= worth_a_walk;
  return {n_rows, std::min(walks_count ? std::max(fit, worth_a_walk) : fit, most)};
}

template <class T>
RowLeaves row_leaves_of(const NetworkPanel<T>& network, const PanelLayout<T>& whole, const SampleBlocks& blocks,
                        double block_work, const Ranks& ranks) {
  RowLeaves leaves;
  leaves.n_blocks = blocks.n_blocks;
  constexpr std::int64_t most = PanelLayout<T>::most_leaves, enough_rows = 1 << 13, little = 1 << 25;  // numbers
  const std::int64_t room = std::max(blocks.n_rows * network.n_outputs, little);
  const std::int64_t worth = std::min(blocks.n_rows / enough_rows, room / (whole.n_all * network.n_coordinates()));
  while (2 * leaves.count <= std::min({most, blocks.n_blocks, worth})) leaves.count *= 2;
  leaves.own = ranks.share_rows() ? even_part(leaves.count, ranks.rank(), ranks.count()) : Range{0, leaves.count};
  leaves.summed = leaves.count > 1 || ranks.share_rows();
  leaves.n_turns = blocks.n_blocks;
  if (ranks.share_rows()) {
    leaves.n_turns = 0;
    for (std::int64_t r = 0; r < ranks.count(); ++r) {
      RowLeaves other = leaves;
      other.own = even_part(leaves.count, r, ranks.count());
      leaves.n_turns = std::max(leaves.n_turns, other.own_blocks().size());
    }
    constexpr double between = 2e8;  // multiply-adds, some milliseconds
    leaves.between_meetings = std::max<std::int64_t>(1, static_cast<std::int64_t>(between / block_work));
  }
  return leaves;
}

template <class T>
Sizes<T> sizes_of(const Problem<T>& problem, const Scheme& scheme, int num_threads, const Ranks& ranks) {
  constexpr std::int64_t lanes = panel_lanes<T>;
  const NetworkPanel<T>& network = problem.network;
  // Blocks of rows and what else shapes a sum go by the whole cloud, memory and threads by the rank's share of it.
  const PanelLayout<T> whole(problem.n_particles, network.n_coordinates());
  const PanelLayout<T> layout = ranks.share_particles() ? whole.share(ranks.rank(), ranks.count()) : whole;
  const std::int64_t batch = problem.batch_size;
  // A mini-batch that nothing corrects is never followed by all rows.
  const bool all_rows = scheme.corrects || batch == 0;
  const auto work = [&](std::int64_t n_clouds, const SampleBlocks& blocks) {
    return static_cast<double>(n_clouds * layout.panels_per_leaf * lanes) *
           static_cast<double>(blocks.most_rows * (network.n_features + 8));
  };

  Sizes<T> s = {layout,
                blocks_of(network, whole, all_rows ? problem.samples.n_samples : 0, 1),
                blocks_of(network, whole, batch, scheme.n_summed),
                {}};
  s.clouds = scheme.corrects ? 2 : 1;
  const std::int64_t full_stride = values_stride<T>(s.full_blocks), batch_stride = values_stride<T>(s.batch_blocks);
  s.stride = std::max(full_stride, batch_stride);
  // A panel's rows lie where no other one's do in any pass, since members do not wait for each other between passes.
  s.kept_rows = std::max(full_stride, scheme.n_summed * batch_stride);
  s.terms = 2 * network.n_outputs * lanes;
  s.gradient = (network.n_affine() + network.n_outputs) * lanes;
  s.full_leaf_work = work(1, s.full_blocks);
  s.batch_leaf_work = work(s.clouds, s.batch_blocks);
  if (all_rows)
    s.row_leaves =
        row_leaves_of(network, whole, s.full_blocks, 2 * s.full_leaf_work * static_cast<double>(whole.n_leaves), ranks);

  const std::int64_t own_leaves = layout.leaves.size();
  s.threads = useful_threads(num_threads, own_leaves, 2 * s.leaf_work(batch == 0) * static_cast<double>(own_leaves));
  // Those of row leaves have places of their own.
  const bool one_block = (s.full_blocks.n_blocks == 1 || s.row_leaves.summed) && s.batch_blocks.n_blocks == 1;
  s.gradients = s.clouds * s.gradient * (one_block ? s.threads : layout.n_panels);

  // A stop during the gradient of a step that has begun goes back to the particles before the step; or where the
  // gradient takes no time, in mini-batches, it waits for the end of the step, and nothing need be kept.
  constexpr double no_time = 2e8;  // multiply-adds, some milliseconds
  s.ends_steps = scheme.splits_steps && !all_rows &&
                 s.batch_leaf_work * 2 * static_cast<double>(whole.n_leaves * s.batch_blocks.n_blocks) < no_time;
  s.generations = scheme.looks_back || (scheme.splits_steps && !s.ends_steps) ? 2 : 1;

  if (network.bfloat16) {
    s.weights = network.row_width() * lanes;
    s.turned = round_up(std::max(s.full_blocks.most_rows, s.batch_blocks.most_rows), 2) * network.row_width();
  }
  const std::int64_t matrix = network.n_outputs * s.stride;
  s.scratch = round_up((1 + 2 * s.clouds) * matrix + s.clouds * network.n_outputs + 2 * s.terms + s.weights +
                           s.stride * (lanes + 1) + (scheme.sweeps_anchor ? 2 * s.stride * lanes : 0),
                       64);
  return s;
}

// Slopes of the loss at the predictions of one cloud, for a block of rows: (n_outputs, stride) each, and the sums of
// the cotangents over the rows of the gradient.
template <class T>
struct Slopes {
  T *predictions, *cotangents, *totals;
};

// What a member works in. The anchor's activations are those of one panel, where it is swept anew.
template <class T>
struct Scratch {
  T *targets, *gain, *readout, *losses, *weights;
  Slopes<T> own, anchor;
  T *anchor_terms, *anchor_values, *anchor_slopes;
};

// The memory of a run, made before its threads are.
template <class T>
struct Workspace {
  const Sizes<T>& sizes;
  Ranks& ranks;
  const std::int64_t n_outputs, batch_size;
  const Scheme scheme;
  const Buffer<T> panels, velocities, force, moments, anchor, anchor_gradient;  // clouds of panels
  const Buffer<T> terms, values, slopes, gradients, scratch, turned;
  const Buffer<double> squared_norms;  // of all leaves
  const Buffer<double> row_losses;     // of the last gradient, by leaves of rows
  const LeafSums<T> sums;
  const SumsOfRanks<T> sums_of_ranks;
  const LeafSums<T> row_sums;  // gradients of panels, and a row of their own for the sums of the cotangents
  const SumsOfRanks<T> row_sums_of_ranks;
  const BatchQueue<T> batches;
  const Buffer<std::int64_t> row_lists;
  std::vector<FloydSet> row_sets;

  Workspace(const Problem<T>& problem, const Scheme& scheme_, const Sizes<T>& s, Ranks& ranks_)
      : sizes(s),
        ranks(ranks_),
        n_outputs(problem.network.n_outputs),
        batch_size(problem.batch_size),
        scheme(scheme_),
        panels(s.generations * cloud()),
        velocities(scheme.has_velocities ? s.generations * cloud() : 0),
        force(scheme.has_velocities ? cloud() : 0),
        moments(scheme.has_moments ? cloud() : 0),
        anchor(scheme.sweeps_anchor ? cloud() : 0),
        anchor_gradient(scheme.corrects ? cloud() : 0),
        terms(s.generations * s.layout.n_panels * s.terms),
        values(s.layout.n_panels * s.kept_rows * panel_lanes<T>),
        slopes(problem.network.activation.stores_slope ? s.layout.n_panels * s.kept_rows * panel_lanes<T> : 0),
        gradients(s.gradients),
        scratch(s.threads * s.scratch),
        turned(2 * s.turned),
        squared_norms(s.layout.n_leaves),
        row_losses(s.row_leaves.count),
        sums(s.layout.n_leaves, n_outputs * scheme.n_summed, s.stride),
        sums_of_ranks(sums, ranks, n_outputs * scheme.n_summed, ranks.share_particles()),
        row_sums(s.row_leaves.count, s.row_leaves.summed ? s.layout.n_panels + 1 : 0, s.gradient, 1),
        row_sums_of_ranks(row_sums, ranks, s.layout.n_panels + 1, ranks.share_rows()),
        batches(problem),
        row_lists(s.threads * 2 * batch_size) {
    for (int member = 0; member < s.threads; ++member) row_sets.emplace_back(batch_size);
  }

  // Rows that a member draws for gradient q.
  std::int64_t* row_list(int member, std::int64_t q) const { return &row_lists[(2 * member + (q & 1)) * batch_size]; }

  // Two copies take turns, as those of the leaf sums do.
  T* turned_rows(std::int64_t turn) const { return &turned[(turn & 1) * sizes.turned]; }

  Scratch<T> of_member(int member) const {
    constexpr std::int64_t lanes = panel_lanes<T>;
    T* next = &scratch[member * sizes.scratch];
    const auto take = [&next](std::int64_t count) { return std::exchange(next, next + count); };
    const std::int64_t matrix = n_outputs * sizes.stride;
    Scratch<T> s = {};
    s.targets = take(matrix);
    s.own = {take(matrix), take(matrix), nullptr};
    if (scheme.corrects) s.anchor = {take(matrix), take(matrix), nullptr};
    s.gain = take(sizes.stride * lanes);
    s.readout = take(sizes.terms);
    s.anchor_terms = take(sizes.terms);
    if (scheme.sweeps_anchor) {
      s.anchor_values = take(sizes.stride * lanes);
      s.anchor_slopes = take(sizes.stride * lanes);
    }
    s.losses = take(sizes.stride);
    s.weights = take(sizes.weights);
    s.own.totals = take(n_outputs);
    if (scheme.corrects) s.anchor.totals = take(n_outputs);
    // What pads rows to whole registers goes through the loss with them: it must hold numbers.
    std::fill_n(s.targets, matrix, T(0));
    if (scheme.corrects) std::fill_n(s.anchor.predictions, matrix, T(0));
    return s;
  }

 private:
  std::int64_t cloud() const { return sizes.layout.n_panels * sizes.layout.panel_size(); }
};

}  // namespace mfld
