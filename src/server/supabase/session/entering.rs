//! How a channel begins, how whoever it is for changes, and how it is ended.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::channel::Channel;
use super::super::join::{self, Join, Wants};
use super::super::leave::Leave;
use super::super::pass::Pass;
use super::super::reading::Reading;
use super::super::resume::Places;
use super::super::rooms::RoomName;
use super::super::to::To;
use super::Session;
use crate::server::auth::Access;
use crate::server::place::Start;

/// Channels of one connection.
const MOST_CHANNELS: usize = 100;
/// Joins that a connection may ask for in a second.
const MOST_JOINS: u32 = 100;

impl Session {
    pub(super) async fn join(&mut self, to: To, payload: &str) -> Result<(), Leave> {
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
        let (pass, room) = match self.allow(&to.topic, &join).await {
            Ok(allowed) => allowed,
            Err(why) => return self.refuse(&to, &why).await,
        };
        let before = self.take_channel(&to.topic);
        if let Some(before) = &before {
            self.say(&To::close_of(before), "phx_close", "{}").await?;
        }
        if self.channels.len() >= MOST_CHANNELS {
            return self.refuse(&to, "ChannelRateLimitReached: Too many channels").await;
        }
        self.open(to, join, (pass, room), before).await
    }

    /// For whom the channel is, and that a private room is theirs.
    async fn allow(&mut self, topic: &str, join: &Join) -> Result<(Pass, Option<Access>), String> {
        let pass = Pass::of(&self.server, &self.visit.reader, join.token.clone()).await?;
        let is_private = matches!(&join.wants, Wants::Config(config) if config.private);
        let room = match is_private {
            true => Some(pass.enter(&self.server, topic).await?),
            false => None,
        };
        Ok((pass, room))
    }

    /// Opens the channel: from here on it gets what is committed.
    async fn open(
        &mut self,
        to: To,
        join: Join,
        (pass, room): (Pass, Option<Access>),
        before: Option<Channel>,
    ) -> Result<(), Leave> {
        let Join { wants, resume, .. } = join;
        let bindings = wants.bindings();
        let mut places = Places::new(resume.as_deref(), before, &self.server);
        let mut reading = Reading::new(&self.server, pass, bindings);
        reading.open(&self.server, |stream| places.start(stream)).await;
        if let Some(access) = room {
            reading.guardian.watch(&to.topic, access);
        }
        let (why, lost) = (reading.why(), places.lost());
        let channel = self.channel_of(&to, wants, reading, resume.is_some());
        let (granted, mut verdicts) = (channel.granted(), channel.verdicts(why));
        verdicts.extend(lost.map(|why| channel.system("walmill", "error", (&why, None))));
        verdicts.extend(channel.resumes.then(|| channel.place(&self.server)));
        let state = channel.seat.as_ref().filter(|_| channel.presence).map(|seat| seat.state());
        self.channels.push(channel);
        self.reply(&to, Ok(granted)).await?;
        if let Some(state) = state {
            self.say(&to.pushed(), "presence_state", &state).await?;
        }
        self.say_verdicts(&to.pushed(), verdicts).await
    }

    fn channel_of(&self, to: &To, wants: Wants, reading: Reading, resumes: bool) -> Channel {
        let topic: Arc<str> = to.topic.as_str().into();
        let (reference, topic_of_room) = (to.reference.clone(), Arc::clone(&topic));
        match wants {
            Wants::Topic(bindings) => Channel {
                topic,
                reference,
                bindings,
                first: true,
                reading,
                seat: None,
                acknowledge: false,
                presence: false,
                resumes,
            },
            Wants::Config(config) => {
                let room = RoomName { topic: topic_of_room, private: config.private };
                let listens = (config.to_self, config.presence);
                let (rooms, inbox) = (&self.server.supabase.rooms, self.inbox.clone());
                let seat = rooms.enter(room, inbox, listens, config.presence_key);
                Channel {
                    topic,
                    reference,
                    bindings: config.bindings,
                    first: false,
                    reading,
                    seat: Some(seat),
                    acknowledge: config.acknowledge,
                    presence: config.presence,
                    resumes,
                }
            }
        }
    }

    async fn say_verdicts(&mut self, to: &To, verdicts: Vec<Value>) -> Result<(), Leave> {
        for verdict in verdicts {
            self.say(to, "system", &verdict.to_string()).await?;
        }
        Ok(())
    }

    pub(super) fn take_channel(&mut self, topic: &str) -> Option<Channel> {
        let at = self.channels.iter().position(|channel| &*channel.topic == topic)?;
        Some(self.channels.remove(at))
    }

    /// `access_token`: whoever the channel is for from now on. There is no answer if it is good.
    pub(super) async fn take_token(&mut self, to: &To, payload: &str) -> Result<(), Leave> {
        let Some(at) = self.channels.iter().position(|channel| *channel.topic == *to.topic) else {
            return self.refuse(to, "unmatched topic").await;
        };
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        let pass = &self.channels[at].reading.pass;
        match join::token(&payload) {
            None => Ok(()),
            // Clients say it again with each heartbeat.
            Some(token) if pass.is_by(&token) => Ok(()),
            Some(token) => self.renew(at, Some(token)).await,
        }
    }

    /// Asks again what the channel may see, for another token or for the same, and goes on with
    /// that where it is.
    pub(super) async fn renew(&mut self, at: usize, token: Option<String>) -> Result<(), Leave> {
        let server = Arc::clone(&self.server);
        let channel = &mut self.channels[at];
        let before = &mut channel.reading;
        before.settle();
        let pass = match token {
            Some(token) => Pass::of(&server, &self.visit.reader, Some(token)).await,
            None => Ok(before.pass.clone()),
        };
        let pass = match pass {
            Ok(pass) => pass,
            Err(why) => return self.end(at, &why).await,
        };
        let is_private = channel.seat.as_ref().is_some_and(|seat| seat.room.private);
        let mut reading = Reading::new(&server, pass, &channel.bindings);
        if is_private {
            match reading.pass.enter(&server, &channel.topic).await {
                Ok(access) => reading.guardian.watch(&channel.topic, access),
                Err(why) => return self.end(at, &why).await,
            }
        }
        let start = |stream: &Arc<_>| Start { after: before.place_in(stream), gap: None };
        reading.open(&server, start).await;
        let verdicts = match reading.why() {
            Some(why) => channel.verdicts(Some(why)),
            None => Vec::new(),
        };
        let to = To::pushed_to(&channel.topic);
        channel.reading = reading;
        self.say_verdicts(&to, verdicts).await
    }

    /// Ends a channel, and says why.
    pub(super) async fn end(&mut self, at: usize, why: &str) -> Result<(), Leave> {
        let channel = self.channels.remove(at);
        let system = channel.system("system", "error", (why, None)).to_string();
        self.say(&To::pushed_to(&channel.topic), "system", &system).await?;
        self.say(&To::close_of(&channel), "phx_close", "{}").await
    }

    /// Leaves a topic.
    pub(super) async fn leave(&mut self, to: &To) -> Result<(), Leave> {
        let left = self.take_channel(&to.topic);
        self.reply(to, Ok(json!({}))).await?;
        match left {
            Some(channel) => self.say(&To::close_of(&channel), "phx_close", "{}").await,
            None => Ok(()),
        }
    }
}
