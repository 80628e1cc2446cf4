// Mean-field Langevin dynamics on a two-layer risk, all steps of a call inside.
//
// A step walks over its samples in blocks. Per block: every member sums its leaves' predictions (forward), one barrier,
// every member totals these sums and takes the loss derivative (the same numbers, so nobody waits for anybody), and
// pulls back to its own panels. After the last block it moves its own panels, noise included. A member never writes
// what another one reads except for leaf sums and gathered rows, which take turns.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "entries.hpp"
#include "mfld/losses.hpp"
#include "mfld/team.hpp"
#include "move.hpp"
#include "network.hpp"
#include "predictions.hpp"

namespace mfld {
namespace {

// Rows of data as one step sees them: all of them, or the gathered rows of a mini-batch.
template <class T>
struct Rows {
  const T* inputs;
  const T* targets;
  const T* weights;  // may be null: all equal
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
    return {&inputs_[turn * n_features_], &targets_[turn * target_width_],
            samples_.weights ? &weights_[turn] : nullptr};
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

template <class T>
class Advance {
  using V = Vec<T>;
  static constexpr int lanes = panel_lanes<T>;

 public:
  Advance(const mfld_network& network, const mfld_loss& loss, const mfld_samples& samples, T* particles,
          std::int64_t n_particles, std::int64_t n_steps, std::int64_t batch_size, const mfld_schedule& schedule,
          const mfld_noise& noise, const mfld_execution& execution)
      : network_(network),
        loss_(loss_kernels<T>[loss.id]),
        loss_parameter_(static_cast<T>(loss.parameter)),
        target_width_(loss_infos[loss.id].targets == MFLD_TARGETS_CLASS ? 1 : network.n_outputs),
        samples_(samples),
        particles_(particles),
        n_steps_(n_steps),
        batch_size_(batch_size),
        schedule_(schedule),
        noise_(noise),
        layout_(n_particles, network_.n_coordinates()),
        blocks_(batch_size ? batch_size : samples.n_samples, layout_.n_panels * lanes *
                                                                 static_cast<std::int64_t>(sizeof(T)) *
                                                                 (network_.activation.stores_slope ? 2 : 1)),
        sums_(layout_, network_.n_outputs, round_up(blocks_.most_rows, V::size)),
        stride_(sums_.stride()),
        gradient_size_((network_.n_affine() + network_.n_outputs) * lanes),
        leaf_work_(static_cast<double>(layout_.panels_per_leaf * lanes) *
                   static_cast<double>(blocks_.most_rows * (network_.n_features + 8))),
        threads_(useful_threads(execution, layout_.n_leaves, 2 * leaf_work_ * static_cast<double>(layout_.n_leaves))),
        panels_(layout_.n_panels * layout_.panel_size()),
        terms_(layout_.n_panels * 2 * network_.n_outputs * lanes),
        values_(layout_.n_panels * stride_ * lanes),
        slopes_(network_.activation.stores_slope ? layout_.n_panels * stride_ * lanes : 0),
        gradients_(gradient_size_ * (blocks_.n_blocks > 1 ? layout_.n_panels : threads_)),
        scratch_(threads_ * scratch_size()),
        row_scratch_(threads_ * batch_size),
        batch_scratch_(threads_),
        squared_norms_(layout_.n_leaves),
        batches_(samples, network_.n_features, target_width_, batch_size),
        stop_(execution) {
    for (BatchScratch& scratch : batch_scratch_) scratch.reserve(batch_size);
  }

