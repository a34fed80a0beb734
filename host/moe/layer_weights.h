/* SPDX-License-Identifier: MIT */
/**
 * @file layer_weights.h
 * @brief What a layer remembers of the weights that it was created from: their shape and formats,
 *        and, when they all stay mapped, a description from which it can be packed again.
 */
#ifndef FERRUM_HOST_LAYER_WEIGHTS_H
#define FERRUM_HOST_LAYER_WEIGHTS_H

#include "host/runtime/registry.h"

/** Zeroed is empty. */
typedef struct ferrum_layer_weights {
    ferrum_expert_ffn_desc_t shape; /**< its pointers are NULL */
    ferrum_formats_used_t formats;
    ferrum_expert_ffn_desc_t *desc; /**< one block with all it points to but the mapped weights;
                                         NULL: some weights were borrowed for the call only */
} ferrum_layer_weights_t;

/** Remember @p desc, which a backend has accepted. Errors: OUT_OF_MEMORY. */
ferrum_status_t ferrum_layer_weights_keep(const ferrum_expert_ffn_desc_t *desc,
                                          ferrum_layer_weights_t *out_weights, ferrum_error_t *err);
/** Whether @p desc has the same shape. Errors: INVALID_ARGUMENT. */
ferrum_status_t ferrum_layer_weights_same(const ferrum_layer_weights_t *weights,
                                          const ferrum_expert_ffn_desc_t *desc,
                                          ferrum_error_t *err);
void ferrum_layer_weights_free(ferrum_layer_weights_t *weights);

#endif /* FERRUM_HOST_LAYER_WEIGHTS_H */
