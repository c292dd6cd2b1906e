/* What is behind walmill.h: the canonical ABI of walmill:plugin@0.1.0, by hand.
 *
 * On wasm32 a C struct has the layout that the ABI gives a record of the same fields, so what
 * walmill writes is read in place, and what is answered is written as it is read. walmill asks
 * `cabi_realloc` for the room of a call's arguments, and calls `cabi_post_…` when it has read the
 * answer. */
#include "walmill.h"

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(module, name) \
    __attribute__((import_module("walmill:plugin/" module "@0.1.0"), import_name(name)))
#define LIFECYCLE "walmill:plugin/lifecycle@0.1.0#"
#define TRANSFORM "walmill:plugin/transform@0.1.0#"
#define WEAK __attribute__((weak))

/* What the compiler itself may call, for those who link no libc. */
#define FOR_COMPILER(name) WEAK __attribute__((no_builtin(name)))

FOR_COMPILER("memcpy") void *memcpy(void *to, const void *from, size_t size) {
    for (size_t at = 0; at < size; at++) ((char *)to)[at] = ((const char *)from)[at];
    return to;
}

FOR_COMPILER("memmove") void *memmove(void *to, const void *from, size_t size) {
    if ((uintptr_t)to <= (uintptr_t)from) return memcpy(to, from, size);
    while (size-- > 0) ((char *)to)[size] = ((const char *)from)[size];
    return to;
}

FOR_COMPILER("memset") void *memset(void *to, int byte, size_t size) {
    for (size_t at = 0; at < size; at++) ((char *)to)[at] = (char)byte;
    return to;
}

FOR_COMPILER("memcmp") int memcmp(const void *a, const void *b, size_t size) {
    for (size_t at = 0; at < size; at++) {
        int difference = ((const unsigned char *)a)[at] - ((const unsigned char *)b)[at];
        if (difference != 0) return difference;
    }
    return 0;
}

FOR_COMPILER("memchr") void *memchr(const void *in, int byte, size_t size) {
    for (size_t at = 0; at < size; at++)
        if (((const unsigned char *)in)[at] == (unsigned char)byte) return (char *)in + at;
    return NULL;
}

FOR_COMPILER("strlen") size_t strlen(const char *string) {
    size_t length = 0;
    while (string[length] != 0) length++;
    return length;
}

/* What libc++ calls where a view is asked for what is not in it. */
WEAK void wm_cpp_abort(const char *format, ...) __asm__("_ZNSt3__122__libcpp_verbose_abortEPKcz");
WEAK void wm_cpp_abort(const char *format, ...) {
    (void)format;
    __builtin_trap();
}

/* ---- memory: two regions that only grow --------------------------------------------------- */

typedef struct region {
    uintptr_t first, at, end;
} region;

/* Of the call; of the instance. */
static region scratch, kept;

enum { PAGE = 65536 };

/* More room, behind the region's own where no one else took that. What is in use stays in place;
 * a region that moves on at least doubles, so that what it leaves behind is less than it has. */
static void extend(region *region, size_t size) {
    size_t own = region->end - region->first;
    size_t pages = ((size > own ? size : own) + PAGE - 1) / PAGE;
    size_t start = __builtin_wasm_memory_grow(0, pages);
    if (start == (size_t)-1) __builtin_trap();
    if (start * PAGE != region->end) region->first = region->at = start * PAGE;
    region->end = (start + pages) * PAGE;
}

static void *take(region *region, size_t size, size_t alignment) {
    if (size > INT32_MAX) __builtin_trap();
    size_t padding = -region->at & (alignment - 1);
    if (region->end - region->at < size + padding) {
        extend(region, size + alignment);
        padding = -region->at & (alignment - 1);
    }
    uintptr_t start = region->at + padding;
    region->at = start + size;
    return (void *)start;
}

void *wm_alloc(size_t size, size_t alignment) { return take(&scratch, size, alignment); }
void *wm_keep(size_t size, size_t alignment) { return take(&kept, size, alignment); }

/* What the call took is free for the next one. */
static void release(void) { scratch.at = scratch.first; }

EXPORT("cabi_realloc")
void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size) {
    if (old != NULL && size <= old_size) return old;
    void *room = wm_alloc(size, alignment);
    if (old != NULL) memcpy(room, old, old_size);
    return room;
}

/* Static constructors run once, and not before each call. A libc may bring its own. */
void __wasm_call_ctors(void);
WEAK EXPORT("_initialize") void _initialize(void) { __wasm_call_ctors(); }

/* ---- lists that grow ---------------------------------------------------------------------- */

