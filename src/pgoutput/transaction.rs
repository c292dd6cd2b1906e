//! Where transactions begin and end: whole ones, blocks of open ones, and prepared ones.

use super::cursor::Cursor;
use super::{DecodeError, Decoded, Message};
use crate::model::Lsn;

/// A transaction that is prepared: everything is there, and a later command commits it or rolls it
/// back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared<'a> {
    /// LSN of the prepare record.
    pub prepare_lsn: Lsn,
    /// Where the log goes on behind it.
    pub end_lsn: Lsn,
    /// When it was prepared, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// The transaction's number.
    pub xid: u32,
    /// What it was prepared as.
    pub gid: &'a str,
}

pub(super) fn begin<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    Ok(Message::Begin {
        final_lsn: cursor.lsn("final_lsn")?,
        time: cursor.time("commit_time")?,
        xid: cursor.u32("xid")?,
    })
}

pub(super) fn commit<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    cursor.u8("flags")?;
    Ok(Message::Commit {
        commit_lsn: cursor.lsn("commit_lsn")?,
        end_lsn: cursor.lsn("end_lsn")?,
        time: cursor.time("commit_time")?,
    })
}

pub(super) fn origin<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    Ok(Message::Origin { commit_lsn: cursor.lsn("commit_lsn")?, name: cursor.string("name")? })
}

pub(super) fn stream_start<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    Ok(Message::StreamStart { xid: cursor.u32("xid")?, first: cursor.u8("first_segment")? != 0 })
}

pub(super) fn stream_commit<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let xid = cursor.u32("xid")?;
    cursor.u8("flags")?;
    Ok(Message::StreamCommit {
        xid,
        commit_lsn: cursor.lsn("commit_lsn")?,
        end_lsn: cursor.lsn("end_lsn")?,
        time: cursor.time("commit_time")?,
    })
}

/// Its last two fields are there only where `streaming` is `parallel`.
pub(super) fn stream_abort<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let (xid, subxid) = (cursor.u32("xid")?, cursor.u32("subxid")?);
    let at = match cursor.0.is_empty() {
        true => None,
        false => Some((cursor.lsn("abort_lsn")?, cursor.time("abort_time")?)),
    };
    Ok(Message::StreamAbort { xid, subxid, at })
}

pub(super) fn begin_prepare<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    prepared(cursor).map(Message::BeginPrepare)
}

/// Prepare, or Stream Prepare.
pub(super) fn prepare<'a>(cursor: &mut Cursor<'a>) -> Result<Prepared<'a>, DecodeError> {
    cursor.u8("flags")?;
    prepared(cursor)
}

fn prepared<'a>(cursor: &mut Cursor<'a>) -> Result<Prepared<'a>, DecodeError> {
    Ok(Prepared {
        prepare_lsn: cursor.lsn("prepare_lsn")?,
        end_lsn: cursor.lsn("end_lsn")?,
        time: cursor.time("prepare_time")?,
        xid: cursor.u32("xid")?,
        gid: cursor.string("gid")?,
    })
}

pub(super) fn commit_prepared<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    cursor.u8("flags")?;
    Ok(Message::CommitPrepared {
        commit_lsn: cursor.lsn("commit_lsn")?,
        end_lsn: cursor.lsn("end_lsn")?,
        time: cursor.time("commit_time")?,
        xid: cursor.u32("xid")?,
        gid: cursor.string("gid")?,
    })
}

pub(super) fn rollback_prepared<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    cursor.u8("flags")?;
    Ok(Message::RollbackPrepared {
        prepare_end_lsn: cursor.lsn("prepare_end_lsn")?,
        end_lsn: cursor.lsn("rollback_end_lsn")?,
        prepare_time: cursor.time("prepare_time")?,
        time: cursor.time("rollback_time")?,
        xid: cursor.u32("xid")?,
        gid: cursor.string("gid")?,
    })
}
