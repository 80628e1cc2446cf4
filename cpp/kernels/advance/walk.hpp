// Mean-field Langevin dynamics on a two-layer risk, all steps of a stretch inside: the walk of a team of threads.
//
// A stretch is a sequence of gradients, one for each place q in its steps, and of the moves that they lead to. With
// rows I_q, shared by all particles, the estimate of gradient q is the full one over all rows, or that of a mini-batch,
//
//   g_I(X_q) = (n / B) sum_{i in I} s_i grad l_i(X_q),
//
// which an anchor may correct (anchor.hpp). The ridge is never estimated: moves add it (moves.hpp).
//
// A gradient walks over its rows in blocks (passes.hpp). Per block: every member sums its leaves' predictions
// (forward), one barrier, every member totals these sums and takes the loss derivative (the same numbers, so that no
// second barrier is needed), and pulls back to its own panels. After the last block it moves its own panels, noise
// included. A member never writes what another one reads except for leaf sums, gathered rows and the anchor's
// predictions, which take turns. Where several ranks share the particles, member 0 meets theirs behind the barrier
// (ranks.hpp), and there is a second one. Where they share the rows, each walks over its own, and they meet once a
// gradient, behind the last block.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <mutex>
#include <numeric>

#include "anchor.hpp"
#include "mfld/on_disk.hpp"
#include "mfld/parts.hpp"
#include "mfld/team.hpp"
#include "moves.hpp"
#include "passes.hpp"
#include "problem.hpp"
#include "sizes.hpp"

namespace mfld {

// What the steps of one replicate came to.
struct Reached {
  std::int64_t steps = 0;          // whole ones; of a divergence those before it, none of which is in the arrays
  std::int64_t bad_particle = -1;  // the first one that is not finite
  double loss = std::numeric_limits<double>::quiet_NaN(), gradient_norm = std::numeric_limits<double>::quiet_NaN();
};

template <class T, class Anchor, class Moves>
class Advance {
 public:
  Advance(const Problem<T>& problem, Workspace<T>& memory, const Stretch<T>& stretch, const mfld_execution& execution)
      : problem_(problem),
        memory_(memory),
        sizes_(memory.sizes),
        stretch_(stretch),
        passes_(problem, memory),
        moves_(passes_, stretch),
        anchor_(passes_, stretch, moves_.first()),
        ranks_(memory.ranks),
        first_(moves_.first()),
        end_(moves_.end()),
        last_whole_(first_ - 1),
        on_disk_(problem.samples, problem.network.row_width() * static_cast<std::int64_t>(sizeof(T))),
        stop_(execution) {}

  Reached run() {
    run_team(sizes_.threads, [this](int member, int members, SpinBarrier& barrier) { work(member, members, barrier); });
    const bool any = last_whole_ >= first_, ended = last_whole_ + 1 == end_;
    // What the last gradient left behind: asked before `leave`, which says what is valid now.
    const bool kept = keeps(last_whole_);
    anchor_.leave(any, last_whole_, ended);
    moves_.leave(any, kept);

    const PanelLayout<T>& layout = sizes_.layout;
    const std::int64_t steps = bad_ == nowhere ? moves_.steps_behind(last_whole_) : bad_.first;
    if (!ended) return {steps, bad_.second};
    const RowLeaves& row_leaves = sizes_.row_leaves;
    const auto gather = [this](const Buffer<double>& array, std::int64_t n) {
      ranks_.gather(array.get(), [&](std::int64_t r) { return even_part(n, r, ranks_.count()); });
    };
    if (ranks_.share_particles()) gather(memory_.squared_norms, layout.n_leaves);
    if (ranks_.share_rows()) gather(memory_.row_losses, row_leaves.count);
    const double squares = std::accumulate(&memory_.squared_norms[0], &memory_.squared_norms[layout.n_leaves], 0.0);
    const double loss = std::accumulate(&memory_.row_losses[0], &memory_.row_losses[row_leaves.count], 0.0);
    return {steps, bad_.second, loss, std::sqrt(squares / static_cast<double>(layout.n_all))};
  }

