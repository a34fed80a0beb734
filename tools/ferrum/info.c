/* SPDX-License-Identifier: MIT */
/* `ferrum info`: which plugins there are, what they see, and how each operation was resolved. */
#include "tools/ferrum/cli.h"

#include "plugin/text.h"

#include <ferrum/util.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *resolution_name(ferrum_resolution_t how)
{
    switch (how) {
    case FERRUM_RESOLVED_NATIVE:
        return "native";
    case FERRUM_RESOLVED_COMPOSED:
        return "composed";
    default:
        return "unsupported";
    }
}

/* Facts of one device of a module, which is opened for that. */
static ferrum_status_t device_facts(ferrum_module_t *module, uint32_t ordinal,
                                    ferrum_device_info_t *out_info, ferrum_error_t *err)
{
    const ferrum_backend_ops_t *ops = ferrum_module_backend(module);
    const ferrum_device_options_t options = {.head = FERRUM_HEAD(ferrum_device_options_t),
                                             .ordinal = ordinal};
    ferrum_device_t *device;
    ferrum_status_t status = ops->device_open(ferrum_module_host(module), &options, &device, err);
    if (status != FERRUM_OK)
        return status;
    memset(out_info, 0, sizeof *out_info);
    out_info->head.size = sizeof *out_info;
    status = ops->device_info(device, out_info, err);
    ferrum_text_clean(out_info->name);
    ferrum_text_clean(out_info->detail);
    ops->device_release(device);
    return status;
}

static json_t *candidate_json(const ferrum_candidate_t *found)
{
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:[i,i], s:b, s:i}", "name", found->name, "path",
        found->path, "version", found->version, "description", found->description, "license",
        found->license, "summary", found->summary, "score", found->score, "device_count",
        (int)found->device_count, "abi_minor", (int)found->abi_minor, (int)found->abi_minor_min,
        "pinned", (int)found->pinned, "status", found->status);
    if (object != NULL && found->status != FERRUM_OK)
        json_object_set_new(object, "error", json_string(found->error.message));
    if (object != NULL && found->pinned)
        json_object_set_new(object, "pinned_reason", json_string(found->pinned_reason));
    return object;
}

static void print_candidate(const ferrum_candidate_t *found)
{
    printf("%s %s: %s\n", found->name, found->version, found->description);
    printf("  file     %s\n", found->path);
    if (found->license[0])
        printf("  ABI      %u.%u (needs %u.%u or newer), %s\n", FERRUM_ABI_MAJOR, found->abi_minor,
               FERRUM_ABI_MAJOR, found->abi_minor_min, found->license);
    if (found->status != FERRUM_OK) {
        printf("  refused  %s\n", found->error.message);
        return;
    }
    printf("  score    %d%s\n", found->score, found->score > 0 ? "" : " (never chosen by auto)");
    if (found->summary[0])
        printf("  machine  %s\n", found->summary);
    if (found->pinned)
        printf("  pinned   %s\n", found->pinned_reason);
}

static void print_device(const ferrum_device_info_t *info)
{
    char total[24], free_bytes[24];
    printf("  device %u %s (%s), activations %s", info->ordinal, info->name, info->detail,
           ferrum_dtype_name(info->activation_dtype));
    if (info->memory_total_bytes > 0)
        printf(", %s of %s free", cli_bytes(info->memory_free_bytes, free_bytes),
               cli_bytes(info->memory_total_bytes, total));
    printf("\n");
}

/* Operations grouped as "table: native a b c; unsupported d", or one per line with --ops. */
static void print_ops(const ferrum_module_t *module, bool each)
{
    size_t count = ferrum_module_op_count(module);
    for (size_t i = 0; i < count;) {
        const char *table = ferrum_module_op(module, i).table;
        unsigned totals[3] = {0, 0, 0};
        for (; i < count; i++) {
            ferrum_resolved_op_t op = ferrum_module_op(module, i);
            if (strcmp(op.table, table) != 0)
                break;
            totals[op.how]++;
            if (each)
                printf("  op       %s.%s: %s\n", op.table, op.name, resolution_name(op.how));
        }
        if (!each)
            printf("  ops      %-16s %u native, %u composed, %u unsupported\n", table,
                   totals[FERRUM_RESOLVED_NATIVE], totals[FERRUM_RESOLVED_COMPOSED],
                   totals[FERRUM_RESOLVED_STUB]);
    }
}

