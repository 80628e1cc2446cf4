// The risk of a network around a cloud: its value, its gradient, and products of its Hessian with directions, which
// cost two products with the inputs each, since all that the activations say is kept.
//
//   u_ik = mean_m (c_k h + e_k)               g_ik = s_i loss'_k(u_i)          h = act(a), a = w.z_i + b
//
//   gradient in (w, b)  sum_i G_i act'(a_i) (z_i, 1)                            G_i = sum_k c_k g_ik
//   gradient in rho_k   c'_k S_k + e'_k sum_i g_ik                              S_k = sum_i g_ik h_i
//
// With a dot for the change along a direction: da = dw.z_i + db, dc_k = c'_k drho_k, de_k = e'_k drho_k, and
//
//   du_ik = mean_m (dc_k h + c_k act' da + de_k)                                dg_i = s_i loss''(u_i) du_i
//
//   in (w, b)           sum_i (dG_i act'(a_i) + G_i act''(a_i) da_i) (z_i, 1)   dG_i = sum_k c_k dg_ik + dc_k g_ik
//   in rho_k            c''_k drho_k S_k + c'_k dS_k + e''_k drho_k sum_i g_ik + e'_k sum_i dg_ik
#include <algorithm>
#include <cstdint>

#include "entries.hpp"
#include "mfld/losses.hpp"
#include "mfld/team.hpp"
#include "network.hpp"
#include "predictions.hpp"

namespace mfld {
namespace {

// Sizes, and where things lie in what is kept.
template <class T>
class Around {
 public:
  using V = Vec<T>;
  static constexpr std::int64_t lanes = panel_lanes<T>, rows_at_once = NetworkPanel<T>::most_rows_at_once;
  static_assert(rows_at_once % V::size == 0, "sums over particles take whole registers of rows");

  const NetworkPanel<T> network;
  const PanelLayout<T> layout;
  const std::int64_t n, stride, outputs, terms, activations;

  Around(const mfld_network& description, std::int64_t n_particles, std::int64_t n_)
      : network(description),
        layout(n_particles, network.n_coordinates()),
        n(n_),
        stride(round_up(n_, V::size)),
        outputs(network.n_outputs),
        terms(outputs * lanes),
        activations(stride * lanes) {}

  std::int64_t size() const {
    return layout.n_panels * (3 * activations + terms) + 2 * outputs * stride + outputs + boundary;
  }
  // On a boundary of cache lines, whatever the caller's array begins on.
  T* begin(const void* kept) const {
    const auto at = reinterpret_cast<std::uintptr_t>(kept);
    return reinterpret_cast<T*>((at + 63) / 64 * 64);
  }
  // Of panel p: act, act' and act'' (stride, lanes), the last one times G; and S (outputs, lanes).
  T* values(T* kept, std::int64_t p) const { return kept + p * (3 * activations + terms); }
  T* slopes(T* kept, std::int64_t p) const { return values(kept, p) + activations; }
  T* bends(T* kept, std::int64_t p) const { return slopes(kept, p) + activations; }
  T* weighted(T* kept, std::int64_t p) const { return bends(kept, p) + activations; }
  // u and g (outputs, stride), and the sums of g (outputs)
  T* predictions(T* kept) const { return values(kept, layout.n_panels); }
  T* cotangents(T* kept) const { return predictions(kept) + outputs * stride; }
  T* totals(T* kept) const { return cotangents(kept) + outputs * stride; }

  // body(rows) of each part, for as long as `going` says so.
  template <class Going, class Body>
  void each_part(const Going& going, const Body& body) const {
    for (std::int64_t first = 0; first < n && going(); first += rows_at_once)
      body(Range{first, std::min(first + rows_at_once, n)});
  }
  // Rows that pad to a whole register are summed with the rest: they must hold numbers.
  void pad(T* activations_of_panel) const {
    std::fill(activations_of_panel + n * lanes, activations_of_panel + stride * lanes, T(0));
  }

  int threads(int num_threads) const {
    const auto panel_work = static_cast<double>(lanes * n * (network.n_features + 16));
    return useful_threads(num_threads, layout.n_leaves, panel_work * static_cast<double>(layout.n_panels));
  }

 private:
  static constexpr std::int64_t boundary = 64 / static_cast<std::int64_t>(sizeof(T));
};

// The loss and its samples, as the one member that looks at them reads them.
template <class T>
class LossesOfRows {
 public:
  using V = Vec<T>;
  const LossKernel<T>& kernel;
  const T parameter;
  const Buffer<T> targets;

