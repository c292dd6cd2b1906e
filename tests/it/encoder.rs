//! The decoder against an encoder: any message, written as PostgreSQL's documentation says
//! ("Logical Replication Message Formats"), reads back as it was; cut anywhere it names the field
//! that it ends in; and one byte more is one too many.

mod model;
mod write;

use proptest::prelude::*;
use walmill::pgoutput::{DecodeError, decode, decode_streamed};

use model::{Sent, any_message};

/// Length of a Stream Abort that does not say where and when: tag and two numbers.
const ABORT: usize = 1 + 4 + 4;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_message_reads_back_as_it_was_written(sent in any_message()) {
        let bytes = write::message(&sent, None);
        let read = decode(&bytes).map(Sent::from);
        prop_assert_eq!(read, Ok(sent));
    }

    #[test]
    fn inside_a_block_it_reads_back_with_its_owner(sent in any_message(), xid: u32) {
        let owner = sent.has_owner().then_some(xid);
        let bytes = write::message(&sent, owner);
        let read = decode_streamed(&bytes).map(|(owner, message)| (owner, Sent::from(message)));
        prop_assert_eq!(read, Ok((owner, sent)));
    }

    #[test]
    fn a_message_cut_anywhere_names_the_field_it_ends_in(sent in any_message(), xid: u32) {
        let whole = write::message(&sent, None);
        // An abort without where and when is whole, too.
        let shorter = |len| matches!(sent, Sent::StreamAbort { .. }) && len == ABORT;
        for len in (0..whole.len()).filter(|len| !shorter(*len)) {
            let cut = decode(&whole[..len]);
            prop_assert!(is_truncated(&cut), "at {} of {}: {:?}", len, whole.len(), cut);
        }
        let whole = write::message(&sent, Some(xid));
        for len in (0..whole.len()).filter(|_| sent.has_owner()) {
            let cut = decode_streamed(&whole[..len]);
            prop_assert!(is_truncated(&cut), "at {} of {}: {:?}", len, whole.len(), cut);
        }
    }

    #[test]
    fn one_byte_behind_a_message_is_one_too_many(sent in any_message(), byte: u8) {
        // An abort may be longer: where and when is sent to those who asked.
        prop_assume!(!matches!(sent, Sent::StreamAbort { at: None, .. }));
        let mut bytes = write::message(&sent, None);
        bytes.push(byte);
        prop_assert_eq!(decode(&bytes).map(Sent::from), Err(DecodeError::TooLong { bytes: 1 }));
    }
}

/// Whether it is the error of a message that ends too early, with the name of a field.
fn is_truncated<T>(result: &Result<T, DecodeError>) -> bool {
    matches!(result, Err(DecodeError::Truncated { field }) if !field.is_empty())
}