 private:
  void work(int member, int members, SpinBarrier& barrier) {
    const PanelLayout<T>& layout = sizes_.layout;
    const Scratch<T> s = memory_.of_member(member);
    const Sharing team = {layout.leaves, members};
    const Range leaves = team.of(member);
    const Range mine = {leaves.size() ? layout.panels_of(leaves.begin).begin : 0,
                        leaves.size() ? layout.panels_of(leaves.end - 1).end : 0};
    const auto order =
        memory_.sums.order(ranks_.share_particles() ? Sharing{{0, layout.n_leaves}, ranks_.count()} : team);
    const RowLeaves& row_leaves = sizes_.row_leaves;
    const auto order_of_rows =
        memory_.row_sums.order({{0, row_leaves.count}, ranks_.share_rows() ? ranks_.count() : 1});
    begin(member, mine);

    const auto gather = [&](std::int64_t q) {
      if (problem_.is_stream) return;
      const InPart part(Part::rows);
      std::int64_t* rows = memory_.row_list(member, q);
      const auto gives_up = [&](std::int64_t draws) {
        return asked(member, static_cast<double>(work_of_draw * draws));
      };
      if (floyd_batch(stretch_.noise_at(q), problem_.samples.n_samples, problem_.batch_size, rows,
                      memory_.row_sets[member], gives_up))
        memory_.batches.gather(q, rows, even_part(problem_.batch_size, member, members), gives_up);
    };
    if (!anchor_.is_full(first_)) gather(first_);
    // What a stop has left undone so far must not be walked over.
    constexpr std::int64_t before_all = -1;
    if (member == 0) stop_.publish(before_all);
    barrier.wait();
    if (ranks_.several()) {
      if (member == 0 && ranks_.any(stop_.stopped(before_all))) stop_.publish_stop(before_all);
      barrier.wait();
    }
    if (stop_.stopped(before_all)) return;

    std::int64_t turn = 0;
    for (std::int64_t q = first_; q < end_; ++q) {
      const bool last = q + 1 == end_, full = anchor_.is_full(q), corrected = Anchor::corrects && !full;
      const SampleBlocks& blocks = sizes_.blocks(full);
      const Rows<T> rows = full                 ? all_rows<T>(problem_.samples)
                           : problem_.is_stream ? BatchQueue<T>::of_stream(problem_, stretch_.done + q)
                                                : memory_.batches.rows(q);
      if (!last && !anchor_.is_full(q + 1)) gather(q + 1);
      const double work = sizes_.leaf_work(full);
      // Whether the gradient is summed over leaves of rows, behind all blocks of this rank.
      const bool by_leaves = full && row_leaves.summed;
      const Range own_blocks = by_leaves ? row_leaves.own_blocks() : Range{0, blocks.n_blocks};
      const std::int64_t n_turns = by_leaves ? row_leaves.n_turns : blocks.n_blocks;
      bool end = last;
      for (std::int64_t p = mine.begin; p < mine.end; ++p) passes_.make_terms(q, p);
      const typename Moves::Step step = moves_.step(q);
      const auto move = [&](std::int64_t p, T* gradient) {
        const PanelGradient<T> estimate = moves_.settle(
            anchor_.estimate(q, p, corrected,
                             passes_.finish(passes_.panel(q, p), passes_.terms(q, p), s.own, s, gradient), s),
            p, end || anchor_.is_full(q + 1));
        if (last)
          memory_.squared_norms[layout.leaf_of(p)] += squared_norm(
              passes_.panel(q, p), estimate, problem_.network.n_moving(), layout.particles_in(p), moves_.ridge());
        const InPart part(Part::moves);
        note(q, moves_.move(step, p, estimate, end));
      };
      if (last) std::fill(&memory_.squared_norms[0] + leaves.begin, &memory_.squared_norms[0] + leaves.end, 0.0);

      for (std::int64_t i = 0; i < n_turns; ++i, ++turn) {
        const std::int64_t b = own_blocks.begin + i;
        // Another rank has more blocks.
        const bool idle = b >= own_blocks.end;
        const std::int64_t row_leaf = by_leaves && !idle ? row_leaves.leaf_of(b) : 0;
        const Range together = by_leaves ? row_leaves.blocks_of(row_leaf) : own_blocks;
        const Block<T> block = {
            q, turn, rows, idle ? Range{0, 0} : blocks.rows(b), values_stride<T>(blocks), b == together.begin};
        if (!idle) passes_.turn_inputs(block, member, members);
        for (std::int64_t l = leaves.begin; l < leaves.end && !idle && !gives_up(); ++l) {
          if (member == 0) stop_.poll(work);
          passes_.forward_leaf(0, q, l, block, s);
          if (corrected) anchor_.forward_leaf(l, block, s);
          const InPart part(Part::sums);
          memory_.sums.join(turn, l, leaves, summed(corrected), block.size());
        }
        if (idle && member == 0) stop_.poll(work * static_cast<double>(layout.n_leaves));
        if (member == 0) stop_.publish(turn);
        barrier.wait();
        if (full && !idle && member == 0) on_disk_.read_to(block.range.begin);
        const bool asks = ranks_.share_rows() && (i + 1) % row_leaves.between_meetings == 0;
        if (ranks_.share_particles() || asks) {
          if (member == 0) {
            if (ranks_.share_particles())
              meet(q, turn, team, summed(corrected), block.size());
            else if (ranks_.any(stop_.stopped(turn)))
              stop_.publish_stop(turn);
          }
          barrier.wait();
          if (ranks_.failed()) return;
        }
        // All members see the same answers here, and leave with whole steps only; ranks that share rows leave together.
        const bool stopped = stop_.stopped(turn);
        if (ranks_.only_sums()) {
          if (stopped || i + 1 == n_turns) return;
          continue;
        }
        if ((stopped && !sizes_.ends_steps && (asks || !ranks_.share_rows())) ||
            (q > 0 && diverged_[(q - 1) & 1].load(std::memory_order_relaxed))) {
          finish(member, mine, q - 1);
          return;
        }
        end = last || (stopped && sizes_.ends_steps);
        if (idle) continue;
        passes_.turn_targets(block, s.targets);
        passes_.total(0, order, block, s.own.predictions);
        passes_.differentiate(block, s.targets, s.own);
        if (last && member == 0)
          memory_.row_losses[row_leaf] = passes_.add_losses(block, s, block.first ? 0 : memory_.row_losses[row_leaf]);
        if (corrected)
          anchor_.differentiate(block, memory_.row_list(member, q), order, s);
        else
          anchor_.remember(block, even_part(block.size(), member, members), s);

        const bool last_block = !by_leaves && b + 1 == blocks.n_blocks;
        // Before the last block the step can still be given up; in it, it must be made whole, like a gradient of leaves
        // that other ranks would move by: they hear of a stop with the next predictions.
        const bool whole = last_block || (ranks_.share_particles() && i + 1 == n_turns);
        for (std::int64_t l = leaves.begin; l < leaves.end; ++l) {
          if (member == 0) stop_.poll(work);
          if (!whole && gives_up()) break;
          const Range panels = layout.panels_of(l);
          for (std::int64_t p = panels.begin; p < panels.end; ++p) {
            T* gradient = by_leaves ? memory_.row_sums.leaf(0, row_leaf) + p * sizes_.gradient
                                    : passes_.gradient(blocks.n_blocks > 1 ? p : member);
            passes_.pull_back(0, q, p, s.own, block, s, gradient);
            if (corrected) anchor_.pull_back(p, block, s, gradient + sizes_.gradient);
            if (last_block) move(p, gradient);
          }
        }
        if (by_leaves && b + 1 == together.end) join_rows(member, row_leaf, mine, s);
      }
      if (by_leaves) {
        if (member == 0 && !ranks_.share_particles()) stop_.publish(turn);
        barrier.wait();
        if (ranks_.share_rows()) {
          if (member == 0) {
            const auto news = memory_.row_sums_of_ranks.meet(ranks_, {stop_.stopped(turn), bad_.first, bad_.second}, 0,
                                                             layout.n_panels + 1, sizes_.gradient);
            if (news.stop) stop_.publish_stop(turn);
          }
          barrier.wait();
          if (ranks_.failed()) return;
        }
        if (!ranks_.share_particles() && stop_.stopped(turn)) {
          finish(member, mine, q - 1);
          return;
        }
        T* const sum = passes_.gradient(member);
        const auto total = [&](std::int64_t row) {
          const std::int64_t first = row * sizes_.gradient;
          memory_.row_sums.total(0, order_of_rows, {first, first + sizes_.gradient}, 1.0, sum - first);
        };
        total(layout.n_panels);
        std::copy_n(sum, problem_.network.n_outputs, s.own.totals);
        for (std::int64_t p = mine.begin; p < mine.end; ++p) {
          total(p);
          move(p, sum);
        }
        ++turn;
      }
      if (end) {
        barrier.wait();  // so that every divergence is known
        if (ranks_.share_particles()) {
          if (member == 0) meet(q + 1, turn, team, 0, 0);
          barrier.wait();
          if (ranks_.failed()) return;
        }
        finish(member, mine, q);
        return;
      }
    }
  }

