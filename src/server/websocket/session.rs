//! One WebSocket client, from its first message to its last. One task owns all of it: it listens,
//! sends what its streams have, and keeps the time.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::ws::close_code;
use bytes::Bytes;
use futures_util::future::{pending, select_all};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::error;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, Utf8Bytes};

use super::message::{self, Position, Request};
use super::socket::Socket;
use super::subscription::{Subscription, Wish, subscribed};
use crate::model::{Cursor, Finding};
use crate::server::auth::{Guardian, Lapse, Reader};
use crate::server::connection::Stalled;
use crate::server::feed::Found;
use crate::server::pace::Pace;
use crate::server::place::Gap;
use crate::server::runs::{Form, Parts, Run};
use crate::server::visit::Visit;
use crate::server::{GRACE, Server};
use crate::store::StoreError;

/// A client has left when it says nothing for so many times `server.ping`.
const SILENT_PINGS: u32 = 2;
/// Close codes that say what HTTP says with 401 and 403.
const EXPIRED: u16 = 4401;
const FORBIDDEN: u16 = 4403;
/// The longest reason that fits in a close frame.
const MAX_REASON: usize = 123;

/// One client.
pub(super) struct Session {
    server: Arc<Server>,
    /// Waited for once, since everyone who waits stands in one list.
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    socket: Socket,
    visit: Visit,
    form: Form,
    subscriptions: Vec<Subscription>,
    /// What is being sent.
    runs: Vec<Arc<Run>>,
    guardian: Guardian,
    pace: Pace,
    /// Which subscription is asked first, so that a busy one does not starve the others.
    turn: usize,
    ping: Interval,
    unanswered: u32,
}

/// Why a client leaves, or has to.
#[derive(Debug)]
enum Leave {
    /// It said goodbye, or is gone.
    Gone,
    /// It answers no ping.
    Silent,
    /// It takes nothing.
    Slow,
    /// walmill ends.
    Shutdown,
    /// It sent what can't be read.
    Unreadable(u16, &'static str),
    /// What it was granted has ended.
    Lapsed(Lapse),
    /// The store failed.
    Failed,
}

impl From<Stalled> for Leave {
    fn from(_: Stalled) -> Self {
        Self::Slow
    }
}

impl From<tungstenite::Error> for Leave {
    fn from(_: tungstenite::Error) -> Self {
        Self::Gone
    }
}

impl From<StoreError> for Leave {
    fn from(error: StoreError) -> Self {
        error!("read for a client: {:#}", anyhow::Error::new(error));
        Self::Failed
    }
}

impl Leave {
    /// The close frame's code, a word for programs and a sentence for people; nothing for those
    /// who would not hear it.
    fn words(&self) -> Option<(u16, &'static str, &'static str)> {
        match self {
            Self::Gone | Self::Silent => None,
            Self::Slow => Some((close_code::AGAIN, "slow", "the client took nothing for too long")),
            Self::Shutdown => Some((close_code::RESTART, "shutdown", "walmill is shutting down")),
            Self::Unreadable(code, why) => Some((*code, "unreadable", why)),
            Self::Lapsed(lapse) => {
                let (word, sentence) = lapse.words();
                let code = if *lapse == Lapse::Expired { EXPIRED } else { FORBIDDEN };
                Some((code, word, sentence))
            }
            Self::Failed => {
                Some((close_code::ERROR, "store-failed", "the store could not be read"))
            }
        }
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Gone => "closed",
            Self::Slow => "slow",
            Self::Shutdown => "shutdown",
            Self::Lapsed(lapse) => lapse.words().0,
            Self::Silent | Self::Unreadable(..) | Self::Failed => "error",
        }
    }
}

impl Session {
    pub(super) fn new(
        server: Arc<Server>,
        socket: Socket,
        visit: Visit,
        form: Form,
        reader: Reader,
    ) -> Self {
        let period = server.config.ping.duration();
        let mut ping = interval_at(Instant::now() + period, period);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let guardian = Guardian::new(Arc::clone(&server), reader);
        let pace = Pace::new(server.config.max_messages_per_second);
        let shutdown = Box::pin(server.shutdown.clone().cancelled_owned());
        Self {
            server,
            shutdown,
            socket,
            visit,
            form,
            subscriptions: Vec::new(),
            runs: Vec::new(),
            guardian,
            pace,
            turn: 0,
            ping,
            unanswered: 0,
        }
    }

    /// Serves the client until one of the two sides leaves.
    pub(super) async fn run(mut self, asked_by_address: Vec<Subscription>) {
        let leave = match self.begin(asked_by_address).await {
            Err(leave) => leave,
            Ok(()) => loop {
                if let Err(leave) = self.step().await {
                    break leave;
                }
            },
        };
        self.visit.leaves(leave.outcome());
        if let Some(words) = leave.words() {
            // Whoever does not take it in time knows its place from the last event it got.
            let _ = tokio::time::timeout(GRACE, self.say_goodbye(words)).await;
        }
    }