static json_t *ops_json(const ferrum_module_t *module)
{
    json_t *tables = json_object();
    for (size_t i = 0; tables != NULL && i < ferrum_module_op_count(module); i++) {
        ferrum_resolved_op_t op = ferrum_module_op(module, i);
        json_t *table = json_object_get(tables, op.table);
        if (table == NULL) {
            table = json_object();
            json_object_set_new(tables, op.table, table);
        }
        json_object_set_new(table, op.name, json_string(resolution_name(op.how)));
    }
    return tables;
}

static json_t *device_json(const ferrum_device_info_t *info)
{
    return json_pack("{s:I, s:s, s:s, s:s, s:I, s:I}", "ordinal", (json_int_t)info->ordinal, "name",
                     info->name, "detail", info->detail, "activation_dtype",
                     ferrum_dtype_name(info->activation_dtype), "memory_total_bytes",
                     (json_int_t)info->memory_total_bytes, "memory_free_bytes",
                     (json_int_t)info->memory_free_bytes);
}

/* Every device of a module; @p list is NULL for text. */
static void describe_devices(ferrum_module_t *module, uint32_t count, json_t *list)
{
    for (uint32_t ordinal = 0; ordinal < count; ordinal++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_device_info_t info;
        const ferrum_status_t status = device_facts(module, ordinal, &info, &err);
        if (status != FERRUM_OK && !list)
            printf("  device %u none: %s\n", ordinal, err.message);
        if (status != FERRUM_OK)
            continue;
        if (list)
            json_array_append_new(list, device_json(&info));
        else
            print_device(&info);
        if (info.ordinal != ordinal)
            return; /* an option picks one device */
    }
}

/* One plugin, opened again to look at its devices and tables. */
static void describe(ferrum_loader_t *loader, const ferrum_candidate_t *found, bool each,
                     json_t *plugins)
{
    json_t *object = plugins ? candidate_json(found) : NULL;
    if (!plugins)
        print_candidate(found);
    ferrum_module_t *module;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    if (found->status == FERRUM_OK &&
        ferrum_loader_open(loader, found->path, &module, &err) == FERRUM_OK) {
        json_t *devices = object ? json_array() : NULL;
        describe_devices(module, found->device_count, devices);
        if (object != NULL) {
            json_object_set_new(object, "devices", devices);
            json_object_set_new(object, "operations", ops_json(module));
        } else {
            print_ops(module, each);
        }
        ferrum_module_release(module, NULL);
    }
    if (object != NULL)
        json_array_append_new(plugins, object);
}

static int run(bool each, bool as_json)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_options_t *options;
    ferrum_loader_t *loader = NULL;
    ferrum_candidate_t *found = NULL;
    size_t count = 0;
    ferrum_status_t status = cli_options(&options, &err);
    if (status != FERRUM_OK)
        return cli_fail(&err, status, CLI_USAGE);
    status = ferrum_loader_new(options, NULL, cli_logger(options), &loader, &err);
    if (status == FERRUM_OK)
        status = ferrum_loader_scan(loader, &found, &count, &err);
    int rc = CLI_OK;
    json_t *plugins = as_json ? json_array() : NULL;
    if (status != FERRUM_OK) {
        rc = cli_fail(&err, status, CLI_BACKEND);
    } else {
        for (size_t i = 0; i < count; i++)
            describe(loader, &found[i], each, plugins);
        if (count == 0)
            rc = cli_error(CLI_BACKEND,
                           "no plugin found; set FERRUM_PLUGIN_PATH to their directory");
    }
    if (rc == CLI_OK && plugins != NULL) {
        json_dumpf(plugins, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(plugins);
    ferrum_candidates_free(found);
    ferrum_loader_free(loader);
    ferrum_options_free(options);
    return rc == CLI_OK ? cli_finish_output() : rc;
}

int cli_info(int argc, const char **argv)
{
    int each = 0, as_json = 0;
    const struct poptOption table[] = {
        {"ops", '\0', POPT_ARG_NONE, &each, 0, "list every operation", NULL},
        {"json", '\0', POPT_ARG_NONE, &as_json, 0, "one JSON array", NULL},
        {"verbose", 'v', POPT_ARG_NONE, &cli_backend.verbose, 0, "log everything to stderr", NULL},
        POPT_TABLEEND};
    poptContext context;
    bool help;
    int rc = cli_parse(argc, argv, table, "info [--ops] [--json]", &context, &help);
    if (rc != CLI_OK || help)
        return rc;
    const char *extra = poptGetArg(context);
    rc = extra != NULL ? cli_error(CLI_USAGE, "info takes no argument, got \"%s\"", extra)
                       : run(each != 0, as_json != 0);
    poptFreeContext(context);
    return rc;
}
