/* walmill.h: write walmill plugins in C.
 *
 * A plugin says in `walmill_relation` what it needs of a table, then answers batches of changes in
 * `walmill_process` with a verdict for each: pass it on, drop it, reject it, send it to another
 * stream, or emit other rows in its place. A whole one:
 *
 *     #include "walmill.h"
 *
 *     WALMILL_PLUGIN("local", "0.1.0");
 *
 *     static wm_text country;
 *
 *     void walmill_init(wm_config *config) {
 *         country = wm_config_text(config, "country", NULL);
 *     }
 *
 *     void walmill_relation(const wm_relation *relation, wm_plan *plan) {
 *         wm_need(plan, "country");
 *     }
 *
 *     void walmill_process(wm_batch *batch) {
 *         for (wm_event event; wm_next_row(batch, &event);)
 *             if (!wm_equal(wm_get_text(&event, 0), country)) wm_drop(&event);
 *     }
 *
 * Compile it together with walmill.c, for wasm32 and without an entry; walmill loads the file as
 * it is:
 *
 *     zig cc -target wasm32-freestanding -O2 -nostdlib -Wl,--no-entry -o plugin.wasm \
 *         plugin.c walmill.c
 *     clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -o plugin.wasm plugin.c walmill.c
 *
 * No libc is needed. Memory is an arena: what is allocated in a call, by the functions here as by
 * walmill for the call's arguments, is gone when the call is answered, but for `walmill_init`,
 * whose memory stays. `wm_keep` and `wm_keep_text` keep what should outlive any other call. Only
 * the columns that a plan names cross into the plugin, so name few.
 */
#ifndef WALMILL_H
#define WALMILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef __wasm32__
#error "plugins are compiled for wasm32"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- text -------------------------------------------------------------------------------- */

/* UTF-8 with a length, and no zero behind it. `ptr` is NULL where there is no text at all. */
typedef struct wm_text {
    const char *ptr;
    size_t len;
} wm_text;

typedef struct wm_texts {
    const wm_text *items;
    size_t count;
} wm_texts;

/* A text in quotes as the initializer of a `wm_text`. */
#define WM_LITERAL(text) {"" text, sizeof(text) - 1}

/* The text of a zero-terminated string. */
wm_text wm_text_of(const char *string);
/* Whether they are the same. No text is not the same as an empty one. */
bool wm_equal(wm_text a, wm_text b);
/* Whether the text is one of them. */
bool wm_among(wm_text text, wm_texts texts);
/* Texts one behind the other. */
wm_text wm_concat(const wm_text *parts, size_t count);
#define WM_CONCAT(...) \
    wm_concat((const wm_text[]){__VA_ARGS__}, sizeof((wm_text[]){__VA_ARGS__}) / sizeof(wm_text))
/* The text with its ASCII letters in lower case. */
wm_text wm_lower(wm_text text);
/* Its first character, whole. */
wm_text wm_first_character(wm_text text);
/* From the last such byte on; without a pointer where there is none. */
wm_text wm_from_last(wm_text text, char byte);
/* In decimal digits. */
wm_text wm_decimal(int64_t number);

/* ---- memory ------------------------------------------------------------------------------ */

/* Room that is gone when the call is answered; of `walmill_init` it stays. Never NULL. */
void *wm_alloc(size_t size, size_t alignment);
/* Room that stays as long as the instance. */
void *wm_keep(size_t size, size_t alignment);
/* A copy that stays as long as the instance. */
wm_text wm_keep_text(wm_text text);

/* ---- the configuration ------------------------------------------------------------------- */

typedef enum wm_json_kind {
    WM_JSON_NULL,
    WM_JSON_BOOL,
    WM_JSON_NUMBER,
    WM_JSON_TEXT,
    WM_JSON_LIST,
    WM_JSON_TABLE,
} wm_json_kind;

/* A value of the configuration. */
typedef struct wm_json {
    wm_json_kind kind;
    /* Of a text what it says, of a number its digits. */
    wm_text text;
    bool boolean;
    /* Elements of a list, entries of a table; each leads to the one behind it. */
    struct wm_json *first, *next;
    /* Its name, in a table. */
    wm_text key;
    /* Whether someone asked for it. */
    bool known;
} wm_json;

/* What `walmill_init` is given: the plugin's `config` table. A key that no function here was asked
 * for is a finding, "unknown key"; findings refuse the plugin, and what was in force stays so. */
