// Dense systems.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>

#include "arrays.hpp"
#include "backend.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

std::pair<py::array, std::int64_t> ridge_solve(const Backend& backend, const py::array& factor, double ridge,
                                               const py::array& right, int num_threads) {
  const bool wide = precision(factor, "factor");
  const void* b = checked(factor, "factor", wide, {-1, -1});
  const auto rows = factor.shape(0), columns = factor.shape(1);
  checked(right, "right", wide, {rows, -1});
  const auto n_right = right.shape(1);
  py::array solution = right.attr("copy")();
  void* x = solution.mutable_data();
  std::int64_t bad_row = -1;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).dense.ridge_solve(b, rows, columns, ridge, x, n_right, &bad_row, e);
  });
  return {solution, bad_row};
}

}  // namespace

void bind_dense(py::module_&, BackendClass& backend) {
  backend.def("ridge_solve", &ridge_solve, py::arg("factor"), py::arg("ridge"), py::arg("right"),
              py::arg("num_threads") = 1,
              "Solution of (B B' + ridge I) x = right, and the first row without a positive pivot, or -1.");
}

}  // namespace mfld::bindings
