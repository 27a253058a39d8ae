// Losses and their gradients. Entries of a task lie in C order; `_step` is what lies between two tasks', 0 if they share.
#pragma once
#include "block.cuh"

// y[t] = the mean of (p - q)^2. A block has a task.
template <class T>
__global__ void __launch_bounds__(256) mse(const T* p, const T* q, T* y, int count, int p_step, int q_step) {
    __shared__ T parts[256 / 32];
    p += (long long)blockIdx.x * p_step;
    q += (long long)blockIdx.x * q_step;
    T total = 0;
    for (int i = threadIdx.x; i < count; i += 256) total += (p[i] - q[i]) * (p[i] - q[i]);
    total = block_sum<256>(total, parts);
    if (threadIdx.x == 0) y[blockIdx.x] = total / (T)count;
}

// y = scale h[t] (p - q).
template <class T>
__global__ void __launch_bounds__(256)
scaled_difference(const T* p, const T* q, const T* h, T* y, int count, int p_step, int q_step, int h_step, T scale) {
    const int t = blockIdx.y, i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    const T factor = h[(long long)t * h_step] * scale;
    y[(long long)t * count + i] = (p[(long long)t * p_step + i] - q[(long long)t * q_step + i]) * factor;
}

// The largest of an example's logits, and the sum of the exponentials of what is left when it is taken out.
template <class T>
__device__ inline void softmax_of(const T* x, int classes, T& largest, T& total) {
    largest = x[0];
    for (int c = 1; c < classes; c++) largest = x[c] > largest || x[c] != x[c] ? x[c] : largest;
    total = 0;
    for (int c = 0; c < classes; c++) total += exp(x[c] - largest);
}

// y[t] = the mean over examples of log sum exp(x) - x[label]. A block has a task.
template <class T, class L>
__global__ void __launch_bounds__(256)
cross_entropy(const T* x, const L* labels, T* y, int examples, int classes, int x_step, int label_step) {
    __shared__ T parts[256 / 32];
    T sum = 0;
    for (int i = threadIdx.x; i < examples; i += 256) {
        const T* scores = x + (long long)blockIdx.x * x_step + (long long)i * classes;
        T largest, total;
        softmax_of(scores, classes, largest, total);
        sum += log(total) - (scores[labels[(long long)blockIdx.x * label_step + i]] - largest);
    }
    sum = block_sum<256>(sum, parts);
    if (threadIdx.x == 0) y[blockIdx.x] = sum / (T)examples;
}

// y = h[t] / examples (softmax(x) - onehot). A thread has an example.
template <class T, class L>
__global__ void __launch_bounds__(128)
cross_entropy_gradient(const T* x, const L* labels, const T* h, T* y, int examples, int classes, int x_step,
                       int label_step, int h_step) {
    const int t = blockIdx.y, i = blockIdx.x * 128 + threadIdx.x;
    if (i >= examples) return;
    const T* scores = x + (long long)t * x_step + (long long)i * classes;
    T* to = y + ((long long)t * examples + i) * classes;
    const L label = labels[(long long)t * label_step + i];
    const T factor = h[(long long)t * h_step] / (T)examples;
    T largest, total;
    softmax_of(scores, classes, largest, total);
    for (int c = 0; c < classes; c++) to[c] = (exp(scores[c] - largest) / total - (T)(c == label)) * factor;
}

// y = h[t] / examples (p v - p <p, v>) with p = softmax(x). A thread has an example.
template <class T>
__global__ void __launch_bounds__(128)
cross_entropy_hessian(const T* x, const T* h, const T* v, T* y, int examples, int classes, int x_step, int h_step,
                      int v_step) {
    const int t = blockIdx.y, i = blockIdx.x * 128 + threadIdx.x;
    if (i >= examples) return;
    const T* scores = x + (long long)t * x_step + (long long)i * classes;
    const T* along = v + (long long)t * v_step + (long long)i * classes;
    T* to = y + ((long long)t * examples + i) * classes;
    const T factor = h[(long long)t * h_step] / (T)examples;
    T largest, total, inner = 0;
    softmax_of(scores, classes, largest, total);
    for (int c = 0; c < classes; c++) inner += exp(scores[c] - largest) / total * along[c];
    for (int c = 0; c < classes; c++) to[c] = exp(scores[c] - largest) / total * (along[c] - inner) * factor;
}
