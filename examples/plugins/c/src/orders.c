/* Orders for the people who ship them: only the statuses they care for, masked emails, a mark on
 * large orders, one stream per region. */
#include "walmill.h"

/* The first quantity that a 64-bit float can't tell from its neighbour. */
#define LARGE INT64_C(9007199254740993)

enum { STATUS, EMAIL, QUANTITY, REGION };

WALMILL_PLUGIN("orders", "0.1.0");

/* The statuses that are kept. */
static wm_texts keep;

void walmill_init(wm_config *config) {
    static const wm_text usual[] = {WM_LITERAL("paid"), WM_LITERAL("shipped")};
    keep = wm_config_texts(config, "keep", (wm_texts){usual, 2});
}

void walmill_relation(const wm_relation *relation, wm_plan *plan) {
    (void)relation;
    wm_need(plan, "status");
    wm_need(plan, "email");
    wm_need(plan, "quantity");
    wm_need(plan, "region");
    wm_shape *shape = wm_shape_of(plan);
    wm_shape_computed(shape, wm_text_of("email"), WM_TEXT);
    wm_shape_computed(shape, wm_text_of("large"), WM_BOOL);
}

/* `ada@example.com` as `a***@example.com`; what is no address as `***`. */
static wm_text mask(wm_text email) {
    wm_text domain = wm_from_last(email, '@');
    if (domain.ptr == NULL) return wm_text_of("***");
    return WM_CONCAT(wm_first_character(email), wm_text_of("***"), domain);
}

static void judge(const wm_event *event) {
    wm_cell email = wm_get(event, EMAIL), quantity = wm_get(event, QUANTITY);
    wm_text region = wm_get_text(event, REGION);
    if (!wm_among(wm_get_text(event, STATUS), keep)) {
        wm_drop(event);
        return;
    }
    if (quantity.tag == WM_INT && quantity.integer < 0) {
        wm_text figure = wm_decimal(quantity.integer);
        wm_reject(event, WM_CONCAT(wm_text_of("negative quantity: "), figure));
        return;
    }
    if (email.tag == WM_TEXT) email.text = mask(email.text);
    wm_emit(event, 0);
    wm_add(event, email);
    if (quantity.tag == WM_INT) wm_add_bool(event, quantity.integer >= LARGE);
    else wm_add(event, quantity);
    if (region.len > 0) wm_send(event, WM_CONCAT(wm_text_of("orders."), wm_lower(region)));
}

void walmill_process(wm_batch *batch) {
    for (wm_event event; wm_next_row(batch, &event);) judge(&event);
}
