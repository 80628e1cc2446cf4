// Mean-field Langevin dynamics on a two-layer risk, all steps of a call inside.
//
// A run is a sequence of gradients, one for each place q in the steps of the call, and of the moves that they lead to:
//
//   overdamped   gradient q at theta_q, then step q                                             q = 0 .. n_steps - 1
//   BAOAB        gradient q at theta_q, then the end of step q - 1 and the beginning of step q   q = 0 .. n_steps
//
// where BAOAB has no gradient 0 if the caller knows it (the force). With rows I_q, shared by all particles, and full
// the gradient over all rows, the estimate of gradient q is
//
//   full batch   full(X_q)
//   mini-batch   g_I(X_q) = (n / B) sum_{i in I} s_i grad l_i(X_q)
//   SVRG         g_I(X_q) - g_I(A) + full(A), A the particles at the last refresh;   full(X_q) at a refresh
//   SARAH        g_I(X_q) - g_I(A) + v, A and v those of the last gradient;          full(X_q) at a refresh
//
// so that the last two are one formula with an anchor A. The ridge is never estimated: moves add it.
//
// A gradient walks over its rows in blocks. Per block: every member sums its leaves' predictions (forward), one
// barrier, every member totals these sums and takes the loss derivative (the same numbers, so nobody waits for
// anybody), and pulls back to its own panels. After the last block it moves its own panels, noise included. A member
// never writes what another one reads except for leaf sums, gathered rows and the anchor's predictions, which take
// turns.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "baoab.hpp"
#include "entries.hpp"
#include "mfld/losses.hpp"
#include "mfld/team.hpp"
#include "move.hpp"
#include "network.hpp"
#include "predictions.hpp"

namespace mfld {

// Rows of data as one gradient sees them: all of them, or the gathered rows of a mini-batch.
template <class T>
struct Rows {
  const T* inputs;
  const T* targets;
  const T* weights;  // may be null: all equal
  std::int64_t count;
};

// Mini-batches, gathered a step ahead of their use. Three take turns: while one member still pulls back batch k,
// another may gather batch k + 1, and the barrier of step k + 1 lies between that and batch k + 3.
template <class T>
class BatchQueue {
 public:
  BatchQueue(const mfld_samples& samples, std::int64_t n_features, std::int64_t target_width, std::int64_t batch_size)
      : samples_(samples),
        n_features_(n_features),
        target_width_(target_width),
        batch_size_(batch_size),
        inputs_(3 * batch_size * n_features),
        targets_(3 * batch_size * target_width),
        weights_(samples.weights ? 3 * batch_size : 0) {}

  Rows<T> rows(std::int64_t step) const {
    const std::int64_t turn = step % 3 * batch_size_;
    return {&inputs_[turn * n_features_], &targets_[turn * target_width_], samples_.weights ? &weights_[turn] : nullptr,
            batch_size_};
  }

  // One member's part of the gathering; `chosen` are the rows of that step.
  void gather(std::int64_t step, const std::int64_t* chosen, Range mine) const {
    const std::int64_t turn = step % 3 * batch_size_;
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
      const std::int64_t row = chosen[i];
      std::copy_n(static_cast<const T*>(samples_.inputs) + row * n_features_, n_features_,
                  &inputs_[(turn + i) * n_features_]);
      std::copy_n(static_cast<const T*>(samples_.targets) + row * target_width_, target_width_,
                  &targets_[(turn + i) * target_width_]);
      if (samples_.weights) weights_[turn + i] = static_cast<const T*>(samples_.weights)[row];
    }
  }

 private:
  const mfld_samples& samples_;
  std::int64_t n_features_, target_width_, batch_size_;
  Buffer<T> inputs_, targets_, weights_;
};

// Slopes of the loss at the predictions of one cloud, for a block of rows: (n_outputs, stride) each, and the sums of
// the cotangents over the rows of the gradient.
template <class T>
struct Slopes {
  T *predictions, *cotangents, *totals;
};

// What the steps of one replicate came to.
struct Reached {
  std::int64_t steps = 0;          // whole ones; of a divergence those before it, none of which is in the arrays
  std::int64_t bad_particle = -1;  // the first one that is not finite
  bool stopped = false;
  double loss = 0, gradient_norm = 0;
};

template <class T>
class Advance {
  using V = Vec<T>;
  using Gradient = typename EulerMaruyama<T>::Gradient;
  static constexpr int lanes = panel_lanes<T>;

