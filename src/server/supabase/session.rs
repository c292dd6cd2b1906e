//! One connection of a Supabase client: the topics that it joins, and what it is sent of them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::SinkExt as _;
use futures_util::future::{pending, select_all};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::error;

use super::channel::Channel;
use super::frame::{self, Payload, Reference, Version};
use super::join::{Join, Wants};
use super::resume::Places;
use super::rooms::{Broadcast, Inbox, Post, RoomName};
use crate::server::connection::Stalled;
use crate::server::feed::{Feed, Found};
use crate::server::place::Start;
use crate::server::visit::Visit;
use crate::server::{GRACE, Server};
use crate::store::StoreError;

/// A connection without any frame for so long is given up; clients beat every 25 or 30 s.
const IDLE: Duration = Duration::from_secs(60);
/// How often it is looked for streams that are new, and for silence.
const LOOK: Duration = Duration::from_secs(1);
/// Channels of one connection.
const MOST_CHANNELS: usize = 100;
/// Joins that a connection may ask for in a second.
const MOST_JOINS: u32 = 100;
/// Bytes of what a client says it is present with.
const LARGEST_PRESENCE: usize = 64 << 10;

/// One connection.
pub(super) struct Session {
    server: Arc<Server>,
    socket: WebSocket,
    visit: Visit,
    version: Version,
    inbox: Inbox,
    posts: mpsc::Receiver<(RoomName, Arc<Post>)>,
    channels: Vec<Channel>,
    /// Which channel is asked first, so that a busy one does not starve the others.
    turn: usize,
    look: Interval,
    heard: Instant,
    /// Joins since the last look.
    joins: u32,
}

/// Why the connection ends.
#[derive(Debug)]
enum Leave {
    /// The client is gone, or silent.
    Gone,
    Slow,
    Shutdown,
    Unreadable,
    Failed,
}

impl From<Stalled> for Leave {
    fn from(_: Stalled) -> Self {
        Self::Slow
    }
}

impl From<axum::Error> for Leave {
    fn from(_: axum::Error) -> Self {
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
    fn outcome(&self) -> &'static str {
        match self {
            Self::Gone => "closed",
            Self::Slow => "slow",
            Self::Shutdown => "shutdown",
            Self::Unreadable | Self::Failed => "error",
        }
    }

    /// The close frame; clients connect again by themselves.
    fn close(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::Slow => (close_code::AGAIN, "the client took nothing for too long"),
            Self::Shutdown => (close_code::RESTART, "walmill is shutting down"),
            Self::Unreadable => (close_code::SIZE, "a message may have 5 MB at most"),
            Self::Failed => (close_code::ERROR, "the store could not be read"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
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
        let (channels, heard, turn, joins) = (Vec::new(), Instant::now(), 0, 0);
        Self { server, socket, visit, version, inbox, posts, channels, turn, look, heard, joins }
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
            message = self.socket.recv() => self.hear(message).await,
            _ = self.look.tick() => self.look_around().await,
            Some((room, post)) = self.posts.recv() => self.pass_on(&room, &post).await,
            (channel, feed) = next_ready(&mut self.channels, self.turn) => {
                self.forward(channel, feed).await
            }
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), Leave> {
        self.heard = Instant::now();
        match message {
            None | Some(Ok(Message::Close(_))) => Err(Leave::Gone),
            Some(Err(error)) => Err(unreadable(error)),
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
            (_, "access_token", _) if self.channel(&to.topic).is_some() => Ok(()),
            (_, "broadcast", Payload::Json(payload)) => {
                let broadcast = Broadcast::of_text(payload);
                self.broadcast(&to, broadcast).await
            }
            (_, event, Payload::User { meta, json, content }) => {
                let broadcast = Broadcast::of_binary(event, meta, json, content);
                self.broadcast(&to, broadcast).await
            }
            (_, "presence", Payload::Json(payload)) => self.presence(&to, payload).await,
            _ => self.refuse(&to, "unmatched topic").await,
        }
    }

    fn channel(&self, topic: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| &*channel.topic == topic)
    }

    async fn join(&mut self, to: To, payload: &str) -> Result<(), Leave> {
        self.joins += 1;
        let Some(name) = to.topic.strip_prefix("realtime:") else {
            return self.refuse(&to, "unmatched topic").await;
        };
        if name.is_empty() {
            return self.refuse(&to, "TopicNameRequired: You must provide a topic name").await;
        }
        if self.joins > MOST_JOINS {
            return self.refuse(&to, "ClientJoinRateLimitReached: Too many joins per second").await;
        }
        let join = match Join::read(name, payload) {
            Ok(join) => join,
            Err(why) => return self.refuse(&to, &format!("UnableToSubscribe: {why}")).await,
        };
        let before = self.take_channel(&to.topic);
        if let Some(before) = &before {
            self.say(&To::close_of(before), "phx_close", "{}").await?;
        }
        if self.channels.len() >= MOST_CHANNELS {
            return self.refuse(&to, "ChannelRateLimitReached: Too many channels").await;
        }
        self.open(to, join, before).await
    }