typedef struct list {
    void *items;
    uint32_t count, room;
} list;

/* As walmill reads it. */
typedef struct flat_list {
    const void *items;
    size_t count;
} flat_list;

static flat_list flat_of(list list) {
    flat_list flat = {list.items, list.count};
    return flat;
}

/* Room for so many more items. */
static void *add_many(list *list, size_t more, size_t size, size_t alignment) {
    if (more > list->room - list->count) {
        size_t room = list->count + (more > list->count ? more : list->count) + 16;
        void *items = wm_alloc(room * size, alignment);
        if (list->count > 0) memcpy(items, list->items, list->count * size);
        list->items = items;
        list->room = room;
    }
    void *place = (char *)list->items + list->count * size;
    list->count += more;
    return place;
}

#define ADD(type, list) ((type *)add_many(list, 1, sizeof(type), _Alignof(type)))

/* ---- text --------------------------------------------------------------------------------- */

wm_text wm_text_of(const char *string) {
    wm_text text = {string, strlen(string)};
    return text;
}

bool wm_equal(wm_text a, wm_text b) {
    if (a.len != b.len) return false;
    if (a.len == 0) return (a.ptr == NULL) == (b.ptr == NULL);
    return a.ptr[0] == b.ptr[0] && memcmp(a.ptr, b.ptr, a.len) == 0;
}

bool wm_among(wm_text text, wm_texts texts) {
    for (size_t at = 0; at < texts.count; at++)
        if (wm_equal(text, texts.items[at])) return true;
    return false;
}

static wm_text copy_to(char *to, wm_text text) {
    memcpy(to, text.ptr, text.len);
    text.ptr = to;
    return text;
}

wm_text wm_keep_text(wm_text text) { return copy_to(wm_keep(text.len, 1), text); }

wm_text wm_concat(const wm_text *parts, size_t count) {
    size_t len = 0;
    for (size_t at = 0; at < count; at++) len += parts[at].len;
    char *to = wm_alloc(len, 1), *end = to;
    for (size_t at = 0; at < count; at++) end += copy_to(end, parts[at]).len;
    wm_text all = {to, len};
    return all;
}

wm_text wm_lower(wm_text text) {
    char *to = wm_alloc(text.len, 1);
    for (size_t at = 0; at < text.len; at++) {
        char byte = text.ptr[at];
        to[at] = byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte;
    }
    text.ptr = to;
    return text;
}

wm_text wm_first_character(wm_text text) {
    size_t len = text.len > 0;
    while (len < text.len && (text.ptr[len] & 0xc0) == 0x80) len++;
    text.len = len;
    return text;
}

wm_text wm_from_last(wm_text text, char byte) {
    for (size_t at = text.len; at-- > 0;) {
        if (text.ptr[at] != byte) continue;
        wm_text rest = {text.ptr + at, text.len - at};
        return rest;
    }
    wm_text none = {NULL, 0};
    return none;
}

wm_text wm_decimal(int64_t number) {
    enum { MOST = 20 };
    char *end = (char *)wm_alloc(MOST, 1) + MOST, *at = end;
    uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do *--at = '0' + rest % 10;
    while ((rest /= 10) > 0);
    if (number < 0) *--at = '-';
    wm_text digits = {at, end - at};
    return digits;
}

/* ---- JSON, as walmill writes it ----------------------------------------------------------- */

typedef struct reader {
    const char *at, *end;
} reader;

static void skip_space(reader *in) {
    while (in->at < in->end && (unsigned char)*in->at <= ' ') in->at++;
}

/* Takes the byte if it is the next one. */
static bool took(reader *in, char byte) {
    skip_space(in);
    bool there = in->at < in->end && *in->at == byte;
    in->at += there;
    return there;
}

static uint32_t read_hex4(reader *in) {
    uint32_t code = 0;
    for (int digit = 0; digit < 4 && in->at < in->end; digit++) {
        char byte = *in->at++;
        code = code << 4 | (byte <= '9' ? byte - '0' : (byte | 0x20) - 'a' + 10);
    }
    return code;
}

static char *put_utf8(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = code;
    } else if (code < 0x800) {
        *to++ = 0xc0 | code >> 6;
        *to++ = 0x80 | (code & 0x3f);
    } else if (code < 0x10000) {
        *to++ = 0xe0 | code >> 12;
        *to++ = 0x80 | (code >> 6 & 0x3f);
        *to++ = 0x80 | (code & 0x3f);
    } else {
        *to++ = 0xf0 | code >> 18;
        *to++ = 0x80 | (code >> 12 & 0x3f);
        *to++ = 0x80 | (code >> 6 & 0x3f);
        *to++ = 0x80 | (code & 0x3f);
    }
    return to;
}

