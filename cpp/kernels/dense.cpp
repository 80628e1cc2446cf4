// Ridge systems: (B B' + ridge I) X = right, by the Gram matrix and its Cholesky factor.
//
// All that costs rows^2 * columns or rows^3 is the tile of the networks: two registers of a panel against broadcasts of
// rows. Every entry of the matrix is computed by one thread in one order, so the solution does not depend on how many
// there are, as that of LAPACK over a threaded BLAS does.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "entries.hpp"
#include "mfld/panels.hpp"
#include "mfld/team.hpp"
#include "tiles.hpp"

namespace mfld {
namespace {

constexpr std::int64_t block_size = 64;   // of the factorisation; panels of every level divide it
constexpr std::int64_t depth_size = 256;  // of a pass over the columns of B: a packed panel stays in the first cache
constexpr std::int64_t rows_at_once = 8 * tile_width;

// Sum of products of two contiguous rows, in a fixed order.
template <class T>
T dot(const T* a, const T* b, std::int64_t count) {
  using V = Vec<T>;
  V s0(0), s1(0);
  std::int64_t i = 0;
  for (; i + 2 * V::size <= count; i += 2 * V::size) {
    s0 += V::load(a + i) * V::load(b + i);
    s1 += V::load(a + i + V::size) * V::load(b + i + V::size);
  }
  alignas(64) T lanes[V::size];
  (s0 + s1).store(lanes);
  T sum = 0;
  for (const T lane : lanes) sum += lane;
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// Lower triangle of a symmetric matrix, padded with the identity to whole blocks, and its factorisation in place.
template <class T>
class Factor {
  static constexpr int lanes = panel_lanes<T>;
  static_assert(block_size % lanes == 0);

 public:
  explicit Factor(std::int64_t size)
      : size_(size), padded_(round_up(size, block_size)), entries_(padded_ * padded_), panels_(padded_ * block_size) {}

  std::int64_t padded() const { return padded_; }
  const T* row(std::int64_t i) const { return entries_.get() + i * padded_; }

  // The part of this member of B B' + ridge I.
  void gram(const T* b, std::int64_t columns, T ridge, int member, int members, T* panel, T* products,
            StopSignal& stop) {
    for (std::int64_t first = member * lanes; first < padded_; first += members * lanes) {
      for (std::int64_t i = first; i < padded_; ++i) std::fill_n(entry(i, first), lanes, T(0));
      for (std::int64_t l = first; l < first + lanes; ++l) *entry(l, l) = l < size_ ? ridge : T(1);
    }
    // All panels of one range of columns before the next range, which then stays in the second cache.
    for (std::int64_t from = 0; from < columns; from += depth_size) {
      const std::int64_t depth = std::min(depth_size, columns - from);
      for (std::int64_t first = member * lanes; first < size_; first += members * lanes) {
        const std::int64_t width = std::min<std::int64_t>(size_ - first, lanes);
        if (member == 0) stop.poll(static_cast<double>((size_ - first) * depth * lanes));
        if (stop.aborting()) return;
        for (std::int64_t l = 0; l < lanes; ++l)
          for (std::int64_t j = 0; j < depth; ++j)
            panel[j * lanes + l] = l < width ? b[(first + l) * columns + from + j] : T(0);
        add_products<false>(panel, depth, b + from, columns, first, size_, first, products);
      }
    }
  }

  // Replaces the matrix by its Cholesky factor. The first row with a pivot that is not positive, or -1.
  std::int64_t factorise(int member, int members, SpinBarrier& barrier, T* products, StopSignal& stop,
                         std::int64_t& bad, std::int64_t& barriers) {
    for (std::int64_t k = 0; k < padded_; k += block_size) {
      if (member == 0) {
        const auto left = static_cast<double>(padded_ - k);
        stop.poll(left * left * block_size / 2);
        bad = factorise_block(k);
        stop.publish(barriers);
      }
      barrier.wait();
      if (stop.stopped(barriers++) || bad >= 0) return bad;
      const std::int64_t below = k + block_size;
      for (std::int64_t first = below + member * lanes; first < padded_; first += members * lanes)
        solve_panel(k, first);
      barrier.wait();
      ++barriers;
      for (std::int64_t first = below + member * lanes; first < padded_; first += members * lanes)
        add_products<true>(panel(first), block_size, entries_.get() + k, padded_, first, padded_, first, products);
      barrier.wait();
      ++barriers;
    }
    return -1;
  }

  // x (padded) becomes the solution of L L' x = x.
  void solve(T* x) const {
    for (std::int64_t i = 0; i < padded_; ++i) x[i] = (x[i] - dot(row(i), x, i)) / row(i)[i];
    for (std::int64_t i = padded_ - 1; i >= 0; --i) {
      const T* l = row(i);
      const T value = x[i] /= l[i];
      for (std::int64_t j = 0; j < i; ++j) x[j] -= l[j] * value;
    }
  }

 private:
  T* entry(std::int64_t i, std::int64_t j) { return entries_.get() + i * padded_ + j; }
  T* panel(std::int64_t first) { return panels_.get() + first * block_size; }

  // Entries (i, to + lane) for i in from..end plus or minus the products of rows i of a with the panel.
  template <bool subtract>
  void add_products(const T* packed, std::int64_t depth, const T* a, std::int64_t stride, std::int64_t from,
                    std::int64_t end, std::int64_t to, T* products) {
    static constexpr auto tiles = detail::affine_tiles<Unchanged, T>(std::make_integer_sequence<int, tile_width>());
    for (std::int64_t start = from; start < end; start += rows_at_once) {
      const std::int64_t count = std::min(rows_at_once, end - start);
      detail::for_tiles(count, [&](std::int64_t first, std::int64_t width) {
        tiles[width - 1](packed, depth, nullptr, a + (start + first) * stride, stride, first * lanes, products,
                         nullptr);
      });
      for (std::int64_t i = 0; i < count; ++i) {
        T* out = entry(start + i, to);
        for (int l = 0; l < lanes; ++l) out[l] += subtract ? -products[i * lanes + l] : products[i * lanes + l];
      }
    }
  }

  std::int64_t factorise_block(std::int64_t k) {
    for (std::int64_t j = 0; j < block_size; ++j) {
      T* pivot_row = entry(k + j, k);
      for (std::int64_t i = 0; i < j; ++i) {
        const T* above = entry(k + i, k);
        pivot_row[i] = (pivot_row[i] - dot(pivot_row, above, i)) / above[i];
      }
      const T pivot = pivot_row[j] - dot(pivot_row, pivot_row, j);
      if (!(pivot > 0) || !std::isfinite(pivot)) return k + j;
      pivot_row[j] = std::sqrt(pivot);
    }
    return -1;
  }

  // Rows first.. of L below the block at k; they stay in their panel, too, for the products that follow.
  void solve_panel(std::int64_t k, std::int64_t first) {
    using V = Vec<T>;
    T* x = panel(first);
    for (std::int64_t l = 0; l < lanes; ++l)
      for (std::int64_t j = 0; j < block_size; ++j) x[j * lanes + l] = *entry(first + l, k + j);
    for (std::int64_t j = 0; j < block_size; ++j) {
      const T* l = entry(k + j, k);
      V lo = V::load(x + j * lanes), hi = V::load(x + j * lanes + V::size);
      for (std::int64_t i = 0; i < j; ++i) {
        lo -= V(l[i]) * V::load(x + i * lanes);
        hi -= V(l[i]) * V::load(x + i * lanes + V::size);
      }
      const V share(1 / l[j]);
      (lo * share).store(x + j * lanes);
      (hi * share).store(x + j * lanes + V::size);
    }
    for (std::int64_t l = 0; l < lanes; ++l)
      for (std::int64_t j = 0; j < block_size; ++j) *entry(first + l, k + j) = x[j * lanes + l];
  }

  std::int64_t size_, padded_;
  Buffer<T> entries_, panels_;
};

}  // namespace

template <class T>
int ridge_solve(const void* b, std::int64_t rows, std::int64_t columns, double ridge, void* right, std::int64_t n_right,
                std::int64_t* bad_row, const mfld_execution* execution) {
  return guarded([&] {
    constexpr int lanes = panel_lanes<T>;
    Factor<T> factor(rows);
    const std::int64_t padded = factor.padded();
    const auto work = static_cast<double>(rows * rows) * (static_cast<double>(columns) / 2 + rows / 6.0);
    const int threads = useful_threads(execution->num_threads, padded / lanes, work);
    // per member: a panel of B, products
    const std::int64_t scratch_size = (depth_size + rows_at_once) * lanes;
    const Buffer<T> scratch(threads * scratch_size), solutions(n_right * padded);
    auto* x = static_cast<T*>(right);
    StopSignal stop(*execution);
    std::int64_t bad = -1;

    run_team(threads, [&](int member, int members, SpinBarrier& barrier) {
      T* panel = &scratch[member * scratch_size];
      T* products = panel + depth_size * lanes;
      std::int64_t barriers = 0;
      factor.gram(static_cast<const T*>(b), columns, static_cast<T>(ridge), member, members, panel, products, stop);
      if (member == 0) stop.publish(barriers);
      barrier.wait();
      if (stop.stopped(barriers++)) return;
      if (factor.factorise(member, members, barrier, products, stop, bad, barriers) >= 0 || stop.aborting()) return;
      for (std::int64_t k = member; k < n_right && !stop.aborting(); k += members) {
        if (member == 0) stop.poll(2 * static_cast<double>(padded) * static_cast<double>(padded));
        T* solution = &solutions[k * padded];
        for (std::int64_t i = 0; i < padded; ++i) solution[i] = i < rows ? x[i * n_right + k] : T(0);
        factor.solve(solution);
        for (std::int64_t i = 0; i < rows; ++i) x[i * n_right + k] = solution[i];
      }
    });
    *bad_row = bad;
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template int ridge_solve<float>(const void*, std::int64_t, std::int64_t, double, void*, std::int64_t, std::int64_t*,
                                const mfld_execution*);
template int ridge_solve<double>(const void*, std::int64_t, std::int64_t, double, void*, std::int64_t, std::int64_t*,
                                 const mfld_execution*);

}  // namespace mfld
