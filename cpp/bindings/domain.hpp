// Domains as Python describes them to the core.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "mfld/kernels.h"

namespace mfld::bindings {

struct Domain {
  struct Block {
    std::int32_t kind;
    std::int64_t n_coordinates;
    std::vector<double> lower, upper;
  };
  std::vector<Block> blocks;

  void add(const std::string& kind, std::int64_t n_coordinates, std::vector<double> lower, std::vector<double> upper) {
    static constexpr const char* names[] = {"euclidean", "sphere", "torus", "box"};
    const std::int32_t number = index_of(kind, names, "kind of a block");
    const std::size_t ends = number == MFLD_TORUS || number == MFLD_BOX ? static_cast<std::size_t>(n_coordinates) : 0;
    if (n_coordinates < 1 || lower.size() != ends || upper.size() != ends)
      throw py::value_error("a " + kind + " of " + std::to_string(n_coordinates) + " coordinates must have " +
                            std::to_string(ends) + " lower and upper ends, got " + std::to_string(lower.size()) +
                            " and " + std::to_string(upper.size()));
    blocks.push_back({number, n_coordinates, std::move(lower), std::move(upper)});
  }
};

// A domain as the kernels take it, which refers to the one that it is made of.
class KernelDomain {
 public:
  KernelDomain(const std::optional<Domain>& domain, std::int64_t n_moving) {
    std::int64_t covered = 0;
    if (domain)
      for (const Domain::Block& block : domain->blocks) {
        blocks_.push_back({block.kind, block.n_coordinates, block.lower.data(), block.upper.data()});
        covered += block.n_coordinates;
      }
    if (domain && covered != n_moving)
      throw py::value_error("domain must have " + std::to_string(n_moving) + " coordinates, those that move, got " +
                            std::to_string(covered));
    description_ = {blocks_.data(), static_cast<std::int64_t>(blocks_.size())};
  }
  KernelDomain(const KernelDomain&) = delete;
  KernelDomain& operator=(const KernelDomain&) = delete;

  const mfld_domain* get() const { return &description_; }

 private:
  std::vector<mfld_block> blocks_;
  mfld_domain description_;
};

}  // namespace mfld::bindings
