// CUDA C++ on the CPU, for tests: each thread of a block is a fiber, barriers and shuffles are real, blocks run side by
// side. It aborts where threads of a block or a warp diverge at a barrier, and can run lanes in reverse, so that a
// missing barrier gives another result.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define CUDA_ON_CPU 1
#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct __align__(16) float4 { float x, y, z, w; };
struct __align__(8) float2 { float x, y; };
struct __align__(16) double2 { double x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace sim {

enum Wait { NONE, BLOCK, WARP };

struct Fiber {
    ucontext_t context;
    jmp_buf here;
    bool started = false, done = false;
    dim3 index;
    std::vector<char> stack;
    int wait = NONE;
};

inline thread_local std::vector<Fiber>* fibers;
inline thread_local int current;
inline thread_local jmp_buf hub;
inline thread_local ucontext_t hub_context;
inline thread_local uint64_t exchange[1024];
inline thread_local int votes[1024];
inline thread_local const std::function<void()>* body;
inline thread_local bool reversed;

inline void entry() {
    (*body)();
    (*fibers)[current].done = true;
    _longjmp(hub, 1);
}

inline void wait(Wait why) {
    Fiber& fiber = (*fibers)[current];
    fiber.wait = why;
    if (!_setjmp(fiber.here)) _longjmp(hub, 1);
}

inline void resume(int i) {
    Fiber& fiber = (*fibers)[i];
    current = i;
    threadIdx = fiber.index;
    fiber.wait = NONE;
    if (!_setjmp(hub)) {
        if (fiber.started) _longjmp(fiber.here, 1);
        fiber.started = true;
        swapcontext(&hub_context, &fiber.context);
    }
}

[[noreturn]] inline void fail(const char* what) {
    fprintf(stderr, "cuda_on_cpu: %s in block (%u, %u, %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z);
    abort();
}

inline void run_warp(int first, int last) {
    auto& all = *fibers;
    for (;;) {
        bool ran = false;
        for (int i = first; i < last; i++) {
            int lane = reversed ? first + last - 1 - i : i;
            if (!all[lane].done && all[lane].wait != BLOCK) {
                resume(lane);
                ran = true;
            }
        }
        if (!ran) return;
        int waiting = 0;
        for (int i = first; i < last; i++) waiting += !all[i].done && all[i].wait == WARP;
        if (waiting && waiting != last - first) fail("a warp diverges at a warp's barrier");
    }
}

inline void run_block(dim3 size) {
    auto& all = *fibers;
    int n = size.x * size.y * size.z;
    for (int i = 0; i < n; i++) {
        Fiber& fiber = all[i];
        fiber.started = fiber.done = false;
        fiber.wait = NONE;
        fiber.index = dim3(i % size.x, i / size.x % size.y, i / (size.x * size.y));
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, entry, 0);
    }
    int warps = (n + 31) / 32;
    for (;;) {
        for (int k = 0; k < warps; k++) {
            int first = 32 * (reversed ? warps - 1 - k : k);
            run_warp(first, first + 32 < n ? first + 32 : n);
        }
        int done = 0;
        for (int i = 0; i < n; i++) done += all[i].done;
        if (done == n) return;
        if (done) fail("a block diverges at __syncthreads");
        for (int i = 0; i < n; i++) all[i].wait = NONE;
    }
}

inline void run_grid(dim3 grid, dim3 size, bool backwards, const std::function<void()>& what) {
    std::atomic<long> next{0};
    long total = (long)grid.x * grid.y * grid.z;
    auto work = [&] {
        std::vector<Fiber> own(size.x * size.y * size.z);
        for (auto& fiber : own) fiber.stack.resize(64 << 10);
        fibers = &own, body = &what, reversed = backwards, gridDim = grid, blockDim = size;
        for (long i; (i = next++) < total;) {
            long at = backwards ? total - 1 - i : i;
            blockIdx = dim3(at % grid.x, at / grid.x % grid.y, at / ((long)grid.x * grid.y));
            run_block(size);
        }
    };
    unsigned threads = total < 4 ? 1 : std::thread::hardware_concurrency();
    std::vector<std::thread> others;
    for (unsigned i = 0; i < threads; i++) others.emplace_back(work);
    for (auto& thread : others) thread.join();
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

// `sizes`: of the arguments given, in bytes; a kernel that takes others is a mistake that CUDA would not see.
template <class... A>
int launch(void (*kernel)(A...), const unsigned* geometry, int backwards, void** arguments, const int* sizes, int count) {
    const int wanted[] = {(int)sizeof(A)..., 0};
    if (count != (int)sizeof...(A)) return 1 + count;
    for (int i = 0; i < count; i++)
        if (sizes[i] != wanted[i]) return 1 + i;
    run_grid(dim3(geometry[0], geometry[1], geometry[2]), dim3(geometry[3], geometry[4], geometry[5]), backwards,
             [=] { call(kernel, arguments, std::index_sequence_for<A...>{}); });
    return 0;
}

}  // namespace sim

inline void __syncthreads() { sim::wait(sim::BLOCK); }
inline void __syncwarp(unsigned = ~0u) { sim::wait(sim::WARP); }
inline void __threadfence() {}

template <class T>
inline T __shfl_sync(unsigned, T value, int lane) {
    static_assert(sizeof(T) <= 8);
    int me = sim::current;
    memcpy(&sim::exchange[me], &value, sizeof(T));
    sim::wait(sim::WARP);
    T received;
    memcpy(&received, &sim::exchange[(me & ~31) | (lane & 31)], sizeof(T));
    sim::wait(sim::WARP);
    return received;
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int by) {
    return __shfl_sync(mask, value, (sim::current & 31) ^ by);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, int by) {
    int lane = sim::current & 31;
    return __shfl_sync(mask, value, lane + by < 32 ? lane + by : lane);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, int by) {
    int lane = sim::current & 31;
    return __shfl_sync(mask, value, lane >= by ? lane - by : lane);
}
inline int __syncthreads_or(int value) {
    sim::votes[sim::current] = value != 0;
    sim::wait(sim::BLOCK);
    int any = 0;
    for (unsigned i = 0; i < blockDim.x * blockDim.y * blockDim.z; i++) any |= sim::votes[i];
    sim::wait(sim::BLOCK);
    return any;
}
inline int __syncthreads_count(int value) {
    sim::votes[sim::current] = value != 0;
    sim::wait(sim::BLOCK);
    int count = 0;
    for (unsigned i = 0; i < blockDim.x * blockDim.y * blockDim.z; i++) count += sim::votes[i];
    sim::wait(sim::BLOCK);
    return count;
}
inline unsigned __ballot_sync(unsigned, int value) {
    sim::votes[sim::current] = value != 0;
    sim::wait(sim::WARP);
    unsigned ballot = 0;
    for (int i = 0; i < 32; i++) ballot |= (unsigned)sim::votes[(sim::current & ~31) + i] << i;
    sim::wait(sim::WARP);
    return ballot;
}
template <class T>
inline T __ldg(const T* place) { return *place; }
// Operations that the compiler does not join to one: through memory, which rounds them.
template <class T>
inline T sim_rounded(volatile T x) { return x; }
inline float __fadd_rn(float a, float b) { return sim_rounded(a + b); }
inline float __fmul_rn(float a, float b) { return sim_rounded(a * b); }
inline double __dadd_rn(double a, double b) { return sim_rounded(a + b); }
inline double __dmul_rn(double a, double b) { return sim_rounded(a * b); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int atomicOr(int* place, int value) { return __atomic_fetch_or(place, value, __ATOMIC_SEQ_CST); }
inline int atomicAdd(int* place, int value) { return __atomic_fetch_add(place, value, __ATOMIC_SEQ_CST); }
template <class T>
inline T min(T a, T b) { return b < a ? b : a; }
template <class T>
inline T max(T a, T b) { return a < b ? b : a; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
using std::isfinite;
using std::isnan;
