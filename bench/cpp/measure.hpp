// Rates of small loops on one or several threads, the best of some repetitions: a ceiling is what the machine can do,
// not what it does on average.
#pragma once

#include <time.h>

#include <algorithm>
#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

#include "mfld/simd.hpp"

namespace mfld::bench {

// The compiler must assume that `p` is read and that all memory changes.
inline void clobber(const void* p) { asm volatile("" : : "g"(p) : "memory"); }

// Time that this thread has run: waiting while another process has the core is not the machine's own slowness.
inline double seconds_run() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Units per second of `threads` threads together. make_body(thread) returns a body; body(count) does its work `count`
// times and returns the units done. What a thread reads is made by the thread itself, so that its pages lie near it.
template <class MakeBody>
double best_rate(int threads, double seconds, int repetitions, const MakeBody& make_body) {
  struct alignas(64) Slot {
    double rate;
  };
  std::vector<Slot> slots(threads);
  std::barrier gate(threads);
  double best = 0;
  const auto run = [&](int thread) {
    auto body = make_body(thread);
    std::int64_t count = 1;
    for (;;) {  // as many rounds as fill the time; this also warms up
      const double begin = seconds_run();
      body(count);
      const double taken = seconds_run() - begin;
      if (taken > seconds / 4) {
        count = std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(count) * seconds / taken));
        break;
      }
      count *= 2;
    }
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      gate.arrive_and_wait();
      const double begin = seconds_run();
      const double units = body(count);
      slots[thread].rate = units / (seconds_run() - begin);
      gate.arrive_and_wait();
      if (thread == 0) {
        double rate = 0;
        for (const Slot& slot : slots) rate += slot.rate;
        best = std::max(best, rate);
      }
    }
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  return best;
}

// Multiply-adds in registers: 12 independent chains cover the latency of two pipes with and without a fused
// instruction.
template <class T>
struct MultiplyAdds {
  static constexpr int chains = 12;

  double operator()(std::int64_t count) const {
    using V = Vec<T>;
    V sum[chains];
    for (int k = 0; k < chains; ++k) sum[k] = V(static_cast<T>(k));
    volatile T one_half = T(0.5), small = T(1e-3);  // unknown to the compiler, and the sums stay finite
    const V a(one_half), b(small);
    constexpr int unrolled = 64;
    for (std::int64_t i = 0; i < count; ++i)
#pragma GCC unroll 4
      for (int u = 0; u < unrolled; ++u)
#pragma GCC unroll 12
        for (int k = 0; k < chains; ++k) sum[k] = multiply_add(sum[k], a, b);
    T out[V::size];
    for (int k = 1; k < chains; ++k) sum[0] += sum[k];
    sum[0].store(out);
    clobber(out);
    return 2.0 * chains * V::size * unrolled * static_cast<double>(count);
  }
};

template <class T>
double peak_flops(int threads, double seconds = 0.005, int repetitions = 20) {
  return best_rate(threads, seconds, repetitions, [](int) { return MultiplyAdds<T>(); });
}

}  // namespace mfld::bench
