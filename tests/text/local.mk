# SPDX-License-Identifier: MIT
if HAVE_CHECK
text_tests = \
	tests/text/test_bpe \
	tests/text/test_sampler \
	tests/text/test_tokenizer \
	tests/text/test_tokenizer_golden \
	tests/text/test_tokenizer_refusals

check_PROGRAMS += $(text_tests)
TESTS += $(text_tests)
COVERAGE_TESTS += $(text_tests)
check_LTLIBRARIES += tests/text/libtinyvocab.la

text_tests_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) $(CHECK_CFLAGS) $(JANSSON_CFLAGS)
text_tests_ldadd = tests/text/libtinyvocab.la tests/support/libferrum-test-support.la \
	host/text/libferrum-text.la host/formats/libferrum-formats.la $(CHECK_LIBS) -lm

tests_text_libtinyvocab_la_CPPFLAGS = $(text_tests_cppflags)
tests_text_libtinyvocab_la_SOURCES = tests/text/tiny_vocab.c tests/text/tiny_vocab.h

tests_text_test_bpe_CPPFLAGS = $(text_tests_cppflags)
tests_text_test_bpe_LDADD = $(text_tests_ldadd)
tests_text_test_sampler_CPPFLAGS = $(text_tests_cppflags)
tests_text_test_sampler_LDADD = $(text_tests_ldadd)
tests_text_test_tokenizer_CPPFLAGS = $(text_tests_cppflags)
tests_text_test_tokenizer_LDADD = $(text_tests_ldadd)
tests_text_test_tokenizer_refusals_CPPFLAGS = $(text_tests_cppflags)
tests_text_test_tokenizer_refusals_LDADD = $(text_tests_ldadd)
tests_text_test_tokenizer_golden_CPPFLAGS = $(text_tests_cppflags)
tests_text_test_tokenizer_golden_LDADD = $(text_tests_ldadd) $(JANSSON_LIBS)
endif
