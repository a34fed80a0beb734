# SPDX-License-Identifier: MIT
# Makes a header of the ABI into that of the next minor, as docs/abi-policy.md lets it grow: one field
# at the end of every struct with a head, one entry at the end of every table, the minor raised.
# Usage: awk -f next-minor.awk HEADER.h >NEXT.h

/^#define FERRUM_ABI_MINOR / {
    sub(/[0-9]+u/, substr($3, 1, length($3) - 1) + 1 "u")
}
/^typedef struct ferrum_[a-z_0-9]+ \{/ {
    grows = 0
}
/^    ferrum_head_t head;/ {
    grows = 1
}
/^\} ferrum_[a-z_0-9]+_t;/ && grows {
    if ($2 ~ /_ops_t;$/)
        print "    ferrum_status_t (*added_in_next_minor)(ferrum_context_t *ctx, ferrum_error_t *err);"
    else
        print "    uint64_t added_in_next_minor;"
    grows = 0
}
{ print }
