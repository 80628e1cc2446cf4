// The fused loop and the sweep of dual coordinates from C++, where the sanitizers see all of it: shapes that fill no
// panel, leaf, tile or register; batches; several outputs; threads. What is right is tested from Python
// (tests/test_kernels.py); here: no fault, no race, the same bytes.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "entries.hpp"
#include "mfld/losses.hpp"
#include "network.hpp"

namespace {

struct Shape {
  std::int64_t particles, samples, features, outputs, batch;
  int activation, readout;
};

template <class T>
std::vector<T> numbers(std::uint64_t key, std::int64_t rows, std::int64_t columns) {
  std::vector<T> out(static_cast<std::size_t>(rows * columns));
  const mfld_noise noise = {key, 0, 0};
  const mfld_execution execution = {1, nullptr, nullptr, nullptr};
  mfld::normals<T>(&noise, MFLD_STREAM_INIT, 1, 0, rows, columns, out.data(), &execution);
  return out;
}

constexpr std::int64_t most_replicates = 5;

struct Report : mfld_report {
  double losses[most_replicates] = {}, norms[most_replicates] = {};
  Report() : mfld_report{-1, -1, -1, -1, losses, norms} {}
  Report(const Report&) = delete;
};

// Of each replicate.
constexpr double affine_rows[][3] = {
    {0.004, 0.1, 0.045}, {0.002, 0.05, 0.03}, {0.001, 0.02, 0.02}, {0.003, 0.07, 0.04}, {0.001, 0.03, 0.02}};
constexpr double baoab_rows[][4] = {{0.05, 0.002, 0.86, 0.05},
                                    {0.025, 0.001, 0.93, 0.04},
                                    {0.01, 0.0005, 0.97, 0.02},
                                    {0.035, 0.001, 0.9, 0.04},
                                    {0.015, 0.0005, 0.96, 0.03}};
constexpr mfld_domain flat = {nullptr, 0};

template <class T>
struct Problem {
  mfld_network network;
  std::vector<T> particles, inputs, targets;
  std::int64_t n_particles, n_samples, batch;

  explicit Problem(const Shape& shape)
      : network{shape.features, shape.outputs, 1, shape.activation, shape.readout, 1.5, 2.0},
        n_particles(shape.particles),
        n_samples(shape.samples),
        batch(shape.batch) {
    const mfld::NetworkPanel<T> panel(network);
    particles = numbers<T>(1, most_replicates * n_particles, panel.n_coordinates());
    inputs = numbers<T>(2, n_samples, shape.features);
    targets = numbers<T>(3, n_samples, shape.outputs);
  }

  std::size_t cloud() const { return particles.size() / most_replicates; }

  // Of the estimators and dynamics that kernels.h numbers; the replicates from `first` on. All that the steps changed,
  // of one replicate after the other.
  std::vector<T> advanced(int threads, std::int64_t steps, mfld_report& report, int estimator_kind, int dynamics_kind,
                          std::int64_t first = 0, std::int64_t n_replicates = 1) const {
    const std::vector<T> all = advanced({threads, nullptr, nullptr, nullptr}, steps, report, estimator_kind,
                                        dynamics_kind, first, n_replicates);
    CHECK(report.status == MFLD_DONE);
    return all;
  }

  std::vector<T> advanced(const mfld_execution& execution, std::int64_t steps, mfld_report& report, int estimator_kind,
                          int dynamics_kind, std::int64_t first = 0, std::int64_t n_replicates = 1) const {
    const auto begin = particles.begin() + static_cast<std::ptrdiff_t>(cloud()) * first;
    std::vector<T> moved(begin, begin + static_cast<std::ptrdiff_t>(cloud()) * n_replicates);
    std::vector<T> velocities = moved, force(moved.size()), anchor(moved.size()), anchor_gradient(moved.size()),
                   predictions(static_cast<std::size_t>(n_replicates * n_samples * network.n_outputs));
    mfld_estimator estimator = {};
    estimator.kind = estimator_kind;
    estimator.batch_size = batch;
    if (estimator_kind == MFLD_SVRG || estimator_kind == MFLD_SARAH) {
      estimator.refresh_every = 3;
      estimator.anchor = anchor.data();
      estimator.anchor_gradient = anchor_gradient.data();
      if (estimator_kind == MFLD_SVRG) estimator.anchor_predictions = predictions.data();
    }
    mfld_dynamics dynamics = {};
    dynamics.kind = dynamics_kind;
    if (dynamics_kind == MFLD_BAOAB) {
      dynamics.velocities = velocities.data();
      dynamics.force = force.data();
    }
    const mfld_loss half_squared = {1, 0};
    const mfld_samples samples = {inputs.data(), targets.data(), nullptr, n_samples, 0, 0};
    std::vector<mfld_coefficients> coefficients;
    std::vector<mfld_noise> noises;
    for (std::int64_t r = first; r < first + n_replicates; ++r) {
      coefficients.push_back({dynamics_kind == MFLD_BAOAB ? baoab_rows[r] : affine_rows[r], 0});
      noises.push_back({42 + static_cast<std::uint64_t>(r), 7, 1});
    }
    const int status =
        mfld::advance<T>(&network, &half_squared, &samples, moved.data(), n_replicates, n_particles, steps, &estimator,
                         &dynamics, coefficients.data(), &flat, noises.data(), &report, &execution);
    CHECK(status == (report.status == MFLD_STOPPED ? MFLD_STOPPED : MFLD_DONE));
    std::vector<T> all;
    for (std::int64_t r = 0; r < n_replicates; ++r)
      for (const auto* array : {&moved, &velocities, &force, &anchor, &anchor_gradient, &predictions}) {
        const auto each = static_cast<std::ptrdiff_t>(array->size()) / n_replicates;
        all.insert(all.end(), array->begin() + r * each, array->begin() + (r + 1) * each);
      }
    return all;
  }

