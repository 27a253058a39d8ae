// Pooling of images [T, N, H, W, C]: a thread has V channels of a window, or, in the adjoints, of a pixel, to which it
// adds what the windows that it lies in give.
#pragma once
#include "vectors.cuh"

// A thread's place in the result, counted through all images [tasks, images, rows, columns, channels].
struct Place {
    int task, image, i, j, channel;
    bool none;

    __device__ Place(int tasks, int images, int rows, int columns, int channels, int V) {
        unsigned at = blockIdx.x * blockDim.x + threadIdx.x, lanes = channels / V;
        channel = at % lanes * V, at /= lanes;
        j = at % columns, at /= columns;
        i = at % rows, at /= rows;
        image = at % images, task = at / images;
        none = task >= tasks;
    }
};

enum Way { LARGEST, TAKE, MEAN, PUT, SPREAD };

// How many of a window's pixels are in the image, along one axis.
__device__ inline int inside(int start, int window, int size) {
    return min(start + window, size) - max(start, 0);
}

// Of every window the largest pixel, the first of equal ones, or the one at its place, or the mean.
template <class T, int V, class P, Way WAY>
__global__ void __launch_bounds__(256, 4)
windows(const T* __restrict__ x, int x_step, const P* __restrict__ at, int at_step, T* __restrict__ y,
        P* __restrict__ places, int tasks, int images, int channels, int height, int width, int down, int across,
        int window_height, int window_width, int stride_height, int stride_width, int top, int left) {
    Place point(tasks, images, down, across, channels, V);
    if (point.none) return;
    int window = ((point.image * down + point.i) * across + point.j) * channels + point.channel;
    x += (long long)point.task * x_step + (long long)point.image * height * width * channels + point.channel;
    Vector<P, V> place = filled<V>((P)-1);
    if (WAY == TAKE) place = load<V>(at + (long long)point.task * at_step + window);

    Vector<T, V> result = {};
    int i0 = point.i * stride_height - top, j0 = point.j * stride_width - left;
    for (int i = max(i0, 0); i < min(i0 + window_height, height); i++)
        for (int j = max(j0, 0); j < min(j0 + window_width, width); j++) {
            Vector<T, V> pixel = load<V>(x + (i * width + j) * channels);
            P k = (i - i0) * window_width + j - j0;
#pragma unroll
            for (int c = 0; c < V; c++) {
                T z = pixel[c], best = result[c];
                if (WAY == MEAN) result[c] += z;
                if (WAY == TAKE) result[c] = place[c] == k ? z : best;
                if (WAY == LARGEST) {
                    bool better = (place[c] < 0) | larger(z, best);
                    result[c] = better ? z : best, place[c] = better ? k : place[c];
                }
            }
        }
    if (WAY == MEAN) {
        T count = inside(i0, window_height, height) * inside(j0, window_width, width);
#pragma unroll
        for (int c = 0; c < V; c++) result[c] /= count;
    }
    long long to = (long long)point.task * images * down * across * channels + window;
    store<V>(y + to, result);
    if (WAY == LARGEST) store<V>(places + to, place);
}

// To every pixel the sum of its windows' numbers: of those that were taken from it, or of their shares.
template <class T, int V, class P, Way WAY>
__global__ void __launch_bounds__(256, 4)
pixels(const T* __restrict__ g, int g_step, const P* __restrict__ at, int at_step, T* __restrict__ x, int tasks,
       int images, int channels, int height, int width, int down, int across, int window_height, int window_width,
       int stride_height, int stride_width, int top, int left) {
    Place point(tasks, images, height, width, channels, V);
    if (point.none) return;
    int image = point.image * down * across * channels + point.channel;
    g += (long long)point.task * g_step + image, at += (long long)point.task * at_step + image;

    Vector<T, V> total = {};
    int i = point.i + top, j = point.j + left;  // windows p and q begin at p and q strides
    int p0 = max(i - window_height + stride_height, 0) / stride_height;
    int q0 = max(j - window_width + stride_width, 0) / stride_width;
    for (int p = p0; p < down && p * stride_height <= i; p++)
        for (int q = q0; q < across && q * stride_width <= j; q++) {
            int window = (p * across + q) * channels;
            Vector<T, V> here = load<V>(g + window);
            if constexpr (WAY == PUT) {
                Vector<P, V> place = load<V>(at + window);
                P k = (i - p * stride_height) * window_width + j - q * stride_width;
#pragma unroll
                for (int c = 0; c < V; c++) total[c] += place[c] == k ? here[c] : 0;
            } else {
                T count = inside(p * stride_height - top, window_height, height) *
                          inside(q * stride_width - left, window_width, width);
#pragma unroll
                for (int c = 0; c < V; c++) total[c] += here[c] / count;
            }
        }
    long long to = (((long long)point.task * images + point.image) * height + point.i) * width + point.j;
    store<V>(x + to * channels + point.channel, total);
}
