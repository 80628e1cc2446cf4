// Kernel thinning: few points whose mean of k(x, .) is close to that of many.
//
// Halving (Dwivedi & Mackey 2021, "Kernel thinning"; 2022, "Generalized kernel thinning") goes through pairs of points.
// With psi the sum over the pairs so far of eps (k(x, .) - k(x', .)), a pair (x, x') gets a sign eps by chance, the
// more surely against alpha = psi(x) - psi(x') the larger that is; points with a + make one half, their partners the
// other. Compress (Shetty, Dwivedi & Mackey 2022, "Distribution compression in near-linear time") joins four sets that
// are compressed already and halves them, from small sets up. Refinement exchanges single points as long as that brings
// the means closer.
//
// psi is kept at all points that are still to come: a block of pairs is decided by one thread, then its part of psi is
// added for the points behind it, which threads share. Each point sees the same sums in the same order whatever their
// number. The sign of a pair is drawn for its first point and the level of the halving, where no other pair has it.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "entries.hpp"
#include "mfld/noise.hpp"
#include "mfld/panels.hpp"
#include "mfld/radial.hpp"
#include "mfld/team.hpp"

namespace mfld {
namespace {

constexpr std::int64_t block_pairs = 32;
constexpr std::int64_t chunk = 256;  // sources that are summed in the precision of the points; their sums in double
constexpr double work_of_pair = 12;  // multiply-adds that a value of a kernel costs, about

template <class T>
inline constexpr int tile = 4 * Vec<T>::size;

// Points by coordinates, in units of the kernel's length scales: [coordinate][point]. Behind the last are zeros, so
// that a tile may begin at any point.
template <class T>
struct Columns {
  Columns(std::int64_t capacity, std::int64_t p_)
      : p(p_), stride(round_up(capacity + tile<T>, tile<T>)), data(p_ * stride) {}
  const std::int64_t p, stride;
  std::int64_t n = 0;
  Buffer<T> data;

