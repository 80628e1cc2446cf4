// Sums over pairs of points: potentials of kernels and their gradients, Stein fields, Stein kernels.
#include "pairs.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "entries.hpp"
#include "tiles.hpp"

namespace mfld {
namespace {

// The operations of one kernel on a tile of pairs; NULL where it lacks the derivatives.
template <class T>
struct PairTiles {
  PairTile<T> values, gradients, field, stein, stein_gradients;
};

template <class K, class T>
constexpr PairTiles<T> radial_tiles() {
  PairTiles<T> tiles = {&detail::radial_sums<K, false, T>, &detail::radial_sums<K, true, T>,
                        &detail::radial_field<K, T>, nullptr, nullptr};
  if constexpr (K::derivatives >= 2) tiles.stein = &detail::radial_stein<K, false, T>;
  if constexpr (K::derivatives >= 3) tiles.stein_gradients = &detail::radial_stein<K, true, T>;
  return tiles;
}

template <class K, class T>
constexpr PairTiles<T> product_tiles() {
  return {&detail::product_sums<K, false, T>, &detail::product_sums<K, true, T>, &detail::product_field<K, T>,
          &detail::product_stein<K, false, T>, &detail::product_stein<K, true, T>};
}

template <class T, class... R, class... P>
constexpr auto tiles_of(KernelList<R...>*, KernelList<P...>*) {
  return std::array<PairTiles<T>, sizeof...(R) + sizeof...(P)>{radial_tiles<R, T>()..., product_tiles<P, T>()...};
}

template <class T>
constexpr auto pair_tiles = tiles_of<T>(static_cast<RadialKernels*>(nullptr), static_cast<PeriodicKernels*>(nullptr));

// Both clouds in units of the kernel.
template <class T>
class Packed {
 public:
  Packed(const mfld_pair_kernel& kernel, const void* x, const void* x_vectors, std::int64_t n, const mfld_points& y,
         const void* y_vectors, std::int64_t p, double repulsion)
      : layout(n, p),
        n_rows(round_up(y.n, pair_rows)),
        scales_(kernel.inverse_scales),
        coefficients_(kernel.n_coefficients),
        metric_(p),
        x_(layout.n_panels * layout.panel_size()),
        x_raised_(x_vectors ? layout.n_panels * layout.panel_size() : 0),
        y_(n_rows * p),
        weights_(n_rows),
        raised_(y_vectors ? n_rows * p : 0),
        lowered_(y_vectors ? n_rows * p : 0) {
    const auto* points = static_cast<const T*>(y.points);
    double trace = 0;
    for (std::int64_t c = 0; c < p; ++c) {
      trace += scales_[c] * scales_[c];
      metric_[c] = static_cast<T>(scales_[c] * scales_[c]);
    }
    for (std::int64_t k = 0; k < kernel.n_coefficients; ++k) coefficients_[k] = static_cast<T>(kernel.coefficients[k]);
    pack(static_cast<const T*>(x), points, x_.get());
    if (x_vectors) pack(static_cast<const T*>(x_vectors), nullptr, x_raised_.get());
    for (std::int64_t i = 0; i < n_rows; ++i) {
      const bool real = i < y.n;
      weights_[i] = !real       ? T(0)
                    : y.weights ? static_cast<const T*>(y.weights)[i]
                                : static_cast<T>(1.0 / static_cast<double>(y.n));
      for (std::int64_t c = 0; c < p; ++c) {
        const std::int64_t at = i * p + c;
        const auto a = static_cast<T>(scales_[c]);
        y_[at] = real ? (points[at] - points[c]) * a : T(0);
        if (!y_vectors) continue;
        const T vector = real ? static_cast<const T*>(y_vectors)[at] : T(0);
        raised_[at] = vector * a;
        lowered_[at] = vector / a;
      }
    }
    pairs = {{static_cast<T>(kernel.parameter), coefficients_.get(), kernel.n_coefficients},
             p,
             static_cast<T>(repulsion),
             static_cast<T>(trace),
             metric_.get(),
             y_.get(),
             weights_.get(),
             raised_.get(),
             lowered_.get()};
    x_vectors_ = x_vectors != nullptr;
  }

  template <std::size_t n_outputs>
  int run(PairTile<T> tile, std::int64_t n_sums, double work, const PairOutput<T> (&outputs)[n_outputs],
          const mfld_execution& execution) const {
    return for_pairs(layout, pairs, tile, x_.get(), x_vectors_ ? x_raised_.get() : nullptr, n_rows, n_sums, work,
                     outputs, execution);
  }

  const T* panel(std::int64_t index) const { return x_.get() + index * layout.panel_size(); }

  PanelLayout<T> layout;
  std::int64_t n_rows;
  Pairs<T> pairs;

