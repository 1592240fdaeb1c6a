// The GPU's code on the CPU: every thread of every tile, one after the other, in an order that no test should depend on.

#include "tiles.h"

using weightgen::Index;
using weightgen::Job;

constexpr unsigned THREADS = 48;  // no power of two, so that loops end unevenly

extern "C" void weightgen_tiles(const weightgen::Segment* table, Index* first, Index segments) {
  weightgen::number_tiles(table, first, segments);
}

extern "C" void weightgen_gather(const Job* job, Index tiles) {
  weightgen::with_kind(job->kind, [&](auto kind) {
    for (Index tile = tiles * job->networks - 1; tile >= 0; --tile)
      for (unsigned thread = THREADS; thread-- > 0;)
        weightgen::gather_tile<decltype(kind)>(*job, tile, thread, THREADS);
  });
}

extern "C" void weightgen_scatter(const Job* job, Index tiles) {
  weightgen::with_kind(job->kind, [&](auto kind) {
    using T = decltype(kind);
    for (Index tile = tiles * job->networks - 1; tile >= 0; --tile)
      for (unsigned thread = THREADS; thread-- > 0;)
        if (job->codes) weightgen::scatter_tile<T, true>(*job, tile, thread, THREADS);
        else weightgen::scatter_tile<T, false>(*job, tile, thread, THREADS);
  });
}

// The index arithmetic by itself: for each value of a segment its place in the tensor and in the token matrix, and by
// how many tiles it is covered.
extern "C" void index_of(const weightgen::Segment* s, const Index* permutation, Index* source, Index* target) {
  for (Index row = 0; row < s->rows; ++row)
    for (Index column = 0; column < weightgen::width(*s); ++column) {
      *source++ = weightgen::source_index(*s, row, column, permutation);
      *target++ = weightgen::target_index(*s, row, column);
    }
}

extern "C" void tiles_over(const weightgen::Segment* s, Index* covered) {
  for (Index tile = 0; tile < weightgen::tiles_of(*s); ++tile) {
    const weightgen::Tile place = weightgen::tile_of(*s, tile);
    for (Index row = place.row_begin; row < place.row_end; ++row)
      for (Index column = place.column_begin; column < place.column_end; ++column)
        ++covered[row * weightgen::columns(*s) + column];
  }
}

extern "C" Index segment_at(const Index* first, Index segments, Index tile) {
  return weightgen::segment_of(first, segments, tile);
}

extern "C" void through_half(const float* from, std::uint16_t* half, std::uint16_t* brain, float* back, Index count) {
  for (Index i = 0; i < count; ++i) {
    half[i] = weightgen::half_of(from[i]).bits;
    brain[i] = weightgen::brain_of(from[i]).bits;
    back[i] = weightgen::widen(weightgen::Half{half[i]});
  }
}
