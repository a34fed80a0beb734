/* SPDX-License-Identifier: MIT */
/*
 * qkv_norm_rope: projected rows act [tokens, (q_heads + 2*kv_heads) * head_dim] into q and a KV cache.
 *
 * One warp per (token, head vector): grid (tokens, ceil(vectors/4)), 128 threads, no shared memory.
 * Vectors are the q heads, then (has_kv) the k heads, then the v heads. By mode a q or k vector is
 * normed (f32), rotated by its position and rounded once; v is moved. Positions without a block in
 * the pool, angles without a row in the tables and tokens behind the last sequence are skipped.
 */
#include "kernels/cuda/args.h"
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/kv.cuh"

enum : uint32_t { WARPS = 4, ROPE_NONE = 0, ROPE_NORM_HALF = 1, ROPE_INTERLEAVED = 3 };

/** Where one token stands. */
struct token_t {
    uint32_t sequence, angle, position;
};

FERRUM_DEVICE token_t locate(const ferrum_qkv_args_t &args, uint32_t token)
{
    if (!args.cu_seqlens) {
        if (args.step) {
            const uint32_t step = *static_cast<const uint32_t *>(args.step);
            return {0, step + token, step + token};
        }
        return {0, args.rope_start + token, args.cache_start + token};
    }
    const int32_t *cu_seqlens = static_cast<const int32_t *>(args.cu_seqlens);
    const uint32_t sequence = gpu::sequence_of(cu_seqlens, args.sequences, token);
    const uint32_t position = uint32_t(static_cast<const int32_t *>(args.pos_offsets)[sequence]) +
                              token - uint32_t(cu_seqlens[sequence]);
    return {sequence, position, position};
}

/** Element @p d of the normed vector. */
template <class T>
FERRUM_DEVICE float normed(const ferrum_qkv_args_t &args, const T *in, const void *norm,
                           float inverse, uint32_t d)
{
    const float value = gpu::to_f32(in[d]);
    return norm ? value * inverse * gpu::load_either<T>(norm, args.norm_is_f32 != 0, d) : value;
}

/** Norm and rotate @p in to @p out. */
template <class T>
FERRUM_DEVICE void rotate(const ferrum_qkv_args_t &args, const T *in, const void *norm,
                          uint32_t angle, T *out, gpu::kv_place_t place)
{
    const uint32_t dim = args.kv.head_dim, half = dim / 2;
    float inverse = 1.0f;

    if (norm) {
        float squares = 0.0f;
        for (uint32_t d = gpu::lane(); d < dim; d += 32)
            squares = gpu::fma(gpu::to_f32(in[d]), gpu::to_f32(in[d]), squares);
        const float mean = gpu::divide(gpu::warp_sum(squares), float(dim));
        inverse = gpu::divide(1.0f, gpu::sqrt(mean + args.eps));
    }
    if (args.mode == ROPE_NONE) {
        for (uint32_t d = gpu::lane(); d < dim; d += 32)
            out[place.at(d)] = in[d];
        return;
    }
    if (angle >= args.angles)
        return;
    const bool interleaved = args.mode == ROPE_INTERLEAVED;
    const uint32_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : half;
    const float *cos = static_cast<const float *>(args.cos) + size_t(angle) * half;
    const float *sin = static_cast<const float *>(args.sin) + size_t(angle) * half;
    for (uint32_t i = gpu::lane(); i < half; i += 32) {
        const float a = normed(args, in, norm, inverse, i * step);
        const float b = normed(args, in, norm, inverse, i * step + apart);
        out[place.at(i * step)] = gpu::from_f32<T>(a * cos[i] - b * sin[i]);
        out[place.at(i * step + apart)] = gpu::from_f32<T>(b * cos[i] + a * sin[i]);
    }
}

template <class T> FERRUM_DEVICE void qkv_norm_rope(const ferrum_qkv_args_t &args)
{
    const ferrum_kv_args_t &kv = args.kv;
    const uint32_t token = gpu::block_x(), vector = gpu::block_y() * WARPS + gpu::warp();
    const uint32_t vectors = args.q_heads + (args.has_kv ? 2 * kv.kv_heads : 0);
    if (vector >= vectors)
        return;
    const T *in = static_cast<const T *>(args.qkv) + (size_t(token) * vectors + vector) * kv.head_dim;
    if (args.cu_seqlens &&
        int32_t(token) >= static_cast<const int32_t *>(args.cu_seqlens)[args.sequences])
        return;
    const token_t where = locate(args, token);

    if (vector < args.q_heads) {
        const size_t row = args.q_token_major ? size_t(token) * args.q_heads + vector
                                              : size_t(vector) * args.tokens + token;
        rotate(args, in, args.q_norm, where.angle, static_cast<T *>(args.q),
               {row * kv.head_dim, kv.head_dim, 0});
        return;
    }
    const uint32_t block = gpu::kv_block(kv, where.sequence, where.position);
    const uint32_t head = (vector - args.q_heads) % kv.kv_heads;
    const bool is_value = vector - args.q_heads >= kv.kv_heads;
    if (block == gpu::KV_NO_BLOCK)
        return;
    const gpu::kv_place_t place =
        gpu::kv_place(kv, block, where.position % kv.block_size, head, is_value);
    if (!is_value) {
        rotate(args, in, args.k_norm, where.angle, static_cast<T *>(kv.k), place);
        return;
    }
    for (uint32_t d = gpu::lane(); d < kv.head_dim; d += 32)
        static_cast<T *>(kv.v)[place.at(d)] = in[d];
}

FERRUM_KERNEL_INSTANCE(32 * WARPS, ferrum_qkv_norm_rope_f16, (qkv_norm_rope<gpu::f16_t>),
                       (ferrum_qkv_args_t args), (args))
FERRUM_KERNEL_INSTANCE(32 * WARPS, ferrum_qkv_norm_rope_bf16, (qkv_norm_rope<gpu::bf16_t>),
                       (ferrum_qkv_args_t args), (args))