  LossesOfRows(const Around<T>& around, const mfld_loss& loss, const mfld_samples& samples)
      : kernel(loss_kernels<T>[loss.id]),
        parameter(static_cast<T>(loss.parameter)),
        targets(around.outputs * around.stride),
        around_(around),
        weights_(static_cast<const T*>(samples.weights)) {
    const std::int64_t width = loss_infos[loss.id].targets == MFLD_TARGETS_CLASS ? 1 : around.outputs;
    const auto* given = static_cast<const T*>(samples.targets);
    std::fill_n(targets.get(), around.outputs * around.stride, T(0));
    for (std::int64_t i = 0; i < around.n; ++i)
      for (std::int64_t k = 0; k < width; ++k) targets[k * around.stride + i] = given[i * width + k];
  }

  // Derivatives of losses (outputs, stride) become cotangents, whose sums over rows go to totals.
  void weigh(T* derivatives, T* totals) const {
    for (std::int64_t k = 0; k < around_.outputs; ++k) {
      T* row = derivatives + k * around_.stride;
      double total = 0;
      for (std::int64_t i = 0; i < around_.n; ++i) total += row[i] *= static_cast<T>(weight(i));
      totals[k] = static_cast<T>(total);
    }
  }

  double mean(const T* predictions, T* scratch) const {
    kernel.value(predictions, targets.get(), around_.stride, around_.stride, around_.outputs, parameter, scratch);
    double sum = 0;
    for (std::int64_t i = 0; i < around_.n; ++i) sum += weight(i) * static_cast<double>(scratch[i]);
    return sum;
  }

 private:
  double weight(std::int64_t i) const {
    return weights_ ? static_cast<double>(weights_[i]) : 1 / static_cast<double>(around_.n);
  }