  // A member's panels behind the last block of a leaf of rows; the sums of the cotangents, which all members make, are
  // those of member 0.
  void join_rows(int member, std::int64_t leaf, Range mine, const Scratch<T>& s) {
    const std::int64_t size = sizes_.gradient, behind = sizes_.layout.n_panels;
    memory_.row_sums.join(0, leaf, sizes_.row_leaves.own, mine.size(), size, mine.begin);
    if (member > 0) return;
    T* totals = memory_.row_sums.leaf(0, leaf) + behind * size;
    std::fill_n(totals, size, T(0));
    std::copy_n(s.own.totals, problem_.network.n_outputs, totals);
    memory_.row_sums.join(0, leaf, sizes_.row_leaves.own, 1, size, behind);
  }

  // Outputs whose sums a block makes.
  std::int64_t summed(bool corrected) const { return (corrected ? Anchor::n_summed : 1) * problem_.network.n_outputs; }

  // Member 0, behind a barrier of turn `turn` before gradient q leads to a move: the sums of all ranks, and whether any
  // of them stops or has diverged.
  void meet(std::int64_t q, std::int64_t turn, const Sharing& team, std::int64_t outputs, std::int64_t n_rows) {
    memory_.sums.join_members(turn, team, outputs, n_rows);
    const auto news =
        memory_.sums_of_ranks.meet(ranks_, {stop_.stopped(turn), bad_.first, bad_.second}, turn, outputs, n_rows);
    if (news.stop) stop_.publish_stop(turn);
    if (bad_ == nowhere && news.bad_particle >= 0) diverged_[(q - 1) & 1].store(true, std::memory_order_relaxed);
    bad_ = {news.bad_step, news.bad_particle};
  }

