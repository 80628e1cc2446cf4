// Where the time of a step goes: its parts in percent of the ticks of all threads, as a table in Markdown.
//
//   forward   the product of panels and samples, and behind it `act`: activations, which are fused into it, taken as
//   what
//             the identity in their place saves of forward and gains
//   back      the product of gains and samples
//   gains     cotangents times slopes, and the sums for the readout
//   sums      over particles: of panels to leaves, of leaves to predictions
//   loss      derivatives at the predictions
//   moves     the step of each particle, and behind it `noise`: what steps without noise save
//   rows      drawing and gathering of the rows of mini-batches
//   packing   the caller's arrays to panels and back, once a call
//   barriers  waiting for the other threads
//
//   bench_parts_<level> [threads ...]
//
// `of peak` is the rate of the two products, without `act`, as a share of the multiply-adds that a core sustains in
// registers for a second.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "entries.hpp"
#include "measure.hpp"
#include "mfld/activations.hpp"
#include "mfld/kernels.h"
#include "mfld/parts.hpp"
#include "network.hpp"

namespace mfld::bench {
namespace {

struct Case {
  std::int64_t particles, samples, features, outputs, batch;
};
constexpr Case cases[] = {{1000, 1000, 10, 1, 0},   {1000, 1000, 64, 1, 0},  {4096, 1797, 64, 1, 0},
                          {10000, 2000, 100, 1, 0}, {512, 10000, 784, 1, 0}, {1000, 1797, 64, 10, 0},
                          {1000, 1000, 10, 1, 32},  {4096, 1797, 64, 1, 32}, {10000, 2000, 100, 1, 128}};
constexpr double seconds = 0.4;  // of a measurement

template <class A, class... Others>
constexpr int id_of(ActivationList<Others...>*) {
  int id = 0;
  ((std::is_same_v<A, Others> ? false : (++id, true)) && ...);
  return id;
}

std::vector<float> numbers(std::uint64_t key, std::int64_t rows, std::int64_t columns) {
  std::vector<float> out(static_cast<std::size_t>(rows * columns));
  const mfld_noise noise = {key, 0, 0};
  const mfld_execution execution = {1, nullptr, nullptr, nullptr};
  normals<float>(&noise, MFLD_STREAM_INIT, 1, 0, rows, columns, out.data(), &execution);
  return out;
}

// Ticks of a step in each part, of all threads together.
struct Split {
  double ticks[n_parts] = {};
  double of(Part part) const { return ticks[static_cast<int>(part)]; }
  double total() const {
    double sum = 0;
    for (const double t : ticks) sum += t;
    return sum;
  }
};

class Run {
 public:
  explicit Run(const Case& sizes)
      : sizes_(sizes),
        particles_(numbers(1, sizes.particles, sizes.features + 1 + sizes.outputs)),
        inputs_(numbers(2, sizes.samples, sizes.features)),
        targets_(numbers(3, sizes.samples, sizes.outputs)) {}

  Split split(int threads, int activation, double noise_scale) {
    std::int64_t steps = 1;
    double taken = advance(threads, activation, noise_scale, steps);
    while (taken < seconds / 4) taken = advance(threads, activation, noise_scale, steps *= 2);
    steps = std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(steps) * seconds / taken));
    Split best;
    for (int repetition = 0; repetition < 3; ++repetition) {  // the one that others disturbed least
      for (Ticks& ticks : Ticks::all()) ticks.counts = {};
      advance(threads, activation, noise_scale, steps);
      Split one;
      for (const Ticks& ticks : Ticks::all())
        for (int part = 0; part < n_parts; ++part)
          one.ticks[part] += static_cast<double>(ticks.counts[part]) / static_cast<double>(steps);
      if (repetition == 0 || one.total() < best.total()) best = one;
    }
    return best;
  }

