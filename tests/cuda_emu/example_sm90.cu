/* SPDX-License-Identifier: MIT */
/*
 * The wrappers of sm_90a, one kernel each, and a product shaped like real ones, which the tests
 * also run with planted bugs: a warpgroup copies, another one multiplies.
 */
#include "kernels/cuda/device.cuh"

#ifdef FERRUM_DEVICE_SM90A
/*
 * One wgmma: thread i has words [4i, 4i+4) of A and [i*N/2, ...) of the sums; B [N][64] lies in
 * `b` as it is to lie in shared memory, of which the 16 columns from 16*part on are used.
 */
template <class T, uint32_t N> struct wrap_wgmma {
    static FERRUM_DEVICE_MEMBER void multiply(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                                              bool accumulate);

    static FERRUM_DEVICE_MEMBER void run(const uint32_t *a, const uint32_t *b, float *d,
                                         uint32_t part, uint32_t accumulate)
    {
        unsigned char *matrix = gpu::shared_memory<unsigned char>(1024);
        uint64_t *barrier = gpu::shared_memory<uint64_t>(8);
        const uint32_t thread = gpu::thread_x();
        uint32_t words[4];
        float sums[N / 2];

        memcpy(words, a + 4 * thread, sizeof words);
        memcpy(sums, d + N / 2 * thread, sizeof sums);
        if (thread == 0) {
            gpu::mbarrier_init(barrier, 1);
            gpu::fence_async();
            gpu::mbarrier_arrive_expect(barrier, N * 128);
            gpu::bulk_copy(matrix, b, N * 128, barrier);
        }
        gpu::barrier();
        gpu::mbarrier_wait(barrier, 0);
        gpu::wgmma_fence();
        multiply(sums, words, gpu::wgmma_operand(matrix + 32 * part), accumulate != 0);
        gpu::wgmma_commit();
        gpu::wgmma_wait<0>();
        memcpy(d + N / 2 * thread, sums, sizeof sums);
    }
};
#define WGMMA(N, type)                                                                             \
    template <>                                                                                    \
    FERRUM_DEVICE_MEMBER void wrap_wgmma<gpu::type##_t, N>::multiply(                              \
        float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate)                    \
    {                                                                                              \
        gpu::wgmma_m64n##N##k16_##type(d, a, b, accumulate);                                       \
    }                                                                                              \
    FERRUM_KERNEL_SM90A(128, wrap_wgmma_##N##_##type, const uint32_t *a, const uint32_t *b,        \
                        float *d, uint32_t part, uint32_t accumulate)                              \
    {                                                                                              \
        wrap_wgmma<gpu::type##_t, N>::run(a, b, d, part, accumulate);                              \
    }
WGMMA(64, f16)
WGMMA(64, bf16)
WGMMA(128, f16)
WGMMA(128, bf16)

/* Thread 64 of a block sends `count` parts of 256 bytes through two places; threads 0..63 add them
 * up. */
FERRUM_KERNEL_SM90A(96, wrap_mbarrier, const uint32_t *in, uint32_t *out, uint32_t count)
{
    uint64_t *full = gpu::shared_memory<uint64_t>(), *empty = full + 2;
    uint32_t *places = gpu::shared_memory<uint32_t>(128);
    const uint32_t thread = gpu::thread_x();
    uint32_t sum = 0;

    if (thread == 0) {
        for (uint32_t i = 0; i < 2; i++) {
            gpu::mbarrier_init(full + i, 1);
            gpu::mbarrier_init(empty + i, 64);
        }
        gpu::fence_async();
    }
    gpu::barrier();
    if (thread == 64) {
        for (uint32_t i = 0; i < count; i++) {
            if (i >= 2)
                gpu::mbarrier_wait(empty + i % 2, (i / 2 - 1) % 2);
            gpu::mbarrier_arrive_expect(full + i % 2, 256);
            gpu::bulk_copy(places + i % 2 * 64, in + 64 * i, 128, full + i % 2);
            gpu::bulk_copy(places + i % 2 * 64 + 32, in + 64 * i + 32, 128, full + i % 2);
        }
    } else if (thread < 64) {
        for (uint32_t i = 0; i < count; i++) {
            gpu::mbarrier_wait(full + i % 2, i / 2 % 2);
            sum = sum * 3 + places[i % 2 * 64 + (thread ^ 1)];
            gpu::mbarrier_arrive(empty + i % 2);
        }
        out[gpu::block_x() * 64 + thread] = sum;
    }
}

