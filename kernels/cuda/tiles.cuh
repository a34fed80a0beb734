/* SPDX-License-Identifier: MIT */
/**
 * @file tiles.cuh
 * @brief What all quantised products share: which rows a block computes, and the activation.
 */
#ifndef FERRUM_KERNELS_CUDA_TILES_CUH
#define FERRUM_KERNELS_CUDA_TILES_CUH

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/moe_args.h"

namespace gpu
{
FERRUM_DEVICE uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/** gate and up to what down takes. */
FERRUM_DEVICE float activate(const ferrum_product_args_t &args, float gate, float up)
{
    if (args.activation == 1) { /* clamped SwiGLU, written so that NaN passes */
        const float g = gate > args.limit ? args.limit : gate;
        const float high = up > args.limit ? args.limit : up;
        const float u = high < -args.limit ? -args.limit : high;
        return divide(g, 1.0f + exp(-args.alpha * g)) * (u + 1.0f);
    }
    if (args.activation == 2) {
        const float inner = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
        return 0.5f * gate * (1.0f + tanh(inner)) * up;
    }
    return silu(gate) * up;
}

/** Rows of a tile: a matrix, and which of the mode's rows. */
struct tile_t {
    uint32_t expert;
    uint32_t count; /* 0: nothing to do */
    uint32_t first;
};

/** The place of a row that is not there. */
constexpr uint64_t no_place = ~uint64_t(0);

/** The tile of this block; BM rows at most. @p dispatch: in ROWS_DISPATCHES only. */
template <uint32_t BM>
FERRUM_DEVICE tile_t find_tile(const ferrum_product_args_t &args,
                               const ferrum_row_dispatch_t &dispatch)
{
    const uint32_t tile = block_x(), first = tile * BM;
    const int32_t *experts = static_cast<const int32_t *>(args.experts);

    if (args.mode == FERRUM_ROWS_DENSE)
        return {0, least(BM, args.rows - first), first};
    if (args.mode == FERRUM_ROWS_PAIRS) {
        const int32_t id = static_cast<const int32_t *>(args.ids)[tile];
        const uint32_t expert = uint32_t(id) - args.first_expert;
        return {expert, id >= 0 && expert < args.num_experts ? 1u : 0u, tile};
    }
    if (args.mode == FERRUM_ROWS_LISTS) {
        const uint32_t expert = block_y();
        const int32_t length = experts[expert];
        const uint32_t used = length < 0 ? 0 : least(uint32_t(length), args.ids_count);
        return {expert, first < used ? least(BM, used - first) : 0u, first};
    }
    if (args.mode == FERRUM_ROWS_DISPATCHES)
        return {dispatch.expert, first < dispatch.rows ? least(BM, dispatch.rows - first) : 0u,
                first};
    const uint32_t per_block = (args.block_size + BM - 1) / BM, block = tile / per_block;
    const uint32_t within = tile % per_block * BM, slot = block * args.block_size + within;
    const int32_t stated = *static_cast<const int32_t *>(args.total);
    const uint32_t total = stated < 0 ? 0 : least(uint32_t(stated), args.ids_count);
    if (slot >= total)
        return {0, 0, 0};
    const int32_t expert = experts[block];
    const bool known = expert >= 0 && uint32_t(expert) < args.num_experts;
    const uint32_t left = least(args.block_size - within, total - slot);
    return {uint32_t(expert), known ? least(BM, left) : 0u, slot};
}

/** places[i]: element of x at which row i of the tile begins, rows being @p x_row apart (PAIRS: as
 * stated); places[BM + i]: of out. Shared memory; the caller's barrier follows. */
template <uint32_t BM>
FERRUM_DEVICE void find_places(const ferrum_product_args_t &args, const tile_t &tile,
                               const ferrum_row_dispatch_t &dispatch, uint64_t x_row,
                               uint64_t *places)
{
    const uint32_t i = thread_x();
    const int32_t *ids = static_cast<const int32_t *>(args.ids);
    uint64_t in = no_place, out = no_place;

    if (i >= BM)
        return;
    if (i < tile.count) {
        uint32_t row = tile.first + i;
        if (args.mode == FERRUM_ROWS_LISTS)
            row = uint32_t(ids[size_t(tile.expert) * args.ids_count + row]);
        else if (args.mode == FERRUM_ROWS_ALIGNED)
            row = uint32_t(ids[row]);
        if (args.mode == FERRUM_ROWS_DISPATCHES) {
            in = (uint64_t(dispatch.in_row) + row) * x_row;
            out = (uint64_t(dispatch.out_row) + row) * args.out_stride;
        } else if (row < args.rows) {
            out = row * args.out_stride;
            in = args.mode == FERRUM_ROWS_PAIRS
                     ? row / args.top_k * args.outer + row % args.top_k * args.inner
                     : uint64_t(row / args.top_k) * x_row;
        }
    }
    places[i] = in;
    places[BM + i] = out;
}
} // namespace gpu

#endif
