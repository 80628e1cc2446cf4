// Stages of a two-layer network: neurons, predict, pull back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "mfld/kernels.h"
#include "run.hpp"

namespace mfld::bindings {
namespace {

std::pair<double, double> output_range(const Backend& backend, const mfld_network& network) {
  backend.n_coordinates(network);  // checks it
  const mfld_range range = backend.table().output_range(&network);
  return {range.lowest, range.highest};
}

double quadratic_growth(const Backend& backend, const mfld_network& network) {
  backend.n_coordinates(network);
  return backend.table().quadratic_growth(&network);
}

py::array neurons(const Backend& backend, const mfld_network& network, const py::array& particles,
                  const py::array& inputs, int num_threads) {
  const bool wide = precision(particles, "particles");
  const void* x = checked(particles, "particles", wide, {-1, backend.n_coordinates(network)});
  const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
  auto h = empty(wide, {inputs.shape(0), particles.shape(0), network.n_outputs});
  void* out = h.mutable_data();
  const auto m = particles.shape(0), n = inputs.shape(0);
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).network.neurons(&network, x, m, z, n, out, e);
  });
  return h;
}

py::array predict(const Backend& backend, const mfld_network& network, const py::array& particles,
                  const std::optional<py::array>& coefficients, const py::array& inputs, int num_threads,
                  const std::optional<Ranks>& ranks) {
  const bool wide = precision(particles, "particles");
  const void* x = checked(particles, "particles", wide, {-1, backend.n_coordinates(network)});
  const void* c = coefficients ? checked(*coefficients, "coefficients", wide, {particles.shape(0)}) : nullptr;
  const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
  auto predictions = empty(wide, {inputs.shape(0), network.n_outputs});
  void* out = predictions.mutable_data();
  const auto m = particles.shape(0), n = inputs.shape(0);
  run_or_throw(
      num_threads,
      [&](const mfld_execution* e) { return backend.kernels(wide).network.predict(&network, x, c, m, z, n, out, e); },
      ranks ? &*ranks : nullptr);
  return predictions;
}

std::pair<py::array, py::array> pull_back(const Backend& backend, const mfld_network& network,
                                          const py::array& particles, const py::array& inputs,
                                          const py::array& cotangent, int num_threads) {
  const bool wide = precision(particles, "particles");
  const auto p = backend.n_coordinates(network);
  const void* x = checked(particles, "particles", wide, {-1, p});
  const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
  const void* g = checked(cotangent, "cotangent", wide, {inputs.shape(0), network.n_outputs});
  const auto m = particles.shape(0), n = inputs.shape(0);
  auto values = empty(wide, {m}), gradient = empty(wide, {m, p});
  void *v = values.mutable_data(), *d = gradient.mutable_data();
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).network.pull_back(&network, x, m, z, n, g, v, d, e);
  });
  return {values, gradient};
}

py::array pull_back_rows(const Backend& backend, const mfld_network& network, const py::array& particles,
                         const py::array& inputs, const py::array& cotangent, const py::array_t<std::int64_t>& rows,
                         int num_threads) {
  const bool wide = precision(particles, "particles");
  const auto p = backend.n_coordinates(network);
  const void* x = checked(particles, "particles", wide, {-1, p});
  const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
  const void* g = checked(cotangent, "cotangent", wide, {inputs.shape(0), network.n_outputs});
  const auto m = particles.shape(0), n = inputs.shape(0);
  if (rows.ndim() != 2 || rows.shape(0) != m || !(rows.flags() & py::array::c_style))
    throw py::value_error("rows must be a contiguous array of shape (n_particles, batch_size)");
  const std::int64_t* r = rows.data();
  if (const auto bad = first_outside(r, rows.size(), n); bad >= 0)
    throw py::value_error("rows must be between 0 and " + std::to_string(n - 1) + ", got " + std::to_string(r[bad]));
  const auto batch_size = rows.shape(1);
  auto gradient = empty(wide, {m, p});
  void* d = gradient.mutable_data();
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).network.pull_back_rows(&network, x, m, z, g, r, batch_size, d, e);
  });
  return gradient;
}

// Gradients in the particles, None unless `both`, and in the inputs.
std::pair<std::optional<py::array>, py::array> pulled_back(const Backend& backend, const mfld_network& network,
                                                           const py::array& particles,
                                                           const std::optional<py::array>& coefficients,
                                                           const py::array& inputs, const py::array& cotangent,
                                                           bool both, int num_threads) {
  const bool wide = precision(particles, "particles");
  const auto p = backend.n_coordinates(network);
  const void* x = checked(particles, "particles", wide, {-1, p});
  const void* c = coefficients ? checked(*coefficients, "coefficients", wide, {particles.shape(0)}) : nullptr;
  const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
  const void* g = checked(cotangent, "cotangent", wide, {inputs.shape(0), network.n_outputs});
  const auto m = particles.shape(0), n = inputs.shape(0);
  auto gradient = empty(wide, {n, network.n_features});
  std::optional<py::array> of_particles;
  if (both) of_particles = empty(wide, {m, p});
  void* d = gradient.mutable_data();
  void* o = both ? of_particles->mutable_data() : nullptr;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).network.pull_back_inputs(&network, x, c, m, z, n, g, d, o, e);
  });
  return {of_particles, gradient};
}

