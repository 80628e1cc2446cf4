// A kernel of pairs with the arrays that it points to; its name is looked up in the build that it is used with.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "backend.hpp"
#include "mfld/kernels.h"

namespace mfld::bindings {

struct PairKernel {
  std::string name;
  double parameter;
  std::vector<double> inverse_scales, coefficients;

  mfld_pair_kernel in(const Backend&) const {
    const std::int32_t id = name == "gaussian" ? 0 : name == "inverse_root" ? 2 : 6;
    return {id, parameter, inverse_scales.data(), coefficients.empty() ? nullptr : coefficients.data(),
            static_cast<std::int64_t>(coefficients.size())};
  }
};

}  // namespace mfld::bindings
