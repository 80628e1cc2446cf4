/* The boundary between the bindings and one build of the kernels.
 *
 * Plain C: no C++ type and no exception crosses it, so each instruction-set level is a closed shared object that
 * exports `mfld_kernel_table` alone. Data pointers are `void*`; the precision is that of the sub-table they are passed
 * to. All matrices are row-major and contiguous. The callers validate; the kernels trust.
 */
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MFLD_KERNEL_ABI 19

/* Streams of noise: what a random number is for. A new one is a line at the end. Never renumber: the numbers are part
 * of every published result. */
#define MFLD_STREAMS(STREAM)                                  \
  STREAM(MFLD_STREAM_INIT, "init", 0)                         \
  STREAM(MFLD_STREAM_MOVE, "move", 1)                         \
  STREAM(MFLD_STREAM_BATCH, "batch", 2)                       \
  STREAM(MFLD_STREAM_ACCEPTANCE, "acceptance", 3)             \
  STREAM(MFLD_STREAM_LABEL_NOISE, "label_noise", 4)           \
  STREAM(MFLD_STREAM_COORDINATE_ORDER, "coordinate_order", 5) \
  STREAM(MFLD_STREAM_SMOOTHING, "smoothing", 6)               \
  STREAM(MFLD_STREAM_DATA, "data", 7)                         \
  STREAM(MFLD_STREAM_THINNING, "thinning", 8)

#define MFLD_STREAM_NUMBER(constant, name, number) constant = number,
enum { MFLD_STREAMS(MFLD_STREAM_NUMBER) };
#undef MFLD_STREAM_NUMBER

/* A counter of the noise has room for so much; noise.hpp says where. What is beyond wraps into other numbers. */
#define MFLD_NOISE_POPULATIONS (1 << 16)
#define MFLD_NOISE_BLOCKS (1 << 24) /* of coordinates: 4 of float32, 2 of float64 and of uniforms */
#define MFLD_NOISE_STEPS ((uint64_t)1 << 48)
#define MFLD_NOISE_PARTICLES ((int64_t)1 << 32)

enum { MFLD_DONE = 0, MFLD_STOPPED = 1, MFLD_DIVERGED = 2, MFLD_OUT_OF_MEMORY = 3 };

/* What a loss expects as targets. */
enum { MFLD_TARGETS_REAL = 0, MFLD_TARGETS_SIGN = 1, MFLD_TARGETS_CLASS = 2 };

/* A two-layer network: h_k(theta, z) = scale * (c_k(theta) * act(w.z + b) + e_k(theta)), theta = (w, b, readout
 * weights, frozen signs). */
typedef struct {
  int64_t n_features;
  int64_t n_outputs;
  int32_t has_bias;
  int32_t activation; /* index into activations */
  int32_t readout;    /* index into readouts */
  double output_scale;
  double readout_bound;
} mfld_network;

typedef struct {
  int32_t id; /* index into losses */
  double parameter;
} mfld_loss;

typedef struct {
  const void* inputs;  /* (n, n_features) */
  const void* targets; /* (n, 1) for class targets, else (n, n_outputs) */
  const void* weights; /* (n,), summing to 1; NULL stands for 1/n */
  int64_t n_samples;
  int32_t on_disk; /* 1: inputs are part of a file that is mapped read-only, to which passes give back what they read */
  /* 1, for `advance` of float32 where the table says so: products with the inputs are of bfloat16. Inputs are words of
   * two (n, ceil(n_features / 2)), the first feature in the low half, 0 behind the last */
  int32_t bfloat16;
} mfld_samples;

/* How a step moves a particle theta with the gradient g and normals xi, by numbers of which it has a row:
 *
 *   MFLD_AFFINE   (c, h, s)     theta <- theta - c theta - h g + s xi
 *   MFLD_BAOAB    (a, r, e, s)  v -= a g + r theta;  theta += a v;  v = e v + s xi;  theta += a v;  v -= a g + r theta
 *   MFLD_PRECONDITIONED (r, h, s)  S <- S or an average with b^2, b = g + r theta;  theta <- theta - h G b + s sqrt(G)
 * xi
 *
 * the last part of BAOAB with the gradient at the new position. What c and s are for a step size, a ridge and a
 * temperature is the caller's to say. A step of a call has its row at `rows + step * stride`; stride 0 is a constant.
 */
enum { MFLD_AFFINE = 0, MFLD_BAOAB = 1, MFLD_PRECONDITIONED = 2 };

typedef struct {
  const double* rows;
  int64_t stride;
} mfld_coefficients;

