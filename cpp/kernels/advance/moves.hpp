// The moves that gradients lead to:
//
//   affine, preconditioned   gradient q at theta_q, then step q                              q = 0 .. n_steps - 1
//   BAOAB                    gradient q at theta_q, then the end of step q - 1 and the beginning of step q
//                                                                                            q = 0 .. n_steps
//
// where BAOAB has no gradient 0 if the caller knows it (the force). The schemes of one panel are in move.hpp,
// preconditioned.hpp and baoab.hpp; a type of moves has the members of AffineMoves, and gives them the panels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "anchor.hpp"
#include "baoab.hpp"
#include "move.hpp"
#include "passes.hpp"
#include "preconditioned.hpp"

namespace mfld {

using Mark = std::pair<std::int64_t, std::int64_t>;  // step, particle
inline constexpr Mark nowhere = {std::numeric_limits<std::int64_t>::max(), -1};

template <class T>
class AffineMoves {
 public:
  static constexpr bool splits_steps = false, has_velocities = false, has_moments = false;
  // How gradients lead to moves: the same for all panels.
  struct Step {
    std::int64_t q;
    Affine<T> scheme;
    NoisePlace place;
  };

  AffineMoves(const Passes<T>& passes, const Stretch<T>& stretch) : passes_(passes), stretch_(stretch) {}

  std::int64_t first() const { return 0; }
  std::int64_t end() const { return stretch_.n_steps; }
  Step step(std::int64_t q) const {
    return {q, Affine<T>(stretch_.row(q)), NoisePlace(stretch_.noise_at(q), MFLD_STREAM_MOVE)};
  }

  // A member's panels, before the first gradient.
  void load(std::int64_t) const {}
  // The move that a known gradient 0 leads to. Moves return where a particle is not finite any more, or `nowhere`.
  Mark begin(const Step&, std::int64_t) const { return nowhere; }
  // The estimate as the move wants it; `keep` it, since the next gradient may lead back here.
  PanelGradient<T> settle(const PanelGradient<T>& estimate, std::int64_t, bool) const { return estimate; }
  // end: no step begins here.
  Mark move(const Step& step, std::int64_t p, const PanelGradient<T>& estimate, bool) const {
    const std::int64_t first = passes_.layout.first_of(p);
    const std::int64_t lane =
        step.scheme(passes_.panel(step.q, p), passes_.panel(step.q + 1, p), estimate, passes_.network.n_moving(), first,
                    passes_.layout.end_particle(), step.place, passes_.problem.domain);
    return lane < 0 ? nowhere : Mark(step.q, first + lane);
  }
  // 2 l2 in force at the last step.
  double ridge() const { return Affine<T>::ridge(stretch_.row(stretch_.n_steps - 1)); }

  // Whole steps once gradient q has led to its moves; and back to the caller's arrays what these left behind.
  std::int64_t steps_behind(std::int64_t q) const { return q + 1; }
  void store(std::int64_t, std::int64_t, bool) const {}
  void leave(bool, bool) const { stretch_.dynamics.force_valid = 0; }

 private:
  const Passes<T>& passes_;
  const Stretch<T>& stretch_;
};

template <class T>
class PreconditionedMoves {
 public:
  static constexpr bool splits_steps = false, has_velocities = false, has_moments = true;
  struct Step {
    std::int64_t q;
    PreconditionedStep<T> scheme;
    NoisePlace place;
  };

  PreconditionedMoves(const Passes<T>& passes, const Stretch<T>& stretch)
      : passes_(passes), stretch_(stretch), dynamics_(stretch.dynamics) {}

  std::int64_t first() const { return 0; }
  std::int64_t end() const { return stretch_.n_steps; }
  Step step(std::int64_t q) const {
    const mfld_noise noise = stretch_.noise_at(q);
    return {q, PreconditionedStep<T>(stretch_.row(q), dynamics_, noise.step), NoisePlace(noise, MFLD_STREAM_MOVE)};
  }

  void load(std::int64_t p) const { passes_.load(dynamics_.second_moment, true, p, moment(p)); }
  Mark begin(const Step&, std::int64_t) const { return nowhere; }
  PanelGradient<T> settle(const PanelGradient<T>& estimate, std::int64_t, bool) const { return estimate; }
  Mark move(const Step& step, std::int64_t p, const PanelGradient<T>& estimate, bool) const {
    const std::int64_t first = passes_.layout.first_of(p);
    const std::int64_t lane =
        step.scheme(passes_.panel(step.q, p), passes_.panel(step.q + 1, p), moment(p), passes_.plain(estimate).affine,
                    passes_.network.n_moving(), first, passes_.layout.end_particle(), step.place);
    return lane < 0 ? nowhere : Mark(step.q, first + lane);
  }
  double ridge() const { return PreconditionedStep<T>::ridge(stretch_.row(stretch_.n_steps - 1)); }

