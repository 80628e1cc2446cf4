// Activations and losses: what there is, and on whole arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

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

std::tuple<py::array, py::array, py::array> activation(const Backend& backend, int id, const py::array& z) {
  check_id(id, backend.table().n_activations, "activation");
  const bool wide = precision(z, "z");
  const std::vector<py::ssize_t> shape(z.shape(), z.shape() + z.ndim());
  const void* in = checked(z, "z", wide, shape);
  auto value = empty(wide, shape), slope = empty(wide, shape), curvature = empty(wide, shape);
  void *v = value.mutable_data(), *s = slope.mutable_data(), *c = curvature.mutable_data();
  run_or_throw(1, [&, n = z.size()](const mfld_execution* e) {
    return backend.kernels(wide).elementwise.activation(id, in, n, v, s, c, e);
  });
  return {value, slope, curvature};
}

double loss_smoothness(const Backend& backend, const mfld_loss& loss) {
  check_id(loss.id, backend.table().n_losses, "loss");
  return backend.table().loss_smoothness(&loss);
}

std::pair<py::array, py::array> evaluate_loss(const Backend& backend, const mfld_loss& loss,
                                              const py::array& predictions, const py::array& targets) {
  const bool wide = precision(predictions, "predictions");
  const void* u = checked(predictions, "predictions", wide, {-1, -1});
  const auto n = predictions.shape(0), k = predictions.shape(1);
  const void* y = checked(targets, "targets", wide, {n, backend.target_width(loss, k)});
  auto value = empty(wide, {n}), derivative = empty(wide, {n, k});
  run_or_throw(1, [&, v = value.mutable_data(), d = derivative.mutable_data()](const mfld_execution* e) {
    return backend.kernels(wide).elementwise.loss(&loss, u, y, n, k, v, d, e);
  });
  return {value, derivative};
}

py::array conjugate(const Backend& backend, const mfld_loss& loss, const py::array& dual, const py::array& targets) {
  const bool wide = precision(dual, "dual");
  const void* g = checked(dual, "dual", wide, {-1, -1});
  const auto n = dual.shape(0), k = dual.shape(1);
  const void* y = checked(targets, "targets", wide, {n, backend.target_width(loss, k)});
  auto value = empty(wide, {n});
  run_or_throw(1, [&, v = value.mutable_data()](const mfld_execution* e) {
    return backend.kernels(wide).elementwise.conjugate(&loss, g, y, n, k, v, e);
  });
  return value;
}

}  // namespace

void bind_elementwise(py::module_& m, BackendClass& backend) {
  py::class_<mfld_loss>(m, "Loss", "A loss as the kernels see it, by its index.")
      .def(py::init([](int id, double parameter) { return mfld_loss{id, parameter}; }), py::arg("id"),
           py::arg("parameter"));

  backend
      .def_property_readonly("activations",
                             [](const Backend& b) {
                               std::vector<std::string> names;
                               for (int i = 0; i < b.table().n_activations; ++i)
                                 names.emplace_back(b.table().activations[i].name);
                               return names;
                             })
      .def_property_readonly(
          "activation_bounds",
          [](const Backend& b) {
            std::vector<std::tuple<double, double, double>> out;
            for (int i = 0; i < b.table().n_activations; ++i) {
              const auto& info = b.table().activations[i];
              out.emplace_back(info.range.lowest, info.range.highest, info.steepest);
            }
            return out;
          },
          "(lowest, highest, largest slope in size) of each")
      .def_property_readonly(
          "losses",
          [](const Backend& b) {
            static constexpr const char* kinds[] = {"real", "sign", "class"};
            std::vector<std::tuple<std::string, std::optional<std::string>, double, std::string, bool>> out;
            for (int i = 0; i < b.table().n_losses; ++i) {
              const auto& l = b.table().losses[i];
              out.emplace_back(l.name, l.parameter ? std::optional<std::string>(l.parameter) : std::nullopt,
                               l.parameter_default, kinds[l.targets], l.convex != 0);
            }
            return out;
          },
          "(name, parameter, its default, kind of targets, convex) of each")
      .def("loss_smoothness", &loss_smoothness, py::arg("loss"))
      .def("activation", &activation, py::arg("activation"), py::arg("z"), "Value, slope and curvature; 0 at a kink.")
      .def("loss", &evaluate_loss, py::arg("loss"), py::arg("predictions"), py::arg("targets"))
      .def("conjugate", &conjugate, py::arg("loss"), py::arg("dual"), py::arg("targets"));
}

}  // namespace mfld::bindings
