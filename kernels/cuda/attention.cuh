/* SPDX-License-Identifier: MIT */
/**
 * @file attention.cuh
 * @brief Which keys a query sees, and where its rows lie; see ferrum_attention_args_t.
 */
#ifndef FERRUM_KERNELS_CUDA_ATTENTION_CUH
#define FERRUM_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/args.h"
#include "kernels/cuda/kv.cuh"

namespace gpu
{
/** The keys [first, end) of @p sequence that a query sees. */
struct keys_t {
    uint32_t sequence, first, end;
};

/** Those of query @p local of a sequence. */
FERRUM_DEVICE keys_t keys_of(const ferrum_attention_args_t &args, uint32_t sequence, uint32_t local)
{
    const int32_t *lengths = static_cast<const int32_t *>(args.lengths);
    uint32_t end;

    if (args.visible == FERRUM_VISIBLE_VARLEN) {
        end = uint32_t(static_cast<const int32_t *>(args.pos_offsets)[sequence]) + local + 1;
    } else if (args.visible == FERRUM_VISIBLE_LENGTHS) {
        const int32_t last = lengths[sequence] - int32_t(args.q_len - 1 - local);
        end = last > 0 ? uint32_t(last) : 0;
    } else {
        const uint32_t step = args.step ? *static_cast<const uint32_t *>(args.step) : 0;
        const uint32_t offset = args.step ? step : args.pos_offset;
        const uint32_t kv_len = args.step ? step + args.q_len : args.kv_len;
        end = offset + local + 1;
        end = args.causal && end < kv_len ? end : kv_len;
    }
    const uint64_t most = uint64_t(args.kv.table_stride) * args.kv.block_size;
    end = end < most ? end : uint32_t(most);
    return {sequence, args.window && end > args.window ? end - args.window : 0, end};
}

/** First element of a query's row in q and out. */
FERRUM_DEVICE size_t query_place(const ferrum_attention_args_t &args, uint32_t query, uint32_t head)
{
    return query / args.q_len * args.group_stride + query % args.q_len * args.query_stride +
           head * args.head_stride;
}
} // namespace gpu

#endif
