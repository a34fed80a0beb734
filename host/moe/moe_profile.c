/* SPDX-License-Identifier: MIT */
#include "host/moe/moe_profile.h"

ferrum_moe_profile_snapshot_t ferrum_moe_profile_drain(ferrum_moe_profile_t *profile)
{
    ferrum_moe_profile_snapshot_t snapshot;
    snapshot.layers = atomic_exchange(&profile->layers, 0);
    for (int i = 0; i < FERRUM_MOE_STEP_COUNT; i++)
        snapshot.step_us[i] = atomic_exchange(&profile->step_us[i], 0);
    return snapshot;
}

uint64_t ferrum_moe_profile_total_us(const ferrum_moe_profile_snapshot_t *snapshot)
{
    uint64_t total = 0;
    for (int i = 0; i < FERRUM_MOE_STEP_COUNT; i++)
        total += snapshot->step_us[i];
    return total;
}

bool ferrum_moe_profile_has_layers(const ferrum_moe_profile_snapshot_t *snapshot)
{
    return snapshot->layers > 0;
}

const char *ferrum_moe_step_name(ferrum_moe_step_t step)
{
    static const char *const names[FERRUM_MOE_STEP_COUNT] = {
        "sync", "d2h", "route", "plan", "gather", "gemm1", "silu", "gemm3", "combine"};
    return names[step];
}
