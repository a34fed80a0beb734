/* SPDX-License-Identifier: MIT */
#include "tables.h"
#include "text.h"

/* ---- stubs, and the check of ops.def against the headers ---- */

static ferrum_status_t not_implemented(ferrum_error_t *err, const char *entry)
{
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                       "this backend does not implement %s; choose another one with "
                       "FERRUM_BACKEND",
                       entry);
}

#define SAME_PROTOTYPE(table, name)                                                                \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&stub_##table##_##name),                \
                                                __typeof__(((ferrum_##table##_ops_t *)0)->name)),  \
                   #table "." #name " in ops.def differs from the header")

#define FERRUM_OP(table, name, need, params)                                                       \
    static ferrum_status_t stub_##table##_##name params                                            \
    {                                                                                              \
        return not_implemented(err, #table "." #name);                                             \
    }                                                                                              \
    SAME_PROTOTYPE(table, name);
#define FERRUM_OP_VOID(table, name, need, params)                                                  \
    static void stub_##table##_##name params                                                       \
    {                                                                                              \
    }                                                                                              \
    SAME_PROTOTYPE(table, name);
#include "ops.def"

/* ---- one row per entry ---- */

enum {
    OPTIONAL = 0,
    MANDATORY = 1
};
enum table_id {
    TABLE_backend,
    TABLE_quant_llm,
    TABLE_linear,
    TABLE_stacked_experts,
    TABLE_marlin_stack,
    TABLE_moe_fused,
    TABLE_COUNT
};

typedef void generic_fn(void);

typedef struct row {
    const char *table;
    const char *name;
    generic_fn *stub;
    uint16_t offset; /* in the table */
    uint8_t table_id;
    uint8_t mandatory;
} row_t;

#define FERRUM_OP(table, name, need, params)                                                       \
    {#table,                                                                                       \
     #name,                                                                                        \
     (generic_fn *)stub_##table##_##name,                                                          \
     offsetof(ferrum_##table##_ops_t, name),                                                       \
     TABLE_##table,                                                                                \
     need},
#define FERRUM_OP_VOID FERRUM_OP
static const row_t rows[] = {
#include "ops.def"
};
enum {
    ROW_COUNT = sizeof rows / sizeof rows[0]
};
_Static_assert(ROW_COUNT <= FERRUM_OPS_MAX, "raise FERRUM_OPS_MAX");

/* Every row is an entry and no entry has two rows (that would be two stubs of one name), so equal
 * totals mean that none is missing. quant_llm also holds the pointers to its three sub-tables. */
_Static_assert(ROW_COUNT * sizeof(generic_fn *) + TABLE_COUNT * sizeof(ferrum_head_t) +
                       3 * sizeof(void *) ==
                   sizeof(ferrum_backend_ops_t) + sizeof(ferrum_quant_llm_ops_t) +
                       sizeof(ferrum_linear_ops_t) + sizeof(ferrum_stacked_experts_ops_t) +
                       sizeof(ferrum_marlin_stack_ops_t) + sizeof(ferrum_moe_fused_ops_t),
               "ops.def lacks an entry of some table");

/* ---- tables as bytes ---- */

typedef struct table_row {
    const char *name;
    size_t offset; /* of the copy in ferrum_tables_t */
    uint32_t size;
    uint32_t min_size;
} table_row_t;

#define TABLE(table, min_size)                                                                     \
    [TABLE_##table] = {#table, offsetof(ferrum_tables_t, table), sizeof(ferrum_##table##_ops_t),   \
                       min_size}
static const table_row_t table_rows[TABLE_COUNT] = {
    TABLE(backend, FERRUM_BACKEND_OPS_MIN_SIZE),
    TABLE(quant_llm, FERRUM_QUANT_LLM_OPS_MIN_SIZE),
    TABLE(linear, FERRUM_LINEAR_OPS_MIN_SIZE),
    TABLE(stacked_experts, FERRUM_STACKED_EXPERTS_OPS_MIN_SIZE),
    TABLE(marlin_stack, FERRUM_MARLIN_STACK_OPS_MIN_SIZE),
    TABLE(moe_fused, FERRUM_MOE_FUSED_OPS_MIN_SIZE),
};

static unsigned char *entry_of(ferrum_tables_t *tables, const row_t *row)
{
    return (unsigned char *)tables + table_rows[row->table_id].offset + row->offset;
}

/* Copy as much of @p source as both sides know; false when it is smaller than it may be. */
static bool copy_table(ferrum_tables_t *tables, enum table_id id, const void *source)
{
    const table_row_t *table = &table_rows[id];
    unsigned char *copy = (unsigned char *)tables + table->offset;
    const ferrum_head_t head = {table->size, FERRUM_ABI_MINOR};
    bool large_enough = true;
    if (source) {
        ferrum_head_t given;
        memcpy(&given, source, sizeof given);
        large_enough = given.size >= table->min_size;
        if (large_enough)
            memcpy(copy, source, given.size < table->size ? given.size : table->size);
    }
    memcpy(copy, &head, sizeof head);
    return large_enough;
}

static void append_name(char *list, size_t size, const char *table, const char *name)
{
    ferrum_text_append(list, size, "%s%s%s%s", list[0] ? ", " : "", table, name ? "." : "",
                       name ? name : "");
}

void ferrum_tables_resolve(const ferrum_offer_t *offer, ferrum_tables_t *out_tables, char *missing,
                           size_t missing_size, char *too_small, size_t too_small_size)
{
    ferrum_tables_t *t = out_tables;
    memset(t, 0, sizeof *t);
    for (int id = 0; id < TABLE_COUNT; id++) {
        /* quant_llm comes before its sub-tables, whose addresses its copy holds. */
        const void *const sources[TABLE_COUNT] = {
            [TABLE_backend] = offer->backend,
            [TABLE_quant_llm] = offer->quant_llm,
            [TABLE_linear] = t->quant_llm.linear,
            [TABLE_stacked_experts] = t->quant_llm.stacked_experts,
            [TABLE_marlin_stack] = t->quant_llm.marlin_stack,
            [TABLE_moe_fused] = offer->moe_fused,
        };
        if (!copy_table(t, (enum table_id)id, sources[id]))
            append_name(too_small, too_small_size, table_rows[id].name, NULL);
    }
    t->quant_llm.linear = &t->linear;
    t->quant_llm.stacked_experts = &t->stacked_experts;
    t->quant_llm.marlin_stack = &t->marlin_stack;

    for (size_t i = 0; i < ROW_COUNT; i++) {
        unsigned char *entry = entry_of(t, &rows[i]);
        generic_fn *fn;
        memcpy(&fn, entry, sizeof fn);
        t->how[i] = FERRUM_RESOLVED_NATIVE;
        if (fn)
            continue;
        memcpy(entry, &rows[i].stub, sizeof fn);
        t->how[i] = FERRUM_RESOLVED_STUB;
        if (rows[i].mandatory)
            append_name(missing, missing_size, rows[i].table, rows[i].name);
    }
}

size_t ferrum_tables_count(void)
{
    return ROW_COUNT;
}

ferrum_resolved_op_t ferrum_tables_op(const ferrum_tables_t *tables, size_t index)
{
    if (index >= ROW_COUNT)
        return (ferrum_resolved_op_t){NULL, NULL, FERRUM_RESOLVED_STUB, 0};
    return (ferrum_resolved_op_t){rows[index].table, rows[index].name,
                                  (ferrum_resolution_t)tables->how[index], rows[index].mandatory};
}

static size_t find_row(const char *table, const char *name)
{
    size_t i = 0;
    while (i < ROW_COUNT && (strcmp(rows[i].table, table) != 0 || strcmp(rows[i].name, name) != 0))
        i++;
    return i;
}

ferrum_resolution_t ferrum_tables_how(const ferrum_tables_t *tables, const char *table,
                                      const char *name)
{
    size_t row = table && name ? find_row(table, name) : ROW_COUNT;
    return row < ROW_COUNT ? (ferrum_resolution_t)tables->how[row] : FERRUM_RESOLVED_STUB;
}

void ferrum_tables_mark(ferrum_tables_t *tables, const char *table, const char *name,
                        ferrum_resolution_t how)
{
    size_t row = find_row(table, name);
    if (row < ROW_COUNT)
        tables->how[row] = (uint8_t)how;
}

void ferrum_tables_drop(ferrum_tables_t *tables, const char *table, const char *name)
{
    size_t row = find_row(table, name);
    if (row == ROW_COUNT)
        return;
    memcpy(entry_of(tables, &rows[row]), &rows[row].stub, sizeof rows[row].stub);
    tables->how[row] = FERRUM_RESOLVED_STUB;
}
