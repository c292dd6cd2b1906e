// walmill.hpp: write walmill plugins in C++20. A thin layer over walmill.h, which see.
//
// A plugin says in `relation` what it needs of a table, then answers batches of changes in
// `process` with a verdict for each. A whole one:
//
//     #include "walmill.hpp"
//
//     class Local {
//         walmill::Text country;
//
//     public:
//         explicit Local(walmill::Config config) : country(config.text("country")) {}
//
//         void relation(walmill::Relation, walmill::Plan plan) { plan.need("country"); }
//
//         void process(walmill::Batch batch) {
//             for (walmill::Event event : batch.rows())
//                 if (event.text(0) != country) event.drop();
//         }
//     };
//
//     WALMILL_EXPORT(Local, "local", "0.1.0");
//
// Nothing here throws, and nothing here needs more of the standard library than its headers.
// Texts are views: those of a batch are good until it is answered, those of the configuration as
// long as the plugin. `walmill::keep` copies one that should live longer.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <new>
#include <optional>
#include <string_view>

#include "walmill.h"

namespace walmill {

using Text = std::string_view;

inline Text view(wm_text text) { return {text.ptr, text.len}; }
inline wm_text flat(Text text) { return {text.data(), text.size()}; }

/// A copy that lives as long as the plugin.
inline Text keep(Text text) { return view(wm_keep_text(flat(text))); }
/// Texts one behind the other, until the call is answered.
template <class... Texts> Text concat(Texts... texts) {
    const wm_text parts[] = {flat(texts)...};
    return view(wm_concat(parts, sizeof...(texts)));
}
/// With ASCII letters in lower case.
inline Text lower(Text text) { return view(wm_lower(flat(text))); }
inline Text decimal(std::int64_t number) { return view(wm_decimal(number)); }
/// The first character, whole.
inline Text first_character(Text text) { return view(wm_first_character(flat(text))); }

/// A list of texts of the configuration.
class Texts {
    wm_texts texts;

public:
    explicit Texts(wm_texts texts) : texts(texts) {}
    std::size_t size() const { return texts.count; }
    Text operator[](std::size_t index) const { return view(texts.items[index]); }
    bool contains(std::optional<Text> text) const {
        return text && wm_among(flat(*text), texts);
    }
};

/// The plugin's `config` table. A key that nothing was asked for is a finding, and so is a value
/// of another kind than was asked for.
class Config {
    wm_config *config;

public:
    explicit Config(wm_config *config) : config(config) {}
    /// It must be there.
    Text text(const char *key) { return view(wm_config_text(config, key, nullptr)); }
    Text text(const char *key, const char *otherwise) {
        return view(wm_config_text(config, key, otherwise));
    }
    Texts texts(const char *key, std::initializer_list<Text> otherwise) {
        auto *items = static_cast<wm_text *>(
            wm_alloc(otherwise.size() * sizeof(wm_text), alignof(wm_text)));
        std::size_t count = 0;
        for (Text text : otherwise) items[count++] = flat(text);
        return Texts(wm_config_texts(config, key, {items, count}));
    }
    std::int64_t integer(const char *key, std::int64_t otherwise) {
        return wm_config_int(config, key, otherwise);
    }
    bool boolean(const char *key, bool otherwise) {
        return wm_config_bool(config, key, otherwise);
    }
    /// Any value, to be read by hand; null where it is missing.
    const wm_json *json(const char *key) { return wm_config_get(config, key); }
    /// Something is wrong at a path such as `columns[2]`: the plugin is refused.
    void finding(Text path, Text message) {
        wm_finding(config, wm_keep_text(flat(path)), wm_keep_text(flat(message)));
    }
    std::uint32_t worker() const { return config->worker; }
    std::uint32_t workers() const { return config->workers; }
    bool dry_run() const { return config->dry_run; }
};

/// A column of a table.
class Column {
    const wm_column *column;

public:
    explicit Column(const wm_column *column) : column(column) {}
    Text name() const { return view(column->name); }
    std::uint32_t type_oid() const { return column->type_oid; }
    Text type_name() const { return view(column->type_name); }
    std::uint8_t tag() const { return column->tag; }
    bool key() const { return column->key; }
};

/// A table, as it is since its definition last changed.
class Relation {
    const wm_relation *relation;

public:
    explicit Relation(const wm_relation *relation) : relation(relation) {}
    std::uint32_t id() const { return relation->id; }
    Text schema() const { return view(relation->schema); }
    Text table() const { return view(relation->table); }
    std::size_t size() const { return relation->column_count; }
    Column operator[](std::size_t index) const { return Column(&relation->columns[index]); }
    bool full_old_rows() const { return relation->full_old_rows; }
    std::optional<std::uint32_t> index_of(const char *name) const {
        std::uint32_t index = wm_index_of(relation, name);
        return index == WM_NO_COLUMN ? std::nullopt : std::optional(index);
    }
};

/// A shape of rows that may be emitted. Each call sets the column of that name, or adds one.
class Shape {
    wm_shape *shape;

