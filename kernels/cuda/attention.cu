/* SPDX-License-Identifier: MIT */
/*
 * attention: out = softmax(q k^T * scale) v for each (query, head), over a contiguous or paged cache,
 * for shapes that attention_decode.cu and attention_prefill.cu do not take.
 *
 * One block of 4 warps per (query, head): grid (queries, heads). Warp w takes the key chunks w, w+4, ...
 * of 32 keys, a key per lane, with a running maximum and sum (f32); for the values a lane owns the
 * elements d = lane, lane+32, ... The warps' results are combined in the order of their numbers, so the
 * bits depend on the query's keys only, not on the batch. Keys in blocks that do not exist count as
 * hidden. A query that sees no key gives zeros.
 *
 * Preconditions: head_dim a multiple of 8 and at most 256. Shared memory, in floats:
 * q [head_dim], weights [4, 32], maxima [4], sums [4], results [4, head_dim].
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/block.cuh"

enum : uint32_t { WARPS = 4, CHUNK = 32, MAX_PER_LANE = 8 };

FERRUM_DEVICE gpu::keys_t visible_keys(const ferrum_attention_args_t &args, uint32_t query)
{
    const int32_t *starts = static_cast<const int32_t *>(args.lengths);

    if (args.visible != FERRUM_VISIBLE_VARLEN)
        return gpu::keys_of(args, query / args.q_len, query % args.q_len);
    if (int32_t(query) >= starts[args.sequences])
        return {0, 0, 0}; /* behind the last sequence */
    const uint32_t sequence = gpu::sequence_of(starts, args.sequences, query);
    return gpu::keys_of(args, sequence, query - uint32_t(starts[sequence]));
}

/** q . k * scale, k in runs of at least 8 elements. */
template <class T>
FERRUM_DEVICE float logit(const ferrum_attention_args_t &args, const float *q, const T *key,
                          gpu::kv_place_t place)
{
    float sum = 0.0f;

    for (uint32_t d = 0; d < args.kv.head_dim; d += 8) {
        gpu::vec16_t words;
        memcpy(&words, key + place.at(d), sizeof words);
        T values[8];
        memcpy(values, &words, sizeof values);
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 8; i++)
            sum = gpu::fma(q[d + i], gpu::to_f32(values[i]), sum);
    }
    return sum * args.scale;
}

/** What one warp has seen so far. */
struct running_t {
    float maximum, sum;
    float out[MAX_PER_LANE];
};

template <class T>
FERRUM_DEVICE void attend_chunk(const ferrum_attention_args_t &args, gpu::keys_t keys, uint32_t first,
                                uint32_t kv_head, const float *q, float *weights, running_t &run)
{
    const ferrum_kv_args_t &kv = args.kv;
    const uint32_t lane = gpu::lane(), position = first + lane;
    const uint32_t block =
        position < keys.end ? gpu::kv_block(kv, keys.sequence, position) : gpu::KV_NO_BLOCK;
    const bool seen = block != gpu::KV_NO_BLOCK;
    const float score =
        seen ? logit(args, q, static_cast<const T *>(kv.k),
                     gpu::kv_place(kv, block, position % kv.block_size, kv_head, false))
             : -INFINITY;
    const float top = gpu::warp_max(score), maximum = top > run.maximum ? top : run.maximum;
    if (maximum == -INFINITY)
        return;
    const float rescale = gpu::exp(run.maximum - maximum);
    const float weight = seen ? gpu::exp(score - maximum) : 0.0f;

    run.maximum = maximum;
    run.sum = gpu::fma(run.sum, rescale, gpu::warp_sum(weight));
    weights[lane] = weight;
    gpu::warp_barrier(gpu::full_mask);
    FERRUM_UNROLL
    for (uint32_t i = 0; i < MAX_PER_LANE; i++)
        run.out[i] *= rescale;
    const uint32_t count = keys.end - first < CHUNK ? keys.end - first : uint32_t(CHUNK);
    for (uint32_t j = 0; j < count; j++) {
        const uint32_t at = gpu::kv_block(kv, keys.sequence, first + j);
        if (at == gpu::KV_NO_BLOCK)
            continue;
        const gpu::kv_place_t place =
            gpu::kv_place(kv, at, (first + j) % kv.block_size, kv_head, true);
        FERRUM_UNROLL
        for (uint32_t i = 0; i < MAX_PER_LANE; i++)
            if (lane + i * 32 < kv.head_dim)
                run.out[i] = gpu::fma(
                    weights[j], gpu::to_f32(static_cast<const T *>(kv.v)[place.at(lane + i * 32)]),
                    run.out[i]);
    }
    gpu::warp_barrier(gpu::full_mask);
}

template <class T> FERRUM_DEVICE void attention(const ferrum_attention_args_t &args)
{
    const uint32_t dim = args.kv.head_dim, thread = gpu::thread_x(), warp = gpu::warp();
    const uint32_t query = gpu::block_x(), head = gpu::block_y();
    const uint32_t kv_head = head / (args.heads / args.kv.kv_heads);
    const size_t place = gpu::query_place(args, query, head);
    float *q = gpu::shared_memory<float>(), *weights = q + dim + warp * CHUNK;
    float *maxima = q + dim + WARPS * CHUNK, *sums = maxima + WARPS, *results = sums + WARPS;
    const gpu::keys_t keys = visible_keys(args, query);
    running_t run = {-INFINITY, 0.0f, {}};

    for (uint32_t d = thread; d < dim; d += 32 * WARPS)
        q[d] = gpu::to_f32(static_cast<const T *>(args.q)[place + d]);
    gpu::barrier();
    for (uint32_t first = keys.first + warp * CHUNK; first < keys.end; first += WARPS * CHUNK)
        attend_chunk<T>(args, keys, first, kv_head, q, weights, run);
    if (gpu::lane() == 0) {
        maxima[warp] = run.maximum;
        sums[warp] = run.sum;
    }
    FERRUM_UNROLL
    for (uint32_t i = 0; i < MAX_PER_LANE; i++)
        if (gpu::lane() + i * 32 < dim)
            results[warp * dim + gpu::lane() + i * 32] = run.out[i];
    gpu::barrier();
    float maximum = -INFINITY, sum = 0.0f;
    for (uint32_t w = 0; w < WARPS; w++)
        maximum = maxima[w] > maximum ? maxima[w] : maximum;
    for (uint32_t w = 0; w < WARPS && maximum != -INFINITY; w++)
        sum = gpu::fma(sums[w], gpu::exp(maxima[w] - maximum), sum);
    for (uint32_t d = thread; d < dim; d += 32 * WARPS) {
        float value = 0.0f;
        for (uint32_t w = 0; w < WARPS && maximum != -INFINITY; w++)
            value = gpu::fma(results[w * dim + d], gpu::exp(maxima[w] - maximum), value);
        static_cast<T *>(args.out)[place + d] =
            gpu::from_f32<T>(sum > 0.0f ? gpu::divide(value, sum) : 0.0f);
    }
}

FERRUM_KERNEL_INSTANCE(32 * WARPS, ferrum_attention_f16, (attention<gpu::f16_t>),
                       (ferrum_attention_args_t args), (args))
FERRUM_KERNEL_INSTANCE(32 * WARPS, ferrum_attention_bf16, (attention<gpu::bf16_t>),
                       (ferrum_attention_args_t args), (args))
