// Dense systems.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "arrays.hpp"
#include "backend.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

const void* scale(const std::optional<py::array>& a, const char* name, bool wide, py::ssize_t size) {
  return a ? checked(*a, name, wide, {size}) : nullptr;
}

std::pair<py::array, bool> ridge_solve(const Backend& backend, const py::array& factor, double ridge,
                                       const py::array& right, int num_threads,
                                       const std::optional<py::array>& row_scale,
                                       const std::optional<py::array>& column_scale) {
  const bool wide = precision(factor, "factor");
  const void* b = checked(factor, "factor", wide, {-1, -1});
  const auto rows = factor.shape(0), columns = factor.shape(1);
  checked(right, "right", wide, {rows, -1});
  const void* of_rows = scale(row_scale, "row_scale", wide, rows);
  const void* of_columns = scale(column_scale, "column_scale", wide, columns);
  const auto n_right = right.shape(1);
  py::array solution = right.attr("copy")();
  void* x = solution.mutable_data();
  std::int32_t positive = 0;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).dense.ridge_solve(b, rows, columns, of_rows, of_columns, ridge, x, n_right, &positive,
                                                   e);
  });
  return {solution, positive != 0};
}

py::array product(const Backend& backend, const py::array& factor, const py::array& right, bool transposed,
                  int num_threads) {
  const bool wide = precision(factor, "factor");
  const void* f = checked(factor, "factor", wide, {-1, -1});
  const auto rows = factor.shape(0), columns = factor.shape(1);
  const void* x = checked(right, "right", wide, {transposed ? rows : columns, -1});
  const auto n_right = right.shape(1);
  py::array out = empty(wide, {transposed ? columns : rows, n_right});
  void* to = out.mutable_data();
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).dense.product(f, rows, columns, transposed, x, n_right, to, e);
  });
  return out;
}

}  // namespace

void bind_dense(py::module_&, BackendClass& backend) {
  backend.def("ridge_solve", &ridge_solve, py::arg("factor"), py::arg("ridge"), py::arg("right"),
              py::arg("num_threads") = 1, py::kw_only(), py::arg("row_scale") = py::none(),
              py::arg("column_scale") = py::none(),
              "Solution of (B B' + ridge I) x = right with B the scaled factor, and whether the matrix is positive.");
  backend.def("product", &product, py::arg("factor"), py::arg("right"), py::arg("transposed") = false,
              py::arg("num_threads") = 1, "Product of the factor, or of its transpose, and right.");
}

}  // namespace mfld::bindings
