//! TLS as libpq's `sslmode` means it, and what binds a login to it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::{Tls, TlsMode};

/// Secures a connection to `host`.
pub(super) async fn secure(
    stream: TcpStream,
    host: &str,
    tls: &Tls,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config(tls)?)).connect(name, stream).await
}

fn config(tls: &Tls) -> io::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(tls, provider)?);
    match &tls.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(io::Error::other)
        }
    }
}

fn verifier(tls: &Tls, provider: Arc<CryptoProvider>) -> io::Result<Arc<dyn ServerCertVerifier>> {
    if let TlsMode::Disable | TlsMode::Prefer | TlsMode::Require = tls.mode {
        return Ok(Arc::new(Unverified(provider)));
    }
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(tls)?), provider)
        .build()
        .map_err(io::Error::other)?;
    Ok(match tls.mode {
        TlsMode::VerifyCa => Arc::new(AnyName(webpki)),
        _ => webpki,
    })
}

fn roots(tls: &Tls) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match &tls.roots {
        Some(file) => {
            for certificate in certificates(file)? {
                store.add(certificate).map_err(|error| unreadable(file, error))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(file, error))
}

fn unreadable(file: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("read {}: {error}", file.display()))
}

/// `require`: whoever it is, but nobody who only listens.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: a certificate that an authority signed, for whatever name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last, so this error says that all the rest is well.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The `tls-server-end-point` channel binding (RFC 5929): the certificate's hash, by the hash of
/// its own signature. `None` where that names none, as with Ed25519.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_hash(certificate)? {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// Certificate ::= SEQUENCE { what is signed, AlgorithmIdentifier ::= SEQUENCE { OID, … }, … }
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (inside, _) = element(0x30, certificate)?;
    let (_, behind) = element(0x30, inside)?;
    let (algorithm, _) = element(0x30, behind)?;
    let (oid, _) = element(0x06, algorithm)?;
    // sha*WithRSAEncryption are 1.2.840.113549.1.1.n, ecdsa-with-SHA* 1.2.840.10045.4.3.n.
    match oid {
        // MD5 and SHA-1 are replaced by SHA-256 here (RFC 5929, 4.1).
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 4 | 5 | 11] => Some(Hash::Sha256),
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 12] => Some(Hash::Sha384),
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 13] => Some(Hash::Sha512),
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1] | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2] => {
            Some(Hash::Sha256)
        }
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 3] => Some(Hash::Sha384),
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 4] => Some(Hash::Sha512),
        _ => None,
    }
}

/// The content of the DER element in front, and what is behind it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
    let len = digits
        .iter()
        .try_fold(0_usize, |len, digit| Some(len.checked_mul(256)? + usize::from(*digit)))?;
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_the_one_that_the_certificate_is_signed_with() {
        let certificate = |oid: &[u8]| {
            let mut algorithm = vec![0x30, oid.len() as u8 + 2, 6, oid.len() as u8];
            algorithm.extend(oid);
            let mut bytes = vec![0x30, 0x81, 2 + algorithm.len() as u8, 0x30, 0];
            bytes.extend(algorithm);
            bytes
        };
        let rsa = |n| certificate(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, n]);
        assert_eq!(signature_hash(&rsa(5)), Some(Hash::Sha256));
        assert_eq!(signature_hash(&rsa(12)), Some(Hash::Sha384));
        assert_eq!(signature_hash(&rsa(13)), Some(Hash::Sha512));
        let ecdsa = certificate(&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 3]);
        assert_eq!(signature_hash(&ecdsa), Some(Hash::Sha384));
        assert_eq!(signature_hash(&certificate(&[0x2B, 0x65, 0x70])), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_end_point_or_none(bytes: Vec<u8>) {
            let _ = end_point(&bytes);
        }
    }
}
