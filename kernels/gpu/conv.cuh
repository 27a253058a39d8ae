// Convolution of images and its two gradients: three products of matrices that are never written down. Images are
// x[n, h, w, c], weights w[i, j, c, o], results y[n, p, q, o], each for every task.
#pragma once
#include "products.cuh"

// What every kernel is told: sizes, and what divides by them.
#define SIZES                                                                                                        \
    int images, int height, int width, int channels, int filters, int out_height, int out_width, int rows,            \
        int columns, int stride_h, int stride_w, int top, int left, long long by_channels, long long by_filters,      \
        long long by_columns, long long by_out_area, long long by_out_width, long long by_area, long long by_width,   \
        long long by_stride_h, long long by_stride_w
#define GEOMETRY                                                                                                     \
    Geometry {                                                                                                       \
        images, height, width, channels, filters, out_height, out_width, stride_h, stride_w, top, left,               \
            {channels, by_channels}, {filters, by_filters}, {columns, by_columns},                                    \
            {out_height * out_width, by_out_area}, {out_width, by_out_width}, {height * width, by_area},               \
            {width, by_width}, {stride_h, by_stride_h}, {stride_w, by_stride_w}                                       \
    }

// Where windows lie: window (p, q) begins at pixel (stride p - top, stride q - left).
struct Geometry {
    int images, height, width, channels, filters, out_height, out_width, stride_h, stride_w, top, left;
    Divisor by_channels, by_filters, by_columns, by_out_area, by_out_width, by_area, by_width, by_stride_h, by_stride_w;
};

// Operands of the products.

struct Pixel {
    int at;  // of the image
    int row, column;
};
struct Tap {
    int row, column, channel;
};

// The pixels that windows meet: x[n, stride p + i - top, stride q + j - left, c]. A line is a window and a step one of
// its taps, or the other way round.
template <class T, bool WINDOWS_ARE_LINES>
struct Patches {
    static constexpr bool ALONG_STEPS = WINDOWS_ARE_LINES;
    const T* data;
    Geometry g;
    int windows, taps;

    __device__ Pixel window(int m) const {
        if (m >= windows) return {0, -(1 << 30), 0};  // above every image
        int n, p, q;
        g.by_out_area.split(m, n, m);
        g.by_out_width.split(m, p, q);
        return {n * g.height * g.width * g.channels, p * g.stride_h - g.top, q * g.stride_w - g.left};
    }
    __device__ Tap tap(int k) const {
        if (k >= taps) return {-(1 << 30), 0, 0};
        int i, j, c;
        g.by_channels.split(k, k, c);
        g.by_columns.split(k, i, j);
        return {i, j, c};
    }
    __device__ auto line(int i) const {
        if constexpr (WINDOWS_ARE_LINES) return window(i);
        else return tap(i);
    }
    __device__ auto step(int k) const {
        if constexpr (WINDOWS_ARE_LINES) return tap(k);
        else return window(k);
    }
    template <int V>
    __device__ Vector<T, V> get(const Pixel& pixel, const Tap& tap) const {
        Vector<T, V> found = {};
        const int h = pixel.row + tap.row, w = pixel.column + tap.column;
        if ((unsigned)h < (unsigned)g.height && (unsigned)w < (unsigned)g.width)
            found = *(const Vector<T, V>*)(data + pixel.at + (h * g.width + w) * g.channels + tap.channel);
        return found;
    }
    template <int V>
    __device__ Vector<T, V> get(const Tap& tap, const Pixel& pixel) const {
        return get<V>(pixel, tap);
    }
};

// The windows that meet a pixel: g[n, (h + top - i) / stride, (w + left - j) / stride, o] where that is whole. A line is
// a pixel, a step a tap and a filter.
template <class T>
struct Meeting {
    static constexpr bool ALONG_STEPS = true;
    const T* data;
    Geometry g;
    int pixels, taps;

