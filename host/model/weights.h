/* SPDX-License-Identifier: MIT */
/**
 * @file weights.h
 * @brief The tensors of a model by their Hugging Face names, whether they lie in a GGUF file or in
 *        a safetensors checkpoint, and the backend objects that are made of them.
 *
 * Files stay mapped as long as the object lives; weights are handed to the backend as mapped bytes
 * (FERRUM_WEIGHTS_MAPPED), so that it may use them in place. Every message names the tensor.
 */
#ifndef FERRUM_HOST_WEIGHTS_H
#define FERRUM_HOST_WEIGHTS_H

#include <ferrum/model.h>

#include "host/formats/gguf.h"
#include "host/formats/model_config.h"
#include "host/formats/safetensors.h"
#include "host/runtime/ops.h"

/** Opened files of a model. */
typedef struct ferrum_weights {
    ferrum_gguf_t *gguf; /**< or … */
    ferrum_safetensors_t *checkpoint;
    ferrum_model_config_t config;
    uint64_t total_bytes;         /**< of all files */
    uint64_t loaded_bytes;        /**< of the tensors that have been used so far */
    uint64_t held_bytes;          /**< occupied by what was made of them: held, or mapped */
    ferrum_progress_fn *progress; /**< may be NULL */
    void *progress_arg;
} ferrum_weights_t;

/** One matrix W[n,k] in the file. */
typedef struct ferrum_matrix {
    bool is_gptq;
    uint32_t n, k;
    ferrum_gguf_weights_t blocks; /**< when not GPTQ */
    ferrum_gptq_t gptq;           /**< without bias */
    uint64_t bytes;               /**< in the file */
    const void *bias;             /**< [n] in the file, or NULL */
    ferrum_dtype_t bias_dtype;
} ferrum_matrix_t;

/** Open a .gguf file or a directory and read its config. @p out_weights is to be closed after
 *  success. Errors: those of the readers. */
ferrum_status_t ferrum_weights_open(const char *path, ferrum_weights_t *out_weights,
                                    ferrum_error_t *err);
/** Unmap; zeroed is fine. Everything made of mapped weights must be gone. */
void ferrum_weights_close(ferrum_weights_t *weights);

/** Count @p bytes of the file as loaded and report it. CANCELLED when the caller wants to stop. */
ferrum_status_t ferrum_weights_advance(ferrum_weights_t *weights, uint64_t bytes,
                                       ferrum_error_t *err);

/** Give the memory of pages that were read back to the system, whose cache keeps them: what was
 *  copied from them is not held twice. They can still be read. [any-thread] */
void ferrum_weights_release_pages(const ferrum_weights_t *weights);

/** Whether there is a matrix @p prefix ("lm_head"), in whatever form. */
bool ferrum_weights_has(const ferrum_weights_t *weights, const char *prefix);
/** Find W[n,k] of module @p prefix ("model.layers.0.self_attn.q_proj"), shape checked.
 *  Errors: NOT_FOUND naming the tensor, INVALID_INPUT (shape, with the numbers), UNSUPPORTED. */
ferrum_status_t ferrum_weights_matrix(const ferrum_weights_t *weights, const char *prefix,
                                      uint32_t n, uint32_t k, ferrum_matrix_t *out_matrix,
                                      ferrum_error_t *err);
/** Plain values @p name ("model.norm.weight"), f32, f16 or bf16, of any alignment. */
ferrum_status_t ferrum_weights_values(const ferrum_weights_t *weights, const char *name,
                                      uint32_t count, const void **out_data,
                                      ferrum_dtype_t *out_dtype, ferrum_error_t *err);

/* ---- backend objects; each counts towards the progress ---- */

/** A Linear of @p prefix. */
ferrum_status_t ferrum_weights_linear(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                                      const char *prefix, uint32_t n, uint32_t k,
                                      ferrum_linear_t **out_linear, ferrum_error_t *err);
/** A Linear of a matrix that was found; @p name is for messages. */
ferrum_status_t ferrum_weights_load(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                                    const char *name, const ferrum_matrix_t *matrix,
                                    ferrum_linear_t **out_linear, ferrum_error_t *err);
/**
 * One Linear whose outputs are those of @p parts one after another. *out_linear is NULL, with
 * success, when they cannot be joined: biases, or GPTQ parts that differ in more than N (bits,
 * group size, zeros, g_idx). Load them one by one then.
 */
ferrum_status_t ferrum_weights_fuse(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                                    const char *name, const ferrum_matrix_t *parts, uint32_t count,
                                    ferrum_linear_t **out_linear, ferrum_error_t *err);
/** The f32 device buffer of a vector @p name ("model.norm.weight") of @p count values. */
ferrum_status_t ferrum_weights_vector(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                                      ferrum_context_t *ctx, const char *name, uint32_t count,
                                      ferrum_buffer_t **out_buffer, ferrum_error_t *err);

#endif /* FERRUM_HOST_WEIGHTS_H */
