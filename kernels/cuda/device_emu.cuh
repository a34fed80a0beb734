/* SPDX-License-Identifier: MIT */
/**
 * @file device_emu.cuh
 * @brief The emulated side of device.cuh: each function of device_ptx.cuh, for a fiber on the host.
 *
 * What needs other threads goes through emu.h. Functions that are collective, or that can be called
 * wrongly, take the place of their call as default arguments, for messages.
 */
#ifndef FERRUM_KERNELS_CUDA_DEVICE_EMU_CUH
#define FERRUM_KERNELS_CUDA_DEVICE_EMU_CUH

#include <math.h>

#include "kernels/cuda/emu.h"

#define FERRUM_DEVICE [[maybe_unused]] static inline
#define FERRUM_DEVICE_MEMBER inline
#define FERRUM_UNROLL
#define FERRUM_NO_UNROLL

#define FERRUM_KERNEL_FOR(capability, threads, name, ...)                                          \
    extern "C" void name(__VA_ARGS__);                                                             \
    static gpu::emu::registration ferrum_registration_##name(#name, threads, capability, name);    \
    extern "C" void name(__VA_ARGS__)
#define FERRUM_KERNEL(threads, name, ...) FERRUM_KERNEL_FOR(0, threads, name, __VA_ARGS__)
#define FERRUM_KERNEL_OCCUPANCY(threads, blocks, name, ...) FERRUM_KERNEL(threads, name, __VA_ARGS__)

