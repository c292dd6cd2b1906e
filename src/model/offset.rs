//! Where an event stands: offsets, the ids made of them, and the cursors that clients keep.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Lsn;

/// A place in the journal and in the streams made from it. It says where in PostgreSQL's log an
/// event comes from and is no count, so what is made again after a crash stands at the same place.
///
/// Commits leave PostgreSQL in the order of their LSNs, so offsets order like the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// LSN of the commit record (of the message itself, for a non-transactional message).
    pub commit: Lsn,
    /// Which change of that transaction, from 0.
    pub ordinal: u32,
    /// Which of the events made from that change, from 0.
    pub emit: u32,
}

impl Offset {
    /// Bytes of [`Offset::to_bytes`].
    pub const LEN: usize = 16;
    /// Emit indices from here on are places for events that come again.
    const AGAIN: u32 = 1 << 31;
    /// Before everything.
    pub const START: Self = Self { commit: Lsn::ZERO, ordinal: 0, emit: 0 };

    /// The place of the first event made from a change.
    #[must_use]
    pub fn new(commit: Lsn, ordinal: u32) -> Self {
        Self { commit, ordinal, emit: 0 }
    }

    /// After every event of the transaction that committed at `commit`.
    #[must_use]
    pub fn end_of(commit: Lsn) -> Self {
        Self { commit, ordinal: u32::MAX, emit: u32::MAX }
    }

    /// After every event made from the change at this place.
    #[must_use]
    pub fn end(self) -> Self {
        Self { emit: u32::MAX, ..self }
    }

    /// The next place behind this one for an event that comes again, under the id that it has had:
    /// its stream has gone on meanwhile, so it cannot stand at its own place. Nothing else is ever
    /// put there, since a change makes fewer than 2^31 events. `None` once that many came again.
    #[must_use]
    pub fn again(self) -> Option<Self> {
        let emit = match self.emit {
            emit if emit < Self::AGAIN => Self::AGAIN,
            emit => emit.checked_add(1).filter(|&emit| emit < u32::MAX)?,
        };
        Some(Self { emit, ..self })
    }

    /// Whether this is a place for an event that came again, so that its id is another.
    #[must_use]
    pub fn is_again(self) -> bool {
        (Self::AGAIN..u32::MAX).contains(&self.emit)
    }

    /// Big-endian, so that bytes sort as offsets do.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.commit.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.ordinal.to_be_bytes());
        bytes[12..].copy_from_slice(&self.emit.to_be_bytes());
        bytes
    }

    /// Reads what [`Offset::to_bytes`] wrote; `None` if that is not exactly [`Offset::LEN`] bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let commit = Lsn(u64::from(word(0)) << 32 | u64::from(word(4)));
        Some(Self { commit, ordinal: word(8), emit: word(12) })
    }
}

/// The stable id of an event, `<commit LSN>/<position in transaction>[/<emit index>]`: the same on
/// every retry, after every crash and in every replay. The emit index is left out where it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub Offset);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Offset { commit, ordinal, emit } = self.0;
        match emit {
            0 => write!(f, "{commit}/{ordinal}"),
            emit => write!(f, "{commit}/{ordinal}/{emit}"),
        }
    }
}

/// Text that is no event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no event id (an LSN and one or two numbers, as in 16/B374D848/0)")]
pub struct EventIdError(String);

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let wrong = || EventIdError(text.into());
        // `+1` would be a number to `u32`, and is no id that we ever wrote.
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<u32>().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        let mut parts = text.splitn(4, '/');
        let mut part = || parts.next().ok_or_else(wrong);
        let (high, low, ordinal) = (part()?, part()?, part()?);
        let commit = format!("{high}/{low}").parse().map_err(|_| wrong())?;
        let emit = part().map_or(Ok(0), number)?;
        Ok(Self(Offset { commit, ordinal: number(ordinal)?, emit }))
    }
}

/// Which making of a store this is: drawn at random when the store is created, so that a cursor
/// from another store is recognised instead of silently read as a place in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

/// A reader's place in a stream: everything up to and including `offset` has been seen.
/// Clients get it as opaque text and give it back unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The store it belongs to.
    pub epoch: Epoch,
    /// The last event seen.
    pub offset: Offset,
}

/// Text that is no cursor of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; give one back exactly as it came, or a time, `earliest` or `latest`")]
pub struct CursorError;

/// First byte of a cursor's bytes: the layout that follows.
const CURSOR_LAYOUT: u8 = 1;

impl Cursor {
    /// Characters of every cursor's text.
    pub const LEN: usize = 28;

    /// Its text.
    #[must_use]
    pub fn to_text(self) -> [u8; Self::LEN] {
        let mut bytes = [CURSOR_LAYOUT; 5 + Offset::LEN];
        bytes[1..5].copy_from_slice(&self.epoch.0.to_be_bytes());
        bytes[5..].copy_from_slice(&self.offset.to_bytes());
        let mut text = [0; Self::LEN];
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        debug_assert_eq!(written, Ok(Self::LEN), "21 bytes are 28 characters of base64");
        text
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let mut bytes = [0; 5 + Offset::LEN];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(len) if len == bytes.len() && bytes[0] == CURSOR_LAYOUT => {}
            _ => return Err(CursorError),
        }
        let epoch = Epoch(u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]));
        let offset = Offset::from_bytes(&bytes[5..]).ok_or(CursorError)?;
        Ok(Self { epoch, offset })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offset() -> impl Strategy<Value = Offset> {
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(commit, ordinal, emit)| Offset {
            commit: Lsn(commit),
            ordinal,
            emit,
        })
    }

    proptest! {
        #[test]
        fn offsets_sort_like_their_bytes(a in offset(), b in offset()) {
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert_eq!(Offset::from_bytes(&a.to_bytes()), Some(a));
        }

        #[test]
        fn a_cursor_comes_back_as_it_went(epoch: u32, offset in offset()) {
            let cursor = Cursor { epoch: Epoch(epoch), offset };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn an_event_id_comes_back_as_it_went(offset in offset()) {
            prop_assert_eq!(EventId(offset).to_string().parse(), Ok(EventId(offset)));
        }

        #[test]
        fn any_other_text_is_no_event_id_and_no_panic(text in "[0-9A-G/+]{0,20}|.{0,20}") {
            let _ = text.parse::<EventId>();
        }

        #[test]
        fn any_other_text_is_no_cursor_and_no_panic(text in ".{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn an_id_names_commit_ordinal_and_later_emits() {
        let offset = Offset { commit: Lsn(0x16_B374_D848), ordinal: 3, emit: 0 };
        assert_eq!(EventId(offset).to_string(), "16/B374D848/3");
        assert_eq!(EventId(Offset { emit: 2, ..offset }).to_string(), "16/B374D848/3/2");
    }
}
