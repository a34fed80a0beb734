/* SPDX-License-Identifier: MIT */
/**
 * @file gguf.cuh
 * @brief Block formats of GGUF files in tiles for the matrix units, version 1, and their decoding.
 *
 * A matrix [n,k] is cut into tiles of 16 outputs by 64 inputs, tile rows first. A tile is one
 * record of bytes: codes, high bits, scales. With lane = 4*g + t a lane's codes of 16 inputs are
 * eight: row g (r = 0) and row g+8 (r = 1), each with inputs 2t, 2t+8, 2t+1, 2t+9 as i = 0 .. 3;
 * block b = 0..3 of 16 inputs, half h = b / 2 of 32.
 *
 *     NIBBLES  [lane][b] words: code (r, i) in bits 8i + 4r; the four low bits of FIVE and SIX, too
 *     FIVE     then [lane] words: fifth bits (b, r, i) at 8i + 2b + r
 *     SIX      then [h][lane] words: high pairs (b, r, i) at 8i + 4(b % 2) + 2r
 *     BYTES    [h][lane][b % 2][r] words: byte i
 *     LEVELS   as NIBBLES with code (r, i) in bits 16r + 4i; the codes stand for levels
 *
 * Scales are words [sets][16 rows] of two f16. One set: the scale of each half. Two, one per half:
 * a scale for each block of 16 (Q6_K), or scale and shift, the latter of the type of the
 * activations. A weight is scale * (q - zero + shift) times the f32 scale of its row, a power of
 * two that keeps the scales far from the ends of f16. So the scales of a k-quant are multiplied out
 * at load: 1/2 bit per weight more than in the file for Q4_K and Q5_K, 7/16 for Q6_K, 1/4 for
 * IQ4_XS and MXFP4.
 *
 * Numbers q - zero are exact; a shift is added with one rounding (2^-12 of the sum at most, bf16:
 * 2^-9). Their products with x are summed in f32 over 32 (16) inputs, then scaled. A code costs one
 * to two instructions, once for all rows of a tile. With activations as int8 (int8.cuh), which is
 * less exact, it costs at most one, and half the products do.
 */
#ifndef FERRUM_KERNELS_CUDA_GGUF_CUH
#define FERRUM_KERNELS_CUDA_GGUF_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/moe_args.h"

