// Ridge systems (B B' + ridge I) X = right and products with a matrix, for sums whose order is fixed: every number is
// computed by one thread in one order, so that it does not depend on how many there are, as those of LAPACK and of a
// threaded BLAS do.
//
// Rows of a matrix are lanes: a panel holds panel_lanes<T> rows as [column][lane]. Panel p times the transpose of panel
// q is then the tile that pulls networks back to features, both of its arguments being panels, and so is what a block
// of columns of the Cholesky factor takes from the rest. The blocks on its diagonal are Eigen's.
#include <Eigen/Cholesky>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "entries.hpp"
#include "mfld/panels.hpp"
#include "mfld/team.hpp"
#include "tiles.hpp"

namespace mfld {
namespace {

constexpr std::int64_t block_size = 64;  // of the factorisation; panels of every level divide it
constexpr std::int64_t depth_size = 96;  // columns of a panel that are multiplied at once: two stay in the first cache
constexpr int solved_at_once = 4;        // columns of a block; they divide a panel, and fit every level's tile

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

// F of shape (rows, columns), row-major, with scales of its rows and columns that may be null; read as panels of its
// rows, or of its columns where it is transposed.
template <class T>
struct Matrix {
  const T* entries;
  std::int64_t rows, columns;
  const T* row_scale;
  const T* column_scale;
  bool transposed;

  std::int64_t size() const { return transposed ? columns : rows; }
  std::int64_t depth() const { return transposed ? rows : columns; }

  // panel[j][lane] of rows first.. and columns from..from + depth; 0 beyond the last row.
  void pack(std::int64_t first, std::int64_t from, std::int64_t depth, T* panel) const {
    constexpr int lanes = panel_lanes<T>;
    const std::int64_t width = std::clamp<std::int64_t>(size() - first, 0, lanes);
    if (width < lanes) std::fill_n(panel, depth * lanes, T(0));
    if (transposed) {
      for (std::int64_t j = 0; j < depth; ++j) {
        const T* line = entries + (from + j) * columns + first;
        const T scale = row_scale ? row_scale[from + j] : T(1);
        T* out = panel + j * lanes;
        if (column_scale)
          for (std::int64_t l = 0; l < width; ++l) out[l] = line[l] * (scale * column_scale[first + l]);
        else
          for (std::int64_t l = 0; l < width; ++l) out[l] = line[l] * scale;
      }
    } else {
      for (std::int64_t l = 0; l < width; ++l) {
        const T* line = entries + (first + l) * columns + from;
        const T scale = row_scale ? row_scale[first + l] : T(1);
        for (std::int64_t j = 0; j < depth; ++j)
          panel[j * lanes + l] = line[j] * (column_scale ? scale * column_scale[from + j] : scale);
      }
    }
  }
};

// sums[k][lane] (+)= sum_j panel[j][lane] right[j][k], sums having rows of `stride`.
template <class T>
void accumulate_lanes(const T* panel, std::int64_t depth, const T* right, std::int64_t n_right, T* sums,
                      std::int64_t stride, bool add) {
  static constexpr auto tiles = detail::feature_tiles<T>(std::make_integer_sequence<int, tile_width>());
  constexpr int lanes = panel_lanes<T>;
  alignas(64) T some[tile_width * lanes];
  detail::for_tiles(n_right, [&](std::int64_t first, std::int64_t width) {
    for (std::int64_t k = 0; k < width; ++k)
      for (int l = 0; l < lanes; ++l) some[k * lanes + l] = add ? sums[(first + k) * stride + l] : T(0);
    tiles[width - 1](panel, depth, right + first, n_right, some, true);
    for (std::int64_t k = 0; k < width; ++k) std::copy_n(some + k * lanes, lanes, sums + (first + k) * stride);
  });
}

// Lower triangle of a symmetric matrix, padded with the identity to whole blocks, and its factorisation in place:
// entry (i, j) at [panel of i][j][lane of i].
template <class T>
class Factor {
  static constexpr int lanes = panel_lanes<T>;
  static_assert(block_size % lanes == 0 && lanes % solved_at_once == 0 && solved_at_once <= tile_width);

 public:
  explicit Factor(std::int64_t size)
      : size_(size),
        padded_(round_up(size, block_size)),
        n_panels_(padded_ / lanes),
        entries_(padded_ * padded_),
        slab_(padded_ * std::max(depth_size, block_size)) {}

  std::int64_t padded() const { return padded_; }
  std::int64_t n_panels() const { return n_panels_; }

