//! What the world asks for over HTTP: streams by WebSocket, SSE and pull, health, status, metrics
//! and the console.
//!
//! Every client reads the store's log by itself, at its own pace and from its own place, so nothing
//! is queued per client and there is no moment between backlog and live. What many clients read at
//! the same time is encoded once (`runs`). Those with filters are told of what they want once they
//! have read everything (`fanout`), so an event costs nothing for those who do not want it.

mod admin;
pub mod auth;
mod backfills;
mod connection;
mod console;
mod dead_letters;
pub mod fanout;
mod feed;
pub mod filter;
mod guard;
mod input;
mod outputs;
mod pace;
mod place;
mod plugins;
mod problem;
mod pull;
mod reload;
mod replays;
mod runs;
mod schema;
mod slot;
mod sse;
mod supabase;
mod tickets;
pub mod tls;
mod visit;
mod websocket;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::metrics::Metrics;
use crate::model::access::Authorize;
use crate::model::backfill::Backfills;
use crate::model::input::ReadInput;
use crate::model::plugin::PluginRequests;
use crate::model::reload::Reloads;
use crate::model::status::{OutputStatus, PipelineStatus, PluginStatus, SourceStatus};
use crate::model::{ByteSize, Period, Secret};
use crate::store::Store;
use crate::store::stream::Stream;
pub use supabase::{RAW_STREAM, Raw};

/// How long clients have to take their last message when walmill ends, and how long one that was
/// too slow has to hear where to go on.
const GRACE: Duration = Duration::from_secs(5);

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen. Beyond loopback only where clients must show who they are.
    pub listen: SocketAddr,
    /// Web pages that may connect besides walmill's own, as `https://app.example`; no patterns.
    pub origins: Vec<Origin>,
    /// With this one may do everything: `Authorization: Bearer …` or, where headers can't be sent,
    /// `?token=…`.
    pub token: Option<Secret>,
    /// Who else may do what.
    pub auth: auth::Auth,
    /// Certificate and key, for HTTPS.
    pub tls: Option<tls::Config>,
    /// Connected WebSocket and SSE clients and pulls under way, at most; further ones are refused.
    pub max_clients: NonZeroUsize,
    /// Connections from one address at most.
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// Streams that one connection may read.
    pub max_streams: NonZeroUsize,
    /// The largest message that a client may send.
    pub max_message: ByteSize,
    /// Messages that a client may send in a second; further ones are read later.
    pub max_messages_per_second: NonZeroU32,
    /// A client is asked so often whether it is still there; it has left when it answers nothing
    /// for two of these.
    pub ping: Period,
    /// Bytes that may wait for a client's socket to take them.
    pub client_buffer: ByteSize,
    /// A client that takes no byte for so long is disconnected.
    pub client_timeout: Period,
    /// What Supabase's clients get.
    pub supabase: supabase::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4000)),
            origins: Vec::new(),
            token: None,
            auth: auth::Auth::default(),
            tls: None,
            max_clients: const { NonZeroUsize::new(10_000).unwrap() },
            max_connections_per_address: None,
            max_streams: const { NonZeroUsize::new(256).unwrap() },
            max_message: ByteSize::new(64 << 10),
            max_messages_per_second: const { NonZeroU32::new(100).unwrap() },
            ping: Period::from_millis(20_000),
            client_buffer: ByteSize::new(128 << 10),
            client_timeout: Period::from_millis(30_000),
            supabase: supabase::Config::default(),
        }
    }
}

impl Config {
    /// Whether clients can say who they are, and have to.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.token.is_some() || !self.auth.keys.is_empty() || self.auth.jwt.is_some()
    }

    /// The files that it names.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let tls = self.tls.iter_mut().flat_map(|tls| [&mut tls.cert, &mut tls.key]);
        let jwks = self.auth.jwt.iter_mut().filter_map(|jwt| match &mut jwt.keys {
            auth::Keys::File(path) => Some(path),
            _ => None,
        });
        tls.chain(jwks)
    }
}

/// The origin of a web page, as browsers write it in the `Origin` header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(String);

/// Text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no origin: write scheme, host and port only, as in `https://app.example`")]
pub struct OriginError(String);

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        let url = Url::parse(&text).map_err(|_| OriginError(text.clone()))?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none();
        match url.host_str() {
            Some(host) if bare && !host.contains('*') && url.username().is_empty() => {}
            _ => return Err(OriginError(text)),
        }
        // Schemes of apps (`capacitor://localhost`) have no origin by the standard; the text is.
        let serialized = match url.origin() {
            origin @ url::Origin::Tuple(..) => origin.ascii_serialization(),
            url::Origin::Opaque(_) => text.trim_end_matches('/').to_ascii_lowercase(),
        };
        Ok(Self(serialized))
    }
}

/// The latest facts about each part of a kind; the parts come and go with the config.
pub type Latest<T> = watch::Receiver<Vec<watch::Receiver<T>>>;

