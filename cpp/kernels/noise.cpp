// The noise entries of the kernel table.
#include "mfld/noise.hpp"

#include <algorithm>
#include <cstring>
#include <exception>

#include "mfld/kernels.h"
#include "mfld/simd.hpp"

namespace mfld {

namespace {

constexpr int group_size = 4;  // coordinates in one panel_normals

// Writes columns[0..3][l] to rows[0..3] of out + l * stride for every lane l, as 4 by 4 blocks.
template <class T, int lanes>
MFLD_INLINE void store_rows(const T (&columns)[group_size][lanes], T* out, std::int64_t stride) {
  typedef T Row __attribute__((vector_size(group_size * sizeof(T))));
  for (int l = 0; l < lanes; l += group_size) {
    Row c[group_size];
    for (int j = 0; j < group_size; ++j) std::memcpy(&c[j], &columns[j][l], sizeof(Row));
    const Row low01 = __builtin_shufflevector(c[0], c[1], 0, 4, 1, 5),
              high01 = __builtin_shufflevector(c[0], c[1], 2, 6, 3, 7);
    const Row low23 = __builtin_shufflevector(c[2], c[3], 0, 4, 1, 5),
              high23 = __builtin_shufflevector(c[2], c[3], 2, 6, 3, 7);
    const Row rows[group_size] = {
        __builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
        __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
    for (int j = 0; j < group_size; ++j) std::memcpy(out + (l + j) * stride, &rows[j], sizeof(Row));
  }
}

template <class T>
void fill_panel(const NoisePlace& place, std::int64_t first_particle, std::int64_t n_particles,
                std::int64_t n_coordinates, T* out) {
  constexpr int lanes = 2 * Vec<T>::size;
  const PanelNoise<T> panel(place, static_cast<std::uint32_t>(first_particle));
  const std::int64_t count = std::min<std::int64_t>(lanes, n_particles - first_particle);
  T* const rows = out + first_particle * n_coordinates;
  for (std::int64_t first = 0; first < n_coordinates; first += group_size) {
    Vec<T> z[group_size][2];
    panel.normals(static_cast<std::uint32_t>(first / group_size), z);
    alignas(64) T columns[group_size][lanes];
    for (int j = 0; j < group_size; ++j)
      for (int i = 0; i < 2; ++i) z[j][i].store(&columns[j][i * Vec<T>::size]);
    const std::int64_t width = std::min<std::int64_t>(group_size, n_coordinates - first);
    if (count == lanes && width == group_size) {
      store_rows(columns, rows + first, n_coordinates);
    } else {
      for (std::int64_t l = 0; l < count; ++l)
        for (std::int64_t j = 0; j < width; ++j) rows[l * n_coordinates + first + j] = columns[j][l];
    }
  }
}

}  // namespace

template <class T>
int normals(const mfld_noise* noise, std::uint32_t stream, std::int64_t n_particles, std::int64_t n_coordinates,
            void* out, const mfld_execution* execution) {
  constexpr std::int64_t lanes = 2 * Vec<T>::size;
  const NoisePlace place(*noise, stream);
  const std::int64_t n_panels = (n_particles + lanes - 1) / lanes;
  // About 10 us of work is what starting a thread is worth.
  [[maybe_unused]] const bool parallel = execution->num_threads > 1 && n_particles * n_coordinates > 16384;
#pragma omp parallel for num_threads(execution->num_threads) if (parallel) schedule(static)
  for (std::int64_t panel = 0; panel < n_panels; ++panel)
    fill_panel(place, panel * lanes, n_particles, n_coordinates, static_cast<T*>(out));
  return MFLD_DONE;
}

template int normals<float>(const mfld_noise*, std::uint32_t, std::int64_t, std::int64_t, void*, const mfld_execution*);
template int normals<double>(const mfld_noise*, std::uint32_t, std::int64_t, std::int64_t, void*,
                             const mfld_execution*);

void philox(const std::uint32_t counter[4], const std::uint32_t key[2], std::uint32_t out[4]) {
  const PhiloxBlock words = philox4x32({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  std::copy(words.begin(), words.end(), out);
}

// The key of the hash is "mfld" in ASCII, so that no run's own key plays this part except by chance.
std::uint64_t noise_key(std::uint64_t seed, std::uint64_t replica) {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  const PhiloxBlock words = philox4x32({low(seed), high(seed), low(replica), high(replica)}, 0x6d666c64u, 0);
  return words[0] | std::uint64_t{words[1]} << 32;
}

int batch(const mfld_noise* noise, std::int64_t n, std::int64_t batch_size, std::int64_t* rows) {
  try {
    BatchScratch scratch;
    floyd_batch(*noise, n, batch_size, rows, scratch);
    return MFLD_DONE;
  } catch (const std::exception&) {  // nothing but the scratch memory can fail
    return MFLD_OUT_OF_MEMORY;
  }
}

}  // namespace mfld
