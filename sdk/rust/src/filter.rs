//! A filter in ten lines.

/// A plugin that keeps some rows and drops the rest: its configuration, the columns that it looks
/// at, and what to keep.
///
/// ```
/// walmill_plugin::filter! {
///     /// Keeps what happens in one country.
///     struct Local {
///         country: String,
///     }
///     columns = ["country"];
///     keep = |local, row| row.text("country") == Some(&local.country);
/// }
/// ```
///
/// The fields are the plugin's `config` table, read by serde (its attributes can stand there, as in
/// `#[serde(default)]`); an unknown key is a finding. A table without one of the columns is
/// refused. What is no row, as a truncate, passes; so does a row of which PostgreSQL did not send
/// one of the columns, as in a delete that has only the key: a delete too many hurts nobody.
#[macro_export]
macro_rules! filter {
    (
        $(#[$about:meta])*
        $visible:vis struct $name:ident {
            $($(#[$field_about:meta])* $field:ident : $type:ty),* $(,)?
        }
        columns = [$($column:expr),+ $(,)?];
        keep = |$config:ident, $row:ident| $keep:expr;
    ) => {
        $(#[$about])*
        #[derive($crate::serde::Deserialize)]
        #[serde(crate = "walmill_plugin::serde", deny_unknown_fields)]
        $visible struct $name {
            $($(#[$field_about])* $field: $type),*
        }

        impl $crate::Transform for $name {
            fn new(
                config: $crate::Config,
            ) -> ::std::result::Result<Self, ::std::vec::Vec<$crate::Finding>> {
                config.parse()
            }

            fn on_relation(
                &mut self,
                relation: &$crate::Relation,
            ) -> ::std::result::Result<$crate::Plan, ::std::string::String> {
                $crate::glue::need(relation, &[$($column),+])
            }

            fn process(
                &mut self,
                batch: &$crate::Batch,
                verdicts: &mut $crate::Verdicts,
            ) -> ::std::result::Result<(), ::std::string::String> {
                let $config = &*self;
                let keep = |$row: $crate::Row<'_>| -> bool { $keep };
                $crate::glue::filter(batch, verdicts, keep);
                Ok(())
            }
        }

        $crate::export!($name);
    };
}
