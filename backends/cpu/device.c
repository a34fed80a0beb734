/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L

#include "backends/common/ffn.h"
#include "backends/cpu/device.h"
#include "backends/cpu/entries.h"

#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum {
    CACHE_LINE = 64
};

static ferrum_status_t refuse_mask(const char *mask, ferrum_error_t *err)
{
    char names[96] = "";
    size_t used = 0;

    for (size_t i = ferrum_kernel_set_count; i > 0 && used < sizeof names; i--) {
        const int n = snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "",
                               ferrum_kernel_sets[i - 1]->name);
        used += n > 0 ? (size_t)n : 0;
    }
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_CPU_FEATURES,
                       "FERRUM_CPU_MASK is \"%.40s\", expected one of: %s", mask, names);
}

ferrum_status_t ferrum_cpu_select_features(const ferrum_host_t *host, uint32_t *out_features,
                                           ferrum_error_t *err)
{
    const char *mask = host->option ? host->option(host->self, "FERRUM_CPU_MASK") : NULL;
    const uint32_t features = ferrum_cpu_features();
    uint32_t allowed = 0;
    bool known = false;

    if (!mask || !*mask) {
        *out_features = ferrum_cpu_request_tiles(features);
        return FERRUM_OK;
    }
    for (size_t i = 0; i < ferrum_kernel_set_count; i++) {
        known = known || strcmp(mask, ferrum_kernel_sets[i]->name) == 0;
        if (known)
            allowed |= ferrum_kernel_sets[i]->features;
    }
    if (!known)
        return refuse_mask(mask, err);
    *out_features = ferrum_cpu_request_tiles(features & allowed);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_alloc(const ferrum_device_t *device, uint64_t bytes, const char *what,
                                 ferrum_cpu_memory_t *out_memory, ferrum_error_t *err)
{
    const ferrum_allocator_t *allocator = device->host->allocator;
    const uint64_t rounded = bytes ? bytes : CACHE_LINE;
    void *ptr = rounded < SIZE_MAX / 2
                    ? allocator->alloc(allocator->self, (size_t)rounded, CACHE_LINE)
                    : NULL;

    if (!ptr)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "cannot allocate %llu bytes for %s", (unsigned long long)bytes, what);
    *out_memory = (ferrum_cpu_memory_t){ptr, (size_t)rounded};
    return FERRUM_OK;
}

void ferrum_cpu_free(const ferrum_device_t *device, ferrum_cpu_memory_t *memory)
{
    const ferrum_allocator_t *allocator = device->host->allocator;

    if (memory->ptr)
        allocator->free(allocator->self, memory->ptr, memory->bytes);
    *memory = (ferrum_cpu_memory_t){NULL, 0};
}

void *ferrum_cpu_object_new(ferrum_device_t *device, size_t bytes, const char *what,
                            ferrum_error_t *err)
{
    ferrum_cpu_memory_t memory;

    if (ferrum_cpu_alloc(device, bytes, what, &memory, err) != FERRUM_OK)
        return NULL;
    memset(memory.ptr, 0, memory.bytes);
    ferrum_cpu_device_retain(device);
    return memory.ptr;
}

void ferrum_cpu_object_free(ferrum_device_t *device, void *object, size_t bytes)
{
    ferrum_cpu_memory_t memory = {object, bytes};

    ferrum_cpu_free(device, &memory);
    ferrum_cpu_device_release(device);
}

static ferrum_status_t check_host(const ferrum_host_t *host, ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(host, FERRUM_HOST_MIN_SIZE, err);
    FERRUM_CHECK_STRUCT(host->allocator, FERRUM_ALLOCATOR_MIN_SIZE, err);
    FERRUM_CHECK_POINTER((const void *)host->allocator->alloc, err);
    FERRUM_CHECK_POINTER((const void *)host->allocator->free, err);
    return FERRUM_OK;
}

