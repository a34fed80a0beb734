/* SPDX-License-Identifier: MIT */
/**
 * @file gguf_stages.cuh
 * @brief What all products over the tiles of gguf.cuh share: records on their way into shared
 * memory, some steps ahead of the products, and the sums of the quarters of the inputs.
 */
#ifndef FERRUM_KERNELS_CUDA_GGUF_STAGES_CUH
#define FERRUM_KERNELS_CUDA_GGUF_STAGES_CUH

#include "kernels/cuda/gguf.cuh"
#include "kernels/cuda/tiles.cuh"

namespace gpu
{
/**
 * A block of ROWS rows by TILES tiles of 16 outputs. With one row four warps share an output tile,
 * a quarter of the inputs each; with more, each warp has an output tile. @p Self has the rows of x,
 * of X_BYTES per step, and the products, whose sums are SUMS per lane and matrix:
 *
 *     void begin_x()                              before the first step
 *     void load_x(stage)                          copy the next step's rows into a stage
 *     void multiply(stage, float (&sum)[matrices][SUMS])
 */
template <class Self, uint32_t ROWS, bool UP, uint32_t TILES, uint32_t X_BYTES, uint32_t SUMS>
struct gguf_stages {
    static constexpr uint32_t step = 64, stages = FERRUM_GGUF_STAGES, quarters = 4;
    static constexpr bool alone = ROWS == 1; /* warps share an output tile */
    static constexpr uint32_t tiles = TILES, warps = alone ? quarters * TILES : TILES;
    static constexpr uint32_t threads = 32 * warps, matrices = UP ? 2 : 1;
    static constexpr uint32_t columns = ROWS < 8 ? 1 : ROWS / 8; /* B operands beside each other */
    static constexpr uint32_t x_bytes = ROWS * X_BYTES;
    static constexpr uint32_t most_copies = 3; /* of 16 bytes of a record, per lane */
    /* Shared memory: stages of records and x; sums of the quarters; places of rows. */
    static constexpr uint32_t sums_bytes = matrices * SUMS * threads * 4;
    using sums_t = float[matrices][SUMS];

    const ferrum_gguf_args_t &gguf;
    const ferrum_product_args_t &args;
    tile_t tile;
    uint32_t tile_row, tile_rows; /* of this warp; of a matrix */
    uint32_t at, last;            /* this warp's steps */
    /* Of the copies, which run ahead. */
    const unsigned char *record[matrices];
    uint32_t loads; /* steps */

    explicit FERRUM_DEVICE_MEMBER gguf_stages(const ferrum_gguf_args_t &gguf_)
        : gguf(gguf_), args(gguf_.product)
    {
    }

    FERRUM_DEVICE_MEMBER Self &self()
    {
        return *static_cast<Self *>(this);
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
    FERRUM_DEVICE_MEMBER uint32_t steps() const
    {
        return (args.w.k + step - 1) / step;
    }
    /** Steps of a quarter of the inputs. */
    FERRUM_DEVICE_MEMBER uint32_t quarter() const
    {
        return (steps() + quarters - 1) / quarters;
    }

    FERRUM_DEVICE_MEMBER void begin_matrix(const ferrum_gpu_weights_t &w, uint32_t matrix)
    {
        const uint64_t row = uint64_t(tile.expert) * tile_rows + tile_row;

        record[matrix] = static_cast<const unsigned char *>(w.data) + row * w.row_bytes +
                         at * gguf.codes[matrix].record_bytes + lane() * 16;
    }

    FERRUM_DEVICE_MEMBER void begin()
    {
        at = alone ? least(warp() % quarters * quarter(), steps()) : 0;
        last = alone ? least(at + quarter(), steps()) : steps();
        begin_matrix(args.w, 0);
        if (UP)
            begin_matrix(args.up, matrices - 1);
        loads = last - at;
        self().begin_x();
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

    /** Copy the next step, if there is one, into a stage. */
    FERRUM_DEVICE_MEMBER void load(uint32_t stage)
    {
        if (loads > 0) {
            if (tile_row < tile_rows)
                load_records(stage);
            self().load_x(stage);
            loads--;
        }
        copy_async_commit();
    }

    /** A lane's sums, away from its registers. */
    FERRUM_DEVICE_MEMBER float &total(uint32_t i) const
    {
        return sums_at()[i * threads + thread_x()];
    }

    /** Add a quarter to the sums in shared memory. */
    FERRUM_DEVICE_MEMBER void add_quarter(sums_t &quarter_sum) const
    {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < matrices * SUMS; i++) {
            float &sum = quarter_sum[i / SUMS][i % SUMS];
            total(i) += sum;
            sum = 0.0f;
        }
    }

    FERRUM_DEVICE_MEMBER void multiply_all()
    {
        sums_t sum = {};
        uint32_t stage = 0, quarter_left = quarter();

        FERRUM_UNROLL
        for (uint32_t i = 0; i < matrices * SUMS; i++)
            total(i) = 0.0f;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < stages - 1; i++)
            load(i);
        FERRUM_NO_UNROLL
        for (; at < last; at++) {
            copy_async_wait<stages - 2>();
            team_barrier();
            load(stage == 0 ? stages - 1 : stage - 1);
            if (tile_row < tile_rows)
                self().multiply(stage, sum);
            stage = stage + 1 == stages ? 0 : stage + 1;
            if (--quarter_left == 0 || at + 1 == last) {
                add_quarter(sum);
                quarter_left = quarter();
            }
        }
        copy_async_wait<0>();
    }

    /** Find the tile, and multiply: false if there is nothing to do. */
    FERRUM_DEVICE_MEMBER bool run_products(uint64_t x_row)
    {
        tile = find_tile<ROWS>(args, {});
        if (tile.count == 0)
            return false;
        find_places<ROWS>(args, tile, {}, x_row, places());
        barrier();
        tile_rows = (args.w.expert_rows + 15) / 16;
        tile_row = block_z() * tiles + (alone ? warp() / quarters : warp());
        begin();
        multiply_all();
        if constexpr (alone)
            barrier();
        return true;
    }

    /** Sum @p i of this lane over all quarters. */
    FERRUM_DEVICE_MEMBER float result(uint32_t i) const
    {
        if constexpr (!alone)
            return total(i);
        const uint32_t first = warp() / quarters * quarters;
        float sum = 0.0f;
        FERRUM_UNROLL
        for (uint32_t q = 0; q < quarters; q++)
            sum += sums_at()[i * threads + (first + q) * 32 + lane()];
        return sum;
    }

    /** The sum of an output, scaled, and its bias. */
    FERRUM_DEVICE_MEMBER float finish(const ferrum_gpu_weights_t &w, uint32_t n, float sum) const
    {
        const size_t padded = size_t(tile.expert) * tile_rows * 16 + n;
        const float value = sum * static_cast<const float *>(w.scales)[padded];

        return w.bias
                   ? value +
                         static_cast<const float *>(w.bias)[size_t(tile.expert) * w.expert_rows + n]
                   : value;
    }

    /** Output @p n, whose sum is @p i of this lane. */
    FERRUM_DEVICE_MEMBER float output(uint32_t n, uint32_t i) const
    {
        const float value = finish(args.w, n, result(i));

        return UP ? activate(args, value, finish(args.up, n, result((matrices - 1) * SUMS + i)))
                  : value;
    }
};
} // namespace gpu

#endif
