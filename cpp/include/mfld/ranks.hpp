// Processes that share the particles of a call, each with leaves of its own; or the rows of its full gradients.
//
// They meet by one operation: every rank fills its slot of a buffer, and gets those of all others. Sums over ranks are
// then made by each for itself, in the order of the leaves, so that they do not depend on the number of ranks. Ranks
// make the same meetings in the same order, whatever happens to one of them: a stop or a divergence is told at the next
// meeting, and all act on it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include "mfld/kernels.h"
#include "mfld/panels.hpp"

namespace mfld {

class Ranks {
 public:
  explicit Ranks(const mfld_execution& execution) : ranks_(execution.ranks), answers_(count()) {}

  // With one rank there are no meetings.
  bool several() const { return count() > 1; }
  std::int64_t rank() const { return ranks_ ? ranks_->rank : 0; }
  std::int64_t count() const { return ranks_ ? ranks_->n_ranks : 1; }
  // What several of them share.
  bool share_rows() const { return several() && ranks_->by_rows; }
  bool share_particles() const { return several() && !ranks_->by_rows; }
  // Arrays are those of the share; and whether its sums are all that is asked for.
  bool apart() const { return ranks_ && ranks_->apart; }
  bool only_sums() const { return ranks_ && ranks_->only_sums; }
  // A meeting did not come about: this rank is on its own, and gives up.
  bool failed() const { return failed_.load(std::memory_order_relaxed); }

  // Slots of `size` bytes: from the own one, those of all.
  void meet(void* slots, std::int64_t size) {
    if (!several() || failed()) return;
    if (ranks_->exchange(ranks_->context, slots, size) != 0) failed_.store(true, std::memory_order_relaxed);
  }

  // Whether any rank says yes.
  bool any(bool mine) {
    if (!several()) return mine;
    answers_[rank()] = mine;
    meet(answers_.get(), sizeof(std::int64_t));
    const std::int64_t* answers = answers_.get();
    return failed() || std::any_of(answers, answers + count(), [](std::int64_t answer) { return answer != 0; });
  }

  // An array of which each rank has made a part: `part(rank)` is a range of it.
  template <class T, class Part>
  void gather(T* array, const Part& part) {
    if (!several() || !array) return;
    constexpr std::int64_t most = (1 << 20) / sizeof(T);  // of a slot: the buffer is small beside the array
    std::int64_t longest = 0;
    for (std::int64_t r = 0; r < count(); ++r) longest = std::max(longest, part(r).size());
    const std::int64_t slot = std::min(longest, most);
    const Buffer<T> slots(count() * slot);
    for (std::int64_t first = 0; first < longest && !failed(); first += slot) {
      const auto now = [&](std::int64_t r) {
        const Range whole = part(r);
        return Range{std::min(whole.begin + first, whole.end), std::min(whole.begin + first + slot, whole.end)};
      };
      const Range own = now(rank());
      std::copy_n(array + own.begin, own.size(), &slots[rank() * slot]);
      meet(slots.get(), slot * static_cast<std::int64_t>(sizeof(T)));
      for (std::int64_t r = 0; r < count() && !failed(); ++r)
        if (const Range range = now(r); r != rank()) std::copy_n(&slots[r * slot], range.size(), array + range.begin);
    }
  }

 private:
  const mfld_ranks* const ranks_;
  const Buffer<std::int64_t> answers_;  // made beforehand: a team allocates nothing
  std::atomic<bool> failed_{false};
};

}  // namespace mfld
