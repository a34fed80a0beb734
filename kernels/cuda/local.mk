# SPDX-License-Identifier: MIT
# CUDA kernels: compiled by nvcc for the cuda backend, and for the host by tests/cuda_emu.
cuda_kernel_sources =
EXTRA_DIST += $(cuda_kernel_sources)
