//! The least that can be done with a slot: read its stream and throw it away. What a benchmark
//! measures everything else against.

use tokio::io::{ReadHalf, WriteHalf};

use super::connection::Connection;
use super::gather::Gather;
use super::net::Socket;
use super::options::Transactions;
use super::wire::Wire;
use super::{Config, Fault};
use crate::model::Lsn;

/// The first byte of a message about a row: Insert, Update, Delete.
const CHANGES: [u8; 3] = *b"IUD";
/// What the server puts before each message: start, end and time.
const HEAD: usize = 1 + 24;

/// A running stream that nobody looks at. Confirms nothing, so the server gives up on it after
/// `wal_sender_timeout`.
pub struct Reader {
    wire: Wire<ReadHalf<Box<dyn Socket>>>,
    gather: Gather,
    /// Without it the server would see the end.
    _writer: WriteHalf<Box<dyn Socket>>,
}

impl Reader {
    /// Connects and starts the slot's stream, as walmill does.
    ///
    /// # Errors
    /// What went wrong, for a person.
    pub async fn open(config: &Config) -> Result<Self, String> {
        let start = async {
            let connection = Connection::open(config, 0).await?;
            connection.stream(Lsn::ZERO, Transactions::AsConfigured).await
        };
        let (wire, _writer) = start.await.map_err(words)?;
        Ok(Self { wire, gather: Gather::default(), _writer })
    }

    /// Reads until so many changes of rows have come.
    ///
    /// # Errors
    /// What went wrong, for a person.
    pub async fn read(&mut self, changes: u64) -> Result<(), String> {
        let broken = |error| words(Fault::broken("receive", &error));
        let mut come = 0;
        while come < changes {
            self.gather.fill(&mut self.wire).await.map_err(broken)?;
            let mut messages = 0;
            while let Some((tag, body)) = self.wire.take().map_err(broken)? {
                messages += 1;
                let is_change = tag == b'd'
                    && body.first() == Some(&b'w')
                    && body.get(HEAD).is_some_and(|kind| CHANGES.contains(kind));
                come += u64::from(is_change);
            }
            self.gather.came(messages);
        }
        Ok(())
    }
}

fn words(fault: Fault) -> String {
    match fault {
        Fault::Store(error) => error.to_string(),
        Fault::Away(report)
        | Fault::Taken(report)
        | Fault::Person(report)
        | Fault::Lost(report)
        | Fault::Halt(report) => report.error,
    }
}
