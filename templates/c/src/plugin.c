#include "walmill.h"

WALMILL_PLUGIN("{{name}}", "0.1.0");

static wm_text country;

/* Takes the plugin's `config` in walmill.toml. */
void walmill_init(wm_config *config) { country = wm_config_text(config, "country", NULL); }

/* Says which columns the plugin needs of a table. */
void walmill_relation(const wm_relation *relation, wm_plan *plan) { wm_need(plan, "country"); }

/* Keeps the rows of one country. */
void walmill_process(wm_batch *batch) {
    for (wm_event event; wm_next_row(batch, &event);)
        if (!wm_equal(wm_get_text(&event, 0), country)) wm_drop(&event);
}
