// The CPU twin: rows that lie side by side in the token matrix are put together in the nearest cache, some at a time,
// and written past it. While some are put together the next are fetched, a line for a line: a fetch of many lines at
// once would fill what the processor has for them and hold up all else.

#include "groups.h"
#include "lanes.h"

namespace weightgen {
namespace {

constexpr Index SCRATCH = 1024;            // values put together before they are written; a wider row goes in parts
constexpr Index DIRECT = 256;              // values of a row from which it is written past the cache by itself
constexpr Index AHEAD = Index(1) << 18;    // bytes of a segment that are fetched a whole network ahead, at most
constexpr Index STREAM = Index(32) << 20;  // bytes of output beyond which it is written past the cache

// What the values of one segment are normalised by, each operation rounded once; `reference` at the first value or null.
template <typename C>
struct Frame {
  const C* reference;
  C scale;
  bool scaled, divide;

  Frame(const Job& job, Index number, Index place)
      : reference(job.reference ? static_cast<const C*>(job.reference) + place : nullptr),
        scale(job.scales ? static_cast<const C*>(job.scales)[number] : C(1)),
        scaled(job.scales != nullptr),
        divide(job.divide != 0) {}

  Frame at(Index place) const {
    Frame moved = *this;
    if (reference) moved.reference += place;
    return moved;
  }
  template <typename V>
  V times(V value) const {
    return !scaled ? value : divide ? value / scale : value * scale;
  }
  template <Index N>
  Values<C, N> normalised(Values<C, N> value, Index place) const {
    if (reference) value -= read<C, N>(reference + place);
    return times(value);
  }
  template <Index N>
  Values<C, N> denormalised(Values<C, N> value, Index place) const {
    value = times(value);
    if (reference) value += read<C, N>(reference + place);
    return value;
  }
};

// Values side by side, and those that are needed when all of them are done.
template <typename C, typename S>
struct Run {
  const S *from, *next;

  template <Index N>
  Values<C, N> at(Index place) const {
    if constexpr (N > 1) __builtin_prefetch(next + place);
    return read<C, N>(from + place);
  }
};

template <typename C, typename S>
struct Normalised {
  Run<C, S> run;
  Frame<C> frame;

  template <Index N>
  Values<C, N> at(Index place) const {
    return frame.template normalised<N>(run.template at<N>(place), place);
  }
};

template <typename C, typename S>
struct Denormalised {
  Run<C, S> run;
  Frame<C> frame;

  template <Index N>
  Values<C, N> at(Index place) const {
    return frame.template denormalised<N>(run.template at<N>(place), place);
  }
};

// Sums of one codebook entry of each level, first to last; LEVELS is their number, or 0 if it is any.
template <typename C, typename T, int LEVELS>
struct Sums {
  const T* entries[LEVELS ? LEVELS : 1];
  const T* const* others;
  Index levels;
  Frame<C> frame;

  Sums(const T* const* given, Index count, const Frame<C>& frame) : others(given), levels(count), frame(frame) {
    for (int level = 0; level < (LEVELS ? LEVELS : 1); ++level) entries[level] = given[level];
  }

  template <Index N>
  Values<C, N> at(Index place) const {
    Values<C, N> sum = read<C, N>(entries[0] + place);
    for (int level = 1; level < LEVELS; ++level) sum += read<C, N>(entries[level] + place);
    if constexpr (!LEVELS)
      for (Index level = 1; level < levels; ++level) sum += read<C, N>(others[level] + place);
    return frame.template denormalised<N>(sum, place);
  }
};

// An unsigned number of the size of a value: what is only moved keeps every bit.
template <typename T>
using Moved = std::conditional_t<
    sizeof(T) == 8, std::uint64_t,
    std::conditional_t<sizeof(T) == 4, std::uint32_t, std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint8_t>>>;

// Fills `to`, past the cache if that is asked for and values are not cast on the way.
template <typename C, typename T, typename Source>
void put(T* to, Index count, const Source& source, bool streaming) {
  if constexpr (std::is_same_v<C, T>)
    if (streaming) return fill_streaming<C>(to, count, source);
  fill<C>(to, count, source);
}

template <typename T>
void move(T* to, const T* from, const T* next, Index count, bool streaming) {
  using U = Moved<T>;
  const Run<U, U> run{reinterpret_cast<const U*>(from), reinterpret_cast<const U*>(next)};
  put<U>(reinterpret_cast<U*>(to), count, run, streaming);
}

const Index* permutation_of(const Job& job, Index network) {
  return job.permutations ? job.permutations + network * job.units : nullptr;
}

// A segment of one network's tensor.
template <typename S>
struct Part {
  const Segment& s;
  const Index* permutation;
  S* tensor;

