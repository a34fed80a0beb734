/* SPDX-License-Identifier: MIT */
/**
 * @file attention_tile.cuh
 * @brief Attention of 16 rows per warp on tensor cores, shared by decode and prefill.
 *
 * The queries of all heads that share a KV head are the rows of one matrix, row = query * group +
 * head, so keys and values are read once for all of them. A block holds ROW_WARPS * 16 rows; per
 * step it brings KEYS keys and values into shared memory (two stages, cp.async), and KEY_WARPS warps
 * share the keys of a step:
 *
 *        K [KEYS, DIM]          V [KEYS, DIM], or its transpose as it lies in the vLLM layout
 *     q [16, DIM] x K^T  ->  scores [16, KEYS / KEY_WARPS]  ->  weights, rounded to T
 *     weights x V        ->  out [16, DIM], f32, in registers
 *
 * with a running maximum and sum per row (f32; the sum is of the rounded weights). Steps begin at
 * multiples of KEYS whatever the tile, and a hidden key leaves a row's numbers as they were, so the
 * bits of a row do not depend on the rows beside it. Hidden keys and values are read as zeros.
 *
 * Preconditions: head_dim is DIM, blocks of the cache hold a multiple of 8 positions in the vLLM
 * layout, q and the cache lie at multiples of 16 bytes.
 */
#ifndef FERRUM_KERNELS_CUDA_ATTENTION_TILE_CUH
#define FERRUM_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/block.cuh"