#define FERRUM_EMU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace gpu
{
namespace emu
{
/** Calls a kernel whose parameters are @p A with the values that `params` points to. */
template <class... A> struct invoker {
    static constexpr size_t sizes[sizeof...(A) + 1] = {sizeof(A)..., 0};

    template <size_t... I> struct indices {
    };
    template <size_t N, size_t... I> struct make : make<N - 1, N - 1, I...> {
    };
    template <size_t... I> struct make<0, I...> {
        typedef indices<I...> type;
    };
    template <size_t... I>
    static void call(void (*function)(A...), void *const *params, indices<I...>)
    {
        (void)params;
        function(*static_cast<const A *>(params[I])...);
    }
    static void invoke(void (*function)(), void *const *params)
    {
        call(reinterpret_cast<void (*)(A...)>(function), params,
             typename make<sizeof...(A)>::type());
    }
};

/** Enters a kernel into the emulator's table. */
struct registration {
    ferrum_emu_kernel_t kernel;

    template <class... A>
    registration(const char *name, uint32_t threads, uint32_t capability, void (*function)(A...))
    {
        kernel.name = name;
        kernel.function = reinterpret_cast<void (*)()>(function);
        kernel.invoke = invoker<A...>::invoke;
        kernel.param_sizes = invoker<A...>::sizes;
        kernel.param_count = sizeof...(A);
        kernel.max_threads = threads;
        kernel.capability = capability;
        kernel.runs = 0;
        kernel.next = nullptr;
        ferrum_emu_register(&kernel);
    }
};
} // namespace emu

/* Indices. */
FERRUM_DEVICE uint32_t thread_x()
{
    return ferrum_emu_self()->thread[0];
}
FERRUM_DEVICE uint32_t thread_y()
{
    return ferrum_emu_self()->thread[1];
}
FERRUM_DEVICE uint32_t block_x()
{
    return ferrum_emu_self()->block[0];
}
FERRUM_DEVICE uint32_t block_y()
{
    return ferrum_emu_self()->block[1];
}
FERRUM_DEVICE uint32_t block_z()
{
    return ferrum_emu_self()->block[2];
}
FERRUM_DEVICE uint32_t block_threads()
{
    return ferrum_emu_self()->block_dim[0];
}
FERRUM_DEVICE uint32_t grid_x()
{
    return ferrum_emu_self()->grid_dim[0];
}
FERRUM_DEVICE uint32_t grid_y()
{
    return ferrum_emu_self()->grid_dim[1];
}
FERRUM_DEVICE uint32_t grid_z()
{
    return ferrum_emu_self()->grid_dim[2];
}

template <class T> FERRUM_DEVICE T *shared_memory(size_t offset_bytes = 0)
{
    return reinterpret_cast<T *>(ferrum_emu_self()->shared + offset_bytes);
}
FERRUM_DEVICE uint32_t shared_address(const void *pointer)
{
    return uint32_t(static_cast<const unsigned char *>(pointer) - ferrum_emu_self()->shared) +
           FERRUM_EMU_SHARED_WINDOW;
}

/* Barriers and fences. */
FERRUM_DEVICE void barrier(FERRUM_EMU_SITE)
{
    ferrum_emu_barrier(file, line);
}
FERRUM_DEVICE void named_barrier_sync(uint32_t id, uint32_t threads, FERRUM_EMU_SITE)
{
    ferrum_emu_named_barrier(id, threads, 1, file, line);
}
FERRUM_DEVICE void named_barrier_arrive(uint32_t id, uint32_t threads, FERRUM_EMU_SITE)
{
    ferrum_emu_named_barrier(id, threads, 0, file, line);
}
FERRUM_DEVICE void warp_barrier(uint32_t mask, FERRUM_EMU_SITE)
{
    ferrum_emu_meet(FERRUM_EMU_WARP_BARRIER, mask, nullptr, 0, nullptr, 0, file, line);
}
FERRUM_DEVICE void fence_block()
{
    ferrum_emu_fence();
}
FERRUM_DEVICE void fence_device()
{
    ferrum_emu_fence();
}

/* Warp functions. */
FERRUM_DEVICE uint32_t ballot(uint32_t mask, bool predicate, FERRUM_EMU_SITE)
{
    const uint32_t in = predicate;
    uint32_t out = 0;
    ferrum_emu_meet(FERRUM_EMU_BALLOT, mask, &in, 1, &out, 1, file, line);
    return out;
}
FERRUM_DEVICE uint32_t match_any(uint32_t mask, uint32_t value, FERRUM_EMU_SITE)
{
    uint32_t out = 0;
    ferrum_emu_meet(FERRUM_EMU_MATCH_ANY, mask, &value, 1, &out, 1, file, line);
    return out;
}
namespace emu
{
template <class T>
inline T shuffle_from(uint32_t mask, T value, uint32_t source, const char *file, int line)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint32_t words[sizeof(T) / 4];
    memcpy(words, &value, sizeof value);
    for (size_t i = 0; i < sizeof(T) / 4; i++) {
        const uint32_t in[2] = {words[i], source};
        ferrum_emu_meet(FERRUM_EMU_SHUFFLE, mask, in, 2, &words[i], 1, file, line);
    }
    memcpy(&value, words, sizeof value);
    return value;
}
} // namespace emu
FERRUM_DEVICE uint32_t shuffle_up_source(uint32_t delta, uint32_t width);
FERRUM_DEVICE uint32_t shuffle_down_source(uint32_t delta, uint32_t width);
template <class T>
FERRUM_DEVICE T shuffle(uint32_t mask, T value, uint32_t source_lane, FERRUM_EMU_SITE)
{
    return emu::shuffle_from(mask, value, source_lane & 31u, file, line);
}
template <class T>
FERRUM_DEVICE T shuffle_xor(uint32_t mask, T value, uint32_t lane_mask, FERRUM_EMU_SITE)
{
    return emu::shuffle_from(mask, value, (ferrum_emu_self()->lane ^ lane_mask) & 31u, file, line);
}
template <class T>
FERRUM_DEVICE T shuffle_up(uint32_t mask, T value, uint32_t delta, uint32_t width = 32,
                           FERRUM_EMU_SITE)
{
    return emu::shuffle_from(mask, value, shuffle_up_source(delta, width), file, line);
}
template <class T>
FERRUM_DEVICE T shuffle_down(uint32_t mask, T value, uint32_t delta, uint32_t width = 32,
                             FERRUM_EMU_SITE)
{
    return emu::shuffle_from(mask, value, shuffle_down_source(delta, width), file, line);
}

