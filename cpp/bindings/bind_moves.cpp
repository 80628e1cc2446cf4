// Moves of particles, by gradients that come from elsewhere.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "domain.hpp"
#include "mfld/kernels.h"
#include "place.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

// Particles (..., n_particles, p): leading axes number members.
mfld_shape shape_of(const py::array& particles, std::int64_t n_moving, std::int64_t first_particle) {
  const auto axes = particles.ndim();
  if (axes < 2) throw py::value_error("particles must have shape (..., number, coordinates)");
  mfld_shape shape = {1, particles.shape(axes - 2), particles.shape(axes - 1), n_moving, first_particle};
  for (py::ssize_t axis = 0; axis < axes - 2; ++axis) shape.n_members *= particles.shape(axis);
  if (n_moving < 0 || n_moving > shape.p)
    throw py::value_error("n_moving must be between 0 and " + std::to_string(shape.p) + ", got " +
                          std::to_string(n_moving));
  return shape;
}

// What moves change and read, checked against the particles.
class Checked {
 public:
  Checked(py::array& particles, std::int64_t n_moving, std::int64_t first_particle)
      : wide(precision(particles, "particles")),
        shape(shape_of(particles, n_moving, first_particle)),
        extents_(particles.shape(), particles.shape() + particles.ndim()),
        particles(checked_writable(particles, "particles", wide, extents_)) {}

  const void* alike(const py::array& a, const char* name) const { return checked(a, name, wide, extents_); }
  void* alike(py::array& a, const char* name) const { return checked_writable(a, name, wide, extents_); }
  const void* each(const py::array& a, const char* name) const { return checked(a, name, wide, of_each()); }
  void* each(py::array& a, const char* name) const { return checked_writable(a, name, wide, of_each()); }

  mfld_noise place(std::uint64_t key, std::uint64_t step, std::int64_t population) const {
    if (shape.first_particle < 0)
      throw py::value_error("first must be at least 0, got " + std::to_string(shape.first_particle));
    return place_of(key, step, population,
                    {1, shape.first_particle + shape.n_particles, shape.n_moving, normals_per_block(wide),
                     "n_particles", "n_moving", shape.n_members});
  }

  const bool wide;
  const mfld_shape shape;

 private:
  std::vector<py::ssize_t> of_each() const { return {extents_.begin(), extents_.end() - 1}; }
  const std::vector<py::ssize_t> extents_;

 public:
  void* const particles;
};

using Row3 = std::array<double, 3>;
using Row4 = std::array<double, 4>;

std::int64_t affine(const Backend& backend, py::array& particles, const py::array& gradient, std::int64_t n_moving,
                    const Row3& coefficients, std::uint64_t key, std::uint64_t step, std::int64_t population,
                    int num_threads, const std::optional<Domain>& domain, std::int64_t first_particle) {
  const Checked given(particles, n_moving, first_particle);
  const void* g = given.alike(gradient, "gradient");
  const KernelDomain on(domain, n_moving);
  const mfld_noise noise = given.place(key, step, population);
  std::int64_t bad = -1;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(given.wide)
        .moves.affine(given.particles, g, &given.shape, coefficients.data(), on.get(), &noise, &bad, e);
  });
  return bad;
}

std::int64_t baoab(const Backend& backend, py::array& particles, py::array& velocities, const py::array& gradient,
                   bool closing, std::int64_t n_moving, const Row4& coefficients, std::uint64_t key, std::uint64_t step,
                   std::int64_t population, int num_threads, std::int64_t first_particle) {
  const Checked given(particles, n_moving, first_particle);
  void* v = given.alike(velocities, "velocities");
  const void* g = given.alike(gradient, "gradient");
  const mfld_noise noise = given.place(key, step, population);
  std::int64_t bad = -1;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(given.wide)
        .moves.baoab(given.particles, v, g, &given.shape, closing ? MFLD_BAOAB_CLOSE : MFLD_BAOAB_OPEN,
                     coefficients.data(), &noise, &bad, e);
  });
  return bad;
}

std::pair<std::int64_t, py::array_t<double>> accept(const Backend& backend, py::array& particles, py::array& values,
                                                    py::array& gradient, const py::array& proposals,
                                                    const py::array& proposal_values,
                                                    const py::array& proposal_gradient, std::int64_t n_moving,
                                                    const Row3& coefficients, std::uint64_t key, std::uint64_t step,
                                                    std::int64_t population, int num_threads,
                                                    std::int64_t first_particle) {
  const Checked given(particles, n_moving, first_particle);
  void* u = given.each(values, "values");
  void* g = given.alike(gradient, "gradient");
  const void* y = given.alike(proposals, "proposals");
  const void* w = given.each(proposal_values, "proposal_values");
  const void* f = given.alike(proposal_gradient, "proposal_gradient");
  if (!(coefficients[1] > 0) || !(coefficients[2] > 0))
    throw py::value_error("coefficients must have a positive step size and noise, got " +
                          std::to_string(coefficients[1]) + " and " + std::to_string(coefficients[2]));
  const mfld_noise noise = given.place(key, step, population);
  std::int64_t accepted = 0;
  py::array_t<double> probabilities(
      std::vector<py::ssize_t>(particles.shape(), particles.shape() + particles.ndim() - 1));
  double* each = probabilities.mutable_data();
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(given.wide)
        .moves.accept(given.particles, u, g, y, w, f, &given.shape, coefficients.data(), &noise, &accepted, each, e);
  });
  return {accepted, std::move(probabilities)};
}

}  // namespace

void bind_moves(py::module_& m, BackendClass& backend) {
  py::class_<Domain>(m, "Domain", "Where affine moves leave particles: blocks of consecutive moving coordinates.")
      .def(py::init<>())
      .def("add", &Domain::add, py::arg("kind"), py::arg("n_coordinates"), py::arg("lower"), py::arg("upper"),
           "One more block; the ends of its intervals are empty where it has none.");
  backend
      .def("affine", &affine, py::arg("particles"), py::arg("gradient"), py::arg("n_moving"), py::arg("coefficients"),
           py::arg("key"), py::arg("step"), py::arg("population") = 0, py::arg("num_threads") = 1,
           py::arg("domain").none(true) = py::none(), py::arg("first") = 0)
      .def("baoab", &baoab, py::arg("particles"), py::arg("velocities"), py::arg("gradient"), py::arg("closing"),
           py::arg("n_moving"), py::arg("coefficients"), py::arg("key"), py::arg("step"), py::arg("population") = 0,
           py::arg("num_threads") = 1, py::arg("first") = 0)
      .def("accept", &accept, py::arg("particles"), py::arg("values"), py::arg("gradient"), py::arg("proposals"),
           py::arg("proposal_values"), py::arg("proposal_gradient"), py::arg("n_moving"), py::arg("coefficients"),
           py::arg("key"), py::arg("step"), py::arg("population") = 0, py::arg("num_threads") = 1, py::arg("first") = 0,
           "How many proposals were accepted, and with which probability each.");
}

}  // namespace mfld::bindings
