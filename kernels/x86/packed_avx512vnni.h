/* SPDX-License-Identifier: MIT */
/** @file packed_avx512vnni.h  @brief The two halves of the AVX-512 VNNI packed kernels. */
#ifndef FERRUM_KERNELS_PACKED_AVX512VNNI_H
#define FERRUM_KERNELS_PACKED_AVX512VNNI_H

#include "kernels/packed.h"

ferrum_packed_quantise_fn ferrum_packed_quantise_avx512vnni;
ferrum_packed_product_fn ferrum_packed_product_avx512vnni;

#endif /* FERRUM_KERNELS_PACKED_AVX512VNNI_H */
