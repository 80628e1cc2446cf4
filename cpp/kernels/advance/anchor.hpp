// The correction of a mini-batch gradient by a second one, of the same rows at an anchor A:
//
//   none    g_I(X_q)                  or full(X_q) where there are no mini-batches
//   SVRG    g_I(X_q) - g_I(A) + v     A the particles at the last refresh, v = full(A)        full(X_q) at a refresh
//   SARAH   g_I(X_q) - g_I(A) + v     A the particles of the last gradient, v its estimate    full(X_q) at a refresh
//
// An anchor is a type with the members of NoAnchor. The full gradient is due at steps that refresh_every divides, and
// wherever the caller's buffers do not hold what they should.
#pragma once

#include <algorithm>
#include <cstdint>

#include "passes.hpp"
#include "problem.hpp"
#include "sizes.hpp"

namespace mfld {

template <class T>
class NoAnchor {
 public:
  static constexpr bool corrects = false, sweeps_anchor = false, looks_back = false;
  static constexpr int n_summed = 1;
  using Order = typename LeafSums<T>::Order;

  NoAnchor(const Passes<T>& passes, const Stretch<T>& stretch, std::int64_t)
      : passes_(passes), estimator_(stretch.estimator) {}

  // Whether gradient q is over all rows.
  bool is_full(std::int64_t) const { return passes_.problem.batch_size == 0; }
  // A member's panels, before the first gradient.
  void load(std::int64_t) const {}

  // A block of a mini-batch that is corrected: forward where predictions at the anchor are sums; its cotangents there;
  // and a panel's gradient there.
  void forward_leaf(std::int64_t, const Block<T>&, const Scratch<T>&) const {}
  void differentiate(const Block<T>&, const std::int64_t*, const Order&, const Scratch<T>&) const {}
  void pull_back(std::int64_t, const Block<T>&, const Scratch<T>&, T*) const {}
  // A block of all rows; `part` of its rows are this member's.
  void remember(const Block<T>&, Range, const Scratch<T>&) const {}
  // The estimate of gradient q at a panel; the gradient at the anchor stands behind it.
  PanelGradient<T> estimate(std::int64_t, std::int64_t, bool, const PanelGradient<T>& gradient,
                            const Scratch<T>&) const {
    return gradient;
  }

  // Back to the caller's arrays: what gradient q left behind. And whether it is whole: `torn` by a stop in gradient
  // q + 1.
  void store(std::int64_t, std::int64_t) const {}
  void leave(bool, std::int64_t, bool) const { estimator_.valid = 0; }

 private:
  const Passes<T>& passes_;
  mfld_estimator& estimator_;
};

// What SVRG and SARAH share: refreshes, and v.
template <class T>
class Anchored {
 public:
  static constexpr bool corrects = true;
  using Order = typename LeafSums<T>::Order;

  Anchored(const Passes<T>& passes, const Stretch<T>& stretch, std::int64_t first)
      : passes_(passes), stretch_(stretch), estimator_(stretch.estimator), first_(first) {}

  bool is_full(std::int64_t q) const {
    return (q == first_ && !estimator_.valid) ||
           stretch_.noise_at(q).step % static_cast<std::uint64_t>(estimator_.refresh_every) == 0;
  }

 protected:
  T* kept(std::int64_t p) const { return passes_.panel_of(passes_.memory.anchor_gradient, p); }
  void load_kept(std::int64_t p) const { passes_.load(estimator_.anchor_gradient, estimator_.valid, p, kept(p)); }

  // own - at_anchor + v into `out`, plain rows
  void correct(const T* own, const T* at_anchor, const T* v, T* out) const {
    using V = Vec<T>;
    for (std::int64_t at = 0; at < passes_.network.n_moving() * panel_lanes<T>; at += V::size)
      (V::load(own + at) - V::load(at_anchor + at) + V::load(v + at)).store(out + at);
  }

  const Passes<T>& passes_;
  const Stretch<T>& stretch_;
  mfld_estimator& estimator_;
  const std::int64_t first_;
};

// Predictions at the anchor are stored at a refresh, for all rows, and its activations are made anew, panel by panel.
template <class T>
class Svrg : public Anchored<T> {
  using Base = Anchored<T>;
  using Base::passes_, Base::estimator_;

 public:
  static constexpr bool sweeps_anchor = true, looks_back = false;
  static constexpr int n_summed = 1;
  using Base::Base, typename Base::Order;

  void load(std::int64_t p) const {
    passes_.load(estimator_.anchor, estimator_.valid, p, anchor(p));
    this->load_kept(p);
  }

