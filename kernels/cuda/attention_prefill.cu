/* SPDX-License-Identifier: MIT */
/*
 * attention_prefill_DIM: several queries of a sequence at once.
 *
 *   grid x   64 rows (a row is a query and one of the heads that share a KV head) of one sequence
 *   grid y   KV head
 *
 * Each of four warps has 16 of the rows; all go through the same keys (attention_tile.cuh), from the
 * first that any row sees to the last. Which sequence a block works on is found in cu_seqlens; the
 * blocks beyond the last tile clear the rows behind the last sequence, 64 each. A query that sees no
 * key gives zeros.
 *
 * Traffic: each key and value once per 64 rows.
 */
#include "kernels/cuda/attention_tile.cuh"

template <class T, uint32_t DIM> struct prefill {
    static constexpr uint32_t WARPS = 4;
    using tile = gpu::attention_tile<T, DIM, WARPS, 1>;
    using work_t = typename tile::work_t;

    /** Queries of a sequence, and the first of them in q; what lies outside of q is left out. */
    static FERRUM_DEVICE_MEMBER uint32_t queries_of(const ferrum_attention_args_t &args,
                                                    uint32_t sequence, uint32_t *out_first)
    {
        const uint32_t *starts = static_cast<const uint32_t *>(args.lengths);
        const bool varlen = args.visible == FERRUM_VISIBLE_VARLEN;
        const uint32_t first = varlen ? starts[sequence] : sequence * args.q_len;
        const uint32_t stated = varlen ? starts[sequence + 1] : first + args.q_len;
        const uint32_t end = stated < args.queries ? stated : args.queries;

        *out_first = first;
        return end > first ? end - first : 0;
    }

    /** The sequence that this block's tile belongs to, and which of its tiles it is; false for a
     * block beyond them, and @p out_left says how far. */
    static FERRUM_DEVICE_MEMBER bool find_work(const ferrum_attention_args_t &args,
                                               work_t *out_work, uint32_t *out_left)
    {
        const uint32_t group = tile::group(args);
        uint32_t left = gpu::block_x();

        for (uint32_t sequence = 0; sequence < args.sequences; sequence++) {
            uint32_t first;
            const uint32_t rows = queries_of(args, sequence, &first) * group;
            const uint32_t tiles = (rows + tile::ROWS - 1) / tile::ROWS;
            if (left < tiles) {
                const uint32_t row = left * tile::ROWS;
                const uint32_t last = row + tile::ROWS < rows ? row + tile::ROWS : rows;
                *out_work = {sequence,
                             gpu::block_y(),
                             row,
                             rows,
                             gpu::keys_of(args, sequence, row / group).first,
                             gpu::keys_of(args, sequence, (last - 1) / group).end,
                             first};
                return true;
            }
            left -= tiles;
        }
        *out_left = left;
        return false;
    }

    /** Rows behind the last sequence, from number left * ROWS on. */
    static FERRUM_DEVICE_MEMBER void clear(const ferrum_attention_args_t &args, uint32_t left)
    {
        const uint32_t used = static_cast<const uint32_t *>(args.lengths)[args.sequences];
        const uint32_t group = tile::group(args);

        if (args.visible != FERRUM_VISIBLE_VARLEN || used >= args.queries)
            return;
        const work_t rest = {0, gpu::block_y(), 0, (args.queries - used) * group, 0, 0, used};
        for (uint32_t i = gpu::thread_x(); i < tile::ROWS * DIM; i += tile::THREADS) {
            const uint32_t row = left * tile::ROWS + i / DIM;
            if (row < rest.row_count)
                static_cast<T *>(args.out)[tile::place(args, rest, row) + i % DIM] = T{};
        }
    }

    static FERRUM_DEVICE_MEMBER void store(const ferrum_attention_args_t &args, const work_t &work,
                                           const typename tile::rows_t &rows)
    {
        FERRUM_UNROLL
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t row =
                work.first_row + tile::warp_row() + gpu::lane() / 4 + half * 8;
            const float sum = rows.sum[half];
            if (row >= work.row_count)
                continue;
            T *out = static_cast<T *>(args.out) + tile::place(args, work, row) +
                     gpu::lane() % 4 * 2;
            FERRUM_UNROLL
            for (uint32_t n = 0; n < DIM / 8; n++) {
                const float *pair = &rows.out[n][half * 2];
                const uint32_t packed =
                    sum > 0.0f
                        ? tile::pack(gpu::divide(pair[0], sum), gpu::divide(pair[1], sum))
                        : 0u;
                *reinterpret_cast<uint32_t *>(out + n * 8) = packed;
            }
        }
    }

    static FERRUM_DEVICE_MEMBER void run(const ferrum_attention_args_t &args)
    {
        typename tile::rows_t rows;
        work_t work;
        uint32_t left = 0;

        if (!find_work(args, &work, &left)) {
            clear(args, left);
            return;
        }
        tile::run(args, work, rows);
        store(args, work, rows);
    }
};

#define PREFILL(act, DIM)                                                                          \
    FERRUM_KERNEL_INSTANCE(128, ferrum_attention_prefill_##DIM##_##act,                            \
                           (prefill<gpu::act##_t, DIM>::run), (ferrum_attention_args_t args),      \
                           (args))
PREFILL(f16, 64)
PREFILL(bf16, 64)
PREFILL(f16, 128)
PREFILL(bf16, 128)
