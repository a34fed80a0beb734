/* SPDX-License-Identifier: MIT */
/**
 * @file cublaslt.h
 * @brief Dense products by cuBLASLt, for those who ask for it with FERRUM_CUDA_GEMM.
 *
 * The default is our own kernel, which sums every output in one order whatever the batch. cuBLASLt
 * does not promise that. Asked for, it is tied down as far as its interface allows: one algorithm
 * per matrix (n, k), chosen at its first product and kept for every number of rows, without split-K
 * or reduction between blocks. So results are the same on every run and replay; that a row has the
 * same bits in every batch is then likely, and not promised.
 */
#ifndef FERRUM_CUDA_CUBLASLT_H
#define FERRUM_CUDA_CUBLASLT_H

#include "backends/cuda/objects.h"
#include "kernels/cuda/args.h"

/**
 * By the option FERRUM_CUDA_GEMM: "own" (or unset) opens nothing; "auto" opens cuBLASLt if it can
 * and logs which it is; "cublaslt", or a path to the library, fails with UNSUPPORTED if it cannot.
 * The device is current.
 */
ferrum_status_t ferrum_cuda_cublaslt_open(ferrum_device_t *device, ferrum_error_t *err);
/** The device is current. */
void ferrum_cuda_cublaslt_close(ferrum_device_t *device);
/** "own products" or "cuBLASLt 13.1 products", at most 40 bytes. */
void ferrum_cuda_cublaslt_describe(const ferrum_device_t *device, char *text, size_t bytes);

/** What a context needs, workspace included; nothing when the device has no cuBLASLt. */
ferrum_status_t ferrum_cuda_cublaslt_context_new(ferrum_context_t *ctx, ferrum_error_t *err);
void ferrum_cuda_cublaslt_context_free(ferrum_context_t *ctx);

/**
 * out[m,n] = a[m,k] * b[n,k]^T. *out_done is false when the product is for our own kernel: there is
 * no cuBLASLt, or it has no algorithm for this matrix, which is logged once.
 */
ferrum_status_t ferrum_cuda_cublaslt_gemm(ferrum_context_t *ctx, const ferrum_gemm_args_t *args,
                                          bool *out_done, ferrum_error_t *err);

#endif /* FERRUM_CUDA_CUBLASLT_H */
