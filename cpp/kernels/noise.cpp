// The noise entries of the kernel table.
#include "mfld/noise.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "entries.hpp"
#include "mfld/kernels.h"
#include "mfld/panels.hpp"
#include "mfld/simd.hpp"
#include "mfld/team.hpp"

namespace mfld {

namespace {

constexpr int group_size = 4;  // coordinates in one panel_normals

// Lanes of two columns of four, side by side: those below `half` of each group of four from `first` on.
template <int first, int step, class T, std::size_t... l>
MFLD_INLINE Vec<T> interleave(Vec<T> a, Vec<T> b, std::index_sequence<l...>) {
  constexpr auto n = static_cast<int>(sizeof...(l));
  constexpr auto from = [](int lane) {
    const int in_group = lane % group_size, group = lane - in_group;
    return in_group / step % 2 * n + group + first + in_group / (2 * step) * step + in_group % step;
  };
  return Vec<T>(typename Vec<T>::Raw(__builtin_shufflevector(a.raw, b.raw, from(l)...)));
}

// Writes columns[0..3][l] to rows[0..3] of out + l * stride for every lane l: 4 by 4 blocks, all of a register at once.
template <class T, std::size_t... l>
MFLD_INLINE void store_rows(const Vec<T> (&columns)[group_size], T* out, std::int64_t stride,
                            std::index_sequence<l...> all) {
  typedef T Row __attribute__((vector_size(group_size * sizeof(T))));
  const Vec<T> low01 = interleave<0, 1>(columns[0], columns[1], all),
               high01 = interleave<2, 1>(columns[0], columns[1], all);
  const Vec<T> low23 = interleave<0, 1>(columns[2], columns[3], all),
               high23 = interleave<2, 1>(columns[2], columns[3], all);
  const Vec<T> rows[group_size] = {interleave<0, 2>(low01, low23, all), interleave<2, 2>(low01, low23, all),
                                   interleave<0, 2>(high01, high23, all), interleave<2, 2>(high01, high23, all)};
  const auto store_group = [&](auto group) __attribute__((always_inline)) {
    constexpr int at = decltype(group)::value * group_size;
    for (int j = 0; j < group_size; ++j) {
      const Row row = __builtin_shufflevector(rows[j].raw, rows[j].raw, at, at + 1, at + 2, at + 3);
      std::memcpy(out + (at + j) * stride, &row, sizeof(Row));
    }
  };
  [&]<std::size_t... group>(std::index_sequence<group...>) __attribute__((always_inline)) {
    (store_group(std::integral_constant<int, static_cast<int>(group)>()), ...);
  }(std::make_index_sequence<Vec<T>::size / group_size>());
}

// A panel of `out`, whose particles have numbers in the noise that are higher by `offset`.
template <class T>
void fill_panel(const NoisePlace& place, std::int64_t offset, std::int64_t first_particle, std::int64_t n_particles,
                Range coordinates, std::int64_t n_coordinates, T* out) {
  constexpr int lanes = 2 * Vec<T>::size;
  const PanelNoise<T> panel(place, static_cast<std::uint32_t>(offset + first_particle));
  const std::int64_t count = std::min<std::int64_t>(lanes, n_particles - first_particle);
  T* const rows = out + first_particle * n_coordinates;
  // The processor does not foresee short stores to 32 rows in turn: what the next panel writes is fetched meanwhile.
  const T* const next = rows + lanes * n_coordinates;
  const bool fetch_next = first_particle + 2 * lanes <= n_particles;
  for (std::int64_t first = coordinates.begin; first < coordinates.end; first += group_size) {
    const std::int64_t width = std::min<std::int64_t>(group_size, coordinates.end - first);
    if (fetch_next)
      for (std::int64_t at = 0; at < width * lanes; at += 64 / static_cast<std::int64_t>(sizeof(T)))
        __builtin_prefetch(next + first * lanes + at, /*to write*/ 1);
    Vec<T> z[group_size][2];
    panel.normals(static_cast<std::uint32_t>(first / group_size), z);
    if constexpr (Vec<T>::size >= group_size) {
      if (count == lanes && width == group_size) {
        for (int i = 0; i < 2; ++i)
          store_rows<T>({z[0][i], z[1][i], z[2][i], z[3][i]}, rows + first + i * Vec<T>::size * n_coordinates,
                        n_coordinates, std::make_index_sequence<Vec<T>::size>());
        continue;
      }
    }
    alignas(64) T columns[group_size][lanes];
    for (int j = 0; j < group_size; ++j)
      for (int i = 0; i < 2; ++i) z[j][i].store(&columns[j][i * Vec<T>::size]);
    for (std::int64_t l = 0; l < count; ++l)
      for (std::int64_t j = 0; j < width; ++j) rows[l * n_coordinates + first + j] = columns[j][l];
  }
}

// Two coordinates of a panel of double's lanes, block by block.
template <class T>
void fill_uniforms(const NoisePlace& place, std::int64_t offset, std::int64_t first_particle, std::int64_t n_particles,
                   Range coordinates, std::int64_t n_coordinates, T* out) {
  constexpr int lanes = 2 * HalfVec::size, at_once = 4;
  const PanelNoise<double> panel(place, static_cast<std::uint32_t>(offset + first_particle));
  const std::int64_t count = std::min<std::int64_t>(lanes, n_particles - first_particle);
  T* const rows = out + first_particle * n_coordinates;
  for (std::int64_t first = coordinates.begin; first < coordinates.end; first += at_once) {
    const std::int64_t width = std::min<std::int64_t>(at_once, coordinates.end - first);
    HalfVec low[at_once], high[at_once];  // of two blocks, for the panel's two vectors each
    panel.words(static_cast<std::uint32_t>(first / 2), low, high);
    alignas(64) std::uint64_t words[at_once][lanes];
    for (int i = 0; i < at_once; ++i) {
      low[i].store(&words[i / 2 * 2][i % 2 * HalfVec::size]);
      high[i].store(&words[i / 2 * 2 + 1][i % 2 * HalfVec::size]);
    }
    for (std::int64_t l = 0; l < count; ++l)
      for (std::int64_t j = 0; j < width; ++j) rows[l * n_coordinates + first + j] = unit_uniform<T>(words[j][l]);
  }
}

// fill(place, first particle, coordinates, their numbers) for panels of `lanes` particles of each member; a panel may
// be very long.
template <class T, class Fill>
int over_panels(const mfld_noise& noise, std::uint32_t stream, std::int64_t n_members, std::int64_t n_particles,
                std::int64_t n_coordinates, std::int64_t lanes, T* out, const mfld_execution& execution,
                const Fill& fill) {
  const std::int64_t each = ceil_div(n_particles, lanes), n_panels = n_members * each;
  constexpr double work_of_number = 6;    // so that 10 us of it are worth a thread
  constexpr std::int64_t at_once = 4096;  // whole blocks of the noise
  const double work = work_of_number * static_cast<double>(lanes * n_coordinates);
  StopSignal stop(execution);
  run_team(useful_threads(execution.num_threads, n_panels, work * static_cast<double>(n_panels)),
           [&](int member, int members, SpinBarrier&) {
             const Range mine = even_part(n_panels, member, members);
             for (std::int64_t panel = mine.begin; panel < mine.end;) {
               const std::int64_t e = panel / each, end = std::min(mine.end, (e + 1) * each);
               const NoisePlace place(of_member(noise, e), stream);
               for (; panel < end; ++panel)
                 for (std::int64_t at = 0; at < n_coordinates; at += at_once) {
                   const Range coordinates = {at, std::min(n_coordinates, at + at_once)};
                   if (member == 0) stop.poll(work_of_number * static_cast<double>(lanes * coordinates.size()));
                   if (stop.aborting()) return;
                   fill(place, (panel - e * each) * lanes, coordinates, out + e * n_particles * n_coordinates);
                 }
             }
           });
  return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
}

}  // namespace

template <class T>
int normals(const mfld_noise* noise, std::uint32_t stream, std::int64_t n_members, std::int64_t first_particle,
            std::int64_t n_particles, std::int64_t n_coordinates, void* out, const mfld_execution* execution) {
  return over_panels(*noise, stream, n_members, n_particles, n_coordinates, 2 * Vec<T>::size, static_cast<T*>(out),
                     *execution, [=](const NoisePlace& place, std::int64_t first, Range coordinates, T* own) {
                       fill_panel(place, first_particle, first, n_particles, coordinates, n_coordinates, own);
                     });
}

template <class T>
int uniforms(const mfld_noise* noise, std::uint32_t stream, std::int64_t n_members, std::int64_t first_particle,
             std::int64_t n_particles, std::int64_t n_coordinates, void* out, const mfld_execution* execution) {
  return over_panels(*noise, stream, n_members, n_particles, n_coordinates, 2 * HalfVec::size, static_cast<T*>(out),
                     *execution, [=](const NoisePlace& place, std::int64_t first, Range coordinates, T* own) {
                       fill_uniforms(place, first_particle, first, n_particles, coordinates, n_coordinates, own);
                     });
}

#define MFLD_INSTANTIATE(T)                                                                                          \
  template int normals<T>(const mfld_noise*, std::uint32_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,  \
                          void*, const mfld_execution*);                                                             \
  template int uniforms<T>(const mfld_noise*, std::uint32_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, \
                           void*, const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

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

int batch(const mfld_noise* noise, std::int64_t n, std::int64_t batch_size, std::int64_t* rows,
          const mfld_execution* execution) {
  return guarded([&] {
    StopSignal stop(*execution);
    FloydSet set(batch_size);
    const auto gives_up = [&](std::int64_t draws) { return stop.asked(work_of_draw * draws); };
    return floyd_batch(*noise, n, batch_size, rows, set, gives_up) ? MFLD_DONE : MFLD_STOPPED;
  });
}

}  // namespace mfld