  void forward_leaf(std::int64_t, const Block<T>&, const Scratch<T>&) const {}
  void differentiate(const Block<T>& block, const std::int64_t* rows, const Order&, const Scratch<T>& s) const {
    const std::int64_t outputs = passes_.network.n_outputs, stride = passes_.sizes.stride;
    const T* stored = static_cast<const T*>(estimator_.anchor_predictions);
    for (std::int64_t i = 0; i < block.size(); ++i)
      for (std::int64_t k = 0; k < outputs; ++k)
        s.anchor.predictions[k * stride + i] = stored[rows[block.range.begin + i] * outputs + k];
    passes_.differentiate(block, s.targets, s.anchor);
  }
  void pull_back(std::int64_t p, const Block<T>& block, const Scratch<T>& s, T* gradient) const {
    passes_.make_terms(anchor(p), s.anchor_terms);
    passes_.network.forward(anchor(p), passes_.inputs_of(block), block.size(), s.anchor_values, s.anchor_slopes,
                            s.weights);
    passes_.pull_back(s.anchor_terms, s.anchor_values, s.anchor_slopes, s.anchor, block, s, gradient);
  }
  // Members store different rows; all read them behind the next barrier.
  void remember(const Block<T>& block, Range part, const Scratch<T>& s) const {
    const std::int64_t outputs = passes_.network.n_outputs, stride = passes_.sizes.stride;
    T* stored = static_cast<T*>(estimator_.anchor_predictions) + block.range.begin * outputs;
    for (std::int64_t i = part.begin; i < part.end; ++i)
      for (std::int64_t k = 0; k < outputs; ++k) stored[i * outputs + k] = s.own.predictions[k * stride + i];
  }
  PanelGradient<T> estimate(std::int64_t q, std::int64_t p, bool corrected, const PanelGradient<T>& gradient,
                            const Scratch<T>& s) const {
    const PanelGradient<T> own = passes_.plain(gradient);
    if (!corrected) {
      std::copy_n(passes_.panel(q, p), passes_.layout.panel_size(), anchor(p));
      std::copy_n(own.affine, own.n_affine * panel_lanes<T>, this->kept(p));
      return own;
    }
    const PanelGradient<T> at_anchor =
        passes_.plain(passes_.finish(anchor(p), s.anchor_terms, s.anchor, s, gradient.affine + passes_.sizes.gradient));
    this->correct(own.affine, at_anchor.affine, this->kept(p), own.affine);
    return own;
  }

  void store(std::int64_t, std::int64_t p) const {
    passes_.store(anchor(p), p, estimator_.anchor);
    passes_.store(this->kept(p), p, estimator_.anchor_gradient);
  }
  // A stop in the middle of a refresh leaves predictions of two anchors.
  void leave(bool any, std::int64_t last_whole, bool ended) const {
    estimator_.valid = (estimator_.valid || any) && (ended || !this->is_full(last_whole + 1));
  }

 private:
  T* anchor(std::int64_t p) const { return passes_.panel_of(passes_.memory.anchor, p); }
};

// The anchor is the other generation of the particles, and summed beside them.
template <class T>
class Sarah : public Anchored<T> {
  using Base = Anchored<T>;
  using Base::passes_, Base::estimator_;

 public:
  static constexpr bool sweeps_anchor = false, looks_back = true;
  static constexpr int n_summed = 2;
  using Base::Base, typename Base::Order;

  void load(std::int64_t p) const {
    this->load_kept(p);
    // Behind a known force it is the present particles, where they already are.
    if (estimator_.valid && this->first_ == 0) passes_.load(estimator_.anchor, true, p, passes_.panel(-1, p));
    passes_.make_terms(this->first_ - 1, p);
  }

  void forward_leaf(std::int64_t l, const Block<T>& block, const Scratch<T>& s) const {
    passes_.forward_leaf(1, block.q - 1, l, block, s);
  }
  void differentiate(const Block<T>& block, const std::int64_t*, const Order& order, const Scratch<T>& s) const {
    passes_.total(1, order, block, s.anchor.predictions);
    passes_.differentiate(block, s.targets, s.anchor);
  }
  void pull_back(std::int64_t p, const Block<T>& block, const Scratch<T>& s, T* gradient) const {
    passes_.pull_back(1, block.q - 1, p, s.anchor, block, s, gradient);
  }
  void remember(const Block<T>&, Range, const Scratch<T>&) const {}
  PanelGradient<T> estimate(std::int64_t q, std::int64_t p, bool corrected, const PanelGradient<T>& gradient,
                            const Scratch<T>& s) const {
    const PanelGradient<T> own = passes_.plain(gradient);
    if (!corrected) {
      std::copy_n(own.affine, own.n_affine * panel_lanes<T>, this->kept(p));
    } else {
      const PanelGradient<T> at_anchor = passes_.plain(passes_.finish(
          passes_.panel(q - 1, p), passes_.terms(q - 1, p), s.anchor, s, gradient.affine + passes_.sizes.gradient));
      this->correct(own.affine, at_anchor.affine, this->kept(p), this->kept(p));
    }
    return passes_.plain(this->kept(p));
  }

  void store(std::int64_t q, std::int64_t p) const {
    passes_.store(passes_.panel(q, p), p, estimator_.anchor);
    passes_.store(this->kept(p), p, estimator_.anchor_gradient);
  }
  void leave(bool any, std::int64_t, bool) const { estimator_.valid = estimator_.valid || any; }
};

}  // namespace mfld
