// Where the time of a call goes, part by part. Counted in builds with MFLD_PARTS (bench/cpp/parts.cpp) and nothing at
// all in every other: an `InPart` is then an empty object.
#pragma once

#ifdef MFLD_PARTS
#include <array>
#include <atomic>
#include <cstdint>
#include <iterator>

#if defined(__x86_64__)
#include <x86intrin.h>
#else
#include <chrono>
#endif
#endif

namespace mfld {

enum class Part { rest, forward, back, gains, sums, loss, moves, rows, packing, barriers };

#ifdef MFLD_PARTS

constexpr const char* part_names[] = {"rest", "forward", "back", "gains",   "sums",
                                      "loss", "moves",   "rows", "packing", "barriers"};
constexpr int n_parts = std::size(part_names);

// Ticks of each thread in each part: a tick belongs to the innermost part that is open.
class Ticks {
 public:
  static constexpr int most_threads = 64;
  using Counts = std::array<std::uint64_t, n_parts>;

  static Ticks& of_this_thread() {
    static std::atomic<int> threads{0};
    thread_local Ticks& mine = all()[threads++ % most_threads];
    return mine;
  }
  static std::array<Ticks, most_threads>& all() {
    static std::array<Ticks, most_threads> ticks;
    return ticks;
  }
  static std::uint64_t now() {
#if defined(__x86_64__)
    return __rdtsc();
#else
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
  }

  // Returns the part that was open.
  Part turn_to(Part part) {
    const std::uint64_t stamp = now();
    counts[static_cast<int>(open_)] += stamp - since_;
    since_ = stamp;
    const Part before = open_;
    open_ = part;
    return before;
  }

  alignas(64) Counts counts = {};

 private:
  std::uint64_t since_ = now();
  Part open_ = Part::rest;
};

class InPart {
 public:
  explicit InPart(Part part) : ticks_(Ticks::of_this_thread()), before_(ticks_.turn_to(part)) {}
  ~InPart() { ticks_.turn_to(before_); }
  InPart(const InPart&) = delete;
  InPart& operator=(const InPart&) = delete;

 private:
  Ticks& ticks_;
  Part before_;
};

#else

struct InPart {
  explicit InPart(Part) {}
  ~InPart() {}  // so that one that is only made is not unused
};

#endif

}  // namespace mfld
