// Sums over pairs of points: the packed arguments of a call, and the loop over panels of x and rows of y.
//
// Lanes are the points x, as in panels.hpp; the points y are rows, read by broadcast. Every lane adds the rows in their
// order, in its own sums: results do not depend on the number of threads. Memory is that of the points.
//
// Everything within is in units of the kernel: coordinates times a = inverse_scales, after a shift of both clouds by
// one point, so that a common offset costs no digits. With s the vector of a point, d = a (x - y) and m = a^2:
//
//   lowered = s / a,   raised = s a,   s_x . s_y = sum raised_x lowered_y,   s . grad k = sum raised (dk / dd)
#pragma once

#include <algorithm>
#include <cstdint>

#include "mfld/kernels.h"
#include "mfld/panels.hpp"
#include "mfld/radial.hpp"
#include "mfld/team.hpp"

namespace mfld {

// Rows of y at once: their sums over coordinates stay in registers, for both registers of a panel.
inline constexpr int pair_rows = vector_registers == 32 ? 8 : 4;

// Rows until sums in the precision of the call are added up in double.
inline constexpr std::int64_t rows_between_totals = 256;

template <class T>
struct Pairs {
  KernelNumbers<T> numbers;
  std::int64_t p;
  T repulsion, trace;                   // trace: the sum of m
  const T* metric;                      // (p): m
  const T *rows, *weights;              // (padded n, p), (padded n): 0 in padding
  const T *rows_raised, *rows_lowered;  // (padded n, p); NULL where there are no vectors
};

// Adds the pairs of a panel of x, (p, lanes), and of `pair_rows` rows from `first` on to `sums`, (rows, lanes).
// `x_raised` are the vectors of the panel. `scratch`: pair_scratch(p) numbers.
template <class T>
using PairTile = void (*)(const Pairs<T>&, const T* x, const T* x_raised, std::int64_t first, T* scratch, T* sums);

template <class T>
constexpr std::int64_t pair_scratch(std::int64_t p) {
  return p * pair_rows * panel_lanes<T>;
}

namespace detail {

// Sums of k and of its gradient.

// With with_gradient: sums[0] of k, then of dk / dd; else of k alone. Differences of one register of a panel are kept,
// those of the other made anew: cores that store less than a register a cycle would wait for both.
template <class K, bool with_gradient, class T>
void radial_sums(const Pairs<T>& pairs, const T* x, const T*, std::int64_t first, T* scratch, T* sums) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>, half = V::size;
  const std::int64_t p = pairs.p;
  const T* y = pairs.rows + first * p;
  V s0[pair_rows], s1[pair_rows];
#pragma GCC unroll 8
  for (int j = 0; j < pair_rows; ++j) s0[j] = s1[j] = V(0);
  for (std::int64_t c = 0; c < p; ++c) {
    const V x0 = V::load(x + c * lanes), x1 = V::load(x + c * lanes + half);
#pragma GCC unroll 8
    for (int j = 0; j < pair_rows; ++j) {
      const V at(y[j * p + c]), d0 = x0 - at, d1 = x1 - at;
      if constexpr (with_gradient) d0.store(scratch + (c * pair_rows + j) * half);
      s0[j] += d0 * d0;
      s1[j] += d1 * d1;
    }
  }
  V k0 = V::load(sums), k1 = V::load(sums + half);
#pragma GCC unroll 8
  for (int j = 0; j < pair_rows; ++j) {
    const V w(pairs.weights[first + j]);
    const Jet<T> j0 = K::at(s0[j], pairs.numbers), j1 = K::at(s1[j], pairs.numbers);
    k0 += w * j0.value;
    k1 += w * j1.value;
    s0[j] = w * j0.first;
    s1[j] = w * j1.first;
  }
  k0.store(sums);
  k1.store(sums + half);
  if constexpr (with_gradient) {
    for (std::int64_t c = 0; c < p; ++c) {
      T* row = sums + (1 + c) * lanes;
      const T* d = scratch + c * pair_rows * half;
      const V x1 = V::load(x + c * lanes + half);
      V g0 = V::load(row), g1 = V::load(row + half);
#pragma GCC unroll 8
      for (int j = 0; j < pair_rows; ++j) {
        g0 += s0[j] * V::load(d + j * half);
        g1 += s1[j] * (x1 - V(y[j * p + c]));
      }
      g0.store(row);
      g1.store(row + half);
    }
  }
}

// The same, for a product over coordinates.
template <class K, bool with_gradient, class T>
void product_sums(const Pairs<T>& pairs, const T* x, const T*, std::int64_t first, T* scratch, T* sums) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>, half = V::size;
  const std::int64_t p = pairs.p;
  T *values = scratch, *slopes = values + p * half, *before = slopes + p * half;
  for (int lane = 0; lane < lanes; lane += half)
    for (int j = 0; j < pair_rows; ++j) {
      const T* y = pairs.rows + (first + j) * p;
      V product(pairs.weights[first + j]);
      for (std::int64_t c = 0; c < p; ++c) {
        const Jet<T> jet = K::at(V::load(x + c * lanes + lane) - V(y[c]), pairs.numbers);
        if constexpr (with_gradient) {
          jet.value.store(values + c * half);
          jet.first.store(slopes + c * half);
          product.store(before + c * half);
        }
        product *= jet.value;
      }
      (V::load(sums + lane) + product).store(sums + lane);
      if constexpr (with_gradient) {
        V behind(1);
        for (std::int64_t c = p - 1; c >= 0; --c) {
          T* row = sums + (1 + c) * lanes + lane;
          (V::load(row) + V::load(before + c * half) * V::load(slopes + c * half) * behind).store(row);
          behind *= V::load(values + c * half);
        }
      }
    }
}

