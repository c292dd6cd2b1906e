//! How many connections there are from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections by address.
pub(super) struct Addresses {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place, until it is dropped.
pub(super) struct Place {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    pub(super) fn new(most: Option<NonZeroUsize>) -> Self {
        Self { most: most.map_or(usize::MAX, NonZeroUsize::get), open: Arc::default() }
    }

    /// A place for a connection, if the address has one left.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { address, open: Arc::clone(&self.open) })
    }
}

/// Whoever has one IPv6 address has all of its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address => address,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let addresses = Addresses::new(NonZeroUsize::new(2));
        let admit = |text: &str| addresses.admit(text.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_none());
        assert!(admit("10.0.0.2").is_some());
        drop(first);
        assert!(admit("10.0.0.1").is_some());
        let _six = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert!(admit("2001:db8::3").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
    }
}