/* Consecutive moving coordinates, and where an affine move leaves them; a domain is the product of such blocks. */
enum { MFLD_EUCLIDEAN = 0, MFLD_SPHERE = 1, MFLD_TORUS = 2, MFLD_BOX = 3 };

typedef struct {
  int32_t kind;
  int64_t n_coordinates;
  const double *lower, *upper; /* (n_coordinates): ends of the intervals of a torus or box, else NULL */
} mfld_block;

typedef struct {
  const mfld_block* blocks;
  int64_t n_blocks; /* 0: Euclidean */
} mfld_domain;

/* A place in the noise: which key, the step at which the call starts, which population of particles. */
typedef struct {
  uint64_t key;
  uint64_t step;
  uint32_t population;
} mfld_noise;

/* How the gradient of a step is estimated; formulas in advance/anchor.hpp. The batches of a stream are the samples in
 * their order, batch_size for each gradient of the call, without weights. */
enum { MFLD_FULL_BATCH = 0, MFLD_MINIBATCH = 1, MFLD_SVRG = 2, MFLD_SARAH = 3, MFLD_STREAM = 4 };

typedef struct {
  int32_t kind;
  int64_t batch_size; /* rows of a mini-batch; 0 for the full batch */
  /* Of the variance-reduced kinds, else 0 and NULL; of each replicate. The full gradient is due at steps that
   * refresh_every divides, and wherever the buffers are not valid. */
  int64_t refresh_every;
  void* anchor;             /* (n_particles, p): SVRG: the particles at the last refresh; SARAH: at the last gradient */
  void* anchor_gradient;    /* (n_particles, p): SVRG: their full gradient; SARAH: its last estimate; ridge excluded */
  void* anchor_predictions; /* (n, n_outputs): SVRG only */
  int32_t valid;            /* in and out: whether the buffers hold what they should */
} mfld_estimator;

/* What moves carry from step to step. */
typedef struct {
  int32_t kind; /* MFLD_AFFINE, MFLD_BAOAB or MFLD_PRECONDITIONED */
  /* Of BAOAB, else NULL; of each replicate. */
  void* velocities;    /* (n_particles, p) */
  void* force;         /* (n_particles, p): estimated gradient at the particles, ridge excluded */
  int32_t force_valid; /* in and out: 0 stands for a first step, whose gradient is still to be estimated */
  /* Of the preconditioned kind, else NULL and 0; of each replicate. */
  void* second_moment; /* (n_particles, p): S */
  double decay, epsilon;
  uint64_t frozen_from; /* the step of the noise from which on S stays */
} mfld_dynamics;

/* The two parts of a BAOAB step: before and after the gradient at the new position. */
enum { MFLD_BAOAB_OPEN = 0, MFLD_BAOAB_CLOSE = 1 };

typedef int (*mfld_poll_fn)(void* context); /* non-zero: stop as soon as possible */

/* `slots` has n_ranks slots of `size` bytes, of which that of this rank is filled; fills the others with those of the
 * other ranks. Non-zero where it failed. */
typedef int (*mfld_exchange_fn)(void* context, void* slots, int64_t size);

/* Processes that share the particles of a call. All make the same call, on the same arrays: each computes for the
 * leaves of particles that are its own, and all get the results of all. Or they are pieces of a cloud that one process
 * takes one after the other, with `apart`. */
typedef struct {
  int64_t rank, n_ranks;
  int32_t by_rows;           /* `advance` on full batches: they share the rows instead, and each has all particles */
  mfld_exchange_fn exchange; /* called by the calling thread */
  void* context;
  int32_t apart; /* of `advance`: arrays of particles hold the share of the rank alone, and nothing else is filled */
  int32_t only_sums; /* of `advance`: it ends behind the sums over particles of its first gradient, without a step */
} mfld_ranks;

typedef struct {
  int num_threads;   /* at least 1 */
  mfld_poll_fn poll; /* called by the calling thread, about every block of work; may be NULL */
  void* poll_context;
  const mfld_ranks* ranks; /* of `predict` and `advance`, which takes one replicate then; else NULL */
} mfld_execution;

typedef struct {
  int32_t status;
  int64_t steps; /* whole ones, made by all replicates: the arrays hold what they led to */
  /* where it diverged: the next step would make this particle the first that is not finite; else -1 */
  int64_t bad_replicate;
  int64_t bad_particle;
  /* (n_replicates) where all steps were made, of the last gradient: weighted mean loss over its rows, and root mean
   * square over particles of |b|. It was taken before the move of the last step, or where that step ended if it is a
   * BAOAB one. */
  double* loss;
  double* gradient_norm;
} mfld_report;