static char *put_escaped(char *to, reader *in) {
    if (in->at == in->end) return to;
    char letter = *in->at++;
    switch (letter) {
        case 'b': *to++ = '\b'; return to;
        case 'f': *to++ = '\f'; return to;
        case 'n': *to++ = '\n'; return to;
        case 'r': *to++ = '\r'; return to;
        case 't': *to++ = '\t'; return to;
        case 'u': break;
        default: *to++ = letter; return to;
    }
    uint32_t code = read_hex4(in);
    bool high = code >= 0xd800 && code < 0xdc00;
    if (high && in->end - in->at >= 6 && in->at[0] == '\\' && in->at[1] == 'u') {
        in->at += 2;
        code = 0x10000 + ((code - 0xd800) << 10) + (read_hex4(in) - 0xdc00);
    }
    return put_utf8(to, code);
}

/* Behind the opening quote. What is written takes no more room than how it was written. */
static wm_text read_text(reader *in) {
    char *start = wm_alloc(in->end - in->at, 1), *to = start;
    while (in->at < in->end && *in->at != '"') {
        char byte = *in->at++;
        if (byte == '\\') to = put_escaped(to, in);
        else *to++ = byte;
    }
    in->at += in->at < in->end;
    wm_text text = {start, to - start};
    return text;
}

static wm_json *read_json(reader *in);

static wm_json *read_items(reader *in, char close) {
    wm_json *first = NULL, **place = &first;
    while (in->at < in->end && !took(in, close)) {
        wm_text key = {NULL, 0};
        if (close == '}' && took(in, '"')) key = read_text(in);
        took(in, ':');
        *place = read_json(in);
        (*place)->key = key;
        place = &(*place)->next;
        took(in, ',');
    }
    return first;
}

static wm_json *read_json(reader *in) {
    wm_json *json = wm_alloc(sizeof *json, _Alignof(wm_json));
    *json = (wm_json){.kind = WM_JSON_NULL};
    if (took(in, '"')) {
        json->kind = WM_JSON_TEXT;
        json->text = read_text(in);
    } else if (took(in, '[')) {
        json->kind = WM_JSON_LIST;
        json->first = read_items(in, ']');
    } else if (took(in, '{')) {
        json->kind = WM_JSON_TABLE;
        json->first = read_items(in, '}');
    } else if (in->at < in->end) {
        const char *start = in->at++;
        while (in->at < in->end && *in->at > ' ' && *in->at != ',' && *in->at != ']' &&
               *in->at != '}')
            in->at++;
        json->text = (wm_text){start, in->at - start};
        bool word = *start == 't' || *start == 'f';
        json->kind = word ? WM_JSON_BOOL : *start == 'n' ? WM_JSON_NULL : WM_JSON_NUMBER;
        json->boolean = *start == 't';
    }
    return json;
}

/* ---- the configuration -------------------------------------------------------------------- */

typedef struct finding {
    wm_text path, message;
} finding;

static list findings;

void wm_finding(wm_config *config, wm_text path, wm_text message) {
    (void)config;
    *ADD(finding, &findings) = (finding){path, message};
}

static void find(wm_config *config, const char *key, const char *message) {
    wm_finding(config, wm_text_of(key), wm_text_of(message));
}

static wm_json *look_up(wm_config *config, const char *key) {
    wm_text name = wm_text_of(key);
    wm_json *json = config->root->first;
    while (json != NULL && !wm_equal(json->key, name)) json = json->next;
    if (json != NULL) json->known = true;
    return json;
}

const wm_json *wm_config_get(wm_config *config, const char *key) { return look_up(config, key); }

wm_text wm_config_text(wm_config *config, const char *key, const char *otherwise) {
    const wm_json *json = look_up(config, key);
    if (json != NULL && json->kind == WM_JSON_TEXT) return json->text;
    if (json != NULL) find(config, key, "must be a text");
    else if (otherwise == NULL) find(config, key, "is missing: a text");
    return wm_text_of(otherwise == NULL ? "" : otherwise);
}

static wm_text element_path(const char *key, size_t index) {
    return WM_CONCAT(wm_text_of(key), wm_text_of("["), wm_decimal(index), wm_text_of("]"));
}