py::array pull_back_inputs(const Backend& backend, const mfld_network& network, const py::array& particles,
                           const std::optional<py::array>& coefficients, const py::array& inputs,
                           const py::array& cotangent, int num_threads) {
  return pulled_back(backend, network, particles, coefficients, inputs, cotangent, false, num_threads).second;
}

std::pair<py::array, py::array> pull_back_both(const Backend& backend, const mfld_network& network,
                                               const py::array& particles, const std::optional<py::array>& coefficients,
                                               const py::array& inputs, const py::array& cotangent, int num_threads) {
  auto found = pulled_back(backend, network, particles, coefficients, inputs, cotangent, true, num_threads);
  return {*found.first, found.second};
}

std::pair<py::array_t<double>, py::array_t<double>> pull_back_clipped(const Backend& backend,
                                                                      const mfld_network& network,
                                                                      const mfld_loss& loss, const py::array& particles,
                                                                      const py::array& inputs, const py::array& targets,
                                                                      const std::vector<std::int64_t>& ends,
                                                                      double bound, int num_threads) {
  const bool wide = precision(particles, "particles");
  const auto p = backend.n_coordinates(network);
  const void* x = checked(particles, "particles", wide, {-1, p});
  const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
  const auto m = particles.shape(0), n = inputs.shape(0);
  const mfld_samples samples = {
      z, checked(targets, "targets", wide, {n, backend.target_width(loss, network.n_outputs)}), nullptr, n, 0, 0};
  if (m < 1) throw py::value_error("pull_back_clipped needs at least one particle");
  if (!std::is_sorted(ends.begin(), ends.end()) || ends.empty() || ends.front() < 0 || ends.back() != n)
    throw py::value_error("ends must increase to " + std::to_string(n) + ", the number of samples");
  if (!(bound > 0)) throw py::value_error("bound must be positive");
  py::array_t<double> norms(n), gradient({m, static_cast<py::ssize_t>(p)});
  double *lengths = norms.mutable_data(), *out = gradient.mutable_data();
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).network.pull_back_clipped(
        &network, &loss, x, m, &samples, ends.data(), static_cast<std::int64_t>(ends.size()), bound, lengths, out, e);
  });
  return {norms, gradient};
}

mfld_samples samples_of(const Backend& backend, const mfld_network& network, const mfld_loss& loss, bool wide,
                        const py::array& inputs, const py::array& targets, const std::optional<py::array>& weights) {
  const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
  const auto n = inputs.shape(0);
  const void* y = checked(targets, "targets", wide, {n, backend.target_width(loss, network.n_outputs)});
  return {z, y, weights ? checked(*weights, "weights", wide, {n}) : nullptr, n, 0, 0};
}

// Value and gradient of a risk, and what `risk_along` needs of these arguments.
std::tuple<double, py::array, py::array> risk_at(const Backend& backend, const mfld_network& network,
                                                 const mfld_loss& loss, const py::array& particles,
                                                 const py::array& inputs, const py::array& targets,
                                                 const std::optional<py::array>& weights, int num_threads) {
  const bool wide = precision(particles, "particles");
  const auto p = backend.n_coordinates(network);
  const void* x = checked(particles, "particles", wide, {-1, p});
  const mfld_samples samples = samples_of(backend, network, loss, wide, inputs, targets, weights);
  const auto m = particles.shape(0);
  if (m < 1 || samples.n_samples < 1) throw py::value_error("risk_at needs at least one particle and one sample");
  const mfld_network_kernels& kernels = backend.kernels(wide).network;
  auto gradient = empty(wide, {m, p}), kept = empty(wide, {kernels.risk_kept(&network, m, samples.n_samples)});
  void *d = gradient.mutable_data(), *k = kept.mutable_data();
  double value = 0;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return kernels.risk_at(&network, &loss, x, m, &samples, k, &value, d, e);
  });
  return {value, gradient, kept};
}

py::array risk_along(const Backend& backend, const mfld_network& network, const mfld_loss& loss,
                     const py::array& particles, const py::array& inputs, const py::array& targets,
                     const std::optional<py::array>& weights, const py::array& kept, const py::array& direction,
                     int num_threads) {
  const bool wide = precision(particles, "particles");
  const auto p = backend.n_coordinates(network);
  const void* x = checked(particles, "particles", wide, {-1, p});
  const mfld_samples samples = samples_of(backend, network, loss, wide, inputs, targets, weights);
  const auto m = particles.shape(0);
  const mfld_network_kernels& kernels = backend.kernels(wide).network;
  const void* k = checked(kept, "kept", wide, {kernels.risk_kept(&network, m, samples.n_samples)});
  const void* v = checked(direction, "direction", wide, {m, p});
  auto product = empty(wide, {m, p});
  void* out = product.mutable_data();
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return kernels.risk_along(&network, &loss, x, m, &samples, k, v, out, e);
  });
  return product;
}

}  // namespace

