// Rows of tasks [M, C], or cells of images, divided among blocks and threads, and sums of them over each channel.
//
// A block has a task (blockIdx.x), a chunk of its items (y) and a group of its channels (z). An item is a row, or, of
// images, a cell of 2 x 2 pixels.
#pragma once
#include "vectors.cuh"

constexpr int THREADS = 256;
constexpr int GROUP = 32;  // channels of a block, at most

// What is divided among threads, the same for all blocks.
struct Work {
    int height, width, channels;  // of images; without pooling they are one pixel wide
    int items, each;              // of a task, of a chunk
    int lanes;                    // threads beside one another along a block's channels
};

// A thread's share of its block: V channels of every rows-th item, from the first on. Loops count the items, so that
// they can be unrolled and several are loaded at once.
template <int V>
struct Share {
    int rows, row, lane;
    int channel;  // the first of V
    int first, items;
    bool idle;

    __device__ explicit Share(const Work& work) {
        rows = THREADS / work.lanes, row = threadIdx.x / work.lanes, lane = threadIdx.x % work.lanes;
        channel = (blockIdx.z * work.lanes + lane) * V;
        idle = row >= rows || channel >= work.channels;
        if (idle) channel = 0;  // which can be read
        first = blockIdx.y * work.each + row;
        int left = min((int)(blockIdx.y + 1) * work.each, work.items) - first;
        items = idle || left <= 0 ? 0 : (left + rows - 1) / rows;
    }
};

// The pixels of an item, and what is pooled of them.
template <bool POOLS>
struct Cell {
    static constexpr int PIXELS = POOLS ? 4 : 1;
    int pixel[PIXELS];  // offsets; the first pixel's for those beyond the image
    bool inside[PIXELS];
    int window;  // the offset of the maximum, 0 if there is none
    bool full;

    __device__ Cell(int item, const Work& work) {
        if constexpr (POOLS) {
            unsigned across = (work.width + 1) / 2, down = (work.height + 1) / 2;
            int line = (unsigned)item / across, q = (unsigned)item % across;
            int image = (unsigned)line / down, p = (unsigned)line % down;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                int i = 2 * p + k / 2, j = 2 * q + k % 2;
                inside[k] = i < work.height && j < work.width;
                int at = inside[k] ? i * work.width + j : 2 * (p * work.width + q);
                pixel[k] = (image * work.height * work.width + at) * work.channels;
            }
            full = inside[3];
            int at = (image * (work.height / 2) + p) * (work.width / 2) + q;
            window = full ? at * work.channels : 0;
        } else {
            pixel[0] = window = item * work.channels;
            inside[0] = full = true;
        }
    }
};

// Sums over a block's rows of threads, in every thread of the channel.
template <class T, int V, int S>
__device__ inline void add_rows(Vector<T, V> (&sums)[S], const Share<V>& share, int lanes) {
    static_assert(S * GROUP <= THREADS, "a thread for every sum of a channel");
    __shared__ Vector<T, V> parts[S][THREADS];
    __shared__ Vector<T, V> totals[S][GROUP / V];
#pragma unroll
    for (int s = 0; s < S; s++) parts[s][threadIdx.x] = sums[s];
    __syncthreads();
    int wide = lanes * V, s = threadIdx.x / wide, c = threadIdx.x % wide;
    if (s < S) {
        const T* part = &parts[s][0][0] + c;
        T total = 0;
#pragma unroll 8
        for (int r = 0; r < share.rows; r++) total += part[r * wide];
        (&totals[s][0][0])[c] = total;
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < S; s++) sums[s] = totals[s][share.lane];
}

// Partial sums of a task's chunks, [T, chunks, S, C], at a thread's channels.
template <class T, int V, int S>
struct Parts {
    T* first;  // of the task
    int channels;

    __device__ Parts(T* all, int chunks, const Share<V>& share, const Work& work) {
        first = all + (long long)blockIdx.x * chunks * S * work.channels + share.channel, channels = work.channels;
    }

    __device__ Vector<T, V> load(int chunk, int s) const {
        return ::load<V>(first + ((long long)chunk * S + s) * channels);
    }

    __device__ void store(const Vector<T, V> (&sums)[S]) const {
#pragma unroll
        for (int s = 0; s < S; s++) ::store<V>(first + ((long long)blockIdx.y * S + s) * channels, sums[s]);
    }
};
