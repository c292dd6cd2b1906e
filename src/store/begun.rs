//! That an output has begun: from then on it skips nothing of what comes to the streams it wants.

use super::{Store, StoreError, from_json, to_json};
use crate::model::pattern::Glob;

impl Store {
    /// Notes which streams an output wants from now on, on disk when this returns. With `newest`
    /// it begins behind the newest event of those that are there and that it did not want before:
    /// all of them, when it never began. Whatever is made later it delivers whole, so a stream
    /// without a checkpoint is one that it has still to read from its beginning.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn begin_output(
        &self,
        output: &str,
        wants: &[Glob],
        newest: bool,
    ) -> Result<(), StoreError> {
        let key = format!("begun/{output}");
        let kept = self.inner.meta.get(&key)?;
        let kept: Option<Vec<Glob>> = kept
            .map(|json| from_json(&json, || format!("which streams the output {output} wants")))
            .transpose()?;
        if kept.as_deref() == Some(wants) {
            return Ok(());
        }
        let wanted = match kept {
            Some(wanted) => wanted,
            // It began under a walmill that did not note it.
            None if self.inner.checkpoints.has_output(output)? => wants.to_vec(),
            None => Vec::new(),
        };
        let among = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        let mut batch = self.inner.db.batch();
        // One that is made while this runs is not seen here, and so delivered whole.
        for stream in self.streams().iter().filter(|_| newest) {
            let name = stream.name();
            let is_new_to_it = among(wants, name) && !among(&wanted, name);
            if is_new_to_it && self.checkpoint(output, name)?.is_none() {
                let head = *stream.head().borrow();
                self.inner.checkpoints.set_output(&mut batch, (output, name), head);
            }
        }
        batch.insert(&self.inner.meta, key, to_json(&wants)?);
        batch.commit()?;
        self.inner.syncer.wrote();
        self.flush()
    }
}