/* A sweep of dual coordinate ascent over rows of the samples. */
typedef struct {
  const int64_t* rows; /* in the order of the visits */
  int64_t n_rows;
  const int64_t* groups; /* sizes of groups of consecutive particles; weights are normalised within each */
  int64_t n_groups;
  double temperature;
  double variance_bound;        /* of h_k; for a loss that couples the outputs, of the whole vector h */
  double neuron_bound;          /* of |h_k| */
  double effective_sample_size; /* stop before a row where that of a group, as a share of its size, is below */
  double* log_weights;          /* (n_particles), not normalised */
  double* dual;                 /* (n, n_outputs) */
  int64_t rows_done;            /* result */
} mfld_dual_sweep;

/* Every entry returns MFLD_DONE, MFLD_STOPPED or MFLD_OUT_OF_MEMORY; stopped, what it writes is part old and part new,
 * but for `advance` and `dual_sweep`. */

/* Alternatives on whole arrays, element by element. */
typedef struct {
  /* value, slope and curvature (count each) of act at z (count) */
  int (*activation)(int32_t activation, const void* z, int64_t count, void* value, void* slope, void* curvature,
                    const mfld_execution*);
  /* value (n), derivative (n, n_outputs) of the loss, unweighted; either may be NULL */
  int (*loss)(const mfld_loss*, const void* predictions, const void* targets, int64_t n, int64_t n_outputs, void* value,
              void* derivative, const mfld_execution*);
  /* conjugate (n) at dual points (n, n_outputs); +inf outside of the domain */
  int (*conjugate)(const mfld_loss*, const void* dual, const void* targets, int64_t n, int64_t n_outputs, void* value,
                   const mfld_execution*);
} mfld_elementwise_kernels;

typedef struct {
  /* h (n, n_particles, n_outputs) */
  int (*neurons)(const mfld_network*, const void* particles, int64_t n_particles, const void* inputs, int64_t n,
                 void* h, const mfld_execution*);
  /* predictions (n, n_outputs) = sum_m coefficients_m h(theta_m, z_i); coefficients NULL stands for 1/n_particles */
  int (*predict)(const mfld_network*, const void* particles, const void* coefficients, int64_t n_particles,
                 const void* inputs, int64_t n, void* predictions, const mfld_execution*);
  /* values (n_particles) = sum_ik cotangent_ik h_k(theta_m, z_i), gradient (n_particles, p) its gradient in theta_m (0
   * where frozen); either output may be NULL. cotangent: (n, n_outputs) */
  int (*pull_back)(const mfld_network*, const void* particles, int64_t n_particles, const void* inputs, int64_t n,
                   const void* cotangent, void* values, void* gradient, const mfld_execution*);
  /* gradient (n_particles, p) in theta_m of sum_bk cotangent_ik h_k(theta_m, z_i), i = rows (n_particles, batch_size):
   * each particle has rows of its own. cotangent: (n, n_outputs) */
  int (*pull_back_rows)(const mfld_network*, const void* particles, int64_t n_particles, const void* inputs,
                        const void* cotangent, const int64_t* rows, int64_t batch_size, void* gradient,
                        const mfld_execution*);
  /* gradient (n, n_features) in z_i of sum_k cotangent_ik sum_m coefficients_m h_k(theta_m, z_i); coefficients NULL
   * stands for 1/n_particles. cotangent: (n, n_outputs). Unless NULL, particle_gradient (n_particles, p) is that of
   * pull_back, from the same pass and without the coefficients */
  int (*pull_back_inputs)(const mfld_network*, const void* particles, const void* coefficients, int64_t n_particles,
                          const void* inputs, int64_t n, const void* cotangent, void* gradient, void* particle_gradient,
                          const mfld_execution*);
  /* gradient (n_particles, p), double: the sum over samples of the gradients in theta of their losses, each made no
   * longer than `bound`; norms (n): their lengths before, root mean squares over particles. Blocks of samples end at
   * `ends`; the weights of the samples are not looked at. */
  int (*pull_back_clipped)(const mfld_network*, const mfld_loss*, const void* particles, int64_t n_particles,
                           const mfld_samples*, const int64_t* ends, int64_t n_blocks, double bound, double* norms,
                           double* gradient, const mfld_execution*);
  /* How many numbers risk_at keeps. */
  int64_t (*risk_kept)(const mfld_network*, int64_t n_particles, int64_t n);
  /* The risk of particles that weigh the same, and the gradient (n_particles, p) of its first variation; to `kept` what
   * risk_along needs of these arguments */
  int (*risk_at)(const mfld_network*, const mfld_loss*, const void* particles, int64_t n_particles, const mfld_samples*,
                 void* kept, double* value, void* gradient, const mfld_execution*);
  /* product (n_particles, p): the change of that gradient along a direction (n_particles, p) of all particles, which
   * does not move what is frozen. Exact, but for kinks, which have no curvature. */
  int (*risk_along)(const mfld_network*, const mfld_loss*, const void* particles, int64_t n_particles,
                    const mfld_samples*, const void* kept, const void* direction, void* product, const mfld_execution*);
} mfld_network_kernels;

