//! `walmill bench --growth`: what it costs against the size of one thing after the other, as tables
//! and plots, with the exponent by which the cost grows at the largest sizes.

mod crowd;
mod exponent;
mod journal;
mod report;
mod svg;
mod topic;
mod trial;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;

use super::{process, slot};
use report::Table;
pub(super) use report::markdown;
use topic::Topic;
use trial::Trial;

/// What `--growth` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Measure what it costs against the width of rows, the size of transactions, the number of
    /// pipelines, plugins, streams and subscribers, and the size of the journal instead.
    #[arg(long, conflicts_with_all = ["rows", "repeat", "cases", "latency", "bars"])]
    pub(super) growth: bool,
    /// With --growth: only these tables, with commas between.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "growth")]
    only: Vec<Topic>,
    /// With --growth: only so many sizes of each table, from the smallest.
    #[arg(long, value_name = "N", requires = "growth",
          value_parser = clap::value_parser!(u8).range(1..))]
    sizes: Option<u8>,
    /// With --growth: write a plot of each table into this folder, as SVG.
    #[arg(long, value_name = "FOLDER", requires = "growth")]
    plots: Option<PathBuf>,
}

impl Arguments {
    fn wants(&self, topic: Topic) -> bool {
        self.only.is_empty() || self.only.contains(&topic)
    }

    /// Of all that a table has, those that are measured.
    fn cut<'a, T>(&self, sizes: &'a [T]) -> &'a [T] {
        let count = self.sizes.map_or(sizes.len(), usize::from);
        &sizes[..count.min(sizes.len())]
    }
}

/// One table after the other; each plot is written as soon as there is its table.
pub(super) async fn measure(arguments: &Arguments, plugins: &Path) -> anyhow::Result<Vec<Table>> {
    for plugin in ["filter.wasm", "route.wasm"] {
        let file = plugins.join(plugin);
        ensure!(file.is_file(), "there is no {}: see --plugins", file.display());
    }
    process::raise_limit_of_files()?;
    let (cluster, database) = slot::server().await?;
    database.batch_execute(trial::SCHEMA).await?;
    let trial = Trial::new(&database, cluster.url(), plugins)?;
    let mut tables = Vec::new();
    for topic in Topic::OF_LOAD.into_iter().filter(|topic| arguments.wants(*topic)) {
        let mut points = Vec::new();
        for size in arguments.cut(topic.sizes()) {
            eprintln!("{} {size} …", topic.name());
            let point = trial.point(topic, *size).await;
            points.push(point.with_context(|| format!("{} {size}", topic.name()))?);
        }
        keep(&mut tables, Table::new(topic, points), arguments)?;
    }
    if arguments.wants(Topic::Journal) || arguments.wants(Topic::Restart) {
        let [cost, restart] = journal::measure(&trial, arguments.cut(&journal::SIZES)).await?;
        for (topic, points) in [(Topic::Journal, cost), (Topic::Restart, restart)] {
            if arguments.wants(topic) {
                keep(&mut tables, Table::new(topic, points), arguments)?;
            }
        }
    }
    Ok(tables)
}

fn keep(tables: &mut Vec<Table>, table: Table, arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.plots {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let file = folder.join(format!("{}.svg", table.name()));
        std::fs::write(&file, table.plot()).with_context(|| file.display().to_string())?;
    }
    tables.push(table);
    Ok(())
}
