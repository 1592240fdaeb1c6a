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
  const Index* codes;          // [networks, values / chunk, levels] or null
  Index levels, entries;
  const Index* first;          // [segments + 1] first tile of each segment, for the GPU
};

}  // namespace weightgen