void bind_network(py::module_& m, BackendClass& backend) {
  py::class_<mfld_network>(m, "Network", "A two-layer network as the kernels see it; alternatives by their index.")
      .def(py::init([](std::int64_t n_features, std::int64_t n_outputs, bool has_bias, int activation, int readout,
                       double output_scale, double readout_bound) {
             return mfld_network{n_features, n_outputs, has_bias, activation, readout, output_scale, readout_bound};
           }),
           py::arg("n_features"), py::arg("n_outputs"), py::arg("has_bias"), py::arg("activation"), py::arg("readout"),
           py::arg("output_scale"), py::arg("readout_bound"));
  py::class_<Ranks>(m, "Ranks", "Processes that share the particles of a call, or its rows: all make it alike.")
      .def(py::init([](std::int64_t rank, std::int64_t n_ranks,
                       py::typing::Callable<void(py::bytes, py::memoryview)> exchange, std::int64_t n_particles,
                       bool only_sums, bool by_rows) {
             return Ranks::make(rank, n_ranks, std::move(exchange), n_particles, only_sums, by_rows);
           }),
           py::arg("rank"), py::arg("n_ranks"), py::arg("exchange"), py::arg("n_particles") = 0,
           py::arg("only_sums") = false, py::arg("by_rows") = false)
      .def_readonly("rank", &Ranks::rank)
      .def_readonly("n_ranks", &Ranks::n_ranks);
  backend
      .def_property_readonly(
          "readouts",
          [](const Backend& b) {
            std::vector<std::tuple<std::string, bool, bool>> out;
            for (int i = 0; i < b.table().n_readouts; ++i) {
              const auto& r = b.table().readouts[i];
              out.emplace_back(r.name, r.has_coordinates != 0, r.frozen != 0);
            }
            return out;
          },
          "(name, has coordinates, frozen) of each")
      .def("output_range", &output_range, py::arg("network"),
           "Lowest and highest value of one output h_k of a neuron, whatever theta and z.")
      .def("quadratic_growth", &quadratic_growth, py::arg("network"),
           "c of |h(theta, z)| <= c |theta|^2 |(z, 1)| + terms linear in theta, the 1 where there is a bias.")
      .def("neurons", &neurons, py::arg("network"), py::arg("particles"), py::arg("inputs"), py::arg("num_threads") = 1)
      .def("predict", &predict, py::arg("network"), py::arg("particles"), py::arg("coefficients").none(true),
           py::arg("inputs"), py::arg("num_threads") = 1, py::arg("ranks").none(true) = py::none())
      .def("pull_back", &pull_back, py::arg("network"), py::arg("particles"), py::arg("inputs"), py::arg("cotangent"),
           py::arg("num_threads") = 1)
      .def("pull_back_rows", &pull_back_rows, py::arg("network"), py::arg("particles"), py::arg("inputs"),
           py::arg("cotangent"), py::arg("rows"), py::arg("num_threads") = 1)
      .def("pull_back_inputs", &pull_back_inputs, py::arg("network"), py::arg("particles"),
           py::arg("coefficients").none(true), py::arg("inputs"), py::arg("cotangent"), py::arg("num_threads") = 1)
      .def("pull_back_both", &pull_back_both, py::arg("network"), py::arg("particles"),
           py::arg("coefficients").none(true), py::arg("inputs"), py::arg("cotangent"), py::arg("num_threads") = 1,
           "Gradients in the particles, as of `pull_back`, and in the inputs, in one pass.")
      .def("pull_back_clipped", &pull_back_clipped, py::arg("network"), py::arg("loss"), py::arg("particles"),
           py::arg("inputs"), py::arg("targets"), py::arg("ends"), py::arg("bound"), py::arg("num_threads") = 1)
      .def("risk_at", &risk_at, py::arg("network"), py::arg("loss"), py::arg("particles"), py::arg("inputs"),
           py::arg("targets"), py::arg("weights").none(true), py::arg("num_threads") = 1,
           "Value of a risk, gradient of its first variation, and what `risk_along` needs of these arguments.")
      .def("risk_along", &risk_along, py::arg("network"), py::arg("loss"), py::arg("particles"), py::arg("inputs"),
           py::arg("targets"), py::arg("weights").none(true), py::arg("kept"), py::arg("direction"),
           py::arg("num_threads") = 1, "The change of that gradient along a direction of all particles.");
}

}  // namespace mfld::bindings