  int run(mfld_report* report) {
    run_team(threads_, [this](int member, int members, SpinBarrier& barrier) { work(member, members, barrier); });
    report->steps = steps_done_;
    report->bad_particle = -1;
    report->status = stop_.aborting() ? MFLD_STOPPED : MFLD_DONE;
    if (diverged_[0].load() || diverged_[1].load()) {
      report->status = MFLD_DIVERGED;
      report->bad_particle = first_non_finite(particles_, layout_.n_particles, layout_.n_coordinates, 0);
    }
    report->loss = loss_value_;
    double squares = 0;
    for (std::int64_t l = 0; l < layout_.n_leaves; ++l) squares += squared_norms_[l];
    const bool reached_the_last = steps_done_ == n_steps_;
    report->gradient_norm = reached_the_last ? std::sqrt(squares / static_cast<double>(layout_.n_particles))
                                             : std::numeric_limits<double>::quiet_NaN();
    // A stop that was asked for is answered even if the steps ended first, or badly: the caller holds its reason.
    return stop_.aborting() ? MFLD_STOPPED : MFLD_DONE;
  }

 private:
  // predictions, targets, cotangents: (n_outputs, stride) each; gain: (stride, lanes); readout scratch: 2 (n_outputs,
  // lanes); cotangent totals: (n_outputs); losses: (stride)
  std::int64_t scratch_size() const {
    return round_up(3 * network_.n_outputs * stride_ + stride_ * lanes + 2 * network_.n_outputs * lanes +
                        network_.n_outputs + stride_,
                    64);
  }

  T* panel(std::int64_t p) const { return &panels_[p * layout_.panel_size()]; }
  T* coefficient(std::int64_t p) const { return &terms_[p * 2 * network_.n_outputs * lanes]; }
  T* offset(std::int64_t p) const { return coefficient(p) + network_.n_outputs * lanes; }
  T* values(std::int64_t p) const { return &values_[p * stride_ * lanes]; }
  T* slopes(std::int64_t p) const { return network_.activation.stores_slope ? &slopes_[p * stride_ * lanes] : nullptr; }