    async fn begin(&mut self, granted: Vec<Subscription>) -> Result<(), Leave> {
        match granted.is_empty() {
            true => Ok(()),
            false => self.add(granted).await,
        }
    }

    async fn step(&mut self) -> Result<(), Leave> {
        tokio::select! {
            biased;
            () = self.shutdown.as_mut() => Err(Leave::Shutdown),
            lapse = self.guardian.lapse() => Err(Leave::Lapsed(lapse)),
            message = self.pace.next(self.socket.recv()) => self.hear(message).await,
            _ = self.ping.tick() => self.ask_whether_still_there().await,
            index = next_ready(&mut self.subscriptions, self.turn) => self.forward(index).await,
        }
    }

    async fn hear(
        &mut self,
        message: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<(), Leave> {
        self.unanswered = 0;
        match message {
            None | Some(Ok(Message::Close(_))) => Err(Leave::Gone),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Text(_))) if self.form == Form::CloudEvents => {
                Err(Leave::Unreadable(close_code::POLICY, "cloudevents.json only sends"))
            }
            Some(Ok(Message::Text(text))) => self.answer(&text).await,
            Some(Ok(Message::Binary(_))) => {
                Err(Leave::Unreadable(close_code::UNSUPPORTED, "messages are JSON texts"))
            }
            Some(Err(error)) => Err(unreadable(error)),
        }
    }

    async fn answer(&mut self, text: &str) -> Result<(), Leave> {
        let request = match Request::parse(text) {
            Ok(request) => request,
            Err(finding) => return self.say(message::error(None, &finding)).await,
        };
        let id = request.id.clone();
        let done = match request.kind.as_str() {
            "subscribe" => return self.subscribe(request).await,
            "unsubscribe" => self.unsubscribe(request).map(Some),
            "ack" => self.acknowledge(&request).map(|()| None),
            "ping" => Ok(Some(message::pong(id.as_deref()))),
            other => Err(unknown_type(other)),
        };
        match done {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => self.say(answer).await,
            Err(finding) => self.say(message::error(id.as_deref(), &finding)).await,
        }
    }

    async fn subscribe(&mut self, request: Request) -> Result<(), Leave> {
        let id = request.id.clone();
        let granted = match Wish::from_message(request) {
            Ok(wish) => {
                let reader = self.guardian.reader();
                wish.grant(&self.subscriptions, self.form, reader, &self.server).await
            }
            Err(finding) => Err(finding),
        };
        match granted {
            Ok(granted) => self.add(granted).await,
            Err(finding) => self.say(message::error(id.as_deref(), &finding)).await,
        }
    }

    /// Takes subscriptions on, and tells the client where they begin.
    async fn add(&mut self, granted: Vec<Subscription>) -> Result<(), Leave> {
        if self.form == Form::Walmill {
            self.say(subscribed(&granted, &self.server)).await?;
        }
        for mut subscription in granted {
            if let Some(gap) = subscription.gap.take() {
                self.say(self.gap(subscription.feed.name(), gap)).await?;
            }
            if let Some(access) = subscription.access.take() {
                self.guardian.watch(subscription.feed.name(), access);
            }
            self.subscriptions.push(subscription);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, request: Request) -> Result<String, Finding> {
        let id = request.id;
        let meant = |subscription: &mut Subscription| match request.streams.as_slice() {
            [] => id.is_some() && subscription.id == id,
            streams => streams.iter().any(|name| name == subscription.feed.name()),
        };
        let removed = self.subscriptions.extract_if(.., meant);
        let removed: Vec<String> = removed.map(|s| s.feed.name().to_owned()).collect();
        removed.iter().for_each(|stream| self.guardian.forget(stream));
        match removed.is_empty() {
            false => Ok(message::unsubscribed(id.as_deref(), &removed)),
            true => Err(Finding::error("not-subscribed", "", "no subscription is meant by this")
                .suggest("give the subscription's `id`, or its `streams`")),
        }
    }

    fn acknowledge(&mut self, request: &Request) -> Result<(), Finding> {
        let (Some(stream), Some(cursor)) = (&request.stream, &request.cursor) else {
            return Err(Finding::error("bad-message", "", "an ack has a `stream` and a `cursor`"));
        };
        let cursor: Cursor = cursor
            .parse()
            .map_err(|error| Finding::error("bad-cursor", "cursor", format!("this is {error}")))?;
        let subscription = self.subscriptions.iter_mut().find(|s| s.feed.name() == stream);
        let subscription = subscription.ok_or_else(|| {
            Finding::error("not-subscribed", "stream", format!("`{stream}` is not read here"))
        })?;
        subscription.acknowledged(cursor.offset);
        Ok(())
    }

    async fn ask_whether_still_there(&mut self) -> Result<(), Leave> {
        if self.unanswered == SILENT_PINGS {
            return Err(Leave::Silent);
        }
        self.unanswered += 1;
        self.send(Message::Ping(Bytes::new())).await
    }

    /// Sends what a subscription has next.
    async fn forward(&mut self, index: usize) -> Result<(), Leave> {
        self.turn = index + 1;
        let subscription = &mut self.subscriptions[index];
        let room = subscription.room();
        match subscription.feed.read_run(self.form, room, &self.server).await? {
            Found::Run(run) => {
                self.runs.push(run);
                self.subscriptions[index].feed.read_on(
                    self.form,
                    room,
                    &self.server,
                    &mut self.runs,
                )?;
                self.send_runs(index).await
            }
            Found::Gap(gap) => {
                let text = self.gap(self.subscriptions[index].feed.name(), gap);
                self.say(text).await
            }
            Found::Nothing => Ok(()),
        }
    }

    async fn send_runs(&mut self, index: usize) -> Result<(), Leave> {
        let Self { server, shutdown, socket, visit, subscriptions, runs, .. } = self;
        let subscription = &mut subscriptions[index];
        let (after, room) = (subscription.feed.after(), subscription.room());
        let parts = Parts { runs, after, room };
        let patience = server.config.client_timeout.duration();
        let mut written = 0;
        let sending = socket.write(&parts, &mut written);
        let done = tokio::select! {
            biased;
            done = visit.progress.patiently(patience, sending) => match done {
                Ok(done) => done.map_err(Leave::from),
                Err(stalled) => Err(stalled.into()),
            },
            () = shutdown.as_mut() => Err(Leave::Shutdown),
        };
        // What was sent of it is noted, so the client can go on in the middle.
        let mut begun = 0;
        let rest = parts.begun(written, |offset| {
            begun += 1;
            subscription.sent(offset);
        });
        socket.owe(rest);
        visit.sent(begun);
        runs.clear();
        done
    }

    fn gap(&self, stream: &str, gap: Gap) -> String {
        match self.form {
            Form::CloudEvents => message::gap_event(stream, gap, &self.server),
            _ => message::gap(stream, gap, &self.server),
        }
    }

    async fn say(&mut self, text: String) -> Result<(), Leave> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Leave> {
        let patience = self.server.config.client_timeout.duration();
        Ok(self.visit.progress.patiently(patience, self.socket.send(message)).await??)
    }

    /// The last words: where to go on from. Then waits for the client to close its side, because
    /// closing ours while something of it is unread would throw away what it has not taken yet.
    async fn say_goodbye(
        &mut self,
        (code, word, sentence): (u16, &str, &str),
    ) -> Result<(), tungstenite::Error> {
        self.subscriptions.iter_mut().for_each(|subscription| {
            subscription.feed.settle();
        });
        let position = |subscription: &Subscription| Position {
            name: subscription.feed.name().to_owned(),
            cursor: self.server.cursor(subscription.feed.after()).to_string(),
        };
        let positions: Vec<Position> = self.subscriptions.iter().map(position).collect();
        if self.form == Form::Walmill {
            let closing = message::closing(word, sentence, &positions);
            self.socket.send(Message::Text(closing.into())).await?;
        }
        let reason = reason(&positions, sentence);
        self.socket.send(Message::Close(Some(CloseFrame { code: code.into(), reason }))).await?;
        while let Some(Ok(_)) = self.socket.recv().await {}
        Ok(())
    }
}

