// What a build of the kernels says of itself.
#include <pybind11/pybind11.h>

#include <string>

#include "backend.hpp"
#include "mfld/kernels.h"

namespace mfld::bindings {

void bind_table(BackendClass& backend) {
  backend.def(py::init<const std::string&>(), py::arg("path"))
      .def_property_readonly("isa", [](const Backend& b) { return std::string(b.table().isa); })
      .def_property_readonly("compiler", [](const Backend& b) { return std::string(b.table().compiler); })
      .def_property_readonly("eigen", [](const Backend& b) { return std::string(b.table().eigen); })
      .def_property_readonly("has_openmp", [](const Backend& b) { return b.table().has_openmp != 0; })
      .def("max_threads", [](const Backend& b) { return b.table().max_threads(); })
      .def("pause", [](const Backend& b) { return b.table().pause(); });
}

}  // namespace mfld::bindings
