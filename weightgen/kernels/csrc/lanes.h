// Runs of values on the CPU, a register of them at a time.
#pragma once

#include <algorithm>

#include "memory.h"
#include "numbers.h"

namespace weightgen {

#if defined(__AVX512F__)
constexpr Index REGISTER = 64;
#elif defined(__AVX__)
constexpr Index REGISTER = 32;
#else
constexpr Index REGISTER = 16;
#endif

template <typename C>
constexpr Index LANES = REGISTER / Index(sizeof(C));

template <typename C>
struct Vector {
  typedef C type __attribute__((vector_size(REGISTER)));
};

// N values that are computed at once: one, or a register.
template <typename C, Index N>
using Values = typename std::conditional_t<N == 1, std::type_identity<C>, Vector<C>>::type;

template <typename To, typename From>
inline void cast_run(To* __restrict to, const From* __restrict from, Index count) {
  Index done = 0;
  if constexpr (std::is_same_v<To, From>) {
    std::memcpy(to, from, count * sizeof(To));
    return;
  }
#if defined(__F16C__)
  if constexpr (std::is_same_v<To, float> && std::is_same_v<From, Half>) {
    for (; done + 8 <= count; done += 8)
      _mm256_storeu_ps(to + done, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + done))));
  }
  if constexpr (std::is_same_v<To, Half> && std::is_same_v<From, float>) {
    for (; done + 8 <= count; done += 8)
      _mm_storeu_si128(
          reinterpret_cast<__m128i*>(to + done),
          _mm256_cvtps_ph(_mm256_loadu_ps(from + done), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#endif
  for (; done < count; ++done) to[done] = cast<To>(from[done]);
}

// N values from memory, cast to the type that is computed with.
template <typename C, Index N, typename S>
inline Values<C, N> read(const S* from) {
  if constexpr (N == 1) {
    return cast<C>(*from);
  } else if constexpr (std::is_same_v<S, Brain> && std::is_same_v<C, float>) {
    typedef std::uint16_t Short __attribute__((vector_size(REGISTER / 2)));
    Short bits;
    std::memcpy(&bits, from, sizeof bits);
    return reinterpret_cast<Values<float, N>>(__builtin_convertvector(bits, Values<Bits, N>) << 16);
#if defined(__AVX512F__)
  } else if constexpr (std::is_same_v<S, Half> && std::is_same_v<C, float>) {
    return reinterpret_cast<Values<float, N>>(
        _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#endif
  } else {
    C cast_values[N];
    cast_run(cast_values, from, N);
    Values<C, N> values;
    std::memcpy(&values, cast_values, sizeof values);
    return values;
  }
}

// N values cast and written to memory.
template <typename C, Index N, typename T>
inline void write(T* to, Values<C, N> values) {
  if constexpr (N == 1) {
    *to = cast<T>(values);
  } else if constexpr (std::is_same_v<T, Brain> && std::is_same_v<C, float>) {
    typedef std::uint16_t Short __attribute__((vector_size(REGISTER / 2)));
    const Short bits = __builtin_convertvector(brain_bits(reinterpret_cast<Values<Bits, N>>(values)), Short);
    std::memcpy(to, &bits, sizeof bits);
#if defined(__AVX512F__)
  } else if constexpr (std::is_same_v<T, Half> && std::is_same_v<C, float>) {
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to),
        _mm512_cvtps_ph(reinterpret_cast<__m512>(values), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
  } else {
    C given[N];
    std::memcpy(given, &values, sizeof given);
    cast_run(to, given, N);
  }
}

// As `write`, but past the cache, to an address that is aligned to what is written.
template <typename C, Index N>
inline void stream(C* to, Values<C, N> values) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(values));
#elif defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(values));
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(values));
#else
  write<C, N>(to, values);
#endif
}

// Writes what `source.at<N>(place)` gives for places 0 to count; `to` must not be what the source reads.
template <typename C, typename T, typename Source>
inline void fill(T* to, Index count, const Source& source) {
  constexpr Index N = LANES<C>;
  Index done = 0;
  for (; done + N <= count; done += N) write<C, N>(to + done, source.template at<N>(done));
  if (done == count) return;
  if (count >= N) {
    // The last register reaches back over what is written already.
    write<C, N>(to + count - N, source.template at<N>(count - N));
  } else {
    for (; done < count; ++done) write<C, 1>(to + done, source.template at<1>(done));
  }
}

// The same, with whole lines of the target written past the cache.
template <typename C, typename Source>
inline void fill_streaming(C* to, Index count, const Source& source) {
  constexpr Index N = LANES<C>;
  Index done = 0;
  const Index head = std::min(count, Index(to_line(to) / sizeof(C)));
  for (; done < head; ++done) write<C, 1>(to + done, source.template at<1>(done));
  for (; done + 64 / Index(sizeof(C)) <= count;)
    for (Index part = 0; part < 64 / REGISTER; ++part, done += N) stream<C, N>(to + done, source.template at<N>(done));
  for (; done < count; ++done) write<C, 1>(to + done, source.template at<1>(done));
}

}  // namespace weightgen
