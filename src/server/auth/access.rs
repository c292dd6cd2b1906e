//! What someone may see of a stream, and for how long.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::claims::{find, texts};
use super::config::{Allow, Rule};
use super::principal::{Kind, Principal};
use crate::model::Finding;
use crate::model::access::{Grant, Refusal, RowKey, Subscriber};
use crate::model::veil::Veil;
use crate::server::fanout::{View, Wanted};
use crate::server::filter::Filter;
use crate::server::{Config, Server};

/// Who asks, and from where.
#[derive(Debug, Clone)]
pub(in crate::server) struct Reader {
    pub(in crate::server) principal: Principal,
    pub(in crate::server) remote: String,
}

/// What a reader asks for beside the stream, as an authorizer is told: JSON with `from` as it was
/// written and the groups of `filter`.
#[derive(Debug, Clone)]
pub(in crate::server) struct Wishes(Arc<str>);

impl Wishes {
    pub(in crate::server) fn new<'a>(
        from: &str,
        filter: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let filter: Vec<&str> = filter.into_iter().collect();
        Self(serde_json::json!({ "from": from, "filter": filter }).to_string().into())
    }
}

impl Default for Wishes {
    fn default() -> Self {
        Self("{}".into())
    }
}

/// What someone may see of a stream.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Access {
    grant: Grant,
    /// What was asked for, to be asked again.
    wishes: Wishes,
    /// Tells when the answer may have become another one.
    changes: Option<watch::Receiver<u64>>,
}

impl Access {
    /// What is wanted, within what may be seen; `None`: all of the stream as it is.
    pub(in crate::server) fn wanted(
        &self,
        filter: Option<&Filter>,
        veil: &Veil,
    ) -> Option<Arc<Wanted>> {
        let Grant { rows, hidden, .. } = &self.grant;
        let limits = rows.iter().map(|key| key.column.as_str());
        let view = View::new(veil.clone(), hidden.iter().map(String::as_str), limits);
        if filter.is_none() && view.is_whole() {
            return None;
        }
        let keys = rows.iter().map(|key| (key.column.as_str(), key.values.clone()));
        let limited = Filter::of_keys(keys);
        let filter = filter.map_or_else(|| limited.clone(), |filter| filter.and(&limited));
        Some(Arc::new(Wanted::new(filter, view)))
    }

    /// A column that a filter must not ask about, because what it says about it would tell.
    fn hides(&self, filter: &Filter) -> Option<String> {
        let hidden = |label: &[u8]| {
            let name: String = serde_json::from_slice(label).ok()?;
            self.grant.hidden.contains(&name).then_some(name)
        };
        filter.labels().find_map(hidden)
    }

    /// Refuses a filter that asks about hidden columns.
    pub(in crate::server) fn check(&self, filter: Option<&Filter>) -> Result<(), Finding> {
        match filter.and_then(|filter| self.hides(filter)) {
            None => Ok(()),
            Some(column) => Err(Finding::error(
                "bad-filter",
                "filter",
                format!("there is no column `{column}`"),
            )),
        }
    }
}

impl Reader {
    /// What they may see of a stream.
    pub(in crate::server) async fn access(
        &self,
        stream: &str,
        server: &Server,
    ) -> Result<Access, Finding> {
        self.access_for(stream, &Wishes::default(), server).await
    }

    /// The same for one who says what they want of it.
    pub(in crate::server) async fn access_for(
        &self,
        stream: &str,
        wishes: &Wishes,
        server: &Server,
    ) -> Result<Access, Finding> {
        if self.principal.kind == Kind::Owner {
            return Ok(Access::default());
        }
        let rule = server.config.auth.rule(stream);
        if !self.principal.may_read(stream, rule) {
            return Err(self.refusal(stream));
        }
        let Some(rule) = rule else { return Ok(Access::default()) };
        let rows = rule.rows.iter().map(|(column, claim)| self.row_key(column, claim));
        let rows = rows.collect::<Result<Vec<RowKey>, Finding>>()?;
        let grant = Grant { rows, hidden: rule.hidden.clone(), ask_again: None };
        match &rule.authorizer {
            None => Ok(Access { grant, ..Access::default() }),
            Some(name) => self.ask(name, (stream, wishes), grant, server).await,
        }
    }

