//! When to read. The kernel hands over a small piece for each row, and under load one wake-up for
//! each of them costs more than all that is done with the row.
//!
//! So under load, when nothing is there to be read, the thread sleeps for a moment and then takes
//! what has come meanwhile in one go. It sleeps for real: a task that only waits does not keep the
//! runtime from waking up for every piece. The server is spared the wake-ups, too. What comes
//! seldom is read at once.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::AsyncRead;

use super::wire::Wire;

/// Messages per second from which on it is worth it. Waking up for each of fewer takes a twentieth
/// of a core.
const BUSY: u32 = 20_000;
/// How long messages gather: below what anybody notices, and many messages where there is load.
const MOMENT: Duration = Duration::from_micros(500);
/// How long messages are counted before it is decided again.
const WINDOW: Duration = Duration::from_millis(2);

/// How much comes. For a thread that has nothing else to do: [`Gather::fill`] blocks it.
pub(super) struct Gather {
    since: Instant,
    messages: u32,
    busy: bool,
    /// It slept since something came.
    rested: bool,
}

impl Default for Gather {
    fn default() -> Self {
        Self { since: Instant::now(), messages: 0, busy: false, rested: false }
    }
}

impl Gather {
    /// Reads what has come, or comes next. Can be cancelled without losing a byte.
    pub(super) async fn fill<S>(&mut self, wire: &mut Wire<S>) -> io::Result<()>
    where
        S: AsyncRead + Unpin,
    {
        let mut filling = pin!(wire.fill());
        let filled = poll_fn(|context| {
            let filled = filling.as_mut().poll(context);
            if filled.is_pending() && self.busy && !self.rested {
                self.rested = true;
                thread::sleep(MOMENT);
                // What came meanwhile wakes the task as soon as the runtime looks.
            }
            filled
        });
        let filled = filled.await;
        self.rested = false;
        filled
    }

    /// So many messages have come.
    pub(super) fn came(&mut self, messages: u32) {
        self.messages = self.messages.saturating_add(messages);
        let passed = self.since.elapsed();
        if passed >= WINDOW {
            self.busy = is_busy(self.messages, passed);
            (self.since, self.messages) = (Instant::now(), 0);
        }
    }
}

fn is_busy(messages: u32, passed: Duration) -> bool {
    f64::from(messages) > f64::from(BUSY) * passed.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_seldom_is_read_at_once() {
        let second = Duration::from_secs(1);
        assert!(!is_busy(BUSY, second));
        assert!(is_busy(BUSY + 1, second));
        assert!(!Gather::default().busy);
    }
}
