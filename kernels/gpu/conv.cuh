// Convolution of images and its two gradients: three products of matrices that are never formed. Images are
// x[n, h, w, c], weights w[i, j, c, o], results y[n, p, q, o], each for every task.
#pragma once
#include "products.cuh"

// What every kernel is given: sizes, and what divides by them.
#define SIZES                                                                                                        \
    int images, int height, int width, int channels, int filters, int out_height, int out_width, int rows,            \
        int columns, int stride_h, int stride_w, int top, int left, long long by_channels, long long by_filters,      \
        long long by_columns, long long by_out_area, long long by_out_width
#define GEOMETRY                                                                                                     \
    Geometry {                                                                                                       \
        images, height, width, channels, filters, out_height, out_width, stride_h, stride_w, top, left,               \
            {channels, by_channels}, {filters, by_filters}, {columns, by_columns},                                    \
            {out_height * out_width, by_out_area}, {out_width, by_out_width}                                          \
    }

// Where windows lie: window (p, q) begins at pixel (stride p - top, stride q - left).
struct Geometry {
    int images, height, width, channels, filters, out_height, out_width, stride_h, stride_w, top, left;
    Divisor by_channels, by_filters, by_columns, by_out_area, by_out_width;
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
        Vector<T, V> loaded = {};
        const int h = pixel.row + tap.row, w = pixel.column + tap.column;
        if ((unsigned)h < (unsigned)g.height && (unsigned)w < (unsigned)g.width)
            loaded = *(const Vector<T, V>*)(data + pixel.at + (h * g.width + w) * g.channels + tap.channel);
        return loaded;
    }
    template <int V>
    __device__ Vector<T, V> get(const Tap& tap, const Pixel& pixel) const {
        return get<V>(pixel, tap);
    }
};

// The pixels that lie alike in the windows that meet them: with a stride of 2 a pixel meets every second row of taps, and
// so does the second next. Its tap i belongs to window (pixel + top - i) / stride, which is whole for these.
struct Alike {
    Geometry g;
    int tap_row, tap_column;  // the first tap that is met
    int row_taps, column_taps;
    int first_row, first_column, rows_of_image, columns_of_image;  // pixels
    int window_row, window_column;                                 // in which the first pixel is met by that tap
    Divisor by_column_taps, by_area, by_columns_of_image;

    __device__ static int every(int count, int first, int stride) {
        return first < count ? (count - first - 1) / stride + 1 : 0;
    }
    __device__ Alike(const Geometry& g, int rows, int columns, int which)
        : g(g), tap_row(which / g.stride_w), tap_column(which % g.stride_w),
          row_taps(every(rows, tap_row, g.stride_h)), column_taps(every(columns, tap_column, g.stride_w)),
          first_row(((tap_row - g.top) % g.stride_h + g.stride_h) % g.stride_h),
          first_column(((tap_column - g.left) % g.stride_w + g.stride_w) % g.stride_w),
          rows_of_image(every(g.height, first_row, g.stride_h)),
          columns_of_image(every(g.width, first_column, g.stride_w)),
          window_row((first_row + g.top - tap_row) / g.stride_h),
          window_column((first_column + g.left - tap_column) / g.stride_w), by_column_taps(max(1, column_taps)),
          by_area(max(1, rows_of_image * columns_of_image)), by_columns_of_image(max(1, columns_of_image)) {}

    __device__ int taps() const { return row_taps * column_taps * g.filters; }
    // The m-th of them: its image, and where it is among those of the image.
    __device__ bool pixel(int m, int& image, int& row, int& column) const {
        if (m >= g.images * rows_of_image * columns_of_image) return false;
        by_area.split(m, image, m);
        by_columns_of_image.split(m, row, column);
        return true;
    }
    __device__ int row(int m) const {
        int image, row, column;
        if (!pixel(m, image, row, column)) return -1;
        return (image * g.height + first_row + g.stride_h * row) * g.width + first_column + g.stride_w * column;
    }
    __device__ Tap tap(int k) const {  // counted from the first that is met
        if (k >= taps()) return {1 << 29, 0, 0};
        int i, j, filter;
        g.by_filters.split(k, k, filter);
        by_column_taps.split(k, i, j);
        return {i, j, filter};
    }
};

// The results that a pixel takes part in, g[n, p, q, o]. A line is a pixel, a step a tap and a filter.
template <class T>
struct Meeting {
    static constexpr bool ALONG_STEPS = true;
    const T* data;
    const Alike& alike;