    /// Opens the channel: from here on it gets what is committed.
    async fn open(&mut self, to: To, join: Join, before: Option<Channel>) -> Result<(), Leave> {
        let Join { wants, resume, .. } = join;
        let topic: Arc<str> = to.topic.as_str().into();
        let (reference, resumes) = (to.reference.clone(), resume.is_some());
        let mut channel = Channel {
            topic: Arc::clone(&topic),
            reference,
            bindings: Vec::new(),
            first: true,
            feeds: Vec::new(),
            seat: None,
            acknowledge: false,
            presence: false,
            resumes,
        };
        match wants {
            Wants::Topic(bindings) => channel.bindings = bindings,
            Wants::Config(config) => {
                let room = RoomName { topic, private: config.private };
                let listens = (config.to_self, config.presence);
                let (rooms, inbox) = (&self.server.supabase.rooms, self.inbox.clone());
                channel.seat = Some(rooms.enter(room, inbox, listens, config.presence_key));
                (channel.first, channel.bindings) = (false, config.bindings);
                (channel.acknowledge, channel.presence) = (config.acknowledge, config.presence);
            }
        }
        let mut lost = None;
        if !channel.bindings.is_empty() {
            let places = Places { resume: resume.as_deref(), before: before.as_ref() };
            (channel.feeds, lost) = places.feeds(&self.server);
        }
        let (granted, mut verdicts) = (channel.granted(), channel.verdicts());
        verdicts.extend(lost.map(|why| channel.system("walmill", "error", (&why, None))));
        verdicts.extend(channel.resumes.then(|| channel.place(&self.server)));
        let state = channel.seat.as_ref().filter(|_| channel.presence).map(|seat| seat.state());
        self.channels.push(channel);
        self.reply(&to, Ok(granted)).await?;
        if let Some(state) = state {
            self.say(&to.pushed(), "presence_state", &state).await?;
        }
        for verdict in verdicts {
            self.say(&to.pushed(), "system", &verdict.to_string()).await?;
        }
        Ok(())
    }

    fn take_channel(&mut self, topic: &str) -> Option<Channel> {
        let at = self.channels.iter().position(|channel| &*channel.topic == topic)?;
        Some(self.channels.remove(at))
    }

    async fn leave(&mut self, to: &To) -> Result<(), Leave> {
        let left = self.take_channel(&to.topic);
        self.reply(to, Ok(json!({}))).await?;
        match left {
            Some(channel) => self.say(&To::close_of(&channel), "phx_close", "{}").await,
            None => Ok(()),
        }
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
        for channel in self.channels.iter_mut().filter(|channel| !channel.feeds.is_empty()) {
            let new = self.server.supabase_streams();
            for stream in new {
                if !channel.feeds.iter().any(|feed| feed.name() == stream.name()) {
                    // All that is in it came after the join.
                    let start = Start { after: stream.purged(), gap: None };
                    channel.feeds.push(Feed::new(stream, start));
                }
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

    /// Sends a channel what one of its streams has next.
    async fn forward(&mut self, channel: usize, feed: usize) -> Result<(), Leave> {
        self.turn = channel + 1;
        let Self { server, socket, visit, channels, version, .. } = self;
        let channel = &mut channels[channel];
        let events = match channel.feeds[feed].read().await? {
            Found::Run(events) => events,
            Found::Nothing => return Ok(()),
            Found::Gap(_) => {
                let why = "changes are missing here: they were removed before they could be sent";
                let gap = channel.system("walmill", "error", (why, None)).to_string();
                let topic = Arc::clone(&channel.topic);
                return self.say(&To::pushed_to(&topic), "system", &gap).await;
            }
        };
        let stream = channel.feeds[feed].name().to_owned();
        let changes = server.supabase.changes.changes(&server.state.store, &stream, &events);
        let values = server.config.supabase.values;
        let (after, mut sent) = (channel.feeds[feed].after(), 0);
        let sending = async {
            for change in changes.iter().filter(|change| change.offset > after) {
                for frame in channel.frames(*version, values, change) {
                    socket.feed(Message::Text(frame.into())).await?;
                    sent += 1;
                }
                channel.feeds[feed].advance(change.offset);
            }
            channel.feeds[feed].advance(events.last);
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

/// What a frame is an answer to, and about.
struct To {
    join_ref: Option<Reference>,
    reference: Option<Reference>,
    topic: String,
}

impl To {
    /// Something that the client did not ask for.
    fn pushed_to(topic: &str) -> Self {
        Self { join_ref: None, reference: None, topic: topic.into() }
    }

    fn pushed(&self) -> Self {
        Self::pushed_to(&self.topic)
    }

    /// The end of a channel, which clients know by the reference of its join.
    fn close_of(channel: &Channel) -> Self {
        let (join_ref, reference) = (channel.reference.clone(), channel.reference.clone());
        Self { join_ref, reference, topic: channel.topic.to_string() }
    }
}

/// The channel and the feed that have something to send.
async fn next_ready(channels: &mut [Channel], turn: usize) -> (usize, usize) {
    let count = channels.len();
    let (before, from) = channels.split_at_mut(turn.checked_rem(count).unwrap_or(0));
    let first = before.len();
    let from = from.iter_mut().enumerate().map(|(at, channel)| (first + at, channel));
    let waiting: Vec<_> = from.chain(before.iter_mut().enumerate()).flat_map(feeds).collect();
    match waiting.is_empty() {
        true => pending().await,
        false => select_all(waiting).await.0,
    }
}

/// What waits for each feed of a channel.
fn feeds(
    (at, channel): (usize, &mut Channel),
) -> impl Iterator<Item = Pin<Box<impl Future<Output = (usize, usize)>>>> {
    channel.feeds.iter_mut().enumerate().map(move |(feed, reads)| {
        Box::pin(async move {
            reads.ready().await;
            (at, feed)
        })
    })
}

fn unreadable(error: axum::Error) -> Leave {
    use tungstenite::Error;
    match error.into_inner().downcast::<Error>().map(|error| *error) {
        Ok(Error::Capacity(_)) => Leave::Unreadable,
        _ => Leave::Gone,
    }
}
