// Products of matrices for all tasks at once, C = A B, by tiles in shared memory. What A and B are, matrices, patches of
// images or transposed ones, is the business of the operands; how a tile is multiplied, that of the engines.
#pragma once
#include "mma.cuh"

// Division of numbers below 2^31 by one that is not known when the kernel is compiled: (umulhi(n, m) + n) >> s.
struct Divisor {
    unsigned by, multiplier, shift;

    // `packed` has m above s, which has six bits; see products.py.
    __device__ Divisor(int by, long long packed) : by(by), multiplier(packed >> 6), shift(packed & 63) {}
    // The same from the divisor alone, by a division of 64 bits: for what only a block knows.
    __device__ explicit Divisor(int by) : by(by), shift(by > 1 ? 32 - __clz(by - 1) : 0) {
        multiplier = (((1ull << shift) - by) << 32) / by + 1;
    }
    __device__ void split(int n, int& quotient, int& rest) const {
        quotient = (int)((__umulhi(multiplier, (unsigned)n) + (unsigned)n) >> shift);
        rest = n - quotient * (int)by;
    }
};

template <class T, int V>
struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Vector {
    T at[V];
};

// Operands. `line` is a row of A or a column of B, `step` a place along the sum; both are decoded separately, and
// `get` combines them. What lies outside is 0. A task's operand has fewer than 2^31 numbers. ALONG_STEPS: neighbours in memory lie along the sum (else along lines).

template <class T, bool ALONG_STEPS_>
struct Matrix {
    static constexpr bool ALONG_STEPS = ALONG_STEPS_;
    const T* data;
    int lines, steps, leading;

    __device__ int line(int i) const { return i >= lines ? -1 : ALONG_STEPS ? i * leading : i; }
    __device__ int step(int k) const { return k >= steps ? -1 : ALONG_STEPS ? k : k * leading; }
    template <int V>
    __device__ Vector<T, V> get(int line, int step) const {
        Vector<T, V> loaded = {};
        if (line >= 0 && step >= 0) loaded = *(const Vector<T, V>*)(data + line + step);
        return loaded;
    }
};

// Engines: a block's tile of C, ROWS x COLUMNS, kept in registers. `add` takes tiles of A and B, DEPTH steps deep, as they
// lie in shared memory; `each` visits the sums: (row, column, numbers that lie side by side).

template <class T_, int ROWS_, int COLUMNS_, int DEPTH_, int DOWN, int ACROSS>
struct Simt {
    using T = T_;
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, DEPTH = DEPTH_, WIDE = COLUMNS / ACROSS;
    static constexpr int THREADS = ROWS / DOWN * WIDE, PADDING = 16 / sizeof(T);
    static constexpr int BLOCKS = 512 / THREADS;  // that share a multiprocessor, at least
    using Tile_A = T[DEPTH][ROWS + PADDING];
    using Tile_B = T[DEPTH][COLUMNS + PADDING];
    T sums[DOWN][ACROSS] = {};

    static __device__ T stored(T x) { return x; }
    __device__ void add(const Tile_A& a, const Tile_B& b) {
        const int row = threadIdx.x / WIDE * DOWN, column = threadIdx.x % WIDE * ACROSS;
        #pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            const Vector<T, DOWN> down = *(const Vector<T, DOWN>*)&a[k][row];
            const Vector<T, ACROSS> across = *(const Vector<T, ACROSS>*)&b[k][column];
            #pragma unroll
            for (int i = 0; i < DOWN; i++)
                #pragma unroll
                for (int j = 0; j < ACROSS; j++) sums[i][j] += down.at[i] * across.at[j];
        }
    }
    template <class F>
    __device__ void each(F put) const {
        const int row = threadIdx.x / WIDE * DOWN, column = threadIdx.x % WIDE * ACROSS;
        #pragma unroll
        for (int i = 0; i < DOWN; i++) put(row + i, column, *(const Vector<T, ACROSS>*)sums[i]);
    }
};

