//! A certificate that is trusted by itself: one that signed itself, and that the user has put among
//! the authorities, as PostgreSQL's own instructions have it. webpki wants an authority above.

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::der::{GENERAL_TIME, INTEGER, SEQUENCE, UTC_TIME, VERSION, element};

/// Whether such a certificate is good now.
pub(super) fn check_time(
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let (from, to) = validity(certificate).ok_or(CertificateError::BadEncoding)?;
    match now.as_secs() {
        now if now < from => Err(CertificateError::NotValidYet),
        now if now > to => Err(CertificateError::Expired),
        _ => Ok(()),
    }
}

/// From when until when, in seconds since 1970. Certificate ::= SEQUENCE { SEQUENCE { version,
/// serial number, signature, issuer, SEQUENCE { from, to }, … }, … }
fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (outer, _) = element(SEQUENCE, certificate)?;
    let (inner, _) = element(SEQUENCE, outer)?;
    let rest = element(VERSION, inner).map_or(inner, |(_, rest)| rest);
    let (_, rest) = element(INTEGER, rest)?;
    let (_, rest) = element(SEQUENCE, rest)?;
    let (_, rest) = element(SEQUENCE, rest)?;
    let (validity, _) = element(SEQUENCE, rest)?;
    let (from, rest) = time(validity)?;
    let (to, _) = time(rest)?;
    Some((from, to))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let ((text, rest), century) = match element(UTC_TIME, bytes) {
        Some(found) => (found, false),
        None => (element(GENERAL_TIME, bytes)?, true),
    };
    let digits = text.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let (year, digits) = digits.split_at_checked(if century { 4 } else { 2 })?;
    let number = |digits: &[u8]| digits.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0'));
    let year = match (century, number(year)) {
        (true, year) => year,
        (false, year @ 50..) => 1900 + year,
        (false, year) => 2000 + year,
    };
    let (fields, []) = digits.as_chunks::<2>() else { return None };
    let [month, day, hour, minute, second] = fields else { return None };
    let [month, day, hour, minute, second] =
        [month, day, hour, minute, second].map(|field| number(field));
    let days = days(year, month).filter(|_| day > 0)? + day - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second, rest))
}

/// From 1970 to the first of a month.
fn days(year: u64, month: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let before = BEFORE.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let leaps = |until: u64| until / 4 - until / 100 + until / 400;
    let years = year.checked_sub(1970)? * 365 + leaps(year - 1) - leaps(1969);
    Some(years + before + u64::from(leap(year) && month > 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let read = |tag: u8, text: &str| {
            let bytes = [&[tag, text.len() as u8], text.as_bytes()].concat();
            time(&bytes).map(|(seconds, _)| seconds)
        };
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(read(UTC_TIME, "261125073624Z"), Some(1_795_592_184));
        assert_eq!(read(GENERAL_TIME, "20000301000000Z"), Some(951_868_800));
        assert_eq!(read(GENERAL_TIME, "21000301000000Z"), Some(4_107_542_400));
        for wrong in ["", "Z", "7001010000Z", "701301000000Z", "700100000000Z", "700101000000"] {
            assert_eq!(read(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_certificate_or_none(bytes: Vec<u8>) {
            let _ = validity(&bytes);
            let _ = time(&bytes);
        }
    }
}
