// One SIMD register of the level that this file is compiled for, as a value type.
//
// Arithmetic is GCC/Clang vector extensions, so it compiles on every target; intrinsics stand only where the extensions
// give poor code. Products and sums contract to fused multiply-adds where the level has them (-ffp-contract=fast).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define MFLD_INLINE inline __attribute__((always_inline))

namespace mfld {

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512BW__)
inline constexpr int vector_bytes = 64;
inline constexpr int vector_registers = 32;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32;
inline constexpr int vector_registers = 16;
#elif defined(__aarch64__)
inline constexpr int vector_bytes = 16;
inline constexpr int vector_registers = 32;
#else
inline constexpr int vector_bytes = 16;
inline constexpr int vector_registers = 16;
#endif

// Comparing two Vec<T> gives a Vec<MaskOf<T>> of all-ones and all-zeros lanes.
template <class T>
using MaskOf = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;
template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

// A struct of its own, so that Vec sees a type distinct from T: inside a template, GCC 12 drops the attribute when it
// compares overloads.
template <class T>
struct RawVector {
  typedef T Aligned __attribute__((vector_size(vector_bytes)));
  typedef T Unaligned __attribute__((vector_size(vector_bytes), aligned(alignof(T)), may_alias));
};

template <class T>
struct Vec {
  static constexpr int size = vector_bytes / sizeof(T);
  using Raw = typename RawVector<T>::Aligned;
  using Unaligned = typename RawVector<T>::Unaligned;
  Raw raw;

  Vec() = default;
  MFLD_INLINE explicit Vec(Raw r) : raw(r) {}
  MFLD_INLINE Vec(T scalar) : raw(scalar - Raw{}) {}  // NOLINT: broadcasting is what makes formulas readable

  MFLD_INLINE static Vec load(const T* p) { return Vec(Raw(*reinterpret_cast<const Unaligned*>(p))); }
  MFLD_INLINE void store(T* p) const { *reinterpret_cast<Unaligned*>(p) = raw; }
  MFLD_INLINE T operator[](int lane) const { return raw[lane]; }

  MFLD_INLINE friend Vec operator+(Vec a, Vec b) { return Vec(a.raw + b.raw); }
  MFLD_INLINE friend Vec operator-(Vec a, Vec b) { return Vec(a.raw - b.raw); }
  MFLD_INLINE friend Vec operator*(Vec a, Vec b) { return Vec(a.raw * b.raw); }
  MFLD_INLINE friend Vec operator/(Vec a, Vec b) { return Vec(a.raw / b.raw); }
  MFLD_INLINE friend Vec operator-(Vec a) { return Vec(-a.raw); }
  MFLD_INLINE friend Vec operator&(Vec a, Vec b) { return Vec(a.raw & b.raw); }
  MFLD_INLINE friend Vec operator|(Vec a, Vec b) { return Vec(a.raw | b.raw); }
  MFLD_INLINE friend Vec operator^(Vec a, Vec b) { return Vec(a.raw ^ b.raw); }
  MFLD_INLINE friend Vec operator<<(Vec a, int bits) { return Vec(a.raw << bits); }
  MFLD_INLINE friend Vec operator>>(Vec a, int bits) { return Vec(a.raw >> bits); }
  MFLD_INLINE Vec& operator+=(Vec b) { return *this = *this + b; }
  MFLD_INLINE Vec& operator-=(Vec b) { return *this = *this - b; }
  MFLD_INLINE Vec& operator*=(Vec b) { return *this = *this * b; }

  MFLD_INLINE friend Vec<MaskOf<T>> operator<(Vec a, Vec b) { return Vec<MaskOf<T>>(mask(a.raw < b.raw)); }
  MFLD_INLINE friend Vec<MaskOf<T>> operator>(Vec a, Vec b) { return Vec<MaskOf<T>>(mask(a.raw > b.raw)); }
  MFLD_INLINE friend Vec<MaskOf<T>> operator<=(Vec a, Vec b) { return Vec<MaskOf<T>>(mask(a.raw <= b.raw)); }
  MFLD_INLINE friend Vec<MaskOf<T>> operator>=(Vec a, Vec b) { return Vec<MaskOf<T>>(mask(a.raw >= b.raw)); }
  MFLD_INLINE friend Vec<MaskOf<T>> operator==(Vec a, Vec b) { return Vec<MaskOf<T>>(mask(a.raw == b.raw)); }

