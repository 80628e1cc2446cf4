// The sum over particles: from activations of panels, through leaf sums, to predictions.
#pragma once

#include <array>
#include <cstdint>

#include "mfld/panels.hpp"
#include "network.hpp"

namespace mfld {

// One pass over `n_rows` samples, cut evenly into blocks of `most_rows` or one fewer.
struct SampleBlocks {
  std::int64_t n_rows, n_blocks, most_rows;

  SampleBlocks(std::int64_t n_rows_, std::int64_t target_rows)
      : n_rows(n_rows_),
        n_blocks(std::max<std::int64_t>(ceil_div(n_rows, target_rows), 1)),
        most_rows(ceil_div(n_rows, n_blocks)) {}
  Range rows(std::int64_t block) const { return even_part(n_rows, block, n_blocks); }
};

// Leaf sums of one block of samples: sums[leaf][output][row], rows padded to whole registers. Two copies take turns, so
// that one barrier a block is enough.
//
// The leaves are the ends of a binary tree whose nodes are aligned powers of two of them. Predictions are its root, so
// they do not depend on the number of members: each member adds its own leaves as far up as they make whole nodes, in
// place in a node's first leaf, and only these few nodes are fetched from another core's cache.
template <class T>
class LeafSums {
 public:
  LeafSums(const PanelLayout<T>& layout, std::int64_t n_outputs, std::int64_t stride)
      : n_leaves_(layout.n_leaves), row_size_(n_outputs * stride), stride_(stride), sums_(2 * n_leaves_ * row_size_) {}

  std::int64_t stride() const { return stride_; }
  T* leaf(std::int64_t turn, std::int64_t leaf) const { return &sums_[((turn & 1) * n_leaves_ + leaf) * row_size_]; }

  // After leaf `l`, the leaves of `mine` being done in their order: adds it to its neighbour, their sum to theirs, and
  // so on. `n_rows` of each of the first `outputs`.
  void join(std::int64_t turn, std::int64_t l, Range mine, std::int64_t outputs, std::int64_t n_rows) const {
    for (std::int64_t size = 1; size < n_leaves_; size *= 2) {
      const std::int64_t right = l / size * size, left = right - size;
      // The tree's last nodes may be short of leaves: they are whole when the last leaf is.
      const bool whole = l + 1 == right + size || l + 1 == n_leaves_;
      if (!whole || (right / size % 2 == 1 && left < mine.begin)) return;
      if (right / size % 2 == 0) {
        if (l + 1 == n_leaves_) continue;  // without a right neighbour a node is its left half
        return;
      }
      for (std::int64_t k = 0; k < outputs; ++k) {
        T* sum = leaf(turn, left) + k * stride_;
        const T* other = leaf(turn, right) + k * stride_;
        for (std::int64_t i = 0; i < n_rows; i += Vec<T>::size)
          (Vec<T>::load(sum + i) + Vec<T>::load(other + i)).store(sum + i);
      }
    }
  }

  // How the nodes that `members` members have made come together: a leaf says to take its node, `add` the last two.
  struct Order {
    static constexpr std::int8_t add = -1;
    std::array<std::int8_t, 2 * PanelLayout<T>::most_leaves> steps;
    int count = 0;
  };

  Order order(std::int64_t members) const {
    Order order;
    std::int64_t size = 1;
    while (size < n_leaves_) size *= 2;
    append(order, members, 0, size);
    return order;
  }

  // predictions[j], j in `range` of (output, row), whole registers: scale * sum over leaves.
  void total(std::int64_t turn, const Order& order, Range range, double scale, T* predictions) const {
    using V = Vec<T>;
    std::array<V, 8> stack;  // a tree over most_leaves is 6 high
    for (std::int64_t j = range.begin; j < range.end; j += V::size) {
      int top = 0;
      for (int i = 0; i < order.count; ++i) {
        if (order.steps[i] == Order::add) {
          --top;
          stack[top - 1] += stack[top];
        } else {
          stack[top++] = V::load(leaf(turn, order.steps[i]) + j);
        }
      }
      (stack[0] * V(static_cast<T>(scale))).store(predictions + j);
    }
  }

 private:
  void append(Order& order, std::int64_t members, std::int64_t first, std::int64_t size) const {
    const std::int64_t end = std::min(first + size, n_leaves_), middle = first + size / 2;
    if (part_holding(first, n_leaves_, members) == part_holding(end - 1, n_leaves_, members)) {
      order.steps[order.count++] = static_cast<std::int8_t>(first);
      return;
    }
    append(order, members, first, size / 2);
    if (middle >= end) return;
    append(order, members, middle, size / 2);
    order.steps[order.count++] = Order::add;
  }

  std::int64_t n_leaves_, row_size_, stride_;
  Buffer<T> sums_;
};

// Adds one panel to its leaf's sums. coefficient, offset: (n_outputs, lanes); share: (lanes), the weight of each
// particle, 0 in empty lanes; values: (n_rows, lanes).
template <class T>
void add_to_leaf(const NetworkPanel<T>& network, const T* values, std::int64_t n_rows, const T* coefficient,
                 const T* offset, const T* share, T* leaf, std::int64_t stride) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  alignas(64) T row[lanes];
  for (std::int64_t k = 0; k < network.n_outputs; ++k) {
    T* sums = leaf + k * stride;
    if (network.readout.has_offset) {
      for (int l = 0; l < lanes; l += V::size) (V::load(offset + k * lanes + l) * V::load(share + l)).store(row + l);
      const V constant(sum_of_row(row));
      for (std::int64_t i = 0; i < n_rows; i += V::size) (V::load(sums + i) + constant).store(sums + i);
    }
    for (int l = 0; l < lanes; l += V::size) (V::load(coefficient + k * lanes + l) * V::load(share + l)).store(row + l);
    add_panel_sums(values, n_rows, row, sums);
  }
}

// share of each lane of a panel: coefficients (n_particles), or 1 where there is a particle when they are null.
template <class T>
void panel_share(const PanelLayout<T>& layout, std::int64_t panel, const T* coefficients, T* share) {
  const std::int64_t count = layout.particles_in(panel);
  for (std::int64_t l = 0; l < panel_lanes<T>; ++l)
    share[l] = l >= count ? T(0) : coefficients ? coefficients[panel * panel_lanes<T> + l] : T(1);
}

}  // namespace mfld
