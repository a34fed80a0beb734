# SPDX-License-Identifier: MIT
# Reads the ABI headers, writes a C program that prints, one per line,
#     sizeof STRUCT BYTES
#     offset STRUCT.FIELD BYTE_OFFSET BYTES
#     value ENUMERATOR_OR_MIN_SIZE NUMBER
# in the order of the headers. It expects what the headers keep to: `typedef struct x { ... } x_t;`
# with one field or function pointer per declaration, plain enums, and no nested struct or union.
# Usage: awk -f list-offsets.awk abi/ferrum/*.h

function fail(what)
{
    printf "%s:%d: %s\n", FILENAME, FNR, what >"/dev/stderr"
    failed = 1
    exit 1
}

function field(declaration, name)
{
    name = declaration
    if (name ~ /\(\*[a-z_0-9]+\)/) {
        sub(/^[^(]*\(\*/, "", name)
        sub(/\).*/, "", name)
    } else {
        if (name ~ /,/)
            fail("one field per declaration, please: " declaration)
        sub(/\[.*/, "", name)
        sub(/.*[ *]/, "", name)
    }
    if (name !~ /^[a-z_][a-z_0-9]*$/)
        fail("cannot read the field in: " declaration)
    fields[++field_count] = name
}

# One statement: everything up to a semicolon or brace, comments and line ends removed.
function statement(text, brace, names, n, i)
{
    gsub(/[ \t]+/, " ", text)
    sub(/^ /, "", text)
    sub(/ $/, "", text)
    if (brace == "{") {
        if (text ~ /^typedef struct [a-z_0-9]+$/) {
            state = "struct"
            field_count = 0
        } else if (text ~ /^(typedef )?enum( [a-z_0-9]+)?$/) {
            state = "enum"
        } else if (state != "") {
            fail("nested braces")
        } else {
            state = "other" # extern "C" or an inline function
        }
        return
    }
    if (brace == "}") {
        if (state == "enum") {
            gsub(/=[^,]*/, "", text)
            n = split(text, names, ",")
            for (i = 1; i <= n; i++) {
                gsub(/ /, "", names[i])
                if (names[i] != "")
                    printf "    value(%s);\n", names[i]
            }
        }
        state = state == "struct" ? "struct name" : ""
        return
    }
    if (state == "struct") {
        field(text)
    } else if (state == "struct name") {
        printf "    printf(\"sizeof %s %%zu\\n\", sizeof(%s));\n", text, text
        for (i = 1; i <= field_count; i++)
            printf "    offset(%s, %s);\n", text, fields[i]
        state = ""
    }
}

BEGIN {
    print "/* Made by abi/list-offsets.awk. */"
    print "#include <stdio.h>"
    for (i = 1; i < ARGC; i++) {
        header = ARGV[i]
        sub(/.*\//, "", header)
        printf "#include <ferrum/%s>\n", header
    }
    print "#define value(name) printf(\"value %s %lld\\n\", #name, (long long)(name))"
    print "#define offset(type, field) \\"
    print "    printf(\"offset %s.%s %zu %zu\\n\", #type, #field, offsetof(type, field), \\"
    print "           sizeof(((type *)0)->field))"
    print "int main(void)"
    print "{"
}

/^[ \t]*#/ {
    if (match($0, /FERRUM_[A-Z0-9_]+_MIN_SIZE[ \t]+[0-9]/))
        printf "    value(%s);\n", $2
    continued = /\\$/
    next
}

continued {
    continued = /\\$/
    next
}

{
    line = $0
    if (in_comment) {
        if (!sub(/^.*\*\//, "", line))
            next
        in_comment = 0
    }
    gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", line)
    if (sub(/\/\*.*$/, "", line))
        in_comment = 1
    if (line ~ /^extern "C" \{$/ || (line ~ /^}$/ && state == "")) # the C++ guards
        next
    pending = pending " " line
    while (match(pending, /[;{}]/)) {
        statement(substr(pending, 1, RSTART - 1), substr(pending, RSTART, 1))
        pending = substr(pending, RSTART + 1)
    }
}

END {
    if (!failed)
        print "    return 0;\n}"
}
