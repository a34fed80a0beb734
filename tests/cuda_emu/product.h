/* SPDX-License-Identifier: MIT */
/**
 * @file product.h
 * @brief Runs the kernels of example.cu and compares with sums in double.
 */
#ifndef FERRUM_TESTS_CUDA_EMU_PRODUCT_H
#define FERRUM_TESTS_CUDA_EMU_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

/** The planted bugs of example.cu. */
enum {
    NO_BUG,
    NO_BARRIER_AFTER_WAIT,
    NO_BARRIER_AT_END,
    NO_WAIT,
    OVERRUN,
    PRODUCT_BUGS
};

/** One launch; the greatest error relative to the sum of magnitudes, or infinity if it failed. */
double product_error(bool bfloat, uint32_t bug);

#endif