 public:
  Advance(const mfld_network& network, const mfld_loss& loss, const mfld_samples& samples, T* particles,
          std::int64_t n_particles, std::int64_t n_steps, mfld_estimator& estimator, mfld_dynamics& dynamics,
          const mfld_schedule& schedule, const mfld_noise& noise, const mfld_execution& execution)
      : network_(network),
        loss_(loss_kernels<T>[loss.id]),
        loss_parameter_(static_cast<T>(loss.parameter)),
        target_width_(loss_infos[loss.id].targets == MFLD_TARGETS_CLASS ? 1 : network.n_outputs),
        samples_(samples),
        particles_(particles),
        n_steps_(n_steps),
        batch_size_(estimator.batch_size),
        estimator_(estimator),
        dynamics_(dynamics),
        schedule_(schedule),
        noise_(noise),
        first_(baoab() && dynamics.force_valid ? 1 : 0),
        end_(n_steps + (baoab() ? 1 : 0)),
        layout_(n_particles, network_.n_coordinates()),
        full_blocks_(blocks(estimator.kind == MFLD_MINIBATCH ? 0 : samples.n_samples, 1)),
        batch_blocks_(blocks(batch_size_, n_summed())),
        sums_(layout_, network_.n_outputs * n_summed(),
              round_up(std::max(full_blocks_.most_rows, batch_blocks_.most_rows), V::size)),
        stride_(sums_.stride()),
        gradient_size_((network_.n_affine() + network_.n_outputs) * lanes),
        threads_(useful_threads(execution, layout_.n_leaves,
                                2 * leaf_work(batch_size_ != 0) * static_cast<double>(layout_.n_leaves))),
        panels_(n_generations() * layout_.n_panels * layout_.panel_size()),
        velocities_(baoab() ? n_generations() * layout_.n_panels * layout_.panel_size() : 0),
        force_(baoab() ? layout_.n_panels * layout_.panel_size() : 0),
        anchor_(svrg() ? layout_.n_panels * layout_.panel_size() : 0),
        anchor_gradient_(anchored() ? layout_.n_panels * layout_.panel_size() : 0),
        terms_(n_generations() * layout_.n_panels * 2 * network_.n_outputs * lanes),
        values_(layout_.n_panels * kept_rows() * lanes),
        slopes_(network_.activation.stores_slope ? layout_.n_panels * kept_rows() * lanes : 0),
        gradients_((anchored() ? 2 : 1) * gradient_size_ *
                   (std::max(full_blocks_.n_blocks, batch_blocks_.n_blocks) > 1 ? layout_.n_panels : threads_)),
        scratch_(threads_ * scratch_size()),
        row_scratch_(threads_ * 2 * batch_size_),
        row_sets_(threads_),
        squared_norms_(layout_.n_leaves),
        batches_(samples, network_.n_features, target_width_, batch_size_),
        stop_(execution) {
    for (FloydSet& set : row_sets_) set.reserve(batch_size_);
  }

  Reached run() {
    run_team(threads_, [this](int member, int members, SpinBarrier& barrier) { work(member, members, barrier); });
    // What the last gradient left behind is whole, except where a stop came in the middle of a refresh.
    const bool any = last_whole_ >= first_;
    const bool torn = svrg() && last_whole_ + 1 < end_ && is_full(last_whole_ + 1);
    estimator_.valid = anchored() && (estimator_.valid || any) && !torn;
    dynamics_.force_valid = baoab() && (any ? force_kept_ : dynamics_.force_valid);

    double squares = 0;
    for (std::int64_t l = 0; l < layout_.n_leaves; ++l) squares += squared_norms_[l];
    const bool reached_the_last = last_whole_ + 1 == end_;
    return {bad_ == nowhere ? steps_done() : bad_.first, bad_.second, stop_.aborting(), loss_value_,
            reached_the_last ? std::sqrt(squares / static_cast<double>(layout_.n_particles))
                             : std::numeric_limits<double>::quiet_NaN()};
  }

 private:
  using Mark = std::pair<std::int64_t, std::int64_t>;  // step, particle
  static constexpr Mark nowhere = {std::numeric_limits<std::int64_t>::max(), -1};

  bool baoab() const { return dynamics_.kind == MFLD_BAOAB; }
  bool svrg() const { return estimator_.kind == MFLD_SVRG; }
  bool sarah() const { return estimator_.kind == MFLD_SARAH; }
  bool anchored() const { return svrg() || sarah(); }

