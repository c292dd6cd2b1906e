//! Write walmill plugins in Zig. A layer over walmill.c, which is compiled with it.
//!
//! A plugin says in `relation` what it needs of a table, then answers batches of changes in
//! `process` with a verdict for each: pass it on, drop it, reject it, send it to another stream,
//! or emit other rows in its place. A whole one:
//!
//!     const std = @import("std");
//!     const walmill = @import("walmill");
//!
//!     const Local = struct {
//!         country: []const u8,
//!
//!         pub fn init(config: *walmill.Config) Local {
//!             return .{ .country = config.text("country", null) };
//!         }
//!
//!         pub fn relation(_: *Local, _: *const walmill.Relation, plan: *walmill.Plan) void {
//!             _ = plan.need("country");
//!         }
//!
//!         pub fn process(self: *Local, batch: *walmill.Batch) void {
//!             while (batch.nextRow()) |event| {
//!                 const country = event.text(0) orelse "";
//!                 if (!std.mem.eql(u8, country, self.country)) event.drop();
//!             }
//!         }
//!     };
//!
//!     comptime {
//!         walmill.plugin(Local, "local", "0.1.0");
//!     }
//!
//! Build it with
//!
//!     zig build-exe -target wasm32-freestanding -fno-entry -O ReleaseSmall \
//!         --dep walmill -Mroot=src/main.zig walmill/walmill.c \
//!         -Mwalmill=walmill/walmill.zig
//!
//! What `allocator` gives, and the texts of a batch, are good until the call is answered; in
//! `init` they are good as long as the plugin. `keep` copies a text that should live longer.

const std = @import("std");

const Flat = extern struct {
    ptr: ?[*]const u8,
    len: usize,

    fn of(bytes: []const u8) Flat {
        return .{ .ptr = bytes.ptr, .len = bytes.len };
    }
    fn slice(self: Flat) []const u8 {
        const ptr = self.ptr orelse return "";
        return ptr[0..self.len];
    }
};

extern fn wm_alloc(size: usize, alignment: usize) [*]u8;
extern fn wm_keep(size: usize, alignment: usize) [*]u8;

/// Room of the call, which nothing has to be freed in.
pub const allocator: std.mem.Allocator = .{ .ptr = undefined, .vtable = &arena(wm_alloc) };
/// Room that stays as long as the plugin, and is never freed.
pub const keeping: std.mem.Allocator = .{ .ptr = undefined, .vtable = &arena(wm_keep) };

fn arena(comptime take: fn (usize, usize) callconv(.c) [*]u8) std.mem.Allocator.VTable {
    const functions = struct {
        fn alloc(_: *anyopaque, len: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
            return take(len, alignment.toByteUnits());
        }
    };
    return .{
        .alloc = functions.alloc,
        .resize = std.mem.Allocator.noResize,
        .remap = std.mem.Allocator.noRemap,
        .free = std.mem.Allocator.noFree,
    };
}

/// A copy that stays as long as the plugin.
pub fn keep(text: []const u8) []const u8 {
    return keeping.dupe(u8, text) catch unreachable;
}

/// Texts one behind the other.
pub fn concat(parts: []const []const u8) []const u8 {
    return std.mem.concat(allocator, u8, parts) catch unreachable;
}

/// Text from a format, as std.fmt has it.
pub fn print(comptime format: []const u8, arguments: anytype) []const u8 {
    return std.fmt.allocPrint(allocator, format, arguments) catch unreachable;
}

