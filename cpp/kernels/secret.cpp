// Noise that nobody can make again: words of ChaCha20 under a key of 256 bits, and whole Gaussian numbers from them.
//
// Philox (noise.hpp) is no cipher: who sees some of its numbers may find the others. ChaCha20 is one, as in RFC 8439.
//
// Numbers are k = floor(2^30 X), X ~ N(0, 1), by rejection: a cell of width 2^24 of |k| in proportion to the density at
// its lower end, from a table of aliases of 2^10 columns; a place in it, uniform; kept with the probability of its
// density over that of the lower end. One word of 64 bits does for nearly all of it: 10 bits for the column, 14 to
// choose between the column and its alias, 24 for the place, a sign, and 15 to keep or not; where 14 or 15 bits leave a
// comparison open, another word goes on with it, so that all of them are of 64 bits. Hence every number has the right
// probability up to a factor of 1 +- 2^-50, the error of the exponential function, and up to 2^-64 in total variation:
// the tail beyond 9.25 deviations and the grain of the table.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "entries.hpp"
#include "mfld/panels.hpp"
#include "mfld/simd.hpp"
#include "mfld/team.hpp"

namespace mfld {
namespace {

constexpr int place_bits = 24, unit_bits = 30;

// Blocks side by side: block i has the counter `counter + i`, and is lane i of a register.
constexpr int at_once = 16, words_per_block = 16;
using W = Vec<std::uint32_t>;

MFLD_INLINE W rotated(W x, int by) { return x << by | x >> (32 - by); }

MFLD_INLINE void quarter_round(W& a, W& b, W& c, W& d) {
  a += b;
  d = rotated(d ^ a, 16);
  c += d;
  b = rotated(b ^ c, 12);
  a += b;
  d = rotated(d ^ a, 8);
  c += d;
  b = rotated(b ^ c, 7);
}

void cipher(const std::uint32_t* key, std::uint32_t counter, const std::uint32_t* nonce, std::uint32_t* out) {
  constexpr std::uint32_t constants[] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
  constexpr int rounds = 20;
  for (int block = 0; block < at_once; block += W::size) {
    std::uint32_t counters[W::size];
    for (int i = 0; i < W::size; ++i) counters[i] = counter + static_cast<std::uint32_t>(block + i);
    W first[words_per_block], s[words_per_block];
    for (int j = 0; j < 4; ++j) first[j] = W(constants[j]);
    for (int j = 0; j < 8; ++j) first[4 + j] = W(key[j]);
    first[12] = W::load(counters);
    for (int j = 0; j < 3; ++j) first[13 + j] = W(nonce[j]);
    std::copy_n(first, words_per_block, s);
    for (int round = 0; round < rounds; round += 2) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) quarter_round(s[j], s[4 + j], s[8 + j], s[12 + j]);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) quarter_round(s[j], s[4 + (j + 1) % 4], s[8 + (j + 2) % 4], s[12 + (j + 3) % 4]);
    }
    std::uint32_t* to = out + block * words_per_block;
    for (int j = 0; j < words_per_block; ++j) {
      std::uint32_t lanes[W::size];
      (s[j] + first[j]).store(lanes);
      for (int i = 0; i < W::size; ++i) to[i * words_per_block + j] = lanes[i];
    }
  }
}

// Words of one nonce, one after the other.
class Words64 {
 public:
  Words64(const std::uint32_t* key, std::uint32_t chunk) : key_(key), nonce_{chunk, 0, 0} {}

  std::uint64_t next() {
    if (used_ == count) {
      cipher(key_, counter_, nonce_, words_);
      counter_ += at_once;
      used_ = 0;
    }
    const std::uint32_t* pair = words_ + 2 * used_++;
    return std::uint64_t{pair[0]} | std::uint64_t{pair[1]} << 32;
  }

 private:
  static constexpr int count = at_once * words_per_block / 2;
  const std::uint32_t* key_;
  std::uint32_t nonce_[3], counter_ = 0;
  int used_ = count;
  std::uint32_t words_[2 * count];
};

// Whether a uniform number of 64 bits, of which `leading` are known, is below a bound.
MFLD_INLINE bool below(std::uint64_t known, int leading, std::uint64_t bound, Words64& words) {
  const std::uint64_t top = bound >> (64 - leading);
  if (known != top) return known < top;
  return words.next() >> leading < (bound & (~std::uint64_t{0} >> leading));
}

std::int64_t gaussian(const mfld_gaussian_table& table, Words64& words) {
  constexpr double unit = 1.0 / (std::uint64_t{1} << unit_bits), whole = 18446744073709551616.0;  // 2^64
  constexpr double width = unit * (std::uint64_t{1} << place_bits);
  for (;;) {
    const std::uint64_t word = words.next();
    std::uint64_t cell = word & 1023;
    if (!below(word >> 10 & 0x3fff, 14, table.thresholds[cell], words)) cell = table.aliases[cell];
    const std::uint64_t place = word >> 24 & 0xffffff;
    const std::uint64_t keep = word >> 49;
    if (keep >= table.always[cell] >> 49) {
      const double x = width * static_cast<double>(cell), t = unit * (static_cast<double>(place) + 0.5);
      const double share = std::exp(-t * (x + t / 2)) * whole;
      const std::uint64_t bound = share < whole ? static_cast<std::uint64_t>(share) : ~std::uint64_t{0};
      if (!below(keep, 15, bound, words)) continue;
    }
    const auto size = static_cast<std::int64_t>(cell << place_bits | place);
    return word >> 48 & 1 ? -size - 1 : size;
  }
}

}  // namespace

void chacha(const std::uint32_t key[8], std::uint32_t counter, const std::uint32_t nonce[3], std::int64_t n_words,
            std::uint32_t* out) {
  std::uint32_t words[at_once * words_per_block];
  for (std::int64_t i = 0; i < n_words; i += at_once * words_per_block, counter += at_once) {
    cipher(key, counter, nonce, words);
    std::copy_n(words, std::min<std::int64_t>(at_once * words_per_block, n_words - i), out + i);
  }
}

int gaussians(const std::uint32_t key[8], const mfld_gaussian_table* table, std::int64_t count, std::int64_t* out,
              const mfld_execution* execution) {
  constexpr std::int64_t per_chunk = 2048, work_of_number = 30;
  const std::int64_t n_chunks = ceil_div(count, per_chunk);
  const int threads = useful_threads(execution->num_threads, n_chunks,
                                     static_cast<double>(work_of_number) * static_cast<double>(count));
  StopSignal stop(*execution);
  run_team(threads, [&](int member, int members, SpinBarrier&) {
    const Range chunks = even_part(n_chunks, member, members);
    for (std::int64_t chunk = chunks.begin; chunk < chunks.end && !stop.aborting(); ++chunk) {
      if (member == 0) stop.poll(work_of_number * per_chunk);
      Words64 words(key, static_cast<std::uint32_t>(chunk));
      const std::int64_t end = std::min(count, (chunk + 1) * per_chunk);
      for (std::int64_t i = chunk * per_chunk; i < end; ++i) out[i] = gaussian(*table, words);
    }
  });
  return stop.aborting() ? MFLD_STOPPED : MFLD_DONE;
}

}  // namespace mfld
