/* SPDX-License-Identifier: MIT */
/*
 * w4_wgmma_64, _128, w4_wgmma_gate_up_64, _128: the products of w4.cu for many rows per expert, by
 * the warpgroup instructions of sm_90a. They exist in the code for sm_90a only.
 *
 * One warpgroup copies (w4_wgmma.cuh), two multiply: 64 outputs each or, for gate and up, 64 of
 * gate and the same 64 of up. The tiles need no layout of their own: the part of an m64k16 A
 * operand that a warp holds is the m16k16 operand of mma.sync, so a warp decodes the words of one
 * tile row into the registers that wgmma takes as A; B is the 64 or 128 rows of x. While products
 * run, a warp decodes the next step.
 *
 * Sums go the way of w4.cu: of a group from zero, scaled and added to the quarter's, quarters in
 * order. Folding by groups takes two sets of sums: 64 + 64 registers for 128 rows, which setmaxnreg
 * makes room for. For 256 rows it would be 256, and folding in shared memory would cost more than
 * the products; scaling the weights instead would round them once more.
 *
 * Within an instruction of 16 inputs the hardware may add in another order than mma.sync does; PTX
 * leaves it open. So, although the emulated sums are the same bit by bit, a choice between the two
 * families by the size of a batch is made only for those who ask for it (FERRUM_CUDA_WGMMA).
 *
 * Preconditions: those of w4.cu; 384 threads; grid (tiles, 1, ceil(n/128) or, for gate and up,
 * ceil(n/64)); FERRUM_W4_WGMMA_SHARED_BYTES of shared memory.
 */
#include "kernels/cuda/w4_wgmma.cuh"

