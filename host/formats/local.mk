# SPDX-License-Identifier: MIT
# Readers of model files: GGUF, safetensors, GPTQ checkpoints, configs, tensor names.
noinst_LTLIBRARIES += host/formats/libferrum-formats.la
host_formats_libferrum_formats_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
host_formats_libferrum_formats_la_LIBADD = $(JANSSON_LIBS)
host_formats_libferrum_formats_la_SOURCES = \
	host/formats/gguf.c host/formats/gguf.h host/formats/gguf_internal.h \
	host/formats/gguf_values.c \
	host/formats/gptq_checkpoint.c host/formats/gptq_checkpoint.h \
	host/formats/json_text.c host/formats/json_text.h \
	host/formats/mapped_file.c host/formats/mapped_file.h \
	host/formats/model_config.c host/formats/model_config.h \
	host/formats/model_config_gguf.c \
	host/formats/model_config_json.c \
	host/formats/name_index.c host/formats/name_index.h \
	host/formats/name_map.c host/formats/name_map.h \
	host/formats/safetensors.c host/formats/safetensors.h host/formats/safetensors_internal.h \
	host/formats/safetensors_open.c \
	host/formats/string_view.h
