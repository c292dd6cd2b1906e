//! Which network addresses are public: what a user's URL may lead to without reaching into the
//! network that walmill runs in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address that is no public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no public address")]
pub struct NotPublic(pub IpAddr);

/// # Errors
/// The address is no public one.
pub fn check_public(ip: IpAddr) -> Result<(), NotPublic> {
    let public = match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    };
    if public { Ok(()) } else { Err(NotPublic(ip)) }
}

/// By the IANA registry of special-purpose addresses.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    !matches!(
        ip.octets(),
        [0 | 10 | 127, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..]
    )
}

/// Only what is handed out to the public, 2000::/3, without the parts of it that are not, or that
/// hold an IPv4 address in a way that nobody routes any more. Translated addresses (NAT64, mapped)
/// are what they translate to.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // Mapped, ::ffff:0:0/96, and NAT64, 64:ff9b::/96.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        // Teredo, ORCHID and other protocols' own; documentation; 6to4; documentation again.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] => false,
        [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
