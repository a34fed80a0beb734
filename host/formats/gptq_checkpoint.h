/* SPDX-License-Identifier: MIT */
/**
 * @file gptq_checkpoint.h
 * @brief One GPTQ linear layer out of a safetensors checkpoint, its parts checked against each
 *        other.
 *
 * With `bits` b and c = 32 / b codes per word, lowest bits first:
 * `qweight` i32[K/c, N] (word r holds K-rows c*r … c*r+c-1), `scales` [G, N], `qzeros` i32[G, N/c],
 * `g_idx` i32[K] (group of each K-row). G = K / group_size, or 1 per channel.
 * `W[n][r] = (code - zero) * scale[group][n]`, where what a stored zero code means is
 * ferrum_gptq_config_t.zero_convention. The zero words are handed on exactly as stored.
 */
#ifndef FERRUM_HOST_GPTQ_CHECKPOINT_H
#define FERRUM_HOST_GPTQ_CHECKPOINT_H

#include "host/formats/model_config.h"
#include "host/formats/safetensors.h"

/** A checked GPTQ layer; pointers live as long as the checkpoint. */
typedef struct ferrum_gptq_tensors {
    uint32_t k;          /**< input features, from qweight's shape */
    uint32_t n;          /**< output features, from qweight's shape */
    uint32_t bits;       /**< 4 or 8 */
    uint32_t group_size; /**< divides k; equals k per channel */
    uint32_t groups;     /**< k / group_size */
    ferrum_zero_convention_t zero_convention;
    const int32_t *qweight;
    const int32_t *qzeros;
    const void *scales;
    ferrum_dtype_t scales_dtype; /**< F16, BF16 or F32 */
    const int32_t *g_idx;        /**< NULL when the checkpoint has none; values 0…groups-1 */
    bool g_idx_trivial;          /**< g_idx is NULL or r / group_size throughout: may be ignored */
    bool zeros_symmetric;        /**< every zero code means 2^(bits-1); information only */
    const void *bias;            /**< [n]; NULL when the checkpoint has none */
    ferrum_dtype_t bias_dtype;
} ferrum_gptq_tensors_t;

/** Whether the module has a `<prefix>.qweight`. [any-thread] */
bool ferrum_gptq_checkpoint_has(const ferrum_safetensors_t *checkpoint, const char *prefix);

/**
 * The layer @p prefix ("model.layers.0.mlp.experts.3.down_proj"). Any g_idx in the file is
 * reported, also when desc_act is false: it describes the codes either way. [any-thread]
 *
 * @param k, n  expected features; 0 accepts what the file has.
 *
 * Errors: NOT_FOUND (a part is missing, or g_idx with desc_act), CORRUPT (dtypes and shapes that
 * contradict each other, g_idx out of range), INVALID_INPUT (k or n not as expected, group size
 * does not divide K; reason GROUP_SIZE), UNSUPPORTED (data not aligned to its type).
 */
ferrum_status_t ferrum_gptq_checkpoint_load(const ferrum_safetensors_t *checkpoint,
                                            const ferrum_gptq_config_t *config, const char *prefix,
                                            uint32_t k, uint32_t n,
                                            ferrum_gptq_tensors_t *out_tensors,
                                            ferrum_error_t *err);

#endif /* FERRUM_HOST_GPTQ_CHECKPOINT_H */
