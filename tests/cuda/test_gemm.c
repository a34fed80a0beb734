/* SPDX-License-Identifier: MIT */
/* Dense products by cuBLASLt, whose part a library of this directory plays (fake_cublaslt.c). */
#include "tests/cuda/fixture.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    M = 5,
    N = 24,
    K = 40
};

static char library[1024];
static const char *choice;
static int *live, *products, *none, *broken;

static const char *option(void *self, const char *name)
{
    (void)self;
    return strcmp(name, "FERRUM_CUDA_GEMM") == 0     ? choice
           : strcmp(name, "FERRUM_CUDA_DRIVER") == 0 ? cuda.driver
                                                     : NULL;
}

static void load(const char *gemm)
{
    choice = gemm;
    cuda_load();
    cuda.host.host.option = option;
    cuda.act = FERRUM_DTYPE_F16; /* what a device takes when nobody says */
}

static void find_fake(void)
{
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    (void)snprintf(library, sizeof library, "%s/tests/cuda/.libs/libcublaslt-fake.so",
                   build ? build : ".");
    void *fake = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(fake != NULL, "%s", dlerror());
    live = dlsym(fake, "fake_cublaslt_live");
    products = dlsym(fake, "fake_cublaslt_products");
    none = dlsym(fake, "fake_cublaslt_none");
    broken = dlsym(fake, "fake_cublaslt_broken");
    ck_assert(live && products && none && broken);
}

static void open_fake(void)
{
    find_fake();
    load(library);
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err));
    EXPECT_OK(cuda.be->context_new(cuda.device, NULL, &cuda.ctx, &err));
}

static void expect_detail(const char *text)
{
    ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t)};
    EXPECT_OK(cuda.be->device_info(cuda.device, &info, &err));
    ck_assert_msg(strstr(info.detail, text) != NULL, "\"%s\" is not in \"%s\"", text, info.detail);
}

/* One element of the product of the two ramps below, in f64. */
static double expected(uint32_t row, uint32_t column)
{
    double sum = 0;
    for (uint32_t i = 0; i < K; i++)
        sum += (0.5 + 0.0078125 * (row * K + i)) * (-1.0 + 0.0009765625 * (column * K + i));
    return sum;
}

static void expect_product(ferrum_buffer_t *out, uint32_t rows)
{
    for (uint32_t i = 0; i < rows * N; i++) {
        const double right = expected(i / N, i % N);
        ck_assert_double_le(fabs((double)cuda_at(out, i) - right), 2e-3 * fabs(right) + 1e-2);
    }
}

static ferrum_buffer_t *a, *b, *out;

static void make_operands(void)
{
    a = cuda_ramp(M * K, 0.5F, 0.0078125F);
    b = cuda_ramp(N * K, -1.0F, 0.0009765625F);
    out = cuda_ramp(M * N, 99, 0);
}

static void finish(void)
{
    cuda.be->buffer_release(a);
    cuda.be->buffer_release(b);
    cuda.be->buffer_release(out);
    cuda_close();
    ck_assert_int_eq(*live, 0);
}

START_TEST(a_product_by_cublaslt)
{
    const ferrum_graph_key_t key = {1, 1};
    uint32_t launched = 0;

    open_fake();
    expect_detail("cuBLASLt 13.1 products");
    make_operands();
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, out, M, N, K, &err));
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, out, 1, N, K, &err));
    ck_assert_int_eq(*products, 2);
    expect_product(out, M);
    ferrum_context_stats_t before = {.head = FERRUM_HEAD(ferrum_context_stats_t)}, after = before;
    EXPECT_OK(cuda.be->context_stats(cuda.ctx, &before, &err));
    EXPECT_OK(cuda.ql->graph_begin(cuda.ctx, &err));
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, out, M, N, K, &err));
    EXPECT_OK(cuda.ql->graph_end(cuda.ctx, &key, &err));
    EXPECT_OK(cuda.be->buffer_zero(cuda.ctx, out, 0, M * N, &err));
    EXPECT_OK(cuda.ql->graph_replay(cuda.ctx, &key, &launched, &err));
    ck_assert_uint_eq(launched, 1);
    EXPECT_OK(cuda.be->context_stats(cuda.ctx, &after, &err));
    ck_assert_uint_eq(after.allocations, before.allocations);
    expect_product(out, M);
    finish();
}
END_TEST

START_TEST(an_empty_sum_is_zero)
{
    open_fake();
    make_operands();
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, out, M, N, 0, &err));
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, out, 0, N, K, &err));
    ck_assert_int_eq(*products, 0);
    for (uint32_t i = 0; i < M * N; i++)
        ck_assert(cuda_at(out, i) == 0.0F);
    finish();
}
END_TEST

START_TEST(our_own_product_where_it_has_none)
{
    open_fake();
    *none = 1;
    make_operands();
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, out, M, N, K, &err));
    *none = 0; /* what was chosen once stays */
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, out, M, N, K, &err));
    ck_assert_int_eq(*products, 0);
    expect_product(out, M);
    finish();
}
END_TEST

START_TEST(a_product_that_fails_says_so)
{
    open_fake();
    *broken = 1;
    make_operands();
    EXPECT_FAILS(cuda.be->gemm(cuda.ctx, a, b, out, M, N, K, &err), FERRUM_DEVICE_ERROR,
                 "cublasLtMatmul failed with CUBLAS_STATUS_INVALID");
    finish();
}
END_TEST

START_TEST(a_library_that_is_missing)
{
    find_fake();
    load("/nonexistent/libcublasLt.so");
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                 FERRUM_UNSUPPORTED, "no cuBLASLt for FERRUM_CUDA_GEMM");
    load(cuda.driver); /* a library, but another one */
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                 FERRUM_UNSUPPORTED, "cuBLASLt has no cublasLtGetVersion");
    load("fast");
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                 FERRUM_INVALID_ARGUMENT, "expected own, auto, cublaslt or a path");
    ck_assert_uint_eq(atomic_load(&cuda.host.live_blocks), 0);
}
END_TEST

START_TEST(our_own_products_by_default)
{
    find_fake();
    load(NULL);
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err));
    EXPECT_OK(cuda.be->context_new(cuda.device, NULL, &cuda.ctx, &err));
    expect_detail("own products");
    make_operands();
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, out, M, N, K, &err));
    expect_product(out, M);
    ck_assert_int_eq(*live, 0);
    finish();
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda dense products");
    TCase *tc = tcase_create("gemm");

    tcase_add_test(tc, a_product_by_cublaslt);
    tcase_add_test(tc, an_empty_sum_is_zero);
    tcase_add_test(tc, our_own_product_where_it_has_none);
    tcase_add_test(tc, a_product_that_fails_says_so);
    tcase_add_test(tc, a_library_that_is_missing);
    tcase_add_test(tc, our_own_products_by_default);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