  // Whether gradient q is over all rows; for anchored estimators that is a refresh.
  bool is_full(std::int64_t q) const {
    if (!anchored()) return batch_size_ == 0;
    return (q == first_ && !estimator_.valid) ||
           (noise_.step + static_cast<std::uint64_t>(q)) % static_cast<std::uint64_t>(estimator_.refresh_every) == 0;
  }

  // Clouds whose predictions on a batch are sums to be made: the anchor's are stored by SVRG, but not by SARAH.
  int n_summed() const { return sarah() ? 2 : 1; }
  // A BAOAB step opens before its gradient. A stop during that gradient goes back to the particles before the step; or
  // where the gradient takes no time, in mini-batches, it waits for the end of the step, and nothing need be kept.
  bool ends_steps() const {
    constexpr double no_time = 2e8;  // multiply-adds, some milliseconds
    return baoab() && estimator_.kind == MFLD_MINIBATCH &&
           leaf_work(true) * static_cast<double>(2 * layout_.n_leaves * batch_blocks_.n_blocks) < no_time;
  }
  bool gives_up() const { return stop_.aborting() && !ends_steps(); }
  // SARAH looks back at the particles of the last gradient.
  int n_generations() const { return sarah() || (baoab() && !ends_steps()) ? 2 : 1; }

  // Multiply-adds of a leaf in one pass over a block of rows, of a mini-batch or of all.
  double leaf_work(bool batch) const {
    const std::int64_t clouds = batch && anchored() ? 2 : 1;
    return static_cast<double>(clouds * layout_.panels_per_leaf * lanes) *
           static_cast<double>((batch ? batch_blocks_ : full_blocks_).most_rows * (network_.n_features + 8));
  }
  // Activations of all particles for one block of rows stay in cache between the forward and the pull-back pass, so
  // that neither is computed twice. But each block walks through the cloud, and between blocks the gradients of all
  // particles are kept. So rows whose activations weigh no more than twice the cloud are one block, and two times
  // `fewest` rows in any case; and as many make a block where not even `fewest` fit the cache. But every panel reads
  // the data of the block anew, which have to come from a cache, too.
  SampleBlocks blocks(std::int64_t n_rows, std::int64_t n_clouds) const {
    constexpr std::int64_t cache_bytes = 1 << 20, data_bytes = 4 << 20, fewest = 24, most = 1024;
    const std::int64_t kept = n_clouds * (network_.activation.stores_slope ? 2 : 1);
    const std::int64_t fit = cache_bytes / (layout_.n_panels * lanes * kept * static_cast<std::int64_t>(sizeof(T)));
    const std::int64_t data_rows = data_bytes / (network_.n_features * static_cast<std::int64_t>(sizeof(T)));
    const std::int64_t worth_a_walk = std::max(std::min(2 * network_.n_coordinates() / kept, data_rows), 2 * fewest);
    const bool walks_count = fit < fewest || n_rows <= worth_a_walk;
    return {n_rows, std::min(walks_count ? std::max(fit, worth_a_walk) : fit, most)};
  }
  static std::int64_t values_stride(const SampleBlocks& blocks) { return round_up(blocks.most_rows, V::size); }
  // Rows of activations that a panel keeps from forward to pull back. A panel's lie where no other one's do in any
  // pass, since members do not wait for each other between passes.
  std::int64_t kept_rows() const {
    return std::max(values_stride(full_blocks_), n_summed() * values_stride(batch_blocks_));
  }

  // What a member works in. The anchor's activations are those of one panel, for SVRG, which needs no sum over them.
  struct Scratch {
    T *targets, *gain, *readout, *losses;
    Slopes<T> own, anchor;
    T *anchor_coefficient, *anchor_offset, *anchor_values, *anchor_slopes;
  };
  std::int64_t scratch_size() const {
    const std::int64_t matrix = network_.n_outputs * stride_, rows = network_.n_outputs * lanes;
    const std::int64_t anchor = anchored() ? 2 * matrix + 2 * rows + network_.n_outputs : 0;
    const std::int64_t anchor_sweep = svrg() ? 2 * stride_ * lanes : 0;
    return round_up(3 * matrix + stride_ * lanes + 2 * rows + network_.n_outputs + stride_ + anchor + anchor_sweep, 64);
  }
  Scratch scratch(int member) const {
    T* next = &scratch_[member * scratch_size()];
    const auto take = [&next](std::int64_t count) { return std::exchange(next, next + count); };
    const std::int64_t outputs = network_.n_outputs, matrix = outputs * stride_, rows = outputs * lanes;
    Scratch s = {};
    s.targets = take(matrix);
    s.own.predictions = take(matrix);
    s.own.cotangents = take(matrix);
    s.gain = take(stride_ * lanes);
    s.readout = take(2 * rows);
    if (anchored()) {
      s.anchor.predictions = take(matrix);
      s.anchor.cotangents = take(matrix);
      s.anchor_coefficient = take(rows);
      s.anchor_offset = take(rows);
    }
    if (svrg()) {
      s.anchor_values = take(stride_ * lanes);
      s.anchor_slopes = take(stride_ * lanes);
    }
    s.losses = take(stride_);
    s.own.totals = take(outputs);
    if (anchored()) s.anchor.totals = take(outputs);
    return s;
  }

