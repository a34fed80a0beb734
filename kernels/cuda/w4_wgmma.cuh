/* SPDX-License-Identifier: MIT */
/**
 * @file w4_wgmma.cuh
 * @brief A ring of stages in shared memory between the warpgroup that copies tiled 4-bit weights
 * and rows of x, and the two that multiply them by wgmma (w4_wgmma.cu).
 *
 * A stage has 64 inputs: x as wgmma's B, ROWS rows of 128 bytes, swizzled; codes and cells (scale
 * and zero) of eight tile rows, as they lie in memory. Weights come by bulk copies of whole tiles;
 * rows of x, which lie anywhere, by copy_async, because a bulk copy does not swizzle and a tensor
 * map has no list of rows; those that have to be gathered by element, by loads and stores. A stage
 * is full when 128 threads have seen their rows land and eight have sent their tiles, and empty
 * when both other warpgroups have seen their products end.
 */
#ifndef FERRUM_KERNELS_CUDA_W4_WGMMA_CUH
#define FERRUM_KERNELS_CUDA_W4_WGMMA_CUH

#include "kernels/cuda/tiles.cuh"
#include "kernels/cuda/w4.cuh"

#ifdef FERRUM_DEVICE_SM90A
namespace gpu
{
/** d (+)= a * b by the shape that d has and the type T. */
template <class T> struct wgmma_of;
template <> struct wgmma_of<f16_t> {
    static FERRUM_DEVICE_MEMBER void run(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                         bool add)
    {
        wgmma_m64n64k16_f16(d, a, b, add);
    }
    static FERRUM_DEVICE_MEMBER void run(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                         bool add)
    {
        wgmma_m64n128k16_f16(d, a, b, add);
    }
};
template <> struct wgmma_of<bf16_t> {
    static FERRUM_DEVICE_MEMBER void run(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                         bool add)
    {
        wgmma_m64n64k16_bf16(d, a, b, add);
    }
    static FERRUM_DEVICE_MEMBER void run(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                         bool add)
    {
        wgmma_m64n128k16_bf16(d, a, b, add);
    }
};

template <class T, uint32_t ROWS, bool UP> struct w4_ring {
    static constexpr uint32_t step = 64, group_threads = 128, stages = FERRUM_W4_WGMMA_STAGES;
    static constexpr uint32_t slots = 8; /* tile rows of a block: gate and up four each, or eight */
    static constexpr uint32_t matrix_slots = UP ? slots / 2 : slots;
    static constexpr uint32_t tile_bytes = 512, cell_bytes = 64;
    static constexpr uint32_t codes_at = ROWS * step * 2, cells_at = codes_at + slots * tile_bytes;
    static constexpr uint32_t stage_bytes = cells_at + slots * 2 * cell_bytes;
    static constexpr uint32_t pitch =
        slots * 16 + 4; /* floats between rows of sums: no conflicts */
    static constexpr uint32_t sums_at = stages * stage_bytes;
    static constexpr uint32_t places_at = sums_at + ROWS * pitch * 4;
    static constexpr uint32_t barriers_at = places_at + 2 * ROWS * 8;
    static constexpr uint32_t pieces = ROWS / 16; /* of 16 bytes of x, per copying thread */
    static constexpr uint32_t behind = 3;         /* steps whose rows are under way */
    static_assert(barriers_at + 2 * stages * 8 == FERRUM_W4_WGMMA_SHARED_BYTES(ROWS),
                  "as launched");
    static_assert(stage_bytes % 1024 == 0 && behind < stages, "swizzled atoms; no deadlock");

    const ferrum_product_args_t &args;
    tile_t tile;
    uint32_t tile_rows;   /* of a matrix */
    uint32_t steps;       /* of 64 inputs */
    uint32_t group_steps; /* 0: groups of half a step */

    explicit FERRUM_DEVICE_MEMBER w4_ring(const ferrum_product_args_t &args_)
        : args(args_), tile(find_tile<ROWS>(args_, {})), tile_rows((args_.w.expert_rows + 15) / 16),
          steps((args_.w.k + step - 1) / step),
          group_steps(args_.w.groups == 1 ? steps : args_.w.group_size / step)
    {
    }

    FERRUM_DEVICE_MEMBER uint64_t *places() const
    {
        return shared_memory<uint64_t>(places_at);
    }
    FERRUM_DEVICE_MEMBER uint64_t *full(uint32_t stage) const
    {
        return shared_memory<uint64_t>(barriers_at) + stage;
    }
    FERRUM_DEVICE_MEMBER uint64_t *empty(uint32_t stage) const
    {
        return full(stages + stage);
    }
    FERRUM_DEVICE_MEMBER unsigned char *stage_of(uint32_t stage) const
    {
        return shared_memory<unsigned char>(stage * stage_bytes);
    }
    FERRUM_DEVICE_MEMBER uint32_t tile_row_of(uint32_t slot) const
    {
        return block_z() * matrix_slots + slot % matrix_slots;
    }

    /** By one thread; the block's barrier follows. */
    FERRUM_DEVICE_MEMBER void begin() const
    {
        for (uint32_t i = 0; i < stages; i++) {
            mbarrier_init(full(i), group_threads + slots);
            mbarrier_init(empty(i), 2 * group_threads);
        }
        fence_async();
    }

    /** By the thread of a slot: its tile of @p at and the cells of the groups that begin in it. */
    FERRUM_DEVICE_MEMBER void send_weights(uint32_t at, uint32_t stage, uint32_t slot) const
    {
        const ferrum_gpu_weights_t &w = UP && slot >= matrix_slots ? args.up : args.w;
        const uint32_t tile_row = tile_row_of(slot);
        const uint64_t row = uint64_t(tile.expert) * tile_rows + tile_row;
        const uint32_t group = group_steps ? at / group_steps : at * 2;
        const uint32_t cells = group_steps ? cell_bytes : 2 * cell_bytes;

        if (tile_row >= tile_rows) {
            mbarrier_arrive(full(stage));
            return;
        }
        mbarrier_arrive_expect(full(stage), tile_bytes + cells);
        bulk_copy(stage_of(stage) + codes_at + slot * tile_bytes,
                  static_cast<const unsigned char *>(w.data) + (row * steps + at) * tile_bytes,
                  tile_bytes, full(stage));
        bulk_copy(stage_of(stage) + cells_at + slot * 2 * cell_bytes,
                  static_cast<const unsigned char *>(w.scales) +
                      (row * w.groups + group) * cell_bytes,
                  cells, full(stage));
    }

    /** The rows whose copies have landed may be read by wgmma. */
    FERRUM_DEVICE_MEMBER void tell_full(uint32_t stage) const
    {
        fence_async();
        mbarrier_arrive(full(stage));
    }

    /** Eight inputs, at places @p k on, of this thread's rows. */
    FERRUM_DEVICE_MEMBER void gather_x(unsigned char *shared, uint32_t k) const
    {
        const w4_gather_t from = w4_gather(args, tile.expert, k);

        FERRUM_NO_UNROLL
        for (uint32_t row = thread_x() / 8; row < ROWS; row += 16) {
            const uint64_t place = places()[row];
            *reinterpret_cast<vec16_t *>(shared) =
                place != no_place && k < args.w.k ? from.row(static_cast<const T *>(args.x) + place)
                                                  : vec16_t{};
            shared += 16 * step * 2;
        }
    }

    /** What the copying warpgroup does. */
    FERRUM_DEVICE_MEMBER void fill() const
    {
        const uint32_t thread = thread_x(), row = thread / 8, block = thread % 8;
        const uint32_t to = row * step * 2 + (block ^ (row & 7)) * 16;
        const bool gathers = w4_gathers(args);
        const T *x[pieces];
        uint32_t stage = 0, parity = 1, told = 0, k = block * 8;

        FERRUM_UNROLL
        for (uint32_t i = 0; i < pieces; i++) {
            const uint64_t place = places()[row + 16 * i];
            x[i] = place == no_place ? nullptr : static_cast<const T *>(args.x) + place + k;
        }
        FERRUM_NO_UNROLL
        for (uint32_t at = 0; at < steps; at++, k += step) {
            if (at >= stages)
                mbarrier_wait(empty(stage), parity);
            if (thread % (group_threads / slots) == 0)
                send_weights(at, stage, thread / (group_threads / slots));
            if (gathers)
                gather_x(stage_of(stage) + to, k);
            FERRUM_UNROLL
            for (uint32_t i = 0; i < pieces && !gathers; i++) {
                const bool there = x[i] != nullptr && k < args.w.k;
                copy_async_zfill<16>(stage_of(stage) + to + i * 16 * step * 2,
                                     there ? x[i] + size_t(at) * step : args.x, there ? 16 : 0);
            }
            copy_async_commit();
            if (at >= behind) {
                copy_async_wait<behind>();
                tell_full(told);
                told = told + 1 == stages ? 0 : told + 1;
            }
            stage = stage + 1 == stages ? 0 : stage + 1;
            parity ^= stage == 0;
        }
        copy_async_wait<0>();
        FERRUM_NO_UNROLL
        for (; told != stage; told = told + 1 == stages ? 0 : told + 1)
            tell_full(told);
    }
};
} // namespace gpu
#endif

#endif
