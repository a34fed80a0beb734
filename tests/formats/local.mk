# SPDX-License-Identifier: MIT
if HAVE_CHECK
format_tests = \
	tests/formats/test_gguf \
	tests/formats/test_gguf_corrupt \
	tests/formats/test_gptq_checkpoint \
	tests/formats/test_model_config \
	tests/formats/test_model_config_json \
	tests/formats/test_names \
	tests/formats/test_refusals \
	tests/formats/test_safetensors

check_PROGRAMS += $(format_tests)
TESTS += $(format_tests)
COVERAGE_TESTS += $(format_tests)

format_tests_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) $(CHECK_CFLAGS)
format_tests_ldadd = tests/support/libferrum-test-support.la host/formats/libferrum-formats.la \
	$(CHECK_LIBS)

tests_formats_test_gguf_CPPFLAGS = $(format_tests_cppflags)
tests_formats_test_gguf_LDADD = $(format_tests_ldadd)
tests_formats_test_gguf_corrupt_CPPFLAGS = $(format_tests_cppflags)
tests_formats_test_gguf_corrupt_LDADD = $(format_tests_ldadd)
tests_formats_test_gptq_checkpoint_CPPFLAGS = $(format_tests_cppflags)
tests_formats_test_gptq_checkpoint_LDADD = $(format_tests_ldadd)
tests_formats_test_model_config_CPPFLAGS = $(format_tests_cppflags)
tests_formats_test_model_config_LDADD = $(format_tests_ldadd)
tests_formats_test_model_config_json_CPPFLAGS = $(format_tests_cppflags)
tests_formats_test_model_config_json_LDADD = $(format_tests_ldadd)
tests_formats_test_names_CPPFLAGS = $(format_tests_cppflags)
tests_formats_test_names_LDADD = $(format_tests_ldadd)
tests_formats_test_refusals_CPPFLAGS = $(format_tests_cppflags) $(JANSSON_CFLAGS)
tests_formats_test_refusals_LDADD = $(format_tests_ldadd) $(JANSSON_LIBS)
tests_formats_test_safetensors_CPPFLAGS = $(format_tests_cppflags)
tests_formats_test_safetensors_LDADD = $(format_tests_ldadd)
endif
