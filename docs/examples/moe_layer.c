/* SPDX-License-Identifier: MIT */
/* One MoE layer through whichever backend FERRUM_BACKEND names:
 *     cc moe_layer.c $(pkg-config --cflags --libs ferrum) -o moe_layer && ./moe_layer */
#include <ferrum/moe.h>

#include <stdio.h>
#include <stdlib.h>

enum {
    HIDDEN = 256,
    FFN = 128,
    EXPERTS = 8,
    TOP_K = 2
};

/* [EXPERTS, rows, cols] in Q8_0 blocks (f16 scale, 32 int8), as in a GGUF file. */
static unsigned char blocks[EXPERTS * HIDDEN * FFN / 32 * 34];

static void check(ferrum_status_t status, const ferrum_error_t *err)
{
    if (status == FERRUM_OK)
        return;
    fprintf(stderr, "moe_layer: %s\n", err->message);
    exit(1);
}

int main(void)
{
    for (size_t i = 0; i < sizeof blocks; i++) /* random codes, every scale 0x1400 = 2^-10 */
        blocks[i] = i % 34 == 0 ? 0x00 : i % 34 == 1 ? 0x14 : (unsigned char)rand();
    ferrum_gguf_weights_t slabs[2] = {{FERRUM_HEAD(ferrum_gguf_weights_t), FERRUM_FORMAT_Q8_0, 0,
                                       EXPERTS, FFN, HIDDEN, 0, blocks, sizeof blocks}};
    slabs[1] = slabs[0];
    slabs[1].rows = HIDDEN;
    slabs[1].cols = FFN;
    ferrum_expert_weights_t up = {FERRUM_HEAD(ferrum_expert_weights_t), &slabs[0], NULL, NULL};
    ferrum_expert_weights_t down = {FERRUM_HEAD(ferrum_expert_weights_t), &slabs[1], NULL, NULL};
    ferrum_expert_ffn_desc_t desc = {.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                     .hidden = HIDDEN,
                                     .intermediate = FFN,
                                     .num_experts = EXPERTS,
                                     .gate = &up, /* a real layer has a third slab for it */
                                     .up = &up,
                                     .down = &down};
    float x[HIDDEN], out[HIDDEN], logits[EXPERTS] = {1, 5, 2, 0, 3}, probs[EXPERTS], weights[TOP_K];
    int32_t ids[TOP_K];
    for (int i = 0; i < HIDDEN; i++)
        x[i] = (float)(i % 17) / 8.0f - 1.0f;

    ferrum_runtime_t *runtime;
    ferrum_session_t *session;
    ferrum_moe_layer_t *layer;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    check(ferrum_runtime_open(NULL, &runtime, &err), &err);
    check(ferrum_session_new(runtime, 0, &session, &err), &err);
    check(ferrum_moe_layer_create(runtime, &desc, &layer, &err), &err);
    check(ferrum_moe_route(logits, EXPERTS, 1, EXPERTS, TOP_K, 1, probs, ids, weights, &err), &err);
    check(ferrum_moe_layer_forward(session, layer, x, ids, weights, out, 1, TOP_K, 0, &err), &err);
    printf("%s: experts %d and %d, out[0] = %g\n",
           ferrum_module_name(ferrum_runtime_module(runtime)), ids[0], ids[1], (double)out[0]);
    ferrum_moe_layer_free(layer);
    ferrum_session_free(session);
    ferrum_runtime_close(runtime);
    return 0;
}