wm_texts wm_config_texts(wm_config *config, const char *key, wm_texts otherwise) {
    const wm_json *json = look_up(config, key);
    if (json == NULL) return otherwise;
    if (json->kind != WM_JSON_LIST) {
        find(config, key, "must be a list of texts");
        return otherwise;
    }
    list texts = {0};
    size_t index = 0;
    for (const wm_json *item = json->first; item != NULL; item = item->next, index++) {
        if (item->kind == WM_JSON_TEXT) *ADD(wm_text, &texts) = item->text;
        else wm_finding(config, element_path(key, index), wm_text_of("must be a text"));
    }
    return (wm_texts){texts.items, texts.count};
}

/* False where it has other characters than an integer's, or is beyond 64 bits. */
static bool read_int(wm_text digits, int64_t *number) {
    bool negative = digits.len > 0 && digits.ptr[0] == '-';
    int64_t value = 0;
    for (size_t at = negative; at < digits.len; at++) {
        unsigned digit = (unsigned char)digits.ptr[at] - '0';
        if (digit > 9 || value < (INT64_MIN + (int64_t)digit) / 10) return false;
        value = value * 10 - digit;
    }
    /* Counted downwards, where there is one more. */
    if (!negative && value == INT64_MIN) return false;
    *number = negative ? value : -value;
    return true;
}

int64_t wm_config_int(wm_config *config, const char *key, int64_t otherwise) {
    const wm_json *json = look_up(config, key);
    int64_t number = otherwise;
    if (json != NULL && !(json->kind == WM_JSON_NUMBER && read_int(json->text, &number))) {
        find(config, key, "must be an integer");
        return otherwise;
    }
    return number;
}

bool wm_config_bool(wm_config *config, const char *key, bool otherwise) {
    const wm_json *json = look_up(config, key);
    if (json == NULL) return otherwise;
    if (json->kind == WM_JSON_BOOL) return json->boolean;
    find(config, key, "must be true or false");
    return otherwise;
}

static void find_unknown(wm_config *config) {
    for (const wm_json *json = config->root->first; json != NULL; json = json->next)
        if (!json->known) wm_finding(config, json->key, wm_text_of("unknown key"));
}

/* ---- lifecycle ---------------------------------------------------------------------------- */

typedef struct description {
    wm_text name, version;
    flat_list wants;
    wm_text config_schema;
} description;

EXPORT(LIFECYCLE "describe") description *wm_export_describe(void) {
    static description answer;
    answer.name = wm_text_of(walmill_plugin.name);
    answer.version = wm_text_of(walmill_plugin.version);
    answer.config_schema = wm_text_of(walmill_plugin.config_schema);
    return &answer;
}

typedef struct findings_result {
    bool failed;
    flat_list findings;
} findings_result;

EXPORT(LIFECYCLE "init")
findings_result *wm_export_init(
    const char *json, size_t len, uint32_t worker, uint32_t workers, uint32_t dry_run
) {
    static findings_result answer;
    reader in = {json, json + len};
    wm_config config = {worker, workers, dry_run != 0, read_json(&in)};
    walmill_init(&config);
    find_unknown(&config);
    answer.failed = findings.count > 0;
    answer.findings = flat_of(findings);
    /* What was allocated stays. */
    scratch.first = scratch.at;
    return &answer;
}

/* ---- plans -------------------------------------------------------------------------------- */

/* The tables that were announced, in the order of their ids. */
static struct {
    wm_table *items;
    uint32_t count, room;
} tables;

/* The first that is not before the id. */
static uint32_t place_of(uint32_t id) {
    uint32_t from = 0, to = tables.count;
    while (from < to) {
        uint32_t middle = (from + to) / 2;
        if (tables.items[middle].id < id) from = middle + 1;
        else to = middle;
    }
    return from;
}

static void announce(wm_table table) {
    uint32_t place = place_of(table.id);
    if (place < tables.count && tables.items[place].id == table.id) {
        tables.items[place] = table;
        return;
    }
    if (tables.count == tables.room) {
        tables.room = 2 * tables.room + 8;
        wm_table *items = wm_keep(tables.room * sizeof table, _Alignof(wm_table));
        memcpy(items, tables.items, tables.count * sizeof table);
        tables.items = items;
    }
    wm_table *at = tables.items + place;
    memmove(at + 1, at, (tables.count - place) * sizeof table);
    *at = table;
    tables.count++;
}

void wm_find_table(wm_batch *batch, uint32_t relation) {
    uint32_t place = place_of(relation);
    bool known = place < tables.count && tables.items[place].id == relation;
    batch->table = known ? tables.items[place] : (wm_table){.id = relation};
}

