/* SPDX-License-Identifier: MIT */
/* What ferrum-probe tells the loader: one of these before each step, the last when it is done. */
#ifndef FERRUM_PLUGIN_PROBE_STAGES_H
#define FERRUM_PLUGIN_PROBE_STAGES_H

enum {
    FERRUM_STAGE_LOAD = 'l',
    FERRUM_STAGE_QUERY = 'q',
    FERRUM_STAGE_INTERFACES = 'i',
    FERRUM_STAGE_PROBE = 'p',
    FERRUM_STAGE_DONE = '.'
};

#endif /* FERRUM_PLUGIN_PROBE_STAGES_H */
