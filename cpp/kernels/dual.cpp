// Dual coordinate ascent on a weighted cloud: one row of samples after the other.
//
//   u         = sum_m r_m h_i(theta_m) / sum_m r_m
//   g_i'      = argmin_q conjugate_i(q) - u (q - g_i) + (q - g_i)^2 / (2 a_i),   a_i = temperature / (s_i var)
//   log r_m  -= s_i h_i(theta_m) (g_i' - g_i) / temperature
//
// with var = variance_bound.
//
// The neurons of the next block of rows come from one product while the current block is swept. In a block the weights
// are multiplied from visit to visit; from block to block they are made anew from the float64 log-weights, which see
// every change of the dual variables, so that nothing drifts. Particles are cut into chunks, a function of the problem
// alone, and the sums over chunks have a fixed order: the number of threads does not change a bit. Ranks share the
// chunks of many particles, and give each other the sums of theirs at every visit; dual variables all have, and make
// the same steps of.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "entries.hpp"
#include "mfld/losses.hpp"
#include "mfld/math.hpp"
#include "mfld/ranks.hpp"
#include "mfld/team.hpp"
#include "network.hpp"

namespace mfld {
namespace {

// Of `count` numbers, a multiple of the register's size.
MFLD_INLINE double largest_of(const double* x, std::int64_t count) {
  using V = Vec<double>;
  V top = V::load(x);
  for (std::int64_t i = V::size; i < count; i += V::size) top = max(top, V::load(x + i));
  double out = top[0];
  for (int lane = 1; lane < V::size; ++lane) out = std::max(out, top[lane]);
  return out;
}

template <class T, int by, std::size_t... l>
MFLD_INLINE Vec<T> rotated(Vec<T> v, std::index_sequence<l...>) {
  constexpr auto n = static_cast<int>(sizeof...(l));
  return Vec<T>(typename Vec<T>::Raw(__builtin_shufflevector(v.raw, v.raw, ((static_cast<int>(l) + by) % n)...)));
}

template <class T, int by = Vec<T>::size / 2>
MFLD_INLINE T sum_of_lanes(Vec<T> v) {
  if constexpr (by == 0)
    return v[0];
  else
    return sum_of_lanes<T, by / 2>(v + rotated<T, by>(v, std::make_index_sequence<Vec<T>::size>()));
}

// w e^x. `near`: for |x| <= near_zero, by the series of e^x - 1, which keeps the digits of w and costs half as much.
template <class T>
inline constexpr T near_zero = T(1) / 32;

template <bool near, class T>
MFLD_INLINE Vec<T> multiplied_by_exp(Vec<T> w, Vec<T> x) {
  if constexpr (!near) return w * math::exp(x);
  Vec<T> series;
  if constexpr (sizeof(T) == 4) {  // next term: x^4 / 24, 4e-8
    series = multiply_add(x, multiply_add(x, Vec<T>(T(1) / 6), Vec<T>(T(1) / 2)), Vec<T>(1));
  } else {  // x^8 / 40320, 2e-17
    series = Vec<T>(T(1) / 5040);
    for (const int factorial : {720, 120, 24, 6, 2, 1}) series = multiply_add(x, series, Vec<T>(T(1) / factorial));
  }
  return multiply_add(w * x, series, w);
}

// Sums over a chunk: of w, of its square, and of w h_k.
constexpr std::int64_t n_own_sums = 2;

// w *= exp(change h), then the sums with the next h; `count` is a multiple of two registers.
template <bool near, class T>
void reweigh_one(const T* h, T change, const T* next, std::int64_t count, T* w, double* sums) {
  using V = Vec<T>;
  const V c(change);
  V w0(0), w1(0), q0(0), q1(0), s0(0), s1(0);
  for (std::int64_t m = 0; m < count; m += 2 * V::size) {
    const std::int64_t n = m + V::size;
    const V e0 = multiplied_by_exp<near>(V::load(w + m), c * V::load(h + m));
    const V e1 = multiplied_by_exp<near>(V::load(w + n), c * V::load(h + n));
    e0.store(w + m);
    e1.store(w + n);
    w0 += e0;
    w1 += e1;
    q0 = multiply_add(e0, e0, q0);
    q1 = multiply_add(e1, e1, q1);
    s0 = multiply_add(e0, V::load(next + m), s0);
    s1 = multiply_add(e1, V::load(next + n), s1);
  }
  sums[0] = sum_of_lanes(w0 + w1);
  sums[1] = sum_of_lanes(q0 + q1);
  sums[2] = sum_of_lanes(s0 + s1);
}

// The same for `width` coordinates at once; h_k stands at h + k * stride.
template <bool near, class T>
void reweigh(const T* h, const T* change, const T* next, std::int64_t width, std::int64_t stride, std::int64_t count,
             T* w, double* sums) {
  using V = Vec<T>;
  if (width == 1) return reweigh_one<near>(h, change[0], next, count, w, sums);
  V total(0), square(0);
  for (std::int64_t m = 0; m < count; m += V::size) {
    V x(0);
    for (std::int64_t k = 0; k < width; ++k) x = multiply_add(V(change[k]), V::load(h + k * stride + m), x);
    const V e = multiplied_by_exp<near>(V::load(w + m), x);
    e.store(w + m);
    total += e;
    square = multiply_add(e, e, square);
  }
  sums[0] = sum_of_lanes(total);
  sums[1] = sum_of_lanes(square);
  for (std::int64_t k = 0; k < width; ++k) {
    V sum(0);
    for (std::int64_t m = 0; m < count; m += V::size)
      sum = multiply_add(V::load(w + m), V::load(next + k * stride + m), sum);
    sums[n_own_sums + k] = sum_of_lanes(sum);
  }
}

template <class T>
MFLD_INLINE Vec<double> load_double(const T* p) {
  typedef T Part __attribute__((vector_size(Vec<double>::size * sizeof(T)), aligned(alignof(T)), may_alias));
  return Vec<double>(__builtin_convertvector(*reinterpret_cast<const Part*>(p), Vec<double>::Raw));
}

// log_weights += sum_j changes_j h_j over `rows` rows, `stride` apart
template <int rows, class T>
void add_rows(const T* h, std::int64_t stride, const double* changes, std::int64_t count, double* log_weights) {
  using V = Vec<double>;
  V c[rows];
  for (int j = 0; j < rows; ++j) c[j] = V(changes[j]);
  for (std::int64_t m = 0; m < count; m += V::size) {
    V sum = V::load(log_weights + m);
#pragma GCC unroll 8
    for (int j = 0; j < rows; ++j) sum = multiply_add(c[j], load_double(h + j * stride + m), sum);
    sum.store(log_weights + m);
  }
}

// The same over n_rows, several at once, to spare memory.
template <class T>
void add_exactly(const T* h, std::int64_t stride, const double* changes, std::int64_t n_rows, std::int64_t count,
                 double* log_weights) {
  std::int64_t j = 0;
  for (; j + 8 <= n_rows; j += 8) add_rows<8>(h + j * stride, stride, changes + j, count, log_weights);
  for (; j + 4 <= n_rows; j += 4) add_rows<4>(h + j * stride, stride, changes + j, count, log_weights);
  for (; j < n_rows; ++j) add_rows<1>(h + j * stride, stride, changes + j, count, log_weights);
}

// out = coefficient value + offset for a panel's rows, `stride` apart in `out`
template <class T>
void scale_panel(const T* coefficient, const T* offset, const T* values, std::int64_t n_rows, std::int64_t stride,
                 T* out) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  const V c0 = V::load(coefficient), c1 = V::load(coefficient + V::size);
  const V o0 = V::load(offset), o1 = V::load(offset + V::size);
  for (std::int64_t i = 0; i < n_rows; ++i) {
    multiply_add(c0, V::load(values + i * lanes), o0).store(out + i * stride);
    multiply_add(c1, V::load(values + i * lanes + V::size), o1).store(out + i * stride + V::size);
  }
}

struct Chunk {
  Range slots;
  std::int64_t group;
};

// A slot is the place of a particle: groups are padded to whole panels.
template <class T>
struct Slots {
  static constexpr std::int64_t most_panels = 32;
  std::vector<Chunk> chunks;
  std::vector<Range> groups;  // slots of each group's particles
  std::vector<Range> panels;  // particles of each panel
  std::int64_t count = 0, n_particles = 0;