enum { MODE_CALL, MODE_PASS, MODE_DROP };
enum { SOURCE_INPUT, SOURCE_COMPUTED, SOURCE_FIXED };

typedef struct out_column {
    wm_text name;
    uint8_t source;
    union {
        uint32_t input;
        uint8_t computed;
        wm_text fixed;
    };
} out_column;

typedef struct flat_shape {
    bool has_table;
    wm_text table;
    flat_list columns;
} flat_shape;

typedef struct flat_plan {
    uint8_t mode;
    flat_list needs;
    bool old, envelope;
    flat_list shapes;
    bool has_pass_shape;
    uint32_t pass_shape;
} flat_plan;

struct wm_shape {
    wm_plan *plan;
    uint32_t index;
    bool has_table;
    wm_text table;
    list columns;
    wm_shape *next;
};

struct wm_answer {
    flat_plan plan;
    list needs;
    wm_shape *first, *last;
    uint32_t shapes;
    wm_text refusal;
};

uint32_t wm_index_of(const wm_relation *relation, const char *name) {
    wm_text wanted = wm_text_of(name);
    for (uint32_t index = 0; index < relation->column_count; index++)
        if (wm_equal(relation->columns[index].name, wanted)) return index;
    return WM_NO_COLUMN;
}

uint32_t wm_need_at(wm_plan *plan, uint32_t column) {
    *ADD(uint32_t, &plan->answer->needs) = column;
    return plan->answer->needs.count - 1;
}

uint32_t wm_need(wm_plan *plan, const char *name) {
    uint32_t column = wm_index_of(plan->relation, name);
    if (column == WM_NO_COLUMN)
        wm_refuse(plan, WM_CONCAT(wm_text_of("no column `"), wm_text_of(name), wm_text_of("`")));
    return wm_need_at(plan, column);
}

void wm_need_old(wm_plan *plan) { plan->answer->plan.old = true; }
void wm_need_envelope(wm_plan *plan) { plan->answer->plan.envelope = true; }
void wm_plan_pass(wm_plan *plan) { plan->answer->plan.mode = MODE_PASS; }
void wm_plan_drop(wm_plan *plan) { plan->answer->plan.mode = MODE_DROP; }

void wm_refuse(wm_plan *plan, wm_text reason) {
    if (plan->answer->refusal.ptr == NULL) plan->answer->refusal = reason;
}

wm_shape *wm_shape_new(wm_plan *plan) {
    struct wm_answer *answer = plan->answer;
    wm_shape *shape = wm_alloc(sizeof *shape, _Alignof(wm_shape));
    *shape = (wm_shape){.plan = plan, .index = answer->shapes++};
    if (answer->last == NULL) answer->first = shape;
    else answer->last->next = shape;
    return answer->last = shape;
}

wm_shape *wm_shape_of(wm_plan *plan) {
    wm_shape *shape = wm_shape_new(plan);
    for (uint32_t index = 0; index < plan->relation->column_count; index++)
        wm_shape_input(shape, plan->relation->columns[index].name, index);
    return shape;
}

void wm_shape_passes(wm_shape *shape) {
    shape->plan->answer->plan.has_pass_shape = true;
    shape->plan->answer->plan.pass_shape = shape->index;
}

void wm_shape_table(wm_shape *shape, wm_text table) {
    shape->has_table = true;
    shape->table = table;
}

static out_column *shape_column(wm_shape *shape, wm_text name) {
    out_column *columns = shape->columns.items;
    for (uint32_t index = 0; index < shape->columns.count; index++)
        if (wm_equal(columns[index].name, name)) return &columns[index];
    return NULL;
}

static void set_column(wm_shape *shape, out_column column) {
    out_column *place = shape_column(shape, column.name);
    if (place == NULL) place = ADD(out_column, &shape->columns);
    *place = column;
}

void wm_shape_input(wm_shape *shape, wm_text name, uint32_t column) {
    set_column(shape, (out_column){.name = name, .source = SOURCE_INPUT, .input = column});
}

void wm_shape_computed(wm_shape *shape, wm_text name, uint8_t tag) {
    set_column(shape, (out_column){.name = name, .source = SOURCE_COMPUTED, .computed = tag});
}

void wm_shape_fixed(wm_shape *shape, wm_text name, wm_text value) {
    set_column(shape, (out_column){.name = name, .source = SOURCE_FIXED, .fixed = value});
}

void wm_shape_remove(wm_shape *shape, wm_text name) {
    out_column *columns = shape->columns.items, *place = shape_column(shape, name);
    if (place == NULL) return;
    shape->columns.count--;
    memmove(place, place + 1, (columns + shape->columns.count - place) * sizeof *place);
}