// Fields.

// sums of k lowered_y - repulsion dk / dd
template <class K, class T>
void radial_field(const Pairs<T>& pairs, const T* x, const T*, std::int64_t first, T* scratch, T* sums) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>, half = V::size;
  const std::int64_t p = pairs.p;
  const T *y = pairs.rows + first * p, *lowered = pairs.rows_lowered + first * p;
  for (int lane = 0; lane < lanes; lane += half) {
    V s[pair_rows], push[pair_rows];
#pragma GCC unroll 8
    for (int j = 0; j < pair_rows; ++j) s[j] = V(0);
    for (std::int64_t c = 0; c < p; ++c) {
      const V at = V::load(x + c * lanes + lane);
#pragma GCC unroll 8
      for (int j = 0; j < pair_rows; ++j) {
        const V d = at - V(y[j * p + c]);
        d.store(scratch + (c * pair_rows + j) * half);
        s[j] += d * d;
      }
    }
    const V repulsion(T(-2) * pairs.repulsion);
#pragma GCC unroll 8
    for (int j = 0; j < pair_rows; ++j) {
      const V w(pairs.weights[first + j]);
      const Jet<T> jet = K::at(s[j], pairs.numbers);
      s[j] = w * jet.value;
      push[j] = w * repulsion * jet.first;
    }
    for (std::int64_t c = 0; c < p; ++c) {
      T* row = sums + c * lanes + lane;
      const T* d = scratch + c * pair_rows * half;
      V f = V::load(row);
#pragma GCC unroll 8
      for (int j = 0; j < pair_rows; ++j) {
        f += s[j] * V(lowered[j * p + c]);
        f += push[j] * V::load(d + j * half);
      }
      f.store(row);
    }
  }
}

