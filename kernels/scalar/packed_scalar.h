/* SPDX-License-Identifier: MIT */
/** @file packed_scalar.h  @brief One row's group of a panel, unpacked; for the scalar reference. */
#ifndef FERRUM_KERNELS_PACKED_SCALAR_H
#define FERRUM_KERNELS_PACKED_SCALAR_H

#include "kernels/packed.h"

/** Values of one lane and group: scale of half h is `d * s[h]`. */
typedef struct ferrum_packed_lane {
    int16_t v[FERRUM_PACKED_GROUP]; /**< in the order of the row */
    int32_t s[2];
    float d;
    float min[2]; /**< min[1] with `halves` only */
} ferrum_packed_lane_t;

/** Unpack group @p group (of the row) of lane @p lane. */
void ferrum_packed_unpack_scalar(const ferrum_packed_matrix_t *matrix, const uint8_t *panel,
                                 uint32_t group, uint32_t lane, ferrum_packed_lane_t *out);

#endif /* FERRUM_KERNELS_PACKED_SCALAR_H */