/* Planted bugs. */
enum {
    NO_BUG,
    NO_FULL_WAIT,     /* a place is read before it is full */
    NO_EMPTY_WAIT,    /* a place is refilled while it is read */
    NO_EMPTY_ARRIVE,  /* nobody says that it was read */
    EARLY_RELEASE,    /* that is said before the products have run */
    WRONG_EXPECT,     /* the barrier waits for more bytes than are copied */
    NO_COPY_WAIT,     /* a thread arrives before its copies have landed */
    NO_ASYNC_FENCE,   /* rows were copied by threads, and are read by wgmma */
    NO_INIT_FENCE,    /* bulk copies report to a barrier that they do not see */
    NO_WGMMA_FENCE,   /* registers may be written after the product has begun */
    NO_WGMMA_WAIT,    /* sums are read before they are there */
    REGISTERS_REUSED, /* an operand changes under way */
    ABSENT_WARP       /* one of the four does not take part */
};

/* D [64][64] = A [64][64 * steps] B, f16: A lies as operands, 2048 bytes per 16 columns. */
struct example_wgmma {
    static constexpr uint32_t a_bytes = 4 * 2048, b_bytes = 64 * 128;
    static constexpr uint32_t stage_bytes = a_bytes + b_bytes;

    uint64_t *full, *empty;
    uint32_t steps, bug;

    FERRUM_DEVICE_MEMBER unsigned char *stage(uint32_t step) const
    {
        return gpu::shared_memory<unsigned char>(1024 + step % 2 * stage_bytes);
    }

    FERRUM_DEVICE_MEMBER void produce(const unsigned char *a, const unsigned char *b) const
    {
        const uint32_t thread = gpu::thread_x();

        for (uint32_t step = 0; step < steps; step++) {
            if (step >= 2 && bug != NO_EMPTY_WAIT)
                gpu::mbarrier_wait(empty + step % 2, (step / 2 - 1) % 2);
            if (thread == 0) {
                gpu::mbarrier_arrive_expect(full + step % 2,
                                            bug == WRONG_EXPECT ? a_bytes + 16 : a_bytes);
                gpu::bulk_copy(stage(step) + b_bytes, a + size_t(step) * a_bytes, a_bytes,
                               full + step % 2);
            }
            for (uint32_t i = thread; i < b_bytes / 16; i += 128) {
                const uint32_t row = i / 8, part = i % 8;
                gpu::copy_async<16>(stage(step) + row * 128 + (part ^ row % 8) * 16,
                                    b + (size_t(row) * steps + step) * 128 + part * 16);
            }
            gpu::copy_async_commit();
            if (bug != NO_COPY_WAIT)
                gpu::copy_async_wait<0>();
            if (bug != NO_ASYNC_FENCE)
                gpu::fence_async();
            gpu::mbarrier_arrive(full + step % 2);
        }
    }

    FERRUM_DEVICE_MEMBER void consume(float *d) const
    {
        const uint32_t thread = gpu::thread_x() - 128;
        uint32_t words[4][4];
        float sums[32];

        for (uint32_t step = 0; step < steps; step++) {
            if (bug != NO_FULL_WAIT)
                gpu::mbarrier_wait(full + step % 2, step / 2 % 2);
            memcpy(words, stage(step) + b_bytes + thread * sizeof words, sizeof words);
            if (bug != NO_WGMMA_FENCE)
                gpu::wgmma_fence();
            FERRUM_UNROLL
            for (uint32_t i = 0; i < 4; i++)
                gpu::wgmma_m64n64k16_f16(sums, words[i], gpu::wgmma_operand(stage(step) + 32 * i),
                                         step + i > 0);
            gpu::wgmma_commit();
            if (bug == REGISTERS_REUSED)
                words[3][3] = 0;
            if (bug == EARLY_RELEASE)
                gpu::mbarrier_arrive(empty + step % 2);
            if (bug != NO_WGMMA_WAIT)
                gpu::wgmma_wait<0>();
            if (bug != EARLY_RELEASE && bug != NO_EMPTY_ARRIVE)
                gpu::mbarrier_arrive(empty + step % 2);
        }
        for (uint32_t i = 0; i < 32; i++)
            d[thread * 32 + i] = sums[i];
    }

    FERRUM_DEVICE_MEMBER void run(const unsigned char *a, const unsigned char *b, float *d)
    {
        full = gpu::shared_memory<uint64_t>();
        empty = full + 2;
        if (gpu::thread_x() == 0) {
            for (uint32_t i = 0; i < 2; i++) {
                gpu::mbarrier_init(full + i, 129);
                gpu::mbarrier_init(empty + i, 128);
            }
            if (bug != NO_INIT_FENCE)
                gpu::fence_async();
        }
        gpu::barrier();
        if (gpu::thread_x() < 128) {
            gpu::registers_decrease<40>();
            produce(a, b);
        } else if (bug != ABSENT_WARP || gpu::warp() != 6) {
            gpu::registers_increase<152>();
            consume(d);
        }
    }
};

FERRUM_KERNEL_SM90A(256, example_wgmma_f16, const unsigned char *a, const unsigned char *b, float *d,
              uint32_t steps, uint32_t bug)
{
    example_wgmma example = {nullptr, nullptr, steps, bug};
    example.run(a, b, d);
}
#endif
