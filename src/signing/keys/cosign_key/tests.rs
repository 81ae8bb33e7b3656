#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that unwraps fails, as it should"
)]

use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::*;
use crate::signing::keys::pem;
use crate::signing::keys::{Hash, Scheme};
use crate::signing::vectors::{PASSWORD, read};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

fn refusal(file: &[u8], password: Option<&[u8]>) -> String {
    CosignKey::open(file, password)
        .err()
        .expect("a refusal")
        .to_string()
}

/// Returns a key file with a changed JSON.
fn rewritten(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let file = read("cosign/generated.key");
    let mut json = serde_json::from_slice(&pem::blocks(&file).unwrap()[0].contents).unwrap();
    change(&mut json);
    format!(
        "-----BEGIN {EXPECTED}-----\n{}\n-----END {EXPECTED}-----\n",
        STANDARD.encode(json.to_string())
    )
    .into_bytes()
}

#[test]
fn a_key_file_of_cosign_opens_and_has_the_public_key_of_cosign() {
    for name in [
        "generated",
        "p256",
        "p384",
        "p521",
        "ed25519",
        "rsa",
        "rsa-3072",
        "rsa-4096",
    ] {
        let key = CosignKey::open(&read(&format!("cosign/{name}.key")), Some(PASSWORD)).unwrap();
        let public = read(&format!("cosign/{name}.pub"));
        assert_eq!(
            key.public_der(),
            pem::blocks(&public).unwrap()[0].contents.as_slice(),
            "{name}"
        );
        let signature = key.sign_one(b"message");
        assert!(
            key.verifies(b"message", &signature) && !key.verifies(b"another", &signature),
            "{name}"
        );
    }
}

#[test]
fn the_older_label_opens_too() {
    let file = String::from_utf8(read("cosign/generated.key"))
        .unwrap()
        .replace("SIGSTORE", "COSIGN");
    assert!(CosignKey::open(file.as_bytes(), Some(PASSWORD)).is_ok());
}

#[test]
fn an_unencrypted_key_equals_the_one_that_cosign_imported() {
    for (plain, public) in [
        ("p256.pem", "p256.pub"),
        ("p256.sec1.pem", "p256.pub"),
        ("ed25519.pem", "ed25519.pub"),
        ("p384.pem", "p384.pub"),
        ("p384.sec1.pem", "p384.pub"),
        ("p521.pem", "p521.pub"),
        ("rsa.pem", "rsa.pub"),
        ("rsa-3072.pkcs1.pem", "rsa-3072.pub"),
        ("rsa-4096.pem", "rsa-4096.pub"),
    ] {
        let key = CosignKey::open(&read(&format!("cosign/{plain}")), None).unwrap();
        let public = read(&format!("cosign/{public}"));
        assert_eq!(
            key.public_der(),
            pem::blocks(&public).unwrap()[0].contents.as_slice(),
            "{plain}"
        );
    }
}

#[test]
fn a_wrong_password_is_reported_without_its_text() {
    let file = read("cosign/generated.key");
    for (password, said) in [
        (None, "the Secret has no cosign.password"),
        (
            Some(&b"canary"[..]),
            "cosign.password does not open cosign.key",
        ),
        (Some(b""), "cosign.password does not open cosign.key"),
        (Some(b"affix\n"), "ends with a line break"),
    ] {
        let error = refusal(&file, password);
        assert!(error.contains(said) && !error.contains("canary"), "{error}");
    }
}

#[test]
fn t26_scrypt_parameters_that_cosign_does_not_write_are_refused_without_work() {
    let started = std::time::Instant::now();
    for (name, value) in [
        ("N", 16_384),
        ("N", 262_144),
        ("N", 65_537),
        ("r", 16),
        ("p", 2),
        ("N", u64::MAX),
        ("N", 0),
    ] {
        let error = refusal(
            &rewritten(|json| json["kdf"]["params"][name] = value.into()),
            Some(PASSWORD),
        );
        assert!(
            error.contains(&format!("{name}={value}"))
                && error.contains("only N of 32768, 65536 or 131072"),
            "{error}"
        );
    }
    assert!(started.elapsed().as_secs() < 1, "{:?}", started.elapsed());
}

#[test]
fn every_scrypt_cost_that_cosign_writes_is_accepted() {
    for n in [32_768, 131_072] {
        // The key was made with another cost, so the derived key is wrong. The cost itself is accepted.
        let error = refusal(
            &rewritten(|json| json["kdf"]["params"]["N"] = n.into()),
            Some(PASSWORD),
        );
        assert_eq!(error, "cosign.password does not open cosign.key", "{n}");
    }
}

