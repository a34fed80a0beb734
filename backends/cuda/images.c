/* SPDX-License-Identifier: MIT */
/* The fatbins, as bytes. FERRUM_CUDA_IMAGE_DIR is where make has put them. */
#include "backends/cuda/device.h"

#define EMBED(module)                                                                              \
    __asm__(".section .rodata\n"                                                                   \
            ".balign 64\n"                                                                         \
            "ferrum_cuda_image_" #module ":\n"                                                     \
            ".incbin \"" FERRUM_CUDA_IMAGE_DIR "/" #module ".fatbin\"\n"                           \
            ".byte 0\n"                                                                            \
            ".previous\n");                                                                        \
    extern const unsigned char ferrum_cuda_image_##module[] __attribute__((visibility("hidden")));
FERRUM_CUDA_MODULES(EMBED)

#define ADDRESS(module) ferrum_cuda_image_##module,
const void *const ferrum_cuda_images[FERRUM_CUDA_MODULE_COUNT] = {FERRUM_CUDA_MODULES(ADDRESS)};
