/* SPDX-License-Identifier: MIT */
/* The public layer tier: runtimes, sessions, layers; and how a path is chosen. */
#include <ferrum/moe.h>

#include "host/moe/router.h"
#include "host/runtime/runtime_internal.h"
#include "tests/moe/fixture.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const layer_shape_t shape = {6, 256, 64,    2,    FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q8_0,
                                    0, 0,   false, false};

static ferrum_options_t *options_with(const char *name, const char *value)
{
    ferrum_options_t *options;
    EXPECT_OK(ferrum_options_new(&options, &err));
    if (name)
        EXPECT_OK(ferrum_options_set(options, name, value, &err));
    return options;
}

static ferrum_status_t open_with(const char *backend, const char *name, const char *value,
                                 ferrum_runtime_t **out_runtime, ferrum_error_t *err)
{
    ferrum_options_t *options = options_with(name, value);
    ferrum_runtime_options_t runtime_options = {.head = FERRUM_HEAD(ferrum_runtime_options_t),
                                                .backend = backend,
                                                .options = options,
                                                .threads = 2};
    ferrum_status_t status = ferrum_runtime_open(&runtime_options, out_runtime, err);
    ferrum_options_free(options);
    return status;
}

static ferrum_runtime_t *open_runtime(void)
{
    ferrum_runtime_t *runtime;
    EXPECT_OK(open_with(fixture_plugin(), NULL, NULL, &runtime, &err));
    return runtime;
}

/* Rows of a step through the layer tier. */
typedef struct request {
    ferrum_session_t *session;
    ferrum_moe_layer_t *layer;
    const step_t *step;
    int32_t *ids;
    float *weights;
    float *out;
    uint32_t flags;
} request_t;

static void request_init(request_t *request, ferrum_session_t *session, ferrum_moe_layer_t *layer,
                         const step_t *step)
{
    float probs[64];
    size_t pairs = (size_t)step->tokens * shape.top_k;
    *request = (request_t){.session = session, .layer = layer, .step = step};
    request->ids = malloc(pairs * sizeof *request->ids);
    request->weights = malloc(pairs * sizeof *request->weights);
    request->out = malloc((size_t)step->tokens * shape.hidden * sizeof(float));
    EXPECT_OK(ferrum_moe_route(step->logits, (uint64_t)step->tokens * shape.experts, step->tokens,
                               shape.experts, shape.top_k, 1, probs, request->ids, request->weights,
                               &err));
}

static void request_free(request_t *request)
{
    free(request->ids);
    free(request->weights);
    free(request->out);
}

static ferrum_status_t forward(request_t *r, ferrum_error_t *err)
{
    return ferrum_moe_layer_forward(r->session, r->layer, r->step->x, r->ids, r->weights, r->out,
                                    r->step->tokens, shape.top_k, r->flags, err);
}

START_TEST(forward_and_accumulate)
{
    ferrum_runtime_t *runtime = open_runtime();
    ferrum_session_t *session;
    ferrum_moe_layer_t *packed;
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    layer_t layer;
    step_t step;
    request_t r;
    layer_init(&layer, &shape, 3);
    step_init(&step, &layer, 9, false, 4);
    EXPECT_OK(ferrum_session_new(runtime, 0, &session, &err));
    ck_assert_uint_eq(ferrum_session_executor(session)->width, 2);
    ck_assert_ptr_eq(ferrum_session_runtime(session), runtime);
    ck_assert_ptr_nonnull(ferrum_session_context(session));
    EXPECT_OK(ferrum_moe_layer_create(runtime, &layer.desc, &packed, &err));
    EXPECT_OK(ferrum_moe_layer_info(packed, &info, &err));
    ck_assert_uint_eq(info.hidden, shape.hidden);
    ck_assert_uint_eq(info.num_experts, shape.experts);
    request_init(&r, session, packed, &step);
    EXPECT_OK(forward(&r, &err));
    ck_assert_double_lt(step_error(&step, &layer, r.out), 5e-4);
    /* Twice the result, and then the cold half of the experts skipped. */
    r.flags = FERRUM_FFN_ACCUMULATE;
    EXPECT_OK(forward(&r, &err));
    for (uint32_t i = 0; i < 9 * shape.hidden; i++)
        r.out[i] *= 0.5f;
    ck_assert_double_lt(step_error(&step, &layer, r.out), 5e-4);
    r.flags = 0;
    for (uint32_t p = 0; p < 9 * shape.top_k; p++)
        r.ids[p] = -1;
    EXPECT_OK(forward(&r, &err));
    for (uint32_t i = 0; i < 9 * shape.hidden; i++)
        ck_assert_float_eq(r.out[i], 0.0f);
    request_free(&r);
    ferrum_moe_layer_free(packed);
    ferrum_session_free(session);
    ferrum_runtime_close(runtime);
    step_free(&step);
    layer_free(&layer);
}
END_TEST

