//! What others see: oras, regctl and oci-client, each asked for the attachments of one manifest.

use std::collections::BTreeSet;

use affix::api::{ImageAttachmentStatus, TargetState};
use affix_testbed::images::Pushed;
use affix_testbed::peer::Peer;
use oci_client::client::{ClientConfig, ClientProtocol};
use serde_json::Value;

/// `created` in annotations.
pub(crate) const CREATED: &str = "org.opencontainers.image.created";

/// One attachment as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) digest: String,
    pub(crate) artifact_type: String,
    pub(crate) annotations: Value,
}

/// The attachments of `subject` that `oras discover` lists.
pub(crate) async fn oras(
    peer: &Peer,
    image: &Pushed,
    subject: &str,
    artifact_type: &str,
) -> Vec<Seen> {
    let subject = image.at(subject);
    let args = [
        "discover",
        "--format",
        "json",
        "--depth",
        "1",
        "--artifact-type",
        artifact_type,
        &subject,
    ];
    let tree = peer.oras(args).await.unwrap().json().unwrap();
    seen(&tree["referrers"])
}

/// The attachments of `subject` that `regctl artifact list` lists.
pub(crate) async fn regctl(
    peer: &Peer,
    image: &Pushed,
    subject: &str,
    artifact_type: &str,
) -> Vec<Seen> {
    let subject = image.at(subject);
    let args = [
        "artifact",
        "list",
        "--filter-artifact-type",
        artifact_type,
        "--format",
        "{{jsonPretty .}}",
        &subject,
    ];
    let list = peer.regctl(args).await.unwrap().json().unwrap();
    seen(&list["descriptors"])
}

/// The attachments of `subject` that oci-client lists. It does not keep the artifact type of a listing's entry, so that is read
/// from the manifest.
pub(crate) async fn oci_client(image: &Pushed, subject: &str, artifact_type: &str) -> Vec<Seen> {
    let client = oci_client::Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    let subject: oci_client::Reference = image.at(subject).parse().unwrap();
    let manifests = match client.pull_referrers(&subject, Some(artifact_type)).await {
        Ok(index) => index.manifests,
        // Go registries write an empty listing as `"manifests": null`, which oci-client does not take.
        Err(oci_client::errors::OciDistributionError::ManifestParsingError(text))
            if text.contains("invalid type: null") =>
        {
            Vec::new()
        }
        Err(error) => panic!("oci-client cannot list the referrers of {subject}: {error}"),
    };
    let mut found = Vec::new();
    for entry in manifests {
        let reference: oci_client::Reference = image.at(&entry.digest).parse().unwrap();
        let (manifest, digest) = client
            .pull_manifest(&reference, &oci_client::secrets::RegistryAuth::Anonymous)
            .await
            .unwrap();
        assert_eq!(digest, entry.digest);
        let oci_client::manifest::OciManifest::Image(manifest) = manifest else {
            panic!("{} is no image manifest", entry.digest)
        };
        found.push(Seen {
            digest: entry.digest,
            artifact_type: manifest.artifact_type.unwrap_or_default(),
            annotations: serde_json::to_value(entry.annotations.unwrap_or_default()).unwrap(),
        });
    }
    found
}

/// What each of the three readers sees, by the reader's name.
pub(crate) async fn all(
    peer: &Peer,
    image: &Pushed,
    subject: &str,
    artifact_type: &str,
) -> [(&'static str, Vec<Seen>); 3] {
    [
        ("oras", oras(peer, image, subject, artifact_type).await),
        ("regctl", regctl(peer, image, subject, artifact_type).await),
        (
            "oci-client",
            oci_client(image, subject, artifact_type).await,
        ),
    ]
}

/// Asserts that every reader sees, on every manifest of the image, exactly the attachment that status names, or none.
pub(crate) async fn see_what_status_names(
    peer: &Peer,
    image: &Pushed,
    status: &ImageAttachmentStatus,
    artifact_type: &str,
) {
    let manifests: BTreeSet<&str> = std::iter::once(image.digest())
        .chain(
            image
                .entries
                .iter()
                .map(|entry| entry.descriptor.digest.as_str()),
        )
        .collect();
    let named: BTreeSet<&str> = status
        .targets
        .iter()
        .map(|row| row.digest.as_str())
        .collect();
    assert_eq!(
        named, manifests,
        "status does not name every manifest of the image"
    );
    for row in &status.targets {
        let expected: Vec<&str> = (row.state == TargetState::Attached)
            .then(|| row.attachment.as_deref().unwrap())
            .into_iter()
            .collect();
        for (reader, seen) in all(peer, image, &row.digest, artifact_type).await {
            let digests: Vec<&str> = seen.iter().map(|seen| seen.digest.as_str()).collect();
            assert_eq!(
                digests, expected,
                "{reader} on {:?} {}",
                row.platform, row.digest
            );
            for attachment in &seen {
                assert_eq!(attachment.artifact_type, artifact_type, "{reader}");
                let created = row
                    .created
                    .as_ref()
                    .unwrap()
                    .0
                    .strftime("%Y-%m-%dT%H:%M:%SZ")
                    .to_string();
                assert_eq!(
                    attachment.annotations[CREATED], created,
                    "{reader} on {}: {attachment:?}",
                    row.digest
                );
            }
        }
    }
}

fn seen(entries: &Value) -> Vec<Seen> {
    let entries = entries.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| Seen {
            digest: text(&entry["digest"]),
            artifact_type: text(&entry["artifactType"]),
            annotations: entry["annotations"].clone(),
        })
        .collect()
}
