//! One connection of a Supabase client: the topics that it joins, and what it is sent of them.

mod entering;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::SinkExt as _;
use futures_util::future::{pending, select_all};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::channel::Channel;
use super::frame::{self, Payload, Version};
use super::leave::Leave;
use super::reading::Next;
use super::rooms::{Broadcast, Inbox, Post, Posts, RoomName};
use super::to::To;
use crate::server::auth::Lapse;
use crate::server::feed::Found;
use crate::server::pace::Pace;
use crate::server::place::Start;
use crate::server::runs::Form;
use crate::server::visit::Visit;
use crate::server::{GRACE, Server};
use crate::store::stream::Stream;

/// A connection without any frame for so long is given up; clients beat every 25 or 30 s.
const IDLE: Duration = Duration::from_secs(60);
/// How often it is looked for streams that are new, and for silence.
const LOOK: Duration = Duration::from_secs(1);
/// A channel that resumes is told after so many looks where it is, if nothing was for it.
const PLACES_EVERY: u32 = 10;
/// Bytes of what a client says it is present with.
const LARGEST_PRESENCE: usize = 64 << 10;

/// One connection.
pub(super) struct Session {
    server: Arc<Server>,
    socket: WebSocket,
    visit: Visit,
    pace: Pace,
    version: Version,
    inbox: Inbox,
    posts: Posts,
    channels: Vec<Channel>,
    /// Which channel is asked first, so that a busy one does not starve the others.
    turn: usize,
    look: Interval,
    heard: Instant,
    looks: u32,
    /// Joins since the last look.
    joins: u32,
}

impl Session {
    pub(super) fn new(
        server: Arc<Server>,
        socket: WebSocket,
        visit: Visit,
        version: Version,
    ) -> Self {
        let (inbox, posts) = Inbox::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pace = Pace::new(server.config.max_messages_per_second);
        let channels = Vec::new();
        let (heard, turn, looks, joins) = (Instant::now(), 0, 0, 0);
        Self {
            server,
            socket,
            visit,
            pace,
            version,
            inbox,
            posts,
            channels,
            turn,
            look,
            heard,
            looks,
            joins,
        }
    }

    /// Serves the client until one of the two sides leaves.
    pub(super) async fn run(mut self) {
        let leave = loop {
            if let Err(leave) = self.step().await {
                break leave;
            }
        };
        self.visit.leaves(leave.outcome());
        // Nobody should wait for a client that hears nothing.
        self.channels.clear();
        if let Some(close) = leave.close() {
            let goodbye = self.socket.send(Message::Close(Some(close)));
            let _ = tokio::time::timeout(GRACE, goodbye).await;
        }
    }

    async fn step(&mut self) -> Result<(), Leave> {
        tokio::select! {
            biased;
            () = self.server.shutdown.cancelled() => Err(Leave::Shutdown),
            message = self.pace.next(self.socket.recv()) => self.hear(message).await,
            _ = self.look.tick() => self.look_around().await,
            Some((room, post)) = self.posts.next() => self.pass_on(&room, &post).await,
            (channel, next) = next_ready(&mut self.channels, self.turn) => {
                self.go_on(channel, next).await
            }
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), Leave> {
        self.heard = Instant::now();
        match message {
            None | Some(Ok(Message::Close(_))) => Err(Leave::Gone),
            Some(Err(error)) => Err(Leave::unreadable(error)),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            // What is no message is passed over, as in the original: the connection lives.
            Some(Ok(Message::Text(text))) => match frame::Message::read(self.version, &text) {
                Some(message) => self.answer(message).await,
                None => Ok(()),
            },
            Some(Ok(Message::Binary(bytes))) => match self.version {
                Version::One => Ok(()),
                Version::Two => match frame::Message::read_binary(&bytes) {
                    Some(message) => self.answer(message).await,
                    None => Ok(()),
                },
            },
        }
    }

    async fn answer(&mut self, message: frame::Message<'_>) -> Result<(), Leave> {
        let frame::Message { join_ref, reference, topic, event, payload } = message;
        let to = To { join_ref, reference, topic: topic.into() };
        match (&*to.topic, &*event, payload) {
            ("phoenix", "heartbeat", _) => self.reply(&to, Ok(json!({}))).await,
            (_, "phx_join", Payload::Json(payload)) => self.join(to, payload).await,
            (_, "phx_leave", _) => self.leave(&to).await,
            (_, "access_token", Payload::Json(payload)) => self.take_token(&to, payload).await,
            (_, "broadcast", Payload::Json(payload)) => {
                let broadcast = Broadcast::of_text(payload);
                self.broadcast(&to, broadcast).await
            }
            (_, event, Payload::User { meta, json, content }) => {
                let broadcast = Broadcast::of_binary(event, meta, json, content);
                self.broadcast(&to, broadcast).await
            }
            (_, "presence", Payload::Json(payload)) => self.presence(&to, payload).await,
            // As the original does with what it does not know.
            (topic, _, _) if self.channel(topic).is_some() => Ok(()),
            _ => self.refuse(&to, "unmatched topic").await,
        }
    }

    fn channel(&self, topic: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| &*channel.topic == topic)
    }