 private:
  // The extensions' masks are vectors of the target's own signed type (long, long long): one spelling for all.
  template <class M>
  MFLD_INLINE static auto mask(M m) {
    typename Vec<MaskOf<T>>::Raw out;
    static_assert(sizeof(out) == sizeof(m));
    std::memcpy(&out, &m, sizeof(out));
    return out;
  }
};

template <class T>
MFLD_INLINE Vec<T> select(Vec<MaskOf<T>> mask, Vec<T> yes, Vec<T> no) {
  return Vec<T>(mask.raw ? yes.raw : no.raw);
}

template <class To, class From>
MFLD_INLINE Vec<To> bit_cast(Vec<From> v) {
  Vec<To> out;
  std::memcpy(&out, &v, sizeof(out));
  return out;
}

// Lane-wise value conversion between types of the same width.
template <class To, class From>
MFLD_INLINE Vec<To> convert(Vec<From> v) {
  static_assert(sizeof(To) == sizeof(From));
  return Vec<To>(__builtin_convertvector(v.raw, typename Vec<To>::Raw));
}

// The same, in a register: keeps the compiler from loading it again at every use, where loads are what a loop waits
// for.
template <class T>
MFLD_INLINE Vec<T> in_register(Vec<T> v) {
#if defined(__x86_64__)
  asm("" : "+v"(v.raw));
#elif defined(__aarch64__)
  asm("" : "+w"(v.raw));
#endif
  return v;
}

template <class T>
MFLD_INLINE Vec<T> abs(Vec<T> v) {
  using U = BitsOf<T>;
  return bit_cast<T>(bit_cast<U>(v) & Vec<U>(U(-1) >> 1));
}

// The sign of `sign` on the magnitude of `magnitude`, which must not be negative.
template <class T>
MFLD_INLINE Vec<T> with_sign(Vec<T> magnitude, Vec<T> sign) {
  using U = BitsOf<T>;
  return bit_cast<T>(bit_cast<U>(magnitude) | (bit_cast<U>(sign) & Vec<U>(U(1) << (8 * sizeof(T) - 1))));
}

// Lane by lane by the sign bit of `sign`: cheaper than a comparison, and -0 counts as negative.
template <class T>
MFLD_INLINE Vec<T> select_by_sign(Vec<T> sign, Vec<T> negative, Vec<T> positive) {
  return select(bit_cast<MaskOf<T>>(sign) < Vec<MaskOf<T>>(0), negative, positive);
}

// a > b ? a : b lane by lane; a NaN in `a` gives b, as the x86 instructions do.
template <class T>
MFLD_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  if constexpr (std::is_same_v<T, float>) {
#if defined(__AVX512F__)
    return Vec<T>(typename Vec<T>::Raw(_mm512_max_ps(a.raw, b.raw)));
#elif defined(__AVX2__)
    return Vec<T>(typename Vec<T>::Raw(_mm256_max_ps(a.raw, b.raw)));
#elif defined(__SSE2__)
    return Vec<T>(typename Vec<T>::Raw(_mm_max_ps(a.raw, b.raw)));
#endif
  } else if constexpr (std::is_same_v<T, double>) {
#if defined(__AVX512F__)
    return Vec<T>(typename Vec<T>::Raw(_mm512_max_pd(a.raw, b.raw)));
#elif defined(__AVX2__)
    return Vec<T>(typename Vec<T>::Raw(_mm256_max_pd(a.raw, b.raw)));
#elif defined(__SSE2__)
    return Vec<T>(typename Vec<T>::Raw(_mm_max_pd(a.raw, b.raw)));
#endif
  }
  return select(a > b, a, b);
}

