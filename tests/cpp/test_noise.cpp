// Noise: Philox against its published vectors, normals against the documented formulas in long double on the same
// words, batches against uniform subsets. Statistical checks have fixed keys and use 5 sigma.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <numbers>
#include <type_traits>
#include <vector>

#include "mfld/kernels.h"
#include "mfld/noise.hpp"
#include "mfld/simd.hpp"

namespace mfld {
template <class T>
int normals(const mfld_noise*, std::uint32_t stream, std::int64_t n_members, std::int64_t first_particle,
            std::int64_t n_particles, std::int64_t n_coordinates, void* out, const mfld_execution*);
void philox(const std::uint32_t counter[4], const std::uint32_t key[2], std::uint32_t out[4]);
std::uint64_t noise_key(std::uint64_t seed, std::uint64_t replica);
int batch(const mfld_noise*, std::int64_t n, std::int64_t batch_size, std::int64_t* rows, const mfld_execution*);
}  // namespace mfld

namespace {

using namespace mfld;

constexpr mfld_execution alone = {/*num_threads=*/1, /*poll=*/nullptr, /*poll_context=*/nullptr, /*ranks=*/nullptr};

PhiloxBlock block_at(const mfld_noise& noise, std::uint32_t stream, std::uint32_t particle, std::uint32_t block) {
  const std::uint32_t counter[4] = {particle, block | stream << 24, static_cast<std::uint32_t>(noise.step),
                                    static_cast<std::uint32_t>(noise.step >> 32) | noise.population << 16};
  const std::uint32_t key[2] = {static_cast<std::uint32_t>(noise.key), static_cast<std::uint32_t>(noise.key >> 32)};
  PhiloxBlock words;
  philox(counter, key, words.data());
  return words;
}

struct Pair {
  long double z0, z1, radius;
};

// The documented formula on integers: u = (radius_word + 1/2) / range. Near 1 the logarithm is taken of the exact 1 -
// u.
Pair exact_pair(std::uint64_t radius_word, std::uint64_t angle_word, int bits) {
  const long double range = std::ldexp(1.0L, bits);
  const long double u = (radius_word + 0.5L) / range;
  const long double complement = (range - 0.5L - radius_word) / range;
  const long double radius = std::sqrt(-2 * (u < 0.5L ? std::log(u) : std::log1p(-complement)));
  const long double angle = 2 * std::numbers::pi_v<long double> * (angle_word + 0.5L) / range;
  return {radius * std::cos(angle), radius * std::sin(angle), radius};
}

// float32: relative errors of the radius (half of its square's: 2 to 3 roundings of 6e-8, polynomial 4.5e-8), of cosine
// and sine (polynomial 8.3e-8 and 2 roundings near 1, the angle's own rounding) and of the last products add up to less
// than 4e-7. float64: the same in units of 1.1e-16; what does not shrink with z are the roundings of t^2 and of the
// sums near 1.
template <class T>
double tolerance(const Pair& p, long double z) {
  if (std::is_same_v<T, float>) return static_cast<double>(4e-7L * p.radius);
  return static_cast<double>(1e-15L * std::abs(z) + 4e-16L * p.radius);
}

template <class T>
std::vector<T> make_normals(const mfld_noise& noise, std::uint32_t stream, std::int64_t n_particles,
                            std::int64_t n_coordinates, int num_threads = 1) {
  std::vector<T> z(static_cast<std::size_t>(n_particles * n_coordinates));
  const mfld_execution execution{num_threads, nullptr, nullptr, nullptr};
  CHECK(normals<T>(&noise, stream, 1, 0, n_particles, n_coordinates, z.data(), &execution) == MFLD_DONE);
  return z;
}

template <class T>
Pair exact_normals(const mfld_noise& noise, std::uint32_t stream, std::uint32_t particle, std::uint32_t coordinate) {
  if (std::is_same_v<T, float>) {
    const PhiloxBlock w = block_at(noise, stream, particle, coordinate / 4);
    return coordinate % 4 < 2 ? exact_pair(w[0], w[1], 32) : exact_pair(w[2], w[3], 32);
  }
  const PhiloxBlock w = block_at(noise, stream, particle, coordinate / 2);
  return exact_pair((w[0] | std::uint64_t{w[1]} << 32) >> 11, (w[2] | std::uint64_t{w[3]} << 32) >> 11, 53);
}

// The pair of normals that one pair of words gives.
Pair transformed(std::uint32_t radius_word, std::uint32_t angle_word) {
  Vec<float> z0[1], z1[1];
  box_muller<float, 1>({Words(radius_word)}, {Words(angle_word)}, z0, z1);
  const long double x = z0[0][0], y = z1[0][0];
  return {x, y, std::sqrt(x * x + y * y)};
}
Pair transformed(std::uint64_t radius_word, std::uint64_t angle_word) {
  Vec<double> z0[1], z1[1];
  box_muller<double, 1>({HalfVec(radius_word)}, {HalfVec(angle_word)}, z0, z1);
  const long double x = z0[0][0], y = z1[0][0];
  return {x, y, std::sqrt(x * x + y * y)};
}

constexpr mfld_noise somewhere{0x243f6a8885a308d3u, 0x7c0102030405u, 0xa409};

}  // namespace

