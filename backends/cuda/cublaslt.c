/* SPDX-License-Identifier: MIT */
/*
 * cuBLASLt counts columns first: its A is b as a [k, n] matrix, transposed, its B is a as [k, m],
 * and its C and D are out as [n, m]. Descriptors are made with the context; a product only sets
 * their sizes, so nothing is allocated but a few words at the first product of a matrix.
 */
#define _GNU_SOURCE /* RTLD_NODELETE */
#include "backends/cuda/cublaslt.h"

#include "backends/cuda/check.h"
#include "backends/cuda/cublaslt_api.h"

#include <dlfcn.h>
#include <string.h>

enum {
    WORKSPACE_BYTES = 4 << 20,
    CANDIDATES = 16,
    TYPICAL_ROWS = 64 /* for which the heuristics are asked */
};

#define POINTER(name, result, parameters) result(*name) parameters;
struct ferrum_cublaslt {
    void *library;
    cublasLtHandle_t handle;
    FERRUM_CUBLASLT_API(POINTER)
};
#undef POINTER

/** One matrix (n, k) and what multiplies with it. */
typedef struct matrix {
    struct matrix *next;
    uint32_t n, k;
    bool own;
    cublasLtMatmulAlgo_t algo;
} matrix_t;

struct ferrum_cublaslt_products {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulPreference_t preference;
    matrix_t *matrices;
};

static void say(const ferrum_device_t *device, ferrum_log_level_t level, const char *text)
{
    const ferrum_logger_t *logger = device->host->logger;
    if (level <= logger->level)
        logger->log(logger->self, level, text);
}

static ferrum_status_t check(const ferrum_cublaslt_t *lt, cublasStatus_t status, const char *what,
                             ferrum_error_t *err)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "%s failed with %s", what,
                       lt->cublasLtGetStatusName(status));
}

/* ---- the library ---- */

static ferrum_status_t find_functions(ferrum_cublaslt_t *lt, ferrum_error_t *err)
{
#define FUNCTION(name, result, parameters) {#name, offsetof(ferrum_cublaslt_t, name)},
    static const struct {
        const char *name;
        size_t offset;
    } functions[] = {FERRUM_CUBLASLT_API(FUNCTION)};
#undef FUNCTION

    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *found = dlsym(lt->library, functions[i].name);
        if (!found)
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DRIVER,
                               "cuBLASLt has no %s: version 12 or 13 is needed", functions[i].name);
        memcpy((char *)lt + functions[i].offset, &found, sizeof found);
    }
    return FERRUM_OK;
}

/** @p named NULL: the names that the library goes by. */
static ferrum_status_t open_library(ferrum_cublaslt_t *lt, const char *named, ferrum_error_t *err)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    const char *why = NULL;

    /* It registers itself with the CUDA runtime: once loaded it stays. */
    for (size_t i = 0; !lt->library && i < (named ? 1 : sizeof names / sizeof names[0]); i++) {
        lt->library = dlopen(named ? named : names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (!lt->library && !why)
            why = dlerror();
    }
    if (!lt->library)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DRIVER,
                           "no cuBLASLt for FERRUM_CUDA_GEMM: %.160s", why ? why : "dlopen failed");
    FERRUM_TRY(find_functions(lt, err));
    return check(lt, lt->cublasLtCreate(&lt->handle), "cublasLtCreate", err);
}

