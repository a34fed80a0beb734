/* SPDX-License-Identifier: MIT */
/**
 * @file cublaslt_api.h
 * @brief The part of cuBLASLt (versions 12 and 13) that Ferrum uses, declared by us: nothing links
 * with it. Where a toolkit is installed, tests/cuda/cublaslt-abi.sh compares this with its header.
 */
#ifndef FERRUM_CUDA_CUBLASLT_API_H
#define FERRUM_CUDA_CUBLASLT_API_H

#include "backends/cuda/driver_api.h"

typedef int cublasStatus_t; /**< 0: success */
typedef int cublasComputeType_t;
typedef int cudaDataType_t;
typedef int cublasLtMatmulDescAttributes_t;
typedef int cublasLtMatrixLayoutAttribute_t;
typedef int cublasLtMatmulPreferenceAttributes_t;
typedef int cublasLtMatmulAlgoConfigAttributes_t;
typedef struct cublasLtContext *cublasLtHandle_t;
typedef struct cublasLtDesc *cublasLtMatmulDesc_t;
typedef struct cublasLtLayout *cublasLtMatrixLayout_t;
typedef struct cublasLtPreference *cublasLtMatmulPreference_t;

/** One algorithm with its configuration; a plain value. */
typedef struct {
    uint64_t data[8];
} cublasLtMatmulAlgo_t;

/** What the heuristics or a check say about an algorithm. */
typedef struct {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
    float wavesCount;
    int reserved[4];
} cublasLtMatmulHeuristicResult_t;

/** Constants; X(name, value). */
#define FERRUM_CUBLASLT_CONSTANTS(X)                                                               \
    X(CUBLAS_STATUS_SUCCESS, 0)                                                                    \
    X(CUBLAS_COMPUTE_32F, 68)                                                                      \
    X(CUDA_R_32F, 0)                                                                               \
    X(CUDA_R_16F, 2)                                                                               \
    X(CUDA_R_16BF, 14)                                                                             \
    X(CUBLAS_OP_T, 1)                                                                              \
    X(CUBLASLT_MATMUL_DESC_TRANSA, 3)                                                              \
    X(CUBLASLT_MATRIX_LAYOUT_ROWS, 2)                                                              \
    X(CUBLASLT_MATRIX_LAYOUT_COLS, 3)                                                              \
    X(CUBLASLT_MATRIX_LAYOUT_LD, 4)                                                                \
    X(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 1)                                                 \
    X(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, 3)                                               \
    X(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 2)                                                          \
    X(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 3)                                                    \
    X(CUBLASLT_REDUCTION_SCHEME_NONE, 0)

#define FERRUM_CUBLASLT_ENUMERATOR(name, value) name = value,
enum {
    FERRUM_CUBLASLT_CONSTANTS(FERRUM_CUBLASLT_ENUMERATOR)
};
#undef FERRUM_CUBLASLT_ENUMERATOR

/** Functions; X(name, result, parameters). */
#define FERRUM_CUBLASLT_API(X)                                                                     \
    X(cublasLtGetVersion, size_t, (void))                                                          \
    X(cublasLtGetStatusName, const char *, (cublasStatus_t status))                                \
    X(cublasLtCreate, cublasStatus_t, (cublasLtHandle_t * out_handle))                             \
    X(cublasLtDestroy, cublasStatus_t, (cublasLtHandle_t handle))                                  \
    X(cublasLtMatmulDescCreate, cublasStatus_t,                                                    \
      (cublasLtMatmulDesc_t * out_desc, cublasComputeType_t compute, cudaDataType_t scale))        \
    X(cublasLtMatmulDescDestroy, cublasStatus_t, (cublasLtMatmulDesc_t desc))                      \
    X(cublasLtMatmulDescSetAttribute, cublasStatus_t,                                              \
      (cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value,     \
       size_t bytes))                                                                              \
    X(cublasLtMatrixLayoutCreate, cublasStatus_t,                                                  \
      (cublasLtMatrixLayout_t * out_layout, cudaDataType_t type, uint64_t rows, uint64_t cols,     \
       int64_t ld))                                                                                \
    X(cublasLtMatrixLayoutDestroy, cublasStatus_t, (cublasLtMatrixLayout_t layout))                \
    X(cublasLtMatrixLayoutSetAttribute, cublasStatus_t,                                            \
      (cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,                   \
       const void *value, size_t bytes))                                                           \
    X(cublasLtMatmulPreferenceCreate, cublasStatus_t, (cublasLtMatmulPreference_t * out_pref))     \
    X(cublasLtMatmulPreferenceDestroy, cublasStatus_t, (cublasLtMatmulPreference_t pref))          \
    X(cublasLtMatmulPreferenceSetAttribute, cublasStatus_t,                                        \
      (cublasLtMatmulPreference_t pref, cublasLtMatmulPreferenceAttributes_t attribute,            \
       const void *value, size_t bytes))                                                           \
    X(cublasLtMatmulAlgoGetHeuristic, cublasStatus_t,                                              \
      (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,               \
       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,               \
       cublasLtMatmulPreference_t pref, int wanted, cublasLtMatmulHeuristicResult_t *results,      \
       int *out_count))                                                                            \
    X(cublasLtMatmulAlgoCheck, cublasStatus_t,                                                     \
      (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,               \
       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,               \
       const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *out_result))             \
    X(cublasLtMatmulAlgoConfigGetAttribute, cublasStatus_t,                                        \
      (const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t attribute,           \
       void *out_value, size_t bytes, size_t *out_written))                                        \
    X(cublasLtMatmul, cublasStatus_t,                                                              \
      (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,       \
       cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,            \
       const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,                  \
       cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo, void *workspace,         \
       size_t workspace_bytes, CUstream stream))

#endif /* FERRUM_CUDA_CUBLASLT_API_H */
