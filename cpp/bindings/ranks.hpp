// Processes that share a call: a function of Python by which they meet.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "lock.hpp"
#include "mfld/kernels.h"

namespace mfld::bindings {

namespace py = pybind11;

// `exchange(mine, all)` puts the bytes of each rank, as many of all, side by side into the second buffer. It is called
// from here and not by code in Python, where the handler of a signal could raise before or behind it: other ranks would
// wait. Where n_particles is not 0, arrays hold the rank's share of so many particles.
struct Ranks {
  std::int64_t rank, n_ranks;
  py::function exchange;
  std::int64_t n_particles;
  bool only_sums, by_rows;

  static Ranks make(std::int64_t rank, std::int64_t n_ranks, py::function exchange, std::int64_t n_particles,
                    bool only_sums, bool by_rows) {
    if (n_ranks < 1 || rank < 0 || rank >= n_ranks)
      throw py::value_error("rank must be between 0 and n_ranks - 1, got " + std::to_string(rank) + " of " +
                            std::to_string(n_ranks));
    if (n_particles < 0 || (only_sums && n_particles == 0))
      throw py::value_error("n_particles must be positive for only_sums, and 0 without shares apart, got " +
                            std::to_string(n_particles));
    return {rank, n_ranks, std::move(exchange), n_particles, only_sums, by_rows};
  }
};

// The meetings of one call; what the function raises is kept until the call has ended.
class Meetings {
 public:
  explicit Meetings(const Ranks* ranks) : ranks_(ranks) {
    if (ranks)
      info_ = {ranks->rank, ranks->n_ranks,         ranks->by_rows,  &Meetings::exchange,
               this,        ranks->n_particles > 0, ranks->only_sums};
  }
  const mfld_ranks* get() const { return ranks_ ? &info_ : nullptr; }

  // With the interpreter lock, behind a call that was stopped: sets the exception that stopped it, if it is one of a
  // meeting, or nothing else did here.
  void explain() {
    if (error_) error_->restore();
    if (ranks_ && !PyErr_Occurred()) PyErr_SetString(PyExc_KeyboardInterrupt, "another rank was stopped");
  }

 private:
  static int exchange(void* self, void* slots, std::int64_t size) {
    auto& own = *static_cast<Meetings*>(self);
    unless_python_ends([&own, slots, size] {
      const py::gil_scoped_acquire lock;
      const py::error_scope of_a_stop;  // which the other ranks are to hear of: no code of Python runs beside an error
      try {
        const py::bytes mine(static_cast<const char*>(slots) + own.ranks_->rank * size, static_cast<std::size_t>(size));
        own.ranks_->exchange(mine, py::memoryview::from_memory(slots, own.ranks_->n_ranks * size));
      } catch (py::error_already_set& error) {
        own.error_.emplace(std::move(error));
      }
    });
    return own.error_ ? 1 : 0;
  }

  const Ranks* ranks_;
  mfld_ranks info_ = {};
  std::optional<py::error_already_set> error_;
};

}  // namespace mfld::bindings
