# SPDX-License-Identifier: MIT
# The cuda backend on the emulated driver: what the conformance suite, which knows no backend, cannot ask.
dist_check_SCRIPTS += tests/cuda/races.sh tests/cuda/select.sh tests/cuda/cublaslt-abi.sh
TESTS += tests/cuda/races.sh tests/cuda/select.sh
THREADED_TESTS += tests/cuda/races.sh
if !FERRUM_SANITIZED
TESTS += tests/cuda/cublaslt-abi.sh
endif
CLEANFILES += tests/cuda/select.out tests/cuda/select.err

if FERRUM_CUDA
if FERRUM_CUDA_EMU
if HAVE_CHECK
cuda_tests = \
	tests/cuda/test_attention \
	tests/cuda/test_device \
	tests/cuda/test_gguf \
	tests/cuda/test_graph \
	tests/cuda/test_layer \
	tests/cuda/test_moe \
	tests/cuda/test_ops \
	tests/cuda/test_tokens \
	tests/cuda/test_w4 \
	tests/cuda/test_wgmma \
	tests/cuda/test_wgmma_ffn
check_PROGRAMS += $(cuda_tests)
TESTS += $(cuda_tests)
THREADED_NEEDS += tests/cuda/test_attention tests/cuda/test_gguf tests/cuda/test_moe tests/cuda/test_routed \
	tests/cuda/test_wgmma

# The same with more schedules than there is time for in every build.
check-cuda-long: all tests/cuda/test_attention tests/cuda/test_gguf tests/cuda/test_moe \
		tests/cuda/test_routed tests/cuda/test_wgmma tests/cuda_emu/libcuda-emu.la
	$(AM_TESTS_ENVIRONMENT) FERRUM_TEST_CUDA_SEEDS="$$(seq -s " " 9 100)" \
		$(SHELL) '$(srcdir)/tests/cuda/races.sh'
long_checks += check-cuda-long
phony_targets += check-cuda-long

cuda_tests_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) -D_GNU_SOURCE $(CHECK_CFLAGS)
cuda_tests_ldadd = kernels/libferrum-kernels-scalar.la tests/support/libferrum-test-support.la \
	$(CHECK_LIBS)
cuda_tests_fixture = tests/cuda/fixture.c tests/cuda/fixture.h

tests_cuda_test_attention_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_attention_SOURCES = tests/cuda/test_attention.c $(cuda_tests_fixture)
tests_cuda_test_attention_LDADD = $(cuda_tests_ldadd) -lm
tests_cuda_test_device_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_device_SOURCES = tests/cuda/test_device.c $(cuda_tests_fixture)
tests_cuda_test_device_LDADD = $(cuda_tests_ldadd)
# A stand-in for cuBLASLt, opened at run time.
check_LTLIBRARIES += tests/cuda/libcublaslt-fake.la
tests_cuda_libcublaslt_fake_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -D_GNU_SOURCE
tests_cuda_libcublaslt_fake_la_SOURCES = tests/cuda/fake_cublaslt.c
tests_cuda_libcublaslt_fake_la_LDFLAGS = -module -avoid-version -shared -rpath /nonexistent
check_PROGRAMS += tests/cuda/test_gemm
TESTS += tests/cuda/test_gemm
check_PROGRAMS += tests/cuda/test_limits
TESTS += tests/cuda/test_limits
tests_cuda_test_limits_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_limits_SOURCES = tests/cuda/test_limits.c $(cuda_tests_fixture)
tests_cuda_test_limits_LDADD = $(cuda_tests_ldadd)
tests_cuda_test_gemm_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_gemm_SOURCES = tests/cuda/test_gemm.c $(cuda_tests_fixture)
tests_cuda_test_gemm_LDADD = $(cuda_tests_ldadd) -lm
tests_cuda_test_gguf_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_gguf_SOURCES = \
	tests/cuda/test_gguf.c tests/cuda/layers.c tests/cuda/layers.h $(cuda_tests_fixture)
tests_cuda_test_gguf_LDADD = $(cuda_tests_ldadd) -lm
tests_cuda_test_graph_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_graph_SOURCES = tests/cuda/test_graph.c $(cuda_tests_fixture)
tests_cuda_test_graph_LDADD = $(cuda_tests_ldadd)
tests_cuda_test_layer_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_layer_SOURCES = \
	tests/cuda/test_layer.c tests/cuda/layers.c tests/cuda/layers.h $(cuda_tests_fixture)
tests_cuda_test_layer_LDADD = $(cuda_tests_ldadd) -lm
tests_cuda_test_moe_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_moe_SOURCES = \
	tests/cuda/test_moe.c tests/cuda/layers.c tests/cuda/layers.h $(cuda_tests_fixture)
tests_cuda_test_moe_LDADD = $(cuda_tests_ldadd) -lm
tests_cuda_test_ops_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_ops_SOURCES = tests/cuda/test_ops.c $(cuda_tests_fixture)
tests_cuda_test_ops_LDADD = $(cuda_tests_ldadd)
check_PROGRAMS += tests/cuda/test_act_order
TESTS += tests/cuda/test_act_order
tests_cuda_test_act_order_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_act_order_SOURCES = \
	tests/cuda/test_act_order.c tests/cuda/layers.c tests/cuda/layers.h $(cuda_tests_fixture)
tests_cuda_test_act_order_LDADD = $(cuda_tests_ldadd) -lm
check_PROGRAMS += tests/cuda/test_routed
TESTS += tests/cuda/test_routed
tests_cuda_test_routed_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_routed_SOURCES = \
	tests/cuda/test_routed.c tests/cuda/layers.c tests/cuda/layers.h $(cuda_tests_fixture)
tests_cuda_test_routed_LDADD = $(cuda_tests_ldadd) -lm
check_PROGRAMS += tests/cuda/test_tile_choice
TESTS += tests/cuda/test_tile_choice
tests_cuda_test_tile_choice_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_tile_choice_SOURCES = \
	tests/cuda/test_tile_choice.c backends/cuda/tile_choice.c backends/cuda/tile_choice.h
tests_cuda_test_tile_choice_LDADD = $(CHECK_LIBS)
tests_cuda_test_tokens_CPPFLAGS = $(cuda_tests_cppflags) \
	-I$(top_srcdir)/plugin/include -I$(top_srcdir)/host/include $(JANSSON_CFLAGS)
tests_cuda_test_tokens_SOURCES = tests/cuda/test_tokens.c $(cuda_tests_fixture)
tests_cuda_test_tokens_LDADD = libferrum.la $(cuda_tests_ldadd) $(JANSSON_LIBS)
tests_cuda_test_w4_CPPFLAGS = $(cuda_tests_cppflags)
cuda_w4_cases = tests/cuda/w4_cases.c tests/cuda/w4_cases.h $(cuda_emu_fixture)
tests_cuda_test_w4_SOURCES = tests/cuda/test_w4.c $(cuda_w4_cases)
tests_cuda_test_w4_LDADD = $(CHECK_LIBS) -lm
tests_cuda_test_wgmma_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_wgmma_SOURCES = tests/cuda/test_wgmma.c $(cuda_w4_cases)
tests_cuda_test_wgmma_LDADD = $(CHECK_LIBS) -lm
tests_cuda_test_wgmma_ffn_CPPFLAGS = $(cuda_tests_cppflags)
tests_cuda_test_wgmma_ffn_SOURCES = \
	tests/cuda/test_wgmma_ffn.c tests/cuda/layers.c tests/cuda/layers.h $(cuda_tests_fixture)
tests_cuda_test_wgmma_ffn_LDADD = $(cuda_tests_ldadd) -lm
endif
endif
endif
