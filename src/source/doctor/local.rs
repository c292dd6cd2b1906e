//! Our side: the data folder, its disk, and whether it belongs to this database.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, access, statvfs};

use super::advice::Advice;
use super::code::Code;
use super::{Facts, Identity, report};
use crate::metrics::Metrics;
use crate::model::{ByteSize, Lsn};
use crate::source::slot::{self, Past};
use crate::store::{self, OpenError, Store};

/// What is in the data folder.
pub(super) struct Local {
    pub(super) past: Past,
    /// Another walmill runs on it.
    pub(super) in_use: bool,
    unusable: Option<String>,
}

impl Local {
    /// Looks into a data folder, if there is one. It is not made here.
    pub(super) async fn look(config: &store::Config) -> Self {
        let past = Past::new(None, Lsn::ZERO, Lsn::ZERO);
        let mut local = Self { past, in_use: false, unusable: None };
        if !config.path.exists() {
            let folder = nearest(&config.path);
            let writable = access(folder, Access::WRITE_OK | Access::EXEC_OK);
            local.unusable = match (writable, folder.is_dir()) {
                (Ok(()), true) => None,
                (Err(error), _) => {
                    Some(format!("it cannot be made in {}: {error}", folder.display()))
                }
                (Ok(()), false) => Some(format!("{} is no folder", folder.display())),
            };
            return local;
        }
        match Store::open(config, Arc::new(Metrics::new())) {
            Err(OpenError::Locked(_)) => local.in_use = true,
            Err(error) => local.unusable = Some(format!("{:#}", anyhow::Error::from(error))),
            Ok(store) => match past_of(&store).await {
                Ok(past) => local.past = past,
                Err(error) => local.unusable = Some(error.to_string()),
            },
        }
        local
    }

    /// Where walmill was, if it has begun.
    pub(super) fn position(&self) -> Option<Lsn> {
        (!self.past.is_empty()).then_some(self.past.durable)
    }

    /// The timeline that it came from, if it has begun.
    pub(super) fn timeline(&self) -> Option<u32> {
        let origin = self.past.origin.as_ref().filter(|_| !self.past.is_empty());
        origin.map(|origin| origin.timeline)
    }

    pub(super) fn check(&self, config: &store::Config) -> Vec<Advice> {
        if let Some(why) = &self.unusable {
            let message = format!("the data folder {} is not usable: {why}", config.path.display());
            return vec![Advice::error(Code::DataFolder, "store.path", message).suggest(
                "give walmill a folder of its own that it can write to: set `store.path`",
            )];
        }
        disk(config).into_iter().collect()
    }

    /// Whether the folder belongs to this server, database and slot, and both are where they were.
    pub(super) fn origin(
        &self,
        facts: &Facts<'_>,
        identity: &Identity,
        history: Option<&str>,
    ) -> Option<Advice> {
        let origin = slot::check_origin(&self.past, identity, history, facts.config).err();
        origin.map(|fault| {
            let fault = report(fault);
            Advice::error(Code::Origin, "store.path", fault.error).suggest(fault.remedy)
        })
    }
}

async fn past_of(store: &Store) -> Result<Past, store::StoreError> {
    let origin = store.origin()?;
    let journal = store.start_journal()?;
    let durable = journal.durable.borrow().lsn();
    drop(journal.appender);
    // It has nothing to do, so it ends as it began.
    let _ = journal.done.await;
    let last_commit = store.last_commit();
    store.close()?;
    Ok(Past::new(origin, durable, last_commit))
}

fn disk(config: &store::Config) -> Option<Advice> {
    let disk = statvfs(nearest(&config.path)).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let path = "store.path";
    let at =
        format!("the disk of {} has {} free", config.path.display(), ByteSize::new(free).about());
    if free < config.min_free.bytes() {
        let message = format!("{at}, less than `min_free` = {}", config.min_free);
        return Some(
            Advice::error(Code::DiskFull, path, message)
                .suggest("make room on it, or set `store.path`"),
        );
    }
    (free < config.retention.size.bytes()).then(|| {
        let message = format!("{at}, and `retention.size` is {}", config.retention.size);
        Advice::warning(Code::DiskSmall, path, message)
            .suggest("make room on it, or lower `[store] retention.size`")
    })
}

/// The folder, or what of its path is there.
fn nearest(path: &Path) -> &Path {
    let there = path.ancestors().find(|folder| folder.exists());
    there.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
