// The CPU twin: segments whose rows lie side by side in the token matrix are written a row, or a few rows, at a time.

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "job.h"
#include "memory.h"

namespace weightgen {
namespace {

constexpr Index SCRATCH = 2048;           // values put together in the nearest cache before they are written
constexpr Index ITEM = 1 << 14;           // values that a thread takes at a time, at least
constexpr Index STREAM = Index(32) << 20;  // bytes of output beyond which it is written past the cache

// Neighbouring segments [begin, end) of the table with rows in common; `wide` values of each row, padding included.
struct Group {
  Index begin, end, rows, stride, offset, wide;
};

struct Item {
  Index group, row_begin, row_end;
};

std::vector<Group> groups_of(const Job& job) {
  std::vector<Group> groups;
  for (Index number = 0; number < job.segments; ++number) {
    const Segment& s = job.table[number];
    if (!groups.empty()) {
      Group& last = groups.back();
      if (last.rows == s.rows && last.stride == s.target_row_stride && last.offset + last.wide == s.target_offset) {
        last.end = number + 1;
        last.wide += columns(s);
        continue;
      }
    }
    groups.push_back({number, number + 1, s.rows, s.target_row_stride, s.target_offset, columns(s)});
  }
  return groups;
}

// Calls body(group, network, first row, row after the last) on all threads.
template <typename Body>
void for_rows(const Job& job, const Body& body) {
  const std::vector<Group> groups = groups_of(job);
  std::vector<Item> items;
  for (Index number = 0; number < Index(groups.size()); ++number) {
    const Index rows = groups[number].rows, step = std::max<Index>(1, ITEM / groups[number].wide);
    for (Index row = 0; row < rows; row += step) items.push_back({number, row, std::min(row + step, rows)});
  }
  const Index count = items.size();
  if (!count) return;
  const Index grain = std::max<Index>(1, 2 * ITEM * count / std::max<Index>(1, job.values));
  at::parallel_for(0, job.networks * count, grain, [&](Index begin, Index end) {
    for (Index place = begin; place < end; ++place) {
      const Item& item = items[place % count];
      body(groups[item.group], place / count, item.row_begin, item.row_end);
    }
    stream_end();
  });
}

const Index* permutation_of(const Job& job, Index network) {
  return job.permutations ? job.permutations + network * job.units : nullptr;
}

// Calls run(unit's first value in the tensor's row, place in [low, high), count) for the columns low to high of a row.
template <typename Run>
inline void for_units(const Segment& s, const Index* permutation, Index low, Index high, const Run& run) {
  if (contiguous(s)) return run(low, low, high - low);
  if (s.block == 1) {
    for (Index unit = low; unit < high; ++unit)
      run(source_unit(s, unit, permutation) * s.source_unit_stride, unit, Index(1));
    return;
  }
  for (Index column = low; column < high;) {
    const Index unit = column / s.block, within = column - unit * s.block;
    const Index count = std::min(s.block - within, high - column);
    run(source_unit(s, unit, permutation) * s.source_unit_stride + within, column, count);
    column += count;
  }
}

// to = (from − reference) / scale, or · scale, each operation rounded once; `to` may be `from`, the others null.
template <typename C, typename S>
void normalise(C* to, const S* from, Index count, const C* reference, const C* scale, bool divide) {
  const C by = scale ? *scale : C(1);
  if (reference && scale && divide) {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) to[i] = (cast<C>(from[i]) - reference[i]) / by;
  } else if (reference) {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) to[i] = cast<C>(from[i]) - reference[i];
    if (scale) normalise<C>(to, to, count, nullptr, scale, divide);
  } else if (divide) {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) to[i] = cast<C>(from[i]) / by;
  } else {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) to[i] = cast<C>(from[i]) * by;
  }
}

// to = from · scale + reference, or / scale: the inverse of `normalise`.
template <typename C, typename S>
void denormalise(C* to, const S* from, Index count, const C* reference, const C* scale, bool divide) {
  const C by = scale ? *scale : C(1);
  if (reference && scale && !divide) {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) to[i] = cast<C>(from[i]) * by + reference[i];
  } else if (scale && divide) {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) to[i] = cast<C>(from[i]) / by;
    if (reference) denormalise<C>(to, to, count, reference, nullptr, false);
  } else if (scale) {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) to[i] = cast<C>(from[i]) * by;
  } else {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) to[i] = cast<C>(from[i]) + reference[i];
  }
}

