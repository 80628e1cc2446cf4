// Rows that stay on disk, mapped: what a pass over all of them has read is given back, so that it does not fill memory.
#pragma once

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "mfld/kernels.h"

namespace mfld {

class OnDisk {
 public:
  OnDisk(const mfld_samples& samples, std::int64_t bytes_per_row)
      : inputs_(samples.on_disk ? static_cast<const char*>(samples.inputs) : nullptr), bytes_per_row_(bytes_per_row) {}

  // All members are behind this row of the pass; one of them calls.
  void read_to(std::int64_t row) {
    if (!inputs_) return;
    const std::int64_t end = row * bytes_per_row_;
    if (end < given_back_) given_back_ = 0;  // another pass
    if (end - given_back_ < at_once) return;
#ifdef __linux__
    // Whole pages: those at the ends are read again where others need them.
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto first = reinterpret_cast<std::uintptr_t>(inputs_ + given_back_) / page * page;
    const auto last = reinterpret_cast<std::uintptr_t>(inputs_ + end) / page * page;
    madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // advice: its failure changes nothing
#endif
    given_back_ = end;
  }

 private:
  static constexpr std::int64_t at_once = 1 << 24;
  const char* const inputs_;  // null: they are in memory
  const std::int64_t bytes_per_row_;
  std::int64_t given_back_ = 0;
};

}  // namespace mfld
