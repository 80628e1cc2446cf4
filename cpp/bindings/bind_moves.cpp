// Moves of particles, by gradients that come from elsewhere.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "arrays.hpp"
#include "backend.hpp"
#include "mfld/kernels.h"
#include "place.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

void check_moving(std::int64_t n_moving, py::ssize_t p) {
  if (n_moving < 0 || n_moving > p)
    throw py::value_error("n_moving must be between 0 and " + std::to_string(p) + ", got " + std::to_string(n_moving));
}

mfld_noise place_of_move(std::uint64_t key, std::uint64_t step, std::int64_t population, py::ssize_t n_particles,
                         std::int64_t n_moving, bool wide) {
  return place_of(key, step, population,
                  {1, n_particles, n_moving, normals_per_block(wide), "n_particles", "n_moving"});
}

std::int64_t move(const Backend& backend, py::array& particles, const py::array& gradient, std::int64_t n_moving,
                  double step_size, double temperature, double l2, std::uint64_t key, std::uint64_t step,
                  std::int64_t population, int num_threads) {
  const bool wide = precision(particles, "particles");
  void* x = checked_writable(particles, "particles", wide, {-1, -1});
  const auto m = particles.shape(0), p = particles.shape(1);
  const void* g = checked(gradient, "gradient", wide, {m, p});
  check_moving(n_moving, p);
  const mfld_schedule schedule = {&step_size, &temperature, &l2, 0};
  const mfld_noise noise = place_of_move(key, step, population, m, n_moving, wide);
  std::int64_t bad = -1;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).moves.euler(x, g, m, p, n_moving, &schedule, &noise, &bad, e);
  });
  return bad;
}

std::int64_t baoab(const Backend& backend, py::array& particles, py::array& velocities, const py::array& gradient,
                   bool closing, std::int64_t n_moving, double step_size, double temperature, double l2,
                   double friction, std::uint64_t key, std::uint64_t step, std::int64_t population, int num_threads) {
  const bool wide = precision(particles, "particles");
  void* x = checked_writable(particles, "particles", wide, {-1, -1});
  const auto m = particles.shape(0), p = particles.shape(1);
  void* v = checked_writable(velocities, "velocities", wide, {m, p});
  const void* g = checked(gradient, "gradient", wide, {m, p});
  check_moving(n_moving, p);
  const mfld_schedule schedule = {&step_size, &temperature, &l2, 0};
  const mfld_noise noise = place_of_move(key, step, population, m, n_moving, wide);
  std::int64_t bad = -1;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).moves.baoab(x, v, g, m, p, n_moving, closing ? MFLD_BAOAB_CLOSE : MFLD_BAOAB_OPEN,
                                             friction, &schedule, &noise, &bad, e);
  });
  return bad;
}

std::int64_t mala_accept(const Backend& backend, py::array& particles, py::array& values, py::array& gradient,
                         const py::array& proposals, const py::array& proposal_values,
                         const py::array& proposal_gradient, std::int64_t n_moving, double step_size,
                         double temperature, double l2, std::uint64_t key, std::uint64_t step, std::int64_t population,
                         int num_threads) {
  const bool wide = precision(particles, "particles");
  void* x = checked_writable(particles, "particles", wide, {-1, -1});
  const auto m = particles.shape(0), p = particles.shape(1);
  void* u = checked_writable(values, "values", wide, {m});
  void* g = checked_writable(gradient, "gradient", wide, {m, p});
  const void* y = checked(proposals, "proposals", wide, {m, p});
  const void* w = checked(proposal_values, "proposal_values", wide, {m});
  const void* c = checked(proposal_gradient, "proposal_gradient", wide, {m, p});
  check_moving(n_moving, p);
  if (!(temperature > 0)) throw py::value_error("temperature must be positive, got " + std::to_string(temperature));
  const mfld_schedule schedule = {&step_size, &temperature, &l2, 0};
  const mfld_noise noise = place_of_move(key, step, population, m, n_moving, wide);
  std::int64_t accepted = 0;
  run_or_throw(num_threads, [&](const mfld_execution* e) {
    return backend.kernels(wide).moves.accept(x, u, g, y, w, c, m, p, n_moving, &schedule, &noise, &accepted, e);
  });
  return accepted;
}

}  // namespace

void bind_moves(py::module_&, BackendClass& backend) {
  backend
      .def("move", &move, py::arg("particles"), py::arg("gradient"), py::arg("n_moving"), py::arg("step_size"),
           py::arg("temperature"), py::arg("l2"), py::arg("key"), py::arg("step"), py::arg("population") = 0,
           py::arg("num_threads") = 1)
      .def("baoab", &baoab, py::arg("particles"), py::arg("velocities"), py::arg("gradient"), py::arg("closing"),
           py::arg("n_moving"), py::arg("step_size"), py::arg("temperature"), py::arg("l2"), py::arg("friction"),
           py::arg("key"), py::arg("step"), py::arg("population") = 0, py::arg("num_threads") = 1)
      .def("mala_accept", &mala_accept, py::arg("particles"), py::arg("values"), py::arg("gradient"),
           py::arg("proposals"), py::arg("proposal_values"), py::arg("proposal_gradient"), py::arg("n_moving"),
           py::arg("step_size"), py::arg("temperature"), py::arg("l2"), py::arg("key"), py::arg("step"),
           py::arg("population") = 0, py::arg("num_threads") = 1);
}

}  // namespace mfld::bindings