template <class K, class T>
void product_field(const Pairs<T>& pairs, const T* x, const T*, std::int64_t first, T* scratch, T* sums) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>, half = V::size;
  const std::int64_t p = pairs.p;
  T *values = scratch, *slopes = values + p * half, *before = slopes + p * half;
  const V repulsion(-pairs.repulsion);
  for (int lane = 0; lane < lanes; lane += half)
    for (int j = 0; j < pair_rows; ++j) {
      const T *y = pairs.rows + (first + j) * p, *lowered = pairs.rows_lowered + (first + j) * p;
      V product(pairs.weights[first + j]);
      for (std::int64_t c = 0; c < p; ++c) {
        const Jet<T> jet = K::at(V::load(x + c * lanes + lane) - V(y[c]), pairs.numbers);
        jet.value.store(values + c * half);
        jet.first.store(slopes + c * half);
        product.store(before + c * half);
        product *= jet.value;
      }
      V behind(1);
      for (std::int64_t c = p - 1; c >= 0; --c) {
        T* row = sums + c * lanes + lane;
        const V slope = V::load(before + c * half) * V::load(slopes + c * half) * behind;
        (V::load(row) + product * V(lowered[c]) + repulsion * slope).store(row);
        behind *= V::load(values + c * half);
      }
    }
}

// Stein sums.

// With v = raised_y - raised_x and c = s_x . s_y:
//
//   u = c kappa + 2 kappa' (v.d - trace) - 4 kappa'' sum m d^2
//   du / dd = (2 kappa' c + 4 kappa'' (v.d - trace) - 8 kappa''' sum m d^2) d + 2 kappa' v - 8 kappa'' m d
//
// With derivatives: sums[0] of u, then p of du / dd at fixed vectors, then p of the field; else of u alone. Four sums
// over coordinates for each row, hence half as many rows and one register of the panel at once.
template <class K, bool derivatives, class T>
void radial_stein(const Pairs<T>& pairs, const T* x, const T* x_raised, std::int64_t first, T* scratch, T* sums) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>, half = V::size, n = pair_rows / 2;
  const std::int64_t p = pairs.p;
  for (std::int64_t row = first; row < first + pair_rows; row += n)
    for (int lane = 0; lane < lanes; lane += half) {
      const T *y = pairs.rows + row * p, *raised = pairs.rows_raised + row * p, *lowered = pairs.rows_lowered + row * p;
      V square[n], weighted[n], along[n], inner[n];
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) square[j] = weighted[j] = along[j] = inner[j] = V(0);
      for (std::int64_t c = 0; c < p; ++c) {
        const V at = V::load(x + c * lanes + lane), own = V::load(x_raised + c * lanes + lane);
        const V m(pairs.metric[c]);
#pragma GCC unroll 4
        for (int j = 0; j < n; ++j) {
          const V d = at - V(y[j * p + c]), dd = d * d;
          if constexpr (derivatives) d.store(scratch + (c * n + j) * half);
          square[j] += dd;
          weighted[j] += m * dd;
          along[j] += (V(raised[j * p + c]) - own) * d;
          inner[j] += own * V(lowered[j * p + c]);
        }
      }
      V u = V::load(sums + lane);
      const V trace(pairs.trace);
      V kernel[n], first_[n], radial[n], second[n];
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) {
        const V w(pairs.weights[row + j]);
        const Jet<T> jet = K::at(square[j], pairs.numbers);
        const V twice = V(2) * jet.first, four = V(4) * jet.second, excess = along[j] - trace;
        u += w * (inner[j] * jet.value + twice * excess - four * weighted[j]);
        if constexpr (derivatives) {
          kernel[j] = w * jet.value;
          first_[j] = w * twice;
          radial[j] = w * (twice * inner[j] + four * excess - V(8) * jet.third * weighted[j]);
          second[j] = w * V(-2) * four;
        }
      }
      u.store(sums + lane);
      if constexpr (derivatives)
        for (std::int64_t c = 0; c < p; ++c) {
          T *gradient = sums + (1 + c) * lanes + lane, *field = gradient + p * lanes;
          const V own = V::load(x_raised + c * lanes + lane), m(pairs.metric[c]);
          V g = V::load(gradient), f = V::load(field);
#pragma GCC unroll 4
          for (int j = 0; j < n; ++j) {
            const V d = V::load(scratch + (c * n + j) * half);
            g += (radial[j] + m * second[j]) * d;
            g += first_[j] * (V(raised[j * p + c]) - own);
            f += kernel[j] * V(lowered[j * p + c]);
            f -= first_[j] * d;
          }
          g.store(gradient);
          f.store(field);
        }
    }
}