namespace gpu
{
template <class T, uint32_t DIM, uint32_t ROW_WARPS, uint32_t KEY_WARPS> struct attention_tile {
    static constexpr uint32_t KEYS = 64, ROWS = 16 * ROW_WARPS;
    static constexpr uint32_t THREADS = 32 * ROW_WARPS * KEY_WARPS;
    static constexpr uint32_t MINE = KEYS / KEY_WARPS; /* keys of a warp per step */
    /* Elements between rows: odd multiples of 16 bytes, so that ldmatrix meets no bank twice. */
    static constexpr uint32_t PITCH = DIM + 8, TURNED_PITCH = KEYS + 8;
    static constexpr uint32_t VALUES = KEYS * PITCH > DIM * TURNED_PITCH ? KEYS * PITCH
                                                                         : DIM * TURNED_PITCH;
    static constexpr uint32_t STAGE = KEYS * PITCH + VALUES;
    static constexpr uint32_t SHARED_BYTES = (ROWS * PITCH + 2 * STAGE) * 2 + 2 * KEYS / 8;
    static_assert(DIM % 16 == 0 && KEYS == 64 && MINE % 16 == 0, "whole fragments");
    static_assert(THREADS >= KEYS, "a thread per key looks up its block");

    /** Rows of one KV head of one sequence, and the keys that any of them sees here. */
    struct work_t {
        uint32_t sequence, kv_head;
        uint32_t first_row, row_count; /**< rows in all: queries of the sequence * group */
        uint32_t begin, end;           /**< keys */
        uint32_t first_query;          /**< of the sequence, in q and out */
    };

    /** What a thread knows of its two rows of the warp's sixteen: lane / 4 and that + 8. */
    struct rows_t {
        uint32_t first[2], end[2]; /**< keys seen; none when there is no such row */
        float maximum[2], sum[2];
        float out[DIM / 8][4];
    };

    static FERRUM_DEVICE_MEMBER uint32_t group(const ferrum_attention_args_t &args)
    {
        return args.heads / args.kv.kv_heads;
    }
    static FERRUM_DEVICE_MEMBER T *queries()
    {
        return shared_memory<T>();
    }
    static FERRUM_DEVICE_MEMBER T *keys(uint32_t stage)
    {
        return queries() + ROWS * PITCH + stage * STAGE;
    }
    static FERRUM_DEVICE_MEMBER T *values(uint32_t stage)
    {
        return keys(stage) + KEYS * PITCH;
    }
    /** Bit per key of a stage: its block exists. */
    static FERRUM_DEVICE_MEMBER uint32_t *present(uint32_t stage)
    {
        return shared_memory<uint32_t>((ROWS * PITCH + 2 * STAGE) * 2) + stage * (KEYS / 32);
    }
    static FERRUM_DEVICE_MEMBER uint32_t warp_row()
    {
        return warp() / KEY_WARPS * 16;
    }
    static FERRUM_DEVICE_MEMBER uint32_t warp_key()
    {
        return warp() % KEY_WARPS * MINE;
    }

    /** Element of q and out at which row @p row of the sequence begins. */
    static FERRUM_DEVICE_MEMBER size_t place(const ferrum_attention_args_t &args,
                                             const work_t &work, uint32_t row)
    {
        return query_place(args, work.first_query + row / group(args),
                           work.kv_head * group(args) + row % group(args));
    }

    /* ---- loading ---- */

    static FERRUM_DEVICE_MEMBER void load_queries(const ferrum_attention_args_t &args,
                                                  const work_t &work)
    {
        for (uint32_t i = thread_x(); i < ROWS * (DIM / 8); i += THREADS) {
            const uint32_t row = i / (DIM / 8), d = i % (DIM / 8) * 8;
            vec16_t words = {};
            if (work.first_row + row < work.row_count)
                words = *reinterpret_cast<const vec16_t *>(
                    static_cast<const T *>(args.q) + place(args, work, work.first_row + row) + d);
            *reinterpret_cast<vec16_t *>(queries() + row * PITCH + d) = words;
        }
    }

    static FERRUM_DEVICE_MEMBER uint32_t block_of(const ferrum_attention_args_t &args,
                                                  const work_t &work, uint32_t position)
    {
        return position < work.end ? kv_block(args.kv, work.sequence, position)
                                   : uint32_t(KV_NO_BLOCK);
    }

    /** Rows of keys, or of values in the FlashAttention layout. */
    static FERRUM_DEVICE_MEMBER void load_rows(const ferrum_attention_args_t &args,
                                               const work_t &work, uint32_t first, bool is_value,
                                               T *to)
    {
        const T *from = static_cast<const T *>(is_value ? args.kv.v : args.kv.k);
        const bool by_row = args.kv.layout == KV_LAYOUT_FA; /* else 16 bytes of each key in turn */

        for (uint32_t i = thread_x(); i < KEYS * (DIM / 8); i += THREADS) {
            const uint32_t key = by_row ? i / (DIM / 8) : i % KEYS;
            const uint32_t d = (by_row ? i % (DIM / 8) : i / KEYS) * 8;
            const uint32_t position = first + key, block = block_of(args, work, position);
            T *target = to + key * PITCH + d;
            if (block == KV_NO_BLOCK)
                *reinterpret_cast<vec16_t *>(target) = {};
            else
                copy_async<16>(target, from + kv_place(args.kv, block,
                                                       position % args.kv.block_size, work.kv_head,
                                                       is_value)
                                                  .at(d));
        }
    }

    /** Values of the vLLM layout, where the positions of a block lie side by side. */
    static FERRUM_DEVICE_MEMBER void load_turned(const ferrum_attention_args_t &args,
                                                 const work_t &work, uint32_t first, T *to)
    {
        const T *from = static_cast<const T *>(args.kv.v);

        for (uint32_t i = thread_x(); i < DIM * (KEYS / 8); i += THREADS) {
            const uint32_t d = i / (KEYS / 8), key = i % (KEYS / 8) * 8;
            const uint32_t position = first + key, block = block_of(args, work, position);
            T *target = to + d * TURNED_PITCH + key;
            if (block == KV_NO_BLOCK) {
                *reinterpret_cast<vec16_t *>(target) = {};
                continue;
            }
            const T *source = from + kv_place(args.kv, block, position % args.kv.block_size,
                                              work.kv_head, true)
                                         .at(d);
            if (position + 8 <= work.end)
                copy_async<16>(target, source);
            else
                for (uint32_t j = 0; j < 8; j++)
                    target[j] = position + j < work.end ? source[j] : T{};
        }
    }

    /** Begin to bring the keys from @p first on; the caller waits for the group of copies. */
    static FERRUM_DEVICE_MEMBER void load(const ferrum_attention_args_t &args, const work_t &work,
                                          uint32_t first, uint32_t stage)
    {
        if (thread_x() < KEYS) {
            const uint32_t bits = ballot(
                full_mask, block_of(args, work, first + thread_x()) != KV_NO_BLOCK);
            if (lane() == 0)
                present(stage)[warp()] = bits;
        }
        load_rows(args, work, first, false, keys(stage));
        if (args.kv.layout == KV_LAYOUT_FA)
            load_rows(args, work, first, true, values(stage));
        else
            load_turned(args, work, first, values(stage));
        copy_async_commit();
    }

    /* ---- one step ---- */

    /** Which matrix of a ldmatrix this lane gives the row of, as its bits: low and high. */
    static FERRUM_DEVICE_MEMBER uint32_t low8()
    {
        return (lane() / 8 & 1) * 8;
    }
    static FERRUM_DEVICE_MEMBER uint32_t high8()
    {
        return (lane() / 16) * 8;
    }

    static FERRUM_DEVICE_MEMBER void score(uint32_t stage, float (&s)[MINE / 8][4])
    {
        const T *q = queries() + (warp_row() + lane() % 8 + low8()) * PITCH + high8();
        const T *k = keys(stage) + (warp_key() + lane() % 8 + high8()) * PITCH + low8();

        FERRUM_UNROLL
        for (uint32_t d = 0; d < DIM; d += 16) {
            uint32_t a[4];
            ldmatrix_x4(a, q + d);
            FERRUM_UNROLL
            for (uint32_t n = 0; n < MINE / 8; n += 2) {
                uint32_t b[4];
                ldmatrix_x4(b, k + n * 8 * PITCH + d);
                const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
                mma_m16n8k16<T>(s[n], a, low);
                mma_m16n8k16<T>(s[n + 1], a, high);
            }
        }
    }

    /** Scores to weights: hidden keys get 0, the running state moves on; @p half: which row. */
    static FERRUM_DEVICE_MEMBER void soften(const ferrum_attention_args_t &args, uint32_t first,
                                            uint32_t stage, uint32_t half, float (&s)[MINE / 8][4],
                                            rows_t &rows)
    {
        const uint32_t column = warp_key() + lane() % 4 * 2;
        float top = -INFINITY, sum = 0.0f;

        FERRUM_UNROLL
        for (uint32_t i = 0; i < MINE / 4; i++) {
            const uint32_t key = column + i / 2 * 8 + i % 2, position = first + key;
            float &value = s[i / 2][half * 2 + i % 2];
            const bool seen = position >= rows.first[half] && position < rows.end[half] &&
                              (present(stage)[key / 32] >> key % 32 & 1) != 0;
            value = seen ? value * args.scale : -INFINITY;
            top = value > top ? value : top;
        }
        FERRUM_UNROLL
        for (uint32_t step = 1; step < 4; step *= 2) {
            const float other = shuffle_xor(full_mask, top, step);
            top = other > top ? other : top;
        }
        const float maximum = top > rows.maximum[half] ? top : rows.maximum[half];
        const bool any = maximum != -INFINITY;
        const float rescale = any ? exp(rows.maximum[half] - maximum) : 1.0f;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < MINE / 4; i++) {
            float &value = s[i / 2][half * 2 + i % 2];
            value = any ? to_f32(from_f32<T>(exp(value - maximum))) : 0.0f;
            sum += value;
        }
        rows.maximum[half] = maximum;
        rows.sum[half] = fma(rows.sum[half], rescale, sum);
        FERRUM_UNROLL
        for (uint32_t n = 0; n < DIM / 8; n++) {
            rows.out[n][half * 2] *= rescale;
            rows.out[n][half * 2 + 1] *= rescale;
        }
    }

