/* SPDX-License-Identifier: MIT */
/** @file amx_emulated.h  @brief The product of kernels/x86/packed_amx.c over emulated tiles. */
#ifndef FERRUM_TESTS_KERNELS_AMX_EMULATED_H
#define FERRUM_TESTS_KERNELS_AMX_EMULATED_H

#include "kernels/packed.h"

ferrum_packed_product_fn test_product_amx_emulated;

#endif /* FERRUM_TESTS_KERNELS_AMX_EMULATED_H */