 private:
  void pack(const T* from, const T* origin, T* out) const {
    constexpr int lanes = panel_lanes<T>;
    for (std::int64_t panel = 0; panel < layout.n_panels; ++panel) {
      T* into = out + panel * layout.panel_size();
      layout.pack(from, panel, into);
      for (std::int64_t c = 0; c < layout.n_coordinates; ++c) {
        const T shift = origin ? origin[c] : T(0), a = static_cast<T>(scales_[c]);
        for (int l = 0; l < lanes; ++l) into[c * lanes + l] = (into[c * lanes + l] - shift) * a;
      }
    }
  }

  const double* scales_;
  Buffer<T> coefficients_, metric_, x_, x_raised_, y_, weights_, raised_, lowered_;
  bool x_vectors_ = false;
};

// Multiply-adds that a kernel costs beside those of the coordinates.
constexpr double work_of_a_kernel = 16;

}  // namespace

template <class T>
int pair_sums(const mfld_pair_kernel* kernel, const void* x, std::int64_t n, const mfld_points* y, std::int64_t p,
              void* values, void* gradient, const mfld_execution* execution) {
  return guarded([&] {
    const Packed<T> packed(*kernel, x, nullptr, n, *y, nullptr, p, 0);
    // dk / dd is 2 kappa' d for functions of the distance: the tiles leave the 2 to the end.
    const double twice = kernel->id < RadialKernels::size ? 2 : 1;
    const Buffer<double> factors(p);
    for (std::int64_t c = 0; c < p; ++c) factors[c] = twice * kernel->inverse_scales[c];
    const PairTiles<T>& tiles = pair_tiles<T>[kernel->id];
    return packed.run(
        gradient ? tiles.gradients : tiles.values, gradient ? 1 + p : 1, static_cast<double>(3 * p) + work_of_a_kernel,
        {{static_cast<T*>(values), 0, 1, nullptr}, {static_cast<T*>(gradient), 1, p, factors.get()}}, *execution);
  });
}

template <class T>
int pair_pull_back(const mfld_pair_kernel* kernel, const void* x, std::int64_t n, const mfld_points* y,
                   const void* y_vectors, std::int64_t p, double repulsion, void* field,
                   const mfld_execution* execution) {
  return guarded([&] {
    const Packed<T> packed(*kernel, x, nullptr, n, *y, y_vectors, p, repulsion);
    return packed.run(pair_tiles<T>[kernel->id].field, p, static_cast<double>(4 * p) + work_of_a_kernel,
                      {{static_cast<T*>(field), 0, p, kernel->inverse_scales}}, *execution);
  });
}

template <class T>
int pair_stein(const mfld_pair_kernel* kernel, const void* x, const void* x_vectors, std::int64_t n,
               const mfld_points* y, const void* y_vectors, std::int64_t p, void* values, void* gradient, void* field,
               const mfld_execution* execution) {
  return guarded([&] {
    const Packed<T> packed(*kernel, x, x_vectors, n, *y, y_vectors, p, 1);
    const PairTiles<T>& tiles = pair_tiles<T>[kernel->id];
    const double* a = kernel->inverse_scales;
    return packed.run(gradient ? tiles.stein_gradients : tiles.stein, gradient ? 1 + 2 * p : 1,
                      static_cast<double>(12 * p) + work_of_a_kernel,
                      {{static_cast<T*>(values), 0, 1, nullptr},
                       {static_cast<T*>(gradient), 1, p, a},
                       {static_cast<T*>(field), 1 + p, p, a}},
                      *execution);
  });
}

// The largest exponent so far is taken out of all weights. Rows come in groups: their distances and exponents first,
// then, all smaller than the new largest one, their weights and the sums, as a product of matrices.
template <class T>
int gaussian_means(const double* inverse_scales, const void* x, std::int64_t n, const mfld_points* y, std::int64_t p,
                   void* means, const mfld_execution* execution) {
  return guarded([&] {
    using V = Vec<T>;
    constexpr int lanes = panel_lanes<T>;
    constexpr std::int64_t group = 64;  // their weights stay in the first cache
    static_assert(group % pair_rows == 0 && rows_between_totals % group == 0);
    constexpr T nothing = std::numeric_limits<T>::lowest() / 4;  // a logarithm of 0 whose differences are finite
    const mfld_pair_kernel kernel = {0, 0, inverse_scales, nullptr, 0};
    const Packed<T> packed(kernel, x, nullptr, n, *y, nullptr, p, 0);
    const PanelLayout<T>& layout = packed.layout;
    const Buffer<T> logs(packed.n_rows);
    for (std::int64_t i = 0; i < packed.n_rows; ++i)
      logs[i] = packed.pairs.weights[i] > 0 ? std::log(packed.pairs.weights[i]) : nothing;
    const double work = (static_cast<double>(3 * p) + work_of_a_kernel) * static_cast<double>(lanes);
    const int threads =
        useful_threads(execution->num_threads, layout.n_panels,
                       work * static_cast<double>(packed.n_rows) * static_cast<double>(layout.n_panels));
    const std::int64_t n_sums = p + 1;
    // per member: weights of a group, sums; in double: totals, largest exponents, factors
    const Buffer<T> scratch(threads * (group + n_sums) * lanes);
    const Buffer<double> totals(threads * n_sums * lanes);
    StopSignal stop(*execution);
    run_team(threads, [&](int member, int members, SpinBarrier&) {
      const SubnormalsAreZero mode;
      T* weights = &scratch[member * (group + n_sums) * lanes];
      T* sums = weights + group * lanes;
      double* total = &totals[member * n_sums * lanes];
      alignas(64) T largest[lanes], base[lanes], factor[lanes];  // base: the largest that the totals know
      const Range panels = even_part(layout.n_panels, member, members);
      for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
        const T* points = packed.panel(panel);
        std::fill_n(total, n_sums * lanes, 0.0);
        std::fill_n(largest, lanes, nothing);
        std::fill_n(base, lanes, nothing);
        for (std::int64_t first = 0; first < packed.n_rows; first += group) {
          if (member == 0) stop.poll(work * group);
          if (stop.aborting()) return;
          const std::int64_t count = std::min(group, packed.n_rows - first);
          V m0 = V::load(largest), m1 = V::load(largest + V::size);
          const V b0 = m0, b1 = m1;
          for (std::int64_t row = 0; row < count; row += pair_rows)
            detail::exponents(packed.pairs, points, first + row, logs.get(), weights + row * lanes, m0, m1);
          m0.store(largest);
          m1.store(largest + V::size);
          const bool add = first % rows_between_totals != 0;
          const V f0 = math::exp_not_positive(b0 - m0), f1 = math::exp_not_positive(b1 - m1);
          for (T* row = sums; add && row < sums + n_sums * lanes; row += lanes) {
            (f0 * V::load(row)).store(row);
            (f1 * V::load(row + V::size)).store(row + V::size);
          }
          T* norms = sums + p * lanes;
          V s0 = add ? V::load(norms) : V(0), s1 = add ? V::load(norms + V::size) : V(0);
          for (T* at = weights; at < weights + count * lanes; at += lanes) {
            const V w0 = math::exp_not_positive(V::load(at) - m0),
                    w1 = math::exp_not_positive(V::load(at + V::size) - m1);
            w0.store(at);
            w1.store(at + V::size);
            s0 += w0;
            s1 += w1;
          }
          s0.store(norms);
          s1.store(norms + V::size);
          accumulate_features(weights, count, packed.pairs.rows + first * p, p, sums, add);
          if ((first + group) % rows_between_totals != 0 && first + group < packed.n_rows) continue;
          for (int l = 0; l < lanes; l += V::size) {
            math::exp_not_positive(V::load(base + l) - V::load(largest + l)).store(factor + l);
            V::load(largest + l).store(base + l);
          }
          for (std::int64_t c = 0; c < n_sums; ++c)
            for (int l = 0; l < lanes; ++l) {
              double& sum = total[c * lanes + l];
              sum = sum * static_cast<double>(factor[l]) + static_cast<double>(sums[c * lanes + l]);
            }
        }
        const auto* origin = static_cast<const T*>(y->points);
        auto* out = static_cast<T*>(means) + panel * lanes * p;
        for (std::int64_t l = 0; l < layout.particles_in(panel); ++l)
          for (std::int64_t c = 0; c < p; ++c)
            out[l * p + c] = static_cast<T>(static_cast<double>(origin[c]) +
                                            total[c * lanes + l] / (total[p * lanes + l] * inverse_scales[c]));
      }
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

#define MFLD_INSTANTIATE(T)                                                                                           \
  template int pair_sums<T>(const mfld_pair_kernel*, const void*, std::int64_t, const mfld_points*, std::int64_t,     \
                            void*, void*, const mfld_execution*);                                                     \
  template int pair_pull_back<T>(const mfld_pair_kernel*, const void*, std::int64_t, const mfld_points*, const void*, \
                                 std::int64_t, double, void*, const mfld_execution*);                                 \
  template int pair_stein<T>(const mfld_pair_kernel*, const void*, const void*, std::int64_t, const mfld_points*,     \
                             const void*, std::int64_t, void*, void*, void*, const mfld_execution*);                  \
  template int gaussian_means<T>(const double*, const void*, std::int64_t, const mfld_points*, std::int64_t, void*,   \
                                 const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
