// What table.cpp puts into the kernel table.
#pragma once

#include <cstdint>
#include <new>

#include "mfld/kernels.h"

namespace mfld {

// elementwise.cpp
template <class T>
int activation(std::int32_t activation, const void* z, std::int64_t count, void* value, void* slope, void* curvature,
               const mfld_execution*);
template <class T>
int loss(const mfld_loss*, const void* predictions, const void* targets, std::int64_t n, std::int64_t n_outputs,
         void* value, void* derivative, const mfld_execution*);
template <class T>
int conjugate(const mfld_loss*, const void* dual, const void* targets, std::int64_t n, std::int64_t n_outputs,
              void* value, const mfld_execution*);

// neurons.cpp
template <class T>
int neurons(const mfld_network*, const void* particles, std::int64_t n_particles, const void* inputs, std::int64_t n,
            void* h, const mfld_execution*);

// stages.cpp
template <class T>
int predict(const mfld_network*, const void* particles, const void* coefficients, std::int64_t n_particles,
            const void* inputs, std::int64_t n, void* predictions, const mfld_execution*);
template <class T>
int pull_back(const mfld_network*, const void* particles, std::int64_t n_particles, const void* inputs, std::int64_t n,
              const void* cotangent, void* values, void* gradient, const mfld_execution*);
// both_ways.cpp
template <class T>
int pull_back_inputs(const mfld_network*, const void* particles, const void* coefficients, std::int64_t n_particles,
                     const void* inputs, std::int64_t n, const void* cotangent, void* gradient, void* particle_gradient,
                     const mfld_execution*);

// pairs.cpp
template <class T>
int pair_sums(const mfld_pair_kernel*, const void* x, std::int64_t n, const mfld_points* y, std::int64_t p,
              void* values, void* gradient, const mfld_execution*);
template <class T>
int pair_pull_back(const mfld_pair_kernel*, const void* x, std::int64_t n, const mfld_points* y, const void* y_vectors,
                   std::int64_t p, double repulsion, void* field, const mfld_execution*);
template <class T>
int pair_stein(const mfld_pair_kernel*, const void* x, const void* x_vectors, std::int64_t n, const mfld_points* y,
               const void* y_vectors, std::int64_t p, void* values, void* gradient, void* field, const mfld_execution*);
template <class T>
int gaussian_means(const double* inverse_scales, const void* x, std::int64_t n, const mfld_points* y, std::int64_t p,
                   void* means, const mfld_execution*);

// descent.cpp
template <class T>
int advance_pairs(const mfld_discrepancy*, void* particles, std::int64_t n_replicates, const mfld_shape*,
                  std::int64_t n_steps, const mfld_coefficients*, const mfld_domain*, const mfld_noise* noises,
                  mfld_report*, const mfld_execution*);

// moves.cpp
template <class T>
int affine(void* particles, const void* gradient, const mfld_shape*, const double* coefficients, const mfld_domain*,
           const mfld_noise*, std::int64_t* bad_particle, const mfld_execution*);
template <class T>
int baoab(void* particles, void* velocities, const void* gradient, const mfld_shape*, std::int32_t part,
          const double* coefficients, const mfld_noise*, std::int64_t* bad_particle, const mfld_execution*);
template <class T>
int accept(void* particles, void* values, void* gradient, const void* proposals, const void* proposal_values,
           const void* proposal_gradient, const mfld_shape*, const double* coefficients, const mfld_noise*,
           std::int64_t* accepted, double* probability, const mfld_execution*);

// particle_batches.cpp
int particle_batches(const mfld_noise*, std::int64_t n, std::int64_t batch_size, std::int64_t n_particles,
                     std::int64_t* rows, const mfld_execution*);
template <class T>
int pull_back_rows(const mfld_network*, const void* particles, std::int64_t n_particles, const void* inputs,
                   const void* cotangent, const std::int64_t* rows, std::int64_t batch_size, void* gradient,
                   const mfld_execution*);

// advance.cpp
template <class T>
int advance(const mfld_network*, const mfld_loss*, const mfld_samples*, void* particles, std::int64_t n_replicates,
            std::int64_t n_particles, std::int64_t n_steps, mfld_estimator*, mfld_dynamics*, const mfld_coefficients*,
            const mfld_domain*, const mfld_noise* noises, mfld_report*, const mfld_execution*);

// clip.cpp
template <class T>
int pull_back_clipped(const mfld_network*, const mfld_loss*, const void* particles, std::int64_t n_particles,
                      const mfld_samples*, const std::int64_t* ends, std::int64_t n_blocks, double bound, double* norms,
                      double* gradient, const mfld_execution*);

// risk.cpp
template <class T>
std::int64_t risk_kept(const mfld_network*, std::int64_t n_particles, std::int64_t n);
template <class T>
int risk_at(const mfld_network*, const mfld_loss*, const void* particles, std::int64_t n_particles, const mfld_samples*,
            void* kept, double* value, void* gradient, const mfld_execution*);
template <class T>
int risk_along(const mfld_network*, const mfld_loss*, const void* particles, std::int64_t n_particles,
               const mfld_samples*, const void* kept, const void* direction, void* product, const mfld_execution*);

// dense.cpp
template <class T>
int ridge_solve(const void* factor, std::int64_t rows, std::int64_t columns, const void* row_scale,
                const void* column_scale, double ridge, void* right, std::int64_t n_right, std::int32_t* positive,
                const mfld_execution*);
template <class T>
int product(const void* factor, std::int64_t rows, std::int64_t columns, std::int32_t transposed, const void* right,
            std::int64_t n_right, void* product, const mfld_execution*);

// dual.cpp
template <class T>
int dual_sweep(const mfld_network*, const mfld_loss*, const mfld_samples*, const void* particles,
               std::int64_t n_particles, mfld_dual_sweep*, const mfld_execution*);
int dual_step(const mfld_loss*, double* dual, const double* predictions, const double* targets, const double* step,
              std::int64_t n, std::int64_t n_outputs, const mfld_execution*);

// noise.cpp
template <class T>
int normals(const mfld_noise*, std::uint32_t stream, std::int64_t n_members, std::int64_t first_particle,
            std::int64_t n_particles, std::int64_t n_coordinates, void* out, const mfld_execution*);
template <class T>
int uniforms(const mfld_noise*, std::uint32_t stream, std::int64_t n_members, std::int64_t first_particle,
             std::int64_t n_particles, std::int64_t n_coordinates, void* out, const mfld_execution*);
void philox(const std::uint32_t counter[4], const std::uint32_t key[2], std::uint32_t out[4]);
std::uint64_t noise_key(std::uint64_t seed, std::uint64_t replica);
int batch(const mfld_noise*, std::int64_t n, std::int64_t batch_size, std::int64_t* rows, const mfld_execution*);

// secret.cpp
void chacha(const std::uint32_t key[8], std::uint32_t counter, const std::uint32_t nonce[3], std::int64_t n_words,
            std::uint32_t* out);
int gaussians(const std::uint32_t key[8], const mfld_gaussian_table*, std::int64_t count, std::int64_t* out,
              const mfld_execution*);

// thinning.cpp
template <class T>
int split(const mfld_pair_kernel*, const void* points, std::int64_t p, std::int64_t* rows, std::int64_t n,
          std::int32_t levels, std::int32_t first_level, const mfld_noise*, std::int64_t* ends, const mfld_execution*);
template <class T>
int compress(const mfld_pair_kernel*, const void* points, std::int64_t p, std::int64_t* rows, std::int64_t size,
             std::int32_t levels, const mfld_noise*, const mfld_execution*);
template <class T>
int refine(const mfld_pair_kernel*, const void* points, std::int64_t p, const std::int64_t* rows, std::int64_t n,
           const std::int64_t* ends, std::int64_t n_parts, std::int32_t n_sweeps, std::int64_t* chosen,
           std::int64_t* n_chosen, const mfld_execution*);

// No exception may cross the C boundary, and memory is the only thing that can run out.
template <class Body>
int guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return MFLD_OUT_OF_MEMORY;
  }
}

}  // namespace mfld
