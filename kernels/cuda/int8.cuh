/* SPDX-License-Identifier: MIT */
/**
 * @file int8.cuh
 * @brief Activations as int8, and the codes of gguf.cuh as operands for them.
 *
 * A row of x has a scale for every 32 inputs, the largest of them over 127, and its codes in the
 * order in which the records have theirs: of each 64 inputs, with b = 0..3 a block of 16,
 *
 *     byte 16t + 4b + i: input 16b + 2t, 2t+8, 2t+1, 2t+9 for i = 0..3
 *
 * so that 16 bytes of lane 4g + t are its B operands, and those of dp4a. Behind the codes of all
 * inputs, which are padded to 64 with zeros, each 64 have four floats: for each half its scale, and
 * the scale times the sum of the codes, by which a shift of the weights is multiplied.
 *
 * Weights lie in the records of gguf.cuh with bytes and levels in two's complement, and shifts in
 * f16 whatever the activations were. Codes whose zero is in the middle of their range become s8 by
 * one instruction when they are moved up until their highest bit, flipped, is the sign: 16, 8 or 4
 * (`unit`) times q - zero. The scale of a row is that much smaller, a power of two.
 *
 * So w x over 32 (16) inputs is  scale * (sx * S + unit * shift * sx * sum of x's codes), S the
 * exact sum of products. Every kernel adds these in f32 in the order of inputs, so a row has the
 * same bits in all of them. Scales of x have 22 bits, so that their product with 3 * 2^22 is exact:
 * int8_sum.
 */
#ifndef FERRUM_KERNELS_CUDA_INT8_CUH
#define FERRUM_KERNELS_CUDA_INT8_CUH

#include "kernels/cuda/gguf.cuh"

namespace gpu
{
/** Where input @p k of a row has its code. */
FERRUM_DEVICE uint32_t int8_place(uint32_t k)
{
    const uint32_t in_block = k % 16;
    return k / 64 * 64 + in_block % 8 / 2 * 16 + k % 64 / 16 * 4 + in_block % 2 * 2 + in_block / 8;
}

/** The floats of a row whose codes fill @p steps steps of 64. */
FERRUM_DEVICE float *int8_scales(unsigned char *row, uint32_t steps)
{
    return reinterpret_cast<float *>(row + size_t(steps) * 64);
}

/**
 * A warp quantises inputs 32*group .. 32*group+31 of a row of @p steps steps, one per lane. An
 * input that is no number makes the scale none, and so every product with the row.
 */
FERRUM_DEVICE void int8_quantise(float value, uint32_t group, uint32_t steps, unsigned char *row)
{
    const float least = 1e-30f; /* what is smaller is zero: its inverse would overflow */
    const float most = bit_cast<float>(warp_max(bit_cast<uint32_t>(value) & 0x7fffffffu));
    const float exact = most < least ? 0.0f : divide(most, 127.0f);
    const float scale = bit_cast<float>(bit_cast<uint32_t>(exact) & ~3u);
    const bool usual = scale > 0.0f && is_finite(scale);
    const int32_t code = usual ? round_to_int(divide(value, scale)) : 0;
    const int32_t sum = warp_sum(code);

    row[int8_place(group * 32 + lane())] = uint8_t(code);
    if (lane() == 0) {
        float *scales = int8_scales(row, steps) + group * 2;
        scales[0] = scale;
        scales[1] = scale * float(sum);
    }
}

/** Four codes as s8: the bits of @p mask, and those of @p more, which flips the highest, the sign.
 */
FERRUM_DEVICE uint32_t int8_narrow(uint32_t low, uint32_t mask, uint32_t more)
{
    return lop3<(0xf0 & 0xcc) ^ 0xaa>(low, mask, more);
}

/** A operands of m16n8k32 for both halves of a record: register 2i + r of half h has the codes of
 *  row g + 8r and block 2h + i. */
using int8_operands_t = uint32_t[2][4];

/** The codes of a record, which lies in shared memory. */
FERRUM_DEVICE void int8_decode(const ferrum_gguf_codes_t &codes, const unsigned char *record,
                               int8_operands_t &out)
{
    const uint32_t sign = 0x80808080u;
    const vec16_t w = *reinterpret_cast<const vec16_t *>(record + lane() * 16);
    const uint32_t *high = reinterpret_cast<const uint32_t *>(record + 512) + lane();

    if (codes.kind == FERRUM_CODES_BYTES) {
        const vec16_t more = *reinterpret_cast<const vec16_t *>(record + 512 + lane() * 16);
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 8; i++)
            out[i / 4][i % 4] = i < 4 ? w.word[i] : more.word[i - 4];
    } else if (codes.kind == FERRUM_CODES_LEVELS) {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 8; i++)
            out[i / 4][i % 4] = gguf_level_bytes(codes.level, w.word[i / 2], i % 2);
    } else if (codes.kind == FERRUM_CODES_NIBBLES) {
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 8; i++)
            out[i / 4][i % 4] = int8_narrow(w.word[i / 2] << (i % 2 ? 0 : 4), 0xf0f0f0f0u, sign);
    } else if (codes.kind == FERRUM_CODES_FIVE) {
        const uint32_t fifths = *high;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t low = i % 2 ? w.word[i / 2] >> 1 : w.word[i / 2] << 3;
            out[i / 4][i % 4] =
                int8_narrow(low, 0x78787878u, int8_narrow(fifths << (7 - i), sign, sign));
        }
    } else {
        const uint32_t pairs[2] = {high[0], high[32]};
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t low = i % 2 ? w.word[i / 2] >> 2 : w.word[i / 2] << 2;
            out[i / 4][i % 4] = int8_narrow(
                low, 0x3c3c3c3cu, int8_narrow(pairs[i / 4] << (6 - i % 4 * 2), 0xc0c0c0c0u, sign));
        }
    }
}

/** 3 * 2^22: a float whose last bits are an integer's. Sums of products that begin with its bits
 * are floats, and int8_sum takes it away again: one instruction converts and scales. */
constexpr int32_t int8_magic_bits = 0x4b400000;
constexpr float int8_magic = 12582912.0f;

/** sx * S, rounded once; @p minus_magic: -int8_magic * sx. */
FERRUM_DEVICE float int8_sum(int32_t sum, float sx, float minus_magic)
{
    return fma(bit_cast<float>(sum), sx, minus_magic);
}

/** What a word of scales adds for each unit of x's scaled sum of codes. */
FERRUM_DEVICE float int8_shift(const ferrum_gguf_codes_t &codes, uint32_t word)
{
    return to_f32(f16_t{uint16_t(word)}) * (to_f32(f16_t{uint16_t(word >> 16)}) * codes.unit);
}
} // namespace gpu

#endif
