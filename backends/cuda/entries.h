/* SPDX-License-Identifier: MIT */
/**
 * @file entries.h
 * @brief The functions behind the tables: an entry is implemented by ferrum_cuda_<prefix><entry>.
 */
#ifndef FERRUM_CUDA_ENTRIES_H
#define FERRUM_CUDA_ENTRIES_H

#include "backends/common/entries.h"

/** Declares the function behind one entry, with the type that the table gives it. */
#define FERRUM_CUDA_DECLARE(ops, prefix, entry)                                                    \
    extern __typeof__(*((const ops *)0)->entry) ferrum_cuda_##prefix##entry;
FERRUM_ALL_ENTRIES(FERRUM_CUDA_DECLARE)

#endif /* FERRUM_CUDA_ENTRIES_H */