  Part(const Job& job, const Segment& s, Index network) : s(s), permutation(permutation_of(job, network)) {
    const Place& place = job.places[s.tensor];
    tensor = reinterpret_cast<S*>(place.address) + network * place.stride + s.source_offset;
  }
  S* row(Index number) const { return tensor + source_row(s, number, permutation) * s.source_row_stride; }

  // What to fetch while a row is moved: the row after it. Where rows are permuted, all rows of the next network's segment
  // are fetched in their own order, which is faster, if the cache holds them.
  const S* after(const Job& job, Index network, Index number) const {
    if (s.row_permutation < 0) return tensor + (number + 1) * s.source_row_stride;
    if (s.rows * s.source_row_stride * Index(sizeof(S)) > AHEAD) return row(std::min(number + 1, s.rows - 1));
    return tensor + number * s.source_row_stride + (network + 1 < job.networks ? job.places[s.tensor].stride : 0);
  }
};

// Calls run(place in the tensor's row, column, count) for columns low to high of a row, unit by unit.
template <typename Run>
inline void for_units(const Segment& s, const Index* permutation, Index low, Index high, const Run& run) {
  for (Index column = low; column < high;) {
    const Index unit = column / s.block, within = column - unit * s.block;
    const Index count = std::min(s.block - within, high - column);
    run(source_unit(s, unit, permutation) * s.source_unit_stride + within, column, count);
    column += count;
  }
}

// Columns low to high of a row of a tensor that lie apart there, side by side in `to`.
template <typename S>
void read_row(const Segment& s, const Index* permutation, const S* from, Index low, Index high, S* to) {
  if (s.block == 1 && s.column_permutation >= 0) {
    const Index* order = permutation + s.column_permutation + low;
    for (Index i = 0; i < high - low; ++i) to[i] = from[order[i] * s.source_unit_stride];
  } else if (s.block == 1) {
    for (Index i = 0; i < high - low; ++i) to[i] = from[(low + i) * s.source_unit_stride];
  } else {
    for_units(s, permutation, low, high, [&](Index source, Index column, Index count) {
      std::memcpy(to + column - low, from + source, count * sizeof(S));
    });
  }
}

// The inverse: columns low to high of a row of a tensor from `from`.
template <typename S>
void write_row(const Segment& s, const Index* permutation, const S* from, Index low, Index high, S* to) {
  if (s.block == 1 && s.column_permutation >= 0) {
    const Index* order = permutation + s.column_permutation + low;
    for (Index i = 0; i < high - low; ++i) to[order[i] * s.source_unit_stride] = from[i];
  } else {
    for_units(s, permutation, low, high, [&](Index source, Index column, Index count) {
      std::memcpy(to + source, from + column - low, count * sizeof(S));
    });
  }
}

// Columns [low, high) of rows [row, row + count) of a segment to `to`, one row every `stride` values.
template <typename T, typename S>
void gather_rows(const Job& job, Index number, const Rows& rows, Index row, Index count, Index low, Index high, T* to,
                 Index stride, bool streaming) {
  using C = Compute<T>;
  const Segment& s = job.table[number];
  const Part<const S> part(job, s, rows.network);
  const bool plain = std::is_same_v<T, S> && !job.reference && !job.scales, together = contiguous(s);
  const Frame<C> frame(job, number, target_index(s, row, low));
  alignas(64) S apart[SCRATCH];
  for (Index i = 0; i < count; ++i, to += stride) {
    const S *from = part.row(row + i) + low, *next = part.after(job, rows.network, row + i) + low;
    if (!together) {
      fetch(next, (high - low) * Index(sizeof(S)));
      read_row(s, part.permutation, from - low, low, high, apart);
      from = apart;
    }
    if constexpr (std::is_same_v<T, S>) {
      if (plain) {
        move(to, from, next, high - low, streaming);
        continue;
      }
    }
    if constexpr (!std::is_same_v<T, std::uint8_t>)
      put<C>(to, high - low, Normalised<C, S>{{from, next}, frame.at(i * s.target_row_stride)}, streaming);
  }
}

template <typename T>
void gather(const Job& job) {
  const Index bytes = job.networks * job.values * Index(sizeof(T));
  const bool stream = bytes >= STREAM;
  if (stream) prefer_large_pages(job.tokens, bytes);
  for_rows(job, [&](const Rows& rows) {
    alignas(64) T scratch[SCRATCH];
    const Group& group = rows.group;
    T* tokens = static_cast<T*>(job.tokens) + rows.network * job.values + group.offset;
    const Index step = std::min(group.wide, SCRATCH);
    const Index several = group.wide == group.stride ? std::max<Index>(1, SCRATCH / group.wide) : 1;
    // Wide rows need not be put together first; only where they are cast.
    const bool direct = stream && sizeof(T) == sizeof(Compute<T>) && group.wide >= DIRECT;
    for (Index row = rows.begin; row < rows.end; row += several) {
      const Index count = std::min(several, rows.end - row);
      for (Index low = 0; low < group.wide; low += step) {
        const Index high = std::min(low + step, group.wide);
        T* target = tokens + row * group.stride + low;
        T* out = stream && !direct ? scratch : target;
        Index begin = -low;  // where a segment begins, seen from `low`
        for (Index number = group.begin; number < group.end; ++number) {
          const Segment& s = job.table[number];
          const Index first = std::max<Index>(0, -begin), last = std::min(columns(s), high - low - begin);
          const Index end = std::min(last, width(s)), zeros = std::max(first, end);
          if (first < end)
            with_kind(job.places[s.tensor].kind, [&](auto kind) {
              using S = decltype(kind);
              if constexpr (MEET<T, S>)
                gather_rows<T, S>(job, number, rows, row, count, first, end, out + begin + first, group.wide,
                                  direct);
            });
          if (zeros < last)
            for (Index i = 0; i < count; ++i)
              std::memset(out + i * group.wide + begin + zeros, 0, (last - zeros) * sizeof(T));
          begin += columns(s);
        }
        if (stream && !direct) stream_copy(target, scratch, ((count - 1) * group.wide + high - low) * sizeof(T));
      }
    }
  });
}

// Codebook entries of the tokens of one network.
template <typename T>
struct Book {
  const Job& job;
  Index first;  // place of the network's first code

