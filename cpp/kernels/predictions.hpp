// The sum over particles: from activations of panels, through leaf sums, to predictions.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <utility>

#include "mfld/panels.hpp"
#include "mfld/ranks.hpp"
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

// Who has which leaves: `count` owners share `range` evenly.
struct Sharing {
  Range range;
  std::int64_t count;

  Range of(std::int64_t owner) const {
    const Range part = even_part(range.size(), owner, count);
    return {range.begin + part.begin, range.begin + part.end};
  }
  bool has_all(Range leaves) const { return range.begin <= leaves.begin && leaves.end <= range.end; }
  // Whether one owner has all these leaves of the range.
  bool undivided(Range leaves) const {
    const auto owner = [this](std::int64_t leaf) { return part_holding(leaf - range.begin, range.size(), count); };
    return owner(leaves.begin) == owner(leaves.end - 1);
  }
};

// Leaf sums of one block of samples: sums[leaf][output][row], rows padded to whole registers. Two copies take turns, so
// that one barrier a block is enough. The gradients of panels are summed over leaves of rows in the same way, where
// outputs stand for panels, and rows for the numbers of one; they have one copy.
//
// The leaves are the ends of a binary tree whose nodes are aligned powers of two of them. Predictions are its root, so
// they do not depend on the number of members: each member adds its own leaves as far up as they make whole nodes, in
// place in a node's first leaf, and only these few nodes are fetched from another core's cache. Ranks do the same.
template <class T>
class LeafSums {
 public:
  LeafSums(std::int64_t n_leaves, std::int64_t n_outputs, std::int64_t stride, int copies = 2)
      : n_leaves_(n_leaves),
        row_size_(n_outputs * stride),
        stride_(stride),
        copies_(copies),
        sums_(copies * n_leaves_ * row_size_) {}

  std::int64_t stride() const { return stride_; }
  T* leaf(std::int64_t turn, std::int64_t leaf) const {
    return &sums_[((turn & (copies_ - 1)) * n_leaves_ + leaf) * row_size_];
  }

  // After leaf `l`, the leaves of `mine` being done in their order: adds it to its neighbour, their sum to theirs, and
  // so on. `n_rows` of each of so many outputs from the first on.
  void join(std::int64_t turn, std::int64_t l, Range mine, std::int64_t outputs, std::int64_t n_rows,
            std::int64_t first_output = 0) const {
    for (std::int64_t size = 1; size < n_leaves_; size *= 2) {
      const std::int64_t right = l / size * size, left = right - size;
      // The tree's last nodes may be short of leaves: they are whole when the last leaf is.
      const bool whole = l + 1 == right + size || l + 1 == n_leaves_;
      if (!whole || (right / size % 2 == 1 && left < mine.begin)) return;
      if (right / size % 2 == 0) {
        if (l + 1 == n_leaves_) continue;  // without a right neighbour a node is its left half
        return;
      }
      const std::int64_t first = first_output * stride_;
      add(leaf(turn, right) + first, leaf(turn, left) + first, outputs, n_rows);
    }
  }

  // The same of the nodes that the members of a rank have made, up to those that are whole within `mine`.
  void join_members(std::int64_t turn, const Sharing& mine, std::int64_t outputs, std::int64_t n_rows) const {
    if (mine.count > 1) join_node(turn, mine, 0, root(), outputs, n_rows);
  }

  // How the nodes that owners have made come together: a leaf says to take its node, `add` the last two.
  struct Order {
    static constexpr std::int8_t add = -1;
    std::array<std::int8_t, 2 * PanelLayout<T>::most_leaves> steps;
    int count = 0;
  };

  Order order(const Sharing& owners) const {
    Order order;
    append(order, owners, 0, root());
    return order;
  }

