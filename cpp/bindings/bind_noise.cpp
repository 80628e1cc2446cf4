// The noise: keys, words, normals, uniform numbers, rows of mini-batches.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "mfld/kernels.h"
#include "place.hpp"
#include "run.hpp"

namespace mfld::bindings {
namespace {

using Words4 = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>;

void check_stream(std::int64_t stream) {
  constexpr std::int64_t most = 255;
  if (stream < 0 || stream > most)
    throw py::value_error("stream must be between 0 and " + std::to_string(most) + ", got " + std::to_string(stream));
}

// What `kernel`, of the noise kernels, draws.
template <class Kernel>
py::array drawn(const Backend& backend, Kernel mfld_noise_kernels::* kernel, std::int64_t coordinates_per_block,
                std::uint64_t key, std::uint64_t step, std::int64_t n_particles, std::int64_t n_coordinates, bool wide,
                std::int64_t stream, std::int64_t population, int num_threads, std::vector<py::ssize_t> members,
                std::int64_t first) {
  if (first < 0 || n_particles < 0 || n_coordinates < 0)
    throw py::value_error("first, n_particles and n_coordinates must not be negative");
  check_stream(stream);
  const std::int64_t n_members = std::accumulate(members.begin(), members.end(), std::int64_t{1}, std::multiplies<>());
  constexpr std::int64_t too_many = MFLD_NOISE_PARTICLES + 1;
  const std::int64_t end = std::min(first, too_many) + std::min(n_particles, too_many);
  const mfld_noise noise = place_of(
      key, step, population, {1, end, n_coordinates, coordinates_per_block, "n_particles", "n_coordinates", n_members});
  std::vector<py::ssize_t> shape = std::move(members);
  shape.insert(shape.end(), {n_particles, n_coordinates});
  auto out = empty(wide, std::move(shape));
  run_or_throw(num_threads, [&, to = out.mutable_data()](const mfld_execution* e) {
    return (backend.kernels(wide).noise.*kernel)(&noise, static_cast<std::uint32_t>(stream), n_members, first,
                                                 n_particles, n_coordinates, to, e);
  });
  return out;
}

py::array normals(const Backend& backend, std::uint64_t key, std::uint64_t step, std::int64_t n_particles,
                  std::int64_t n_coordinates, const py::dtype& dtype, std::int64_t stream, std::int64_t population,
                  int num_threads, std::vector<py::ssize_t> members, std::int64_t first) {
  const bool wide = is_wide(dtype);
  return drawn(backend, &mfld_noise_kernels::normals, normals_per_block(wide), key, step, n_particles, n_coordinates,
               wide, stream, population, num_threads, std::move(members), first);
}

py::array uniforms(const Backend& backend, std::uint64_t key, std::uint64_t step, std::int64_t n_particles,
                   std::int64_t n_coordinates, const py::dtype& dtype, std::int64_t stream, std::int64_t population,
                   int num_threads, std::vector<py::ssize_t> members, std::int64_t first) {
  constexpr std::int64_t per_block = 2;
  return drawn(backend, &mfld_noise_kernels::uniforms, per_block, key, step, n_particles, n_coordinates, is_wide(dtype),
               stream, population, num_threads, std::move(members), first);
}

py::array_t<std::int64_t> batch(const Backend& backend, std::uint64_t key, std::uint64_t step, std::int64_t n,
                                std::int64_t batch_size, std::int64_t population) {
  if (batch_size < 1 || batch_size > n)
    throw py::value_error("batch_size must be between 1 and " + std::to_string(n) + ", got " +
                          std::to_string(batch_size));
  py::array_t<std::int64_t> rows(batch_size);
  const mfld_noise noise = place_of(key, step, population, {1, batch_size, 0, 1, "batch_size"});
  run_or_throw(1, [&, to = rows.mutable_data()](const mfld_execution* e) {
    return backend.table().words.batch(&noise, n, batch_size, to, e);
  });
  return rows;
}

py::array_t<std::int64_t> particle_batches(const Backend& backend, std::uint64_t key, std::uint64_t step,
                                           std::int64_t n, std::int64_t batch_size, std::int64_t n_particles,
                                           std::int64_t population, int num_threads) {
  if (batch_size < 1 || batch_size > n || batch_size >= MFLD_NOISE_BLOCKS)
    throw py::value_error("batch_size must be between 1 and " +
                          std::to_string(std::min<std::int64_t>(n, MFLD_NOISE_BLOCKS - 1)) + ", got " +
                          std::to_string(batch_size));
  if (n_particles < 0) throw py::value_error("n_particles must not be negative");
  py::array_t<std::int64_t> rows({n_particles, batch_size});
  const mfld_noise noise = place_of(key, step, population, {1, n_particles});
  run_or_throw(num_threads, [&, to = rows.mutable_data()](const mfld_execution* e) {
    return backend.table().words.particle_batches(&noise, n, batch_size, n_particles, to, e);
  });
  return rows;
}

// The 32 bytes of a key of ChaCha20, as words in little-endian order.
std::array<std::uint32_t, 8> key_of(const py::bytes& key) {
  const auto bytes = static_cast<std::string_view>(key);
  std::array<std::uint32_t, 8> words = {};
  if (bytes.size() != 4 * words.size())
    throw py::value_error("key must have 32 bytes, got " + std::to_string(bytes.size()));
  for (std::size_t i = 0; i < bytes.size(); ++i)
    words[i / 4] |= std::uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * (i % 4));
  return words;
}

py::array_t<std::uint32_t> chacha(const Backend& backend, const py::bytes& key, std::int64_t n_words,
                                  std::uint32_t counter, const std::array<std::uint32_t, 3>& nonce) {
  constexpr std::int64_t most = std::int64_t{1} << 36;  // 2^32 blocks of 16
  if (n_words < 0 || n_words > most) throw py::value_error("n_words must be between 0 and 2**36");
  const auto words = key_of(key);
  py::array_t<std::uint32_t> out(n_words);
  backend.table().words.chacha(words.data(), counter, nonce.data(), n_words, out.mutable_data());
  return out;
}

py::array_t<std::int64_t> gaussians(const Backend& backend, const py::bytes& key, std::int64_t count,
                                    const py::array_t<std::uint64_t>& thresholds,
                                    const py::array_t<std::uint16_t>& aliases, const py::array_t<std::uint64_t>& always,
                                    int num_threads) {
  constexpr py::ssize_t columns = 1024;
  constexpr std::int64_t most = std::int64_t{1} << 43;  // 2^32 chunks
  if (count < 0 || count > most) throw py::value_error("count must be between 0 and 2**43");
  if (thresholds.size() != columns || aliases.size() != columns || always.size() != columns)
    throw py::value_error("a table must have 1024 columns");
  for (py::ssize_t i = 0; i < columns; ++i)
    if (aliases.at(i) >= columns) throw py::value_error("aliases must be below 1024");
  const auto words = key_of(key);
  const mfld_gaussian_table table = {thresholds.data(), aliases.data(), always.data()};
  py::array_t<std::int64_t> out(count);
  run_or_throw(num_threads, [&, to = out.mutable_data()](const mfld_execution* e) {
    return backend.table().words.gaussians(words.data(), &table, count, to, e);
  });
  return out;
}

}  // namespace

