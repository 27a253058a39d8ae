// What training iterations that follow each other on a device read and leave behind. See kernels/cpu/training.py.
#pragma once
#include "block.cuh"

template <class T>
__global__ void row(const T* table, const long long* slot, T* found, int columns) {
    for (int i = threadIdx.x; i < columns; i += blockDim.x) found[i] = table[slot[0] * columns + i];
}

// A block has a column of the table: it copies it, but for the slot's row, where the mean of the column's array goes.
// Each row of `arrays`: an address, and how many numbers there are.
template <class T>
__global__ void __launch_bounds__(256)
note(const T* table, const long long* slot, T* noted, long long* next, const unsigned long long* arrays, int rows) {
    __shared__ T parts[256 / 32];
    const int column = blockIdx.x, columns = gridDim.x, count = (int)arrays[2 * column + 1];
    const T* values = (const T*)arrays[2 * column];
    for (int i = threadIdx.x; i < rows; i += 256)
        if (i != slot[0]) noted[i * columns + column] = table[i * columns + column];
    T total = 0;
    for (int i = threadIdx.x; i < count; i += 256) total += values[i];
    total = block_sum<256>(total, parts);
    if (threadIdx.x) return;
    noted[slot[0] * columns + column] = total / (T)count;
    if (column == 0) next[0] = slot[0] + 1;
}

// A block has a task. An example is right if its first largest logit is its label's, and all are finite.
template <class T>
__global__ void __launch_bounds__(256)
right(const T* logits, const long long* labels, T* share, int examples, int classes, int logits_step, int labels_step) {
    __shared__ int parts[256 / 32];
    logits += (long long)blockIdx.x * logits_step;
    labels += (long long)blockIdx.x * labels_step;
    int found = 0;
    for (int i = threadIdx.x; i < examples; i += 256) {
        const T* x = logits + (long long)i * classes;
        int largest = 0;
        bool finite = true;
        for (int c = 0; c < classes; c++) {
            finite = finite && isfinite(x[c]);
            if (x[c] > x[largest]) largest = c;
        }
        found += finite && largest == labels[i];
    }
    found = block_sum<256>(found, parts);
    if (threadIdx.x == 0) share[blockIdx.x] = (T)found / (T)examples;
}
