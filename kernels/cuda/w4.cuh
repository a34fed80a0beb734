/* SPDX-License-Identifier: MIT */
/**
 * @file w4.cuh
 * @brief The tiled 4-bit layout, and its codes as operands of a matrix instruction.
 *
 * A matrix [n,k] is cut into tiles of 16 outputs by 64 inputs, tile rows first; edges are padded
 * with codes that equal their zero. A tile is 32 lanes x 4 words, so that one load of 16 bytes
 * gives a lane its part of four m16n8k16 A operands: word j holds inputs 16j..16j+15 of the tile.
 * With lane = 4*g + t the nibbles of a word, from bit 0 up and 16 bits apart for the second of a
 * pair:
 *
 *     bits  0, 16: output g,   inputs 2t, 2t+1          bits  8, 24: output g,   inputs 2t+8, 2t+9
 *     bits  4, 20: output g+8, inputs 2t, 2t+1          bits 12, 28: output g+8, inputs 2t+8, 2t+9
 *
 * A tile row has for each group and output one word: the scale (f16 or bf16, as in the file) in the
 * low half, the zero in the high half; [groups][16] words. Groups of 32 come in pairs: an odd last
 * one is followed by zeros.
 *
 * A code q becomes the exact number q - zero without a conversion: or-ed into the mantissa of a
 * power of two it is 1024 + q (f16; 128 + q in bf16), in the next nibble 1024 + 16q, and one fused
 * multiply-add takes the rest away. (The trick is that of Kim et al., "Who Says Elephants Can't
 * Run", arXiv:2211.10017.)
 */
#ifndef FERRUM_KERNELS_CUDA_W4_CUH
#define FERRUM_KERNELS_CUDA_W4_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/moe_args.h"

namespace gpu
{
/** What turns the codes of a group into q - zero: for output g (low) and output g+8 (high). */
struct w4_zeros_t {
    uint32_t low, high;
};

/** The A operand of word @p w; T is f16_t or bf16_t. */
template <class T> struct w4_codes;

template <> struct w4_codes<f16_t> {
    static constexpr uint32_t magic = 0x64006400u; /* 1024 */

    /** From the words of a group: -(1024 + zero) and -(64 + zero), twice each; sums of bits. */
    static FERRUM_DEVICE_MEMBER w4_zeros_t zeros(uint32_t low, uint32_t high)
    {
        return {byte_permute(low, 0, 0x3232) + 0xe400e400u,
                byte_permute(high, 0, 0x3232) * 16 + 0xd400d400u};
    }
    static FERRUM_DEVICE_MEMBER void decode(uint32_t w, const w4_zeros_t &zero, uint32_t (&a)[4])
    {
        const uint32_t one = 0x3c003c00u, sixteenth = 0x2c002c00u;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t v = w >> (8 * i);
            a[2 * i] = f16x2_fma(lop3<0xea>(v, 0x000f000fu, magic), one, zero.low);
            a[2 * i + 1] = f16x2_fma(lop3<0xea>(v, 0x00f000f0u, magic), sixteenth, zero.high);
        }
    }
};

template <> struct w4_codes<bf16_t> {
    static constexpr uint32_t magic = 0x43004300u; /* 128: the mantissa has room for one nibble */

    /** -(128 + zero), twice each. */
    static FERRUM_DEVICE_MEMBER w4_zeros_t zeros(uint32_t low, uint32_t high)
    {
        return {byte_permute(low, 0, 0x3232) + 0xc300c300u,
                byte_permute(high, 0, 0x3232) + 0xc300c300u};
    }
    static FERRUM_DEVICE_MEMBER void decode(uint32_t w, const w4_zeros_t &zero, uint32_t (&a)[4])
    {
        const uint32_t one = 0x3f803f80u;
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 4; i++)
            a[i] = bf16x2_fma(lop3<0xea>(w >> (4 * i), 0x000f000fu, magic), one,
                              i % 2 ? zero.high : zero.low);
    }
};

/** The scale of a word of a group. */
FERRUM_DEVICE float w4_scale(uint32_t word, bool bfloat)
{
    return bfloat ? bit_cast<float>(word << 16) : to_f32(f16_t{uint16_t(word)});
}

/** Whether rows of x have to be read element by element: act-order, or no multiple of 16 bytes. */
FERRUM_DEVICE bool w4_gathers(const ferrum_product_args_t &args)
{
    return args.w.group_of || reinterpret_cast<uintptr_t>(args.x) % 16 != 0;
}

/** Where the inputs at eight places of a matrix lie in a row of x. */
struct w4_gather_t {
    uint32_t start;
    vec16_t from; /* two by two */

    template <class T> FERRUM_DEVICE_MEMBER vec16_t row(const T *x) const
    {
        vec16_t eight;

        FERRUM_UNROLL
        for (uint32_t i = 0; i < 4; i++)
            eight.word[i] = x[start + (from.word[i] & 0xffffu)].bits |
                            uint32_t(x[start + (from.word[i] >> 16)].bits) << 16;
        return eight;
    }
};

/** Places k .. k+7 (k below the inputs, padded to 64) of a matrix of @p expert. */
FERRUM_DEVICE w4_gather_t w4_gather(const ferrum_product_args_t &args, uint32_t expert, uint32_t k)
{
    const vec16_t *inputs = static_cast<const vec16_t *>(args.w.group_of);
    const uint32_t padded = (args.w.k + 63) / 64 * 64;

    if (inputs)
        return {0, inputs[(uint64_t(expert) * padded + k) / 8]};
    return {k, {{0x10000u, 0x30002u, 0x50004u, 0x70006u}}};
}
} // namespace gpu

#endif
