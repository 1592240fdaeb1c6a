// How the work on the CPU is parted: segments with rows in common, some rows of one network at a time.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "job.h"
#include "memory.h"

namespace weightgen {

constexpr Index ITEM = 1 << 14;  // values of a network that a thread takes at a time, at least

// Neighbouring segments [begin, end) of the table with rows in common; `wide` values of each row, padding included.
struct Group {
  Index begin, end, rows, stride, offset, wide;
};

// Rows [begin, end) of a group in one network.
struct Rows {
  const Group& group;
  Index network, begin, end;
};

inline std::vector<Group> groups_of(const Job& job) {
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

// Calls body(Rows) for all rows of all groups and networks, on all threads.
template <typename Body>
void for_rows(const Job& job, const Body& body) {
  struct Item {
    Index group, begin, end;
  };
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
      body(Rows{groups[item.group], place / count, item.begin, item.end});
    }
    stream_end();
  });
}

}  // namespace weightgen
