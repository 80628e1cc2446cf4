// Replicates side by side: independent runs of one problem.
//
// They make rounds of steps, and stand at one count of steps behind each. What ends a round early, a stop or a
// divergence, leads back to its beginning, from where the steps before the bad one are made once more: steps are a pure
// function. Where one replicate is too little work for all threads, each thread makes the rounds of some of them.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "mfld/team.hpp"
#include "problem.hpp"
#include "sizes.hpp"
#include "walk.hpp"

namespace mfld {

// A combination of an anchor and moves.
template <class T>
struct Method {
  Scheme scheme;
  Reached (*advance)(const Problem<T>&, Workspace<T>&, const Stretch<T>&, const mfld_execution&);
};

template <class T>
class Replicates {
 public:
  Replicates(const Problem<T>& problem, const Method<T>& method, void* particles, std::int64_t n_replicates,
             std::int64_t n_steps, mfld_estimator& estimator, mfld_dynamics& dynamics,
             const mfld_coefficients* coefficients, const mfld_noise* noises, const mfld_execution& execution)
      : problem_(problem),
        method_(method),
        n_steps_(n_steps),
        estimator_(estimator),
        dynamics_(dynamics),
        coefficients_(coefficients),
        noises_(noises),
        execution_(execution),
        ranks_(execution),
        replicates_(static_cast<std::size_t>(n_replicates), {nullptr, estimator, dynamics, {}}) {
    const PanelLayout<T> layout(problem.n_particles, problem.network.n_coordinates());
    const std::int64_t cloud = problem.n_particles * layout.n_coordinates;
    clouds_ = {particles,        dynamics.velocities,      dynamics.force, dynamics.second_moment,
               estimator.anchor, estimator.anchor_gradient};
    split(particles, cloud, [](Replicate& r) -> void*& { return r.particles; });
    split(dynamics.velocities, cloud, [](Replicate& r) -> void*& { return r.dynamics.velocities; });
    split(dynamics.force, cloud, [](Replicate& r) -> void*& { return r.dynamics.force; });
    split(dynamics.second_moment, cloud, [](Replicate& r) -> void*& { return r.dynamics.second_moment; });
    split(estimator.anchor, cloud, [](Replicate& r) -> void*& { return r.estimator.anchor; });
    split(estimator.anchor_gradient, cloud, [](Replicate& r) -> void*& { return r.estimator.anchor_gradient; });
    split(estimator.anchor_predictions, problem.samples.n_samples * problem.network.n_outputs,
          [](Replicate& r) -> void*& { return r.estimator.anchor_predictions; });

    const double work = step_work();
    const int most = useful_threads(execution.num_threads, n_replicates,
                                    work * static_cast<double>(n_replicates) * static_cast<double>(n_steps));
    // Ranks make one replicate after the other: they meet within.
    const bool spread = !ranks_.several() && useful_threads(execution.num_threads, layout.n_leaves, work) < most;
    threads_ = spread ? most : 1;
    threads_within_ = spread ? 1 : execution.num_threads;
    sizes_ = sizes_of(problem, method.scheme, threads_within_, ranks_);
    for (int member = 0; member < threads_; ++member) memories_.emplace_back(problem, method.scheme, *sizes_, ranks_);
    // A rank writes its share of a cloud.
    for (Replicate& own : replicates_) {
      if (ranks_.apart()) break;
      const std::int64_t offset = sizes_->layout.first_particle * layout.n_coordinates;
      for (void** array : {&own.particles, &own.dynamics.velocities, &own.dynamics.force, &own.dynamics.second_moment,
                           &own.estimator.anchor, &own.estimator.anchor_gradient})
        if (*array) *array = static_cast<T*>(*array) + offset;
    }
    // A round is what a stop may lose: some tenths of a second, but enough to make little of its beginning, which moves
    // all arrays. One replicate on its own loses nothing.
    constexpr double round_work = 1e9, beginning = 2e3;
    const double part =
        std::max(round_work * threads_ / static_cast<double>(n_replicates), beginning * static_cast<double>(cloud));
    round_ = n_replicates == 1 ? n_steps : std::max<std::int64_t>(1, static_cast<std::int64_t>(part / work));
  }