  const Around<T>& around_;
  const T* weights_;
};

// Both calls: sums over particles by `forward(leaf panel, sums of the leaf)`, from these `between`, by one member, to
// what each panel goes `back` by. Scratch of each member: `scratch_size` numbers.
template <class T, class Forward, class Between, class Back>
int two_passes(const Around<T>& around, const mfld_execution& execution, std::int64_t scratch_size,
               const Forward& forward, const Between& between, const Back& back) {
  const PanelLayout<T>& layout = around.layout;
  const int threads = around.threads(execution.num_threads);
  const LeafSums<T> sums(layout.n_leaves, around.outputs, around.stride, /*copies=*/1);
  const Buffer<T> scratch(threads * scratch_size), predictions(around.outputs * around.stride);
  const auto part_work = static_cast<double>(around.rows_at_once * around.lanes * (around.network.n_features + 16));
  StopSignal stop(execution);
  run_team(threads, [&](int member, int members, SpinBarrier& barrier) {
    T* own = &scratch[member * scratch_size];
    const Sharing team = {layout.leaves, members};
    const Range leaves = team.of(member);
    const auto each_panel = [&](std::int64_t leaf, const auto& body) {
      const Range panels = layout.panels_of(leaf);
      for (std::int64_t p = panels.begin; p < panels.end && !stop.aborting(); ++p) body(p);
    };
    const auto going = [&] {
      if (member == 0) stop.poll(part_work);
      return !stop.aborting();
    };
    for (std::int64_t l = leaves.begin; l < leaves.end; ++l) {
      T* leaf = sums.leaf(0, l);
      std::fill_n(leaf, around.outputs * around.stride, T(0));
      each_panel(l, [&](std::int64_t p) { forward(p, own, leaf, going); });
      sums.join(0, l, leaves, around.outputs, around.n);
    }
    if (member == 0) stop.publish(0);
    barrier.wait();
    if (stop.stopped(0)) return;
    if (member == 0) {
      const double share = 1 / static_cast<double>(layout.n_all);
      sums.total(0, sums.order(team), {0, around.outputs * around.stride}, share, predictions.get());
      between(predictions.get(), own);
    }
    barrier.wait();
    for (std::int64_t l = leaves.begin; l < leaves.end; ++l)
      each_panel(l, [&](std::int64_t p) { back(p, own, going); });
  });
  return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
}

// sums[k][i] += sum over lanes of coefficient[k][lane] share[lane] values[i][lane], from row `first` on
template <class T>
void add_products(const Around<T>& around, const T* coefficient, const T* share, const T* values, Range rows, T* sums) {
  using V = Vec<T>;
  alignas(64) T row[panel_lanes<T>];
  for (std::int64_t k = 0; k < around.outputs; ++k) {
    for (int l = 0; l < panel_lanes<T>; l += V::size)
      (V::load(coefficient + k * around.lanes + l) * V::load(share + l)).store(row + l);
    add_panel_sums(values, rows.size(), row, sums + k * around.stride + rows.begin);
  }
}

// weighted[k][lane] += sum_i cotangents[k][i] values[i][lane]
template <class T>
void weigh_all(const Around<T>& around, const T* values, const T* cotangents, Range rows, T* weighted) {
  for (std::int64_t k = 0; k < around.outputs; ++k)
    detail::weigh_values<T, 1>(values, cotangents + k * around.stride + rows.begin, around.stride, rows.size(),
                               weighted + k * around.lanes);
}

}  // namespace

template <class T>
std::int64_t risk_kept(const mfld_network* description, std::int64_t n_particles, std::int64_t n) {
  return Around<T>(*description, n_particles, n).size();
}

template <class T>
int risk_at(const mfld_network* description, const mfld_loss* loss, const void* particles, std::int64_t n_particles,
            const mfld_samples* samples, void* kept_out, double* value, void* gradient_out,
            const mfld_execution* execution) {
  return guarded([&] {
    using V = Vec<T>;
    constexpr int lanes = panel_lanes<T>;
    const Around<T> around(*description, n_particles, samples->n_samples);
    const NetworkPanel<T>& network = around.network;
    const PanelLayout<T>& layout = around.layout;
    const LossesOfRows<T> losses(around, *loss, *samples);
    T* kept = around.begin(kept_out);
    const auto* z = static_cast<const T*>(samples->inputs);
    const std::int64_t d = network.n_features, terms = around.terms;

    struct Scratch {
      T *panel, *gradient, *coefficient, *offset, *weighted, *readout, *gain;
    };
    const auto cut = [&](T* own) {
      Scratch s = {};
      s.panel = own;
      s.gradient = s.panel + layout.panel_size();
      s.coefficient = s.gradient + layout.panel_size() + lanes;
      s.offset = s.coefficient + terms;
      s.weighted = s.offset + terms;
      s.readout = s.weighted + terms;
      s.gain = s.readout + 2 * terms;
      return s;
    };
    const std::int64_t scratch_size =
        2 * layout.panel_size() + lanes + 5 * terms + std::max(around.rows_at_once * lanes, around.stride);
    const auto load = [&](std::int64_t p, const Scratch& s) {
      layout.pack(static_cast<const T*>(particles), p, s.panel);
      network.terms(s.panel, s.coefficient, s.offset);
    };

    return two_passes<T>(
        around, *execution, scratch_size,
        [&](std::int64_t p, T* own, T* leaf, const auto& going) {
          const Scratch s = cut(own);
          load(p, s);
          alignas(64) T share[lanes];
          panel_share<T>(layout, p, nullptr, share);
          T* values = around.values(kept, p);
          around.each_part(going, [&](Range rows) {
            const std::int64_t at = rows.begin * lanes;
            affine(s.panel, d, network.has_bias ? s.panel + d * lanes : nullptr, z + rows.begin * d, rows.size(),
                   values + at);
            network.activation.bend(values + at, around.slopes(kept, p) + at, around.bends(kept, p) + at,
                                    rows.size() * lanes);
          });
          around.pad(values);
          add_to_leaf(network, values, around.n, s.coefficient, s.offset, share, leaf, around.stride);
        },
        [&](const T* predictions, T* own) {
          T* cotangents = around.cotangents(kept);
          std::copy_n(predictions, around.outputs * around.stride, around.predictions(kept));
          *value = losses.mean(predictions, own);
          losses.kernel.derivative(predictions, losses.targets.get(), around.stride, around.stride, around.outputs,
                                   losses.parameter, cotangents);
          losses.weigh(cotangents, around.totals(kept));
        },
        [&](std::int64_t p, T* own, const auto& going) {
          const Scratch s = cut(own);
          load(p, s);
          const T* cotangents = around.cotangents(kept);
          std::fill_n(s.weighted, terms, T(0));
          V t0(0), t1(0);
          around.each_part(going, [&](Range rows) {
            const std::int64_t first = rows.begin * lanes;
            const T* slopes = around.slopes(kept, p) + first;
            T* bends = around.bends(kept, p) + first;
            detail::mix_cotangents(s.coefficient, around.outputs, cotangents + rows.begin, around.stride, rows.size(),
                                   s.gain);
            const auto pulled = [&](std::int64_t at) __attribute__((always_inline)) {
              const V mixed = V::load(s.gain + at), gain = mixed * V::load(slopes + at);
              (V::load(bends + at) * mixed).store(bends + at);
              gain.store(s.gain + at);
              return gain;
            };
            for (std::int64_t at = 0; at < rows.size() * lanes; at += lanes) {
              t0 += pulled(at);
              t1 += pulled(at + V::size);
            }
            accumulate_features(s.gain, rows.size(), z + rows.begin * d, d, s.gradient, rows.begin > 0);
            weigh_all(around, around.values(kept, p) + first, cotangents, rows, s.weighted);
          });
          std::copy_n(s.weighted, terms, around.weighted(kept, p));
          if (network.has_bias) {
            t0.store(s.gradient + d * lanes);
            t1.store(s.gradient + d * lanes + V::size);
          }
          network.finish_readout(s.panel, around.totals(kept), s.weighted, s.readout);
          for (std::int64_t j = network.n_affine() * lanes, k = 0; j < layout.panel_size(); ++j, ++k)
            s.gradient[j] = network.readout_moves() ? s.weighted[k] : T(0);
          layout.unpack(s.gradient, p, static_cast<T*>(gradient_out));
        });
  });
}

template <class T>
int risk_along(const mfld_network* description, const mfld_loss* loss, const void* particles, std::int64_t n_particles,
               const mfld_samples* samples, const void* kept_by, const void* direction, void* product_out,
               const mfld_execution* execution) {
  return guarded([&] {
    using V = Vec<T>;
    constexpr int lanes = panel_lanes<T>;
    const Around<T> around(*description, n_particles, samples->n_samples);
    const NetworkPanel<T>& network = around.network;
    const PanelLayout<T>& layout = around.layout;
    const LossesOfRows<T> losses(around, *loss, *samples);
    T* kept = around.begin(kept_by);  // only read
    const auto* z = static_cast<const T*>(samples->inputs);
    const std::int64_t d = network.n_features, terms = around.terms;

    // da of all panels; then dg and its sums.
    const Buffer<T> tangents(layout.n_panels * around.activations);
    const Buffer<T> cotangents(around.outputs * around.stride), totals(around.outputs);

    // Of a panel: theta and the direction, c and e, dc and de, c' and e', c'' and e''.
    struct Scratch {
      T *panel, *along, *coefficient, *offset, *moved, *moved_offset, *slope, *slope_offset, *bend, *bend_offset;
      T *weighted, *product, *gain, *other;
    };
    const std::int64_t part = around.rows_at_once * lanes;
    const std::int64_t scratch_size = 3 * layout.panel_size() + lanes + 9 * terms + 2 * part;
    const auto cut = [&](T* own) {
      Scratch s = {};
      T** const panels[] = {&s.panel, &s.along, &s.product};
      T** const rows_of_outputs[] = {&s.coefficient,  &s.offset, &s.moved,       &s.moved_offset, &s.slope,
                                     &s.slope_offset, &s.bend,   &s.bend_offset, &s.weighted};
      for (T** place : panels) *place = own, own += layout.panel_size();
      own += lanes;
      for (T** place : rows_of_outputs) *place = own, own += terms;
      s.gain = own;
      s.other = own + part;
      return s;
    };
    const auto load = [&](std::int64_t p, const Scratch& s) {
      layout.pack(static_cast<const T*>(particles), p, s.panel);
      layout.pack(static_cast<const T*>(direction), p, s.along);
      const T* rho = network.readout_rows(s.panel);
      network.terms(s.panel, s.coefficient, s.offset);
      network.readout.derivative(rho, terms, network.scale, network.bound, s.slope, s.slope_offset);
      network.readout.curvature(rho, terms, network.scale, network.bound, s.bend, s.bend_offset);
      const T* change = network.readout_rows(s.along);
      for (std::int64_t at = 0; at < terms; at += V::size) {
        const V by = network.readout_moves() ? V::load(change + at) : V(0);
        (V::load(s.slope + at) * by).store(s.moved + at);
        (V::load(s.slope_offset + at) * by).store(s.moved_offset + at);
        (V::load(s.bend + at) * by).store(s.bend + at);
        (V::load(s.bend_offset + at) * by).store(s.bend_offset + at);
      }
    };

    return two_passes<T>(
        around, *execution, scratch_size,
        [&](std::int64_t p, T* own, T* leaf, const auto& going) {
          const Scratch s = cut(own);
          load(p, s);
          alignas(64) T share[lanes];
          panel_share<T>(layout, p, nullptr, share);
          const T *values = around.values(kept, p), *slopes = around.slopes(kept, p);
          T* tangent = &tangents[p * around.activations];
          around.each_part(going, [&](Range rows) {
            const std::int64_t first = rows.begin * lanes, size = rows.size() * lanes;
            affine(s.along, d, network.has_bias ? s.along + d * lanes : nullptr, z + rows.begin * d, rows.size(),
                   tangent + first);
            for (std::int64_t at = 0; at < size; at += V::size)
              (V::load(slopes + first + at) * V::load(tangent + first + at)).store(s.gain + at);
            std::fill(s.gain + size, s.gain + round_up(rows.size(), V::size) * lanes, T(0));
            add_products(around, s.coefficient, share, s.gain, rows, leaf);
          });
          add_to_leaf(network, values, around.n, s.moved, s.moved_offset, share, leaf, around.stride);
        },
        [&](const T* changes, T*) {
          losses.kernel.along(around.predictions(kept), losses.targets.get(), changes, around.stride, around.stride,
                              around.outputs, losses.parameter, cotangents.get());
          losses.weigh(cotangents.get(), totals.get());
        },
        [&](std::int64_t p, T* own, const auto& going) {
          const Scratch s = cut(own);
          load(p, s);
          const T* their_cotangents = around.cotangents(kept);
          const T* tangent = &tangents[p * around.activations];
          std::fill_n(s.weighted, terms, T(0));
          V t0(0), t1(0);
          around.each_part(going, [&](Range rows) {
            const std::int64_t first = rows.begin * lanes;
            const T *slopes = around.slopes(kept, p) + first, *bends = around.bends(kept, p) + first;
            detail::mix_cotangents(s.coefficient, around.outputs, &cotangents[rows.begin], around.stride, rows.size(),
                                   s.gain);
            detail::mix_cotangents(s.moved, around.outputs, their_cotangents + rows.begin, around.stride, rows.size(),
                                   s.other);
            const auto pulled = [&](std::int64_t at) __attribute__((always_inline)) {
              const V slope = V::load(slopes + at), da = V::load(tangent + first + at);
              const V gain = (V::load(s.gain + at) + V::load(s.other + at)) * slope + V::load(bends + at) * da;
              (slope * da).store(s.other + at);
              gain.store(s.gain + at);
              return gain;
            };
            for (std::int64_t at = 0; at < rows.size() * lanes; at += lanes) {
              t0 += pulled(at);
              t1 += pulled(at + V::size);
            }
            accumulate_features(s.gain, rows.size(), z + rows.begin * d, d, s.product, rows.begin > 0);
            if (!network.readout_moves()) return;
            weigh_all(around, around.values(kept, p) + first, cotangents.get(), rows, s.weighted);
            weigh_all(around, s.other, their_cotangents, rows, s.weighted);
          });
          if (network.has_bias) {
            t0.store(s.product + d * lanes);
            t1.store(s.product + d * lanes + V::size);
          }
          const T *sums = around.weighted(kept, p), *their_totals = around.totals(kept);
          for (std::int64_t k = 0, at = 0; network.readout_info.has_coordinates && k < around.outputs; ++k)
            for (int l = 0; l < lanes; ++l, ++at)
              s.product[network.n_affine() * lanes + at] =
                  network.readout_moves() ? s.bend[at] * sums[at] + s.slope[at] * s.weighted[at] +
                                                s.bend_offset[at] * their_totals[k] + s.slope_offset[at] * totals[k]
                                          : T(0);
          layout.unpack(s.product, p, static_cast<T*>(product_out));
        });
  });
}

#define MFLD_INSTANTIATE(T)                                                                                         \
  template std::int64_t risk_kept<T>(const mfld_network*, std::int64_t, std::int64_t);                              \
  template int risk_at<T>(const mfld_network*, const mfld_loss*, const void*, std::int64_t, const mfld_samples*,    \
                          void*, double*, void*, const mfld_execution*);                                            \
  template int risk_along<T>(const mfld_network*, const mfld_loss*, const void*, std::int64_t, const mfld_samples*, \
                             const void*, const void*, void*, const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
