// Sums over pairs of points.
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
#include "pair_kernel.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

// The arguments that all sums share.
struct Arguments {
  mfld_pair_kernel kernel;
  bool wide;
  py::ssize_t n, p;
  const void* x;
  mfld_points y;

  Arguments(const Backend& backend, const PairKernel& given, const py::array& points, const py::array& others,
            const std::optional<py::array>& weights, int derivatives) {
    const mfld_pair_kernel_info& info = given.info(backend, kernel);
    if (info.derivatives < derivatives)
      throw py::value_error("kernel must have " + std::to_string(derivatives) + " derivatives for this, " + given.name +
                            " has " + std::to_string(info.derivatives));
    p = static_cast<py::ssize_t>(given.inverse_scales.size());
    wide = precision(points, "x");
    x = checked(points, "x", wide, {-1, p});
    n = points.shape(0);
    y.points = checked(others, "y", wide, {-1, p});
    y.n = others.shape(0);
    if (p < 1 || n < 1 || y.n < 1) throw py::value_error("x and y must have at least one point and coordinate");
    y.weights = weights ? checked(*weights, "weights", wide, {y.n}) : nullptr;
  }
};

std::pair<py::array, std::optional<py::array>> pair_sums(const Backend& backend, const PairKernel& kernel,
                                                         const py::array& x, const py::array& y,
                                                         const std::optional<py::array>& weights, bool with_gradient,
                                                         int num_threads) {
  const Arguments a(backend, kernel, x, y, weights, 1);
  auto values = empty(a.wide, {a.n});
  std::optional<py::array> gradient;
  if (with_gradient) gradient = empty(a.wide, {a.n, a.p});
  void *v = values.mutable_data(), *g = gradient ? gradient->mutable_data() : nullptr;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(a.wide).pairs.sums(&a.kernel, a.x, a.n, &a.y, a.p, v, g, e);
  });
  return {values, gradient};
}

py::array pair_pull_back(const Backend& backend, const PairKernel& kernel, const py::array& x, const py::array& y,
                         const py::array& y_vectors, const std::optional<py::array>& weights, double repulsion,
                         int num_threads) {
  const Arguments a(backend, kernel, x, y, weights, 1);
  const void* s = checked(y_vectors, "y_vectors", a.wide, {a.y.n, a.p});
  auto field = empty(a.wide, {a.n, a.p});
  void* f = field.mutable_data();
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(a.wide).pairs.pull_back(&a.kernel, a.x, a.n, &a.y, s, a.p, repulsion, f, e);
  });
  return field;
}

std::tuple<py::array, std::optional<py::array>, std::optional<py::array>> pair_stein(
    const Backend& backend, const PairKernel& kernel, const py::array& x, const py::array& x_vectors,
    const py::array& y, const py::array& y_vectors, const std::optional<py::array>& weights, bool with_gradient,
    int num_threads) {
  const Arguments a(backend, kernel, x, y, weights, with_gradient ? 3 : 2);
  const void* sx = checked(x_vectors, "x_vectors", a.wide, {a.n, a.p});
  const void* sy = checked(y_vectors, "y_vectors", a.wide, {a.y.n, a.p});
  auto values = empty(a.wide, {a.n});
  std::optional<py::array> gradient, field;
  if (with_gradient) {
    gradient = empty(a.wide, {a.n, a.p});
    field = empty(a.wide, {a.n, a.p});
  }
  void* v = values.mutable_data();
  void *g = gradient ? gradient->mutable_data() : nullptr, *f = field ? field->mutable_data() : nullptr;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(a.wide).pairs.stein(&a.kernel, a.x, sx, a.n, &a.y, sy, a.p, v, g, f, e);
  });
  return {values, gradient, field};
}

py::array gaussian_means(const Backend& backend, const std::vector<double>& inverse_scales, const py::array& x,
                         const py::array& y, const std::optional<py::array>& weights, int num_threads) {
  const Arguments a(backend, {"gaussian", 0, inverse_scales, {}}, x, y, weights, 1);
  auto means = empty(a.wide, {a.n, a.p});
  void* out = means.mutable_data();
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(a.wide).pairs.gaussian_means(inverse_scales.data(), a.x, a.n, &a.y, a.p, out, e);
  });
  return means;
}

}  // namespace

void bind_pairs(py::module_& m, BackendClass& backend) {
  py::class_<PairKernel>(m, "PairKernel", "A kernel of pairs of points as the core knows it.")
      .def(py::init([](std::string name, double parameter, std::vector<double> inverse_scales,
                       std::vector<double> coefficients) {
             return PairKernel{std::move(name), parameter, std::move(inverse_scales), std::move(coefficients)};
           }),
           py::arg("name"), py::arg("parameter"), py::arg("inverse_scales"), py::arg("coefficients"));
  backend
      .def_property_readonly(
          "pair_kernels",
          [](const Backend& b) {
            std::vector<std::tuple<std::string, bool, int>> out;
            for (int i = 0; i < b.table().n_pair_kernels; ++i) {
              const auto& k = b.table().pair_kernels[i];
              out.emplace_back(k.name, k.periodic != 0, k.derivatives);
            }
            return out;
          },
          "(name, periodic, derivatives) of each")
      .def("pair_sums", &pair_sums, py::arg("kernel"), py::arg("x"), py::arg("y"), py::arg("weights").none(true),
           py::arg("with_gradient"), py::arg("num_threads") = 1,
           "sum_j w_j k(x_i, y_j) for each point x_i, and its gradient in x_i.")
      .def("pair_pull_back", &pair_pull_back, py::arg("kernel"), py::arg("x"), py::arg("y"), py::arg("y_vectors"),
           py::arg("weights").none(true), py::arg("repulsion"), py::arg("num_threads") = 1,
           "sum_j w_j (k(x_i, y_j) s_j + repulsion grad_y k(x_i, y_j)) for each point x_i.")
      .def("pair_stein", &pair_stein, py::arg("kernel"), py::arg("x"), py::arg("x_vectors"), py::arg("y"),
           py::arg("y_vectors"), py::arg("weights").none(true), py::arg("with_gradient"), py::arg("num_threads") = 1,
           "sum_j w_j u(x_i, y_j) for each point x_i, its gradient at fixed vectors, and the field.")
      .def("gaussian_means", &gaussian_means, py::arg("inverse_scales"), py::arg("x"), py::arg("y"),
           py::arg("weights").none(true), py::arg("num_threads") = 1,
           "Mean of the points y under the weights w_j exp(-|a (x_i - y_j)|^2 / 2), for each point x_i.");
}

}  // namespace mfld::bindings
