// What a kernel is called with; its twin is the ctypes structure `Job` in ../native.py.
#pragma once

#include "segments.h"

namespace weightgen {

struct Job {
  Index networks, segments, tensors;
  Index values;                // of a network's token matrix, tokens · chunk
  Index chunk;
  const Segment* table;        // [segments]
  const Place* places;         // [tensors]
  const Index* permutations;   // [networks, units] or null
  Index units;
  const void* reference;       // [values] in the type computed with, or null
  const void* scales;          // [segments] in the type computed with, or null
  Index divide;                // whether scales divide
  void* tokens;                // [networks, values], or [levels, entries, chunk] if there are codes
  Index kind;                  // of the tokens
  const void* codes;           // [networks, values / chunk, levels] or null
  Index code_bytes;            // of a code: 8, 4 or 2 with a sign, or 1 without
  Index levels, entries;
  const Index* first;          // [segments + 1] first tile of each segment, for the GPU
};

// The code at a place of `codes`.
WEIGHTGEN_BOTH Index code_at(const Job& job, Index place) {
  switch (job.code_bytes) {
    case 8: return static_cast<const std::int64_t*>(job.codes)[place];
    case 4: return static_cast<const std::int32_t*>(job.codes)[place];
    case 2: return static_cast<const std::int16_t*>(job.codes)[place];
    default: return static_cast<const std::uint8_t*>(job.codes)[place];
  }
}

}  // namespace weightgen