    __device__ Pixel line(int m) const {
        const Geometry& g = alike.g;
        int image, row, column;
        if (!alike.pixel(m, image, row, column)) return {0, -(1 << 29), 0};
        return {image * g.out_height * g.out_width * g.filters, row + alike.window_row, column + alike.window_column};
    }
    __device__ Tap step(int k) const { return alike.tap(k); }
    template <int V>
    __device__ Vector<T, V> get(const Pixel& pixel, const Tap& tap) const {
        const Geometry& g = alike.g;
        Vector<T, V> loaded = {};
        const int p = pixel.row - tap.row, q = pixel.column - tap.column;
        if ((unsigned)p < (unsigned)g.out_height && (unsigned)q < (unsigned)g.out_width)
            loaded = *(const Vector<T, V>*)(data + pixel.at + (p * g.out_width + q) * g.filters + tap.channel);
        return loaded;
    }
};

// The weights by channel, w[i, j, c, o]: a line is a channel, a step a tap and a filter.
template <class T>
struct Turned {
    static constexpr bool ALONG_STEPS = true;
    const T* data;
    const Alike& alike;
    int columns;

    __device__ int line(int c) const { return c < alike.g.channels ? c * alike.g.filters : -1; }
    __device__ int step(int k) const {
        const Geometry& g = alike.g;
        const Tap tap = alike.tap(k);
        if (tap.row >= alike.row_taps) return -1;
        const int i = alike.tap_row + g.stride_h * tap.row, j = alike.tap_column + g.stride_w * tap.column;
        return (i * columns + j) * g.channels * g.filters + tap.channel;
    }
    template <int V>
    __device__ Vector<T, V> get(int line, int step) const {
        Vector<T, V> loaded = {};
        if (line >= 0 && step >= 0) loaded = *(const Vector<T, V>*)(data + line + step);
        return loaded;
    }
};

// Steps between the entries of neighbouring tasks are 0 where tasks share one. `each` steps of the sum make a part;
// with several parts the result is theirs one behind the other, and c is added later.

template <class E, int V, class T = typename E::T>
__global__ void __launch_bounds__(E::THREADS, E::BLOCKS)
conv2d(const T* x, const T* w, const T* c, T* y, int x_step, int w_step, int c_step, int c_row, int each, int parts, SIZES) {
    const Geometry g = GEOMETRY;
    const int windows = images * out_height * out_width, taps = rows * columns * channels;
    const Place at = Place::of<E>(filters);
    const Patches<T, true> a = {x + (long long)at.task * x_step, g, windows, taps};
    const Matrix<T, false> b = {w + (long long)at.task * w_step, filters, taps, filters};
    multiply<E, V>(a, b, c ? c + (long long)at.task * c_step : c, c_row,
                   y + ((long long)at.task * parts + at.part) * windows * filters,
                   InOrder{windows}, filters, at.row, at.column, at.part * each, min(taps, (at.part + 1) * each));
}

// The pixels that are alike follow each other along the first axis of the grid, `tiles` for each kind.
template <class E, int V, class T = typename E::T>
__global__ void __launch_bounds__(E::THREADS, E::BLOCKS)
conv2d_dx(const T* g, const T* w, const T* c, T* dx, int g_step, int w_step, int c_step, int c_row, int each, int parts,
          int tiles, SIZES) {
    const int pixels = images * height * width;
    const Place at = Place::of<E>(channels);
    const Alike alike(GEOMETRY, rows, columns, (int)blockIdx.x / tiles);
    const Meeting<T> a = {g + (long long)at.task * g_step, alike};
    const Turned<T> b = {w + (long long)at.task * w_step, alike, columns};
    multiply<E, V>(a, b, c ? c + (long long)at.task * c_step : c, c_row,
                   dx + ((long long)at.task * parts + at.part) * pixels * channels, alike, channels,
                   (int)blockIdx.x % tiles * E::ROWS, at.column, at.part * each, min(alike.taps(), (at.part + 1) * each));
}

template <class E, int V, class T = typename E::T>
__global__ void __launch_bounds__(E::THREADS, E::BLOCKS)
conv2d_dw(const T* x, const T* g, const T* c, T* dw, int x_step, int g_step, int c_step, int c_row, int each, int parts, SIZES) {
    const Geometry geometry = GEOMETRY;
    const int windows = images * out_height * out_width, taps = rows * columns * channels;
    const Place at = Place::of<E>(filters);
    const Patches<T, false> a = {x + (long long)at.task * x_step, geometry, windows, taps};
    const Matrix<T, false> b = {g + (long long)at.task * g_step, filters, windows, filters};
    multiply<E, V>(a, b, c ? c + (long long)at.task * c_step : c, c_row,
                   dw + ((long long)at.task * parts + at.part) * taps * filters,
                   InOrder{taps}, filters, at.row, at.column, at.part * each, min(windows, (at.part + 1) * each));
}
