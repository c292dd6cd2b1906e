//! What a JetStream server says to messages. All its answers come to one subscription, in the
//! order in which it gives them, and name the message by the last part of their subject; so a
//! batch costs a wait and a timer now and then, and not one of each for every message.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, Message, StatusCode, SubscribeError, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

/// Why a message is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Nobody takes the subject.
    #[error("no stream found for given subject")]
    NoStream,
    /// The server said no.
    #[error(transparent)]
    Server(#[from] jetstream::Error),
    /// It said nothing that can be understood.
    #[error("the server's answer cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// It said nothing.
    #[error("timed out: the server did not answer")]
    Late,
    /// The connection ended.
    #[error("the connection is closed")]
    Closed,
}

/// The answers of one connection.
pub(super) struct Answers {
    inbox: String,
    subscription: Subscriber,
    /// Number of the next message: what is late from a batch before is told by its own.
    next: u64,
}

impl Answers {
    /// Has them sent to an inbox of its own.
    pub(super) async fn open(client: &Client) -> Result<Self, SubscribeError> {
        let inbox = client.new_inbox();
        let subscription = client.subscribe(format!("{inbox}.*")).await?;
        Ok(Self { inbox, subscription, next: 0 })
    }

    /// Begins a batch; what has come late from the one before is not kept.
    pub(super) fn begin(&mut self) -> Batch<'_> {
        while let Some(Some(_late)) = self.subscription.next().now_or_never() {}
        Batch { first: self.next, waiting: Vec::new(), done: 0, answers: self }
    }
}

/// The messages of a batch, and what is known of them.
pub(super) struct Batch<'a> {
    answers: &'a mut Answers,
    /// Number of its first message.
    first: u64,
    /// Which event each message is of, and whether it is stored.
    waiting: Vec<(usize, bool)>,
    /// Messages from the first on that are stored.
    done: usize,
}

impl Batch<'_> {
    /// Where the answer to the next message is to be sent.
    pub(super) fn reply(&self) -> String {
        format!("{}.{}", self.answers.inbox, self.answers.next)
    }

    /// The next message is sent; it is of this event.
    pub(super) fn sent(&mut self, event: usize) {
        self.answers.next += 1;
        self.waiting.push((event, false));
    }

    /// How many events are stored, counted from the first.
    pub(super) fn taken(&self) -> usize {
        let behind = self.waiting.last().map_or(0, |(event, _)| event + 1);
        self.waiting.get(self.done).map_or(behind, |(event, _)| *event)
    }

    /// Waits until every message is stored. Otherwise: the event of the first one that is not, and
    /// why. The server has `patience` from one answer to the next.
    pub(super) async fn stored(&mut self, patience: Duration) -> Result<(), (usize, Refusal)> {
        let mut refused: Option<(usize, Refusal)> = None;
        let mut until = Instant::now() + patience;
        while let Some(&(event, _)) = self.waiting.get(self.done) {
            if refused.as_ref().is_some_and(|(at, _)| *at == self.done) {
                break;
            }
            let next = self.answers.subscription.next();
            let Ok(next) = timeout_at(until, next).await else {
                return Err((event, Refusal::Late));
            };
            let mut next = Some(next.ok_or((event, Refusal::Closed))?);
            // What has come together is taken together.
            while let Some(message) = next {
                if let Some((at, refusal)) = self.take(&message)
                    && refused.as_ref().is_none_or(|(first, _)| at < *first)
                {
                    refused = Some((at, refusal));
                }
                next = self.answers.subscription.next().now_or_never().flatten();
            }
            until = Instant::now() + patience;
        }
        match refused {
            Some((at, refusal)) => Err((self.waiting[at].0, refusal)),
            None => Ok(()),
        }
    }

    /// Notes an answer; which message was refused, if it says so.
    fn take(&mut self, message: &Message) -> Option<(usize, Refusal)> {
        let (_, number) = message.subject.rsplit_once('.')?;
        let at = number.parse::<u64>().ok()?.checked_sub(self.first)?;
        let at = usize::try_from(at).ok().filter(|at| *at < self.waiting.len())?;
        if let Err(refusal) = read(message) {
            return Some((at, refusal));
        }
        self.waiting[at].1 = true;
        while self.waiting.get(self.done).is_some_and(|(_, stored)| *stored) {
            self.done += 1;
        }
        None
    }
}

fn read(message: &Message) -> Result<(), Refusal> {
    /// Either says where the message stands, or why it does not.
    #[derive(Deserialize)]
    struct Answer {
        error: Option<jetstream::Error>,
        seq: Option<u64>,
    }
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Refusal::NoStream);
    }
    match serde_json::from_slice(&message.payload)? {
        Answer { error: Some(error), .. } => Err(error.into()),
        Answer { seq: Some(_), .. } => Ok(()),
        Answer { .. } => Err(Refusal::Unreadable(serde::de::Error::missing_field("seq"))),
    }
}
