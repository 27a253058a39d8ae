// Reductions over any axes, in an order that is always the same.
#pragma once
#include "block.cuh"

// Lengths and strides, in numbers, of up to four axes; the innermost last.
struct Axes {
    int n1, n2, n3, s0, s1, s2, s3;

    // Where the i-th entry in C order is.
    __device__ long long at(long long i) const {
        long long place = (long long)s3 * (i % n3);
        i /= n3;
        place += (long long)s2 * (i % n2);
        i /= n2;
        return place + (long long)s1 * (i % n1) + (long long)s0 * (i / n1);
    }
};

// y[chunk, k] = the sum of the entries chunk * each ... of what is summed up in result k. LANES threads share a result.
template <class T, int LANES>
__global__ void __launch_bounds__(256)
sum(const T* x, T* y, int results, int entries, int each, int kn1, int kn2, int kn3, int ks0, int ks1, int ks2, int ks3,
    int rn1, int rn2, int rn3, int rs0, int rs1, int rs2, int rs3) {
    __shared__ T parts[256 / 32];
    const Axes kept = {kn1, kn2, kn3, ks0, ks1, ks2, ks3}, summed = {rn1, rn2, rn3, rs0, rs1, rs2, rs3};
    const int k = blockIdx.x * (256 / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int first = blockIdx.y * each, last = min(entries, first + each);
    T total = 0;
    if (k < results) {
        const T* entry = x + kept.at(k);
        for (int i = first + lane; i < last; i += LANES) total += entry[summed.at(i)];
    }
    if (LANES == 32) total = warp_sum(total);
    if (LANES == 256) total = block_sum<256>(total, parts);
    if (k < results && lane == 0) y[(long long)blockIdx.y * results + k] = total;
}

// y[k] = log sum exp of what belongs to result k, the largest taken out first. A warp has a result.
template <class T>
__global__ void __launch_bounds__(256)
logsumexp(const T* x, T* y, int results, int entries, int kn1, int kn2, int kn3, int ks0, int ks1, int ks2, int ks3,
          int rn1, int rn2, int rn3, int rs0, int rs1, int rs2, int rs3) {
    const Axes kept = {kn1, kn2, kn3, ks0, ks1, ks2, ks3}, summed = {rn1, rn2, rn3, rs0, rs1, rs2, rs3};
    const int k = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (k >= results) return;  // the whole warp
    const T* entry = x + kept.at(k);
    T largest = entry[summed.at(0)];
    for (int i = lane; i < entries; i += 32) {
        T value = entry[summed.at(i)];
        largest = value > largest || value != value ? value : largest;
    }
    largest = warp_max(largest);
    if (!isfinite(largest)) largest = 0;  // nothing but -inf, or what is not finite, which shows in the sum
    T total = 0;
    for (int i = lane; i < entries; i += 32) total += exp(entry[summed.at(i)] - largest);
    total = warp_sum(total);
    if (lane == 0) y[k] = log(total) + largest;
}

// The largest of each row and its place, the first one where several are equal; what is not a number is largest.
template <class T>
__global__ void __launch_bounds__(256) max_last(const T* x, T* y, long long* index, int rows, int length) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const T* entry = x + (long long)row * length;
    T largest = entry[0];
    int place = 0;
    for (int i = lane; i < length; i += 32)
        if (entry[i] > largest || (entry[i] != entry[i] && largest == largest)) largest = entry[i], place = i;
    for (int by = 16; by; by >>= 1) {
        T other = __shfl_xor_sync(0xffffffffu, largest, by);
        int where = __shfl_xor_sync(0xffffffffu, place, by);
        const bool nan = largest != largest, other_nan = other != other;
        const bool equal = nan ? other_nan : other == largest;
        if (equal ? where < place : other_nan || (!nan && other > largest)) largest = other, place = where;
    }
    if (lane == 0) y[row] = largest, index[row] = place;
}

// The places of the `count` largest of each row, the largest first: a thread counts what comes before its number.
template <class T>
__global__ void __launch_bounds__(256) top_last(const T* x, long long* index, int length, int count) {
    const T* entry = x + (long long)blockIdx.y * length;
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= length) return;
    const T mine = entry[i];
    const bool nan = mine != mine;
    int before = 0;
    for (int j = 0; j < length; j++) {
        const T other = entry[j];
        const bool other_nan = other != other;
        const bool equal = nan ? other_nan : other == mine;
        before += equal ? j < i : other_nan || (!nan && other > mine);
    }
    if (before < count) index[(long long)blockIdx.y * count + before] = i;
}

// y: the running sums of x[outer, length, inner] along the middle axis, from its other end if `reverse`.
template <class T>
__global__ void __launch_bounds__(256) cumsum(const T* x, T* y, int rows, int length, int inner, int reverse) {
    const int row = blockIdx.x * 256 + threadIdx.x;
    if (row >= rows) return;
    const long long start = (long long)(row / inner) * length * inner + row % inner;
    T total = 0;
    for (int i = 0; i < length; i++) {
        const long long place = start + (long long)(reverse ? length - 1 - i : i) * inner;
        total += x[place];
        y[place] = total;
    }
}