  // visit(first leaf) of each node that one of `count` ranks makes.
  template <class Visit>
  void each_node(std::int64_t rank, std::int64_t count, const Visit& visit) const {
    each_node_of({even_part(n_leaves_, rank, count), 1}, 0, root(), visit);
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
  std::int64_t root() const {
    std::int64_t size = 1;
    while (size < n_leaves_) size *= 2;
    return size;
  }
  Range node(std::int64_t first, std::int64_t size) const { return {first, std::min(first + size, n_leaves_)}; }

  void append(Order& order, const Sharing& owners, std::int64_t first, std::int64_t size) const {
    const Range leaves = node(first, size);
    const std::int64_t middle = first + size / 2;
    if (owners.undivided(leaves)) {
      order.steps[order.count++] = static_cast<std::int8_t>(first);
      return;
    }
    append(order, owners, first, size / 2);
    if (middle >= leaves.end) return;
    append(order, owners, middle, size / 2);
    order.steps[order.count++] = Order::add;
  }

  void join_node(std::int64_t turn, const Sharing& mine, std::int64_t first, std::int64_t size, std::int64_t outputs,
                 std::int64_t n_rows) const {
    const Range leaves = node(first, size);
    if (leaves.end <= mine.range.begin || mine.range.end <= leaves.begin || leaves.size() <= 0) return;
    const bool whole = mine.has_all(leaves);
    if (whole && mine.undivided(leaves)) return;
    const std::int64_t middle = first + size / 2;
    join_node(turn, mine, first, size / 2, outputs, n_rows);
    join_node(turn, mine, middle, size / 2, outputs, n_rows);
    if (whole && middle < leaves.end) add(leaf(turn, middle), leaf(turn, first), outputs, n_rows);
  }

  template <class Visit>
  void each_node_of(const Sharing& mine, std::int64_t first, std::int64_t size, const Visit& visit) const {
    const Range leaves = node(first, size);
    if (leaves.end <= mine.range.begin || mine.range.end <= leaves.begin || leaves.size() <= 0) return;
    if (mine.has_all(leaves)) {
      visit(first);
      return;
    }
    each_node_of(mine, first, size / 2, visit);
    each_node_of(mine, first + size / 2, size / 2, visit);
  }

  void add(const T* other, T* sum, std::int64_t outputs, std::int64_t n_rows) const {
    for (std::int64_t k = 0; k < outputs; ++k, sum += stride_, other += stride_)
      for (std::int64_t i = 0; i < n_rows; i += Vec<T>::size)
        (Vec<T>::load(sum + i) + Vec<T>::load(other + i)).store(sum + i);
  }

  std::int64_t n_leaves_, row_size_, stride_, copies_;
  Buffer<T> sums_;
};

// Where ranks meet between the sums of their leaves and predictions, and tell each other how they fare.
template <class T>
class SumsOfRanks {
 public:
  struct News {
    std::int64_t stop = 0;                                                                // somebody asked for it
    std::int64_t bad_step = std::numeric_limits<std::int64_t>::max(), bad_particle = -1;  // the first divergence
  };

  // used: whether ranks meet here.
  SumsOfRanks(const LeafSums<T>& sums, const Ranks& ranks, std::int64_t n_outputs, bool used)
      : sums_(sums), rank_(ranks.rank()), count_(ranks.count()), row_size_(n_outputs * sums.stride()) {
    if (!used) return;
    for (std::int64_t r = 0; r < count_; ++r) {
      std::int64_t nodes = 0;
      sums.each_node(r, count_, [&nodes](std::int64_t) { ++nodes; });
      most_nodes_ = std::max(most_nodes_, nodes);
    }
    slots_ = Buffer<char>(count_ * slot_size(most_nodes_ * row_size_));
  }

  // The nodes of all ranks, and what is new at any of them. `outputs` rows of `n_rows` numbers.
  News meet(Ranks& ranks, const News& mine, std::int64_t turn, std::int64_t outputs, std::int64_t n_rows) const {
    const std::int64_t padded = round_up(n_rows, Vec<T>::size), size = slot_size(most_nodes_ * outputs * padded);
    std::copy_n(reinterpret_cast<const char*>(&mine), sizeof(News), slot(rank_, size));
    copy(rank_, size, turn, outputs, padded,
         [](T* in_sums, T* in_slot, std::int64_t n) { std::copy_n(in_sums, n, in_slot); });
    ranks.meet(slots_.get(), size);
    News all = mine;
    for (std::int64_t r = 0; r < count_ && !ranks.failed(); ++r) {
      News other;
      std::copy_n(slot(r, size), sizeof(News), reinterpret_cast<char*>(&other));
      all.stop |= other.stop;
      if (std::pair(other.bad_step, other.bad_particle) < std::pair(all.bad_step, all.bad_particle))
        all.bad_step = other.bad_step, all.bad_particle = other.bad_particle;
      if (r != rank_)
        copy(r, size, turn, outputs, padded,
             [](T* in_sums, const T* in_slot, std::int64_t n) { std::copy_n(in_slot, n, in_sums); });
    }
    return all;
  }

 private:
  // News and numbers, in whole cache lines.
  static std::int64_t slot_size(std::int64_t numbers) {
    return round_up(static_cast<std::int64_t>(sizeof(News)), 64) +
           round_up(numbers * static_cast<std::int64_t>(sizeof(T)), 64);
  }
  char* slot(std::int64_t rank, std::int64_t size) const { return &slots_[rank * size]; }

  template <class Copy>
  void copy(std::int64_t rank, std::int64_t size, std::int64_t turn, std::int64_t outputs, std::int64_t padded,
            const Copy& one) const {
    T* numbers = reinterpret_cast<T*>(slot(rank, size) + slot_size(0));
    sums_.each_node(rank, count_, [&](std::int64_t first) {
      for (std::int64_t k = 0; k < outputs; ++k, numbers += padded)
        one(sums_.leaf(turn, first) + k * sums_.stride(), numbers, padded);
    });
  }

  const LeafSums<T>& sums_;
  std::int64_t rank_, count_, row_size_, most_nodes_ = 0;
  Buffer<char> slots_;
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