typedef struct wm_config {
    /* Which of the instances this is, and how many share the work. */
    uint32_t worker, workers;
    /* What comes out is compared, not delivered. */
    bool dry_run;
    wm_json *root;
} wm_config;

/* The value of a key; NULL where it is missing. */
const wm_json *wm_config_get(wm_config *config, const char *key);
/* Each gives `otherwise` where the key is missing, and adds a finding where the value is of
 * another kind. A text without an `otherwise` must be there. */
wm_text wm_config_text(wm_config *config, const char *key, const char *otherwise);
wm_texts wm_config_texts(wm_config *config, const char *key, wm_texts otherwise);
int64_t wm_config_int(wm_config *config, const char *key, int64_t otherwise);
bool wm_config_bool(wm_config *config, const char *key, bool otherwise);
/* Something is wrong at a path such as `columns[2]`. */
void wm_finding(wm_config *config, wm_text path, wm_text message);

/* ---- tables and plans -------------------------------------------------------------------- */

/* What a column's values are. */
enum {
    WM_NULL = 0,
    WM_BOOL = 1,
    WM_INT = 2,       /* smallint, integer, bigint */
    WM_FLOAT = 3,     /* real, double precision */
    WM_TIMESTAMP = 4, /* microseconds since 1970 UTC; INT64_MIN and INT64_MAX: the infinities */
    WM_DATE = 5,      /* days since 1970; infinities as above */
    WM_TIME = 6,      /* microseconds since midnight */
    WM_TEXT = 16,     /* text, and every type with no tag of its own as PostgreSQL prints it */
    WM_NUMERIC = 17,  /* decimal text */
    WM_JSON = 18,
    WM_BYTEA = 19,
    WM_UUID = 20, /* 16 bytes */
    WM_ARRAY = 21,
    WM_UNCHANGED = 32, /* a large value that an update left as it was, and was not sent */
    WM_ABSENT = 33,    /* a column of an old row outside the replica identity */
};

typedef struct wm_column {
    wm_text name;
    uint32_t type_oid;
    /* e.g. `numeric(12,2)` */
    wm_text type_name;
    /* The tag that its values have, unless they are null. */
    uint8_t tag;
    bool key;
} wm_column;

/* A table, as it is since its definition last changed. */
typedef struct wm_relation {
    uint32_t id;
    wm_text schema, table;
    const wm_column *columns;
    size_t column_count;
    /* Old rows are complete (replica identity full). */
    bool full_old_rows;
} wm_relation;

enum { WM_NO_COLUMN = UINT32_MAX };

/* The index of a column; WM_NO_COLUMN where there is none of that name. */
uint32_t wm_index_of(const wm_relation *relation, const char *name);

/* What `walmill_relation` fills in. As it comes, the plugin is called with no columns at all. */
typedef struct wm_plan {
    const wm_relation *relation;
    /* Yours: `event.data` of this table's events. It must outlive the call: see wm_keep. */
    void *data;
    struct wm_answer *answer;
} wm_plan;

typedef struct wm_shape wm_shape;

/* Asks for a column. Its cells are found in the events at the index that is returned: 0 for the
 * first that was asked for, 1 for the second. Refuses a table that has no such column. */
uint32_t wm_need(wm_plan *plan, const char *name);
/* The same by the column's index in the relation. */
uint32_t wm_need_at(wm_plan *plan, uint32_t column);
/* Old rows of updates and deletes, too. */
void wm_need_old(wm_plan *plan);
/* Positions and times of commits, too. */
void wm_need_envelope(wm_plan *plan);
/* Every event passes, or none does, and the plugin is never called. */
void wm_plan_pass(wm_plan *plan);
void wm_plan_drop(wm_plan *plan);
/* This table is none for this plugin, and why. The first reason counts. */
void wm_refuse(wm_plan *plan, wm_text reason);

/* A shape of rows that the plugin may emit: shape 0, then shape 1; without columns, or with all
 * of the table. */
wm_shape *wm_shape_new(wm_plan *plan);
wm_shape *wm_shape_of(wm_plan *plan);
/* The shape of events that pass. It has no computed columns. */
void wm_shape_passes(wm_shape *shape);
/* Another name for the table. */
void wm_shape_table(wm_shape *shape, wm_text table);
/* Each sets the column of that name, or adds one behind the others: an input column by its index
 * in the relation; cells that the plugin computes, in the order of the columns, whose values have
 * that tag; the same text in every row. */
void wm_shape_input(wm_shape *shape, wm_text name, uint32_t column);
void wm_shape_computed(wm_shape *shape, wm_text name, uint8_t tag);
void wm_shape_fixed(wm_shape *shape, wm_text name, wm_text value);
void wm_shape_remove(wm_shape *shape, wm_text name);

