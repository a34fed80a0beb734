/* SPDX-License-Identifier: MIT */
/** @file inspect_held.h  @brief What a backend would hold of a model's weights. */
#ifndef FERRUM_TOOLS_INSPECT_HELD_H
#define FERRUM_TOOLS_INSPECT_HELD_H

#include "tools/ferrum/cli.h"

#include "host/formats/gguf.h"
#include "host/formats/model_config.h"
#include "host/formats/safetensors.h"

/** A prediction. */
typedef struct held {
    char backend[64];
    char detail[64];
    uint64_t bytes; /**< held, or mapped, once the model is loaded */
} held_t;

/**
 * Ask the backend of the flags: matrices with few rows, or one GPTQ matrix, of each format and
 * shape are loaded for a moment. Embeddings count as mapped. Prints its error.
 */
int held_of_gguf(const ferrum_gguf_t *gguf, held_t *out_held);
int held_of_checkpoint(const ferrum_safetensors_t *checkpoint, const ferrum_model_config_t *config,
                       held_t *out_held);

#endif /* FERRUM_TOOLS_INSPECT_HELD_H */