  std::int64_t generation(std::int64_t q, std::int64_t p) const {
    return (q & (n_generations() - 1)) * layout_.n_panels + p;
  }
  T* panel(std::int64_t q, std::int64_t p) const { return &panels_[generation(q, p) * layout_.panel_size()]; }
  T* velocity(std::int64_t q, std::int64_t p) const { return &velocities_[generation(q, p) * layout_.panel_size()]; }
  T* force(std::int64_t p) const { return &force_[p * layout_.panel_size()]; }
  T* anchor(std::int64_t p) const { return &anchor_[p * layout_.panel_size()]; }
  T* anchor_gradient(std::int64_t p) const { return &anchor_gradient_[p * layout_.panel_size()]; }
  T* coefficient(std::int64_t q, std::int64_t p) const {
    return &terms_[generation(q, p) * 2 * network_.n_outputs * lanes];
  }
  T* offset(std::int64_t q, std::int64_t p) const { return coefficient(q, p) + network_.n_outputs * lanes; }
  void make_terms(std::int64_t q, std::int64_t p) const {
    network_.terms(panel(q, p), coefficient(q, p), offset(q, p));
  }
  // cloud 0: the particles, 1: those of SARAH's last gradient
  std::int64_t values_at(int cloud, std::int64_t p, std::int64_t stride) const {
    return (p * kept_rows() + cloud * stride) * lanes;
  }
  T* slopes(std::int64_t at) const { return network_.activation.stores_slope ? &slopes_[at] : nullptr; }
  std::int64_t* row_list(int member, std::int64_t q) const {
    return &row_scratch_[(2 * member + (q & 1)) * batch_size_];
  }