 private:
  // Wall time.
  double advance(int threads, int activation, double noise_scale, std::int64_t steps) {
    const mfld_network network = {sizes_.features, sizes_.outputs, 1, activation, 1, 1.0, 2.0};
    const mfld_loss half_squared = {1, 0};
    const mfld_samples samples = {inputs_.data(), targets_.data(), nullptr, sizes_.samples, 0, 0};
    mfld_estimator estimator = {};
    estimator.kind = sizes_.batch > 0 ? MFLD_MINIBATCH : MFLD_FULL_BATCH;
    estimator.batch_size = sizes_.batch;
    mfld_dynamics dynamics = {};
    dynamics.kind = MFLD_AFFINE;
    const double row[] = {1e-6, 1e-6, noise_scale};  // particles stay where they are, nearly
    const mfld_coefficients coefficients = {row, 0};
    const mfld_noise noise = {42, 0, 0};
    const mfld_domain flat = {nullptr, 0};
    const mfld_execution execution = {threads, nullptr, nullptr, nullptr};
    double loss = 0, norm = 0;
    mfld_report report = {-1, -1, -1, -1, &loss, &norm};
    std::vector<float> moved = particles_;
    timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    {
      const InPart part(Part::rest);
      mfld::advance<float>(&network, &half_squared, &samples, moved.data(), 1, sizes_.particles, steps, &estimator,
                           &dynamics, &coefficients, &flat, &noise, &report, &execution);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return static_cast<double>(end.tv_sec - begin.tv_sec) + 1e-9 * static_cast<double>(end.tv_nsec - begin.tv_nsec);
  }

  Case sizes_;
  std::vector<float> particles_, inputs_, targets_;
};

double ticks_per_second() {
  const double begin = seconds_run();
  const std::uint64_t first = Ticks::now();
  while (seconds_run() - begin < 0.1) {
  }
  return static_cast<double>(Ticks::now() - first) / (seconds_run() - begin);
}

// peak: multiply-adds of one core in a tick
void print(const Case& sizes, int threads, double peak) {
  constexpr auto* activations = static_cast<Activations*>(nullptr);
  const int tanh = id_of<Tanh>(activations), identity = id_of<Identity>(activations);
  Run run(sizes);
  const double scale = 1e-6;
  const Split whole = run.split(threads, tanh, scale), linear = run.split(threads, identity, scale),
              quiet = run.split(threads, tanh, 0);
  const double percent = 100 / whole.total();
  const auto of = [&](Part part) { return percent * whole.of(part); };
  const auto saved = [&](const Split& other, Part part) { return percent * (whole.of(part) - other.of(part)); };
  std::printf("| %lldx%lldx%lld", static_cast<long long>(sizes.particles), static_cast<long long>(sizes.samples),
              static_cast<long long>(sizes.features));
  if (sizes.outputs > 1) std::printf("-k%lld", static_cast<long long>(sizes.outputs));
  if (sizes.batch > 0) std::printf("-mini%lld", static_cast<long long>(sizes.batch));
  const double act = saved(linear, Part::forward) + saved(linear, Part::gains), noise = saved(quiet, Part::moves);
  const auto rows = static_cast<double>(sizes.batch > 0 ? sizes.batch : sizes.samples);
  const double product = 2 * static_cast<double>(sizes.particles * sizes.features) * rows / peak;
  const double of_peak_forward = product / ((of(Part::forward) - saved(linear, Part::forward)) / percent),
               of_peak_back = product / whole.of(Part::back);
  std::printf(
      " | %d | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f |\n",
      threads, of(Part::forward), act, of(Part::back), of(Part::gains), of(Part::sums), of(Part::loss), of(Part::moves),
      noise, of(Part::rows), of(Part::packing), of(Part::barriers), of(Part::rest), 100 * of_peak_forward,
      100 * of_peak_back);
  std::fflush(stdout);
}

}  // namespace
}  // namespace mfld::bench

int main(int argc, char** argv) {
  using namespace mfld::bench;
  std::vector<int> threads;
  for (int i = 1; i < argc; ++i) threads.push_back(std::atoi(argv[i]));
  if (threads.empty()) threads = {1, 2};
  double peak = 0;
  for (const int t : threads) {
    if (t < 1 || t > mfld::Ticks::most_threads)
      return std::fprintf(stderr, "parts: threads must be integers from 1 to %d\n", mfld::Ticks::most_threads), 1;
    const double best = peak_flops<float>(t), sustained = peak_flops<float>(t, /*seconds=*/1.0, /*repetitions=*/1);
    std::printf("%d threads: %.0f GF/s of float32 multiply-adds at best, %.0f for a second\n", t, best / 1e9,
                sustained / 1e9);
    peak = sustained / t / ticks_per_second();
  }
  std::printf(
      "\n| step | threads | forward | of it act | back | gains | sums | loss | moves | of it noise | rows | packing | "
      "barriers | rest | of peak: forward | back |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | "
      "---: | ---: | ---: | ---: | "
      "---: | ---: | ---: |\n");
  for (const Case& sizes : cases)
    for (const int t : threads) print(sizes, t, peak);
}
