//! Tickets: who has a token gets one, and it is good once and for a moment. They are for browsers,
//! whose EventSource and WebSocket can't send headers: what stands in an address may be seen by
//! others, so it should be worth nothing by then.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::principal::Principal;

/// How long a ticket is good.
pub(in crate::server) const GOOD_FOR: Duration = Duration::from_secs(30);
/// Tickets that nobody has used yet.
const MOST: usize = 65_536;

/// Tickets that are out.
#[derive(Default)]
pub(in crate::server) struct Tickets(Mutex<HashMap<[u8; 32], (Instant, Principal)>>);

impl Tickets {
    /// Makes one; `None` while too many are out.
    pub(in crate::server) fn issue(&self, principal: Principal) -> Option<String> {
        let ticket = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>());
        let now = Instant::now();
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if out.len() >= MOST {
            out.retain(|_, (ends, _)| *ends > now);
        }
        if out.len() >= MOST {
            return None;
        }
        out.insert(Sha256::digest(&ticket).into(), (now + GOOD_FOR, principal));
        Some(ticket)
    }

    /// Takes one back: whose it was, if it is still good, and what they had shown for it is, too.
    pub(in crate::server) fn redeem(&self, ticket: &str) -> Option<Principal> {
        let digest: [u8; 32] = Sha256::digest(ticket).into();
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (ends, principal) = out.remove(&digest)?;
        let is_over = principal.lasts().is_some_and(|left| left.is_zero());
        (ends > Instant::now() && !is_over).then_some(principal)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::Map;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_good_once_and_for_a_moment() {
        let tickets = Tickets::default();
        let ticket = tickets.issue(Principal::owner()).unwrap();
        assert!(tickets.redeem("another").is_none());
        assert!(tickets.redeem(&ticket).is_some());
        assert!(tickets.redeem(&ticket).is_none());
        let ticket = tickets.issue(Principal::owner()).unwrap();
        tokio::time::advance(GOOD_FOR).await;
        assert!(tickets.redeem(&ticket).is_none());
    }

    #[tokio::test]
    async fn a_ticket_does_not_outlive_the_token_that_it_was_given_for() {
        let tickets = Tickets::default();
        let past = SystemTime::now() - Duration::from_secs(1);
        let ticket = tickets.issue(Principal::of_claims(Map::new(), past)).unwrap();
        assert!(tickets.redeem(&ticket).is_none());
        let soon = SystemTime::now() + Duration::from_secs(60);
        let ticket = tickets.issue(Principal::of_claims(Map::new(), soon)).unwrap();
        assert!(tickets.redeem(&ticket).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn unused_tickets_are_bounded_and_make_room_when_they_are_over() {
        let tickets = Tickets::default();
        for _ in 0..MOST {
            tickets.issue(Principal::owner()).unwrap();
        }
        assert!(tickets.issue(Principal::owner()).is_none());
        tokio::time::advance(GOOD_FOR).await;
        assert!(tickets.issue(Principal::owner()).is_some());
    }
}
