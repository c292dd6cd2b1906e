//! Orders for the people who ship them: only the statuses they care for, masked emails, a mark on
//! large orders, one stream per region.

const std = @import("std");
const walmill = @import("walmill");

/// The first quantity that a 64-bit float can't tell from its neighbour.
const large = 9_007_199_254_740_993;

const status = 0;
const email = 1;
const quantity = 2;
const region = 3;

const Orders = struct {
    /// The statuses that are kept.
    keep: []const []const u8,

    pub fn init(config: *walmill.Config) Orders {
        return .{ .keep = config.texts("keep", &.{ "paid", "shipped" }) };
    }

    pub fn relation(_: *Orders, _: *const walmill.Relation, plan: *walmill.Plan) void {
        for ([_][]const u8{ "status", "email", "quantity", "region" }) |name| {
            _ = plan.need(name);
        }
        const shape = plan.shapeOfTable();
        shape.computed("email", .text);
        shape.computed("large", .boolean);
    }

    pub fn process(self: *Orders, batch: *walmill.Batch) void {
        while (batch.nextRow()) |event| self.judge(event);
    }

    fn judge(self: *Orders, event: walmill.Event) void {
        if (!self.keeps(event.text(status))) return event.drop();
        const is_large: walmill.Cell = switch (event.cell(quantity)) {
            .int => |count| if (count < 0)
                return event.reject(walmill.print("negative quantity: {d}", .{count}))
            else
                .{ .boolean = count >= large },
            else => |other| other,
        };
        const masked: walmill.Cell = switch (event.cell(email)) {
            .text => |address| .{ .text = mask(address) },
            else => |other| other,
        };
        event.emit(0, &.{ masked, is_large });
        const to = event.text(region) orelse "";
        if (to.len > 0) event.send(route(to));
    }

    fn keeps(self: *Orders, found: ?[]const u8) bool {
        const text = found orelse return false;
        for (self.keep) |kept| if (std.mem.eql(u8, kept, text)) return true;
        return false;
    }
};

/// `ada@example.com` as `a***@example.com`; what is no address as `***`.
fn mask(address: []const u8) []const u8 {
    const at = std.mem.lastIndexOfScalar(u8, address, '@') orelse return "***";
    const first = std.unicode.utf8ByteSequenceLength(address[0]) catch 1;
    return walmill.concat(&.{ address[0..first], "***", address[at..] });
}

fn route(to: []const u8) []const u8 {
    const lower = std.ascii.allocLowerString(walmill.allocator, to) catch unreachable;
    return walmill.concat(&.{ "orders.", lower });
}

comptime {
    walmill.plugin(Orders, "orders", "0.1.0");
}