static ferrum_status_t open_as(ferrum_device_t *device, const char *named, ferrum_error_t *err)
{
    char text[64], line[96];

    device->cublaslt =
        ferrum_cuda_host_alloc(device->host, sizeof *device->cublaslt, "cuBLASLt", err);
    if (!device->cublaslt)
        return FERRUM_OUT_OF_MEMORY;
    const ferrum_status_t status = open_library(device->cublaslt, named, err);
    if (status != FERRUM_OK) {
        ferrum_cuda_cublaslt_close(device);
        return status;
    }
    ferrum_cuda_cublaslt_describe(device, text, sizeof text);
    (void)snprintf(line, sizeof line, "cuda: dense layers use %s", text);
    say(device, FERRUM_LOG_INFO, line);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_cublaslt_open(ferrum_device_t *device, ferrum_error_t *err)
{
    const ferrum_host_t *host = device->host;
    const char *choice = host->option ? host->option(host->self, "FERRUM_CUDA_GEMM") : NULL;
    ferrum_error_t why = FERRUM_ERROR_INIT;

    if (!choice || !*choice || strcmp(choice, "own") == 0)
        return FERRUM_OK;
    if (strcmp(choice, "cublaslt") == 0)
        return open_as(device, NULL, err);
    if (strchr(choice, '/'))
        return open_as(device, choice, err);
    if (strcmp(choice, "auto") != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "FERRUM_CUDA_GEMM is \"%.40s\", expected own, auto, cublaslt or a path "
                           "to libcublasLt",
                           choice);
    if (open_as(device, NULL, &why) != FERRUM_OK) {
        char line[sizeof why.message + 40];
        (void)snprintf(line, sizeof line, "cuda: dense layers use own products: %s", why.message);
        say(device, FERRUM_LOG_INFO, line);
    }
    return FERRUM_OK;
}

void ferrum_cuda_cublaslt_close(ferrum_device_t *device)
{
    ferrum_cublaslt_t *lt = device->cublaslt;

    if (!lt)
        return;
    if (lt->handle)
        (void)lt->cublasLtDestroy(lt->handle);
    if (lt->library)
        dlclose(lt->library);
    ferrum_cuda_host_free(device->host, lt, sizeof *lt);
    device->cublaslt = NULL;
}

void ferrum_cuda_cublaslt_describe(const ferrum_device_t *device, char *text, size_t bytes)
{
    const ferrum_cublaslt_t *lt = device->cublaslt;

    if (!lt) {
        (void)snprintf(text, bytes, "own products");
        return;
    }
    /* 120304 and 130000 are 12.3.4 and 13.0.0. */
    const size_t version = lt->cublasLtGetVersion();
    (void)snprintf(text, bytes, "cuBLASLt %u.%u products", (unsigned)(version / 10000),
                   (unsigned)(version / 100 % 100));
}

/* ---- a context's descriptors ---- */

static ferrum_status_t make_descriptors(const ferrum_cublaslt_t *lt, ferrum_dtype_t act,
                                        ferrum_cublaslt_products_t *products, ferrum_error_t *err)
{
    const cudaDataType_t type = act == FERRUM_DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_16F;
    const int32_t transpose = CUBLAS_OP_T;
    const uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    const uint64_t workspace = WORKSPACE_BYTES;
    cublasLtMatrixLayout_t *const layouts[] = {&products->a, &products->b, &products->c};

    FERRUM_TRY(check(lt,
                     lt->cublasLtMatmulDescCreate(&products->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                     "cublasLtMatmulDescCreate", err));
    FERRUM_TRY(check(lt,
                     lt->cublasLtMatmulDescSetAttribute(products->desc, CUBLASLT_MATMUL_DESC_TRANSA,
                                                        &transpose, sizeof transpose),
                     "cublasLtMatmulDescSetAttribute", err));
    for (int i = 0; i < 3; i++)
        FERRUM_TRY(check(lt, lt->cublasLtMatrixLayoutCreate(layouts[i], type, 1, 1, 1),
                         "cublasLtMatrixLayoutCreate", err));
    FERRUM_TRY(check(lt, lt->cublasLtMatmulPreferenceCreate(&products->preference),
                     "cublasLtMatmulPreferenceCreate", err));
    FERRUM_TRY(check(lt,
                     lt->cublasLtMatmulPreferenceSetAttribute(
                         products->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                         &no_reduction, sizeof no_reduction),
                     "cublasLtMatmulPreferenceSetAttribute", err));
    return check(lt,
                 lt->cublasLtMatmulPreferenceSetAttribute(products->preference,
                                                          CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                          &workspace, sizeof workspace),
                 "cublasLtMatmulPreferenceSetAttribute", err);
}

ferrum_status_t ferrum_cuda_cublaslt_context_new(ferrum_context_t *ctx, ferrum_error_t *err)
{
    const ferrum_device_t *device = ctx->device;
    CUdeviceptr workspace;

    if (!device->cublaslt)
        return FERRUM_OK;
    ctx->products = ferrum_cuda_host_alloc(device->host, sizeof *ctx->products, "products", err);
    if (!ctx->products)
        return FERRUM_OUT_OF_MEMORY;
    FERRUM_TRY(make_descriptors(device->cublaslt, device->act, ctx->products, err));
    return ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_GEMM, WORKSPACE_BYTES, &workspace, err);
}

void ferrum_cuda_cublaslt_context_free(ferrum_context_t *ctx)
{
    const ferrum_cublaslt_t *lt = ctx->device->cublaslt;
    ferrum_cublaslt_products_t *products = ctx->products;

    if (!products)
        return;
    while (products->matrices) {
        matrix_t *matrix = products->matrices;
        products->matrices = matrix->next;
        ferrum_cuda_host_free(ctx->device->host, matrix, sizeof *matrix);
    }
    if (products->preference)
        (void)lt->cublasLtMatmulPreferenceDestroy(products->preference);
    const cublasLtMatrixLayout_t layouts[] = {products->a, products->b, products->c};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            (void)lt->cublasLtMatrixLayoutDestroy(layouts[i]);
    if (products->desc)
        (void)lt->cublasLtMatmulDescDestroy(products->desc);
    ferrum_cuda_host_free(ctx->device->host, products, sizeof *products);
    ctx->products = NULL;
}

/* ---- products ---- */

static cublasStatus_t set_size(const ferrum_cublaslt_t *lt, cublasLtMatrixLayout_t layout,
                               uint64_t rows, uint64_t cols)
{
    const int64_t ld = (int64_t)rows;
    cublasStatus_t status = lt->cublasLtMatrixLayoutSetAttribute(
        layout, CUBLASLT_MATRIX_LAYOUT_ROWS, &rows, sizeof rows);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = lt->cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &cols,
                                                      sizeof cols);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            lt->cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof ld);
    return status;
}

