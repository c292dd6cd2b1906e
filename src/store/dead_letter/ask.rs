//! What a person, a pipeline or an output asks of the dead letters.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{By, DeadLetter, Owner};
use crate::model::clock;
use crate::store::{Inner, Store, StoreError};

/// Letters changed by one write, so that no write is boundless.
const AT_ONCE: usize = 500;

/// Which letters are meant: those that fit everything that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Of these numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<u64>,
    /// That this pipeline set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// That this plugin failed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// In this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// That this output gave up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// From this stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Of the event with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Whose reason has this in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// That wait for another try, or do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrying: Option<bool>,
    /// All of them: without it, a filter that names nothing means nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl Filter {
    /// Whether it says which letters are meant.
    #[must_use]
    pub fn names_any(&self) -> bool {
        *self != Self::default()
    }

    /// Whether a letter is meant.
    #[must_use]
    pub fn fits(&self, id: u64, letter: &DeadLetter) -> bool {
        let (mut pipeline, mut plugin, mut version) = (None, None, None);
        let (mut output, mut stream) = (None, None);
        match &letter.by {
            By::Plugin { pipeline: p, plugin: name, version: v } => {
                (pipeline, plugin, version) = (Some(p), Some(name), Some(v));
            }
            By::Route { pipeline: p } | By::Schema { pipeline: p } => pipeline = Some(p),
            By::Output { output: o, stream: s } => (output, stream) = (Some(o), Some(s)),
        }
        let is = |wanted: &Option<String>, found: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted) == found)
        };
        (self.ids.is_empty() || self.ids.contains(&id))
            && is(&self.pipeline, pipeline)
            && is(&self.plugin, plugin)
            && is(&self.version, version)
            && is(&self.output, output)
            && is(&self.stream, stream)
            && is(&self.event, Some(&letter.event))
            && self.reason.as_ref().is_none_or(|part| letter.reason.contains(part.as_str()))
            && self.retrying.is_none_or(|retrying| retrying == letter.retrying)
    }
}

/// What was marked to be tried again.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The letters' numbers.
    pub ids: Vec<u64>,
}

impl Store {
    /// The newest dead letters first, at most `limit`.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn dead_letters(&self, limit: usize) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        self.find_dead_letters(&Filter::default(), u64::MAX, limit)
    }

    /// Dead letters that fit, the newest first, at most `limit`; below a number, to go on with.
    pub fn find_dead_letters(
        &self,
        filter: &Filter,
        below: u64,
        limit: usize,
    ) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        let fits = |read: &Result<(u64, DeadLetter), StoreError>| {
            read.as_ref().map_or(true, |(id, letter)| filter.fits(*id, letter))
        };
        self.inner.dead_letters.below(below).filter(fits).take(limit).collect()
    }

    /// One of them.
    pub fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        self.inner.dead_letters.get(id)
    }

    /// Asks for another try of those that fit and that `can` be tried, on disk when this returns.
    pub fn retry_dead_letters(
        &self,
        filter: &Filter,
        can: impl Fn(Owner<'_>) -> bool,
    ) -> Result<Marked, StoreError> {
        let letters = &self.inner.dead_letters;
        let mut marked = Marked::default();
        self.inner.change(filter, |batch, id, letter| {
            if !can(letter.by.owner()) || letter.retrying {
                return Ok(super::Delta::default());
            }
            marked.ids.push(id);
            letters.replace(batch, id, &DeadLetter { retrying: true, ..letter })
        })?;
        self.flush()?;
        letters.tell();
        Ok(marked)
    }

    /// Forgets those that fit: how many that were.
    pub fn drop_dead_letters(&self, filter: &Filter) -> Result<u64, StoreError> {
        let mut dropped = 0;
        self.inner.change(filter, |batch, id, _| {
            dropped += 1;
            self.inner.dead_letters.remove(batch, id)
        })?;
        self.flush()?;
        Ok(dropped)
    }

    /// The next letter that its owner is to try again, behind this number.
    pub fn next_dead_letter(
        &self,
        owner: Owner<'_>,
        behind: u64,
    ) -> Result<Option<(u64, DeadLetter)>, StoreError> {
        self.inner.dead_letters.next_marked(owner, behind)
    }

    /// Changes when there are letters to be tried again, or a replay begins or ends.
    #[must_use]
    pub fn again_news(&self) -> watch::Receiver<u64> {
        self.inner.dead_letters.news()
    }

    /// An output has delivered a letter's event: the letter goes.
    pub fn dead_letter_delivered(&self, id: u64) -> Result<(), StoreError> {
        self.inner.change_one(|batch| self.inner.dead_letters.remove(batch, id))
    }

    /// Another try failed: the letter says so, and waits for a person again.
    pub fn dead_letter_failed(&self, id: u64, letter: &DeadLetter) -> Result<(), StoreError> {
        let letter = DeadLetter { retrying: false, ..letter.clone() };
        self.inner.change_one(|batch| self.inner.dead_letters.replace(batch, id, &letter))
    }

    /// Brings the metrics of dead letters up to date.
    pub fn measure_dead_letters(&self) -> Result<(), StoreError> {
        self.inner.measure_dead_letters(clock::now())
    }
}

