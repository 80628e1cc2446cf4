// What this machine can do at most, as JSON: multiply-adds, reading from each level of memory, activations, the
// exponential, normals.
//
// bench/run.py compiles it for the instruction-set level that mfld runs at. Floors are made of these figures, so
// activations and normals are the core's own functions, alone and with their data in the first-level cache.
//
//   ceilings [threads ...]      default: 1
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "measure.hpp"
#include "mfld/activations.hpp"
#include "mfld/noise.hpp"
#include "mfld/panels.hpp"

namespace mfld::bench {
namespace {

constexpr double seconds = 0.005;
constexpr int repetitions = 20;

template <class T>
constexpr const char* precision = sizeof(T) == 4 ? "float32" : "float64";

void print(const char* what, const char* in, int threads, double per_second, const char* unit) {
  static const char* separator = "";
  std::printf("%s\n  {\"what\": \"%s\", \"precision\": \"%s\", \"threads\": %d, \"rate\": %.5g, \"unit\": \"%s\"}",
              separator, what, in, threads, per_second * 1e-9, unit);
  separator = ",";
}

// Reads a buffer of its own again and again.
class Reader {
 public:
  explicit Reader(std::int64_t bytes) : count_(round_up(bytes / 4, 8 * V::size)), data_(count_) {
    std::fill_n(data_.get(), count_, 1.0f);
  }
  double operator()(std::int64_t count) const {
    for (std::int64_t i = 0; i < count; ++i) {
      V sum[8];
      for (V& s : sum) s = V(0);
      for (std::int64_t j = 0; j < count_; j += 8 * V::size)
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) sum[k] += V::load(&data_[j + k * V::size]);
      for (int k = 1; k < 8; ++k) sum[0] += sum[k];
      float out[V::size];
      sum[0].store(out);
      clobber(out);
    }
    return static_cast<double>(count * count_ * 4);
  }

 private:
  using V = Vec<float>;
  std::int64_t count_;
  Buffer<float> data_;
};

template <class A, class T>
class Activate {
 public:
  Activate() : z_(size), value_(size), slope_(size) {
    for (int i = 0; i < size; ++i)
      z_[i] = static_cast<T>(6.0 * (i * 0.6180339887498949 - static_cast<int>(i * 0.6180339887498949)) - 3);
  }
  double operator()(std::int64_t count) const {
    using V = Vec<T>;
    for (std::int64_t n = 0; n < count; ++n) {
      for (int i = 0; i < size; i += V::size) {
        if constexpr (A::slope_from_value) {
          A::value(V::load(&z_[i])).store(&value_[i]);
        } else {
          const ValueSlope<T> both = A::value_and_slope(V::load(&z_[i]));
          both.value.store(&value_[i]);
          both.slope.store(&slope_[i]);
        }
      }
      clobber(value_.get());
    }
    return static_cast<double>(count * size);
  }

 private:
  static constexpr int size = 4096 / sizeof(T);  // three arrays of 4 KiB
  Buffer<T> z_, value_, slope_;
};

// Measured as if it were an activation.
struct Exp {
  static constexpr const char* name = "exp";
  static constexpr bool slope_from_value = true;
  template <class T>
  static Vec<T> value(Vec<T> z) {
    return math::exp(z);
  }
};

template <class T>
double draw_normals(std::int64_t count) {
  constexpr int groups = 16;
  const NoisePlace place(/*key64=*/1, MFLD_STREAM_MOVE, /*step=*/0, /*population=*/0);
  alignas(64) T out[4 * panel_lanes<T>];
  for (std::int64_t i = 0; i < count; ++i) {
    const PanelNoise<T> noise(place, static_cast<std::uint32_t>(i * panel_lanes<T>));
    for (int group = 0; group < groups; ++group) {
      Vec<T> z[4][2];
      noise.normals(static_cast<std::uint32_t>(group), z);
      for (int j = 0; j < 8; ++j) z[j / 2][j % 2].store(out + j * Vec<T>::size);
      clobber(out);
    }
  }
  return static_cast<double>(count) * groups * 4 * panel_lanes<T>;
}

template <class T, class... A>
void print_activations(int threads, ActivationList<A...>*) {
  const auto one = [&]<class Each>(Each*) {
    print(Each::name, precision<T>, threads,
          best_rate(threads, seconds, repetitions, [](int) { return Activate<Each, T>(); }), "1/ns");
  };
  (one(static_cast<A*>(nullptr)), ...);
}

template <class T>
void print_arithmetic(int threads) {
  print("multiply_add", precision<T>, threads, peak_flops<T>(threads, seconds, repetitions), "GF/s");
  print_activations<T>(threads, static_cast<Activations*>(nullptr));
  print_activations<T>(threads, static_cast<ActivationList<Exp>*>(nullptr));
  print("normals", precision<T>, threads,
        best_rate(threads, seconds, repetitions, [](int) { return &draw_normals<T>; }), "1/ns");
}

void print_memory(int threads) {
  const auto size_of = [](int name, std::int64_t fallback) {
    const long bytes = sysconf(name);
    return bytes > 0 ? static_cast<std::int64_t>(bytes) : fallback;
  };
  const std::int64_t l2 = size_of(_SC_LEVEL2_CACHE_SIZE, 1 << 20), l3 = size_of(_SC_LEVEL3_CACHE_SIZE, 32 << 20);
  const auto read = [&](const char* what, std::int64_t bytes) {
    print(what, "float32", threads, best_rate(threads, seconds, repetitions, [&](int) { return Reader(bytes); }),
          "GB/s");
  };
  read("read_l2", l2 / 2);
  read("read_l3",
       std::max(2 * l2, std::min<std::int64_t>(l3 / 2 / threads, 8 << 20)));  // the third level may be shared
  read("read_memory", std::max<std::int64_t>(2 * l3 / threads, 64 << 20));
}

}  // namespace
}  // namespace mfld::bench

int main(int argc, char** argv) {
  using namespace mfld::bench;
  std::vector<int> threads;
  for (int i = 1; i < argc; ++i) threads.push_back(std::atoi(argv[i]));
  if (threads.empty()) threads.push_back(1);
  std::printf("[");
  for (const int t : threads) {
    if (t < 1) return std::fprintf(stderr, "ceilings: threads must be positive integers\n"), 1;
    print_arithmetic<float>(t);
    print_arithmetic<double>(t);
    print_memory(t);
  }
  std::printf("\n]\n");
}