  Slots(const std::int64_t* group_sizes, std::int64_t n_groups) {
    constexpr std::int64_t longest = most_panels * panel_lanes<T>;
    for (std::int64_t g = 0; g < n_groups; ++g) {
      groups.push_back({count, count + group_sizes[g]});
      const std::int64_t end = count + round_up(group_sizes[g], panel_lanes<T>);
      for (; count < end; count = std::min(end, count + longest))
        chunks.push_back({{count, std::min(end, count + longest)}, g});
      for (std::int64_t i = 0; i < group_sizes[g]; i += panel_lanes<T>)
        panels.push_back({n_particles + i, n_particles + std::min<std::int64_t>(group_sizes[g], i + panel_lanes<T>)});
      n_particles += group_sizes[g];
    }
  }
  // Calls body(first particle, slots) for each group.
  template <class Body>
  void each(const Body& body) const {
    std::int64_t first = 0;
    for (const Range slots_of_group : groups) {
      body(first, slots_of_group);
      first += slots_of_group.size();
    }
  }
};

template <class T>
class DualSweep {
 public:
  DualSweep(const mfld_network& description, const mfld_loss& loss, const mfld_samples& samples, const T* particles,
            mfld_dual_sweep& sweep, const mfld_execution& execution)
      : network_(description),
        loss_(loss),
        samples_(samples),
        sweep_(sweep),
        particles_(particles),
        ranks_(execution),
        slots_(sweep.groups, sweep.n_groups),
        outputs_(network_.n_outputs),
        n_chunks_(static_cast<std::int64_t>(slots_.chunks.size())),
        shared_(ranks_.several() && visit_work(slots_.count) >= work_per_rank * static_cast<double>(ranks_.count())),
        own_chunks_(chunks_of(ranks_.rank())),
        own_(slots_of(ranks_.rank())),
        layout_(own_.size(), network_.n_coordinates()),
        stride_(stride_of(own_.size())),
        coupled_(loss_infos[loss.id].targets == MFLD_TARGETS_CLASS),
        width_(coupled_ ? outputs_ : 1),
        visits_per_row_(coupled_ ? 1 : outputs_),
        rows_per_block_(std::clamp<std::int64_t>(
            (1 << 19) / (outputs_ * stride_of(slots_.count) * static_cast<std::int64_t>(sizeof(T))) / 4 * 4, 8, 64)),
        n_blocks_(ceil_div(sweep.n_rows, rows_per_block_)),
        n_sums_(n_own_sums + width_),
        panels_(layout_.n_panels * layout_.panel_size()),
        terms_(2 * layout_.n_panels * outputs_ * lanes),
        neurons_(2 * rows_per_block_ * outputs_ * stride_),
        weights_(own_.size()),
        log_weights_(slots_.count),
        sums_(2 * n_chunks_ * n_sums_),
        largest_(n_chunks_),
        messages_(shared_ ? ranks_.count() * message_size(n_sums_) : 0),
        stop_(execution) {
    std::fill_n(log_weights_.get(), slots_.count, -infinity);
    slots_.each([&](std::int64_t first, Range at) {
      std::copy_n(sweep.log_weights + first, at.size(), &log_weights_[at.begin]);
    });
  }

