#!/bin/sh
# SPDX-License-Identifier: MIT
# What the shared objects export, need and link to.
set -eu
cd "$FERRUM_TEST_BUILDDIR"
command -v nm >/dev/null && command -v readelf >/dev/null || { echo "binutils are missing"; exit 77; }
bad=0

complain()
{
    echo "$1"
    bad=1
}

# Functions that end the process, print behind the host's back, or leave something running that
# would outlive dlclose.
denied='abort exit _exit _Exit quick_exit atexit at_quick_exit on_exit __assert_fail __assert
printf vprintf puts putchar putc perror psignal stdout __printf_chk __vprintf_chk err errx warn warnx
signal sigaction longjmp setjmp system popen'
plugin_denied="$denied fprintf vfprintf fputs fputc fwrite stderr __fprintf_chk __vfprintf_chk
getenv secure_getenv setenv putenv pthread_create pthread_key_create thrd_create tss_create fork
malloc calloc realloc free aligned_alloc posix_memalign"

check_undefined() # object, denied names
{
    for symbol in $(nm -D --undefined-only "$1" | awk '{ sub("@.*", "", $2); print $2 }'); do
        case " $(echo $2) " in
        *" $symbol "*) complain "$1 refers to $symbol" ;;
        esac
    done
}

plugins=0
for plugin in backends/*/.libs/*.so; do
    [ -f "$plugin" ] || continue
    plugins=$((plugins + 1))
    exported=$(nm -D --defined-only "$plugin" | awk '{ print $3 }')
    [ "$exported" = ferrum_plugin_query_v1 ] ||
        complain "$plugin exports other than ferrum_plugin_query_v1:" $exported
    check_undefined "$plugin" "$plugin_denied"
    needed=$(readelf -d "$plugin" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    for library in $needed; do
        case $library in
        libc.so.* | libm.so.* | libgcc_s.so.* | ld-linux*) ;;
        *) complain "$plugin links $library" ;;
        esac
    done
    readelf -d "$plugin" | grep -q 'TEXTREL' && complain "$plugin has text relocations"
    readelf -d "$plugin" | grep -q 'BIND_NOW\|NOW' || complain "$plugin is not bound at load (-z now)"
done
[ $plugins -gt 0 ] || complain "no plugin was built"

library=$(ls .libs/libferrum.so 2>/dev/null || ls ./*/.libs/libferrum.so 2>/dev/null || :)
if [ -n "$library" ]; then
    others=$(nm -D --defined-only "$library" | awk '$3 !~ /^ferrum_/ { print $3 }')
    [ -z "$others" ] || complain "$library exports other than ferrum_*: $(echo $others)"
    check_undefined "$library" "$denied"
    readelf -d "$library" | grep -q 'SONAME.*libferrum\.so\.[0-9]' || complain "$library has no soname"
else
    complain "libferrum.so was not built"
fi
exit $bad