  // Of the points in `rows`, in their order.
  void gather(const T* points, const double* inverse_scales, const std::int64_t* rows, std::int64_t n_) {
    n = n_;
    for (std::int64_t c = 0; c < p; ++c) {
      T* const column = &data[c * stride];
      const T scale = static_cast<T>(inverse_scales[c]);
      for (std::int64_t i = 0; i < n; ++i) column[i] = points[rows[i] * p + c] * scale;
      std::fill(column + n, column + n + tile<T>, T(0));
    }
  }
};

template <class T>
struct KernelOf {
  explicit KernelOf(const mfld_pair_kernel& kernel) : id(kernel.id) {
    for (std::int64_t k = 0; k < kernel.n_coefficients; ++k)
      coefficients.push_back(static_cast<T>(kernel.coefficients[k]));
    numbers = {static_cast<T>(kernel.parameter), coefficients.data(), kernel.n_coefficients};
  }
  std::int32_t id;
  std::vector<T> coefficients;
  KernelNumbers<T> numbers;
};

template <class K, bool periodic>
struct OfPair {
  template <class T>
  static MFLD_INLINE Vec<T> start() {
    return Vec<T>(periodic ? T(1) : T(0));
  }
  template <class T>
  static MFLD_INLINE Vec<T> with(Vec<T> sum, Vec<T> difference, const KernelNumbers<T>& numbers) {
    if constexpr (periodic)
      return sum * K::at(difference, numbers).value;
    else
      return multiply_add(difference, difference, sum);
  }
  template <class T>
  static MFLD_INLINE Vec<T> value(Vec<T> sum, const KernelNumbers<T>& numbers) {
    if constexpr (periodic)
      return sum;
    else
      return K::at(sum, numbers).value;
  }
};

// sums_i += sum_j coefficients_j k(y_j, x_i) for targets i, over sources j of `from`; both arrays begin with their
// ranges.
template <class T>
using AddSums = void (*)(const Columns<T>& to, Range targets, const Columns<T>& from, Range sources,
                         const T* coefficients, const KernelNumbers<T>& numbers, double* sums);

// `n_coordinates`: as a constant where they fit registers, or 0.
template <class T, class Pair, int n_coordinates>
void add_sums_of(const Columns<T>& to, Range targets, const Columns<T>& from, Range sources, const T* coefficients,
                 const KernelNumbers<T>& numbers, double* sums) {
  using V = Vec<T>;
  constexpr int registers = tile<T> / V::size;
  const std::int64_t p = n_coordinates ? n_coordinates : to.p;
  for (std::int64_t first = targets.begin; first < targets.end; first += tile<T>) {
    const std::int64_t count = std::min<std::int64_t>(tile<T>, targets.end - first);
    for (std::int64_t begin = sources.begin; begin < sources.end; begin += chunk) {
      const std::int64_t end = std::min(sources.end, begin + chunk);
      V sum[registers];
      for (V& s : sum) s = V(0);
      for (std::int64_t j = begin; j < end; ++j) {
        V distance[registers];
        for (V& d : distance) d = Pair::template start<T>();
        for (std::int64_t c = 0; c < p; ++c) {
          const V source(from.data[c * from.stride + j]);
          const T* const at = &to.data[c * to.stride + first];
          for (int r = 0; r < registers; ++r)
            distance[r] = Pair::with(distance[r], V::load(at + r * V::size) - source, numbers);
        }
        const V coefficient(coefficients[j - sources.begin]);
        for (int r = 0; r < registers; ++r)
          sum[r] = multiply_add(coefficient, Pair::value(distance[r], numbers), sum[r]);
      }
      alignas(64) T out[tile<T>];
      for (int r = 0; r < registers; ++r) sum[r].store(out + r * V::size);
      for (std::int64_t i = 0; i < count; ++i) sums[first - targets.begin + i] += static_cast<double>(out[i]);
    }
  }
}

template <class T, class Pair>
AddSums<T> for_coordinates(std::int64_t p) {
  if (p == 1) return &add_sums_of<T, Pair, 1>;
  if (p == 2) return &add_sums_of<T, Pair, 2>;
  return &add_sums_of<T, Pair, 0>;
}

template <class T, class... R, class... P>
AddSums<T> chosen(std::int32_t id, std::int64_t p, KernelList<R...>*, KernelList<P...>*) {
  using Choice = AddSums<T> (*)(std::int64_t);
  constexpr Choice choices[] = {&for_coordinates<T, OfPair<R, false>>..., &for_coordinates<T, OfPair<P, true>>...};
  return choices[id](p);
}

template <class T>
AddSums<T> add_sums(std::int32_t id, std::int64_t p) {
  return chosen<T>(id, p, static_cast<RadialKernels*>(nullptr), static_cast<PeriodicKernels*>(nullptr));
}

// What all parts of a call share.
template <class T>
struct Problem {
  Problem(const mfld_pair_kernel& kernel_, const void* points_, std::int64_t p_, const mfld_noise& noise_)
      : scales(kernel_.inverse_scales),
        kernel(kernel_),
        points(static_cast<const T*>(points_)),
        p(p_),
        noise(noise_),
        add(add_sums<T>(kernel_.id, p_)) {}
  const double* const scales;
  const KernelOf<T> kernel;
  const T* const points;
  const std::int64_t p;
  const mfld_noise noise;
  const AddSums<T> add;

  void add_to(const Columns<T>& to, Range targets, const Columns<T>& from, Range sources, const T* coefficients,
              double* sums) const {
    add(to, targets, from, sources, coefficients, kernel.numbers, sums);
  }
  double uniform(std::int64_t row, int level) const {
    const PhiloxBlock words =
        philox4x32({static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(level) | MFLD_STREAM_THINNING << 24,
                    static_cast<std::uint32_t>(noise.step),
                    (static_cast<std::uint32_t>(noise.step >> 32) & 0xffffu) | noise.population << 16},
                   static_cast<std::uint32_t>(noise.key), static_cast<std::uint32_t>(noise.key >> 32));
    return unit_uniform<double>(words[0] | std::uint64_t{words[1]} << 32);
  }
};

double work_of_halving(std::int64_t n) { return work_of_pair * static_cast<double>(n) * static_cast<double>(n) / 2; }

// Share of the usual work for which a thread is worth waking: between threads that share their cores with others a
// barrier takes 10 us and more, and these parts have many of them.
constexpr double barriers_cost = 0.02;

// Threads for halvings of whole sets of `size`, which meet at every block of pairs where they share one.
int threads_for(const mfld_execution& execution, std::int64_t n_sets, std::int64_t size) {
  const double between = n_sets > 1 ? work_of_halving(size) * static_cast<double>(n_sets)
                                    : work_of_pair * static_cast<double>(block_pairs * size);
  return useful_threads(execution.num_threads, std::max(n_sets, size / (2 * block_pairs)), barriers_cost * between);
}

// Memory and state for halving sets of up to `capacity` points, one after the other.
template <class T>
class Halving {
 public:
  Halving(const Problem<T>& problem, std::int64_t capacity)
      : problem_(problem), points_(capacity, problem.p), psi_(points_.stride), signs_(capacity), spare_(capacity) {}