  int run(const mfld_execution& execution) {
    const int threads = useful_threads(execution.num_threads, layout_.n_panels, filling_work(own_.size()));
    std::vector<Memory> memories(threads, Memory(*this));
    // Fewer threads than asked for may come, and each of them sweep.
    bool copied = true;
    for (int member = 0; member < std::max(1, sweepers_at_most(threads)); ++member)
      copied = copied && copy_dual(memories[member]);
    if (ranks_.any(!copied)) return MFLD_STOPPED;

    run_team(threads, [&](int member, int members, SpinBarrier& barrier) {
      Member me(*this, memories[member], member, members, barrier);
      // Ranks that share a sweep stop together, where their sums meet.
      me.fill(0);
      if (me.meet() && !shared_) return;
      for (std::int64_t b = 0; b < n_blocks_; ++b) {
        if (member == 0) next_panel_[b & 1].store(0, std::memory_order_relaxed);
        if (member < me.sweepers) me.sweep(b);
        if (b + 1 < n_blocks_) me.fill(b + 1);
        if ((me.meet() && !shared_) || ended_[b & 1]) return;
      }
    });
    if (shared_) ranks_.gather(log_weights_.get(), [this](std::int64_t rank) { return slots_of(rank); });
    std::copy(memories[0].dual.begin(), memories[0].dual.end(), sweep_.dual);
    slots_.each([&](std::int64_t first, Range at) {
      std::copy_n(&log_weights_[at.begin], at.size(), sweep_.log_weights + first);
    });
    return ranks_.any(stop_.aborting()) || ranks_.failed() ? MFLD_STOPPED : MFLD_DONE;
  }