namespace gpu
{
/** Exact numbers from codes: or-ed into the mantissa of a power of two, which is then taken away.
 *  @p offset: minus that power and the codes' zero, twice. */
template <class T> struct gguf_numbers;

template <> struct gguf_numbers<f16_t> {
    static constexpr uint32_t magic = 0x64006400u, one = 0x3c003c00u; /* 1024, 1 */

    static FERRUM_DEVICE_MEMBER uint32_t fma(uint32_t a, uint32_t b, uint32_t c)
    {
        return f16x2_fma(a, b, c);
    }
    /** Bits 0-7 and 16-23. */
    static FERRUM_DEVICE_MEMBER uint32_t narrow(uint32_t v, uint32_t mask, uint32_t offset)
    {
        return fma(lop3<0xea>(v, mask, magic), one, offset);
    }
    /** The same from codes + 128. */
    static FERRUM_DEVICE_MEMBER uint32_t wide(uint32_t v, uint32_t offset)
    {
        return narrow(v, 0x00ff00ffu, offset);
    }
};

template <> struct gguf_numbers<bf16_t> {
    static constexpr uint32_t magic = 0x43004300u, one = 0x3f803f80u; /* 128, 1 */

    static FERRUM_DEVICE_MEMBER uint32_t fma(uint32_t a, uint32_t b, uint32_t c)
    {
        return bf16x2_fma(a, b, c);
    }
    /** Codes below 128. */
    static FERRUM_DEVICE_MEMBER uint32_t narrow(uint32_t v, uint32_t mask, uint32_t offset)
    {
        return fma(lop3<0xea>(v, mask, magic), one, offset);
    }
    /** Two's complement: 128 + the low seven bits, less 128 or, with the sign, 256. */
    static FERRUM_DEVICE_MEMBER uint32_t wide(uint32_t v, uint32_t)
    {
        const uint32_t minus_one = 0xbf80bf80u;
        return fma(lop3<0xea>(v, 0x00800080u, magic), minus_one, lop3<0xea>(v, 0x007f007fu, magic));
    }
};

/** Codes of two blocks of 16 inputs as numbers q - zero, in the order of two A operands. */
using gguf_operands_t = uint32_t[2][4];

/** From the bytes of row g + 8r of block @p b of a half. */
template <class T, bool WIDE>
FERRUM_DEVICE void gguf_from_bytes(uint32_t bytes, uint32_t offset, uint32_t b, uint32_t r,
                                   gguf_operands_t &out)
{
    using numbers = gguf_numbers<T>;
    FERRUM_UNROLL
    for (uint32_t i = 0; i < 2; i++)
        out[b][2 * i + r] = WIDE ? numbers::wide(bytes >> 8 * i, offset)
                                 : numbers::narrow(bytes >> 8 * i, 0x00ff00ffu, offset);
}

/** @p high moved so that its bit @p at becomes bit 4, and masked. */
FERRUM_DEVICE uint32_t gguf_high_bits(uint32_t high, uint32_t at, uint32_t mask)
{
    return (at < 4 ? high << (4 - at) : high >> (at - 4)) & mask;
}

/** Levels of the four nibbles in half @p r of a word: picked by their low bits out of the lower and
 * the upper eight, then by their high bit. */
FERRUM_DEVICE uint32_t gguf_level_bytes(const uint32_t (&level)[4], uint32_t nibbles, uint32_t r)
{
    const uint32_t index = (nibbles & 0x77777777u) >> 16 * r;
    const uint32_t half = lop3<0xea>(nibbles >> 1, 0x44444444u, 0x32103210u) >> 16 * r;
    return byte_permute(byte_permute(level[0], level[1], index),
                        byte_permute(level[2], level[3], index), half);
}

/** The codes of half @p HALF of a record, which lies in shared memory. */
template <class T, uint32_t HALF>
FERRUM_DEVICE void gguf_decode(const ferrum_gguf_codes_t &codes, const unsigned char *record,
                               gguf_operands_t &out)
{
    if (codes.kind == FERRUM_CODES_BYTES) {
        const vec16_t w = *reinterpret_cast<const vec16_t *>(record + HALF * 512 + lane() * 16);
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 4; i++)
            gguf_from_bytes<T, true>(w.word[i], codes.offset, i / 2, i % 2, out);
        return;
    }
    const vec8_t w = *reinterpret_cast<const vec8_t *>(record + lane() * 16 + HALF * 8);
    if (codes.kind == FERRUM_CODES_NIBBLES) {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 8; i++)
            out[i / 4][i % 4] =
                gguf_numbers<T>::narrow(w.word[i / 4] >> (4 * (i % 4)), 0x000f000fu, codes.offset);
        return;
    }
    if (codes.kind == FERRUM_CODES_LEVELS) {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 4; i++)
            gguf_from_bytes<T, true>(gguf_level_bytes(codes.level, w.word[i / 2], i % 2),
                                     codes.offset, i / 2, i % 2, out);
        return;
    }
    const uint32_t *words = reinterpret_cast<const uint32_t *>(record + 512) + lane();
    uint32_t more[4];
    if (codes.kind == FERRUM_CODES_SIX) {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 4; i++)
            more[i] = gguf_high_bits(words[32 * HALF], 2 * i, 0x30303030u);
    } else {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 4; i++)
            more[i] = gguf_high_bits(words[0], 4 * HALF + i, 0x10101010u);
    }
    FERRUM_UNROLL
    for (uint32_t i = 0; i < 4; i++)
        gguf_from_bytes<T, false>(lop3<0xea>(w.word[i / 2] >> (4 * (i % 2)), 0x0f0f0f0fu, more[i]),
                                  codes.offset, i / 2, i % 2, out);
}

/** The numbers of half @p HALF of a record, shifted, as two A operands. */
template <class T, uint32_t HALF>
FERRUM_DEVICE void gguf_operands(const ferrum_gguf_codes_t &codes, const unsigned char *record,
                                 const uint32_t (&word)[2], gguf_operands_t &out)
{
    gguf_decode<T, HALF>(codes, record, out);
    if (!codes.shifted)
        return;
    FERRUM_UNROLL
    for (uint32_t i = 0; i < 8; i++)
        out[i / 4][i % 4] = gguf_numbers<T>::fma(out[i / 4][i % 4], gguf_numbers<T>::one,
                                                 byte_permute(word[i % 2], 0, 0x3232));
}

/** The scale of block @p b of half @p HALF in a word. */
template <uint32_t HALF>
FERRUM_DEVICE float gguf_scale(const ferrum_gguf_codes_t &codes, uint32_t word, uint32_t b)
{
    return to_f32(f16_t{uint16_t(word >> codes.scale_bit[HALF][b])});
}
} // namespace gpu

#endif
