/* SPDX-License-Identifier: MIT */
/*
 * int8_1, int8_gate_up_1, int8_8 .. int8_32, int8_gate_up_8 .. int8_gate_up_32: rows of x as int8
 * times a GGUF format in tiles (int8.cuh).
 *
 * As in gguf.cu but for the products: with one row a lane multiplies its codes of two outputs by
 * dp4a, four lanes add up what they have, and each goes on with one of the two outputs; with more,
 * m16n8k32 does. Either way a sum over 32 (16) inputs is an exact integer, which is scaled and
 * added in f32 in the same order. gate_up makes rows of int8 for down: the values of a block's
 * outputs meet in shared memory, 32 of which have a scale in common. So a block has 64 outputs,
 * with one row 32.
 *
 * Preconditions: as for gguf.cu, x and the output of gate_up rows of FERRUM_INT8_ROW_BYTES; for
 * that output the grid covers n padded to 64, and padding becomes zeros; FERRUM_INT8_SHARED_BYTES.
 */
#include "kernels/cuda/gguf_stages.cuh"
#include "kernels/cuda/int8.cuh"

/** Sums per lane and matrix: with one row that of one output. */
template <uint32_t ROWS> constexpr uint32_t sums_of = ROWS < 8 ? 1 : ROWS / 8 * 4;
template <uint32_t ROWS> constexpr uint32_t tiles_of = ROWS < 8 ? 2 : 4;

