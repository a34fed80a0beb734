# SPDX-License-Identifier: MIT
# Fuzz harnesses. Each is linked with replay.c, which runs it over its committed corpus, or with
# libFuzzer in the build directory that `make fuzz` configures for that.
PARSER_FUZZERS = \
	tests/fuzz/fuzz_config \
	tests/fuzz/fuzz_elf \
	tests/fuzz/fuzz_gguf \
	tests/fuzz/fuzz_safetensors \
	tests/fuzz/fuzz_tokenizer_gguf \
	tests/fuzz/fuzz_tokenizer_json
FUZZERS = $(PARSER_FUZZERS) tests/fuzz/fuzz_routing

check_PROGRAMS += $(FUZZERS)
check_LTLIBRARIES += tests/fuzz/libfuzz.la
if FERRUM_FUZZING
fuzz_main =
fuzz_ldflags = -fsanitize=fuzzer
else
fuzz_main = tests/fuzz/replay.c
fuzz_ldflags =
TESTS += $(FUZZERS)
COVERAGE_TESTS += $(PARSER_FUZZERS)
endif

fuzz_cppflags = $(host_cppflags)
tests_fuzz_libfuzz_la_CPPFLAGS = $(fuzz_cppflags)
tests_fuzz_libfuzz_la_SOURCES = tests/fuzz/fuzz.c tests/fuzz/fuzz.h
fuzz_ldadd = tests/fuzz/libfuzz.la tests/support/libferrum-test-support.la
fuzz_formats_ldadd = $(fuzz_ldadd) host/formats/libferrum-formats.la
fuzz_text_ldadd = tests/text/libtinyvocab.la $(fuzz_ldadd) host/text/libferrum-text.la \
	host/formats/libferrum-formats.la

tests_fuzz_fuzz_config_CPPFLAGS = $(fuzz_cppflags) -DFUZZ_NAME='"config"'
tests_fuzz_fuzz_config_SOURCES = tests/fuzz/fuzz_config.c $(fuzz_main)
tests_fuzz_fuzz_config_LDADD = $(fuzz_formats_ldadd)
tests_fuzz_fuzz_config_LDFLAGS = $(fuzz_ldflags)

tests_fuzz_fuzz_elf_CPPFLAGS = $(fuzz_cppflags) -DFUZZ_NAME='"elf"'
tests_fuzz_fuzz_elf_SOURCES = tests/fuzz/fuzz_elf.c $(fuzz_main)
tests_fuzz_fuzz_elf_LDADD = $(fuzz_ldadd) plugin/libferrum-plugin.la
tests_fuzz_fuzz_elf_LDFLAGS = $(fuzz_ldflags)

tests_fuzz_fuzz_gguf_CPPFLAGS = $(fuzz_cppflags) -DFUZZ_NAME='"gguf"'
tests_fuzz_fuzz_gguf_SOURCES = tests/fuzz/fuzz_gguf.c $(fuzz_main)
tests_fuzz_fuzz_gguf_LDADD = $(fuzz_formats_ldadd)
tests_fuzz_fuzz_gguf_LDFLAGS = $(fuzz_ldflags)

tests_fuzz_fuzz_routing_CPPFLAGS = $(fuzz_cppflags) -DFUZZ_NAME='"routing"'
tests_fuzz_fuzz_routing_SOURCES = tests/fuzz/fuzz_routing.c $(fuzz_main)
tests_fuzz_fuzz_routing_LDADD = $(fuzz_ldadd) host/moe/libferrum-moe.la \
	host/runtime/libferrum-runtime.la host/formats/libferrum-formats.la \
	plugin/libferrum-plugin.la backends/cpu/libferrum-cpu.la -lm
tests_fuzz_fuzz_routing_LDFLAGS = $(fuzz_ldflags)

tests_fuzz_fuzz_safetensors_CPPFLAGS = $(fuzz_cppflags) -DFUZZ_NAME='"safetensors"'
tests_fuzz_fuzz_safetensors_SOURCES = tests/fuzz/fuzz_safetensors.c $(fuzz_main)
tests_fuzz_fuzz_safetensors_LDADD = $(fuzz_formats_ldadd)
tests_fuzz_fuzz_safetensors_LDFLAGS = $(fuzz_ldflags)

tests_fuzz_fuzz_tokenizer_gguf_CPPFLAGS = $(fuzz_cppflags) -DFUZZ_NAME='"tokenizer_gguf"'
tests_fuzz_fuzz_tokenizer_gguf_SOURCES = tests/fuzz/fuzz_tokenizer_gguf.c \
	tests/fuzz/fuzz_text.c tests/fuzz/fuzz_text.h $(fuzz_main)
tests_fuzz_fuzz_tokenizer_gguf_LDADD = $(fuzz_text_ldadd)
tests_fuzz_fuzz_tokenizer_gguf_LDFLAGS = $(fuzz_ldflags)

tests_fuzz_fuzz_tokenizer_json_CPPFLAGS = $(fuzz_cppflags) -DFUZZ_NAME='"tokenizer_json"'
tests_fuzz_fuzz_tokenizer_json_SOURCES = tests/fuzz/fuzz_tokenizer_json.c \
	tests/fuzz/fuzz_text.c tests/fuzz/fuzz_text.h $(fuzz_main)
tests_fuzz_fuzz_tokenizer_json_LDADD = $(fuzz_text_ldadd)
tests_fuzz_fuzz_tokenizer_json_LDFLAGS = $(fuzz_ldflags)

# Makes the seeds again; what fuzzing has added stays.
check_PROGRAMS += tests/fuzz/make_seeds
tests_fuzz_make_seeds_CPPFLAGS = $(fuzz_cppflags)
tests_fuzz_make_seeds_SOURCES = tests/fuzz/make_seeds.c
tests_fuzz_make_seeds_LDADD = tests/text/libtinyvocab.la tests/support/libferrum-test-support.la
fuzz-seeds: tests/fuzz/make_seeds
	tests/fuzz/make_seeds '$(srcdir)/tests/fuzz/corpus'
	CC='$(CC)' $(SHELL) '$(srcdir)/tests/fuzz/make_elf_seeds.sh' '$(srcdir)/tests/fuzz/corpus'

# FUZZ_SECONDS: processor time for each harness; FUZZ: the harnesses to run.
FUZZ_SECONDS = 60
FUZZ = $(FUZZERS)
fuzz:
	+FUZZ_SECONDS='$(FUZZ_SECONDS)' FUZZ='$(FUZZ)' $(SANITIZE) fuzz '$(abs_top_builddir)-fuzz'
run-fuzz: $(FUZZ)
	FERRUM_TEST_SRCDIR='$(abs_top_srcdir)' FUZZ_SECONDS='$(FUZZ_SECONDS)' \
		$(SHELL) '$(srcdir)/tests/fuzz/run.sh' $(FUZZ)
phony_targets += fuzz run-fuzz fuzz-seeds
EXTRA_DIST += tests/fuzz/corpus tests/fuzz/dict tests/fuzz/make_elf_seeds.sh tests/fuzz/run.sh \
	tests/fuzz/README.md
