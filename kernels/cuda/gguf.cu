/* SPDX-License-Identifier: MIT */
/*
 * gguf_1, gguf_gate_up_1, gguf_8 .. gguf_32, gguf_gate_up_8 .. gguf_gate_up_32: rows of activations
 * times a GGUF format in tiles (gguf.cuh) on the matrix units.
 *
 * As in w4.cu weights are the A operand, a row of x is a column of B, and copies into shared memory
 * run `stages - 1` steps of 64 inputs ahead. Sums over 32 (16) inputs are scaled and added up in
 * f32 within each quarter of the inputs, quarters in order, and the row's scale comes last. That
 * order is the same for every tile shape, so a row has the same bits in every batch. With one row
 * (gguf_1) each of the four warps takes a quarter of one output tile; with more, each warp takes an
 * output tile. One kernel serves all formats: what they differ in is decided per 32 inputs, alike
 * for all threads.
 *
 * Preconditions: k a multiple of 8; grid (tiles, 1, ceil(n/16) or ceil(n/64)); mode PAIRS for
 * gguf_1, any but DISPATCHES otherwise; FERRUM_GGUF_SHARED_BYTES of shared memory.
 */
#include "kernels/cuda/gguf_stages.cuh"

/** Sums per lane and matrix: two rows by two columns of each B operand. */
template <uint32_t ROWS> constexpr uint32_t sums_of = ROWS < 8 ? 4 : ROWS / 8 * 4;