  // Log-weights and dual variables after a sweep over all rows, particles in two groups where there are two.
  std::vector<double> swept(int threads, int loss, double temperature) const {
    const bool classes = mfld::loss_infos[loss].targets == MFLD_TARGETS_CLASS;
    std::vector<T> labels(static_cast<std::size_t>(n_samples));
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<T>(i % network.n_outputs);
    const mfld_samples samples = {inputs.data(), classes ? labels.data() : targets.data(), nullptr, n_samples, 0, 0};
    std::vector<std::int64_t> rows(static_cast<std::size_t>(n_samples));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
    const std::int64_t groups[] = {n_particles - n_particles / 3, n_particles / 3};
    std::vector<double> log_weights(static_cast<std::size_t>(n_particles)),
        dual(static_cast<std::size_t>(n_samples * network.n_outputs));
    mfld_dual_sweep sweep = {
        rows.data(),        n_samples,   groups, groups[1] > 0 ? 2 : 1, temperature, 4.0 * network.n_outputs, 3.0, 1e-9,
        log_weights.data(), dual.data(), 0};
    const mfld_loss description = {loss, 0};
    const mfld_execution execution = {threads, nullptr, nullptr, nullptr};
    CHECK(mfld::dual_sweep<T>(&network, &description, &samples, particles.data(), n_particles, &sweep, &execution) ==
          MFLD_DONE);
    CHECK(sweep.rows_done == n_samples);
    log_weights.insert(log_weights.end(), dual.begin(), dual.end());
    return log_weights;
  }
};

// Two ranks that are threads. A meeting fails where they bring different numbers of bytes, or one has ended its call.
class Meeting {
 public:
  bool exchange(int rank, void* slots, std::int64_t size) {
    std::unique_lock<std::mutex> lock(mutex_);
    slots_[rank] = {static_cast<char*>(slots), size};
    if (++arrived_ == 2) {
      arrived_ = 0;
      ++meetings_;
      agree_ = slots_[0].size == slots_[1].size;
      for (const int other : {0, 1})
        if (agree_)
          std::memcpy(slots_[other].data + (1 - other) * size, slots_[1 - other].data + (1 - other) * size, size);
      changed_.notify_all();
    } else {
      changed_.wait(lock, [this, now = meetings_] { return meetings_ != now || one_left_; });
    }
    return agree_ && !one_left_;
  }
  void leave() {
    const std::lock_guard<std::mutex> lock(mutex_);
    one_left_ = arrived_ > 0;
    changed_.notify_all();
  }

 private:
  struct Slots {
    char* data;
    std::int64_t size;
  };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<Slots, 2> slots_ = {};
  int arrived_ = 0, meetings_ = 0;
  bool agree_ = true, one_left_ = false;
};

struct RankOfTwo {
  Meeting* meeting;
  int rank;
  std::int64_t stop_at, polls = 0;  // the poll that says stop, and those so far

  static int exchange(void* self, void* slots, std::int64_t size) {
    const auto& own = *static_cast<RankOfTwo*>(self);
    return own.meeting->exchange(own.rank, slots, size) ? 0 : 1;
  }
  static int poll(void* self) {
    auto& own = *static_cast<RankOfTwo*>(self);
    return ++own.polls == own.stop_at ? 1 : 0;
  }
};

}  // namespace

