// The figures that training iterations on a device leave behind. See kernels/cpu/training.py.
#pragma once
#include "block.cuh"

// A block has a column of the table: it copies it, but for the row, where the mean of the column's array goes.
// Each row of `arrays`: an address, and how many numbers there are.
template <class T>
__global__ void __launch_bounds__(256)
write_figures(const T* table, const long long* row, T* written, long long* next, const unsigned long long* arrays,
              int rows) {
    __shared__ T parts[256 / 32];
    const int column = blockIdx.x, columns = gridDim.x, count = (int)arrays[2 * column + 1];
    const T* values = (const T*)arrays[2 * column];
    for (int i = threadIdx.x; i < rows; i += 256)
        if (i != row[0]) written[i * columns + column] = table[i * columns + column];
    T total = 0;
    for (int i = threadIdx.x; i < count; i += 256) total += values[i];
    total = block_sum<256>(total, parts);
    if (threadIdx.x) return;
    written[row[0] * columns + column] = total / (T)count;
    if (column == 0) next[0] = row[0] + 1;
}

// A block has a task. An example is right if its first largest logit is its label's, and all are finite.
template <class T>
__global__ void __launch_bounds__(256)
share_of_correct(const T* logits, const long long* labels, T* share, int examples, int classes, int logits_step,
                 int labels_step) {
    __shared__ int parts[256 / 32];
    logits += (long long)blockIdx.x * logits_step;
    labels += (long long)blockIdx.x * labels_step;
    int correct = 0;
    for (int i = threadIdx.x; i < examples; i += 256) {
        const T* x = logits + (long long)i * classes;
        int largest = 0;
        bool finite = true;
        for (int c = 0; c < classes; c++) {
            finite = finite && isfinite(x[c]);
            if (x[c] > x[largest]) largest = c;
        }
        correct += finite && largest == labels[i];
    }
    correct = block_sum<256>(correct, parts);
    if (threadIdx.x == 0) share[blockIdx.x] = (T)correct / (T)examples;
}