/* Particles (n_members, n_particles, p), of which the first n_moving coordinates move. Members draw from the
 * populations behind that of the noise, their particles from first_particle on. */
typedef struct {
  int64_t n_members, n_particles, p, n_moving, first_particle;
} mfld_shape;

/* One step in place, by one row of coefficients. bad_particle: the first that is not finite afterwards, counted through
 * all members, or -1. gradient, here and below, has the shape of the particles, ridge excluded. */
typedef struct {
  int (*affine)(void* particles, const void* gradient, const mfld_shape*, const double* coefficients,
                const mfld_domain*, const mfld_noise*, int64_t* bad_particle, const mfld_execution*);
  /* one part of a BAOAB step: MFLD_BAOAB_OPEN changes particles and velocities, MFLD_BAOAB_CLOSE velocities */
  int (*baoab)(void* particles, void* velocities, const void* gradient, const mfld_shape*, int32_t part,
               const double* coefficients, const mfld_noise*, int64_t* bad_particle, const mfld_execution*);
  /* The Metropolis step: proposals, made by `affine` with the same coefficients, replace particles, values and
   * gradients where accepted; never where they are not finite. values: (n_members, n_particles), ridge excluded.
   * accepted: how many; probabilities (n_members, n_particles): with which they were. */
  int (*accept)(void* particles, void* values, void* gradient, const void* proposals, const void* proposal_values,
                const void* proposal_gradient, const mfld_shape*, const double* coefficients, const mfld_noise*,
                int64_t* accepted, double* probabilities, const mfld_execution*);
} mfld_move_kernels;

/* A kernel k(x, y) of pairs of points, of their differences times `inverse_scales`. */
typedef struct {
  int32_t id; /* index into pair_kernels */
  double parameter;
  const double* inverse_scales; /* (p), positive */
  const double* coefficients;   /* of a series, else NULL */
  int64_t n_coefficients;
} mfld_pair_kernel;

/* Points (n, p) and their weights, NULL standing for 1/n each. */
typedef struct {
  const void* points;
  const void* weights;
  int64_t n;
} mfld_points;

/* Sums over j of the points y, for each of n points x (n, p). With a vector s_j for each y_j, u is the Stein kernel of
 * vectors s_x, s_y:
 *
 *   u(x, y) = s_x.s_y k + s_x.grad_y k + s_y.grad_x k + trace grad_x grad_y k
 */
typedef struct {
  /* values (n) = sum_j w_j k(x_i, y_j), gradient (n, p) = its gradient in x_i; either may be NULL */
  int (*sums)(const mfld_pair_kernel*, const void* x, int64_t n, const mfld_points* y, int64_t p, void* values,
              void* gradient, const mfld_execution*);
  /* field (n, p) = sum_j w_j (k(x_i, y_j) s_j + repulsion grad_y k(x_i, y_j)) */
  int (*pull_back)(const mfld_pair_kernel*, const void* x, int64_t n, const mfld_points* y, const void* y_vectors,
                   int64_t p, double repulsion, void* field, const mfld_execution*);
  /* values (n) = sum_j w_j u(x_i, y_j); gradient (n, p), its gradient in x_i with the vectors s held fixed, and
   * field (n, p) as above with repulsion 1, through which x_i moves its own vector: both NULL or none */
  int (*stein)(const mfld_pair_kernel*, const void* x, const void* x_vectors, int64_t n, const mfld_points* y,
               const void* y_vectors, int64_t p, void* values, void* gradient, void* field, const mfld_execution*);
  /* means (n, p) of the points y under the weights w_j exp(-|a (x_i - y_j)|^2 / 2), a = inverse_scales (p), normalised:
   * exact where all of these underflow, too */
  int (*gaussian_means)(const double* inverse_scales, const void* x, int64_t n, const mfld_points* y, int64_t p,
                        void* means, const mfld_execution*);
} mfld_pair_sums;