  void work(int member, int members, SpinBarrier& barrier) {
    const Scratch s = scratch(member);
    const Range leaves = even_part(layout_.n_leaves, member, members);
    const auto order = sums_.order(members);
    const Range mine = {leaves.size() ? layout_.panels_of(leaves.begin).begin : 0,
                        leaves.size() ? layout_.panels_of(leaves.end - 1).end : 0};
    begin(mine, s);

    const auto gather = [&](std::int64_t q) {
      std::int64_t* rows = row_list(member, q);
      floyd_batch(noise_at(q), samples_.n_samples, batch_size_, rows, row_sets_[member]);
      batches_.gather(q, rows, even_part(batch_size_, member, members));
    };
    if (!is_full(first_)) {
      gather(first_);
      barrier.wait();
    }

    std::int64_t turn = 0;
    for (std::int64_t q = first_; q < end_; ++q) {
      const bool last = q + 1 == end_, full = is_full(q), corrected = anchored() && !full;
      const SampleBlocks& blocks = full ? full_blocks_ : batch_blocks_;
      const Rows<T> rows =
          full ? Rows<T>{static_cast<const T*>(samples_.inputs), static_cast<const T*>(samples_.targets),
                         static_cast<const T*>(samples_.weights), samples_.n_samples}
               : batches_.rows(q);
      if (!last && !is_full(q + 1)) gather(q + 1);
      const double work = leaf_work(!full);
      bool end = last;
      for (std::int64_t p = mine.begin; p < mine.end; ++p) make_terms(q, p);
      const Moves moves(*this, q);

      for (std::int64_t b = 0; b < blocks.n_blocks; ++b, ++turn) {
        const Range block = blocks.rows(b);
        const T* z = rows.inputs + block.begin * network_.n_features;
        for (std::int64_t l = leaves.begin; l < leaves.end && !gives_up(); ++l) {
          if (member == 0) stop_.poll(work);
          forward_leaf(turn, 0, q, l, z, block.size(), values_stride(blocks));
          if (corrected && sarah()) forward_leaf(turn, 1, q - 1, l, z, block.size(), values_stride(blocks));
          sums_.join(turn, l, leaves, (corrected ? n_summed() : 1) * network_.n_outputs, block.size());
        }
        if (member == 0) stop_.publish(turn);
        barrier.wait();
        // Everybody sees the same answers here, and leaves with whole steps only.
        const bool stopped = stop_.stopped(turn);
        if ((stopped && !ends_steps()) || (q > 0 && diverged_[(q - 1) & 1].load(std::memory_order_relaxed))) {
          finish(member, mine, q - 1, full);
          return;
        }
        end = last || stopped;
        for (std::int64_t k = 0; k < target_width_; ++k)
          for (std::int64_t i = 0; i < block.size(); ++i)
            s.targets[k * stride_ + i] = rows.targets[(block.begin + i) * target_width_ + k];
        total(turn, order, 0, block, s.own);
        differentiate(rows, block, s.targets, s.own, b > 0);
        if (last && member == 0) add_loss(rows, block, s, b > 0);
        if (corrected) {
          if (sarah())
            total(turn, order, 1, block, s.anchor);
          else
            recall_predictions(row_list(member, q) + block.begin, block.size(), s.anchor);
          differentiate(rows, block, s.targets, s.anchor, b > 0);
        } else if (svrg()) {
          keep_predictions(block, even_part(block.size(), member, members), s.own);
        }

        const bool last_block = b + 1 == blocks.n_blocks;
        for (std::int64_t l = leaves.begin; l < leaves.end; ++l) {
          if (member == 0) stop_.poll(work);
          // Before the last block the step can still be given up; in it, it must be made whole.
          if (!last_block && gives_up()) break;
          if (last && last_block) squared_norms_[l] = 0;
          const Range panels = layout_.panels_of(l);
          for (std::int64_t p = panels.begin; p < panels.end; ++p) {
            const std::int64_t at = values_at(0, p, values_stride(blocks));
            T* gradient = &gradients_[(anchored() ? 2 : 1) * gradient_size_ * (blocks.n_blocks > 1 ? p : member)];
            pull_back(coefficient(q, p), &values_[at], slopes(at), s.own, z, block.size(), s, gradient, b > 0);
            if (corrected)
              pull_back_anchor(q, p, z, block.size(), values_stride(blocks), s, gradient + gradient_size_, b > 0);
            if (!last_block) continue;
            finish_gradient(panel(q, p), s.own, s, gradient);
            const T* factor = network_.affine_factor(coefficient(q, p));
            Gradient estimate = {gradient, network_.n_affine(), factor, gradient + network_.n_affine() * lanes};
            if (anchored() || baoab())
              estimate = {keep_estimate(q, p, corrected, keeps_force(q, end), factor, s, gradient), network_.n_moving(),
                          nullptr, nullptr};
            if (last)
              squared_norms_[l] += moves.euler.squared_norm(panel(q, p), estimate, network_.n_moving(),
                                                            layout_.particles_in(p), last_l2());
            move(moves, q, p, estimate, end);
          }
        }
      }
      if (end) {
        barrier.wait();  // so that every divergence is known
        finish(member, mine, q, true);
        return;
      }
    }
  }

  // From the caller's arrays to panels, and on to the place of the first gradient.
  void begin(Range mine, const Scratch& s) {
    const T *anchor_in = static_cast<const T*>(estimator_.anchor),
            *anchor_gradient_in = static_cast<const T*>(estimator_.anchor_gradient),
            *force_in = static_cast<const T*>(dynamics_.force);
    const auto load = [&](const T* array, bool valid, std::int64_t p, T* out) {
      if (valid)
        layout_.pack(array, p, out);
      else
        std::fill_n(out, layout_.panel_size(), T(0));
    };
    std::fill_n(s.targets, network_.n_outputs * stride_, T(0));
    if (anchored()) std::fill_n(s.anchor.predictions, network_.n_outputs * stride_, T(0));
    for (std::int64_t p = mine.begin; p < mine.end; ++p) {
      for (int g = 0; g < n_generations(); ++g) {
        layout_.pack(particles_, p, panel(g, p));
        if (baoab()) layout_.pack(static_cast<const T*>(dynamics_.velocities), p, velocity(g, p));
      }
      if (baoab()) load(force_in, dynamics_.force_valid, p, force(p));
      if (svrg()) load(anchor_in, estimator_.valid, p, anchor(p));
      if (anchored()) load(anchor_gradient_in, estimator_.valid, p, anchor_gradient(p));
      if (sarah()) {
        // Behind a known force it is the present particles, where they already are.
        if (estimator_.valid && first_ == 0) layout_.pack(anchor_in, p, panel(-1, p));
        make_terms(first_ - 1, p);
      }
      // Rows that pad a block to whole registers are summed with the rest: they must hold numbers.
      for (const SampleBlocks* blocks : {&full_blocks_, &batch_blocks_}) {
        const std::int64_t stride = values_stride(*blocks);
        if (stride == 0) continue;
        for (int cloud = 0; cloud < (blocks == &batch_blocks_ ? n_summed() : 1); ++cloud) {
          T* values = &values_[values_at(cloud, p, stride)];
          std::fill(values + (blocks->most_rows - 1) * lanes, values + stride * lanes, T(0));
        }
      }
    }
    if (first_ == 1) {
      const Moves moves(*this, 0);
      for (std::int64_t p = mine.begin; p < mine.end; ++p)
        move(moves, 0, p, {force(p), network_.n_moving(), nullptr, nullptr}, false);
    }
  }

