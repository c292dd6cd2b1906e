//! What the outputs to brokers have in common: their names, how long they wait, and TLS.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::DeliverError;
use super::deliver::{Ordering, Retry, StartFrom};
use crate::model::pattern::Glob;
use crate::model::{Period, Secret};

/// How a broker that is not there is tried again: `retry = { initial = "500ms", max = "30s" }`.
///
/// It is tried for ever. That a broker is away says nothing about an event, so that none is given
/// up for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wait {
    /// The longest wait before the second try.
    pub initial: Period,
    /// The longest wait before any try.
    pub max: Period,
}

impl Default for Wait {
    fn default() -> Self {
        Self { initial: Period::from_millis(500), max: Period::from_millis(30_000) }
    }
}

impl Wait {
    fn retry(&self) -> Retry {
        Retry {
            initial: self.initial,
            max: self.max,
            give_up_after: Period::from_millis(u64::MAX),
            ..Retry::default()
        }
    }
}

/// What a broker's section says about delivering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The output's name: its checkpoint is kept under it.
    pub name: String,
    /// The streams it delivers; `*` stands for any run of characters.
    pub streams: Vec<Glob>,
    /// What is kept in order.
    pub ordering: Ordering,
    /// How a broker that is not there is tried again.
    pub wait: Wait,
    /// Where it begins with a stream that it has never delivered.
    pub from: StartFrom,
}

impl Delivery {
    /// # Errors
    /// Without a name or streams.
    pub fn check(self) -> Result<Self, String> {
        match (self.name.as_str(), self.streams.is_empty()) {
            ("", _) => Err("an output needs a name: its checkpoint is kept under it".into()),
            (name, true) => {
                Err(format!("output {name} has no streams, so it would deliver nothing"))
            }
            (_, false) => Ok(self),
        }
    }

    /// What [`super::deliver::run`] needs to know. Batches go one after the other, so that what is
    /// not tried again keeps the stream's order, beyond that of each key.
    #[must_use]
    pub fn config(&self) -> super::deliver::Config {
        super::deliver::Config {
            name: self.name.clone(),
            streams: self.streams.clone(),
            concurrency: std::num::NonZeroUsize::MIN,
            ordering: self.ordering,
            retry: self.wait.retry(),
            from: self.from,
        }
    }
}

/// `tls = { ca = { file = "ca.pem" } }`: texts in PEM, all of them as secrets are given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, try_from = "TlsSection")]
pub struct Tls {
    /// Who vouches for the broker; the system's authorities if not set.
    pub ca: Option<Secret>,
    /// What walmill shows the broker: certificates, and the key of the first.
    pub client: Option<(Secret, Secret)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    ca: Option<Secret>,
    certificate: Option<Secret>,
    key: Option<Secret>,
}

impl TryFrom<TlsSection> for Tls {
    type Error = &'static str;

    fn try_from(TlsSection { ca, certificate, key }: TlsSection) -> Result<Self, Self::Error> {
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("`certificate` and `key` belong together"),
        };
        let tls = Self { ca, client };
        // What is no PEM is a fault of the config, not of the first connection.
        tls.parts().map(|_| tls).map_err(|_| "`ca`, `certificate` and `key` are texts in PEM")
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Tls {
    fn parts(&self) -> anyhow::Result<(Vec<CertificateDer<'static>>, Option<Identity>)> {
        let ca = self.ca.as_ref().map(certificates).transpose()?.unwrap_or_default();
        let client = self.client.as_ref().map(|(certificate, key)| {
            let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())?;
            anyhow::Ok((certificates(certificate)?, key))
        });
        Ok((ca, client.transpose()?))
    }

    /// The same for rustls.
    ///
    /// # Errors
    /// The certificates are none, or the system's cannot be read.
    pub fn client_config(&self) -> anyhow::Result<ClientConfig> {
        let (ca, client) = self.parts()?;
        let mut roots = RootCertStore::empty();
        let trusted = match self.ca {
            Some(_) => ca,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let (added, _) = roots.add_parsable_certificates(trusted);
        if added == 0 {
            anyhow::bail!("no certificate authority to trust; give one with `tls.ca`");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .context("set up TLS")?
            .with_root_certificates(roots);
        match client {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).context("use `certificate` and `key`")
            }
        }
    }
}

fn certificates(pem: &Secret) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.reveal().as_bytes())
        .collect::<Result<_, _>>()
        .context("read a certificate")?;
    match all.is_empty() {
        true => Err(anyhow::anyhow!("there is no certificate")),
        false => Ok(all),
    }
}

/// A connection that is made when it is needed, and by one at a time.
#[derive(Debug)]
pub struct Link<C> {
    state: Mutex<State<C>>,
}

#[derive(Debug)]
struct State<C> {
    connection: Option<C>,
    /// When it last could not be made, and why.
    failed: Option<(Instant, String)>,
}

impl<C> Default for Link<C> {
    fn default() -> Self {
        Self { state: Mutex::new(State { connection: None, failed: None }) }
    }
}

impl<C: Clone> Link<C> {
    /// The connection, made now if there is none. Who waited while another could not make it does
    /// not try once more.
    pub async fn get<F>(&self, connect: impl FnOnce() -> F) -> Result<C, DeliverError>
    where
        F: Future<Output = anyhow::Result<C>>,
    {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok(connection.clone());
        }
        if let Some((_, why)) = state.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(DeliverError::unavailable(anyhow::anyhow!("{why}")));
        }
        match connect().await {
            Ok(connection) => Ok(state.connection.insert(connection).clone()),
            Err(error) => {
                state.failed = Some((Instant::now(), format!("{error:#}")));
                Err(DeliverError::unavailable(error))
            }
        }
    }

    /// Forgets the connection: the next one who needs it makes another.
    pub async fn drop(&self) {
        self.state.lock().await.connection = None;
    }
}
