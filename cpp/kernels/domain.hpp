// Domains of the moving coordinates, and how a step into the surrounding space is brought back to them.
//
//   sphere  theta / |theta|        torus  theta mod period        box  reflected at its faces
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "mfld/kernels.h"
#include "mfld/panels.hpp"

namespace mfld {

template <class T>
class Domain {
  static constexpr int lanes = panel_lanes<T>;

 public:
  // The description must outlive it.
  explicit Domain(const mfld_domain& domain) : domain_(domain) {}

  bool flat() const { return domain_.n_blocks == 0; }

  // The moving coordinates of a panel, in place. Returns the first of `count` lanes that is not finite, or -1.
  std::int64_t retract(T* panel, std::int64_t count) const {
    T watch[lanes] = {};  // x - x: 0, or NaN once x is not finite
    T* rows = panel;
    for (std::int64_t b = 0; b < domain_.n_blocks; ++b) {
      const mfld_block& block = domain_.blocks[b];
      if (block.kind == MFLD_SPHERE) to_sphere(rows, block.n_coordinates);
      for (std::int64_t j = 0; j < block.n_coordinates; ++j, rows += lanes) {
        if (block.kind == MFLD_TORUS) wrap(rows, static_cast<T>(block.upper[j]));
        if (block.kind == MFLD_BOX) reflect(rows, static_cast<T>(block.lower[j]), static_cast<T>(block.upper[j]));
        for (int l = 0; l < lanes; ++l) watch[l] += rows[l] - rows[l];
      }
    }
    const T* bad = std::find_if(watch, watch + count, [](T w) { return w != T(0); });
    return bad == watch + count ? -1 : bad - watch;
  }

 private:
  // The origin leads nowhere, and neither does a point whose length overflows: they end as particles not finite.
  static void to_sphere(T* rows, std::int64_t n) {
    T squares[lanes] = {};
    for (std::int64_t j = 0; j < n; ++j)
      for (int l = 0; l < lanes; ++l) squares[l] += rows[j * lanes + l] * rows[j * lanes + l];
    for (int l = 0; l < lanes; ++l)
      squares[l] = std::isfinite(squares[l]) ? std::sqrt(squares[l]) : std::numeric_limits<T>::quiet_NaN();
    for (std::int64_t j = 0; j < n; ++j)
      for (int l = 0; l < lanes; ++l) rows[j * lanes + l] /= squares[l];
  }
  static void wrap(T* row, T period) {
    for (int l = 0; l < lanes; ++l) {
      const T wrapped = row[l] - period * std::floor(row[l] / period);
      row[l] = wrapped >= period ? T(0) : wrapped;  // rounding may lead up to the period itself, from just below 0
    }
  }
  // Reflections at both ends unfold to a period of two widths.
  static void reflect(T* row, T lower, T upper) {
    const T width = upper - lower;
    for (int l = 0; l < lanes; ++l) {
      const T turns = (row[l] - lower) / (2 * width);
      const T phase = 2 * width * (turns - std::floor(turns));
      row[l] = std::clamp(lower + std::min(phase, 2 * width - phase), lower, upper);
    }
  }

  const mfld_domain& domain_;
};

}  // namespace mfld