static flat_list flat_shapes(const struct wm_answer *answer) {
    flat_shape *shapes = wm_alloc(answer->shapes * sizeof *shapes, _Alignof(flat_shape));
    for (const wm_shape *shape = answer->first; shape != NULL; shape = shape->next)
        shapes[shape->index] =
            (flat_shape){shape->has_table, shape->table, flat_of(shape->columns)};
    return (flat_list){shapes, answer->shapes};
}

typedef struct plan_result {
    bool failed;
    union {
        flat_plan plan;
        wm_text reason;
    };
} plan_result;

EXPORT(TRANSFORM "on-relation")
plan_result *wm_export_on_relation(
    uint32_t id, const char *schema, size_t schema_len, const char *table, size_t table_len,
    const wm_column *columns, size_t column_count, uint32_t full_old_rows
) {
    static plan_result result;
    wm_relation relation = {
        id, {schema, schema_len}, {table, table_len}, columns, column_count, full_old_rows != 0,
    };
    struct wm_answer answer = {0};
    wm_plan plan = {&relation, NULL, &answer};
    walmill_relation(&relation, &plan);
    result.failed = answer.refusal.ptr != NULL;
    if (result.failed) {
        result.reason = answer.refusal;
        return &result;
    }
    answer.plan.needs = flat_of(answer.needs);
    answer.plan.shapes = flat_shapes(&answer);
    result.plan = answer.plan;
    announce((wm_table){id, answer.needs.count, plan.data});
    return &result;
}

EXPORT("cabi_post_" TRANSFORM "on-relation") void wm_after_on_relation(void *answer) {
    (void)answer;
    release();
}

/* ---- events ------------------------------------------------------------------------------- */

extern inline bool wm_next(wm_batch *batch, wm_event *event);
extern inline bool wm_next_row(wm_batch *batch, wm_event *event);
extern inline wm_cell wm_cell_at(const wm_event *event, uint32_t place);
extern inline wm_cell wm_get(const wm_event *event, uint32_t index);
extern inline wm_cell wm_get_old(const wm_event *event, uint32_t index);
extern inline wm_text wm_get_text(const wm_event *event, uint32_t index);
extern inline void wm_pass(const wm_event *event);
extern inline void wm_drop(const wm_event *event);

/* The batch, as walmill writes it. */
struct wm_flat {
    uint32_t count;
    flat_list ops, relations, lsns, times, starts, tags, data, heap;
};

/* The answer, as it grows. */
struct wm_out {
    list row_events, row_shapes, row_routes, starts, tags, data, heap, routes, reasons;
    /* One for each event, or none as long as all go the usual way. */
    uint32_t *event_routes;
    /* The route that was asked for last: the next one is often the same. */
    uint32_t last_route;
    wm_text failure;
};

wm_cell wm_unchanged(const wm_event *event, uint32_t index) {
    wm_cell old = wm_cell_at(event, event->width + index);
    return old.tag == WM_ABSENT ? (wm_cell){.tag = WM_UNCHANGED} : old;
}

uint64_t wm_lsn(const wm_event *event) {
    flat_list lsns = event->batch->flat->lsns;
    return event->index < lsns.count ? ((const uint64_t *)lsns.items)[event->index] : 0;
}

int64_t wm_time(const wm_event *event) {
    flat_list times = event->batch->flat->times;
    return event->index < times.count ? ((const int64_t *)times.items)[event->index] : 0;
}

/* ---- verdicts ----------------------------------------------------------------------------- */

/* Events are judged one after the other, so an event's rows and its reason are the last ones. */
static void take_back_rows(struct wm_out *out, uint32_t event) {
    const uint32_t *events = out->row_events.items, *starts = out->starts.items;
    uint32_t rows = out->row_events.count;
    while (rows > 0 && events[rows - 1] == event) rows--;
    if (rows == out->row_events.count) return;
    out->tags.count = out->data.count = starts[rows];
    out->row_events.count = out->row_shapes.count = out->starts.count = rows;
    if (out->row_routes.count > rows) out->row_routes.count = rows;
}

void wm_judge(const wm_event *event, uint8_t verdict) {
    struct wm_out *out = event->batch->out;
    uint8_t *place = &event->batch->verdicts[event->index];
    if (*place == WM_VERDICT_REJECT) out->reasons.count--;
    if (*place == WM_VERDICT_EMIT && verdict != WM_VERDICT_EMIT) take_back_rows(out, event->index);
    *place = verdict;
}

