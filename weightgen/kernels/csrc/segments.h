// Where the values of a segment lie: the arithmetic of ../segments.py, for the CPU and the GPU alike.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define WEIGHTGEN_BOTH __host__ __device__ __forceinline__
#else
#define WEIGHTGEN_BOTH inline __attribute__((always_inline))
#endif

namespace weightgen {

using Index = std::int64_t;

// A row of the table; the order of the fields is that of the Python class.
struct Segment {
  Index tensor, rows, row_block, units, block;
  Index source_offset, source_row_stride, source_unit_stride;
  Index target_offset, target_row_stride, padding;
  Index row_permutation, column_permutation;
};

// A tensor of the batch: its address, the kind of its values, and how far it is from one network to the next.
struct Place {
  Index address, kind, stride;
};

// BYTE can only be moved.
enum Kind : Index { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2, BFLOAT16 = 3, BYTE = 4 };

WEIGHTGEN_BOTH Index width(const Segment& s) { return s.units * s.block; }

// Columns of a row in the token matrix: its values and the zeros after them.
WEIGHTGEN_BOTH Index columns(const Segment& s) { return width(s) + s.padding; }

// The row of the tensor that lies at a row of the token matrix; `permutation` is that of one network.
WEIGHTGEN_BOTH Index source_row(const Segment& s, Index row, const Index* permutation) {
  if (s.row_permutation < 0) return row;
  return permutation[s.row_permutation + row / s.row_block] * s.row_block + row % s.row_block;
}

WEIGHTGEN_BOTH Index source_unit(const Segment& s, Index unit, const Index* permutation) {
  return s.column_permutation < 0 ? unit : permutation[s.column_permutation + unit];
}

// The place of a value in the flattened tensor of one network.
WEIGHTGEN_BOTH Index source_index(const Segment& s, Index row, Index column, const Index* permutation) {
  const Index unit = column / s.block;
  return s.source_offset + source_row(s, row, permutation) * s.source_row_stride +
         source_unit(s, unit, permutation) * s.source_unit_stride + (column - unit * s.block);
}

// The place of a value in the flattened token matrix of one network.
WEIGHTGEN_BOTH Index target_index(const Segment& s, Index row, Index column) {
  return s.target_offset + row * s.target_row_stride + column;
}

// Whether the values of a row lie side by side in the tensor as they do in the token matrix.
WEIGHTGEN_BOTH bool contiguous(const Segment& s) {
  return s.column_permutation < 0 && (s.units == 1 || s.source_unit_stride == s.block);
}

// A tile is the part of a segment that one thread block moves at once: some rows, or a part of one long row.
struct Tile {
  Index row_begin, row_end, column_begin, column_end;
};

constexpr Index TILE = 4096;  // values, padding included; a multiple of every vector

WEIGHTGEN_BOTH Index tiles_of(const Segment& s) {
  const Index wide = columns(s);
  if (wide >= TILE) return s.rows * ((wide + TILE - 1) / TILE);
  const Index rows = TILE / wide;
  return (s.rows + rows - 1) / rows;
}

WEIGHTGEN_BOTH Tile tile_of(const Segment& s, Index number) {
  const Index wide = columns(s);
  if (wide >= TILE) {
    const Index parts = (wide + TILE - 1) / TILE, row = number / parts, begin = (number - row * parts) * TILE;
    return {row, row + 1, begin, begin + TILE < wide ? begin + TILE : wide};
  }
  const Index rows = TILE / wide, begin = number * rows;
  return {begin, begin + rows < s.rows ? begin + rows : s.rows, 0, wide};
}

// The segment that a tile belongs to; `first` holds the number of the first tile of each, and of all tiles at its end.
WEIGHTGEN_BOTH Index segment_of(const Index* first, Index segments, Index tile) {
  Index low = 0, high = segments;
  while (high - low > 1) {
    const Index middle = (low + high) / 2;
    if (first[middle] <= tile) low = middle;
    else high = middle;
  }
  return low;
}

}  // namespace weightgen
