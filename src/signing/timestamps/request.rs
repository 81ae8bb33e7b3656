//! The request for a timestamp: bytes in, bytes out.

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The hash of a signature that an authority timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::signing) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// Returns the hash with this object identifier (RFC 5754, section 2).
    pub(super) fn of_oid(oid: &str) -> Option<Self> {
        match oid {
            "2.16.840.1.101.3.4.2.1" => Some(Self::Sha256),
            "2.16.840.1.101.3.4.2.2" => Some(Self::Sha384),
            "2.16.840.1.101.3.4.2.3" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Returns the `AlgorithmIdentifier` as DER, with the parameter NULL.
    const fn identifier(self) -> [u8; 15] {
        let last = match self {
            Self::Sha256 => 1,
            Self::Sha384 => 2,
            Self::Sha512 => 3,
        };
        [
            SEQUENCE, 13, 0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last, 0x05, 0,
        ]
    }

    /// Returns the hash of `bytes`.
    pub(super) fn of(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm: &Algorithm = match self {
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        };
        digest(algorithm, bytes).as_ref().to_vec()
    }
}

/// Returns the request for a timestamp of a signature (RFC 3161, section 2.4.1). It has no nonce, because the hash of the signature tells
/// answers apart. With `certificates`, the token has those of the authority.
pub(in crate::signing) fn request(hash: Hash, signature: &[u8], certificates: bool) -> Vec<u8> {
    let hashed = element(OCTET_STRING, &hash.of(signature));
    let imprint = element(SEQUENCE, &[&hash.identifier(), hashed.as_slice()].concat());
    let version = element(INTEGER, &[1]);
    let mut parts = [version, imprint].concat();
    if certificates {
        parts.extend(element(BOOLEAN, &[0xff]));
    }
    element(SEQUENCE, &parts)
}

/// Returns an element of DER. Requests are shorter than the 128 bytes from which lengths have another form.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or_default();
    [&[tag, length], content].concat()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use x509_cert::der::asn1::{Null, ObjectIdentifier, OctetStringRef};
    use x509_cert::der::{Reader, SliceReader};

    use super::*;

    #[test]
    fn a_timestamp_request_is_der_with_the_hash_of_the_signature() {
        for (hash, certificates) in [
            (Hash::Sha256, false),
            (Hash::Sha384, true),
            (Hash::Sha512, true),
        ] {
            let request = request(hash, b"signature", certificates);
            let mut reader = SliceReader::new(&request).unwrap();
            reader
                .sequence(|reader| {
                    assert_eq!(reader.decode::<u8>()?, 1);
                    reader.sequence(|reader| {
                        reader.sequence(|reader| {
                            let oid: ObjectIdentifier = reader.decode()?;
                            assert_eq!(Hash::of_oid(&oid.to_string()), Some(hash));
                            reader.decode::<Null>().map(drop)
                        })?;
                        let hashed: OctetStringRef<'_> = reader.decode()?;
                        assert_eq!(hashed.as_bytes(), hash.of(b"signature"));
                        Ok(())
                    })?;
                    if certificates {
                        assert!(reader.decode::<bool>()?);
                    }
                    Ok(())
                })
                .unwrap();
            assert!(reader.is_finished());
        }
    }
}
