// Places in the noise, as far as the noise has room.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "mfld/kernels.h"

namespace mfld::bindings {

namespace py = pybind11;

// What is drawn from a place on: beyond the counter's room it would wrap into the numbers of another place.
struct Drawn {
  std::int64_t n_steps = 1, n_particles = 0, n_coordinates = 0, coordinates_per_block = 1;
  const char* particles_name = "n_particles";
  const char* coordinates_name = "n_coordinates";
  std::int64_t n_members = 1;
};
inline mfld_noise place_of(std::uint64_t key, std::uint64_t step, std::int64_t population, const Drawn& drawn) {
  const auto refuse = [](const char* name, const std::string& limit, const std::string& got) {
    throw py::value_error(std::string(name) + " must be " + limit + ", which the noise has room for, got " + got);
  };
  if (population < 0 || population >= MFLD_NOISE_POPULATIONS)
    refuse("population", "between 0 and " + std::to_string(MFLD_NOISE_POPULATIONS - 1), std::to_string(population));
  if (drawn.n_members > MFLD_NOISE_POPULATIONS - population)
    refuse("members", "at most " + std::to_string(MFLD_NOISE_POPULATIONS - population),
           std::to_string(drawn.n_members));
  if (step >= MFLD_NOISE_STEPS || static_cast<std::uint64_t>(drawn.n_steps) > MFLD_NOISE_STEPS - step)
    refuse("step", "below 2**48 to its last", std::to_string(step));
  if (drawn.n_particles > MFLD_NOISE_PARTICLES)
    refuse(drawn.particles_name, "at most 2**32", std::to_string(drawn.n_particles));
  const std::int64_t most = MFLD_NOISE_BLOCKS * drawn.coordinates_per_block;
  if (drawn.n_coordinates > most)
    refuse(drawn.coordinates_name, "at most " + std::to_string(most), std::to_string(drawn.n_coordinates));
  return {key, step, static_cast<std::uint32_t>(population)};
}
// Of normals, which fill a block of their precision.
inline std::int64_t normals_per_block(bool wide) { return wide ? 2 : 4; }

}  // namespace mfld::bindings