// A factor phi of a product k has the share D = v phi' - m phi'' of u = c k + sum_e D_e prod_(others) phi: products of
// phi + epsilon D with epsilon^2 = 0, over the coordinates before one and behind it, give all sums over the others.
template <class K, bool derivatives, class T>
void product_stein(const Pairs<T>& pairs, const T* x, const T* x_raised, std::int64_t first, T* scratch, T* sums) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>, half = V::size;
  const std::int64_t p = pairs.p, stride = p * half;
  T *values = scratch, *slopes = values + stride, *shares = slopes + stride, *share_slopes = shares + stride,
    *before = share_slopes + stride, *before_share = before + stride;
  for (int lane = 0; lane < lanes; lane += half)
    for (int j = 0; j < pair_rows; ++j) {
      const std::int64_t row = (first + j) * p;
      V product(pairs.weights[first + j]), share(0), inner(0);
      for (std::int64_t c = 0; c < p; ++c) {
        const Jet<T> jet = K::at(V::load(x + c * lanes + lane) - V(pairs.rows[row + c]), pairs.numbers);
        const V own = V::load(x_raised + c * lanes + lane), m(pairs.metric[c]);
        const V v = V(pairs.rows_raised[row + c]) - own;
        const V d = v * jet.first - m * jet.second;
        inner += own * V(pairs.rows_lowered[row + c]);
        if constexpr (derivatives) {
          jet.value.store(values + c * half);
          jet.first.store(slopes + c * half);
          d.store(shares + c * half);
          (v * jet.second - m * jet.third).store(share_slopes + c * half);
          product.store(before + c * half);
          share.store(before_share + c * half);
        }
        share = share * jet.value + product * d;
        product *= jet.value;
      }
      (V::load(sums + lane) + inner * product + share).store(sums + lane);
      if constexpr (derivatives) {
        V behind(1), behind_share(0);
        for (std::int64_t c = p - 1; c >= 0; --c) {
          T *gradient = sums + (1 + c) * lanes + lane, *field = gradient + p * lanes;
          const V value = V::load(values + c * half), slope = V::load(slopes + c * half);
          const V others = V::load(before + c * half) * behind;
          const V others_share = V::load(before + c * half) * behind_share + V::load(before_share + c * half) * behind;
          (V::load(gradient) + slope * (inner * others + others_share) + V::load(share_slopes + c * half) * others)
              .store(gradient);
          (V::load(field) + product * V(pairs.rows_lowered[row + c]) - slope * others).store(field);
          behind_share = behind_share * value + behind * V::load(shares + c * half);
          behind *= value;
        }
      }
    }
}

// Of the means under a Gaussian kernel: exponents log w - |d|^2 / 2 of `pair_rows` rows, out[j][lane], and the largest.
template <class T>
void exponents(const Pairs<T>& pairs, const T* x, std::int64_t first, const T* logs, T* out, Vec<T>& m0, Vec<T>& m1) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>, half = V::size;
  const std::int64_t p = pairs.p;
  const T* y = pairs.rows + first * p;
  V s0[pair_rows], s1[pair_rows];
