// The fused loop: many steps of mean-field Langevin dynamics in one call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "domain.hpp"
#include "mfld/kernels.h"
#include "pair_kernel.hpp"
#include "place.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

// Arrays that a call changes in place belong to Python: held here, checked where their sizes are known.
struct Estimator {
  std::int32_t kind;
  std::int64_t batch_size, refresh_every;
  std::optional<py::array> anchor, anchor_gradient, anchor_predictions;
  bool valid;

  static Estimator make(const std::string& kind, std::int64_t batch_size, std::int64_t refresh_every,
                        std::optional<py::array> anchor, std::optional<py::array> anchor_gradient,
                        std::optional<py::array> anchor_predictions, bool valid) {
    static constexpr const char* names[] = {"full_batch", "minibatch", "svrg", "sarah", "stream"};
    return {index_of(kind, names, "kind of an estimator"),
            batch_size,
            refresh_every,
            std::move(anchor),
            std::move(anchor_gradient),
            std::move(anchor_predictions),
            valid};
  }
  bool anchored() const { return kind == MFLD_SVRG || kind == MFLD_SARAH; }
};

struct Dynamics {
  std::int32_t kind;
  std::optional<py::array> velocities, force, second_moment;
  bool force_valid;
  double decay, epsilon;
  std::uint64_t frozen_from;

  static Dynamics make(const std::string& kind, std::optional<py::array> velocities, std::optional<py::array> force,
                       bool force_valid, std::optional<py::array> second_moment, double decay, double epsilon,
                       std::optional<std::uint64_t> frozen_from) {
    static constexpr const char* names[] = {"affine", "baoab", "preconditioned"};
    return {index_of(kind, names, "kind of a dynamics"),
            std::move(velocities),
            std::move(force),
            std::move(second_moment),
            force_valid,
            decay,
            epsilon,
            frozen_from.value_or(std::numeric_limits<std::uint64_t>::max())};
  }
};

// One coefficient of each replicate and step: a number, or an array of shape (1 or n_replicates, 1 or n_steps).
class Column {
 public:
  explicit Column(const py::object& numbers) {
    if (PyFloat_Check(numbers.ptr()))
      number_ = numbers.cast<double>();
    else
      array_ = py::array_t<double, py::array::forcecast>(numbers);
  }

  std::int64_t replicates() const { return array_ ? extent(0) : 1; }
  std::int64_t steps() const { return array_ ? extent(1) : 1; }
  double at(std::int64_t r, std::int64_t k) const {
    return array_ ? *array_->data(replicates() == 1 ? 0 : r, steps() == 1 ? 0 : k) : number_;
  }

 private:
  std::int64_t extent(py::ssize_t axis) const { return array_->ndim() == 2 ? array_->shape(axis) : -1; }

  double number_ = 0;
  std::optional<py::array_t<double, py::array::forcecast>> array_;
};

// Rows of coefficients as the kernels take them.
class Rows {
 public:
  Rows(const std::vector<py::object>& numbers, std::int32_t kind, std::int64_t n_replicates, std::int64_t n_steps) {
    const std::int64_t width = kind == MFLD_BAOAB ? 4 : 3;
    const std::vector<Column> columns(numbers.begin(), numbers.end());
    if (static_cast<std::int64_t>(columns.size()) != width)
      throw py::value_error("coefficients must be " + std::to_string(width) + " for this kind, got " +
                            std::to_string(columns.size()));
    std::int64_t replicates = 1, steps = 1;
    for (const Column& column : columns) {
      const auto fits = [](std::int64_t extent, std::int64_t all) { return extent == 1 || extent == all; };
      if (!fits(column.replicates(), n_replicates) || !fits(column.steps(), n_steps))
        throw py::value_error("coefficients must be numbers, or have shapes (1 or n_replicates, 1 or n_steps)");
      replicates = std::max(replicates, column.replicates());
      steps = std::max(steps, column.steps());
    }
    rows_.reserve(static_cast<std::size_t>(replicates * steps * width));
    for (std::int64_t r = 0; r < replicates; ++r)
      for (std::int64_t k = 0; k < steps; ++k)
        for (const Column& column : columns) rows_.push_back(column.at(r, k));
    for (std::int64_t r = 0; r < n_replicates; ++r)
      each_.push_back({rows_.data() + (replicates == 1 ? 0 : r * steps * width), steps == 1 ? 0 : width});
  }
  const mfld_coefficients* each() const { return each_.data(); }

