/* SPDX-License-Identifier: MIT */
/* Options from the environment and from ferrum_emu_set, failures to inject, reports. */
#include "tests/cuda_emu/emulator.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/control.h"

#define PREFIX "FERRUM_TEST_CUDA_EMU_"

static const emu_options_t defaults = {.memory = (uint64_t)256 << 20,
                                       .devices = 1,
                                       .sm = 80,
                                       .version = 13000,
                                       .blocks = 2,
                                       .copies = EMU_COPIES_LAZY};
emu_options_t emu_options;

static char failures[512];
static char fault[1100];
static uint64_t random_state;
static bool loaded;

static const struct {
    const char *name;
    uint64_t *value;
} numbers[] = {
    {"SEED", &emu_options.seed},       {"MEMORY", &emu_options.memory},
    {"DEVICES", &emu_options.devices}, {"SM", &emu_options.sm},
    {"VERSION", &emu_options.version}, {"BLOCKS", &emu_options.blocks},
};

static int set(const char *name, const char *value)
{
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char *end;

        if (strcmp(name, numbers[i].name) != 0)
            continue;
        *numbers[i].value = strtoull(value, &end, 10);
        if (*end != '\0' || end == value)
            return -1;
        if (emu_options.blocks < 1 || emu_options.blocks > 8 || emu_options.devices > 8)
            return -1;
        random_state = emu_options.seed;
        return 0;
    }
    if (strcmp(name, "COPIES") == 0) {
        static const char *const modes[] = {"eager", "lazy", "random"};

        for (int mode = 0; mode < 3; mode++) {
            if (strcmp(value, modes[mode]) == 0) {
                emu_options.copies = (emu_copy_mode_t)mode;
                return 0;
            }
        }
    } else if (strcmp(name, "STREAMS") == 0) {
        emu_options.eager_streams = strcmp(value, "eager") == 0;
        return emu_options.eager_streams || strcmp(value, "deferred") == 0 ? 0 : -1;
    } else if (strcmp(name, "FAIL") == 0 && strlen(value) < sizeof failures) {
        strcpy(failures, value);
        return 0;
    }
    return -1;
}

int ferrum_emu_set(const char *name, const char *value)
{
    emu_options_need();
    return set(name, value);
}

void emu_options_need(void)
{
    if (!loaded)
        emu_options_load();
}

void emu_options_load(void)
{
    static const char *const names[] = {"SEED",   "MEMORY", "DEVICES", "SM",  "VERSION",
                                        "BLOCKS", "COPIES", "STREAMS", "FAIL"};

    loaded = true;
    emu_options = defaults;
    failures[0] = '\0';
    random_state = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char variable[64];
        const char *value;

        snprintf(variable, sizeof variable, PREFIX "%s", names[i]);
        value = getenv(variable);
        if (value != NULL && value[0] != '\0' && set(names[i], value) != 0)
            emu_report("%s=%s is not understood", variable, value);
    }
}

EMU_HIDDEN uint32_t emu_random(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % bound);
}

/* FAIL is a list of function:call:result; call 0 means every call. */
CUresult emu_injected(const char *name, uint64_t count)
{
    const size_t length = strlen(name);

    for (const char *p = failures; p != NULL && *p != '\0'; p = strchr(p, ',')) {
        char *end;
        unsigned long long call;
        long result;

        p += *p == ',';
        if (strncmp(p, name, length) != 0 || p[length] != ':')
            continue;
        call = strtoull(p + length + 1, &end, 10);
        result = *end == ':' ? strtol(end + 1, NULL, 10) : CUDA_ERROR_UNKNOWN;
        if (call == 0 || call == count)
            return (CUresult)result;
    }
    return CUDA_SUCCESS;
}

void emu_report(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(fault, sizeof fault, format, arguments);
    va_end(arguments);
    fprintf(stderr, "cuda-emu: %s\n", fault);
}

const char *ferrum_emu_fault(void)
{
    return fault;
}

void emu_report_clear(void)
{
    fault[0] = '\0';
}
