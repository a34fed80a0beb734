/* SPDX-License-Identifier: MIT */
/** @file packed_neon.h  @brief Packed kernels with NEON, its dot products, and those of i8mm. */
#ifndef FERRUM_KERNELS_PACKED_NEON_H
#define FERRUM_KERNELS_PACKED_NEON_H

#include "kernels/packed.h"

ferrum_packed_quantise_fn ferrum_packed_quantise_neon;
ferrum_packed_product_fn ferrum_packed_product_neon;
ferrum_packed_product_fn ferrum_packed_product_dotprod;
ferrum_packed_product_fn ferrum_packed_product_i8mm;

#endif /* FERRUM_KERNELS_PACKED_NEON_H */
