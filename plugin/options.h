/* SPDX-License-Identifier: MIT */
/* What env.c needs of the option table beyond the public API. */
#ifndef FERRUM_PLUGIN_OPTIONS_H
#define FERRUM_PLUGIN_OPTIONS_H

#include <ferrum/loader.h>

/** What is wrong with @p value for option @p name ("is not a decimal number"), or NULL. */
const char *ferrum_option_complaint(const char *name, const char *value);
/** The option whose name is a likely meaning of the unknown @p name, or NULL. */
const char *ferrum_option_nearest(const char *name);

/** The whole environment, for a child process. */
char **ferrum_env_all(void);

#endif /* FERRUM_PLUGIN_OPTIONS_H */
