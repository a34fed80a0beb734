/* SPDX-License-Identifier: MIT */
/**
 * @file weights.cuh
 * @brief Sixteen consecutive weights of a row, in f32, from each layout of moe_args.h.
 *
 * A group of 16 that begins at a multiple of 16 never crosses a scale of a block format. Integers
 * (q - zero) are exact, so a weight has the one rounding of its product with the scale (k-quants
 * with a minimum: one more, of the difference).
 */
#ifndef FERRUM_KERNELS_CUDA_WEIGHTS_CUH
#define FERRUM_KERNELS_CUDA_WEIGHTS_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/moe_args.h"

namespace gpu
{
/** The f16 at @p bytes, which may be odd. */
FERRUM_DEVICE float load_f16(const uint8_t *bytes)
{
    return to_f32(f16_t{uint16_t(bytes[0] | bytes[1] << 8)});
}

FERRUM_DEVICE void decode_q4_0(const uint8_t *row, uint32_t k, float *out)
{
    const uint8_t *block = row + size_t(k / 32) * 18;
    const float d = load_f16(block);
    const uint32_t shift = k % 32 / 16 * 4;

    FERRUM_UNROLL
    for (uint32_t i = 0; i < 16; i++)
        out[i] = d * float(int32_t(block[2 + i] >> shift & 15) - 8);
}

FERRUM_DEVICE void decode_q8_0(const uint8_t *row, uint32_t k, float *out)
{
    const uint8_t *block = row + size_t(k / 32) * 34;
    const float d = load_f16(block);

    FERRUM_UNROLL
    for (uint32_t i = 0; i < 16; i++)
        out[i] = d * float(int8_t(block[2 + k % 32 + i]));
}

/* d, dmin, then 6-bit (scale, minimum) per 32 values: bytes 0-3 scales, 4-7 minima of the first
 * four runs; of the others the low nibbles of bytes 8-11, with the top bits of bytes 0-7. */
FERRUM_DEVICE void decode_q4_k(const uint8_t *row, uint32_t k, float *out)
{
    const uint8_t *block = row + size_t(k / 256) * 144, *packed = block + 4;
    const uint32_t run = k % 256 / 32, j = run % 4;
    const uint32_t scale =
        run < 4 ? packed[j] & 63u : (packed[8 + j] & 15u) | (packed[j] >> 6 << 4);
    const uint32_t min =
        run < 4 ? packed[4 + j] & 63u : packed[8 + j] >> 4 | (packed[4 + j] >> 6 << 4);
    const float d = load_f16(block) * float(scale), m = load_f16(block + 2) * float(min);
    const uint8_t *codes = block + 16 + run / 2 * 32 + k % 32;
    const uint32_t shift = run % 2 * 4;

    FERRUM_UNROLL
    for (uint32_t i = 0; i < 16; i++)
        out[i] = d * float(codes[i] >> shift & 15) - m;
}

/* Low nibbles, pairs of high bits, int8 scale per 16 values, d. */
FERRUM_DEVICE void decode_q6_k(const uint8_t *row, uint32_t k, float *out)
{
    const uint8_t *block = row + size_t(k / 256) * 210;
    const uint32_t at = k % 256, half = at / 128, run = at % 128 / 32, column = at % 32;
    const uint8_t *low = block + 64 * half + run % 2 * 32 + column;
    const uint8_t *high = block + 128 + 32 * half + column;
    const float d = load_f16(block + 208) * float(int8_t(block[192 + at / 16]));

    FERRUM_UNROLL
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t q = (low[i] >> (run / 2 * 4) & 15u) | (high[i] >> (2 * run) & 3u) << 4;
        out[i] = d * float(int32_t(q) - 32);
    }
}

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
    default:
        return decode_codes<8>(w, expert, n, row, k, out);
    }
}
} // namespace gpu

#endif
