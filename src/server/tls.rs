//! TLS for the listener. The certificate is read again when its file changes, so that renewing one
//! takes no restart; connections that are open keep theirs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The files are looked at so often. Looked at, not watched: they may be links that are bent, or on
/// a file system that tells nothing.
const LOOK: Duration = Duration::from_secs(1);

/// `[server.tls]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The certificate in PEM, and behind it those that it is signed by.
    pub cert: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("{0}")]
    File(PathBuf, #[source] anyhow::Error),
    /// The key is not the certificate's, or of a kind that is not known.
    #[error("certificate {0} and its key do not fit")]
    Pair(PathBuf, #[source] rustls::Error),
}

/// Makes connections secure.
pub(super) struct Tls {
    config: Config,
    acceptor: TlsAcceptor,
    current: Arc<Current>,
}

/// The certificate in force.
struct Current(ArcSwap<CertifiedKey>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// With the certificate that is there now.
    pub(super) fn open(config: &Config) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(read(config)?)));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Pair(config.cert.clone(), error))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&current) as _;
        let mut server = builder.with_no_client_auth().with_cert_resolver(resolver);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Self { config: config.clone(), acceptor, current })
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Takes new certificates as they come. One that does not work leaves the old one in force.
    pub(super) async fn renew(&self, shutdown: &CancellationToken) {
        let mut seen = fingerprint(&self.config).await;
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let now = fingerprint(&self.config).await;
            if now == seen {
                continue;
            }
            match read(&self.config) {
                Ok(key) => {
                    self.current.0.store(Arc::new(key));
                    info!(cert = %self.config.cert.display(), "a new certificate is in force");
                }
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    warn!("the new certificate does not work, the old one stays: {error:#}");
                }
            }
            seen = now;
        }
    }
}

/// What is in both files, or that one is missing.
async fn fingerprint(config: &Config) -> Option<[u8; 32]> {
    let mut digest = Sha256::new();
    for path in [&config.cert, &config.key] {
        digest.update(tokio::fs::read(path).await.ok()?);
    }
    Some(digest.finalize().into())
}

fn read(config: &Config) -> Result<CertifiedKey, TlsError> {
    let pem = |path: &Path| {
        std::fs::read(path).map_err(|error| TlsError::File(path.to_owned(), error.into()))
    };
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem(&config.cert)?)
        .map(|cert| cert.map(|c| c.into_owned()))
        .collect();
    let certs = certs.map_err(|error| TlsError::File(config.cert.clone(), error.into()))?;
    if certs.is_empty() {
        let nothing = anyhow::anyhow!("there is no certificate in it");
        return Err(TlsError::File(config.cert.clone(), nothing));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem(&config.key)?)
        .map_err(|error| TlsError::File(config.key.clone(), error.into()))?;
    CertifiedKey::from_der(certs, key, &aws_lc_rs::default_provider())
        .map_err(|error| TlsError::Pair(config.cert.clone(), error))
}
