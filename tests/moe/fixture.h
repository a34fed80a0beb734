/* SPDX-License-Identifier: MIT */
/**
 * @file fixture.h
 * @brief An opened cpu plugin, layers of random weights in every form, and their f64 results.
 */
#ifndef FERRUM_TEST_MOE_FIXTURE_H
#define FERRUM_TEST_MOE_FIXTURE_H

#include "host/moe/moe_run.h"
#include "host/runtime/executor.h"
#include "tests/moe/random.h"
#include "tests/support/expect.h"

/** Path of the cpu plugin in the build tree. Ends the program with 77 when it was not built. */
const char *fixture_plugin(void);

/** A device and a context of their own. */
typedef struct backend {
    ferrum_loader_t *loader;
    ferrum_module_t *module;
    ferrum_device_t *device;
    ferrum_team_t *team;
    ferrum_context_t *ctx;
    ferrum_ops_t ops;
} backend_t;

void backend_open(backend_t *backend, uint32_t threads);
void backend_close(backend_t *backend);

/** New buffers: act from floats, act of zeros. Released with backend_release. */
ferrum_buffer_t *backend_floats(const backend_t *backend, const float *values, uint64_t count);
ferrum_buffer_t *backend_zeros(const backend_t *backend, uint64_t count);
/** Filled with a value that no result is near to. */
ferrum_buffer_t *backend_dirty(const backend_t *backend, uint64_t count);
void backend_read(const backend_t *backend, const ferrum_buffer_t *buffer, float *out_values,
                  uint64_t count);
void backend_release(const backend_t *backend, ferrum_buffer_t *buffer);

/** What a random layer is made of. */
typedef struct layer_shape {
    uint32_t experts, hidden, intermediate, top_k;
    ferrum_weight_format_t gate_up, down; /**< FERRUM_FORMAT_GPTQ in both for GPTQ */
    uint32_t bits, group_size;            /**< GPTQ */
    bool asymmetric, act_order;           /**< GPTQ */
} layer_shape_t;

/** Weights of one layer and the descriptors of every form. Lives until layer_free. */
typedef struct layer {
    layer_shape_t shape;
    void *blocks[3]; /**< GGUF slabs: gate, up, down */
    ferrum_gguf_weights_t slabs[3];
    ferrum_gptq_t *matrices;        /**< [3 * experts] */
    const ferrum_gptq_t **pointers; /**< [3 * experts] */
    ferrum_expert_weights_t roles[3];
    ferrum_expert_ffn_desc_t desc; /**< for the f64 reference and expert_ffn */
    ferrum_moe_problem_t problem;
} layer_t;

void layer_init(layer_t *layer, const layer_shape_t *shape, uint64_t seed);
void layer_free(layer_t *layer);
/** The layer in the form of @p path. */
void layer_load(const layer_t *layer, const ferrum_ops_t *ops, ferrum_moe_path_t path,
                ferrum_expert_stack_t *out_stack);

/** Inputs of one step, and what must come out. */
typedef struct step {
    uint32_t tokens;
    float *x;      /**< [tokens, hidden] */
    float *logits; /**< [tokens, experts] */
    double *want;  /**< [tokens, hidden] */
} step_t;

/** Random hidden states and logits. @p skewed: every token prefers the first experts. */
void step_init(step_t *step, const layer_t *layer, uint32_t tokens, bool skewed, uint64_t seed);
void step_free(step_t *step);
/** Largest over the rows of |got - want| / |want|, Euclidean. */
double step_error(const step_t *step, const layer_t *layer, const float *got);

/** Resolve a plan with @p env, run the step on a new scratch into a dirty out of @p out_got. */
void run_step(const backend_t *backend, const layer_t *layer, const ferrum_expert_stack_t *stack,
              const ferrum_moe_env_t *env, const step_t *step, bool decode, float *out_got);

#endif /* FERRUM_TEST_MOE_FIXTURE_H */
