/* SPDX-License-Identifier: MIT */
/* `ferrum env`: the option table, with what the environment sets now. */
#include "tools/ferrum/cli.h"

#include <stdio.h>

int cli_env(int argc, const char **argv)
{
    static const struct poptOption table[] = {POPT_TABLEEND};
    poptContext context;
    bool help;
    int rc = cli_parse(argc, argv, table, "env", &context, &help);
    if (rc != CLI_OK || help)
        return rc;
    const char *extra = poptGetArg(context);
    if (extra != NULL)
        rc = cli_error(CLI_USAGE, "env takes no argument, got \"%s\"", extra);
    poptFreeContext(context);
    if (rc != CLI_OK)
        return rc;

    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_options_t *options;
    ferrum_status_t status = ferrum_options_from_env(cli_logger(NULL), &options, &err);
    if (status != FERRUM_OK)
        return cli_fail(&err, status, CLI_FAILED);
    size_t count;
    const ferrum_option_info_t *infos = ferrum_option_table(&count);
    printf("%-32s %-12s %-12s %s\n", "VARIABLE", "DEFAULT", "NOW", "MEANING");
    for (size_t i = 0; i < count; i++) {
        const char *value = ferrum_options_get(options, infos[i].name);
        printf("%-32s %-12s %-12s %s\n", infos[i].name,
               infos[i].default_value[0] ? infos[i].default_value : "-", value ? value : "-",
               infos[i].meaning);
    }
    ferrum_options_free(options);
    return cli_finish_output();
}
