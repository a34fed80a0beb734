/* SPDX-License-Identifier: MIT */
/**
 * @file kv_migrate.h
 * @brief Moving the keys and values of all requests from one backend to another.
 *
 * What travels is canonical: f32 [kv_heads, 16 positions, head_dim] for each block of 16 positions,
 * layer, and K or V; whatever dtype and layout (either paged one, or contiguous) the two caches
 * have. f32 holds f16 and bf16 exactly; into a narrower dtype values are rounded to nearest even.
 *
 * Between two paged caches whole pools' used blocks are moved, so block numbers, shared blocks and
 * cached prefixes stay as they are. Between different kinds every request's blocks are moved, and
 * prefixes are no longer shared.
 */
#ifndef FERRUM_HOST_KV_MIGRATE_H
#define FERRUM_HOST_KV_MIGRATE_H

#include "host/model/kv_cache.h"

/**
 * Copy everything of @p from into the empty cache @p to of the same model and sizes. @p from keeps
 * working if this fails. Nobody else uses either cache or context.
 * Errors: RESOURCE_EXHAUSTED (blocks), OUT_OF_MEMORY, those of the backends.
 */
ferrum_status_t ferrum_kv_migrate(const ferrum_kv_cache_t *from, ferrum_context_t *from_ctx,
                                  ferrum_kv_cache_t *to, ferrum_context_t *to_ctx,
                                  ferrum_error_t *err);
/** After that: the requests themselves go over to @p to, where their entries keep their addresses.
 *  @p from is good for nothing but freeing then. */
void ferrum_kv_hand_over(ferrum_kv_cache_t *from, ferrum_kv_cache_t *to);

#endif /* FERRUM_HOST_KV_MIGRATE_H */
