// Elementary functions and activations against libm in long double, over grids, random points and special values.
// Run with -s to see the worst error of each function.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "mfld/activations.hpp"
#include "mfld/math.hpp"

namespace {

using namespace mfld;
using Exact = long double;

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T not_a_number = std::numeric_limits<T>::quiet_NaN();

constexpr Exact pi = 3.14159265358979323846264338327950288L;

// Evenly spaced, random, and on both sides of 0 down to the smallest normal numbers.
template <class T>
std::vector<T> points_between(T low, T high) {
  std::vector<T> points{low, high};
  constexpr int n = 100000;
  for (int i = 0; i <= n; ++i) points.push_back(static_cast<T>(low + (Exact(high) - low) * i / n));
  std::mt19937_64 random(20240229);
  std::uniform_real_distribution<T> uniform(low, high);
  for (int i = 0; i < n; ++i) points.push_back(uniform(random));
  constexpr int octaves = std::numeric_limits<T>::max_exponent - 3;
  for (const T end : {low, high}) {
    for (int i = 0; i < n / 4; ++i) points.push_back(static_cast<T>(end * std::exp2(-Exact(octaves) * i / (n / 4))));
  }
  // Around the places where formulas change.
  for (const T at :
       {T(0.5), T(0.70710678118654752440), T(1), T(1.41421356237309504880), T(2), T(4), T(6), T(9.1), T(20)}) {
    for (const T end : {at, -at}) {
      T up = end, down = end;
      for (int i = 0; i < 50; ++i) {
        points.push_back(up = std::nextafter(up, infinity<T>));
        points.push_back(down = std::nextafter(down, -infinity<T>));
      }
      points.push_back(end);
    }
  }
  std::erase_if(points, [&](T x) {
    return !(x >= low && x <= high && (x == 0 || std::abs(x) >= std::numeric_limits<T>::min()));
  });
  return points;
}

template <class T, class F>
T at(F f, T x) {
  return f(Vec<T>(x))[Vec<T>::size - 1];
}

struct Worst {
  Exact error = 0;
  Exact where = 0;
};

// max |got - want| / scale, where `tiny` is forgiven: what flushing small results may lose.
template <class T, class Got, class Want, class Scale>
Worst worst_error(const std::vector<T>& points, Got got, Want want, Scale scale, Exact tiny) {
  Worst worst;
  constexpr std::size_t size = Vec<T>::size;
  for (std::size_t i = 0; i < points.size(); i += size) {
    T in[size], out[size];
    for (std::size_t lane = 0; lane < size; ++lane) in[lane] = points[std::min(i + lane, points.size() - 1)];
    got(Vec<T>::load(in)).store(out);
    for (std::size_t lane = 0; lane < size; ++lane) {
      const Exact exact = want(Exact(in[lane]));
      const Exact rounded = static_cast<T>(exact);  // overflow is right where the exact value overflows
      const Exact difference = out[lane] == rounded ? std::abs(rounded - exact) : std::abs(out[lane] - exact);
      const Exact error = out[lane] == rounded && std::isinf(rounded)
                              ? 0
                              : std::max(difference - tiny, Exact(0)) / std::max(scale(Exact(in[lane]), exact), tiny);
      if (!(error <= worst.error)) worst = {error, in[lane]};  // catches NaN as well
    }
  }
  return worst;
}

// Without fused multiply-adds each product rounds as well.
constexpr double float_tolerance = math::detail::has_fused ? 4e-7 : 5e-7;
constexpr double double_tolerance = 1e-15;
constexpr double tail_tolerance = 4e-15;  // erfc in double
template <class T>
constexpr double tolerance = sizeof(T) == 4 ? float_tolerance : double_tolerance;

constexpr Exact smallest(float) { return std::numeric_limits<float>::min(); }
constexpr Exact smallest(double) { return std::numeric_limits<double>::min(); }

// float_bound and double_bound on the error relative to scale(z, want(z)), for z between low and high.
template <class T, class Got, class Want, class Scale>
void check(const std::string& name, Got got, Want want, Scale scale, T low, T high, double float_bound,
           double double_bound, Exact flush = 2) {
  const Worst worst = worst_error(points_between(low, high), got, want, scale, flush * smallest(T()));
  INFO(name, std::string(sizeof(T) == 4 ? " float" : " double"), ": worst error ", static_cast<double>(worst.error),
       " at ", static_cast<double>(worst.where));
  CHECK(worst.error <= (sizeof(T) == 4 ? float_bound : double_bound));
}

template <class T, class Got, class Want>
void check_relative(const std::string& name, Got got, Want want, T low, T high, double float_bound = float_tolerance,
                    double double_bound = double_tolerance, Exact flush = 2) {
  check(
      name, got, want, [](Exact, Exact exact) { return std::abs(exact); }, low, high, float_bound, double_bound, flush);
}

template <class T, class Got, class Want>
void check_absolute(const std::string& name, Got got, Want want, T low, T high, double float_bound = float_tolerance,
                    double double_bound = double_tolerance) {
  check(name, got, want, [](Exact, Exact) { return Exact(1); }, low, high, float_bound, double_bound);
}

template <class T>
bool same(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

template <class T>
constexpr T exp_overflow = sizeof(T) == 4 ? T(88.8) : T(709.9);
template <class T>
constexpr T exp_underflow = sizeof(T) == 4 ? T(-104) : T(-745.2);
template <class T>
constexpr T largest_angle = sizeof(T) == 4 ? T(1e5) : T(1e8);

}  // namespace

TEST_CASE_TEMPLATE("elementary functions", T, float, double) {
  using V = Vec<T>;
  const T largest = std::numeric_limits<T>::max();
  check_relative<T>(
      "exp", [](V x) { return math::exp(x); }, [](Exact x) { return std::exp(x); }, exp_underflow<T> * 2,
      exp_overflow<T>);
  check_relative<T>(
      "expm1", [](V x) { return math::expm1(x); }, [](Exact x) { return std::expm1(x); }, -200, exp_overflow<T>);
  check_relative<T>("expm1 near 0", [](V x) { return math::expm1(x); }, [](Exact x) { return std::expm1(x); }, -1, 1);
  const auto log = [](V x) { return math::log(x); };
  const auto exact_log = [](Exact x) { return std::log(x); };
  check_relative<T>("log", log, exact_log, std::numeric_limits<T>::min(), largest);
  check_relative<T>("log near 1", log, exact_log, T(0.4), T(3));
  const auto log1p = [](V x) { return math::log1p(x); };
  const auto exact_log1p = [](Exact x) { return std::log1p(x); };
  check_relative<T>("log1p", log1p, exact_log1p, 0, largest);
  check_relative<T>("log1p to 10", log1p, exact_log1p, 0, 10);
  check_relative<T>("log1p_unit", [](V x) { return math::log1p_unit(x); }, exact_log1p, 0, 1);
  check_relative<T>(
      "exp_not_positive", [](V x) { return math::exp_not_positive(x); }, [](Exact x) { return std::exp(x); },
      exp_underflow<T> * 2, 0);
  check_relative<T>("tanh", [](V x) { return math::tanh(x); }, [](Exact x) { return std::tanh(x); }, -25, 25);
  check_relative<T>("tanh near 0", [](V x) { return math::tanh(x); }, [](Exact x) { return std::tanh(x); }, -1, 1);
  check_relative<T>("erf", [](V x) { return math::erf(x); }, [](Exact x) { return std::erf(x); }, -7, 7);
  check_relative<T>(
      "erfc", [](V x) { return math::erfc(x); }, [](Exact x) { return std::erfc(x); }, -7, 28, float_tolerance,
      tail_tolerance);
}

TEST_CASE_TEMPLATE("sine and cosine", T, float, double) {
  using V = Vec<T>;
  for (const T range : {T(4), T(100), largest_angle<T>}) {
    const std::string to = " to " + std::to_string(range);
    check_absolute<T>("sin" + to, [](V x) { return math::sin(x); }, [](Exact x) { return std::sin(x); }, -range, range);
    check_absolute<T>("cos" + to, [](V x) { return math::cos(x); }, [](Exact x) { return std::cos(x); }, -range, range);
  }
  check_relative<T>("sin near 0", [](V x) { return math::sin(x); }, [](Exact x) { return std::sin(x); }, -1, 1);

  // Near multiples of pi/2 results are 0 or +-1, at all sizes of the argument.
  Exact worst = 0;
  T largest = 0;
  for (Exact n = 1; n < largest_angle<T> * 2 / pi; n = std::floor(n * 1.01L) + 1) {
    T z = static_cast<T>(n * pi / 2);
    for (int i = 0; i < 8; ++i) z = std::nextafter(z, T(0));
    for (int i = 0; i < 16; ++i, z = std::nextafter(z, infinity<T>)) {
      const auto both = math::sincos(V(z));
      const T s = both.sin[0], c = both.cos[0];
      worst = std::max({worst, std::abs(s - std::sin(Exact(z))), std::abs(c - std::cos(Exact(z)))});
      largest = std::max({largest, std::abs(s), std::abs(c)});
    }
  }
  CHECK(worst <= tolerance<T>);
  CHECK(largest <= 1);

  // Beyond the accurate range: any number of [-1, 1] for a finite argument, whatever its bits.
  const auto inside = [](T z) {
    const auto both = math::sincos(V(z));
    return std::isfinite(z) ? std::abs(both.sin[0]) <= 1 && std::abs(both.cos[0]) <= 1
                            : std::isnan(both.sin[0]) && std::isnan(both.cos[0]);
  };
  std::mt19937_64 random(7);
  std::int64_t n_outside = 0;
  for (int i = 0; i < 1000000; ++i) {
    const BitsOf<T> bits = static_cast<BitsOf<T>>(random());
    T z;
    std::memcpy(&z, &bits, sizeof z);
    n_outside += !inside(z);
  }
  CHECK(n_outside == 0);
  for (const T z : {std::numeric_limits<T>::max(), T(1e30), T(1e20), largest_angle<T> * 10}) {
    CHECK(inside(z));
    CHECK(inside(-z));
  }
}

TEST_CASE_TEMPLATE("special values are exact", T, float, double) {
  using V = Vec<T>;
  const T inf = infinity<T>, nan = not_a_number<T>, largest = std::numeric_limits<T>::max();
  const auto table = [](const std::string& name, auto f, std::vector<std::pair<T, T>> pairs) {
    for (const std::pair<T, T>& pair : pairs) {
      const T x = pair.first, y = pair.second, got = at<T>(f, x);
      INFO(name, "(", x, ") = ", got, ", not ", y);
      CHECK(same(got, y));
    }
  };
  table("exp", [](V x) { return math::exp(x); },
        {{0, 1},
         {T(-0.0), 1},
         {inf, inf},
         {-inf, 0},
         {nan, nan},
         {largest, inf},
         {-largest, 0},
         {exp_overflow<T>, inf},
         {exp_underflow<T> - 1, 0}});
  table("expm1", [](V x) { return math::expm1(x); },
        {{0, 0}, {inf, inf}, {-inf, -1}, {nan, nan}, {largest, inf}, {-largest, -1}, {exp_overflow<T>, inf}});
  table("log", [](V x) { return math::log(x); }, {{1, 0}, {inf, inf}, {nan, nan}});
  table("log1p", [](V x) { return math::log1p(x); }, {{0, 0}, {inf, inf}, {nan, nan}});
  table("tanh", [](V x) { return math::tanh(x); },
        {{0, 0},
         {T(-0.0), T(-0.0)},
         {inf, 1},
         {-inf, -1},
         {nan, nan},
         {largest, 1},
         {-largest, -1},
         {T(1e-30), T(1e-30)}});
  table("erf", [](V x) { return math::erf(x); },
        {{0, 0}, {T(-0.0), T(-0.0)}, {inf, 1}, {-inf, -1}, {nan, nan}, {largest, 1}, {-largest, -1}});
  table("erfc", [](V x) { return math::erfc(x); },
        {{0, 1}, {inf, 0}, {-inf, 2}, {nan, nan}, {largest, 0}, {-largest, 2}, {T(-7), 2}});
  table("sin", [](V x) { return math::sin(x); }, {{0, 0}, {inf, nan}, {-inf, nan}, {nan, nan}});
  table("cos", [](V x) { return math::cos(x); }, {{0, 1}, {T(-0.0), 1}, {inf, nan}, {-inf, nan}, {nan, nan}});

  // Subnormal arguments: finite and near.
  const T subnormal = std::numeric_limits<T>::denorm_min() * 1000;
  CHECK(std::abs(at<T>([](V x) { return math::log(x); }, subnormal) - std::log(subnormal)) <= 40);
  CHECK(std::abs(at<T>([](V x) { return math::tanh(x); }, subnormal)) <= 2 * subnormal);
}

TEST_CASE_TEMPLATE("bounded functions stay bounded", T, float, double) {
  using V = Vec<T>;
  std::mt19937_64 random(11);
  std::uniform_real_distribution<T> uniform(-12, 12);
  T largest = 0, smallest_sigmoid = 1;
  for (int i = 0; i < 1000000; ++i) {
    const V z(uniform(random));
    const T sigmoid = Sigmoid::value(z)[0];
    largest = std::max({largest, std::abs(math::tanh(z)[0]), std::abs(math::erf(z)[0]), std::abs(math::sin(z)[0]),
                        std::abs(math::cos(z)[0]), sigmoid});
    smallest_sigmoid = std::min(smallest_sigmoid, sigmoid);
  }
  CHECK(largest <= 1);
  CHECK(smallest_sigmoid >= 0);
}

// One vector with a different number in each lane gives what each lane alone would give.
TEST_CASE_TEMPLATE("lanes are independent", T, float, double) {
  using V = Vec<T>;
  volatile T start = T(1.7);  // a constant would be folded, without the fused operations of the code
  T in[V::size];
  for (int lane = 0; lane < V::size; ++lane) in[lane] = T(lane % 2 ? -1 : 1) * std::ldexp(T(start), lane - 4);
  in[V::size - 1] = not_a_number<T>;
  const auto check_lanes = [&](auto f) {
    const V out = f(V::load(in));
    for (int lane = 0; lane < V::size; ++lane) CHECK(same(out[lane], at<T>(f, in[lane])));
  };
  check_lanes([](V x) { return math::tanh(x); });
  check_lanes([](V x) { return math::exp(x); });
  check_lanes([](V x) { return math::erfc(x); });
  check_lanes([](V x) { return math::sincos(x).sin; });
  check_lanes([](V x) { return math::log1p(abs(x)); });
  check_lanes([](V x) { return Gelu::value_and_slope(x).slope; });
}

namespace {

using Function = Exact (*)(Exact);

Exact logistic(Exact z) { return 1 / (1 + std::exp(-z)); }
Exact normal_probability(Exact z) { return std::erfc(-z / std::sqrt(2.0L)) / 2; }
Exact normal_density(Exact z) { return std::exp(-z * z / 2) / std::sqrt(2 * pi); }

// What an activation should be, and what the error of its slope is relative to.
struct Definition {
  Function value, slope, slope_scale;
  Exact at_minus_infinity, at_infinity, slope_at_minus_infinity, slope_at_infinity;
};

Exact one(Exact) { return 1; }

const Exact inf = infinity<Exact>, nan_ = not_a_number<Exact>;

const std::map<std::string, Definition> definitions = {
    {"tanh",
     {[](Exact z) { return std::tanh(z); }, [](Exact z) { return 1 / (std::cosh(z) * std::cosh(z)); }, one, -1, 1, 0,
      0}},
    {"relu",
     {[](Exact z) { return std::max(z, 0.0L); }, [](Exact z) { return z > 0 ? 1.0L : 0.0L; }, one, 0, inf, 0, 1}},
    {"leaky_relu",
     {[](Exact z) { return z > 0 ? z : 0.01L * z; }, [](Exact z) { return z > 0 ? 1.0L : 0.01L; }, one, -inf, inf,
      0.01L, 1}},
    {"sigmoid", {logistic, [](Exact z) { return logistic(z) * logistic(-z); }, one, 0, 1, 0, 0}},
    {"softplus",
     {[](Exact z) { return std::max(z, 0.0L) + std::log1p(std::exp(-std::abs(z))); }, logistic, logistic, 0, inf, 0,
      1}},
    {"erf",
     {[](Exact z) { return std::erf(z); }, [](Exact z) { return 2 / std::sqrt(pi) * std::exp(-z * z); },
      [](Exact z) { return 2 / std::sqrt(pi) * std::exp(-z * z); }, -1, 1, 0, 0}},
    // The slopes of gelu and silu cross 0 left of 0: their error is relative to the sum of the two terms' sizes.
    {"gelu",
     {[](Exact z) { return z * normal_probability(z); },
      [](Exact z) { return normal_probability(z) + z * normal_density(z); },
      [](Exact z) { return normal_probability(z) + std::abs(z) * normal_density(z); }, 0, inf, 0, 1}},
    {"silu",
     {[](Exact z) { return z * logistic(z); }, [](Exact z) { return logistic(z) * (1 + z * logistic(-z)); },
      [](Exact z) { return logistic(z) * (1 + std::abs(z) * logistic(-z)); }, 0, inf, 0, 1}},
    {"sin", {[](Exact z) { return std::sin(z); }, [](Exact z) { return std::cos(z); }, one, nan_, nan_, nan_, nan_}},
    {"cos", {[](Exact z) { return std::cos(z); }, [](Exact z) { return -std::sin(z); }, one, nan_, nan_, nan_, nan_}},
    {"identity", {[](Exact z) { return z; }, one, one, -inf, inf, 1, 1}},
};

template <class A, class T>
void check_activation() {
  using V = Vec<T>;
  REQUIRE(definitions.contains(A::name));
  const Definition& exact = definitions.at(A::name);
  const std::string name = A::name;
  const bool periodic = name == "sin" || name == "cos";
  const auto value = [](V z) { return A::value(z); };
  const auto value_of_both = [](V z) { return A::value_and_slope(z).value; };
  const auto slope = [](V z) { return A::value_and_slope(z).slope; };
  const auto value_scale = [&](Exact, Exact exact_value) { return periodic ? 1 : std::abs(exact_value); };
  const auto slope_scale = [&](Exact z, Exact) { return exact.slope_scale(z); };

  // exp(-120) is below the smallest float: so are value and slope of all activations that vanish there.
  for (const T range : {T(1), T(20), T(120), T(800)}) {
    const Exact flush = 2 + range * 2;  // silu and gelu multiply a flushed factor by z
    const double double_bound = name == "gelu" || name == "erf" ? tail_tolerance : double_tolerance;
    check<T>(name + " value", value, exact.value, value_scale, -range, range, float_tolerance, double_bound, flush);
    check<T>(name + " value with slope", value_of_both, exact.value, value_scale, -range, range, float_tolerance,
             double_bound, flush);
    const double growth = A::slope_from_value ? 2 : 1;  // d(1 - t^2) = -2 t dt
    check<T>(name + " slope", slope, exact.slope, slope_scale, -range, range, growth * float_tolerance,
             growth * double_bound, flush);
  }

  const auto check_limit = [&](T z, Exact v, Exact s) {
    const T got_value = at<T>(value, z), got_slope = at<T>(slope, z);
    INFO(name, " at ", z, ": ", got_value, ", slope ", got_slope);
    CHECK((got_value == static_cast<T>(v) || (std::isnan(got_value) && std::isnan(v))));
    CHECK((got_slope == static_cast<T>(s) || (std::isnan(got_slope) && std::isnan(s))));
  };
  check_limit(infinity<T>, exact.at_infinity, exact.slope_at_infinity);
  check_limit(-infinity<T>, exact.at_minus_infinity, exact.slope_at_minus_infinity);
  if (!periodic) {
    for (const T z : {T(1e30), std::numeric_limits<T>::max()}) {
      check_limit(z, std::isinf(exact.at_infinity) ? z : exact.at_infinity, exact.slope_at_infinity);
      check_limit(-z,
                  std::isinf(exact.at_minus_infinity) ? -z * static_cast<T>(exact.slope_at_minus_infinity)
                                                      : exact.at_minus_infinity,
                  exact.slope_at_minus_infinity);
    }
  }
  CHECK(std::isnan(at<T>(value, not_a_number<T>)));
  CHECK(std::isnan(at<T>(value_of_both, not_a_number<T>)));
}

template <class T, class... A>
void check_activations(ActivationList<A...>*) {
  (check_activation<A, T>(), ...);
}

}  // namespace

TEST_CASE_TEMPLATE("activations and their slopes", T, float, double) {
  check_activations<T>(static_cast<Activations*>(nullptr));
}

TEST_CASE("kinks") {
  using V = Vec<float>;
  CHECK(Relu::value_and_slope(V(0)).slope[0] == 0);
  CHECK(Relu::value_and_slope(V(-0.0f)).slope[0] == 0);
  CHECK(LeakyRelu::value_and_slope(V(0)).slope[0] == 0.01f);
}
