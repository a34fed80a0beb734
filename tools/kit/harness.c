/* SPDX-License-Identifier: MIT */
/* Cases, their data, and comparisons. */
#include "tools/kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Larger than any result, exact in every float dtype. */
static const float DIRTY = 12288.0F;
static const int32_t DIRTY_INT = -77777;

void cf_begin(cf_suite_t *suite, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(suite->label, sizeof suite->label, fmt, args);
    va_end(args);
    suite->case_failed = suite->case_refused = false;
    suite->reason[0] = '\0';
    suite->stated = 0;
    suite->report(suite->report_arg, CF_BEGIN, suite->label, "");
}

void cf_end(cf_suite_t *suite)
{
    while (suite->objects > 0) {
        suite->objects--;
        suite->release[suite->objects](suite, suite->object[suite->objects]);
    }
    if (!suite->case_failed)
        suite->report(suite->report_arg, suite->case_refused ? CF_REFUSED : CF_PASSED, suite->label,
                      suite->reason);
}

void cf_fail(cf_suite_t *suite, const char *fmt, ...)
{
    char text[512];
    va_list args;
    if (suite->case_failed)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    suite->case_failed = true;
    suite->report(suite->report_arg, CF_FAILED, suite->label, text);
}

void cf_advise(cf_suite_t *suite, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    suite->report(suite->report_arg, CF_ADVICE, suite->label, text);
}

const char *cf_error_flaw(ferrum_status_t status, const ferrum_error_t *err)
{
    size_t length = strnlen(err->message, sizeof err->message);
    if (err->status != status)
        return "its status is not the returned one";
    if (length == 0)
        return "it has no text";
    if (length == sizeof err->message)
        return "its text is not terminated";
    if (strchr(err->message, '\n') != NULL)
        return "its text has more than one line";
    if (err->message[length - 1] == '.' && (length < 2 || err->message[length - 2] != '.'))
        return "its text ends in a full stop";
    return status == FERRUM_UNSUPPORTED && err->reason == FERRUM_REASON_NONE ? "it has no reason"
                                                                             : NULL;
}

bool cf_ok(cf_suite_t *suite, ferrum_status_t status, const ferrum_error_t *err)
{
    if (status == FERRUM_OK)
        return true;
    const char *flaw = cf_error_flaw(status, err);
    if (status != FERRUM_UNSUPPORTED) {
        cf_fail(suite, "status %d, reason %u: %.240s", status, err->reason, err->message);
    } else if (flaw != NULL) {
        cf_fail(suite, "refused, but the error struct is not right: %s (\"%.100s\")", flaw,
                err->message);
    } else {
        suite->case_refused = true;
        memcpy(suite->reason, err->message, sizeof err->message);
    }
    return false;
}

void cf_expect_error(cf_suite_t *suite, ferrum_status_t status, ferrum_status_t expected,
                     const ferrum_error_t *err)
{
    const char *flaw;
    if (status == FERRUM_UNSUPPORTED && expected != FERRUM_UNSUPPORTED)
        cf_ok(suite, status, err);
    else if (status != expected)
        cf_fail(suite, "status %d, expected %d", status, expected);
    else if ((flaw = cf_error_flaw(status, err)) != NULL)
        cf_fail(suite, "fails as it should, but the error struct is not right: %s (\"%.100s\")",
                flaw, err->message);
}

void cf_state_error(cf_suite_t *suite, double bound)
{
    if (!(bound > 0 && bound <= 5e-2))
        cf_fail(suite, "states an error bound of %g; it must lie in (0, 0.05]", bound);
    else if (bound > suite->stated)
        suite->stated = bound;
}

void cf_own(cf_suite_t *suite, void *object, void (*release)(cf_suite_t *suite, void *object))
{
    if (suite->objects == CF_MAX_OBJECTS) {
        cf_fail(suite, "the suite holds too many objects in one case");
        release(suite, object);
        return;
    }
    suite->object[suite->objects] = object;
    suite->release[suite->objects++] = release;
}

static void release_memory(cf_suite_t *suite, void *object)
{
    (void)suite;
    free(object);
}