    /// Whether they may see anything of a stream, as far as the config says.
    pub(in crate::server) fn may_list(&self, stream: &str, config: &Config) -> bool {
        let principal = &self.principal;
        principal.kind == Kind::Owner || principal.may_read(stream, config.auth.rule(stream))
    }

    /// Whether what they showed is no longer good.
    pub(in crate::server) fn is_over(&self) -> bool {
        self.principal.lasts().is_some_and(|lasts| lasts.is_zero())
    }

    /// Whether they may connect before they say what they want: there may be a stream for them.
    pub(in crate::server) fn may_come(&self, config: &Config) -> bool {
        let is_public = |rule: &Rule| rule.allow.contains(&Allow::Public);
        !self.principal.is_anonymous() || config.auth.rules.iter().any(is_public)
    }

    fn row_key(&self, column: &str, claim: &str) -> Result<RowKey, Finding> {
        let value = find(&self.principal.claims, claim);
        match value.and_then(texts) {
            Some(values) => Ok(RowKey { column: column.to_owned(), values }),
            None => {
                let message = format!("reading this stream takes the claim `{claim}`");
                Err(Finding::error("forbidden", claim, message))
            }
        }
    }

    /// Asks the plugin, and puts its answer to what the config says.
    async fn ask(
        &self,
        name: &str,
        (stream, wishes): (&str, &Wishes),
        mut grant: Grant,
        server: &Server,
    ) -> Result<Access, Finding> {
        let undecided = || Finding::error("undecided", stream, Refusal::Undecided.to_string());
        let Some(authorizer) = server.state.authorizers.get(name) else { return Err(undecided()) };
        // Seen before the question, so that no change is missed.
        let changes = authorizer.changes();
        let subscriber = Subscriber {
            stream: stream.to_owned(),
            claims: serde_json::to_string(&*self.principal.claims).unwrap_or_default(),
            params: wishes.0.as_ref().to_owned(),
            remote: self.remote.clone(),
        };
        match authorizer.open(subscriber).await {
            Ok(answer) => {
                grant.rows.extend(answer.rows);
                grant.hidden.extend(answer.hidden);
                grant.ask_again = answer.ask_again;
                Ok(Access { grant, wishes: wishes.clone(), changes: Some(changes) })
            }
            Err(Refusal::Refused(reason)) => Err(Finding::error("forbidden", stream, reason)),
            Err(Refusal::Undecided) => Err(undecided()),
        }
    }

    pub(in crate::server) fn refusal(&self, stream: &str) -> Finding {
        match self.principal.is_anonymous() {
            true => Finding::error("unauthorized", stream, "this stream is not for everyone")
                .suggest("send `Authorization: Bearer …` with a token or a key"),
            false => {
                Finding::error("forbidden", stream, format!("`{stream}` is not among your streams"))
            }
        }
    }
}

impl Principal {
    fn may_read(&self, stream: &str, rule: Option<&Rule>) -> bool {
        let kinds = rule.map(|rule| rule.allow.as_slice());
        if kinds.is_some_and(|kinds| kinds.contains(&Allow::Public)) {
            return true;
        }
        let listed =
            self.streams.as_ref().map(|globs| globs.iter().any(|glob| glob.matches(stream)));
        let allowed = |kind| kinds.is_none_or(|kinds| kinds.contains(&kind));
        match self.kind {
            Kind::Owner => true,
            Kind::Anonymous => false,
            Kind::Key => allowed(Allow::Key) && listed == Some(true),
            // Where tokens do not list streams, a rule must name them.
            Kind::Jwt => allowed(Allow::Jwt) && listed.unwrap_or(rule.is_some()),
        }
    }
}

