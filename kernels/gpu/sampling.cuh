// Tasks drawn by counter: episodes of labelled images, and sinusoids. See kernels/cpu/sampling.py, whose numbers these
// are.
#pragma once

// Word `index` of a task's stream, by Philox4x32-10; the split is in the upper bits of the block's number.
__device__ inline unsigned word_of(unsigned long long seed, unsigned split, unsigned long long task, unsigned index) {
    unsigned c0 = index / 4 | split << 28, c1 = 0, c2 = (unsigned)task, c3 = (unsigned)(task >> 32);
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return index % 4 == 0 ? c0 : index % 4 == 1 ? c1 : index % 4 == 2 ? c2 : c3;
}

// Where the stream goes on after this call's tasks.
__device__ inline void write_next(const unsigned long long* place, int tasks, unsigned long long* next) {
    next[0] = place[0];
    next[1] = place[1] + tasks;
}

// Numbers below `count`, drawn without replacement, into `drawn`; thread j holds the word of the j-th. The whole block
// works on it: thread i keeps the i-th smallest of the numbers taken so far in `taken`, and a rank among those left
// becomes a number by stepping over each smaller one that is taken.
__device__ inline void draw_distinct(unsigned word, int count, int numbers, unsigned* words, int* taken, int* drawn) {
    int i = threadIdx.x;
    words[i] = word;
    for (int j = 0; j < numbers; j++) {
        __syncthreads();
        int mine = i < j ? taken[i] : 0, before = 0 < i && i <= j ? taken[i - 1] : 0;
        int rank = (int)__umulhi(words[j], (unsigned)(count - j));
        int smaller = __syncthreads_count(i < j && mine - i <= rank);  // mine - i numbers are left below `mine`
        int number = rank + smaller;
        if (i <= j) taken[i] = i < smaller ? mine : i == smaller ? number : before;
        if (i == 0) drawn[j] = number;
    }
    __syncthreads();
}

// A block has a way of a task, and of its images (support set first) `images_each`, or a tile of one; it draws for
// itself what it needs to know. At most THREADS ways, and images a way.
template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS)
episodes(const unsigned char* images, const long long* first, const unsigned long long* place, T* support,
         long long* support_labels, T* query, long long* query_labels, unsigned long long* next, int split, int classes,
         int shots, int queries, int rotations, int height, int width, int channels, int images_each, int tiles,
         int tile_size) {
    __shared__ unsigned words[THREADS];
    __shared__ int taken[THREADS], drawn[THREADS];
    int way = blockIdx.y, ways = gridDim.y, t = blockIdx.z, i = threadIdx.x;
    unsigned long long seed = place[0], task = place[1] + t;
    if (blockIdx.x == 0 && way == 0 && t == 0 && i == 0) write_next(place, gridDim.z, next);

    draw_distinct(i <= way ? word_of(seed, split, task, i) : 0, classes, way + 1, words, taken, drawn);
    long long begin = first[drawn[way]];
    int count = (int)(first[drawn[way] + 1] - begin);
    unsigned quarter = rotations ? word_of(seed, split, task, ways + way) >> 30 : 0;
    __syncthreads();  // the class is read: its place is for the images now
    int from = blockIdx.x / tiles * images_each, to = min(from + images_each, shots + queries);
    draw_distinct(i < to ? word_of(seed, split, task, ways * (2 + i) + way) : 0, count, to, words, taken, drawn);

    unsigned line = width * channels, size = height * line;
    unsigned low = blockIdx.x % tiles * tile_size, high = min(low + tile_size, size);
    for (int j = from; j < to; j++) {
        const unsigned char* image = images + (begin + drawn[j]) * size;
        bool asked = j >= shots;
        long long at = asked ? ((long long)t * ways + way) * queries + j - shots
                             : ((long long)t * ways + way) * shots + j;
        T* out = (asked ? query : support) + at * size;
        for (unsigned p = low + i; p < high; p += THREADS) {
            unsigned source = p;
            if (quarter) {
                unsigned h = p / line, w = p % line / channels, c = p % channels;
                unsigned row = quarter == 1 ? w : quarter == 2 ? height - 1 - h : width - 1 - w;
                unsigned column = quarter == 1 ? height - 1 - h : quarter == 2 ? width - 1 - w : h;
                source = row * line + column * channels + c;
            }
            out[p] = (T)((float)image[source] / 255.0f);
        }
        if (low == 0 && i == 0) (asked ? query_labels : support_labels)[at] = way;
    }
}

// A number in [0, 1): 24 bits of a word, or 53 of two.
__device__ inline void fraction_of(unsigned long long seed, int split, unsigned long long task, int index, float& u) {
    u = (float)(word_of(seed, split, task, index) >> 8) * 5.9604644775390625e-8f;
}
__device__ inline void fraction_of(unsigned long long seed, int split, unsigned long long task, int index, double& u) {
    unsigned long long high = word_of(seed, split, task, 2 * index), low = word_of(seed, split, task, 2 * index + 1);
    u = (double)(high << 21 | low >> 11) * 1.1102230246251565e-16;
}

// low + range u, with the product rounded as NumPy rounds it.
__device__ inline float spread(float low, float range, float u) { return __fadd_rn(low, __fmul_rn(range, u)); }
__device__ inline double spread(double low, double range, double u) { return __dadd_rn(low, __dmul_rn(range, u)); }

// A thread has a point of a task. The first `points0` points are of part 0, the others of part 1; `columns` is 1, or 3
// where amplitude and phase stand beside x.
template <class T>
__global__ void sinusoids(const unsigned long long* place, T* x0, T* y0, T* x1, T* y1, unsigned long long* next,
                          int split, int tasks, int points0, int points1, int columns, T amplitude_low,
                          T amplitude_range, T phase_low, T phase_range, T x_low, T x_range) {
    int points = points0 + points1, at = blockIdx.x * blockDim.x + threadIdx.x, t = at / points, n = at % points;
    if (at == 0) write_next(place, tasks, next);
    if (t >= tasks) return;
    unsigned long long seed = place[0], task = place[1] + t;
    T a, p, x;
    fraction_of(seed, split, task, 0, a);
    fraction_of(seed, split, task, 1, p);
    fraction_of(seed, split, task, 2 + n, x);
    a = spread(amplitude_low, amplitude_range, a);
    p = spread(phase_low, phase_range, p);
    x = spread(x_low, x_range, x);
    bool later = n >= points0;
    long long row = later ? (long long)t * points1 + n - points0 : (long long)t * points0 + n;
    T* inputs = (later ? x1 : x0) + row * columns;
    inputs[0] = x;
    if (columns == 3) inputs[1] = a, inputs[2] = p;
    (later ? y1 : y0)[row] = a * sin(x - p);
}
