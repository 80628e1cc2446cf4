// What the processor runs, asked before any code of a level is loaded.
#pragma once

#include <string>
#include <vector>

#include "native_features.h"

namespace mfld::bindings {

// Names as in __builtin_cpu_supports, which also asks the operating system to keep the wide registers.
inline std::vector<std::string> missing_features([[maybe_unused]] const std::string& level) {
  std::vector<std::string> missing;
#if defined(__x86_64__)
  __builtin_cpu_init();
#define MFLD_NEEDS(feature) \
  if (!__builtin_cpu_supports(feature)) missing.emplace_back(feature);
  if (level == "base") MFLD_NEEDS("x86-64-v2")
  if (level == "v3") MFLD_NEEDS("x86-64-v3")
  if (level == "v4") MFLD_NEEDS("x86-64-v4")
  if (level == "bfloat16") MFLD_NEEDS("avx512bf16")  // no level, but products that v4 has
  if (level == "native") {
    // What -march=native meant on the machine of the build: written by native_features.cmake.
    MFLD_NATIVE_FEATURES
  }
#undef MFLD_NEEDS
#endif
  return missing;
}

inline bool cpu_runs(const std::string& level) {
#if !defined(__x86_64__)
  if (level != "base" && level != "native") return false;
#endif
  return missing_features(level).empty();
}

}  // namespace mfld::bindings
