// One build of the kernels, and the groups of its entries that Python sees.
#pragma once

#include <dlfcn.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "mfld/kernels.h"

namespace mfld::bindings {

namespace py = pybind11;

inline void check_id(int id, int count, const char* name) {
  if (id < 0 || id >= count)
    throw py::value_error(std::string(name) + " must be an index below " + std::to_string(count) + ", got " +
                          std::to_string(id));
}

class Backend {
 public:
  explicit Backend(const std::string& path) {
    // Never closed: threads of the OpenMP runtime may hold addresses in it.
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) throw py::import_error(dlerror());
    const auto get = reinterpret_cast<const mfld_kernel_table_t* (*)()>(dlsym(handle, "mfld_kernel_table"));
    if (!get) throw py::import_error(path + " exports no mfld_kernel_table");
    table_ = get();
    if (table_->abi != MFLD_KERNEL_ABI)
      throw py::import_error(path + " has kernel interface " + std::to_string(table_->abi) + ", expected " +
                             std::to_string(MFLD_KERNEL_ABI));
  }

  const mfld_kernel_table_t& table() const { return *table_; }

  const mfld_kernels& kernels(bool wide) const { return wide ? table_->f64 : table_->f32; }

  // Also where a network first comes in: what it names must exist in this build.
  std::int64_t n_coordinates(const mfld_network& network) const {
    if (network.n_features < 1 || network.n_outputs < 1)
      throw py::value_error("a network needs at least one feature and one output");
    check_id(network.activation, table_->n_activations, "activation");
    check_id(network.readout, table_->n_readouts, "readout");
    return network.n_features + (network.has_bias ? 1 : 0) +
           (table_->readouts[network.readout].has_coordinates ? network.n_outputs : 0);
  }

  std::int64_t n_moving(const mfld_network& network) const {
    const mfld_readout_info& readout = table_->readouts[network.readout];
    return n_coordinates(network) - (readout.has_coordinates && readout.frozen ? network.n_outputs : 0);
  }

  py::ssize_t target_width(const mfld_loss& loss, py::ssize_t n_outputs) const {
    check_id(loss.id, table_->n_losses, "loss");
    return table_->losses[loss.id].targets == MFLD_TARGETS_CLASS ? 1 : n_outputs;
  }

 private:
  const mfld_kernel_table_t* table_ = nullptr;
};

using BackendClass = py::class_<Backend>;
void bind_table(BackendClass&);
void bind_elementwise(py::module_&, BackendClass&);
void bind_network(py::module_&, BackendClass&);
void bind_moves(py::module_&, BackendClass&);
void bind_noise(py::module_&, BackendClass&);
void bind_advance(py::module_&, BackendClass&);
void bind_dense(py::module_&, BackendClass&);
void bind_dual(py::module_&, BackendClass&);
void bind_pairs(py::module_&, BackendClass&);
void bind_thinning(py::module_&, BackendClass&);

}  // namespace mfld::bindings