/// The plugin's `config` table. A key that nothing was asked for is a finding, and so is a value
/// of another kind than was asked for. Findings refuse the plugin.
pub const Config = extern struct {
    worker: u32,
    workers: u32,
    /// What comes out is compared, not delivered.
    dry_run: bool,
    root: *Json,

    extern fn wm_config_get(*Config, [*:0]const u8) ?*const Json;
    extern fn wm_config_text(*Config, [*:0]const u8, ?[*:0]const u8) Flat;
    extern fn wm_config_int(*Config, [*:0]const u8, i64) i64;
    extern fn wm_config_bool(*Config, [*:0]const u8, bool) bool;
    extern fn wm_finding(*Config, Flat, Flat) void;

    /// A text; without an `otherwise` it must be there.
    pub fn text(self: *Config, key: [:0]const u8, otherwise: ?[:0]const u8) []const u8 {
        const default = if (otherwise) |given| given.ptr else null;
        return wm_config_text(self, key, default).slice();
    }

    /// A list of texts, or `otherwise` where the key is missing.
    pub fn texts(
        self: *Config,
        key: [:0]const u8,
        otherwise: []const []const u8,
    ) []const []const u8 {
        const json = self.get(key) orelse return otherwise;
        if (json.kind != .list) {
            self.finding(key, "must be a list of texts");
            return otherwise;
        }
        var list: std.ArrayList([]const u8) = .empty;
        var element = json.first;
        var index: usize = 0;
        while (element) |item| : (element = item.next) {
            defer index += 1;
            if (item.kind == .text) {
                list.append(allocator, item.text()) catch unreachable;
            } else {
                self.finding(print("{s}[{d}]", .{ key, index }), "must be a text");
            }
        }
        return list.items;
    }

    /// An integer, or `otherwise` where the key is missing.
    pub fn int(self: *Config, key: [:0]const u8, otherwise: i64) i64 {
        return wm_config_int(self, key, otherwise);
    }

    /// True or false, or `otherwise` where the key is missing.
    pub fn boolean(self: *Config, key: [:0]const u8, otherwise: bool) bool {
        return wm_config_bool(self, key, otherwise);
    }

    /// Any value, to be read by hand; null where it is missing.
    pub fn get(self: *Config, key: [:0]const u8) ?*const Json {
        return wm_config_get(self, key);
    }

    /// Something is wrong at a path such as `columns[2]`.
    pub fn finding(self: *Config, path: []const u8, message: []const u8) void {
        wm_finding(self, .of(path), .of(message));
    }
};

/// A value of the configuration.
pub const Json = extern struct {
    kind: enum(c_int) { null, boolean, number, text, list, table },
    flat: Flat,
    boolean: bool,
    /// Elements of a list, entries of a table; each leads to the one behind it.
    first: ?*const Json,
    next: ?*const Json,
    flat_key: Flat,
    known: bool,

    /// Of a text what it says, of a number its digits.
    pub fn text(self: *const Json) []const u8 {
        return self.flat.slice();
    }

    /// Its name, in a table.
    pub fn key(self: *const Json) []const u8 {
        return self.flat_key.slice();
    }
};

/// What a column's values are.
pub const Tag = enum(u8) {
    null = 0,
    boolean = 1,
    /// smallint, integer, bigint
    int = 2,
    /// real, double precision
    float = 3,
    /// Microseconds since 1970 UTC; the least and the greatest i64 are the infinities.
    timestamp = 4,
    /// Days since 1970; infinities as above.
    date = 5,
    /// Microseconds since midnight.
    time = 6,
    /// Text, and every type with no tag of its own, as PostgreSQL prints it.
    text = 16,
    /// Decimal text.
    numeric = 17,
    json = 18,
    bytea = 19,
    /// 16 bytes.
    uuid = 20,
    array = 21,
    /// A large value that an update left as it was, and PostgreSQL did not send.
    unchanged = 32,
    /// A column of an old row outside the replica identity.
    absent = 33,
    _,
};

pub const Column = extern struct {
    flat_name: Flat,
    type_oid: u32,
    flat_type_name: Flat,
    /// What its values have, unless they are null.
    tag: Tag,
    key: bool,

    pub fn name(self: *const Column) []const u8 {
        return self.flat_name.slice();
    }

    /// For example `numeric(12,2)`.
    pub fn typeName(self: *const Column) []const u8 {
        return self.flat_type_name.slice();
    }
};

/// A table, as it is since its definition last changed.
pub const Relation = extern struct {
    id: u32,
    flat_schema: Flat,
    flat_table: Flat,
    columns_ptr: [*]const Column,
    column_count: usize,
    /// Old rows are complete (replica identity full).
    full_old_rows: bool,

    pub fn schema(self: *const Relation) []const u8 {
        return self.flat_schema.slice();
    }

    pub fn table(self: *const Relation) []const u8 {
        return self.flat_table.slice();
    }

    pub fn columns(self: *const Relation) []const Column {
        return self.columns_ptr[0..self.column_count];
    }

    pub fn indexOf(self: *const Relation, name: []const u8) ?u32 {
        for (self.columns(), 0..) |*column, index| {
            if (std.mem.eql(u8, column.name(), name)) return @intCast(index);
        }
        return null;
    }
};