// On the matrix units: four warps side by side or in a square, each with 32 x 32 of the tile.
template <int ROWS_, int COLUMNS_, int DEPTH_>
struct Tensor {
    using T = float;
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, DEPTH = DEPTH_, WIDE = COLUMNS / 32;
    static constexpr int THREADS = ROWS / 32 * WIDE * 32;
    static constexpr int BLOCKS = 384 / THREADS;
    using Tile_A = unsigned[DEPTH][ROWS + 8];  // 8: the lanes of a warp then meet all banks
    using Tile_B = unsigned[DEPTH][COLUMNS + 8];
    float sums[2][4][4] = {};

    static __device__ unsigned stored(float x) { return to_tf32(x); }
    __device__ void add(const Tile_A& a, const Tile_B& b) {
        const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
        const int row = warp / WIDE * 32 + group, column = warp % WIDE * 32 + group;
        #pragma unroll
        for (int k = member; k < DEPTH; k += 8) {
            unsigned left[2][4], right[4][2];
            #pragma unroll
            for (int i = 0; i < 2; i++) {
                left[i][0] = a[k][row + 16 * i], left[i][1] = a[k][row + 16 * i + 8];
                left[i][2] = a[k + 4][row + 16 * i], left[i][3] = a[k + 4][row + 16 * i + 8];
            }
            #pragma unroll
            for (int j = 0; j < 4; j++) right[j][0] = b[k][column + 8 * j], right[j][1] = b[k + 4][column + 8 * j];
            #pragma unroll
            for (int i = 0; i < 2; i++)
                #pragma unroll
                for (int j = 0; j < 4; j++) mma_tf32(sums[i][j], left[i], right[j]);
        }
    }
    template <class F>
    __device__ void each(F put) const {
        const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
        #pragma unroll
        for (int i = 0; i < 2; i++)
            #pragma unroll
            for (int j = 0; j < 4; j++)
                #pragma unroll
                for (int half = 0; half < 2; half++)
                    put(warp / WIDE * 32 + 16 * i + 8 * half + group, warp % WIDE * 32 + 8 * j + 2 * member,
                        Vector<float, 2>{sums[i][j][2 * half], sums[i][j][2 * half + 1]});
    }
};

// A thread's share of a tile of an operand: it fetches vectors of V numbers into registers, and stores them as the
// engine wants them, DEPTH x LINES.
template <class E, int LINES, int V, class Operand>
struct Share {
    using T = typename E::T;
    static constexpr bool DEEP = Operand::ALONG_STEPS;
    static constexpr int IN_ROW = (DEEP ? E::DEPTH : LINES) / V, COUNT = E::DEPTH * LINES / V;
    static constexpr int EACH = (COUNT + E::THREADS - 1) / E::THREADS;
    static constexpr bool KEPT = V > 1;  // where the lines lie; single numbers are too many to keep it of each
    using Line = decltype(((Operand*)0)->line(0));
    const Operand& from;
    const int first_line;
    Line lines[KEPT ? EACH : 1];
    Vector<T, V> held[EACH];

    static __device__ bool mine(int r) { return COUNT % E::THREADS == 0 || (int)threadIdx.x + r * E::THREADS < COUNT; }
    static __device__ int line(int r) {
        const int e = threadIdx.x + r * E::THREADS;
        return DEEP ? e / IN_ROW : e % IN_ROW * V;
    }
    static __device__ int step(int r) {
        const int e = threadIdx.x + r * E::THREADS;
        return DEEP ? e % IN_ROW * V : e / IN_ROW;
    }
    __device__ Share(const Operand& from, int first_line) : from(from), first_line(first_line) {
        #pragma unroll
        for (int r = 0; KEPT && r < EACH; r++) lines[r] = from.line(first_line + line(r));
    }
    __device__ void fetch(int first_step, int end) {
        #pragma unroll
        for (int r = 0; r < EACH; r++) {
            const int k = first_step + step(r);
            held[r] = {};
            if (mine(r) && k < end)
                held[r] = from.template get<V>(KEPT ? lines[r] : from.line(first_line + line(r)), from.step(k));
        }
    }
    template <class Tile>
    __device__ void store(Tile& tile) const {
        #pragma unroll
        for (int r = 0; r < EACH; r++)
            if (mine(r))
                #pragma unroll
                for (int v = 0; v < V; v++)
                    tile[step(r) + (DEEP ? v : 0)][line(r) + (DEEP ? 0 : v)] = E::stored(held[r].at[v]);
    }
};

