//! As much of DER as certificates and keys ask of us: elements, one behind the other.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERAL_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
/// What stands in front of all else in a certificate.
pub(super) const VERSION: u8 = 0xA0;

/// The content of the element in front, and what is behind it.
pub(super) fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
    let len = digits
        .iter()
        .try_fold(0_usize, |len, digit| Some(len.checked_mul(256)? + usize::from(*digit)))?;
    rest.split_at_checked(len)
}

/// The number in front, if it is neither negative nor large, and what is behind it.
pub(super) fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = element(INTEGER, bytes)?;
    let number = digits
        .iter()
        .try_fold(0_u32, |number, digit| Some(number.checked_mul(256)? + u32::from(*digit)))?;
    Some((number, rest))
}
