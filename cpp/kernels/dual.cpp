// Dual coordinate ascent on a weighted cloud: one row of samples after the other.
//
//   u        = sum_m r_m h_i(theta_m) / sum_m r_m
//   g_i'     = argmin_q conjugate_i(q) - u (q - g_i) + (q - g_i)^2 / (2 a_i),   a_i = temperature / (s_i
//   variance_bound) log r_m -= s_i h_i(theta_m) (g_i' - g_i) / temperature
//
// The neurons of the next block of rows come from one product while the current block is swept. In a block the weights
// follow by float log-weights; from block to block they are made anew from the float64 ones, which see every change of
// the dual variables, so that nothing drifts. Particles are cut into chunks, a function of the problem alone, and the
// sums over chunks have a fixed order: the number of threads does not change a bit.
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
#include "mfld/team.hpp"
#include "network.hpp"

namespace mfld {
namespace {

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

// Sums over a chunk: of w = exp(l), of its square, and of w h_k.
constexpr std::int64_t n_own_sums = 2;

// l += change h, then the sums with the next h; `count` is a multiple of two registers.
template <class T>
void reweigh_one(const T* h, T change, const T* next, std::int64_t count, T* l, double* sums) {
  using V = Vec<T>;
  const V c(change);
  V w0(0), w1(0), q0(0), q1(0), s0(0), s1(0);
  for (std::int64_t m = 0; m < count; m += 2 * V::size) {
    const V l0 = multiply_add(c, V::load(h + m), V::load(l + m));
    const V l1 = multiply_add(c, V::load(h + m + V::size), V::load(l + m + V::size));
    l0.store(l + m);
    l1.store(l + m + V::size);
    const V e0 = math::exp(l0), e1 = math::exp(l1);
    w0 += e0;
    w1 += e1;
    q0 = multiply_add(e0, e0, q0);
    q1 = multiply_add(e1, e1, q1);
    s0 = multiply_add(e0, V::load(next + m), s0);
    s1 = multiply_add(e1, V::load(next + m + V::size), s1);
  }
  sums[0] = sum_of_lanes(w0 + w1);
  sums[1] = sum_of_lanes(q0 + q1);
  sums[2] = sum_of_lanes(s0 + s1);
}

// The same for `width` coordinates at once; h_k stands at h + k * stride.
template <class T>
void reweigh(const T* h, const T* change, const T* next, std::int64_t width, std::int64_t stride, std::int64_t count,
             T* l, T* w, double* sums) {
  using V = Vec<T>;
  if (width == 1) return reweigh_one(h, change[0], next, count, l, sums);
  V total(0), square(0);
  for (std::int64_t m = 0; m < count; m += V::size) {
    V at = V::load(l + m);
    for (std::int64_t k = 0; k < width; ++k) at = multiply_add(V(change[k]), V::load(h + k * stride + m), at);
    at.store(l + m);
    const V e = math::exp(at);
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

// log_weights += sum_j changes_j h_j over `n_rows` rows, `stride` apart; several at once, to spare memory.
template <class T>
void add_exactly(const T* h, std::int64_t stride, const double* changes, std::int64_t n_rows, std::int64_t count,
                 double* log_weights) {
  std::int64_t j = 0;
  for (; j + 4 <= n_rows; j += 4) {
    const T *h0 = h + j * stride, *h1 = h0 + stride, *h2 = h1 + stride, *h3 = h2 + stride;
    const double c0 = changes[j], c1 = changes[j + 1], c2 = changes[j + 2], c3 = changes[j + 3];
    for (std::int64_t m = 0; m < count; ++m) log_weights[m] += (c0 * h0[m] + c1 * h1[m]) + (c2 * h2[m] + c3 * h3[m]);
  }
  for (; j < n_rows; ++j)
    for (std::int64_t m = 0; m < count; ++m) log_weights[m] += changes[j] * h[j * stride + m];
}

struct Chunk {
  Range slots;
  std::int64_t group;
};

// A slot is the place of a particle: groups are padded to whole panels.
template <class T>
struct Slots {
  static constexpr std::int64_t most_panels = 16;
  std::vector<Chunk> chunks;
  std::vector<Range> groups;  // slots of each group's particles
  std::int64_t count = 0, n_particles = 0;

  Slots(const std::int64_t* group_sizes, std::int64_t n_groups) {
    constexpr std::int64_t longest = most_panels * panel_lanes<T>;
    for (std::int64_t g = 0; g < n_groups; ++g) {
      groups.push_back({count, count + group_sizes[g]});
      const std::int64_t end = count + round_up(group_sizes[g], panel_lanes<T>);
      for (; count < end; count = std::min(end, count + longest))
        chunks.push_back({{count, std::min(end, count + longest)}, g});
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
        slots_(sweep.groups, sweep.n_groups),
        layout_(slots_.count, network_.n_coordinates()),
        outputs_(network_.n_outputs),
        coupled_(loss_infos[loss.id].targets == MFLD_TARGETS_CLASS),
        width_(coupled_ ? outputs_ : 1),
        visits_per_row_(coupled_ ? 1 : outputs_),
        rows_per_block_(std::clamp<std::int64_t>(
            (1 << 19) / (outputs_ * slots_.count * static_cast<std::int64_t>(sizeof(T))), 8, 64)),
        n_blocks_(ceil_div(sweep.n_rows, rows_per_block_)),
        n_sums_(n_own_sums + width_),
        n_chunks_(static_cast<std::int64_t>(slots_.chunks.size())),
        padded_(slots_.count * layout_.n_coordinates),
        terms_(2 * layout_.n_panels * outputs_ * lanes),
        neurons_(2 * rows_per_block_ * outputs_ * slots_.count),
        local_(2 * slots_.count),
        log_weights_(slots_.count),
        sums_(2 * n_chunks_ * n_sums_),
        largest_(n_chunks_),
        stop_(execution) {
    std::fill_n(padded_.get(), slots_.count * layout_.n_coordinates, T(0));
    std::fill_n(log_weights_.get(), slots_.count, -infinity);
    slots_.each([&](std::int64_t first, Range at) {
      std::copy_n(particles + first * layout_.n_coordinates, at.size() * layout_.n_coordinates,
                  &padded_[at.begin * layout_.n_coordinates]);
      std::copy_n(sweep.log_weights + first, at.size(), &log_weights_[at.begin]);
    });
  }

  int run(const mfld_execution& execution) {
    const double slots = static_cast<double>(slots_.count);
    const double filling = slots * static_cast<double>(rows_per_block_ * (network_.n_features + 16 * outputs_));
    const int threads = useful_threads(execution, layout_.n_panels, filling);
    std::vector<double> dual(sweep_.dual, sweep_.dual + samples_.n_samples * outputs_);

    run_team(threads, [&](int member, int members, SpinBarrier& barrier) {
      Member me(*this, member, members, barrier);
      me.fill(0);
      barrier.wait();
      for (std::int64_t b = 0; b < n_blocks_; ++b) {
        if (member == 0) {
          stop_.poll(filling);
          next_panel_[b & 1].store(0, std::memory_order_relaxed);
        }
        if (member < me.sweepers) me.sweep(b, dual);
        if (b + 1 < n_blocks_) me.fill(b + 1);
        if (member == 0) stop_.publish(b);
        barrier.wait();
        if (ended_[b & 1] || stop_.stopped(b)) return;
      }
    });
    slots_.each([&](std::int64_t first, Range at) {
      std::copy_n(&log_weights_[at.begin], at.size(), sweep_.log_weights + first);
    });
    return stop_.aborting() ? MFLD_STOPPED : MFLD_DONE;
  }

 private:
  static constexpr int lanes = panel_lanes<T>;
  // Below it a barrier for every visit costs more than the help it brings.
  static constexpr std::int64_t slots_per_sweeper = 4096;

  // What one thread works with.
  struct Member {
    DualSweep& all;
    const int sweepers;
    const std::int64_t member;
    SpinBarrier& barrier;
    const Range chunks;
    std::vector<T> panel, rows, change;
    std::vector<double> changes, own_dual, largest, totals, means, target;
    std::int64_t turn = 0;

    Member(DualSweep& sweep, int member_, int members, SpinBarrier& barrier_)
        : all(sweep),
          sweepers(sweep.slots_.count >= slots_per_sweeper * members ? members : 1),
          member(member_),
          barrier(barrier_),
          chunks(member_ < sweepers ? even_part(sweep.n_chunks_, member_, sweepers) : Range{0, 0}),
          panel(sweep.layout_.panel_size() + 2 * sweep.rows_per_block_ * lanes),
          rows(sweep.rows_per_block_ * sweep.network_.n_features),
          change(sweep.width_),
          changes(sweep.rows_per_block_ * sweep.outputs_),
          totals(sweep.slots_.groups.size() * sweep.n_sums_),
          means(sweep.outputs_),
          target(sweep.outputs_) {}

    // Neurons of a block of rows, panel by panel, whoever comes first.
    void fill(std::int64_t block) {
      const Range visits = all.rows_of(block);
      const auto* z = static_cast<const T*>(all.samples_.inputs);
      const std::int64_t d = all.network_.n_features;
      for (std::int64_t t = visits.begin; t < visits.end; ++t)
        std::copy_n(z + all.sweep_.rows[t] * d, d, &rows[(t - visits.begin) * d]);
      std::atomic<std::int64_t>& next = all.next_panel_[block & 1];
      for (std::int64_t p; (p = next.fetch_add(1, std::memory_order_relaxed)) < all.layout_.n_panels;)
        all.fill_panel(block, p, rows.data(), panel);
    }

    void wait() {
      if (sweepers > 1) barrier.wait();
    }

    template <class Body>
    void each_chunk(const Body& body) {
      for (std::int64_t i = chunks.begin; i < chunks.end; ++i) body(i, all.slots_.chunks[i].slots);
    }

    double* sums(std::int64_t chunk) { return &all.sums_[((turn & 1) * all.n_chunks_ + chunk) * all.n_sums_]; }

    // Log-weights of the block: from the float64 ones, relative to the largest of the group; and sums for visit j.
    void start_from_exact(std::int64_t block, std::int64_t j) {
      each_chunk([&](std::int64_t i, Range at) {
        all.largest_[i] = *std::max_element(&all.log_weights_[at.begin], &all.log_weights_[at.end]);
      });
      wait();
      largest.assign(all.slots_.groups.size(), -infinity);
      for (std::int64_t i = 0; i < all.n_chunks_; ++i) {
        double& of_group = largest[all.slots_.chunks[i].group];
        of_group = std::max(of_group, all.largest_[i]);
      }
      ++turn;
      std::fill(change.begin(), change.end(), T(0));
      each_chunk([&](std::int64_t i, Range at) {
        const double shift = largest[all.slots_.chunks[i].group];
        for (std::int64_t m = at.begin; m < at.end; ++m)
          all.local_[m] = static_cast<T>(std::max(all.log_weights_[m] - shift, -1e4));
        pass(block, j, j, i, at);
      });
      wait();
    }

    // Applies the change to visit j's neurons and sums for visit `next`.
    void pass(std::int64_t block, std::int64_t j, std::int64_t next, std::int64_t chunk, Range at) {
      const std::int64_t slots = all.slots_.count;
      reweigh(all.neurons_of(block, j) + at.begin, change.data(), all.neurons_of(block, next) + at.begin, all.width_,
              slots, at.size(), &all.local_[at.begin], &all.local_[slots + at.begin], sums(chunk));
    }

    // Brings the changes of visits first .. last - 1 to the float64 log-weights.
    void keep(std::int64_t block, std::int64_t first, std::int64_t last) {
      each_chunk([&](std::int64_t, Range at) {
        add_exactly(all.neurons_of(block, first) + at.begin, all.slots_.count, &changes[first * all.width_],
                    (last - first) * all.width_, at.size(), &all.log_weights_[at.begin]);
      });
    }

    // Predictions of the visit; the smallest share of effective particles; whether the float weights are in range.
    struct Seen {
      double effective;
      bool in_range;
    };
    Seen look() {
      const auto n_groups = static_cast<std::int64_t>(all.slots_.groups.size());
      std::fill(totals.begin(), totals.end(), 0.0);
      for (std::int64_t i = 0; i < all.n_chunks_; ++i)
        for (std::int64_t q = 0; q < all.n_sums_; ++q)
          totals[all.slots_.chunks[i].group * all.n_sums_ + q] += sums(i)[q];
      Seen seen = {infinity, true};
      std::fill(means.begin(), means.end(), 0.0);
      for (std::int64_t g = 0; g < n_groups; ++g) {
        const double* total = &totals[g * all.n_sums_];
        const auto size = static_cast<double>(all.slots_.groups[g].size());
        seen.in_range = seen.in_range && total[0] > 1e-8 && total[0] < 1e12;
        seen.effective = std::min(seen.effective, total[0] * total[0] / (total[1] * size));
        const double share = size / static_cast<double>(all.slots_.n_particles);
        for (std::int64_t k = 0; k < all.width_; ++k) means[k] += share * total[n_own_sums + k] / total[0];
      }
      return seen;
    }

    void sweep(std::int64_t block, std::vector<double>& shared_dual) {
      if (member > 0 && own_dual.empty()) own_dual = shared_dual;
      std::vector<double>& dual = member > 0 ? own_dual : shared_dual;
      const Range visits = all.rows_of(block);
      const std::int64_t n_visits = visits.size() * all.visits_per_row_;
      std::int64_t kept = 0, j = 0;
      start_from_exact(block, 0);
      for (; j < n_visits; ++j) {
        Seen seen = look();
        if (!seen.in_range) {
          keep(block, kept, j);
          kept = j;
          start_from_exact(block, j);
          seen = look();
        }
        const bool row_starts = j % all.visits_per_row_ == 0;
        const std::int64_t visit = visits.begin + j / all.visits_per_row_;
        if (row_starts && seen.effective < all.sweep_.effective_sample_size) break;
        all.step(all.sweep_.rows[visit], j % all.visits_per_row_, means.data(), target.data(), dual.data(),
                 &changes[j * all.width_]);
        if (j + 1 == n_visits) {
          ++j;
          break;
        }
        for (std::int64_t k = 0; k < all.width_; ++k) change[k] = static_cast<T>(changes[j * all.width_ + k]);
        ++turn;
        each_chunk([&](std::int64_t i, Range at) { pass(block, j, j + 1, i, at); });
        wait();
      }
      keep(block, kept, j);
      if (member > 0) return;
      all.sweep_.rows_done = visits.begin + j / all.visits_per_row_;
      all.ended_[block & 1] = j < n_visits;
      if (j < n_visits || block + 1 == all.n_blocks_) std::copy(dual.begin(), dual.end(), all.sweep_.dual);
    }
  };

  Range rows_of(std::int64_t block) const {
    return {block * rows_per_block_, std::min(sweep_.n_rows, (block + 1) * rows_per_block_)};
  }
  // h of visit j: (width, slots)
  const T* neurons_of(std::int64_t block, std::int64_t j) const {
    return &neurons_[((block & 1) * rows_per_block_ * outputs_ + j * width_) * slots_.count];
  }

  void fill_panel(std::int64_t block, std::int64_t p, const T* rows, std::vector<T>& scratch) {
    using V = Vec<T>;
    const std::int64_t n_rows = rows_of(block).size();
    T* panel = scratch.data();
    T* values = panel + layout_.panel_size();
    T* slope = values + rows_per_block_ * lanes;
    T* coefficient = &terms_[2 * p * outputs_ * lanes];
    T* offset = coefficient + outputs_ * lanes;
    layout_.pack(padded_.get(), p, panel);
    if (block == 0) network_.terms(panel, coefficient, offset);
    network_.forward(panel, rows, n_rows, values, slope);
    T* out = &neurons_[(block & 1) * rows_per_block_ * outputs_ * slots_.count + p * lanes];
    for (std::int64_t i = 0; i < n_rows; ++i)
      for (std::int64_t k = 0; k < outputs_; ++k)
        for (int l = 0; l < lanes; l += V::size)
          multiply_add(V::load(coefficient + k * lanes + l), V::load(values + i * lanes + l),
                       V::load(offset + k * lanes + l))
              .store(out + (i * outputs_ + k) * slots_.count + l);
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
  const Slots<T> slots_;
  const PanelLayout<T> layout_;
  const std::int64_t outputs_;
  const bool coupled_;
  const std::int64_t width_, visits_per_row_;  // coordinates of a visit, visits of a row
  const std::int64_t rows_per_block_, n_blocks_, n_sums_, n_chunks_;
  const Buffer<T> padded_, terms_, neurons_, local_;
  const Buffer<double> log_weights_, sums_, largest_;
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
              std::int64_t n, std::int64_t n_outputs) {
  const std::int64_t columns = loss_infos[loss->id].targets == MFLD_TARGETS_CLASS ? 1 : n_outputs;
  for (std::int64_t i = 0; i < n; ++i)
    loss_kernels<double>[loss->id].dual_step(dual + i * n_outputs, predictions + i * n_outputs, targets + i * columns,
                                             n_outputs, loss->parameter, step[i]);
  return MFLD_DONE;
}

template int dual_sweep<float>(const mfld_network*, const mfld_loss*, const mfld_samples*, const void*, std::int64_t,
                               mfld_dual_sweep*, const mfld_execution*);
template int dual_sweep<double>(const mfld_network*, const mfld_loss*, const mfld_samples*, const void*, std::int64_t,
                                mfld_dual_sweep*, const mfld_execution*);

}  // namespace mfld
