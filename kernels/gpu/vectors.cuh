// Neighbouring numbers that a thread reads and writes at once.
#pragma once

template <class T, int V>
struct alignas(V * sizeof(T)) Vector {
    T at[V];

    __device__ T& operator[](int i) { return at[i]; }
    __device__ const T& operator[](int i) const { return at[i]; }
};

template <int BYTES>
struct Bits;
template <> struct Bits<1> { using Type = unsigned char; };
template <> struct Bits<4> { using Type = unsigned; };
template <> struct Bits<8> { using Type = unsigned long long; };
template <> struct Bits<16> { using Type = uint4; };

// A vector as what one instruction loads and stores.
template <class T, int V>
union Word {
    using Raw = typename Bits<V * sizeof(T)>::Type;
    Vector<T, V> vector;
    Raw raw;
};

// From memory that nobody writes meanwhile: such loads may be moved before stores.
template <int V, class T>
__device__ inline Vector<T, V> load(const T* place) {
    Word<T, V> word;
    word.raw = __ldg(reinterpret_cast<const typename Word<T, V>::Raw*>(place));
    return word.vector;
}

template <int V, class T>
__device__ inline void store(T* place, const Vector<T, V>& x) {
    Word<T, V> word;
    word.vector = x;
    *reinterpret_cast<typename Word<T, V>::Raw*>(place) = word.raw;
}

template <int V, class T>
__device__ inline Vector<T, V> filled(T value) {
    Vector<T, V> x;
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = value;
    return x;
}

// Whether it takes a maximum's place: the first of equal ones stays, and what is not a number is the largest.
template <class T>
__device__ inline bool larger(T x, T best) {
    return !(x <= best) & (best == best);
}
