/* SPDX-License-Identifier: MIT */
/**
 * @file entries.h
 * @brief The one list of what a full backend implements: X(table type, name prefix, entry).
 *
 * Backend B implements an entry as ferrum_B_<prefix><entry>; its own entries.h declares these
 * functions from the list, and its plugin.c fills the tables from it.
 */
#ifndef FERRUM_BACKENDS_COMMON_ENTRIES_H
#define FERRUM_BACKENDS_COMMON_ENTRIES_H

#include <ferrum/backend.h>
#include <ferrum/moe_fused.h>
#include <ferrum/quant_llm.h>

#define FERRUM_BACKEND_ENTRIES(X)                                                                  \
    X(ferrum_backend_ops_t, , device_open)                                                         \
    X(ferrum_backend_ops_t, , device_retain)                                                       \
    X(ferrum_backend_ops_t, , device_release)                                                      \
    X(ferrum_backend_ops_t, , device_info)                                                         \
    X(ferrum_backend_ops_t, , context_new)                                                         \
    X(ferrum_backend_ops_t, , context_free)                                                        \
    X(ferrum_backend_ops_t, , context_sync)                                                        \
    X(ferrum_backend_ops_t, , context_sync_before_readback)                                        \
    X(ferrum_backend_ops_t, , context_stats)                                                       \
    X(ferrum_backend_ops_t, , event_new)                                                           \
    X(ferrum_backend_ops_t, , event_record)                                                        \
    X(ferrum_backend_ops_t, , event_wait)                                                          \
    X(ferrum_backend_ops_t, , event_sync)                                                          \
    X(ferrum_backend_ops_t, , event_free)                                                          \
    X(ferrum_backend_ops_t, , timer_new)                                                           \
    X(ferrum_backend_ops_t, , timer_record_start)                                                  \
    X(ferrum_backend_ops_t, , timer_record_end)                                                    \
    X(ferrum_backend_ops_t, , timer_elapsed_ms)                                                    \
    X(ferrum_backend_ops_t, , timer_free)                                                          \
    X(ferrum_backend_ops_t, , buffer_alloc)                                                        \
    X(ferrum_backend_ops_t, , buffer_wrap_host)                                                    \
    X(ferrum_backend_ops_t, , buffer_retain)                                                       \
    X(ferrum_backend_ops_t, , buffer_release)                                                      \
    X(ferrum_backend_ops_t, , buffer_info)                                                         \
    X(ferrum_backend_ops_t, , buffer_write)                                                        \
    X(ferrum_backend_ops_t, , buffer_write_f32)                                                    \
    X(ferrum_backend_ops_t, , buffer_read)                                                         \
    X(ferrum_backend_ops_t, , buffer_read_f32)                                                     \
    X(ferrum_backend_ops_t, , buffer_zero)                                                         \
    X(ferrum_backend_ops_t, , buffer_copy)                                                         \
    X(ferrum_backend_ops_t, , gemm)                                                                \
    X(ferrum_backend_ops_t, , rms_norm)                                                            \
    X(ferrum_backend_ops_t, , fused_add_rms_norm)                                                  \
    X(ferrum_backend_ops_t, , flash_attention)                                                     \
    X(ferrum_backend_ops_t, , embedding_lookup)                                                    \
    X(ferrum_backend_ops_t, , embedding_lookup_dev)                                                \
    X(ferrum_backend_ops_t, , split_qkv)                                                           \
    X(ferrum_backend_ops_t, , fused_silu_mul_split)                                                \
    X(ferrum_backend_ops_t, , fused_silu_mul_split_strided)                                        \
    X(ferrum_backend_ops_t, , qk_norm_rope)                                                        \
    X(ferrum_backend_ops_t, , split_qkv_norm_rope)                                                 \
    X(ferrum_backend_ops_t, , split_qkv_norm_rope_into_cache)                                      \
    X(ferrum_backend_ops_t, , kv_cache_append_head_major)                                          \
    X(ferrum_backend_ops_t, , transpose_head_to_token)                                             \
    X(ferrum_backend_ops_t, , transpose_token_to_head)                                             \
    X(ferrum_backend_ops_t, , add_inplace)                                                         \
    X(ferrum_backend_ops_t, , scaled_add_inplace)                                                  \
    X(ferrum_backend_ops_t, , scale_inplace)                                                       \
    X(ferrum_backend_ops_t, , add_bias)                                                            \
    X(ferrum_backend_ops_t, , argmax_rows)                                                         \
    X(ferrum_backend_ops_t, , argmax_rows_masked)                                                  \
    X(ferrum_backend_ops_t, , argmax_rows_repetition_penalty)

#define FERRUM_LINEAR_ENTRIES(X)                                                                   \
    X(ferrum_linear_ops_t, linear_, retain)                                                        \
    X(ferrum_linear_ops_t, linear_, release)                                                       \
    X(ferrum_linear_ops_t, linear_, info)                                                          \
    X(ferrum_linear_ops_t, linear_, forward)

#define FERRUM_STACKED_EXPERTS_ENTRIES(X)                                                          \
    X(ferrum_stacked_experts_ops_t, stacked_experts_, retain)                                      \
    X(ferrum_stacked_experts_ops_t, stacked_experts_, release)                                     \
    X(ferrum_stacked_experts_ops_t, stacked_experts_, info)                                        \
    X(ferrum_stacked_experts_ops_t, , gemv_moe_id)                                                 \
    X(ferrum_stacked_experts_ops_t, , gemv_moe_id_gate_up_silu)                                    \
    X(ferrum_stacked_experts_ops_t, , gemv_moe_id_batched)                                         \
    X(ferrum_stacked_experts_ops_t, , gemv_moe_id_gate_up_silu_batched)                            \
    X(ferrum_stacked_experts_ops_t, , gemm_moe_id)                                                 \
    X(ferrum_stacked_experts_ops_t, , gemm_moe_id_indirect)

