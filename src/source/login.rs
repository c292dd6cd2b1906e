//! Becoming somebody at the server: startup and authentication (PostgreSQL docs, "Start-up" and
//! "SASL Authentication"). The other end may be anybody, so all that it can make us do has a bound.

use std::collections::HashMap;
use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt as _;

use super::fault::Fault;
use super::net::{Link, Socket};
use super::passfile;
use super::url::{Binding, Host, Method, Name, Url};
use super::wire::{ServerError, Wire, broken, server_error};

/// What is the same on every connection of ours, whatever the role or the database sets: values
/// must read the same everywhere, and nothing may cut a stream that is merely quiet.
const PINNED: [(&str, &str); 12] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("quote_all_identifiers", "off"),
    ("timezone", "UTC"),
    ("search_path", "pg_catalog"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("default_transaction_read_only", "off"),
];
/// All that a server has to say before it is ready.
const TALK_MAX: usize = 1 << 20;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A stream from a slot.
    Replication,
    /// SQL.
    Queries,
}

/// A connection after the login.
pub(super) struct Session {
    pub(super) wire: Wire<Box<dyn Socket>>,
    /// What the server said about itself: `server_version` and others.
    pub(super) parameters: HashMap<String, String>,
    /// What a request to cancel would have to name.
    pub(super) key: Bytes,
    /// Whether TLS is below it.
    pub(super) secured: bool,
}

/// Why a login failed.
pub(super) struct Refusal {
    pub(super) fault: Fault,
    /// Whether the server may take us with TLS where it did not without, or the other way round.
    pub(super) of_way: bool,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self { fault, of_way: false }
    }
}

/// Logs in.
pub(super) async fn log_in(
    link: Link,
    url: &Url,
    host: &Host,
    purpose: Purpose,
) -> Result<Session, Refusal> {
    let Link { socket, secured, binding } = link;
    let wire = Wire::new(socket);
    let login = Login { wire, url, host, purpose, binding, secured, left: TALK_MAX };
    login.run().await
}

struct Login<'a> {
    wire: Wire<Box<dyn Socket>>,
    url: &'a Url,
    host: &'a Host,
    purpose: Purpose,
    binding: Option<Vec<u8>>,
    secured: bool,
    /// Of [`TALK_MAX`].
    left: usize,
}

/// A password, and where a person finds it.
struct Password {
    text: String,
    origin: String,
}

const DOING: &str = "log in";