 private:
  std::vector<double> rows_;
  std::vector<mfld_coefficients> each_;
};

struct Report {
  std::string status;
  std::int64_t steps = 0;
  std::optional<std::pair<std::int64_t, std::int64_t>> bad;
  std::vector<double> loss, gradient_norm;
  py::object exception = py::none();

  void take(const mfld_report& raw, bool finished) {
    steps = raw.steps;
    if (raw.status == MFLD_DIVERGED) bad = {raw.bad_replicate, raw.bad_particle};
    status = bad ? "diverged" : !finished ? "stopped" : "done";
    if (finished) return;
    // Handed over rather than raised: the caller first saves the state that the steps so far led to.
    py::error_already_set error;
    exception = error.value();
    if (error.trace()) PyException_SetTraceback(exception.ptr(), error.trace().ptr());
  }
};

Report advance(const Backend& backend, const mfld_network& network, const mfld_loss& loss, py::array& particles,
               const py::array& inputs, const py::array& targets, const std::optional<py::array>& weights,
               Estimator& estimator, Dynamics& dynamics, const std::vector<py::object>& coefficients,
               std::int64_t n_steps, const std::vector<std::uint64_t>& keys, std::uint64_t step,
               std::int64_t population, int num_threads, const std::optional<Domain>& domain,
               const std::optional<Ranks>& ranks, bool on_disk) {
  const bool wide = precision(particles, "particles");
  const auto p = backend.n_coordinates(network);
  void* x = checked_writable(particles, "particles", wide, {-1, -1, p});
  const auto r = particles.shape(0), m = particles.shape(1), n = inputs.ndim() == 2 ? inputs.shape(0) : 0;
  // Words of two bfloat16 numbers say themselves that products are to be of these.
  const bool bfloat16 = py::isinstance<py::array_t<std::uint32_t>>(inputs);
  if (bfloat16 && (wide || on_disk || !backend.table().has_bfloat16()))
    throw py::value_error("inputs of bfloat16 need float32 particles, memory, and a processor with such products");
  const mfld_samples samples = {bfloat16
                                    ? checked_as<std::uint32_t>(inputs, "inputs", {-1, (network.n_features + 1) / 2})
                                    : checked(inputs, "inputs", wide, {-1, network.n_features}),
                                checked(targets, "targets", wide, {n, backend.target_width(loss, network.n_outputs)}),
                                weights ? checked(*weights, "weights", wide, {n}) : nullptr,
                                n,
                                on_disk,
                                bfloat16};
  if (r < 1 || m < 1 || n < 1) throw py::value_error("advance needs at least one particle and one sample");
  const bool apart = ranks && ranks->n_particles > 0;
  const std::int64_t n_particles = apart ? ranks->n_particles : m;
  if (apart) {
    std::int64_t begin = 0, end = 0;
    backend.kernels(wide).share(n_particles, ranks->rank, ranks->n_ranks, &begin, &end);
    if (r != 1 || n_steps != 1 || m != end - begin)
      throw py::value_error("particles apart must be those of the share, of one replicate and one step: " +
                            std::to_string(end - begin) + ", got " + std::to_string(m));
  }
  if (static_cast<py::ssize_t>(keys.size()) != r)
    throw py::value_error("keys must have length " + std::to_string(r) + ", the number of replicates, got " +
                          std::to_string(keys.size()));
  if (n_steps < 1) throw py::value_error("n_steps must be at least 1, got " + std::to_string(n_steps));
  const bool batches = estimator.kind != MFLD_FULL_BATCH;
  if (estimator.batch_size < (batches ? 1 : 0) || estimator.batch_size > (batches ? n : 0))
    throw py::value_error("batch_size must be between 1 and " + std::to_string(n) + ", or 0 for the full batch, got " +
                          std::to_string(estimator.batch_size));
  if (batches && ranks && ranks->by_rows)
    throw py::value_error("ranks must share particles and not rows where there are mini-batches");
  if (estimator.anchored() && estimator.refresh_every < 1)
    throw py::value_error("refresh_every must be at least 1, got " + std::to_string(estimator.refresh_every));
  // A BAOAB run takes one more gradient, at the step after the last.
  const std::int64_t n_gradients = n_steps + (dynamics.kind == MFLD_BAOAB ? 1 : 0);
  if (estimator.kind == MFLD_STREAM && (n != n_gradients * estimator.batch_size || weights))
    throw py::value_error("inputs of a stream must be " + std::to_string(n_gradients * estimator.batch_size) +
                          " without weights, batch_size for each gradient, got " + std::to_string(n));
  const Rows rows(coefficients, dynamics.kind, r, n_steps);
  const KernelDomain on(domain, backend.n_moving(network));
  if (domain && dynamics.kind != MFLD_AFFINE) throw py::value_error("domain must be None for this kind of a dynamics");
  std::vector<mfld_noise> noises;
  const Drawn drawn = {n_gradients, std::max<std::int64_t>(n_particles, estimator.batch_size),
                       p,           normals_per_block(wide),
                       "particles", "particles"};
  for (const std::uint64_t key : keys) noises.push_back(place_of(key, step, population, drawn));
  mfld_estimator e = {estimator.kind, estimator.batch_size, estimator.refresh_every, nullptr, nullptr, nullptr, 0};
  if (estimator.anchored()) {
    e.anchor = needed(estimator.anchor, "anchor", wide, {r, m, p});
    e.anchor_gradient = needed(estimator.anchor_gradient, "anchor_gradient", wide, {r, m, p});
    e.valid = estimator.valid;
  }
  if (estimator.kind == MFLD_SVRG)
    e.anchor_predictions = needed(estimator.anchor_predictions, "anchor_predictions", wide, {r, n, network.n_outputs});
  mfld_dynamics d = {dynamics.kind, nullptr,        nullptr,          0,
                     nullptr,       dynamics.decay, dynamics.epsilon, dynamics.frozen_from};
  if (dynamics.kind == MFLD_PRECONDITIONED)
    d.second_moment = needed(dynamics.second_moment, "second_moment", wide, {r, m, p});
  if (dynamics.kind == MFLD_BAOAB) {
    d.velocities = needed(dynamics.velocities, "velocities", wide, {r, m, p});
    d.force = needed(dynamics.force, "force", wide, {r, m, p});
    d.force_valid = dynamics.force_valid;
  }
  Report report;
  report.loss.resize(keys.size());
  report.gradient_norm.resize(keys.size());
  mfld_report raw = {0, 0, -1, -1, report.loss.data(), report.gradient_norm.data()};
  const auto kernel = [&](const mfld_execution* execution) {
    return backend.kernels(wide).advance(&network, &loss, &samples, x, r, n_particles, n_steps, &e, &d, rows.each(),
                                         on.get(), noises.data(), &raw, execution);
  };
  const bool finished = run(num_threads, kernel, ranks ? &*ranks : nullptr);
  estimator.valid = e.valid != 0;
  dynamics.force_valid = d.force_valid != 0;
  report.take(raw, finished);
  return report;
}

