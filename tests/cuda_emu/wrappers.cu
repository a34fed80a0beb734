/* SPDX-License-Identifier: MIT */
/*
 * One kernel per wrapper: operands of each thread come from memory, results go there. Lane l has
 * words [l * n, l * n + n) of an operand of n words. The same kernels run on a GPU.
 */
#include "kernels/cuda/device.cuh"

template <class T, void (*MMA)(T (&)[4], const uint32_t (&)[4], const uint32_t (&)[2])>
FERRUM_DEVICE void run_mma(const uint32_t *a, const uint32_t *b, T *d)
{
    const uint32_t lane = gpu::lane();
    uint32_t a_words[4], b_words[2];
    T sum[4];

    memcpy(a_words, a + 4 * lane, sizeof a_words);
    memcpy(b_words, b + 2 * lane, sizeof b_words);
    memcpy(sum, d + 4 * lane, sizeof sum);
    MMA(sum, a_words, b_words);
    memcpy(d + 4 * lane, sum, sizeof sum);
}

FERRUM_DEVICE void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    gpu::mma_m16n8k16<gpu::f16_t>(d, a, b);
}
FERRUM_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    gpu::mma_m16n8k16<gpu::bf16_t>(d, a, b);
}
FERRUM_DEVICE void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    gpu::mma_m16n8k32_s8(d, a, b);
}
FERRUM_DEVICE void mma_s8_from(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    gpu::mma_m16n8k32_s8_from(d, a, b, 0x4b400000);
}

FERRUM_KERNEL_INSTANCE(32, wrap_mma_f16, (run_mma<float, mma_f16>),
                       (const uint32_t *a, const uint32_t *b, float *d), (a, b, d))
FERRUM_KERNEL_INSTANCE(32, wrap_mma_bf16, (run_mma<float, mma_bf16>),
                       (const uint32_t *a, const uint32_t *b, float *d), (a, b, d))
FERRUM_KERNEL_INSTANCE(32, wrap_mma_s8, (run_mma<int32_t, mma_s8>),
                       (const uint32_t *a, const uint32_t *b, int32_t *d), (a, b, d))
FERRUM_KERNEL_INSTANCE(32, wrap_mma_s8_from, (run_mma<int32_t, mma_s8_from>),
                       (const uint32_t *a, const uint32_t *b, int32_t *d), (a, b, d))

/* Rows of 16 bytes, row i at 48 * i in shared memory; out has 4 words per lane. */
FERRUM_KERNEL(32, wrap_ldmatrix, const uint32_t *rows, uint32_t *out, uint32_t matrices,
              uint32_t trans)
{
    unsigned char *shared = gpu::shared_memory<unsigned char>(64);
    const uint32_t lane = gpu::lane();
    uint32_t r1[1] = {0}, r2[2] = {0, 0}, r4[4] = {0, 0, 0, 0};

    memcpy(shared + 48 * lane, rows + 4 * lane, 16);
    gpu::barrier();
    /* The addresses of lanes beyond the matrices are not to be looked at. */
    const unsigned char *row = lane < 8 * matrices ? shared + 48 * lane : shared + 1;
    if (matrices == 1 && !trans)
        gpu::ldmatrix_x1(r1, row);
    else if (matrices == 1)
        gpu::ldmatrix_trans_x1(r1, row);
    else if (matrices == 2 && !trans)
        gpu::ldmatrix_x2(r2, row);
    else if (matrices == 2)
        gpu::ldmatrix_trans_x2(r2, row);
    else if (!trans)
        gpu::ldmatrix_x4(r4, row);
    else
        gpu::ldmatrix_trans_x4(r4, row);
    for (uint32_t i = 0; i < 4; i++)
        out[4 * lane + i] = r4[i] | (i < 2 ? r2[i] : 0) | (i < 1 ? r1[i] : 0);
}

/* Warp functions: out has 10 words per thread. Odd and even lanes vote apart. */
FERRUM_KERNEL(64, wrap_warp, const uint32_t *in, uint32_t *out)
{
    const uint32_t thread = gpu::thread_x(), lane = gpu::lane(), value = in[thread];
    const uint32_t mask = lane % 2 ? 0xaaaaaaaau : 0x55555555u;
    uint32_t *o = out + 10 * thread;

    o[0] = gpu::ballot(gpu::full_mask, value % 3 == 0);
    o[1] = gpu::ballot(mask, value % 3 == 0);
    o[2] = gpu::match_any(gpu::full_mask, value % 3);
    o[3] = gpu::shuffle(gpu::full_mask, value, (lane * 7 + 3) % 32);
    o[4] = gpu::shuffle_xor(gpu::full_mask, value, 5);
    o[5] = gpu::shuffle_up(gpu::full_mask, value, 3);
    o[6] = gpu::shuffle_down(gpu::full_mask, value, 3, 8);
    o[7] = gpu::shuffle(mask, value, lane ^ 2);
    o[8] = gpu::warp_sum(value);
    o[9] = gpu::bit_cast<uint32_t>(gpu::warp_max(gpu::bit_cast<float>(value)));
}

