# SPDX-License-Identifier: MIT
# Reads a golden offsets file, writes a C file that fails to compile where the headers differ.
# A struct may have grown since; a field or a value may not have moved.
# Usage: awk -f assert-offsets.awk abi/offsets-1.0.txt

BEGIN {
    print "/* Made by abi/assert-offsets.awk. */"
    print "#include <ferrum/limits.h>"
    print "#include <ferrum/moe_fused.h>"
    print "#include <ferrum/plugin.h>"
}

/^#/ { next }

$1 == "sizeof" {
    printf "_Static_assert(sizeof(%s) >= %s, \"%s has shrunk\");\n", $2, $3, $2
}

$1 == "offset" {
    split($2, name, ".")
    printf "_Static_assert(offsetof(%s, %s) == %s, \"%s has moved\");\n", name[1], name[2], $3, $2
    printf "_Static_assert(sizeof(((%s *)0)->%s) == %s, \"%s has another size\");\n", name[1],
        name[2], $4, $2
}

$1 == "value" {
    printf "_Static_assert(%s == %s, \"%s has another value\");\n", $2, $3, $2
}