  Book(const Job& job, Index network) : job(job), first(network * (job.values / job.chunk) * job.levels) {}

  const T* entry(Index token, Index level) const {
    const Index code = code_at(job, first + token * job.levels + level);
    return static_cast<const T*>(job.tokens) + (level * job.entries + code) * job.chunk;
  }
};

// Values [begin, begin + count) of a network's token matrix, looked up, to `to`; `entries` has room for all levels.
template <typename T, typename S>
void look_up(const Book<T>& book, Index number, Index begin, Index count, const T** entries, S* to) {
  using C = Compute<T>;
  const Job& job = book.job;
  Index token = begin / job.chunk, within = begin - token * job.chunk;
  for (; count > 0; ++token, within = 0) {
    const Index run = std::min(job.chunk - within, count);
    for (Index level = 0; level < job.levels; ++level) entries[level] = book.entry(token, level) + within;
    const Frame<C> frame(job, number, begin);
    if (job.levels == 4) fill<C>(to, run, Sums<C, T, 4>(entries, 4, frame));
    else fill<C>(to, run, Sums<C, T, 0>(entries, job.levels, frame));
    to += run, begin += run, count -= run;
  }
}

// A segment of one column, such as a bias: rows of one value are too short to be worth a call each.
template <typename T, typename S>
void scatter_column(const Job& job, Index number, const Rows& rows) {
  using C = Compute<T>;
  const Segment& s = job.table[number];
  const Part<S> part(job, s, rows.network);
  const T* tokens = static_cast<const T*>(job.tokens) + (job.codes ? 0 : rows.network * job.values);
  const Book<T> book(job, rows.network);
  const bool plain = std::is_same_v<T, S> && !job.codes && !job.reference && !job.scales;
  for (Index row = rows.begin; row < rows.end; ++row) {
    const Index target = target_index(s, row, 0);
    S* to = part.row(row);
    if constexpr (std::is_same_v<T, S>) {
      if (plain) {
        *to = tokens[target];
        continue;
      }
    }
    if constexpr (!std::is_same_v<T, std::uint8_t>) {
      C value{};
      if (job.codes) {
        const Index token = target / job.chunk, within = target - token * job.chunk;
        value = cast<C>(book.entry(token, 0)[within]);
        for (Index level = 1; level < job.levels; ++level) value += cast<C>(book.entry(token, level)[within]);
      } else {
        value = cast<C>(tokens[target]);
      }
      *to = cast<S>(Frame<C>(job, number, target).template denormalised<1>(value, 0));
    }
  }
}

template <typename T, typename S>
void scatter_rows(const Job& job, Index number, const Rows& rows, bool stream, const T** entries) {
  using C = Compute<T>;
  alignas(64) S scratch[SCRATCH];
  const Segment& s = job.table[number];
  const Part<S> part(job, s, rows.network);
  const T* tokens = static_cast<const T*>(job.tokens) + (job.codes ? 0 : rows.network * job.values);
  const Book<T> book(job, rows.network);
  const bool plain = std::is_same_v<T, S> && !job.codes && !job.reference && !job.scales;
  const Index wide = width(s), step = std::min(wide, SCRATCH);
  const bool together = contiguous(s);
  // Rows that follow one another in the tensor are written at once.
  const bool packed = together && s.row_permutation < 0 && s.source_row_stride == wide;
  const Index several = packed ? std::max<Index>(1, SCRATCH / wide) : 1;
  const bool direct = stream && together && !job.codes && std::is_same_v<S, C> && wide >= DIRECT;
  const auto decode = [&](Index row, Index low, Index high, S* to) {
    const Index begin = target_index(s, row, low), count = high - low;
    const T *from = tokens + begin, *next = from + count;
    if (job.codes) {
      if constexpr (!std::is_same_v<T, std::uint8_t>) look_up(book, number, begin, count, entries, to);
      return;
    }
    if (count == wide) next = from + several * s.target_row_stride;
    if constexpr (std::is_same_v<T, S>)
      if (plain) return move(to, from, next, count, direct);
    if constexpr (!std::is_same_v<T, std::uint8_t>)
      put<C>(to, count, Denormalised<C, T>{{from, next}, Frame<C>(job, number, begin)}, direct);
  };
  for (Index row = rows.begin; row < rows.end; row += several) {
    const Index count = std::min(several, rows.end - row);
    S* line = part.row(row);
    for (Index low = 0; low < wide; low += step) {
      const Index high = std::min(low + step, wide);
      S* out = together && (!stream || direct) ? line + low : scratch;
      for (Index i = 0; i < count; ++i) decode(row + i, low, high, out + i * wide);
      if (!together) write_row(s, part.permutation, scratch, low, high, line);
      else if (stream && !direct) stream_copy(line + low, scratch, ((count - 1) * wide + high - low) * sizeof(S));
    }
  }
}

template <typename T>
void scatter(const Job& job) {
  const bool stream = job.networks * job.values * Index(sizeof(T)) >= STREAM;
  if (stream) {
    // The tensors of one network follow one another, and so the first begins them all.
    const Place& place = job.places[0];
    with_kind(place.kind, [&](auto kind) {
      prefer_large_pages(reinterpret_cast<void*>(place.address), job.networks * place.stride * Index(sizeof kind));
    });
  }
  for_rows(job, [&](const Rows& rows) {
    std::vector<const T*> entries(job.levels);
    for (Index number = rows.group.begin; number < rows.group.end; ++number) {
      with_kind(job.places[job.table[number].tensor].kind, [&](auto kind) {
        using S = decltype(kind);
        if constexpr (MEET<T, S>) {
          if (width(job.table[number]) == 1) scatter_column<T, S>(job, number, rows);
          else scatter_rows<T, S>(job, number, rows, stream, entries.data());
        }
      });
    }
  });
}

}  // namespace
}  // namespace weightgen

extern "C" void weightgen_gather(const weightgen::Job* job) {
  weightgen::with_kind(job->kind, [&](auto kind) { weightgen::gather<decltype(kind)>(*job); });
}

extern "C" void weightgen_scatter(const weightgen::Job* job) {
  weightgen::with_kind(job->kind, [&](auto kind) { weightgen::scatter<decltype(kind)>(*job); });
}
