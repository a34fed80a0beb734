/* SPDX-License-Identifier: MIT */
/**
 * @file weights.cuh
 * @brief Sixteen consecutive weights of a row, in f32, from each layout of moe_args.h.
 *
 * Block formats: see blocks.cuh. Integers
 * (q - zero) are exact, so a weight has the one rounding of its product with the scale (k-quants
 * with a minimum: one more, of the difference).
 */
#ifndef FERRUM_KERNELS_CUDA_WEIGHTS_CUH
#define FERRUM_KERNELS_CUDA_WEIGHTS_CUH

#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/moe_args.h"

namespace gpu
{
template <uint32_t BITS>
FERRUM_DEVICE void decode_codes(const ferrum_gpu_weights_t &w, uint32_t expert, uint32_t n,
                                const uint8_t *row, uint32_t k, float *out)
{
    const size_t cell = (size_t(expert) * w.expert_rows + n) * w.groups;
    const float *scales = static_cast<const float *>(w.scales) + cell;
    const uint16_t *zeros = static_cast<const uint16_t *>(w.zeros) + cell;
    const uint32_t *group_of =
        w.group_of ? static_cast<const uint32_t *>(w.group_of) + size_t(expert) * w.k : nullptr;
    const uint32_t *words = reinterpret_cast<const uint32_t *>(row) + k / (32 / BITS);

    FERRUM_UNROLL
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t code = words[i * BITS / 32] >> (i * BITS % 32) & ((1u << BITS) - 1);
        if (k + i < w.k) {
            const uint32_t group = group_of ? group_of[k + i] : (k + i) / w.group_size;
            out[i] = float(int32_t(code) - int32_t(zeros[group])) * scales[group];
        } else {
            out[i] = 0.0f;
        }
    }
}

template <class T>
FERRUM_DEVICE void decode_plain(const uint8_t *row, uint32_t k, uint32_t width, float *out)
{
    const T *elements = reinterpret_cast<const T *>(row) + k;

    FERRUM_UNROLL
    for (uint32_t i = 0; i < 16; i++)
        out[i] = k + i < width ? to_f32(elements[i]) : 0.0f;
}

/** Where sixteen weights of the rarer block formats are. */
FERRUM_DEVICE sixteen_t sixteen_of(uint32_t layout, const uint8_t *row, uint32_t k)
{
    switch (layout) {
    case FERRUM_LAYOUT_Q4_1:
        return legacy_sixteen(row, false, true, k);
    case FERRUM_LAYOUT_Q5_0:
        return legacy_sixteen(row, true, false, k);
    case FERRUM_LAYOUT_Q5_1:
        return legacy_sixteen(row, true, true, k);
    case FERRUM_LAYOUT_Q2_K:
        return q2_k_sixteen(row, k);
    case FERRUM_LAYOUT_Q3_K:
        return q3_k_sixteen(row, k);
    case FERRUM_LAYOUT_Q5_K:
        return q5_k_sixteen(row, k);
    case FERRUM_LAYOUT_IQ4_NL:
        return iq4_nl_sixteen(row, k);
    case FERRUM_LAYOUT_IQ4_XS:
        return iq4_xs_sixteen(row, k);
    default:
        return mxfp4_sixteen(row, k);
    }
}

/** out[0..16) = W[expert][n, k .. k+16), 0 beyond the matrix. k is a multiple of 16. */
FERRUM_DEVICE void decode16(const ferrum_gpu_weights_t &w, uint32_t expert, uint32_t n, uint32_t k,
                            float *out)
{
    if (n >= w.n || k >= w.k) {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 16; i++)
            out[i] = 0.0f;
        return;
    }
    const uint8_t *row =
        static_cast<const uint8_t *>(w.data) + expert * w.expert_bytes + n * w.row_bytes;
    switch (w.layout) {
    case FERRUM_LAYOUT_F32:
        return decode_plain<float>(row, k, w.k, out);
    case FERRUM_LAYOUT_F16:
        return decode_plain<f16_t>(row, k, w.k, out);
    case FERRUM_LAYOUT_BF16:
        return decode_plain<bf16_t>(row, k, w.k, out);
    case FERRUM_LAYOUT_Q4_0:
        return decode_q4_0(row, k, out);
    case FERRUM_LAYOUT_Q8_0:
        return decode_q8_0(row, k, out);
    case FERRUM_LAYOUT_Q4_K:
        return decode_q4_k(row, k, out);
    case FERRUM_LAYOUT_Q6_K:
        return decode_q6_k(row, k, out);
    case FERRUM_LAYOUT_W4:
        return decode_codes<4>(w, expert, n, row, k, out);
    case FERRUM_LAYOUT_W8:
        return decode_codes<8>(w, expert, n, row, k, out);
    default:
        return decode_sixteen(sixteen_of(w.layout, row, k), out);
    }
}
} // namespace gpu

#endif
