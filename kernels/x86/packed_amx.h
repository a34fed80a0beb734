/* SPDX-License-Identifier: MIT */
/**
 * @file packed_amx.h
 * @brief Packed products with AMX-INT8. The process has to have asked the kernel for tile data
 *        (arch_prctl ARCH_REQ_XCOMP_PERM) before the first call.
 */
#ifndef FERRUM_KERNELS_PACKED_AMX_H
#define FERRUM_KERNELS_PACKED_AMX_H

#include "kernels/packed.h"

ferrum_packed_product_fn ferrum_packed_product_amx;

#endif /* FERRUM_KERNELS_PACKED_AMX_H */