  // B B' + ridge I, and sums (n_right, padded) = B right where these are given. False if stopped.
  bool gram(const Matrix<T>& b, T ridge, const T* right, std::int64_t n_right, T* sums, int member, int members,
            SpinBarrier& barrier, StopSignal& stop, std::int64_t& barriers) {
    for (std::int64_t from = 0; from == 0 || from < b.depth(); from += depth_size) {
      const std::int64_t depth = std::min(depth_size, b.depth() - from);
      if (member == 0) stop.publish(barriers);
      barrier.wait();  // the slab is free
      if (stop.stopped(barriers++)) return false;
      for (std::int64_t p = member; p < n_panels_ && !stop.aborting(); p += members)
        b.pack(p * lanes, from, depth, slab(p, depth));
      barrier.wait();
      ++barriers;
      for (std::int64_t p = member; p < n_panels_ && !stop.aborting(); p += members) {
        if (member == 0) stop.poll(static_cast<double>(((p + 1) * lanes + (sums ? n_right : 0)) * depth * lanes));
        for (std::int64_t q = 0; q <= p; ++q)
          accumulate_features(slab(p, depth), depth, slab(q, depth), lanes, block(p, q), from > 0);
        if (sums)
          accumulate_lanes(slab(p, depth), depth, right + from * n_right, n_right, sums + p * lanes, padded_, from > 0);
      }
    }
    for (std::int64_t p = member; p < n_panels_; p += members)
      for (std::int64_t l = 0; l < lanes; ++l) {
        T& pivot = row_panel(p)[(p * lanes + l) * lanes + l];
        pivot = p * lanes + l < size_ ? pivot + ridge : T(1);
      }
    barrier.wait();
    ++barriers;
    return true;
  }

  // Replaces the matrix by its Cholesky factor. False if stopped, or if it is not positive, which `positive` then says.
  bool factorise(int member, int members, SpinBarrier& barrier, StopSignal& stop, bool& positive,
                 std::int64_t& barriers) {
    constexpr std::int64_t panels_of_block = block_size / lanes;
    for (std::int64_t k = 0; k < padded_; k += block_size) {
      const std::int64_t first = k / lanes, below = first + panels_of_block;
      if (member == 0) {
        stop.poll(static_cast<double>(padded_ - k) * block_size * block_size);
        positive = factorise_block(k);
        for (std::int64_t p = first; p < below; ++p) negate(p, k);
        stop.publish(barriers);
      }
      barrier.wait();
      if (stop.stopped(barriers++) || !positive) return false;
      for (std::int64_t p = below + member; p < n_panels_; p += members) {
        solve_panel(k, p);
        negate(p, k);
      }
      barrier.wait();
      ++barriers;
      for (std::int64_t p = below + member; p < n_panels_ && !stop.aborting(); p += members) {
        if (member == 0) stop.poll(static_cast<double>((p + 1 - below) * lanes * block_size * lanes));
        for (std::int64_t q = below; q <= p; ++q)
          accumulate_features(row_panel(p) + k * lanes, block_size, slab(q, block_size), lanes, block(p, q), true);
      }
      barrier.wait();
      ++barriers;
    }
    return true;
  }

  // x (padded) becomes the solution of L L' x = x.
  void solve(T* x) const {
    using V = Vec<T>;
    for (std::int64_t p = 0; p < n_panels_; ++p) {
      const T* panel = row_panel(p);
      T* own = x + p * lanes;
      V lo = V::load(own), hi = V::load(own + V::size);
      for (std::int64_t j = 0; j < p * lanes; ++j) {
        lo -= V(x[j]) * V::load(panel + j * lanes);
        hi -= V(x[j]) * V::load(panel + j * lanes + V::size);
      }
      lo.store(own);
      hi.store(own + V::size);
      const T* corner = panel + p * lanes * lanes;
      for (int j = 0; j < lanes; ++j) {
        own[j] /= corner[j * lanes + j];
        for (int l = j + 1; l < lanes; ++l) own[l] -= own[j] * corner[j * lanes + l];
      }
    }
    alignas(64) T negative[lanes];
    for (std::int64_t p = n_panels_ - 1; p >= 0; --p) {
      const T* corner = row_panel(p) + p * lanes * lanes;
      T* own = x + p * lanes;
      for (int j = lanes - 1; j >= 0; --j) {
        for (int l = j + 1; l < lanes; ++l) own[j] -= corner[j * lanes + l] * own[l];
        own[j] /= corner[j * lanes + j];
        negative[j] = -own[j];
      }
      add_panel_sums(row_panel(p), p * lanes, negative, x);
    }
  }

