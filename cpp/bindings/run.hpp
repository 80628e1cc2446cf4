// Running a kernel: without the interpreter lock, with an ear for signals.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <new>
#include <string>

#include "lock.hpp"
#include "mfld/kernels.h"
#include "ranks.hpp"

namespace mfld::bindings {

namespace py = pybind11;

// Lets Python handle signals during a kernel: at most every 50 ms, since taking the interpreter lock may take a while.
class Signals {
 public:
  static int poll(void* self) { return static_cast<Signals*>(self)->check(); }

 private:
  int check() {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return 0;
    next_ = now + std::chrono::milliseconds(50);
    const WithLock lock;
    return PyErr_CheckSignals();  // non-zero: an exception is set
  }
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
};

// Runs kernel(execution) without the interpreter lock. False: stopped, and the handler's exception is set.
template <class Kernel>
bool run(int num_threads, const Kernel& kernel, const Ranks* ranks = nullptr) {
  if (num_threads < 1) throw py::value_error("num_threads must be at least 1, got " + std::to_string(num_threads));
  Signals signals;
  Meetings meetings(ranks);
  const mfld_execution execution = {num_threads, &Signals::poll, &signals, meetings.get()};
  int status;
  {
    const WithoutLock released;
    status = kernel(&execution);
  }
  if (status == MFLD_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status == MFLD_STOPPED) meetings.explain();
  return status != MFLD_STOPPED;
}

template <class Kernel>
void run_or_throw(int num_threads, const Kernel& kernel, const Ranks* ranks = nullptr) {
  if (!run(num_threads, kernel, ranks)) throw py::error_already_set();
}

// Of arrays that are as large as those a kernel works on: numbers between two looks at signals.
inline constexpr std::int64_t numbers_at_once = 1 << 20;

// Copies `count` numbers. False: stopped on the way.
inline bool copied(const double* from, std::int64_t count, double* to, const mfld_execution& execution) {
  for (std::int64_t first = 0; first < count; first += numbers_at_once) {
    if (execution.poll(execution.poll_context)) return false;
    std::copy_n(from + first, std::min(numbers_at_once, count - first), to + first);
  }
  return true;
}

// The first of `count` numbers that is not between 0 and end - 1; -1: none.
inline std::int64_t first_outside(const std::int64_t* numbers, std::int64_t count, std::int64_t end) {
  std::int64_t bad = -1;
  run_or_throw(1, [&](const mfld_execution* e) {
    for (std::int64_t first = 0; first < count; first += numbers_at_once) {
      if (e->poll(e->poll_context)) return MFLD_STOPPED;
      for (std::int64_t i = first; i < std::min(count, first + numbers_at_once); ++i)
        if (numbers[i] < 0 || numbers[i] >= end) {
          bad = i;
          return MFLD_DONE;
        }
    }
    return MFLD_DONE;
  });
  return bad;
}

}  // namespace mfld::bindings
