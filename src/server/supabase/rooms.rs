//! What clients tell each other: broadcasts, and who is present. Nothing of it is kept longer than
//! the clients stay.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::text::quoted;

/// Posts that wait for one connection.
const QUEUE: usize = 1_024;
/// Bytes of those, unless one alone has more.
const QUEUED_BYTES: usize = 4 << 20;
/// Metas that one key may have in a room.
const MOST_METAS: usize = 100;

/// Which room: a topic, and whether it is private. The two are never the same room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RoomName {
    pub(super) topic: Arc<str>,
    pub(super) private: bool,
}

/// What goes to everyone in a room.
#[derive(Debug)]
pub(super) enum Post {
    Broadcast(Broadcast),
    /// JSON of a presence_diff.
    Presence(String),
}

impl Post {
    /// Bytes that it takes.
    fn size(&self) -> usize {
        match self {
            Self::Presence(diff) => diff.len(),
            Self::Broadcast(Broadcast { event, json, binary }) => {
                let bytes = binary
                    .as_ref()
                    .map_or(0, |(meta, _, content)| meta.len().saturating_add(content.len()));
                event.len() + json.as_ref().map_or(0, String::len) + bytes
            }
        }
    }
}

/// A broadcast.
#[derive(Debug)]
pub(super) struct Broadcast {
    pub(super) event: String,
    /// `{type, event, payload}`; none for bytes, which cannot be shown so.
    pub(super) json: Option<String>,
    /// As it came in a binary frame: its meta, whether it is JSON, and the content.
    pub(super) binary: Option<(String, bool, Vec<u8>)>,
}

impl Broadcast {
    /// As a text frame has it, `{type, event, payload}`; `None` where it has no event.
    pub(super) fn of_text(payload: &str) -> Option<Self> {
        let parsed: Map<String, Value> = serde_json::from_str(payload).ok()?;
        let event = parsed.get("event")?.as_str()?.to_owned();
        Some(Self { event, json: Some(payload.to_owned()), binary: None })
    }

    /// As a binary frame has it: JSON, which texts can show as well, or bytes.
    pub(super) fn of_binary(event: &str, meta: &str, json: bool, content: &[u8]) -> Option<Self> {
        let text = match json {
            true => Some(Self::text(event, std::str::from_utf8(content).ok()?)),
            false => None,
        };
        let binary = Some((meta.to_owned(), json, content.to_vec()));
        Some(Self { event: event.to_owned(), json: text, binary })
    }

    /// From outside, with a payload of JSON.
    pub(super) fn of_json(event: &str, payload: &str) -> Self {
        let json = Some(Self::text(event, payload));
        Self { event: event.to_owned(), json, binary: None }
    }

    fn text(event: &str, payload: &str) -> String {
        format!(r#"{{"type":"broadcast","event":{},"payload":{payload}}}"#, quoted(event))
    }
}

/// All rooms.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    rooms: Mutex<HashMap<RoomName, Room>>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Room {
    members: BTreeMap<u64, Member>,
    /// By presence key.
    present: BTreeMap<String, Vec<Meta>>,
}

#[derive(Debug)]
struct Member {
    inbox: Inbox,
    to_self: bool,
    presence: bool,
}

#[derive(Debug)]
struct Meta {
    member: u64,
    reference: String,
    payload: Map<String, Value>,
}

/// Where a connection gets its posts. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Inbox {
    sender: mpsc::Sender<(RoomName, Arc<Post>)>,
    /// Something did not fit: who is present must be told anew.
    overflowed: Arc<AtomicBool>,
    /// Bytes of the posts that wait.
    waiting: Arc<AtomicUsize>,
}

/// What waits for a connection.
#[derive(Debug)]
pub(super) struct Posts {
    receiver: mpsc::Receiver<(RoomName, Arc<Post>)>,
    waiting: Arc<AtomicUsize>,
}

impl Posts {
    /// The next one, once there is one; `None` when nobody can send any more.
    pub(super) async fn next(&mut self) -> Option<(RoomName, Arc<Post>)> {
        let post = self.receiver.recv().await?;
        self.waiting.fetch_sub(post.1.size(), Ordering::Relaxed);
        Some(post)
    }
}

impl Inbox {
    pub(super) fn new() -> (Self, Posts) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let waiting = Arc::<AtomicUsize>::default();
        let posts = Posts { receiver, waiting: Arc::clone(&waiting) };
        (Self { sender, overflowed: Arc::default(), waiting }, posts)
    }

    /// Whether something did not fit since this was asked last.
    pub(super) fn take_overflow(&self) -> bool {
        self.overflowed.swap(false, Ordering::Relaxed)
    }

    fn put(&self, room: &RoomName, post: &Arc<Post>) {
        let size = post.size();
        let before = self.waiting.fetch_add(size, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(size) <= QUEUED_BYTES;
        if !fits || self.sender.try_send((room.clone(), Arc::clone(post))).is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }
}