    async fn broadcast(&mut self, to: &To, broadcast: Option<Broadcast>) -> Result<(), Leave> {
        let Some(Channel { seat: Some(seat), acknowledge, .. }) = self.channel(&to.topic) else {
            return self.refuse(to, "unmatched topic").await;
        };
        let acknowledge = *acknowledge;
        match broadcast {
            Some(broadcast) => seat.broadcast(broadcast),
            None => return self.refuse(to, "a broadcast has an `event`").await,
        }
        match acknowledge {
            true => self.reply(to, Ok(json!({}))).await,
            false => Ok(()),
        }
    }

    async fn presence(&mut self, to: &To, payload: &str) -> Result<(), Leave> {
        let Some(Channel { seat: Some(seat), .. }) = self.channel(&to.topic) else {
            return self.refuse(to, "unmatched topic").await;
        };
        if payload.len() > LARGEST_PRESENCE {
            return self.refuse(to, "what one is present with may have 64 KiB at most").await;
        }
        let payload: Value = serde_json::from_str(payload).unwrap_or(Value::Null);
        let event = payload.get("event").and_then(Value::as_str).map(str::to_ascii_lowercase);
        let meta = payload.get("payload").and_then(Value::as_object).cloned().unwrap_or_default();
        let done = match event.as_deref() {
            Some("track") => seat.track(meta),
            Some("untrack") => {
                seat.untrack();
                true
            }
            _ => return self.refuse(to, "presence knows `track` and `untrack`").await,
        };
        match done {
            true => self.reply(to, Ok(json!({}))).await,
            false => self.refuse(to, "too many are present under this key").await,
        }
    }

    /// Looks for silence, for streams that are new, and whether posts did not fit.
    async fn look_around(&mut self) -> Result<(), Leave> {
        self.joins = 0;
        if self.heard.elapsed() > IDLE {
            return Err(Leave::Gone);
        }
        self.looks = self.looks.wrapping_add(1);
        for at in 0..self.channels.len() {
            let reading = &mut self.channels[at].reading;
            // All that is in a stream that was not there came after the join.
            let start = |stream: &Arc<Stream>| Start { after: stream.purged(), gap: None };
            reading.open(&self.server, start).await;
            let moved = reading.settle();
            if moved && self.channels[at].resumes && self.looks.is_multiple_of(PLACES_EVERY) {
                let place = self.channels[at].place(&self.server).to_string();
                let to = To::pushed_to(&self.channels[at].topic);
                self.say(&to, "system", &place).await?;
            }
        }
        if self.inbox.take_overflow() {
            let present = self.channels.iter().filter(|channel| channel.presence);
            let states: Vec<(To, String)> = present
                .filter_map(|channel| {
                    Some((To::pushed_to(&channel.topic), channel.seat.as_ref()?.state()))
                })
                .collect();
            for (to, state) in states {
                self.say(&to, "presence_state", &state).await?;
            }
        }
        Ok(())
    }

    /// Sends what somebody said in a room.
    async fn pass_on(&mut self, room: &RoomName, post: &Post) -> Result<(), Leave> {
        let there =
            |channel: &Channel| channel.seat.as_ref().is_some_and(|seat| seat.room == *room);
        if !self.channels.iter().any(there) {
            return Ok(());
        }
        let to = To::pushed_to(&room.topic);
        match post {
            Post::Presence(diff) => self.say(&to, "presence_diff", diff).await,
            Post::Broadcast(Broadcast { event, json, binary }) => {
                let binary = binary.as_ref().filter(|_| self.version == Version::Two);
                let frame = binary.and_then(|(meta, json, content)| {
                    frame::broadcast(&room.topic, event, (meta, *json), content)
                });
                match (frame, json) {
                    (Some(frame), _) => self.send(Message::Binary(frame.into())).await,
                    (None, Some(json)) => self.say(&to, "broadcast", json).await,
                    // Bytes cannot be shown to those who read texts alone.
                    (None, None) => Ok(()),
                }
            }
        }
    }