/* The squared discrepancy between particles and a target, up to a constant: the mean of own_factor times `own` over
 * pairs of particles, minus twice that of cross_factor times `cross` over pairs of a particle and a point. */
typedef struct {
  const mfld_pair_kernel *own, *cross;
  double own_factor, cross_factor;
  mfld_points target;
} mfld_discrepancy;

/* Kernel thinning: subsets of the points (.., p) whose mean of k(x, .) is close to that of all. `rows` name the points
 * that are meant. */
typedef struct {
  /* Reorders rows (n) into 2^levels parts of n / 2^levels points, some of one more, which end at `ends`. Their noise is
   * that of the levels from first_level on. */
  int (*split)(const mfld_pair_kernel*, const void* points, int64_t p, int64_t* rows, int64_t n, int32_t levels,
               int32_t first_level, const mfld_noise*, int64_t* ends, const mfld_execution*);
  /* Keeps size * 2^levels of size * 4^levels rows, in front: in sets that are small, joined by four and halved. */
  int (*compress)(const mfld_pair_kernel*, const void* points, int64_t p, int64_t* rows, int64_t size, int32_t levels,
                  const mfld_noise*, const mfld_execution*);
  /* The best of the parts of rows (n) that end at `ends` (n_parts), after up to n_sweeps of exchanges with the other
   * rows: to `chosen`, which has room for the largest part, and their number */
  int (*refine)(const mfld_pair_kernel*, const void* points, int64_t p, const int64_t* rows, int64_t n,
                const int64_t* ends, int64_t n_parts, int32_t n_sweeps, int64_t* chosen, int64_t* n_chosen,
                const mfld_execution*);
} mfld_thinning_kernels;

/* Noise as numbers, out (n_members, n_particles, n_coordinates), of the particles from first_particle on. */
typedef struct {
  /* standard normals */
  int (*normals)(const mfld_noise*, uint32_t stream, int64_t n_members, int64_t first_particle, int64_t n_particles,
                 int64_t n_coordinates, void* out, const mfld_execution*);
  /* uniform on (0, 1) */
  int (*uniforms)(const mfld_noise*, uint32_t stream, int64_t n_members, int64_t first_particle, int64_t n_particles,
                  int64_t n_coordinates, void* out, const mfld_execution*);
} mfld_noise_kernels;

typedef struct {
  /* right (rows, n_right) becomes the solution X of (B B' + ridge I) X = right, by a system of the smaller of rows and
   * columns; B = diag(row_scale) factor diag(column_scale), scales null for ones; positive: 0 where the system is not
   * positive definite, so that there is none */
  int (*ridge_solve)(const void* factor, int64_t rows, int64_t columns, const void* row_scale, const void* column_scale,
                     double ridge, void* right, int64_t n_right, int32_t* positive, const mfld_execution*);
  /* product (rows, n_right) of factor and right, or (columns, n_right) of its transpose and right */
  int (*product)(const void* factor, int64_t rows, int64_t columns, int32_t transposed, const void* right,
                 int64_t n_right, void* product, const mfld_execution*);
} mfld_dense_kernels;

/* The kernels of one precision. */
typedef struct {
  mfld_elementwise_kernels elementwise;
  mfld_network_kernels network;
  mfld_pair_sums pairs;
  mfld_move_kernels moves;
  mfld_noise_kernels noise;
  mfld_dense_kernels dense;
  mfld_thinning_kernels thinning;
  /* n_steps steps of mean-field Langevin dynamics on particles (n_replicates, n_particles, p) and the buffers of the
   * estimator and the dynamics, which have that leading axis too, in place. Coefficients, all of one stride, and a
   * noise for each replicate. They stop at the same count of steps. */
  int (*advance)(const mfld_network*, const mfld_loss*, const mfld_samples*, void* particles, int64_t n_replicates,
                 int64_t n_particles, int64_t n_steps, mfld_estimator*, mfld_dynamics*,
                 const mfld_coefficients* coefficients, const mfld_domain*, const mfld_noise* noises, mfld_report*,
                 const mfld_execution*);
  /* the same of affine steps down a discrepancy, of particles (n_replicates, n_particles, p) with the shape of one
   * replicate; of the report, losses and norms are left alone: who wants them makes the last step by itself */
  int (*advance_pairs)(const mfld_discrepancy*, void* particles, int64_t n_replicates, const mfld_shape*,
                       int64_t n_steps, const mfld_coefficients* coefficients, const mfld_domain*,
                       const mfld_noise* noises, mfld_report*, const mfld_execution*);
  /* visits rows one after the other: dual variables and log-weights of the particles, in place */
  int (*dual_sweep)(const mfld_network*, const mfld_loss*, const mfld_samples*, const void* particles,
                    int64_t n_particles, mfld_dual_sweep*, const mfld_execution*);
  /* which particles are those of a rank */
  void (*share)(int64_t n_particles, int64_t rank, int64_t n_ranks, int64_t* begin, int64_t* end);
} mfld_kernels;

