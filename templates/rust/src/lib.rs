//! Keeps the rows of one country. `cargo doc --open` shows what else a plugin can do.

walmill_plugin::filter! {
    /// The plugin's config in walmill.toml: `config = { country = "NZ" }`.
    struct Local {
        country: String,
    }
    columns = ["country"];
    keep = |local, row| row.text("country") == Some(&local.country);
}
