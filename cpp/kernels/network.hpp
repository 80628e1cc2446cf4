// One panel of a two-layer network: forward, and pulled back. The only place that knows how theta lies in a particle.
//
//   forward    values = act(w.z + b)                          sums over particles give predictions
//   pull back  given cotangents g_ik = s_i loss'_k(u_i):
//              gain_i = (sum_k c_k g_ik) act'(a_i)            gradient in (w, b) = sum_i gain_i (z_i, 1)
//              S_k    = sum_i g_ik act(a_i)                   gradient in rho_k  = c_k' S_k + e_k' sum_i g_ik
//
// What is per element (activation) is a template, inlined into a sweep over one block of one panel (activations.cpp);
// the sweep is a function pointer. So code grows with the sum of the alternatives and not with their product.
#pragma once

#include <algorithm>
#include <cstdint>

#include "bfloat16.hpp"
#include "mfld/kernels.h"
#include "mfld/panels.hpp"
#include "mfld/parts.hpp"
#include "mfld/readouts.hpp"
#include "tiles.hpp"

namespace mfld {

template <class T>
struct ActivationKernel {
  bool stores_slope;  // else the slope is rebuilt from the value
  // z becomes act(z) in place; slope only when stored. count: a multiple of panel_lanes.
  void (*apply)(T* z, T* slope, std::int64_t count);
  // The same with act'(z) and act''(z), both stored.
  void (*bend)(T* z, T* slope, T* curvature, std::int64_t count);
  // values[i][lane] = act(w.z_i + b), and slopes when stored, of one panel for n_rows samples
  void (*forward)(const T* panel, std::int64_t n_features, const T* bias, const T* z, std::int64_t n_rows, T* values,
                  T* slope);
  // The same of a panel and data in pairs of bfloat16; null where there are no such products.
  void (*forward_of_pairs)(const T* panel, std::int64_t n_pairs, const T* bias, const T* z, std::int64_t n_rows,
                           T* values, T* slope);
  // gain[i][lane] = cotangent[i] act'(a[i][lane]); weighted[lane] += sum_i cotangent[i] act(a[i][lane]); total[lane] +=
  // sum_i gain.
  void (*gains)(const T* value, const T* slope, const T* cotangent, std::int64_t n_rows, T* gain, T* weighted,
                T* total);
  // The same with a cotangent for each lane, in place in gain, and without `weighted`.
  void (*lane_gains)(const T* value, const T* slope, std::int64_t n_rows, T* gain, T* total);
};

// Of the activation with this id.
template <class T>
const ActivationKernel<T>& activation_kernel(std::int32_t id);

namespace detail {

// gain[i][lane] = sum_k coefficient[k][lane] cotangent[k * stride + i]
template <class T>
void mix_cotangents(const T* coefficient, std::int64_t n_outputs, const T* cotangent, std::int64_t stride,
                    std::int64_t n_rows, T* gain) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  for (std::int64_t i = 0; i < n_rows; ++i) {
    V g0(0), g1(0);
    for (std::int64_t k = 0; k < n_outputs; ++k) {
      const V g(cotangent[k * stride + i]);
      g0 += V::load(coefficient + k * lanes) * g;
      g1 += V::load(coefficient + k * lanes + V::size) * g;
    }
    g0.store(gain + i * lanes);
    g1.store(gain + i * lanes + V::size);
  }
}

// weighted[k][lane] += sum_i cotangent[k * stride + i] value[i][lane], `width` outputs at once
template <class T, int width>
void weigh_values(const T* value, const T* cotangent, std::int64_t stride, std::int64_t n_rows, T* weighted) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  V lo[width], hi[width];
#pragma GCC unroll 8
  for (int k = 0; k < width; ++k)
    lo[k] = V::load(weighted + k * lanes), hi[k] = V::load(weighted + k * lanes + V::size);
  for (std::int64_t i = 0; i < n_rows; ++i) {
    const V v0 = V::load(value + i * lanes), v1 = V::load(value + i * lanes + V::size);
#pragma GCC unroll 8
    for (int k = 0; k < width; ++k) {
      const V g(cotangent[k * stride + i]);
      lo[k] += g * v0;
      hi[k] += g * v1;
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < width; ++k) lo[k].store(weighted + k * lanes), hi[k].store(weighted + k * lanes + V::size);
}

}  // namespace detail

// A network whose alternatives are looked up, and the layout theta = (weights, bias, readout coordinates).
template <class T>
struct NetworkPanel {
  using V = Vec<T>;
  static constexpr int lanes = panel_lanes<T>;

  // Rows of a panel that are swept over before the next ones: their values, gains and data stay in the first-level
  // cache between one sweep and the next.
  static constexpr std::int64_t most_rows_at_once = 96;

  std::int64_t n_features, n_outputs;
  bool has_bias;
  const ActivationKernel<T>& activation;
  const ReadoutKernel<T>& readout;
  mfld_readout_info readout_info;
  T scale, bound;
  bool bfloat16;  // products are: data are in pairs, see bfloat16.hpp

  explicit NetworkPanel(const mfld_network& network, bool bfloat16_ = false)
      : n_features(network.n_features),
        n_outputs(network.n_outputs),
        has_bias(network.has_bias != 0),
        activation(activation_kernel<T>(network.activation)),
        readout(readout_kernels<T>[network.readout]),
        readout_info(readout_infos[network.readout]),
        scale(static_cast<T>(network.output_scale)),
        bound(static_cast<T>(network.readout_bound)),
        bfloat16(bfloat16_) {}

