/* SPDX-License-Identifier: MIT */
/**
 * @file compose_fixture.h
 * @brief Layers, calls and their oracle for the tests of the composed expert_ffn. The plugin is
 * cpu; its own expert_ffn is taken out of a copy of its tables.
 */
#ifndef FERRUM_TEST_COMPOSE_FIXTURE_H
#define FERRUM_TEST_COMPOSE_FIXTURE_H

#include "plugin/compose.h"
#include "tests/loader/support.h"

enum {
    HIDDEN = 64,
    WIDTH = 96,
    EXPERTS = 7,
    FIRST = 1,
    LOCAL = 5,
    TOP_K = 3,
    GROUP = 32
};
enum {
    MAX_TOKENS = 40,
    MAX_PAIRS = MAX_TOKENS * TOP_K
};

extern ferrum_loader_t *loader;
extern ferrum_module_t *module;
extern ferrum_device_t *device;
extern ferrum_context_t *ctx;
extern ferrum_tables_t tables; /**< of cpu, without its expert_ffn */
extern ferrum_compose_t *compose;

/** [role][local expert] matrices, gate and up [WIDTH, HIDDEN], down [HIDDEN, WIDTH]. */
extern float dense[FERRUM_ROLES][LOCAL * WIDTH * HIDDEN];

/** Open cpu, take its tables, fill `dense`. */
void compose_setup(void);
/** Close it, and see that nothing is left. */
void compose_teardown(void);
/** A fresh copy of cpu's tables, without its expert_ffn. */
void take_tables(void);
/** Compose expert_ffn in it. */
void start_compose(uint32_t gemm_tokens);

/** One layer's weights and their description. */
typedef struct layer {
    bool gptq;
    ferrum_gguf_weights_t gguf[FERRUM_ROLES];
    ferrum_gptq_t matrices[FERRUM_ROLES][LOCAL];
    const ferrum_gptq_t *pointers[FERRUM_ROLES][LOCAL];
    int32_t *codes[FERRUM_ROLES][LOCAL];
    float *scales[FERRUM_ROLES][LOCAL];
    ferrum_expert_weights_t weights[FERRUM_ROLES];
    ferrum_expert_ffn_desc_t desc;
} layer_t;
void make_layer(layer_t *layer, bool gptq);
void free_layer(layer_t *layer);

/** Inputs and buffers of one call. */
typedef struct problem {
    uint32_t tokens;
    float x[MAX_TOKENS * HIDDEN];
    int32_t ids[MAX_PAIRS];
    float weights[MAX_PAIRS];
    float out[MAX_TOKENS * HIDDEN];
    ferrum_buffer_t *bx, *bids, *bweights, *bout;
    ferrum_expert_ffn_args_t args;
} problem_t;
/** Random inputs; a routing with skipped pairs and experts that are elsewhere. */
void make_problem(problem_t *p, uint32_t tokens);
void free_problem(problem_t *p);
/** The output is that of f64 arithmetic, within the bound that the object states. */
void expect_right(const ferrum_expert_ffn_t *ffn, const problem_t *p, bool accumulate);

#endif /* FERRUM_TEST_COMPOSE_FIXTURE_H */
