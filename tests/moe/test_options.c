/* SPDX-License-Identifier: MIT */
/* MoE options as a struct, and the profile counters. */
#include <config.h>

#include "host/moe/moe_env.h"
#include "host/moe/moe_profile.h"
#include "host/runtime/executor.h"
#include "host/runtime/topology.h"
#include "tests/support/expect.h"

#include <stdlib.h>

static ferrum_options_t *options_with(const char *const *pairs)
{
    ferrum_options_t *options;
    EXPECT_OK(ferrum_options_new(&options, &err));
    for (; *pairs; pairs += 2)
        EXPECT_OK(ferrum_options_set(options, pairs[0], pairs[1], &err));
    return options;
}

static ferrum_moe_env_t parsed(const char *const *pairs)
{
    ferrum_options_t *options = options_with(pairs);
    ferrum_moe_env_t env;
    EXPECT_OK(ferrum_moe_env_parse(options, &env, &err));
    ferrum_options_free(options);
    return env;
}

START_TEST(defaults)
{
    ferrum_moe_env_t env = parsed((const char *const[]){NULL}), none;
    ck_assert_int_eq(env.path, FERRUM_MOE_PATH_AUTO);
    ck_assert(!env.profile && !env.load_trace && !env.vllm_moe && !env.pair_ids);
    ck_assert(!env.zero_workspace && !env.host_route && !env.host_topk && !env.direct_dispatch);
    ck_assert(!env.graph);
    ck_assert(env.fused_gate_up_silu && env.bucketed && env.batched && env.batched_decode);
    ck_assert_int_eq(env.device_route, -1);
    ck_assert_uint_eq(env.batch_threshold, 4);
    ck_assert_uint_eq(env.prefill_threshold, 32);
    ck_assert_uint_eq(env.block_size, 0);
    ck_assert_uint_eq(env.large_m_block_size, 0);
    ck_assert_uint_eq(env.large_m_min_pairs, 1024);
    EXPECT_OK(ferrum_moe_env_parse(NULL, &none, &err));
    ck_assert_int_eq(none.device_route, -1);
    ck_assert_uint_eq(none.large_m_min_pairs, 1024);
    ck_assert(none.fused_gate_up_silu);
}
END_TEST

START_TEST(explicit_values)
{
    ferrum_moe_env_t env = parsed((const char *const[]){"FERRUM_MOE_PATH",
                                                        "per-pair",
                                                        "FERRUM_MOE_PROFILE",
                                                        "",
                                                        "FERRUM_MOE_LOAD_TRACE",
                                                        "0",
                                                        "FERRUM_VLLM_MOE",
                                                        "1",
                                                        "FERRUM_VLLM_MOE_PAIR_IDS",
                                                        "1",
                                                        "FERRUM_VLLM_MOE_ZERO_WS",
                                                        "1",
                                                        "FERRUM_MOE_DEVICE_ROUTE",
                                                        "1",
                                                        "FERRUM_MOE_FUSED_GATE_UP_SILU",
                                                        "0",
                                                        "FERRUM_MOE_HOST_TOPK",
                                                        "1",
                                                        "FERRUM_MOE_DIRECT_DISPATCH",
                                                        "1",
                                                        "FERRUM_MOE_BUCKETED",
                                                        "0",
                                                        "FERRUM_MOE_BATCHED",
                                                        "0",
                                                        "FERRUM_MOE_BATCHED_DECODE",
                                                        "0",
                                                        "FERRUM_MOE_GRAPH",
                                                        "1",
                                                        "FERRUM_MOE_BATCH_THRESHOLD",
                                                        "2",
                                                        "FERRUM_MOE_PREFILL_THRESHOLD",
                                                        "9",
                                                        "FERRUM_MOE_BLOCK_SIZE",
                                                        "48",
                                                        "FERRUM_MOE_LARGE_M_BLOCK_SIZE",
                                                        "64",
                                                        "FERRUM_MOE_LARGE_M_MIN_PAIRS",
                                                        "17",
                                                        NULL});
    ck_assert_int_eq(env.path, FERRUM_MOE_PATH_PER_PAIR);
    ck_assert(env.profile && env.load_trace); /* present is enough */
    ck_assert(env.vllm_moe && env.pair_ids && env.zero_workspace && env.host_topk);
    ck_assert(env.direct_dispatch && env.graph);
    ck_assert(!env.fused_gate_up_silu && !env.bucketed && !env.batched && !env.batched_decode);
    ck_assert_int_eq(env.device_route, 1);
    ck_assert_uint_eq(env.batch_threshold, 2);
    ck_assert_uint_eq(env.prefill_threshold, 9);
    ck_assert_uint_eq(env.block_size, 48);
    ck_assert_uint_eq(env.large_m_block_size, 64);
    ck_assert_uint_eq(env.large_m_min_pairs, 17);
}
END_TEST

