#!/bin/sh
# SPDX-License-Identifier: MIT
# Each planted bug is caught, and by name: in the emulator's words or a sanitizer's.
set -u
planted=$FERRUM_TEST_BUILDDIR/tests/cuda_emu/planted_bugs
[ -x "$planted" ] || { echo "the planted bugs were not built (no C++ compiler)"; exit 77; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
sanitizer=$("$planted" --sanitizer)
# What is left in memory when the process stops at a bug is not the point here.
ASAN_OPTIONS=detect_leaks=0:$ASAN_OPTIONS
export ASAN_OPTIONS
bad=0

run() # bug, options: sets status, and the output is in the log
{
    echo "+ $*"
    # shellcheck disable=SC2046 # a list of assignments
    env $(for option in ${2-}; do echo "FERRUM_TEST_CUDA_EMU_$option"; done) "$planted" "$1" \
        >"$log" 2>&1
    status=$?
}

clean() # no bug, options
{
    run "$1" "$2"
    [ $status -eq 0 ] && return
    cat "$log"
    echo "a correct kernel is accused ($2)"
    bad=1
}

caught() # bug, options, pattern of the message
{
    run "$1" "$2"
    if [ $status -ne 0 ] && grep -Eq "$3" "$log"; then
        grep -E "$3" "$log" | head -n 1
        return
    fi
    cat "$log"
    echo "$1 is not caught: status $status, and nothing like '$3'"
    bad=1
}

caught_by_some_seed() # bug, pattern
{
    for seed in 1 2 3 4 5 6 7 8; do
        run "$1" "SEED=$seed COPIES=random"
        if [ $status -ne 0 ] && grep -Eq "$2" "$log"; then
            return
        fi
    done
    echo "no seed catches $1"
    bad=1
}

if [ "$sanitizer" = thread ]; then
    clean none COPIES=eager
    for bug in no-barrier-after-wait no-barrier-at-end no-barrier no-warp-barrier no-fence; do
        caught $bug COPIES=eager 'ThreadSanitizer: data race'
    done
    clean sm90-none COPIES=eager
    caught sm90-no-full-wait COPIES=eager 'ThreadSanitizer: data race'
    caught sm90-no-empty-wait COPIES=eager 'ThreadSanitizer: data race'
    exit $bad
fi

for options in '' COPIES=eager 'COPIES=random SEED=1' 'COPIES=random SEED=2' 'COPIES=lazy SEED=3' \
    'COPIES=eager SEED=4' BLOCKS=1 'BLOCKS=8 SEED=5' STREAMS=eager; do
    clean none "$options"
    clean sm90-none "$options"
done
caught no-barrier-after-wait '' 'ldmatrix at .*example.cu:[0-9]+ reads what a copy_async'
caught no-wait COPIES=eager 'ldmatrix at .*example.cu:[0-9]+ reads what a copy_async'
caught overrun '' 'thread 127: copy_async at .*example.cu:[0-9]+ reads outside of every allocation'
caught early-return '' 'waits at .*planted.cu:[0-9]+ for thread 63, which has returned'
caught divergent-barrier '' 'barrier at .*planted.cu:[0-9]+ while others are at the one at'
caught absent-lane '' 'for thread 16, which has returned'
caught mixed-meeting '' 'shuffle at .* while lanes of its warp wait in ballot'
caught no-barrier '' 'wrong numbers'
caught no-warp-barrier '' 'wrong numbers'
caught host-read '' 'the host accesses device memory: byte 12 of allocation'
caught replay-after-free '' 'replay of wrap_named_barrier: parameter 0 points to .* has been freed'
caught illegal-in-capture '' 'illegal during capture'
caught sm90-no-full-wait COPIES=eager 'wrong numbers'
caught sm90-no-empty-wait '' 'bulk_copy at .* writes where a copy that was not waited for does'
caught sm90-no-empty-arrive '' 'deadlock: .* lacks 128 arrivals and 0 bytes in phase 0'
caught sm90-early-release '' 'wrong numbers'
caught sm90-wrong-expect '' 'deadlock: .* for the mbarrier at byte 0 .* lacks 0 arrivals and 16 bytes'
caught sm90-no-copy-wait '' 'wgmma at .* reads what a copy that was not waited for is writing'
caught sm90-no-async-fence '' 'wgmma at .* reads what thread [0-9]+ copied without a fence_async since'
caught sm90-no-init-fence '' 'no fence_async followed the initialisation of its barrier'
caught sm90-no-wgmma-fence '' 'no wgmma_fence orders it after what wrote its registers'
caught sm90-no-wgmma-wait COPIES=eager 'returned, but did not wait for the wgmma at'
caught sm90-registers-reused '' 'wrong numbers'
caught sm90-absent-warp '' 'deadlock: .* waits at .*example_sm90.cu:[0-9]+ for thread 192'
caught_by_some_seed no-barrier-at-end 'wrong numbers|copy_async'
if [ "$sanitizer" = address ]; then
    caught write-beyond '' 'AddressSanitizer: .* planted_write_beyond|in planted_write_beyond'
    caught shared-overrun '' 'planted_shared_overrun'
else
    caught write-beyond '' 'planted_write_beyond writes beside allocation'
    caught shared-overrun '' 'kernel planted_shared_overrun, .*: bad access'
fi
exit $bad
