#!/bin/sh
# SPDX-License-Identifier: MIT
# Branch coverage of the loader and of the readers of model files, as a table; the tests in
# COVERAGE_TESTS run in a build directory of their own. Usage: coverage.sh BUILD_DIR
# The top of the source tree is FERRUM_TEST_SRCDIR, make is MAKE.
set -eu
src=$FERRUM_TEST_SRCDIR
command -v gcovr >/dev/null || {
    echo "coverage: gcovr is not installed"
    exit 77
}
mkdir -p "$1"
cd "$1"
if [ ! -f config.status ]; then
    # Children of tests leave by _exit(), which would lose what they counted.
    cat >flush.c <<'EOF'
void __gcov_dump(void);
void __real__exit(int status);
void __wrap__exit(int status);
void __wrap__exit(int status)
{
    __gcov_dump();
    __real__exit(status);
}
EOF
    ${CC:-gcc} -fPIC -c flush.c
    "$src/configure" --quiet --with-cuda=no CFLAGS='-O0 -g --coverage' \
        LDFLAGS='-Wl,--wrap=_exit' LIBS="$PWD/flush.o"
fi
find . -name '*.gcda' -exec rm -f {} +
$MAKE run-coverage
gcovr --root "$src" --object-directory . --branches --exclude-unreachable-branches \
    --filter "$src/plugin/" --filter "$src/host/formats/" --filter "$src/host/text/"