void wm_reject(const wm_event *event, wm_text reason) {
    wm_judge(event, WM_VERDICT_REJECT);
    *ADD(wm_text, &event->batch->out->reasons) = reason;
}

/* The route's number: 0 is the usual one. */
static uint32_t route_of(struct wm_out *out, wm_text stream) {
    const wm_text *routes = out->routes.items;
    if (out->last_route > 0 && wm_equal(routes[out->last_route - 1], stream))
        return out->last_route;
    for (uint32_t at = 0; at < out->routes.count; at++)
        if (wm_equal(routes[at], stream)) return out->last_route = at + 1;
    *ADD(wm_text, &out->routes) = stream;
    return out->last_route = out->routes.count;
}

void wm_send(const wm_event *event, wm_text stream) {
    struct wm_out *out = event->batch->out;
    if (out->event_routes == NULL) {
        size_t size = event->batch->count * sizeof(uint32_t);
        out->event_routes = memset(wm_alloc(size, _Alignof(uint32_t)), 0, size);
    }
    out->event_routes[event->index] = route_of(out, stream);
}

void wm_emit(const wm_event *event, uint32_t shape) {
    struct wm_out *out = event->batch->out;
    wm_judge(event, WM_VERDICT_EMIT);
    *ADD(uint32_t, &out->row_events) = event->index;
    *ADD(uint32_t, &out->row_shapes) = shape;
    *ADD(uint32_t, &out->starts) = out->tags.count;
}

static void add_routes(struct wm_out *out) {
    uint32_t missing = out->row_events.count - out->row_routes.count;
    void *room = add_many(&out->row_routes, missing, sizeof(uint32_t), _Alignof(uint32_t));
    memset(room, 0, missing * sizeof(uint32_t));
}

void wm_send_row(const wm_event *event, wm_text stream) {
    struct wm_out *out = event->batch->out;
    if (out->row_events.count == 0) return;
    add_routes(out);
    ((uint32_t *)out->row_routes.items)[out->row_routes.count - 1] = route_of(out, stream);
}

static void add_cell(struct wm_out *out, uint8_t tag, uint64_t data) {
    *ADD(uint8_t, &out->tags) = tag;
    *ADD(uint64_t, &out->data) = data;
}

void wm_add_data(const wm_event *event, uint8_t tag, uint64_t data) {
    add_cell(event->batch->out, tag, data);
}

void wm_add_bytes(const wm_event *event, uint8_t tag, wm_text bytes) {
    struct wm_out *out = event->batch->out;
    uint64_t start = out->heap.count;
    memcpy(add_many(&out->heap, bytes.len, 1, 1), bytes.ptr, bytes.len);
    add_cell(out, tag, start << 32 | bytes.len);
}

void wm_add(const wm_event *event, wm_cell cell) {
    if (cell.tag >= WM_TEXT && cell.tag < WM_UNCHANGED) {
        wm_add_bytes(event, cell.tag, cell.text);
    } else {
        bool empty = cell.tag == WM_NULL || cell.tag >= WM_UNCHANGED;
        wm_add_data(event, cell.tag, empty ? 0 : cell.tag == WM_BOOL ? cell.boolean : cell.integer);
    }
}

void wm_add_text(const wm_event *event, wm_text text) {
    wm_add(event, (wm_cell){.tag = text.ptr == NULL ? WM_NULL : WM_TEXT, .text = text});
}

void wm_add_int(const wm_event *event, int64_t integer) {
    wm_add(event, (wm_cell){.tag = WM_INT, .integer = integer});
}

void wm_add_bool(const wm_event *event, bool boolean) {
    wm_add(event, (wm_cell){.tag = WM_BOOL, .boolean = boolean});
}

void wm_add_float(const wm_event *event, double real) {
    wm_add(event, (wm_cell){.tag = WM_FLOAT, .real = real});
}

void wm_add_null(const wm_event *event) { wm_add(event, (wm_cell){.tag = WM_NULL}); }

void wm_fail(wm_batch *batch, wm_text reason) {
    if (batch->out->failure.ptr == NULL) batch->out->failure = reason;
}

typedef struct flat_outcome {
    flat_list verdicts, event_routes, row_events, row_shapes, row_routes, starts, tags, data;
    flat_list heap, routes, reasons;
} flat_outcome;

typedef struct outcome_result {
    bool failed;
    union {
        flat_outcome outcome;
        wm_text reason;
    };
} outcome_result;

