// h(theta, z) of every particle at every input, as a matrix, which training by `advance` never stores.
//
// Every number is the same sum over features wherever its particle and its row stand, whatever else is asked for, and
// for any number of threads. A group of panels goes through all rows, block by block: what it writes of a row is then
// longer than a cache line, and its particles are packed once.
#include <algorithm>
#include <cstdint>

#include "entries.hpp"
#include "mfld/team.hpp"
#include "network.hpp"
#include "predictions.hpp"

namespace mfld {
namespace {

constexpr std::int64_t most_panels = 8, most_bytes = 1 << 18;  // of a group, half a second-level cache

// Rows of one panel, (rows, lanes), into h (rows, n_particles, n_outputs) from its first particle on.
template <class T>
void store_neurons(const T* values, std::int64_t n_rows, const T* coefficient, const T* offset, std::int64_t count,
                   std::int64_t n_particles, std::int64_t n_outputs, T* h) {
  using V = Vec<T>;
  constexpr int lanes = panel_lanes<T>;
  if (n_outputs == 1 && count == lanes) {
    const V c0 = V::load(coefficient), c1 = V::load(coefficient + V::size);
    const V e0 = V::load(offset), e1 = V::load(offset + V::size);
    for (std::int64_t i = 0; i < n_rows; ++i) {
      multiply_add(c0, V::load(values + i * lanes), e0).store(h + i * n_particles);
      multiply_add(c1, V::load(values + i * lanes + V::size), e1).store(h + i * n_particles + V::size);
    }
    return;
  }
  alignas(64) T row[lanes];
  for (std::int64_t i = 0; i < n_rows; ++i)
    for (std::int64_t k = 0; k < n_outputs; ++k) {
      for (int l = 0; l < lanes; l += V::size) {
        const std::int64_t at = k * lanes + l;
        multiply_add(V::load(coefficient + at), V::load(values + i * lanes + l), V::load(offset + at)).store(row + l);
      }
      for (std::int64_t l = 0; l < count; ++l) h[(i * n_particles + l) * n_outputs + k] = row[l];
    }
}

}  // namespace

template <class T>
int neurons(const mfld_network* description, const void* particles, std::int64_t n_particles, const void* inputs,
            std::int64_t n, void* h, const mfld_execution* execution) {
  return guarded([&] {
    constexpr int lanes = panel_lanes<T>;
    const NetworkPanel<T> network(*description);
    const PanelLayout<T> layout(n_particles, network.n_coordinates());
    const std::int64_t d = network.n_features, outputs = network.n_outputs, terms_size = outputs * lanes;
    const auto* z = static_cast<const T*>(inputs);
    auto* out = static_cast<T*>(h);
    const SampleBlocks blocks(n, NetworkPanel<T>::most_rows_at_once);

    const auto panel_bytes = static_cast<std::int64_t>(sizeof(T)) * layout.panel_size();
    const std::int64_t group_size = std::clamp<std::int64_t>(most_bytes / panel_bytes, 1, most_panels);
    // Blocks of one group follow each other.
    const std::int64_t n_parts = ceil_div(layout.n_panels, group_size) * blocks.n_blocks;
    const auto panel_work = static_cast<double>(lanes * blocks.most_rows * (d + 20 * outputs));
    const int threads = useful_threads(execution->num_threads, n_parts,
                                       panel_work * static_cast<double>(layout.n_panels * blocks.n_blocks));
    // per member: values and slopes; of each panel of a group coordinates, coefficient and offset
    const std::int64_t of_panel = layout.panel_size() + 2 * terms_size;
    const std::int64_t scratch_size = 2 * blocks.most_rows * lanes + group_size * of_panel;
    const Buffer<T> scratch(threads * scratch_size);
    StopSignal stop(*execution);

    run_team(threads, [&](int member, int members, SpinBarrier&) {
      T* values = &scratch[member * scratch_size];
      T* slope = values + blocks.most_rows * lanes;
      T* group = slope + blocks.most_rows * lanes;
      const Range parts = even_part(n_parts, member, members);
      for (std::int64_t part = parts.begin; part < parts.end; ++part) {
        const std::int64_t first = part / blocks.n_blocks * group_size;
        const std::int64_t n_panels = std::min(group_size, layout.n_panels - first);
        const Range rows = blocks.rows(part % blocks.n_blocks);
        for (std::int64_t g = 0; g < n_panels; ++g) {
          if (member == 0) stop.poll(panel_work);
          if (stop.aborting()) return;
          T* panel = group + g * of_panel;
          T* coefficient = panel + layout.panel_size();
          T* offset = coefficient + terms_size;
          if (part == parts.begin || rows.begin == 0) {
            layout.pack(static_cast<const T*>(particles), first + g, panel);
            network.terms(panel, coefficient, offset);
          }
          network.forward(panel, z + rows.begin * d, rows.size(), values, slope);
          const std::int64_t particle = (first + g) * lanes;
          store_neurons(values, rows.size(), coefficient, offset, layout.particles_in(first + g), n_particles, outputs,
                        out + (rows.begin * n_particles + particle) * outputs);
        }
      }
    });
    return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
  });
}

template int neurons<float>(const mfld_network*, const void*, std::int64_t, const void*, std::int64_t, void*,
                            const mfld_execution*);
template int neurons<double>(const mfld_network*, const void*, std::int64_t, const void*, std::int64_t, void*,
                             const mfld_execution*);

}  // namespace mfld