static cublasStatus_t set_sizes(const ferrum_cublaslt_t *lt,
                                const ferrum_cublaslt_products_t *products, uint32_t m, uint32_t n,
                                uint32_t k)
{
    cublasStatus_t status = set_size(lt, products->a, k, n);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = set_size(lt, products->b, k, m);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set_size(lt, products->c, n, m);
    return status;
}

/** Whether an algorithm sums in one order and takes any number of rows. */
static bool is_good(const ferrum_cublaslt_t *lt, const ferrum_cublaslt_products_t *products,
                    const matrix_t *matrix, const cublasLtMatmulAlgo_t *algo)
{
    static const uint32_t rows[] = {1, 2, 7, 16, 33, 128, 513, 4096};
    uint32_t reduction = ~0u;
    int32_t splits = -1;
    size_t written;

    if (lt->cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits,
                                                 sizeof splits,
                                                 &written) != CUBLAS_STATUS_SUCCESS ||
        lt->cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                                 &reduction, sizeof reduction,
                                                 &written) != CUBLAS_STATUS_SUCCESS ||
        (splits != 0 && splits != 1) || reduction != CUBLASLT_REDUCTION_SCHEME_NONE)
        return false;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cublasLtMatmulHeuristicResult_t result = {.state = -1};
        if (set_sizes(lt, products, rows[i], matrix->n, matrix->k) != CUBLAS_STATUS_SUCCESS ||
            lt->cublasLtMatmulAlgoCheck(lt->handle, products->desc, products->a, products->b,
                                        products->c, products->c, algo,
                                        &result) != CUBLAS_STATUS_SUCCESS ||
            result.workspaceSize > WORKSPACE_BYTES)
            return false;
    }
    return true;
}

