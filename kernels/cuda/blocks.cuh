/* SPDX-License-Identifier: MIT */
/**
 * @file blocks.cuh
 * @brief Sixteen consecutive weights of a block format as it lies in a GGUF file, in f32.
 *
 * @p row is where the blocks of a row begin, @p k the first of the sixteen, a multiple of 16: they
 * never cross a scale. The layouts are those of kernels/scalar/dequant_*_scalar.c.
 */
#ifndef FERRUM_KERNELS_CUDA_BLOCKS_CUH
#define FERRUM_KERNELS_CUDA_BLOCKS_CUH

#include "kernels/cuda/device.cuh"

namespace gpu
{
/** The f16 at @p bytes, which may be odd. */
FERRUM_DEVICE float load_f16(const uint8_t *bytes)
{
    return to_f32(f16_t{uint16_t(bytes[0] | bytes[1] << 8)});
}

/* The formats in which most models come have decoders of their own, unrolled. */
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
FERRUM_DEVICE void load_scale_min(const uint8_t *block, uint32_t run, float &d, float &m)
{
    const uint8_t *packed = block + 4;
    const uint32_t j = run % 4;
    const uint32_t scale =
        run < 4 ? packed[j] & 63u : (packed[8 + j] & 15u) | (packed[j] >> 6 << 4);
    const uint32_t min =
        run < 4 ? packed[4 + j] & 63u : packed[8 + j] >> 4 | (packed[4 + j] >> 6 << 4);

    d = load_f16(block) * float(scale);
    m = load_f16(block + 2) * float(min);
}

FERRUM_DEVICE void decode_q4_k(const uint8_t *row, uint32_t k, float *out)
{
    const uint8_t *block = row + size_t(k / 256) * 144;
    const uint32_t run = k % 256 / 32, shift = run % 2 * 4;
    const uint8_t *codes = block + 16 + run / 2 * 32 + k % 32;
    float d, m;

    load_scale_min(block, run, d, m);
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

/** Sixteen weights of any other format: with q_i = low[i] >> low_shift & low_mask, or-ed with
 *  (high[i] >> high_shift & 1) << high_at and (fifth >> i & 1) << 4, they are d * (q - zero) - m,
 *  or d * level[q]. */
struct sixteen_t {
    const uint8_t *low, *high;
    uint32_t low_shift, low_mask, high_shift, high_at, fifth;
    int32_t zero;
    float d, m;
    uint32_t level[4]; /* a byte each; 0: no levels */
};

FERRUM_DEVICE void decode_sixteen(const sixteen_t &s, float *out)
{
    FERRUM_NO_UNROLL
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t high = s.high ? uint32_t(s.high[i]) >> s.high_shift & 1u : 0u;
        const uint32_t q =
            (s.low[i] >> s.low_shift & s.low_mask) | high << s.high_at | (s.fifth >> i & 1u) << 4;
        int32_t value = int32_t(q) - s.zero;
        if (s.level[0])
            value = int8_t(q < 8 ? byte_permute(s.level[0], s.level[1], q)
                                 : byte_permute(s.level[2], s.level[3], q - 8));
        out[i] = s.d * float(value) - s.m;
    }
}

/** Q4_1, Q5_0, Q5_1: blocks of 32 with d, perhaps a minimum and a word of fifth bits, then 16 bytes
 *  of nibbles, the low ones first. */
FERRUM_DEVICE sixteen_t legacy_sixteen(const uint8_t *row, bool five, bool minimum, uint32_t k)
{
    const uint32_t bytes = 18 + (five ? 4 : 0) + (minimum ? 2 : 0), part = k % 32 / 16;
    const uint8_t *block = row + size_t(k / 32) * bytes, *codes = block + bytes - 16;
    const uint8_t *fifths = codes - 4 + 2 * part;
    sixteen_t s = {};

    s.low = codes;
    s.low_shift = 4 * part;
    s.low_mask = 15;
    s.fifth = five ? uint32_t(fifths[0] | fifths[1] << 8) : 0u;
    s.zero = five && !minimum ? 16 : 0;
    s.d = load_f16(block);
    s.m = minimum ? -load_f16(block + 2) : 0.0f;
    return s;
}

/* 16 bytes of scale (low) and minimum nibbles, 64 of 2-bit codes, d, dmin. A byte column serves
 * four runs of 32 values, here and in Q3_K. */
FERRUM_DEVICE sixteen_t q2_k_sixteen(const uint8_t *row, uint32_t k)
{
    const uint8_t *block = row + size_t(k / 256) * 84;
    const uint32_t at = k % 256, scales = block[at / 16];
    sixteen_t s = {};

    s.low = block + 16 + at / 128 * 32 + at % 32;
    s.low_shift = at % 128 / 32 * 2;
    s.low_mask = 3;
    s.d = load_f16(block + 80) * float(scales & 15u);
    s.m = load_f16(block + 82) * float(scales >> 4);
    return s;
}

/* 32 bytes of high bits, 64 of 2-bit codes, 12 of 6-bit scales, d. */
FERRUM_DEVICE sixteen_t q3_k_sixteen(const uint8_t *row, uint32_t k)
{
    const uint8_t *block = row + size_t(k / 256) * 110, *packed = block + 96;
    const uint32_t at = k % 256, j = at / 16;
    const uint32_t scale =
        (packed[j % 8] >> j / 8 * 4 & 15u) | (packed[8 + j % 4] >> j / 4 * 2 & 3u) << 4;
    sixteen_t s = {};

    s.low = block + 32 + at / 128 * 32 + at % 32;
    s.low_shift = at % 128 / 32 * 2;
    s.low_mask = 3;
    s.high = block + at % 32;
    s.high_shift = at / 32;
    s.high_at = 2;
    s.zero = 4;
    s.d = load_f16(block + 108) * float(int32_t(scale) - 32);
    return s;
}

/* As Q4_K, with 32 bytes of fifth bits before the nibbles. */
FERRUM_DEVICE sixteen_t q5_k_sixteen(const uint8_t *row, uint32_t k)
{
    const uint8_t *block = row + size_t(k / 256) * 176;
    const uint32_t run = k % 256 / 32;
    sixteen_t s = {};

    s.low = block + 48 + run / 2 * 32 + k % 32;
    s.low_shift = run % 2 * 4;
    s.low_mask = 15;
    s.high = block + 16 + k % 32;
    s.high_shift = run;
    s.high_at = 4;
    load_scale_min(block, run, s.d, s.m);
    return s;
}

/** Runs of 16 bytes of nibbles that stand for levels. */
FERRUM_DEVICE sixteen_t level_sixteen(const uint8_t *codes, uint32_t k, float d)
{
    sixteen_t s = {};

    s.low = codes;
    s.low_shift = k % 32 / 16 * 4;
    s.low_mask = 15;
    s.d = d;
    s.level[0] = 0xbfad9881u; /* -127 -104 -83 -65 */
    s.level[1] = 0xf6eaddcfu; /* -49 -35 -22 -10 */
    s.level[2] = 0x26190d01u; /* 1 13 25 38 */
    s.level[3] = 0x71594535u; /* 53 69 89 113 */
    return s;
}

FERRUM_DEVICE sixteen_t iq4_nl_sixteen(const uint8_t *row, uint32_t k)
{
    const uint8_t *block = row + size_t(k / 32) * 18;
    return level_sixteen(block + 2, k, load_f16(block));
}

/* d, 16 high bits of scales, 4 bytes of low nibbles of scales, 8 runs of 16 bytes. */
FERRUM_DEVICE sixteen_t iq4_xs_sixteen(const uint8_t *row, uint32_t k)
{
    const uint8_t *block = row + size_t(k / 256) * 136;
    const uint32_t run = k % 256 / 32, high = uint32_t(block[2] | block[3] << 8);
    const uint32_t scale = (block[4 + run / 2] >> run % 2 * 4 & 15u) | (high >> 2 * run & 3u) << 4;

    return level_sixteen(block + 8 + 16 * run, k, load_f16(block) * float(int32_t(scale) - 32));
}

/* E8M0 byte e, 16 bytes of E2M1, here doubled; so their scale is 2^(e-128), subnormal for e < 2. */
FERRUM_DEVICE sixteen_t mxfp4_sixteen(const uint8_t *row, uint32_t k)
{
    const uint8_t *block = row + size_t(k / 32) * 17;
    const uint32_t e = block[0], bits = e < 2 ? 0x00200000u << e : (e - 1) << 23;
    sixteen_t s = level_sixteen(block + 1, k, bit_cast<float>(bits));

    s.level[0] = 0x03020100u;
    s.level[1] = 0x0c080604u;
    s.level[2] = 0xfdfeff00u;
    s.level[3] = 0xf4f8fafcu;
    return s;
}
} // namespace gpu

#endif