/* Matrices. */
namespace emu
{
/** Lanes 0 .. 8*N-1 give rows; the addresses of the others are not looked at. */
template <uint32_t N>
inline void ldmatrix(ferrum_emu_meeting_t kind, uint32_t (&r)[N], const void *row, const char *file,
                     int line)
{
    uint32_t in[5] = {0, 0, 0, 0, N};
    if (ferrum_emu_self()->lane < 8 * N) {
        ferrum_emu_check_row(row, file, line);
        memcpy(in, row, 16);
    }
    ferrum_emu_meet(kind, full_mask, in, 5, r, N, file, line);
}
template <class T>
inline void mma(ferrum_emu_meeting_t kind, T (&d)[4], const uint32_t (&a)[4],
                const uint32_t (&b)[2], const char *file, int line)
{
    uint32_t in[10] = {a[0], a[1], a[2], a[3], b[0], b[1], 0, 0, 0, 0};
    uint32_t out[4];
    memcpy(in + 6, d, sizeof d);
    ferrum_emu_meet(kind, full_mask, in, 10, out, 4, file, line);
    memcpy(d, out, sizeof d);
}
} // namespace emu
FERRUM_DEVICE void ldmatrix_x1(uint32_t (&r)[1], const void *row, FERRUM_EMU_SITE)
{
    emu::ldmatrix(FERRUM_EMU_LDMATRIX, r, row, file, line);
}
FERRUM_DEVICE void ldmatrix_x2(uint32_t (&r)[2], const void *row, FERRUM_EMU_SITE)
{
    emu::ldmatrix(FERRUM_EMU_LDMATRIX, r, row, file, line);
}
FERRUM_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void *row, FERRUM_EMU_SITE)
{
    emu::ldmatrix(FERRUM_EMU_LDMATRIX, r, row, file, line);
}
FERRUM_DEVICE void ldmatrix_trans_x1(uint32_t (&r)[1], const void *row, FERRUM_EMU_SITE)
{
    emu::ldmatrix(FERRUM_EMU_LDMATRIX_TRANS, r, row, file, line);
}
FERRUM_DEVICE void ldmatrix_trans_x2(uint32_t (&r)[2], const void *row, FERRUM_EMU_SITE)
{
    emu::ldmatrix(FERRUM_EMU_LDMATRIX_TRANS, r, row, file, line);
}
FERRUM_DEVICE void ldmatrix_trans_x4(uint32_t (&r)[4], const void *row, FERRUM_EMU_SITE)
{
    emu::ldmatrix(FERRUM_EMU_LDMATRIX_TRANS, r, row, file, line);
}
FERRUM_DEVICE void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    FERRUM_EMU_SITE)
{
    emu::mma(FERRUM_EMU_MMA_F16, d, a, b, file, line);
}
FERRUM_DEVICE void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                     FERRUM_EMU_SITE)
{
    emu::mma(FERRUM_EMU_MMA_BF16, d, a, b, file, line);
}
FERRUM_DEVICE void mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                   FERRUM_EMU_SITE)
{
    emu::mma(FERRUM_EMU_MMA_S8, d, a, b, file, line);
}
FERRUM_DEVICE void mma_m16n8k32_s8_from(int32_t (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2], int32_t start, FERRUM_EMU_SITE)
{
    d[0] = d[1] = d[2] = d[3] = start;
    mma_m16n8k32_s8(d, a, b, file, line);
}

/* Asynchronous copies. */
namespace emu
{
inline void copy(const ferrum_emu_copy_t &c)
{
    if (c.source_bytes == 16) {
        memcpy(c.shared, c.global, 16);
        return;
    }
    for (uint32_t i = 0; i < c.bytes; i++)
        c.shared[i] = i < c.source_bytes ? c.global[i] : (unsigned char)0;
}
} // namespace emu
template <int BYTES>
FERRUM_DEVICE void copy_async_zfill(void *shared, const void *global, uint32_t source_bytes,
                                    FERRUM_EMU_SITE)
{
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "copies are of 4, 8 or 16 bytes");
    const ferrum_emu_copy_t c = {static_cast<unsigned char *>(shared),
                                 static_cast<const unsigned char *>(global), BYTES, source_bytes,
                                 0};
    if (ferrum_emu_copy_issue(&c, file, line)) {
        emu::copy(c);
        ferrum_emu_copy_landed(&c);
    }
}
template <int BYTES>
FERRUM_DEVICE void copy_async(void *shared, const void *global, FERRUM_EMU_SITE)
{
    copy_async_zfill<BYTES>(shared, global, BYTES, file, line);
}
FERRUM_DEVICE void copy_async_commit()
{
    ferrum_emu_copy_commit();
}
template <int PENDING> FERRUM_DEVICE void copy_async_wait()
{
    ferrum_emu_copy_t c;
    int land;
    while (ferrum_emu_copy_retire(PENDING, &c, &land)) {
        if (land)
            emu::copy(c);
    }
}

