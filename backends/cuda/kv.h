/* SPDX-License-Identifier: MIT */
/**
 * @file kv.h
 * @brief Caches and rotations of callers, checked, as the kernels' arguments.
 *
 * What lies in device memory (tables, lengths, sequences) is not looked at: kernels skip what would
 * lead out of a buffer.
 */
#ifndef FERRUM_CUDA_KV_H
#define FERRUM_CUDA_KV_H

#include "backends/cuda/check.h"
#include "kernels/cuda/args.h"

/** A layout and head dimension that the kernels have; UNSUPPORTED if not. */
ferrum_status_t ferrum_cuda_check_kv_layout(ferrum_kv_layout_t layout, uint32_t head_dim,
                                            ferrum_error_t *err);

/** Check a caller's pool; @p out_args has no tables yet. */
ferrum_status_t ferrum_cuda_kv_from(const char *function, ferrum_context_t *ctx,
                                    const ferrum_paged_kv_t *kv, ferrum_kv_args_t *out_args,
                                    ferrum_error_t *err);

/** A contiguous cache [batch, kv_heads, capacity, head_dim], checked by the caller. */
ferrum_kv_args_t ferrum_cuda_kv_contiguous(const ferrum_buffer_t *k, const ferrum_buffer_t *v,
                                           uint32_t batch, uint32_t kv_heads, uint32_t capacity,
                                           uint32_t head_dim);

/**
 * Check a rotation for heads of args->kv.head_dim at positions below @p positions, and fill that
 * part of @p args; args->has_kv: keys too.
 */
ferrum_status_t ferrum_cuda_rope_from(const char *function, ferrum_context_t *ctx,
                                      const ferrum_rope_t *rope, uint64_t positions,
                                      ferrum_qkv_args_t *args, ferrum_error_t *err);

/** Launch qkv_norm_rope. */
ferrum_status_t ferrum_cuda_qkv_run(ferrum_context_t *ctx, const ferrum_qkv_args_t *args,
                                    ferrum_error_t *err);

/** The geometry agrees with itself and with args->kv; fills heads, scale, causal and window. */
ferrum_status_t ferrum_cuda_attention_config(const char *function,
                                             const ferrum_attn_config_t *config,
                                             ferrum_attention_args_t *args, ferrum_error_t *err);

/** Queries and outputs head-major [batch, heads, q_len, head_dim], or token-major (q_len is 1). */
void ferrum_cuda_attention_strides(ferrum_attention_args_t *args, bool head_major);

/** Launch attention of @p queries; fills in the rest of @p args (attention_run.c). */
ferrum_status_t ferrum_cuda_attention_run(ferrum_context_t *ctx, ferrum_attention_args_t *args,
                                          uint64_t queries, ferrum_error_t *err);

#endif /* FERRUM_CUDA_KV_H */