TEST_CASE_TEMPLATE("a stop of one rank, at whichever poll, ends both after the same step", T, float, double) {
  struct Kind {
    int estimator, dynamics;
    bool by_rows;
    Shape shape;
  };
  // Gradients of one leaf of rows in several blocks, of several leaves, and of batches of one block and of several.
  const Shape some_rows = {700, 3000, 6, 2, 0, 0, 2}, many_rows = {130, 33000, 3, 1, 0, 0, 2},
              one_block = {700, 3000, 6, 1, 64, 0, 2}, blocks = {2100, 3000, 6, 1, 900, 0, 2};
  for (const Kind& kind : {Kind{MFLD_FULL_BATCH, MFLD_AFFINE, false, some_rows},
                           {MFLD_FULL_BATCH, MFLD_AFFINE, false, many_rows},
                           {MFLD_FULL_BATCH, MFLD_BAOAB, false, many_rows},
                           {MFLD_FULL_BATCH, MFLD_AFFINE, true, some_rows},
                           {MFLD_FULL_BATCH, MFLD_BAOAB, true, many_rows},
                           {MFLD_MINIBATCH, MFLD_AFFINE, false, one_block},
                           {MFLD_MINIBATCH, MFLD_BAOAB, false, blocks},
                           {MFLD_SVRG, MFLD_AFFINE, false, blocks},
                           {MFLD_SARAH, MFLD_BAOAB, false, one_block}}) {
    const Problem<T> problem(kind.shape);
    constexpr std::int64_t steps = 3;
    std::array<std::vector<T>, steps + 1> reached;  // by the steps made
    for (std::int64_t made = 1; made <= steps; ++made) {
      Report report;
      reached[made] = problem.advanced(1, made, report, kind.estimator, kind.dynamics);
    }
    reached[0] = problem.particles;
    bool stopped = true;
    for (std::int64_t stop_at = 1; stopped; stop_at += 1 + stop_at / 16) {
      CAPTURE(stop_at);
      Meeting meeting;
      RankOfTwo ranks[] = {{&meeting, 0, stop_at}, {&meeting, 1, -1}};
      Report reports[2];
      std::vector<T> moved[2];
      const auto call = [&](int rank) {
        const mfld_ranks of_two = {rank, 2, kind.by_rows, &RankOfTwo::exchange, &ranks[rank], 0, 0};
        const mfld_execution execution = {2 - rank, &RankOfTwo::poll, &ranks[rank], &of_two};
        moved[rank] = problem.advanced(execution, steps, reports[rank], kind.estimator, kind.dynamics);
        meeting.leave();
      };
      std::thread other(call, 1);
      call(0);
      other.join();
      stopped = ranks[0].polls >= stop_at;
      const std::int64_t made = reports[0].steps;
      for (const int rank : {0, 1}) {
        REQUIRE(reports[rank].status == (stopped ? MFLD_STOPPED : MFLD_DONE));
        REQUIRE(reports[rank].steps == made);
        REQUIRE(std::memcmp(moved[rank].data(), reached[made].data(), problem.cloud() * sizeof(T)) == 0);
      }
    }
  }
}

TEST_CASE_TEMPLATE("the same bytes for any number of threads", T, float, double) {
  const Shape shapes[] = {{1, 1, 1, 1, 0, 0, 2},       {7, 13, 5, 1, 4, 1, 0},      {1001, 333, 17, 3, 0, 6, 2},
                          {333, 250, 65, 1, 33, 0, 3}, {2100, 97, 3, 11, 50, 4, 4}, {129, 500, 40, 2, 0, 8, 1}};
  for (const Shape& shape : shapes) {
    const Problem<T> problem(shape);
    for (const int estimator : {MFLD_FULL_BATCH, MFLD_MINIBATCH, MFLD_SVRG, MFLD_SARAH})
      for (const int dynamics : {MFLD_AFFINE, MFLD_BAOAB}) {
        if ((estimator == MFLD_FULL_BATCH) != (shape.batch == 0)) continue;
        Report first, other;
        const std::vector<T> alone = problem.advanced(1, 4, first, estimator, dynamics);
        CHECK(first.status == MFLD_DONE);
        CHECK(first.steps == 4);
        for (const int threads : {2, 3, 7}) {
          const std::vector<T> together = problem.advanced(threads, 4, other, estimator, dynamics);
          CHECK(std::memcmp(alone.data(), together.data(), alone.size() * sizeof(T)) == 0);
          CHECK(first.loss[0] == other.loss[0]);
          CHECK(first.gradient_norm[0] == other.gradient_norm[0]);
        }
      }
  }
}

