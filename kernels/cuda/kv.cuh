/* SPDX-License-Identifier: MIT */
/**
 * @file kv.cuh
 * @brief Where the vectors of a KV cache lie, in every layout; see ferrum_kv_args_t.
 *
 * A contiguous cache [batch, kv_heads, capacity, head_dim] is a pool in FA layout whose blocks are
 * `capacity` long, without tables: a sequence's one block is its own number.
 */
#ifndef FERRUM_KERNELS_CUDA_KV_CUH
#define FERRUM_KERNELS_CUDA_KV_CUH

#include "kernels/cuda/args.h"
#include "kernels/cuda/device.cuh"

namespace gpu
{
/** Element d of a vector is at start + d/run*run_stride + d%run. */
struct kv_place_t {
    size_t start;
    uint32_t run;
    uint32_t run_stride;

    FERRUM_DEVICE_MEMBER size_t at(uint32_t d) const
    {
        return start + size_t(d / run) * run_stride + d % run;
    }
};

enum : uint32_t { KV_LAYOUT_FA = 0, KV_NO_BLOCK = 0xffffffffu };

/** Block of the pool that holds @p position; KV_NO_BLOCK when table or position are out of range. */
FERRUM_DEVICE uint32_t kv_block(const ferrum_kv_args_t &kv, uint32_t sequence, uint32_t position)
{
    const uint32_t index = position / kv.block_size;

    if (index >= kv.table_stride)
        return KV_NO_BLOCK;
    const uint32_t block =
        kv.tables
            ? static_cast<const uint32_t *>(kv.tables)[size_t(sequence) * kv.table_stride + index]
            : sequence;
    return block < kv.num_blocks ? block : uint32_t(KV_NO_BLOCK);
}

/** Key or value of slot @p slot of block @p block in head @p head. */
FERRUM_DEVICE kv_place_t kv_place(const ferrum_kv_args_t &kv, uint32_t block, uint32_t slot,
                                  uint32_t head, bool is_value)
{
    constexpr uint32_t x = 8; /* 16 bytes of f16 or bf16 */
    const size_t start = (size_t(block) * kv.kv_heads + head) * kv.block_size * kv.head_dim;

    if (kv.layout == KV_LAYOUT_FA)
        return {start + size_t(slot) * kv.head_dim, kv.head_dim, 0};
    if (is_value)
        return {start + slot, 1, kv.block_size};
    return {start + size_t(slot) * x, x, kv.block_size * x};
}

/** Sequence of @p cu_seqlens i32 [sequences+1] that owns token @p token. */
FERRUM_DEVICE uint32_t sequence_of(const int32_t *cu_seqlens, uint32_t sequences, uint32_t token)
{
    uint32_t low = 0, high = sequences;

    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (uint32_t(cu_seqlens[middle]) <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}
} // namespace gpu

#endif
