/// Keeps the rows of one country: what `scripts/language-figures` measures D with.
module filter;

import walmill;

extern (C) __gshared immutable Plugin walmill_plugin = Plugin("filter", "0.1.0", "");

extern (C) void walmill_init(Config*) {
}

extern (C) void walmill_relation(const(Relation)*, Plan* plan) {
    wm_need(plan, "country");
}

extern (C) void walmill_process(Batch* batch) {
    Event event;
    while (wm_next_row(batch, &event)) {
        const country = wm_get_text(&event, 0);
        if (country.slice != "NZ")
            wm_drop(&event);
    }
}
