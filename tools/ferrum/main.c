/* SPDX-License-Identifier: MIT */
/* The `ferrum` program: pick a verb, hand it its arguments. */
#include "tools/ferrum/cli.h"

#include "config.h"

#include <stdio.h>
#include <string.h>

const cli_verb_t cli_verbs[] = {
    {"generate", "text from a model file", cli_generate},
    {"bench", "speed and accuracy of one MoE layer or a whole model", cli_bench},
    {"info", "plugins, devices and resolved operations", cli_info},
    {"inspect", "what is in a model file and what it needs", cli_inspect},
    {"check-plugin", "hold a plugin to the ABI, operation by operation", cli_check_plugin},
    {"env", "every FERRUM_* variable with its default and meaning", cli_env},
};
const size_t cli_verb_count = sizeof cli_verbs / sizeof cli_verbs[0];

volatile sig_atomic_t cli_interrupted;

static void on_signal(int number)
{
    (void)number;
    cli_interrupted = 1;
}

static void install_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND; /* a second Ctrl-C ends the program at once */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe becomes an error line of its own */
}

static int print_help(FILE *out)
{
    fprintf(out, "usage: ferrum VERB [OPTIONS]\n\n"
                 "Mixture-of-Experts language models through exchangeable compute backends.\n\n");
    for (size_t i = 0; i < cli_verb_count; i++)
        fprintf(out, "  %-12s %s\n", cli_verbs[i].name, cli_verbs[i].summary);
    fprintf(out, "\nferrum VERB --help tells a verb's options; ferrum(1) tells the rest.\n");
    return out == stdout ? cli_finish_output() : CLI_USAGE;
}

int main(int argc, const char **argv)
{
    install_signals();
    if (argc < 2)
        return print_help(stderr);
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        return print_help(stdout);
    if (strcmp(name, "--version") == 0) {
        printf("ferrum %s (ABI %u.%u)\n", PACKAGE_VERSION, FERRUM_ABI_MAJOR, FERRUM_ABI_MINOR);
        return cli_finish_output();
    }
    for (size_t i = 0; i < cli_verb_count; i++)
        if (strcmp(name, cli_verbs[i].name) == 0)
            return cli_verbs[i].run(argc - 1, argv + 1);
    return cli_error(CLI_USAGE, "unknown verb \"%s\"; ferrum --help lists them", name);
}
