// Optimisers' updates: what depends on the iteration, and one launch over all parameters. See kernels/cpu/optim.py.
#pragma once
#include "many.cuh"

template <class T>
__global__ void next_iteration(long long* next, T* at, const long long* iteration) {
    next[0] = iteration[0] + 1;
    at[0] = (T)iteration[0];
}

template <class T>
__global__ void bias_correction(T* scales, const T* at, const T* rate, T beta1, T beta2) {
    T t = at[0] + 1;
    scales[0] = rate[0] / (1 - pow(beta1, t));
    scales[1] = 1 / (1 - pow(beta2, t));
}

// Each row of `table`: the addresses of x', m', v', x, g, m, v, and how many numbers they have.
template <class T>
__global__ void adam(const unsigned long long* table, const int* starts, int count, const double* scales, T beta1,
                     T beta2, T epsilon) {
    int which = array_of_block(starts, count);
    const unsigned long long* row = table + 8 * which;
    T *x2 = (T*)row[0], *m2 = (T*)row[1], *v2 = (T*)row[2];
    const T *x = (const T*)row[3], *g = (const T*)row[4], *m = (const T*)row[5], *v = (const T*)row[6];
    long long i = (long long)(blockIdx.x - starts[which]) * blockDim.x + threadIdx.x;
    if (i >= (long long)row[7]) return;
    T rate = (T)scales[0], correction = (T)scales[1];
    T mean = beta1 * m[i] + (1 - beta1) * g[i];
    T square = beta2 * v[i] + (1 - beta2) * (g[i] * g[i]);
    m2[i] = mean;
    v2[i] = square;
    x2[i] = x[i] - rate * mean / (sqrt(correction * square) + epsilon);
}
