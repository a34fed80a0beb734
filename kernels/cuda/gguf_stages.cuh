/* SPDX-License-Identifier: MIT */
/**
 * @file gguf_stages.cuh
 * @brief Tiles of a GGUF format and rows of x on their way into shared memory, some steps ahead of
 * the products (gguf.cu).
 */
#ifndef FERRUM_KERNELS_CUDA_GGUF_STAGES_CUH
#define FERRUM_KERNELS_CUDA_GGUF_STAGES_CUH

#include "kernels/cuda/gguf.cuh"
#include "kernels/cuda/tiles.cuh"

namespace gpu
{
template <class T, uint32_t ROWS, bool UP> struct gguf_stages {
    static constexpr uint32_t threads = 128, warps = 4, step = 64, stages = FERRUM_GGUF_STAGES;
    static constexpr bool alone = ROWS == 1; /* warps share an output tile */
    static constexpr uint32_t matrices = UP ? 2 : 1;
    static constexpr uint32_t columns = ROWS < 8 ? 1 : ROWS / 8;  /* B operands beside each other */
    static constexpr uint32_t sums = matrices * columns * 4;      /* per lane */
    static constexpr uint32_t pieces = ROWS < 16 ? 1 : ROWS / 16; /* of 16 bytes of x, per thread */
    static constexpr uint32_t most_copies = 3; /* of 16 bytes of a record, per lane */
    /* Shared memory: stages of records and x; sums of the quarters; places of rows. */
    static constexpr uint32_t x_bytes = ROWS * step * 2;
    static constexpr uint32_t sums_bytes = sums * threads * 4;

    const ferrum_gguf_args_t &gguf;
    const ferrum_product_args_t &args;
    tile_t tile;
    uint32_t tile_row, tile_rows; /* of this warp; of a matrix */
    uint32_t at, last;            /* this warp's steps */
    /* Of the copies, which run ahead. */
    const unsigned char *record[matrices];
    const T *x[pieces];
    uint32_t x_end[pieces];
    uint32_t load_k, loads; /* input of this thread's piece; steps */

    explicit FERRUM_DEVICE_MEMBER gguf_stages(const ferrum_gguf_args_t &gguf_)
        : gguf(gguf_), args(gguf_.product)
    {
    }

    FERRUM_DEVICE_MEMBER float *sums_at() const
    {
        return shared_memory<float>(stages * gguf.stage_bytes);
    }
    FERRUM_DEVICE_MEMBER uint64_t *places() const
    {
        return shared_memory<uint64_t>(stages * gguf.stage_bytes + sums_bytes);
    }
    FERRUM_DEVICE_MEMBER uint32_t records_bytes() const
    {
        return gguf.codes[0].record_bytes + (UP ? gguf.codes[1].record_bytes : 0);
    }
    /** This warp's record. */
    FERRUM_DEVICE_MEMBER unsigned char *record_of(uint32_t stage, uint32_t matrix) const
    {
        return shared_memory<unsigned char>(stage * gguf.stage_bytes + warp() * records_bytes() +
                                            (matrix ? gguf.codes[0].record_bytes : 0));
    }
    FERRUM_DEVICE_MEMBER unsigned char *x_of(uint32_t stage) const
    {
        return shared_memory<unsigned char>(stage * gguf.stage_bytes + warps * records_bytes() +
                                            (alone ? warp() * x_bytes : 0));
    }
    FERRUM_DEVICE_MEMBER uint32_t team_thread() const
    {
        return alone ? lane() : thread_x();
    }
    FERRUM_DEVICE_MEMBER void team_barrier() const
    {
        if constexpr (alone)
            warp_barrier(full_mask);
        else
            barrier();
    }

    FERRUM_DEVICE_MEMBER void begin_matrix(const ferrum_gpu_weights_t &w, uint32_t matrix)
    {
        const uint64_t row = uint64_t(tile.expert) * tile_rows + tile_row;

        record[matrix] = static_cast<const unsigned char *>(w.data) + row * w.row_bytes +
                         at * gguf.codes[matrix].record_bytes + lane() * 16;
    }

    FERRUM_DEVICE_MEMBER void begin()
    {
        const uint32_t steps = (args.w.k + step - 1) / step, quarter = (steps + 3) / 4;

        at = alone ? least(warp() * quarter, steps) : 0;
        last = alone ? least(at + quarter, steps) : steps;
        begin_matrix(args.w, 0);
        if (UP)
            begin_matrix(args.up, matrices - 1);
        load_k = at * step + team_thread() % 8 * 8;
        loads = last - at;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < pieces; i++) {
            const uint32_t row = team_thread() / 8 + i * (threads / 8);
            const uint64_t place = row < ROWS ? places()[row] : no_place;
            x_end[i] = place == no_place ? 0 : args.w.k;
            x[i] = static_cast<const T *>(args.x) + (place == no_place ? 0 : place + load_k);
        }
    }

    FERRUM_DEVICE_MEMBER void load_records(uint32_t stage)
    {
        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++) {
            const uint32_t copies = gguf.codes[m].record_bytes / 16;
            unsigned char *shared = record_of(stage, m) + lane() * 16;
            FERRUM_UNROLL
            for (uint32_t i = 0; i < most_copies; i++) {
                if (lane() + 32 * i < copies)
                    copy_async<16>(shared + 512 * i, record[m] + 512 * i);
            }
            record[m] += gguf.codes[m].record_bytes;
        }
    }

    /** Sixteen bytes of x at any address. */
    FERRUM_DEVICE_MEMBER vec16_t gather(const T *from) const
    {
        vec16_t eight;

        FERRUM_UNROLL
        for (uint32_t i = 0; i < 4; i++)
            eight.word[i] = from[2 * i].bits | uint32_t(from[2 * i + 1].bits) << 16;
        return eight;
    }

    /** The next step's rows. Blocks of 16 bytes lie crosswise, so that reading a column of B meets
     *  no bank twice. */
    FERRUM_DEVICE_MEMBER void load_x(uint32_t stage)
    {
        const bool aligned = reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
        const uint32_t row = team_thread() / 8, block = team_thread() % 8;
        unsigned char *shared = x_of(stage) + row * step * 2 + (block ^ (row & 7)) * 16;

        FERRUM_UNROLL
        for (uint32_t i = 0; i < pieces; i++) {
            unsigned char *to = shared + i * (threads / 8) * step * 2;
            if (row < ROWS && aligned)
                copy_async_zfill<16>(to, x[i], load_k < x_end[i] ? 16 : 0);
            else if (row < ROWS)
                *reinterpret_cast<vec16_t *>(to) = load_k < x_end[i] ? gather(x[i]) : vec16_t{};
            x[i] += step;
        }
        load_k += step;
    }

    /** Copy the next step, if there is one, into a stage. */
    FERRUM_DEVICE_MEMBER void load(uint32_t stage)
    {
        if (loads > 0) {
            if (tile_row < tile_rows)
                load_records(stage);
            load_x(stage);
            loads--;
        }
        copy_async_commit();
    }
};
} // namespace gpu

#endif
