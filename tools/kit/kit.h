/* SPDX-License-Identifier: MIT */
/**
 * @file kit.h
 * @brief The conformance suite behind `ferrum check-plugin`: it holds any backend plugin to the
 * ABI.
 *
 * A *case* is one op at one shape. It passes, fails with a message, or is *refused*: the backend
 * returned FERRUM_UNSUPPORTED with a reason and a text and wrote nothing. Results are compared with
 * f64 arithmetic over the inputs as the backend stores them, so a half-precision backend is not
 * charged for rounding its inputs. Outputs are dirty before the call, and what lies behind them
 * must survive it.
 *
 * Everything that a case allocates through cf_* is released by cf_end.
 */
#ifndef FERRUM_KIT_H
#define FERRUM_KIT_H

#include <ferrum/loader.h>
#include <ferrum/util.h>

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    CF_GUARD = 64,
    CF_MAX_OBJECTS = 1024
};

/** What the suite says while it runs. */
typedef enum cf_event {
    CF_FACT,    /**< about the plugin: the label is the key */
    CF_BEGIN,   /**< a case starts; a crash before the next event happened in it */
    CF_PASSED,  /**< the case is over */
    CF_REFUSED, /**< over; the backend does not do this, and said why */
    CF_FAILED,  /**< a mandatory part does not hold */
    CF_ADVICE,  /**< nothing wrong, but worth knowing */
    CF_SKIPPED, /**< the group could not run here */
    CF_EVENT_COUNT
} cf_event_t;

/** Where the suite says it. One event per finished case, except that failures come when they are
 *  found. Texts are valid during the call. */
typedef void cf_report_fn(void *arg, cf_event_t event, const char *label, const char *text);

/** How the suite is run. */
typedef struct cf_settings {
    const ferrum_options_t *options;
    const ferrum_logger_t *logger;
    uint32_t cycles; /**< rounds of opening and closing */
    bool set_dtype;  /**< ask for this activation dtype instead of the backend's own */
    ferrum_dtype_t dtype;
} cf_settings_t;

/** One float buffer of a case and what it holds. */
typedef struct cf_tensor {
    ferrum_buffer_t *buffer;
    uint64_t count; /**< without the guard behind it */
    double *v;      /**< inputs: values as stored; outputs: filled by cf_read */
} cf_tensor_t;

/** One i32 buffer of a case. */
typedef struct cf_ints {
    ferrum_buffer_t *buffer;
    uint64_t count;
    int32_t *v;
} cf_ints_t;

/** What is being tested, and the tally. */
typedef struct cf_suite {
    const char *path; /**< of the plugin */
    const cf_settings_t *settings;
    ferrum_loader_t *loader;
    ferrum_module_t *module; /**< this and the rest: only in groups that need a device */
    const ferrum_backend_ops_t *be;
    const ferrum_quant_llm_ops_t *ql;
    const ferrum_moe_fused_ops_t *mf;
    ferrum_device_options_t options;
    ferrum_device_t *device;
    ferrum_device_info_t info;
    ferrum_context_t *ctx;
    double tolerance; /**< relative, for one rounded output of this activation dtype */
    double stated;    /**< error that the weights object of the running case states */
    uint64_t random;

    cf_report_fn *report;
    void *report_arg;
    char label[160];  /**< the running case */
    char reason[256]; /**< why it was refused */
    bool case_failed, case_refused;
    void *object[CF_MAX_OBJECTS];
    void (*release[CF_MAX_OBJECTS])(struct cf_suite *suite, void *object);
    size_t objects;
} cf_suite_t;

/* ---- cases ---- */

