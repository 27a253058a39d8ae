// What a recorded program needs besides its kernels.
#pragma once
#include "many.cuh"

// Each row of `table`: an array's address, and how many numbers it has. Whoever finds one that is not finite says so.
template <class T>
__global__ void find_not_finite(const unsigned long long* table, const int* starts, int count, int* flag) {
    int which = array_of_block(starts, count);
    long long i = (long long)(blockIdx.x - starts[which]) * blockDim.x + threadIdx.x;
    if (i < (long long)table[2 * which + 1] && !isfinite(((const T*)table[2 * which])[i])) *flag = 1;
}

// Each row: where to, where from, and how many numbers of type T.
template <class T>
__global__ void copy_words(const unsigned long long* table, const int* starts, int count) {
    int which = array_of_block(starts, count);
    long long i = (long long)(blockIdx.x - starts[which]) * blockDim.x + threadIdx.x;
    const unsigned long long* row = table + 3 * which;
    if (i < (long long)row[2]) ((T*)row[0])[i] = ((const T*)row[1])[i];
}