void bind_noise(py::module_& m, BackendClass& backend) {
  m.def(
      "streams",
      [] {
#define MFLD_STREAM_ITEM(constant, name, number) {name, number},
        return std::vector<std::pair<std::string, int>>{MFLD_STREAMS(MFLD_STREAM_ITEM)};
#undef MFLD_STREAM_ITEM
      },
      "(name, number) of each stream of the noise.");
  backend
      .def("normals", &normals, py::arg("key"), py::arg("step"), py::arg("n_particles"), py::arg("n_coordinates"),
           py::arg("dtype"), py::arg("stream") = static_cast<int>(MFLD_STREAM_MOVE), py::arg("population") = 0,
           py::arg("num_threads") = 1, py::arg("members") = std::vector<py::ssize_t>(), py::arg("first") = 0)
      .def("uniforms", &uniforms, py::arg("key"), py::arg("step"), py::arg("n_particles"), py::arg("n_coordinates"),
           py::arg("dtype"), py::arg("stream") = static_cast<int>(MFLD_STREAM_MOVE), py::arg("population") = 0,
           py::arg("num_threads") = 1, py::arg("members") = std::vector<py::ssize_t>(), py::arg("first") = 0)
      .def(
          "philox",
          [](const Backend& b, const Words4& counter, const std::pair<std::uint32_t, std::uint32_t>& key) {
            const std::uint32_t c[4] = {std::get<0>(counter), std::get<1>(counter), std::get<2>(counter),
                                        std::get<3>(counter)};
            const std::uint32_t k[2] = {key.first, key.second};
            std::uint32_t out[4];
            b.table().words.philox(c, k, out);
            return Words4(out[0], out[1], out[2], out[3]);
          },
          py::arg("counter"), py::arg("key"))
      .def(
          "noise_key",
          [](const Backend& b, std::uint64_t seed, std::uint64_t replica) {
            return b.table().words.key(seed, replica);
          },
          py::arg("seed"), py::arg("replica") = 0)
      .def("batch", &batch, py::arg("key"), py::arg("step"), py::arg("n"), py::arg("batch_size"),
           py::arg("population") = 0)
      .def("particle_batches", &particle_batches, py::arg("key"), py::arg("step"), py::arg("n"), py::arg("batch_size"),
           py::arg("n_particles"), py::arg("population") = 0, py::arg("num_threads") = 1)
      .def("chacha", &chacha, py::arg("key"), py::arg("n_words"), py::arg("counter") = 0,
           py::arg("nonce") = std::array<std::uint32_t, 3>{})
      .def("gaussians", &gaussians, py::arg("key"), py::arg("count"), py::arg("thresholds"), py::arg("aliases"),
           py::arg("always"), py::arg("num_threads") = 1);
}

}  // namespace mfld::bindings
