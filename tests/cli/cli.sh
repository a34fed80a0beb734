#!/bin/sh
# SPDX-License-Identifier: MIT
# The `ferrum` program as a user meets it: what goes to stdout, one-line errors, exit codes.
set -u
ferrum=$FERRUM_TEST_BUILDDIR/ferrum
model=$FERRUM_TEST_SRCDIR/models/tiny-qwen3moe-q4_k.gguf
gptq=$FERRUM_TEST_SRCDIR/models/tiny-qwen3moe-gptq
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset FERRUM_BACKEND FERRUM_THREADS FERRUM_LOG_LEVEL
bad=0

complain()
{
    echo "FAIL $*"
    sed 's/^/  stderr: /' "$work/err" | head -5
    bad=1
}

# expect STATUS WORD COMMAND...: exit status, and WORD in the one line on stderr.
expect()
{
    want=$1 word=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    [ "$got" -eq "$want" ] || complain "$*: exit $got, expected $want"
    if [ "$want" -ne 0 ]; then
        [ "$(wc -l <"$work/err")" -eq 1 ] || complain "$*: not exactly one line of error"
        grep -q "^ferrum: .*$word" "$work/err" || complain "$*: the error does not say \"$word\""
        [ ! -s "$work/out" ] || complain "$*: an error, but something on stdout"
    fi
}

# What the last command printed is JSON, where there is somebody to ask.
expect_json()
{
    command -v python3 >/dev/null || return 0
    python3 -m json.tool "$work/out" >/dev/null 2>"$work/err" || complain "$1: no valid JSON"
}

# It is TAP: numbered results as many as planned, everything else a comment.
expect_tap()
{
    awk '/^TAP version 1[34]$/ && NR == 1 { next }
        /^#/ { next }
        /^1\.\.[0-9]+$/ { plan = substr($0, 4); plans++; next }
        /^(not )?ok [0-9]+( |$)/ { number = $1 == "not" ? $3 : $2; if (number != ++count) bad = 1; next }
        { bad = 1 }
        END { exit bad || plans != 1 || plan != count }' "$work/out" || complain "$1: no valid TAP"
}

# Good runs.
expect 0 - "$ferrum" --help
expect 0 - "$ferrum" --version
for verb in generate bench info inspect check-plugin env; do
    expect 0 - "$ferrum" "$verb" --help
    [ -s "$work/out" ] || complain "$verb --help prints nothing"
done
expect 0 - "$ferrum" bench moe --help
expect 0 - "$ferrum" bench model --help
expect 0 - "$ferrum" env
grep -q '^FERRUM_BACKEND ' "$work/out" || complain "env does not list FERRUM_BACKEND"
expect 0 - "$ferrum" info
grep -q '^cpu ' "$work/out" && grep -q '^metal-stub ' "$work/out" ||
    complain "info does not list both plugins"
expect 0 - "$ferrum" info --json
expect_json "info --json"
expect 0 - "$ferrum" inspect "$model"
expect 0 - "$ferrum" inspect --json "$gptq"
for weights in "$model" "$gptq"; do
    expect 0 - "$ferrum" inspect -b cpu "$weights"
    grep -q '^loaded .* by cpu .* x the weights$' "$work/out" ||
        complain "inspect -b cpu does not say what is held"
done
expect 0 - "$ferrum" inspect -b cpu --json "$model"
grep -q '"per_weight_byte"' "$work/out" || complain "inspect -b cpu --json does not say what is held"
expect 3 nothing "$ferrum" inspect -b nothing "$model"
expect 0 - "$ferrum" generate -b cpu -m "$model" -p "In the beginning" -n 4 --temperature 0
[ ! -s "$work/err" ] || complain "generate is not quiet on stderr"
grep -q '^In the beginning' "$work/out" || complain "generate does not begin with the prompt"
expect 0 - "$ferrum" generate -b cpu -m "$gptq" -p "In the beginning" -n 4 --temperature 0 --json
grep -q '"generated_tokens": 4' "$work/out" || complain "--json does not count 4 tokens"
expect 0 - "$ferrum" generate -b cpu -m "$model" -p x -n 0
expect 0 - "$ferrum" bench moe -b cpu --format q4_0 --hidden 64 --intermediate 32 --experts 4 \
    --top-k 2 --tokens 1,3 --layers 2 --seconds 0.01 -o csv
[ "$(wc -l <"$work/out")" -eq 3 ] || complain "bench moe -o csv: not a header and two rows"
expect 0 - "$ferrum" bench model -b cpu -m "$model" -p 8 -n 4 --batch 2 --runs 1 -o json

# Same seed, same text; a list that falls back says so.
"$ferrum" generate -b cpu -m "$model" -p "And he said" -n 12 --seed 7 >"$work/a" 2>/dev/null
"$ferrum" generate -b cpu -m "$model" -p "And he said" -n 12 --seed 7 >"$work/b" 2>/dev/null
cmp -s "$work/a" "$work/b" || complain "the same seed gives different text"
"$ferrum" generate -b nosuch,cpu -m "$model" -p x -n 1 >"$work/out" 2>"$work/err" ||
    complain "nosuch,cpu does not fall back"
grep -q nosuch "$work/err" || complain "nosuch,cpu falls back silently"
FERRUM_BACKEN=cpu "$ferrum" env >/dev/null 2>"$work/err"
grep -q FERRUM_BACKEND "$work/err" || complain "FERRUM_BACKEN draws no warning with a suggestion"

