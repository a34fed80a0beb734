/* SPDX-License-Identifier: MIT */
/**
 * @file ffn.h
 * @brief What is checked of the description of routed experts before a backend loads their weights.
 */
#ifndef FERRUM_BACKENDS_COMMON_FFN_H
#define FERRUM_BACKENDS_COMMON_FFN_H

#include <ferrum/moe_fused.h>

#include <stdbool.h>

/** Shape that a role (gate, up, down) must have. */
typedef struct ferrum_ffn_role {
    const char *name;
    uint32_t experts;
    uint32_t n;
    uint32_t k;
} ferrum_ffn_role_t;

/** Sizes, the range of experts and the precision; how many experts live here. */
ferrum_status_t ferrum_check_ffn_desc(const ferrum_expert_ffn_desc_t *desc, uint32_t *out_local,
                                      ferrum_error_t *err);
/** What the option FERRUM_PRECISION asks for: ACCURATE or FAST; INVALID_ARGUMENT if neither. */
ferrum_status_t ferrum_precision_option(const ferrum_host_t *host,
                                        ferrum_precision_t *out_precision, ferrum_error_t *err);
/** A role's source is GGUF or GPTQ, of its shape. Its arrays are for the loader to check. */
ferrum_status_t ferrum_check_ffn_role(const ferrum_ffn_role_t *role,
                                      const ferrum_expert_weights_t *source, ferrum_error_t *err);
/** A role has one bias at most: @p own is whether its GPTQ matrices brought one. */
ferrum_status_t ferrum_check_ffn_bias(const ferrum_ffn_role_t *role,
                                      const ferrum_expert_weights_t *source, bool own,
                                      ferrum_error_t *err);

/** UNSUPPORTED for a kind that is not known. */
ferrum_status_t ferrum_check_activation_kind(ferrum_activation_kind_t kind, ferrum_error_t *err);
/** Check and copy a caller's activation; NULL is SILU_MUL. */
ferrum_status_t ferrum_activation_from(const ferrum_activation_t *source,
                                       ferrum_activation_t *out_activation, ferrum_error_t *err);

#endif /* FERRUM_BACKENDS_COMMON_FFN_H */