/// The cursors to go on from, in the order of the subscriptions, as `from` takes them; a sentence
/// where there are none, or more than fit.
fn reason(positions: &[Position], sentence: &str) -> Utf8Bytes {
    let cursors: Vec<&str> = positions.iter().map(|position| position.cursor.as_str()).collect();
    match cursors.join(",") {
        text if text.is_empty() || text.len() > MAX_REASON => sentence.into(),
        text => text.into(),
    }
}

/// The index of a subscription that has something to send.
async fn next_ready(subscriptions: &mut [Subscription], turn: usize) -> usize {
    let count = match subscriptions {
        [] => return pending().await,
        // Nearly everyone's case, for which nothing has to be kept apart.
        [only] => {
            only.ready().await;
            return 0;
        }
        _ => subscriptions.len(),
    };
    let (before, from) = subscriptions.split_at_mut(turn % count);
    let first = before.len();
    let waiting = from.iter_mut().chain(before).map(|subscription| Box::pin(subscription.ready()));
    let ((), place, _) = select_all(waiting).await;
    (first + place) % count
}

fn unreadable(error: tungstenite::Error) -> Leave {
    use tungstenite::Error;
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match error {
        Error::Capacity(_) => {
            Leave::Unreadable(close_code::SIZE, "the message is larger than it may be")
        }
        Error::Utf8(_) => Leave::Unreadable(close_code::INVALID, "a text is not UTF-8"),
        Error::Protocol(ResetWithoutClosingHandshake) => Leave::Gone,
        Error::Protocol(_) => Leave::Unreadable(close_code::PROTOCOL, "not the protocol"),
        _ => Leave::Gone,
    }
}

fn unknown_type(kind: &str) -> Finding {
    Finding::error("unknown-type", "type", format!("`{kind}` is no type of message"))
        .suggest("the types are subscribe, unsubscribe, ack and ping")
}