FERRUM_DEVICE vec16_t load_streaming(const void *global)
{
    return *static_cast<const vec16_t *>(global);
}

/* Conversions, round to nearest even. */
FERRUM_DEVICE float to_f32(bf16_t value)
{
    const uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}
FERRUM_DEVICE float to_f32(f16_t value)
{
    const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
    const uint32_t magnitude = value.bits & 0x7fffu;
    uint32_t bits;
    float result;
    if (magnitude >= 0x7c00u) {
        bits = sign | 0x7f800000u | (magnitude & 0x3ffu) << 13;
        memcpy(&result, &bits, sizeof result);
    } else if (magnitude >= 0x400u) {
        bits = sign | ((magnitude << 13) + (112u << 23));
        memcpy(&result, &bits, sizeof result);
    } else {
        result = float(magnitude) * 0x1p-24f;
        result = sign ? -result : result;
    }
    return result;
}
FERRUM_DEVICE f16_t to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        return f16_t{0x7fff};
    } else if (magnitude >= 0x477ff000u) { /* rounds to 2^16 or more */
        half = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {
        half = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
    } else { /* a multiple of 2^-24; that is one unit of 0.5f, so adding 0.5f rounds to it */
        float small;
        uint32_t rounded;
        memcpy(&small, &magnitude, sizeof small);
        small += 0.5f;
        memcpy(&rounded, &small, sizeof rounded);
        half = rounded - 0x3f000000u;
    }
    return f16_t{uint16_t(sign | half)};
}
FERRUM_DEVICE bf16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return bf16_t{0x7fff};
    return bf16_t{uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

/* Packed pairs: exact in double, so rounded once (up to ties that double cannot hold). */
namespace emu
{
inline float half_of(uint32_t pair, int i, f16_t)
{
    return to_f32(f16_t{uint16_t(pair >> 16 * i)});
}
inline float half_of(uint32_t pair, int i, bf16_t)
{
    return to_f32(bf16_t{uint16_t(pair >> 16 * i)});
}
/** Round to f32 so that a later rounding to fewer bits is right: to odd where inexact. */
inline float to_odd(double x)
{
    const float nearest = float(x);
    if (double(nearest) == x || nearest != nearest || nearest - nearest != 0.0f)
        return nearest;
    uint32_t bits;
    memcpy(&bits, &nearest, sizeof bits);
    if ((double(nearest) > x) == (x > 0)) /* rounded away from zero: take the other neighbour */
        bits--;
    bits |= 1u;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}
inline uint16_t rounded(double x, f16_t)
{
    return to_f16(to_odd(x)).bits;
}
inline uint16_t rounded(double x, bf16_t)
{
    return to_bf16(to_odd(x)).bits;
}
template <class H> inline uint32_t pair_fma(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r = 0;
    for (int i = 0; i < 2; i++) {
        const double product = double(half_of(a, i, H())) * double(half_of(b, i, H()));
        r |= uint32_t(rounded(product + double(half_of(c, i, H())), H())) << 16 * i;
    }
    return r;
}
} // namespace emu
FERRUM_DEVICE uint32_t f16x2_sub(uint32_t a, uint32_t b)
{
    const uint32_t minus_ones = 0xbc00bc00u;
    return emu::pair_fma<f16_t>(b, minus_ones, a);
}
FERRUM_DEVICE uint32_t f16x2_mul(uint32_t a, uint32_t b)
{
    const uint32_t minus_zeros = 0x80008000u;
    return emu::pair_fma<f16_t>(a, b, minus_zeros);
}
FERRUM_DEVICE uint32_t f16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    return emu::pair_fma<f16_t>(a, b, c);
}
FERRUM_DEVICE uint32_t bf16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    return emu::pair_fma<bf16_t>(a, b, c);
}

