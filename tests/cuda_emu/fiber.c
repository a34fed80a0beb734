/* SPDX-License-Identifier: MIT */
/* Stacks and switches between them, with the hooks of the sanitizers. */
#include "tests/cuda_emu/emulator.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES ((size_t)512 * 1024)
#else
#define STACK_BYTES ((size_t)256 * 1024)
#endif
#ifdef EMU_TSAN
#include <sanitizer/tsan_interface.h>
#endif

static emu_fiber_t *previous;

#ifdef __x86_64__
/* Callee-saved registers on the stack, its pointer in the fiber. */
void emu_switch_stacks(void **from, void *to);
__asm__(".text\n"
        ".hidden emu_switch_stacks\n"
        ".globl emu_switch_stacks\n"
        ".type emu_switch_stacks,@function\n"
        "emu_switch_stacks:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size emu_switch_stacks, . - emu_switch_stacks\n");

EMU_HIDDEN static void prepare(emu_fiber_t *fiber, void (*entry)(void))
{
    uintptr_t *top = (uintptr_t *)((uintptr_t)fiber->stack + fiber->stack_bytes - 64);

    *--top = 0; /* the entry's return address, and alignment as after a call */
    *--top = (uintptr_t)entry;
    for (int i = 0; i < 6; i++)
        *--top = 0;
    fiber->stack_pointer = top;
}

EMU_HIDDEN static void switch_stacks(emu_fiber_t *from, emu_fiber_t *to)
{
    emu_switch_stacks(&from->stack_pointer, to->stack_pointer);
}
#else
#include <ucontext.h>

/* stack_pointer is a ucontext_t; the launching thread's is made when it first leaves. */
EMU_HIDDEN static void prepare(emu_fiber_t *fiber, void (*entry)(void))
{
    ucontext_t *context = malloc(sizeof *context);

    if (context == NULL || getcontext(context) != 0)
        abort();
    context->uc_stack.ss_sp = (void *)(uintptr_t)fiber->stack;
    context->uc_stack.ss_size = fiber->stack_bytes;
    context->uc_link = NULL;
    makecontext(context, entry, 0);
    fiber->stack_pointer = context;
}

EMU_HIDDEN static void switch_stacks(emu_fiber_t *from, emu_fiber_t *to)
{
    static ucontext_t launcher;

    if (from->map == NULL)
        from->stack_pointer = &launcher;
    swapcontext(from->stack_pointer, to->stack_pointer);
}
#endif

/* A page below the stack stays closed, so that an overflow is a crash. */
void emu_fiber_create(emu_fiber_t *fiber, void (*entry)(void))
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *map = mmap(NULL, STACK_BYTES + page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (map == MAP_FAILED || mprotect(map, page, PROT_NONE) != 0)
        abort();
    *fiber = (emu_fiber_t){.stack = (char *)map + page, .stack_bytes = STACK_BYTES, .map = map};
#ifdef EMU_TSAN
    fiber->tsan = __tsan_create_fiber(0);
#endif
    prepare(fiber, entry);
}

void emu_fiber_destroy(emu_fiber_t *fiber)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    emu_unpoison(fiber->stack, fiber->stack_bytes);
    munmap(fiber->map, fiber->stack_bytes + page);
#ifdef EMU_TSAN
    __tsan_destroy_fiber(fiber->tsan);
#endif
#ifndef __x86_64__
    free(fiber->stack_pointer);
#endif
    *fiber = (emu_fiber_t){0};
}

void emu_fiber_adopt(emu_fiber_t *fiber)
{
    *fiber = (emu_fiber_t){0};
#ifdef EMU_TSAN
    fiber->tsan = __tsan_get_current_fiber();
#endif
}

EMU_HIDDEN void emu_fiber_switch(emu_fiber_t *from, emu_fiber_t *to)
{
    previous = from;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(&from->asan, to->stack, to->stack_bytes);
#endif
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    switch_stacks(from, to);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(from->asan, &previous->stack, &previous->stack_bytes);
#endif
}

EMU_HIDDEN void emu_fiber_entered(void)
{
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(NULL, &previous->stack, &previous->stack_bytes);
#endif
}

EMU_HIDDEN void emu_release(void *tag)
{
#ifdef EMU_TSAN
    __tsan_release(tag);
#else
    (void)tag;
#endif
}

EMU_HIDDEN void emu_acquire(void *tag)
{
#ifdef EMU_TSAN
    __tsan_acquire(tag);
#else
    (void)tag;
#endif
}

EMU_HIDDEN void emu_poison(const void *address, size_t bytes)
{
#ifdef EMU_ASAN
    __asan_poison_memory_region(address, bytes);
#else
    (void)address;
    (void)bytes;
#endif
}

EMU_HIDDEN void emu_unpoison(const void *address, size_t bytes)
{
#ifdef EMU_ASAN
    __asan_unpoison_memory_region(address, bytes);
#else
    (void)address;
    (void)bytes;
#endif
}
