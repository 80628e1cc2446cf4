// The fused loop from C++, where the sanitizers see all of it: shapes that fill no panel, leaf, tile or register;
// batches; several outputs; threads. What is right is tested from Python (tests/test_kernels.py); here: no fault, no
// race, the same bytes.
#include <doctest/doctest.h>

#include <cstring>
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
  const mfld_execution execution = {1, nullptr, nullptr};
  mfld::normals<T>(&noise, MFLD_STREAM_INIT, rows, columns, out.data(), &execution);
  return out;
}

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
    particles = numbers<T>(1, n_particles, panel.n_coordinates());
    inputs = numbers<T>(2, n_samples, shape.features);
    targets = numbers<T>(3, n_samples, shape.outputs);
  }

  // Of the estimators and dynamics that kernels.h numbers.
  std::vector<T> advanced(int threads, std::int64_t steps, mfld_report& report, int estimator_kind,
                          int dynamics_kind) const {
    std::vector<T> moved = particles, velocities = particles, force(particles.size()), anchor(particles.size()),
                   anchor_gradient(particles.size()),
                   predictions(static_cast<std::size_t>(n_samples * network.n_outputs));
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
      dynamics.friction = 1.5;
      dynamics.velocities = velocities.data();
      dynamics.force = force.data();
    }
    const mfld_loss half_squared = {1, 0};
    const mfld_samples samples = {inputs.data(), targets.data(), nullptr, n_samples};
    const double step_size = 0.1, temperature = 0.01, l2 = 0.02;
    const mfld_schedule schedule = {&step_size, &temperature, &l2, 0};
    const mfld_noise noise = {42, 7, 1};
    const mfld_execution execution = {threads, nullptr, nullptr};
    CHECK(mfld::advance<T>(&network, &half_squared, &samples, moved.data(), n_particles, steps, &estimator, &dynamics,
                           &schedule, &noise, &report, &execution) == MFLD_DONE);
    for (const auto* more : {&velocities, &force, &anchor, &anchor_gradient, &predictions})
      moved.insert(moved.end(), more->begin(), more->end());
    return moved;
  }
};

}  // namespace

TEST_CASE_TEMPLATE("the same bytes for any number of threads", T, float, double) {
  const Shape shapes[] = {{1, 1, 1, 1, 0, 0, 2},       {7, 13, 5, 1, 4, 1, 0},      {1001, 333, 17, 3, 0, 6, 2},
                          {333, 250, 65, 1, 33, 0, 3}, {2100, 97, 3, 11, 50, 4, 4}, {129, 500, 40, 2, 0, 8, 1}};
  for (const Shape& shape : shapes) {
    const Problem<T> problem(shape);
    for (const int estimator : {MFLD_FULL_BATCH, MFLD_MINIBATCH, MFLD_SVRG, MFLD_SARAH})
      for (const int dynamics : {MFLD_OVERDAMPED, MFLD_BAOAB}) {
        if ((estimator == MFLD_FULL_BATCH) != (shape.batch == 0)) continue;
        mfld_report first = {}, other = {};
        const std::vector<T> alone = problem.advanced(1, 4, first, estimator, dynamics);
        CHECK(first.status == MFLD_DONE);
        CHECK(first.steps == 4);
        for (const int threads : {2, 3, 7}) {
          const std::vector<T> together = problem.advanced(threads, 4, other, estimator, dynamics);
          CHECK(std::memcmp(alone.data(), together.data(), alone.size() * sizeof(T)) == 0);
          CHECK(first.loss == other.loss);
          CHECK(first.gradient_norm == other.gradient_norm);
        }
      }
  }
}

TEST_CASE_TEMPLATE("a stop leaves whole steps only", T, float, double) {
  const Problem<T> problem({2000, 400, 20, 1, 32, 0, 2});
  std::vector<T> moved = problem.particles;
  const mfld_loss half_squared = {1, 0};
  const mfld_samples samples = {problem.inputs.data(), problem.targets.data(), nullptr, problem.n_samples};
  const double step_size = 0.1, temperature = 0.01, l2 = 0.02;
  const mfld_schedule schedule = {&step_size, &temperature, &l2, 0};
  const mfld_noise noise = {42, 7, 1};
  int calls = 0;
  const mfld_execution execution = {2, [](void* count) { return int(++*static_cast<int*>(count) > 1000); }, &calls};
  mfld_report report = {};
  mfld_estimator estimator = {};
  estimator.kind = MFLD_MINIBATCH;
  estimator.batch_size = 32;
  mfld_dynamics dynamics = {};
  CHECK(mfld::advance<T>(&problem.network, &half_squared, &samples, moved.data(), 2000, 1 << 20, &estimator, &dynamics,
                         &schedule, &noise, &report, &execution) == MFLD_STOPPED);
  CHECK(report.status == MFLD_STOPPED);
  REQUIRE(report.steps > 0);
  mfld_report again = {};
  const std::vector<T> redone = problem.advanced(1, report.steps, again, MFLD_MINIBATCH, MFLD_OVERDAMPED);
  CHECK(std::memcmp(moved.data(), redone.data(), moved.size() * sizeof(T)) == 0);
}
