/* SPDX-License-Identifier: MIT */
/**
 * @file model_handle.h
 * @brief Making the struct of a handle, before it has anything on a generation.
 */
#ifndef FERRUM_HOST_MODEL_HANDLE_H
#define FERRUM_HOST_MODEL_HANDLE_H

#include "host/model/model_internal.h"

/** A handle with its identity and nothing else; free() frees it. NULL: out of memory. @p session
 * may be NULL until the handle is used. */
ferrum_model_t *ferrum_model_new_handle(ferrum_model_shared_t *shared, ferrum_session_t *session,
                                        const ferrum_model_sizes_t *sizes, ferrum_error_t *err);

#endif /* FERRUM_HOST_MODEL_HANDLE_H */