    async fn go_on(&mut self, channel: usize, next: Next) -> Result<(), Leave> {
        match next {
            Next::Ready(feed) => self.forward(channel, feed).await,
            Next::Lapsed(Lapse::Expired) => self.end(channel, "Token has expired").await,
            Next::Lapsed(Lapse::Changed) => self.renew(channel, None).await,
        }
    }

    /// Sends a channel what one of its streams has next.
    async fn forward(&mut self, channel: usize, feed: usize) -> Result<(), Leave> {
        self.turn = channel + 1;
        let Self { server, socket, visit, channels, version, .. } = self;
        let channel = &mut channels[channel];
        let feeds = &mut channel.reading.feeds;
        let found = feeds[feed].read_run(Form::Bare, usize::MAX, server).await?;
        let run = match found {
            Found::Run(run) => run,
            Found::Nothing => return Ok(()),
            Found::Gap(_) => {
                let why = "changes are missing here: they were removed before they could be sent";
                let gap = channel.system("walmill", "error", (why, None)).to_string();
                let topic = Arc::clone(&channel.topic);
                return self.say(&To::pushed_to(&topic), "system", &gap).await;
            }
        };
        let (offsets, texts) = run.after(channel.reading.feeds[feed].after(), usize::MAX).texts();
        let changes = server.supabase.changes.changes(&server.state.store, &texts);
        let values = server.config.supabase.values;
        let mut sent = 0;
        let sending = async {
            for (offset, change) in offsets.into_iter().zip(&changes) {
                for frame in change.iter().flat_map(|c| channel.frames(*version, values, c)) {
                    socket.feed(Message::Text(frame.into())).await?;
                    sent += 1;
                }
                channel.reading.feeds[feed].advance(offset);
            }
            if channel.resumes {
                let (topic, place) = (&*channel.topic, channel.place(server).to_string());
                let frame = frame::text(*version, (None, None), (topic, "system"), &place);
                socket.feed(Message::Text(frame.into())).await?;
            }
            socket.flush().await
        };
        let patience = server.config.client_timeout.duration();
        tokio::select! {
            done = visit.progress.patiently(patience, sending) => done??,
            () = server.shutdown.cancelled() => return Err(Leave::Shutdown),
        }
        visit.sent(sent);
        Ok(())
    }

    async fn reply(&mut self, to: &To, answer: Result<Value, &str>) -> Result<(), Leave> {
        let payload = match answer {
            Ok(response) => json!({ "status": "ok", "response": response }),
            Err(reason) => json!({ "status": "error", "response": { "reason": reason } }),
        };
        self.say(to, "phx_reply", &payload.to_string()).await
    }

    async fn refuse(&mut self, to: &To, reason: &str) -> Result<(), Leave> {
        self.reply(to, Err(reason)).await
    }

    async fn say(&mut self, to: &To, event: &str, payload: &str) -> Result<(), Leave> {
        let refs = (to.join_ref.as_ref(), to.reference.as_ref());
        let text = frame::text(self.version, refs, (&to.topic, event), payload);
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Leave> {
        let patience = self.server.config.client_timeout.duration();
        Ok(self.visit.progress.patiently(patience, self.socket.send(message)).await??)
    }
}

/// The channel that goes on next, and how.
async fn next_ready(channels: &mut [Channel], turn: usize) -> (usize, Next) {
    let count = channels.len();
    let (before, from) = channels.split_at_mut(turn.checked_rem(count).unwrap_or(0));
    let first = before.len();
    let from = from.iter_mut().enumerate().map(|(at, channel)| (first + at, channel));
    let each = from.chain(before.iter_mut().enumerate());
    let (places, waiting): (Vec<usize>, Vec<_>) =
        each.flat_map(|(at, channel)| channel.reading.waits().map(move |next| (at, next))).unzip();
    match waiting.is_empty() {
        true => pending().await,
        false => {
            let (next, at, _) = select_all(waiting).await;
            (places[at], next)
        }
    }
}
