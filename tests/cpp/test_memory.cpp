// Memory: no kernel asks for any within a parallel region, where what is thrown ends the process; and one that finds
// none outside of it says so and has changed no particle.
//
// All that the program allocates passes by here: what it calls by name through the linker's --wrap, the rest through
// operator new.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <vector>

#ifdef MFLD_HAS_OPENMP
#include <omp.h>
#endif

#include "mfld/kernels.h"
#include "mfld/losses.hpp"
#include "network.hpp"

namespace {

// Set once OpenMP has threads: LLVM's allocates while it starts, where asking it for the region would wait for ever.
std::atomic<bool> openmp_runs{false};

void start_openmp() {
#ifdef MFLD_HAS_OPENMP
#pragma omp parallel num_threads(3)
  {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  openmp_runs = true;
#endif
}

bool in_region() {
#ifdef MFLD_HAS_OPENMP
  return openmp_runs && omp_in_parallel() != 0;
#else
  return false;
#endif
}

constexpr long unlimited = -1;
std::atomic<long> allocations_left{unlimited}, allocations_in_regions{0};

bool refuses() {
  if (in_region()) ++allocations_in_regions;
  if (allocations_left == unlimited) return false;
  if (allocations_left == 0) return true;
  --allocations_left;
  return false;
}

void* allocated(std::size_t size, std::size_t alignment = alignof(std::max_align_t)) {
  void* memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

extern "C" {
void* __real_malloc(std::size_t);
void* __real_calloc(std::size_t, std::size_t);
void* __real_realloc(void*, std::size_t);
void* __real_aligned_alloc(std::size_t, std::size_t);
int __real_posix_memalign(void**, std::size_t, std::size_t);

void* __wrap_malloc(std::size_t size) { return refuses() ? nullptr : __real_malloc(size); }
void* __wrap_calloc(std::size_t n, std::size_t size) { return refuses() ? nullptr : __real_calloc(n, size); }
void* __wrap_realloc(void* old, std::size_t size) { return refuses() ? nullptr : __real_realloc(old, size); }
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size) {
  return refuses() ? nullptr : __real_aligned_alloc(alignment, size);
}
int __wrap_posix_memalign(void** out, std::size_t alignment, std::size_t size) {
  return refuses() ? 12 /*ENOMEM*/ : __real_posix_memalign(out, alignment, size);
}
}

void* operator new(std::size_t size) { return allocated(size); }
void* operator new[](std::size_t size) { return allocated(size); }
void* operator new(std::size_t size, std::align_val_t a) { return allocated(size, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t size, std::align_val_t a) { return allocated(size, static_cast<std::size_t>(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

// A call of the kernel table, with at least 1e6 multiply-adds for each of its threads: at one look for signals the
// calling thread is within the team.
struct Call {
  std::string name;
  bool has_team;
  std::function<int(const mfld_execution*)> run;
};

// Of their own, those that a call writes; of all, what they read, and the particles that `advance` moves.
template <class T>
struct Arrays {
  static constexpr std::int64_t n = 100, n_particles = 3000, most_replicates = 8, features = 10, outputs = 2,
                                batch = 40;
  static constexpr mfld_loss half_squared = {1, 0}, cross_entropy = {7, 0};

  const mfld_network network;
  const std::int64_t p = mfld::NetworkPanel<T>(network).n_coordinates();
  const mfld_noise noise = {42, 7, 0};
  static constexpr double affine_row[] = {0.0004, 0.01, 0.014}, baoab_row[] = {0.005, 0.0002, 0.99, 0.014};
  static constexpr mfld_domain flat = {nullptr, 0};
  const std::vector<mfld_noise> noises = std::vector<mfld_noise>(most_replicates, noise);
  std::vector<T> particles = array(n_particles * p);
  const std::vector<double> unit_scales = std::vector<double>(static_cast<std::size_t>(p), 1.0);
  const std::vector<T> inputs = array(n * features), targets = array(n * outputs), labels = std::vector<T>(n, T(1));

  explicit Arrays(int activation) : network{features, outputs, 1, activation, 2, 1.5, 2.0} {}

  static std::vector<T> array(std::int64_t size) {
    std::vector<T> out(static_cast<std::size_t>(size));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<T>(i % 17) / 16 - T(0.5);
    return out;
  }

  std::vector<Call> calls(const mfld_kernels& kernels) {
    std::vector<Call> all;
    const auto add = [&all](std::string name, bool has_team, std::function<int(const mfld_execution*)> run) {
      all.push_back({std::move(name), has_team, std::move(run)});
    };
    network_calls(kernels.network, add);
    risk_calls(kernels.network, add);
    pair_calls(kernels.pairs, add);
    move_calls(kernels.moves, add);
    noise_calls(kernels.noise, add);
    elementwise_calls(kernels.elementwise, add);
    dense_calls(kernels.dense, add);
    for (int estimator : {MFLD_FULL_BATCH, MFLD_MINIBATCH, MFLD_SVRG, MFLD_SARAH})
      for (int dynamics : {MFLD_AFFINE, MFLD_BAOAB})
        for (std::int64_t replicates : {std::int64_t{1}, most_replicates})
          advance_call(kernels, estimator, dynamics, replicates, add);
    for (const mfld_loss& loss : {half_squared, cross_entropy})
      for (std::int64_t copies : {1, 4}) dual_sweep_call(kernels, loss, copies, add);
    return all;
  }

 private:
  template <class Add>
  void network_calls(const mfld_network_kernels& kernels, const Add& add) {
    add("neurons", true, [this, &kernels, h = array(n * n_particles * outputs)](const mfld_execution* e) mutable {
      return kernels.neurons(&network, particles.data(), n_particles, inputs.data(), n, h.data(), e);
    });
    add("predict", true, [this, &kernels, out = array(n * outputs)](const mfld_execution* e) mutable {
      return kernels.predict(&network, particles.data(), nullptr, n_particles, inputs.data(), n, out.data(), e);
    });
    add("pull_back", true,
        [this, &kernels, v = array(n_particles), g = array(n_particles * p)](const mfld_execution* e) mutable {
          return kernels.pull_back(&network, particles.data(), n_particles, inputs.data(), n, targets.data(), v.data(),
                                   g.data(), e);
        });
    add("pull_back_rows", true,
        [this, &kernels, rows = std::vector<std::int64_t>(n_particles * batch, n - 1),
         g = array(n_particles * p)](const mfld_execution* e) mutable {
          return kernels.pull_back_rows(&network, particles.data(), n_particles, inputs.data(), targets.data(),
                                        rows.data(), batch, g.data(), e);
        });
  }

  template <class Add>
  void risk_calls(const mfld_network_kernels& kernels, const Add& add) {
    static constexpr mfld_samples samples = {nullptr, nullptr, nullptr, n, 0, 0};
    const std::int64_t size = kernels.risk_kept(&network, n_particles, n);
    const auto given = [this] {
      mfld_samples all = samples;
      all.inputs = inputs.data();
      all.targets = labels.data();
      return all;
    };
    add("risk at", true,
        [this, &kernels, given, kept = array(size), g = array(n_particles * p)](const mfld_execution* e) mutable {
          const mfld_samples all = given();
          double value;
          return kernels.risk_at(&network, &cross_entropy, particles.data(), n_particles, &all, kept.data(), &value,
                                 g.data(), e);
        });
    add("risk along", true,
        [this, &kernels, given, kept = array(size), g = array(n_particles * p)](const mfld_execution* e) mutable {
          const mfld_samples all = given();
          return kernels.risk_along(&network, &cross_entropy, particles.data(), n_particles, &all, kept.data(),
                                    particles.data(), g.data(), e);
        });
  }

  // The particles as both sets of points.
  template <class Add>
  void pair_calls(const mfld_pair_sums& kernels, const Add& add) {
    for (int kernel : {0, 7}) {  // of the distance, and of a torus
      const auto one = [this, kernel] {
        return mfld_pair_kernel{kernel, 1.0, unit_scales.data(), unit_scales.data(), kernel == 7 ? 2 : 0};
      };
      const mfld_points points = {particles.data(), nullptr, n_particles};
      const std::string name = "kernel " + std::to_string(kernel);
      add("pair sums, " + name, true,
          [this, &kernels, one, points, v = array(n_particles),
           g = array(n_particles * p)](const mfld_execution* e) mutable {
            const mfld_pair_kernel k = one();
            return kernels.sums(&k, particles.data(), n_particles, &points, p, v.data(), g.data(), e);
          });
      add("pair pull back, " + name, true,
          [this, &kernels, one, points, f = array(n_particles * p)](const mfld_execution* e) mutable {
            const mfld_pair_kernel k = one();
            return kernels.pull_back(&k, particles.data(), n_particles, &points, particles.data(), p, 1.0, f.data(), e);
          });
      add("pair stein, " + name, true,
          [this, &kernels, one, points, v = array(n_particles), g = array(n_particles * p),
           f = array(n_particles * p)](const mfld_execution* e) mutable {
            const mfld_pair_kernel k = one();
            return kernels.stein(&k, particles.data(), particles.data(), n_particles, &points, particles.data(), p,
                                 v.data(), g.data(), f.data(), e);
          });
    }
  }

  template <class Add>
  void move_calls(const mfld_move_kernels& kernels, const Add& add) {
    // Of many particles that do not move: their number is what makes the work.
    static constexpr std::int64_t many = 50'000, moving = 4;
    const auto cloud = [] { return array(many * moving); };
    static constexpr mfld_shape shape = {2, many / 2, moving, moving, 0};
    static constexpr mfld_block sphere = {MFLD_SPHERE, moving, nullptr, nullptr};
    static constexpr mfld_domain domain = {&sphere, 1};
    for (const mfld_domain* on : {&flat, &domain})
      add(on->n_blocks ? "affine, on a sphere" : "affine", true,
          [this, on, &kernels, x = cloud(), g = cloud()](const mfld_execution* e) mutable {
            std::int64_t bad;
            return kernels.affine(x.data(), g.data(), &shape, affine_row, on, &noise, &bad, e);
          });
    for (int part : {MFLD_BAOAB_OPEN, MFLD_BAOAB_CLOSE})
      add("baoab, part " + std::to_string(part), true,
          [this, part, &kernels, x = cloud(), v = cloud(), g = cloud()](const mfld_execution* e) mutable {
            std::int64_t bad;
            return kernels.baoab(x.data(), v.data(), g.data(), &shape, part, baoab_row, &noise, &bad, e);
          });
    add("accept", true,
        [this, &kernels, x = cloud(), u = array(many), g = cloud(), y = cloud(), w = array(many), c = cloud(),
         probabilities = std::vector<double>(many)](const mfld_execution* e) mutable {
          std::int64_t accepted;
          return kernels.accept(x.data(), u.data(), g.data(), y.data(), w.data(), c.data(), &shape, affine_row, &noise,
                                &accepted, probabilities.data(), e);
        });
  }

  template <class Add>
  void noise_calls(const mfld_noise_kernels& kernels, const Add& add) {
    static constexpr std::int64_t rows = 5000, columns = 200;
    add("normals", true, [this, &kernels, out = array(rows * columns)](const mfld_execution* e) mutable {
      return kernels.normals(&noise, MFLD_STREAM_MOVE, 2, 0, rows / 2, columns, out.data(), e);
    });
    add("uniforms", true, [this, &kernels, out = array(rows * columns)](const mfld_execution* e) mutable {
      return kernels.uniforms(&noise, MFLD_STREAM_MOVE, 2, 0, rows / 2, columns, out.data(), e);
    });
    const mfld_words& words = mfld_kernel_table()->words;
    add("batch", false, [this, &words, out = std::vector<std::int64_t>(1000)](const mfld_execution* e) mutable {
      return words.batch(&noise, 1'000'000, 1000, out.data(), e);
    });
    add("particle_batches", true,
        [this, &words, out = std::vector<std::int64_t>(n_particles * batch)](const mfld_execution* e) mutable {
          return words.particle_batches(&noise, n, batch, n_particles, out.data(), e);
        });
  }

  template <class Add>
  void elementwise_calls(const mfld_elementwise_kernels& kernels, const Add& add) {
    add("activation", false,
        [this, &kernels, v = array(n), s = array(n), c = array(n)](const mfld_execution* e) mutable {
          return kernels.activation(network.activation, targets.data(), n, v.data(), s.data(), c.data(), e);
        });
    add("loss", false, [this, &kernels, v = array(n), d = array(n * outputs)](const mfld_execution* e) mutable {
      return kernels.loss(&half_squared, targets.data(), targets.data(), n, outputs, v.data(), d.data(), e);
    });
    add("conjugate", false, [this, &kernels, v = array(n)](const mfld_execution* e) mutable {
      return kernels.conjugate(&half_squared, targets.data(), targets.data(), n, outputs, v.data(), e);
    });
    add("dual_step", false, [g = std::vector<double>(n), u = std::vector<double>(n)](const mfld_execution* e) mutable {
      return mfld_kernel_table()->dual_step(&half_squared, g.data(), u.data(), u.data(), u.data(), n, 1, e);
    });
  }

  // The smaller side being rows, or columns.
  template <class Add>
  void dense_calls(const mfld_dense_kernels& kernels, const Add& add) {
    dense_calls(kernels, 150, 400, add);
    dense_calls(kernels, 400, 150, add);
  }

  template <class Add>
  void dense_calls(const mfld_dense_kernels& kernels, std::int64_t rows, std::int64_t columns, const Add& add) {
    static constexpr std::int64_t right = 100;
    const std::string name = std::to_string(rows) + " x " + std::to_string(columns);
    add("ridge_solve, " + name, true,
        [rows, columns, &kernels, f = array(rows * columns), x = array(rows * right)](const mfld_execution* e) mutable {
          std::int32_t positive = 0;
          return kernels.ridge_solve(f.data(), rows, columns, f.data(), f.data(), 10.0, x.data(), right, &positive, e);
        });
    for (std::int32_t transposed : {0, 1}) {
      const std::int64_t in = transposed ? rows : columns, out = transposed ? columns : rows;
      add("product, " + name + (transposed ? ", transposed" : ""), true,
          [rows, columns, transposed, &kernels, f = array(rows * columns), x = array(in * right),
           y = array(out * right)](const mfld_execution* e) mutable {
            return kernels.product(f.data(), rows, columns, transposed, x.data(), right, y.data(), e);
          });
    }
  }

  // Of one cloud, whose panels the threads share, or of as many replicates that each are too little work for two.
  template <class Add>
  void advance_call(const mfld_kernels& kernels, int estimator_kind, int dynamics_kind, std::int64_t replicates,
                    const Add& add) {
    const std::int64_t each = replicates == 1 ? n_particles : 16, size = replicates * each * p;
    const bool anchored = estimator_kind == MFLD_SVRG || estimator_kind == MFLD_SARAH;
    add("advance, estimator " + std::to_string(estimator_kind) + ", dynamics " + std::to_string(dynamics_kind) + ", " +
            std::to_string(replicates) + " replicates",
        true,
        [=, this, &kernels, anchor = array(size), anchor_gradient = array(size), velocities = array(size),
         force = array(size), predictions = array(replicates * n * outputs)](const mfld_execution* e) mutable {
          mfld_estimator estimator = {};
          estimator.kind = estimator_kind;
          estimator.batch_size = estimator_kind == MFLD_FULL_BATCH ? 0 : batch;
          if (anchored) {
            estimator.refresh_every = 3;
            estimator.anchor = anchor.data();
            estimator.anchor_gradient = anchor_gradient.data();
          }
          if (estimator_kind == MFLD_SVRG) estimator.anchor_predictions = predictions.data();
          mfld_dynamics dynamics = {};
          dynamics.kind = dynamics_kind;
          if (dynamics_kind == MFLD_BAOAB) {
            dynamics.velocities = velocities.data();
            dynamics.force = force.data();
          }
          const mfld_samples samples = {inputs.data(), targets.data(), nullptr, n, 0, 0};
          double losses[most_replicates], norms[most_replicates];
          mfld_report report = {0, 0, -1, -1, losses, norms};
          const mfld_coefficients row = {dynamics_kind == MFLD_BAOAB ? baoab_row : affine_row, 0};
          const mfld_coefficients rows[] = {row, row, row, row, row, row, row, row};
          static_assert(most_replicates == 8);
          return kernels.advance(&network, &half_squared, &samples, particles.data(), replicates, each, /*n_steps=*/8,
                                 &estimator, &dynamics, rows, &flat, noises.data(), &report, e);
        });
  }

  // Few particles are swept over by one thread while the others fill, many by all.
  template <class Add>
  void dual_sweep_call(const mfld_kernels& kernels, mfld_loss loss, std::int64_t copies, const Add& add) {
    std::vector<T> cloud;
    for (std::int64_t i = 0; i < copies; ++i) cloud.insert(cloud.end(), particles.begin(), particles.end());
    std::vector<std::int64_t> rows(n);
    for (std::int64_t i = 0; i < n; ++i) rows[i] = i;
    const bool classes = mfld::loss_infos[loss.id].targets == MFLD_TARGETS_CLASS;
    const std::int64_t count = copies * n_particles;
    add("dual_sweep, loss " + std::to_string(loss.id) + ", " + std::to_string(count) + " particles", true,
        [=, this, &kernels, log_weights = std::vector<double>(count),
         dual = std::vector<double>(n * outputs)](const mfld_execution* e) mutable {
          const mfld_samples samples = {inputs.data(), (classes ? labels : targets).data(), nullptr, n, 0, 0};
          mfld_dual_sweep sweep = {rows.data(),        n,           &count, 1, 0.1, 4.0 * outputs, 3.0, 1e-9,
                                   log_weights.data(), dual.data(), 0};
          return kernels.dual_sweep(&network, &loss, &samples, cloud.data(), count, &sweep, e);
        });
  }
};

template <class T>
const mfld_kernels& kernels_of();
template <>
const mfld_kernels& kernels_of<float>() {
  return mfld_kernel_table()->f32;
}
template <>
const mfld_kernels& kernels_of<double>() {
  return mfld_kernel_table()->f64;
}

constexpr int tanh_id = 0, gelu_id = 6;  // which keeps no slopes, and which does

}  // namespace

TEST_CASE("what counts allocations sees them") {
  start_openmp();
#ifdef MFLD_HAS_OPENMP
  allocations_in_regions = 0;
#pragma omp parallel num_threads(2)
  {
    void* volatile kept = ::operator new(10);  // else the compiler would leave them out
    ::operator delete(kept);
    kept = std::malloc(10);
    std::free(kept);
  }
  CHECK(allocations_in_regions == 4);
#endif
  allocations_left = 0;
  bool refused = false;
  try {
    void* volatile kept = ::operator new(10);
    ::operator delete(kept);
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  allocations_left = unlimited;
  CHECK(refused);
}

#ifdef MFLD_HAS_OPENMP
TEST_CASE_TEMPLATE("nothing allocates in a parallel region", T, float, double) {
  start_openmp();
  for (int activation : {tanh_id, gelu_id}) {
    Arrays<T> arrays(activation);
    for (const Call& call : arrays.calls(kernels_of<T>())) {
      for (int threads : {2, 3}) {
        CAPTURE(call.name);
        bool met_in_region = false;
        const mfld_execution execution = {threads,
                                          [](void* met) { return int(*static_cast<bool*>(met) |= in_region()) * 0; },
                                          &met_in_region, nullptr};
        allocations_in_regions = 0;
        CHECK(call.run(&execution) == MFLD_DONE);
        CHECK(allocations_in_regions == 0);
        CHECK(met_in_region == call.has_team);
      }
    }
  }
}
#endif

TEST_CASE_TEMPLATE("a kernel without memory says so", T, float, double) {
  Arrays<T> arrays(gelu_id);
  const std::vector<T> before = arrays.particles;
  for (const Call& call : arrays.calls(kernels_of<T>())) {
    CAPTURE(call.name);
    const mfld_execution execution = {2, nullptr, nullptr, nullptr};
    // The first allocation fails, then the second one, ... until all that the call asks for is there.
    int status = MFLD_OUT_OF_MEMORY;
    for (long enough = 0; status == MFLD_OUT_OF_MEMORY; ++enough) {
      REQUIRE(enough < 1000);
      allocations_left = enough;
      status = call.run(&execution);
      allocations_left = unlimited;
      if (status == MFLD_OUT_OF_MEMORY) CHECK(arrays.particles == before);
    }
    CHECK(status == MFLD_DONE);
    arrays.particles = before;
  }
}
