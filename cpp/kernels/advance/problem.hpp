// The problem whose gradients the steps take, and the rows of data that each sees.
#pragma once

#include <algorithm>
#include <cstdint>

#include "domain.hpp"
#include "mfld/kernels.h"
#include "mfld/losses.hpp"
#include "mfld/panels.hpp"
#include "network.hpp"

namespace mfld {

// A risk, the domain of its particles, and how many of its rows a gradient sees.
template <class T>
struct Problem {
  NetworkPanel<T> network;
  const LossKernel<T>& loss;
  T loss_parameter;
  std::int64_t target_width;
  const mfld_samples& samples;
  Domain<T> domain;
  std::int64_t n_particles, batch_size;  // rows of a mini-batch, 0: there are none
  bool is_stream;                        // whose mini-batches are the samples in their order

  Problem(const mfld_network& description, const mfld_loss& loss_, const mfld_samples& samples_,
          const mfld_domain& domain_, std::int64_t n_particles_, const mfld_estimator& estimator)
      : network(description, samples_.bfloat16 != 0),
        loss(loss_kernels<T>[loss_.id]),
        loss_parameter(static_cast<T>(loss_.parameter)),
        target_width(loss_infos[loss_.id].targets == MFLD_TARGETS_CLASS ? 1 : network.n_outputs),
        samples(samples_),
        domain(domain_),
        n_particles(n_particles_),
        batch_size(estimator.batch_size),
        is_stream(estimator.kind == MFLD_STREAM) {}
};

// The steps of one call, or of one round of it, and what they change.
template <class T>
struct Stretch {
  T* particles;
  std::int64_t n_steps;
  mfld_estimator& estimator;
  mfld_dynamics& dynamics;
  mfld_coefficients coefficients;
  mfld_noise noise;
  std::int64_t done;  // steps of the call before it

  // Of the move of step q.
  const double* row(std::int64_t q) const { return coefficients.rows + q * coefficients.stride; }
  mfld_noise noise_at(std::int64_t q) const {
    return {noise.key, noise.step + static_cast<std::uint64_t>(q), noise.population};
  }
};

// Rows of data as one gradient sees them: all of them, or the gathered rows of a mini-batch.
template <class T>
struct Rows {
  const T* inputs;
  const T* targets;
  const T* weights;  // may be null: all equal
  std::int64_t count;
};

template <class T>
Rows<T> all_rows(const mfld_samples& samples) {
  return {static_cast<const T*>(samples.inputs), static_cast<const T*>(samples.targets),
          static_cast<const T*>(samples.weights), samples.n_samples};
}

// A block of them, on its way through the passes of gradient q.
template <class T>
struct Block {
  std::int64_t q, turn;  // turn: how many blocks came before it in the call
  const Rows<T>& rows;
  Range range;
  std::int64_t stride;  // of the activations that a panel keeps
  bool first;           // of the gradient, whose sums it starts

  std::int64_t size() const { return range.size(); }
};

// Mini-batches, gathered a step ahead of their use. Three take turns: while one member still pulls back batch k,
// another may gather batch k + 1, and the barrier of step k + 1 lies between that and batch k + 3.
//
// Those of a stream are read where they are: `number` counts batches from the first sample on.
template <class T>
class BatchQueue {
 public:
  explicit BatchQueue(const Problem<T>& problem)
      : samples_(problem.samples),
        row_width_(problem.network.row_width()),
        target_width_(problem.target_width),
        batch_size_(problem.is_stream ? 0 : problem.batch_size),
        inputs_(3 * batch_size_ * row_width_),
        targets_(3 * batch_size_ * target_width_),
        weights_(samples_.weights ? 3 * batch_size_ : 0) {}

  Rows<T> rows(std::int64_t step) const {
    const std::int64_t turn = step % 3 * batch_size_;
    return {&inputs_[turn * row_width_], &targets_[turn * target_width_], samples_.weights ? &weights_[turn] : nullptr,
            batch_size_};
  }

  static Rows<T> of_stream(const Problem<T>& problem, std::int64_t number) {
    const Rows<T> all = all_rows<T>(problem.samples);
    const std::int64_t first = number * problem.batch_size;
    return {all.inputs + first * problem.network.row_width(), all.targets + first * problem.target_width, nullptr,
            problem.batch_size};
  }

  // One member's part of the gathering; `chosen` are the rows of that step. gives_up(rows): see floyd_batch.
  template <class GivesUp>
  void gather(std::int64_t step, const std::int64_t* chosen, Range mine, const GivesUp& gives_up) const {
    const std::int64_t turn = step % 3 * batch_size_;
    const Rows<T> all = all_rows<T>(samples_);
    for (std::int64_t i = mine.begin; i < mine.end && !gives_up(1); ++i) {
      const std::int64_t row = chosen[i];
      std::copy_n(all.inputs + row * row_width_, row_width_, &inputs_[(turn + i) * row_width_]);
      std::copy_n(all.targets + row * target_width_, target_width_, &targets_[(turn + i) * target_width_]);
      if (all.weights) weights_[turn + i] = all.weights[row];
    }
  }

 private:
  const mfld_samples& samples_;
  std::int64_t row_width_, target_width_, batch_size_;
  Buffer<T> inputs_, targets_, weights_;
};

}  // namespace mfld