    static wm_text copy(Text text) { return wm_concat(std::initializer_list{flat(text)}.begin(), 1); }

public:
    explicit Shape(wm_shape *shape) : shape(shape) {}
    /// An input column, by its index in the relation. Its values never enter the plugin.
    Shape &input(Text name, std::uint32_t column) {
        wm_shape_input(shape, copy(name), column);
        return *this;
    }
    /// Cells that the plugin adds to each row, in the order of the columns.
    Shape &computed(Text name, std::uint8_t tag) {
        wm_shape_computed(shape, copy(name), tag);
        return *this;
    }
    /// The same text in every row.
    Shape &fixed(Text name, Text value) {
        wm_shape_fixed(shape, copy(name), copy(value));
        return *this;
    }
    Shape &remove(Text name) {
        wm_shape_remove(shape, flat(name));
        return *this;
    }
    /// Another name for the table.
    Shape &table(Text name) {
        wm_shape_table(shape, copy(name));
        return *this;
    }
    /// It is the shape of events that pass, too.
    Shape &passes() {
        wm_shape_passes(shape);
        return *this;
    }
};

/// What the plugin needs of a table. As it comes, it is called with no columns at all.
class Plan {
    wm_plan *plan;

public:
    explicit Plan(wm_plan *plan) : plan(plan) {}
    /// Asks for a column: the first is cell 0. A table without it is refused.
    std::uint32_t need(const char *name) { return wm_need(plan, name); }
    std::uint32_t need(std::uint32_t column) { return wm_need_at(plan, column); }
    void need_old() { wm_need_old(plan); }
    void need_envelope() { wm_need_envelope(plan); }
    /// Every event passes, or none does, and the plugin is never called.
    void pass() { wm_plan_pass(plan); }
    void drop() { wm_plan_drop(plan); }
    void refuse(Text reason) {
        const wm_text part = flat(reason);
        wm_refuse(plan, wm_concat(&part, 1));
    }
    /// The next shape, without columns; the first is shape 0.
    Shape shape() { return Shape(wm_shape_new(plan)); }
    /// The next shape, with all columns of the table.
    Shape shape_of_table() { return Shape(wm_shape_of(plan)); }
    /// `Event::data` of this table's events. What it points to must outlive the call.
    void data(void *data) { plan->data = data; }
};

/// One value; without one of the kind that is asked for, nothing.
class Cell {
    wm_cell cell;

public:
    Cell(wm_cell cell) : cell(cell) {}
    Cell(Text text) : cell{.tag = WM_TEXT, .text = flat(text)} {}
    Cell(const char *text) : Cell(Text(text)) {}
    Cell(std::int64_t integer) : cell{.tag = WM_INT, .integer = integer} {}
    Cell(double real) : cell{.tag = WM_FLOAT, .real = real} {}
    Cell(bool boolean) : cell{.tag = WM_BOOL, .boolean = boolean} {}
    Cell(std::nullptr_t) : cell{.tag = WM_NULL, .integer = 0} {}

