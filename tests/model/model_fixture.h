/* SPDX-License-Identifier: MIT */
/**
 * @file model_fixture.h
 * @brief What the model tests share: a runtime on the cpu plugin with chosen options, synthesised
 *        model files, golden logits. Failures end the test.
 */
#ifndef FERRUM_TEST_MODEL_FIXTURE_H
#define FERRUM_TEST_MODEL_FIXTURE_H

#include <ferrum/model.h>

#include "host/model/model_internal.h"
#include "tests/support/files.h"

/** A runtime on cpu. */
typedef struct ferrum_model_fixture {
    ferrum_runtime_t *runtime;
    ferrum_allocator_t allocator;
    uint64_t live_blocks; /**< of the plugin; checked to be 0 at the end */
    uint64_t allocations;
} ferrum_model_fixture_t;

/**
 * Open cpu with @p threads threads (0: 2). @p options are pairs of names and values, ending with
 * NULL, or NULL; the environment is not read except FERRUM_PLUGIN_PATH.
 */
void ferrum_fixture_open(ferrum_model_fixture_t *fixture, uint32_t threads,
                         const char *const *options);
/** Close; the plugin must have freed all its memory. */
void ferrum_fixture_close(ferrum_model_fixture_t *fixture);

/** Open a model with room for @p capacity positions (0: default) and @p sequences requests. */
ferrum_model_t *ferrum_fixture_model(ferrum_model_fixture_t *fixture, const char *path,
                                     uint32_t capacity, uint32_t sequences);
/** The status of opening @p path; a model that opened is freed again. */
ferrum_status_t ferrum_fixture_try(ferrum_model_fixture_t *fixture, const char *path,
                                   ferrum_error_t *err);
/** Vocabulary of a model. */
uint32_t ferrum_fixture_vocab(const ferrum_model_t *model);

/** Sizes of the synthesised model: V 16, h 8, 2 heads of 4, 1 KV head, 2 layers, E 4, k 2, I 8. */
enum {
    SYNTH_VOCAB = 16,
    SYNTH_HIDDEN = 8,
    SYNTH_LAYERS = 2,
    SYNTH_CONTEXT = 96
};

/** What to get wrong. Zeroed: nothing. */
typedef struct ferrum_synth_faults {
    const char *leave_out;     /**< tensor that is not written */
    const char *wrong_shape;   /**< tensor that gets one row less */
    const char *architecture;  /**< instead of "qwen3moe" */
    uint32_t embedding_length; /**< instead of 8 */
} ferrum_synth_faults_t;

/** Write the synthesised GGUF model (all F32, head tied, random weights) to @p path. */
void ferrum_synth_write(const char *path, const ferrum_synth_faults_t *faults);

/** A golden file of tests/golden: `NAME.logits.json` and `.bin`. */
typedef struct ferrum_golden {
    ferrum_test_path_t model;
    uint32_t *ids;
    uint32_t rows, vocab;
    float *logits;
} ferrum_golden_t;
void ferrum_golden_load(const char *name, ferrum_golden_t *golden);
void ferrum_golden_free(ferrum_golden_t *golden);

/** ‖a-b‖/‖b‖ over @p count values. */
double ferrum_relative_error(const float *a, const float *b, size_t count);

#endif /* FERRUM_TEST_MODEL_FIXTURE_H */