#[test]
fn an_unsupported_key_file_is_refused_with_its_cause() {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    for (file, said) in [
        (
            text(read("cosign/rsa-2560.pem")),
            "is RSA of 2560 bits: RSA of 2048, 3072 or 4096 bits, ECDSA P-256, P-384 or P-521, or Ed25519 is supported",
        ),
        (
            text(read("notary/refused/rsa-1024.key")),
            "cannot be read: RSA of 2048",
        ),
        (
            text(read("cosign/p256.openssl.pem")),
            "encrypted in the format of OpenSSL, which affix does not open: use cosign import-key-pair",
        ),
        (
            text(read("cosign/generated.pub")),
            "cosign.key holds a PEM block \"PUBLIC KEY\"",
        ),
        (
            "affix".to_owned(),
            "cosign.key holds no PEM block: a line -----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY----- is expected",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n".to_owned(),
            "cannot be read: RSA of 2048",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAEC\n".to_owned(),
            "cosign.key is damaged",
        ),
        (
            text(rewritten(|json| json["kdf"]["name"] = "argon2".into())),
            "its encryption is not scrypt with nacl/secretbox",
        ),
        (
            text(rewritten(|json| json["cipher"]["name"] = "none".into())),
            "its encryption is not scrypt with nacl/secretbox",
        ),
        (
            text(rewritten(|json| json["cipher"]["nonce"] = "AAEC".into())),
            "its nonce is not 24 bytes long",
        ),
        (
            text(rewritten(|json| json["ciphertext"] = "?".into())),
            "is not base64",
        ),
        (text(rewritten(|json| *json = 7.into())), "its JSON lacks"),
    ] {
        let error = refusal(file.as_bytes(), Some(PASSWORD));
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn a_key_whose_ciphertext_was_changed_does_not_open() {
    let file = rewritten(|json| json["ciphertext"] = STANDARD.encode([0; 154]).into());
    assert_eq!(
        CosignKey::open(&file, Some(PASSWORD)).err(),
        Some(KeyError::WrongPassword)
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_key_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100), label in 0..3_usize) {
        let label = [EXPECTED, "PRIVATE KEY", "EC PRIVATE KEY"][label];
        let file = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(&bytes));
        assert!(CosignKey::open(file.as_bytes(), Some(PASSWORD)).is_err());
    }
}

/// A service that signs with a key of its own, and not always what it is asked to sign.
struct Service {
    key: CosignKey,
    lies_about: &'static [u8],
    is_expired: Arc<AtomicBool>,
}

impl RemoteKey for Service {
    fn sign<'a>(
        &'a self,
        messages: &'a [Vec<u8>],
        scheme: Scheme,
    ) -> BoxFuture<'a, Vec<Result<Vec<u8>, SigningError>>> {
        assert_eq!(scheme, Scheme::Ecdsa(Hash::Sha256));
        async move {
            let mut signed = messages.to_vec();
            for message in &mut signed {
                if message == self.lies_about {
                    *message = b"another".to_vec();
                }
            }
            self.key.sign(&signed).await
        }
        .boxed()
    }

    fn expire(&self) -> BoxFuture<'_, ()> {
        self.is_expired.store(true, Ordering::Relaxed);
        std::future::ready(()).boxed()
    }

    fn describe(&self) -> String {
        "the key images at bao.example.com".to_owned()
    }
}

#[test]
fn t31_a_signature_of_a_service_that_does_not_verify_is_an_error() {
    let open = || CosignKey::open(&read("cosign/p256.pem"), None).unwrap();
    let is_expired = Arc::<AtomicBool>::default();
    let service = Service {
        key: open(),
        lies_about: b"two",
        is_expired: Arc::clone(&is_expired),
    };
    let key = CosignKey::remote(Arc::new(service), open().public_der).unwrap();
    futures::executor::block_on(key.sign(&[b"one".to_vec()]));
    assert!(!is_expired.load(Ordering::Relaxed));
    let messages = [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
    let signed = futures::executor::block_on(key.sign(&messages));
    assert!(is_expired.load(Ordering::Relaxed));
    for (message, signature) in messages.iter().zip(&signed) {
        match signature {
            Ok(signature) => assert!(key.verifies(message, signature) && message != b"two"),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    message == b"two"
                        && text.contains("bao.example.com")
                        && text.contains("does not verify"),
                    "{text}"
                );
            }
        }
    }
    // A public key of an unknown kind opens nothing.
    let service = Service {
        key: open(),
        lies_about: b"",
        is_expired: Arc::default(),
    };
    assert!(CosignKey::remote(Arc::new(service), Vec::new()).is_none());
}
