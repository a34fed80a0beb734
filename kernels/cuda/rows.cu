/* SPDX-License-Identifier: MIT */
/*
 * Kernels over elements and rows. T is the activation type, sums are f32, one rounding per stored value.
 *
 *   rms_norm, penalise, argmax     one block of 256 per row (grid x); 64 bytes (argmax: 4 KiB) of
 *                                  shared memory; dim, n > 0
 *   lookup                         one block of 256 per id (grid x); any dim
 *   axpby, add_bias, silu_mul      one thread per element, grid x = ceil(count/256)
 *   move                           one thread per element of the longest copy, grid (x, copies)
 */
#include "kernels/cuda/args.h"
#include "kernels/cuda/block.cuh"

enum : uint32_t { THREADS = 256 };

FERRUM_DEVICE uint64_t element_index()
{
    return uint64_t(gpu::block_x()) * THREADS + gpu::thread_x();
}

/* out = x * w / sqrt(mean(x^2) + eps); with a residual: residual += x, and its stored sum is normed. */
template <class T> FERRUM_DEVICE void rms_norm(const ferrum_rms_norm_args_t &args)
{
    const size_t start = size_t(gpu::block_x()) * args.dim;
    const T *x = static_cast<const T *>(args.x) + start;
    T *residual = args.residual ? static_cast<T *>(args.residual) + start : nullptr;
    T *out = static_cast<T *>(args.out) + start;
    const T *in = residual ? residual : x;
    float squares = 0.0f;

    for (uint32_t i = gpu::thread_x(); i < args.dim; i += THREADS) {
        if (residual)
            residual[i] = gpu::from_f32<T>(gpu::to_f32(residual[i]) + gpu::to_f32(x[i]));
        const float value = gpu::to_f32(in[i]);
        squares = gpu::fma(value, value, squares);
    }
    const float sum = gpu::block_sum(squares, gpu::shared_memory<float>());
    const float inverse =
        gpu::divide(1.0f, gpu::sqrt(gpu::divide(sum, float(args.dim)) + args.eps));
    for (uint32_t i = gpu::thread_x(); i < args.dim; i += THREADS)
        out[i] = gpu::from_f32<T>(gpu::to_f32(in[i]) * inverse *
                                  gpu::load_either<T>(args.w, args.w_is_f32 != 0, i));
}

/* y = alpha*x + beta*y */
template <class T> FERRUM_DEVICE void axpby(const ferrum_axpby_args_t &args)
{
    const uint64_t i = element_index();
    T *y = static_cast<T *>(args.y);

    if (i >= args.count)
        return;
    const float scaled = args.beta * gpu::to_f32(y[i]);
    y[i] = gpu::from_f32<T>(
        args.x ? gpu::fma(args.alpha, gpu::to_f32(static_cast<const T *>(args.x)[i]), scaled)
               : scaled);
}

template <class T> FERRUM_DEVICE void add_bias(const ferrum_add_bias_args_t &args)
{
    const uint64_t i = element_index();
    T *data = static_cast<T *>(args.data);

    if (i < args.count)
        data[i] = gpu::from_f32<T>(
            gpu::to_f32(data[i]) +
            gpu::load_either<T>(args.bias, args.bias_is_f32 != 0, size_t(i % args.cols)));
}

template <class T> FERRUM_DEVICE void silu_mul(const ferrum_silu_mul_args_t &args)
{
    const uint64_t i = element_index();

    if (i >= args.count)
        return;
    const uint64_t row = i / args.intermediate, column = i % args.intermediate;
    const T *gate =
        static_cast<const T *>(args.gate_up) + 2 * row * args.intermediate + column;
    static_cast<T *>(args.out)[i] =
        gpu::from_f32<T>(gpu::silu(gpu::to_f32(gate[0])) * gpu::to_f32(gate[args.intermediate]));
}

template <class T> FERRUM_DEVICE void lookup(const ferrum_lookup_args_t &args)
{
    const uint32_t id = static_cast<const uint32_t *>(args.ids)[gpu::block_x()];
    T *out = static_cast<T *>(args.out) + size_t(gpu::block_x()) * args.dim;
    const size_t start = size_t(id) * args.dim;

    for (uint32_t i = gpu::thread_x(); i < args.dim; i += THREADS) {
        float value = 0.0f;
        if (id < args.rows) {
            if (args.table_dtype == 0)
                value = static_cast<const float *>(args.table)[start + i];
            else if (args.table_dtype == 1)
                value = gpu::to_f32(static_cast<const gpu::f16_t *>(args.table)[start + i]);
            else
                value = gpu::to_f32(static_cast<const gpu::bf16_t *>(args.table)[start + i]);
        }
        out[i] = gpu::from_f32<T>(value);
    }
}