/* ---- events ------------------------------------------------------------------------------ */

enum {
    WM_INSERT = 0,
    WM_UPDATE = 1,
    WM_DELETE = 2,
    WM_TRUNCATE = 3,
    WM_MESSAGE = 4,
    WM_SNAPSHOT = 5, /* a row that was there before the slot */
};

/* What is known of a table's events from its plan. */
typedef struct wm_table {
    uint32_t id, width;
    void *data;
} wm_table;

/* Changes in the order in which they were committed. */
typedef struct wm_batch {
    uint32_t count;
    /* The rest is for the functions here. */
    uint32_t next;
    const struct wm_flat *flat;
    const uint8_t *ops, *tags;
    const uint32_t *relations, *starts;
    const uint64_t *cells;
    const char *heap;
    uint8_t *verdicts;
    wm_table table;
    struct wm_out *out;
} wm_batch;

/* One change. */
typedef struct wm_event {
    wm_batch *batch;
    uint32_t index, relation;
    uint8_t op;
    /* What the plan for the table has as `data`. */
    void *data;
    /* For the functions here: where its cells are, how many, and how many make a row. */
    uint32_t start, count, width;
} wm_event;

/* One value: which of the fields counts is a matter of the tag. */
typedef struct wm_cell {
    uint8_t tag;
    union {
        bool boolean;
        int64_t integer; /* WM_INT to WM_TIME, but for WM_FLOAT */
        double real;
        wm_text text; /* WM_TEXT to WM_ARRAY */
    };
} wm_cell;

void wm_find_table(wm_batch *batch, uint32_t relation);
wm_cell wm_unchanged(const wm_event *event, uint32_t index);

/* Takes the next event; false behind the last. */
inline bool wm_next(wm_batch *batch, wm_event *event) {
    uint32_t index = batch->next;
    if (index >= batch->count) return false;
    batch->next = index + 1;
    if (batch->relations[index] != batch->table.id) wm_find_table(batch, batch->relations[index]);
    event->batch = batch;
    event->index = index;
    event->relation = batch->relations[index];
    event->op = batch->ops[index];
    event->data = batch->table.data;
    event->start = batch->starts[index];
    event->count = batch->starts[index + 1] - event->start;
    event->width = batch->table.width;
    return true;
}

/* Takes the next event with a row as it now is: an insert, an update, a snapshot row. */
inline bool wm_next_row(wm_batch *batch, wm_event *event) {
    while (wm_next(batch, event))
        if (event->op <= WM_UPDATE || event->op == WM_SNAPSHOT) return true;
    return false;
}

/* The cell at a place among all of the event's. */
inline wm_cell wm_cell_at(const wm_event *event, uint32_t place) {
    wm_cell cell = {.tag = WM_ABSENT, .integer = 0};
    if (place >= event->count) return cell;
    const wm_batch *batch = event->batch;
    uint64_t data = batch->cells[event->start + place];
    cell.tag = batch->tags[event->start + place];
    if (cell.tag >= WM_TEXT && cell.tag < WM_UNCHANGED) {
        cell.text.ptr = batch->heap + (data >> 32);
        cell.text.len = (uint32_t)data;
    } else {
        cell.integer = (int64_t)data;
    }
    return cell;
}

/* The cell of the column that was asked for as number `index`: of the row as it is now, of a
 * delete as it was. Without one, as in a truncate, it is WM_ABSENT. A large value that an update
 * left as it was is taken from the old row, where there is one. */
inline wm_cell wm_get(const wm_event *event, uint32_t index) {
    wm_cell cell = wm_cell_at(event, index < event->width ? index : UINT32_MAX);
    return cell.tag == WM_UNCHANGED ? wm_unchanged(event, index) : cell;
}

/* The same of the row as it was, where the plan asked for it. */
inline wm_cell wm_get_old(const wm_event *event, uint32_t index) {
    return wm_cell_at(event, index < event->width ? event->width + index : UINT32_MAX);
}

/* Text, numeric, JSON, bytes; without a pointer where the cell is none of these. */
inline wm_text wm_get_text(const wm_event *event, uint32_t index) {
    wm_cell cell = wm_get(event, index);
    wm_text none = {NULL, 0};
    return cell.tag >= WM_TEXT && cell.tag < WM_UNCHANGED ? cell.text : none;
}

