// Microbenchmarks of what a step is made of, one core, data in cache as a step has them: 32-particle panels (float32,
// AVX-512) and blocks of 96 samples. One executable per instruction-set level, both precisions.
//
// Counters: the rate (flops, activations, normals or bytes a second), and for multiply-adds `of_peak`, its share of
// what this core does in registers at this level and precision, measured when the program starts.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <string>

#include "measure.hpp"
#include "mfld/activations.hpp"
#include "mfld/kernels.h"
#include "move.hpp"
#include "network.hpp"
#include "predictions.hpp"
#include "tiles.hpp"

namespace mfld {
namespace {

using benchmark::Counter;
using benchmark::State;

constexpr std::int64_t block_rows = 96;

template <class T>
double peak() {
  static const double flops = bench::peak_flops<T>(1);
  return flops;
}

// Values of about 1 that repeat nowhere near: 0.618... is badly approximable.
template <class T>
Buffer<T> numbers(std::int64_t count) {
  Buffer<T> out(count);
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = static_cast<double>(i) * 0.6180339887498949;
    out[i] = static_cast<T>(2 * (x - static_cast<double>(static_cast<std::int64_t>(x))) - 1);
  }
  return out;
}

template <class T>
void count_flops(State& state, double flops_each) {
  const double flops = flops_each * static_cast<double>(state.iterations());
  state.counters["flops"] = Counter(flops, Counter::kIsRate);
  state.counters["of_peak"] = Counter(flops / peak<T>(), Counter::kIsRate);
}

void count_elements(State& state, const char* what, std::int64_t each) {
  state.counters[what] = Counter(static_cast<double>(each * state.iterations()), Counter::kIsRate);
}

// Pre-activations of a panel for a block of samples, state.range(0) features: the product of `predict`.
template <class T>
void forward_product(State& state) {
  constexpr int lanes = panel_lanes<T>;
  const std::int64_t d = state.range(0);
  const Buffer<T> panel = numbers<T>((d + 1) * lanes), z = numbers<T>(block_rows * d),
                  values = numbers<T>(block_rows * lanes);
  for (auto _ : state) {
    affine(panel.get(), d, panel.get() + d * lanes, z.get(), block_rows, values.get());
    bench::clobber(values.get());
  }
  count_flops<T>(state, 2.0 * static_cast<double>(d) * block_rows * lanes);
}

// Gradient in the weights of a panel from a block of samples: the product of `pull_back`.
template <class T>
void pull_back_product(State& state) {
  constexpr int lanes = panel_lanes<T>;
  const std::int64_t d = state.range(0);
  const Buffer<T> gain = numbers<T>(block_rows * lanes), z = numbers<T>(block_rows * d),
                  gradient = numbers<T>(d * lanes);
  for (auto _ : state) {
    accumulate_features(gain.get(), block_rows, z.get(), d, gradient.get(), /*add=*/false);
    bench::clobber(gradient.get());
  }
  count_flops<T>(state, 2.0 * static_cast<double>(d) * block_rows * lanes);
}

// Sums over the particles of a panel, for a block of samples: the end of `predict`.
template <class T>
void panel_sums(State& state) {
  constexpr int lanes = panel_lanes<T>;
  const Buffer<T> values = numbers<T>(block_rows * lanes), coefficient = numbers<T>(lanes),
                  sums = numbers<T>(block_rows);
  for (auto _ : state) {
    add_panel_sums(values.get(), block_rows, coefficient.get(), sums.get());
    bench::clobber(sums.get());
  }
  count_flops<T>(state, 2.0 * block_rows * lanes);
}

template <class T>
mfld_network network_of(std::int64_t n_features, std::int32_t activation, std::int64_t n_outputs) {
  constexpr std::int32_t linear = 2;
  static_assert(std::tuple_element_t<linear, Readouts>::info.name[0] == 'l');
  return {n_features, n_outputs, /*has_bias=*/1, activation, linear, /*output_scale=*/1, /*readout_bound=*/1};
}

// Activation of one panel's block in place: a sweep of its own, which products with 32 registers spare.
template <class T>
void activation(State& state, std::int32_t id) {
  const ActivationKernel<T>& kernel = activation_kernel<T>(id);
  const std::int64_t count = block_rows * panel_lanes<T>;
  const Buffer<T> start = numbers<T>(count), z(count), slope(count);
  for (auto _ : state) {
    std::copy_n(start.get(), count,
                z.get());  // in place: an activation again and again would leave its interesting range
    kernel.apply(z.get(), slope.get(), count);
    bench::clobber(z.get());
  }
  count_elements(state, "activations", count);
}

// Slopes times cotangents, and the sums that go with them: the sweep of `pull_back` before its product.
template <class T>
void gains(State& state, std::int32_t id) {
  constexpr int lanes = panel_lanes<T>;
  const ActivationKernel<T>& kernel = activation_kernel<T>(id);
  const Buffer<T> values = numbers<T>(block_rows * lanes), slope = numbers<T>(block_rows * lanes),
                  gain(block_rows * lanes);
  const Buffer<T> cotangent = numbers<T>(block_rows), weighted = numbers<T>(lanes), total = numbers<T>(lanes);
  for (auto _ : state) {
    kernel.gains(values.get(), slope.get(), cotangent.get(), block_rows, gain.get(), weighted.get(), total.get());
    std::fill_n(weighted.get(), lanes, T(0));
    std::fill_n(total.get(), lanes, T(0));
    bench::clobber(gain.get());
  }
  count_elements(state, "elements", block_rows * lanes);
}

// predict and pull_back of one panel, sweeps and products together; range(0) features, range(1) outputs, tanh.
template <class T>
void whole_panel(State& state) {
  constexpr int lanes = panel_lanes<T>;
  const std::int64_t d = state.range(0), outputs = state.range(1);
  const NetworkPanel<T> network(network_of<T>(d, /*activation=*/0, outputs));
  const Buffer<T> panel = numbers<T>((d + 1 + outputs) * lanes), z = numbers<T>(block_rows * d);
  const Buffer<T> values(block_rows * lanes), gain(block_rows * lanes), coefficient(outputs * lanes),
      offset(outputs * lanes);
  const Buffer<T> leaf = numbers<T>(outputs * block_rows), cotangent = numbers<T>(outputs * block_rows);
  const Buffer<T> gradient((d + 1 + outputs) * lanes);
  alignas(64) T share[lanes];
  std::fill_n(share, lanes, T(1));
  network.terms(panel.get(), coefficient.get(), offset.get());
  for (auto _ : state) {
    std::fill_n(leaf.get(), outputs * block_rows, T(0));
    network.forward(panel.get(), z.get(), block_rows, values.get(), nullptr);
    add_to_leaf(network, values.get(), block_rows, coefficient.get(), offset.get(), share, leaf.get(), block_rows);
    network.pull_back(coefficient.get(), values.get(), nullptr, cotangent.get(), block_rows, z.get(), block_rows,
                      gain.get(), {gradient.get(), gradient.get() + (d + 1) * lanes}, /*add=*/false);
    bench::clobber(gradient.get());
  }
  count_flops<T>(state, (4.0 * static_cast<double>(d) + (outputs > 1 ? 6.0 * static_cast<double>(outputs) : 0)) *
                            block_rows * lanes);
}

// Normals of a panel, range(0) coordinates.
template <class T>
void normals(State& state) {
  const std::int64_t groups = state.range(0) / 4;
  const NoisePlace place(/*key64=*/1, MFLD_STREAM_MOVE, /*step=*/0, /*population=*/0);
  alignas(64) T out[4 * panel_lanes<T>];
  std::uint32_t panel = 0;
  for (auto _ : state) {
    const PanelNoise<T> noise(place, panel);
    panel += panel_lanes<T>;
    for (std::int64_t group = 0; group < groups; ++group) {
      Vec<T> z[4][2];
      noise.normals(static_cast<std::uint32_t>(group), z);
      for (int j = 0; j < 8; ++j) z[j / 2][j % 2].store(out + j * Vec<T>::size);
      bench::clobber(out);
    }
  }
  count_elements(state, "normals", groups * 4 * panel_lanes<T>);
}

// One Euler-Maruyama step of a panel, its noise included; range(0) coordinates.
template <class T>
void move(State& state) {
  constexpr int lanes = panel_lanes<T>;
  const std::int64_t p = state.range(0);
  const Buffer<T> panel = numbers<T>(p * lanes), gradient = numbers<T>(p * lanes);
  const double step_size = 1e-3, temperature = 1e-4, l2 = 1e-3;
  const EulerMaruyama<T> scheme({&step_size, &temperature, &l2, /*stride=*/0}, /*step=*/0);
  const NoisePlace place(/*key64=*/1, MFLD_STREAM_MOVE, /*step=*/0, /*population=*/0);
  for (auto _ : state)
    benchmark::DoNotOptimize(
        scheme(panel.get(), panel.get(), {gradient.get(), p, nullptr, nullptr}, p, /*first_particle=*/0, lanes, place));
  count_elements(state, "coordinates", p * lanes);
}

// Distinct rows of a mini-batch of range(0) out of 60000.
void batch(State& state) {
  const std::int64_t batch_size = state.range(0);
  FloydSet set(batch_size);
  const Buffer<std::int64_t> rows(batch_size);
  mfld_noise noise = {/*key=*/1, /*step=*/0, /*population=*/0};
  for (auto _ : state) {
    ++noise.step;
    floyd_batch(noise, 60000, batch_size, rows.get(), set, [](std::int64_t) { return false; });
    bench::clobber(rows.get());
  }
  count_elements(state, "rows", batch_size);
}

template <class T, class... A>
void register_activations(const std::string& precision, ActivationList<A...>*) {
  std::int32_t id = 0;
  const auto one = [&](const char* name) {
    const std::int32_t this_id = id++;
    benchmark::RegisterBenchmark(("activation<" + precision + ">/" + name).c_str(),
                                 [this_id](State& state) { activation<T>(state, this_id); });
    benchmark::RegisterBenchmark(("gains<" + precision + ">/" + name).c_str(),
                                 [this_id](State& state) { gains<T>(state, this_id); });
  };
  (one(A::name), ...);
}

template <class T>
void register_all(const std::string& precision) {
  const auto name = [&](const char* what) { return what + ("<" + precision + ">"); };
  const auto over_features = [](auto* b) {
    for (const int d : {10, 32, 64, 65, 100, 784}) b->Arg(d);
  };
  over_features(benchmark::RegisterBenchmark(name("forward_product").c_str(), &forward_product<T>));
  over_features(benchmark::RegisterBenchmark(name("pull_back_product").c_str(), &pull_back_product<T>));
  benchmark::RegisterBenchmark(name("panel_sums").c_str(), &panel_sums<T>);
  benchmark::RegisterBenchmark(name("whole_panel").c_str(), &whole_panel<T>)
      ->Args({10, 1})
      ->Args({64, 1})
      ->Args({100, 1})
      ->Args({64, 10});
  register_activations<T>(precision, static_cast<Activations*>(nullptr));
  benchmark::RegisterBenchmark(name("normals").c_str(), &normals<T>)->Arg(12)->Arg(100);
  benchmark::RegisterBenchmark(name("move").c_str(), &move<T>)->Arg(12)->Arg(66)->Arg(102);
}

}  // namespace
}  // namespace mfld

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  mfld::register_all<float>("float32");
  mfld::register_all<double>("float64");
  benchmark::RegisterBenchmark("batch", &mfld::batch)->Arg(32)->Arg(128);
  benchmark::AddCustomContext("level", MFLD_ISA_NAME);
  benchmark::AddCustomContext("peak float32 GF/s", std::to_string(mfld::peak<float>() * 1e-9));
  benchmark::AddCustomContext("peak float64 GF/s", std::to_string(mfld::peak<double>() * 1e-9));
  benchmark::RunSpecifiedBenchmarks();
}
