//! The key of a client certificate: looked after as libpq does, and opened where it is encrypted
//! (PKCS #8 with PBES2, RFC 8018: what `openssl pkcs8 -topk8` writes).

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::der::{OCTETS, OID, SEQUENCE, element, number};
use super::unreadable;
use crate::source::url::Client;

/// The most work that opening a key may take: a second or so. OpenSSL writes 2,048.
const ITERATIONS_MAX: u32 = 2_000_000;

/// Reads a client's key.
pub(super) fn read(client: &Client) -> io::Result<PrivateKeyDer<'static>> {
    let file = &client.key;
    let about = fs::metadata(file).map_err(|error| unreadable(file, error))?;
    check_rights(&about).map_err(|error| unreadable(file, error))?;
    let pem = fs::read(file).map_err(|error| unreadable(file, error))?;
    match sealed(&pem) {
        None => PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unreadable(file, error)),
        Some(Sealed::Old) => Err(unreadable(file, OLD)),
        Some(Sealed::Pkcs8(text)) => unseal(client, &text, file),
    }
}

/// As libpq: root may let a group read it (certificates are often handed out so), nobody else.
fn check_rights(about: &Metadata) -> Result<(), &'static str> {
    let others = if about.uid() == 0 { 0o037 } else { 0o077 };
    match about.is_file() {
        false => Err("it is no plain file"),
        true if about.permissions().mode() & others != 0 => {
            Err("others can read it; run `chmod 0600` on it (0640 if it is root's)")
        }
        true => Ok(()),
    }
}

const OLD: &str = "it is encrypted in the old way of OpenSSL; write it anew with `openssl pkcs8 \
                   -topk8 -v2 aes256 -in OLD -out NEW`";

enum Sealed {
    /// Base64 of what is between the marks.
    Pkcs8(String),
    /// `Proc-Type: 4,ENCRYPTED`
    Old,
}

fn sealed(pem: &[u8]) -> Option<Sealed> {
    let pem = String::from_utf8_lossy(pem);
    if pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Some(Sealed::Old);
    }
    let (_, rest) = pem.split_once("-----BEGIN ENCRYPTED PRIVATE KEY-----")?;
    let (text, _) = rest.split_once("-----END ENCRYPTED PRIVATE KEY-----")?;
    Some(Sealed::Pkcs8(text.split_whitespace().collect()))
}

fn unseal(client: &Client, text: &str, file: &Path) -> io::Result<PrivateKeyDer<'static>> {
    use base64::Engine as _;
    let password = client.password.as_ref().map(|password| password.reveal());
    let password = password
        .ok_or_else(|| unreadable(file, "it is encrypted, and the address has no `sslpassword`"))?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|_| unreadable(file, KeyError::Form))?;
    let key = open(&bytes, password.as_bytes()).map_err(|error| unreadable(file, error))?;
    Ok(PrivatePkcs8KeyDer::from(key).into())
}

#[derive(Debug, PartialEq, Eq)]
enum KeyError {
    Form,
    Method,
    Password,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "it is no encrypted key",
            Self::Method => {
                "it is encrypted in a way that walmill does not have; write it anew with \
                 `openssl pkcs8 -topk8 -v2 aes256 -in OLD -out NEW`"
            }
            Self::Password => "`sslpassword` does not open it",
        })
    }
}

const PBES2: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 5, 13];
const PBKDF2: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 5, 12];
/// 1.2.840.113549.2: the hashes that a key is derived with follow.
const HMACS: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 2];
/// 2.16.840.1.101.3.4.1: the AES ciphers follow.
const AES: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1];

/// How a key was encrypted.
struct Method<'a> {
    salt: &'a [u8],
    iterations: NonZeroU32,
    hash: pbkdf2::Algorithm,
    cipher: &'static cipher::Algorithm,
    key_len: usize,
    iv: [u8; 16],
}

/// EncryptedPrivateKeyInfo ::= SEQUENCE { algorithm, OCTET STRING }
fn open(sealed: &[u8], password: &[u8]) -> Result<Vec<u8>, KeyError> {
    let (inside, _) = element(SEQUENCE, sealed).ok_or(KeyError::Form)?;
    let (algorithm, behind) = element(SEQUENCE, inside).ok_or(KeyError::Form)?;
    let (data, _) = element(OCTETS, behind).ok_or(KeyError::Form)?;
    let method = method(algorithm).ok_or(KeyError::Method)?;
    if method.iterations.get() > ITERATIONS_MAX {
        return Err(KeyError::Method);
    }
    let mut key = vec![0; method.key_len];
    pbkdf2::derive(method.hash, method.iterations, method.salt, password, &mut key);
    let key = UnboundCipherKey::new(method.cipher, &key).map_err(|_| KeyError::Method)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| KeyError::Method)?;
    let mut data = data.to_vec();
    let context = DecryptionContext::Iv128(FixedLength::from(method.iv));
    let plain = key.decrypt(&mut data, context).map_err(|_| KeyError::Password)?;
    // A wrong password may leave padding that looks right, but hardly a key.
    match element(SEQUENCE, plain) {
        Some((_, [])) => Ok(plain.to_vec()),
        _ => Err(KeyError::Password),
    }
}

/// PBES2 with PBKDF2 and AES in CBC mode.
fn method(algorithm: &[u8]) -> Option<Method<'_>> {
    let (oid, rest) = element(OID, algorithm)?;
    let (parameters, _) = element(SEQUENCE, rest).filter(|_| oid == PBES2)?;
    let (derivation, encryption) = element(SEQUENCE, parameters)?;
    let (oid, rest) = element(OID, derivation)?;
    let (derivation, _) = element(SEQUENCE, rest).filter(|_| oid == PBKDF2)?;
    let (salt, rest) = element(OCTETS, derivation)?;
    let (iterations, rest) = number(rest)?;
    // The key's length may be said once more.
    let rest = number(rest).map_or(rest, |(_, rest)| rest);
    let hash = match element(SEQUENCE, rest) {
        None => pbkdf2::PBKDF2_HMAC_SHA1,
        Some((hash, _)) => match element(OID, hash)?.0.strip_prefix(HMACS)? {
            [7] => pbkdf2::PBKDF2_HMAC_SHA1,
            [9] => pbkdf2::PBKDF2_HMAC_SHA256,
            [10] => pbkdf2::PBKDF2_HMAC_SHA384,
            [11] => pbkdf2::PBKDF2_HMAC_SHA512,
            _ => return None,
        },
    };
    let (encryption, _) = element(SEQUENCE, encryption)?;
    let (oid, rest) = element(OID, encryption)?;
    let (cipher, key_len) = match oid.strip_prefix(AES)? {
        [2] => (&cipher::AES_128, 16),
        [42] => (&cipher::AES_256, 32),
        _ => return None,
    };
    let iv = element(OCTETS, rest)?.0.try_into().ok()?;
    let iterations = NonZeroU32::new(iterations)?;
    Some(Method { salt, iterations, hash, cipher, key_len, iv })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_refused(bytes: Vec<u8>) {
            let _ = open(&bytes, b"password");
            let _ = method(&bytes);
            let _ = sealed(&bytes);
        }
    }
}
