//! Keeps a webhook's URL from reaching into the network that walmill runs in: every address that a
//! name resolves to is checked whenever a connection is made, and only checked addresses are
//! connected to. A name that changes its mind between two look-ups gains nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::model::address::check_public;

/// An address that a webhook must not connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is no public address, and webhooks go to those alone; if it is the receiver's, write \
     `allow_private = true`"
)]
pub struct NotPublic(IpAddr);

/// # Errors
/// The address is no public one.
pub fn check(ip: IpAddr) -> Result<(), NotPublic> {
    check_public(ip).map_err(|_| NotPublic(ip))
}

/// The system's resolver, guarded unless private addresses are allowed.
pub fn resolver(allow_private: bool) -> Arc<dyn Resolve> {
    if allow_private { Arc::new(System) } else { Arc::new(Guard(System)) }
}

/// What names resolve to on this machine.
#[derive(Debug)]
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Refuses a name as soon as one of its addresses is not public.
#[derive(Debug)]
pub struct Guard<R>(pub R);

impl<R: Resolve> Resolve for Guard<R> {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.0.resolve(name);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = addresses.await?.collect();
            addresses.iter().try_for_each(|address| check(address.ip()))?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.1.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(check(public.parse().unwrap()), Ok(()), "{public}");
        }
        for other in [
            "0.0.0.0",
            "10.255.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.53",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:808:808::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(check(other.parse().unwrap()).is_err(), "{other}");
        }
    }

    /// Says something else every time it is asked.
    struct Turning(Mutex<Vec<Vec<&'static str>>>);

    impl Resolve for Turning {
        fn resolve(&self, name: Name) -> Resolving {
            Fixed(self.0.lock().unwrap().remove(0)).resolve(name)
        }
    }

    struct Fixed(Vec<&'static str>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let parse = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), 0);
            let addresses: Vec<_> = self.0.iter().map(parse).collect();
            Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
        }
    }

    async fn resolves(ips: &[&'static str]) -> bool {
        Guard(Fixed(ips.to_vec())).resolve("a.example".parse().unwrap()).await.is_ok()
    }

    #[tokio::test]
    async fn every_look_up_is_checked_anew() {
        let answers = [["1.1.1.1"], ["127.0.0.1"], ["1.1.1.1"]].map(|ips| ips.to_vec());
        let guard = Guard(Turning(Mutex::new(answers.to_vec())));
        let mut passed = Vec::new();
        for _ in 0..3 {
            passed.push(guard.resolve("a.example".parse().unwrap()).await.is_ok());
        }
        assert_eq!(passed, [true, false, true]);
    }

    #[tokio::test]
    async fn one_private_address_among_public_ones_refuses_the_name() {
        assert!(resolves(&["1.1.1.1", "2606:4700::1111"]).await);
        assert!(!resolves(&["1.1.1.1", "169.254.169.254"]).await);
        assert!(!resolves(&["::1", "1.1.1.1"]).await);
    }
}
