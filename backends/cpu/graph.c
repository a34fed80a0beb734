/* SPDX-License-Identifier: MIT */
/* Graph capture is not offered: calls run at once, so there is no launch cost for it to save. */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"

static ferrum_status_t refuse_capture(ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                       "the cpu backend does not capture graphs; run the step eagerly");
}

ferrum_status_t ferrum_cpu_graph_set_decode_state(ferrum_context_t *ctx, uint32_t token,
                                                  uint32_t step, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_graph_set_device_state_mode(ferrum_context_t *ctx, uint32_t on,
                                                       ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_graph_begin(ferrum_context_t *ctx, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return refuse_capture(err);
}

ferrum_status_t ferrum_cpu_graph_end(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                     ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return refuse_capture(err);
}

ferrum_status_t ferrum_cpu_graph_replay(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                        uint32_t *out_launched, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(key, err);
    FERRUM_CHECK_POINTER(out_launched, err);
    *out_launched = 0;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_graph_reset(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                       ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(key, err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_graph_reset_all(ferrum_context_t *ctx, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_graph_in_flight(ferrum_context_t *ctx, uint32_t *out_in_flight,
                                           ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(out_in_flight, err);
    *out_in_flight = 0;
    return FERRUM_OK;
}