/// What the plugin needs of a table. As it comes, it is called with no columns at all.
pub const Plan = extern struct {
    relation: *const Relation,
    /// Yours: `event.data` of this table's events. What it points to must outlive the call.
    data: ?*anyopaque,
    answer: *anyopaque,

    extern fn wm_need_at(*Plan, u32) u32;
    extern fn wm_need_old(*Plan) void;
    extern fn wm_need_envelope(*Plan) void;
    extern fn wm_plan_pass(*Plan) void;
    extern fn wm_plan_drop(*Plan) void;
    extern fn wm_refuse(*Plan, Flat) void;
    extern fn wm_shape_new(*Plan) *Shape;
    extern fn wm_shape_of(*Plan) *Shape;

    /// Asks for a column, and returns the index of its cells: 0 for the first. A table without
    /// the column is refused.
    pub fn need(self: *Plan, name: []const u8) u32 {
        const index = self.relation.indexOf(name) orelse {
            self.refuse(concat(&.{ "no column `", name, "`" }));
            return 0;
        };
        return self.needAt(index);
    }

    /// The same by the column's index in the relation.
    pub fn needAt(self: *Plan, column: u32) u32 {
        return wm_need_at(self, column);
    }

    /// Old rows of updates and deletes, too.
    pub fn needOld(self: *Plan) void {
        wm_need_old(self);
    }

    /// Positions and times of commits, too.
    pub fn needEnvelope(self: *Plan) void {
        wm_need_envelope(self);
    }

    /// Every event passes, and the plugin is never called.
    pub fn pass(self: *Plan) void {
        wm_plan_pass(self);
    }

    /// Every event is dropped, and the plugin is never called.
    pub fn drop(self: *Plan) void {
        wm_plan_drop(self);
    }

    /// This table is none for this plugin, and why. The first reason counts.
    pub fn refuse(self: *Plan, reason: []const u8) void {
        wm_refuse(self, .of(reason));
    }

    /// The next shape, without columns; the first is shape 0.
    pub fn shape(self: *Plan) *Shape {
        return wm_shape_new(self);
    }

    /// The next shape, with all columns of the table.
    pub fn shapeOfTable(self: *Plan) *Shape {
        return wm_shape_of(self);
    }
};

/// A shape of rows that may be emitted. Each call sets the column of that name, or adds one behind
/// the others.
pub const Shape = opaque {
    extern fn wm_shape_passes(*Shape) void;
    extern fn wm_shape_table(*Shape, Flat) void;
    extern fn wm_shape_input(*Shape, Flat, u32) void;
    extern fn wm_shape_computed(*Shape, Flat, Tag) void;
    extern fn wm_shape_fixed(*Shape, Flat, Flat) void;
    extern fn wm_shape_remove(*Shape, Flat) void;

    /// An input column, by its index in the relation. Its values never enter the plugin.
    pub fn input(self: *Shape, name: []const u8, column: u32) void {
        wm_shape_input(self, .of(name), column);
    }

    /// Cells that the plugin adds to each row, in the order of the columns.
    pub fn computed(self: *Shape, name: []const u8, tag: Tag) void {
        wm_shape_computed(self, .of(name), tag);
    }

    /// The same text in every row.
    pub fn fixed(self: *Shape, name: []const u8, value: []const u8) void {
        wm_shape_fixed(self, .of(name), .of(value));
    }

    pub fn remove(self: *Shape, name: []const u8) void {
        wm_shape_remove(self, .of(name));
    }

    /// Another name for the table.
    pub fn table(self: *Shape, name: []const u8) void {
        wm_shape_table(self, .of(name));
    }

    /// It is the shape of events that pass, too.
    pub fn passes(self: *Shape) void {
        wm_shape_passes(self);
    }
};

pub const Op = enum(u8) {
    insert = 0,
    update = 1,
    delete = 2,
    truncate = 3,
    message = 4,
    /// A row that was there before the slot.
    snapshot = 5,
    _,
};

/// One value.
pub const Cell = union(enum) {
    null,
    boolean: bool,
    int: i64,
    float: f64,
    timestamp: i64,
    date: i64,
    time: i64,
    text: []const u8,
    numeric: []const u8,
    json: []const u8,
    bytea: []const u8,
    uuid: []const u8,
    array: []const u8,
    unchanged,
    absent,
    /// A tag of a later version.
    other: u8,
};