/* Columns of the cells of secret.cpp, 1024 each: how often a column is its own cell and not its alias, and a lower
 * bound on the probability with which a place in the cell is kept, both in units of 2^-64. */
typedef struct {
  const uint64_t* thresholds;
  const uint16_t* aliases;
  const uint64_t* always;
} mfld_gaussian_table;

/* Noise as words and rows, of no precision. */
typedef struct {
  uint64_t (*key)(uint64_t seed, uint64_t replica);
  /* four words of Philox4x32-10 */
  void (*philox)(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
  /* batch_size distinct rows of n: a pure function of (key, step) */
  int (*batch)(const mfld_noise*, int64_t n, int64_t batch_size, int64_t* rows, const mfld_execution*);
  /* the same for each particle on its own: rows (n_particles, batch_size) */
  int (*particle_batches)(const mfld_noise*, int64_t n, int64_t batch_size, int64_t n_particles, int64_t* rows,
                          const mfld_execution*);
  /* n_words words of ChaCha20 from block `counter` on */
  void (*chacha)(const uint32_t key[8], uint32_t counter, const uint32_t nonce[3], int64_t n_words, uint32_t* out);
  /* floor(2^30 X) of standard normals X, out (count): a pure function of the key */
  int (*gaussians)(const uint32_t key[8], const mfld_gaussian_table*, int64_t count, int64_t* out,
                   const mfld_execution*);
} mfld_words;

typedef struct {
  const char* name;
  int32_t has_coordinates; /* n_outputs readout coordinates per particle */
  int32_t frozen;          /* they never move */
} mfld_readout_info;

typedef struct {
  double lowest, highest;
} mfld_range;

typedef struct {
  const char* name;
  mfld_range range; /* infinite where it is unbounded */
  double steepest;  /* largest slope in size */
} mfld_activation_info;

typedef struct {
  const char* name;
  const char* parameter; /* NULL: none */
  double parameter_default;
  int32_t targets;
  int32_t convex;
} mfld_loss_info;

typedef struct {
  const char* name;
  int32_t periodic;    /* a product over coordinates, of period 2 pi */
  int32_t derivatives; /* 1: gradients of sums; 2: Stein sums; 3: their gradients */
} mfld_pair_kernel_info;

typedef struct {
  int32_t abi;
  const char* isa;
  const char* compiler;
  const char* eigen;
  int32_t has_openmp;

  int32_t n_activations;
  const mfld_activation_info* activations;
  int32_t n_readouts;
  const mfld_readout_info* readouts;
  int32_t n_losses;
  const mfld_loss_info* losses;
  int32_t n_pair_kernels;
  const mfld_pair_kernel_info* pair_kernels;
  /* derivative's Lipschitz constant for this parameter; +inf where there is none */
  double (*loss_smoothness)(const mfld_loss*);
  /* what one output h_k of a neuron can be, whatever theta and z */
  mfld_range (*output_range)(const mfld_network*);
  /* c of |h(theta, z)| <= c |theta|^2 |(z, 1)| + terms linear in theta, the 1 where there is a bias */
  double (*quadratic_growth)(const mfld_network*);

  mfld_kernels f32, f64;
  mfld_words words;
  /* one step of dual coordinate ascent at each of n samples by itself: dual (n, n_outputs) in place, step (n) */
  int (*dual_step)(const mfld_loss*, double* dual, const double* predictions, const double* targets, const double* step,
                   int64_t n, int64_t n_outputs, const mfld_execution*);

  int32_t (*has_bfloat16)(void); /* 1: built with products of bfloat16, which this processor has */
  int (*max_threads)(void);
  int (*pause)(void); /* gives the calling thread's OpenMP pool back: call before a fork */
} mfld_kernel_table_t;

const mfld_kernel_table_t* mfld_kernel_table(void);

#ifdef __cplusplus
}
#endif
