# SPDX-License-Identifier: MIT
# Reads the headers of the ABI, writes a library with one exported function per struct that crosses
# the border: what abidiff compares, since it looks at types only where a function leads to them.
# Usage: awk -f list-structs.awk abi/ferrum/*.h

BEGIN {
    print "/* Made by list-structs.awk. */"
}
FNR == 1 {
    name = FILENAME
    sub(/.*\//, "", name)
    print "#include <ferrum/" name ">"
}
/^\} ferrum_[a-z_0-9]+_t;/ {
    name = $2
    sub(/;/, "", name)
    types[++count] = name
}
END {
    for (i = 1; i <= count; i++) {
        printf "void probe_%s(const %s *p);\n", types[i], types[i]
        printf "void probe_%s(const %s *p) { (void)p; }\n", types[i], types[i]
    }
    print "ferrum_plugin_query_fn *probe_query(void);"
    print "ferrum_plugin_query_fn *probe_query(void) { return 0; }"
}
