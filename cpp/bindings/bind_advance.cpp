// The fused loop: many steps of mean-field Langevin dynamics in one call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "mfld/kernels.h"
#include "place.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

template <std::size_t n>
std::int32_t index_of(const std::string& kind, const char* const (&names)[n], const char* what) {
  std::string known;
  for (std::size_t i = 0; i < n; ++i) {
    if (kind == names[i]) return static_cast<std::int32_t>(i);
    known += (i ? ", " : "") + std::string(names[i]);
  }
  throw py::value_error(std::string(what) + " must be one of " + known + ", got " + kind);
}

// Arrays that a call changes in place belong to Python: held here, checked where their sizes are known.
struct Estimator {
  std::int32_t kind;
  std::int64_t batch_size, refresh_every;
  std::optional<py::array> anchor, anchor_gradient, anchor_predictions;
  bool valid;

  static Estimator make(const std::string& kind, std::int64_t batch_size, std::int64_t refresh_every,
                        std::optional<py::array> anchor, std::optional<py::array> anchor_gradient,
                        std::optional<py::array> anchor_predictions, bool valid) {
    static constexpr const char* names[] = {"full_batch", "minibatch", "svrg", "sarah"};
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
  double friction;
  std::optional<py::array> velocities, force;
  bool force_valid;

  static Dynamics make(const std::string& kind, double friction, std::optional<py::array> velocities,
                       std::optional<py::array> force, bool force_valid) {
    static constexpr const char* names[] = {"overdamped", "baoab"};
    return {index_of(kind, names, "kind of a dynamics"), friction, std::move(velocities), std::move(force),
            force_valid};
  }
};

struct Report {
  std::string status;
  std::int64_t steps = 0;
  std::optional<std::pair<std::int64_t, std::int64_t>> bad;
  std::vector<double> loss, gradient_norm;
  py::object exception = py::none();
};

Report advance(const Backend& backend, const mfld_network& network, const mfld_loss& loss, py::array& particles,
               const py::array& inputs, const py::array& targets, const std::optional<py::array>& weights,
               Estimator& estimator, Dynamics& dynamics, const py::array& step_size, const py::array& temperature,
               const py::array& l2, std::int64_t n_steps, const std::vector<std::uint64_t>& keys, std::uint64_t step,
               std::int64_t population, int num_threads) {
  const bool wide = precision(particles, "particles");
  const auto p = backend.n_coordinates(network);
  void* x = checked_writable(particles, "particles", wide, {-1, -1, p});
  const auto r = particles.shape(0), m = particles.shape(1), n = inputs.ndim() == 2 ? inputs.shape(0) : 0;
  const mfld_samples samples = {checked(inputs, "inputs", wide, {-1, network.n_features}),
                                checked(targets, "targets", wide, {n, backend.target_width(loss, network.n_outputs)}),
                                weights ? checked(*weights, "weights", wide, {n}) : nullptr, n};
  if (r < 1 || m < 1 || n < 1) throw py::value_error("advance needs at least one particle and one sample");
  if (static_cast<py::ssize_t>(keys.size()) != r)
    throw py::value_error("keys must have length " + std::to_string(r) + ", the number of replicates, got " +
                          std::to_string(keys.size()));
  if (n_steps < 1) throw py::value_error("n_steps must be at least 1, got " + std::to_string(n_steps));
  const bool batches = estimator.kind != MFLD_FULL_BATCH;
  if (estimator.batch_size < (batches ? 1 : 0) || estimator.batch_size > (batches ? n : 0))
    throw py::value_error("batch_size must be between 1 and " + std::to_string(n) + ", or 0 for the full batch, got " +
                          std::to_string(estimator.batch_size));
  if (estimator.anchored() && estimator.refresh_every < 1)
    throw py::value_error("refresh_every must be at least 1, got " + std::to_string(estimator.refresh_every));
  const auto length = temperature.ndim() == 1 ? temperature.shape(0) : -1;
  if (length != 1 && length != n_steps) throw py::value_error("temperature must have length 1 or n_steps");
  const auto rows = step_size.ndim() == 2 && step_size.shape(0) == 1 ? 1 : r;  // one for all, or one for each
  const auto* h = static_cast<const double*>(checked(step_size, "step_size", true, {rows, length}));
  const auto* t = static_cast<const double*>(checked(temperature, "temperature", true, {length}));
  const auto* ridge = static_cast<const double*>(checked(l2, "l2", true, {length}));
  std::vector<mfld_schedule> schedules;
  std::vector<mfld_noise> noises;
  // A BAOAB run takes one more gradient, at the step after the last.
  const Drawn drawn = {n_steps + (dynamics.kind == MFLD_BAOAB ? 1 : 0),
                       std::max<std::int64_t>(m, estimator.batch_size),
                       p,
                       normals_per_block(wide),
                       "particles",
                       "particles"};
  for (py::ssize_t i = 0; i < r; ++i) {
    schedules.push_back({h + (rows == 1 ? 0 : i * length), t, ridge, length == 1 ? 0 : 1});
    noises.push_back(place_of(keys[i], step, population, drawn));
  }
  mfld_estimator e = {estimator.kind, estimator.batch_size, estimator.refresh_every, nullptr, nullptr, nullptr, 0};
  if (estimator.anchored()) {
    e.anchor = needed(estimator.anchor, "anchor", wide, {r, m, p});
    e.anchor_gradient = needed(estimator.anchor_gradient, "anchor_gradient", wide, {r, m, p});
    e.valid = estimator.valid;
  }
  if (estimator.kind == MFLD_SVRG)
    e.anchor_predictions = needed(estimator.anchor_predictions, "anchor_predictions", wide, {r, n, network.n_outputs});
  mfld_dynamics d = {dynamics.kind, dynamics.friction, nullptr, nullptr, 0};
  if (dynamics.kind == MFLD_BAOAB) {
    d.velocities = needed(dynamics.velocities, "velocities", wide, {r, m, p});
    d.force = needed(dynamics.force, "force", wide, {r, m, p});
    d.force_valid = dynamics.force_valid;
  }
  Report report;
  report.loss.resize(keys.size());
  report.gradient_norm.resize(keys.size());
  mfld_report raw = {0, 0, -1, -1, report.loss.data(), report.gradient_norm.data()};
  const bool finished = run(num_threads, [&](const mfld_execution* execution) {
    return backend.kernels(wide).advance(&network, &loss, &samples, x, r, m, n_steps, &e, &d, schedules.data(),
                                         noises.data(), &raw, execution);
  });
  estimator.valid = e.valid != 0;
  dynamics.force_valid = d.force_valid != 0;
  report.steps = raw.steps;
  if (raw.status == MFLD_DIVERGED) report.bad = {raw.bad_replicate, raw.bad_particle};
  report.status = report.bad ? "diverged" : !finished ? "stopped" : "done";
  if (!finished) {
    // Handed over rather than raised: the caller first saves the state that the steps so far led to.
    py::error_already_set error;
    report.exception = error.value();
    if (error.trace()) PyException_SetTraceback(report.exception.ptr(), error.trace().ptr());
  }
  return report;
}

}  // namespace

void bind_advance(py::module_& m, BackendClass& backend) {
  py::class_<Estimator>(m, "Estimator", "How gradients are estimated; its buffers are changed in place.")
      .def(py::init(&Estimator::make), py::arg("kind"), py::arg("batch_size") = 0, py::arg("refresh_every") = 0,
           py::arg("anchor").none(true) = py::none(), py::arg("anchor_gradient").none(true) = py::none(),
           py::arg("anchor_predictions").none(true) = py::none(), py::arg("valid") = false)
      .def_readonly("valid", &Estimator::valid, "whether the buffers hold what the next step needs");
  py::class_<Dynamics>(m, "Dynamics", "How steps move particles; its buffers are changed in place.")
      .def(py::init(&Dynamics::make), py::arg("kind"), py::arg("friction") = 0.0,
           py::arg("velocities").none(true) = py::none(), py::arg("force").none(true) = py::none(),
           py::arg("force_valid") = false)
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
              py::arg("step_size"), py::arg("temperature"), py::arg("l2"), py::arg("n_steps"), py::arg("keys"),
              py::arg("step"), py::arg("population") = 0, py::arg("num_threads") = 1);
}

}  // namespace mfld::bindings
