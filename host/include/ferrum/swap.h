/* SPDX-License-Identifier: MIT */
/**
 * @file swap.h
 * @brief Changing the backend of a runtime while its sessions work: another plugin, or a newer file
 *        of the same one, without losing a request.
 *
 * A *generation* is one opened plugin file with its device and everything that was made on it. A
 * runtime has one that serves; a swap builds a second one beside it and exchanges them:
 *
 *  1. open      the plugin and its device
 *  2. rebuild   contexts, and weights from the canonical copy: the mapped model file, the layer's
 *               mapped weights, or the layer's source (ferrum_moe_layer_set_source)
 *  3. self-test a small expert FFN in every weight format in use, against f64 arithmetic; then a
 *               few fixed tokens through each model, against what the first generation made of them
 *  4. drain     wait until every session stands between two forward passes, and hold it there
 *  5. migrate   requests: keys and values in canonical order as f32, and their bookkeeping
 *  6. publish   the new generation to all sessions at once; they go on
 *  7. release   every object of the old generation
 *  8. unload    prove that no thread, allocation or mapping of it is left, after dlclose
 *
 * Steps 1 to 3 and 7 to 8 do not hold anybody up. A failure in steps 1 to 5 leaves the old
 * generation serving as if nothing had happened, and the error names the step. Publishing cannot
 * fail. After it the swap has succeeded: an old generation that cannot be proven gone stays mapped
 * for ever (a *zombie*) and is reported, never forced.
 *
 * What a forward pass pays for this is one atomic operation at its begin and one at its end, on a
 * word that belongs to its session alone.
 */
#ifndef FERRUM_SWAP_H
#define FERRUM_SWAP_H

#include <ferrum/moe.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Where a swap is, or where it failed. */
typedef uint32_t ferrum_swap_step_t;
enum {
    FERRUM_SWAP_NONE = 0, /**< it did not begin */
    FERRUM_SWAP_OPEN = 1,
    FERRUM_SWAP_REBUILD = 2,
    FERRUM_SWAP_SELF_TEST = 3,
    FERRUM_SWAP_DRAIN = 4,
    FERRUM_SWAP_MIGRATE = 5,
    FERRUM_SWAP_PUBLISH = 6,
    FERRUM_SWAP_RELEASE = 7,
    FERRUM_SWAP_UNLOAD = 8,
    FERRUM_SWAP_DONE = 9
};

/** "open", "rebuild", "self-test", …; "?" for an unknown one. [any-thread] Since 1.0. */
FERRUM_API const char *ferrum_swap_step_name(ferrum_swap_step_t step);

/** What became of the generation that a swap did not keep: the old one, or after a failure the new
 *  one. */
typedef uint32_t ferrum_swap_fate_t;
enum {
    FERRUM_SWAP_FATE_NONE = 0,     /**< there was none: opening failed */
    FERRUM_SWAP_FATE_UNLOADED = 1, /**< proven gone */
    FERRUM_SWAP_FATE_PINNED = 2,   /**< stays mapped on purpose; all its memory is freed */
    FERRUM_SWAP_FATE_ZOMBIE = 3,   /**< stays mapped because the proof failed; `detail` says why */
    FERRUM_SWAP_FATE_HELD = 4      /**< the application holds a reference to its module (see
                                        ferrum_module_retain) and unloads it by dropping that */
};

/**
 * Called before each of the steps open, rebuild, self-test and drain, and before each object that
 * is rebuilt; return non-zero to cancel. No session is held up meanwhile.
 * @param done, total objects of the step; 0 of 0 where there is nothing to count
 */
typedef int ferrum_swap_progress_fn(void *arg, ferrum_swap_step_t step, uint32_t done,
                                    uint32_t total);

/** What to swap to, and how. Zero is the default everywhere. */
typedef struct ferrum_swap_options {
    ferrum_head_t head;
    const char *backend; /**< as for ferrum_loader_select; NULL: the file that the serving plugin
                              came from, read again */
    uint32_t drain_timeout_ms;   /**< longest wait for forward passes to end; 0: 30,000 */
    uint32_t release_timeout_ms; /**< longest wait for memory that the application itself took from
                                      the old backend; 0: 2,000 */
    uint64_t max_new_bytes; /**< refuse when the new generation needs more memory than this; the old
                                 one keeps its own until step 7, so the peak is the sum. 0: no
                                 limit */
    ferrum_swap_progress_fn *progress; /**< or NULL */
    void *progress_arg;
} ferrum_swap_options_t;

/** Frozen least size of ferrum_swap_options_t. */
#define FERRUM_SWAP_OPTIONS_MIN_SIZE 48u

/** What a swap did; also written when it failed. */
typedef struct ferrum_swap_report {
    ferrum_head_t head;
    ferrum_swap_step_t step; /**< DONE, or the step that failed */
    ferrum_swap_fate_t fate; /**< of the generation that was given up */
    uint64_t generation;     /**< number of the one that serves now; the first is 1 */
    uint32_t sessions;       /**< that were held at the exchange, those of models included */
    uint32_t objects;        /**< that were rebuilt: sessions, layers, weights, caches */
    uint32_t requests;       /**< whose keys and values were moved */
    uint32_t attempts;       /**< at getting all sessions between two passes */
    uint64_t old_bytes;      /**< weights, caches and scratch of the old generation */
    uint64_t new_bytes;      /**< the same of the new one; both exist until step 7 */
    double open_ms;
    double rebuild_ms;
    double self_test_ms;
    double pause_ms; /**< longest that a session can have been held: first hold to release */
    double release_ms;
    double total_ms;
    double self_test_error; /**< largest error of the self-test relative to its bound: 1 is just
                                 passed */
    char from[64];          /**< name of the plugin that served before */
    char to[64];            /**< name of the new one */
    char detail[160];       /**< one line for people on the fate */
} ferrum_swap_report_t;

/** Frozen least size of ferrum_swap_report_t. */
#define FERRUM_SWAP_REPORT_MIN_SIZE 400u

/**
 * Exchange the backend of @p runtime under its sessions, layers and models.
 *
 * Call it from any thread, also from a callback between two passes (ferrum_token_fn), but not from
 * the logger, the allocator or a callback inside a pass: the pass would wait for itself until
 * `drain_timeout_ms`. Calls on other threads go on meanwhile; one that would begin a pass during
 * steps 4 to 6 waits for their end. Objects that are made meanwhile are taken along; making or
 * freeing one waits during steps 4 to 6, and a model that is being opened holds these steps up.
 *
 * What a swap invalidates: everything that ferrum_runtime_module, _device, _device_info and
 * ferrum_session_context returned before. An application that drives the tables itself retains the
 * module as long as it uses them.
 *
 * @param options    NULL: read the plugin's file again
 * @param out_report NULL, or a struct whose head is set
 * Errors, with the step in report and message: BUSY (another swap is running, or the runtime is
 * being closed), CANCELLED, TIMEOUT (drain), RESOURCE_EXHAUSTED (max_new_bytes), UNSUPPORTED (a
 * format that the new backend does not take; a layer without a canonical copy of its weights),
 * BAD_PLUGIN (self-test), those of ferrum_runtime_open and of loading weights.
 * [any-thread] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_runtime_swap(ferrum_runtime_t *runtime,
                                               const ferrum_swap_options_t *options,
                                               ferrum_swap_report_t *out_report,
                                               ferrum_error_t *err);

/** Number of the generation that serves; rises by one with every swap that succeeds. [any-thread]
 *  Since 1.0. */
FERRUM_API uint64_t ferrum_runtime_generation(const ferrum_runtime_t *runtime);

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_SWAP_H */