/// A client's seat in a room, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    rooms: Arc<Rooms>,
    pub(super) room: RoomName,
    member: u64,
    /// Its presence key.
    key: String,
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<RoomName, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat. Without a presence key the client gets one that is nobody else's.
    pub(super) fn enter(
        self: &Arc<Self>,
        room: RoomName,
        inbox: Inbox,
        (to_self, presence): (bool, bool),
        key: Option<String>,
    ) -> Seat {
        let member = self.next.fetch_add(1, Ordering::Relaxed);
        let member_of = Member { inbox, to_self, presence };
        self.lock().entry(room.clone()).or_default().members.insert(member, member_of);
        let key = key.unwrap_or_else(random_key);
        Seat { rooms: Arc::clone(self), room, member, key }
    }

    /// Sends a broadcast from outside to everyone in a room.
    pub(super) fn broadcast(&self, room: &RoomName, broadcast: Broadcast) {
        if let Some(there) = self.lock().get(room) {
            there.post(room, &Arc::new(Post::Broadcast(broadcast)), |_| true);
        }
    }
}

impl Room {
    fn post(&self, name: &RoomName, post: &Arc<Post>, to: impl Fn((&u64, &Member)) -> bool) {
        for (id, member) in self.members.iter().filter(|(id, member)| to((id, member))) {
            let _ = id;
            member.inbox.put(name, post);
        }
    }

    fn tell(&self, name: &RoomName, diff: &Diff) {
        if !diff.is_empty() {
            let post = Arc::new(Post::Presence(diff.json()));
            self.post(name, &post, |(_, member)| member.presence);
        }
    }

    /// Takes out what a member has under a key.
    fn remove(&mut self, key: &str, member: u64) -> Vec<Meta> {
        let Some(metas) = self.present.get_mut(key) else { return Vec::new() };
        let removed = metas.extract_if(.., |meta| meta.member == member).collect();
        if metas.is_empty() {
            self.present.remove(key);
        }
        removed
    }
}

/// What changed in a room's presence.
#[derive(Debug, Default)]
struct Diff {
    joins: Map<String, Value>,
    leaves: Map<String, Value>,
}

impl Diff {
    fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.leaves.is_empty()
    }

    fn json(&self) -> String {
        json!({ "joins": self.joins, "leaves": self.leaves }).to_string()
    }
}

impl Meta {
    fn json(&self) -> Value {
        let mut meta = self.payload.clone();
        meta.insert("phx_ref".into(), self.reference.clone().into());
        Value::Object(meta)
    }
}

fn metas(metas: &[Meta]) -> Value {
    json!({ "metas": metas.iter().map(Meta::json).collect::<Vec<Value>>() })
}

impl Seat {
    /// Sends a broadcast to the others, and to itself where the client asked for that.
    pub(super) fn broadcast(&self, broadcast: Broadcast) {
        let rooms = self.rooms.lock();
        if let Some(room) = rooms.get(&self.room) {
            let post = Arc::new(Post::Broadcast(broadcast));
            let to = |(id, member): (&u64, &Member)| *id != self.member || member.to_self;
            room.post(&self.room, &post, to);
        }
    }

    /// The client is present with this; what it was present with before goes. False where too many
    /// are present under its key.
    pub(super) fn track(&self, mut payload: Map<String, Value>) -> bool {
        let mut rooms = self.rooms.lock();
        let Some(room) = rooms.get_mut(&self.room) else { return false };
        let before = room.remove(&self.key, self.member);
        let mut diff = Diff::default();
        if let Some(last) = before.last() {
            payload.insert("phx_ref_prev".into(), last.reference.clone().into());
            diff.leaves.insert(self.key.clone(), metas(&before));
        }
        let here = room.present.entry(self.key.clone()).or_default();
        if here.len() >= MOST_METAS {
            return false;
        }
        let meta = Meta { member: self.member, reference: random_reference(), payload };
        diff.joins.insert(self.key.clone(), metas(std::slice::from_ref(&meta)));
        here.push(meta);
        room.tell(&self.room, &diff);
        true
    }

    /// The client is present no more.
    pub(super) fn untrack(&self) {
        let mut rooms = self.rooms.lock();
        let Some(room) = rooms.get_mut(&self.room) else { return };
        let gone = room.remove(&self.key, self.member);
        let mut diff = Diff::default();
        if !gone.is_empty() {
            diff.leaves.insert(self.key.clone(), metas(&gone));
        }
        room.tell(&self.room, &diff);
    }

    /// Who is present, as JSON of a presence_state.
    pub(super) fn state(&self) -> String {
        let rooms = self.rooms.lock();
        let present = rooms.get(&self.room).map(|room| &room.present);
        let state: Map<String, Value> =
            present.into_iter().flatten().map(|(key, all)| (key.clone(), metas(all))).collect();
        Value::Object(state).to_string()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        {
            let mut rooms = self.rooms.lock();
            if let Some(room) = rooms.get_mut(&self.room) {
                room.members.remove(&self.member);
            }
        }
        self.untrack();
        let mut rooms = self.rooms.lock();
        if rooms.get(&self.room).is_some_and(|room| room.members.is_empty()) {
            rooms.remove(&self.room);
        }
    }
}

