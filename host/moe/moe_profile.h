/* SPDX-License-Identifier: MIT */
/**
 * @file moe_profile.h
 * @brief Time spent in the steps of the bucketed forward. Counters are atomic and belong to
 *        whoever passes them in; measuring waits for the device between steps.
 */
#ifndef FERRUM_HOST_MOE_PROFILE_H
#define FERRUM_HOST_MOE_PROFILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/** Steps, in order. */
typedef enum ferrum_moe_step {
    FERRUM_MOE_STEP_SYNC, /**< waiting for what came before */
    FERRUM_MOE_STEP_D2H,  /**< reading logits */
    FERRUM_MOE_STEP_ROUTE,
    FERRUM_MOE_STEP_PLAN, /**< bucket plan, alignment, uploads */
    FERRUM_MOE_STEP_GATHER,
    FERRUM_MOE_STEP_GEMM1, /**< gate_up */
    FERRUM_MOE_STEP_SILU,
    FERRUM_MOE_STEP_GEMM3, /**< down */
    FERRUM_MOE_STEP_COMBINE,
    FERRUM_MOE_STEP_COUNT
} ferrum_moe_step_t;

/** Running counters. Zeroed is empty. */
typedef struct ferrum_moe_profile {
    _Atomic uint64_t layers;
    _Atomic uint64_t step_us[FERRUM_MOE_STEP_COUNT];
} ferrum_moe_profile_t;

/** What a drain found. */
typedef struct ferrum_moe_profile_snapshot {
    uint64_t layers;
    uint64_t step_us[FERRUM_MOE_STEP_COUNT];
} ferrum_moe_profile_snapshot_t;

/** Read and clear every counter. [any-thread] */
ferrum_moe_profile_snapshot_t ferrum_moe_profile_drain(ferrum_moe_profile_t *profile);
/** Sum of the nine steps. */
uint64_t ferrum_moe_profile_total_us(const ferrum_moe_profile_snapshot_t *snapshot);
/** Whether any layer was measured. */
bool ferrum_moe_profile_has_layers(const ferrum_moe_profile_snapshot_t *snapshot);
/** Lower-case name of a step. */
const char *ferrum_moe_step_name(ferrum_moe_step_t step);

#endif /* FERRUM_HOST_MOE_PROFILE_H */