Report advance_pairs(const Backend& backend, const PairKernel& own, double own_factor, const PairKernel& cross,
                     double cross_factor, py::array& particles, std::int64_t n_moving, const py::array& target,
                     const std::optional<py::array>& weights, const std::vector<py::object>& coefficients,
                     std::int64_t n_steps, const std::vector<std::uint64_t>& keys, std::uint64_t step,
                     std::int64_t population, int num_threads, const std::optional<Domain>& domain) {
  const bool wide = precision(particles, "particles");
  const auto p = static_cast<py::ssize_t>(own.inverse_scales.size());
  if (cross.inverse_scales.size() != own.inverse_scales.size())
    throw py::value_error("cross must be of " + std::to_string(p) + " coordinates like own");
  void* x = checked_writable(particles, "particles", wide, {-1, -1, p});
  const auto r = particles.shape(0), m = particles.shape(1);
  const void* points = checked(target, "target", wide, {-1, p});
  const auto n = target.shape(0);
  if (r < 1 || m < 1 || n < 1 || p < 1) throw py::value_error("particles and target must have at least one point");
  if (static_cast<py::ssize_t>(keys.size()) != r)
    throw py::value_error("keys must have length " + std::to_string(r) + ", the number of replicates, got " +
                          std::to_string(keys.size()));
  if (n_steps < 1) throw py::value_error("n_steps must be at least 1, got " + std::to_string(n_steps));
  if (n_moving < 0 || n_moving > p)
    throw py::value_error("n_moving must be between 0 and " + std::to_string(p) + ", got " + std::to_string(n_moving));
  const Rows rows(coefficients, MFLD_AFFINE, r, n_steps);
  const KernelDomain on(domain, n_moving);
  std::vector<mfld_noise> noises;
  const Drawn drawn = {n_steps, m, n_moving, normals_per_block(wide), "particles", "particles"};
  for (const std::uint64_t key : keys) noises.push_back(place_of(key, step, population, drawn));
  mfld_pair_kernel among, across;
  own.info(backend, among);
  cross.info(backend, across);
  const mfld_discrepancy discrepancy = {&among,
                                        &across,
                                        own_factor,
                                        cross_factor,
                                        {points, weights ? checked(*weights, "weights", wide, {n}) : nullptr, n}};
  const mfld_shape shape = {1, m, p, n_moving, 0};
  mfld_report raw = {MFLD_DONE, 0, -1, -1, nullptr, nullptr};
  const bool finished = run(num_threads, [&](const mfld_execution* execution) {
    return backend.kernels(wide).advance_pairs(&discrepancy, x, r, &shape, n_steps, rows.each(), on.get(),
                                               noises.data(), &raw, execution);
  });
  Report report;
  report.take(raw, finished);
  return report;
}

}  // namespace