# A plugin held to the ABI: three reports, and what a stranger's file gets.
stub=$FERRUM_TEST_BUILDDIR/backends/metal-stub/.libs/metal-stub.so
expect 0 - "$ferrum" check-plugin --list
expect 0 - "$ferrum" check-plugin "$stub" objects
grep -q '^conforms: ' "$work/out" || complain "check-plugin says no verdict"
expect 0 - "$ferrum" check-plugin --in-process --each "$stub" objects
grep -q 'ok .*releasing NULL' "$work/out" || complain "check-plugin --each does not list checks"
expect 0 - "$ferrum" check-plugin --json "$stub" objects
grep -q '"conforms": true' "$work/out" || complain "check-plugin --json says no verdict"
expect_json "check-plugin --json"
expect 0 - "$ferrum" check-plugin --tap "$stub" objects
expect_tap "check-plugin --tap"
# Neither is broken by what a plugin says of itself.
sed 's/"Skeleton of a backend[^"]*"/"\\"two\\"\\nlines \\xff\\xc3"/; s/a skeleton for new/\\x1b[2J \\xed\\xa0\\x80/' \
    "$FERRUM_TEST_SRCDIR/backends/metal-stub/metal_stub.c" >"$work/odd.c"
mkdir "$work/odd"
${CC:-cc} -shared -fPIC -fvisibility=hidden -w -I"$FERRUM_TEST_SRCDIR/abi" "$work/odd.c" \
    -o "$work/odd/metal-stub.so" || complain "the odd plugin cannot be built"
expect 0 - env FERRUM_PLUGIN_PATH="$work/odd" FERRUM_PROBE=none "$ferrum" info --json
expect_json "info --json of an odd plugin"
grep -q '"version": "0.1.0"' "$work/out" || complain "info --json leaves an odd plugin out"
expect 0 - env FERRUM_PLUGIN_PATH="$work/odd" FERRUM_PROBE=none "$ferrum" info
LC_ALL=C grep -q '[^ -~]' "$work/out" && complain "info prints what an odd plugin says as it is"
for form in --json --tap; do
    "$ferrum" check-plugin $form "$work/odd/metal-stub.so" identity >"$work/out" 2>"$work/err"
    [ $? -eq 1 ] || complain "check-plugin $form: an odd plugin is no failure"
    expect_${form#--} "check-plugin $form of an odd plugin"
done
"$ferrum" check-plugin "$model" >"$work/out" 2>"$work/err"
[ $? -eq 1 ] && grep -q 'FAILED.*ELF' "$work/out" || complain "check-plugin accepts a model file"
FERRUM_CUDA_DRIVER=/nonexistent "$ferrum" check-plugin "$FERRUM_TEST_BUILDDIR/backends/cuda/.libs/cuda.so" \
    objects >"$work/out" 2>"$work/err"
case $? in
77) grep -q 'not run: ' "$work/out" || complain "check-plugin does not say why it ran nothing" ;;
3) [ ! -e "$FERRUM_TEST_BUILDDIR/backends/cuda/.libs/cuda.so" ] || complain "cuda.so cannot be checked" ;;
*) complain "check-plugin of cuda.so without a driver: neither skipped nor absent" ;;
esac

# Usage.
expect 2 plugin "$ferrum" check-plugin
expect 2 frobnicate "$ferrum" check-plugin "$stub" frobnicate
expect 2 exclude "$ferrum" check-plugin --json --tap "$stub"
expect 2 activation "$ferrum" check-plugin --activation i8 "$stub"
expect 2 cycles "$ferrum" check-plugin --cycles 0 "$stub"
expect 3 "$work/no.so" "$ferrum" check-plugin "$work/no.so"
expect 2 unknown "$ferrum" frobnicate
expect 2 model "$ferrum" generate -p x
expect 2 prompt "$ferrum" generate -m "$model"
expect 2 frobnicate "$ferrum" generate -m "$model" -p x --frobnicate
expect 2 temperature "$ferrum" generate -m "$model" -p x --temperature -1
expect 2 negative "$ferrum" generate -m "$model" -p x -n -3
expect 2 extra "$ferrum" generate -m "$model" -p x extra
expect 2 "top-k" "$ferrum" bench moe --experts 4 --top-k 5
expect 2 format "$ferrum" bench moe --format q9_z
expect 2 bench "$ferrum" bench

# Backends.
expect 3 nosuch "$ferrum" generate -b nosuch -m "$model" -p x
expect 3 metal-stub env FERRUM_BACKEND=metal-stub "$ferrum" generate -m "$model" -p x
expect 3 "$work/no.so" "$ferrum" generate -b "$work/no.so" -m "$model" -p x
echo "not a plugin" >"$work/text.so"
expect 3 text.so "$ferrum" generate -b "$work/text.so" -m "$model" -p x

# Models.
expect 4 "$work/none.gguf" "$ferrum" generate -b cpu -m "$work/none.gguf" -p x
head -c 4000 "$model" >"$work/cut.gguf"
expect 4 cut.gguf "$ferrum" generate -b cpu -m "$work/cut.gguf" -p x
expect 4 cut.gguf "$ferrum" inspect "$work/cut.gguf"
: >"$work/empty.gguf"
expect 4 empty.gguf "$ferrum" generate -b cpu -m "$work/empty.gguf" -p x
mkdir "$work/hollow"
expect 4 hollow "$ferrum" generate -b cpu -m "$work/hollow" -p x

# A prompt longer than the cache, and an output that cannot be written.
yes amen | head -n 400 >"$work/long"
expect 5 capacity "$ferrum" generate -b cpu -m "$model" -f "$work/long" --kv-capacity 64
if [ -c /dev/full ]; then
    "$ferrum" generate -b cpu -m "$model" -p x -n 4 >/dev/full 2>"$work/err"
    [ $? -eq 1 ] && grep -q 'cannot write' "$work/err" || complain "a full disk goes unnoticed"
fi
[ $bad -eq 0 ] && echo "the command line behaves"
exit $bad