 private:
  static constexpr int lanes = panel_lanes<T>;
  static constexpr std::int64_t values_per_line = 64 / sizeof(T);
  // Of one neuron, in multiply-adds that take as long (measured, Zen 4).
  static constexpr std::int64_t work_of_activation = 16, work_of_sweep = 16;
  // Sweeping over them takes about half a microsecond, ten times as long as a barrier of two threads (measured, Zen 4).
  static constexpr std::int64_t slots_per_sweeper = 2048;
  // What a rank does of a visit takes five times as long as a message through shared memory, and as long as one over
  // Ethernet (measured, Zen 4): with less, each makes the sweep by itself.
  static constexpr double work_per_rank = 1e6;
  // In a block the logarithms of weights move by less than the second from where they started, and those that started
  // below the first count as none: what is left out stays below e^(32 - 60) of the largest weight, and no weight that
  // counts becomes subnormal.
  static constexpr T smallest_log = sizeof(T) == 4 ? -60 : -600;
  static constexpr double farthest_from_exact = 16;

  // What one thread works in, made before the threads are; the dual variables are those of a thread that sweeps.
  struct Memory {
    std::vector<T> values, rows, change;
    std::vector<double> changes, largest, totals, means, target, dual;

    explicit Memory(const DualSweep& sweep)
        : values(2 * sweep.rows_per_block_ * lanes),
          rows(sweep.rows_per_block_ * sweep.network_.n_features),
          change(sweep.width_),
          changes(sweep.rows_per_block_ * sweep.outputs_),
          largest(sweep.slots_.groups.size()),
          totals(sweep.slots_.groups.size() * sweep.n_sums_),
          means(sweep.outputs_),
          target(sweep.outputs_) {}
  };

  // False: stopped on the way.
  bool copy_dual(Memory& memory) {
    constexpr std::int64_t at_once = 1 << 20;
    const std::int64_t size = samples_.n_samples * outputs_;
    memory.dual.reserve(size);
    for (std::int64_t first = 0; first < size; first += at_once) {
      const std::int64_t end = std::min(size, first + at_once);
      if (stop_.asked(end - first)) return false;
      memory.dual.insert(memory.dual.end(), sweep_.dual + first, sweep_.dual + end);
    }
    return true;
  }

  // One thread at work.
  struct Member {
    DualSweep& all;
    Memory& own;
    const int sweepers;
    const std::int64_t member;
    SpinBarrier& barrier;
    const Range chunks;
    std::int64_t turn = 0, meetings = 0;
    double moved = 0;  // of the logarithms of weights since they were made anew, at most
    bool stopped = false;

