/* SPDX-License-Identifier: MIT */
#include "host/moe/moe_env.h"

#include "host/moe/align.h"

#include <ferrum/util.h>

#include <string.h>

static const char *const path_names[] = {
    [FERRUM_MOE_PATH_AUTO] = "auto",         [FERRUM_MOE_PATH_EXPERT_FFN] = "expert_ffn",
    [FERRUM_MOE_PATH_BUCKETED] = "bucketed", [FERRUM_MOE_PATH_STACKED] = "stacked",
    [FERRUM_MOE_PATH_PER_PAIR] = "per-pair",
};

const char *ferrum_moe_path_name(ferrum_moe_path_t path)
{
    return path_names[path];
}

void ferrum_moe_env_defaults(ferrum_moe_env_t *out_env)
{
    *out_env = (ferrum_moe_env_t){.device_route = -1,
                                  .fused_gate_up_silu = true,
                                  .bucketed = true,
                                  .batched = true,
                                  .batched_decode = true,
                                  .batch_threshold = 4,
                                  .prefill_threshold = 32,
                                  .large_m_min_pairs = 1024};
}

static ferrum_status_t parse_path(const char *text, ferrum_moe_path_t *out_path,
                                  ferrum_error_t *err)
{
    for (size_t i = 0; i < sizeof path_names / sizeof path_names[0]; i++) {
        if (strcmp(text, path_names[i]) == 0) {
            *out_path = (ferrum_moe_path_t)i;
            return FERRUM_OK;
        }
    }
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                       "FERRUM_MOE_PATH=%.40s: choose auto, expert_ffn, bucketed, stacked or "
                       "per-pair",
                       text);
}

static uint32_t number(const ferrum_options_t *options, const char *name)
{
    uint64_t value = ferrum_options_uint(options, name);
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static uint32_t block_size(const ferrum_options_t *options, const char *name)
{
    uint64_t value = ferrum_options_uint(options, name);
    return ferrum_moe_block_size_valid(value) ? (uint32_t)value : 0;
}

ferrum_status_t ferrum_moe_env_parse(const ferrum_options_t *options, ferrum_moe_env_t *out_env,
                                     ferrum_error_t *err)
{
    ferrum_moe_env_t env;
    ferrum_moe_env_defaults(&env);
    if (!options) {
        *out_env = env;
        return FERRUM_OK;
    }
    const struct {
        const char *name;
        bool *field;
    } switches[] = {
        {"FERRUM_MOE_PROFILE", &env.profile},
        {"FERRUM_MOE_LOAD_TRACE", &env.load_trace},
        {"FERRUM_VLLM_MOE", &env.vllm_moe},
        {"FERRUM_VLLM_MOE_PAIR_IDS", &env.pair_ids},
        {"FERRUM_VLLM_MOE_ZERO_WS", &env.zero_workspace},
        {"FERRUM_MOE_HOST_ROUTE", &env.host_route},
        {"FERRUM_MOE_FUSED_GATE_UP_SILU", &env.fused_gate_up_silu},
        {"FERRUM_MOE_HOST_TOPK", &env.host_topk},
        {"FERRUM_MOE_DIRECT_DISPATCH", &env.direct_dispatch},
        {"FERRUM_MOE_BUCKETED", &env.bucketed},
        {"FERRUM_MOE_BATCHED", &env.batched},
        {"FERRUM_MOE_BATCHED_DECODE", &env.batched_decode},
        {"FERRUM_MOE_GRAPH", &env.graph},
    };
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++)
        *switches[i].field = ferrum_options_switch(options, switches[i].name) != 0;
    env.device_route = ferrum_options_switch(options, "FERRUM_MOE_DEVICE_ROUTE");
    env.batch_threshold = number(options, "FERRUM_MOE_BATCH_THRESHOLD");
    env.prefill_threshold = number(options, "FERRUM_MOE_PREFILL_THRESHOLD");
    env.large_m_min_pairs = number(options, "FERRUM_MOE_LARGE_M_MIN_PAIRS");
    env.block_size = block_size(options, "FERRUM_MOE_BLOCK_SIZE");
    env.large_m_block_size = block_size(options, "FERRUM_MOE_LARGE_M_BLOCK_SIZE");
    const char *path = ferrum_options_get(options, "FERRUM_MOE_PATH");
    if (path)
        FERRUM_TRY(parse_path(path, &env.path, err));
    if (env.host_route && env.device_route == 1)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_ROUTING,
                           "FERRUM_MOE_HOST_ROUTE=1 and FERRUM_MOE_DEVICE_ROUTE=1 contradict each "
                           "other: unset one");
    *out_env = env;
    return FERRUM_OK;
}