#define FERRUM_MARLIN_STACK_ENTRIES(X)                                                             \
    X(ferrum_marlin_stack_ops_t, marlin_stack_, retain)                                            \
    X(ferrum_marlin_stack_ops_t, marlin_stack_, release)                                           \
    X(ferrum_marlin_stack_ops_t, marlin_stack_, info)                                              \
    X(ferrum_marlin_stack_ops_t, , zero_workspace)                                                 \
    X(ferrum_marlin_stack_ops_t, , gemm_phase_batched)                                             \
    X(ferrum_marlin_stack_ops_t, , gemm_phase_vllm)                                                \
    X(ferrum_marlin_stack_ops_t, , make_expert_linear)

#define FERRUM_QUANT_LLM_ENTRIES(X)                                                                \
    X(ferrum_quant_llm_ops_t, , supports)                                                          \
    X(ferrum_quant_llm_ops_t, , load_quant)                                                        \
    X(ferrum_quant_llm_ops_t, , load_quant_fused)                                                  \
    X(ferrum_quant_llm_ops_t, , load_quant_experts)                                                \
    X(ferrum_quant_llm_ops_t, , load_gptq)                                                         \
    X(ferrum_quant_llm_ops_t, , load_gptq_stacked)                                                 \
    X(ferrum_quant_llm_ops_t, , pregrow_gather_scratch)                                            \
    X(ferrum_quant_llm_ops_t, , graph_set_decode_state)                                            \
    X(ferrum_quant_llm_ops_t, , graph_set_device_state_mode)                                       \
    X(ferrum_quant_llm_ops_t, , graph_begin)                                                       \
    X(ferrum_quant_llm_ops_t, , graph_end)                                                         \
    X(ferrum_quant_llm_ops_t, , graph_replay)                                                      \
    X(ferrum_quant_llm_ops_t, , graph_reset)                                                       \
    X(ferrum_quant_llm_ops_t, , graph_reset_all)                                                   \
    X(ferrum_quant_llm_ops_t, , graph_in_flight)                                                   \
    X(ferrum_quant_llm_ops_t, , paged_kv_write)                                                    \
    X(ferrum_quant_llm_ops_t, , paged_kv_write_varlen)                                             \
    X(ferrum_quant_llm_ops_t, , paged_decode_attention)                                            \
    X(ferrum_quant_llm_ops_t, , paged_varlen_attention)                                            \
    X(ferrum_quant_llm_ops_t, , paged_batched_decode_attention)

/* `supports` is the same function in both tables, so it is declared once, above. */
#define FERRUM_MOE_FUSED_ENTRIES(X)                                                                \
    X(ferrum_moe_fused_ops_t, , upload_moe_routing)                                                \
    X(ferrum_moe_fused_ops_t, , route_topk_softmax)                                                \
    X(ferrum_moe_fused_ops_t, , route_topk_into_host)                                              \
    X(ferrum_moe_fused_ops_t, , moe_build_pairs_by_token)                                          \
    X(ferrum_moe_fused_ops_t, , moe_align_block_size)                                              \
    X(ferrum_moe_fused_ops_t, , moe_align_block_size_pair_ids)                                     \
    X(ferrum_moe_fused_ops_t, , compute_ids_tpe)                                                   \
    X(ferrum_moe_fused_ops_t, , silu_mul_batched)                                                  \
    X(ferrum_moe_fused_ops_t, , silu_mul_stacked)                                                  \
    X(ferrum_moe_fused_ops_t, , weighted_sum_stacked)                                              \
    X(ferrum_moe_fused_ops_t, , weighted_sum_residual_stacked)                                     \
    X(ferrum_moe_fused_ops_t, , weighted_sum_residual_norm_stacked)                                \
    X(ferrum_moe_fused_ops_t, , weighted_sum_batched)                                              \
    X(ferrum_moe_fused_ops_t, , weighted_sum_batched_offset)                                       \
    X(ferrum_moe_fused_ops_t, , moe_combine)                                                       \
    X(ferrum_moe_fused_ops_t, , expert_ffn_create)                                                 \
    X(ferrum_moe_fused_ops_t, , expert_ffn_retain)                                                 \
    X(ferrum_moe_fused_ops_t, , expert_ffn_release)                                                \
    X(ferrum_moe_fused_ops_t, , expert_ffn_info)                                                   \
    X(ferrum_moe_fused_ops_t, , expert_ffn_forward)

/** All of them. */
#define FERRUM_ALL_ENTRIES(X)                                                                      \
    FERRUM_BACKEND_ENTRIES(X)                                                                      \
    FERRUM_LINEAR_ENTRIES(X)                                                                       \
    FERRUM_STACKED_EXPERTS_ENTRIES(X)                                                              \
    FERRUM_MARLIN_STACK_ENTRIES(X)                                                                 \
    FERRUM_QUANT_LLM_ENTRIES(X)                                                                    \
    FERRUM_MOE_FUSED_ENTRIES(X)

#endif /* FERRUM_BACKENDS_COMMON_ENTRIES_H */