template <uint32_t ROWS, bool UP>
struct int8_product
    : gpu::gguf_stages<int8_product<ROWS, UP>, ROWS, UP, tiles_of<ROWS>, 80, sums_of<ROWS>> {
    using stages_t = gpu::gguf_stages<int8_product, ROWS, UP, tiles_of<ROWS>, 80, sums_of<ROWS>>;
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
    using stages_t::tile_row;
    using stages_t::warps;
    using stages_t::x_of;
    using typename stages_t::sums_t;

    static constexpr uint32_t outputs = tiles_of<ROWS> * 16, groups = outputs / 32;

    using operands_t = gpu::int8_operands_t[matrices];

    /* Of the copies: 16 bytes of codes, and a step's four floats. */
    const unsigned char *codes, *scales;
    bool has_codes, has_scales; /* a row that is there */

    FERRUM_DEVICE_MEMBER const unsigned char *row_at(uint64_t place) const
    {
        return static_cast<const unsigned char *>(args.x) + (place == gpu::no_place ? 0 : place);
    }

    FERRUM_DEVICE_MEMBER void begin_x()
    {
        const uint32_t thread = team_thread(), row = thread / 4;
        const uint64_t place = row < ROWS ? places()[row] : gpu::no_place;
        const uint64_t scales_place = thread < ROWS ? places()[thread] : gpu::no_place;

        has_codes = place != gpu::no_place;
        has_scales = scales_place != gpu::no_place;
        codes = row_at(place) + at * step + thread % 4 * 16;
        scales = row_at(scales_place) + stages_t::steps() * step + at * 16;
    }

    /** The next step's rows: codes, then scales. */
    FERRUM_DEVICE_MEMBER void load_x(uint32_t stage)
    {
        unsigned char *shared = x_of(stage) + team_thread() * 16;

        if (team_thread() < ROWS * 4)
            gpu::copy_async_zfill<16>(shared, codes, has_codes ? 16 : 0);
        if (team_thread() < ROWS)
            gpu::copy_async_zfill<16>(shared + ROWS * step, scales, has_scales ? 16 : 0);
        codes += step;
        scales += 16;
    }

    /** B operands of a row of x for both halves: words 2*half, 2*half + 1. */
    FERRUM_DEVICE_MEMBER gpu::vec16_t read_codes(uint32_t stage, uint32_t row) const
    {
        return *reinterpret_cast<const gpu::vec16_t *>(x_of(stage) + row * step +
                                                       gpu::lane() % 4 * 16);
    }
    /** A row's scale in a half, and that times the sum of its codes. */
    FERRUM_DEVICE_MEMBER gpu::vec8_t read_scales(uint32_t stage, uint32_t row, uint32_t half) const
    {
        return *reinterpret_cast<const gpu::vec8_t *>(x_of(stage) + ROWS * step + row * 16 +
                                                      half * 8);
    }
    /** Scales of the outputs of a record from @p output on, for a half. */
    FERRUM_DEVICE_MEMBER const uint32_t *words_of(uint32_t matrix, const unsigned char *record,
                                                  uint32_t half, uint32_t output) const
    {
        const ferrum_gguf_codes_t &of = gguf.codes[matrix];
        return reinterpret_cast<const uint32_t *>(record + of.scales_at + half * of.scales_next) +
               output;
    }

    /** This lane's output with one row. */
    FERRUM_DEVICE_MEMBER uint32_t own_output() const
    {
        return gpu::lane() / 4 + gpu::lane() % 2 * 8;
    }

    /** Sum of what four lanes have of this lane's output. */
    FERRUM_DEVICE_MEMBER int32_t add_lanes(const int32_t (&part)[2]) const
    {
        const bool second = gpu::lane() % 2 != 0;
        int32_t sum = second ? part[1] : part[0];

        sum += gpu::shuffle_xor(gpu::full_mask, second ? part[0] : part[1], 1);
        return sum + gpu::shuffle_xor(gpu::full_mask, sum, 2);
    }

    template <uint32_t HALF>
    FERRUM_DEVICE_MEMBER void multiply_row(uint32_t stage, const operands_t &a,
                                           const gpu::vec16_t &x, sums_t &sum) const
    {
        const gpu::vec8_t of_x = read_scales(stage, 0, HALF);
        const float sx = gpu::bit_cast<float>(of_x.word[0]);
        const int32_t start = gpu::lane() % 4 == 0 ? gpu::int8_magic_bits : 0;

        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++) {
            const ferrum_gguf_codes_t &of = gguf.codes[m];
            const uint32_t word = *words_of(m, record_of(stage, m), HALF, own_output());
            int32_t part[2] = {start, start};
            FERRUM_UNROLL
            for (uint32_t i = 0; i < 2; i++) {
                FERRUM_UNROLL
                for (uint32_t r = 0; r < 2; r++)
                    part[r] = gpu::dp4a(a[m][HALF][2 * i + r], x.word[2 * HALF + i], part[r]);
                if (i == 0 && !of.sixteenths)
                    continue;
                sum[m][0] =
                    gpu::fma(gpu::gguf_scale<HALF>(of, word, i),
                             gpu::int8_sum(add_lanes(part), sx, -gpu::int8_magic * sx), sum[m][0]);
                part[0] = part[1] = start;
            }
            if (of.shifted)
                sum[m][0] = gpu::fma(gpu::int8_shift(of, word), gpu::bit_cast<float>(of_x.word[1]),
                                     sum[m][0]);
        }
    }

    /** What a half needs of the rows of x that are this lane's columns. */
    struct half_t {
        float sx[columns][2], minus_magic[columns][2], total[columns][2];
    };

    FERRUM_DEVICE_MEMBER void read_half(uint32_t stage, uint32_t half, half_t &x) const
    {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < columns * 2; i++) {
            const gpu::vec8_t of_x =
                read_scales(stage, i / 2 * 8 + gpu::lane() % 4 * 2 + i % 2, half);
            x.sx[i / 2][i % 2] = gpu::bit_cast<float>(of_x.word[0]);
            x.minus_magic[i / 2][i % 2] = -gpu::int8_magic * x.sx[i / 2][i % 2];
            x.total[i / 2][i % 2] = gpu::bit_cast<float>(of_x.word[1]);
        }
    }

    /** Products of an A operand, scaled, to the sums of a matrix. */
    FERRUM_DEVICE_MEMBER void multiply_operand(const uint32_t (&a)[4], const float (&scale)[2],
                                               const gpu::vec16_t (&b)[columns], uint32_t half,
                                               const half_t &x, float (&sum)[sums_of<ROWS>]) const
    {
        FERRUM_UNROLL
        for (uint32_t c = 0; c < columns; c++) {
            int32_t group[4];
            gpu::mma_m16n8k32_s8_from(group, a, {b[c].word[2 * half], b[c].word[2 * half + 1]},
                                      gpu::int8_magic_bits);
            FERRUM_UNROLL
            for (uint32_t i = 0; i < 4; i++)
                sum[c * 4 + i] = gpu::fma(
                    scale[i / 2], gpu::int8_sum(group[i], x.sx[c][i % 2], x.minus_magic[c][i % 2]),
                    sum[c * 4 + i]);
        }
    }

    template <uint32_t HALF>
    FERRUM_DEVICE_MEMBER void multiply_rows(uint32_t stage, operands_t &a,
                                            const gpu::vec16_t (&b)[columns], sums_t &sum) const
    {
        half_t x;

        read_half(stage, HALF, x);
        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++) {
            const ferrum_gguf_codes_t &of = gguf.codes[m];
            const uint32_t *words = words_of(m, record_of(stage, m), HALF, gpu::lane() / 4);
            const uint32_t word[2] = {words[0], words[8]};
            float scale[2] = {gpu::gguf_scale<HALF>(of, word[0], 0),
                              gpu::gguf_scale<HALF>(of, word[1], 0)};
            uint32_t(&operand)[4] = a[m][HALF];
            const uint32_t second[2] = {operand[2], operand[3]};
            /* Blocks of 16 with scales of their own go one after the other, beside zeros. */
            if (of.sixteenths)
                operand[2] = operand[3] = 0;
            FERRUM_NO_UNROLL
            for (uint32_t block = 0; block <= of.sixteenths; block++) {
                if (block != 0) {
                    operand[0] = operand[1] = 0;
                    operand[2] = second[0];
                    operand[3] = second[1];
                    scale[0] = gpu::gguf_scale<HALF>(of, word[0], 1);
                    scale[1] = gpu::gguf_scale<HALF>(of, word[1], 1);
                }
                multiply_operand(operand, scale, b, HALF, x, sum[m]);
            }
            if (!of.shifted)
                continue;
            const float shift[2] = {gpu::int8_shift(of, word[0]), gpu::int8_shift(of, word[1])};
            FERRUM_UNROLL
            for (uint32_t i = 0; i < columns * 4; i++)
                sum[m][i] = gpu::fma(shift[i % 4 / 2], x.total[i / 4][i % 2], sum[m][i]);
        }
    }

    FERRUM_DEVICE_MEMBER void multiply(uint32_t stage, sums_t &sum) const
    {
        operands_t a;

        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++)
            gpu::int8_decode(gguf.codes[m], record_of(stage, m), a[m]);
        if constexpr (alone) {
            const gpu::vec16_t x = read_codes(stage, 0);
            multiply_row<0>(stage, a, x, sum);
            multiply_row<1>(stage, a, x, sum);
        } else {
            gpu::vec16_t b[columns];
            FERRUM_UNROLL
            for (uint32_t c = 0; c < columns; c++)
                b[c] = read_codes(stage, c * 8 + gpu::lane() / 4);
            multiply_rows<0>(stage, a, b, sum);
            multiply_rows<1>(stage, a, b, sum);
        }
    }

    /** Give every output of this lane to @p store(output of the block, row, output, sum). */
    template <class Store> FERRUM_DEVICE_MEMBER void for_outputs(Store store) const
    {
        const uint32_t first = tile_row % tiles_of<ROWS> * 16;

        if constexpr (alone) {
            if (gpu::warp() % stages_t::quarters == 0 && gpu::lane() % 4 < 2)
                store(first + own_output(), 0u, block_first() + first + own_output(), 0u);
        } else {
            FERRUM_NO_UNROLL
            for (uint32_t i = 0; i < columns * 4; i++) {
                const uint32_t output = first + gpu::lane() / 4 + i % 4 / 2 * 8;
                store(output, i / 4 * 8 + gpu::lane() % 4 * 2 + i % 2, block_first() + output, i);
            }
        }
    }
    FERRUM_DEVICE_MEMBER uint32_t block_first() const
    {
        return gpu::block_z() * outputs;
    }

    FERRUM_DEVICE_MEMBER void store_floats() const
    {
        for_outputs([&](uint32_t, uint32_t row, uint32_t n, uint32_t i) {
            const uint64_t place = places()[ROWS + row];
            if (n < args.w.n && place != gpu::no_place)
                static_cast<float *>(args.out)[place + n] = stages_t::output(n, i);
        });
    }

    FERRUM_DEVICE_MEMBER void store_int8() const
    {
        float *values = gpu::shared_memory<float>(); /* [ROWS][outputs], where the stages were */
        const uint32_t out_steps = (args.w.n + step - 1) / step;

        gpu::barrier();
        for_outputs([&](uint32_t output, uint32_t row, uint32_t n, uint32_t i) {
            values[row * outputs + output] = n < args.w.n ? stages_t::output(n, i) : 0.0f;
        });
        gpu::barrier();
        FERRUM_NO_UNROLL
        for (uint32_t i = gpu::warp(); i < ROWS * groups; i += warps) {
            const uint64_t place = places()[ROWS + i / groups];
            if (place != gpu::no_place)
                gpu::int8_quantise(values[i * 32 + gpu::lane()],
                                   gpu::block_z() * groups + i % groups, out_steps,
                                   static_cast<unsigned char *>(args.out) + place);
        }
    }

    explicit FERRUM_DEVICE_MEMBER int8_product(const ferrum_gguf_args_t &args_) : stages_t(args_)
    {
    }

    FERRUM_DEVICE_MEMBER void run(uint64_t x_row)
    {
        if (!stages_t::run_products(x_row))
            return;
        if constexpr (UP)
            store_int8();
        else
            store_floats();
    }
};

template <uint32_t ROWS, bool UP> FERRUM_DEVICE void run_int8(const ferrum_gguf_args_t &args)
{
    int8_product<ROWS, UP>(args).run(FERRUM_INT8_ROW_BYTES(args.product.w.k));
}

#define ONE(name, ROWS, UP)                                                                        \
    FERRUM_KERNEL_INSTANCE((tiles_of<ROWS> == 2 ? 256 : 128), ferrum_##name##_##ROWS,              \
                           (run_int8<ROWS, UP>), (ferrum_gguf_args_t args), (args))
#define ALL(ROWS)                                                                                  \
    ONE(int8, ROWS, false)                                                                         \
    ONE(int8_gate_up, ROWS, true)
ALL(1)
ALL(8)
ALL(32)