  // From the caller's arrays to panels, and on to the place of the first gradient.
  void begin(int member, Range mine) {
    const auto panel_work = static_cast<double>(10 * sizes_.layout.panel_size());
    for (std::int64_t p = mine.begin; p < mine.end; ++p) {
      if (asked(member, panel_work)) return;
      for (int g = 0; g < sizes_.generations; ++g) passes_.load(stretch_.particles, true, p, passes_.panel(g, p));
      moves_.load(p);
      anchor_.load(p);
      passes_.pad_values(p);
    }
    const typename Moves::Step step = moves_.step(0);
    for (std::int64_t p = mine.begin; p < mine.end && !asked(member, panel_work); ++p) note(0, moves_.begin(step, p));
  }

  // Back to the caller's arrays, behind a barrier: the whole steps that gradients up to last_whole made. A divergence
  // leaves them as they were, so that the steps before it can be made from there.
  void finish(int member, Range mine, std::int64_t last_whole) {
    if (member == 0) last_whole_ = last_whole;
    if (bad_ != nowhere || last_whole < first_) return;
    const std::int64_t steps = moves_.steps_behind(last_whole);
    for (std::int64_t p = mine.begin; p < mine.end; ++p) {
      passes_.store(passes_.panel(steps, p), p, stretch_.particles);
      moves_.store(steps, p, keeps(last_whole));
      anchor_.store(last_whole, p);
    }
  }

  // Before `work` more multiply-adds of a member: whether a stop is wanted.
  bool asked(int member, double work) {
    if (member == 0) stop_.poll(work);
    return stop_.aborting();
  }
  bool gives_up() const { return stop_.aborting() && !sizes_.ends_steps; }
  // Whether gradient q is kept by the moves: where the stretch ends, or where the next gradient may lead back to it.
  bool keeps(std::int64_t q) const { return q + 1 == end_ || sizes_.ends_steps || anchor_.is_full(q + 1); }

  void note(std::int64_t q, Mark bad) {
    if (bad == nowhere) return;
    const std::lock_guard<std::mutex> lock(bad_mutex_);
    bad_ = std::min(bad_, bad);
    diverged_[q & 1].store(true, std::memory_order_relaxed);
  }

  const Problem<T>& problem_;
  Workspace<T>& memory_;
  const Sizes<T>& sizes_;
  const Stretch<T>& stretch_;
  const Passes<T> passes_;
  const Moves moves_;
  const Anchor anchor_;
  Ranks& ranks_;
  const std::int64_t first_, end_;  // of the gradients
  std::int64_t last_whole_;
  OnDisk on_disk_;
  StopSignal stop_;
  std::atomic<bool> diverged_[2] = {false, false};  // by the parity of the gradient: see StopSignal
  std::mutex bad_mutex_;
  Mark bad_ = nowhere;
};

}  // namespace mfld
