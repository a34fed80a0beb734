/* SPDX-License-Identifier: MIT */
/** @file packed_avx2.h  @brief Packed kernels on 256-bit registers, without and with VNNI. */
#ifndef FERRUM_KERNELS_PACKED_AVX2_H
#define FERRUM_KERNELS_PACKED_AVX2_H

#include "kernels/packed.h"

ferrum_packed_quantise_fn ferrum_packed_quantise_avx2;
ferrum_packed_product_fn ferrum_packed_product_avx2;
ferrum_packed_product_fn ferrum_packed_product_avxvnni;

#endif /* FERRUM_KERNELS_PACKED_AVX2_H */
