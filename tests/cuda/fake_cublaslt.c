/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for libcublasLt.so: checks what it is given, and multiplies with our own kernel on the
 * emulated driver, so that it works in order, in captures and in replays. Of its three algorithms
 * the first splits K, the second takes no single row, the third is to be chosen.
 */
#include "backends/cuda/cublaslt_api.h"
#include "kernels/cuda/args.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define DECLARE(name, result, parameters) EXPORT result name parameters;
FERRUM_CUBLASLT_API(DECLARE)

enum {
    SPLITS = 1,
    MANY_ROWS,
    GOOD,
    WRONG = 7 /* CUBLAS_STATUS_INVALID_VALUE */
};

struct cublasLtContext {
    int unused;
};
struct cublasLtDesc {
    int32_t transpose_a;
};
struct cublasLtLayout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
};
struct cublasLtPreference {
    uint64_t workspace;
    uint32_t reductions;
};

/** For the tests: objects alive, products, and whether algorithms are offered or products work. */
EXPORT int fake_cublaslt_live, fake_cublaslt_products, fake_cublaslt_none, fake_cublaslt_broken;

size_t cublasLtGetVersion(void)
{
    return 130102;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    return status == WRONG ? "CUBLAS_STATUS_INVALID_VALUE" : "CUBLAS_STATUS_SUCCESS";
}

static cublasStatus_t make(void **out_object, size_t bytes)
{
    *out_object = calloc(1, bytes);
    fake_cublaslt_live += *out_object != NULL;
    return *out_object ? CUBLAS_STATUS_SUCCESS : WRONG;
}

static cublasStatus_t destroy(void *object)
{
    fake_cublaslt_live -= object != NULL;
    free(object);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out_handle)
{
    return make((void **)out_handle, sizeof **out_handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return destroy(handle);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out_desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return WRONG;
    return make((void **)out_desc, sizeof **out_desc);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    return destroy(desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    if (attribute != CUBLASLT_MATMUL_DESC_TRANSA || bytes != sizeof desc->transpose_a)
        return WRONG;
    memcpy(&desc->transpose_a, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out_layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    const cublasStatus_t status = make((void **)out_layout, sizeof **out_layout);

    if (status == CUBLAS_STATUS_SUCCESS)
        **out_layout = (struct cublasLtLayout){type, rows, cols, ld};
    return status;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return destroy(layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    if (bytes != 8)
        return WRONG;
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        memcpy(&layout->rows, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        memcpy(&layout->cols, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATRIX_LAYOUT_LD:
        memcpy(&layout->ld, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    default:
        return WRONG;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out_pref)
{
    const cublasStatus_t status = make((void **)out_pref, sizeof **out_pref);

    if (status == CUBLAS_STATUS_SUCCESS)
        (*out_pref)->reductions = ~0u;
    return status;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref)
{
    return destroy(pref);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof pref->workspace)
        memcpy(&pref->workspace, value, bytes);
    else if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK &&
             bytes == sizeof pref->reductions)
        memcpy(&pref->reductions, value, bytes);
    else
        return WRONG;
    return CUBLAS_STATUS_SUCCESS;
}

static bool fits(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                 cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d)
{
    return desc->transpose_a == CUBLAS_OP_T && a->rows == b->rows && a->ld == (int64_t)a->rows &&
           b->ld == (int64_t)b->rows && c->rows == a->cols && c->cols == b->cols &&
           c->ld == (int64_t)c->rows && c == d && a->type == b->type && b->type == c->type;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t pref, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results,
                                              int *out_count)
{
    if (!handle || !fits(desc, a, b, c, d) || pref->reductions != 0 || pref->workspace == 0 ||
        wanted < GOOD)
        return WRONG;
    memset(results, 0, (size_t)wanted * sizeof *results);
    for (uint64_t i = 0; i < GOOD; i++)
        results[i].algo.data[0] = i + 1;
    *out_count = fake_cublaslt_none ? 0 : GOOD;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *out_result)
{
    if (!handle || !fits(desc, a, b, c, d) || (algo->data[0] == MANY_ROWS && c->cols == 1))
        return WRONG;
    *out_result = (cublasLtMatmulHeuristicResult_t){.algo = *algo, .workspaceSize = 1024};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *out_value, size_t bytes,
                                                    size_t *out_written)
{
    const int32_t value =
        attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM ? (algo->data[0] == SPLITS ? 4 : 1) : 0;

    if (bytes != sizeof value)
        return WRONG;
    memcpy(out_value, &value, bytes);
    *out_written = bytes;
    return CUBLAS_STATUS_SUCCESS;
}

/** The function of the emulated driver, which the plugin has opened. */
static void *driver(const char *symbol)
{
    char path[1024];
    const char *build = getenv("FERRUM_TEST_BUILDDIR");

    (void)snprintf(path, sizeof path, "%s/tests/cuda_emu/.libs/libcuda-emu.so",
                   build ? build : ".");
    return dlsym(dlopen(path, RTLD_NOW | RTLD_LOCAL), symbol);
}

#define FIND(function)                                                                             \
    do {                                                                                           \
        void *found = driver(#function);                                                           \
        memcpy(&function, &found, sizeof found);                                                   \
    } while (0)

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, CUstream stream)
{
    static CUmodule module; /* loaded once, as no capture may load it; the driver frees it */
    CUresult (*cuModuleLoadData)(CUmodule *, const void *);
    CUresult (*cuModuleGetFunction)(CUfunction *, CUmodule, const char *);
    CUresult (*cuLaunchKernel)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned,
                               unsigned, unsigned, CUstream, void **, void **);
    const float one = 1, zero = 0;
    CUfunction function;
    ferrum_gemm_args_t args = {.a = (uintptr_t)b,
                               .b = (uintptr_t)a,
                               .out = (uintptr_t)d,
                               .m = (uint32_t)c_layout->cols,
                               .n = (uint32_t)c_layout->rows,
                               .k = (uint32_t)a_layout->rows};
    void *params[] = {&args};

    if (!handle || !fits(desc, a_layout, b_layout, c_layout, d_layout) || c != d ||
        memcmp(alpha, &one, sizeof one) != 0 || memcmp(beta, &zero, sizeof zero) != 0 ||
        algo->data[0] != GOOD || !workspace || workspace_bytes < 1024 || fake_cublaslt_broken)
        return WRONG;
    FIND(cuModuleLoadData);
    FIND(cuModuleGetFunction);
    FIND(cuLaunchKernel);
    if (!module && cuModuleLoadData(&module, "EMU") != CUDA_SUCCESS)
        return WRONG;
    if (cuModuleGetFunction(&function, module,
                            c_layout->type == CUDA_R_16BF
                                ? "ferrum_gemm_small_bf16"
                                : "ferrum_gemm_small_f16") != CUDA_SUCCESS ||
        cuLaunchKernel(function, (args.n + 63) / 64, (args.m + 15) / 16, 1, 128, 1, 1,
                       2 * (16 + 64) * (64 + 8) * 2, stream, params, NULL) != CUDA_SUCCESS)
        return WRONG;
    fake_cublaslt_products++;
    return CUBLAS_STATUS_SUCCESS;
}
