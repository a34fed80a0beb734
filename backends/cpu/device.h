/* SPDX-License-Identifier: MIT */
/**
 * @file device.h
 * @brief Choice of kernels, shared by the probe and device_open.
 */
#ifndef FERRUM_CPU_DEVICE_H
#define FERRUM_CPU_DEVICE_H

#include "backends/cpu/check.h"

#include <ferrum/host.h>

/**
 * Features that kernels may use: the processor's, limited by the option FERRUM_CPU_MASK, the name
 * of the widest kernel set allowed. INVALID_ARGUMENT lists the sets when it names none of them.
 */
ferrum_status_t ferrum_cpu_select_features(const ferrum_host_t *host, uint32_t *out_features,
                                           ferrum_error_t *err);

/**
 * @p features without the AMX bits, unless the operating system lets this process use tiles. The
 * permission is asked for here, once per process for good; kernels cannot ask.
 */
uint32_t ferrum_cpu_request_tiles(uint32_t features);

#endif /* FERRUM_CPU_DEVICE_H */
