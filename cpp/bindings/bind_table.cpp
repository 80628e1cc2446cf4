// What a build of the kernels says of itself.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <utility>

#include "arrays.hpp"
#include "backend.hpp"
#include "mfld/kernels.h"

namespace mfld::bindings {

void bind_table(BackendClass& backend) {
  backend.def(py::init<const std::string&>(), py::arg("path"))
      .def_property_readonly("isa", [](const Backend& b) { return std::string(b.table().isa); })
      .def_property_readonly("compiler", [](const Backend& b) { return std::string(b.table().compiler); })
      .def_property_readonly("eigen", [](const Backend& b) { return std::string(b.table().eigen); })
      .def_property_readonly("has_openmp", [](const Backend& b) { return b.table().has_openmp != 0; })
      .def_property_readonly("has_bfloat16", [](const Backend& b) { return b.table().has_bfloat16() != 0; })
      .def(
          "share",
          [](const Backend& b, std::int64_t n_particles, std::int64_t rank, std::int64_t n_ranks,
             const py::dtype& dtype) {
            if (n_particles < 1 || rank < 0 || rank >= n_ranks)
              throw py::value_error("n_particles must be positive, and rank between 0 and n_ranks - 1");
            std::pair<std::int64_t, std::int64_t> own;
            b.kernels(is_wide(dtype)).share(n_particles, rank, n_ranks, &own.first, &own.second);
            return own;
          },
          py::arg("n_particles"), py::arg("rank"), py::arg("n_ranks"), py::arg("dtype"),
          "The first particle of a rank, and the first behind its own.")
      .def("max_threads", [](const Backend& b) { return b.table().max_threads(); })
      .def("pause", [](const Backend& b) { return b.table().pause(); });
}

}  // namespace mfld::bindings
