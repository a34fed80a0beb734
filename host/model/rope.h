/* SPDX-License-Identifier: MIT */
/**
 * @file rope.h
 * @brief Tables of rotary position embedding: row p holds cos and sin of `p / theta^(2i/head_dim)`
 *        for i < head_dim/2, computed in f64 and stored as f32.
 */
#ifndef FERRUM_HOST_ROPE_H
#define FERRUM_HOST_ROPE_H

#include "host/runtime/ops.h"

/** Host tables, f32 [positions, head_dim / 2] each. [any-thread] */
void ferrum_rope_fill(uint32_t positions, uint32_t head_dim, double theta, float *out_cos,
                      float *out_sin);

/** The same as device buffers; both NULL on failure. [one-per-context] */
ferrum_status_t ferrum_rope_upload(const ferrum_ops_t *ops, ferrum_context_t *ctx,
                                   uint32_t positions, uint32_t head_dim, double theta,
                                   ferrum_buffer_t **out_cos, ferrum_buffer_t **out_sin,
                                   ferrum_error_t *err);

#endif /* FERRUM_HOST_ROPE_H */