  // Reorders rows so that one half stands before the other; the length of the first, which is n / 2 or one more. All
  // members of a team call it together. After a stop the order is anything.
  std::int64_t halve(std::int64_t* rows, std::int64_t n, int level, int member, int members, SpinBarrier& barrier,
                     StopSignal& stop, bool asks) {
    if (member == 0) {
      points_.gather(problem_.points, problem_.scales, rows, n);
      std::fill(psi_.get(), psi_.get() + n, 0.0);
    }
    barrier.wait();
    const std::int64_t n_pairs = n / 2, n_blocks = ceil_div(n_pairs, block_pairs);
    for (std::int64_t b = 0; b < n_blocks; ++b) {
      const Range block = {2 * b * block_pairs, 2 * std::min(n_pairs, (b + 1) * block_pairs)};
      if (member == 0) {
        if (asks) stop.poll(work_of_pair * static_cast<double>(block.size() * (n - block.begin)));
        if (members > 1) stop.publish(b);
        decide(rows, block, level);
      }
      barrier.wait();
      if (members > 1 ? stop.stopped(b) : stop.aborting()) return 0;
      const Range later = {block.end, n}, own = even_part(later.size(), member, members);
      add(block, {later.begin + own.begin, later.begin + own.end});
      barrier.wait();
    }
    const std::int64_t size = n_pairs + (n % 2 ? psi_[n - 1] <= 0 : 0);
    if (member == 0) {
      for (std::int64_t i = 0; i < n_pairs; ++i) {
        const bool first = signs_[2 * i] > 0;
        spare_[i] = rows[2 * i + !first];
        spare_[size + i] = rows[2 * i + first];
      }
      if (n % 2) spare_[size > n_pairs ? n_pairs : n - 1] = rows[n - 1];
      std::copy_n(spare_.get(), n, rows);
    }
    barrier.wait();
    return size;
  }

 private:
  void add(Range sources, Range targets) {
    problem_.add_to(points_, targets, points_, sources, &signs_[sources.begin], psi_.get() + targets.begin);
  }

  // The signs of the pairs of a block, one after the other: + with probability (1 - alpha / |k(x, .) - k(x', .)|^2)
  // / 2. This is the smallest threshold that the papers allow. Theirs grows with log n for the sake of a bound;
  // measured, it leaves twice the error.
  void decide(const std::int64_t* rows, Range block, int level) {
    double first[2 * block_pairs], second[2 * block_pairs];  // the kernel from either of a pair, at all of the block
    for (std::int64_t i = block.begin; i < block.end; i += 2) {
      row(i, {i, block.end}, first);
      row(i + 1, {i, block.end}, second);
      // The kernels depend on the difference only, so that k(x, x) = k(x', x').
      const double square = 2 * (first[0] - first[1]);
      const double alpha = psi_[i] - psi_[i + 1];
      const double share = square > 0 ? 0.5 * (1 - alpha / square) : 0.5;
      const double sign = problem_.uniform(rows[i], level) < share ? 1 : -1;
      signs_[i] = static_cast<T>(sign);
      signs_[i + 1] = static_cast<T>(-sign);
      for (std::int64_t j = 2; j < block.end - i; ++j) psi_[i + j] += sign * (first[j] - second[j]);
    }
  }
  void row(std::int64_t source, Range targets, double* out) {
    const T one = 1;
    std::fill_n(out, targets.size(), 0.0);
    problem_.add_to(points_, targets, points_, {source, source + 1}, &one, out);
  }

