/* SPDX-License-Identifier: MIT */
/**
 * @file w4_stages.cuh
 * @brief Tiled 4-bit weights and rows of x on their way into shared memory, some steps ahead of the
 * products (w4.cu). Rows that are not 16-byte aligned, and those of act-order weights, whose inputs
 * come from the places that group_of names, are gathered element by element instead.
 */
#ifndef FERRUM_KERNELS_CUDA_W4_STAGES_CUH
#define FERRUM_KERNELS_CUDA_W4_STAGES_CUH

#include "kernels/cuda/tiles.cuh"
#include "kernels/cuda/w4.cuh"

namespace gpu
{
template <class T, uint32_t ROWS, bool UP> struct w4_stages {
    static constexpr uint32_t threads = 128, warps = 4, step = 64, stages = FERRUM_W4_STAGES;
    static constexpr bool alone = ROWS == 1; /* warps share an output tile */
    static constexpr uint32_t matrices = UP ? 2 : 1;
    static constexpr uint32_t columns = ROWS < 8 ? 1 : ROWS / 8;  /* B operands beside each other */
    static constexpr uint32_t sums = matrices * columns * 4;      /* per lane */
    static constexpr uint32_t team = alone ? 32 : threads;        /* threads that share x */
    static constexpr uint32_t pieces = ROWS < 16 ? 1 : ROWS / 16; /* of 16 bytes of x, per thread */
    /* Shared memory: stages of codes, scales and x; sums of the quarters; places of rows. */
    static constexpr uint32_t tile_bytes = 512, group_bytes = 64;
    static constexpr uint32_t matrix_bytes = tile_bytes + 2 * group_bytes;
    static constexpr uint32_t x_bytes = ROWS * step * 2;
    static constexpr uint32_t x_at = warps * matrices * matrix_bytes;
    static constexpr uint32_t stage_bytes = x_at + (alone ? warps : 1) * x_bytes;
    static constexpr uint32_t sums_at = stages * stage_bytes;
    static constexpr uint32_t places_at = sums_at + sums * threads * 4;
    static_assert(places_at + 2 * ROWS * 8 == FERRUM_W4_SHARED_BYTES(ROWS, UP), "as launched");

    const ferrum_product_args_t &args;
    tile_t tile;
    uint32_t tile_row, tile_rows; /* of this warp; of a matrix */
    uint32_t at, last;            /* this warp's steps */
    uint32_t group_steps;         /* 0: groups of half a step */
    /* Of the copies, which run ahead. */
    const unsigned char *codes[matrices], *scales[matrices];
    const unsigned char *x[pieces];
    uint32_t x_end[pieces];
    uint32_t load_k, load_left, loads; /* input of this thread's piece; to the group's end; steps */

    explicit FERRUM_DEVICE_MEMBER w4_stages(const ferrum_product_args_t &args_) : args(args_)
    {
    }

    FERRUM_DEVICE_MEMBER uint64_t *places() const
    {
        return shared_memory<uint64_t>(places_at);
    }
    FERRUM_DEVICE_MEMBER unsigned char *matrix_of(uint32_t stage, uint32_t matrix) const
    {
        return shared_memory<unsigned char>(stage * stage_bytes +
                                            (warp() * matrices + matrix) * matrix_bytes);
    }
    FERRUM_DEVICE_MEMBER const uint32_t *scales_of(uint32_t stage, uint32_t matrix,
                                                   uint32_t group) const
    {
        return reinterpret_cast<const uint32_t *>(matrix_of(stage, matrix) + tile_bytes +
                                                  group * group_bytes) +
               lane() / 4;
    }
    FERRUM_DEVICE_MEMBER unsigned char *x_of(uint32_t stage) const
    {
        return shared_memory<unsigned char>(stage * stage_bytes + x_at +
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

    FERRUM_DEVICE_MEMBER void begin_matrix(const ferrum_gpu_weights_t &w, uint32_t matrix,
                                           uint32_t steps)
    {
        const uint64_t row = uint64_t(tile.expert) * tile_rows + tile_row;
        const uint64_t group = group_steps ? at / group_steps : at * 2;

        codes[matrix] = static_cast<const unsigned char *>(w.data) +
                        (row * steps + at) * tile_bytes + lane() * 16;
        scales[matrix] = static_cast<const unsigned char *>(w.scales) +
                         (row * w.groups + group) * group_bytes + lane() * 16;
    }

    FERRUM_DEVICE_MEMBER uint32_t steps_to_group_end() const
    {
        return group_steps ? group_steps - at % group_steps : 1;
    }

    FERRUM_DEVICE_MEMBER void begin()
    {
        const uint32_t steps = (args.w.k + step - 1) / step, quarter = (steps + 3) / 4;

        at = alone ? least(warp() * quarter, steps) : 0;
        last = alone ? least(at + quarter, steps) : steps;
        group_steps = args.w.groups == 1 ? steps : args.w.group_size / step;
        begin_matrix(args.w, 0, steps);
        if (UP)
            begin_matrix(args.up, matrices - 1, steps);
        load_k = at * step + team_thread() % 8 * 8;
        load_left = steps_to_group_end();
        loads = last - at;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < pieces; i++) {
            const uint32_t row = team_thread() / 8 + i * (threads / 8);
            const uint64_t place = row < ROWS ? places()[row] : no_place;
            x_end[i] = place == no_place ? 0 : args.w.k;
            x[i] = reinterpret_cast<const unsigned char *>(
                static_cast<const T *>(args.x) + (place == no_place ? 0 : place + load_k));
        }
    }

    /** The weights of the next step to be copied. */
    FERRUM_DEVICE_MEMBER void load_weights(uint32_t stage)
    {
        const bool ends = load_left == 1;
        const uint32_t groups = group_steps ? 1 : 2;

        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++) {
            unsigned char *shared = matrix_of(stage, m) + lane() * 16;
            copy_async<16>(shared, codes[m]);
            if (lane() < 4 * groups)
                copy_async<16>(shared + tile_bytes, scales[m]);
            codes[m] += tile_bytes;
            if (ends)
                scales[m] += groups * group_bytes;
        }
        load_left = ends ? group_steps ? group_steps : 1 : load_left - 1;
    }

    /** The next step's rows, element by element. */
    FERRUM_DEVICE_MEMBER void gather_x(unsigned char *shared) const
    {
        const w4_gather_t from = w4_gather(args, tile.expert, load_k);

        FERRUM_NO_UNROLL
        for (uint32_t row = team_thread() / 8; row < ROWS; row += threads / 8) {
            const uint64_t place = places()[row];
            *reinterpret_cast<vec16_t *>(shared) =
                place != no_place && load_k < args.w.k
                    ? from.row(static_cast<const T *>(args.x) + place)
                    : vec16_t{};
            shared += threads / 8 * step * 2;
        }
    }

    /** The next step's rows. Blocks of 16 bytes lie crosswise, so that reading a column of B meets
     *  no bank twice. */
    FERRUM_DEVICE_MEMBER void load_x(uint32_t stage)
    {
        const uint32_t row = team_thread() / 8, block = team_thread() % 8;
        unsigned char *shared = x_of(stage) + row * step * 2 + (block ^ (row & 7)) * 16;

        if (w4_gathers(args)) {
            gather_x(shared);
        } else {
            FERRUM_UNROLL
            for (uint32_t i = 0; i < pieces; i++) {
                if (row < ROWS)
                    copy_async_zfill<16>(shared + i * (threads / 8) * step * 2, x[i],
                                         load_k < x_end[i] ? 16 : 0);
                x[i] += step * 2;
            }
        }
        load_k += step;
    }

    /** Copy the next step, if there is one, into a stage. */
    FERRUM_DEVICE_MEMBER void load(uint32_t stage)
    {
        if (loads > 0) {
            if (tile_row < tile_rows)
                load_weights(stage);
            load_x(stage);
            loads--;
        }
        copy_async_commit();
    }
};
} // namespace gpu

#endif