static flat_outcome finish(const wm_batch *batch) {
    struct wm_out *out = batch->out;
    if (out->tags.count > 0) *ADD(uint32_t, &out->starts) = out->tags.count;
    else out->starts.count = 0;
    if (out->row_routes.count > 0) add_routes(out);
    return (flat_outcome){
        .verdicts = {batch->verdicts, batch->count},
        .event_routes = {out->event_routes, out->event_routes == NULL ? 0 : batch->count},
        .row_events = flat_of(out->row_events),
        .row_shapes = flat_of(out->row_shapes),
        .row_routes = flat_of(out->row_routes),
        .starts = flat_of(out->starts),
        .tags = flat_of(out->tags),
        .data = flat_of(out->data),
        .heap = flat_of(out->heap),
        .routes = flat_of(out->routes),
        .reasons = flat_of(out->reasons),
    };
}

EXPORT(TRANSFORM "process") outcome_result *wm_export_process(const struct wm_flat *flat) {
    static outcome_result result;
    struct wm_out out = {0};
    wm_batch batch = {
        .count = flat->count,
        .flat = flat,
        .ops = flat->ops.items,
        .tags = flat->tags.items,
        .relations = flat->relations.items,
        .starts = flat->starts.items,
        .cells = flat->data.items,
        .heap = flat->heap.items,
        .verdicts = memset(wm_alloc(flat->count, 1), WM_VERDICT_PASS, flat->count),
        .out = &out,
    };
    if (batch.count > 0) wm_find_table(&batch, batch.relations[0]);
    walmill_process(&batch);
    result.failed = out.failure.ptr != NULL;
    if (result.failed) result.reason = out.failure;
    else result.outcome = finish(&batch);
    return &result;
}

EXPORT("cabi_post_" TRANSFORM "process") void wm_after_process(void *answer) {
    (void)answer;
    release();
}

/* ---- what walmill offers ------------------------------------------------------------------ */

IMPORT("log", "enabled") int host_log_enabled(int level);
IMPORT("log", "log") void host_log(int level, const char *text, size_t len);
IMPORT("clock", "now") int64_t host_now(void);
IMPORT("metrics", "counter")
uint32_t host_counter(const char *name, size_t len, const char *help, size_t help_len);
IMPORT("metrics", "gauge")
uint32_t host_gauge(const char *name, size_t len, const char *help, size_t help_len);
IMPORT("metrics", "add") void host_add(uint32_t id, uint64_t delta);
IMPORT("metrics", "set") void host_set(uint32_t id, double value);

typedef struct kv_result {
    bool failed;
    union {
        uint8_t error;
        struct {
            bool present;
            wm_text value;
        };
        /* The largest: an error with a text. */
        struct {
            uint8_t unavailable;
            wm_text why;
        };
    };
} kv_result;

IMPORT("kv", "get") void host_kv_get(const char *key, size_t len, kv_result *result);
IMPORT("kv", "set")
void host_kv_set(const char *key, size_t len, const char *value, size_t size, kv_result *result);
IMPORT("kv", "delete") void host_kv_delete(const char *key, size_t len, kv_result *result);

bool wm_log_enabled(wm_level level) { return host_log_enabled(level) != 0; }
void wm_log(wm_level level, wm_text message) { host_log(level, message.ptr, message.len); }
int64_t wm_now(void) { return host_now(); }

uint32_t wm_counter(wm_text name, wm_text help) {
    return host_counter(name.ptr, name.len, help.ptr, help.len);
}

uint32_t wm_gauge(wm_text name, wm_text help) {
    return host_gauge(name.ptr, name.len, help.ptr, help.len);
}

void wm_counter_add(uint32_t counter, uint64_t delta) { host_add(counter, delta); }
void wm_gauge_set(uint32_t gauge, double value) { host_set(gauge, value); }

static wm_kv outcome_of(const kv_result *result) {
    return result->failed ? (wm_kv)(WM_KV_TOO_LARGE + result->error) : WM_KV_OK;
}

wm_kv wm_kv_get(wm_text key, wm_text *value) {
    kv_result result;
    host_kv_get(key.ptr, key.len, &result);
    if (result.failed) return outcome_of(&result);
    if (!result.present) return WM_KV_ABSENT;
    *value = result.value;
    return WM_KV_OK;
}

wm_kv wm_kv_set(wm_text key, wm_text value) {
    kv_result result;
    host_kv_set(key.ptr, key.len, value.ptr, value.len, &result);
    return outcome_of(&result);
}

wm_kv wm_kv_delete(wm_text key) {
    kv_result result;
    host_kv_delete(key.ptr, key.len, &result);
    return outcome_of(&result);
}
