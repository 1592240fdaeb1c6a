// The GPU twin's body: what one thread of a block does for one tile. It compiles for the CPU too, where tests run all
// threads one after the other.
//
// Within a tile, neighbouring threads move neighbouring values. Where rows lie side by side in the tensor and everything
// is aligned, each moves 16 bytes at a time or more; what is left of a row, permuted columns and padding go one by one.
#pragma once

#include "job.h"
#include "numbers.h"

namespace weightgen {

template <typename T, int N>
struct alignas(16) Pack {
  T values[N];
};

struct alignas(16) Words {
  Bits words[4];
};

// Whole multiples of 16 bytes from an aligned address.
template <typename T, int N>
WEIGHTGEN_BOTH Pack<T, N> load(const T* from) {
  Pack<T, N> pack;
#if defined(__CUDA_ARCH__)
#pragma unroll
  for (int i = 0; i < int(sizeof pack / 16); ++i)
    reinterpret_cast<uint4*>(&pack)[i] = __ldg(reinterpret_cast<const uint4*>(from) + i);
#else
  memcpy(&pack, from, sizeof pack);
#endif
  return pack;
}

template <typename T, int N>
WEIGHTGEN_BOTH void store(T* to, const Pack<T, N>& pack) {
#if defined(__CUDA_ARCH__)
#pragma unroll
  for (int i = 0; i < int(sizeof pack / 16); ++i)
    __stwb(reinterpret_cast<uint4*>(to) + i, reinterpret_cast<const uint4*>(&pack)[i]);
#else
  memcpy(to, &pack, sizeof pack);
#endif
}

WEIGHTGEN_BOTH bool aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

// How many values make up 16 bytes of the shorter of two types.
template <typename T, typename S>
constexpr int VECTOR = 16 / int(sizeof(T) < sizeof(S) ? sizeof(T) : sizeof(S));

// A segment of one network: where its rows begin on both sides.
template <typename S>
struct Part {
  const Segment& s;
  const Index* permutation;
  S* tensor;

  WEIGHTGEN_BOTH S* row(Index number) const {
    return tensor + s.source_offset + source_row(s, number, permutation) * s.source_row_stride;
  }
  // Whether rows of S on this side, and of T and C at `tokens` and `reference` on the other, can be moved in vectors.
  template <typename T, typename C>
  WEIGHTGEN_BOTH bool vectors(const T* tokens, const C* reference) const {
    return contiguous(s) && aligned(tensor + s.source_offset) && aligned(tokens + s.target_offset) &&
           (!reference || aligned(reference + s.target_offset)) &&
           (s.rows == 1 || (s.source_row_stride * sizeof(S) % 16 == 0 && s.target_row_stride * sizeof(T) % 16 == 0));
  }
};

// The places of a tile that are moved in vectors of N: the first `count` vectors of each row.
template <int N>
WEIGHTGEN_BOTH unsigned vectors_of(const Segment& s, const Tile& tile) {
  const Index end = tile.column_end < width(s) ? tile.column_end : width(s);
  return end > tile.column_begin ? unsigned(end - tile.column_begin) / N : 0;
}

// What the values of one segment are normalised by: a reference or null, and a scale if `scaled`.
template <typename C>
struct Frame {
  const C* reference;
  C scale;
  bool scaled, divide;

  WEIGHTGEN_BOTH Frame(const Job& job, Index number)
      : reference(static_cast<const C*>(job.reference)),
        scale(job.scales ? static_cast<const C*>(job.scales)[number] : C(1)),
        scaled(job.scales != nullptr),
        divide(job.divide != 0) {}

  WEIGHTGEN_BOTH bool plain() const { return !reference && !scaled; }
  WEIGHTGEN_BOTH C times(C value) const { return !scaled ? value : divide ? value / scale : value * scale; }

