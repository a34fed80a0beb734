/* SPDX-License-Identifier: MIT */
/*
 * attention_decode_DIM: one query per sequence, the keys split over blocks.
 *
 *   grid x   sequence
 *   grid y   KV head, and 16 of the query heads that share it
 *   grid z   split: at least 256 keys, at most 32 splits per query
 *
 * Where splits begin depends on the query's own keys only, so its bits do not depend on the batch.
 * In a block four warps share the keys of a step (attention_tile.cuh) and are added up in the order
 * of their numbers. With more than one split each block leaves its sums, f32, in `partial`; the one
 * that draws the last ticket adds them up in the order of the splits and puts the ticket back to 0.
 * No block waits for another. A query that sees no key gives zeros.
 *
 * Traffic: each key and value once per KV head, and 4*(DIM+2) bytes per head and split, written and
 * read.
 */
#include "kernels/cuda/attention_tile.cuh"

template <class T, uint32_t DIM> struct decode {
    static constexpr uint32_t WARPS = 4, ROWS = 16;
    using tile = gpu::attention_tile<T, DIM, 1, WARPS>;

    /** This block's split among those that the query has. */
    struct split_t {
        uint32_t begin, end;
        uint32_t count;
    };

    static FERRUM_DEVICE_MEMBER split_t find_split(const gpu::keys_t &keys)
    {
        const uint32_t step = uint32_t(FERRUM_ATTENTION_SPLIT_KEYS);
        const uint32_t most = uint32_t(FERRUM_ATTENTION_MOST_SPLITS);
        const uint32_t size = step * ((keys.end + step * most - 1) / (step * most));

        if (keys.first >= keys.end)
            return {0, 0, 1};
        const uint32_t first = keys.first / size, count = (keys.end + size - 1) / size - first;
        const uint32_t from = (first + gpu::block_z()) * size, to = from + size;
        return {from > keys.first ? from : keys.first, to < keys.end ? to : keys.end, count};
    }

    /** What one warp or split has of a row: out [DIM], then maximum and sum. */
    static constexpr uint32_t STATE = DIM + FERRUM_ATTENTION_STATE;

    static FERRUM_DEVICE_MEMBER float *parts(uint32_t warp)
    {
        return gpu::shared_memory<float>(tile::ROWS * tile::PITCH * 2) + warp * ROWS * STATE;
    }

    static FERRUM_DEVICE_MEMBER void leave_part(const typename tile::rows_t &rows)
    {
        FERRUM_UNROLL
        for (uint32_t half = 0; half < 2; half++) {
            float *row = parts(gpu::warp()) + (gpu::lane() / 4 + half * 8) * STATE;
            FERRUM_UNROLL
            for (uint32_t n = 0; n < DIM / 8; n++)
                FERRUM_UNROLL
                for (uint32_t i = 0; i < 2; i++)
                    row[n * 8 + gpu::lane() % 4 * 2 + i] = rows.out[n][half * 2 + i];
            if (gpu::lane() % 4 == 0) {
                row[DIM] = rows.maximum[half];
                row[DIM + 1] = rows.sum[half];
            }
        }
    }

    /** One element of a row and the row's state. */
    struct sum_t {
        float value, maximum, sum;
    };

    /** Element @p d of @p count parts of a row, @p stride floats apart, in order. */
    static FERRUM_DEVICE_MEMBER sum_t add_parts(const float *part, uint32_t count, size_t stride,
                                                uint32_t d)
    {
        sum_t all = {0.0f, -INFINITY, 0.0f};

        for (uint32_t i = 0; i < count; i++) {
            const float maximum = part[i * stride + DIM];
            all.maximum = maximum > all.maximum ? maximum : all.maximum;
        }
        for (uint32_t i = 0; i < count && all.maximum != -INFINITY; i++) {
            const float weight = gpu::exp(part[i * stride + DIM] - all.maximum);
            all.value = gpu::fma(part[i * stride + d], weight, all.value);
            all.sum = gpu::fma(part[i * stride + DIM + 1], weight, all.sum);
        }
        return all;
    }

    static FERRUM_DEVICE_MEMBER void store(const ferrum_attention_args_t &args,
                                           const typename tile::work_t &work, uint32_t row,
                                           uint32_t d, const sum_t &sum)
    {
        const size_t at = tile::place(args, work, work.first_row + row) + d;

        static_cast<T *>(args.out)[at] =
            gpu::from_f32<T>(sum.sum > 0.0f ? gpu::divide(sum.value, sum.sum) : 0.0f);
    }

    /** The splits of a row of @p work. */
    static FERRUM_DEVICE_MEMBER float *partial(const ferrum_attention_args_t &args,
                                               const typename tile::work_t &work, uint32_t row)
    {
        const uint32_t head = work.kv_head * tile::group(args) + work.first_row + row;

        return static_cast<float *>(args.partial) +
               (size_t(work.first_query) * args.heads + head) * args.splits * STATE;
    }

    /** Whether this block is the last of its query and heads to come here. */
    static FERRUM_DEVICE_MEMBER bool is_last(const ferrum_attention_args_t &args, uint32_t count)
    {
        uint32_t *ticket = static_cast<uint32_t *>(args.tickets) +
                           size_t(gpu::block_x()) * gpu::grid_y() + gpu::block_y();
        uint32_t *drawn = gpu::shared_memory<uint32_t>();

        gpu::fence_device();
        gpu::barrier();
        if (gpu::thread_x() == 0) {
            *drawn = gpu::atomic_add(ticket, 1u);
            if (*drawn + 1 == count)
                (void)gpu::atomic_exchange(ticket, 0u);
            gpu::fence_device();
        }
        gpu::barrier();
        return *drawn + 1 == count;
    }

    static FERRUM_DEVICE_MEMBER void run(const ferrum_attention_args_t &args)
    {
        const uint32_t query = gpu::block_x(), group = tile::group(args);
        const uint32_t tiles = (group + ROWS - 1) / ROWS;
        const split_t split = find_split(gpu::keys_of(args, query, 0));
        const typename tile::work_t work = {query,         gpu::block_y() / tiles,
                                            gpu::block_y() % tiles * ROWS, group,
                                            split.begin,   split.end,
                                            query};
        typename tile::rows_t rows;

        if (gpu::block_z() >= split.count)
            return;
        tile::run(args, work, rows);
        leave_part(rows);
        gpu::barrier();
        const uint32_t left = group - work.first_row, used = left < ROWS ? left : ROWS;
        for (uint32_t i = gpu::thread_x(); i < used * DIM; i += tile::THREADS) {
            const uint32_t row = i / DIM, d = i % DIM;
            const sum_t sum = add_parts(parts(0) + row * STATE, WARPS, ROWS * STATE, d);
            if (split.count == 1) {
                store(args, work, row, d, sum);
                continue;
            }
            float *to = partial(args, work, row) + gpu::block_z() * STATE;
            to[d] = sum.value;
            if (d == 0) {
                to[DIM] = sum.maximum;
                to[DIM + 1] = sum.sum;
            }
        }
        if (split.count == 1 || !is_last(args, split.count))
            return;
        for (uint32_t i = gpu::thread_x(); i < used * DIM; i += tile::THREADS)
            store(args, work, i / DIM, i % DIM,
                  add_parts(partial(args, work, i / DIM), split.count, STATE, i % DIM));
    }
};

#define DECODE(act, DIM)                                                                           \
    FERRUM_KERNEL_INSTANCE(128, ferrum_attention_decode_##DIM##_##act,                             \
                           (decode<gpu::act##_t, DIM>::run), (ferrum_attention_args_t args), (args))
DECODE(f16, 64)
DECODE(bf16, 64)
DECODE(f16, 128)
DECODE(bf16, 128)
