/* SPDX-License-Identifier: MIT */
/* Every buffer of every operation, one at a time: absent, too short, of another dtype. */
#include "tools/kit/ops.h"

typedef enum defect {
    DEFECT_NULL,
    DEFECT_SHORT,
    DEFECT_DTYPE,
    DEFECT_COUNT
} defect_t;

static const char *const defect_names[] = {"NULL", "one element short", "of a wrong dtype"};

static void release_buffer(cf_suite_t *suite, void *object)
{
    suite->be->buffer_release(object);
}

/* A buffer like argument `i`, but for the defect. */
static ferrum_buffer_t *make_bad(cf_suite_t *suite, const cf_call_t *call, unsigned i,
                                 defect_t defect)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    ferrum_buffer_t *bad = NULL;
    if (defect == DEFECT_NULL ||
        !cf_ok(suite, suite->be->buffer_info(call->buffer[i], &info, &err), &err))
        return NULL;
    uint64_t count = call->op->args[i].count - (defect == DEFECT_SHORT ? 1 : 0);
    if (defect == DEFECT_DTYPE)
        info.dtype = cf_arg_is_int(call->op, i) ? FERRUM_DTYPE_F32 : FERRUM_DTYPE_I32;
    if (cf_ok(suite, suite->be->buffer_alloc(suite->device, info.dtype, count, &bad, &err), &err))
        cf_own(suite, bad, release_buffer);
    return bad;
}

/* What the operation would have written still holds what it held. */
static void expect_untouched(cf_suite_t *suite, cf_call_t *call, unsigned except)
{
    for (unsigned i = 0; i < call->count; i++) {
        if (i == except || !cf_arg_is_output(call->op, i))
            continue;
        if (cf_arg_is_int(call->op, i)) {
            int32_t *before = cf_memory(suite, call->ints[i].count * sizeof *before);
            for (uint64_t j = 0; j < call->ints[i].count; j++)
                before[j] = call->ints[i].v[j];
            cf_expect_ints(suite, &call->ints[i], before);
        } else {
            cf_expect_untouched(suite, &call->tensor[i]);
        }
    }
}

static void misuse_case(cf_suite_t *suite, const cf_op_t *op, unsigned arg, defect_t defect)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_call_t call;
    cf_begin(suite, "%s: buffer %u %s", op->name, arg + 1, defect_names[defect]);
    if (cf_call_prepare(suite, op, NULL, &call)) {
        call.buffer[arg] = make_bad(suite, &call, arg, defect);
        ferrum_status_t status = cf_call_run(suite, suite->ctx, &call, &err);
        /* A row that is not there is an id out of range, which a device need not tell at once. */
        bool as_id = op->args[arg].role == CF_TABLE && defect == DEFECT_SHORT;
        bool unseen = as_id && cf_arg_is_int(op, arg + 1) && status == FERRUM_OK;
        if (!unseen)
            cf_expect_error(suite, status,
                            as_id && status == FERRUM_INVALID_INPUT ? FERRUM_INVALID_INPUT
                                                                    : FERRUM_INVALID_ARGUMENT,
                            &err);
        if (status != FERRUM_OK)
            expect_untouched(suite, &call, arg);
    }
    cf_end(suite);
}

/* The operation does what it should when nothing is wrong; else there is nothing to misuse. */
static bool works(cf_suite_t *suite, const cf_op_t *op)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_call_t call;
    cf_begin(suite, "%s: valid arguments, no error struct", op->name);
    if (cf_call_prepare(suite, op, NULL, &call) &&
        cf_ok(suite, cf_call_run(suite, suite->ctx, &call, &err), &err)) {
        call.buffer[0] = NULL;
        if (cf_call_run(suite, suite->ctx, &call, NULL) == FERRUM_OK)
            cf_fail(suite, "succeeds with a NULL buffer");
    }
    bool worked = !suite->case_failed && !suite->case_refused;
    cf_end(suite);
    return worked;
}

/* The header lets rms_norm write over its input. */
static void alias_case(cf_suite_t *suite)
{
    enum {
        ROWS = 3,
        DIM = 40
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "rms_norm over its own input");
    cf_tensor_t x = cf_input(suite, ROWS * DIM, 2), w = cf_input(suite, DIM, 1);
    double reference[ROWS * DIM];
    for (int r = 0; r < ROWS; r++)
        cf_ref_rms_norm(x.v + r * DIM, w.v, 1e-5, reference + r * DIM, DIM);
    if (cf_ok(suite,
              suite->be->rms_norm(suite->ctx, x.buffer, w.buffer, 1e-5F, x.buffer, ROWS, DIM, &err),
              &err))
        cf_expect_rows(suite, &x, reference, DIM, 1);
    cf_end(suite);
}

void cf_group_misuse(cf_suite_t *suite)
{
    for (size_t i = 0; i < cf_op_count; i++) {
        if (!works(suite, &cf_ops[i]))
            continue;
        for (unsigned arg = 0; cf_ops[i].args[arg].role != CF_NONE; arg++)
            for (int defect = 0; defect < DEFECT_COUNT; defect++)
                misuse_case(suite, &cf_ops[i], arg, (defect_t)defect);
    }
    alias_case(suite);
}