template <class T, uint32_t ROWS, bool UP>
struct gguf_product
    : gpu::gguf_stages<gguf_product<T, ROWS, UP>, ROWS, UP, ROWS == 1 ? 1 : 4, 128, sums_of<ROWS>> {
    using stages_t =
        gpu::gguf_stages<gguf_product, ROWS, UP, ROWS == 1 ? 1 : 4, 128, sums_of<ROWS>>;
    using stages_t::alone;
    using stages_t::args;
    using stages_t::at;
    using stages_t::columns;
    using stages_t::gguf;
    using stages_t::matrices;
    using stages_t::places;
    using stages_t::record_of;
    using stages_t::step;
    using stages_t::team_thread;
    using stages_t::threads;
    using stages_t::tile_row;
    using stages_t::tile_rows;
    using stages_t::x_of;
    using typename stages_t::sums_t;

    static constexpr uint32_t pieces = ROWS < 16 ? 1 : ROWS / 16; /* of 16 bytes of x, per thread */

    const T *x[pieces];
    uint32_t x_end[pieces];
    uint32_t load_k; /* input of this thread's piece */

    FERRUM_DEVICE_MEMBER void begin_x()
    {
        load_k = at * step + team_thread() % 8 * 8;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < pieces; i++) {
            const uint32_t row = team_thread() / 8 + i * (threads / 8);
            const uint64_t place = row < ROWS ? places()[row] : gpu::no_place;
            x_end[i] = place == gpu::no_place ? 0 : args.w.k;
            x[i] = static_cast<const T *>(args.x) + (place == gpu::no_place ? 0 : place + load_k);
        }
    }

    /** Sixteen bytes of x at any address. */
    FERRUM_DEVICE_MEMBER gpu::vec16_t gather(const T *from) const
    {
        gpu::vec16_t eight;

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
                gpu::copy_async_zfill<16>(to, x[i], load_k < x_end[i] ? 16 : 0);
            else if (row < ROWS)
                *reinterpret_cast<gpu::vec16_t *>(to) =
                    load_k < x_end[i] ? gather(x[i]) : gpu::vec16_t{};
            x[i] += step;
        }
        load_k += step;
    }

    /** B operands of inputs 32*half .. 32*half+31 of a stage. */
    FERRUM_DEVICE_MEMBER void read_x(uint32_t stage, uint32_t half, uint32_t column,
                                     uint32_t (&b)[4]) const
    {
        const unsigned char *rows = x_of(stage);

        if constexpr (alone) { /* the row is column 0: lanes 0 to 3 hold it */
            const uint32_t *words = reinterpret_cast<const uint32_t *>(rows) + half * 16;
            FERRUM_UNROLL
            for (uint32_t i = 0; i < 4; i++)
                b[i] = gpu::lane() < 4 ? words[i * 4 + gpu::lane()] : 0u;
        } else {
            const uint32_t row = gpu::lane() % 8, block = half * 4 + gpu::lane() / 8;
            gpu::ldmatrix_x4(b, rows + (column * 8 + row) * step * 2 + (block ^ row) * 16);
        }
    }

    /** Sums of 32 or 16 inputs, scaled, to those of the quarter. */
    FERRUM_DEVICE_MEMBER void scale(const float (&by)[2], float (&group)[columns][4],
                                    float (&sum)[columns * 4]) const
    {
        FERRUM_UNROLL
        for (uint32_t c = 0; c < columns; c++) {
            FERRUM_UNROLL
            for (uint32_t i = 0; i < 4; i++) {
                sum[c * 4 + i] = gpu::fma(by[i / 2], group[c][i], sum[c * 4 + i]);
                group[c][i] = 0.0f;
            }
        }
    }

    template <uint32_t HALF>
    FERRUM_DEVICE_MEMBER void multiply_half(uint32_t stage, sums_t &sum) const
    {
        uint32_t b[columns][4];

        FERRUM_UNROLL
        for (uint32_t c = 0; c < columns; c++)
            read_x(stage, HALF, c, b[c]);
        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++) {
            const ferrum_gguf_codes_t &codes = gguf.codes[m];
            const unsigned char *record = record_of(stage, m);
            const uint32_t *scales = reinterpret_cast<const uint32_t *>(record + codes.scales_at +
                                                                        HALF * codes.scales_next) +
                                     gpu::lane() / 4;
            const uint32_t word[2] = {scales[0], scales[8]};
            float group[columns][4] = {};
            gpu::gguf_operands_t a;
            gpu::gguf_operands<T, HALF>(codes, record, word, a);
            FERRUM_UNROLL
            for (uint32_t i = 0; i < 2; i++) {
                FERRUM_UNROLL
                for (uint32_t c = 0; c < columns; c++)
                    gpu::mma_m16n8k16<T>(group[c], a[i], {b[c][2 * i], b[c][2 * i + 1]});
                if (i == 1 || codes.sixteenths)
                    scale({gpu::gguf_scale<HALF>(codes, word[0], i),
                           gpu::gguf_scale<HALF>(codes, word[1], i)},
                          group, sum[m]);
            }
        }
    }

    FERRUM_DEVICE_MEMBER void multiply(uint32_t stage, sums_t &sum) const
    {
        multiply_half<0>(stage, sum);
        multiply_half<1>(stage, sum);
    }

    FERRUM_DEVICE_MEMBER void store(uint32_t column, uint32_t i) const
    {
        const uint32_t n = tile_row * 16 + gpu::lane() / 4 + i / 2 * 8;
        const uint32_t row = column * 8 + gpu::lane() % 4 * 2 + i % 2;
        const uint64_t place = row < ROWS ? places()[ROWS + row] : gpu::no_place;

        if (n >= args.w.n || place == gpu::no_place)
            return;
        const float value = stages_t::output(n, column * 4 + i);
        if (args.out_is_f32)
            static_cast<float *>(args.out)[place + n] = value;
        else
            static_cast<T *>(args.out)[place + n] = gpu::from_f32<T>(value);
    }

    explicit FERRUM_DEVICE_MEMBER gguf_product(const ferrum_gguf_args_t &args_) : stages_t(args_)
    {
    }

    FERRUM_DEVICE_MEMBER void run()
    {
        if (!stages_t::run_products(args.w.k) || tile_row >= tile_rows ||
            (alone && gpu::warp() != 0))
            return;
        FERRUM_NO_UNROLL
        for (uint32_t i = 0; i < columns * 4; i++)
            store(i / 4, i % 4);
    }
};

template <class T, uint32_t ROWS, bool UP>
FERRUM_DEVICE void run_gguf(const ferrum_gguf_args_t &args)
{
    gguf_product<T, ROWS, UP>(args).run();
}

#define ONE(name, act, ROWS, UP)                                                                   \
    FERRUM_KERNEL_INSTANCE(128, ferrum_##name##_##ROWS##_##act,                                    \
                           (run_gguf<gpu::act##_t, ROWS, UP>), (ferrum_gguf_args_t args), (args))
#define ALL(ROWS)                                                                                  \
    ONE(gguf, f16, ROWS, false)                                                                    \
    ONE(gguf, bf16, ROWS, false)                                                                   \
    ONE(gguf_gate_up, f16, ROWS, true)                                                             \
    ONE(gguf_gate_up, bf16, ROWS, true)
ALL(1)
ALL(8)
ALL(32)