static ferrum_status_t check_options(const ferrum_device_options_t *options, ferrum_error_t *err)
{
    if (!options)
        return FERRUM_OK;
    FERRUM_CHECK_STRUCT(options, FERRUM_DEVICE_OPTIONS_MIN_SIZE, err);
    if (options->ordinal != 0)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NO_DEVICE,
                           "the cpu backend has device 0 only, not %u", options->ordinal);
    if (options->set_activation_dtype && options->activation_dtype != FERRUM_DTYPE_F32)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                           "the cpu backend computes with f32 activations, not %s",
                           ferrum_dtype_name(options->activation_dtype));
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_device_open(const ferrum_host_t *host,
                                       const ferrum_device_options_t *options,
                                       ferrum_device_t **out_device, ferrum_error_t *err)
{
    ferrum_device_t opened = {.host = host};
    ferrum_precision_t precision;
    ferrum_cpu_memory_t memory;

    FERRUM_CHECK_POINTER(out_device, err);
    FERRUM_TRY(check_host(host, err));
    FERRUM_TRY(check_options(options, err));
    FERRUM_TRY(ferrum_cpu_select_features(host, &opened.features, err));
    opened.kernels = ferrum_kernel_select(opened.features);
    opened.gptq_matmul = ferrum_kernel_gptq_matmul(opened.kernels, opened.features);
    opened.packed = ferrum_kernel_packed(opened.kernels, opened.features);
    FERRUM_TRY(ferrum_precision_option(host, &precision, err));
    FERRUM_TRY(ferrum_cpu_alloc(&opened, sizeof opened, "a device", &memory, err));

    ferrum_device_t *device = memory.ptr;
    device->host = host;
    device->features = opened.features;
    device->kernels = opened.kernels;
    device->gptq_matmul = opened.gptq_matmul;
    device->packed = opened.packed;
    device->precision =
        precision == FERRUM_PRECISION_FAST ? FERRUM_PACKED_FAST : FERRUM_PACKED_ACCURATE;
    atomic_init(&device->refs, 1);
    *out_device = device;
    return FERRUM_OK;
}

void ferrum_cpu_device_retain(ferrum_device_t *device)
{
    ferrum_cpu_ref(&device->refs);
}

void ferrum_cpu_device_release(ferrum_device_t *device)
{
    if (!device || !ferrum_cpu_unref(&device->refs))
        return;
    const ferrum_allocator_t *allocator = device->host->allocator;
    allocator->free(allocator->self, device, sizeof *device);
}

/** The processor's name as it reports it, without surrounding blanks. */
static void processor_name(char name[static 49])
{
    memcpy(name, "processor", sizeof "processor");
#if defined(__x86_64__)
    uint32_t registers[12] = {0};
    if ((uint32_t)__get_cpuid_max(0x80000000u, NULL) < 0x80000004u)
        return;
    for (uint32_t i = 0; i < 3; i++)
        (void)__get_cpuid(0x80000002u + i, &registers[4 * i], &registers[4 * i + 1],
                          &registers[4 * i + 2], &registers[4 * i + 3]);
    const char *text = (const char *)registers;
    size_t first = 0, last = strnlen(text, sizeof registers);
    while (first < last && text[first] == ' ')
        first++;
    while (last > first && text[last - 1] == ' ')
        last--;
    memcpy(name, text + first, last - first);
    name[last - first] = '\0';
#endif
}

static uint64_t memory_bytes(int pages_name)
{
    const long pages = sysconf(pages_name), page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? ferrum_size_mul((uint64_t)pages, (uint64_t)page_bytes) : 0;
}

ferrum_status_t ferrum_cpu_device_info(const ferrum_device_t *device,
                                       ferrum_device_info_t *out_info, ferrum_error_t *err)
{
    ferrum_device_info_t info = {
        .head = FERRUM_HEAD(ferrum_device_info_t),
        .activation_dtype = FERRUM_DTYPE_F32,
        .caps = FERRUM_CAP_HOST_WRAP | FERRUM_CAP_PAGED_KV | FERRUM_CAP_PAGED_KV_VLLM |
                FERRUM_CAP_VARLEN_QKV | FERRUM_CAP_BATCHED_DECODE | FERRUM_CAP_MOE_GATE_UP_SILU |
                FERRUM_CAP_MOE_GEMV_BATCHED | FERRUM_CAP_MOE_GATE_UP_SILU_BATCHED |
                FERRUM_CAP_DEVICE_ROUTE,
        .memory_total_bytes = memory_bytes(_SC_PHYS_PAGES),
        .memory_free_bytes = memory_bytes(_SC_AVPHYS_PAGES),
    };

    FERRUM_CHECK_POINTER(device, err);
    processor_name(info.name);
    (void)snprintf(info.detail, sizeof info.detail, "%s kernels", device->kernels->name);
    return ferrum_fill_struct(__func__, out_info, FERRUM_DEVICE_INFO_MIN_SIZE, &info, err);
}
