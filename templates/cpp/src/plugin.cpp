#include "walmill.hpp"

class Local {
    walmill::Text country;

public:
    /// Takes the plugin's `config` in walmill.toml.
    explicit Local(walmill::Config config) : country(config.text("country")) {}

    /// Says which columns the plugin needs of a table.
    void relation(walmill::Relation, walmill::Plan plan) { plan.need("country"); }

    /// Keeps the rows of one country.
    void process(walmill::Batch batch) {
        for (walmill::Event event : batch.rows())
            if (event.text(0) != country) event.drop();
    }
};

WALMILL_EXPORT(Local, "{{name}}", "0.1.0");
