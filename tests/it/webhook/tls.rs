//! A receiver that wants to see a certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::login::tls::Certificates;

/// Serves those who show a certificate that our authority signed: its port, and how many it did.
async fn server(files: &Certificates) -> (u16, Arc<AtomicUsize>) {
    let certificate = |name: &str| CertificateDer::from_pem_file(files.path(name)).expect(name);
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.crt")).expect("a root");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
    let key = PrivateKeyDer::from_pem_file(files.path("server.key")).expect("a key");
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate("server.crt")], key)
        .expect("a server's config");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.expect("a connection");
            let (acceptor, count) = (acceptor.clone(), count.clone());
            tokio::spawn(async move {
                let mut tls = acceptor.accept(connection).await.ok()?;
                let mut request = vec![0; 64 << 10];
                let _ = tls.read(&mut request).await.ok()?;
                tls.write_all(b"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n").await.ok()?;
                count.fetch_add(1, Ordering::SeqCst);
                tls.shutdown().await.ok()
            });
        }
    });
    (port, served)
}

#[tokio::test]
async fn a_certificate_of_walmills_own_is_shown_where_the_receiver_wants_one() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(files) = Certificates::make() else { return };
    let (port, served) = server(&files).await;
    let config = |tls: &str| {
        format!(
            "name = 'billing'\nstreams = ['orders']\nurl = 'https://localhost:{port}/hook'\n\
             secret = '{SECRET}'\nallow_private = true\nretry.initial = '5ms'\ntls = {{ {tls} }}"
        )
    };
    let ca = format!("ca = {{ file = '{}' }}", files.path("ca.crt"));
    let mut streams = Streams::new();
    let sent = streams.commit("orders", &["a"]);
    for refused in ["", ca.as_str()] {
        let output = Output::with(&streams, &config(refused));
        output.error().await;
        output.stop().await;
        assert_eq!(served.load(Ordering::SeqCst), 0, "{refused}");
    }
    let own = format!(
        "{ca}, certificate = {{ file = '{}' }}, key = {{ file = '{}' }}",
        files.path("client.crt"),
        files.path("client.key")
    );
    let output = Output::with(&streams, &config(&own));
    until("it is taken", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    assert_eq!(served.load(Ordering::SeqCst), 1);
}
