//! Tables that no pipeline takes and that Supabase's clients read as they are
//! (`server.supabase.raw`): a pipeline without plugins, like any other from there on.

use super::{Check, Config};
use crate::model::pattern::{TableChoice, TablePattern};
use crate::pipeline;
use crate::server::{RAW_STREAM, Raw};

impl Config {
    /// The pipeline of the tables that are served as they are, if there are to be any.
    pub(super) fn add_raw_tables(&mut self) {
        let tables = match &self.server.supabase.raw {
            Raw::None => return,
            Raw::All => self.source.tables.clone(),
            Raw::Tables(tables) => tables.clone(),
        };
        // What a pipeline takes is seen as that makes it, and in no other way.
        let taken = self.pipelines.iter().flat_map(|pipeline| pipeline.tables.iter().cloned());
        let tables = TableChoice::from(tables).except(taken.collect());
        self.pipelines.push(pipeline::Config::of_tables(RAW_STREAM, tables));
    }
}

impl Check<'_> {
    pub(super) fn raw_tables(&mut self) {
        let config = self.config;
        let raw = &config.server.supabase.raw;
        for (at, pipeline) in config.pipelines.iter().enumerate() {
            if *raw != Raw::None && pipeline.name == RAW_STREAM {
                let message = format!("`{RAW_STREAM}` is where `server.supabase.raw` puts tables");
                let help = "rename the pipeline, or remove `raw`".to_owned();
                self.error("duplicate-name", &format!("pipeline[{at}].name"), message, Some(help));
            }
        }
        let Raw::Tables(tables) = raw else { return };
        for (at, table) in tables.iter().enumerate() {
            if let Some((message, help)) = self.odd(table) {
                let path = format!("server.supabase.raw[{at}]");
                self.error("never-raw", &path, message, Some(help));
            }
        }
    }

    /// Why a table that is named can't be served as it is, and what to do about it.
    fn odd(&self, table: &TablePattern) -> Option<(String, String)> {
        let (schema, name) = table.literal()?;
        let takes = |pipeline: &&pipeline::Config| pipeline.tables.takes(schema, name);
        if let Some(pipeline) = self.config.pipelines.iter().find(takes) {
            let taker = &pipeline.name;
            let message = format!("pipeline `{taker}` takes `{table}`, so it is not served raw");
            return Some((message, format!("give clients that one: streams = [\"{taker}\"]")));
        }
        let mut published = self.config.source.tables.iter();
        let is_published = published.any(|pattern| pattern.matches(schema, name));
        let message = || format!("the source does not publish `{table}`");
        (!is_published).then(|| (message(), format!("add \"{table}\" to `source.tables`")))
    }
}