/* Integers. */
FERRUM_DEVICE int32_t dp4a(uint32_t a, uint32_t b, int32_t c)
{
    uint32_t sum = uint32_t(c);
    for (int i = 0; i < 32; i += 8)
        sum += uint32_t(int32_t(int8_t(a >> i)) * int32_t(int8_t(b >> i)));
    return int32_t(sum);
}
template <uint32_t LUT> FERRUM_DEVICE uint32_t lop3(uint32_t a, uint32_t b, uint32_t c)
{
    static_assert(LUT < 256, "a table of eight bits");
    uint32_t r = 0;
    for (uint32_t i = 0; i < 8; i++) {
        if (LUT >> i & 1u)
            r |= (i & 4u ? a : ~a) & (i & 2u ? b : ~b) & (i & 1u ? c : ~c);
    }
    return r;
}
FERRUM_DEVICE uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector)
{
    const uint64_t bytes = uint64_t(b) << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t pick = selector >> 4 * i;
        uint32_t byte = uint32_t(bytes >> 8 * (pick & 7u)) & 0xffu;
        if (pick & 8u)
            byte = byte & 0x80u ? 0xffu : 0u;
        r |= byte << 8 * i;
    }
    return r;
}
FERRUM_DEVICE uint32_t count_bits(uint32_t value)
{
    return uint32_t(__builtin_popcount(value));
}
FERRUM_DEVICE uint32_t lowest_bit(uint32_t value)
{
    return value == 0 ? 32u : uint32_t(__builtin_ctz(value));
}

/* Integer atomics: relaxed, so that the race detector misses no fence. */
FERRUM_DEVICE uint32_t atomic_add(uint32_t *address, uint32_t value)
{
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
FERRUM_DEVICE int32_t atomic_add(int32_t *address, int32_t value)
{
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
namespace emu
{
template <class T> inline T fetch_max(T *address, T value)
{
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(address, &old, value, false,
                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
} // namespace emu
FERRUM_DEVICE uint32_t atomic_max(uint32_t *address, uint32_t value)
{
    return emu::fetch_max(address, value);
}
FERRUM_DEVICE uint64_t atomic_max(uint64_t *address, uint64_t value)
{
    return emu::fetch_max(address, value);
}
FERRUM_DEVICE uint32_t atomic_or(uint32_t *address, uint32_t value)
{
    return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
FERRUM_DEVICE uint32_t atomic_exchange(uint32_t *address, uint32_t value)
{
    return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}

/* f32 arithmetic. */
FERRUM_DEVICE float fma(float a, float b, float c)
{
    return ::fmaf(a, b, c);
}
FERRUM_DEVICE float exp(float x)
{
    return ::expf(x);
}
FERRUM_DEVICE float log(float x)
{
    return ::logf(x);
}
FERRUM_DEVICE float tanh(float x)
{
    return ::tanhf(x);
}
FERRUM_DEVICE float erf(float x)
{
    return ::erff(x);
}
FERRUM_DEVICE float pow(float x, float y)
{
    return ::powf(x, y);
}
FERRUM_DEVICE float sin(float x)
{
    return ::sinf(x);
}
FERRUM_DEVICE float cos(float x)
{
    return ::cosf(x);
}
FERRUM_DEVICE float sqrt(float x)
{
    return ::sqrtf(x);
}
FERRUM_DEVICE float divide(float a, float b)
{
    return a / b;
}
FERRUM_DEVICE int32_t round_to_int(float x)
{
    return int32_t(::lrintf(x));
}
FERRUM_DEVICE bool is_finite(float x)
{
    return x - x == 0.0f;
}
} // namespace gpu

#define FERRUM_DEVICE_SM90A 1
#include "kernels/cuda/device_emu_sm90.cuh"

#endif