START_TEST(odd_values)
{
    ferrum_moe_env_t env = parsed((const char *const[]){
        "FERRUM_VLLM_MOE", "true", "FERRUM_MOE_BUCKETED", "off", "FERRUM_MOE_DEVICE_ROUTE", "maybe",
        "FERRUM_MOE_BLOCK_SIZE", "24", "FERRUM_MOE_LARGE_M_BLOCK_SIZE", "-16",
        "FERRUM_MOE_LARGE_M_MIN_PAIRS", "many", NULL});
    ck_assert(!env.vllm_moe); /* on only for exactly 1 */
    ck_assert(env.bucketed);  /* off only for exactly 0 */
    ck_assert_int_eq(env.device_route, -1);
    ck_assert_uint_eq(env.block_size, 0);
    ck_assert_uint_eq(env.large_m_block_size, 0);
    ck_assert_uint_eq(env.large_m_min_pairs, 1024);
    env = parsed((const char *const[]){"FERRUM_MOE_DEVICE_ROUTE", "0", "FERRUM_MOE_HOST_ROUTE", "1",
                                       "FERRUM_MOE_BATCH_THRESHOLD", "99999999999", NULL});
    ck_assert_int_eq(env.device_route, 0);
    ck_assert(env.host_route);
    ck_assert_uint_eq(env.batch_threshold, UINT32_MAX);
}
END_TEST

START_TEST(refusals)
{
    ferrum_moe_env_t env;
    ferrum_options_t *options = options_with((const char *const[]){"FERRUM_MOE_PATH", "x", NULL});
    EXPECT_FAILS(ferrum_moe_env_parse(options, &env, &err), FERRUM_INVALID_ARGUMENT,
                 "FERRUM_MOE_PATH=x");
    ferrum_options_free(options);
    options = options_with(
        (const char *const[]){"FERRUM_MOE_HOST_ROUTE", "1", "FERRUM_MOE_DEVICE_ROUTE", "1", NULL});
    EXPECT_FAILS(ferrum_moe_env_parse(options, &env, &err), FERRUM_INVALID_ARGUMENT, "contradict");
    ferrum_options_free(options);
}
END_TEST

/* The snapshot is taken from a struct: the process environment is not looked at. */
START_TEST(environment_is_not_read)
{
    setenv("FERRUM_MOE_PATH", "stacked", 1);
    setenv("FERRUM_VLLM_MOE", "1", 1);
    setenv("FERRUM_THREADS", "3", 1);
    ferrum_moe_env_t env = parsed((const char *const[]){NULL});
    ck_assert_int_eq(env.path, FERRUM_MOE_PATH_AUTO);
    ck_assert(!env.vllm_moe);
    ferrum_topology_t topology;
    ferrum_topology_read(&topology);
    ck_assert_uint_ge(topology.cores, 1);
    ck_assert_uint_le(topology.cores, topology.processors);
    ck_assert_uint_le(ferrum_team_choose_width(0, NULL), topology.cores);
    ck_assert_uint_ge(ferrum_team_choose_width(0, NULL), 1);
    unsetenv("FERRUM_MOE_PATH");
    unsetenv("FERRUM_VLLM_MOE");
    unsetenv("FERRUM_THREADS");
}
END_TEST

START_TEST(widths)
{
    ferrum_options_t *options = options_with((const char *const[]){"FERRUM_THREADS", "7", NULL});
    ck_assert_uint_eq(ferrum_team_choose_width(3, options), 3);
    ck_assert_uint_eq(ferrum_team_choose_width(0, options), 7);
    ck_assert_uint_eq(ferrum_team_choose_width(1u << 20, options), FERRUM_TEAM_MAX_WIDTH);
    ck_assert_int_eq(ferrum_team_choose_pin(options), FERRUM_PIN_FULL);
    EXPECT_OK(ferrum_options_set(options, "FERRUM_PIN", "0", &err));
    ck_assert_int_eq(ferrum_team_choose_pin(options), FERRUM_PIN_NEVER);
    EXPECT_OK(ferrum_options_set(options, "FERRUM_PIN", "1", &err));
    ck_assert_int_eq(ferrum_team_choose_pin(options), FERRUM_PIN_ALWAYS);
    ferrum_options_free(options);
}
END_TEST

START_TEST(profile_drain)
{
    ferrum_moe_profile_t profile = {0};
    uint64_t part = 1; /* 1 + 2 + … + 2^6, and two zeros: 127 */
    atomic_store(&profile.layers, 3);
    for (int i = 0; i < 7; i++, part *= 2)
        atomic_store(&profile.step_us[i], part);
    ferrum_moe_profile_snapshot_t taken = ferrum_moe_profile_drain(&profile);
    ck_assert_uint_eq(taken.layers, 3);
    ck_assert(ferrum_moe_profile_has_layers(&taken));
    ck_assert_uint_eq(ferrum_moe_profile_total_us(&taken), 127);
    ck_assert_uint_eq(taken.step_us[FERRUM_MOE_STEP_SYNC], 1);
    ck_assert_uint_eq(taken.step_us[FERRUM_MOE_STEP_SILU], 64);
    taken = ferrum_moe_profile_drain(&profile);
    ck_assert(!ferrum_moe_profile_has_layers(&taken));
    ck_assert_uint_eq(ferrum_moe_profile_total_us(&taken), 0);
    ck_assert_str_eq(ferrum_moe_step_name(FERRUM_MOE_STEP_D2H), "d2h");
    ck_assert_str_eq(ferrum_moe_step_name(FERRUM_MOE_STEP_COMBINE), "combine");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moe_options");
    TCase *tcase = tcase_create("options");
    tcase_add_test(tcase, defaults);
    tcase_add_test(tcase, explicit_values);
    tcase_add_test(tcase, odd_values);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, environment_is_not_read);
    tcase_add_test(tcase, widths);
    tcase_add_test(tcase, profile_drain);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
