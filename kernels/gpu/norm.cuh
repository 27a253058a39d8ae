// Batch normalisation of tasks' rows [M, C] and its derivatives: sums over each channel, then number by number. Where
// maxima are pooled the items are cells of 2 x 2 pixels, otherwise rows.
//
// The first pass adds up the chunks of a task; every block of the second adds those partial sums, all in one order,
// and goes over its chunk once more. A task of one chunk has both passes in one launch.
#pragma once
#include "rows.cuh"

constexpr int ADDS = 1, APPLIES = 2;  // the bits of `passes`
constexpr int OF_X = 1, OF_GAMMA = 2, OF_BETA = 4, OF_G = 8;  // the bits of `given`, by whose tangents are there

// y = (x - mean) gain + shift, as all kernels compute it: the derivatives' gate is open where this is above 0.
template <class T>
__device__ inline T affine(T centred, T gain, T shift) {
    return fma(centred, gain, shift);
}

// The value. A part of a channel is known by its count, its mean and the squares' sum about its mean. Parts are joined
// about the mean of the first of them: so nothing large cancels, and the mean of equal numbers is that number.
template <class T, int V>
struct Moments {
    Vector<T, V> of[3];  // count, mean, squares

    // What joined parts have: the sums of count, count (mean - middle), and squares about the middle.
    __device__ void from_sums(const Vector<T, V> (&sums)[3], const Vector<T, V>& middle) {
#pragma unroll
        for (int j = 0; j < V; j++) {
            T off = sums[0][j] > 0 ? sums[1][j] / sums[0][j] : 0;
            of[0][j] = sums[0][j], of[1][j] = middle[j] + off, of[2][j] = sums[2][j] - off * sums[1][j];
        }
    }

    __device__ void add_to(Vector<T, V> (&sums)[3], const Vector<T, V>& middle) const {
#pragma unroll
        for (int j = 0; j < V; j++) {
            T off = of[1][j] - middle[j], moved = of[0][j] * off;
            sums[0][j] += of[0][j], sums[1][j] += moved, sums[2][j] += of[2][j] + moved * off;
        }
    }
};

// Those of a thread's items, of which the middle is the first.
template <class T, int V, bool POOLS>
__device__ inline Moments<T, V> moments_of(const T* x, const Share<V>& share, const Work& work) {
    Vector<T, V> middle = {}, sums[3] = {};
    if (share.items) middle = load<V>(x + Cell<POOLS>(share.first, work).pixel[0]);
    int count = 0;
#pragma unroll(POOLS ? 1 : 4)
    for (int n = 0; n < share.items; n++) {
        Cell<POOLS> cell(share.first + n * share.rows, work);
        Vector<T, V> here[cell.PIXELS];
#pragma unroll
        for (int k = 0; k < cell.PIXELS; k++) here[k] = load<V>(x + cell.pixel[k]);
#pragma unroll
        for (int k = 0; k < cell.PIXELS; k++) {
            count += cell.inside[k];
#pragma unroll
            for (int j = 0; j < V; j++) {
                T off = cell.inside[k] ? here[k][j] - middle[j] : 0;
                sums[1][j] += off, sums[2][j] = fma(off, off, sums[2][j]);
            }
        }
    }
    sums[0] = filled<V>((T)count);
    Moments<T, V> moments;
    moments.from_sums(sums, middle);
    return moments;
}