// a < b ? a : b lane by lane; a NaN in `a` gives b.
template <class T>
MFLD_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
  if constexpr (std::is_same_v<T, float>) {
#if defined(__AVX512F__)
    return Vec<T>(typename Vec<T>::Raw(_mm512_min_ps(a.raw, b.raw)));
#elif defined(__AVX2__)
    return Vec<T>(typename Vec<T>::Raw(_mm256_min_ps(a.raw, b.raw)));
#elif defined(__SSE2__)
    return Vec<T>(typename Vec<T>::Raw(_mm_min_ps(a.raw, b.raw)));
#endif
  } else if constexpr (std::is_same_v<T, double>) {
#if defined(__AVX512F__)
    return Vec<T>(typename Vec<T>::Raw(_mm512_min_pd(a.raw, b.raw)));
#elif defined(__AVX2__)
    return Vec<T>(typename Vec<T>::Raw(_mm256_min_pd(a.raw, b.raw)));
#elif defined(__SSE2__)
    return Vec<T>(typename Vec<T>::Raw(_mm_min_pd(a.raw, b.raw)));
#endif
  }
  return select(a < b, a, b);
}

template <class T>
MFLD_INLINE Vec<T> sqrt(Vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>)
    return Vec<T>(typename Vec<T>::Raw(_mm512_sqrt_ps(v.raw)));
  else
    return Vec<T>(typename Vec<T>::Raw(_mm512_sqrt_pd(v.raw)));
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<T, float>)
    return Vec<T>(typename Vec<T>::Raw(_mm256_sqrt_ps(v.raw)));
  else
    return Vec<T>(typename Vec<T>::Raw(_mm256_sqrt_pd(v.raw)));
#elif defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>)
    return Vec<T>(typename Vec<T>::Raw(_mm_sqrt_ps(v.raw)));
  else
    return Vec<T>(typename Vec<T>::Raw(_mm_sqrt_pd(v.raw)));
#elif defined(__aarch64__)
  if constexpr (std::is_same_v<T, float>)
    return Vec<T>(typename Vec<T>::Raw(vsqrtq_f32(v.raw)));
  else
    return Vec<T>(typename Vec<T>::Raw(vsqrtq_f64(v.raw)));
#else
  Vec<T> out;
  for (int lane = 0; lane < Vec<T>::size; ++lane) out.raw[lane] = std::sqrt(v.raw[lane]);
  return out;
#endif
}

// a * b + c with one rounding where the level has it. Unlike a contracted expression it does not depend on its
// surroundings: for code that must give the same bits wherever it is inlined.
template <class T>
MFLD_INLINE Vec<T> multiply_add(Vec<T> a, Vec<T> b, Vec<T> c) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>)
    return Vec<T>(typename Vec<T>::Raw(_mm512_fmadd_ps(a.raw, b.raw, c.raw)));
  else
    return Vec<T>(typename Vec<T>::Raw(_mm512_fmadd_pd(a.raw, b.raw, c.raw)));
#elif defined(__AVX2__) && defined(__FMA__)
  if constexpr (std::is_same_v<T, float>)
    return Vec<T>(typename Vec<T>::Raw(_mm256_fmadd_ps(a.raw, b.raw, c.raw)));
  else
    return Vec<T>(typename Vec<T>::Raw(_mm256_fmadd_pd(a.raw, b.raw, c.raw)));
#elif defined(__aarch64__)
  if constexpr (std::is_same_v<T, float>)
    return Vec<T>(typename Vec<T>::Raw(vfmaq_f32(c.raw, a.raw, b.raw)));
  else
    return Vec<T>(typename Vec<T>::Raw(vfmaq_f64(c.raw, a.raw, b.raw)));
#else
  return Vec<T>(a.raw * b.raw + c.raw);
#endif
}

// The 64-bit product of the low 32 bits of each 64-bit lane; the high halves are ignored.
MFLD_INLINE Vec<std::uint64_t> multiply_low_words(Vec<std::uint64_t> a, Vec<std::uint64_t> b) {
  using V = Vec<std::uint64_t>;
#if defined(__AVX512F__)
  return V(V::Raw(_mm512_mul_epu32(__m512i(a.raw), __m512i(b.raw))));
#elif defined(__AVX2__)
  return V(V::Raw(_mm256_mul_epu32(__m256i(a.raw), __m256i(b.raw))));
#elif defined(__SSE2__)
  return V(V::Raw(_mm_mul_epu32(__m128i(a.raw), __m128i(b.raw))));
#else
  const V low(0xffffffffu);
  return (a & low) * (b & low);
#endif
}

}  // namespace mfld