 private:
  T* row_panel(std::int64_t p) const { return entries_.get() + p * lanes * padded_; }
  T* block(std::int64_t p, std::int64_t q) const { return row_panel(p) + q * lanes * lanes; }
  T* slab(std::int64_t p, std::int64_t depth) const { return slab_.get() + p * depth * lanes; }

  // The slab's panel p becomes minus columns k.. of this panel.
  void negate(std::int64_t p, std::int64_t k) {
    const T* from = row_panel(p) + k * lanes;
    std::transform(from, from + block_size * lanes, slab(p, block_size), [](T x) { return -x; });
  }

  bool factorise_block(std::int64_t k) {
    Eigen::Matrix<T, block_size, block_size> square;
    const auto entry = [&](std::int64_t i, std::int64_t j) -> T& {
      return row_panel((k + i) / lanes)[(k + j) * lanes + (k + i) % lanes];
    };
    for (std::int64_t j = 0; j < block_size; ++j)
      for (std::int64_t i = j; i < block_size; ++i) square(i, j) = entry(i, j);
    const Eigen::LLT<Eigen::Ref<Eigen::Matrix<T, block_size, block_size>>> factor(square);
    if (factor.info() != Eigen::Success || !square.diagonal().array().isFinite().all()) return false;
    for (std::int64_t j = 0; j < block_size; ++j)
      for (std::int64_t i = j; i < block_size; ++i) entry(i, j) = square(i, j);
    return true;
  }

  // Columns k.. of the factor, in panel p below their block.
  void solve_panel(std::int64_t k, std::int64_t p) {
    using V = Vec<T>;
    T* x = row_panel(p) + k * lanes;
    for (std::int64_t j = 0; j < block_size; j += solved_at_once) {
      const T* negative = slab((k + j) / lanes, block_size) + j % lanes;  // of these rows in the block
      detail::feature_tile<T, solved_at_once>(x, j, negative, lanes, x + j * lanes, true);
      for (std::int64_t c = j; c < j + solved_at_once; ++c) {
        const T* row = negative + (c - j);
        V lo = V::load(x + c * lanes), hi = V::load(x + c * lanes + V::size);
        for (std::int64_t i = j; i < c; ++i) {
          lo += V(row[i * lanes]) * V::load(x + i * lanes);
          hi += V(row[i * lanes]) * V::load(x + i * lanes + V::size);
        }
        const V share(-1 / row[c * lanes]);
        (lo * share).store(x + c * lanes);
        (hi * share).store(x + c * lanes + V::size);
      }
    }
  }