TEST_CASE_TEMPLATE("each replicate is its own run", T, float, double) {
  for (const Shape& shape : {Shape{7, 5, 3, 2, 0, 0, 2}, {50, 20, 2, 1, 6, 0, 2}, {700, 300, 20, 1, 200, 1, 2}}) {
    const Problem<T> problem(shape);
    for (const int estimator : {MFLD_FULL_BATCH, MFLD_MINIBATCH, MFLD_SVRG, MFLD_SARAH})
      for (const int dynamics : {MFLD_AFFINE, MFLD_BAOAB}) {
        if ((estimator == MFLD_FULL_BATCH) != (shape.batch == 0)) continue;
        std::vector<T> alone;
        Report single[most_replicates], together;
        for (std::int64_t r = 0; r < most_replicates; ++r)
          for (const T value : problem.advanced(1, 4, single[r], estimator, dynamics, r)) alone.push_back(value);
        for (const int threads : {1, 2, 7}) {
          const std::vector<T> all = problem.advanced(threads, 4, together, estimator, dynamics, 0, most_replicates);
          CHECK(std::memcmp(alone.data(), all.data(), alone.size() * sizeof(T)) == 0);
          for (std::int64_t r = 0; r < most_replicates; ++r) {
            CHECK(together.loss[r] == single[r].loss[0]);
            CHECK(together.gradient_norm[r] == single[r].gradient_norm[0]);
          }
        }
      }
  }
}

TEST_CASE_TEMPLATE("a stop leaves whole steps only", T, float, double) {
  for (const std::int64_t n_replicates : {1, 3}) {
    // Of few particles, whose replicates are spread over the threads, and of many.
    for (const std::int64_t n_particles : {60, 2000}) {
      const Problem<T> problem({n_particles, 400, 20, 1, 32, 0, 2});
      std::vector<T> moved(problem.particles.begin(),
                           problem.particles.begin() + static_cast<std::ptrdiff_t>(problem.cloud()) * n_replicates);
      const mfld_loss half_squared = {1, 0};
      const mfld_samples samples = {problem.inputs.data(), problem.targets.data(), nullptr, problem.n_samples, 0, 0};
      const mfld_coefficients coefficients[] = {{affine_rows[0], 0}, {affine_rows[1], 0}, {affine_rows[2], 0}};
      const mfld_noise noises[] = {{42, 7, 1}, {43, 7, 1}, {44, 7, 1}};
      int calls = 0;
      const mfld_execution execution = {2, [](void* count) { return int(++*static_cast<int*>(count) > 3000); }, &calls,
                                        nullptr};
      Report report, again;
      mfld_estimator estimator = {};
      estimator.kind = MFLD_MINIBATCH;
      estimator.batch_size = 32;
      mfld_dynamics dynamics = {};
      CHECK(mfld::advance<T>(&problem.network, &half_squared, &samples, moved.data(), n_replicates, n_particles,
                             1 << 20, &estimator, &dynamics, coefficients, &flat, noises, &report,
                             &execution) == MFLD_STOPPED);
      CHECK(report.status == MFLD_STOPPED);
      REQUIRE(report.steps > 0);
      for (std::int64_t r = 0; r < n_replicates; ++r) {
        const std::vector<T> redone = problem.advanced(1, report.steps, again, MFLD_MINIBATCH, MFLD_AFFINE, r);
        CHECK(std::memcmp(&moved[static_cast<std::size_t>(r) * problem.cloud()], redone.data(),
                          problem.cloud() * sizeof(T)) == 0);
      }
    }
  }
}

TEST_CASE_TEMPLATE("a sweep of dual coordinates: the same bytes for any number of threads", T, float, double) {
  // Those of 9000 particles are swept by all of three threads, the others by one while the rest fill.
  const Shape shapes[] = {
      {1, 1, 1, 1, 0, 0, 3}, {13, 150, 5, 1, 0, 0, 3}, {1001, 70, 17, 3, 0, 0, 3}, {9000, 21, 3, 2, 0, 0, 3}};
  constexpr int half_squared = 1, cross_entropy = 7;
  for (const Shape& shape : shapes) {
    const Problem<T> problem(shape);
    for (const int loss : {half_squared, cross_entropy})
      for (const double temperature : {1e-3, 10.0}) {  // weights that are made anew all the time, and that hardly move
        const std::vector<double> alone = problem.swept(1, loss, temperature);
        for (const double value : alone) CHECK(std::isfinite(value));
        for (const int threads : {2, 3, 7}) {
          const std::vector<double> together = problem.swept(threads, loss, temperature);
          CHECK(std::memcmp(alone.data(), together.data(), alone.size() * sizeof(double)) == 0);
        }
      }
  }
}
