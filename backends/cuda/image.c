/* SPDX-License-Identifier: MIT */
/* The fatbin, as bytes. FERRUM_CUDA_IMAGE_FILE is where make has put it. */
#include "backends/cuda/device.h"

__asm__(".section .rodata\n"
        ".balign 64\n"
        ".hidden ferrum_cuda_image\n"
        ".globl ferrum_cuda_image\n"
        "ferrum_cuda_image:\n"
        ".incbin \"" FERRUM_CUDA_IMAGE_FILE "\"\n"
        ".byte 0\n"
        ".previous\n");
