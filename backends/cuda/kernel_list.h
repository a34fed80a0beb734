/* SPDX-License-Identifier: MIT */
/**
 * @file kernel_list.h
 * @brief The one list of what the embedded image has.
 *
 * All files of kernels/cuda together are one module, compiled to one fatbin that image.c embeds and
 * device_open loads. A kernel X(file, name, kind) is looked up once per device: an ACT kernel
 * exists twice, as ferrum_<name>_f16 and ferrum_<name>_bf16, and a device uses the one of its
 * activation dtype. ACT_SM90A: so, but only in the code for compute capability 9.0.
 */
#ifndef FERRUM_CUDA_KERNEL_LIST_H
#define FERRUM_CUDA_KERNEL_LIST_H

/** X(file, name, ACT, ACT_SM90A or ANY) */
#define FERRUM_CUDA_KERNELS(X)                                                                     \
    X(attention, attention, ACT)                                                                   \
    X(attention_decode, attention_decode_64, ACT)                                                  \
    X(attention_decode, attention_decode_128, ACT)                                                 \
    X(attention_prefill, attention_prefill_64, ACT)                                                \
    X(attention_prefill, attention_prefill_128, ACT)                                               \
    X(experts, product_1, ACT)                                                                     \
    X(experts, gate_up_1, ACT)                                                                     \
    X(experts, dispatch_1, ACT)                                                                    \
    X(experts, product_8, ACT)                                                                     \
    X(experts, gate_up_8, ACT)                                                                     \
    X(experts, dispatch_8, ACT)                                                                    \
    X(experts, product_32, ACT)                                                                    \
    X(experts, gate_up_32, ACT)                                                                    \
    X(experts, dispatch_32, ACT)                                                                   \
    X(gguf, gguf_1, ACT)                                                                           \
    X(gguf, gguf_gate_up_1, ACT)                                                                   \
    X(gguf, gguf_8, ACT)                                                                           \
    X(gguf, gguf_gate_up_8, ACT)                                                                   \
    X(gguf, gguf_32, ACT)                                                                          \
    X(gguf, gguf_gate_up_32, ACT)                                                                  \
    X(int8, int8_1, ANY)                                                                           \
    X(int8, int8_gate_up_1, ANY)                                                                   \
    X(int8, int8_8, ANY)                                                                           \
    X(int8, int8_gate_up_8, ANY)                                                                   \
    X(int8, int8_32, ANY)                                                                          \
    X(int8, int8_gate_up_32, ANY)                                                                  \
    X(w4, w4_1, ACT)                                                                               \
    X(w4, w4_gate_up_1, ACT)                                                                       \
    X(w4, w4_8, ACT)                                                                               \
    X(w4, w4_gate_up_8, ACT)                                                                       \
    X(w4, w4_16, ACT)                                                                              \
    X(w4, w4_gate_up_16, ACT)                                                                      \
    X(w4, w4_32, ACT)                                                                              \
    X(w4, w4_gate_up_32, ACT)                                                                      \
    X(w4, w4_64, ACT)                                                                              \
    X(w4, w4_gate_up_64, ACT)                                                                      \
    X(w4_wgmma, w4_wgmma_64, ACT_SM90A)                                                            \
    X(w4_wgmma, w4_wgmma_gate_up_64, ACT_SM90A)                                                    \
    X(w4_wgmma, w4_wgmma_128, ACT_SM90A)                                                           \
    X(w4_wgmma, w4_wgmma_gate_up_128, ACT_SM90A)                                                   \
    X(route, route, ACT)                                                                           \
    X(route, route_plan, ACT)                                                                      \
    X(plan, plan, ANY)                                                                             \
    X(plan, plan_quantise, ACT)                                                                    \
    X(combine, combine, ACT)                                                                       \
    X(combine, moe_silu_mul, ACT)                                                                  \
    X(gemm, gemm_small, ACT)                                                                       \
    X(gemm, gemm_large, ACT)                                                                       \
    X(limits, limit_fill, ANY)                                                                     \
    X(limits, limit_read, ANY)                                                                     \
    X(limits, limit_multiply, ACT)                                                                 \
    X(limits, limit_multiply8, ANY)                                                                \
    X(rows, rms_norm, ACT)                                                                         \
    X(rows, axpby, ACT)                                                                            \
    X(rows, add_bias, ACT)                                                                         \
    X(rows, silu_mul, ACT)                                                                         \
    X(rows, lookup, ACT)                                                                           \
    X(rows, penalise, ACT)                                                                         \
    X(rows, argmax, ACT)                                                                           \
    X(rows, move, ANY)                                                                             \
    X(qkv, qkv_norm_rope, ACT)

#define FERRUM_CUDA_KERNEL_ID(file, name, kind) FERRUM_CUDA_KERNEL_##name,
/** FERRUM_CUDA_KERNEL_<name>: what ferrum_cuda_launch takes. */
typedef enum ferrum_cuda_kernel {
    FERRUM_CUDA_KERNELS(FERRUM_CUDA_KERNEL_ID) FERRUM_CUDA_KERNEL_COUNT
} ferrum_cuda_kernel_t;
#undef FERRUM_CUDA_KERNEL_ID

#endif /* FERRUM_CUDA_KERNEL_LIST_H */
