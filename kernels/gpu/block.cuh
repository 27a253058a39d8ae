// Sums and the like over the threads of a warp and of a block, in an order that is always the same.
#pragma once

template <class T>
__device__ inline T warp_sum(T x) {
    for (int by = 16; by; by >>= 1) x += __shfl_xor_sync(0xffffffffu, x, by);
    return x;
}

template <class T>
__device__ inline T warp_max(T x) {
    for (int by = 16; by; by >>= 1) {
        T other = __shfl_xor_sync(0xffffffffu, x, by);
        x = other > x || other != other ? other : x;  // what is not a number stays
    }
    return x;
}

// The sum over a block of THREADS (a multiple of 32) threads, in every thread. `shared` holds THREADS / 32 numbers.
template <int THREADS, class T>
__device__ inline T block_sum(T x, T* shared) {
    x = warp_sum(x);
    if (THREADS == 32) return x;
    __syncthreads();  // whoever still reads `shared` from before
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    T total = shared[0];
    for (int i = 1; i < THREADS / 32; i++) total += shared[i];
    return total;
}