  int run(mfld_report& report) {
    report.steps = 0;
    report.bad_replicate = report.bad_particle = -1;
    std::int64_t end = n_steps_;
    while (report.steps < end) {
      const std::int64_t count = std::min(round_, end - report.steps);
      if (ranks_.any(!keep())) return report.status = MFLD_STOPPED;
      const int status = make(report.steps, count);
      if (ranks_.only_sums()) return report.status = status;
      const auto first = std::min_element(replicates_.begin(), replicates_.end(), diverges_before);
      const bool diverged = first->reached.bad_particle >= 0;
      const bool whole = std::all_of(replicates_.begin(), replicates_.end(),
                                     [count](const Replicate& r) { return r.reached.steps == count; });
      if (!diverged && !ranks_.failed() && (whole || replicates_.size() == 1)) {
        estimator_.valid = first->estimator.valid;
        dynamics_.force_valid = first->dynamics.force_valid;
        report.steps += first->reached.steps;
      } else {
        for (const Array& array : arrays_) std::copy_n(array.kept.get(), array.size, array.data);
      }
      // A stop that was asked for is answered even if the steps ended first, or badly: the caller holds its reason.
      if (status == MFLD_STOPPED) {
        gather();
        return report.status = MFLD_STOPPED;
      }
      if (diverged) {
        end = report.steps + first->reached.steps;
        report.bad_replicate = first - replicates_.begin();
        report.bad_particle = first->reached.bad_particle;
      }
    }
    gather();
    if (ranks_.failed()) return report.status = MFLD_STOPPED;
    for (std::size_t r = 0; r < replicates_.size(); ++r) {
      report.loss[r] = replicates_[r].reached.loss;
      report.gradient_norm[r] = replicates_[r].reached.gradient_norm;
    }
    report.status = report.bad_particle < 0 ? MFLD_DONE : MFLD_DIVERGED;
    return MFLD_DONE;
  }

 private:
  struct Replicate {
    void* particles;
    mfld_estimator estimator;
    mfld_dynamics dynamics;
    Reached reached;
  };
  // Of all replicates: as it is, and as it was at the beginning of the round where steps may have changed it by the
  // time that the round leads back there.
  struct Array {
    T* data;
    std::int64_t size;
    Buffer<T> kept;
  };

  static bool diverges_before(const Replicate& a, const Replicate& b) {
    const bool diverged = a.reached.bad_particle >= 0;
    return diverged && (b.reached.bad_particle < 0 || a.reached.steps < b.reached.steps);
  }

  template <class Member>
  void split(void* array, std::int64_t each, const Member& member) {
    T* data = static_cast<T*>(array);
    const auto size = each * static_cast<std::int64_t>(replicates_.size());
    for (Replicate& replicate : replicates_) {
      member(replicate) = data;
      if (data) data += each;
    }
    // A divergence leaves the arrays of its replicate alone, but for the predictions: they are changed during the
    // steps.
    if (array && (replicates_.size() > 1 || array == estimator_.anchor_predictions))
      arrays_.push_back({static_cast<T*>(array), size, Buffer<T>(size)});
  }

  // From the shares of ranks to whole clouds.
  void gather() {
    if (ranks_.apart() || !ranks_.share_particles()) return;
    const PanelLayout<T>& layout = sizes_->layout;
    const std::int64_t size = problem_.n_particles * layout.n_coordinates;
    for (void* cloud : clouds_)
      for (std::size_t replicate = 0; cloud && replicate < replicates_.size(); ++replicate)
        ranks_.gather(static_cast<T*>(cloud) + static_cast<std::int64_t>(replicate) * size, [&](std::int64_t r) {
          const Range own = layout.particles_of(r, ranks_.count());
          return Range{own.begin * layout.n_coordinates, own.end * layout.n_coordinates};
        });
  }