// Random123's kat_vectors, lines "philox4x32 10".
TEST_CASE("Philox4x32-10 gives the published words") {
  struct Known {
    PhiloxBlock counter;
    std::uint32_t key[2];
    PhiloxBlock words;
  };
  const Known known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
      {{0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu},
       {0xffffffffu, 0xffffffffu},
       {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
      {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
       {0xa4093822u, 0x299f31d0u},
       {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}},
  };
  for (const Known& k : known) {
    PhiloxBlock words;
    philox(k.counter.data(), k.key, words.data());
    CHECK(words == k.words);
  }
}

TEST_CASE("noise_key is Philox of (seed, replica) under the key 'mfld'") {
  const std::uint32_t counter[4] = {0x89abcdefu, 0x01234567u, 5, 6}, key[2] = {0x6d666c64u, 0};
  std::uint32_t words[4];
  philox(counter, key, words);
  CHECK(noise_key(0x0123456789abcdefu, 5 | std::uint64_t{6} << 32) == (words[0] | std::uint64_t{words[1]} << 32));
}

TEST_CASE("the lanes of a panel hold the words of their particles") {
  constexpr std::uint32_t stream = 3, first_particle = 0xfffffff8u;  // the particle count wraps as a 32-bit word does
  const NoisePlace place(somewhere, stream);
  for (std::uint32_t block : {0u, 1u, 0xfffffeu}) {
    HalfVec first[4], second[4];
    PanelNoise<double>(place, first_particle).words(block, first, second);
    for (int i = 0; i < 4; ++i)
      for (int lane = 0; lane < HalfVec::size; ++lane) {
        const auto particle = first_particle + static_cast<std::uint32_t>(i % 2 * HalfVec::size + lane);
        const PhiloxBlock w = block_at(somewhere, stream, particle, block + static_cast<std::uint32_t>(i / 2));
        CHECK(first[i][lane] == (w[0] | std::uint64_t{w[1]} << 32));
        CHECK(second[i][lane] == (w[2] | std::uint64_t{w[3]} << 32));
      }
  }
}

TEST_CASE_TEMPLATE("normals follow the documented formula", T, float, double) {
  constexpr std::int64_t n_particles = 3001, n_coordinates = 23;
  for (std::uint32_t stream : {0u, 1u, 255u}) {
    const auto z = make_normals<T>(somewhere, stream, n_particles, n_coordinates);
    double worst = 0;
    for (std::uint32_t i = 0; i < n_particles; ++i)
      for (std::uint32_t j = 0; j < n_coordinates; ++j) {
        const Pair p = exact_normals<T>(somewhere, stream, i, j);
        const long double exact = j % 2 == 0 ? p.z0 : p.z1;
        const double error = static_cast<double>(std::abs(static_cast<long double>(z[i * n_coordinates + j]) - exact));
        worst = std::max(worst, error / tolerance<T>(p, exact));
      }
    CHECK(worst <= 1);
    CHECK(worst > 1e-3);  // the comparison is alive: these are roundings, not copies
  }
}

// Words at both ends and around the folds of radius (1/2) and angle (quarter circles).
TEST_CASE("extreme words") {
  SUBCASE("float32") {
    std::vector<std::uint32_t> words;
    for (std::uint32_t centre :
         {0u, 0x80000000u, 0x40000000u, 0xc0000000u, 0x20000000u, 0xffff0000u, 0x00010000u, 0xff800000u})
      for (std::uint32_t d = 0; d < 9; ++d) words.push_back(centre + d - 4);
    double worst_radius = 0, worst = 0;
    for (std::uint32_t w : words)
      for (std::uint32_t a : words) {
        const Pair z = transformed(w, a), p = exact_pair(w, a, 32);
        worst_radius = std::max(worst_radius, std::abs(static_cast<double>(z.radius / p.radius - 1)));
        worst = std::max(worst, static_cast<double>(std::abs(z.z0 - p.z0)) / tolerance<float>(p, p.z0));
        worst = std::max(worst, static_cast<double>(std::abs(z.z1 - p.z1)) / tolerance<float>(p, p.z1));
      }
    CHECK(worst_radius < 5e-7);
    CHECK(worst <= 1);
    CHECK(static_cast<double>(transformed(0u, 0u).radius) ==
          doctest::Approx(std::sqrt(66 * std::log(2.0))).epsilon(1e-6));
  }
  SUBCASE("float64") {
    std::vector<std::uint64_t> words;
    for (std::uint64_t centre :
         {0x0ull, 0x8000000000000000ull, 0x4000000000000000ull, 0xc000000000000000ull, 0x2000000000000000ull,
          0xffffffff00000000ull, 0x0000000100000000ull, 0xffe0000000000000ull})
      for (std::uint64_t d = 0; d < 9; ++d) words.push_back(centre + (d - 4) * 2048 + 1234 * (d % 2));
    double worst_radius = 0, worst = 0;
    for (std::uint64_t w : words)
      for (std::uint64_t a : words) {
        const Pair z = transformed(w, a), p = exact_pair(w >> 11, a >> 11, 53);
        worst_radius = std::max(worst_radius, std::abs(static_cast<double>(z.radius / p.radius - 1)));
        worst = std::max(worst, static_cast<double>(std::abs(z.z0 - p.z0)) / tolerance<double>(p, p.z0));
        worst = std::max(worst, static_cast<double>(std::abs(z.z1 - p.z1)) / tolerance<double>(p, p.z1));
      }
    CHECK(worst_radius < 1e-15);
    CHECK(worst <= 1);
    CHECK(static_cast<double>(transformed(std::uint64_t{0}, std::uint64_t{0}).radius) ==
          doctest::Approx(std::sqrt(108 * std::log(2.0))).epsilon(1e-15));
  }
}

// The radius of every octave of u and of 1 - u: a wrong exponent or a lost bit shows in one of them.
TEST_CASE("the radius is accurate in relative terms over all scales") {
  double worst32 = 0, worst64 = 0;
  for (int bit = 0; bit < 63; ++bit)
    for (std::uint64_t k = 0; k < 64; ++k) {
      const std::uint64_t small = (std::uint64_t{1} << bit) + (k * 0x9E3779B97F4A7C15u) % (std::uint64_t{1} << bit);
      for (std::uint64_t w : {small, ~small}) {
        worst64 = std::max(
            worst64,
            std::abs(static_cast<double>(transformed(w, std::uint64_t{0}).z0 / exact_pair(w >> 11, 0, 53).z0 - 1)));
        const auto w32 = static_cast<std::uint32_t>(w >> 32);
        worst32 =
            std::max(worst32, std::abs(static_cast<double>(transformed(w32, 0u).z0 / exact_pair(w32, 0, 32).z0 - 1)));
      }
    }
  CHECK(worst32 < 5e-7);
  CHECK(worst64 < 1e-15);
}

TEST_CASE_TEMPLATE("a normal depends on its place alone", T, float, double) {
  constexpr std::int64_t n = 211, p = 37;
  const auto all = make_normals<T>(somewhere, MFLD_STREAM_MOVE, n, p);

  SUBCASE("not on the shape of the request") {
    for (std::int64_t rows : {1, 2, 7, 31, 32, 33, 64, 100})
      for (std::int64_t columns : {1, 2, 3, 4, 5, 36}) {
        const auto part = make_normals<T>(somewhere, MFLD_STREAM_MOVE, rows, columns);
        bool same = true;
        for (std::int64_t i = 0; i < rows; ++i)
          same = same && std::equal(&part[i * columns], &part[i * columns] + columns, &all[i * p]);
        CHECK(same);
      }
  }
  SUBCASE("not on the thread count") {
    const auto one = make_normals<T>(somewhere, MFLD_STREAM_MOVE, 5000, 11, 1);
    for (int threads : {2, 3, 7}) CHECK(make_normals<T>(somewhere, MFLD_STREAM_MOVE, 5000, 11, threads) == one);
  }
  SUBCASE("not on the lane: panels from any first particle") {
    const NoisePlace place(somewhere, MFLD_STREAM_MOVE);
    for (std::uint32_t first = 0; first < 40; ++first) {
      Vec<T> z[4][2];
      panel_normals<T>(place, first, 3, z);
      bool same = true;
      for (int j = 0; j < 4; ++j)
        for (int l = 0; l < 2 * Vec<T>::size; ++l)
          same = same && z[j][l / Vec<T>::size][l % Vec<T>::size] == all[(first + l) * p + 12 + j];
      CHECK(same);
    }
  }
  SUBCASE("and on all of it") {
    for (const mfld_noise& other : {mfld_noise{somewhere.key + 1, somewhere.step, somewhere.population},
                                    mfld_noise{somewhere.key ^ 1ull << 32, somewhere.step, somewhere.population},
                                    mfld_noise{somewhere.key, somewhere.step + 1, somewhere.population},
                                    mfld_noise{somewhere.key, somewhere.step ^ 1ull << 32, somewhere.population},
                                    mfld_noise{somewhere.key, somewhere.step, somewhere.population ^ 1}})
      CHECK(make_normals<T>(other, MFLD_STREAM_MOVE, n, p) != all);
    CHECK(make_normals<T>(somewhere, MFLD_STREAM_INIT, n, p) != all);
  }
}

TEST_CASE_TEMPLATE("moments of normals", T, float, double) {
  constexpr std::int64_t n = 200000, p = 20;  // 4 million
  constexpr double count = n * p;
  mfld_noise noise{noise_key(1, 0), 0, 0};
  const auto z = make_normals<T>(noise, MFLD_STREAM_MOVE, n, p);
  noise.step = 1;
  const auto next = make_normals<T>(noise, MFLD_STREAM_MOVE, n, p);

  double mean = 0, second = 0, third = 0, fourth = 0, coordinates = 0, particles = 0, steps = 0, tail = 0, squares = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < p; ++j) {
      const double x = z[i * p + j];
      mean += x;
      second += x * x;
      third += x * x * x;
      fourth += x * x * x * x;
      tail += std::abs(x) > 3;
      steps += x * next[i * p + j];
      if (j + 1 < p) {
        coordinates += x * z[i * p + j + 1];
        squares += (x * x - 1) * (double(z[i * p + j + 1]) * z[i * p + j + 1] - 1);  // Box-Muller pairs share a radius
      }
      if (i + 1 < n) particles += x * z[(i + 1) * p + j];
    }
  // Variances of one term: Var z = 1, Var z^2 = 2, Var z^3 = 15, Var z^4 = 105 - 9 = 96, Var(zz') = 1,
  // Var((z^2-1)(z'^2-1)) = 4.
  const double sigma = std::sqrt(1 / count);
  CHECK(std::abs(mean / count) < 5 * sigma);
  CHECK(std::abs(second / count - 1) < 5 * sigma * std::sqrt(2.0));
  CHECK(std::abs(third / count) < 5 * sigma * std::sqrt(15.0));
  CHECK(std::abs(fourth / count - 3) < 5 * sigma * std::sqrt(96.0));
  CHECK(std::abs(steps / count) < 5 * sigma);
  CHECK(std::abs(coordinates / count) < 5 * sigma);
  CHECK(std::abs(particles / count) < 5 * sigma);
  CHECK(std::abs(squares / count) < 5 * sigma * 2);
  const double beyond3 = std::erfc(3 / std::numbers::sqrt2);
  CHECK(std::abs(tail / count - beyond3) < 5 * sigma * std::sqrt(beyond3));
}

