/* SPDX-License-Identifier: MIT */
/*
 * w4_1, w4_gate_up_1, w4_8 .. w4_64, w4_gate_up_8 .. w4_gate_up_64: rows of activations times tiled
 * 4-bit weights (w4.cuh) on the matrix units.
 *
 * Weights are the A operand, so that 16 outputs meet as few as 8 rows; a row of x is a column of B.
 * Copies into shared memory run `stages - 1` steps of 64 inputs ahead. Sums of one group of exact
 * products (q - zero) * x are scaled once; groups add up in order within each quarter of the
 * inputs, quarters in order. That order is the same for every tile shape, so a row has the same
 * bits in every batch. With one row (w4_1) each of the four warps takes a quarter of one output
 * tile; with more, each warp takes an output tile.
 *
 * Preconditions: k a multiple of 8, and so the distance of rows of x; groups of 32, of a multiple of
 * 64, or one; grid (tiles, 1, ceil(n/16) or ceil(n/64)); mode PAIRS for w4_1, any but DISPATCHES
 * otherwise; FERRUM_W4_SHARED_BYTES of shared memory.
 */
#include "kernels/cuda/w4_stages.cuh"

template <class T, uint32_t ROWS, bool UP> struct w4_product : gpu::w4_stages<T, ROWS, UP> {
    using stages_t = gpu::w4_stages<T, ROWS, UP>;
    using stages_t::alone;
    using stages_t::args;
    using stages_t::at;
    using stages_t::columns;
    using stages_t::group_steps;
    using stages_t::last;
    using stages_t::load;
    using stages_t::matrices;
    using stages_t::matrix_of;
    using stages_t::places;
    using stages_t::scales_of;
    using stages_t::stages;
    using stages_t::step;
    using stages_t::sums;
    using stages_t::sums_at;
    using stages_t::threads;
    using stages_t::tile;
    using stages_t::tile_row;
    using stages_t::tile_rows;
    using stages_t::warps;
    using stages_t::x_of;

    using sums_t = float[matrices][columns][4];

    uint32_t quarter_left; /* steps to the end of the quarter */
    uint32_t group_left;   /* steps to the end of the group */

    /** Steps of a quarter of the inputs. */
    FERRUM_DEVICE_MEMBER uint32_t quarter() const
    {
        return ((args.w.k + step - 1) / step + 3) / 4;
    }
    /** A lane's sums, away from its registers. */
    FERRUM_DEVICE_MEMBER float &total(uint32_t i) const
    {
        return gpu::shared_memory<float>(sums_at)[i * threads + gpu::thread_x()];
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

    /** The sums of a group, scaled, to those of the quarter. */
    FERRUM_DEVICE_MEMBER void scale_group(uint32_t stage, uint32_t group, sums_t &group_sum,
                                          sums_t &quarter_sum) const
    {
        const bool bfloat = args.w.layout == FERRUM_LAYOUT_W4_TILES_BF16;

        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++) {
            const uint32_t *words = scales_of(stage, m, group);
            const float scale[2] = {gpu::w4_scale(words[0], bfloat),
                                    gpu::w4_scale(words[8], bfloat)};
            FERRUM_UNROLL
            for (uint32_t c = 0; c < columns; c++) {
                FERRUM_UNROLL
                for (uint32_t i = 0; i < 4; i++) {
                    quarter_sum[m][c][i] =
                        gpu::fma(scale[i / 2], group_sum[m][c][i], quarter_sum[m][c][i]);
                    group_sum[m][c][i] = 0.0f;
                }
            }
        }
    }

    /** Half a step: 32 inputs. */
    FERRUM_DEVICE_MEMBER void multiply_half(uint32_t stage, uint32_t half,
                                            const gpu::w4_zeros_t (&zero)[matrices],
                                            sums_t &group_sum) const
    {
        uint32_t b[columns][4];

        FERRUM_UNROLL
        for (uint32_t c = 0; c < columns; c++)
            read_x(stage, half, c, b[c]);
        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++) {
            const uint32_t *words = reinterpret_cast<const uint32_t *>(matrix_of(stage, m)) +
                                    gpu::lane() * 4 + half * 2;
            const gpu::vec8_t word = *reinterpret_cast<const gpu::vec8_t *>(words);
            FERRUM_UNROLL
            for (uint32_t part = 0; part < 2; part++) {
                uint32_t a[4];
                gpu::w4_codes<T>::decode(word.word[part], zero[m], a);
                FERRUM_UNROLL
                for (uint32_t c = 0; c < columns; c++)
                    gpu::mma_m16n8k16<T>(group_sum[m][c], a, {b[c][2 * part], b[c][2 * part + 1]});
            }
        }
    }

    FERRUM_DEVICE_MEMBER void read_zeros(uint32_t stage, uint32_t group,
                                         gpu::w4_zeros_t (&zero)[matrices]) const
    {
        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++) {
            const uint32_t *words = scales_of(stage, m, group);
            zero[m] = gpu::w4_codes<T>::zeros(words[0], words[8]);
        }
    }

    /** Step `at`, which lies in a stage. */
    FERRUM_DEVICE_MEMBER void multiply(uint32_t stage, sums_t &group_sum, sums_t &quarter_sum)
    {
        const bool halves = group_steps == 0;
        const bool quarter_ends = quarter_left == 1 || at + 1 == last;
        gpu::w4_zeros_t zero[matrices];

        read_zeros(stage, 0, zero);
        multiply_half(stage, 0, zero, group_sum);
        if (halves) {
            scale_group(stage, 0, group_sum, quarter_sum);
            read_zeros(stage, 1, zero);
        }
        multiply_half(stage, 1, zero, group_sum);
        if (group_left == 1 || quarter_ends)
            scale_group(stage, halves ? 1 : 0, group_sum, quarter_sum);
        group_left = group_left > 1 ? group_left - 1 : group_steps ? group_steps : 1;
        quarter_left--;
        if (quarter_ends)
            add_quarter(quarter_sum);
    }

    /** Add a quarter to the sums in shared memory. */
    FERRUM_DEVICE_MEMBER void add_quarter(sums_t &quarter_sum)
    {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < sums; i++) {
            float &sum = quarter_sum[i / 4 / columns][i / 4 % columns][i % 4];
            total(i) += sum;
            sum = 0.0f;
        }
        quarter_left = quarter();
    }

    FERRUM_DEVICE_MEMBER void multiply_all()
    {
        sums_t group_sum = {}, quarter_sum = {};

        FERRUM_UNROLL
        for (uint32_t i = 0; i < sums; i++)
            total(i) = 0.0f;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < stages - 1; i++)
            load(i);
        uint32_t stage = 0;
        FERRUM_NO_UNROLL
        for (; at < last; at++) {
            gpu::copy_async_wait<stages - 2>();
            stages_t::team_barrier();
            load(stage == 0 ? stages - 1 : stage - 1);
            if (tile_row < tile_rows)
                multiply(stage, group_sum, quarter_sum);
            stage = stage + 1 == stages ? 0 : stage + 1;
        }
        gpu::copy_async_wait<0>();
    }

    /** Sum @p i of this lane over all quarters. */
    FERRUM_DEVICE_MEMBER float result(uint32_t i) const
    {
        if constexpr (!alone)
            return total(i);
        float sum = 0.0f;
        FERRUM_UNROLL
        for (uint32_t q = 0; q < warps; q++)
            sum += gpu::shared_memory<float>(sums_at)[i * threads + q * 32 + gpu::lane()];
        return sum;
    }

    FERRUM_DEVICE_MEMBER void store(uint32_t column, uint32_t i) const
    {
        const uint32_t n = tile_row * 16 + gpu::lane() / 4 + i / 2 * 8;
        const uint32_t row = column * 8 + gpu::lane() % 4 * 2 + i % 2;
        const uint64_t place = row < ROWS ? places()[ROWS + row] : gpu::no_place;
        const size_t bias = size_t(tile.expert) * args.w.expert_rows + n;

        if (n >= args.w.n || place == gpu::no_place)
            return;
        float value = result(column * 4 + i);
        if (args.w.bias)
            value += static_cast<const float *>(args.w.bias)[bias];
        if (UP) {
            float up = result((columns + column) * 4 + i);
            if (args.up.bias)
                up += static_cast<const float *>(args.up.bias)[bias];
            value = gpu::activate(args, value, up);
        }
        if (args.out_is_f32)
            static_cast<float *>(args.out)[place + n] = value;
        else
            static_cast<T *>(args.out)[place + n] = gpu::from_f32<T>(value);
    }

    explicit FERRUM_DEVICE_MEMBER w4_product(const ferrum_product_args_t &args_) : stages_t(args_)
    {
    }

    FERRUM_DEVICE_MEMBER void run()
    {
        tile = gpu::find_tile<ROWS>(args, {});
        if (tile.count == 0)
            return;
        gpu::find_places<ROWS>(args, tile, {}, args.w.k, places());
        gpu::barrier();
        tile_rows = (args.w.expert_rows + 15) / 16;
        tile_row = alone ? gpu::block_z() : gpu::block_z() * warps + gpu::warp();
        stages_t::begin();
        quarter_left = quarter();
        group_left = stages_t::steps_to_group_end();
        multiply_all();
        if constexpr (alone)
            gpu::barrier();
        if (tile_row >= tile_rows || (alone && gpu::warp() != 0))
            return;
        if constexpr (alone) {
            FERRUM_UNROLL
            for (uint32_t i = 0; i < 4; i++)
                store(0, i);
        } else {
            FERRUM_NO_UNROLL
            for (uint32_t i = 0; i < columns * 4; i++)
                store(i / 4, i % 4);
        }
    }
};

template <class T, uint32_t ROWS, bool UP>
FERRUM_DEVICE void run_w4(const ferrum_product_args_t &args)
{
    w4_product<T, ROWS, UP>(args).run();
}

#define ONE(name, act, ROWS, UP)                                                                   \
    FERRUM_KERNEL_INSTANCE(128, ferrum_##name##_##ROWS##_##act, (run_w4<gpu::act##_t, ROWS, UP>),  \
                           (ferrum_product_args_t args), (args))
#define ALL(ROWS)                                                                                  \
    ONE(w4, f16, ROWS, false)                                                                      \
    ONE(w4, bf16, ROWS, false)                                                                     \
    ONE(w4_gate_up, f16, ROWS, true)                                                               \
    ONE(w4_gate_up, bf16, ROWS, true)
ALL(1)
ALL(8)
ALL(16)
ALL(32)
ALL(64)
