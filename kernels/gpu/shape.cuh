// Moving numbers about. T is a word of their size.
#pragma once

// An index, as Python lays it out in memory: of the result's axes the length and the step in x; then for each index
// array the length and the step of the axis of x that it runs over, how its numbers are stored, and its steps.
struct Index {
    const long long* table;
    int axes, arrays;

    __device__ long long length(int axis) const { return table[2 * axis]; }

    // Where in x the entry of the result is that has these coordinates (x's beginning taken as 0).
    __device__ long long place(long long i, const unsigned long long* pointers) const {
        long long offset = 0, steps[4] = {0, 0, 0, 0};
        for (int axis = axes - 1; axis >= 0; axis--) {
            const long long at = i % table[2 * axis];
            i /= table[2 * axis];
            offset += at * table[2 * axis + 1];
            #pragma unroll
            for (int k = 0; k < 4; k++)
                if (k < arrays) steps[k] += at * table[2 * axes + k * (3 + axes) + 3 + axis];
        }
        #pragma unroll
        for (int k = 0; k < 4; k++)
            if (k < arrays) {
                const long long* index = table + 2 * axes + k * (3 + axes);
                long long at = read(pointers[k], index[2], steps[k]);
                offset += (at < 0 ? at + index[0] : at) * index[1];
            }
        return offset;
    }

    // The i-th number of an array of whole numbers of -size bytes if signed, of size bytes if not.
    __device__ static long long read(unsigned long long array, long long size, long long i) {
        switch (size) {
            case -1: return ((const signed char*)array)[i];
            case -2: return ((const short*)array)[i];
            case -4: return ((const int*)array)[i];
            case 1: return ((const unsigned char*)array)[i];
            case 2: return ((const unsigned short*)array)[i];
            case 4: return ((const unsigned*)array)[i];
            default: return ((const long long*)array)[i];
        }
    }
};

// y = x[index].
template <class T>
__global__ void __launch_bounds__(256) gather(const T* x, T* y, const long long* table, int axes, int arrays,
                                              unsigned long long p0, unsigned long long p1, unsigned long long p2,
                                              unsigned long long p3, int count) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    const unsigned long long pointers[4] = {p0, p1, p2, p3};
    y[i] = x[Index{table, axes, arrays}.place(i, pointers)];
}

// y[index] = g.
template <class T>
__global__ void __launch_bounds__(256) put(const T* g, T* y, const long long* table, int axes, int count) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    const unsigned long long none[4] = {0, 0, 0, 0};
    if (i < count) y[Index{table, axes, 0}.place(i, none)] = g[i];
}

// y[index] += g, in order: g is [inner, entries], and a thread has all entries of one inner place.
template <class T>
__global__ void __launch_bounds__(256) scatter(const T* g, T* y, const long long* table, int axes, int arrays,
                                               unsigned long long p0, unsigned long long p1, unsigned long long p2,
                                               unsigned long long p3, int inner, int entries) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= inner) return;
    const unsigned long long pointers[4] = {p0, p1, p2, p3};
    const Index index = {table, axes, arrays};
    for (int k = 0; k < entries; k++) y[index.place((long long)i * entries + k, pointers)] += g[(long long)i * entries + k];
}

template <class T>
__global__ void __launch_bounds__(256) clear(T* y, int count) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i < count) y[i] = 0;
}
