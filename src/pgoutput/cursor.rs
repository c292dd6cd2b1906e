//! Takes fields off the front of a message.

use super::DecodeError;
use crate::model::Lsn;

/// 2000-01-01 in microseconds since 1970-01-01: where PostgreSQL's clock starts.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// What is left of a message.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn bytes(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated { field })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.array(field).map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    /// A time, in microseconds since 1970-01-01 UTC.
    pub(super) fn time(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(|bytes| i64::from_be_bytes(bytes).saturating_add(POSTGRES_EPOCH))
    }

    /// Text up to its zero byte.
    pub(super) fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let end = memchr::memchr(0, self.0).ok_or(DecodeError::Truncated { field })?;
        let text = self.bytes(field, end)?;
        self.0 = &self.0[1..];
        std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8 { field })
    }
}

/// A time in microseconds since 1970-01-01 UTC, as PostgreSQL would write it.
pub(super) fn postgres_time(time: i64) -> i64 {
    time.saturating_sub(POSTGRES_EPOCH)
}