  const Problem<T>& problem_;
  Columns<T> points_;
  Buffer<double> psi_;
  Buffer<T> signs_;
  Buffer<std::int64_t> spare_;
};

// Halves sets of consecutive rows, set i from begins[i] to begins[i + 1]; halves(i) is told the length of its first.
// Many sets: each by one thread, whichever is free. Few: one after the other, by all threads together.
template <class T, class Halves>
void halve_all(std::vector<Halving<T>>& of_members, std::int64_t* rows, const std::vector<std::int64_t>& begins,
               int level, StopSignal& stop, const Halves& halves) {
  const auto n_sets = static_cast<std::int64_t>(begins.size()) - 1;
  const auto members_at_most = static_cast<int>(of_members.size());
  const auto size = [&](std::int64_t i) { return begins[i + 1] - begins[i]; };
  if (n_sets >= 2 * members_at_most || members_at_most == 1) {
    std::atomic<std::int64_t> next{0};
    run_team(members_at_most, [&](int member, int, SpinBarrier&) {
      SpinBarrier alone(1);
      for (std::int64_t i = next++; i < n_sets && !stop.aborting(); i = next++)
        halves(i, of_members[member].halve(rows + begins[i], size(i), level, 0, 1, alone, stop, member == 0));
    });
    return;
  }
  for (std::int64_t i = 0; i < n_sets && !stop.aborting(); ++i)
    run_team(members_at_most, [&](int member, int members, SpinBarrier& barrier) {
      const std::int64_t first =
          of_members[0].halve(rows + begins[i], size(i), level, member, members, barrier, stop, true);
      if (member == 0) halves(i, first);
    });
}

template <class T>
std::vector<Halving<T>> halvings(const Problem<T>& problem, std::int64_t capacity, int threads) {
  std::vector<Halving<T>> of_members;
  for (int member = 0; member < threads; ++member) of_members.emplace_back(problem, capacity);
  return of_members;
}

// Discrepancies of subsets of a set from all of it, and their improvement by exchanges.
template <class T>
class Refinement {
 public:
  Refinement(const Problem<T>& problem, const std::int64_t* rows, std::int64_t n, int num_threads)
      : problem_(problem),
        n_(n),
        num_threads_(num_threads),
        sweep_threads_(
            useful_threads(num_threads, ceil_div(n, tile<T>), barriers_cost * work_of_pair * static_cast<double>(n))),
        points_(n, problem.p),
        mean_(n),
        own_(n),
        row_(n),
        coefficients_(n),
        found_(num_threads) {
    points_.gather(problem.points, problem.scales, rows, n);
    std::fill_n(coefficients_.get(), n, static_cast<T>(1 / static_cast<double>(n)));
  }

  // mean k(x_i, x_j) over all i, at each j
  void mean(StopSignal& stop) { sums({0, n_}, {0, n_}, mean_.get(), stop); }

  // |mean over a range - mean over all|^2, less what is the same for all subsets
  double discrepancy(Range part, StopSignal& stop) {
    sums(part, part, own_.get(), stop);
    double sum = 0;
    for (std::int64_t j = part.begin; j < part.end; ++j)
      sum += own_[j] * static_cast<double>(n_) / static_cast<double>(part.size()) - 2 * mean_[j];
    return sum / static_cast<double>(part.size());
  }

