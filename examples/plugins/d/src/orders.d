/// Orders for the people who ship them: only those that are paid or shipped, masked emails, a mark
/// on large orders, one stream per region.
module orders;

import walmill;

/// The first quantity that a 64-bit float can't tell from its neighbour.
enum long large = 9_007_199_254_740_993;

enum : uint {
    status,
    email,
    quantity,
    region,
}

extern (C) __gshared immutable Plugin walmill_plugin = Plugin("orders", "0.1.0", "");

extern (C) void walmill_init(Config*) {
}

extern (C) void walmill_relation(const(Relation)*, Plan* plan) {
    wm_need(plan, "status");
    wm_need(plan, "email");
    wm_need(plan, "quantity");
    wm_need(plan, "region");
    auto shape = wm_shape_of(plan);
    wm_shape_computed(shape, Text("email"), Tag.text);
    wm_shape_computed(shape, Text("large"), Tag.boolean);
}

extern (C) void walmill_process(Batch* batch) {
    Event event;
    while (wm_next_row(batch, &event))
        judge(event);
}

private void judge(ref Event event) {
    const found = wm_get_text(&event, status);
    if (found.slice != "paid" && found.slice != "shipped")
        return wm_drop(&event);
    auto isLarge = wm_get(&event, quantity);
    if (isLarge.tag == Tag.integer) {
        const count = isLarge.integer;
        if (count < 0)
            return wm_reject(&event, concat(Text("negative quantity: "), wm_decimal(count)));
        isLarge.tag = Tag.boolean;
        isLarge.boolean = count >= large;
    }
    auto masked = wm_get(&event, email);
    if (masked.tag == Tag.text)
        masked.text = mask(masked.text);
    wm_emit(&event, 0);
    wm_add(&event, masked);
    wm_add(&event, isLarge);
    const to = wm_get_text(&event, region);
    if (to.len > 0)
        wm_send(&event, concat(Text("orders."), wm_lower(to)));
}

/// `ada@example.com` as `a***@example.com`; what is no address as `***`.
private Text mask(Text address) {
    const domain = wm_from_last(address, '@');
    if (domain.ptr is null)
        return Text("***");
    return concat(wm_first_character(address), Text("***"), domain);
}

private Text concat(const(Text)[] parts...) {
    return wm_concat(parts.ptr, parts.length);
}
