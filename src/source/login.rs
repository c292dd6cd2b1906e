//! Becoming somebody at the server: startup and authentication (PostgreSQL docs, "Start-up" and
//! "SASL Authentication").

use std::collections::HashMap;
use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt as _;
use tokio_postgres::config;

use super::fault::Fault;
use super::net::{Link, Socket};
use super::url::Url;
use super::wire::{Wire, broken, server_error};

/// What is the same on every connection of ours, whatever the role or the database sets: values
/// must read the same everywhere, and nothing may cut a stream that is merely quiet.
pub(super) const PINNED: [(&str, &str); 12] = [
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

/// A connection after the login.
pub(super) struct Session {
    pub(super) wire: Wire<Box<dyn Socket>>,
    /// What the server said about itself: `server_version` and others.
    pub(super) parameters: HashMap<String, String>,
}

/// Logs in for logical replication.
pub(super) async fn replication(link: Link, url: &Url) -> Result<Session, Fault> {
    let login = Login { wire: Wire::new(link.socket), url, binding: link.binding };
    login.run().await
}

struct Login<'a> {
    wire: Wire<Box<dyn Socket>>,
    url: &'a Url,
    binding: Option<Vec<u8>>,
}

const DOING: &str = "log in";

impl Login<'_> {
    async fn run(mut self) -> Result<Session, Fault> {
        self.startup().await.map_err(broke)?;
        self.authenticate().await?;
        let parameters = self.parameters().await?;
        Ok(Session { wire: self.wire, parameters })
    }

    async fn startup(&mut self) -> io::Result<()> {
        let config = &self.url.config;
        let own = [
            ("user", self.url.user()),
            ("database", self.url.database()),
            ("replication", "database"),
            ("application_name", config.get_application_name().unwrap_or("walmill")),
        ];
        let options = config.get_options().map(|options| ("options", options));
        let mut startup = BytesMut::new();
        frontend::startup_message(own.into_iter().chain(options).chain(PINNED), &mut startup)?;
        self.wire.socket.write_all(&startup).await?;
        self.wire.socket.flush().await
    }

    async fn authenticate(&mut self) -> Result<(), Fault> {
        loop {
            let mut body = self.expect(b'R').await?;
            match body.try_get_u32().map_err(|_| broke(broken("a short authentication")))? {
                0 => return self.bound_or_not_asked_to_be(),
                3 => {
                    self.bound_or_not_asked_to_be()?;
                    let password = self.password()?.to_vec();
                    self.send(|buffer| frontend::password_message(&password, buffer)).await?;
                }
                5 => {
                    self.bound_or_not_asked_to_be()?;
                    let salt = body.get(..4).and_then(|salt| salt.try_into().ok());
                    let salt = salt.ok_or_else(|| broke(broken("a short salt")))?;
                    let hash = md5_hash(self.url.user().as_bytes(), self.password()?, salt);
                    self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
                }
                10 => return self.scram(&body).await,
                other => return Err(unsupported(&format!("authentication method {other}"))),
            }
        }
    }

    /// A login without a bound TLS is no login where the address requires one.
    fn bound_or_not_asked_to_be(&self) -> Result<(), Fault> {
        match self.url.config.get_channel_binding() {
            config::ChannelBinding::Require => Err(Fault::person(
                format!("{DOING}: the server does not bind the login to TLS"),
                "use scram-sha-256 in pg_hba.conf, or take `channel_binding=require` out of \
                 `source.url`",
            )),
            _ => Ok(()),
        }
    }

    async fn scram(&mut self, mechanisms: &[u8]) -> Result<(), Fault> {
        let offers = |wanted: &str| mechanisms.split(|b| *b == 0).any(|m| m == wanted.as_bytes());
        let wanted = self.url.config.get_channel_binding() != config::ChannelBinding::Disable;
        let binding = self.binding.take().filter(|_| wanted);
        let (mechanism, binding) = match binding {
            Some(binding) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(binding))
            }
            _ if !offers(sasl::SCRAM_SHA_256) => return Err(unsupported("SASL mechanism")),
            Some(_) => (sasl::SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if mechanism != sasl::SCRAM_SHA_256_PLUS {
            self.bound_or_not_asked_to_be()?;
        }
        // Checks nonce, iteration count and the server's own proof.
        let mut scram = ScramSha256::new(self.password()?, binding);
        let first = scram.message().to_vec();
        self.send(|buffer| frontend::sasl_initial_response(mechanism, &first, buffer)).await?;
        scram.update(&self.sasl(11).await?).map_err(broke)?;
        let second = scram.message().to_vec();
        self.send(|buffer| frontend::sasl_response(&second, buffer)).await?;
        scram.finish(&self.sasl(12).await?).map_err(broke)?;
        match self.expect(b'R').await?.try_get_u32() {
            Ok(0) => Ok(()),
            _ => Err(broke(broken("no end of the authentication"))),
        }
    }

    async fn sasl(&mut self, step: u32) -> Result<Bytes, Fault> {
        let mut body = self.expect(b'R').await?;
        match body.try_get_u32() {
            Ok(found) if found == step => Ok(body),
            _ => Err(broke(broken("another step of the authentication"))),
        }
    }

    /// What the server says about itself before it is ready.
    async fn parameters(&mut self) -> Result<HashMap<String, String>, Fault> {
        let mut parameters = HashMap::new();
        loop {
            let (tag, body) = self.wire.next().await.map_err(broke)?;
            match tag {
                b'S' => {
                    let text = String::from_utf8_lossy(&body);
                    let mut parts = text.split('\0').map(str::to_owned);
                    if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                        parameters.insert(name, value);
                    }
                }
                b'Z' => return Ok(parameters),
                b'E' => return Err(self.refused(&body)),
                _ => {}
            }
        }
    }

    fn password(&self) -> Result<&[u8], Fault> {
        self.url.config.get_password().ok_or_else(|| {
            Fault::person(
                format!("{DOING}: the server asks for a password"),
                "put one into `source.url`, best as `${DATABASE_URL}` from the environment",
            )
        })
    }

    /// The next message, which must be of that kind.
    async fn expect(&mut self, wanted: u8) -> Result<Bytes, Fault> {
        loop {
            let (tag, body) = self.wire.next().await.map_err(broke)?;
            match tag {
                tag if tag == wanted => return Ok(body),
                b'E' => return Err(self.refused(&body)),
                // A notice, or a version that the server would rather speak.
                b'N' | b'v' => {}
                _ => return Err(broke(broken(format_args!("message {}", tag.escape_ascii())))),
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

    fn refused(&self, body: &[u8]) -> Fault {
        Fault::refused(DOING, &server_error(body), self.url)
    }
}

fn broke(error: io::Error) -> Fault {
    Fault::broken(DOING, &error)
}

fn unsupported(what: &str) -> Fault {
    Fault::person(
        format!("{DOING}: the server wants an {what} that walmill does not have"),
        "use scram-sha-256, md5, password, cert or trust for this role in pg_hba.conf",
    )
}
