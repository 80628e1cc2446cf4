// How particles lie in memory inside a call, and the fixed shape of the sums over them.
//
// Lanes are particles: a panel holds panel_lanes<T> particles as [coordinate][lane], so every kernel reads it with
// aligned loads and no kernel has a remainder in the number of coordinates. Panels are grouped into leaves; a thread
// owns whole leaves. Panels and leaves are functions of the problem's sizes alone: that, and summing leaves along a
// fixed tree, is what makes results independent of the number of threads (tests/test_determinism.py).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "mfld/kernels.h"
#include "mfld/simd.hpp"

namespace mfld {

// Two registers a row: one pair of loads feeds up to 12 pairs of multiply-adds.
template <class T>
inline constexpr int panel_lanes = 2 * Vec<T>::size;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// Part `index` of `count` nearly equal parts of 0..n.
inline Range even_part(std::int64_t n, std::int64_t index, std::int64_t count) {
  if (count == 1) return {0, n};  // two divisions less, which tell in small panels
  return {n * index / count, n * (index + 1) / count};
}

// Which of `count` such parts holds i.
inline std::int64_t part_holding(std::int64_t i, std::int64_t n, std::int64_t count) {
  return ((i + 1) * count - 1) / n;
}

// Uninitialised memory on cache-line boundaries.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t count) {
    // A cloud of some megabytes spans more small pages than a processor remembers the addresses of.
    constexpr std::size_t huge_page = 1 << 21;
    const std::size_t size = std::max<std::size_t>(static_cast<std::size_t>(count) * sizeof(T), 1);
    const std::size_t unit = size < huge_page ? 64 : huge_page;
    const std::size_t bytes = (size + unit - 1) / unit * unit;
    data_.reset(static_cast<T*>(std::aligned_alloc(unit, bytes)));
    if (!data_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (unit == huge_page) madvise(data_.get(), bytes, MADV_HUGEPAGE);  // advice: its failure changes nothing
#endif
  }
  T* get() const { return data_.get(); }
  T& operator[](std::int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

template <class T>
struct PanelLayout {
  static constexpr int lanes = panel_lanes<T>;
  // Enough leaves to share among as many threads; more would only lengthen the sum over leaves. Two panels at least
  // where there are enough of them, since every leaf sum is also fetched from another core's cache.
  static constexpr std::int64_t most_leaves = 64, enough_panels = 16;

  std::int64_t n_particles, n_coordinates, n_panels, panels_per_leaf, n_leaves;
  // Particles and panels are those of these leaves, from first_particle of n_all on: of one rank where there are
  // several.
  Range leaves;
  std::int64_t first_particle, n_all;

  PanelLayout(std::int64_t n_particles_, std::int64_t n_coordinates_)
      : n_particles(n_particles_),
        n_coordinates(n_coordinates_),
        n_panels(ceil_div(n_particles_, lanes)),
        panels_per_leaf(std::max<std::int64_t>(ceil_div(n_panels, most_leaves), n_panels < enough_panels ? 1 : 2)),
        n_leaves(ceil_div(n_panels, panels_per_leaf)),
        leaves({0, n_leaves}),
        first_particle(0),
        n_all(n_particles_) {}

  // The share of one of `count` ranks.
  PanelLayout share(std::int64_t rank, std::int64_t count) const {
    PanelLayout own = *this;
    own.leaves = even_part(n_leaves, rank, count);
    own.n_panels = own.leaves.size() ? panels_of(own.leaves.end - 1).end - panels_of(own.leaves.begin).begin : 0;
    const Range particles = particles_of(rank, count);
    own.first_particle = particles.begin;
    own.n_particles = particles.size();
    return own;
  }
  // Which particles these are.
  Range particles_of(std::int64_t rank, std::int64_t count) const {
    const Range own = even_part(n_leaves, rank, count);
    const std::int64_t per_leaf = panels_per_leaf * lanes;
    return {std::min(own.begin * per_leaf, n_all), std::min(own.end * per_leaf, n_all)};
  }

  std::int64_t panel_size() const { return n_coordinates * lanes; }
  // Numbers of particles among all.
  std::int64_t first_of(std::int64_t panel) const { return first_particle + panel * lanes; }
  std::int64_t end_particle() const { return first_particle + n_particles; }
  std::int64_t particles_in(std::int64_t panel) const {
    return std::min<std::int64_t>(lanes, n_particles - panel * lanes);
  }
  Range panels_of(std::int64_t leaf) const {
    const std::int64_t first = (leaf - leaves.begin) * panels_per_leaf;
    return {first, std::min(n_panels, first + panels_per_leaf)};
  }

  std::int64_t leaf_of(std::int64_t panel) const { return leaves.begin + panel / panels_per_leaf; }

  // Lanes beyond the last particle are zero, and stay so.
  void pack(const T* particles, std::int64_t panel, T* out) const {
    const std::int64_t count = particles_in(panel);
    const T* first = particles + panel * lanes * n_coordinates;
    if (count == lanes && n_coordinates == 2) return turn_pairs(first, out);
    for (std::int64_t j = 0; j < n_coordinates; ++j) {
      std::int64_t lane = 0;
      for (; lane < count; ++lane) out[j * lanes + lane] = first[lane * n_coordinates + j];
      for (; lane < lanes; ++lane) out[j * lanes + lane] = T(0);
    }
  }
  void unpack(const T* in, std::int64_t panel, T* particles) const {
    const std::int64_t count = particles_in(panel);
    T* first = particles + panel * lanes * n_coordinates;
    if (count == lanes && n_coordinates == 2) return turn_pairs_back(in, first);
    for (std::int64_t lane = 0; lane < count; ++lane)
      for (std::int64_t j = 0; j < n_coordinates; ++j) first[lane * n_coordinates + j] = in[j * lanes + lane];
  }

 private:
  // Lengths that the compiler knows become shuffles. Points of the plane are worth it: their move costs no more than
  // their packing.
  static void turn_pairs(const T* particles, T* out) {
    for (int lane = 0; lane < lanes; ++lane) {
      out[lane] = particles[2 * lane];
      out[lanes + lane] = particles[2 * lane + 1];
    }
  }
  static void turn_pairs_back(const T* in, T* particles) {
    for (int lane = 0; lane < lanes; ++lane) {
      particles[2 * lane] = in[lane];
      particles[2 * lane + 1] = in[lanes + lane];
    }
  }
};

}  // namespace mfld