FERRUM_KERNEL(256, wrap_convert, const uint32_t *in, uint32_t *out, uint32_t count)
{
    const uint32_t i = gpu::block_x() * gpu::block_threads() + gpu::thread_x();

    if (i < count) {
        const float value = gpu::bit_cast<float>(in[i]);
        const gpu::f16_t half = {uint16_t(in[i])};
        const gpu::bf16_t bfloat = {uint16_t(in[i])};

        out[4 * i] = gpu::to_f16(value).bits;
        out[4 * i + 1] = gpu::to_bf16(value).bits;
        out[4 * i + 2] = gpu::bit_cast<uint32_t>(gpu::to_f32(half));
        out[4 * i + 3] = gpu::bit_cast<uint32_t>(gpu::to_f32(bfloat));
    }
}

/* Pairs and integers: three words in, eight out. */
FERRUM_KERNEL(256, wrap_arithmetic, const uint32_t *in, uint32_t *out, uint32_t count)
{
    const uint32_t i = gpu::block_x() * gpu::block_threads() + gpu::thread_x();

    if (i < count) {
        const uint32_t a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];

        out[8 * i] = gpu::f16x2_sub(a, b);
        out[8 * i + 1] = gpu::f16x2_mul(a, b);
        out[8 * i + 2] = gpu::f16x2_fma(a, b, c);
        out[8 * i + 3] = gpu::bf16x2_fma(a, b, c);
        out[8 * i + 4] = uint32_t(gpu::dp4a(a, b, int32_t(c)));
        out[8 * i + 5] = gpu::lop3<(0xf0 & 0xcc) | 0xaa>(a, b, c);
        out[8 * i + 6] = gpu::byte_permute(a, b, c & 0x7777u);
        out[8 * i + 7] = gpu::count_bits(a) << 8 | gpu::lowest_bit(b);
    }
}

/* Copies of 4, 8 and 16 bytes, with zero fill: thread i copies 16 bytes in three ways. */
FERRUM_KERNEL(64, wrap_copies, const uint32_t *in, uint32_t *out, uint32_t source_bytes)
{
    unsigned char *shared = gpu::shared_memory<unsigned char>();
    const uint32_t thread = gpu::thread_x();
    unsigned char *to = shared + 48 * thread;
    const uint32_t *from = in + 4 * thread;

    for (uint32_t i = 0; i < 4; i++)
        gpu::copy_async<4>(to + 4 * i, from + i);
    gpu::copy_async_commit();
    for (uint32_t i = 0; i < 2; i++)
        gpu::copy_async_zfill<8>(to + 16 + 8 * i, from + 2 * i, source_bytes / 2);
    gpu::copy_async_commit();
    gpu::copy_async_zfill<16>(to + 32, from, source_bytes);
    gpu::copy_async_commit();
    gpu::copy_async_wait<2>();
    gpu::barrier();
    memcpy(out + 12 * thread, shared + 48 * (thread ^ 1), 16);
    gpu::copy_async_wait<0>();
    gpu::barrier();
    memcpy(out + 12 * thread + 4, shared + 48 * (thread ^ 1) + 16, 32);
}

/* Named barriers: warp 1 produces for warp 0, and arrives without waiting. */
FERRUM_KERNEL(96, wrap_named_barrier, uint32_t *out)
{
    uint32_t *shared = gpu::shared_memory<uint32_t>();

    if (gpu::warp() == 1) {
        shared[gpu::lane()] = gpu::lane() * gpu::lane();
        gpu::named_barrier_arrive(3, 64);
    } else if (gpu::warp() == 0) {
        gpu::named_barrier_sync(3, 64);
        out[gpu::lane()] = shared[31 - gpu::lane()];
    }
}

/* Sums of all values by the last block that arrives, in a fixed order; `ticket` starts at zero. */
FERRUM_KERNEL(32, wrap_last_block, const uint32_t *in, uint32_t *partial, uint32_t *ticket,
              uint32_t *out)
{
    const uint32_t sum = gpu::warp_sum(in[gpu::block_x() * 32 + gpu::lane()]);
    uint32_t before = 0;

    if (gpu::lane() == 0) {
        partial[gpu::block_x()] = sum;
        gpu::fence_device();
        before = gpu::atomic_add(ticket, 1u);
        gpu::fence_device();
        if (before + 1 == gpu::grid_x()) {
            uint32_t total = 0;

            for (uint32_t i = 0; i < gpu::grid_x(); i++)
                total += partial[i];
            *out = total;
        }
    }
}

/* What a thread is told about itself: 8 words per thread. */
FERRUM_KERNEL(128, wrap_indices, uint32_t *out)
{
    const uint32_t block =
        (gpu::block_z() * gpu::grid_y() + gpu::block_y()) * gpu::grid_x() + gpu::block_x();
    uint32_t *o = out + 8 * (block * gpu::block_threads() + gpu::thread_x());

    o[0] = gpu::thread_x();
    o[1] = gpu::block_x();
    o[2] = gpu::block_y();
    o[3] = gpu::block_z();
    o[4] = gpu::block_threads();
    o[5] = gpu::grid_x() | gpu::grid_y() << 8 | gpu::grid_z() << 16;
    o[6] = gpu::lane();
    o[7] = gpu::warp();
}