    std::uint8_t tag() const { return cell.tag; }
    wm_cell flat_cell() const { return cell; }
    bool is_null() const { return cell.tag == WM_NULL; }
    bool is_unchanged() const { return cell.tag == WM_UNCHANGED; }
    /// Text, numeric, JSON, bytes.
    std::optional<Text> text() const {
        if (cell.tag < WM_TEXT || cell.tag >= WM_UNCHANGED) return std::nullopt;
        return view(cell.text);
    }
    std::optional<std::int64_t> integer() const {
        return cell.tag == WM_INT ? std::optional(cell.integer) : std::nullopt;
    }
    std::optional<double> real() const {
        return cell.tag == WM_FLOAT ? std::optional(cell.real) : std::nullopt;
    }
    std::optional<bool> boolean() const {
        return cell.tag == WM_BOOL ? std::optional(cell.boolean) : std::nullopt;
    }
    /// Of a timestamp microseconds since 1970, of a date days, of a time microseconds of the day.
    std::optional<std::int64_t> when() const {
        bool temporal = cell.tag >= WM_TIMESTAMP && cell.tag <= WM_TIME;
        return temporal ? std::optional(cell.integer) : std::nullopt;
    }
};

/// One change. Cells are numbered as the plan asked for them.
class Event {
    const wm_event *event;

public:
    explicit Event(const wm_event *event) : event(event) {}
    /// WM_INSERT and so on.
    std::uint8_t op() const { return event->op; }
    std::uint32_t relation() const { return event->relation; }
    void *data() const { return event->data; }
    /// Of the row as it is now; of a delete, as it was.
    Cell cell(std::uint32_t index) const { return wm_get(event, index); }
    /// Of the row as it was, where the plan asked for it.
    Cell old(std::uint32_t index) const { return wm_get_old(event, index); }
    std::optional<Text> text(std::uint32_t index) const { return cell(index).text(); }
    std::optional<std::int64_t> integer(std::uint32_t index) const { return cell(index).integer(); }
    std::uint64_t lsn() const { return wm_lsn(event); }
    std::int64_t time() const { return wm_time(event); }

    void pass() { wm_pass(event); }
    void drop() { wm_drop(event); }
    /// To the dead letters.
    void reject(Text reason) { wm_reject(event, flat(concat(reason))); }
    /// To another stream.
    void send(Text stream) { wm_send(event, flat(concat(stream))); }
    /// A row of a shape of the plan, with the shape's computed cells.
    template <class... Cells> void emit(std::uint32_t shape, Cells... cells) {
        wm_emit(event, shape);
        (wm_add(event, Cell(cells).flat_cell()), ...);
    }
    /// The row that was emitted last goes to another stream than the event.
    void send_row(Text stream) { wm_send_row(event, flat(concat(stream))); }
};

/// Changes in the order in which they were committed.
class Batch {
    wm_batch *batch;

public:
    struct End {};
    template <bool next(wm_batch *, wm_event *)> class Events {
        wm_batch *batch;
        wm_event event;
        bool there;

    public:
        explicit Events(wm_batch *batch) : batch(batch), there(next(batch, &event)) {}
        Event operator*() const { return Event(&event); }
        Events &operator++() {
            there = next(batch, &event);
            return *this;
        }
        bool operator!=(End) const { return there; }
        Events begin() const { return *this; }
        End end() const { return {}; }
    };

    explicit Batch(wm_batch *batch) : batch(batch) {}
    std::size_t size() const { return batch->count; }
    /// Each event once.
    auto begin() { return Events<wm_next>(batch); }
    End end() { return {}; }
    /// Each event with a row as it now is, once: inserts, updates, snapshot rows.
    auto rows() { return Events<wm_next_row>(batch); }
    /// The whole batch fails, and is tried again in ever smaller parts.
    void fail(Text reason) { wm_fail(batch, flat(concat(reason))); }
};

/// State that outlives the plugin, where the configuration grants it.
namespace kv {
inline wm_kv get(Text key, Text &value) {
    wm_text found{};
    wm_kv outcome = wm_kv_get(flat(key), &found);
    value = view(found);
    return outcome;
}
inline wm_kv set(Text key, Text value) { return wm_kv_set(flat(key), flat(value)); }
inline wm_kv remove(Text key) { return wm_kv_delete(flat(key)); }
}  // namespace kv

inline void log(wm_level level, Text message) { wm_log(level, flat(message)); }

}  // namespace walmill

/// Makes a class the plugin of this file. It is never destroyed.
#define WALMILL_EXPORT(Type, name, version)                                               \
    extern "C" const wm_plugin walmill_plugin = {name, version, ""};                      \
    alignas(Type) static unsigned char walmill_room[sizeof(Type)];                        \
    static Type &walmill_running() {                                                      \
        return *std::launder(reinterpret_cast<Type *>(walmill_room));                     \
    }                                                                                     \
    extern "C" void walmill_init(wm_config *config) {                                     \
        new (walmill_room) Type(walmill::Config(config));                                 \
    }                                                                                     \
    extern "C" void walmill_relation(const wm_relation *relation, wm_plan *plan) {        \
        walmill_running().relation(walmill::Relation(relation), walmill::Plan(plan));     \
    }                                                                                     \
    extern "C" void walmill_process(wm_batch *batch) {                                    \
        walmill_running().process(walmill::Batch(batch));                                 \
    }                                                                                     \
    static_assert(true)
