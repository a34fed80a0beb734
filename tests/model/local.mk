# SPDX-License-Identifier: MIT
# The model: blocks and cache alone, a synthesised model, random ones against transformers, the
# trained ones against their recorded text and loss, decode graphs, and steps without allocation.
if HAVE_CHECK
model_tests = \
	tests/model/test_block_allocator \
	tests/model/test_load_crew \
	tests/model/test_model \
	tests/model/test_model_faults \
	tests/model/test_model_files \
	tests/model/test_model_golden \
	tests/model/test_model_graph \
	tests/model/test_model_steady \
	tests/model/test_model_trained \
	tests/model/test_moe_layer \
	tests/model/test_row_decoder

check_PROGRAMS += $(model_tests)
TESTS += $(model_tests)
THREADED_TESTS += tests/model/test_load_crew tests/model/test_model
check_LTLIBRARIES += tests/model/libmodel-fixture.la

model_tests_cppflags = $(host_cppflags) $(CHECK_CFLAGS) $(JANSSON_CFLAGS)
model_tests_ldadd = \
	tests/model/libmodel-fixture.la \
	tests/support/libferrum-test-support.la \
	host/model/libferrum-model.la \
	host/moe/libferrum-moe.la \
	host/runtime/libferrum-runtime.la \
	host/text/libferrum-text.la \
	host/formats/libferrum-formats.la \
	plugin/libferrum-plugin.la \
	$(CHECK_LIBS) $(JANSSON_LIBS) -lm

tests_model_libmodel_fixture_la_CPPFLAGS = $(model_tests_cppflags)
tests_model_libmodel_fixture_la_SOURCES = \
	tests/model/model_fixture.c tests/model/model_fixture.h

tests_model_test_block_allocator_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_block_allocator_LDADD = $(model_tests_ldadd)
tests_model_test_load_crew_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_load_crew_LDADD = $(model_tests_ldadd)
tests_model_test_model_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_model_LDADD = $(model_tests_ldadd)
tests_model_test_model_faults_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_model_faults_LDADD = $(model_tests_ldadd)
tests_model_test_model_faults_LDFLAGS = \
	-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=posix_memalign
tests_model_test_model_files_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_model_files_LDADD = $(model_tests_ldadd)
tests_model_test_model_golden_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_model_golden_LDADD = $(model_tests_ldadd)
tests_model_test_model_graph_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_model_graph_LDADD = $(model_tests_ldadd)
tests_model_test_model_steady_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_model_steady_LDADD = $(model_tests_ldadd)
tests_model_test_model_steady_LDFLAGS = \
	-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=posix_memalign,--wrap=aligned_alloc \
	-Wl,--wrap=getenv,--wrap=secure_getenv
tests_model_test_model_trained_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_model_trained_LDADD = $(model_tests_ldadd)
tests_model_test_moe_layer_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_moe_layer_LDADD = $(model_tests_ldadd)
tests_model_test_row_decoder_CPPFLAGS = $(model_tests_cppflags)
tests_model_test_row_decoder_LDADD = $(model_tests_ldadd)
endif
