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
# What leaves by _exit(), as children of tests do, still has to write down what it counted.
cat >leave.c <<'EOF'
void __gcov_dump(void);
void __real__exit(int status);
void __wrap__exit(int status);
void __wrap__exit(int status)
{
    __gcov_dump();
    __real__exit(status);
}
EOF
# So has ferrum-probe when a hostile plugin makes it crash.
cat >crash.c <<'EOF'
#include <signal.h>

void __gcov_dump(void);

static void dump_and_die(int number)
{
    __gcov_dump();
    raise(number);
}

__attribute__((constructor)) static void watch_signals(void)
{
    static const int fatal[] = {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE};
    struct sigaction action = {.sa_handler = dump_and_die, .sa_flags = SA_RESETHAND | SA_NODEFER};
    for (unsigned i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        sigaction(fatal[i], &action, 0);
}
EOF
${CC:-gcc} -fPIC -c leave.c crash.c
if [ ! -f config.status ]; then
    # Counters are atomic, since tests have threads.
    "$src/configure" --quiet --with-cuda=no CFLAGS='-O0 -g --coverage -fprofile-update=atomic' \
        LDFLAGS='-Wl,--wrap=_exit' LIBS="$PWD/leave.o"
fi
find . -name '*.gcda' -exec rm -f {} +
$MAKE run-coverage ferrum_probe_LDADD="$PWD/crash.o"
gcovr --root "$src" --object-directory . --branches --exclude-unreachable-branches \
    --filter "$src/plugin/" --filter "$src/host/formats/" --filter "$src/host/text/"
