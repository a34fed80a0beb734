/* SPDX-License-Identifier: MIT */
/*
 * combine: the weighted sum over a token's slots, f32, in slot order. moe_silu_mul: what lies between
 * the products where they are not fused. One thread per element, blocks of 128.
 */
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/moe_args.h"

enum : uint32_t {
    THREADS = 128
};

/** Whether a pair takes part; notes an id that no one has. */
FERRUM_DEVICE bool takes_part(const ferrum_combine_args_t &args, uint64_t pair, bool first_column)
{
    if (!args.ids)
        return true;
    const int32_t id = static_cast<const int32_t *>(args.ids)[pair];
    if (first_column && args.fault && (id < -1 || (id >= 0 && uint32_t(id) >= args.num_experts)))
        gpu::atomic_max(&static_cast<ferrum_fault_t *>(args.fault)->id,
                        uint64_t(0xffffffffu - uint32_t(pair)) << 32 | uint32_t(id));
    return id >= 0 && uint32_t(id) - args.first_expert < args.local_experts;
}

template <class T> FERRUM_DEVICE void combine(const ferrum_combine_args_t &args)
{
    const uint64_t i = uint64_t(gpu::block_x()) * THREADS + gpu::thread_x();
    const int32_t *rows = static_cast<const int32_t *>(args.rows);
    T *out = static_cast<T *>(args.out);
    float sum = 0.0f;

    if (i >= args.count)
        return;
    const uint64_t token = i / args.hidden, column = i % args.hidden;
    for (uint32_t j = 0; j < args.top_k; j++) {
        const uint64_t pair = token * args.top_k + j;
        const int64_t row = rows ? int64_t(rows[pair]) : int64_t(pair);
        if (!takes_part(args, pair, column == 0) || row < 0 || uint64_t(row) >= args.slot_rows)
            continue;
        sum += static_cast<const float *>(args.weights)[pair] *
               gpu::load_either<T>(args.slots, args.slots_f32 != 0,
                                   size_t(row) * args.hidden + column);
    }
    out[i] = gpu::from_f32<T>(args.accumulate ? gpu::to_f32(out[i]) + sum : sum);
}

template <class T> FERRUM_DEVICE void moe_silu_mul(const ferrum_moe_silu_mul_args_t &args)
{
    const uint64_t i = uint64_t(gpu::block_x()) * THREADS + gpu::thread_x();

    if (i < args.count)
        static_cast<T *>(args.out)[i] =
            gpu::from_f32<T>(gpu::silu(gpu::to_f32(static_cast<const T *>(args.gate)[i])) *
                             gpu::to_f32(static_cast<const T *>(args.up)[i]));
}

FERRUM_KERNEL_INSTANCE(THREADS, ferrum_combine_f16, (combine<gpu::f16_t>), (ferrum_combine_args_t args), (args))
FERRUM_KERNEL_INSTANCE(THREADS, ferrum_combine_bf16, (combine<gpu::bf16_t>), (ferrum_combine_args_t args), (args))
FERRUM_KERNEL_INSTANCE(THREADS, ferrum_moe_silu_mul_f16, (moe_silu_mul<gpu::f16_t>), (ferrum_moe_silu_mul_args_t args), (args))
FERRUM_KERNEL_INSTANCE(THREADS, ferrum_moe_silu_mul_bf16, (moe_silu_mul<gpu::bf16_t>), (ferrum_moe_silu_mul_args_t args), (args))
