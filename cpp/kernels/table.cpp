// The one symbol that a build of the kernels exports.
#include <array>

#include "entries.hpp"
#include "mfld/activations.hpp"
#include "mfld/losses.hpp"
#include "mfld/readouts.hpp"
#include "mfld/team.hpp"

#if defined(__clang__)
#define MFLD_COMPILER "Clang " __clang_version__
#else
#define MFLD_COMPILER "GCC " __VERSION__
#endif

namespace mfld {
namespace {

template <class... A>
constexpr auto activation_names_of(ActivationList<A...>*) {
  return std::array<const char*, sizeof...(A)>{A::name...};
}
constexpr auto activation_names = activation_names_of(static_cast<Activations*>(nullptr));

template <class... A>
constexpr auto activation_bounds_of(ActivationList<A...>*) {
  return std::array<mfld_activation_bounds, sizeof...(A)>{
      mfld_activation_bounds{A::lowest, A::highest, A::steepest}...};
}
constexpr auto activation_bounds = activation_bounds_of(static_cast<Activations*>(nullptr));

template <class T>
constexpr mfld_kernels kernels() {
  return {&activation<T>, &neurons<T>,     &predict<T>, &pull_back<T>,      &loss<T>,    &conjugate<T>, &move<T>,
          &baoab<T>,      &mala_accept<T>, &normals<T>, &pull_back_rows<T>, &advance<T>, &dual_sweep<T>};
}

double smoothness_of(const mfld_loss* loss) { return loss_smoothness[loss->id](loss->parameter); }

int max_threads() {
#ifdef MFLD_HAS_OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

int pause() {
#ifdef MFLD_HAS_OMP_PAUSE
  return omp_pause_resource_all(omp_pause_soft);
#else
  return 0;
#endif
}

constexpr mfld_kernel_table_t table = {
    MFLD_KERNEL_ABI,
    MFLD_ISA_NAME,
    MFLD_COMPILER,
    MFLD_EIGEN_VERSION,
#ifdef MFLD_HAS_OPENMP
    1,
#else
    0,
#endif
    static_cast<std::int32_t>(activation_names.size()),
    activation_names.data(),
    n_readouts,
    readout_infos.data(),
    n_losses,
    loss_infos.data(),
    &smoothness_of,
    kernels<float>(),
    kernels<double>(),
    &philox,
    &noise_key,
    &batch,
    &particle_batches,
    &max_threads,
    &pause,
    activation_bounds.data(),
    &dual_step,
};

}  // namespace
}  // namespace mfld

extern "C" __attribute__((visibility("default"))) const mfld_kernel_table_t* mfld_kernel_table(void) {
  return &mfld::table;
}
