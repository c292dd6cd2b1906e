//! TLS as libpq's `sslmode` means it.

mod der;
mod end_point;
mod itself;
mod key;
mod verify;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::{Tls, TlsMode};
pub(super) use end_point::end_point;
use verify::{Unverified, Verified};

/// What PostgreSQL's protocol is called where TLS begins without it.
const ALPN: &[u8] = b"postgresql";

/// Secures a connection to `host`.
pub(super) async fn secure(
    stream: TcpStream,
    host: &str,
    tls: &Tls,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    TlsConnector::from(Arc::new(config(tls)?)).connect(name, stream).await
}

fn config(tls: &Tls) -> io::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match (tls.newest_only, tls.without_newest) {
        (true, _) => &[&TLS13],
        (false, true) => &[&TLS12],
        (false, false) => &[&TLS13, &TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(tls, provider)?);
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(client) => builder
            .with_client_auth_cert(certificates(&client.certificate)?, key::read(client)?)
            .map_err(|error| unreadable(&client.key, error))?,
    };
    config.enable_sni = !tls.nameless;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn verifier(tls: &Tls, provider: Arc<CryptoProvider>) -> io::Result<Arc<dyn ServerCertVerifier>> {
    if !matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
        return Ok(Arc::new(Unverified(provider)));
    }
    let trusted = tls.roots.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let roots = Arc::new(roots(tls, &trusted)?);
    let webpki = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .with_crls(revoked(tls)?)
        .build()
        .map_err(io::Error::other)?;
    let any_name = tls.mode == TlsMode::VerifyCa;
    Ok(Arc::new(Verified { webpki, trusted, any_name }))
}

fn roots(tls: &Tls, trusted: &[CertificateDer<'static>]) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match &tls.roots {
        Some(file) => {
            for certificate in trusted {
                store.add(certificate.clone()).map_err(|error| unreadable(file, error))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

/// The lists of certificates that are no longer good.
fn revoked(tls: &Tls) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let mut files: Vec<_> = tls.revoked.iter().cloned().collect();
    if let Some(folder) = &tls.revoked_folder {
        for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
            files.push(entry.map_err(|error| unreadable(folder, error))?.path());
        }
    }
    let mut lists = Vec::new();
    for file in files {
        let found: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_file_iter(&file).and_then(Iterator::collect);
        lists.extend(found.map_err(|error| unreadable(&file, error))?);
    }
    Ok(lists)
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(file, error))?;
    match found.is_empty() {
        true => Err(unreadable(file, "there is no certificate in it")),
        false => Ok(found),
    }
}

fn unreadable(file: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("read {}: {error}", file.display()))
}
