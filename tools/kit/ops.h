/* SPDX-License-Identifier: MIT */
/**
 * @file ops.h
 * @brief One table of operations with valid arguments, for the groups that ask something of every
 *        operation: misuse, determinism, threads.
 */
#ifndef FERRUM_KIT_OPS_H
#define FERRUM_KIT_OPS_H

#include "tools/kit/kit.h"

enum {
    CF_OP_BUFFERS = 8
};

/** What a buffer argument is. Upper case: the operation writes it. */
typedef enum cf_role {
    CF_NONE = 0,
    CF_ACT = 'a',       /**< activations in */
    CF_TABLE = 't',     /**< activations in, rows chosen by ids: how many there are, ids tell */
    CF_ACT_OUT = 'A',   /**< activations out, dirty before */
    CF_ACT_INOUT = 'M', /**< activations, changed in place */
    CF_F32 = 'f',       /**< f32 in */
    CF_F32_OUT = 'F',   /**< f32 out */
    CF_INT = 'i',       /**< i32 in, values below `below` */
    CF_INT_OUT = 'I'    /**< i32 out */
} cf_role_t;

/** One operation at one shape. */
typedef struct cf_op {
    const char *name;
    struct {
        char role; /**< cf_role_t; CF_NONE ends the list */
        uint32_t count;
        uint32_t below;
    } args[CF_OP_BUFFERS + 1];
    ferrum_status_t (*call)(cf_suite_t *suite, ferrum_context_t *ctx, void *object,
                            ferrum_buffer_t *const *b, ferrum_error_t *err);
    /** Make the weights that the operation works with; NULL: it needs none. Owned by the case. */
    void *(*make)(cf_suite_t *suite);
} cf_op_t;

extern const cf_op_t cf_ops[];
extern const size_t cf_op_count;

/** The buffers of one call. */
typedef struct cf_call {
    const cf_op_t *op;
    void *object;
    unsigned count;
    cf_tensor_t tensor[CF_OP_BUFFERS]; /**< float arguments */
    cf_ints_t ints[CF_OP_BUFFERS];     /**< integer arguments */
    ferrum_buffer_t *buffer[CF_OP_BUFFERS];
} cf_call_t;

/** Make the operation's object and buffers; inputs are the same on every call. False when the case
 *  failed or was refused. @p object: of an earlier call, or NULL. */
bool cf_call_prepare(cf_suite_t *suite, const cf_op_t *op, void *object, cf_call_t *out_call);
/** Run it. Safe from any thread that owns @p ctx. */
ferrum_status_t cf_call_run(cf_suite_t *suite, ferrum_context_t *ctx, const cf_call_t *call,
                            ferrum_error_t *err);
/** Whether argument @p i is an integer buffer, and whether the operation writes it. */
bool cf_arg_is_int(const cf_op_t *op, unsigned i);
bool cf_arg_is_output(const cf_op_t *op, unsigned i);
/** Compare everything that two calls wrote, bit by bit. */
void cf_call_expect_same(cf_suite_t *suite, cf_call_t *a, cf_call_t *b);

#endif /* FERRUM_KIT_OPS_H */