/// What the server shows and serves, published by the other parts.
#[derive(Clone)]
pub struct State {
    /// The streams.
    pub store: Store,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// The source's latest facts.
    pub source: watch::Receiver<SourceStatus>,
    /// The source's backfills.
    pub backfills: Backfills,
    /// The plugins in force.
    pub plugins: watch::Receiver<Vec<PluginStatus>>,
    /// Takes wishes about them.
    pub plugin_requests: PluginRequests,
    /// Each pipeline's latest facts.
    pub pipelines: Latest<PipelineStatus>,
    /// Reads what they take in.
    pub inputs: Arc<dyn ReadInput>,
    /// Each output's latest facts.
    pub outputs: Latest<OutputStatus>,
    /// Reads the config again.
    pub reloads: Reloads,
    /// The plugins that rules name to decide about readers.
    pub authorizers: BTreeMap<String, Arc<dyn Authorize>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Anyone on the network could read the database's changes.
    #[error(
        "server.listen = \"{0}\" is open to the network and server.token is not set; set it, as in \
         `token = {{ env = \"WALMILL_TOKEN\" }}`, or server.auth, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// Another program, or another walmill, has the port.
    #[error(
        "{0} is in use by another program; stop it, or choose another port with server.listen or \
         `--set server.listen=127.0.0.1:4001`"
    )]
    InUse(SocketAddr),
    /// The address is not one of this machine's, or may not be used.
    #[error("listen on {0}; choose another address with server.listen")]
    Unusable(SocketAddr, #[source] std::io::Error),
    /// The certificate or its key does not work.
    #[error("server.tls")]
    Tls(#[from] tls::TlsError),
}

/// Takes the address, so that a port that is taken is known before anything else starts.
///
/// # Errors
/// See [`BindError`].
pub async fn bind(config: &Config) -> Result<TcpListener, BindError> {
    let address = config.listen;
    if !address.ip().is_loopback() && !config.is_guarded() {
        return Err(BindError::Open(address));
    }
    if let Some(tls) = &config.tls {
        tls::Tls::open(tls)?;
    }
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => BindError::InUse(address),
        _ => BindError::Unusable(address, error),
    })
}

