// The CUDA twin: blocks stride over the tiles of all segments of all networks. What a thread does stands in tiles.h.

#include "tiles.h"

namespace weightgen {
namespace {

constexpr unsigned THREADS = 256;
constexpr Index BLOCKS = 8;  // for each multiprocessor; enough loads in flight to fill the memory's latency

template <typename T>
__global__ void __launch_bounds__(THREADS, 1) gather(const Job job, Index tiles) {
  for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x) gather_tile<T>(job, tile, threadIdx.x, THREADS);
}

template <typename T, bool CODES>
__global__ void __launch_bounds__(THREADS, 1) scatter(const Job job, Index tiles) {
  for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x)
    scatter_tile<T, CODES>(job, tile, threadIdx.x, THREADS);
}

unsigned blocks_for(Index tiles) {
  int device = 0, processors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  return unsigned(tiles < BLOCKS * processors ? tiles : BLOCKS * processors);
}

}  // namespace
}  // namespace weightgen

using weightgen::Index;
using weightgen::Job;

extern "C" void weightgen_tiles(const weightgen::Segment* table, Index* first, Index segments) {
  weightgen::number_tiles(table, first, segments);
}

// `tiles` are those of one network; the job and everything it points to but itself lie on the device.
extern "C" int weightgen_gather(const Job* job, Index tiles, void* stream) {
  const Index all = tiles * job->networks;
  weightgen::with_kind(job->kind, [&](auto kind) {
    const auto blocks = weightgen::blocks_for(all);
    weightgen::gather<decltype(kind)><<<blocks, weightgen::THREADS, 0, cudaStream_t(stream)>>>(*job, all);
  });
  return cudaGetLastError();
}

extern "C" int weightgen_scatter(const Job* job, Index tiles, void* stream) {
  const Index all = tiles * job->networks;
  weightgen::with_kind(job->kind, [&](auto kind) {
    using T = decltype(kind);
    const auto blocks = weightgen::blocks_for(all);
    if (job->codes) weightgen::scatter<T, true><<<blocks, weightgen::THREADS, 0, cudaStream_t(stream)>>>(*job, all);
    else weightgen::scatter<T, false><<<blocks, weightgen::THREADS, 0, cudaStream_t(stream)>>>(*job, all);
  });
  return cudaGetLastError();
}

extern "C" const char* weightgen_reason(int status) { return cudaGetErrorString(cudaError_t(status)); }