  std::int64_t size_, padded_, n_panels_;
  Buffer<T> entries_, slab_;
};

}  // namespace

template <class T>
int ridge_solve(const void* f, std::int64_t rows, std::int64_t columns, const void* row_scale, const void* column_scale,
                double ridge, void* right, std::int64_t n_right, std::int32_t* positive,
                const mfld_execution* execution) {
  return guarded([&] {
    const bool transposed = columns < rows;
    const Matrix<T> b = {static_cast<const T*>(f),
                         rows,
                         columns,
                         static_cast<const T*>(row_scale),
                         static_cast<const T*>(column_scale),
                         transposed};
    const auto small_ridge = static_cast<T>(ridge);
    *positive = !transposed || small_ridge > 0;
    if (!*positive) return MFLD_DONE;
    Factor<T> factor(b.size());
    const std::int64_t padded = factor.padded();
    const auto size = static_cast<double>(b.size());
    const auto work = size * size * (static_cast<double>(b.depth()) / 2 + size / 6.0);
    const int threads = useful_threads(execution->num_threads, factor.n_panels(), work);
    const Buffer<T> solutions(n_right * padded);
    auto* x = static_cast<T*>(right);
    StopSignal stop(*execution);
    bool is_positive = true;

    run_team(threads, [&](int member, int members, SpinBarrier& barrier) {
      std::int64_t barriers = 0;
      if (!factor.gram(b, small_ridge, x, n_right, transposed ? solutions.get() : nullptr, member, members, barrier,
                       stop, barriers) ||
          !factor.factorise(member, members, barrier, stop, is_positive, barriers))
        return;
      const double solve_work = 2 * static_cast<double>(padded) * static_cast<double>(padded);
      for (std::int64_t k = member; k < n_right && !stop.aborting(); k += members) {
        if (member == 0) stop.poll(solve_work);
        T* solution = &solutions[k * padded];
        if (!transposed)
          for (std::int64_t i = 0; i < padded; ++i) solution[i] = i < rows ? x[i * n_right + k] : T(0);
        factor.solve(solution);
        if (!transposed)
          for (std::int64_t i = 0; i < rows; ++i) x[i * n_right + k] = solution[i];
        else if (b.column_scale)
          for (std::int64_t m = 0; m < columns; ++m) solution[m] *= b.column_scale[m];
      }
      if (!transposed) return;
      // X = (right - B Y) / ridge with (B' B + ridge I) Y = B' right
      if (member == 0) stop.publish(barriers);
      barrier.wait();
      if (stop.stopped(barriers++)) return;
      const Range mine = even_part(rows, member, members);
      for (std::int64_t i = mine.begin; i < mine.end && !stop.aborting(); ++i) {
        if (member == 0) stop.poll(static_cast<double>(columns * n_right));
        const T scale = b.row_scale ? b.row_scale[i] : T(1);
        for (std::int64_t k = 0; k < n_right; ++k) {
          const T fitted = scale * dot(b.entries + i * columns, &solutions[k * padded], columns);
          x[i * n_right + k] = (x[i * n_right + k] - fitted) / small_ridge;
        }
      }
    });
    *positive = is_positive;
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template <class T>
int product(const void* f, std::int64_t rows, std::int64_t columns, std::int32_t transposed, const void* right,
            std::int64_t n_right, void* product, const mfld_execution* execution) {
  return guarded([&] {
    constexpr int lanes = panel_lanes<T>;
    const Matrix<T> matrix = {static_cast<const T*>(f), rows, columns, nullptr, nullptr, transposed != 0};
    const auto* x = static_cast<const T*>(right);
    auto* out = static_cast<T*>(product);
    const auto work = static_cast<double>(rows * columns * n_right);
    StopSignal stop(*execution);
    if (!transposed) {
      const Buffer<T> columns_of_right(n_right * columns);
      for (std::int64_t k = 0; k < n_right; ++k) {
        if (stop.asked(columns)) return MFLD_STOPPED;
        for (std::int64_t j = 0; j < columns; ++j) columns_of_right[k * columns + j] = x[j * n_right + k];
      }
      run_team(useful_threads(execution->num_threads, rows, work), [&](int member, int members, SpinBarrier&) {
        const Range mine = even_part(rows, member, members);
        for (std::int64_t i = mine.begin; i < mine.end; ++i)
          for (std::int64_t k = 0; k < n_right; ++k) {
            if (member == 0) stop.poll(static_cast<double>(columns));
            if (stop.aborting()) return;
            out[i * n_right + k] = dot(matrix.entries + i * columns, &columns_of_right[k * columns], columns);
          }
      });
      return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
    }
    const std::int64_t n_panels = ceil_div(columns, lanes), padded = n_panels * lanes;
    const int threads = useful_threads(execution->num_threads, n_panels, work);
    const Buffer<T> sums(n_right * padded), scratch(threads * depth_size * lanes);
    run_team(threads, [&](int member, int members, SpinBarrier&) {
      T* panel = &scratch[member * depth_size * lanes];
      const Range mine = even_part(n_panels, member, members);
      for (std::int64_t from = 0; from == 0 || from < rows; from += depth_size)
        for (std::int64_t p = mine.begin; p < mine.end; ++p) {
          const std::int64_t depth = std::min(depth_size, rows - from);
          if (member == 0) stop.poll(static_cast<double>(depth * lanes * n_right));
          if (stop.aborting()) return;
          matrix.pack(p * lanes, from, depth, panel);
          accumulate_lanes(panel, depth, x + from * n_right, n_right, &sums[p * lanes], padded, from > 0);
        }
      for (std::int64_t m = mine.begin * lanes; m < std::min(mine.end * lanes, columns); ++m)
        for (std::int64_t k = 0; k < n_right; ++k) out[m * n_right + k] = sums[k * padded + m];
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template int ridge_solve<float>(const void*, std::int64_t, std::int64_t, const void*, const void*, double, void*,
                                std::int64_t, std::int32_t*, const mfld_execution*);
template int ridge_solve<double>(const void*, std::int64_t, std::int64_t, const void*, const void*, double, void*,
                                 std::int64_t, std::int32_t*, const mfld_execution*);
template int product<float>(const void*, std::int64_t, std::int64_t, std::int32_t, const void*, std::int64_t, void*,
                            const mfld_execution*);
template int product<double>(const void*, std::int64_t, std::int64_t, std::int32_t, const void*, std::int64_t, void*,
                             const mfld_execution*);

}  // namespace mfld
