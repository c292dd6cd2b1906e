//! Outputs whose far side said that it wants no more, until a person enables them again.

use super::{Store, StoreError, from_json, to_json};
use crate::model::status::Disabled;

impl Store {
    /// Why an output delivers nothing, if its far side said so.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn disabled(&self, output: &str) -> Result<Option<Disabled>, StoreError> {
        let Some(json) = self.inner.meta.get(key(output))? else { return Ok(None) };
        from_json(&json, || format!("why the output {output} is disabled")).map(Some)
    }

    /// An output delivers nothing any more, also after a restart. On disk when this returns.
    pub fn disable(&self, output: &str, disabled: &Disabled) -> Result<(), StoreError> {
        self.inner.meta.insert(key(output), to_json(disabled)?)?;
        self.inner.disk.sync()?;
        Ok(())
    }

    /// It delivers again. Whether it was disabled; on disk when this returns.
    pub fn enable(&self, output: &str) -> Result<bool, StoreError> {
        if self.disabled(output)?.is_none() {
            return Ok(false);
        }
        self.inner.meta.remove(key(output))?;
        self.inner.disk.sync()?;
        self.inner.dead_letters.tell();
        Ok(true)
    }
}

fn key(output: &str) -> String {
    format!("disabled/{output}")
}
