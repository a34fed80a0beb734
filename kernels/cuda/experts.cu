/* SPDX-License-Identifier: MIT */
/*
 * product_BM, gate_up_BM, dispatch_BM: rows of activations times quantised weights, for one matrix
 * or a stack.
 *
 * A block of 128 threads computes BM rows by 32 outputs. Per step of 64 inputs it decodes the
 * weights once into shared memory as f32, next to the rows of x, and multiplies. An output is the
 * sum of four strips (inputs k with k % 4 = 0 .. 3), each in ascending order, whatever BM and
 * whatever rows share its tile: a row has the same bits in every batch. With BM = 1 the four warps
 * take a strip each, else they share out the rows. One rounding, at the store.
 *
 * Preconditions: grid (tiles, lists or 1, ceil(n/32)); shared memory as ferrum_cuda_product sizes
 * it.
 */
#include "kernels/cuda/tiles.cuh"
#include "kernels/cuda/weights.cuh"

struct alignas(16) vec4_t {
    float v[4];
};

template <class T, uint32_t BM, bool UP> struct product {
    static constexpr uint32_t threads = 128, BN = 32, BK = 64;
    static constexpr uint32_t pitch = BK + 4; /* rows on different banks, 16-byte aligned */
    static constexpr uint32_t matrices = UP ? 2 : 1;
    static constexpr uint32_t mine = BM < 4 ? 1 : BM / 4; /* rows of x per thread */
    static constexpr uint32_t strips = BM == 1 ? 1 : 4;   /* sums per row and thread */
    static_assert(BM == 1 || BM % 4 == 0, "four warps");

    static FERRUM_DEVICE_MEMBER float *weights(uint32_t matrix)
    {
        return gpu::shared_memory<float>() + matrix * BN * pitch;
    }
    static FERRUM_DEVICE_MEMBER float *inputs()
    {
        return weights(matrices);
    }
    /** Element of x and of out at which each row begins. */
    static FERRUM_DEVICE_MEMBER uint64_t *places()
    {
        return gpu::shared_memory<uint64_t>((matrices * BN + BM) * pitch * sizeof(float));
    }

    /** Element @p i of the rows of x in this step. */
    static FERRUM_DEVICE_MEMBER void load_input(const ferrum_product_args_t &args, uint32_t i,
                                                uint32_t k0)
    {
        const uint32_t k = k0 + i % BK;
        const uint64_t place = places()[i / BK];

        inputs()[i / BK * pitch + i % BK] =
            place != gpu::no_place && k < args.w.k
                ? gpu::to_f32(static_cast<const T *>(args.x)[place + k])
                : 0.0f;
    }

    static FERRUM_DEVICE_MEMBER void load(const ferrum_product_args_t &args, uint32_t expert,
                                          uint32_t k0)
    {
        const uint32_t thread = gpu::thread_x(), row = thread / 4, part = thread % 4 * 16;
        const uint32_t n = gpu::block_z() * BN + row;

        static_assert(threads * 16 == BN * BK, "sixteen weights per thread");
        gpu::decode16(args.w, expert, n, k0 + part, weights(0) + row * pitch + part);
        if (UP)
            gpu::decode16(args.up, expert, n, k0 + part, weights(1) + row * pitch + part);
        if constexpr (BM * BK <= threads) {
            if (thread < BM * BK)
                load_input(args, thread, k0);
        } else {
            for (uint32_t i = thread; i < BM * BK; i += threads)
                load_input(args, i, k0);
        }
    }

    static FERRUM_DEVICE_MEMBER void multiply(const float *w, float (&sum)[mine][strips])
    {
        const uint32_t row = gpu::lane(), part = gpu::warp();

        FERRUM_UNROLL
        for (uint32_t k = 0; k < BK; k += 4) {
            if constexpr (BM == 1) {
                sum[0][0] += w[row * pitch + k + part] * inputs()[k + part];
            } else {
                const vec4_t wv = *reinterpret_cast<const vec4_t *>(w + row * pitch + k);
                FERRUM_UNROLL
                for (uint32_t i = 0; i < mine; i++) {
                    const vec4_t xv =
                        *reinterpret_cast<const vec4_t *>(inputs() + (part * mine + i) * pitch + k);
                    FERRUM_UNROLL
                    for (uint32_t s = 0; s < strips; s++)
                        sum[i][s] += wv.v[s] * xv.v[s];
                }
            }
        }
    }

    /** The strips of a row added up; with BM = 1 through shared memory, valid in warp 0. */
    static FERRUM_DEVICE_MEMBER void finish(const float (&sum)[mine][strips], float (&out)[mine])
    {
        if constexpr (BM == 1) {
            float *shared = weights(0);
            gpu::barrier();
            shared[gpu::thread_x()] = sum[0][0];
            gpu::barrier();
            const float *strip = shared + gpu::lane();
            out[0] = (strip[0] + strip[32]) + (strip[64] + strip[96]);
        } else {
            FERRUM_UNROLL
            for (uint32_t i = 0; i < mine; i++)
                out[i] = (sum[i][0] + sum[i][1]) + (sum[i][2] + sum[i][3]);
        }
    }

    static FERRUM_DEVICE_MEMBER void store(const ferrum_product_args_t &args, uint32_t expert,
                                           const float (&sum)[matrices][mine])
    {
        const uint32_t n = gpu::block_z() * BN + gpu::lane();
        const size_t at = size_t(expert) * args.w.expert_rows + n;

        if (n >= args.w.n || (BM == 1 && gpu::warp() != 0))
            return;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < mine; i++) {
            const uint64_t place = places()[BM + (BM == 1 ? 0 : gpu::warp() * mine + i)];
            float value = sum[0][i];
            if (place == gpu::no_place)
                continue;
            if (args.w.bias)
                value += static_cast<const float *>(args.w.bias)[at];
            if (UP) {
                float up = sum[matrices - 1][i];
                if (args.up.bias)
                    up += static_cast<const float *>(args.up.bias)[at];
                value = gpu::activate(args, value, up);
            }
            if (args.out_is_f32)
                static_cast<float *>(args.out)[place + n] = value;
            else
                static_cast<T *>(args.out)[place + n] = gpu::from_f32<T>(value);
        }
    }

    static FERRUM_DEVICE_MEMBER void run(const ferrum_product_args_t &args,
                                         const ferrum_row_dispatch_t &dispatch)
    {
        const gpu::tile_t tile = gpu::find_tile<BM>(args, dispatch);
        float sum[matrices][mine][strips] = {};
        float out[matrices][mine];

        if (tile.count == 0)
            return;
        gpu::find_places<BM>(args, tile, dispatch, args.w.k, places());
        gpu::barrier();
        for (uint32_t k = 0; k < args.w.k; k += BK) {
            load(args, tile.expert, k);
            gpu::barrier();
            FERRUM_UNROLL
            for (uint32_t m = 0; m < matrices; m++)
                multiply(weights(m), sum[m]);
            gpu::barrier();
        }
        FERRUM_UNROLL
        for (uint32_t m = 0; m < matrices; m++)
            finish(sum[m], out[m]);
        store(args, tile.expert, out);
    }
};

#define ONE(name, act, BM, UP)                                                                     \
    FERRUM_KERNEL_INSTANCE(128, ferrum_##name##_##BM##_##act,                                      \
                           (product<gpu::act##_t, BM, UP>::run), (ferrum_product_args_t args),     \
                           (args, {}))
#define DISPATCH(act, BM)                                                                          \
    FERRUM_KERNEL_INSTANCE(128, ferrum_dispatch_##BM##_##act,                                      \
                           (product<gpu::act##_t, BM, false>::run), (ferrum_dispatch_args_t args), \
                           (args.product, args.list[gpu::block_y()]))
#define ALL(BM)                                                                                    \
    ONE(product, f16, BM, false)                                                                   \
    ONE(product, bf16, BM, false)                                                                  \
    ONE(gate_up, f16, BM, true)                                                                    \
    ONE(gate_up, bf16, BM, true)                                                                   \
    DISPATCH(f16, BM)                                                                              \
    DISPATCH(bf16, BM)
ALL(1)
ALL(8)
ALL(32)