impl Inner {
    /// Changes the letters that fit, oldest first, some with each write.
    fn change(
        &self,
        filter: &Filter,
        mut change: impl FnMut(
            &mut fjall::OwnedWriteBatch,
            u64,
            DeadLetter,
        ) -> Result<super::Delta, StoreError>,
    ) -> Result<(), StoreError> {
        let ids = match filter.ids.as_slice() {
            [] => self.dead_letters.oldest_first().map(|read| read.map(|(id, _)| id)).collect(),
            ids => Ok(ids.to_vec()),
        };
        let ids: Vec<u64> = ids?;
        for ids in ids.chunks(AT_ONCE) {
            self.change_one(|batch| {
                let mut delta = super::Delta::default();
                for &id in ids {
                    if let Some(letter) = self.dead_letters.get(id)?
                        && filter.fits(id, &letter)
                    {
                        delta += change(batch, id, letter)?;
                    }
                }
                Ok(delta)
            })?;
        }
        Ok(())
    }

    fn change_one(
        &self,
        change: impl FnOnce(&mut fjall::OwnedWriteBatch) -> Result<super::Delta, StoreError>,
    ) -> Result<(), StoreError> {
        let _changing = self.dead_letters.changing();
        let mut batch = self.db.batch();
        let delta = change(&mut batch)?;
        batch.commit()?;
        self.dead_letters.wrote(delta);
        self.syncer.wrote();
        Ok(())
    }

    /// Removes letters that are old, or too many, or too much.
    pub(in crate::store) fn retain_dead_letters(&self, now: i64) -> Result<(), StoreError> {
        let limits = &self.config.dead_letters;
        let age = i64::try_from(limits.age.duration().as_micros()).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(age);
        let count = i64::try_from(limits.count).unwrap_or(i64::MAX);
        let bytes = i64::try_from(limits.size.bytes()).unwrap_or(i64::MAX);
        let mut removed: u64 = 0;
        loop {
            let kept = self.dead_letters.kept();
            let Some((id, letter)) = self.dead_letters.oldest_first().next().transpose()? else {
                break;
            };
            if letter.time >= oldest && kept.count <= count && kept.bytes <= bytes {
                break;
            }
            self.change_one(|batch| self.dead_letters.remove(batch, id))?;
            removed += 1;
        }
        if removed > 0 {
            self.metrics.dead_letters_expired.inc_by(removed);
            tracing::warn!(
                letters = removed,
                "the oldest dead letters are gone: `[store] dead_letters` says how many are kept"
            );
        }
        self.measure_dead_letters(now)
    }

    fn measure_dead_letters(&self, now: i64) -> Result<(), StoreError> {
        self.metrics.dead_letters_kept.set(self.dead_letters.kept().count);
        let oldest = self.dead_letters.oldest_first().next().transpose()?;
        let age = oldest.map_or(0, |(_, letter)| now.saturating_sub(letter.time).max(0));
        self.metrics.dead_letters_oldest.set(age as f64 / 1e6);
        Ok(())
    }
}