impl Login<'_> {
    async fn run(mut self) -> Result<Session, Refusal> {
        self.startup().await.map_err(broke)?;
        self.authenticate().await?;
        let (parameters, key) = self.parameters().await?;
        Ok(Session { wire: self.wire, parameters, key, secured: self.secured })
    }

    async fn startup(&mut self) -> io::Result<()> {
        let url = self.url;
        let own = [
            ("user", url.user()),
            ("database", url.database()),
            ("application_name", url.application_name.as_str()),
        ];
        let replication = match self.purpose {
            Purpose::Replication => Some(("replication", "database")),
            Purpose::Queries => None,
        };
        let options = url.options.as_deref().map(|options| ("options", options));
        let all = own.into_iter().chain(replication).chain(options).chain(PINNED);
        let mut startup = BytesMut::new();
        frontend::startup_message(all, &mut startup)?;
        self.wire.socket.write_all(&startup).await?;
        self.wire.socket.flush().await
    }

    /// Answers the one question that the server asks.
    async fn authenticate(&mut self) -> Result<(), Refusal> {
        let mut body = self.expect(b'R', None).await?;
        match body.try_get_u32().map_err(|_| broke(broken("a short authentication")))? {
            0 => {
                self.check(Method::None)?;
                Ok(self.bound_or_not_asked_to_be()?)
            }
            3 => {
                self.check(Method::Password)?;
                self.bound_or_not_asked_to_be()?;
                let password = self.password()?;
                self.send(|buffer| frontend::password_message(password.text.as_bytes(), buffer))
                    .await?;
                self.accepted(&password).await
            }
            5 => {
                self.check(Method::Md5)?;
                self.bound_or_not_asked_to_be()?;
                let salt = body.get(..4).and_then(|salt| salt.try_into().ok());
                let salt = salt.ok_or_else(|| broke(broken("a short salt")))?;
                let password = self.password()?;
                let hash = md5_hash(self.url.user().as_bytes(), password.text.as_bytes(), salt);
                self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
                self.accepted(&password).await
            }
            10 => self.scram(&body).await,
            7 => Err(unsupported("a Kerberos ticket (GSSAPI)").into()),
            9 => Err(unsupported("SSPI").into()),
            other => Err(unsupported(&format!("authentication method {other}")).into()),
        }
    }

    /// Whether we let ourselves be asked in this way.
    fn check(&self, method: Method) -> Result<(), Fault> {
        match self.url.methods.allow(method) {
            true => Ok(()),
            false => Err(Fault::person(
                format!("{DOING}: the server asks in a way that `require_auth` does not allow"),
                "use another method for this role in pg_hba.conf, or add it to `require_auth` in \
                 `source.url`",
            )),
        }
    }

    /// A login without a bound TLS is no login where the address requires one.
    fn bound_or_not_asked_to_be(&self) -> Result<(), Fault> {
        match self.url.binding {
            Binding::Require => Err(Fault::person(
                format!("{DOING}: the server does not bind the login to TLS"),
                "use scram-sha-256 in pg_hba.conf, or take `channel_binding=require` out of \
                 `source.url`",
            )),
            Binding::Disable | Binding::Prefer => Ok(()),
        }
    }

    async fn scram(&mut self, mechanisms: &[u8]) -> Result<(), Refusal> {
        let offers = |wanted: &str| mechanisms.split(|b| *b == 0).any(|m| m == wanted.as_bytes());
        let binding = self.binding.take().filter(|_| self.url.binding != Binding::Disable);
        let (mechanism, binding) = match binding {
            Some(binding) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(binding))
            }
            _ if !offers(sasl::SCRAM_SHA_256) => {
                return Err(unsupported("a SASL mechanism").into());
            }
            Some(_) => (sasl::SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if mechanism != sasl::SCRAM_SHA_256_PLUS {
            self.bound_or_not_asked_to_be()?;
        }
        self.check(Method::Scram)?;
        let password = self.password()?;
        // Checks nonce, iteration count (100,000 at most) and the server's own proof.
        let mut scram = ScramSha256::new(password.text.as_bytes(), binding);
        let first = scram.message().to_vec();
        self.send(|buffer| frontend::sasl_initial_response(mechanism, &first, buffer)).await?;
        scram.update(&self.sasl(11, &password).await?).map_err(dishonest)?;
        let second = scram.message().to_vec();
        self.send(|buffer| frontend::sasl_response(&second, buffer)).await?;
        scram.finish(&self.sasl(12, &password).await?).map_err(dishonest)?;
        self.accepted(&password).await
    }

    async fn sasl(&mut self, step: u32, password: &Password) -> Result<Bytes, Refusal> {
        let mut body = self.expect(b'R', Some(password)).await?;
        match body.try_get_u32() {
            Ok(found) if found == step => Ok(body),
            _ => Err(broke(broken("another step of the authentication")).into()),
        }
    }

    async fn accepted(&mut self, password: &Password) -> Result<(), Refusal> {
        match self.expect(b'R', Some(password)).await?.try_get_u32() {
            Ok(0) => Ok(()),
            _ => Err(broke(broken("no end of the authentication")).into()),
        }
    }

    /// What the server says about itself before it is ready.
    async fn parameters(&mut self) -> Result<(HashMap<String, String>, Bytes), Refusal> {
        let (mut parameters, mut key) = (HashMap::new(), Bytes::new());
        loop {
            let (tag, body) = self.next().await?;
            match tag {
                b'S' => {
                    let text = String::from_utf8_lossy(&body);
                    let mut parts = text.split('\0').map(str::to_owned);
                    if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                        parameters.insert(name, value);
                    }
                }
                b'K' => key = body,
                b'Z' => return Ok((parameters, key)),
                b'E' => return Err(self.refused(&body, None)),
                b'N' | b'v' => {}
                _ => return Err(strange(tag).into()),
            }
        }
    }

    fn password(&self) -> Result<Password, Fault> {
        let url = self.url;
        if let Some(password) = &url.password {
            let origin = if url.password_of_environment { "PGPASSWORD" } else { "`source.url`" };
            return Ok(Password { text: password.reveal().into(), origin: origin.into() });
        }
        let folder;
        let hosts: &[&str] = match &self.host.name {
            Name::Default => &["localhost"],
            Name::Tcp(name) => &[name],
            Name::Unix(path) => {
                folder = path.display().to_string();
                &[&folder, "localhost"]
            }
        };
        let (database, user) = (url.database(), url.user());
        let entry = passfile::Entry { hosts, port: self.host.port, database, user };
        let file = url.passfile.as_deref();
        let found = file.and_then(|file| Some((passfile::look_up(file, &entry)?, file.display())));
        match found {
            Some((found, file)) => Ok(Password {
                text: found.password,
                origin: format!("line {} of {file}", found.line),
            }),
            None => Err(Fault::person(
                format!("{DOING}: the server asks for a password"),
                "put one into `source.url`, best as `${DATABASE_URL}` from the environment, into \
                 PGPASSWORD, or into a password file (~/.pgpass)",
            )),
        }
    }

    /// The next message, whatever it is.
    async fn next(&mut self) -> Result<(u8, Bytes), Fault> {
        let (tag, body) = self.wire.next_within(self.left).await.map_err(broke)?;
        self.left = self.left.saturating_sub(body.len() + 5);
        Ok((tag, body))
    }

    /// The next message, which must be of that kind.
    async fn expect(&mut self, wanted: u8, with: Option<&Password>) -> Result<Bytes, Refusal> {
        loop {
            let (tag, body) = self.next().await?;
            match tag {
                tag if tag == wanted => return Ok(body),
                b'E' => return Err(self.refused(&body, with)),
                // A notice, or a version that the server would rather speak.
                b'N' | b'v' => {}
                _ => return Err(strange(tag).into()),
            }
        }
    }

    async fn send(
        &mut self,
        message: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), Fault> {
        let mut buffer = BytesMut::new();
        message(&mut buffer).map_err(broke)?;
        self.wire.socket.write_all(&buffer).await.map_err(broke)?;
        self.wire.socket.flush().await.map_err(broke)
    }

    fn refused(&self, body: &[u8], with: Option<&Password>) -> Refusal {
        let server = server_error(body);
        let fault = match (server.code.as_str(), with) {
            ("28P01", Some(Password { origin, .. })) => Fault::person(
                format!("{DOING}: {server}"),
                format!("check the password of `{}` in {origin}", self.url.user()),
            ),
            _ if is_pooler(&server) => Fault::person(
                format!("{DOING}: {server}"),
                "connect to PostgreSQL itself: a connection pooler does not pass replication on",
            ),
            _ => Fault::refused(DOING, &server, self.url),
        };
        Refusal { fault, of_way: server.code == "28000" }
    }
}