  template <int N>
  WEIGHTGEN_BOTH void normalise(Pack<C, N>& pack, Index target) const {
    if (reference) {
      const Pack<C, N> shift = load<C, N>(reference + target);
#pragma unroll
      for (int i = 0; i < N; ++i) pack.values[i] -= shift.values[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) pack.values[i] = times(pack.values[i]);
  }

  template <int N>
  WEIGHTGEN_BOTH void denormalise(Pack<C, N>& pack, Index target) const {
#pragma unroll
    for (int i = 0; i < N; ++i) pack.values[i] = times(pack.values[i]);
    if (reference) {
      const Pack<C, N> shift = load<C, N>(reference + target);
#pragma unroll
      for (int i = 0; i < N; ++i) pack.values[i] += shift.values[i];
    }
  }
};

template <typename To, typename From, int N>
WEIGHTGEN_BOTH Pack<To, N> cast_all(const Pack<From, N>& from) {
  Pack<To, N> to;
#pragma unroll
  for (int i = 0; i < N; ++i) to.values[i] = cast<To>(from.values[i]);
  return to;
}

template <typename T, typename S>
WEIGHTGEN_BOTH void gather_part(const Job& job, const Part<const S>& part, Index number, Index network, const Tile& tile,
                                unsigned thread, unsigned threads) {
  using C = Compute<T>;
  constexpr int N = VECTOR<T, S>;
  const Segment& s = part.s;
  T* tokens = static_cast<T*>(job.tokens) + network * job.values;
  const Frame<C> frame(job, number);
  const unsigned rows = tile.row_end - tile.row_begin;
  const unsigned vectors = part.vectors(tokens, frame.reference) ? vectors_of<N>(s, tile) : 0;
  for (unsigned place = thread; place < rows * vectors; place += threads) {
    const Index row = tile.row_begin + place / vectors, column = tile.column_begin + place % vectors * N;
    const Index target = target_index(s, row, column);
    const Pack<S, N> from = load<S, N>(part.row(row) + column);
    if constexpr (std::is_same_v<T, S>) {
      if (frame.plain()) {
        store<T, N>(tokens + target, from);
        continue;
      }
    }
    Pack<C, N> values = cast_all<C>(from);
    frame.normalise(values, target);
    store<T, N>(tokens + target, cast_all<T>(values));
  }
  const Index begin = tile.column_begin + vectors * N;
  const unsigned rest = tile.column_end - begin;
  for (unsigned place = thread; place < rows * rest; place += threads) {
    const Index row = tile.row_begin + place / rest, column = begin + place % rest;
    const Index target = target_index(s, row, column);
    if (column >= width(s)) {
      tokens[target] = T{};
      continue;
    }
    const S from = part.tensor[source_index(s, row, column, part.permutation)];
    if constexpr (std::is_same_v<T, S>) {
      if (frame.plain()) {
        tokens[target] = from;
        continue;
      }
    }
    C value = cast<C>(from);
    if (frame.reference) value -= frame.reference[target];
    tokens[target] = cast<T>(frame.times(value));
  }
}

// The sum of codebook entries at N places of a network's token matrix, which lie in one token.
template <typename T, int N>
WEIGHTGEN_BOTH Pack<Compute<T>, N> look_up(const Job& job, Index network, Index target) {
  const Index token = target / job.chunk, within = target - token * job.chunk;
  const T* books = static_cast<const T*>(job.tokens) + within;
  const Index codes = (network * (job.values / job.chunk) + token) * job.levels;
  Pack<Compute<T>, N> sum;
  for (Index level = 0; level < job.levels; ++level) {
    const T* entry = books + (level * job.entries + code_at(job, codes + level)) * job.chunk;
    if constexpr (N == 1) {
      const auto value = cast<Compute<T>>(*entry);
      sum.values[0] = level ? sum.values[0] + value : value;
    } else {
      const Pack<T, N> pack = load<T, N>(entry);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const auto value = cast<Compute<T>>(pack.values[i]);
        sum.values[i] = level ? sum.values[i] + value : value;
      }
    }
  }
  return sum;
}

template <typename T, typename S, bool CODES>
WEIGHTGEN_BOTH void scatter_part(const Job& job, const Part<S>& part, Index number, Index network, const Tile& tile,
                                 unsigned thread, unsigned threads) {
  using C = Compute<T>;
  constexpr int N = VECTOR<T, S>;
  const Segment& s = part.s;
  const T* tokens = static_cast<const T*>(job.tokens) + (CODES ? 0 : network * job.values);
  const Frame<C> frame(job, number);
  const unsigned rows = tile.row_end - tile.row_begin;
  // Looked up, a vector must not reach from one token into the next.
  const bool whole = !CODES || (job.chunk % N == 0 && job.chunk * sizeof(T) % 16 == 0 && s.target_offset % N == 0 &&
                                s.target_row_stride % N == 0);
  const unsigned vectors = whole && part.vectors(tokens, frame.reference) ? vectors_of<N>(s, tile) : 0;
  for (unsigned place = thread; place < rows * vectors; place += threads) {
    const Index row = tile.row_begin + place / vectors, column = tile.column_begin + place % vectors * N;
    const Index target = target_index(s, row, column);
    Pack<C, N> values;
    if constexpr (CODES) {
      values = look_up<T, N>(job, network, target);
    } else {
      const Pack<T, N> from = load<T, N>(tokens + target);
      if constexpr (std::is_same_v<T, S>) {
        if (frame.plain()) {
          store<S, N>(part.row(row) + column, from);
          continue;
        }
      }
      values = cast_all<C>(from);
    }
    frame.denormalise(values, target);
    store<S, N>(part.row(row) + column, cast_all<S>(values));
  }
  const Index begin = tile.column_begin + vectors * N;
  const Index end = tile.column_end < width(s) ? tile.column_end : width(s);
  const unsigned rest = end > begin ? end - begin : 0;
  for (unsigned place = thread; place < rows * rest; place += threads) {
    const Index row = tile.row_begin + place / rest, column = begin + place % rest;
    const Index target = target_index(s, row, column);
    S* to = part.tensor + source_index(s, row, column, part.permutation);
    if constexpr (std::is_same_v<T, S> && !CODES) {
      if (frame.plain()) {
        *to = tokens[target];
        continue;
      }
    }
    C value;
    if constexpr (CODES) value = look_up<T, 1>(job, network, target).values[0];
    else value = cast<C>(tokens[target]);
    value = frame.times(value);
    if (frame.reference) value += frame.reference[target];
    *to = cast<S>(value);
  }
}

// Finds the segment of a tile and calls body(tensor's type, Part, segment's number, network, Tile).
template <typename Body>
WEIGHTGEN_BOTH void with_tile(const Job& job, Index number, Body&& body) {
  const Index tiles = job.first[job.segments], network = number / tiles, own = number - network * tiles;
  const Index segment = segment_of(job.first, job.segments, own);
  const Segment s = job.table[segment];  // a copy: what is stored might alias the table, so it would be read again
  const Place place = job.places[s.tensor];
  const Tile tile = tile_of(s, own - job.first[segment]);
  const Index* permutation = job.permutations ? job.permutations + network * job.units : nullptr;
  with_kind(place.kind, [&](auto kind) {
    using S = decltype(kind);
    S* tensor = reinterpret_cast<S*>(place.address) + network * place.stride;
    body(kind, Part<S>{s, permutation, tensor}, segment, network, tile);
  });
}

template <typename T>
WEIGHTGEN_BOTH void gather_tile(const Job& job, Index number, unsigned thread, unsigned threads) {
  with_tile(job, number, [&](auto kind, const auto& part, Index segment, Index network, const Tile& tile) {
    using S = decltype(kind);
    if constexpr (MEET<T, S>)
      gather_part<T, S>(job, {part.s, part.permutation, part.tensor}, segment, network, tile, thread, threads);
  });
}

template <typename T, bool CODES>
WEIGHTGEN_BOTH void scatter_tile(const Job& job, Index number, unsigned thread, unsigned threads) {
  with_tile(job, number, [&](auto kind, const auto& part, Index segment, Index network, const Tile& tile) {
    using S = decltype(kind);
    if constexpr (MEET<T, S>) scatter_part<T, S, CODES>(job, part, segment, network, tile, thread, threads);
  });
}

// Fills `first` [segments + 1] for a table on the CPU.
inline void number_tiles(const Segment* table, Index* first, Index segments) {
  first[0] = 0;
  for (Index number = 0; number < segments; ++number) first[number + 1] = first[number] + tiles_of(table[number]);
}

}  // namespace weightgen