/// Serves until the token is cancelled, then lets each client know its cursor, within a bounded
/// time.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    state: State,
    shutdown: CancellationToken,
) {
    let server = match Server::new(config, state, shutdown) {
        Ok(server) => Arc::new(server),
        Err(error) => return tracing::error!("server.tls: {:#}", anyhow::Error::new(error)),
    };
    let routes = routes(&server);
    let renewing = async {
        if let Some(tls) = &server.tls {
            tls.renew(&server.shutdown).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = connection::accept(listener, routes, &server) => {}
        () = renewing => {}
    }
}

/// What every handler shares.
struct Server {
    config: Config,
    state: State,
    gate: auth::Gate,
    tls: Option<tls::Tls>,
    runs: runs::Runs,
    hubs: fanout::Hubs,
    supabase: supabase::Supabase,
    visits: visit::Visits,
    pages: pull::Room,
    shutdown: CancellationToken,
}

impl Server {
    fn new(
        config: Config,
        state: State,
        shutdown: CancellationToken,
    ) -> Result<Self, tls::TlsError> {
        let visits = visit::Visits::new(Arc::clone(&state.metrics), config.max_clients);
        let gate = auth::Gate::new(&config);
        let tls = config.tls.as_ref().map(tls::Tls::open).transpose()?;
        let (runs, hubs) = (runs::Runs::default(), fanout::Hubs::default());
        let supabase = supabase::Supabase::default();
        let pages = pull::Room::default();
        Ok(Self { config, state, gate, tls, runs, hubs, supabase, visits, pages, shutdown })
    }

    /// The largest message, and frame, that a client may send.
    fn max_message(&self) -> usize {
        usize::try_from(self.config.max_message.bytes()).unwrap_or(usize::MAX)
    }

    /// What holds for every reader's queue.
    fn terms(&self) -> fanout::Terms {
        fanout::Terms {
            epoch: self.state.store.epoch(),
            bytes: self.buffer(),
            shutdown: self.shutdown.clone(),
        }
    }

    /// The streams that Supabase's clients read, as far as they may.
    fn supabase_streams(&self) -> Vec<Arc<Stream>> {
        let wanted = |stream: &Arc<Stream>| self.config.supabase.reads(stream.name());
        self.state.store.streams().into_iter().filter(wanted).collect()
    }

    /// Bytes that may wait for a client's socket.
    fn buffer(&self) -> usize {
        usize::try_from(self.config.client_buffer.bytes()).unwrap_or(usize::MAX)
    }
}

/// Everything behind the guard, which stands before all of it at once: so it sees an address's
/// answers as a whole, the methods that it lists among them.
fn routes(server: &Arc<Server>) -> Router {
    let guard = axum::middleware::from_fn_with_state(Arc::clone(server), guard::check);
    Router::new().fallback_service(addresses(server)).layer(guard)
}

fn addresses(server: &Arc<Server>) -> Router {
    Router::new()
        .route("/v1/ws", get(websocket::upgrade))
        .route("/v1/tickets", post(tickets::issue))
        .route("/v1/streams", get(admin::streams))
        .route("/v1/streams/{stream}/sse", get(sse::subscribe))
        .route("/v1/streams/{stream}/events", get(pull::events))
        .route("/socket/websocket", get(supabase::upgrade))
        .route("/realtime/v1/websocket", get(supabase::upgrade))
        .route("/api/broadcast", post(supabase::broadcast_many))
        .route("/realtime/v1/api/broadcast", post(supabase::broadcast_many))
        .route("/api/broadcast/{topic}/events/{event}", post(supabase::broadcast_one))
        .route("/realtime/v1/api/broadcast/{topic}/events/{event}", post(supabase::broadcast_one))
        .route("/metrics", get(admin::metrics))
        .route("/livez", get(admin::alive))
        .route("/readyz", get(admin::ready))
        .route("/api/v1/status", get(admin::status))
        .route("/api/v1/plugins", get(plugins::list))
        .route("/api/v1/plugins/{name}", get(plugins::show).put(plugins::upload))
        .route("/api/v1/plugins/{name}/file", get(plugins::pull))
        .route("/api/v1/plugins/{name}/rollback", post(plugins::roll_back))
        .route("/api/v1/plugins/{name}/promote", post(plugins::promote))
        .route("/api/v1/reload", get(reload::last).post(reload::reload))
        .route("/api/v1/pipelines", get(admin::pipelines))
        .route("/api/v1/pipelines/{name}/changes", get(input::changes))
        .route("/api/v1/pipelines/{name}/accept-schema", post(schema::accept))
        .route("/api/v1/outputs", get(admin::outputs))
        .route("/api/v1/outputs/{name}/enable", post(outputs::enable))
        .route("/api/v1/slot/recreate", post(slot::recreate))
        .route("/api/v1/dlq", get(dead_letters::list))
        .route("/api/v1/dlq/retry", post(dead_letters::retry))
        .route("/api/v1/dlq/drop", post(dead_letters::forget))
        .route("/api/v1/dlq/{id}", get(dead_letters::show))
        .route("/api/v1/replay", get(replays::list).post(replays::ask))
        .route("/api/v1/replay/dry-run", post(replays::dry_run))
        .route("/api/v1/replay/{kind}/{name}/cancel", post(replays::cancel))
        .route("/api/v1/backfills", get(backfills::list).post(backfills::start))
        .route("/api/v1/backfills/{id}/{action}", post(backfills::act))
        .route("/", get(console::redirect))
        .route("/console", get(console::page))
        .route("/console/{*file}", get(console::file))
        .fallback(problem::no_such_address)
        .method_not_allowed_fallback(problem::only_known)
        .with_state(Arc::clone(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_says_what_it_does_not_understand() {
        let config: Config = toml::from_str("").unwrap();
        assert_eq!(config, Config::default());
        let error = |toml: &str| toml::from_str::<Config>(toml).unwrap_err().message().to_owned();
        assert!(error("listne = ''").contains("unknown field `listne`"));
        assert!(error("listen = 'localhost'").contains("invalid socket address"));
        assert!(error("max_clients = 0").contains("nonzero"));
        for text in ["*", "app.example", "https://*.example", "https://app.example/x", "null"] {
            let toml = format!("origins = ['{text}']");
            assert!(error(&toml).contains("is no origin"), "{text}");
        }
    }

    #[test]
    fn an_origin_is_kept_as_browsers_write_it() {
        let origin = |text: &str| Origin::try_from(text.to_owned()).unwrap().0;
        assert_eq!(origin("HTTPS://App.Example:443/"), "https://app.example");
        assert_eq!(origin("http://localhost:5173"), "http://localhost:5173");
        assert_eq!(origin("capacitor://localhost"), "capacitor://localhost");
    }

    #[tokio::test]
    async fn listening_to_the_network_without_a_token_is_refused_with_the_key_to_set() {
        let config = Config { listen: ([0, 0, 0, 0], 0).into(), ..Config::default() };
        let error = bind(&config).await.unwrap_err().to_string();
        assert!(error.contains("set it, as in `token = { env = \"WALMILL_TOKEN\" }`"), "{error}");
        let token = Some(Secret::new("s3cret"));
        bind(&Config { token, ..config }).await.unwrap();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_the_key_to_change_it() {
        let local = Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() };
        let first = bind(&local).await.unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind(&Config { listen: taken, ..local }).await.unwrap_err();
        assert!(matches!(error, BindError::InUse(_)));
        assert!(error.to_string().starts_with(&format!("{taken} is in use")), "{error}");
    }
}