static void release_buffer(cf_suite_t *suite, void *object)
{
    suite->be->buffer_release(object);
}

void *cf_memory(cf_suite_t *suite, size_t bytes)
{
    void *memory = calloc(1, bytes ? bytes : 1);
    if (memory == NULL) {
        cf_fail(suite, "the suite itself has run out of memory");
        _exit(1);
    }
    cf_own(suite, memory, release_memory);
    return memory;
}

uint64_t cf_random(cf_suite_t *suite)
{
    suite->random = suite->random * 6364136223846793005u + 1442695040888963407u;
    return suite->random >> 33;
}

double cf_uniform(cf_suite_t *suite)
{
    return (double)cf_random(suite) / (double)(1u << 30) - 1.0;
}

uint32_t cf_below(cf_suite_t *suite, uint32_t bound)
{
    return (uint32_t)(cf_random(suite) % bound);
}

static ferrum_buffer_t *make_buffer(cf_suite_t *suite, ferrum_dtype_t dtype, uint64_t count)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_buffer_t *buffer = NULL;
    if (cf_ok(suite, suite->be->buffer_alloc(suite->device, dtype, count, &buffer, &err), &err))
        cf_own(suite, buffer, release_buffer);
    return buffer;
}

/* Float buffer with `count` given values (NULL: dirty) and a dirty guard. */
static cf_tensor_t make_tensor(cf_suite_t *suite, ferrum_dtype_t dtype, const double *values,
                               uint64_t count)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_tensor_t tensor = {NULL, count, cf_memory(suite, (count + CF_GUARD) * sizeof(double))};
    float *staged = cf_memory(suite, (count + CF_GUARD) * sizeof *staged);
    for (uint64_t i = 0; i < count + CF_GUARD; i++)
        staged[i] = values && i < count ? (float)values[i] : DIRTY;
    tensor.buffer = make_buffer(suite, dtype, count + CF_GUARD);
    if (tensor.buffer == NULL)
        return tensor;
    if (cf_ok(suite,
              suite->be->buffer_write_f32(suite->ctx, tensor.buffer, 0, staged, count + CF_GUARD,
                                          &err),
              &err) &&
        cf_ok(suite, suite->be->buffer_read_f32(suite->ctx, tensor.buffer, 0, staged, count, &err),
              &err))
        for (uint64_t i = 0; i < count; i++)
            tensor.v[i] = (double)staged[i];
    return tensor;
}

cf_tensor_t cf_input(cf_suite_t *suite, uint64_t count, double scale)
{
    double *values = cf_memory(suite, count * sizeof *values);
    for (uint64_t i = 0; i < count; i++)
        values[i] = cf_uniform(suite) * scale;
    return make_tensor(suite, suite->info.activation_dtype, values, count);
}

cf_tensor_t cf_input_values(cf_suite_t *suite, const double *values, uint64_t count)
{
    return make_tensor(suite, suite->info.activation_dtype, values, count);
}

cf_tensor_t cf_output(cf_suite_t *suite, uint64_t count)
{
    return make_tensor(suite, suite->info.activation_dtype, NULL, count);
}

cf_tensor_t cf_f32(cf_suite_t *suite, const double *values, uint64_t count)
{
    return make_tensor(suite, FERRUM_DTYPE_F32, values, count);
}

cf_tensor_t cf_f32_output(cf_suite_t *suite, uint64_t count)
{
    return make_tensor(suite, FERRUM_DTYPE_F32, NULL, count);
}

static cf_ints_t make_ints(cf_suite_t *suite, const int32_t *values, uint64_t count)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_ints_t ints = {NULL, count, cf_memory(suite, (count + CF_GUARD) * sizeof(int32_t))};
    for (uint64_t i = 0; i < count + CF_GUARD; i++)
        ints.v[i] = values && i < count ? values[i] : DIRTY_INT;
    ints.buffer = make_buffer(suite, FERRUM_DTYPE_I32, count + CF_GUARD);
    if (ints.buffer != NULL)
        cf_ok(suite,
              suite->be->buffer_write(suite->ctx, ints.buffer, 0, FERRUM_DTYPE_I32, ints.v,
                                      count + CF_GUARD, &err),
              &err);
    return ints;
}

