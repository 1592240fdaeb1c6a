// What the CPU writes past the cache, and what it fetches before it is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "segments.h"

namespace weightgen {

// Bytes up to the next multiple of 64.
inline std::size_t to_line(const void* address) { return -reinterpret_cast<std::uintptr_t>(address) & 63; }

// As memcpy, but whole lines of the target go straight to memory: it is not read first, and the cache is left alone.
inline void stream_copy(void* target, const void* source, std::size_t bytes) {
  auto* to = static_cast<char*>(target);
  auto* from = static_cast<const char*>(source);
#if defined(__SSE2__)
  const std::size_t head = to_line(to) < bytes ? to_line(to) : bytes;
  std::memcpy(to, from, head);
  std::size_t done = head;
  for (; done + 64 <= bytes; done += 64) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + done), _mm512_loadu_si512(from + done));
#elif defined(__AVX__)
    for (int part = 0; part < 64; part += 32) {
      const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + done + part));
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + done + part), value);
    }
#else
    for (int part = 0; part < 64; part += 16) {
      const __m128i value = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + done + part));
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + done + part), value);
    }
#endif
  }
  std::memcpy(to + done, from + done, bytes - done);
#else
  std::memcpy(to, from, bytes);
#endif
}

// Makes what was streamed visible to other threads.
inline void stream_end() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

inline void fetch(const void* begin, Index bytes) {
  for (Index done = 0; done < bytes; done += 64) __builtin_prefetch(static_cast<const char*>(begin) + done);
}

// Asks for large pages where memory is fresh: the system then clears it in pieces of 2 MB, not of 4 KB, which costs a
// tenth. Nothing changes where it has pages already.
inline void prefer_large_pages(void* begin, Index bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t PAGE = 4096, LARGE = Index(1) << 21;
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(begin) + PAGE - 1) & ~(PAGE - 1);
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(begin) + bytes) & ~(PAGE - 1);
  if (end > first + LARGE) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

}  // namespace weightgen
