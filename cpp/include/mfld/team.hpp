// A team of threads for one call, and the barrier at which its members agree.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>

#ifdef MFLD_HAS_OPENMP
#include <omp.h>
#endif

#include "mfld/kernels.h"
#include "mfld/parts.hpp"
#include "mfld/simd.hpp"

namespace mfld {

// A reusable barrier that spins for as long as a balanced partner may need, then gives the core away: on a shared host
// the partner may not be running at all.
class SpinBarrier {
 public:
  explicit SpinBarrier(int members) : members_(members) {}

  void wait() {
    if (members_ == 1) return;
    const InPart part(Part::barriers);
    const unsigned generation = generation_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
      arrived_.store(0, std::memory_order_relaxed);
      generation_.store(generation + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; generation_.load(std::memory_order_acquire) == generation; ++spins) {
      if (spins < 20000)
        pause();
      else
        std::this_thread::yield();
    }
  }

 private:
  static void pause() {
#if defined(__SSE2__)
    _mm_pause();
#endif
  }
  const int members_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> generation_{0};
};

// Asks the caller whether to stop; only the calling thread (member 0) may ask. Asking costs a look at the clock, so it
// waits until some work is done.
//
// A stop takes effect at a barrier, where every member sees the same answer: answers alternate between two slots, so
// that a slow member still reads the one of its own barrier.
class StopSignal {
 public:
  explicit StopSignal(const mfld_execution& execution) : execution_(execution) {}

  // Before `work` more multiply-adds.
  void poll(double work) {
    constexpr double worth_asking = 1e6;
    unasked_ += work;
    if (unasked_ < worth_asking) return;
    unasked_ = 0;
    if (execution_.poll && !aborting() && execution_.poll(execution_.poll_context))
      aborting_.store(true, std::memory_order_relaxed);
  }
  // The same, and whether to stop: where there is no team.
  bool asked(std::int64_t work) {
    poll(static_cast<double>(work));
    return aborting();
  }
  // True as soon as a stop is wanted: work before the next barrier is then wasted.
  bool aborting() const { return aborting_.load(std::memory_order_relaxed); }
  // Member 0, before barrier number `barrier`.
  void publish(std::int64_t barrier) {
    // Written only to change it: a store at every barrier would take the cache line from all other members.
    if (stopped(barrier) != aborting()) slots_[barrier & 1].store(aborting(), std::memory_order_relaxed);
  }
  // Member 0, where other processes want the stop: between two barriers, before anybody looks at the second.
  void publish_stop(std::int64_t barrier) {
    aborting_.store(true, std::memory_order_relaxed);
    slots_[barrier & 1].store(true, std::memory_order_relaxed);
  }
  // All members, after it.
  bool stopped(std::int64_t barrier) const { return slots_[barrier & 1].load(std::memory_order_relaxed); }

 private:
  const mfld_execution& execution_;
  // Member 0 writes it all the time: what others read must not share its cache line.
  alignas(64) double unasked_ = 0;
  alignas(64) std::atomic<bool> aborting_{false};
  std::atomic<bool> slots_[2] = {false, false};
};

// How many threads `work` multiply-adds between two barriers deserve: below this share each, waking and waiting cost
// more.
inline int useful_threads(int num_threads, std::int64_t parts, double work) {
  constexpr double worthwhile = 1e5;
  const auto limit = static_cast<std::int64_t>(std::min(work / worthwhile, 1e6));
  return static_cast<int>(
      std::clamp<std::int64_t>(std::min<std::int64_t>(limit, num_threads), 1, std::max<std::int64_t>(parts, 1)));
}

// Runs body(member, members, barrier) on up to `threads` threads; the calling thread is member 0. A body allocates
// nothing and throws nothing: what is thrown in a parallel region ends the process (tests/cpp/test_memory.cpp).
template <class Body>
void run_team(int threads, const Body& body) {
#ifdef MFLD_HAS_OPENMP
  if (threads > 1) {
    // The runtime may grant fewer threads than asked: the barrier must know the number that came.
    std::optional<SpinBarrier> barrier;
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
      barrier.emplace(omp_get_num_threads());
      // The end of `single` is a barrier of its own.
      body(omp_get_thread_num(), omp_get_num_threads(), *barrier);
    }
    return;
  }
#endif
  (void)threads;
  SpinBarrier alone(1);
  body(0, 1, alone);
}

}  // namespace mfld