/* Position of the commit, and its time in microseconds since 1970 UTC, where the plan asked for
 * the envelope; else 0. Equal positions are of the same transaction. */
uint64_t wm_lsn(const wm_event *event);
int64_t wm_time(const wm_event *event);

/* ---- verdicts: pass, until something else is said ---------------------------------------- */

enum { WM_VERDICT_PASS, WM_VERDICT_DROP, WM_VERDICT_EMIT, WM_VERDICT_REJECT };

/* Takes back what was said of the event, and says that. */
void wm_judge(const wm_event *event, uint8_t verdict);

/* The event goes on as it is, or in the shape of those that pass. */
inline void wm_pass(const wm_event *event) { wm_judge(event, WM_VERDICT_PASS); }

/* The event goes nowhere. */
inline void wm_drop(const wm_event *event) {
    uint8_t *verdict = &event->batch->verdicts[event->index];
    if (*verdict > WM_VERDICT_DROP) wm_judge(event, WM_VERDICT_DROP);
    *verdict = WM_VERDICT_DROP;
}

/* The event goes to the dead letters, with the reason. */
void wm_reject(const wm_event *event, wm_text reason);
/* The event goes to another stream. walmill takes only names that the pipeline's `streams` allow. */
void wm_send(const wm_event *event, wm_text stream);

/* The event becomes a row of a shape of its table's plan; several calls make several rows. Add
 * the shape's computed cells, in order. */
void wm_emit(const wm_event *event, uint32_t shape);
void wm_add(const wm_event *event, wm_cell cell);
void wm_add_text(const wm_event *event, wm_text text);
void wm_add_int(const wm_event *event, int64_t integer);
void wm_add_bool(const wm_event *event, bool boolean);
void wm_add_float(const wm_event *event, double real);
void wm_add_null(const wm_event *event);
/* For other languages, whose unions look otherwise: a cell by its tag and bits, or bytes. */
void wm_add_data(const wm_event *event, uint8_t tag, uint64_t data);
void wm_add_bytes(const wm_event *event, uint8_t tag, wm_text bytes);
/* The row that was emitted last goes to another stream than the event. */
void wm_send_row(const wm_event *event, wm_text stream);
/* The whole batch fails. It is tried again in ever smaller parts, down to the event whose fault
 * it is. */
void wm_fail(wm_batch *batch, wm_text reason);

/* ---- what walmill offers ----------------------------------------------------------------- */

typedef enum wm_level { WM_TRACE, WM_DEBUG, WM_INFO, WM_WARN, WM_ERROR } wm_level;

/* To walmill's log, under the plugin's name. */
void wm_log(wm_level level, wm_text message);
/* Whether anyone would read it. */
bool wm_log_enabled(wm_level level);

/* Commit time of the event, microseconds since 1970 UTC: a replay sees the same. */
int64_t wm_now(void);

/* Metrics, told apart by the number that is returned. Make them in `walmill_init`. */
uint32_t wm_counter(wm_text name, wm_text help);
uint32_t wm_gauge(wm_text name, wm_text help);
void wm_counter_add(uint32_t counter, uint64_t delta);
void wm_gauge_set(uint32_t gauge, double value);

typedef enum wm_kv {
    WM_KV_OK,
    WM_KV_ABSENT,    /* no value under this key */
    WM_KV_TOO_LARGE, /* the key, or the value */
    WM_KV_QUOTA,     /* there is no more room */
    WM_KV_UNAVAILABLE,
} wm_kv;

/* State that outlives the instance, where the configuration grants it. What is written is durable
 * with the batch's events, and gone if the batch fails: exactly once. */
wm_kv wm_kv_get(wm_text key, wm_text *value);
wm_kv wm_kv_set(wm_text key, wm_text value);
wm_kv wm_kv_delete(wm_text key);

/* ---- what you write ---------------------------------------------------------------------- */

typedef struct wm_plugin {
    const char *name, *version;
    /* JSON Schema of the configuration, or "". */
    const char *config_schema;
} wm_plugin;

/* Name and version, once. */
#define WALMILL_PLUGIN(name, version) const wm_plugin walmill_plugin = {name, version, ""}

extern const wm_plugin walmill_plugin;
/* Takes the configuration. Once per instance. */
void walmill_init(wm_config *config);
/* Says what the plugin needs of a table. Before its first event, and again, under another id,
 * when its definition changed. */
void walmill_relation(const wm_relation *relation, wm_plan *plan);
/* Judges a batch. */
void walmill_process(wm_batch *batch);

#ifdef __cplusplus
}
#endif

#endif
