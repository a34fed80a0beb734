/* SPDX-License-Identifier: MIT */
/**
 * @file row_decoder.h
 * @brief Rows of a quantised matrix as f32, for embeddings: they stay quantised in the mapped file
 *        and only the rows that a step needs are decoded, on the host.
 */
#ifndef FERRUM_HOST_ROW_DECODER_H
#define FERRUM_HOST_ROW_DECODER_H

#include <ferrum/types.h>

#include <stdbool.h>

/**
 * Convert @p count plain values of @p dtype (f32, f16 or bf16), of any alignment. False for another
 * dtype. [any-thread]
 */
bool ferrum_values_to_f32(ferrum_dtype_t dtype, const void *values, uint64_t count, float *out);

/** Whether ferrum_row_decode knows @p format: F32, F16, BF16, Q4_0 … Q8_0, Q2_K … Q6_K.
 *  [any-thread] */
bool ferrum_row_decodable(ferrum_weight_format_t format);

/**
 * Decode row @p row of a matrix of @p cols columns, a multiple of the format's block, whose blocks
 * lie at @p data (any alignment). The format must be decodable. [any-thread]
 * @param out f32 [cols]
 */
void ferrum_row_decode(ferrum_weight_format_t format, const void *data, uint64_t row, uint32_t cols,
                       float *out);

#endif /* FERRUM_HOST_ROW_DECODER_H */