/// In the form of a UUID of version 4.
fn random_key() -> String {
    let bits: u128 = rand::random();
    let bits = (bits & !(0xF << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn random_reference() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 12]>())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn name(topic: &str) -> RoomName {
        RoomName { topic: topic.into(), private: false }
    }

    fn posts(inbox: &mut Posts) -> Vec<Value> {
        std::iter::from_fn(|| inbox.next().now_or_never().flatten())
            .map(|(_, post)| match &*post {
                Post::Presence(diff) => serde_json::from_str(diff).unwrap(),
                Post::Broadcast(broadcast) => json!(broadcast.event),
            })
            .collect()
    }

    fn broadcast(event: &str) -> Broadcast {
        Broadcast { event: event.into(), json: Some("{}".into()), binary: None }
    }

    #[test]
    fn a_broadcast_reaches_the_others_and_whoever_wants_to_hear_itself() {
        let rooms = Arc::new(Rooms::default());
        let (inbox, mut quiet) = Inbox::new();
        let first = rooms.enter(name("a"), inbox, (false, false), None);
        let (inbox, mut loud) = Inbox::new();
        let second = rooms.enter(name("a"), inbox, (true, false), None);
        let (inbox, mut elsewhere) = Inbox::new();
        let private = RoomName { private: true, ..name("a") };
        let _third = rooms.enter(private, inbox, (true, false), None);
        first.broadcast(broadcast("one"));
        second.broadcast(broadcast("two"));
        rooms.broadcast(&name("a"), broadcast("three"));
        assert_eq!(posts(&mut quiet), [json!("two"), json!("three")]);
        assert_eq!(posts(&mut loud), [json!("one"), json!("two"), json!("three")]);
        assert_eq!(posts(&mut elsewhere), [] as [Value; 0]);
    }

    #[test]
    fn presence_is_told_as_it_changes_and_ends_with_the_seat() {
        let rooms = Arc::new(Rooms::default());
        let (inbox, mut seen) = Inbox::new();
        let watcher = rooms.enter(name("a"), inbox, (false, true), None);
        let enter = || {
            let (inbox, _) = Inbox::new();
            rooms.enter(name("a"), inbox, (false, true), Some("ann".into()))
        };
        let (one, two) = (enter(), enter());
        let payload = |n: u32| json!({ "n": n }).as_object().unwrap().clone();
        assert!(one.track(payload(1)));
        assert!(two.track(payload(2)));
        assert!(one.track(payload(3)));
        let told = posts(&mut seen);
        assert_eq!(told[0]["joins"]["ann"]["metas"][0]["n"], 1);
        assert_eq!(told[2]["joins"]["ann"]["metas"][0]["n"], 3);
        assert_eq!(told[2]["leaves"]["ann"]["metas"][0]["n"], 1);
        let previous = &told[0]["joins"]["ann"]["metas"][0]["phx_ref"];
        assert_eq!(&told[2]["joins"]["ann"]["metas"][0]["phx_ref_prev"], previous);
        let state: Value = serde_json::from_str(&watcher.state()).unwrap();
        assert_eq!(state["ann"]["metas"].as_array().unwrap().len(), 2);
        drop(two);
        one.untrack();
        one.untrack();
        let told = posts(&mut seen);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0]["leaves"]["ann"]["metas"][0]["n"], 2);
        assert_eq!(watcher.state(), "{}");
        drop((one, watcher));
        assert!(rooms.lock().is_empty());
    }

    #[test]
    fn a_connection_that_takes_nothing_holds_up_nobody_and_hears_that_it_missed_something() {
        let rooms = Arc::new(Rooms::default());
        let (inbox, mut slow) = Inbox::new();
        let _seat = rooms.enter(name("a"), inbox.clone(), (false, true), None);
        (0..QUEUE + 1).for_each(|_| rooms.broadcast(&name("a"), broadcast("b")));
        assert!(inbox.take_overflow() && !inbox.take_overflow());
        assert_eq!(posts(&mut slow).len(), QUEUE);
    }

    #[test]
    fn what_waits_for_a_connection_is_bounded_in_bytes_and_there_is_room_again_once_it_reads() {
        let rooms = Arc::new(Rooms::default());
        let (inbox, mut slow) = Inbox::new();
        let _seat = rooms.enter(name("a"), inbox.clone(), (false, false), None);
        let large = || Broadcast { json: Some("x".repeat(QUEUED_BYTES / 4)), ..broadcast("large") };
        (0..8).for_each(|_| rooms.broadcast(&name("a"), large()));
        assert!(inbox.take_overflow());
        assert_eq!(posts(&mut slow).len(), 3);
        // One alone always fits.
        let json = Some("x".repeat(2 * QUEUED_BYTES));
        rooms.broadcast(&name("a"), Broadcast { json, ..broadcast("larger") });
        assert_eq!(posts(&mut slow), [json!("larger")]);
    }

    #[test]
    fn keys_look_like_uuids() {
        let key = random_key();
        assert_eq!((key.len(), &key[14..15]), (36, "4"), "{key}");
        assert_ne!(key, random_key());
    }
}