  std::int64_t row_width() const { return bfloat16 ? ceil_div(n_features, 2) : n_features; }  // of data
  std::int64_t n_affine() const { return n_features + (has_bias ? 1 : 0); }
  std::int64_t n_coordinates() const { return n_affine() + (readout_info.has_coordinates ? n_outputs : 0); }
  std::int64_t n_moving() const { return n_affine() + (readout_moves() ? n_outputs : 0); }
  bool readout_moves() const { return readout_info.has_coordinates && !readout_info.frozen; }
  const T* readout_rows(const T* panel) const { return panel + n_affine() * lanes; }

  // coefficient, offset: (n_outputs, lanes)
  void terms(const T* panel, T* coefficient, T* offset) const {
    readout.terms(readout_rows(panel), n_outputs * lanes, scale, bound, coefficient, offset);
  }

  // values (and slope where it is stored): (n_rows, lanes). weights: scratch (row_width, lanes) for bfloat16.
  void forward(const T* panel, const T* z, std::int64_t n_rows, T* values, T* slope, T* weights = nullptr) const {
    const InPart part(Part::forward);
    const T* bias = has_bias ? panel + n_features * lanes : nullptr;
    auto product = activation.forward;
    if constexpr (has_bfloat16<T>) {
      if (bfloat16) {
        pair_rows(panel, n_features, weights);
        panel = weights;
        product = activation.forward_of_pairs;
      }
    }
    const std::int64_t width = row_width();
    in_parts(n_rows, /*pairs=*/false, [&](Range rows) {
      product(panel, width, bias, z + rows.begin * width, rows.size(), values + rows.begin * lanes,
              activation.stores_slope ? slope + rows.begin * lanes : nullptr);
    });
  }

  // body(rows) of each part, none of which begins within a pair of rows where they come in pairs.
  template <class Body>
  static void in_parts(std::int64_t n_rows, bool pairs, const Body& body) {
    const std::int64_t count = ceil_div(n_rows, most_rows_at_once);
    for (std::int64_t part = 0; part < count; ++part) {
      const Range own = even_part(pairs ? ceil_div(n_rows, 2) : n_rows, part, count);
      body(pairs ? Range{2 * own.begin, std::min(2 * own.end, n_rows)} : own);
    }
  }

  // What a panel accumulates over blocks of samples: gradient (n_affine, lanes), still without the factor c when
  // n_outputs is 1 (see affine_factor), and weighted (n_outputs, lanes) = S_k.
  struct Pulled {
    T* gradient;
    T* weighted;
  };

  // z: of bfloat16 in pairs of rows. cotangent: (n_outputs, stride). gain: scratch (most_rows_at_once, lanes). add:
  // continue a sum rather than start it.
  void pull_back(const T* coefficient, const T* values, const T* slope, const T* cotangent, std::int64_t stride,
                 const T* z, std::int64_t n_rows, T* gain, Pulled out, bool add) const {
    const InPart part(Part::back);
    alignas(64) T unused[lanes] = {};
    T* total = has_bias ? out.gradient + n_features * lanes : unused;
    if (!add) {
      std::fill_n(total, lanes, T(0));
      std::fill_n(out.weighted, n_outputs * lanes, T(0));
    }
    in_parts(n_rows, bfloat16, [&](Range rows) {
      const T* value = values + rows.begin * lanes;
      const T* their_slope = activation.stores_slope ? slope + rows.begin * lanes : nullptr;
      const T* g = cotangent + rows.begin;
      if (n_outputs == 1) {
        const InPart gains(Part::gains);
        activation.gains(value, their_slope, g, rows.size(), gain, out.weighted, total);
      } else {
        const InPart gains(Part::gains);
        detail::mix_cotangents(coefficient, n_outputs, g, stride, rows.size(), gain);
        activation.lane_gains(value, their_slope, rows.size(), gain, total);
        std::int64_t k = 0;
        for (; k + 5 <= n_outputs; k += 5)
          detail::weigh_values<T, 5>(value, g + k * stride, stride, rows.size(), out.weighted + k * lanes);
        for (; k < n_outputs; ++k)
          detail::weigh_values<T, 1>(value, g + k * stride, stride, rows.size(), out.weighted + k * lanes);
      }
      const bool more = add || rows.begin > 0;
      if constexpr (has_bfloat16<T>) {
        if (bfloat16) {
          pair_rows(gain, rows.size(), gain);
          accumulate_pairs(gain, ceil_div(rows.size(), 2), z + rows.begin * row_width(), n_features, out.gradient,
                           more);
          return;
        }
      }
      accumulate_features(gain, rows.size(), z + rows.begin * n_features, n_features, out.gradient, more);
    });
  }

  // The factor that the affine gradient of a single output still needs: it is the same for every sample, so it is taken
  // out of the sums.
  const T* affine_factor(const T* coefficient) const { return n_outputs == 1 ? coefficient : nullptr; }

  // From S_k to the gradient in rho_k, in place. cotangent_sums: (n_outputs). scratch: (2 * n_outputs, lanes).
  void finish_readout(const T* panel, const T* cotangent_sums, T* weighted, T* scratch) const {
    if (!readout_moves()) return;
    T* coefficient = scratch;
    T* offset = scratch + n_outputs * lanes;
    readout.derivative(readout_rows(panel), n_outputs * lanes, scale, bound, coefficient, offset);
    for (std::int64_t k = 0; k < n_outputs; ++k) {
      const V sum(cotangent_sums[k]);
      for (int l = 0; l < lanes; l += V::size) {
        const std::int64_t at = k * lanes + l;
        (V::load(coefficient + at) * V::load(weighted + at) + V::load(offset + at) * sum).store(weighted + at);
      }
    }
  }
};

}  // namespace mfld
