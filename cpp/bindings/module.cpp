// The module: what it holds, one line for each group. No algorithm lives in these files.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "backend.hpp"
#include "processor.hpp"

namespace py = pybind11;
using namespace mfld::bindings;

// Nobody has run this without the interpreter lock: nothing says that it could, and a free-threaded Python locks.
PYBIND11_MODULE(_binding, m) {
  m.doc() = "NumPy arrays in, kernel calls out. Internal: the public interface is the package mfld.";
  m.attr("__version__") = MFLD_VERSION;
  m.def("cpu_runs", &cpu_runs, py::arg("level"), "Whether this processor and operating system run code of a level.");
  m.def("missing_features", &missing_features, py::arg("level"),
        "What code of a level needs and this processor or its operating system lacks.");

  BackendClass backend(m, "Backend", "The kernels of one instruction-set level.");
  bind_table(backend);
  bind_elementwise(m, backend);
  bind_network(m, backend);
  bind_pairs(m, backend);
  bind_moves(m, backend);
  bind_noise(m, backend);
  bind_advance(m, backend);
  bind_dense(m, backend);
  bind_dual(m, backend);
  bind_thinning(m, backend);
}