START_TEST(bad_forwards)
{
    ferrum_runtime_t *runtime = open_runtime(), *other = open_runtime();
    ferrum_session_t *session, *foreign;
    ferrum_moe_layer_t *packed;
    layer_t layer;
    step_t step;
    request_t r;
    layer_init(&layer, &shape, 3);
    step_init(&step, &layer, 2, false, 4);
    EXPECT_OK(ferrum_session_new(runtime, 1, &session, &err));
    EXPECT_OK(ferrum_session_new(other, 1, &foreign, &err));
    EXPECT_OK(ferrum_moe_layer_create(runtime, &layer.desc, &packed, &err));
    request_init(&r, session, packed, &step);
    r.ids[1] = (int32_t)shape.experts;
    EXPECT_FAILS(forward(&r, &err), FERRUM_INVALID_INPUT, "6");
    r.ids[1] = 0;
    r.flags = 1u << 30;
    EXPECT_FAILS(forward(&r, &err), FERRUM_INVALID_ARGUMENT, "flag");
    r.flags = 0;
    r.session = foreign;
    EXPECT_FAILS(forward(&r, &err), FERRUM_INVALID_ARGUMENT, "different runtimes");
    EXPECT_FAILS(
        ferrum_moe_layer_forward(session, packed, NULL, r.ids, r.weights, r.out, 1, 2, 0, &err),
        FERRUM_INVALID_ARGUMENT, "needs a session");
    EXPECT_OK(ferrum_moe_layer_forward(session, packed, NULL, NULL, NULL, NULL, 0, 2, 0, &err));
    layer.desc.head.size = 8;
    EXPECT_FAILS(ferrum_moe_layer_create(runtime, &layer.desc, &packed, &err),
                 FERRUM_INVALID_ARGUMENT, "FERRUM_HEAD");
    request_free(&r);
    ferrum_moe_layer_free(packed);
    ferrum_session_free(session);
    ferrum_session_free(foreign);
    ferrum_runtime_close(runtime);
    ferrum_runtime_close(other);
    step_free(&step);
    layer_free(&layer);
}
END_TEST

static void *forward_many(void *arg)
{
    request_t *r = arg;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    for (int i = 0; i < 20; i++)
        if (forward(r, &err) != FERRUM_OK)
            return arg;
    return NULL;
}

/* One layer, several sessions on threads of their own: the same bits. */
START_TEST(sessions_are_independent)
{
    enum {
        SESSIONS = 4
    };
    ferrum_runtime_t *runtime = open_runtime();
    ferrum_session_t *sessions[SESSIONS];
    ferrum_moe_layer_t *packed;
    layer_t layer;
    step_t step;
    request_t requests[SESSIONS];
    pthread_t threads[SESSIONS];
    layer_init(&layer, &shape, 13);
    step_init(&step, &layer, 7, true, 14);
    EXPECT_OK(ferrum_moe_layer_create(runtime, &layer.desc, &packed, &err));
    for (uint32_t i = 0; i < SESSIONS; i++) {
        EXPECT_OK(ferrum_session_new(runtime, 1 + i % 3, &sessions[i], &err));
        request_init(&requests[i], sessions[i], packed, &step);
        ck_assert_int_eq(pthread_create(&threads[i], NULL, forward_many, &requests[i]), 0);
    }
    for (int i = 0; i < SESSIONS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        ck_assert_ptr_null(failed);
    }
    ck_assert_double_lt(step_error(&step, &layer, requests[0].out), 5e-4);
    for (int i = 1; i < SESSIONS; i++)
        ck_assert_mem_eq(requests[i].out, requests[0].out, 7 * shape.hidden * sizeof(float));
    for (int i = 0; i < SESSIONS; i++) {
        request_free(&requests[i]);
        ferrum_session_free(sessions[i]);
    }
    ferrum_moe_layer_free(packed);
    ferrum_runtime_close(runtime);
    step_free(&step);
    layer_free(&layer);
}
END_TEST