// y, or the maxima and their `places`; no y is less than `lowest`.
template <class T, int V, bool POOLS>
__global__ void __launch_bounds__(THREADS, 4)
batch_norm(const T* __restrict__ x, int x_step, const T* __restrict__ gamma, int gamma_step, const T* __restrict__ beta,
           int beta_step, T eps, T lowest, T* __restrict__ y, signed char* __restrict__ places, int y_step,
           T* __restrict__ mean, T* __restrict__ rstd, T* __restrict__ partials, int chunks, int passes, int height,
           int width, int channels, int items, int each, int lanes) {
    Work work{height, width, channels, items, each, lanes};
    Share<V> share(work);
    Parts<T, V, 3> parts(partials, chunks, share, work);
    long long task = blockIdx.x;
    x += task * x_step + share.channel;

    Vector<T, V> sums[3] = {}, middle;
    if (passes & ADDS) {
        __shared__ Vector<T, V> of_first_row[GROUP / V];
        Moments<T, V> moments = moments_of<T, V, POOLS>(x, share, work);
        if (share.row == 0) of_first_row[share.lane] = moments.of[1];
        __syncthreads();
        middle = of_first_row[share.lane];
        if (share.items) moments.add_to(sums, middle);
    } else {
        middle = parts.load(0, 1);
        for (int i = share.row; i < (share.idle ? 0 : chunks); i += share.rows) {
            Moments<T, V> part{{parts.load(i, 0), parts.load(i, 1), parts.load(i, 2)}};
            part.add_to(sums, middle);
        }
    }
    add_rows(sums, share, lanes);
    Moments<T, V> all;
    all.from_sums(sums, middle);
    bool writes = share.row == 0 && !share.idle;
    if (!(passes & APPLIES)) {
        if (writes) parts.store(all.of);
        return;
    }

    Vector<T, V> root, gain = load<V>(gamma + task * gamma_step + share.channel);
    Vector<T, V> shift = load<V>(beta + task * beta_step + share.channel);
#pragma unroll
    for (int j = 0; j < V; j++) {
        T variance = all.of[2][j] / all.of[0][j];
        root[j] = 1 / sqrt((variance < 0 ? 0 : variance) + eps);  // what is not a number stays
        gain[j] *= root[j];
    }
    if (blockIdx.y == 0 && writes) {
        store<V>(mean + task * channels + share.channel, all.of[1]);
        store<V>(rstd + task * channels + share.channel, root);
    }
    y += task * y_step + share.channel, places += task * y_step + share.channel;
#pragma unroll(POOLS ? 1 : 4)
    for (int n = 0; n < share.items; n++) {
        Cell<POOLS> cell(share.first + n * share.rows, work);
        Vector<T, V> here[cell.PIXELS], best;
        Vector<signed char, V> at = {};
#pragma unroll
        for (int k = 0; k < cell.PIXELS; k++) here[k] = load<V>(x + cell.pixel[k]);
#pragma unroll
        for (int k = 0; k < cell.PIXELS; k++)
#pragma unroll
            for (int j = 0; j < V; j++) {
                T z = affine(here[k][j] - all.of[1][j], gain[j], shift[j]);
                z = z <= lowest ? lowest : z;  // what is not a number stays
                bool better = k == 0 || larger(z, best[j]);
                best[j] = better ? z : best[j], at[j] = better ? k : at[j];
            }
        if (cell.full) {
            store<V>(y + cell.window, best);
            if (POOLS) store<V>(places + cell.window, at);
        }
    }
}

// The derivatives. Each is, number by number, by_x centred + rest + by_g (g - its mean) + by_v (v - its mean) + by_vg
// (vg - its mean), with factors that follow from sums over the channel; g and vg are 0 where the gate is closed, and so
// is a tangent.
enum Kind { TANGENT, GRADIENT, HESSIAN };

__device__ constexpr bool has_g(Kind kind) { return kind != TANGENT; }
__device__ constexpr bool has_v(Kind kind) { return kind != GRADIENT; }
__device__ constexpr bool has_vg(Kind kind) { return kind == HESSIAN; }

// A task's operands, from a thread's channels on, with the gate.
template <class T, int V, Kind KIND, bool POOLS>
struct Operands {
    const T *x, *v, *g, *vg;
    const signed char* places;
    Vector<T, V> mean, gain, shift;
    bool rectified;  // without a ReLU the gate is always open

