// The one symbol that a build of the kernels exports.
#include <array>
#include <cmath>
#include <utility>

#include "bfloat16.hpp"
#include "entries.hpp"
#include "mfld/activations.hpp"
#include "mfld/losses.hpp"
#include "mfld/panels.hpp"
#include "mfld/radial.hpp"
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
constexpr auto activation_infos_of(ActivationList<A...>*) {
  return std::array<mfld_activation_info, sizeof...(A)>{
      mfld_activation_info{A::name, {A::lowest, A::highest}, A::steepest}...};
}
constexpr auto activation_infos = activation_infos_of(static_cast<Activations*>(nullptr));

template <class... R, class... P>
constexpr auto pair_kernel_infos_of(KernelList<R...>*, KernelList<P...>*) {
  return std::array<mfld_pair_kernel_info, sizeof...(R) + sizeof...(P)>{
      mfld_pair_kernel_info{R::name, /*periodic=*/0, R::derivatives}...,
      mfld_pair_kernel_info{P::name, /*periodic=*/1, P::derivatives}...};
}
constexpr auto pair_kernel_infos =
    pair_kernel_infos_of(static_cast<RadialKernels*>(nullptr), static_cast<PeriodicKernels*>(nullptr));

mfld_range output_range(const mfld_network* network) {
  if (network->output_scale == 0) return {0, 0};
  mfld_range range =
      readout_facts[network->readout].range(activation_infos[network->activation].range, network->readout_bound);
  range = {network->output_scale * range.lowest, network->output_scale * range.highest};
  if (range.highest < range.lowest) std::swap(range.lowest, range.highest);
  return range;
}

// |c_k act| <= growth |rho_k| steepest |w.z + b| + ..., and the product of two parts of theta is at most |theta|^2 / 2.
double quadratic_growth(const mfld_network* network) {
  const mfld_activation_info& activation = activation_infos[network->activation];
  if (std::isfinite(activation.range.lowest) && std::isfinite(activation.range.highest)) return 0;
  const double factor = readout_facts[network->readout].growth(network->readout_bound);
  return factor * activation.steepest * std::abs(network->output_scale) / 2;
}

template <class T>
void share(std::int64_t n_particles, std::int64_t rank, std::int64_t n_ranks, std::int64_t* begin, std::int64_t* end) {
  const Range own = PanelLayout<T>(n_particles, 1).particles_of(rank, n_ranks);
  *begin = own.begin;
  *end = own.end;
}

template <class T>
constexpr mfld_kernels kernels() {
  return {{&activation<T>, &loss<T>, &conjugate<T>},
          {&neurons<T>, &predict<T>, &pull_back<T>, &pull_back_rows<T>, &pull_back_inputs<T>, &pull_back_clipped<T>,
           &risk_kept<T>, &risk_at<T>, &risk_along<T>},
          {&pair_sums<T>, &pair_pull_back<T>, &pair_stein<T>, &gaussian_means<T>},
          {&affine<T>, &baoab<T>, &accept<T>},
          {&normals<T>, &uniforms<T>},
          {&ridge_solve<T>, &product<T>},
          {&split<T>, &compress<T>, &refine<T>},
          &advance<T>,
          &advance_pairs<T>,
          &dual_sweep<T>,
          &share<T>};
}

double smoothness_of(const mfld_loss* loss) { return loss_smoothness[loss->id](loss->parameter); }

std::int32_t bfloat16() {
#ifdef MFLD_BFLOAT16
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return 0;
#endif
}

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
    static_cast<std::int32_t>(activation_infos.size()),
    activation_infos.data(),
    n_readouts,
    readout_infos.data(),
    n_losses,
    loss_infos.data(),
    static_cast<std::int32_t>(pair_kernel_infos.size()),
    pair_kernel_infos.data(),
    &smoothness_of,
    &output_range,
    &quadratic_growth,
    kernels<float>(),
    kernels<double>(),
    {&noise_key, &philox, &batch, &particle_batches, &chacha, &gaussians},
    &dual_step,
    &bfloat16,
    &max_threads,
    &pause,
};

}  // namespace
}  // namespace mfld

extern "C" __attribute__((visibility("default"))) const mfld_kernel_table_t* mfld_kernel_table(void) {
  return &mfld::table;
}
