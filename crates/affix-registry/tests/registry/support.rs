//! Helpers of the tests: sessions on a hostile registry, images, and assertions on errors.

use std::fmt::Debug;
use std::time::Duration;

use affix_registry::oci::{Descriptor, Digest};
use affix_registry::{
    Access, ErrorKind, Keychain, Locator, Options, ReferrersMode, Registries, RegistryError,
    RetryPolicy, Session, Timeouts, TlsOptions,
};
use affix_testbed::hostile::{HostileRegistry, Image};
use bytes::Bytes;
use serde_json::{Value, json};

/// The repository of the tests.
pub(crate) const NAME: &str = "team/app";
/// The digest of `{}`.
pub(crate) const EMPTY: &str =
    "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
/// Media types.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Options for a registry on loopback, with short pauses between retries.
pub(crate) fn options() -> Options {
    Options {
        allow_loopback: true,
        retry: RetryPolicy {
            base: Duration::from_millis(5),
            cap: Duration::from_millis(20),
            total: Duration::from_millis(200),
            ..RetryPolicy::default()
        },
        ..Options::default()
    }
}

/// Options with uploads that may go to `other`.
pub(crate) fn uploads_to(other: &HostileRegistry) -> Options {
    Options {
        upload_hosts: vec![other.host().parse().unwrap()],
        ..options()
    }
}

/// Options with timeouts of 2 s, for a registry that does not answer.
pub(crate) fn impatient() -> Options {
    let soon = Duration::from_secs(2);
    Options {
        timeouts: Timeouts {
            idle: soon,
            request: soon * 2,
            ..Timeouts::default()
        },
        ..options()
    }
}

/// Access to `registry` without a login: plain HTTP, or TLS with its authority.
pub(crate) fn access(registry: &HostileRegistry) -> Access {
    let ca_pem = registry
        .authority()
        .map(|authority| authority.pem().as_bytes().to_vec());
    Access {
        insecure: ca_pem.is_none(),
        tls: TlsOptions {
            ca_pem,
            client: None,
        },
        ..Access::default()
    }
}

/// Access with a user name and password.
pub(crate) fn login(registry: &HostileRegistry, user: &str, password: &str) -> Access {
    Access {
        credentials: Keychain::login(&registry.host(), user, password.into()).unwrap(),
        ..access(registry)
    }
}

/// Opens a session on [`NAME`] with these options.
pub(crate) fn open_with(registry: &HostileRegistry, options: Options, access: Access) -> Session {
    open_in(&Registries::new(options), registry, access)
}

/// Opens a session on [`NAME`] of these registries.
pub(crate) fn open_in(
    registries: &Registries,
    registry: &HostileRegistry,
    access: Access,
) -> Session {
    registries
        .open(
            &registry.host().parse().unwrap(),
            &NAME.parse().unwrap(),
            access,
        )
        .unwrap()
}

/// Opens a session on [`NAME`].
pub(crate) fn open(registry: &HostileRegistry) -> Session {
    open_with(registry, options(), access(registry))
}

/// The same with a referrers mode.
pub(crate) fn open_mode(registry: &HostileRegistry, referrers_mode: ReferrersMode) -> Session {
    open_with(
        registry,
        options(),
        Access {
            referrers_mode,
            ..access(registry)
        },
    )
}

/// Pushes an image of two platforms, tagged `v1`.
pub(crate) fn image(registry: &HostileRegistry) -> Image {
    with_empty_blob(registry);
    registry
        .image(NAME, "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push()
}

/// Parses a digest.
pub(crate) fn digest(text: &str) -> Digest {
    text.parse().unwrap()
}

/// Returns the descriptor of an image.
pub(crate) fn descriptor(image: &Image) -> Descriptor {
    Descriptor::plain(
        image.media_type.clone(),
        digest(&image.digest),
        image.size as u64,
    )
}

/// Locates a manifest by tag.
pub(crate) fn tag(text: &str) -> Locator {
    Locator::Tag(text.parse().unwrap())
}

/// Locates a manifest by digest.
pub(crate) fn by(digest: &Digest) -> Locator {
    Locator::Digest(digest.clone())
}

/// Returns the error of a result after asserting its kind and parts of its text.
#[track_caller]
pub(crate) fn refused<T: Debug>(
    result: Result<T, RegistryError>,
    kind: ErrorKind,
    expected: &[&str],
) -> RegistryError {
    let error = result.expect_err("it must be refused");
    let text = error.to_string();
    assert!(
        error.kind() == kind && expected.iter().all(|expected| text.contains(expected)),
        "{:?}, not {kind:?} saying {expected:?}: {text}",
        error.kind()
    );
    error
}

/// Returns the bytes of an attachment to `subject` and their digest.
pub(crate) fn attachment(subject: &Value, note: &str) -> (Digest, Bytes) {
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2, "data": "e30="});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.demo.thing",
        "config": empty, "layers": [empty], "subject": subject, "annotations": {"note": note},
    });
    let bytes = Bytes::from(manifest.to_string());
    (Digest::sha256(&bytes), bytes)
}

/// Returns the entry of such an attachment in a fallback tag.
pub(crate) fn entry(digest: &Digest, bytes: &Bytes) -> Descriptor {
    Descriptor {
        artifact_type: "application/vnd.demo.thing".to_owned(),
        ..Descriptor::plain(MANIFEST, digest.clone(), bytes.len() as u64)
    }
}

/// Puts the blob `{}`, which the manifests reference.
pub(crate) fn with_empty_blob(registry: &HostileRegistry) {
    registry.store().put_blob(NAME, "{}");
}