template <typename C>
const C* scale_of(const Job& job, Index number) {
  return job.scales ? static_cast<const C*>(job.scales) + number : nullptr;
}

template <typename C>
const C* reference_at(const Job& job, Index place) {
  return job.reference ? static_cast<const C*>(job.reference) + place : nullptr;
}

// Columns low to high of one row of a segment, from the tensor to `to`.
template <typename T>
void gather_run(const Job& job, Index number, Index network, Index row, Index low, Index high, T* to) {
  using C = Compute<T>;
  const Segment& s = job.table[number];
  const Place& place = job.places[s.tensor];
  const Index* permutation = permutation_of(job, network);
  const Index line = network * place.stride + s.source_offset + source_row(s, row, permutation) * s.source_row_stride;
  const bool plain = place.kind == job.kind && !job.reference && !job.scales;
  with_kind(place.kind, [&](auto kind) {
    using S = decltype(kind);
    const S* from = reinterpret_cast<const S*>(place.address) + line;
    if constexpr (!MEET<T, S>) return;
    if constexpr (std::is_same_v<S, T>) {
      if (plain) {
        for_units(s, permutation, low, high, [&](Index source, Index column, Index count) {
          if (count == 1) to[column - low] = from[source];
          else std::memcpy(to + column - low, from + source, count * sizeof(T));
        });
        return;
      }
    }
    C buffer[std::is_same_v<T, C> ? 1 : SCRATCH];
    C* values = nullptr;
    if constexpr (std::is_same_v<T, C>) values = to;
    else values = buffer;
    const C* reference = reference_at<C>(job, target_index(s, row, low));
    const C* scale = scale_of<C>(job, number);
    if (contiguous(s) && (reference || scale)) {
      normalise<C>(values, from + low, high - low, reference, scale, job.divide);
    } else {
      for_units(s, permutation, low, high, [&](Index source, Index column, Index count) {
        if (count == 1) values[column - low] = cast<C>(from[source]);
        else cast_run(values + column - low, from + source, count);
      });
      if (reference || scale) normalise<C>(values, values, high - low, reference, scale, job.divide);
    }
    if constexpr (!std::is_same_v<T, C>) cast_run(to, values, high - low);
  });
}

template <typename T>
void gather(const Job& job) {
  const Index bytes = job.networks * job.values * Index(sizeof(T));
  const bool stream = bytes >= STREAM;
  if (stream) prefer_large_pages(job.tokens, bytes);
  for_rows(job, [&](const Group& group, Index network, Index row_begin, Index row_end) {
    alignas(64) T scratch[SCRATCH];
    T* tokens = static_cast<T*>(job.tokens) + network * job.values + group.offset;
    const Index step = std::min(group.wide, SCRATCH);
    const Index rows = group.wide == group.stride ? std::max<Index>(1, SCRATCH / group.wide) : 1;
    for (Index row = row_begin; row < row_end; row += rows) {
      const Index count = std::min(rows, row_end - row);
      for (Index low = 0; low < group.wide; low += step) {
        const Index high = std::min(low + step, group.wide);
        T* target = tokens + row * group.stride + low;
        T* out = stream ? scratch : target;
        for (Index next = 0; next < count; ++next) {
          Index begin = -low;  // where a segment begins, seen from `low`
          for (Index number = group.begin; number < group.end; ++number) {
            const Segment& s = job.table[number];
            T* to = out + next * group.wide + begin;
            const Index first = std::max<Index>(0, -begin), last = std::min(columns(s), high - low - begin);
            const Index values = std::min(last, width(s));
            if (first < values) gather_run(job, number, network, row + next, first, values, to + first);
            const Index zeros = std::max(first, values);
            if (zeros < last) std::memset(to + zeros, 0, (last - zeros) * sizeof(T));
            begin += columns(s);
          }
        }
        if (stream) stream_copy(target, scratch, ((count - 1) * group.wide + high - low) * sizeof(T));
      }
    }
  });
}