    Member(DualSweep& sweep, Memory& memory, int member_, int members, SpinBarrier& barrier_)
        : all(sweep),
          own(memory),
          sweepers(sweep.sweepers(members)),
          member(member_),
          barrier(barrier_),
          chunks(member_ < sweepers ? sweep.part_of_chunks(member_, sweepers) : Range{0, 0}) {}

    // A barrier of all members: the same at all of them is whether to stop behind it.
    bool meet() {
      if (member == 0) all.stop_.publish(meetings);
      barrier.wait();
      return stopped = all.stop_.stopped(meetings++);
    }
    // Of those that sweep, who are all members or one: behind it all have the numbers of all chunks, `each` of one.
    void meet_sweepers(double* of_chunks, std::int64_t each) {
      if (all.shared_) {
        if (sweepers > 1) barrier.wait();
        if (member == 0 && all.meet_ranks(of_chunks, each)) all.stop_.publish_stop(meetings);
      }
      if (sweepers > 1)
        meet();
      else
        stopped = all.stop_.aborting();
    }

    // Neurons of a block of rows: of the own slots, or of the next panel that none has taken.
    void fill(std::int64_t block) {
      const Range visits = all.rows_of(block);
      const auto* z = static_cast<const T*>(all.samples_.inputs);
      const std::int64_t d = all.network_.n_features;
      for (std::int64_t t = visits.begin; t < visits.end; ++t)
        std::copy_n(z + all.sweep_.rows[t] * d, d, &own.rows[(t - visits.begin) * d]);
      const auto panel = [&](std::int64_t p) {
        if (member == 0) all.stop_.poll(all.filling_work(lanes));
        if (!all.stop_.aborting()) all.fill_panel(block, p, own.rows.data(), own.values.data());
      };
      if (sweepers > 1) {
        each_chunk([&](std::int64_t, Range at) {
          for (std::int64_t p = at.begin / lanes; p < at.end / lanes; ++p) panel(p);
        });
        return;
      }
      std::atomic<std::int64_t>& next = all.next_panel_[block & 1];
      for (std::int64_t p; (p = next.fetch_add(1, std::memory_order_relaxed)) < all.layout_.n_panels;) panel(p);
    }

    template <class Body>
    void each_chunk(const Body& body) {
      for (std::int64_t i = chunks.begin; i < chunks.end; ++i) {
        const Range at = all.slots_.chunks[i].slots;
        body(i, Range{at.begin - all.own_.begin, at.end - all.own_.begin});
      }
    }

    double* sums(std::int64_t chunk) { return &all.sums_[((turn & 1) * all.n_chunks_ + chunk) * all.n_sums_]; }

    // Weights of the block, from the float64 log-weights, relative to the largest of the group; and sums for visit j.
    void start_from_exact(std::int64_t block, std::int64_t j) {
      each_chunk([&](std::int64_t i, Range at) { all.largest_[i] = largest_of(all.exact(at.begin), at.size()); });
      meet_sweepers(all.largest_.get(), 1);
      std::fill(own.largest.begin(), own.largest.end(), -infinity);
      for (std::int64_t i = 0; i < all.n_chunks_; ++i) {
        double& of_group = own.largest[all.slots_.chunks[i].group];
        of_group = std::max(of_group, all.largest_[i]);
      }
      ++turn;
      moved = 0;
      std::fill(own.change.begin(), own.change.end(), T(0));
      each_chunk([&](std::int64_t i, Range at) {
        const double shift = own.largest[all.slots_.chunks[i].group];
        for (std::int64_t m = at.begin; m < at.end; ++m)
          all.weights_[m] = static_cast<T>(std::max(*all.exact(m) - shift, 2.0 * smallest_log));
        for (std::int64_t m = at.begin; m < at.end; m += Vec<T>::size) {
          const auto l = Vec<T>::load(&all.weights_[m]);
          select(l > Vec<T>(smallest_log), math::exp_not_positive(l), Vec<T>(0)).store(&all.weights_[m]);
        }
        pass<true>(block, j, j, i, at);
      });
      meet_sweepers(sums(0), all.n_sums_);
    }