    static FERRUM_DEVICE_MEMBER uint32_t pack(float low, float high)
    {
        return uint32_t(from_f32<T>(low).bits) | uint32_t(from_f32<T>(high).bits) << 16;
    }

    static FERRUM_DEVICE_MEMBER void weigh(const ferrum_attention_args_t &args, uint32_t stage,
                                           const float (&s)[MINE / 8][4], rows_t &rows)
    {
        const bool turned = args.kv.layout != KV_LAYOUT_FA;
        const T *v = turned
                         ? values(stage) + (lane() % 8 + high8()) * TURNED_PITCH + warp_key() + low8()
                         : values(stage) + (warp_key() + lane() % 8 + low8()) * PITCH + high8();

        FERRUM_UNROLL
        for (uint32_t k = 0; k < MINE; k += 16) {
            const float(&left)[4] = s[k / 8], (&right)[4] = s[k / 8 + 1];
            const uint32_t a[4] = {pack(left[0], left[1]), pack(left[2], left[3]),
                                   pack(right[0], right[1]), pack(right[2], right[3])};
            FERRUM_UNROLL
            for (uint32_t n = 0; n < DIM / 8; n += 2) {
                uint32_t b[4];
                if (turned)
                    ldmatrix_x4(b, v + n * 8 * TURNED_PITCH + k);
                else
                    ldmatrix_trans_x4(b, v + k * PITCH + n * 8);
                const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
                mma_m16n8k16<T>(rows.out[n], a, low);
                mma_m16n8k16<T>(rows.out[n + 1], a, high);
            }
        }
    }

