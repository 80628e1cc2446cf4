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

  const mfld_pair_kernel_info& info(const Backend& backend, mfld_pair_kernel& out) const {
    const mfld_kernel_table_t& table = backend.table();
    for (int i = 0; i < table.n_pair_kernels; ++i)
      if (name == table.pair_kernels[i].name) {
        out = {i, parameter, inverse_scales.data(), coefficients.empty() ? nullptr : coefficients.data(),
               static_cast<std::int64_t>(coefficients.size())};
        return table.pair_kernels[i];
      }
    throw py::value_error("kernel must be one of pair_kernels, got " + name);
  }
};

}  // namespace mfld::bindings