START_TEST(refused_runtimes)
{
    ferrum_runtime_t *runtime = NULL;
    ferrum_runtime_options_t small = {.head = {8, 0}};
    EXPECT_FAILS(ferrum_runtime_open(&small, &runtime, &err), FERRUM_INVALID_ARGUMENT,
                 "FERRUM_HEAD");
    EXPECT_FAILS(ferrum_runtime_open(NULL, NULL, &err), FERRUM_INVALID_ARGUMENT, "out_runtime");
    EXPECT_FAILS(open_with(fixture_plugin(), "FERRUM_MOE_PATH", "fastest", &runtime, &err),
                 FERRUM_INVALID_ARGUMENT, "FERRUM_MOE_PATH=fastest");
    EXPECT_FAILS(open_with(fixture_plugin(), "FERRUM_PRECISION", "exact", &runtime, &err),
                 FERRUM_INVALID_ARGUMENT, "FERRUM_PRECISION=exact");
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_int_ne(open_with("nosuch", NULL, NULL, &runtime, &err), FERRUM_OK);
    ck_assert_msg(strstr(err.message, "nosuch") != NULL, "%s", err.message);
    ck_assert_ptr_null(runtime);
    ferrum_runtime_close(NULL);
    ferrum_session_free(NULL);
    ferrum_moe_layer_free(NULL);
}
END_TEST

/* One refuses in its probe; the other loads and opens a device, but takes no weights. */
START_TEST(stub_backends)
{
    static const struct {
        const char *file;
        const char *text;
    } stubs[] = {{"backends/metal-stub/.libs/metal-stub.so", "metal-stub"},
                 {"tests/loader/.libs/fixture.so", "it takes no weight format at all"}};
    char path[4096];
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    ferrum_runtime_t *runtime = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", build ? build : ".", stubs[_i].file);
    if (access(path, R_OK) != 0) {
        printf("%s was not built\n", path);
        return;
    }
    EXPECT_FAILS(open_with(path, NULL, NULL, &runtime, &err), FERRUM_UNSUPPORTED, stubs[_i].text);
    ck_assert_ptr_null(runtime);
}
END_TEST

START_TEST(fast_precision)
{
    ferrum_runtime_t *runtime;
    EXPECT_OK(open_with(fixture_plugin(), "FERRUM_PRECISION", "fast", &runtime, &err));
    ck_assert_uint_eq(ferrum_runtime_ops(runtime)->precision, FERRUM_PRECISION_FAST);
    ck_assert_str_eq(ferrum_module_name(ferrum_runtime_module(runtime)), "cpu");
    ck_assert_ptr_nonnull(ferrum_runtime_device(runtime));
    ck_assert_uint_eq(ferrum_runtime_device_info(runtime)->activation_dtype, FERRUM_DTYPE_F32);
    ck_assert_uint_eq(ferrum_runtime_threads(runtime), 2);
    ck_assert_str_eq(ferrum_options_get(ferrum_runtime_get_options(runtime), "FERRUM_PRECISION"),
                     "fast");
    ferrum_runtime_close(runtime);
}
END_TEST

/* ---- plans ---- */

static ferrum_moe_problem_t problem_of(ferrum_weight_format_t format)
{
    bool gptq = format == FERRUM_FORMAT_GPTQ;
    return (ferrum_moe_problem_t){.hidden = 256,
                                  .intermediate = 256,
                                  .num_experts = 8,
                                  .top_k = 2,
                                  .gate = format,
                                  .up = format,
                                  .down = format,
                                  .bits = gptq ? 4 : 0,
                                  .group_size = gptq ? 32 : 0};
}

