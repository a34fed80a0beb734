#!/bin/sh
# SPDX-License-Identifier: MIT
# The layers of the project, enforced: which directory may include headers of which other one.
set -eu
cd "$FERRUM_TEST_SRCDIR"

# Layer of each source file, and the layers (or single headers) it may include. tests may do
# anything. A layer that is not listed here is an error, so a new directory has to be placed.
rules='
abi           abi
kernels       kernels abi/ferrum/types.h abi/ferrum/util.h
backends/common backends/common abi
backends/cpu  backends/cpu backends/common kernels abi
backends/cuda backends/cuda backends/common kernels abi
backends/metal-stub backends/metal-stub abi
plugin        plugin abi
host          host plugin/include abi kernels/kernels.h
tools         tools host plugin abi
docs          host/include plugin/include abi
'
# System headers that a layer may not use, and for abi the only ones that it may.
denied='
kernels       stdio.h stdlib.h pthread.h threads.h
backends/common pthread.h threads.h omp.h
backends/cpu  pthread.h threads.h omp.h
backends/cuda pthread.h threads.h omp.h cuda.h
backends/metal-stub pthread.h threads.h omp.h
plugin        omp.h jansson.h pcre2.h utf8proc.h hwloc.h popt.h check.h
host          omp.h popt.h check.h
docs          jansson.h pcre2.h utf8proc.h hwloc.h popt.h
'
abi_may='assert.h float.h inttypes.h limits.h math.h stdarg.h stdbool.h stddef.h stdint.h stdio.h stdlib.h string.h'

find abi kernels backends plugin host tools docs -name '*.[ch]' | sort | xargs \
    awk -v rules="$rules" -v denied="$denied" -v abi_may="$abi_may" '
    function exists(path, line, found)
    {
        if (!(path in known))
            known[path] = (getline line <path) >= 0
        close(path)
        return known[path]
    }
    function layer_of(path, parts)
    {
        split(path, parts, "/")
        return parts[1] == "backends" ? parts[1] "/" parts[2] : parts[1]
    }
    # The file of this tree that an include names, or "" for a system header.
    function resolve(name, quoted, i, dir)
    {
        dir = FILENAME
        sub("/[^/]*$", "", dir)
        if (quoted && exists(dir "/" name))
            return dir "/" name
        for (i = 1; i <= roots; i++)
            if (exists(root[i] name))
                return root[i] name
        return ""
    }
    function complain(what)
    {
        printf "%s:%d: %s\n", FILENAME, FNR, what
        bad = 1
    }
    BEGIN {
        roots = split("abi/ plugin/include/ host/include/ kernels/ plugin/ host/ tools/ ./", root, " ")
        root[roots] = ""
        for (n = split(rules, line, "\n"); n > 0; n--) {
            words = split(line[n], w, " ")
            for (i = 2; i <= words; i++)
                may[w[1], w[i]] = 1
            if (words)
                placed[w[1]] = 1
        }
        for (n = split(denied, line, "\n"); n > 0; n--)
            for (i = split(line[n], w, " "); i > 1; i--)
                deny[w[1], w[i]] = 1
        for (i = split(abi_may, w, " "); i > 0; i--)
            abi_ok[w[i]] = 1
    }
    FNR == 1 {
        layer = layer_of(FILENAME)
        if (!(layer in placed))
            complain("no layer rule for " layer "/; add one to tests/checks/includes.sh")
    }
    /^[ \t]*#[ \t]*include[ \t]*[<"]/ {
        name = $0
        quoted = name ~ /include[ \t]*"/
        gsub(/^[^<"]*[<"]|[>"].*$/, "", name)
        if (quoted && name == "config.h") # made by configure
            next
        target = resolve(name, quoted)
        if (target == "") {
            if (quoted)
                complain("\"" name "\" is not in this tree; write <" name "> for a system header")
            else if ((layer, name) in deny || (layer == "abi" && !(name in abi_ok)))
                complain("<" name "> is not allowed in " layer "/")
            next
        }
        if ((layer, target) in may || (layer, layer_of(target)) in may)
            next
        split(target, part, "/")
        if (!((layer, part[1] "/" part[2]) in may))
            complain(layer "/ may not include " target)
    }
    END { exit bad }'