/// Changes in the order in which they were committed.
pub const Batch = extern struct {
    count: u32,
    position: u32,
    flat: *const anyopaque,
    ops: [*]const Op,
    tags: [*]const Tag,
    relations: [*]const u32,
    starts: [*]const u32,
    cells: [*]const u64,
    heap: [*]const u8,
    verdicts: [*]u8,
    table: extern struct { id: u32, width: u32, data: ?*anyopaque },
    out: *anyopaque,

    extern fn wm_find_table(*Batch, u32) void;
    extern fn wm_fail(*Batch, Flat) void;

    /// Takes the next event; null behind the last.
    pub inline fn next(self: *Batch) ?Event {
        const index = self.position;
        if (index >= self.count) return null;
        self.position = index + 1;
        const relation = self.relations[index];
        if (relation != self.table.id) wm_find_table(self, relation);
        const start = self.starts[index];
        return .{
            .batch = self,
            .index = index,
            .relation = relation,
            .op = self.ops[index],
            .data = self.table.data,
            .start = start,
            .count = self.starts[index + 1] - start,
            .width = self.table.width,
        };
    }

    /// Takes the next event with a row as it now is: an insert, an update, a snapshot row.
    pub inline fn nextRow(self: *Batch) ?Event {
        while (self.next()) |event| switch (event.op) {
            .insert, .update, .snapshot => return event,
            else => {},
        };
        return null;
    }

    /// The whole batch fails. It is tried again in ever smaller parts, down to the event whose
    /// fault it is.
    pub fn fail(self: *Batch, reason: []const u8) void {
        wm_fail(self, .of(reason));
    }
};

/// One change. Cells are numbered as the plan asked for them.
pub const Event = extern struct {
    batch: *Batch,
    index: u32,
    relation: u32,
    op: Op,
    /// What the plan for the table has as `data`.
    data: ?*anyopaque,
    start: u32,
    count: u32,
    width: u32,

    extern fn wm_lsn(*const Event) u64;
    extern fn wm_time(*const Event) i64;
    extern fn wm_judge(*const Event, u8) void;
    extern fn wm_reject(*const Event, Flat) void;
    extern fn wm_send(*const Event, Flat) void;
    extern fn wm_send_row(*const Event, Flat) void;
    extern fn wm_emit(*const Event, u32) void;
    extern fn wm_add_data(*const Event, Tag, u64) void;
    extern fn wm_add_bytes(*const Event, Tag, Flat) void;

    /// Of the row as it is now; of a delete, as it was. Without one, as in a truncate, it is
    /// `absent`. A large value that an update left as it was is taken from the old row, where
    /// there is one.
    pub inline fn cell(self: Event, index: u32) Cell {
        if (index >= self.width) return .absent;
        const found = self.at(index);
        if (found != .unchanged) return found;
        const before = self.at(self.width + index);
        return if (before == .absent) .unchanged else before;
    }

    /// Of the row as it was, where the plan asked for it.
    pub fn old(self: Event, index: u32) Cell {
        return if (index < self.width) self.at(self.width + index) else .absent;
    }

    inline fn at(self: Event, place: u32) Cell {
        if (place >= self.count) return .absent;
        const data = self.batch.cells[self.start + place];
        const bytes = self.batch.heap;
        const heap = Heap{ .bytes = bytes, .data = data };
        return switch (self.batch.tags[self.start + place]) {
            .null => .null,
            .boolean => .{ .boolean = data != 0 },
            .int => .{ .int = @bitCast(data) },
            .float => .{ .float = @bitCast(data) },
            .timestamp => .{ .timestamp = @bitCast(data) },
            .date => .{ .date = @bitCast(data) },
            .time => .{ .time = @bitCast(data) },
            .text => .{ .text = heap.slice() },
            .numeric => .{ .numeric = heap.slice() },
            .json => .{ .json = heap.slice() },
            .bytea => .{ .bytea = heap.slice() },
            .uuid => .{ .uuid = heap.slice() },
            .array => .{ .array = heap.slice() },
            .unchanged => .unchanged,
            .absent => .absent,
            else => |tag| .{ .other = @intFromEnum(tag) },
        };
    }

    const Heap = struct {
        bytes: [*]const u8,
        data: u64,

        inline fn slice(self: Heap) []const u8 {
            const start: u32 = @intCast(self.data >> 32);
            return self.bytes[start..][0 .. @as(u32, @truncate(self.data))];
        }
    };

    /// The text in a column; null where there is none.
    pub inline fn text(self: Event, index: u32) ?[]const u8 {
        return switch (self.cell(index)) {
            .text => |found| found,
            else => null,
        };
    }

    /// The integer in a column; null where there is none.
    pub inline fn int(self: Event, index: u32) ?i64 {
        return switch (self.cell(index)) {
            .int => |found| found,
            else => null,
        };
    }

    /// Position of the commit, where the plan asked for the envelope. Equal ones are of the same
    /// transaction.
    pub fn lsn(self: Event) u64 {
        return wm_lsn(&self);
    }

    /// Time of the commit in microseconds since 1970 UTC, where the plan asked for the envelope.
    pub fn time(self: Event) i64 {
        return wm_time(&self);
    }

    /// The event goes on as it is, or in the shape of those that pass.
    pub fn pass(self: Event) void {
        wm_judge(&self, 0);
    }

    /// The event goes nowhere.
    pub inline fn drop(self: Event) void {
        const verdict = &self.batch.verdicts[self.index];
        if (verdict.* > 1) wm_judge(&self, 1);
        verdict.* = 1;
    }

    /// The event goes to the dead letters, with the reason.
    pub fn reject(self: Event, reason: []const u8) void {
        wm_reject(&self, .of(reason));
    }

    /// The event goes to another stream. walmill takes only names that the pipeline's `streams`
    /// allow.
    pub fn send(self: Event, stream: []const u8) void {
        wm_send(&self, .of(stream));
    }

    /// The event becomes a row of a shape of the plan, with the shape's computed cells in order.
    /// Several calls make several rows.
    pub fn emit(self: Event, shape: u32, cells: []const Cell) void {
        wm_emit(&self, shape);
        for (cells) |computed| self.add(computed);
    }

    fn add(self: Event, computed: Cell) void {
        switch (computed) {
            .null => wm_add_data(&self, .null, 0),
            .boolean => |value| wm_add_data(&self, .boolean, @intFromBool(value)),
            .int => |value| wm_add_data(&self, .int, @bitCast(value)),
            .float => |value| wm_add_data(&self, .float, @bitCast(value)),
            .timestamp => |value| wm_add_data(&self, .timestamp, @bitCast(value)),
            .date => |value| wm_add_data(&self, .date, @bitCast(value)),
            .time => |value| wm_add_data(&self, .time, @bitCast(value)),
            .unchanged => wm_add_data(&self, .unchanged, 0),
            .absent => wm_add_data(&self, .absent, 0),
            .other => |tag| wm_add_data(&self, @enumFromInt(tag), 0),
            inline .text, .numeric, .json, .bytea, .uuid, .array => |bytes, tag| {
                wm_add_bytes(&self, @field(Tag, @tagName(tag)), .of(bytes));
            },
        }
    }

    /// The row that was emitted last goes to another stream than the event.
    pub fn sendRow(self: Event, stream: []const u8) void {
        wm_send_row(&self, .of(stream));
    }
};