cf_ints_t cf_ints(cf_suite_t *suite, const int32_t *values, uint64_t count)
{
    return make_ints(suite, values, count);
}

cf_ints_t cf_ints_output(cf_suite_t *suite, uint64_t count)
{
    return make_ints(suite, NULL, count);
}

void cf_read(cf_suite_t *suite, cf_tensor_t *tensor)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t all = tensor->count + CF_GUARD;
    float *staged = cf_memory(suite, all * sizeof *staged);
    if (tensor->buffer == NULL ||
        !cf_ok(suite, suite->be->buffer_read_f32(suite->ctx, tensor->buffer, 0, staged, all, &err),
               &err))
        return;
    for (uint64_t i = 0; i < tensor->count; i++)
        tensor->v[i] = (double)staged[i];
    for (uint64_t i = tensor->count; i < all; i++)
        if (staged[i] != DIRTY)
            cf_fail(suite, "wrote %g behind its output, at element %llu of %llu", (double)staged[i],
                    (unsigned long long)i, (unsigned long long)tensor->count);
}

void cf_read_ints(cf_suite_t *suite, cf_ints_t *ints)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t all = ints->count + CF_GUARD;
    if (ints->buffer == NULL || !cf_ok(suite,
                                       suite->be->buffer_read(suite->ctx, ints->buffer, 0,
                                                              FERRUM_DTYPE_I32, ints->v, all, &err),
                                       &err))
        return;
    for (uint64_t i = ints->count; i < all; i++)
        if (ints->v[i] != DIRTY_INT)
            cf_fail(suite, "wrote behind its output, at element %llu of %llu",
                    (unsigned long long)i, (unsigned long long)ints->count);
}

void cf_expect_untouched(cf_suite_t *suite, cf_tensor_t *tensor)
{
    double *before = cf_memory(suite, tensor->count * sizeof *before);
    memcpy(before, tensor->v, tensor->count * sizeof *before);
    cf_read(suite, tensor);
    if (memcmp(before, tensor->v, tensor->count * sizeof *before) != 0)
        cf_fail(suite, "a failing call wrote to its output");
}

void cf_expect_rows(cf_suite_t *suite, cf_tensor_t *out, const double *reference, uint64_t row,
                    double factor)
{
    cf_read(suite, out);
    for (uint64_t start = 0; row > 0 && start < out->count; start += row) {
        double diff = 0, norm = 0;
        for (uint64_t i = start; i < start + row && i < out->count; i++) {
            diff += (out->v[i] - reference[i]) * (out->v[i] - reference[i]);
            norm += reference[i] * reference[i];
        }
        /* Not "diff > bound": a NaN must fail too. */
        double allowed = factor * suite->tolerance + suite->stated;
        if (!(sqrt(diff) <= allowed * sqrt(norm) + 1e-6)) {
            cf_fail(suite, "row %llu is off by %.3g of %.3g (allowed %.3g of it)",
                    (unsigned long long)(start / row), sqrt(diff), sqrt(norm), allowed);
            return;
        }
    }
}

void cf_expect_same(cf_suite_t *suite, cf_tensor_t *a, cf_tensor_t *b)
{
    cf_read(suite, a);
    cf_read(suite, b);
    for (uint64_t i = 0; i < a->count; i++)
        if (memcmp(&a->v[i], &b->v[i], sizeof a->v[i]) != 0) {
            cf_fail(suite, "bits differ at element %llu: %.9g and %.9g", (unsigned long long)i,
                    a->v[i], b->v[i]);
            return;
        }
}

void cf_expect_ints(cf_suite_t *suite, cf_ints_t *out, const int32_t *reference)
{
    cf_read_ints(suite, out);
    for (uint64_t i = 0; i < out->count; i++)
        if (out->v[i] != reference[i]) {
            cf_fail(suite, "element %llu is %d, expected %d", (unsigned long long)i, out->v[i],
                    reference[i]);
            return;
        }
}
