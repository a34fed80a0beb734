#!/bin/sh
# SPDX-License-Identifier: MIT
# Use an installed Ferrum as a stranger would: compile the examples against ferrum.pc and run them.
# bindir, libdir and libexecdir (of Ferrum) are where it was installed, DESTDIR included; run by
# `make installcheck`.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
LD_LIBRARY_PATH=$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
FERRUM_PLUGIN_PATH=$libdir/ferrum
export LD_LIBRARY_PATH FERRUM_PLUGIN_PATH
PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1
PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS PKG_CONFIG_ALLOW_SYSTEM_LIBS

pkg-config --modversion ferrum
for source in "$FERRUM_TEST_SRCDIR"/docs/examples/*.c; do
    example=$work/$(basename "$source" .c)
    # shellcheck disable=SC2046 # lists of flags
    ${CC:-cc} -std=c11 "$source" $(pkg-config --cflags ferrum) -o "$example" $(pkg-config --libs ferrum) -lm -pthread
    echo "+ ${example##*/}"
    case ${example##*/} in
    server_swap) "$example" "$FERRUM_TEST_SRCDIR/models/tiny-qwen3moe-q4_k.gguf" cpu ;;
    *) "$example" ;;
    esac
done
"$bindir/ferrum" info
"$bindir/ferrum" generate -m "$FERRUM_TEST_SRCDIR/models/tiny-qwen3moe-q4_k.gguf" -p 'In the' -n 4 \
    --temperature 0

# A backend of a stranger: headers only, its own directory, checked by the installed program, and
# chosen by auto only after the installed ferrum-probe has had it in a process of its own.
mkdir "$work/plugins"
# shellcheck disable=SC2046
${CC:-cc} -std=c11 -O2 -shared -fPIC -fvisibility=hidden $(pkg-config --cflags ferrum) \
    "$FERRUM_TEST_SRCDIR/docs/examples/plugin/sample.c" -o "$work/plugins/sample.so"
"$bindir/ferrum" check-plugin --timeout 250 "$work/plugins/sample.so"
FERRUM_PLUGIN_PATH=$work/plugins FERRUM_PROBE=child FERRUM_PROBE_PROGRAM=$libexecdir/ferrum-probe \
    "$bindir/ferrum" info