TEST_CASE("batches are distinct rows in range") {
  for (std::int64_t n : {1, 2, 5, 64, 1000, 123457})
    for (std::int64_t size : {std::int64_t{1}, n / 3, n - 1, n}) {
      if (size < 1) continue;
      for (std::uint64_t step = 0; step < 20; ++step) {
        std::vector<std::int64_t> rows(static_cast<std::size_t>(size), -1);
        const mfld_noise noise{99, step, 0};
        CHECK(batch(&noise, n, size, rows.data(), &alone) == MFLD_DONE);
        std::sort(rows.begin(), rows.end());
        CHECK(rows.front() >= 0);
        CHECK(rows.back() < n);
        CHECK(std::adjacent_find(rows.begin(), rows.end()) == rows.end());
      }
    }
}

// Floyd's algorithm with its draws from the scalar generator and a linear search.
TEST_CASE("batches are Floyd's algorithm on the documented words, whatever the scratch held before") {
  FloydSet scratch(40);
  const auto never = [](std::int64_t) { return false; };
  for (std::int64_t n : {40, 1000, 1 << 30})
    for (std::int64_t size : {40, 1, 33}) {
      const mfld_noise noise{7, std::uint64_t{5} << 32, 3};
      std::vector<std::int64_t> expected, rows(static_cast<std::size_t>(size));
      for (std::int64_t t = 0; t < size; ++t) {
        const PhiloxBlock w = block_at(noise, MFLD_STREAM_BATCH, static_cast<std::uint32_t>(t), 0);
        const std::int64_t j = n - size + t;
        const auto r = static_cast<std::int64_t>((static_cast<unsigned __int128>(w[0] | std::uint64_t{w[1]} << 32) *
                                                  static_cast<unsigned __int128>(j + 1)) >>
                                                 64);
        expected.push_back(std::find(expected.begin(), expected.end(), r) == expected.end() ? r : j);
      }
      CHECK(floyd_batch(noise, n, size, rows.data(), scratch, never));
      CHECK(rows == expected);
      CHECK(!floyd_batch(noise, n, size, rows.data(), scratch, [](std::int64_t) { return true; }));
    }
}