    // Calls what(k, j, centred, open, v, g, vg) for every channel j of every pixel k of an item; open only where a
    // maximum is, if there are maxima.
    template <class What>
    __device__ inline Cell<POOLS> read(int item, const Work& work, What what) const {
        constexpr int PIXELS = Cell<POOLS>::PIXELS;
        Cell<POOLS> cell(item, work);
        Vector<T, V> xs[PIXELS], vs[PIXELS], gs, vgs;
        Vector<signed char, V> at;
#pragma unroll
        for (int k = 0; k < PIXELS; k++) {
            xs[k] = load<V>(x + cell.pixel[k]);
            if (has_v(KIND)) vs[k] = load<V>(v + cell.pixel[k]);
        }
        if (has_g(KIND)) gs = load<V>(g + cell.window);
        if (has_vg(KIND)) vgs = load<V>(vg + cell.window);
        if (POOLS) at = cell.full ? load<V>(places + cell.window) : filled<V>((signed char)-1);
#pragma unroll
        for (int k = 0; k < PIXELS; k++)
#pragma unroll
            for (int j = 0; j < V; j++) {
                T centred = xs[k][j] - mean[j];
                bool open = !rectified | (affine(centred, gain[j], shift[j]) > 0);
                if (POOLS) open = open & (at[j] == k);
                what(k, j, centred, open, has_v(KIND) && cell.inside[k] ? vs[k][j] : 0,
                     has_g(KIND) && open ? gs[j] : 0, has_vg(KIND) && open ? vgs[j] : 0);
            }
        return cell;
    }
};

