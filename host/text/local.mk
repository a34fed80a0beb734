# SPDX-License-Identifier: MIT
# Tokenizer and sampler. Uses the readers in host/formats.
noinst_LTLIBRARIES += host/text/libferrum-text.la
host_text_libferrum_text_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(PCRE2_CFLAGS) $(UTF8PROC_CFLAGS)
host_text_libferrum_text_la_LIBADD = $(JANSSON_LIBS) $(PCRE2_LIBS) $(UTF8PROC_LIBS) -lm
host_text_libferrum_text_la_SOURCES = \
	host/text/bpe.c host/text/bpe.h \
	host/text/byte_alphabet.c host/text/byte_alphabet.h \
	host/text/decoder.c \
	host/text/encode.c \
	host/text/pretokenizer.c host/text/pretokenizer.h \
	host/text/random.h \
	host/text/sampler.c host/text/sampler.h \
	host/text/tokenizer.c host/text/tokenizer.h host/text/tokenizer_internal.h \
	host/text/tokenizer_gguf.c \
	host/text/tokenizer_json.c \
	host/text/utf8.c host/text/utf8.h
