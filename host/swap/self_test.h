/* SPDX-License-Identifier: MIT */
/**
 * @file self_test.h
 * @brief Whether a backend computes at all what it says: a small expert FFN of fixed weights in
 *        every format in use, against f64 arithmetic.
 */
#ifndef FERRUM_HOST_SELF_TEST_H
#define FERRUM_HOST_SELF_TEST_H

#include "host/runtime/registry.h"

/**
 * Run it. The bound of a format is what the backend states for it plus the rounding of its
 * activation dtype. [any-thread]
 * @param out_error raised to the largest error met, relative to its bound
 * Errors: BAD_PLUGIN naming the format and both numbers; UNSUPPORTED (a format in use that the
 * backend does not take); those of the backend.
 */
ferrum_status_t ferrum_self_test(const ferrum_ops_t *ops, const ferrum_formats_used_t *formats,
                                 double *out_error, ferrum_error_t *err);

#endif /* FERRUM_HOST_SELF_TEST_H */