    /* ---- all steps ---- */

    /** The rows of this thread before any key. */
    static FERRUM_DEVICE_MEMBER void start(const ferrum_attention_args_t &args, const work_t &work,
                                           rows_t &rows)
    {
        FERRUM_UNROLL
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t row = work.first_row + warp_row() + lane() / 4 + half * 8;
            keys_t seen = {0, 0, 0};
            if (row < work.row_count)
                seen = keys_of(args, work.sequence, row / group(args));
            rows.first[half] = seen.first;
            rows.end[half] = seen.end < work.end ? seen.end : work.end;
            rows.maximum[half] = -INFINITY;
            rows.sum[half] = 0.0f;
        }
        FERRUM_UNROLL
        for (uint32_t n = 0; n < DIM / 8; n++)
            FERRUM_UNROLL
            for (uint32_t i = 0; i < 4; i++)
                rows.out[n][i] = 0.0f;
    }

    /** Go through the keys [begin, end) of @p work; all threads of the block. */
    static FERRUM_DEVICE_MEMBER void run(const ferrum_attention_args_t &args, const work_t &work,
                                         rows_t &rows)
    {
        const uint32_t begin = work.begin / KEYS * KEYS;
        uint32_t stage = 0;

        start(args, work, rows);
        load_queries(args, work);
        if (begin < work.end)
            load(args, work, begin, 0);
        for (uint32_t first = begin; first < work.end; first += KEYS, stage ^= 1) {
            if (first + KEYS < work.end) {
                load(args, work, first + KEYS, stage ^ 1);
                copy_async_wait<1>();
            } else {
                copy_async_wait<0>();
            }
            barrier();
            float s[MINE / 8][4] = {};
            score(stage, s);
            soften(args, first, stage, 0, s, rows);
            soften(args, first, stage, 1, s, rows);
            weigh(args, stage, s, rows);
            barrier();
        }
        FERRUM_UNROLL
        for (uint32_t half = 0; half < 2; half++)
            FERRUM_UNROLL
            for (uint32_t step = 1; step < 4; step *= 2)
                rows.sum[half] += shuffle_xor(full_mask, rows.sum[half], step);
    }
};
} // namespace gpu

#endif