template <class T, int V, Kind KIND, bool POOLS>
__global__ void __launch_bounds__(THREADS, 2)
derivative(const T* __restrict__ x, int x_step, const T* __restrict__ v, int v_step, const T* __restrict__ g,
           int g_step, const T* __restrict__ vg, int vg_step, const signed char* __restrict__ places, int places_step,
           const T* __restrict__ gamma, int gamma_step, const T* __restrict__ beta, int beta_step,
           const T* __restrict__ mean, int mean_step, const T* __restrict__ rstd, int rstd_step,
           const T* __restrict__ vgamma, int vgamma_step, const T* __restrict__ vbeta, int vbeta_step, int given,
           int rectified, int count, T* __restrict__ out, int out_step, T* __restrict__ by_gamma,
           T* __restrict__ by_beta, T* __restrict__ partials, int chunks, int passes, int height, int width,
           int channels, int items, int each, int lanes) {
    constexpr bool HAS_G = has_g(KIND), HAS_V = has_v(KIND), HAS_VG = has_vg(KIND);
    // Which sums are where: of g and centred g, v and centred v, g v, vg and centred vg.
    constexpr int SUMS = HAS_VG ? 7 : 2, G = 0, V_ = HAS_G ? 2 : 0, GV = 4, VG = 5;
    constexpr int PIXELS = Cell<POOLS>::PIXELS;

    Work work{height, width, channels, items, each, lanes};
    Share<V> share(work);
    Parts<T, V, SUMS> parts(partials, chunks, share, work);
    long long task = blockIdx.x;
    Operands<T, V, KIND, POOLS> operands;
    operands.x = x + task * x_step + share.channel, operands.v = v + task * v_step + share.channel;
    operands.g = g + task * g_step + share.channel, operands.vg = vg + task * vg_step + share.channel;
    operands.places = places + task * places_step + share.channel;
    operands.mean = load<V>(mean + task * mean_step + share.channel);
    Vector<T, V> root = load<V>(rstd + task * rstd_step + share.channel);
    Vector<T, V> gain = load<V>(gamma + task * gamma_step + share.channel);
#pragma unroll
    for (int j = 0; j < V; j++) gain[j] *= root[j];
    operands.gain = gain, operands.shift = load<V>(beta + task * beta_step + share.channel);
    operands.rectified = rectified;

    Vector<T, V> sums[SUMS] = {};
    if (passes & ADDS) {
#pragma unroll(POOLS ? 1 : 2)
        for (int n = 0; n < share.items; n++)
            operands.read(share.first + n * share.rows, work, [&](int, int j, T centred, bool, T v, T g, T vg) {
                if (HAS_G) sums[G][j] += g, sums[G + 1][j] = fma(centred, g, sums[G + 1][j]);
                if (HAS_V) sums[V_][j] += v, sums[V_ + 1][j] = fma(centred, v, sums[V_ + 1][j]);
                if constexpr (HAS_VG) {
                    sums[GV][j] = fma(g, v, sums[GV][j]);
                    sums[VG][j] += vg, sums[VG + 1][j] = fma(centred, vg, sums[VG + 1][j]);
                }
            });
    } else {
        for (int i = share.row; i < (share.idle ? 0 : chunks); i += share.rows)
#pragma unroll
            for (int s = 0; s < SUMS; s++) {
                Vector<T, V> part = parts.load(i, s);
#pragma unroll
                for (int j = 0; j < V; j++) sums[s][j] += part[j];
            }
    }
    add_rows(sums, share, lanes);
    bool writes = share.row == 0 && !share.idle;
    if (!(passes & APPLIES)) {
        if (writes) parts.store(sums);
        return;
    }

    Vector<T, V> by_g, by_v, by_vg, by_x, rest = {}, vgammas = {}, to_gamma, to_beta;
    Vector<T, V> g_mean = {}, v_mean = {}, vg_mean = {};
    if (given & OF_GAMMA) vgammas = load<V>(vgamma + task * vgamma_step + share.channel);
    if (KIND == TANGENT && given & OF_BETA) rest = load<V>(vbeta + task * vbeta_step + share.channel);
    T per = 1 / (T)count;
#pragma unroll
    for (int j = 0; j < V; j++) {
        // Beside the means of g, v and vg those of each times the normalised x, its slope.
        T slope = per * root[j], g_slope = 0, v_slope = 0, vg_slope = 0;
        if (HAS_G) g_mean[j] = per * sums[G][j], g_slope = slope * sums[G + 1][j];
        if (HAS_V && given & OF_X) v_mean[j] = per * sums[V_][j], v_slope = slope * sums[V_ + 1][j];
        if (HAS_VG && given & OF_G) vg_mean[j] = per * sums[VG][j], vg_slope = slope * sums[VG + 1][j];
        by_g[j] = by_v[j] = by_vg[j] = 0;
        T by_normal = 0;  // besides what takes the slopes out
        if constexpr (KIND == TANGENT) {
            if (given & OF_X) by_v[j] = gain[j];
            by_normal = vgammas[j];
        } else if constexpr (KIND == GRADIENT) {
            by_g[j] = gain[j];
            to_gamma[j] = root[j] * sums[G + 1][j], to_beta[j] = sums[G][j];
        } else {
            // The mean of g times what the normalised x moves by; and 1/std moves by -rstd^2 v_slope.
            T along = given & OF_X ? root[j] * (per * sums[GV][j] - v_mean[j] * g_mean[j] - v_slope * g_slope) : 0;
            by_g[j] = root[j] * (vgammas[j] - gain[j] * v_slope);
            if (given & OF_X) by_v[j] = -gain[j] * root[j] * g_slope;
            if (given & OF_G) by_vg[j] = gain[j];
            by_normal = -gain[j] * along;
            to_gamma[j] = (T)count * (along + vg_slope), to_beta[j] = given & OF_G ? sums[VG][j] : 0;
        }
        by_x[j] = root[j] * (by_normal - by_g[j] * g_slope - by_v[j] * v_slope - by_vg[j] * vg_slope);
    }
    if (HAS_G && blockIdx.y == 0 && writes) {
        store<V>(by_gamma + task * channels + share.channel, to_gamma);
        store<V>(by_beta + task * channels + share.channel, to_beta);
    }

    out += task * out_step + share.channel;
#pragma unroll(POOLS ? 1 : 2)
    for (int n = 0; n < share.items; n++) {
        Vector<T, V> totals[PIXELS], at_window = {};
        int item = share.first + n * share.rows;
        auto cell = operands.read(item, work, [&](int k, int j, T centred, bool open, T v, T g, T vg) {
            T total = fma(by_x[j], centred, rest[j]);
            if (HAS_G) total = fma(by_g[j], g - g_mean[j], total);
            if (HAS_V) total = fma(by_v[j], v - v_mean[j], total);
            if (HAS_VG) total = fma(by_vg[j], vg - vg_mean[j], total);
            totals[k][j] = total;
            if (KIND == TANGENT && open) at_window[j] = total;
        });
        if (KIND == TANGENT) {
            if (cell.full) store<V>(out + cell.window, at_window);
        } else {
#pragma unroll
            for (int k = 0; k < PIXELS; k++)
                if (cell.inside[k]) store<V>(out + cell.pixel[k], totals[k]);
        }
    }
}