/** Fill in matrix->algo, or matrix->own when there is none. */
static void choose(const ferrum_context_t *ctx, matrix_t *matrix)
{
    const ferrum_cublaslt_t *lt = ctx->device->cublaslt;
    const ferrum_cublaslt_products_t *products = ctx->products;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0;

    if (set_sizes(lt, products, TYPICAL_ROWS, matrix->n, matrix->k) != CUBLAS_STATUS_SUCCESS ||
        lt->cublasLtMatmulAlgoGetHeuristic(lt->handle, products->desc, products->a, products->b,
                                           products->c, products->c, products->preference,
                                           CANDIDATES, found, &count) != CUBLAS_STATUS_SUCCESS)
        count = 0;
    for (int i = 0; i < count; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS &&
            is_good(lt, products, matrix, &found[i].algo)) {
            matrix->algo = found[i].algo;
            return;
        }
    char line[128];
    matrix->own = true;
    (void)snprintf(line, sizeof line,
                   "cuda: cuBLASLt has no algorithm of fixed order for n=%u k=%u; own products "
                   "there",
                   matrix->n, matrix->k);
    say(ctx->device, FERRUM_LOG_WARN, line);
}

static matrix_t *find_matrix(ferrum_context_t *ctx, uint32_t n, uint32_t k, ferrum_error_t *err)
{
    matrix_t *matrix = ctx->products->matrices;

    while (matrix && (matrix->n != n || matrix->k != k))
        matrix = matrix->next;
    if (matrix)
        return matrix;
    matrix = ferrum_cuda_host_alloc(ctx->device->host, sizeof *matrix, "products", err);
    if (!matrix)
        return NULL;
    matrix->n = n;
    matrix->k = k;
    choose(ctx, matrix);
    matrix->next = ctx->products->matrices;
    ctx->products->matrices = matrix;
    return matrix;
}

static void *address(ferrum_gpu_ptr_t pointer)
{
    return (void *)(uintptr_t)pointer;
}

ferrum_status_t ferrum_cuda_cublaslt_gemm(ferrum_context_t *ctx, const ferrum_gemm_args_t *args,
                                          bool *out_done, ferrum_error_t *err)
{
    const ferrum_cublaslt_t *lt = ctx->device->cublaslt;
    const ferrum_cublaslt_products_t *products = ctx->products;
    const float one = 1.0F, zero = 0.0F;
    CUdeviceptr workspace;

    *out_done = false;
    if (!products || args->m == 0 || args->n == 0 || args->k == 0)
        return FERRUM_OK;
    FERRUM_TRY(
        ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_GEMM, WORKSPACE_BYTES, &workspace, err));
    ferrum_cuda_enter(ctx->device);
    const matrix_t *matrix = find_matrix(ctx, args->n, args->k, err);
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (matrix && !matrix->own) {
        status = set_sizes(lt, products, args->m, args->n, args->k);
        if (status == CUBLAS_STATUS_SUCCESS)
            status = lt->cublasLtMatmul(
                lt->handle, products->desc, &one, address(args->b), products->a, address(args->a),
                products->b, &zero, address(args->out), products->c, address(args->out),
                products->c, &matrix->algo, address(workspace), WORKSPACE_BYTES, ctx->stream);
    }
    ferrum_cuda_leave(ctx->device);
    if (!matrix)
        return FERRUM_OUT_OF_MEMORY;
    *out_done = !matrix->own;
    if (*out_done && !ctx->capturing)
        ctx->stats.launches++;
    return check(lt, status, "cublasLtMatmul", err);
}