#pragma GCC unroll 8
  for (int j = 0; j < pair_rows; ++j) s0[j] = s1[j] = V(0);
  for (std::int64_t c = 0; c < p; ++c) {
    const V x0 = V::load(x + c * lanes), x1 = V::load(x + c * lanes + half);
#pragma GCC unroll 8
    for (int j = 0; j < pair_rows; ++j) {
      const V at(y[j * p + c]), d0 = x0 - at, d1 = x1 - at;
      s0[j] += d0 * d0;
      s1[j] += d1 * d1;
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < pair_rows; ++j) {
    const V log(logs[first + j]), e0 = log - V(T(0.5)) * s0[j], e1 = log - V(T(0.5)) * s1[j];
    e0.store(out + j * lanes);
    e1.store(out + j * lanes + half);
    m0 = max(m0, e0);
    m1 = max(m1, e1);
  }
}

}  // namespace detail

// Within its scope numbers too small to be normal are 0, for the calling thread: values of distant pairs, with which
// arithmetic would take a hundred times as long.
class SubnormalsAreZero {
 public:
#if defined(__SSE2__)
  SubnormalsAreZero() { _mm_setcsr(before_ | 0x8040); }
  ~SubnormalsAreZero() { _mm_setcsr(before_); }

 private:
  const unsigned before_ = _mm_getcsr();
#else
  SubnormalsAreZero() {}  // NOLINT: so that it counts as used
#endif
};

// Where a sum goes: rows of the sums from `first` on, times `factors` where given, into out (n, width).
template <class T>
struct PairOutput {
  T* out;
  std::int64_t first, width;
  const double* factors;
};

template <class T, std::size_t n_outputs>
int for_pairs(const PanelLayout<T>& layout, const Pairs<T>& pairs, PairTile<T> tile, const T* x, const T* x_raised,
              std::int64_t n_rows, std::int64_t n_sums, double work_of_a_pair,
              const PairOutput<T> (&outputs)[n_outputs], const mfld_execution& execution) {
  constexpr int lanes = panel_lanes<T>;
  const std::int64_t block = rows_between_totals;
  const double block_work = work_of_a_pair * static_cast<double>(lanes * block);
  const int threads =
      useful_threads(execution.num_threads, layout.n_panels,
                     work_of_a_pair * static_cast<double>(n_rows) * static_cast<double>(layout.n_panels * lanes));
  const std::int64_t scratch_size = pair_scratch<T>(pairs.p) + n_sums * lanes;
  const Buffer<T> scratch(threads * scratch_size);
  const Buffer<double> totals(threads * n_sums * lanes);
  StopSignal stop(execution);
  run_team(threads, [&](int member, int members, SpinBarrier&) {
    const SubnormalsAreZero mode;
    T* sums = &scratch[member * scratch_size];
    T* own_scratch = sums + n_sums * lanes;
    double* total = &totals[member * n_sums * lanes];
    const Range panels = even_part(layout.n_panels, member, members);
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const std::int64_t at = panel * layout.panel_size();
      std::fill_n(total, n_sums * lanes, 0.0);
      for (std::int64_t begin = 0; begin < n_rows; begin += block) {
        if (member == 0) stop.poll(block_work);
        if (stop.aborting()) return;
        std::fill_n(sums, n_sums * lanes, T(0));
        for (std::int64_t row = begin; row < std::min(n_rows, begin + block); row += pair_rows)
          tile(pairs, x + at, x_raised ? x_raised + at : nullptr, row, own_scratch, sums);
        for (std::int64_t i = 0; i < n_sums * lanes; ++i) total[i] += static_cast<double>(sums[i]);
      }
      for (const PairOutput<T>& output : outputs) {
        if (!output.out) continue;
        for (std::int64_t l = 0; l < layout.particles_in(panel); ++l)
          for (std::int64_t c = 0; c < output.width; ++c) {
            const double factor = output.factors ? output.factors[c] : 1.0;
            output.out[(panel * lanes + l) * output.width + c] =
                static_cast<T>(factor * total[(output.first + c) * lanes + l]);
          }
      }
    }
  });
  return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
}

}  // namespace mfld