  // Exchanges each of the chosen points, places in rows, for the point of all others that brings the means closest.
  // Returns how many were exchanged.
  std::int64_t sweep(std::int64_t* chosen, std::int64_t size, std::vector<char>& is_chosen, StopSignal& stop) {
    std::int64_t changes = 0;
    const double each = 1 / static_cast<double>(size);
    double largest = 0;
    for (std::int64_t j = 0; j < n_; ++j) largest = std::max(largest, std::abs(mean_[j]));
    // What rounding of the kernel's values can make of nothing.
    const double margin = 8 * static_cast<double>(std::numeric_limits<T>::epsilon()) * largest;
    double* const field = own_.get();  // mean of k(z, x_j) over the chosen z
    std::fill_n(field, n_, 0.0);
    for (std::int64_t i = 0; i < size; ++i) add(chosen[i], each, {0, n_}, field);
    run_team(sweep_threads_, [&](int member, int members, SpinBarrier& barrier) {
      const Range own = even_part(n_, member, members);
      for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t z = chosen[i];
        std::fill(&row_[own.begin], &row_[own.begin] + own.size(), 0.0);
        add(z, each, own, row_.get());
        Best best = {n_, std::numeric_limits<double>::infinity(), 0};
        for (std::int64_t y = own.begin; y < own.end; ++y) {
          const double score = field[y] - row_[y] - mean_[y];
          if (y == z) best.present = score;
          if (!is_chosen[y] && score < best.score) best = {y, score, best.present};
        }
        best.has_present = z >= own.begin && z < own.end;
        found_[member] = best;
        if (member == 0) {
          stop.poll(2 * work_of_pair * static_cast<double>(n_));
          stop.publish(i);
        }
        barrier.wait();
        if (stop.stopped(i)) return;
        Best all = found_[0];
        double present = 0;
        for (int m = 0; m < members; ++m) {
          if (found_[m].score < all.score) all = found_[m];
          if (found_[m].has_present) present = found_[m].present;
        }
        const bool better = all.score < present - margin;
        if (better) {
          for (std::int64_t y = own.begin; y < own.end; ++y) field[y] -= row_[y];
          add(all.place, each, own, field);
        }
        barrier.wait();
        if (better && member == 0) {
          is_chosen[z] = 0;
          is_chosen[all.place] = 1;
          chosen[i] = all.place;
          ++changes;
        }
        barrier.wait();
      }
    });
    return changes;
  }

 private:
  struct Best {
    std::int64_t place;
    double score, present;
    bool has_present = false;
  };

  void sums(Range sources, Range targets, double* out, StopSignal& stop) {
    const std::int64_t n_tiles = ceil_div(targets.size(), tile<T>);
    const double work = barriers_cost * work_of_pair * static_cast<double>(sources.size() * targets.size());
    run_team(useful_threads(num_threads_, n_tiles, work), [&](int member, int members, SpinBarrier&) {
      const Range own = even_part(n_tiles, member, members);
      for (std::int64_t t = own.begin; t < own.end; ++t) {
        if (member == 0) stop.poll(work_of_pair * static_cast<double>(sources.size() * tile<T>));
        if (stop.aborting()) return;
        const Range at = {targets.begin + t * tile<T>, std::min(targets.end, targets.begin + (t + 1) * tile<T>)};
        std::fill(out + at.begin, out + at.end, 0.0);
        problem_.add_to(points_, at, points_, sources, coefficients_.get(), out + at.begin);
      }
    });
  }
  void add(std::int64_t source, double coefficient, Range targets, double* out) {
    const T as_is = static_cast<T>(coefficient);
    problem_.add_to(points_, targets, points_, {source, source + 1}, &as_is, out + targets.begin);
  }

  const Problem<T>& problem_;
  const std::int64_t n_;
  const int num_threads_, sweep_threads_;
  Columns<T> points_;
  Buffer<double> mean_, own_, row_;
  Buffer<T> coefficients_;
  std::vector<Best> found_;
};

}  // namespace

// Reorders rows (n) into 2^levels parts of n / 2^levels, some of one more; ends (2^levels).
template <class T>
int split(const mfld_pair_kernel* kernel, const void* points, std::int64_t p, std::int64_t* rows, std::int64_t n,
          std::int32_t levels, std::int32_t first_level, const mfld_noise* noise, std::int64_t* ends,
          const mfld_execution* execution) {
  return guarded([&] {
    const Problem<T> problem(*kernel, points, p, *noise);
    StopSignal stop(*execution);
    auto of_members = halvings(problem, n, threads_for(*execution, 1, n));
    std::vector<std::int64_t> begins = {0, n};
    for (std::int32_t level = 0; level < levels; ++level) {
      std::vector<std::int64_t> halves(2 * begins.size() - 1);
      for (std::size_t i = 0; i < begins.size(); ++i) halves[2 * i] = begins[i];
      halve_all(of_members, rows, begins, first_level + level, stop,
                [&](std::int64_t i, std::int64_t size) { halves[2 * i + 1] = begins[i] + size; });
      if (stop.aborting()) return MFLD_STOPPED;
      begins = std::move(halves);
    }
    std::copy(begins.begin() + 1, begins.end(), ends);
    return MFLD_DONE;
  });
}