  // Sums of a cloud, the particles or SARAH's anchor, over one leaf; q: whose panels these are.
  void forward_leaf(std::int64_t turn, int cloud, std::int64_t q, std::int64_t l, const T* z, std::int64_t n_rows,
                    std::int64_t stride) {
    T* leaf = sums_.leaf(turn, l) + cloud * network_.n_outputs * stride_;
    std::fill_n(leaf, network_.n_outputs * stride_, T(0));
    alignas(64) T share[lanes];
    const Range panels = layout_.panels_of(l);
    for (std::int64_t p = panels.begin; p < panels.end; ++p) {
      const std::int64_t at = values_at(cloud, p, stride);
      panel_share<T>(layout_, p, nullptr, share);
      network_.forward(panel(q, p), z, n_rows, &values_[at], slopes(at));
      add_to_leaf(network_, &values_[at], n_rows, coefficient(q, p), offset(q, p), share, leaf, stride_);
    }
  }

  void total(std::int64_t turn, const typename LeafSums<T>::Order& order, int cloud, Range block,
             const Slopes<T>& out) const {
    const std::int64_t padded = round_up(block.size(), V::size), first = cloud * network_.n_outputs;
    for (std::int64_t k = 0; k < network_.n_outputs; ++k)
      sums_.total(turn, order, {(first + k) * stride_, (first + k) * stride_ + padded},
                  1 / static_cast<double>(layout_.n_particles), out.predictions - first * stride_);
  }

