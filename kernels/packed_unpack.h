/* SPDX-License-Identifier: MIT */
/**
 * @file packed_unpack.h
 * @brief Codes of a panel, from the words of the format to one byte each; any vocabulary.
 */
#ifndef FERRUM_KERNELS_PACKED_UNPACK_H
#define FERRUM_KERNELS_PACKED_UNPACK_H

#include "kernels/packed_tile.h"

/* What ferrum_packed_traits() says, and more, as constants for the compiler. */

INLINE bool has_halves(ferrum_packed_kind_t kind)
{
    return kind == FERRUM_PACKED_Q2_K || kind == FERRUM_PACKED_Q3_K || kind == FERRUM_PACKED_Q6_K;
}

/** Scales are integers times a float of the unit. */
INLINE bool has_integers(ferrum_packed_kind_t kind)
{
    return kind >= FERRUM_PACKED_Q2_K && kind <= FERRUM_PACKED_Q6_K;
}

INLINE int offset_of(ferrum_packed_kind_t kind)
{
    switch (kind) {
    case FERRUM_PACKED_Q4_0:
    case FERRUM_PACKED_Q4_K:
        return 8;
    case FERRUM_PACKED_Q3_K:
        return 4;
    case FERRUM_PACKED_MXFP4:
        return 12;
    case FERRUM_PACKED_Q5_0:
    case FERRUM_PACKED_Q5_K:
    case FERRUM_PACKED_GPTQ4:
        return 16;
    case FERRUM_PACKED_Q6_K:
        return 32;
    case FERRUM_PACKED_Q4_1:
    case FERRUM_PACKED_Q5_1:
    case FERRUM_PACKED_Q2_K:
        return 0;
    default:
        return 128;
    }
}

INLINE code_width_t width_of(ferrum_packed_kind_t kind)
{
    const int offset = offset_of(kind);
    if (offset == 128)
        return CODES_WIDE;
    return offset > 8 || kind == FERRUM_PACKED_Q5_1 ? CODES_MEDIUM : CODES_NARROW;
}

/** Values per unit. */
INLINE uint32_t unit_of(const ferrum_packed_matrix_t *m, ferrum_packed_kind_t kind)
{
    if (kind == FERRUM_PACKED_GPTQ4 || kind == FERRUM_PACKED_GPTQ8)
        return m->unit;
    return has_integers(kind) || kind == FERRUM_PACKED_IQ4_XS ? 256 : GROUP;
}

INLINE codes_t nibbles(const uint8_t *p, bool high)
{
    return codes_and(codes_shr(codes_load(p), high ? 4 : 0), 15);
}

/** `bits` (a mask) of every byte, from bit `from`, moved to bit `to`. */
INLINE codes_t bits_at(const uint8_t *p, uint32_t from, int mask, uint32_t to)
{
    return codes_shl(codes_and(codes_shr(codes_load(p), from), mask), to);
}

/** Bit 4s + b of each row's word at @p p becomes bit 4 of byte b. */
INLINE codes_t fifth_bits(const uint8_t *p, uint32_t s)
{
    const codes_t v = codes_shr(codes_load(p), 4 * s);
    const codes_t bit0 = codes_and_words(v, 0x1), bit1 = codes_and_words(v, 0x2);
    const codes_t bit2 = codes_and_words(v, 0x4), bit3 = codes_and_words(v, 0x8);
    return codes_or(codes_or(codes_shl(bit0, 4), codes_shl(bit1, 11)),
                    codes_or(codes_shl(bit2, 18), codes_shl(bit3, 25)));
}

/** IQ4 levels plus 128, doubled E2M1 values plus 12. */
static const uint8_t iq4_codes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                      129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t mxfp4_codes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

/** v + offset of step @p s of group @p j of a unit, for one register of rows.
 *  @param u      the unit, at the first of the rows
 *  @param zeros  GPTQ4: 16 - zero of each row, in each of its bytes */
INLINE codes_t codes_of(ferrum_packed_kind_t kind, const uint8_t *u, uint32_t j, uint32_t s,
                        codes_t zeros)
{
    u += ferrum_packed_codes_at(kind);
    const uint8_t *high = u + 32 * VECTOR;
    switch (kind) {
    case FERRUM_PACKED_Q4_0:
    case FERRUM_PACKED_Q4_1:
        return nibbles(u + s % 4 * VECTOR, s >= 4);
    case FERRUM_PACKED_Q5_0:
    case FERRUM_PACKED_Q5_1:
        return codes_or(nibbles(u + s % 4 * VECTOR, s >= 4), fifth_bits(u + 4 * VECTOR, s));
    case FERRUM_PACKED_IQ4_NL:
        return codes_lookup(iq4_codes, nibbles(u + s % 4 * VECTOR, s >= 4));
    case FERRUM_PACKED_MXFP4:
        return codes_lookup(mxfp4_codes, nibbles(u + s % 4 * VECTOR, s >= 4));
    case FERRUM_PACKED_IQ4_XS:
        return codes_lookup(iq4_codes, nibbles(u + (j * 4 + s % 4) * VECTOR, s >= 4));
    case FERRUM_PACKED_Q8_0:
        return codes_flip(codes_load(u + s * VECTOR));
    case FERRUM_PACKED_Q2_K:
        return bits_at(u + (j / 4 * 8 + s) * VECTOR, j % 4 * 2, 3, 0);
    case FERRUM_PACKED_Q3_K:
        return codes_or(bits_at(u + (j / 4 * 8 + s) * VECTOR, j % 4 * 2, 3, 0),
                        bits_at(u + (16 + s) * VECTOR, j, 1, 2));
    case FERRUM_PACKED_Q4_K:
        return nibbles(u + (j / 2 * 8 + s) * VECTOR, j % 2);
    case FERRUM_PACKED_Q5_K:
        return codes_or(nibbles(u + (j / 2 * 8 + s) * VECTOR, j % 2),
                        bits_at(high + s * VECTOR, j, 1, 4));
    case FERRUM_PACKED_Q6_K:
        return codes_or(nibbles(u + (j / 4 * 16 + j % 2 * 8 + s) * VECTOR, j % 4 >= 2),
                        bits_at(high + (j / 4 * 8 + s) * VECTOR, j % 4 * 2, 3, 4));
    case FERRUM_PACKED_GPTQ4:
        return codes_add(nibbles(u + (j * 4 + s / 2) * VECTOR, s % 2), zeros);
    default:
        return codes_load(u + (j * 8 + s) * VECTOR);
    }
}

/** 16 - zero of rows lane, lane + 1, ... of a GPTQ4 unit. */
INLINE codes_t gptq_zeros(const ferrum_packed_matrix_t *m, const uint8_t *u, uint32_t lane)
{
    const size_t scale_bytes = m->scale_dtype == FERRUM_DTYPE_F32 ? 4 : 2;
    uint8_t zeros[LANES];
    for (uint32_t r = 0; r < LANES; r++)
        zeros[r] = (uint8_t)(16 - u[(size_t)m->unit / 8 * VECTOR + scale_bytes * ROWS + lane + r]);
    return codes_of_rows(zeros);
}

#endif /* FERRUM_KERNELS_PACKED_UNPACK_H */