  void work(int member, int members, SpinBarrier& barrier) {
    T* predictions = &scratch_[member * scratch_size()];
    T* targets = predictions + network_.n_outputs * stride_;
    T* cotangents = targets + network_.n_outputs * stride_;
    T* gain = cotangents + network_.n_outputs * stride_;
    T* readout_scratch = gain + stride_ * lanes;
    T* cotangent_totals = readout_scratch + 2 * network_.n_outputs * lanes;
    T* losses = cotangent_totals + network_.n_outputs;

    const Range leaves = even_part(layout_.n_leaves, member, members);
    const auto order = sums_.order(members);
    const Range mine = {leaves.size() ? layout_.panels_of(leaves.begin).begin : 0,
                        leaves.size() ? layout_.panels_of(leaves.end - 1).end : 0};
    for (std::int64_t p = mine.begin; p < mine.end; ++p) {
      layout_.pack(particles_, p, panel(p));
      // Rows that pad a block to whole registers are summed with the rest: they must hold numbers.
      std::fill(values(p) + (blocks_.most_rows - 1) * lanes, values(p) + stride_ * lanes, T(0));
    }
    std::fill(targets, cotangents, T(0));

    const auto gather = [&](std::int64_t step) {
      std::int64_t* rows = &row_scratch_[member * batch_size_];
      floyd_batch(noise_at(step), samples_.n_samples, batch_size_, rows, batch_scratch_[member]);
      batches_.gather(step, rows, even_part(batch_size_, member, members));
    };
    if (batch_size_) {
      gather(0);
      barrier.wait();
    }

    std::int64_t turn = 0;
    std::int64_t step = 0;
    for (; step < n_steps_; ++step) {
      const bool last_step = step + 1 == n_steps_;
      const Rows<T> rows =
          batch_size_ ? batches_.rows(step)
                      : Rows<T>{static_cast<const T*>(samples_.inputs), static_cast<const T*>(samples_.targets),
                                static_cast<const T*>(samples_.weights)};
      if (batch_size_ && !last_step) gather(step + 1);
      for (std::int64_t p = mine.begin; p < mine.end; ++p) network_.terms(panel(p), coefficient(p), offset(p));
      const EulerMaruyama<T> scheme(schedule_, step);
      const NoisePlace place(noise_at(step), MFLD_STREAM_MOVE);

      for (std::int64_t b = 0; b < blocks_.n_blocks; ++b, ++turn) {
        const Range block = blocks_.rows(b);
        const T* z = rows.inputs + block.begin * network_.n_features;
        for (std::int64_t l = leaves.begin; l < leaves.end && !stop_.aborting(); ++l) {
          if (member == 0) stop_.poll(leaf_work_);
          forward_leaf(turn, l, z, block.size());
          sums_.join(turn, l, leaves, block.size());
        }
        if (member == 0) stop_.publish(turn);
        barrier.wait();
        // Everybody sees the same answers here, and leaves with whole steps only.
        if (stop_.stopped(turn) || (step > 0 && diverged_[(step - 1) & 1].load(std::memory_order_relaxed))) {
          finish(member, mine, step);
          return;
        }
        differentiate(turn, order, rows, block, predictions, targets, cotangents, cotangent_totals, b > 0);
        if (last_step && member == 0) add_loss(rows, block, predictions, targets, losses, b > 0);

        const bool last_block = b + 1 == blocks_.n_blocks;
        for (std::int64_t l = leaves.begin; l < leaves.end; ++l) {
          if (member == 0) stop_.poll(leaf_work_);
          // Before the last block the step can still be given up; in it, it must be made whole.
          if (!last_block && stop_.aborting()) break;
          if (last_step && last_block) squared_norms_[l] = 0;
          const Range panels = layout_.panels_of(l);
          for (std::int64_t p = panels.begin; p < panels.end; ++p) {
            T* gradient = &gradients_[gradient_size_ * (blocks_.n_blocks > 1 ? p : member)];
            T* weighted = gradient + network_.n_affine() * lanes;
            network_.pull_back(coefficient(p), values(p), slopes(p), cotangents, stride_, z, block.size(), gain,
                               {gradient, weighted}, b > 0);
            if (!last_block) continue;
            network_.finish_readout(panel(p), cotangent_totals, weighted, readout_scratch);
            const typename EulerMaruyama<T>::Gradient moved_by = {gradient, network_.n_affine(),
                                                                  network_.affine_factor(coefficient(p)), weighted};
            if (last_step)
              squared_norms_[l] += scheme.squared_norm(panel(p), moved_by, network_.n_moving(), layout_.particles_in(p),
                                                       schedule_.l2[step * schedule_.stride]);
            if (!scheme(panel(p), moved_by, network_.n_moving(), p * lanes, layout_.n_particles, place))
              diverged_[step & 1].store(true, std::memory_order_relaxed);
          }
        }
      }
    }
    finish(member, mine, step);
  }

  void forward_leaf(std::int64_t turn, std::int64_t l, const T* z, std::int64_t n_rows) {
    T* leaf = sums_.leaf(turn, l);
    std::fill_n(leaf, network_.n_outputs * stride_, T(0));
    alignas(64) T share[lanes];
    const Range panels = layout_.panels_of(l);
    for (std::int64_t p = panels.begin; p < panels.end; ++p) {
      panel_share<T>(layout_, p, nullptr, share);
      network_.forward(panel(p), z, n_rows, values(p), slopes(p));
      add_to_leaf(network_, values(p), n_rows, coefficient(p), offset(p), share, leaf, stride_);
    }
  }

  // The weight of a row of the step in the loss: s_i, times n/B in a mini-batch.
  double row_weight(const Rows<T>& rows, std::int64_t i) const {
    const double scale = batch_size_ ? static_cast<double>(samples_.n_samples) / static_cast<double>(batch_size_) : 1;
    return scale * (rows.weights ? static_cast<double>(rows.weights[i]) : 1 / static_cast<double>(samples_.n_samples));
  }