  // The anchor's predictions, for SVRG. Members keep different rows; all read them behind the next barrier.
  void keep_predictions(Range block, Range part, const Slopes<T>& own) const {
    const std::int64_t outputs = network_.n_outputs;
    T* kept = static_cast<T*>(estimator_.anchor_predictions) + block.begin * outputs;
    for (std::int64_t i = part.begin; i < part.end; ++i)
      for (std::int64_t k = 0; k < outputs; ++k) kept[i * outputs + k] = own.predictions[k * stride_ + i];
  }
  void recall_predictions(const std::int64_t* rows, std::int64_t n, const Slopes<T>& anchor) const {
    const std::int64_t outputs = network_.n_outputs;
    const T* kept = static_cast<const T*>(estimator_.anchor_predictions);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t k = 0; k < outputs; ++k) anchor.predictions[k * stride_ + i] = kept[rows[i] * outputs + k];
  }

  // The weight of a row of the step in the loss: s_i, times n/B in a mini-batch.
  double row_weight(const Rows<T>& rows, std::int64_t i) const {
    const auto n = static_cast<double>(samples_.n_samples);
    return n / static_cast<double>(rows.count) * (rows.weights ? static_cast<double>(rows.weights[i]) : 1 / n);
  }

  // From predictions to cotangents g_ik = s_i loss'_k(u_i), and their sums over the rows of the gradient.
  void differentiate(const Rows<T>& rows, Range block, const T* targets, const Slopes<T>& slopes, bool add) const {
    const std::int64_t outputs = network_.n_outputs, n = block.size(), padded = round_up(n, V::size);
    T* cotangents = slopes.cotangents;
    loss_.derivative(slopes.predictions, targets, stride_, padded, outputs, loss_parameter_, cotangents);
    if (rows.weights) {
      for (std::int64_t i = 0; i < n; ++i) {
        const T weight = static_cast<T>(row_weight(rows, block.begin + i));
        for (std::int64_t k = 0; k < outputs; ++k) cotangents[k * stride_ + i] *= weight;
      }
    } else {
      const V weight(static_cast<T>(row_weight(rows, 0)));
      for (std::int64_t k = 0; k < outputs; ++k)
        for (std::int64_t i = k * stride_; i < k * stride_ + padded; i += V::size)
          (V::load(cotangents + i) * weight).store(cotangents + i);
    }
    for (std::int64_t k = 0; k < outputs; ++k) {
      double total = add ? slopes.totals[k] : 0;
      for (std::int64_t i = 0; i < n; ++i) total += cotangents[k * stride_ + i];
      slopes.totals[k] = static_cast<T>(total);
    }
  }

  void add_loss(const Rows<T>& rows, Range block, const Scratch& s, bool add) {
    loss_.value(s.own.predictions, s.targets, stride_, round_up(block.size(), V::size), network_.n_outputs,
                loss_parameter_, s.losses);
    double sum = add ? loss_value_ : 0;
    for (std::int64_t i = 0; i < block.size(); ++i) sum += row_weight(rows, block.begin + i) * s.losses[i];
    loss_value_ = sum;
  }

  // gradient: rows (n_affine, lanes), and behind them S_k (n_outputs, lanes)
  void pull_back(const T* coefficient, const T* values, const T* activation_slopes, const Slopes<T>& slopes, const T* z,
                 std::int64_t n_rows, const Scratch& s, T* gradient, bool add) const {
    network_.pull_back(coefficient, values, activation_slopes, slopes.cotangents, stride_, z, n_rows, s.gain,
                       {gradient, gradient + network_.n_affine() * lanes}, add);
  }
  void finish_gradient(const T* panel, const Slopes<T>& slopes, const Scratch& s, T* gradient) const {
    network_.finish_readout(panel, slopes.totals, gradient + network_.n_affine() * lanes, s.readout);
  }

  void pull_back_anchor(std::int64_t q, std::int64_t p, const T* z, std::int64_t n_rows, std::int64_t stride,
                        const Scratch& s, T* gradient, bool add) const {
    if (sarah()) {
      const std::int64_t at = values_at(1, p, stride);
      pull_back(coefficient(q - 1, p), &values_[at], slopes(at), s.anchor, z, n_rows, s, gradient, add);
    } else {
      network_.terms(anchor(p), s.anchor_coefficient, s.anchor_offset);
      network_.forward(anchor(p), z, n_rows, s.anchor_values, s.anchor_slopes);
      pull_back(s.anchor_coefficient, s.anchor_values, s.anchor_slopes, s.anchor, z, n_rows, s, gradient, add);
    }
  }

  // The estimate as plain rows (n_moving, lanes), where it is to stay if it is to stay.
  const T* keep_estimate(std::int64_t q, std::int64_t p, bool corrected, bool as_force, const T* factor,
                         const Scratch& s, T* gradient) const {
    const bool kept = sarah() || (svrg() && !corrected);
    T* out = kept ? anchor_gradient(p) : as_force ? force(p) : gradient;
    const T* anchor_rows = gradient + gradient_size_;
    const T* anchor_factor = nullptr;
    if (corrected) {
      finish_gradient(svrg() ? anchor(p) : panel(q - 1, p), s.anchor, s, gradient + gradient_size_);
      anchor_factor = network_.affine_factor(svrg() ? s.anchor_coefficient : coefficient(q - 1, p));
    }
    const auto scaled = [&](const T* rows, const T* scale, std::int64_t j, int l) {
      const V g = V::load(rows + j * lanes + l);
      return scale && j < network_.n_affine() ? g * V::load(scale + l) : g;
    };
    for (std::int64_t j = 0; j < network_.n_moving(); ++j)
      for (int l = 0; l < lanes; l += V::size) {
        V g = scaled(gradient, factor, j, l);
        if (corrected) g = g - scaled(anchor_rows, anchor_factor, j, l) + V::load(anchor_gradient(p) + j * lanes + l);
        g.store(out + j * lanes + l);
      }
    if (svrg() && !corrected) std::copy_n(panel(q, p), layout_.panel_size(), anchor(p));
    if (kept && as_force) std::copy_n(out, network_.n_moving() * lanes, force(p));
    return out;
  }

  // The moves that gradient q leads to.
  struct Moves {
    EulerMaruyama<T> euler;
    Baoab<T> ending = {}, beginning = {};
    NoisePlace place;
    Moves(const Advance& run, std::int64_t q)
        : euler(run.schedule_, std::min(q, run.n_steps_ - 1)), place(run.noise_at(q), MFLD_STREAM_MOVE) {
      if (!run.baoab()) return;
      if (q > 0) ending = Baoab<T>(run.schedule_, q - 1, run.dynamics_.friction);
      if (q < run.n_steps_) beginning = Baoab<T>(run.schedule_, q, run.dynamics_.friction);
    }
  };

  // end: no step begins here.
  void move(const Moves& moves, std::int64_t q, std::int64_t p, const Gradient& estimate, bool end) {
    const std::int64_t n_moving = network_.n_moving(), first = p * lanes, n = layout_.n_particles;
    const auto check = [&](std::int64_t step, std::int64_t bad_lane) {
      if (bad_lane < 0) return;
      const std::lock_guard<std::mutex> lock(bad_mutex_);
      bad_ = std::min(bad_, Mark(step, first + bad_lane));
      diverged_[q & 1].store(true, std::memory_order_relaxed);
    };
    if (!baoab()) {
      check(q, moves.euler(panel(q, p), panel(q + 1, p), estimate, n_moving, first, n, moves.place));
      return;
    }
    if (q > 0) check(q - 1, moves.ending.close(panel(q, p), velocity(q, p), estimate.affine, n_moving, first, n));
    if (!end)
      check(q, moves.beginning.open(panel(q, p), velocity(q, p), panel(q + 1, p), velocity(q + 1, p), estimate.affine,
                                    n_moving, first, n, moves.place));
  }

  // Whether gradient q is stored as the force: where the run ends, or where the next gradient may lead back to it. From
  // a mini-batch it need not: the same rows at the same particles make it once more.
  bool keeps_force(std::int64_t q, bool end) const { return baoab() && (end || is_full(q + 1)); }

  // Back to the caller's arrays, behind a barrier: the whole steps that gradients up to last_whole made. A divergence
  // leaves them as they were, so that the steps before it can be made from there.
  void finish(int member, Range mine, std::int64_t last_whole, bool force_kept) {
    if (member == 0) {
      last_whole_ = last_whole;
      force_kept_ = force_kept;
    }
    if (bad_ != nowhere) return;
    const std::int64_t reached = baoab() ? std::max<std::int64_t>(last_whole, 0) : last_whole + 1;
    const bool any = last_whole >= first_;
    for (std::int64_t p = mine.begin; p < mine.end; ++p) {
      layout_.unpack(panel(reached, p), p, particles_);
      if (!any) continue;
      if (baoab()) {
        layout_.unpack(velocity(reached, p), p, static_cast<T*>(dynamics_.velocities));
        if (force_kept) layout_.unpack(force(p), p, static_cast<T*>(dynamics_.force));
      }
      if (anchored()) {
        layout_.unpack(svrg() ? anchor(p) : panel(last_whole, p), p, static_cast<T*>(estimator_.anchor));
        layout_.unpack(anchor_gradient(p), p, static_cast<T*>(estimator_.anchor_gradient));
      }
    }
  }
  std::int64_t steps_done() const { return baoab() ? std::max<std::int64_t>(last_whole_, 0) : last_whole_ + 1; }

  mfld_noise noise_at(std::int64_t q) const {
    return {noise_.key, noise_.step + static_cast<std::uint64_t>(q), noise_.population};
  }
  double last_l2() const { return schedule_.l2[(n_steps_ - 1) * schedule_.stride]; }

  const NetworkPanel<T> network_;
  const LossKernel<T>& loss_;
  const T loss_parameter_;
  const std::int64_t target_width_;
  const mfld_samples& samples_;
  T* const particles_;
  const std::int64_t n_steps_, batch_size_;
  mfld_estimator& estimator_;
  mfld_dynamics& dynamics_;
  const mfld_schedule& schedule_;
  const mfld_noise& noise_;
  const std::int64_t first_, end_;  // of the gradients
  const PanelLayout<T> layout_;
  const SampleBlocks full_blocks_, batch_blocks_;
  const LeafSums<T> sums_;
  const std::int64_t stride_, gradient_size_;
  const int threads_;
  const Buffer<T> panels_, velocities_, force_, anchor_, anchor_gradient_, terms_, values_, slopes_, gradients_,
      scratch_;
  const Buffer<std::int64_t> row_scratch_;
  std::vector<FloydSet> row_sets_;
  const Buffer<double> squared_norms_;
  const BatchQueue<T> batches_;
  StopSignal stop_;
  std::atomic<bool> diverged_[2] = {false, false};  // by the parity of the gradient: see StopSignal
  std::mutex bad_mutex_;
  Mark bad_ = nowhere;
  double loss_value_ = std::numeric_limits<double>::quiet_NaN();
  std::int64_t last_whole_ = -1;
  bool force_kept_ = false;
};

}  // namespace mfld
