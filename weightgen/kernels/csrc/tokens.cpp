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
constexpr Index AHEAD = 2;                // rows that are fetched before they are needed, where they are permuted
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

// Columns low to high of a row of a tensor, cast, to `to`.
template <typename To, typename From>
void read_row(const Segment& s, const Index* permutation, const From* from, Index low, Index high, To* to) {
  if (contiguous(s)) {
    cast_run(to, from + low, high - low);
  } else if (s.block == 1 && s.column_permutation >= 0) {
    const Index* order = permutation + s.column_permutation + low;
    for (Index i = 0; i < high - low; ++i) to[i] = cast<To>(from[order[i] * s.source_unit_stride]);
  } else if (s.block == 1) {
    for (Index i = 0; i < high - low; ++i) to[i] = cast<To>(from[(low + i) * s.source_unit_stride]);
  } else {
    for_units(s, permutation, low, high, [&](Index source, Index column, Index count) {
      cast_run(to + column - low, from + source, count);
    });
  }
}

// The inverse: columns low to high of a row of a tensor from `from`.
template <typename T>
void write_row(const Segment& s, const Index* permutation, const T* from, Index low, Index high, T* to) {
  if (s.block == 1 && s.column_permutation >= 0) {
    const Index* order = permutation + s.column_permutation + low;
    for (Index i = 0; i < high - low; ++i) to[order[i] * s.source_unit_stride] = from[i];
  } else {
    for_units(s, permutation, low, high, [&](Index source, Index column, Index count) {
      cast_run(to + source, from + column - low, count);
    });
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
    if ((s.row_permutation >= 0 || !plain) && row + AHEAD < s.rows && contiguous(s)) {
      // The processor does not foresee the next row of a permutation, nor far enough while it computes.
      const Index step = source_row(s, row + AHEAD, permutation) - source_row(s, row, permutation);
      prefetch(from + step * s.source_row_stride + low, (high - low) * Index(sizeof(S)));
    }
    if constexpr (!MEET<T, S>) return;
    if constexpr (std::is_same_v<S, T>) {
      if (plain) {
        read_row(s, permutation, from, low, high, to);
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
      read_row(s, permutation, from, low, high, values);
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

// Adds up to four runs of values to `to`, or begins it with them; one pass, from the first to the last.
template <int COUNT, bool BEGIN, typename T, typename C>
void sum_runs(const T* const* runs, Index length, C* to) {
  const T *first = runs[0], *second = runs[COUNT > 1], *third = runs[COUNT > 2 ? 2 : 0], *fourth = runs[COUNT - 1];
#pragma GCC ivdep
  for (Index i = 0; i < length; ++i) {
    C sum = BEGIN ? cast<C>(first[i]) : to[i] + cast<C>(first[i]);
    if constexpr (COUNT > 1) sum += cast<C>(second[i]);
    if constexpr (COUNT > 2) sum += cast<C>(third[i]);
    if constexpr (COUNT > 3) sum += cast<C>(fourth[i]);
    to[i] = sum;
  }
}

template <bool BEGIN, typename T, typename C>
void sum_runs(const T* const* runs, Index count, Index length, C* to) {
  if (count == 1) sum_runs<1, BEGIN>(runs, length, to);
  else if (count == 2) sum_runs<2, BEGIN>(runs, length, to);
  else if (count == 3) sum_runs<3, BEGIN>(runs, length, to);
  else sum_runs<4, BEGIN>(runs, length, to);
}

// The sums of codebook entries at places [begin, begin + count) of a network's token matrix.
template <typename T, typename C>
void look_up(const Job& job, Index network, Index begin, Index count, C* to) {
  const Index token = begin / job.chunk;
  const Index* own = job.codes + (network * (job.values / job.chunk) + token) * job.levels;
  Index within = begin - token * job.chunk;
  for (const Index* end = own; count > 0; own = end, within = 0) {
    const T* books = static_cast<const T*>(job.tokens) + within;
    const Index run = std::min(job.chunk - within, count);
    end += job.levels;
    for (Index level = 0; level < job.levels; level += 4) {
      const T* runs[4];
      const Index levels = std::min<Index>(4, job.levels - level);
      for (Index i = 0; i < levels; ++i)
        runs[i] = books + ((level + i) * job.entries + own[level + i]) * job.chunk;
      if (level) sum_runs<false>(runs, levels, run, to);
      else sum_runs<true>(runs, levels, run, to);
    }
    to += run, count -= run;
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
  if (!job.codes && row + AHEAD < job.table[number].rows)
    prefetch(tokens + AHEAD * job.table[number].target_row_stride, count * Index(sizeof(T)));
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

// A segment of one column, such as a bias: rows of one value are too short to be worth a call each.
template <typename T, typename S>
void scatter_column(const Job& job, Index number, Index network, Index row_begin, Index row_end) {
  using C = Compute<T>;
  const Segment& s = job.table[number];
  const Place& place = job.places[s.tensor];
  const Index* permutation = permutation_of(job, network);
  S* tensor = reinterpret_cast<S*>(place.address) + network * place.stride + s.source_offset;
  const T* tokens = static_cast<const T*>(job.tokens) + (job.codes ? 0 : network * job.values);
  const Index* codes = job.codes + network * (job.values / job.chunk) * job.levels;
  for (Index row = row_begin; row < row_end; ++row) {
    const Index target = target_index(s, row, 0);
    S* to = tensor + source_row(s, row, permutation) * s.source_row_stride;
    if constexpr (std::is_same_v<T, S>) {
      if (!job.codes && !job.reference && !job.scales) {
        *to = tokens[target];
        continue;
      }
    }
    C value{};
    if (job.codes) {
      const Index token = target / job.chunk, within = target - token * job.chunk;
      for (Index level = 0; level < job.levels; ++level) {
        const C entry = cast<C>(tokens[(level * job.entries + codes[token * job.levels + level]) * job.chunk + within]);
        value = level ? value + entry : entry;
      }
    } else {
      value = cast<C>(tokens[target]);
    }
    const C *reference = reference_at<C>(job, target), *scale = scale_of<C>(job, number);
    if (reference || scale) denormalise<C>(&value, &value, 1, reference, scale, job.divide);
    *to = cast<S>(value);
  }
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
        write_row(s, permutation, scratch, low, high, line);
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
        if constexpr (MEET<T, S>) {
          if (width(job.table[number]) == 1) scatter_column<T, S>(job, number, network, row_begin, row_end);
          else scatter_rows<T, S>(job, number, network, row_begin, row_end, stream);
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
