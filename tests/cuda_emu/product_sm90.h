/* SPDX-License-Identifier: MIT */
/**
 * @file product_sm90.h
 * @brief Runs the product of example_sm90.cu and compares with sums in double.
 */
#ifndef FERRUM_TESTS_CUDA_EMU_PRODUCT_SM90_H
#define FERRUM_TESTS_CUDA_EMU_PRODUCT_SM90_H

#include <stdint.h>

/** Names of its planted bugs, in order; the first is none. */
#define PRODUCT_SM90_BUGS 13
extern const char *const product_sm90_bugs[PRODUCT_SM90_BUGS];

/** One launch; the greatest error relative to the sum of magnitudes, or infinity if it failed. */
double product_sm90_error(uint32_t bug);

/** Lane of a warp, and word, that hold columns 2*pair and 2*pair + 1 of row 0..15 of A (m16k16). */
void product_sm90_a_place(uint32_t row, uint32_t pair, uint32_t *out_lane, uint32_t *out_word);
/** The thread and the sum that hold an element of D (m64nN). */
void product_sm90_d_place(uint32_t row, uint32_t column, uint32_t *out_thread, uint32_t *out_sum);

#endif
