// Random calls of the kernel table: every entry, sizes that fill no register, panel or tile, arrays of any alignment
// that end where their memory ends, numbers of every size, stops at any moment, calls from several threads. Right is:
// no fault (which the sanitizers see), a status that is known, and the same bytes for any number of threads.
//
//   mfld_fuzz_<level> [--seconds S] [--cases N] [--seed K] [--name 1]
//
// A case is its seed: what is wrong is made again by --seed K --cases 1. --name 1 says each seed before its case, for
// those that end the process.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "mfld/kernels.h"

// What LLVM's OpenMP runtime keeps of its threads until the end is no leak of ours.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() { return "leak:libomp"; }

namespace {

// splitmix64: of the seed alone, whatever the standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t word() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::int64_t below(std::int64_t end) { return static_cast<std::int64_t>(word() % static_cast<std::uint64_t>(end)); }
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + below(high - low + 1); }
  // From 1 on, small ones as often as large ones.
  std::int64_t size(std::int64_t most) {
    return static_cast<std::int64_t>(std::exp(uniform() * std::log(static_cast<double>(most) + 0.999)));
  }
  double uniform() { return static_cast<double>(word() >> 11) * 0x1p-53; }
  bool one_in(std::int64_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

// An array that ends with its memory, and begins anywhere.
template <class T>
class Array {
 public:
  Array(Random& random, std::int64_t size)
      : skipped_(static_cast<std::size_t>(random.below(9))), memory_(skipped_ + static_cast<std::size_t>(size)) {}
  T* data() { return memory_.data() + skipped_; }
  const T* data() const { return memory_.data() + skipped_; }
  std::int64_t size() const { return static_cast<std::int64_t>(memory_.size() - skipped_); }
  T& operator[](std::int64_t i) { return data()[i]; }

 private:
  std::size_t skipped_;
  std::vector<T> memory_;
};

enum class Numbers { ordinary, zeros, tiny, huge, mixed };

Numbers kind_of_numbers(Random& random) {
  constexpr Numbers odd[] = {Numbers::zeros, Numbers::tiny, Numbers::huge, Numbers::mixed};
  return random.one_in(4) ? odd[random.below(4)] : Numbers::ordinary;
}

template <class T>
Array<T> numbers(Random& random, std::int64_t size, Numbers kind) {
  using Limits = std::numeric_limits<T>;
  constexpr T odd[] = {0,
                       T(-0.0),
                       Limits::denorm_min(),
                       -Limits::min(),
                       Limits::max(),
                       -Limits::max(),
                       Limits::infinity(),
                       -Limits::infinity(),
                       Limits::quiet_NaN(),
                       T(1e30),
                       T(1e-30)};
  Array<T> out(random, size);
  for (std::int64_t i = 0; i < size; ++i) {
    const double x = 2 * (random.uniform() + random.uniform() - 1);
    switch (kind) {
      case Numbers::ordinary:
        out[i] = static_cast<T>(x);
        break;
      case Numbers::zeros:
        out[i] = 0;
        break;
      case Numbers::tiny:
        out[i] = static_cast<T>(x * 1e-38);
        break;
      case Numbers::huge:
        out[i] = static_cast<T>(x * 1e30);
        break;
      case Numbers::mixed:
        out[i] = random.one_in(8) ? odd[random.below(std::size(odd))] : static_cast<T>(x);
        break;
    }
  }
  return out;
}

template <class T>
Array<T> numbers(Random& random, std::int64_t size) {
  return numbers<T>(random, size, kind_of_numbers(random));
}

Array<std::int64_t> rows_below(Random& random, std::int64_t count, std::int64_t end) {
  Array<std::int64_t> out(random, count);
  for (std::int64_t i = 0; i < count; ++i) out[i] = random.below(end);
  return out;
}

// How a call is made, and what it wrote: the rest of it is a function of the seed.
struct Call {
  int threads;
  std::int64_t polls_left = -1;  // negative: never stopped
  int status = MFLD_DONE;
  std::vector<unsigned char> bytes = {};

  mfld_execution execution() { return {threads, &Call::poll, this, nullptr}; }
  void ended(int code) { status = code; }
  void wrote(const void* data, std::int64_t size) {
    const auto* first = static_cast<const unsigned char*>(data);
    bytes.insert(bytes.end(), first, first + size);
  }
  template <class T>
  void wrote(const Array<T>& array) {
    // One NaN for all: which of two operands gives a sum its sign and payload is the compiler's choice.
    for (std::int64_t i = 0; i < array.size(); ++i) {
      const T x = array.data()[i], one = x == x ? x : std::numeric_limits<T>::quiet_NaN();
      wrote(&one, sizeof(T));
    }
  }

 private:
  static int poll(void* self) {
    auto& left = static_cast<Call*>(self)->polls_left;
    return left >= 0 && left-- == 0;
  }
};

const mfld_kernel_table_t& table() { return *mfld_kernel_table(); }
template <class T>
const mfld_kernels& kernels() {
  return sizeof(T) == sizeof(float) ? table().f32 : table().f64;
}

mfld_noise place(Random& random) {
  return {random.word(), random.word() % (MFLD_NOISE_STEPS - 64), static_cast<std::uint32_t>(random.below(1 << 15))};
}

struct Network : mfld_network {
  std::int64_t p, n_moving;
  explicit Network(Random& random)
      : mfld_network{random.size(90),
                     random.one_in(2) ? 1 : random.size(20),
                     static_cast<std::int32_t>(random.below(2)),
                     static_cast<std::int32_t>(random.below(table().n_activations)),
                     static_cast<std::int32_t>(random.below(table().n_readouts)),
                     4 * random.uniform() - 2,
                     3 * random.uniform()} {
    const mfld_readout_info& info = table().readouts[readout];
    const std::int64_t own = info.has_coordinates ? n_outputs : 0;
    p = n_features + has_bias + own;
    n_moving = p - (info.frozen ? own : 0);
  }
};

mfld_loss any_loss(Random& random) {
  const auto id = static_cast<std::int32_t>(random.below(table().n_losses));
  return {id, table().losses[id].parameter_default * (0.1 + random.uniform())};
}

template <class T>
Array<T> targets_of(Random& random, const mfld_loss& loss, std::int64_t n, std::int64_t n_outputs) {
  const std::int32_t kind = table().losses[loss.id].targets;
  if (kind == MFLD_TARGETS_REAL) return numbers<T>(random, n * n_outputs);
  Array<T> out(random, kind == MFLD_TARGETS_CLASS ? n : n * n_outputs);
  for (std::int64_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<T>(kind == MFLD_TARGETS_CLASS ? random.below(n_outputs) : 2 * random.below(2) - 1);
  return out;
}

template <class T>
Array<T> weights_of(Random& random, std::int64_t n) {
  Array<T> out(random, n);
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(out[i] = static_cast<T>(random.uniform() + 1e-9));
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(static_cast<double>(out[i]) / sum);
  return out;
}

struct Domain : mfld_domain {
  std::vector<mfld_block> blocks;
  std::vector<double> lower, upper;

  Domain(Random& random, std::int64_t n_moving)
      : mfld_domain{nullptr, 0}, lower(static_cast<std::size_t>(n_moving)), upper(lower) {
    if (random.one_in(2)) return;
    for (std::int64_t at = 0; at < n_moving;) {
      const std::int64_t here = random.between(1, n_moving - at);
      const auto kind = static_cast<std::int32_t>(random.below(4));
      for (std::int64_t c = at; c < at + here; ++c) {
        lower[static_cast<std::size_t>(c)] = random.uniform() - 1;
        upper[static_cast<std::size_t>(c)] = random.uniform() + 0.01;
      }
      const bool ends = kind == MFLD_TORUS || kind == MFLD_BOX;
      blocks.push_back({kind, here, ends ? &lower[static_cast<std::size_t>(at)] : nullptr,
                        ends ? &upper[static_cast<std::size_t>(at)] : nullptr});
      at += here;
    }
    mfld_domain::blocks = blocks.data();
    n_blocks = static_cast<std::int64_t>(blocks.size());
  }
  Domain(const Domain&) = delete;
};

// Rows of coefficients for each replicate, one for all steps or one for each.
struct Coefficients {
  std::vector<std::vector<double>> rows;
  std::vector<mfld_coefficients> each;

  Coefficients(Random& random, int kind, std::int64_t n_replicates, std::int64_t n_steps) {
    const std::int64_t width = kind == MFLD_BAOAB ? 4 : 3, count = random.one_in(2) ? 1 : n_steps;
    const double scale = random.one_in(16) ? 1e20 : 0.1;
    for (std::int64_t r = 0; r < n_replicates; ++r) {
      std::vector<double> row(static_cast<std::size_t>(width * count));
      for (double& number : row) number = scale * random.uniform();
      rows.push_back(std::move(row));
    }
    for (const auto& row : rows) each.push_back({row.data(), count == 1 ? 0 : width});
  }
};

std::vector<mfld_noise> places(Random& random, std::int64_t n_replicates) {
  const mfld_noise first = place(random);
  std::vector<mfld_noise> out;
  for (std::int64_t r = 0; r < n_replicates; ++r) out.push_back({random.word(), first.step, first.population});
  return out;
}

// Words of two bfloat16 numbers, as `mfld_samples` says; truncated, which is as good here.
template <class T>
Array<T> in_pairs(Random& random, const Array<T>& inputs, std::int64_t n, std::int64_t n_features) {
  const std::int64_t width = (n_features + 1) / 2;
  Array<T> words(random, n * width);
  for (std::int64_t i = 0; i < n * width; ++i) {
    const std::int64_t row = i / width, feature = 2 * (i % width);
    std::uint16_t halves[2] = {};
    for (std::int64_t half = 0; half < std::min<std::int64_t>(2, n_features - feature); ++half)
      std::memcpy(&halves[half], reinterpret_cast<const char*>(inputs.data() + row * n_features + feature + half) + 2,
                  2);
    std::memcpy(&words[i], halves, sizeof halves);
  }
  return words;
}

template <class T>
void advance(Random random, Call& call) {
  const Network network(random);
  const mfld_loss loss = any_loss(random);
  const std::int64_t n_particles = random.size(700), n_steps = random.size(6),
                     n_replicates = random.one_in(2) ? 1 : random.size(9);
  mfld_estimator estimator = {};
  estimator.kind = static_cast<std::int32_t>(random.below(5));
  mfld_dynamics dynamics = {};
  dynamics.kind = static_cast<std::int32_t>(random.below(3));
  std::int64_t n = random.size(300);
  estimator.batch_size = estimator.kind == MFLD_FULL_BATCH ? 0 : random.size(n);
  if (estimator.kind == MFLD_STREAM) n = estimator.batch_size * (n_steps + (dynamics.kind == MFLD_BAOAB ? 1 : 0));
  const std::int64_t size = n_replicates * n_particles * network.p;
  Array<T> particles = numbers<T>(random, size);
  const Array<T> inputs = numbers<T>(random, n * network.n_features),
                 targets = targets_of<T>(random, loss, n, network.n_outputs), weights = weights_of<T>(random, n);
  const bool weighted = estimator.kind != MFLD_STREAM && random.one_in(3);

  const bool anchored = estimator.kind == MFLD_SVRG || estimator.kind == MFLD_SARAH;
  Array<T> anchor = numbers<T>(random, anchored ? size : 0), anchor_gradient = numbers<T>(random, anchored ? size : 0),
           predictions = numbers<T>(random, estimator.kind == MFLD_SVRG ? n_replicates * n * network.n_outputs : 0);
  if (anchored) {
    estimator.refresh_every = random.size(4);
    estimator.anchor = anchor.data();
    estimator.anchor_gradient = anchor_gradient.data();
    estimator.valid = random.one_in(2);
    if (estimator.kind == MFLD_SVRG) estimator.anchor_predictions = predictions.data();
  }
  const bool inert = dynamics.kind == MFLD_BAOAB, preconditioned = dynamics.kind == MFLD_PRECONDITIONED;
  Array<T> velocities = numbers<T>(random, inert ? size : 0), force = numbers<T>(random, inert ? size : 0),
           second_moment = numbers<T>(random, preconditioned ? size : 0);
  if (inert) {
    dynamics.velocities = velocities.data();
    dynamics.force = force.data();
    dynamics.force_valid = random.one_in(2);
  }
  const std::vector<mfld_noise> noises = places(random, n_replicates);
  if (preconditioned) {
    for (std::int64_t i = 0; i < size; ++i) second_moment[i] = std::abs(second_moment[i]);
    dynamics.second_moment = second_moment.data();
    dynamics.decay = random.uniform();
    dynamics.epsilon = 1e-5;
    dynamics.frozen_from = noises[0].step + static_cast<std::uint64_t>(random.below(8));
  }
  const Coefficients coefficients(random, dynamics.kind, n_replicates, n_steps);
  const Domain domain(random, dynamics.kind == MFLD_AFFINE ? network.n_moving : 0);
  Array<double> losses(random, n_replicates), norms(random, n_replicates);
  mfld_report report = {-1, -1, -1, -1, losses.data(), norms.data()};
  const bool bfloat16 = std::is_same_v<T, float> && mfld_kernel_table()->has_bfloat16() != 0 && random.one_in(3);
  const Array<T> words = bfloat16 ? in_pairs(random, inputs, n, network.n_features) : Array<T>(random, 0);
  const mfld_samples samples = {
      bfloat16 ? words.data() : inputs.data(), targets.data(), weighted ? weights.data() : nullptr, n, 0, bfloat16};
  const mfld_execution execution = call.execution();
  call.ended(kernels<T>().advance(&network, &loss, &samples, particles.data(), n_replicates, n_particles, n_steps,
                                  &estimator, &dynamics, coefficients.each.data(), &domain, noises.data(), &report,
                                  &execution));
  for (const auto* array : {&particles, &anchor, &anchor_gradient, &predictions, &velocities, &force, &second_moment})
    call.wrote(*array);
  if (report.status == MFLD_DONE) {
    call.wrote(losses);
    call.wrote(norms);
  }
  const std::int64_t ended[] = {report.status,       report.steps,    report.bad_replicate,
                                report.bad_particle, estimator.valid, dynamics.force_valid};
  call.wrote(ended, sizeof ended);
}

template <class T>
void stages(Random random, Call& call) {
  const Network network(random);
  const mfld_loss loss = any_loss(random);
  const std::int64_t m = random.size(600), n = random.size(300), batch = random.size(40);
  const Array<T> particles = numbers<T>(random, m * network.p), coefficients = numbers<T>(random, m),
                 inputs = numbers<T>(random, n * network.n_features),
                 targets = targets_of<T>(random, loss, n, network.n_outputs),
                 cotangent = numbers<T>(random, n * network.n_outputs);
  const void* some = random.one_in(2) ? coefficients.data() : nullptr;
  const mfld_network_kernels& k = kernels<T>().network;
  const mfld_execution e = call.execution();
  const bool first = random.one_in(3), second = !first || random.one_in(2);
  switch (random.below(7)) {
    case 0: {
      Array<T> h(random, n * m * network.n_outputs);
      call.ended(k.neurons(&network, particles.data(), m, inputs.data(), n, h.data(), &e));
      return call.wrote(h);
    }
    case 1: {
      Array<T> out(random, n * network.n_outputs);
      call.ended(k.predict(&network, particles.data(), some, m, inputs.data(), n, out.data(), &e));
      return call.wrote(out);
    }
    case 2: {
      Array<T> values(random, m), gradient(random, m * network.p);
      call.ended(k.pull_back(&network, particles.data(), m, inputs.data(), n, cotangent.data(),
                             first ? values.data() : nullptr, second ? gradient.data() : nullptr, &e));
      call.wrote(values);
      return call.wrote(gradient);
    }
    case 3: {
      Array<T> gradient(random, m * network.p);
      const Array<std::int64_t> rows = rows_below(random, m * batch, n);
      call.ended(k.pull_back_rows(&network, particles.data(), m, inputs.data(), cotangent.data(), rows.data(), batch,
                                  gradient.data(), &e));
      return call.wrote(gradient);
    }
    case 4: {
      Array<T> gradient(random, n * network.n_features), of_particles(random, m * network.p);
      call.ended(k.pull_back_inputs(&network, particles.data(), some, m, inputs.data(), n, cotangent.data(),
                                    gradient.data(), first ? of_particles.data() : nullptr, &e));
      call.wrote(gradient);
      return call.wrote(of_particles);
    }
    case 5: {
      const Array<T> weights = weights_of<T>(random, n), direction = numbers<T>(random, m * network.p);
      const mfld_samples samples = {
          inputs.data(), targets.data(), random.one_in(2) ? weights.data() : nullptr, n, 0, 0};
      Array<T> kept(random, k.risk_kept(&network, m, n)), gradient(random, m * network.p),
          product(random, m * network.p);
      double value = 0;
      const int made =
          k.risk_at(&network, &loss, particles.data(), m, &samples, kept.data(), &value, gradient.data(), &e);
      call.ended(made);
      call.wrote(gradient);
      if (made != MFLD_DONE) return;
      call.ended(k.risk_along(&network, &loss, particles.data(), m, &samples, kept.data(), direction.data(),
                              product.data(), &e));
      return call.wrote(product);
    }
    default: {
      std::vector<std::int64_t> ends;
      for (std::int64_t end = random.below(n + 1); end < n; end += random.between(0, n)) ends.push_back(end);
      ends.push_back(n);
      const mfld_samples samples = {inputs.data(), targets.data(), nullptr, n, 0, 0};
      Array<double> norms(random, n), gradient(random, m * network.p);
      call.ended(k.pull_back_clipped(&network, &loss, particles.data(), m, &samples, ends.data(),
                                     static_cast<std::int64_t>(ends.size()), random.uniform() + 1e-3, norms.data(),
                                     gradient.data(), &e));
      call.wrote(norms);
      return call.wrote(gradient);
    }
  }
}

template <class T>
void elementwise(Random random, Call& call) {
  const mfld_elementwise_kernels& k = kernels<T>().elementwise;
  const mfld_execution e = call.execution();
  const mfld_loss loss = any_loss(random);
  const std::int64_t n = random.size(400), n_outputs = random.one_in(2) ? 1 : random.size(9), count = n * n_outputs;
  const Array<T> targets = targets_of<T>(random, loss, n, n_outputs), z = numbers<T>(random, count);
  Array<T> value(random, n), all(random, count), slope(random, count), curvature(random, count);
  switch (random.below(4)) {
    case 0:
      call.ended(k.activation(static_cast<std::int32_t>(random.below(table().n_activations)), z.data(), count,
                              all.data(), slope.data(), curvature.data(), &e));
      break;
    case 1:
      call.ended(k.loss(&loss, z.data(), targets.data(), n, n_outputs, value.data(), slope.data(), &e));
      break;
    case 2:
      call.ended(k.conjugate(&loss, z.data(), targets.data(), n, n_outputs, value.data(), &e));
      break;
    default: {
      const Array<double> wide = targets_of<double>(random, loss, n, n_outputs), u = numbers<double>(random, count);
      Array<double> dual = numbers<double>(random, count, Numbers::ordinary), step(random, n);
      for (std::int64_t i = 0; i < n; ++i) step[i] = 10 * random.uniform() + 1e-3;
      call.ended(table().dual_step(&loss, dual.data(), u.data(), wide.data(), step.data(), n, n_outputs, &e));
      return call.wrote(dual);
    }
  }
  for (const auto* array : {&value, &all, &slope}) call.wrote(*array);
}

template <class T>
void moves(Random random, Call& call) {
  const std::int64_t p = random.size(70);
  const mfld_shape shape = {random.size(5), random.size(900), p, random.between(0, p), random.between(0, 1 << 20)};
  const std::int64_t many = shape.n_members * shape.n_particles, size = many * p;
  Array<T> particles = numbers<T>(random, size), other = numbers<T>(random, size), values = numbers<T>(random, many);
  const Array<T> gradient = numbers<T>(random, size), proposals = numbers<T>(random, size),
                 proposal_values = numbers<T>(random, many);
  const mfld_noise noise = place(random);
  const mfld_execution e = call.execution();
  const std::int64_t kind = random.below(3);
  const Coefficients coefficients(random, kind == 1 ? MFLD_BAOAB : MFLD_AFFINE, 1, 1);
  const Domain domain(random, shape.n_moving);
  std::int64_t number = -1;
  std::vector<double> probabilities(static_cast<std::size_t>(many));
  const mfld_move_kernels& k = kernels<T>().moves;
  const double* row = coefficients.each[0].rows;
  if (kind == 0)
    call.ended(k.affine(particles.data(), gradient.data(), &shape, row, &domain, &noise, &number, &e));
  else if (kind == 1)
    call.ended(k.baoab(particles.data(), other.data(), gradient.data(), &shape,
                       random.one_in(2) ? MFLD_BAOAB_OPEN : MFLD_BAOAB_CLOSE, row, &noise, &number, &e));
  else
    call.ended(k.accept(particles.data(), values.data(), other.data(), proposals.data(), proposal_values.data(),
                        gradient.data(), &shape, row, &noise, &number, probabilities.data(), &e));
  for (const auto* array : {&particles, &other, &values}) call.wrote(*array);
  call.wrote(&number, sizeof number);
  call.wrote(probabilities.data(), many * static_cast<std::int64_t>(sizeof(double)));
}

struct PairKernel : mfld_pair_kernel {
  std::vector<double> scales, series;
  PairKernel(Random& random, std::int64_t p, int derivatives) : mfld_pair_kernel{} {
    do id = static_cast<std::int32_t>(random.below(table().n_pair_kernels));
    while (table().pair_kernels[id].derivatives < derivatives);
    const std::string_view name = table().pair_kernels[id].name;
    parameter = name == "inverse_multiquadric" ? -random.uniform() - 0.01 : 0.1 + 0.9 * random.uniform();
    for (std::int64_t c = 0; c < p; ++c) scales.push_back(random.one_in(20) ? 1e30 : 0.01 + 3 * random.uniform());
    if (name == "cosine_series") series.resize(static_cast<std::size_t>(random.size(12)));
    for (double& number : series) number = random.uniform();
    inverse_scales = scales.data();
    coefficients = series.empty() ? nullptr : series.data();
    n_coefficients = static_cast<std::int64_t>(series.size());
  }
  PairKernel(const PairKernel&) = delete;
};

template <class T>
void pairs(Random random, Call& call) {
  const std::int64_t p = random.size(40), n = random.size(300), m = random.size(300);
  const Array<T> x = numbers<T>(random, n * p), y = numbers<T>(random, m * p), weights = weights_of<T>(random, m),
                 x_vectors = numbers<T>(random, n * p), y_vectors = numbers<T>(random, m * p);
  const mfld_points points = {y.data(), random.one_in(2) ? weights.data() : nullptr, m};
  const mfld_pair_sums& k = kernels<T>().pairs;
  const mfld_execution e = call.execution();
  const bool with_gradient = random.one_in(2);
  Array<T> values(random, n), gradient(random, n * p), field(random, n * p);
  T* const also = with_gradient ? gradient.data() : nullptr;
  switch (random.below(4)) {
    case 0: {
      const PairKernel kernel(random, p, 1);
      call.ended(k.sums(&kernel, x.data(), n, &points, p, values.data(), also, &e));
      break;
    }
    case 1: {
      const PairKernel kernel(random, p, 1);
      call.ended(k.pull_back(&kernel, x.data(), n, &points, y_vectors.data(), p, random.uniform(), field.data(), &e));
      break;
    }
    case 2: {
      const PairKernel kernel(random, p, with_gradient ? 3 : 2);
      call.ended(k.stein(&kernel, x.data(), x_vectors.data(), n, &points, y_vectors.data(), p, values.data(), also,
                         with_gradient ? field.data() : nullptr, &e));
      break;
    }
    default: {
      const PairKernel kernel(random, p, 1);
      call.ended(k.gaussian_means(kernel.inverse_scales, x.data(), n, &points, p, field.data(), &e));
    }
  }
  for (const auto* array : {&values, &gradient, &field}) call.wrote(*array);
}

template <class T>
void advance_pairs(Random random, Call& call) {
  const std::int64_t p = random.size(20), n = random.size(200), n_replicates = random.size(4), n_steps = random.size(4);
  const mfld_shape shape = {1, random.size(200), p, random.between(0, p), 0};
  const PairKernel own(random, p, 1), cross(random, p, 1);
  Array<T> particles = numbers<T>(random, n_replicates * shape.n_particles * p);
  const Array<T> target = numbers<T>(random, n * p), weights = weights_of<T>(random, n);
  const mfld_discrepancy discrepancy = {&own,
                                        &cross,
                                        random.uniform(),
                                        random.uniform(),
                                        {target.data(), random.one_in(2) ? weights.data() : nullptr, n}};
  const Coefficients coefficients(random, MFLD_AFFINE, n_replicates, n_steps);
  const Domain domain(random, shape.n_moving);
  const std::vector<mfld_noise> noises = places(random, n_replicates);
  mfld_report report = {MFLD_DONE, 0, -1, -1, nullptr, nullptr};
  const mfld_execution e = call.execution();
  call.ended(kernels<T>().advance_pairs(&discrepancy, particles.data(), n_replicates, &shape, n_steps,
                                        coefficients.each.data(), &domain, noises.data(), &report, &e));
  call.wrote(particles);
  const std::int64_t ended[] = {report.status, report.steps, report.bad_replicate, report.bad_particle};
  call.wrote(ended, sizeof ended);
}

template <class T>
void dual_sweep(Random random, Call& call) {
  const Network network(random);
  mfld_loss loss;
  do loss = any_loss(random);
  while (!table().losses[loss.id].convex);
  const std::int64_t m = random.one_in(8) ? random.size(9000) : random.size(500), n = random.size(100),
                     n_rows = random.size(2 * n);
  const Array<T> particles = numbers<T>(random, m * network.p), inputs = numbers<T>(random, n * network.n_features),
                 targets = targets_of<T>(random, loss, n, network.n_outputs), weights = weights_of<T>(random, n);
  const Array<std::int64_t> rows = rows_below(random, n_rows, n);
  std::vector<std::int64_t> groups;
  for (std::int64_t left = m; left > 0; left -= groups.back())
    groups.push_back(random.one_in(3) ? left : random.between(1, left));
  const mfld_samples samples = {inputs.data(), targets.data(), random.one_in(2) ? weights.data() : nullptr, n, 0, 0};
  Array<double> log_weights = numbers<double>(random, m, Numbers::ordinary),
                dual = numbers<double>(random, n * network.n_outputs,
                                       random.one_in(4) ? Numbers::zeros : Numbers::ordinary);
  mfld_dual_sweep sweep = {rows.data(),
                           n_rows,
                           groups.data(),
                           static_cast<std::int64_t>(groups.size()),
                           random.one_in(2) ? 1e-3 : 1,
                           4.0 * static_cast<double>(network.n_outputs),
                           3.0,
                           random.one_in(2) ? 0 : 0.5 * random.uniform(),
                           log_weights.data(),
                           dual.data(),
                           0};
  const mfld_execution e = call.execution();
  call.ended(kernels<T>().dual_sweep(&network, &loss, &samples, particles.data(), m, &sweep, &e));
  call.wrote(log_weights);
  call.wrote(dual);
  call.wrote(&sweep.rows_done, sizeof sweep.rows_done);
}

template <class T>
void dense(Random random, Call& call) {
  const std::int64_t rows = random.size(200), columns = random.size(200), n_right = random.size(60);
  const Array<T> factor = numbers<T>(random, rows * columns), of_rows = numbers<T>(random, rows),
                 of_columns = numbers<T>(random, columns);
  const mfld_dense_kernels& k = kernels<T>().dense;
  const mfld_execution e = call.execution();
  if (random.one_in(2)) {
    Array<T> right = numbers<T>(random, rows * n_right);
    std::int32_t positive = -1;
    call.ended(k.ridge_solve(factor.data(), rows, columns, random.one_in(2) ? of_rows.data() : nullptr,
                             random.one_in(2) ? of_columns.data() : nullptr, random.one_in(8) ? 0 : random.uniform(),
                             right.data(), n_right, &positive, &e));
    if (positive) call.wrote(right);
    return call.wrote(&positive, sizeof positive);
  }
  const bool transposed = random.one_in(2);
  const Array<T> right = numbers<T>(random, (transposed ? rows : columns) * n_right);
  Array<T> product(random, (transposed ? columns : rows) * n_right);
  call.ended(k.product(factor.data(), rows, columns, transposed, right.data(), n_right, product.data(), &e));
  call.wrote(product);
}

template <class T>
void thinning(Random random, Call& call) {
  const std::int64_t p = random.size(8), n = random.size(400);
  const PairKernel kernel(random, p, 1);
  const Array<T> points = numbers<T>(random, n * p);
  const mfld_noise noise = place(random);
  const mfld_thinning_kernels& k = kernels<T>().thinning;
  const mfld_execution e = call.execution();
  const auto levels_of = [&random](std::int64_t count, int bits) {
    std::int32_t levels = 0;
    while ((count >> (bits * (levels + 1))) >= 1 && !random.one_in(3)) ++levels;
    return levels;
  };
  switch (random.below(3)) {
    case 0: {
      Array<std::int64_t> rows = rows_below(random, random.size(500), n);
      const std::int32_t levels = levels_of(rows.size(), 1);
      Array<std::int64_t> ends(random, std::int64_t{1} << levels);
      call.ended(k.split(&kernel, points.data(), p, rows.data(), rows.size(), levels,
                         static_cast<std::int32_t>(random.below(5)), &noise, ends.data(), &e));
      call.wrote(rows);
      return call.wrote(ends);
    }
    case 1: {
      const std::int32_t levels = levels_of(256, 2);
      const std::int64_t size = random.between(1, std::max<std::int64_t>(1, 512 >> (2 * levels)));
      Array<std::int64_t> rows = rows_below(random, size << (2 * levels), n);
      call.ended(k.compress(&kernel, points.data(), p, rows.data(), size, levels, &noise, &e));
      return call.wrote(rows);
    }
    default: {
      Array<std::int64_t> rows = rows_below(random, random.size(300), n);
      std::vector<std::int64_t> ends;
      std::int64_t largest = 0;
      for (std::int64_t end = 0; end < rows.size() && ends.size() < 6;) {
        const std::int64_t here = random.between(1, rows.size() - end);
        ends.push_back(end += here);
        largest = std::max(largest, here);
      }
      Array<std::int64_t> chosen(random, largest);
      std::int64_t n_chosen = 0;
      call.ended(k.refine(&kernel, points.data(), p, rows.data(), rows.size(), ends.data(),
                          static_cast<std::int64_t>(ends.size()), static_cast<std::int32_t>(random.below(4)),
                          chosen.data(), &n_chosen, &e));
      if (call.status == MFLD_DONE) call.wrote(chosen.data(), n_chosen * static_cast<std::int64_t>(sizeof n_chosen));
      return;
    }
  }
}

template <class T>
void noise(Random random, Call& call) {
  const mfld_noise at = place(random);
  const mfld_execution e = call.execution();
  const std::int64_t members = random.size(5), particles = random.size(500), coordinates = random.size(100);
  const auto stream = static_cast<std::uint32_t>(random.below(9));
  switch (random.below(5)) {
    case 0:
    case 1: {
      Array<T> out(random, members * particles * coordinates);
      const auto draw = random.one_in(2) ? kernels<T>().noise.normals : kernels<T>().noise.uniforms;
      call.ended(draw(&at, stream, members, random.size(1000) - 1, particles, coordinates, out.data(), &e));
      return call.wrote(out);
    }
    case 2: {
      const std::int64_t n = random.size(100000);
      Array<std::int64_t> rows(random, random.size(std::min<std::int64_t>(n, 5000)));
      call.ended(table().words.batch(&at, n, rows.size(), rows.data(), &e));
      return call.wrote(rows);
    }
    case 3: {
      const std::int64_t n = random.size(3000), batch = random.size(std::min<std::int64_t>(n, 60));
      Array<std::int64_t> rows(random, particles * batch);
      call.ended(table().words.particle_batches(&at, n, batch, particles, rows.data(), &e));
      return call.wrote(rows);
    }
    default: {
      std::uint32_t key[8], nonce[3];
      for (auto& word : key) word = static_cast<std::uint32_t>(random.word());
      for (auto& word : nonce) word = static_cast<std::uint32_t>(random.word());
      Array<std::uint32_t> out(random, random.size(3000));
      table().words.chacha(key, static_cast<std::uint32_t>(random.below(1000)), nonce, out.size(), out.data());
      return call.wrote(out);
    }
  }
}

struct Kind {
  const char* name;
  void (*narrow)(Random, Call&);
  void (*wide)(Random, Call&);
};
#define KIND(name) {#name, &name<float>, &name<double>}
constexpr Kind kinds[] = {KIND(advance), KIND(stages),   KIND(elementwise), KIND(moves),
                          KIND(pairs),   KIND(advance),  KIND(dual_sweep),  KIND(advance_pairs),
                          KIND(dense),   KIND(thinning), KIND(noise),       KIND(advance)};
#undef KIND

// A case is a function of its seed.
bool holds(std::uint64_t seed) {
  Random random(seed);
  const Kind& kind = kinds[random.below(std::size(kinds))];
  const bool wide = random.one_in(2);
  const auto make = wide ? kind.wide : kind.narrow;
  const Random problem(random.word());
  const auto complain = [&](const char* what) {
    std::printf("seed %llu: %s, float%d: %s\n", static_cast<unsigned long long>(seed), kind.name, wide ? 64 : 32, what);
    return false;
  };
  Call alone = {1}, together = {static_cast<int>(random.between(2, 5))};
  make(problem, alone);
  if (alone.status != MFLD_DONE && alone.status != MFLD_DIVERGED)
    return complain("ended with another status than done");
  make(problem, together);
  if (together.status != alone.status) return complain("another status with more threads");
  if (together.bytes != alone.bytes) return complain("other bytes with more threads");
  if (random.one_in(4)) {  // at once, from two threads of the caller
    Call beside = {2}, other = {2};
    std::thread thread([&] { make(problem, beside); });
    make(problem, other);
    thread.join();
    if (beside.bytes != alone.bytes || other.bytes != alone.bytes) return complain("other bytes at once");
  }
  if (random.one_in(2)) {
    Call stopped = {static_cast<int>(random.between(1, 4)), random.below(20)};
    make(problem, stopped);
    if (stopped.status != alone.status && stopped.status != MFLD_STOPPED) return complain("a stop with another status");
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = std::numeric_limits<double>::infinity();
  std::uint64_t cases = 1000, seed = 0;
  bool counted = false, named = false;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view option = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (value && option == "--seconds") {
      seconds = std::atof(value);
      if (!counted) cases = std::numeric_limits<std::uint64_t>::max();
    } else if (value && option == "--cases") {
      cases = std::strtoull(value, nullptr, 10);
      counted = true;
    } else if (value && option == "--seed") {
      seed = std::strtoull(value, nullptr, 10);
    } else if (value && option == "--name") {
      named = value[0] == '1';
    } else {
      std::fprintf(stderr, "usage: %s [--seconds S] [--cases N] [--seed K] [--name 1]\n", argv[0]);
      return 2;
    }
  }
  const auto start = std::chrono::steady_clock::now();
  const auto passed = [start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::uint64_t done = 0, wrong = 0;
  for (; done < cases && passed() < seconds; ++done) {
    if (named) std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(seed + done));
    wrong += !holds(seed + done);
  }
  std::printf("%llu cases from seed %llu in %.0f s, %llu wrong\n", static_cast<unsigned long long>(done),
              static_cast<unsigned long long>(seed), passed(), static_cast<unsigned long long>(wrong));
  return wrong != 0;
}
