//! What binds a login to the TLS below it.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::der::{OID, SEQUENCE, element};

/// The `tls-server-end-point` channel binding (RFC 5929): the certificate's hash, by the hash of
/// its own signature. `None` where that names none, as with Ed25519.
pub(in crate::source) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
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
    let (inside, _) = element(SEQUENCE, certificate)?;
    let (_, behind) = element(SEQUENCE, inside)?;
    let (algorithm, _) = element(SEQUENCE, behind)?;
    let (oid, _) = element(OID, algorithm)?;
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