START_TEST(chosen_paths)
{
    backend_t backend;
    ferrum_moe_env_t env;
    ferrum_moe_plan_t plan;
    ferrum_moe_problem_t layers[2] = {problem_of(FERRUM_FORMAT_Q4_K),
                                      problem_of(FERRUM_FORMAT_Q4_K)};
    backend_open(&backend, 1);
    ferrum_moe_env_defaults(&env);
    layers[1].down = FERRUM_FORMAT_Q6_K; /* layers may differ in format */
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 2, &plan, &err));
    ck_assert_int_eq(plan.path, FERRUM_MOE_PATH_EXPERT_FFN);
    ck_assert_msg(strstr(plan.description, "expert_ffn") != NULL, "%s", plan.description);
    env.path = FERRUM_MOE_PATH_BUCKETED;
    EXPECT_FAILS(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 2, &plan, &err),
                 FERRUM_UNSUPPORTED, "FERRUM_MOE_PATH=bucketed does not work here");
    env.path = FERRUM_MOE_PATH_PER_PAIR;
    env.device_route = 1;
    EXPECT_FAILS(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 2, &plan, &err),
                 FERRUM_UNSUPPORTED, "FERRUM_MOE_DEVICE_ROUTE=1");
    env.device_route = 0;
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 2, &plan, &err));
    ck_assert(!plan.device_route);
    env.path = FERRUM_MOE_PATH_AUTO;
    layers[0] = problem_of(29); /* a GGUF type that nobody has */
    EXPECT_FAILS(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 2, &plan, &err),
                 FERRUM_UNSUPPORTED, "has no path for these experts");
    layers[0] = problem_of(FERRUM_FORMAT_Q4_K);
    layers[1].hidden = 512;
    EXPECT_FAILS(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 2, &plan, &err),
                 FERRUM_UNSUPPORTED, "layer 1 differs");
    layers[0] = problem_of(FERRUM_FORMAT_GPTQ);
    env.path = FERRUM_MOE_PATH_BUCKETED;
    env.device_route = 1;
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 1, &plan, &err));
    ck_assert(plan.vllm && plan.device_route);
    env.device_route = -1;
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 1, &plan, &err));
    ck_assert(!plan.vllm && !plan.device_route);
    env.host_route = true;
    env.vllm_moe = true;
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 1, &plan, &err));
    ck_assert(plan.vllm && !plan.device_route && !plan.backend_host_route);
    layers[0].top_k = 9;
    EXPECT_FAILS(ferrum_moe_plan_resolve(&backend.ops, &env, layers, 1, &plan, &err),
                 FERRUM_INVALID_ARGUMENT, "top_k 9 of 8");
    backend_close(&backend);
}
END_TEST

/* Experts of another form than the plan's are refused, and so are bad logits. */
START_TEST(refused_runs)
{
    static const ferrum_moe_path_t paths[] = {FERRUM_MOE_PATH_EXPERT_FFN, FERRUM_MOE_PATH_STACKED,
                                              FERRUM_MOE_PATH_PER_PAIR};
    backend_t backend;
    layer_t layer;
    step_t step;
    backend_open(&backend, 1);
    layer_init(&layer, &shape, 1);
    step_init(&step, &layer, 3, false, 2);
    step.logits[shape.experts + 1] = NAN;
    ferrum_buffer_t *x = backend_floats(&backend, step.x, 3 * shape.hidden);
    ferrum_buffer_t *logits = backend_floats(&backend, step.logits, 3 * shape.experts);
    ferrum_buffer_t *out = backend_zeros(&backend, 3 * shape.hidden);
    for (int i = 0; i < 3; i++) {
        ferrum_expert_stack_t right, wrong;
        ferrum_moe_env_t env;
        ferrum_moe_plan_t plan;
        ferrum_moe_scratch_t *scratch;
        ferrum_moe_env_defaults(&env);
        env.path = paths[i];
        env.device_route = 0;
        layer_load(&layer, &backend.ops, paths[i], &right);
        layer_load(&layer, &backend.ops, paths[(i + 1) % 3], &wrong);
        EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, &layer.problem, 1, &plan, &err));
        EXPECT_OK(ferrum_moe_scratch_new(&backend.ops, &plan, 1, &scratch, &err));
        ferrum_moe_run_args_t args = {.ctx = backend.ctx,
                                      .experts = &right,
                                      .x = x,
                                      .router_logits = logits,
                                      .tokens = 3,
                                      .out = out};
        EXPECT_FAILS(ferrum_moe_run(scratch, &args, &err), FERRUM_INVALID_INPUT, "row 1");
        args.experts = &wrong;
        args.tokens = 1;
        EXPECT_FAILS(ferrum_moe_run(scratch, &args, &err), FERRUM_NO_STACK, "not loaded");
        args.x = NULL;
        EXPECT_FAILS(ferrum_moe_run(scratch, &args, &err), FERRUM_INVALID_ARGUMENT, "needs");
        ferrum_moe_scratch_free(scratch);
        ferrum_expert_stack_free(&right);
        ferrum_expert_stack_free(&wrong);
    }
    backend_release(&backend, x);
    backend_release(&backend, logits);
    backend_release(&backend, out);
    step_free(&step);
    layer_free(&layer);
    backend_close(&backend);
}
END_TEST

int main(void)
{
    (void)fixture_plugin();
    Suite *suite = suite_create("layer");
    TCase *tcase = tcase_create("layer");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, forward_and_accumulate);
    tcase_add_test(tcase, bad_forwards);
    tcase_add_test(tcase, sessions_are_independent);
    tcase_add_test(tcase, refused_runtimes);
    tcase_add_loop_test(tcase, stub_backends, 0, 2);
    tcase_add_test(tcase, fast_precision);
    tcase_add_test(tcase, chosen_paths);
    tcase_add_test(tcase, refused_runs);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