    __device__ Pixel line(int m) const {
        if (m >= pixels) return {0, -(1 << 30), 0};
        int n, h, w;
        g.by_area.split(m, n, m);
        g.by_width.split(m, h, w);
        return {n * g.out_height * g.out_width * g.filters, h + g.top, w + g.left};
    }
    __device__ Tap step(int k) const {
        if (k >= taps) return {1 << 30, 0, 0};
        int i, j, o;
        g.by_filters.split(k, k, o);
        g.by_columns.split(k, i, j);
        return {i, j, o};
    }
    template <int V>
    __device__ Vector<T, V> get(const Pixel& pixel, const Tap& tap) const {
        Vector<T, V> found = {};
        const int h = pixel.row - tap.row, w = pixel.column - tap.column;
        if (h < 0 || w < 0) return found;
        int p, q, h_rest, w_rest;
        g.by_stride_h.split(h, p, h_rest);
        g.by_stride_w.split(w, q, w_rest);
        if (h_rest == 0 && w_rest == 0 && p < g.out_height && q < g.out_width)
            found = *(const Vector<T, V>*)(data + pixel.at + (p * g.out_width + q) * g.filters + tap.channel);
        return found;
    }
};

// The weights by channel, w[i, j, c, o]: a line is a channel, a step a tap and a filter.
template <class T>
struct Turned {
    static constexpr bool ALONG_STEPS = true;
    const T* data;
    Geometry g;
    int taps;

    __device__ int line(int c) const { return c < g.channels ? c * g.filters : -1; }
    __device__ int step(int k) const {
        if (k >= taps) return -1;
        int tap, o;
        g.by_filters.split(k, tap, o);
        return tap * g.channels * g.filters + o;
    }
    template <int V>
    __device__ Vector<T, V> get(int line, int step) const {
        Vector<T, V> found = {};
        if (line >= 0 && step >= 0) found = *(const Vector<T, V>*)(data + line + step);
        return found;
    }
};

// Steps between the entries of neighbouring tasks are 0 where tasks share one. `each` steps of the sum make a part;
// with several parts the result is theirs one behind the other, and c is added later.

template <class E, int V, class T = typename E::T>
__global__ void __launch_bounds__(E::THREADS, 512 / E::THREADS)
conv2d(const T* x, const T* w, const T* c, T* y, int x_step, int w_step, int c_step, int c_row, int each, int parts, SIZES) {
    const Geometry g = GEOMETRY;
    const int windows = images * out_height * out_width, taps = rows * columns * channels;
    const Place at = Place::of<E>(filters);
    const Patches<T, true> a = {x + (long long)at.task * x_step, g, windows, taps};
    const Matrix<T, false> b = {w + (long long)at.task * w_step, filters, taps, filters};
    multiply<E, V>(a, b, c ? c + (long long)at.task * c_step : c, c_row,
                   y + ((long long)at.task * parts + at.part) * windows * filters,
                   windows, filters, at.row, at.column, at.part * each, min(taps, (at.part + 1) * each));
}

template <class E, int V, class T = typename E::T>
__global__ void __launch_bounds__(E::THREADS, 512 / E::THREADS)
conv2d_dx(const T* g, const T* w, const T* c, T* dx, int g_step, int w_step, int c_step, int c_row, int each, int parts, SIZES) {
    const Geometry geometry = GEOMETRY;
    const int pixels = images * height * width, taps = rows * columns * filters;
    const Place at = Place::of<E>(channels);
    const Meeting<T> a = {g + (long long)at.task * g_step, geometry, pixels, taps};
    const Turned<T> b = {w + (long long)at.task * w_step, geometry, taps};
    multiply<E, V>(a, b, c ? c + (long long)at.task * c_step : c, c_row,
                   dx + ((long long)at.task * parts + at.part) * pixels * channels,
                   pixels, channels, at.row, at.column, at.part * each, min(taps, (at.part + 1) * each));
}

template <class E, int V, class T = typename E::T>
__global__ void __launch_bounds__(E::THREADS, 512 / E::THREADS)
conv2d_dw(const T* x, const T* g, const T* c, T* dw, int x_step, int g_step, int c_step, int c_row, int each, int parts, SIZES) {
    const Geometry geometry = GEOMETRY;
    const int windows = images * out_height * out_width, taps = rows * columns * channels;
    const Place at = Place::of<E>(filters);
    const Patches<T, false> a = {x + (long long)at.task * x_step, geometry, windows, taps};
    const Matrix<T, false> b = {g + (long long)at.task * g_step, filters, windows, filters};
    multiply<E, V>(a, b, c ? c + (long long)at.task * c_step : c, c_row,
                   dw + ((long long)at.task * parts + at.part) * taps * filters,
                   taps, filters, at.row, at.column, at.part * each, min(windows, (at.part + 1) * each));
}