template <class T> FERRUM_DEVICE void penalise(const ferrum_penalise_args_t &args)
{
    const uint32_t row = gpu::block_x();
    const uint32_t *offsets = static_cast<const uint32_t *>(args.row_offsets);
    const float penalty = static_cast<const float *>(args.penalties)[row];
    T *logits = static_cast<T *>(args.logits) + size_t(row) * args.n;

    for (uint32_t i = offsets[row] + gpu::thread_x(); i < offsets[row + 1]; i += THREADS) {
        T *logit = logits + static_cast<const uint32_t *>(args.token_ids)[i];
        const float value = gpu::to_f32(*logit);
        *logit = gpu::from_f32<T>(value > 0.0f ? gpu::divide(value, penalty) : value * penalty);
    }
}

/* Whether candidate (value, id) beats (best, best_id): numbers beat NaN, then larger, then lower id.
 * id 0xffffffff: no candidate. */
FERRUM_DEVICE bool beats(float value, uint32_t id, float best, uint32_t best_id)
{
    if (id == 0xffffffffu || best_id == 0xffffffffu)
        return best_id == 0xffffffffu && id != best_id;
    const bool is_nan = value != value, best_is_nan = best != best;
    if (is_nan != best_is_nan)
        return best_is_nan;
    if (!is_nan && value != best)
        return value > best;
    return id < best_id;
}

template <class T> FERRUM_DEVICE void argmax(const ferrum_argmax_args_t &args)
{
    const T *logits = static_cast<const T *>(args.logits) + size_t(gpu::block_x()) * args.n;
    const uint32_t *mask = static_cast<const uint32_t *>(args.mask);
    float *values = gpu::shared_memory<float>();
    uint32_t *ids = gpu::shared_memory<uint32_t>(THREADS * sizeof(float));
    const uint32_t thread = gpu::thread_x();
    float best = 0.0f;
    uint32_t best_id = 0xffffffffu;

    for (uint32_t i = thread; i < args.n; i += THREADS) {
        const float value = gpu::to_f32(logits[i]);
        if ((!mask || (mask[i / 32] >> i % 32 & 1u)) && beats(value, i, best, best_id)) {
            best = value;
            best_id = i;
        }
    }
    values[thread] = best;
    ids[thread] = best_id;
    for (uint32_t half = THREADS / 2; half > 0; half /= 2) {
        gpu::barrier();
        if (thread < half && beats(values[thread + half], ids[thread + half], values[thread],
                                   ids[thread])) {
            values[thread] = values[thread + half];
            ids[thread] = ids[thread + half];
        }
    }
    if (thread == 0)
        static_cast<uint32_t *>(args.ids)[gpu::block_x()] = ids[0] < args.n ? ids[0] : args.n;
}

FERRUM_KERNEL(THREADS, ferrum_move, ferrum_move_args_t args)
{
    const ferrum_move_t &move = args.moves[gpu::block_y()];
    const uint64_t index = element_index();

    if (index >= move.count)
        return;
    const uint64_t row = index / move.dim, d = index % move.dim;
    const uint64_t i = row / move.count_j, j = row % move.count_j;
    static_cast<uint16_t *>(move.dst)[i * move.dst_i + j * move.dst_j + d] =
        static_cast<const uint16_t *>(move.src)[i * move.src_i + j * move.src_j + d];
}

#define BOTH(name)                                                                                 \
    FERRUM_KERNEL_INSTANCE(THREADS, ferrum_##name##_f16, (name<gpu::f16_t>),                       \
                           (ferrum_##name##_args_t args), (args))                                  \
    FERRUM_KERNEL_INSTANCE(THREADS, ferrum_##name##_bf16, (name<gpu::bf16_t>),                     \
                           (ferrum_##name##_args_t args), (args))
BOTH(rms_norm)
BOTH(axpby)
BOTH(add_bias)
BOTH(silu_mul)
BOTH(lookup)
BOTH(penalise)
BOTH(argmax)
