# SPDX-License-Identifier: MIT
# Qwen3-MoE: weights, KV cache, attention, decode graphs, generation.
noinst_LTLIBRARIES += host/model/libferrum-model.la
host_model_libferrum_model_la_CPPFLAGS = $(host_cppflags)
host_model_libferrum_model_la_LIBADD = -lm
host_model_libferrum_model_la_SOURCES = \
	host/model/attention.c \
	host/model/block_allocator.c host/model/block_allocator.h \
	host/model/forward.c \
	host/model/generate.c \
	host/model/graph.c \
	host/model/kv_cache.c host/model/kv_cache.h host/model/kv_cache_internal.h \
	host/model/kv_migrate.c host/model/kv_migrate.h \
	host/model/load_crew.c host/model/load_crew.h \
	host/model/model.c host/model/model_internal.h \
	host/model/model_handle.c host/model/model_handle.h \
	host/model/model_load.c \
	host/model/model_scratch.c \
	host/model/model_swap.c \
	host/model/model_text.c \
	host/model/profile.c \
	host/model/qwen3_moe_layer.c host/model/qwen3_moe_layer.h \
	host/model/rope.c host/model/rope.h \
	host/model/row_decoder.c host/model/row_decoder.h \
	host/model/weights.c host/model/weights.h \
	host/model/weights_load.c