/// Why a reader may read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Lapse {
    /// Its token has expired.
    Expired,
    /// It would be told otherwise now what it may see.
    Changed,
}

impl Lapse {
    /// A word for programs and a sentence for people.
    pub(in crate::server) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Expired => ("expired", "the token has expired"),
            Self::Changed => ("access-changed", "what you may see has changed; connect again"),
        }
    }
}

/// Watches over what a reader was granted while it reads.
pub(in crate::server) struct Guardian {
    server: Arc<Server>,
    reader: Reader,
    expires: Option<Pin<Box<Sleep>>>,
    leases: Vec<Lease>,
}

/// One stream that was granted by someone who may think otherwise later.
struct Lease {
    stream: String,
    access: Access,
    again: Option<Instant>,
    asking: Option<JoinHandle<Result<Access, Finding>>>,
}

impl Guardian {
    pub(in crate::server) fn new(server: Arc<Server>, reader: Reader) -> Self {
        let expires = reader.principal.lasts().map(|lasts| Box::pin(sleep(lasts)));
        Self { server, reader, expires, leases: Vec::new() }
    }

    pub(in crate::server) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Whether there is anything that may end.
    pub(in crate::server) fn is_needed(&self) -> bool {
        self.expires.is_some() || !self.leases.is_empty()
    }

    /// Watches over one more stream.
    pub(in crate::server) fn watch(&mut self, stream: &str, access: Access) {
        if access.changes.is_some() {
            let again = access.grant.ask_again.map(|wait| Instant::now() + wait);
            self.leases.push(Lease { stream: stream.to_owned(), access, again, asking: None });
        }
    }

    /// Stops watching over a stream.
    pub(in crate::server) fn forget(&mut self, stream: &str) {
        self.leases.retain(|lease| lease.stream != stream);
    }

    /// Waits until something ends. It may be dropped and called again at any time.
    pub(in crate::server) async fn lapse(&mut self) -> Lapse {
        let Self { server, reader, expires, leases } = self;
        let expired = async {
            match expires {
                Some(moment) => moment.await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            if leases.is_empty() {
                return std::future::pending().await;
            }
            let waiting = leases.iter_mut().map(|lease| Box::pin(lease.ends(server, reader)));
            futures_util::future::select_all(waiting).await;
        };
        tokio::select! {
            () = expired => Lapse::Expired,
            () = changed => Lapse::Changed,
        }
    }
}

impl Lease {
    /// Asks again whenever that is due, until the answer is another one.
    async fn ends(&mut self, server: &Arc<Server>, reader: &Reader) {
        loop {
            if self.asking.is_none() {
                self.due().await;
                // On a task of its own, so that it goes on whatever else the reader does.
                let (server, reader) = (Arc::clone(server), reader.clone());
                let (stream, wishes) = (self.stream.clone(), self.access.wishes.clone());
                let asking = async move { reader.access_for(&stream, &wishes, &server).await };
                self.asking = Some(tokio::spawn(asking));
            }
            let Some(asking) = &mut self.asking else { continue };
            let answer = asking.await;
            self.asking = None;
            match answer {
                Ok(Ok(access)) if access.is_the_same(&self.access) => {
                    self.again = access.grant.ask_again.map(|wait| Instant::now() + wait);
                    self.access = access;
                }
                _ => return,
            }
        }
    }

    async fn due(&mut self) {
        let again = async {
            match self.again {
                Some(moment) => sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        let changes = async {
            let Some(changes) = &mut self.access.changes else {
                return std::future::pending().await;
            };
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = again => {}
            () = changes => {}
        }
    }
}

impl Access {
    fn is_the_same(&self, other: &Self) -> bool {
        (&self.grant.rows, &self.grant.hidden) == (&other.grant.rows, &other.grant.hidden)
    }
}

impl super::config::Auth {
    /// The first rule that names the stream.
    pub(super) fn rule(&self, stream: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.streams.iter().any(|glob| glob.matches(stream)))
    }
}