// Keeps size * 2^levels of the size * 4^levels rows, in front.
template <class T>
int compress(const mfld_pair_kernel* kernel, const void* points, std::int64_t p, std::int64_t* rows, std::int64_t size,
             std::int32_t levels, const mfld_noise* noise, const mfld_execution* execution) {
  return guarded([&] {
    const Problem<T> problem(*kernel, points, p, *noise);
    StopSignal stop(*execution);
    std::int64_t n_sets = std::int64_t{1} << 2 * levels;
    auto of_members = halvings(problem, (size << levels) * 2, threads_for(*execution, n_sets, 4 * size));
    for (std::int32_t level = 0; level < levels; ++level) {
      const std::int64_t joined = (size << level) * 4;
      n_sets /= 4;
      std::vector<std::int64_t> begins(n_sets + 1);
      for (std::int64_t i = 0; i <= n_sets; ++i) begins[i] = i * joined;
      halve_all(of_members, rows, begins, level, stop, [](std::int64_t, std::int64_t) {});
      if (stop.aborting()) return MFLD_STOPPED;
      for (std::int64_t i = 0; i < n_sets; ++i) std::copy_n(rows + i * joined, joined / 2, rows + i * (joined / 2));
    }
    return MFLD_DONE;
  });
}

// Of the parts of rows (n) that end at `ends`, the one whose mean is closest to that of all, after up to n_sweeps of
// exchanges: its rows to `chosen`, room for the largest, their number to n_chosen.
template <class T>
int refine(const mfld_pair_kernel* kernel, const void* points, std::int64_t p, const std::int64_t* rows, std::int64_t n,
           const std::int64_t* ends, std::int64_t n_parts, std::int32_t n_sweeps, std::int64_t* chosen,
           std::int64_t* n_chosen, const mfld_execution* execution) {
  return guarded([&] {
    constexpr mfld_noise nowhere = {};
    const Problem<T> problem(*kernel, points, p, nowhere);
    StopSignal stop(*execution);
    Refinement<T> refinement(problem, rows, n, execution->num_threads);
    std::vector<char> is_chosen(n);
    refinement.mean(stop);
    Range best = {0, 0};
    double least = std::numeric_limits<double>::infinity();
    for (std::int64_t q = 0; q < n_parts && !stop.aborting(); ++q) {
      const Range part = {q ? ends[q - 1] : 0, ends[q]};
      const double discrepancy = refinement.discrepancy(part, stop);
      if (discrepancy < least || q == 0) {
        least = discrepancy;
        best = part;
      }
    }
    for (std::int64_t i = 0; i < best.size(); ++i) {
      chosen[i] = best.begin + i;
      is_chosen[best.begin + i] = 1;
    }
    for (std::int32_t s = 0; s < n_sweeps && !stop.aborting(); ++s)
      if (refinement.sweep(chosen, best.size(), is_chosen, stop) == 0) break;
    if (stop.aborting()) return MFLD_STOPPED;
    for (std::int64_t i = 0; i < best.size(); ++i) chosen[i] = rows[chosen[i]];
    *n_chosen = best.size();
    return MFLD_DONE;
  });
}

#define MFLD_INSTANTIATE(T)                                                                                            \
  template int split<T>(const mfld_pair_kernel*, const void*, std::int64_t, std::int64_t*, std::int64_t, std::int32_t, \
                        std::int32_t, const mfld_noise*, std::int64_t*, const mfld_execution*);                        \
  template int compress<T>(const mfld_pair_kernel*, const void*, std::int64_t, std::int64_t*, std::int64_t,            \
                           std::int32_t, const mfld_noise*, const mfld_execution*);                                    \
  template int refine<T>(const mfld_pair_kernel*, const void*, std::int64_t, const std::int64_t*, std::int64_t,        \
                         const std::int64_t*, std::int64_t, std::int32_t, std::int64_t*, std::int64_t*,                \
                         const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
