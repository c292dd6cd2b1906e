//! Brokers: what arrives at the real servers, whatever becomes of them meanwhile.

#[cfg(feature = "kafka")]
mod kafka;
mod nats;
mod redis;
pub mod server;

use std::collections::{HashMap, HashSet};

use crate::support::outputs::{Streams, ids};

/// Keys that share nothing but their table.
const KEYS: [&str; 6] = [
    "public.orders/1",
    "public.orders/2",
    "public.orders/3",
    "public.orders/4",
    "public.orders/5",
    "public.orders/6",
];

/// Transactions over several keys, one of them much more often than the others, and what of which
/// key was sent.
fn write(streams: &mut Streams, transactions: usize) -> Sent {
    let mut sent = Sent::default();
    for at in 0..transactions {
        let keys = [KEYS[0], KEYS[at % 5 + 1], KEYS[0], KEYS[(at / 5) % 5 + 1]];
        let offsets = streams.commit("orders", &keys);
        for (key, id) in keys.iter().zip(ids(&offsets)) {
            sent.by_key.entry((*key).to_owned()).or_default().push(id);
        }
        sent.last = offsets.last().copied();
    }
    sent
}

#[derive(Default)]
struct Sent {
    by_key: HashMap<String, Vec<String>>,
    last: Option<walmill::model::Offset>,
}

impl Sent {
    fn extend(&mut self, more: Self) {
        for (key, ids) in more.by_key {
            self.by_key.entry(key).or_default().extend(ids);
        }
        self.last = more.last;
    }

    /// Asks that all of it arrived, of each key in order: what comes again has come before, and
    /// nothing that was never sent is there. `arrived`: keys and ids as they stand at the broker.
    fn check(&self, arrived: &[(String, String)]) {
        let mut first: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut seen = HashSet::new();
        for (key, id) in arrived {
            if seen.insert(id) {
                first.entry(key).or_default().push(id);
            }
        }
        for (key, ids) in &self.by_key {
            assert_eq!(first.get(key.as_str()), Some(&ids.iter().map(String::as_str).collect()));
        }
        assert_eq!(first.len(), self.by_key.len(), "nothing is invented");
    }

    /// Asks that a consumer who knows no ids ends with each key's newest event, too.
    fn check_newest(&self, arrived: &[(String, String)]) {
        for (key, ids) in &self.by_key {
            let newest = arrived.iter().rev().find(|(own, _)| own == key).map(|(_, id)| id);
            assert_eq!(newest, ids.last(), "{key}");
        }
    }

    fn count(&self) -> usize {
        self.by_key.values().map(Vec::len).sum()
    }
}

/// Certificates for a server on 127.0.0.1, and of an authority that did not sign it. False where
/// there is no openssl.
fn certificates(folder: &std::path::Path) -> bool {
    let script = "
set -e
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.crt -days 2 -subj /CN=o
openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server
printf 'subjectAltName=IP:127.0.0.1,DNS:localhost' > names
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \\
  -extfile names -out server.crt";
    let ran = std::process::Command::new("sh").args(["-c", script]).current_dir(folder).output();
    match ran {
        Ok(output) if output.status.success() => true,
        _ => {
            println!("skipped: there is no openssl here");
            false
        }
    }
}