#ifdef FERRUM_DEVICE_SM90A
template <class T, uint32_t ROWS, bool UP> struct w4_wgmma_product : gpu::w4_ring<T, ROWS, UP> {
    using ring_t = gpu::w4_ring<T, ROWS, UP>;
    using ring_t::args;
    using ring_t::group_steps;
    using ring_t::group_threads;
    using ring_t::pitch;
    using ring_t::places;
    using ring_t::stages;
    using ring_t::steps;
    using ring_t::tile;

    using sums_t = float[ROWS / 2];

    /** A step of a warp's tile row: operands, and what scales their groups. */
    struct operands_t {
        uint32_t a[4][4];
        uint32_t cells[2][2]; /* of each half of the inputs: for outputs g and g+8 */
    };

    uint32_t stage, parity; /* of the next step to decode */
    uint32_t held;          /* the stage of the step that is multiplied */
    uint32_t group_left, quarter_left;
    bool fresh, first; /* no sums of the group yet; no quarter yet */

    explicit FERRUM_DEVICE_MEMBER w4_wgmma_product(const ferrum_product_args_t &args_)
        : ring_t(args_)
    {
    }

    FERRUM_DEVICE_MEMBER uint32_t slot() const
    {
        return gpu::warp() - group_threads / 32;
    }
    FERRUM_DEVICE_MEMBER float *sums() const
    {
        return gpu::shared_memory<float>(ring_t::sums_at);
    }

    /** Wait for a step's stage and decode it. */
    template <bool HALVES> FERRUM_DEVICE_MEMBER void decode(operands_t &out)
    {
        const unsigned char *from = ring_t::stage_of(stage);
        const unsigned char *codes = from + ring_t::codes_at + slot() * ring_t::tile_bytes;
        const unsigned char *cells = from + ring_t::cells_at + slot() * 2 * ring_t::cell_bytes;

        gpu::mbarrier_wait(ring_t::full(stage), parity);
        const gpu::vec16_t words = reinterpret_cast<const gpu::vec16_t *>(codes)[gpu::lane()];
        FERRUM_UNROLL
        for (uint32_t half = 0; half < (HALVES ? 2 : 1); half++) {
            const uint32_t *pair = reinterpret_cast<const uint32_t *>(cells) + half * 16;
            out.cells[half][0] = pair[gpu::lane() / 4];
            out.cells[half][1] = pair[gpu::lane() / 4 + 8];
        }
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t half = HALVES ? i / 2 : 0;
            const gpu::w4_zeros_t zeros =
                gpu::w4_codes<T>::zeros(out.cells[half][0], out.cells[half][1]);
            gpu::w4_codes<T>::decode(words.word[i], zeros, out.a[i]);
        }
        stage = stage + 1 == stages ? 0 : stage + 1;
        parity ^= stage == 0;
    }

    /** Start the products of operands first_part .. first_part + PARTS - 1. */
    template <uint32_t PARTS>
    FERRUM_DEVICE_MEMBER void start(const operands_t &now, uint32_t first_part, sums_t &group_sum)
    {
        const uint64_t x = gpu::wgmma_operand(ring_t::stage_of(held));

        gpu::wgmma_fence();
        FERRUM_UNROLL
        for (uint32_t i = first_part; i < first_part + PARTS; i++) {
            gpu::wgmma_of<T>::run(group_sum, now.a[i], x + i * 32 / 16, !fresh);
            fresh = false;
        }
        gpu::wgmma_commit();
    }

    /** The sums of a group, scaled, to those of the quarter. */
    FERRUM_DEVICE_MEMBER void fold(const uint32_t (&cells)[2], const sums_t &group_sum,
                                   sums_t &quarter_sum)
    {
        const bool bfloat = args.w.layout == FERRUM_LAYOUT_W4_TILES_BF16;
        const float scale[2] = {gpu::w4_scale(cells[0], bfloat), gpu::w4_scale(cells[1], bfloat)};

        FERRUM_UNROLL
        for (uint32_t i = 0; i < ROWS / 2; i++)
            quarter_sum[i] = gpu::fma(scale[i / 2 % 2], group_sum[i], quarter_sum[i]);
        fresh = true;
    }

    /** Add a quarter to the sums in shared memory: [row][output]. */
    FERRUM_DEVICE_MEMBER void add_quarter(sums_t &quarter_sum)
    {
        float *to = sums() + gpu::lane() % 4 * 2 * pitch + slot() * 16 + gpu::lane() / 4;

        FERRUM_UNROLL
        for (uint32_t i = 0; i < ROWS / 2; i++) {
            float &sum = to[(i / 4 * 8 + i % 2) * pitch + i / 2 % 2 * 8];
            sum = (first ? 0.0f : sum) + quarter_sum[i];
            quarter_sum[i] = 0.0f;
        }
        first = false;
        quarter_left = (steps + 3) / 4;
    }

    /** Multiply a step, and decode the next one meanwhile. */
    template <bool HALVES>
    FERRUM_DEVICE_MEMBER void multiply(uint32_t at, const operands_t &now, operands_t &next,
                                       sums_t &group_sum, sums_t &quarter_sum)
    {
        const bool quarter_ends = quarter_left == 1 || at + 1 == steps;
        const bool group_ends = HALVES || group_left == 1 || quarter_ends;

        held = stage == 0 ? stages - 1 : stage - 1;
        if (HALVES) {
            start<2>(now, 0, group_sum);
            gpu::wgmma_wait<0>();
            fold(now.cells[0], group_sum, quarter_sum);
            start<2>(now, 2, group_sum);
        } else {
            start<4>(now, 0, group_sum);
        }
        if (at + 1 < steps)
            decode<HALVES>(next);
        gpu::wgmma_wait<0>();
        gpu::mbarrier_arrive(ring_t::empty(held));
        if (group_ends)
            fold(now.cells[HALVES ? 1 : 0], group_sum, quarter_sum);
        group_left = group_left > 1 ? group_left - 1 : group_steps;
        quarter_left--;
        if (quarter_ends)
            add_quarter(quarter_sum);
    }

    template <bool HALVES> FERRUM_DEVICE_MEMBER void multiply_all()
    {
        sums_t group_sum, quarter_sum = {};
        operands_t even, odd;

        stage = parity = 0;
        group_left = group_steps;
        quarter_left = (steps + 3) / 4;
        fresh = first = true;
        decode<HALVES>(even);
        FERRUM_NO_UNROLL
        for (uint32_t at = 0; at < steps; at += 2) {
            multiply<HALVES>(at, even, odd, group_sum, quarter_sum);
            if (at + 1 < steps)
                multiply<HALVES>(at + 1, odd, even, group_sum, quarter_sum);
        }
    }

    FERRUM_DEVICE_MEMBER void store(uint32_t row, uint32_t output) const
    {
        const uint32_t n = gpu::block_z() * ring_t::matrix_slots * 16 + output;
        const uint64_t place = places()[ROWS + row];
        const size_t bias = size_t(tile.expert) * args.w.expert_rows + n;

        if (n >= args.w.n || place == gpu::no_place)
            return;
        float value = sums()[row * pitch + output];
        if (args.w.bias)
            value += static_cast<const float *>(args.w.bias)[bias];
        if (UP) {
            float up = sums()[row * pitch + ring_t::matrix_slots * 16 + output];
            if (args.up.bias)
                up += static_cast<const float *>(args.up.bias)[bias];
            value = gpu::activate(args, value, up);
        }
        if (args.out_is_f32)
            static_cast<float *>(args.out)[place + n] = value;
        else
            static_cast<T *>(args.out)[place + n] = gpu::from_f32<T>(value);
    }

    /** Rows by warps, outputs by lanes. */
    FERRUM_DEVICE_MEMBER void store_all() const
    {
        FERRUM_NO_UNROLL
        for (uint32_t row = slot(); row < ROWS; row += 8) {
            FERRUM_UNROLL
            for (uint32_t i = 0; i < ring_t::matrix_slots * 16; i += 32)
                store(row, i + gpu::lane());
        }
    }

    FERRUM_DEVICE_MEMBER void run()
    {
        enum {
            ALL_PRODUCTS = 1 /* a named barrier */
        };

        if (tile.count == 0)
            return;
        gpu::find_places<ROWS>(args, tile, {}, args.w.k, places());
        if (gpu::thread_x() == 0)
            ring_t::begin();
        gpu::barrier();
        if (gpu::thread_x() < group_threads) {
            gpu::registers_decrease<56>();
            ring_t::fill();
        } else {
            gpu::registers_increase<224>();
            if (group_steps == 0)
                multiply_all<true>();
            else
                multiply_all<false>();
            gpu::named_barrier_sync(ALL_PRODUCTS, 2 * group_threads);
            store_all();
        }
    }
};

template <class T, uint32_t ROWS, bool UP>
FERRUM_DEVICE void run_w4_wgmma(const ferrum_product_args_t &args)
{
    w4_wgmma_product<T, ROWS, UP>(args).run();
}

/* One block fills a multiprocessor: 168 registers a thread, which setmaxnreg deals out anew. */
#define ONE(name, act, ROWS, UP)                                                                   \
    FERRUM_KERNEL_SM90A(384, ferrum_##name##_##ROWS##_##act, ferrum_product_args_t args)           \
    {                                                                                              \
        run_w4_wgmma<gpu::act##_t, ROWS, UP>(args);                                                \
    }
#define ALL(ROWS)                                                                                  \
    ONE(w4_wgmma, f16, ROWS, false)                                                                \
    ONE(w4_wgmma, bf16, ROWS, false)                                                               \
    ONE(w4_wgmma_gate_up, f16, ROWS, true)                                                         \
    ONE(w4_wgmma_gate_up, bf16, ROWS, true)
ALL(64)
ALL(128)
#endif