// The sums of codebook entries at places [begin, begin + count) of a network's token matrix.
template <typename T, typename C>
void look_up(const Job& job, Index network, Index begin, Index count, C* to) {
  const T* books = static_cast<const T*>(job.tokens);
  const Index* codes = job.codes + network * (job.values / job.chunk) * job.levels;
  while (count > 0) {
    const Index token = begin / job.chunk, within = begin - token * job.chunk;
    const Index run = std::min(job.chunk - within, count);
    const Index* own = codes + token * job.levels;
    for (Index level = 0; level < job.levels; ++level) {
      const T* entry = books + (level * job.entries + own[level]) * job.chunk + within;
      if (!level) cast_run(to, entry, run);
      else
        for (Index i = 0; i < run; ++i) to[i] += cast<C>(entry[i]);
    }
    begin += run, to += run, count -= run;
  }
}

// Columns low to high of one row of a segment, from the tokens to `to`, in the order of the token matrix.
template <typename T, typename S>
void decode_run(const Job& job, Index number, Index network, Index row, Index low, Index high, S* to) {
  using C = Compute<T>;
  const Index begin = target_index(job.table[number], row, low), count = high - low;
  const T* tokens = static_cast<const T*>(job.tokens) + network * job.values + begin;
  if constexpr (std::is_same_v<T, S>) {
    if (!job.codes && !job.reference && !job.scales) {
      if (count == 1) *to = *tokens;
      else std::memcpy(to, tokens, count * sizeof(T));
      return;
    }
  }
  C buffer[std::is_same_v<S, C> ? 1 : SCRATCH];
  C* values = nullptr;
  if constexpr (std::is_same_v<S, C>) values = to;
  else values = buffer;
  const C* reference = reference_at<C>(job, begin);
  const C* scale = scale_of<C>(job, number);
  if (job.codes) look_up<T>(job, network, begin, count, values);
  if (!reference && !scale) {
    if (!job.codes) cast_run(values, tokens, count);
  } else if (job.codes) {
    denormalise<C>(values, values, count, reference, scale, job.divide);
  } else {
    denormalise<C>(values, tokens, count, reference, scale, job.divide);
  }
  if constexpr (!std::is_same_v<S, C>) cast_run(to, values, count);
}

template <typename T, typename S>
void scatter_rows(const Job& job, Index number, Index network, Index row_begin, Index row_end, bool stream) {
  alignas(64) S scratch[SCRATCH];
  const Segment& s = job.table[number];
  const Place& place = job.places[s.tensor];
  const Index* permutation = permutation_of(job, network);
  S* tensor = reinterpret_cast<S*>(place.address) + network * place.stride + s.source_offset;
  const Index wide = width(s), step = std::min(wide, SCRATCH);
  const bool together = contiguous(s);
  // Rows that follow one another in the tensor are written at once.
  const bool packed = together && s.row_permutation < 0 && s.source_row_stride == wide;
  const Index rows = packed ? std::max<Index>(1, SCRATCH / wide) : 1;
  for (Index row = row_begin; row < row_end; row += rows) {
    const Index count = std::min(rows, row_end - row);
    S* line = tensor + source_row(s, row, permutation) * s.source_row_stride;
    for (Index low = 0; low < wide; low += step) {
      const Index high = std::min(low + step, wide);
      S* out = together && !stream ? line + low : scratch;
      for (Index next = 0; next < count; ++next)
        decode_run<T>(job, number, network, row + next, low, high, out + next * wide);
      if (together && stream) {
        stream_copy(line + low, scratch, ((count - 1) * wide + high - low) * sizeof(S));
      } else if (!together) {
        for_units(s, permutation, low, high, [&](Index source, Index column, Index length) {
          if (length == 1) line[source] = scratch[column - low];
          else std::memcpy(line + source, scratch + column - low, length * sizeof(S));
        });
      }
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
  for_rows(job, [&](const Group& group, Index network, Index row_begin, Index row_end) {
    for (Index number = group.begin; number < group.end; ++number) {
      with_kind(job.places[job.table[number].tensor].kind, [&](auto kind) {
        using S = decltype(kind);
        if constexpr (MEET<T, S>) scatter_rows<T, S>(job, number, network, row_begin, row_end, stream);
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