void bind_advance(py::module_& m, BackendClass& backend) {
  py::class_<Estimator>(m, "Estimator", "How gradients are estimated; its buffers are changed in place.")
      .def(py::init(&Estimator::make), py::arg("kind"), py::arg("batch_size") = 0, py::arg("refresh_every") = 0,
           py::arg("anchor").none(true) = py::none(), py::arg("anchor_gradient").none(true) = py::none(),
           py::arg("anchor_predictions").none(true) = py::none(), py::arg("valid") = false)
      .def_readonly("batch_size", &Estimator::batch_size, "rows of a mini-batch, or 0")
      .def_property_readonly(
          "anchored", [](const Estimator& e) { return e.anchored(); }, "whether it has an anchor for each particle")
      .def_readonly("valid", &Estimator::valid, "whether the buffers hold what the next step needs");
  py::class_<Dynamics>(m, "Dynamics", "How steps move particles; its buffers are changed in place.")
      .def(py::init(&Dynamics::make), py::arg("kind"), py::arg("velocities").none(true) = py::none(),
           py::arg("force").none(true) = py::none(), py::arg("force_valid") = false,
           py::arg("second_moment").none(true) = py::none(), py::arg("decay") = 0.0, py::arg("epsilon") = 0.0,
           py::arg("frozen_from").none(true) = py::none())
      .def_property_readonly(
          "affine", [](const Dynamics& d) { return d.kind == MFLD_AFFINE; },
          "whether a step is affine in particle, gradient and noise")
      .def_property_readonly(
          "looks_ahead", [](const Dynamics& d) { return d.kind == MFLD_BAOAB; },
          "whether a step ends with a gradient where it leads")
      .def_readonly("valid", &Dynamics::force_valid, "whether force is the gradient at the particles");

  py::class_<Report>(m, "Report", "How a native run of steps ended.")
      .def_readonly("status", &Report::status, "'done', 'stopped' or 'diverged'")
      .def_readonly("steps", &Report::steps, "whole steps, made by all replicates")
      .def_readonly("bad", &Report::bad, "replicate and particle that the next step makes not finite first, or None")
      .def_readonly("loss", &Report::loss,
                    "weighted mean loss over the rows of the last gradient, of each replicate, when done")
      .def_readonly("gradient_norm", &Report::gradient_norm,
                    "root mean square over particles of |b|, by the last gradient, of each replicate, when done")
      .def_readonly("exception", &Report::exception, "what a signal handler raised, when stopped");

  backend.def("advance", &advance, py::arg("network"), py::arg("loss"), py::arg("particles"), py::arg("inputs"),
              py::arg("targets"), py::arg("weights").none(true), py::arg("estimator"), py::arg("dynamics"),
              py::arg("coefficients"), py::arg("n_steps"), py::arg("keys"), py::arg("step"), py::arg("population") = 0,
              py::arg("num_threads") = 1, py::arg("domain").none(true) = py::none(),
              py::arg("ranks").none(true) = py::none(), py::arg("on_disk") = false);
  backend.def("advance_pairs", &advance_pairs, py::arg("own"), py::arg("own_factor"), py::arg("cross"),
              py::arg("cross_factor"), py::arg("particles"), py::arg("n_moving"), py::arg("target"),
              py::arg("weights").none(true), py::arg("coefficients"), py::arg("n_steps"), py::arg("keys"),
              py::arg("step"), py::arg("population") = 0, py::arg("num_threads") = 1,
              py::arg("domain").none(true) = py::none(),
              "Affine steps down a discrepancy; losses and norms of the report are empty.");
}

}  // namespace mfld::bindings
