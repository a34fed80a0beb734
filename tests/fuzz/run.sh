#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs fuzz harnesses one after the other, each until it has used FUZZ_SECONDS of processor time, in
# rounds of at most a minute. New inputs go to fuzz-work/NAME/corpus, findings to
# fuzz-work/NAME/found; the committed corpus is only read. Usage: run.sh HARNESS...
set -u
corpus=$FERRUM_TEST_SRCDIR/tests/fuzz/corpus
dict=$FERRUM_TEST_SRCDIR/tests/fuzz/dict
seconds=${FUZZ_SECONDS:-60}
found=0

# Sets $used to the processor seconds of this shell's children; a substituted command has none.
measure()
{
    times >fuzz-work/times
    used=$(awk 'NR == 2 { split($1 " " $2, t, /[ms ]+/)
        printf "%d\n", 60 * t[1] + t[2] + 60 * t[3] + t[4] }' fuzz-work/times)
}

# The longest input that the corpus of a harness is worth mutating.
max_length()
{
    case $1 in
    routing) echo 2048 ;;
    config) echo 4096 ;;
    *) echo 16384 ;;
    esac
}

for harness; do
    name=${harness##*/fuzz_}
    work=fuzz-work/$name
    mkdir -p "$work/corpus" "$work/found"
    set -- -max_len="$(max_length "$name")" -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=60 \
        -artifact_prefix="$work/found/" -verbosity=0 -print_final_stats=1
    if [ -f "$dict/$name.dict" ]; then
        set -- "$@" -dict="$dict/$name.dict"
    fi
    measure
    begin=$used
    runs=0
    while measure && left=$((seconds - (used - begin))) && [ "$left" -gt 0 ]; do
        "$harness" "$@" -max_total_time=$((left < 60 ? left : 60)) "$work/corpus" "$corpus/$name" \
            >"$work/log" 2>&1
        status=$?
        runs=$((runs + $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")))
        if [ $status -ne 0 ]; then
            tail -n 40 "$work/log"
            found=1
            break
        fi
    done
    measure
    echo "$name: $runs runs in $((used - begin)) s of processor time," \
        "$(ls "$work/corpus" | wc -l) new inputs, $(ls "$work/found" | wc -l) findings"
done
exit $found
