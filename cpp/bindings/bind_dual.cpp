// Dual coordinate ascent.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "arrays.hpp"
#include "backend.hpp"
#include "mfld/kernels.h"
#include "run.hpp"

namespace mfld::bindings {
namespace {

std::int64_t dual_sweep(const Backend& backend, const mfld_network& network, const mfld_loss& loss,
                        const py::array& particles, const py::array& inputs, const py::array& targets,
                        const std::optional<py::array>& weights,
                        const py::array_t<std::int64_t, py::array::c_style>& rows,
                        const py::array_t<std::int64_t, py::array::c_style>& groups, double temperature,
                        double variance_bound, double neuron_bound, double effective_sample_size,
                        py::array& log_weights, py::array& dual, int num_threads, const std::optional<Ranks>& ranks) {
  const bool wide = precision(particles, "particles");
  const void* x = checked(particles, "particles", wide, {-1, backend.n_coordinates(network)});
  const auto m = particles.shape(0), n = inputs.ndim() == 2 ? inputs.shape(0) : 0;
  const mfld_samples samples = {checked(inputs, "inputs", wide, {-1, network.n_features}),
                                checked(targets, "targets", wide, {n, backend.target_width(loss, network.n_outputs)}),
                                weights ? checked(*weights, "weights", wide, {n}) : nullptr,
                                n,
                                0,
                                0};
  const std::int64_t* size = groups.data();
  std::int64_t members = 0;
  for (py::ssize_t g = 0; g < groups.size(); ++g) {
    if (size[g] < 1) throw py::value_error("groups must hold positive sizes");
    members += size[g];
  }
  if (members != m || m < 1) throw py::value_error("groups must have the number of particles as their sum");
  if (first_outside(rows.data(), rows.size(), n) >= 0) throw py::value_error("rows must be rows of the inputs");
  mfld_dual_sweep sweep = {rows.data(),
                           rows.size(),
                           size,
                           groups.size(),
                           temperature,
                           variance_bound,
                           neuron_bound,
                           effective_sample_size,
                           static_cast<double*>(checked_writable(log_weights, "log_weights", true, {m})),
                           static_cast<double*>(checked_writable(dual, "dual", true, {n, network.n_outputs})),
                           0};
  run_or_throw(
      num_threads,
      [&](const mfld_execution* e) {
        return backend.kernels(wide).dual_sweep(&network, &loss, &samples, x, m, &sweep, e);
      },
      ranks ? &*ranks : nullptr);
  return sweep.rows_done;
}

py::array dual_step(const Backend& backend, const mfld_loss& loss, const py::array& dual, const py::array& predictions,
                    const py::array& targets, const py::array& step) {
  const auto* g = static_cast<const double*>(checked(dual, "dual", true, {-1, -1}));
  const auto n = dual.shape(0), k = dual.shape(1);
  const auto* u = static_cast<const double*>(checked(predictions, "predictions", true, {n, k}));
  const auto* y = static_cast<const double*>(checked(targets, "targets", true, {n, backend.target_width(loss, k)}));
  const auto* a = static_cast<const double*>(checked(step, "step", true, {n}));
  auto stepped = empty(true, {n, k});
  auto* out = static_cast<double*>(stepped.mutable_data());
  run_or_throw(1, [&](const mfld_execution* e) {
    if (!copied(g, n * k, out, *e)) return static_cast<int>(MFLD_STOPPED);
    return backend.table().dual_step(&loss, out, u, y, a, n, k, e);
  });
  return stepped;
}

}  // namespace

void bind_dual(py::module_&, BackendClass& backend) {
  backend
      .def("dual_sweep", &dual_sweep, py::arg("network"), py::arg("loss"), py::arg("particles"), py::arg("inputs"),
           py::arg("targets"), py::arg("weights").none(true), py::arg("rows"), py::arg("groups"),
           py::arg("temperature"), py::arg("variance_bound"), py::arg("neuron_bound"), py::arg("effective_sample_size"),
           py::arg("log_weights"), py::arg("dual"), py::arg("num_threads") = 1,
           py::arg("ranks").none(true) = py::none())
      .def("dual_step", &dual_step, py::arg("loss"), py::arg("dual"), py::arg("predictions"), py::arg("targets"),
           py::arg("step"));
}

}  // namespace mfld::bindings