    // Applies the change to visit j's neurons and sums for visit `next`.
    template <bool near>
    void pass(std::int64_t block, std::int64_t j, std::int64_t next, std::int64_t chunk, Range at) {
      reweigh<near>(all.neurons_of(block, j) + at.begin, own.change.data(), all.neurons_of(block, next) + at.begin,
                    all.width_, all.stride_, at.size(), &all.weights_[at.begin], sums(chunk));
    }

    // Brings the changes of visits first .. last - 1 to the float64 log-weights.
    void keep(std::int64_t block, std::int64_t first, std::int64_t last) {
      each_chunk([&](std::int64_t, Range at) {
        add_exactly(all.neurons_of(block, first) + at.begin, all.stride_, &own.changes[first * all.width_],
                    (last - first) * all.width_, at.size(), all.exact(at.begin));
      });
    }

    // Predictions of the visit into means; returns the smallest share of effective particles.
    double look() {
      const auto n_groups = static_cast<std::int64_t>(all.slots_.groups.size());
      std::fill(own.totals.begin(), own.totals.end(), 0.0);
      for (std::int64_t i = 0; i < all.n_chunks_; ++i)
        for (std::int64_t q = 0; q < all.n_sums_; ++q)
          own.totals[all.slots_.chunks[i].group * all.n_sums_ + q] += sums(i)[q];
      double effective = infinity;
      std::fill(own.means.begin(), own.means.end(), 0.0);
      for (std::int64_t g = 0; g < n_groups; ++g) {
        const double* total = &own.totals[g * all.n_sums_];
        const auto size = static_cast<double>(all.slots_.groups[g].size());
        effective = std::min(effective, total[0] * total[0] / (total[1] * size));
        const double share = size / (static_cast<double>(all.slots_.n_particles) * total[0]);
        for (std::int64_t k = 0; k < all.width_; ++k) own.means[k] += share * total[n_own_sums + k];
      }
      return effective;
    }

    void sweep(std::int64_t block) {
      const double visit_work = static_cast<double>(work_of_sweep * (chunk_slots() + all.n_chunks_) * all.width_);
      const Range visits = all.rows_of(block);
      const std::int64_t n_visits = visits.size() * all.visits_per_row_;
      std::int64_t kept = 0, j = 0;
      start_from_exact(block, 0);
      for (; j < n_visits; ++j) {
        const double effective = look();
        const bool row_starts = j % all.visits_per_row_ == 0;
        const std::int64_t visit = visits.begin + j / all.visits_per_row_;
        if (row_starts && (stopped || effective < all.sweep_.effective_sample_size)) break;
        if (member == 0) all.stop_.poll(visit_work);
        double* exact = &own.changes[j * all.width_];
        all.step(all.sweep_.rows[visit], j % all.visits_per_row_, own.means.data(), own.target.data(), own.dual.data(),
                 exact);
        if (j + 1 == n_visits) {
          ++j;
          break;
        }
        double farthest = 0;
        for (std::int64_t k = 0; k < all.width_; ++k) farthest += std::abs(exact[k]) * all.sweep_.neuron_bound;
        moved += farthest;
        if (moved > farthest_from_exact) {
          keep(block, kept, j + 1);
          kept = j + 1;
          start_from_exact(block, j + 1);
          continue;
        }
        std::copy_n(exact, all.width_, own.change.begin());
        ++turn;
        each_chunk([&](std::int64_t i, Range at) {
          farthest <= near_zero<T> ? pass<true>(block, j, j + 1, i, at) : pass<false>(block, j, j + 1, i, at);
        });
        meet_sweepers(sums(0), all.n_sums_);
      }
      keep(block, kept, j);
      if (member > 0) return;
      all.sweep_.rows_done = visits.begin + j / all.visits_per_row_;
      all.ended_[block & 1] = j < n_visits;
    }
    std::int64_t chunk_slots() const {
      return chunks.size() == 0
                 ? 0
                 : all.slots_.chunks[chunks.end - 1].slots.end - all.slots_.chunks[chunks.begin].slots.begin;
    }
  };