TEST_CASE("every subset is equally likely") {
  constexpr std::int64_t n = 7, size = 3, n_subsets = 35;
  constexpr int n_steps = 70000;
  std::vector<double> subsets(1 << n), single(n), pairs(n * n);
  for (int step = 0; step < n_steps; ++step) {
    const mfld_noise noise{noise_key(3, 0), static_cast<std::uint64_t>(step), 0};
    std::int64_t rows[size];
    batch(&noise, n, size, rows, &alone);
    int subset = 0;
    for (std::int64_t a : rows) {
      subset |= 1 << a;
      single[a] += 1;
      for (std::int64_t b : rows) pairs[a * n + b] += a < b;
    }
    subsets[subset] += 1;
  }
  // A chi-square of k degrees of freedom has mean k and variance 2k.
  double chi2 = 0;
  for (double c : subsets)
    if (c > 0)
      chi2 += (c - n_steps / double(n_subsets)) * (c - n_steps / double(n_subsets)) / (n_steps / double(n_subsets));
  CHECK(std::count_if(subsets.begin(), subsets.end(), [](double c) { return c > 0; }) == n_subsets);
  CHECK(std::abs(chi2 - (n_subsets - 1)) < 5 * std::sqrt(2.0 * (n_subsets - 1)));
  // Inclusion: a row with probability 3/7, a pair with 3/7 * 2/6 = 1/7; each count is binomial.
  for (std::int64_t a = 0; a < n; ++a) {
    CHECK(std::abs(single[a] - n_steps * 3.0 / 7) < 5 * std::sqrt(n_steps * 3.0 / 7 * 4 / 7));
    for (std::int64_t b = a + 1; b < n; ++b)
      CHECK(std::abs(pairs[a * n + b] - n_steps / 7.0) < 5 * std::sqrt(n_steps * 6.0 / 49));
  }
}