  // Multiply-adds of a step of one replicate, and what it costs beside them.
  double step_work() const {
    const auto n = static_cast<double>(problem_.samples.n_samples);
    double rows = problem_.batch_size ? static_cast<double>(problem_.batch_size) : n;
    if (method_.scheme.corrects) rows = 2 * rows + n / static_cast<double>(estimator_.refresh_every);
    return 1e4 +
           2 * static_cast<double>(problem_.n_particles) * rows * static_cast<double>(problem_.network.n_features + 8);
  }

  // False: stopped on the way, where nothing has changed yet.
  bool keep() {
    constexpr std::int64_t at_once = 1 << 20;
    StopSignal stop(execution_);
    for (const Array& array : arrays_)
      for (std::int64_t first = 0; first < array.size; first += at_once) {
        const std::int64_t count = std::min(at_once, array.size - first);
        if (stop.asked(count)) return false;
        std::copy_n(array.data + first, count, &array.kept[first]);
      }
    return true;
  }

  // One round of all replicates.
  int make(std::int64_t done, std::int64_t count) {
    std::atomic<int> status = MFLD_DONE;
    run_team(threads_, [&](int member, int members, SpinBarrier&) {
      Question question = {member == 0 ? &execution_ : nullptr, status};
      const mfld_execution own = {threads_within_, &Question::ask, &question, nullptr};
      const Range mine = even_part(static_cast<std::int64_t>(replicates_.size()), member, members);
      for (std::int64_t r = mine.begin; r < mine.end; ++r) {
        replicates_[r].reached = {};
        // Ranks ask together, within.
        if (ranks_.several() || !Question::ask(&question)) make_one(r, done, count, memories_[member], own);
      }
    });
    return ranks_.any(status == MFLD_STOPPED) ? MFLD_STOPPED : MFLD_DONE;
  }

  void make_one(std::int64_t r, std::int64_t done, std::int64_t count, Workspace<T>& memory,
                const mfld_execution& execution) {
    Replicate& own = replicates_[r];
    own.estimator.valid = estimator_.valid;
    own.dynamics.force_valid = dynamics_.force_valid;
    const mfld_coefficients& all = coefficients_[r];
    const Stretch<T> stretch = {
        static_cast<T*>(own.particles),
        count,
        own.estimator,
        own.dynamics,
        {all.rows + done * all.stride, all.stride},
        {noises_[r].key, noises_[r].step + static_cast<std::uint64_t>(done), noises_[r].population},
        done};
    own.reached = method_.advance(problem_, memory, stretch, execution);
  }

  // Whether to stop: the calling thread asks its caller, the others look at what came of it.
  struct Question {
    const mfld_execution* asked;
    std::atomic<int>& status;
    static int ask(void* context) {
      auto& self = *static_cast<Question*>(context);
      if (self.asked && self.asked->poll && self.status == MFLD_DONE && self.asked->poll(self.asked->poll_context))
        self.status = MFLD_STOPPED;
      return self.status != MFLD_DONE;
    }
  };

  const Problem<T>& problem_;
  const Method<T>& method_;
  const std::int64_t n_steps_;
  mfld_estimator& estimator_;
  mfld_dynamics& dynamics_;
  const mfld_coefficients* const coefficients_;
  const mfld_noise* const noises_;
  const mfld_execution& execution_;
  Ranks ranks_;
  std::array<void*, 6> clouds_;  // that ranks share
  std::vector<Replicate> replicates_;
  std::vector<Array> arrays_;
  int threads_, threads_within_;
  std::optional<Sizes<T>> sizes_;
  std::deque<Workspace<T>> memories_;  // of each thread that makes replicates
  std::int64_t round_;
};

}  // namespace mfld