  // From leaf sums to cotangents g_ik = s_i loss'_k(u_i), and their sums over the samples of the step.
  void differentiate(std::int64_t turn, const typename LeafSums<T>::Order& order, const Rows<T>& rows, Range block,
                     T* predictions, T* targets, T* cotangents, T* cotangent_totals, bool add) const {
    const std::int64_t outputs = network_.n_outputs, n = block.size(), padded = round_up(n, V::size);
    for (std::int64_t k = 0; k < outputs; ++k)
      sums_.total(turn, order, {k * stride_, k * stride_ + padded}, 1 / static_cast<double>(layout_.n_particles),
                  predictions);
    for (std::int64_t k = 0; k < target_width_; ++k)
      for (std::int64_t i = 0; i < n; ++i)
        targets[k * stride_ + i] = rows.targets[(block.begin + i) * target_width_ + k];
    loss_.derivative(predictions, targets, stride_, padded, outputs, loss_parameter_, cotangents);
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
      double total = add ? cotangent_totals[k] : 0;
      for (std::int64_t i = 0; i < n; ++i) total += cotangents[k * stride_ + i];
      cotangent_totals[k] = static_cast<T>(total);
    }
  }

  void add_loss(const Rows<T>& rows, Range block, const T* predictions, const T* targets, T* losses, bool add) {
    loss_.value(predictions, targets, stride_, round_up(block.size(), V::size), network_.n_outputs, loss_parameter_,
                losses);
    double sum = add ? loss_value_ : 0;
    for (std::int64_t i = 0; i < block.size(); ++i) sum += row_weight(rows, block.begin + i) * losses[i];
    loss_value_ = sum;
  }

  mfld_noise noise_at(std::int64_t step) const {
    return {noise_.key, noise_.step + static_cast<std::uint64_t>(step), noise_.population};
  }

  void finish(int member, Range mine, std::int64_t steps_done) {
    for (std::int64_t p = mine.begin; p < mine.end; ++p) layout_.unpack(panel(p), p, particles_);
    if (member == 0) steps_done_ = steps_done;
  }

  const NetworkPanel<T> network_;
  const LossKernel<T>& loss_;
  const T loss_parameter_;
  const std::int64_t target_width_;
  const mfld_samples& samples_;
  T* const particles_;
  const std::int64_t n_steps_, batch_size_;
  const mfld_schedule& schedule_;
  const mfld_noise& noise_;
  const PanelLayout<T> layout_;
  const SampleBlocks blocks_;
  const LeafSums<T> sums_;
  const std::int64_t stride_, gradient_size_;
  const double leaf_work_;  // multiply-adds of a leaf in one pass over a block of samples
  const int threads_;
  const Buffer<T> panels_, terms_, values_, slopes_, gradients_, scratch_;
  const Buffer<std::int64_t> row_scratch_;
  std::vector<BatchScratch> batch_scratch_;
  const Buffer<double> squared_norms_;
  const BatchQueue<T> batches_;
  StopSignal stop_;
  std::atomic<bool> diverged_[2] = {false, false};  // by the parity of the step: see StopSignal
  double loss_value_ = std::numeric_limits<double>::quiet_NaN();
  std::int64_t steps_done_ = 0;
};

}  // namespace

template <class T>
int advance(const mfld_network* network, const mfld_loss* loss, const mfld_samples* samples, void* particles,
            std::int64_t n_particles, std::int64_t n_steps, std::int64_t batch_size, const mfld_schedule* schedule,
            const mfld_noise* noise, mfld_report* report, const mfld_execution* execution) {
  return guarded([&] {
    return Advance<T>(*network, *loss, *samples, static_cast<T*>(particles), n_particles, n_steps, batch_size,
                      *schedule, *noise, *execution)
        .run(report);
  });
}

template int advance<float>(const mfld_network*, const mfld_loss*, const mfld_samples*, void*, std::int64_t,
                            std::int64_t, std::int64_t, const mfld_schedule*, const mfld_noise*, mfld_report*,
                            const mfld_execution*);
template int advance<double>(const mfld_network*, const mfld_loss*, const mfld_samples*, void*, std::int64_t,
                             std::int64_t, std::int64_t, const mfld_schedule*, const mfld_noise*, mfld_report*,
                             const mfld_execution*);

}  // namespace mfld