  std::int64_t steps_behind(std::int64_t q) const { return q + 1; }
  void store(std::int64_t, std::int64_t p, bool) const { passes_.store(moment(p), p, dynamics_.second_moment); }
  void leave(bool, bool) const { dynamics_.force_valid = 0; }

 private:
  T* moment(std::int64_t p) const { return passes_.panel_of(passes_.memory.moments, p); }

  const Passes<T>& passes_;
  const Stretch<T>& stretch_;
  mfld_dynamics& dynamics_;
};

template <class T>
class BaoabMoves {
 public:
  static constexpr bool splits_steps = true, has_velocities = true, has_moments = false;
  struct Step {
    std::int64_t q;
    Baoab<T> ending, beginning;
    NoisePlace place;
  };

  BaoabMoves(const Passes<T>& passes, const Stretch<T>& stretch)
      : passes_(passes), stretch_(stretch), dynamics_(stretch.dynamics) {}

  std::int64_t first() const { return dynamics_.force_valid ? 1 : 0; }
  std::int64_t end() const { return stretch_.n_steps + 1; }
  Step step(std::int64_t q) const {
    const auto scheme = [&](std::int64_t k) {
      return 0 <= k && k < stretch_.n_steps ? Baoab<T>(stretch_.row(k)) : Baoab<T>();
    };
    return {q, scheme(q - 1), scheme(q), NoisePlace(stretch_.noise_at(q), MFLD_STREAM_MOVE)};
  }

  void load(std::int64_t p) const {
    for (int g = 0; g < passes_.sizes.generations; ++g) passes_.load(dynamics_.velocities, true, p, velocity(g, p));
    passes_.load(dynamics_.force, dynamics_.force_valid, p, force(p));
  }
  Mark begin(const Step& step, std::int64_t p) const {
    return first() == 0 ? nowhere : open(step, p, passes_.plain(force(p)));
  }
  // From a mini-batch the estimate need not be kept: the same rows at the same particles make it once more.
  PanelGradient<T> settle(const PanelGradient<T>& estimate, std::int64_t p, bool keep) const {
    const PanelGradient<T> plain = passes_.plain(estimate);
    if (keep) std::copy_n(plain.affine, plain.n_affine * panel_lanes<T>, force(p));
    return plain;
  }
  Mark move(const Step& step, std::int64_t p, const PanelGradient<T>& estimate, bool end) const {
    Mark bad = nowhere;
    if (step.q > 0) bad = close(step, p, estimate);
    return end ? bad : std::min(bad, open(step, p, estimate));
  }

  double ridge() const { return Baoab<T>::ridge(stretch_.row(stretch_.n_steps - 1)); }

  std::int64_t steps_behind(std::int64_t q) const { return std::max<std::int64_t>(q, 0); }
  void store(std::int64_t steps, std::int64_t p, bool kept) const {
    passes_.store(velocity(steps, p), p, dynamics_.velocities);
    if (kept) passes_.store(force(p), p, dynamics_.force);
  }
  void leave(bool any, bool kept) const { dynamics_.force_valid = any ? kept : dynamics_.force_valid; }

 private:
  T* velocity(std::int64_t q, std::int64_t p) const {
    return &passes_.memory.velocities[passes_.generation(q, p) * passes_.layout.panel_size()];
  }
  T* force(std::int64_t p) const { return passes_.panel_of(passes_.memory.force, p); }

  Mark close(const Step& step, std::int64_t p, const PanelGradient<T>& gradient) const {
    const std::int64_t first = passes_.layout.first_of(p);
    const std::int64_t lane = step.ending.close(passes_.panel(step.q, p), velocity(step.q, p), gradient.affine,
                                                passes_.network.n_moving(), first, passes_.layout.end_particle());
    return lane < 0 ? nowhere : Mark(step.q - 1, first + lane);
  }
  Mark open(const Step& step, std::int64_t p, const PanelGradient<T>& gradient) const {
    const std::int64_t q = step.q, first = passes_.layout.first_of(p);
    const std::int64_t lane = step.beginning.open(passes_.panel(q, p), velocity(q, p), passes_.panel(q + 1, p),
                                                  velocity(q + 1, p), gradient.affine, passes_.network.n_moving(),
                                                  first, passes_.layout.end_particle(), step.place);
    return lane < 0 ? nowhere : Mark(q, first + lane);
  }

  const Passes<T>& passes_;
  const Stretch<T>& stretch_;
  mfld_dynamics& dynamics_;
};

}  // namespace mfld
