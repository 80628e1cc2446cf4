// Kernel thinning: rows of points in, rows of few of them out.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "mfld/kernels.h"
#include "pair_kernel.hpp"
#include "place.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

using Rows = py::array_t<std::int64_t>;

// The arguments that all parts share; rows are copied, since they are reordered.
struct Arguments {
  mfld_pair_kernel kernel = {};
  bool wide;
  py::ssize_t p;
  const void* points;
  std::vector<std::int64_t> rows;

  Arguments(const Backend& backend, const PairKernel& given, const py::array& all, const Rows& some)
      : wide(precision(all, "points")),
        p(static_cast<py::ssize_t>(given.inverse_scales.size())),
        points(checked(all, "points", wide, {-1, p})) {
    given.info(backend, kernel);
    if (some.ndim() != 1 || some.shape(0) < 1) throw py::value_error("rows must have shape (n,), n at least 1");
    if (!(some.flags() & py::array::c_style)) throw py::value_error("rows must be C-contiguous");
    if (first_outside(some.data(), some.shape(0), all.shape(0)) >= 0)
      throw py::value_error("rows must name points, from 0 to " + std::to_string(all.shape(0) - 1));
    rows.assign(some.data(), some.data() + some.shape(0));
  }
  std::int64_t n() const { return static_cast<std::int64_t>(rows.size()); }
  mfld_noise place(std::uint64_t key, std::uint64_t step, std::int64_t population) const {
    return place_of(key, step, population, {1, n()});
  }
};

void check_levels(std::int32_t levels, std::int64_t n, int bits) {
  if (levels < 0 || levels > 30 || (n >> (bits * levels)) < 1)
    throw py::value_error("levels must be at least 0 and leave a point in each part, got " + std::to_string(levels));
}

Rows as_array(const std::vector<std::int64_t>& rows, std::int64_t n) {
  Rows out(n);
  std::copy_n(rows.begin(), n, out.mutable_data());
  return out;
}

std::pair<Rows, Rows> split(const Backend& backend, const PairKernel& kernel, const py::array& points, const Rows& rows,
                            std::int32_t levels, std::int32_t first_level, std::uint64_t key, std::uint64_t step,
                            std::int64_t population, int num_threads) {
  Arguments a(backend, kernel, points, rows);
  check_levels(levels, a.n(), 1);
  const mfld_noise noise = a.place(key, step, population);
  std::vector<std::int64_t> ends(std::size_t{1} << levels);
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(a.wide).thinning.split(&a.kernel, a.points, a.p, a.rows.data(), a.n(), levels, first_level,
                                                  &noise, ends.data(), e);
  });
  return {as_array(a.rows, a.n()), as_array(ends, static_cast<std::int64_t>(ends.size()))};
}

Rows compress(const Backend& backend, const PairKernel& kernel, const py::array& points, const Rows& rows,
              std::int32_t levels, std::uint64_t key, std::uint64_t step, std::int64_t population, int num_threads) {
  Arguments a(backend, kernel, points, rows);
  check_levels(levels, a.n(), 2);
  const std::int64_t size = a.n() >> (2 * levels);
  if (size << (2 * levels) != a.n())
    throw py::value_error("rows must be a multiple of 4^levels, got " + std::to_string(a.n()));
  const mfld_noise noise = a.place(key, step, population);
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(a.wide).thinning.compress(&a.kernel, a.points, a.p, a.rows.data(), size, levels, &noise, e);
  });
  return as_array(a.rows, size << levels);
}

Rows refine(const Backend& backend, const PairKernel& kernel, const py::array& points, const Rows& rows,
            const Rows& ends, std::int32_t n_sweeps, int num_threads) {
  Arguments a(backend, kernel, points, rows);
  if (ends.ndim() != 1 || ends.shape(0) < 1) throw py::value_error("ends must have shape (n_parts,)");
  std::int64_t before = 0, largest = 0;
  for (py::ssize_t q = 0; q < ends.shape(0); ++q) {
    const std::int64_t end = ends.data()[q];
    if (end <= before || end > a.n()) throw py::value_error("ends must rise from 1 to the number of rows");
    largest = std::max(largest, end - before);
    before = end;
  }
  std::vector<std::int64_t> chosen(largest);
  std::int64_t n_chosen = 0;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(a.wide).thinning.refine(&a.kernel, a.points, a.p, a.rows.data(), a.n(), ends.data(),
                                                   ends.shape(0), n_sweeps, chosen.data(), &n_chosen, e);
  });
  return as_array(chosen, n_chosen);
}

}  // namespace

void bind_thinning(py::module_&, BackendClass& backend) {
  backend
      .def("thinning_split", &split, py::arg("kernel"), py::arg("points"), py::arg("rows"), py::arg("levels"),
           py::arg("first_level"), py::arg("key"), py::arg("step"), py::arg("population") = 0,
           py::arg("num_threads") = 1, "The rows by parts, and where each of the 2^levels parts ends.")
      .def("thinning_compress", &compress, py::arg("kernel"), py::arg("points"), py::arg("rows"), py::arg("levels"),
           py::arg("key"), py::arg("step"), py::arg("population") = 0, py::arg("num_threads") = 1,
           "A share of 1 / 2^levels of the rows.")
      .def("thinning_refine", &refine, py::arg("kernel"), py::arg("points"), py::arg("rows"), py::arg("ends"),
           py::arg("n_sweeps"), py::arg("num_threads") = 1, "Rows of the best part, after exchanges.");
}

}  // namespace mfld::bindings
