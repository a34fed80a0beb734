/* SPDX-License-Identifier: MIT */
/* What the loader reads of a plugin file before any of its code runs. */
#include "plugin/elf_check.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ferrum_elf_facts_t facts = {0};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint8_t *copy = fuzz_copy(data, size);
    ferrum_status_t status = ferrum_elf_check(copy, size, "input.so", &facts, &err);
    if (status == FERRUM_OK)
        FUZZ_REQUIRE(memchr(facts.pinned_reason, '\0', sizeof facts.pinned_reason) != NULL);
    else
        fuzz_require_refusal(status, &err);
    free(copy);
    return 0;
}