  // Of many slots each thread fills and sweeps its own, which stay in its cache, and meets the others at every visit.
  // Of few, one thread sweeps what the others fill, and they meet once a block.
  int sweepers(int members) const { return own_.size() >= slots_per_sweeper * members ? members : 1; }
  int sweepers_at_most(int members) const {
    return static_cast<int>(std::min<std::int64_t>(members, own_.size() / slots_per_sweeper));
  }
  // Of a row, and of a block of them.
  double visit_work(std::int64_t slots) const {
    return static_cast<double>(slots) *
           static_cast<double>(network_.n_features + work_of_activation + work_of_sweep * outputs_);
  }
  double filling_work(std::int64_t slots) const { return static_cast<double>(rows_per_block_) * visit_work(slots); }
  // An odd number of cache lines: rows a power of two apart would share the few lines of one cache set.
  static std::int64_t stride_of(std::int64_t slots) { return (ceil_div(slots, values_per_line) | 1) * values_per_line; }

  Range chunks_of(std::int64_t rank) const {
    return shared_ ? even_part(n_chunks_, rank, ranks_.count()) : Range{0, n_chunks_};
  }
  Range slots_of(std::int64_t rank) const {
    const Range chunks = chunks_of(rank);
    return {slots_.chunks[chunks.begin].slots.begin, slots_.chunks[chunks.end - 1].slots.end};
  }
  Range part_of_chunks(std::int64_t member, std::int64_t members) const {
    const Range part = even_part(own_chunks_.size(), member, members);
    return {own_chunks_.begin + part.begin, own_chunks_.begin + part.end};
  }
  // Exact logarithm of the weight of an own slot.
  double* exact(std::int64_t slot) const { return &log_weights_[own_.begin + slot]; }

  // Numbers of a message: whether to stop, and `each` of every chunk.
  std::int64_t message_size(std::int64_t each) const { return 1 + ceil_div(n_chunks_, ranks_.count()) * each; }
  // The numbers of all chunks, from those of the own ones. True: somebody asks to stop, or there was no meeting.
  bool meet_ranks(double* of_chunks, std::int64_t each) {
    const std::int64_t size = message_size(each);
    double* mine = &messages_[ranks_.rank() * size];
    mine[0] = stop_.aborting() ? 1 : 0;
    std::copy_n(of_chunks + own_chunks_.begin * each, own_chunks_.size() * each, mine + 1);
    ranks_.meet(messages_.get(), size * static_cast<std::int64_t>(sizeof(double)));
    if (ranks_.failed()) return true;
    bool stop = false;
    for (std::int64_t rank = 0; rank < ranks_.count(); ++rank) {
      const double* theirs = &messages_[rank * size];
      const Range chunks = chunks_of(rank);
      stop = stop || theirs[0] != 0;
      std::copy_n(theirs + 1, chunks.size() * each, of_chunks + chunks.begin * each);
    }
    return stop;
  }
  Range rows_of(std::int64_t block) const {
    return {block * rows_per_block_, std::min(sweep_.n_rows, (block + 1) * rows_per_block_)};
  }
  // h of visit j: (width, slots)
  T* neurons_of(std::int64_t block, std::int64_t j) const {
    return &neurons_[((block & 1) * rows_per_block_ * outputs_ + j * width_) * stride_];
  }

  void fill_panel(std::int64_t block, std::int64_t p, const T* rows, T* values) {
    const std::int64_t n_rows = rows_of(block).size();
    T* panel = &panels_[p * layout_.panel_size()];
    T* slope = values + rows_per_block_ * lanes;
    T* coefficient = &terms_[2 * p * outputs_ * lanes];
    T* offset = coefficient + outputs_ * lanes;
    if (block == 0) {
      const Range source = slots_.panels[own_.begin / lanes + p];
      PanelLayout<T>(source.size(), layout_.n_coordinates)
          .pack(particles_ + source.begin * layout_.n_coordinates, 0, panel);
      network_.terms(panel, coefficient, offset);
    }
    network_.forward(panel, rows, n_rows, values, slope);
    for (std::int64_t k = 0; k < outputs_; ++k)
      scale_panel(coefficient + k * lanes, offset + k * lanes, values, n_rows, outputs_ * stride_,
                  neurons_of(block, 0) + k * stride_ + p * lanes);
  }