pub const Level = enum(c_int) { trace, debug, info, warn, err };

extern fn wm_log(Level, Flat) void;
extern fn wm_now() i64;
extern fn wm_kv_get(Flat, *Flat) c_int;
extern fn wm_kv_set(Flat, Flat) c_int;
extern fn wm_kv_delete(Flat) c_int;

/// To walmill's log, under the plugin's name.
pub fn log(level: Level, message: []const u8) void {
    wm_log(level, .of(message));
}

/// Commit time of the event, microseconds since 1970 UTC: a replay sees the same.
pub fn now() i64 {
    return wm_now();
}

/// State that outlives the plugin, where the configuration grants it. What is written is durable
/// with the batch's events, and gone if the batch fails: exactly once.
pub const kv = struct {
    pub const Error = error{ TooLarge, Quota, Unavailable };

    pub fn get(key: []const u8) Error!?[]const u8 {
        var value: Flat = .of("");
        return switch (wm_kv_get(.of(key), &value)) {
            0 => value.slice(),
            1 => null,
            else => |code| failure(code),
        };
    }

    pub fn set(key: []const u8, value: []const u8) Error!void {
        const code = wm_kv_set(.of(key), .of(value));
        if (code != 0) return failure(code);
    }

    pub fn delete(key: []const u8) Error!void {
        const code = wm_kv_delete(.of(key));
        if (code != 0) return failure(code);
    }

    fn failure(code: c_int) Error {
        return switch (code) {
            2 => error.TooLarge,
            3 => error.Quota,
            else => error.Unavailable,
        };
    }
};

/// Makes a type the plugin of this file: see the top.
pub fn plugin(comptime Type: type, comptime name: [:0]const u8, comptime version: [:0]const u8) void {
    const exports = struct {
        const About = extern struct {
            name: [*:0]const u8,
            version: [*:0]const u8,
            config_schema: [*:0]const u8,
        };
        const about: About = .{ .name = name, .version = version, .config_schema = "" };
        var running: Type = undefined;

        fn init(config: *Config) callconv(.c) void {
            running = Type.init(config);
        }
        fn relation(table: *const Relation, plan: *Plan) callconv(.c) void {
            running.relation(table, plan);
        }
        fn process(batch: *Batch) callconv(.c) void {
            running.process(batch);
        }
    };
    @export(&exports.about, .{ .name = "walmill_plugin" });
    @export(&exports.init, .{ .name = "walmill_init" });
    @export(&exports.relation, .{ .name = "walmill_relation" });
    @export(&exports.process, .{ .name = "walmill_process" });
}
