# SPDX-License-Identifier: MIT
# CUDA kernels: compiled by nvcc for the cuda backend, and for the host by tests/cuda_emu.
SUFFIXES = .cu .fatbin
cuda_kernel_sources = \
	kernels/cuda/attention.cu \
	kernels/cuda/attention_decode.cu \
	kernels/cuda/attention_prefill.cu \
	kernels/cuda/combine.cu \
	kernels/cuda/experts.cu \
	kernels/cuda/gemm.cu \
	kernels/cuda/gguf.cu \
	kernels/cuda/int8.cu \
	kernels/cuda/limits.cu \
	kernels/cuda/plan.cu \
	kernels/cuda/qkv.cu \
	kernels/cuda/route.cu \
	kernels/cuda/rows.cu \
	kernels/cuda/w4.cu \
	kernels/cuda/w4_wgmma.cu
cuda_kernel_headers = \
	kernels/cuda/args.h \
	kernels/cuda/attention.cuh \
	kernels/cuda/attention_tile.cuh \
	kernels/cuda/block.cuh \
	kernels/cuda/blocks.cuh \
	kernels/cuda/gguf.cuh \
	kernels/cuda/gguf_stages.cuh \
	kernels/cuda/int8.cuh \
	kernels/cuda/kv.cuh \
	kernels/cuda/limits_args.h \
	kernels/cuda/moe_args.h \
	kernels/cuda/route.cuh \
	kernels/cuda/tiles.cuh \
	kernels/cuda/w4.cuh \
	kernels/cuda/w4_stages.cuh \
	kernels/cuda/w4_wgmma.cuh \
	kernels/cuda/weights.cuh
EXTRA_DIST += $(cuda_kernel_sources) $(cuda_kernel_headers)