  // The dual step at a row, for output k or all that are coupled; change = -s (g' - g) / temperature
  void step(std::int64_t row, std::int64_t k, const double* u, double* y, double* dual, double* change) const {
    const double s = samples_.weights ? static_cast<double>(static_cast<const T*>(samples_.weights)[row])
                                      : 1.0 / static_cast<double>(samples_.n_samples);
    double* g = dual + row * outputs_ + k;
    std::copy_n(g, width_, change);
    if (s > 0) {
      const std::int64_t columns = coupled_ ? 1 : outputs_;
      y[0] = static_cast<const T*>(samples_.targets)[row * columns + (coupled_ ? 0 : k)];
      loss_kernels<T>[loss_.id].dual_step(g, u, y, width_, loss_.parameter,
                                          sweep_.temperature / (s * sweep_.variance_bound));
    }
    for (std::int64_t q = 0; q < width_; ++q) change[q] = s / sweep_.temperature * (change[q] - g[q]);
  }

  const NetworkPanel<T> network_;
  const mfld_loss& loss_;
  const mfld_samples& samples_;
  mfld_dual_sweep& sweep_;
  const T* particles_;
  Ranks ranks_;
  const Slots<T> slots_;
  const std::int64_t outputs_, n_chunks_;
  const bool shared_;             // by ranks
  const Range own_chunks_, own_;  // chunks and slots of this rank
  const PanelLayout<T> layout_;
  const std::int64_t stride_;  // from one neuron to the next
  const bool coupled_;
  const std::int64_t width_, visits_per_row_;  // coordinates of a visit, visits of a row
  const std::int64_t rows_per_block_, n_blocks_, n_sums_;
  const Buffer<T> panels_, terms_, neurons_, weights_;
  const Buffer<double> log_weights_, sums_, largest_, messages_;
  std::atomic<std::int64_t> next_panel_[2] = {0, 0};
  StopSignal stop_;
  // Written by member 0 before a block's barrier, read after it: two take turns, as a slow member may read late.
  bool ended_[2] = {false, false};
};

}  // namespace

template <class T>
int dual_sweep(const mfld_network* network, const mfld_loss* loss, const mfld_samples* samples, const void* particles,
               std::int64_t, mfld_dual_sweep* sweep, const mfld_execution* execution) {
  return guarded([&] {
    sweep->rows_done = 0;
    if (sweep->n_rows == 0) return static_cast<int>(MFLD_DONE);
    return DualSweep<T>(*network, *loss, *samples, static_cast<const T*>(particles), *sweep, *execution)
        .run(*execution);
  });
}

int dual_step(const mfld_loss* loss, double* dual, const double* predictions, const double* targets, const double* step,
              std::int64_t n, std::int64_t n_outputs, const mfld_execution* execution) {
  StopSignal stop(*execution);
  const std::int64_t columns = loss_infos[loss->id].targets == MFLD_TARGETS_CLASS ? 1 : n_outputs;
  for (std::int64_t i = 0; i < n; ++i) {
    if (stop.asked(1000 * n_outputs)) return MFLD_STOPPED;
    loss_kernels<double>[loss->id].dual_step(dual + i * n_outputs, predictions + i * n_outputs, targets + i * columns,
                                             n_outputs, loss->parameter, step[i]);
  }
  return MFLD_DONE;
}

template int dual_sweep<float>(const mfld_network*, const mfld_loss*, const mfld_samples*, const void*, std::int64_t,
                               mfld_dual_sweep*, const mfld_execution*);
template int dual_sweep<double>(const mfld_network*, const mfld_loss*, const mfld_samples*, const void*, std::int64_t,
                                mfld_dual_sweep*, const mfld_execution*);

}  // namespace mfld
