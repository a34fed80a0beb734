/* SPDX-License-Identifier: MIT */
/**
 * @file packed_tile.h
 * @brief What the vector implementations of packed products share; see packed_template.h.
 *
 * Needs a vocabulary, `lanes_<isa>.h`: registers with a lane for each of LANES rows, as codes_t
 * (four bytes per lane), ints_t and floats_t, and what can be done with them.
 */
#ifndef FERRUM_KERNELS_PACKED_TILE_H
#define FERRUM_KERNELS_PACKED_TILE_H

#include "kernels/packed.h"

enum {
    ROWS = FERRUM_PANEL_ROWS,
    GROUP = FERRUM_PACKED_GROUP,
    GROUPS = FERRUM_PACKED_GROUPS,
    HALVES = FERRUM_PACKED_HALVES,
    VECTOR = 64,                 /**< bytes of four consecutive codes of every row */
    STEPS = GROUP / 4,           /**< vectors in a group */
    PARTS = ROWS / LANES,        /**< registers in a vector */
    PART_BYTES = VECTOR / PARTS, /**< of a register */
    TILE = 4                     /**< tokens that meet a register of weights together */
};

#define EACH_PART(p) UNROLL for (int p = 0; p < PARTS; p++)

/** Bound on a kind's codes v + offset: decides how many products fit 16 bits. */
typedef enum code_width {
    CODES_NARROW, /**< at most 15 */
    CODES_MEDIUM, /**< at most 63 */
    CODES_WIDE    /**< at most 255 */
} code_width_t;

/** A block of 256 values of sixteen rows, unpacked. Arrays of HALVES count halves of groups for
 *  kinds with `halves`, else groups. */
typedef struct block {
    _Alignas(VECTOR) union {
        uint8_t bytes[GROUPS][STEPS * VECTOR];       /**< FAST: v + offset */
        int16_t words[GROUPS][ROWS * (size_t)GROUP]; /**< ACCURATE: s * v, as tile_words() likes */
    } codes;
    float scale[HALVES][ROWS]; /**< FAST: d * s */
    float min[HALVES][ROWS];   /**< of kinds with minima */
    float d[GROUPS][ROWS];
    uint32_t groups;
} block_t;

/*
 * What an implementation defines besides the vocabulary; `tokens`, `first`, `count` and `width` are
 * constants after inlining:
 *
 * The sum that FAST products are added to, for `start` of an activation record:
 *   INLINE ints_t tile_start(int32_t start, code_width_t width);
 * sums[t][p] += sum of code * activation over steps [first, first + count) of a group of bytes:
 *   INLINE void tile_bytes(const uint8_t *codes, const int8_t *const x[TILE], int first, int count,
 *                          int tokens, code_width_t width, ints_t sums[TILE][PARTS]);
 * sums[t][p] += sum of weight * activation over a group of words:
 *   INLINE void tile_words(const int16_t *words, const int16_t *const x[TILE], int tokens,
 *                          ints_t sums[TILE][PARTS]);
 * Integer scales of a register's rows as words_store() takes them:
 *   INLINE words_t words_scale(const int8_t *s, int offset);
 * Store the weights (code - offset) * scale of a register: step `step`, rows of part `part`; scale
 * NULL: one:
 *   INLINE void words_store(int16_t *words, uint32_t step, uint32_t part, codes_t codes, int
 * offset, const words_t *scale);
 */

#endif /* FERRUM_KERNELS_PACKED_TILE_H */
