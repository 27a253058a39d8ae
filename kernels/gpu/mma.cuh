// The matrix units' product of 16 x 8 and 8 x 8 numbers of TF32: a warp's, of which each lane holds a part.
#pragma once

#if defined(CUDA_ON_CPU)  // tests/simulated

inline unsigned to_tf32(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return (bits + 0x1000u) & 0xffffe000u;
}

inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    static thread_local float left[32][16][8], right[32][8][8];
    const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
    auto number = [](unsigned bits) {
        float x;
        memcpy(&x, &bits, 4);
        return x;
    };
    float(&l)[16][8] = left[warp], (&r)[8][8] = right[warp];
    l[group][member] = number(a[0]), l[group + 8][member] = number(a[1]);
    l[group][member + 4] = number(a[2]), l[group + 8][member + 4] = number(a[3]);
    r[member][group] = number(b[0]), r[member + 4][group] = number(b[1]);
    __syncwarp();
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) d[i] += l[group + 8 * (i / 2)][k] * r[k][2 * member + i % 2];
    __syncwarp();
}

#elif __CUDA_ARCH__ >= 800

__device__ inline unsigned to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

__device__ inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else  // older GPUs have no TF32: the host does not ask for it there

__device__ inline unsigned to_tf32(float x) { return __float_as_uint(x); }
__device__ inline void mma_tf32(float (&)[4], const unsigned (&)[4], const unsigned (&)[2]) { __trap(); }

#endif
