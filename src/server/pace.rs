//! How fast a client is listened to: what it sends faster waits in its socket, and then with it.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// So many seconds' messages may come at once.
const BURST: u32 = 2;

/// Listens to a client, and not faster than it may speak.
pub(super) struct Pace {
    /// For one message.
    cost: Duration,
    /// When all that was said until now will have been paid for.
    paid: Instant,
}

impl Pace {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        Self { cost: Duration::from_secs(1) / per_second.get(), paid: Instant::now() }
    }

    /// The next message, which is listened for when the client may speak. It may be dropped and
    /// called again at any time, if `listening` may.
    pub(super) async fn next<T>(&mut self, listening: impl Future<Output = T>) -> T {
        let earliest = self.paid - Duration::from_secs(u64::from(BURST));
        // A moment that has passed would be waited for, too: in the runtime's books.
        if Instant::now() < earliest {
            sleep_until(earliest).await;
        }
        let message = listening.await;
        self.paid = self.paid.max(Instant::now()) + self.cost;
        message
    }
}