// Which row of C a row of A is: -1 if it is none.
struct InOrder {
    int rows;

    __device__ int row(int m) const { return m < rows ? m : -1; }
};

// Where a tile of C + c goes. COUNT numbers that lie side by side are written at once if they can be.
template <class T, int V, class Rows>
struct Result {
    const T* c;
    int c_row;
    T* out;
    Rows rows;
    int columns, first_row, first_column;

    template <int COUNT>
    __device__ void operator()(int i, int j, Vector<T, COUNT> numbers) const {
        const int m = rows.row(first_row + i), n = first_column + j;
        if (m < 0) return;
        const long long at = (long long)m * columns + n, of_c = (long long)m * c_row + n;
        #pragma unroll
        for (int v = 0; v < COUNT; v++)
            if (c && n + v < columns) numbers.at[v] += c[of_c + v];
        if constexpr (V % COUNT == 0) {  // columns is a multiple of V: all of them are inside, and aligned
            if (n < columns) *(Vector<T, COUNT>*)(out + at) = numbers;
        } else {
            #pragma unroll
            for (int v = 0; v < COUNT; v++)
                if (n + v < columns) out[at + v] = numbers.at[v];
        }
    }
};

// The block's tile of C = A B + c, whose rows of `columns` numbers are at `out`. Of c, which may be null, the next row
// lies c_row numbers further. The sum runs from `first` to `end`, both multiples of V.
template <class E, int V, class A, class B, class Rows>
__device__ void multiply(const A& a, const B& b, const typename E::T* c, int c_row, typename E::T* out, const Rows& rows,
                         int columns, int row, int column, int first, int end) {
    using T = typename E::T;
    __shared__ __align__(16) typename E::Tile_A a_tiles[2];
    __shared__ __align__(16) typename E::Tile_B b_tiles[2];
    E engine;
    Share<E, E::ROWS, V, A> a_share(a, row);
    Share<E, E::COLUMNS, V, B> b_share(b, column);
    a_share.fetch(first, end);
    b_share.fetch(first, end);
    a_share.store(a_tiles[0]);
    b_share.store(b_tiles[0]);
    __syncthreads();
    int now = 0;
    for (int k = first; k < end; k += E::DEPTH) {
        const bool more = k + E::DEPTH < end;
        if (more) {  // on their way while this tile is multiplied
            a_share.fetch(k + E::DEPTH, end);
            b_share.fetch(k + E::DEPTH, end);
        }
        engine.add(a_tiles[now], b_tiles[now]);
        now ^= 1;
        if (more) {
            a_share.store(a_tiles[now]);
            b_share.store(b_tiles[now]);
        }
        __syncthreads();
    }
    engine.each(Result<T, V, Rows>{c, c_row, out, rows, columns, row, column});
}

// out[t] = the sum of parts[t, s] over s, in order, + c[t].
template <class T>
__global__ void __launch_bounds__(256)
add_parts(const T* parts, const T* c, T* out, int parts_of_task, int count, int columns, int c_step, int c_row) {
    const int i = blockIdx.x * 256 + threadIdx.x, t = blockIdx.y;
    if (i >= count) return;
    const T* mine = parts + (long long)t * parts_of_task * count + i;
    T total = mine[0];
    for (int s = 1; s < parts_of_task; s++) total += mine[(long long)s * count];
    if (c) total += c[(long long)t * c_step + (long long)(i / columns) * c_row + i % columns];
    out[(long long)t * count + i] = total;
}

// Which tile of which part of the sum of which task a block has: columns and parts share the second axis of the grid.
struct Place {
    int task, row, column, part;

    template <class E>
    static __device__ Place of(int columns) {
        const int across = (columns + E::COLUMNS - 1) / E::COLUMNS;
        return {(int)blockIdx.z, (int)blockIdx.x * E::ROWS, (int)blockIdx.y % across * E::COLUMNS, (int)blockIdx.y / across};
    }
};
