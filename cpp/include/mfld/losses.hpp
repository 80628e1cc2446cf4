// Losses: value, derivative in the prediction u, convex conjugate, smoothness, dual step.
//
// A loss over several outputs is the sum over outputs, but for cross-entropy, which couples them. To add one, write a
// struct and append it to Losses; mfld.plain holds the same formula for the tests.
//
//   curvature       = second derivative in u; 0 at a kink
//   conjugate(g, y) = sup_u g u - loss(u, y), +inf outside of its domain
//   smoothness      = Lipschitz constant of the derivative, +inf where there is none
//   dual_step(g, u) = argmin_q conjugate(q, y) - u (q - g) + (q - g)^2 / (2 a), the step of dual coordinate ascent
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>

#include "mfld/kernels.h"
#include "mfld/math.hpp"
#include "mfld/simd.hpp"

namespace mfld {

inline constexpr double infinity = std::numeric_limits<double>::infinity();

// x log x, continued to 0; what rounding pushes below 0 counts as 0.
inline double x_log_x(double x) { return x > 0 ? x * std::log(x) : 0; }

// (u - y)^2
struct SquaredLoss {
  static constexpr mfld_loss_info info = {"squared", nullptr, 0, MFLD_TARGETS_REAL, /*convex=*/1};
  template <class T>
  static Vec<T> value(Vec<T> u, Vec<T> y, Vec<T>) {
    return (u - y) * (u - y);
  }
  template <class T>
  static Vec<T> derivative(Vec<T> u, Vec<T> y, Vec<T>) {
    return Vec<T>(2) * (u - y);
  }
  template <class T>
  static Vec<T> curvature(Vec<T>, Vec<T>, Vec<T>) {
    return Vec<T>(2);
  }
  static double conjugate(double g, double y, double, double) { return g * g / 4 + g * y; }
  static double smoothness(double) { return 2; }
  static double dual_step(double g, double u, double y, double, double a) { return (a * (u - y) + g) / (1 + a / 2); }
};

// (u - y)^2 / 2
struct HalfSquaredLoss {
  static constexpr mfld_loss_info info = {"half_squared", nullptr, 0, MFLD_TARGETS_REAL, 1};
  template <class T>
  static Vec<T> value(Vec<T> u, Vec<T> y, Vec<T>) {
    return Vec<T>(T(0.5)) * (u - y) * (u - y);
  }
  template <class T>
  static Vec<T> derivative(Vec<T> u, Vec<T> y, Vec<T>) {
    return u - y;
  }
  template <class T>
  static Vec<T> curvature(Vec<T>, Vec<T>, Vec<T>) {
    return Vec<T>(1);
  }
  static double conjugate(double g, double y, double, double) { return g * g / 2 + g * y; }
  static double smoothness(double) { return 1; }
  static double dual_step(double g, double u, double y, double, double a) { return (a * (u - y) + g) / (1 + a); }
};

// |u - y|; the derivative at 0 is 0
struct AbsoluteLoss {
  static constexpr mfld_loss_info info = {"absolute", nullptr, 0, MFLD_TARGETS_REAL, 1};
  template <class T>
  static Vec<T> value(Vec<T> u, Vec<T> y, Vec<T>) {
    return abs(u - y);
  }
  template <class T>
  static Vec<T> derivative(Vec<T> u, Vec<T> y, Vec<T>) {
    const Vec<T> r = u - y;
    // r times 0 keeps a NaN a NaN.
    return select(r > Vec<T>(0), Vec<T>(1), select(r < Vec<T>(0), Vec<T>(-1), r * Vec<T>(0)));
  }
  template <class T>
  static Vec<T> curvature(Vec<T>, Vec<T>, Vec<T>) {
    return Vec<T>(0);
  }
  static double conjugate(double g, double y, double, double tolerance) {
    return std::abs(g) <= 1 + tolerance ? g * y : infinity;
  }
  static double smoothness(double) { return infinity; }
  static double dual_step(double g, double u, double y, double, double a) {
    return std::clamp(g + a * (u - y), -1.0, 1.0);
  }
};

// r^2/2 for |r| <= delta, else delta (|r| - delta/2), with r = u - y
struct HuberLoss {
  static constexpr mfld_loss_info info = {"huber", "delta", 1, MFLD_TARGETS_REAL, 1};
  template <class T>
  static Vec<T> value(Vec<T> u, Vec<T> y, Vec<T> delta) {
    const Vec<T> r = abs(u - y);
    const Vec<T> half = Vec<T>(T(0.5));
    return select(r <= delta, half * r * r, delta * (r - half * delta));
  }
  template <class T>
  static Vec<T> derivative(Vec<T> u, Vec<T> y, Vec<T> delta) {
    const Vec<T> r = u - y;
    return select(r > delta, delta, select(r < -delta, -delta, r));
  }
  template <class T>
  static Vec<T> curvature(Vec<T> u, Vec<T> y, Vec<T> delta) {
    return select(abs(u - y) > delta, Vec<T>(0), Vec<T>(1));
  }
  static double conjugate(double g, double y, double delta, double tolerance) {
    return std::abs(g) <= delta * (1 + tolerance) ? g * g / 2 + g * y : infinity;
  }
  static double smoothness(double) { return 1; }
  static double dual_step(double g, double u, double y, double delta, double a) {
    return std::clamp((a * (u - y) + g) / (1 + a), -delta, delta);
  }
};

// log(1 + exp(-y u)), y = -1 or 1; the exponential sees only -|u|
struct LogisticLoss {
  static constexpr mfld_loss_info info = {"logistic", nullptr, 0, MFLD_TARGETS_SIGN, 1};
  template <class T>
  static Vec<T> value(Vec<T> u, Vec<T> y, Vec<T>) {
    const Vec<T> margin = y * u;
    return max(-margin, Vec<T>(0)) + math::log1p(math::exp(-abs(margin)));
  }
  template <class T>
  static Vec<T> derivative(Vec<T> u, Vec<T> y, Vec<T>) {
    const Vec<T> margin = y * u;
    const Vec<T> e = math::exp(-abs(margin));
    return -y * select(margin > Vec<T>(0), e, Vec<T>(1)) / (Vec<T>(1) + e);
  }
  template <class T>
  static Vec<T> curvature(Vec<T> u, Vec<T>, Vec<T>) {
    const Vec<T> e = math::exp(-abs(u)), s = Vec<T>(1) / (Vec<T>(1) + e);
    return e * s * s;
  }
  static double conjugate(double g, double y, double, double tolerance) {
    const double s = -y * g;
    return s >= -tolerance && s <= 1 + tolerance ? x_log_x(s) + x_log_x(1 - s) : infinity;
  }
  static double smoothness(double) { return 0.25; }
  // With q = -y s and s = sigma(t): t + (s - s0) / a + y u = 0, increasing in t with a slope of at least 1. Newton,
  // kept inside of the bracket that 0 <= s <= 1 gives.
  static double dual_step(double g, double u, double y, double, double a) {
    const double start = std::clamp(-y * g, 0.0, 1.0), margin = y * u;
    double lowest = -margin - (1 - start) / a, highest = -margin + start / a;
    double t = std::clamp(std::log(start / (1 - start)), lowest, highest), s = start;
    const double inverse_a = 1 / a;
    for (int step = 0; step < 100; ++step) {
      const double e = std::exp(-std::abs(t)), larger = 1 / (1 + e);
      const double slope = e * larger * larger;  // s (1 - s)
      s = t > 0 ? larger : e * larger;
      const double value = t + (s - start) * inverse_a + margin;
      (value > 0 ? highest : lowest) = t;
      const double move = -value / (1 + slope * inverse_a);
      // The next move would be of the order of this one's square.
      if (std::abs(move) <= 1e-8) {
        s += slope * move;
        break;
      }
      const double next = t + move;
      t = next > lowest && next < highest ? next : (lowest + highest) / 2;
    }
    return -y * s;
  }
};

// max(0, 1 - y u), y = -1 or 1; the derivative at the kink is 0
struct HingeLoss {
  static constexpr mfld_loss_info info = {"hinge", nullptr, 0, MFLD_TARGETS_SIGN, 1};
  template <class T>
  static Vec<T> value(Vec<T> u, Vec<T> y, Vec<T>) {
    const Vec<T> gap = Vec<T>(1) - y * u;
    return select(gap <= Vec<T>(0), Vec<T>(0), gap);
  }
  template <class T>
  static Vec<T> derivative(Vec<T> u, Vec<T> y, Vec<T>) {
    const Vec<T> gap = Vec<T>(1) - y * u;
    return select(gap > Vec<T>(0), -y, gap * Vec<T>(0));
  }
  template <class T>
  static Vec<T> curvature(Vec<T>, Vec<T>, Vec<T>) {
    return Vec<T>(0);
  }
  static double conjugate(double g, double y, double, double tolerance) {
    return y * g <= tolerance && y * g >= -1 - tolerance ? y * g : infinity;
  }
  static double smoothness(double) { return infinity; }
  static double dual_step(double g, double u, double y, double, double a) {
    return -y * std::clamp(-y * g + a * (1 - y * u), 0.0, 1.0);
  }
};

// With v = y u: 0 for v >= 1, 1 - v - gamma/2 for v <= 1 - gamma, (1 - v)^2 / (2 gamma) between
struct SmoothedHingeLoss {
  static constexpr mfld_loss_info info = {"smoothed_hinge", "gamma", 1, MFLD_TARGETS_SIGN, 1};
  template <class T>
  static Vec<T> value(Vec<T> u, Vec<T> y, Vec<T> gamma) {
    const Vec<T> gap = Vec<T>(1) - y * u;
    const Vec<T> half = Vec<T>(T(0.5));
    return select(gap <= Vec<T>(0), Vec<T>(0), select(gap >= gamma, gap - half * gamma, half * gap * gap / gamma));
  }
  template <class T>
  static Vec<T> derivative(Vec<T> u, Vec<T> y, Vec<T> gamma) {
    const Vec<T> gap = Vec<T>(1) - y * u;
    return -y * select(gap <= Vec<T>(0), Vec<T>(0), select(gap >= gamma, Vec<T>(1), gap / gamma));
  }
  template <class T>
  static Vec<T> curvature(Vec<T> u, Vec<T> y, Vec<T> gamma) {
    const Vec<T> gap = Vec<T>(1) - y * u;
    return select(gap <= Vec<T>(0), Vec<T>(0), select(gap >= gamma, Vec<T>(0), Vec<T>(1) / gamma));
  }
  static double conjugate(double g, double y, double gamma, double tolerance) {
    return y * g <= tolerance && y * g >= -1 - tolerance ? y * g + gamma * g * g / 2 : infinity;
  }
  static double smoothness(double gamma) { return 1 / gamma; }
  static double dual_step(double g, double u, double y, double gamma, double a) {
    return -y * std::clamp((a * (1 - y * u) - y * g) / (1 + a * gamma), 0.0, 1.0);
  }
};

// log sum_k exp(u_k) - u_y, y = 0 .. K-1; couples the outputs
struct CrossEntropyLoss {
  static constexpr mfld_loss_info info = {"cross_entropy", nullptr, 0, MFLD_TARGETS_CLASS, 1};
  // The spectral norm of diag(p) - p p' is at most 1/2.
  static double smoothness(double) { return 0.5; }
};

using Losses = std::tuple<SquaredLoss, HalfSquaredLoss, AbsoluteLoss, HuberLoss, LogisticLoss, HingeLoss,
                          SmoothedHingeLoss, CrossEntropyLoss>;
inline constexpr int n_losses = std::tuple_size_v<Losses>;

// One loss on a block of samples that lies output by output: u[k * stride + i]. Targets lie the same way (class targets
// have one row). `count` is a multiple of the vector size and at most `stride`.
template <class T>
struct LossKernel {
  void (*value)(const T* u, const T* y, std::int64_t stride, std::int64_t count, std::int64_t n_outputs, T parameter,
                T* out);
  void (*derivative)(const T* u, const T* y, std::int64_t stride, std::int64_t count, std::int64_t n_outputs,
                     T parameter, T* out);
  // out: the change of the derivative along a change of the predictions
  void (*along)(const T* u, const T* y, const T* change, std::int64_t stride, std::int64_t count,
                std::int64_t n_outputs, T parameter, T* out);
  // one sample: dual point (n_outputs) and its target
  double (*conjugate)(const double* g, const double* y, std::int64_t n_outputs, double parameter, double tolerance);
  // one sample, its dual point g in place: all outputs at once, each by itself where the loss is a sum over outputs
  void (*dual_step)(double* g, const double* u, const double* y, std::int64_t n_outputs, double parameter, double a);
};

namespace detail {

template <class L, class T>
struct LossBlock {
  static void value(const T* u, const T* y, std::int64_t stride, std::int64_t count, std::int64_t n_outputs,
                    T parameter, T* out) {
    for (std::int64_t i = 0; i < count; i += Vec<T>::size) {
      Vec<T> sum(0);
      for (std::int64_t k = 0; k < n_outputs; ++k)
        sum += L::value(Vec<T>::load(u + k * stride + i), Vec<T>::load(y + k * stride + i), Vec<T>(parameter));
      sum.store(out + i);
    }
  }
  static void derivative(const T* u, const T* y, std::int64_t stride, std::int64_t count, std::int64_t n_outputs,
                         T parameter, T* out) {
    for (std::int64_t k = 0; k < n_outputs; ++k)
      for (std::int64_t i = k * stride; i < k * stride + count; i += Vec<T>::size)
        L::derivative(Vec<T>::load(u + i), Vec<T>::load(y + i), Vec<T>(parameter)).store(out + i);
  }
  static void along(const T* u, const T* y, const T* change, std::int64_t stride, std::int64_t count,
                    std::int64_t n_outputs, T parameter, T* out) {
    for (std::int64_t k = 0; k < n_outputs; ++k)
      for (std::int64_t i = k * stride; i < k * stride + count; i += Vec<T>::size)
        (L::curvature(Vec<T>::load(u + i), Vec<T>::load(y + i), Vec<T>(parameter)) * Vec<T>::load(change + i))
            .store(out + i);
  }
  static double conjugate(const double* g, const double* y, std::int64_t n_outputs, double parameter,
                          double tolerance) {
    double sum = 0;
    for (std::int64_t k = 0; k < n_outputs; ++k) sum += L::conjugate(g[k], y[k], parameter, tolerance);
    return sum;
  }
  static void dual_step(double* g, const double* u, const double* y, std::int64_t n_outputs, double parameter,
                        double a) {
    for (std::int64_t k = 0; k < n_outputs; ++k) g[k] = L::dual_step(g[k], u[k], y[k], parameter, a);
  }
};

template <class T>
struct LossBlock<CrossEntropyLoss, T> {
  struct Softmax {
    Vec<T> largest, total;  // sum_k exp(u_k - largest)
  };
  static Softmax softmax(const T* u, std::int64_t stride, std::int64_t n_outputs) {
    Softmax s = {Vec<T>::load(u), Vec<T>(0)};
    for (std::int64_t k = 1; k < n_outputs; ++k) s.largest = max(s.largest, Vec<T>::load(u + k * stride));
    for (std::int64_t k = 0; k < n_outputs; ++k) s.total += math::exp(Vec<T>::load(u + k * stride) - s.largest);
    return s;
  }
  static void value(const T* u, const T* y, std::int64_t stride, std::int64_t count, std::int64_t n_outputs, T,
                    T* out) {
    for (std::int64_t i = 0; i < count; i += Vec<T>::size) {
      const Softmax s = softmax(u + i, stride, n_outputs);
      const Vec<T> target = Vec<T>::load(y + i);
      Vec<T> chosen(0);
      for (std::int64_t k = 0; k < n_outputs; ++k)
        chosen = select(target == Vec<T>(T(k)), Vec<T>::load(u + k * stride + i) - s.largest, chosen);
      (math::log(s.total) - chosen).store(out + i);
    }
  }
  static void derivative(const T* u, const T* y, std::int64_t stride, std::int64_t count, std::int64_t n_outputs, T,
                         T* out) {
    for (std::int64_t i = 0; i < count; i += Vec<T>::size) {
      const Softmax s = softmax(u + i, stride, n_outputs);
      const Vec<T> target = Vec<T>::load(y + i);
      for (std::int64_t k = 0; k < n_outputs; ++k) {
        const Vec<T> p = math::exp(Vec<T>::load(u + k * stride + i) - s.largest) / s.total;
        select(target == Vec<T>(T(k)), p - Vec<T>(1), p).store(out + k * stride + i);
      }
    }
  }
  // p_k (v_k - sum_l p_l v_l)
  static void along(const T* u, const T*, const T* change, std::int64_t stride, std::int64_t count,
                    std::int64_t n_outputs, T, T* out) {
    for (std::int64_t i = 0; i < count; i += Vec<T>::size) {
      const Softmax s = softmax(u + i, stride, n_outputs);
      Vec<T> mean(0);
      for (std::int64_t k = 0; k < n_outputs; ++k) {
        const Vec<T> p = math::exp(Vec<T>::load(u + k * stride + i) - s.largest) / s.total;
        mean += p * Vec<T>::load(change + k * stride + i);
        p.store(out + k * stride + i);
      }
      for (std::int64_t at = i; at < n_outputs * stride; at += stride)
        (Vec<T>::load(out + at) * (Vec<T>::load(change + at) - mean)).store(out + at);
    }
  }
  // sum_k p_k log p_k with p = g + e_y on the simplex
  static double conjugate(const double* g, const double* y, std::int64_t n_outputs, double, double tolerance) {
    double sum = 0, total = 0;
    for (std::int64_t k = 0; k < n_outputs; ++k) {
      const double p = g[k] + (y[0] == static_cast<double>(k) ? 1.0 : 0.0);
      if (!(p >= -tolerance)) return infinity;
      sum += x_log_x(p);
      total += p;
    }
    return std::abs(total - 1) <= tolerance * static_cast<double>(n_outputs) ? sum : infinity;
  }
  // p = g + e_y solves p_k + a log p_k = p0_k + a u_k + a nu with the nu that makes the sum 1. Each p_k is convex and
  // increasing in nu, and x = log p_k solves e^x + a x = r, convex and increasing too: Newton from above goes down to
  // both without overshooting.
  static void dual_step(double* g, const double* u, const double* y, std::int64_t n_outputs, double, double a) {
    const auto right_side = [&](std::int64_t k) {
      return g[k] + (y[0] == static_cast<double>(k) ? 1.0 : 0.0) + a * u[k];
    };
    double largest = right_side(0);
    for (std::int64_t k = 1; k < n_outputs; ++k) largest = std::max(largest, right_side(k));
    double shift = 1 - largest;  // a nu; the largest p is 1 here, so the sum is at least 1
    const auto log_p = [&](double r) {
      double x = std::min(0.0, r / a);
      for (int step = 0; step < 100; ++step) {
        const double p = std::exp(x), next = x - (p + a * x - r) / (p + a);
        if (!(next < x)) break;
        x = next;
      }
      return x;
    };
    for (int step = 0; step < 100; ++step) {
      double sum = -1, slope = 0;
      for (std::int64_t k = 0; k < n_outputs; ++k) {
        const double p = std::exp(log_p(right_side(k) + shift));
        sum += p;
        slope += p / (p + a);
      }
      const double next = shift - sum / slope;
      if (!(sum > 1e-15) || !(next < shift)) break;
      shift = next;
    }
    for (std::int64_t k = 0; k < n_outputs; ++k)
      g[k] = std::exp(log_p(right_side(k) + shift)) - (y[0] == static_cast<double>(k) ? 1.0 : 0.0);
  }
};

template <class T, class... L>
constexpr auto loss_table(std::tuple<L...>*) {
  return std::array<LossKernel<T>, sizeof...(L)>{LossKernel<T>{&LossBlock<L, T>::value, &LossBlock<L, T>::derivative,
                                                               &LossBlock<L, T>::along, &LossBlock<L, T>::conjugate,
                                                               &LossBlock<L, T>::dual_step}...};
}
template <class... L>
constexpr auto loss_infos(std::tuple<L...>*) {
  return std::array<mfld_loss_info, sizeof...(L)>{L::info...};
}
template <class... L>
constexpr auto loss_smoothness(std::tuple<L...>*) {
  return std::array<double (*)(double), sizeof...(L)>{&L::smoothness...};
}

}  // namespace detail

template <class T>
inline constexpr auto loss_kernels = detail::loss_table<T>(static_cast<Losses*>(nullptr));
inline constexpr auto loss_infos = detail::loss_infos(static_cast<Losses*>(nullptr));
inline constexpr auto loss_smoothness = detail::loss_smoothness(static_cast<Losses*>(nullptr));

}  // namespace mfld