/** Begin a case; the label is its name in reports. */
void cf_begin(cf_suite_t *suite, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** Count the case and release what it holds. */
void cf_end(cf_suite_t *suite);
/** Record a failure of the running case (the first one is reported). */
void cf_fail(cf_suite_t *suite, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** Say something that does not make the case fail. */
void cf_advise(cf_suite_t *suite, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** What is wrong with an error struct that a failing call filled, or NULL. */
const char *cf_error_flaw(ferrum_status_t status, const ferrum_error_t *err);
/**
 * Judge a call's status: true when it succeeded. UNSUPPORTED with a reason and a text makes the
 * case refused, anything else makes it fail.
 */
bool cf_ok(cf_suite_t *suite, ferrum_status_t status, const ferrum_error_t *err);
/** The call must have failed with @p expected (or be refused) and explained itself. */
void cf_expect_error(cf_suite_t *suite, ferrum_status_t status, ferrum_status_t expected,
                     const ferrum_error_t *err);
/** Allow the running case the error that an object's info states; it must state a sane one. */
void cf_state_error(cf_suite_t *suite, double bound);
/** Have cf_end call @p release on @p object. */
void cf_own(cf_suite_t *suite, void *object, void (*release)(cf_suite_t *suite, void *object));
/** Zeroed host memory until cf_end. */
void *cf_memory(cf_suite_t *suite, size_t bytes);

/* ---- data ---- */

uint64_t cf_random(cf_suite_t *suite);
/** Uniform in [-1, 1). */
double cf_uniform(cf_suite_t *suite);
/** Uniform integer below @p bound. */
uint32_t cf_below(cf_suite_t *suite, uint32_t bound);

/** Activation buffer of random values in [-scale, scale). */
cf_tensor_t cf_input(cf_suite_t *suite, uint64_t count, double scale);
/** Activation buffer holding @p values. */
cf_tensor_t cf_input_values(cf_suite_t *suite, const double *values, uint64_t count);
/** Dirty activation buffer with a guard behind it. */
cf_tensor_t cf_output(cf_suite_t *suite, uint64_t count);
/** f32 buffers, whatever the activation dtype (routing weights, RoPE tables). */
cf_tensor_t cf_f32(cf_suite_t *suite, const double *values, uint64_t count);
cf_tensor_t cf_f32_output(cf_suite_t *suite, uint64_t count);
/** i32 buffers. */
cf_ints_t cf_ints(cf_suite_t *suite, const int32_t *values, uint64_t count);
cf_ints_t cf_ints_output(cf_suite_t *suite, uint64_t count);

/** Fill tensor->v (ints->v) from the buffer and check the guard. */
void cf_read(cf_suite_t *suite, cf_tensor_t *tensor);
void cf_read_ints(cf_suite_t *suite, cf_ints_t *ints);
/** The buffer still holds what it held when it was made. */
void cf_expect_untouched(cf_suite_t *suite, cf_tensor_t *tensor);

/**
 * Read @p out and compare rows of @p row values with @p reference:
 * ||out - reference|| <= (factor * tolerance + stated) * ||reference|| + tiny, per row.
 */
void cf_expect_rows(cf_suite_t *suite, cf_tensor_t *out, const double *reference, uint64_t row,
                    double factor);
/** Read both and compare bit by bit. */
void cf_expect_same(cf_suite_t *suite, cf_tensor_t *a, cf_tensor_t *b);
/** Read @p out and compare with exactly these. */
void cf_expect_ints(cf_suite_t *suite, cf_ints_t *out, const int32_t *reference);

/* ---- the oracle: plain f64 mathematics ---- */

double cf_silu(double x);
void cf_ref_rms_norm(const double *x, const double *w, double eps, double *out, uint32_t dim);
/** Rotate one head vector in place at position @p pos with tables [positions, dim/2]. */
void cf_ref_rope(double *x, const double *cos_table, const double *sin_table, uint32_t pos,
                 uint32_t dim, ferrum_rope_mode_t mode);
/** One query against @p count keys; key j at k + j*stride; out[dim]. */
void cf_ref_attention(const double *q, const double *const *k, const double *const *v,
                      uint32_t count, uint32_t dim, double scale, double *out);
/** Softmax top-k routing of one row (inventory of the routing rules: design, numbers). */
void cf_ref_route(const double *logits, uint32_t experts, uint32_t top_k, bool norm, int32_t *ids,
                  double *weights);

/* ---- weights with their own decoder, written apart from the kernels' ---- */

/** A random matrix (or stack) in some format, with its exact values. */
typedef struct cf_weights {
    ferrum_weight_format_t format;
    uint32_t experts, rows, cols;
    ferrum_gguf_weights_t gguf; /**< block formats */
    ferrum_gptq_t *gptq;        /**< [experts], GPTQ */
    const ferrum_gptq_t **gptq_list;
    double *w; /**< [experts, rows, cols] */
} cf_weights_t;

/** How a GPTQ matrix is made. */
typedef struct cf_gptq_kind {
    uint32_t bits, group_size;
    bool symmetric, act_order;
    ferrum_zero_convention_t convention;
    ferrum_dtype_t scales_dtype;
    bool bias;
} cf_gptq_kind_t;

/** Value @p i of a block of @p format. */
double cf_decode(ferrum_weight_format_t format, const unsigned char *block, uint32_t i);
/** Exact value of an f16. */
double cf_half(uint16_t bits);
/** Random blocks with sane scales. */
cf_weights_t cf_random_blocks(cf_suite_t *suite, ferrum_weight_format_t format, uint32_t experts,
                              uint32_t rows, uint32_t cols);
/** Random GPTQ matrices. */
cf_weights_t cf_random_gptq(cf_suite_t *suite, const cf_gptq_kind_t *kind, uint32_t experts,
                            uint32_t rows, uint32_t cols);
/** out[rows] = W[expert] x */
void cf_ref_matvec(const cf_weights_t *weights, uint32_t expert, const double *x, double *out);

/** Formats of the GGUF container that the suite knows, with a name each. */
extern const ferrum_weight_format_t cf_formats[];
extern const size_t cf_format_count;

/* ---- groups ---- */

/** What has to be there before a group runs. */
typedef enum cf_needs {
    CF_NEEDS_FILE,  /**< the plugin's file; the group opens it itself */
    CF_NEEDS_DEVICE /**< module, device, and a context with a team of two */
} cf_needs_t;

/** A group of cases. */
typedef struct cf_group {
    const char *name;
    cf_needs_t needs;
    void (*run)(cf_suite_t *suite);
    const char *about;  /**< one line */
    const char *remedy; /**< what to look at when it fails */
} cf_group_t;

/** All groups, in the order in which they run; the first one is "identity". */
extern const cf_group_t cf_groups[];
extern const size_t cf_group_count;

/** Open what @p group needs in this process, run it, close everything and see that it is gone. */
void cf_run_group(const cf_group_t *group, const char *path, const cf_settings_t *settings,
                  cf_report_fn *report, void *report_arg);
/** Fail the running case when something was left behind. */
void cf_judge_unload(cf_suite_t *suite, const ferrum_unload_report_t *report);

void cf_group_identity(cf_suite_t *suite);
void cf_group_tables(cf_suite_t *suite);
void cf_group_growth(cf_suite_t *suite);
void cf_group_misuse(cf_suite_t *suite);
void cf_group_determinism(cf_suite_t *suite);
void cf_group_threads(cf_suite_t *suite);
void cf_group_memory(cf_suite_t *suite);
void cf_group_cycles(cf_suite_t *suite);
void cf_group_objects(cf_suite_t *suite);
void cf_group_buffers(cf_suite_t *suite);
void cf_group_core(cf_suite_t *suite);
void cf_group_refusals(cf_suite_t *suite);
void cf_group_attention(cf_suite_t *suite);
void cf_group_paged(cf_suite_t *suite);
void cf_group_linear(cf_suite_t *suite);
void cf_group_gptq(cf_suite_t *suite);
void cf_group_stacked(cf_suite_t *suite);
void cf_group_marlin(cf_suite_t *suite);
void cf_group_route(cf_suite_t *suite);
void cf_group_plan(cf_suite_t *suite);
void cf_group_combine(cf_suite_t *suite);
void cf_group_ffn(cf_suite_t *suite);
void cf_group_paths(cf_suite_t *suite);
void cf_group_graph(cf_suite_t *suite);

#endif /* FERRUM_KIT_H */
