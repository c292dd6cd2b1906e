// Orders for the people who ship them: only the statuses they care for, masked emails, a mark on
// large orders, one stream per region.
#include "walmill.hpp"

using walmill::Cell;
using walmill::Text;

/// The first quantity that a 64-bit float can't tell from its neighbour.
constexpr std::int64_t large = 9007199254740993;

/// `ada@example.com` as `a***@example.com`; what is no address as `***`.
static Text mask(Text email) {
    auto at = email.rfind('@');
    if (at == Text::npos) return "***";
    return walmill::concat(walmill::first_character(email), Text("***"), email.substr(at));
}

class Orders {
    enum { status, email, quantity, region };

    /// The statuses that are kept.
    walmill::Texts keep;

    void judge(walmill::Event event) const {
        if (!keep.contains(event.text(status))) return event.drop();
        Cell masked = event.cell(email), is_large = event.cell(quantity);
        if (auto count = is_large.integer()) {
            if (*count < 0) {
                return event.reject(
                    walmill::concat(Text("negative quantity: "), walmill::decimal(*count)));
            }
            is_large = *count >= large;
        }
        if (auto address = masked.text()) masked = mask(*address);
        event.emit(0, masked, is_large);
        auto to = event.text(region).value_or("");
        if (!to.empty()) event.send(walmill::concat(Text("orders."), walmill::lower(to)));
    }

public:
    explicit Orders(walmill::Config config) : keep(config.texts("keep", {"paid", "shipped"})) {}

    void relation(walmill::Relation, walmill::Plan plan) {
        for (auto name : {"status", "email", "quantity", "region"}) plan.need(name);
        plan.shape_of_table().computed("email", WM_TEXT).computed("large", WM_BOOL);
    }

    void process(walmill::Batch batch) {
        for (walmill::Event event : batch.rows()) judge(event);
    }
};

WALMILL_EXPORT(Orders, "orders", "0.1.0");