/// PgBouncer, pgcat and others name the parameter that they do not know.
fn is_pooler(server: &ServerError) -> bool {
    let words = server.message.to_lowercase();
    words.contains("startup parameter") || words.contains("pgbouncer") || words.contains("pooler")
}

impl Session {
    /// The first number of the server's version.
    pub(super) fn major_version(&self) -> u32 {
        let version = self.parameters.get("server_version").map_or("", String::as_str);
        let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
        version[..end].parse().unwrap_or(0)
    }

    /// Asks one question in SQL, or in the words of replication: the first row of the answer.
    pub(super) async fn ask(
        &mut self,
        doing: &str,
        query: &str,
        url: &Url,
    ) -> Result<Vec<String>, Fault> {
        let answer = self.try_ask(doing, query).await?;
        answer.map_err(|refusal| Fault::refused(doing, &refusal, url))
    }

    /// The same, where it matters whether the server said no or said nothing.
    pub(super) async fn try_ask(
        &mut self,
        doing: &str,
        query: &str,
    ) -> Result<Result<Vec<String>, ServerError>, Fault> {
        let broke = |error: io::Error| Fault::broken(doing, &error);
        let mut message = BytesMut::new();
        frontend::query(query, &mut message).map_err(broke)?;
        self.wire.socket.write_all(&message).await.map_err(broke)?;
        self.wire.socket.flush().await.map_err(broke)?;
        let (mut answer, mut refusal) = (Vec::new(), None);
        loop {
            let (tag, body) = self.wire.next().await.map_err(broke)?;
            match tag {
                b'D' => answer = super::wire::row(&body).map_err(broke)?,
                b'E' => refusal = Some(server_error(&body)),
                b'Z' => break,
                _ => {}
            }
        }
        Ok(refusal.map_or(Ok(answer), Err))
    }

    /// Whether the server follows another one.
    pub(super) async fn is_standby(&mut self, url: &Url) -> Result<bool, Fault> {
        // Servers before version 14 do not say so by themselves.
        match self.parameters.get("in_hot_standby") {
            Some(answer) => Ok(answer == "on"),
            None => {
                let row = self.ask("ask for its part", "SELECT pg_is_in_recovery()", url).await?;
                Ok(row.first().is_some_and(|answer| answer == "t"))
            }
        }
    }
}

fn broke(error: io::Error) -> Fault {
    Fault::broken(DOING, &error)
}

fn strange(tag: u8) -> Fault {
    broke(broken(format_args!("message {}", [tag].escape_ascii())))
}

/// The other end does not know the password, or wants more of us than any server does.
fn dishonest(error: io::Error) -> Fault {
    Fault::person(
        format!("{DOING}: the server's part of SCRAM is wrong: {error}"),
        "make sure that this is your server: whoever answers does not know the password as \
         PostgreSQL would",
    )
}

fn unsupported(what: &str) -> Fault {
    Fault::person(
        format!("{DOING}: the server wants {what}, which walmill does not have"),
        "use scram-sha-256, md5, password, cert or trust for this role in pg_hba.conf",
    )
}
