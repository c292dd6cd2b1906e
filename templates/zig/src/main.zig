const std = @import("std");
const walmill = @import("walmill");

const Local = struct {
    country: []const u8,

    /// Takes the plugin's `config` in walmill.toml.
    pub fn init(config: *walmill.Config) Local {
        return .{ .country = config.text("country", null) };
    }

    /// Says which columns the plugin needs of a table.
    pub fn relation(_: *Local, _: *const walmill.Relation, plan: *walmill.Plan) void {
        _ = plan.need("country");
    }

    /// Keeps the rows of one country.
    pub fn process(self: *Local, batch: *walmill.Batch) void {
        while (batch.nextRow()) |event| {
            const country = event.text(0) orelse "";
            if (!std.mem.eql(u8, country, self.country)) event.drop();
        }
    }
};

comptime {
    walmill.plugin(Local, "{{name}}", "0.1.0");
}
