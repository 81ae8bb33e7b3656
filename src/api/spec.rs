//! The spec of an ImageAttachment: the fields that all kinds of attachment share, and accessors that apply the defaults.
//!
//! The schema has no defaults. A default that the API server writes into a spec would be a permanent difference for GitOps tools.

use std::fmt;
use std::time::Duration;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attachment::{
    Artifact, Attestation, EndOfLife, Keyless, Kms, Signature, TimestampService, Transparency,
};
use super::duration::GoDuration;
use super::reference::LocalObjectReference;
use super::status::ImageAttachmentStatus;
use super::targets::{Missing, Scope, Targets};

/// The attachment, its image, and the access to the registry.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "affix.dev",
    version = "v1alpha1",
    kind = "ImageAttachment",
    plural = "imageattachments",
    shortname = "ia",
    category = "affix",
    namespaced,
    status = "ImageAttachmentStatus",
    derive = "PartialEq",
    doc = "ImageAttachment attaches an end-of-life mark, a signature, a signed statement, or any files and annotations to a multi-platform image and to each of its platforms, as OCI 1.1 referrers, and keeps them there.",
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".status.imageName",
        description = "The image as REPOSITORY:TAG."
    ),
    printcolumn(
        name = "Attached",
        type_ = "string",
        json_path = ".status.attached",
        description = "Attached of selected targets."
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether every selected target has its attachment."
    ),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspend",
        description = "Whether reconciliation is suspended; Ready is then that of the last pass."
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "The reason of the Ready condition."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the resource was created."
    ),
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".status.artifactType",
        priority = 1,
        description = "The artifact type of the attachments."
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".status.image.digest",
        priority = 1,
        description = "The digest that the image was resolved to."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1,
        description = "The message of the Ready condition."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ImageAttachmentSpec {
    /// The image to attach to. The registry must be named, and a tag or a digest is required. A tag is followed: when it
    /// moves, the new image gets the attachment too. With both, the digest decides. Required. Examples:
    /// registry.example.com/team/app:v1, registry.example.com/team/app:v1@sha256:… (64 hexadecimal digits).
    #[schemars(length(max = 1024))]
    pub image: String,

    /// The manifests of the image that get the attachment. Default: the index and every platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,

    /// Marks the image as no longer supported. Exactly one of endOfLife, artifact, signature, attestation is set, and which one never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_of_life: Option<EndOfLife>,

    /// Attaches files and annotations. Exactly one of endOfLife, artifact, signature, attestation is set, and which one never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,

    /// Signs each target with a key from a Secret. Exactly one of endOfLife, artifact, signature, attestation is set, and which one never
    /// changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,

    /// Attaches a signed statement to each target, such as its SBOM or its provenance. Exactly one of endOfLife, artifact, signature,
    /// attestation is set, and which one never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,

    /// Plan only: the status shows the planned action of each target, and nothing is written to the registry. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,

    /// Interval at which the tag of the image is resolved again, with jitter. A duration of at least 1s. Default: 10m. Examples: 30s, 1h30m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,

    /// Maximum time of one reconcile. A duration of at least 1s. Default: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,

    /// Suspend the reconciliation of this resource; its attachments stay. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Treatment of the attachments when this resource is deleted: Retain keeps them in the registry, Delete removes those that
    /// this resource created and no other resource wants. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// The way in which referrers are listed: API uses the referrers API of the registry only, TagSchema the fallback tag of
    /// OCI 1.1 only, Auto asks the registry. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers_mode: Option<ReferrersMode>,

    /// The way to log in to the registry: generic uses secretRef or the imagePullSecrets of serviceAccountName; aws (ECR), azure
    /// (ACR) and gcp (Artifact Registry) exchange a token of serviceAccountName for a login. The operator has to enable the latter.
    /// Default: generic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,

    /// Secret of type kubernetes.io/dockerconfigjson with the credentials of the registry. Default: the imagePullSecrets of
    /// serviceAccountName, or anonymous access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,

    /// ServiceAccount of the same namespace whose imagePullSecrets are used as credentials for the registry; with provider aws,
    /// azure or gcp, its identity in the cloud instead. Default: none. Example: builder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,

    /// Secret with the registry's own CA in the key ca.crt, and a client certificate in tls.crt and tls.key; either may be
    /// absent. Default: the CAs of the system, no client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<LocalObjectReference>,

    /// Secret with the proxy to reach the registry through: its URL in the key address, and optionally username and password.
    /// Default: no proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_secret_ref: Option<LocalObjectReference>,

    /// Use plain HTTP for the registry. The operator may deny it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<bool>,
}

/// The treatment of the attachments when the resource is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum DeletionPolicy {
    /// Keep them. The resource has no finalizer.
    #[default]
    Retain,
    /// Remove those that this resource created and no other resource wants.
    Delete,
}

/// The way in which referrers are listed and registered.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum ReferrersMode {
    /// Ask the registry.
    #[default]
    Auto,
    /// By the referrers API only.
    #[serde(rename = "API")]
    Api,
    /// By the fallback tag only.
    TagSchema,
}

/// The way to log in to the registry.
#[derive(
    JsonSchema, Serialize, Deserialize, clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[schemars(inline, description = "")]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// By the logins of Secrets.
    #[default]
    Generic,
    /// By a token of the ServiceAccount for ECR and ECR Public.
    Aws,
    /// By a token of the ServiceAccount for ACR.
    Azure,
    /// By a token of the ServiceAccount for Artifact Registry.
    Gcp,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generic => "generic",
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
        })
    }
}

/// The kind of attachment of a spec.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttachmentKind<'a> {
    /// `spec.endOfLife`.
    EndOfLife(&'a EndOfLife),
    /// `spec.artifact`.
    Artifact(&'a Artifact),
    /// `spec.signature`.
    Signature(&'a Signature),
    /// `spec.attestation`.
    Attestation(&'a Attestation),
}

impl fmt::Display for AttachmentKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndOfLife(_) => "endOfLife",
            Self::Artifact(_) => "artifact",
            Self::Signature(_) => "signature",
            Self::Attestation(_) => "attestation",
        })
    }
}

impl ImageAttachment {
    /// Returns whether the user accepts the attachments that the registry refuses to remove, for the current generation.
    #[must_use]
    pub fn accepts_leftovers(&self) -> bool {
        let accepted = (self.metadata.annotations.as_ref())
            .and_then(|annotations| annotations.get(super::ACCEPT_LEFTOVERS));
        let generation = self
            .metadata
            .generation
            .map(|generation| generation.to_string());
        accepted.is_some() && accepted.map(|text| text.trim()) == generation.as_deref()
    }
}

impl ImageAttachmentSpec {
    /// The default of `interval`.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(600);
    /// The default of `timeout`.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

    /// Creates a spec for `image`. It is valid only after one kind of attachment is set.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            targets: None,
            end_of_life: None,
            artifact: None,
            signature: None,
            attestation: None,
            dry_run: None,
            interval: None,
            timeout: None,
            suspend: None,
            deletion_policy: None,
            referrers_mode: None,
            provider: None,
            secret_ref: None,
            service_account_name: None,
            cert_secret_ref: None,
            proxy_secret_ref: None,
            insecure: None,
        }
    }

    /// Returns the kind of attachment if exactly one is set.
    #[must_use]
    pub fn kind(&self) -> Option<AttachmentKind<'_>> {
        let mut kinds = [
            self.end_of_life.as_ref().map(AttachmentKind::EndOfLife),
            self.artifact.as_ref().map(AttachmentKind::Artifact),
            self.signature.as_ref().map(AttachmentKind::Signature),
            self.attestation.as_ref().map(AttachmentKind::Attestation),
        ]
        .into_iter()
        .flatten();
        kinds.next().filter(|_| kinds.next().is_none())
    }

    /// Returns the field and the Secret with the key of a resource that signs.
    #[must_use]
    pub fn key_secret(&self) -> Option<(&'static str, &LocalObjectReference)> {
        match self.kind()? {
            AttachmentKind::Signature(signature) => {
                match (&signature.cosign, &signature.notation) {
                    (Some(cosign), _) => {
                        let secret = cosign.key_secret_ref.as_ref()?;
                        Some(("spec.signature.cosign.keySecretRef", secret))
                    }
                    (None, Some(notation)) => Some((
                        "spec.signature.notation.keySecretRef",
                        &notation.key_secret_ref,
                    )),
                    (None, None) => None,
                }
            }
            AttachmentKind::Attestation(attestation) => Some((
                "spec.attestation.cosign.keySecretRef",
                attestation.cosign.key_secret_ref.as_ref()?,
            )),
            AttachmentKind::EndOfLife(mark) => Some((
                "spec.endOfLife.statement.cosign.keySecretRef",
                mark.statement.as_ref()?.cosign.key_secret_ref.as_ref()?,
            )),
            AttachmentKind::Artifact(_) => None,
        }
    }

    /// Returns the field and the key of a resource that signs with a key management service.
    #[must_use]
    pub fn kms(&self) -> Option<(&'static str, &Kms)> {
        match self.kind()? {
            AttachmentKind::Signature(signature) => Some((
                "spec.signature.cosign.kms",
                signature.cosign.as_ref()?.kms.as_ref()?,
            )),
            AttachmentKind::Attestation(attestation) => Some((
                "spec.attestation.cosign.kms",
                attestation.cosign.kms.as_ref()?,
            )),
            AttachmentKind::EndOfLife(mark) => Some((
                "spec.endOfLife.statement.cosign.kms",
                mark.statement.as_ref()?.cosign.kms.as_ref()?,
            )),
            AttachmentKind::Artifact(_) => None,
        }
    }

    /// Returns the field and the identity of a resource that signs without a key.
    #[must_use]
    pub fn keyless(&self) -> Option<(&'static str, &Keyless)> {
        match self.kind()? {
            AttachmentKind::Signature(signature) => Some((
                "spec.signature.cosign.keyless",
                signature.cosign.as_ref()?.keyless.as_ref()?,
            )),
            AttachmentKind::Attestation(attestation) => Some((
                "spec.attestation.cosign.keyless",
                attestation.cosign.keyless.as_ref()?,
            )),
            AttachmentKind::EndOfLife(mark) => Some((
                "spec.endOfLife.statement.cosign.keyless",
                mark.statement.as_ref()?.cosign.keyless.as_ref()?,
            )),
            AttachmentKind::Artifact(_) => None,
        }
    }

    /// Returns the field and the ConfigMap of the Sigstore instance that logs the signatures.
    #[must_use]
    pub fn trust(&self) -> Option<(&'static str, &LocalObjectReference)> {
        let keyless = self.keyless().map(|(field, of)| (field, &of.trust_ref));
        keyless.or_else(|| {
            self.transparency()
                .map(|(field, of)| (field, &of.trust_ref))
        })
    }

    /// Returns the field and the transparency log of a resource that has its signatures logged.
    #[must_use]
    pub fn transparency(&self) -> Option<(&'static str, &Transparency)> {
        match self.kind()? {
            AttachmentKind::Signature(signature) => Some((
                "spec.signature.cosign.transparency",
                signature.cosign.as_ref()?.transparency.as_ref()?,
            )),
            AttachmentKind::Attestation(attestation) => Some((
                "spec.attestation.cosign.transparency",
                attestation.cosign.transparency.as_ref()?,
            )),
            AttachmentKind::EndOfLife(mark) => Some((
                "spec.endOfLife.statement.cosign.transparency",
                mark.statement.as_ref()?.cosign.transparency.as_ref()?,
            )),
            AttachmentKind::Artifact(_) => None,
        }
    }

    /// Returns the timestamp authority of a resource whose signatures have timestamps of their own.
    #[must_use]
    pub fn timestamp(&self) -> Option<&TimestampService> {
        match self.kind()? {
            AttachmentKind::Signature(signature) => signature.notation.as_ref()?.timestamp.as_ref(),
            AttachmentKind::Artifact(_)
            | AttachmentKind::Attestation(_)
            | AttachmentKind::EndOfLife(_) => None,
        }
    }

    /// Returns the ServiceAccount that logs in to the key management service, or that signs without a key.
    #[must_use]
    pub fn signing_account(&self) -> Option<&str> {
        if let Some((_, keyless)) = self.keyless() {
            return Some(&keyless.service_account_name);
        }
        let (_, kms) = self.kms()?;
        let account = kms.service_account_name.as_ref();
        let account = account.or(self.service_account_name.as_ref());
        account.map(String::as_str)
    }

    /// Returns the interval at which the tag is resolved again.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
            .as_ref()
            .map_or(Self::DEFAULT_INTERVAL, GoDuration::get)
    }

    /// Returns the maximum duration of one pass.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
            .as_ref()
            .map_or(Self::DEFAULT_TIMEOUT, GoDuration::get)
    }

    /// Returns whether the plan is only reported.
    #[must_use]
    pub fn dry_run(&self) -> bool {
        self.dry_run.unwrap_or_default()
    }

    /// Returns whether reconciliation is suspended.
    #[must_use]
    pub fn suspend(&self) -> bool {
        self.suspend.unwrap_or_default()
    }

    /// Returns whether plain HTTP is used for the registry.
    #[must_use]
    pub fn insecure(&self) -> bool {
        self.insecure.unwrap_or_default()
    }

    /// Returns the way to log in to the registry.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider.unwrap_or_default()
    }

    /// Returns the treatment of the attachments when the resource is deleted.
    #[must_use]
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy.unwrap_or_default()
    }

    /// Returns the way in which referrers are listed.
    #[must_use]
    pub fn referrers_mode(&self) -> ReferrersMode {
        self.referrers_mode.unwrap_or_default()
    }

    /// Returns the parts of the image that get the attachment.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.targets
            .as_ref()
            .map(Targets::scope)
            .unwrap_or_default()
    }

    /// Returns the reaction to an index that lacks a requested platform.
    #[must_use]
    pub fn missing(&self) -> Missing {
        self.targets
            .as_ref()
            .map(Targets::missing)
            .unwrap_or_default()
    }

    /// Returns the requested platforms, or `None` for every platform.
    #[must_use]
    pub fn platforms(&self) -> Option<&[String]> {
        self.targets
            .as_ref()
            .and_then(|targets| targets.platforms.as_deref())
    }

    /// Returns the excluded platforms.
    #[must_use]
    pub fn exclude_platforms(&self) -> &[String] {
        self.targets
            .as_ref()
            .map(Targets::exclude_platforms)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn defaults_are_applied_in_code_and_never_written_into_the_spec() {
        let given = json!({"image": "registry.example.com/team/app:v1"});
        let spec: ImageAttachmentSpec = serde_json::from_value(given.clone()).unwrap();
        assert_eq!(spec.interval(), Duration::from_secs(600));
        assert_eq!(spec.timeout(), Duration::from_secs(60));
        assert_eq!(spec.scope(), Scope::All);
        assert_eq!(spec.missing(), Missing::Fail);
        assert_eq!(spec.deletion_policy(), DeletionPolicy::Retain);
        assert_eq!(spec.referrers_mode(), ReferrersMode::Auto);
        assert_eq!(
            (spec.dry_run(), spec.suspend(), spec.insecure()),
            (false, false, false)
        );
        assert_eq!(
            (spec.platforms(), spec.exclude_platforms().len()),
            (None, 0)
        );
        assert_eq!(serde_json::to_value(&spec).unwrap(), given);
    }

    #[test]
    fn each_kind_has_its_documented_defaults() {
        let mark: EndOfLife =
            serde_json::from_value(json!({"whenSuperseded": {"gracePeriod": "720h"}})).unwrap();
        assert_eq!(
            mark.artifact_type(),
            "application/vnd.microsoft.artifact.lifecycle"
        );
        assert_eq!(
            mark.annotation(),
            "vnd.microsoft.artifact.lifecycle.end-of-life.date"
        );
        let superseded = mark.when_superseded.unwrap();
        assert_eq!(superseded.settle(), Duration::from_secs(600));
        assert_eq!(superseded.unless_tagged().collect::<Vec<_>>(), ["*"]);
        let none: super::super::WhenSuperseded =
            serde_json::from_value(json!({"gracePeriod": "1h", "unlessTagged": []})).unwrap();
        assert_eq!(none.unless_tagged().count(), 0);
        let artifact: Artifact = serde_json::from_value(
            json!({"artifactType": "a/b", "files": [{"name": "f", "value": ""}]}),
        )
        .unwrap();
        assert_eq!(
            artifact.files.first().unwrap().media_type(),
            "application/octet-stream"
        );
    }

    #[test]
    fn a_null_means_the_same_as_an_absent_field() {
        let nulls = json!({
            "image": "registry.example.com/team/app:v1",
            "targets": null, "endOfLife": null, "signature": null, "dryRun": null, "interval": null, "timeout": null,
            "suspend": null, "deletionPolicy": null, "referrersMode": null, "provider": null, "secretRef": null, "serviceAccountName": null,
            "certSecretRef": null, "proxySecretRef": null, "insecure": null,
            "artifact": {"artifactType": "a/b", "annotations": null, "files": null, "filesFrom": null}
        });
        let spec: ImageAttachmentSpec = serde_json::from_value(nulls).unwrap();
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            json!({"image": "registry.example.com/team/app:v1", "artifact": {"artifactType": "a/b"}})
        );
        assert!(matches!(spec.kind(), Some(AttachmentKind::Artifact(_))));
    }

    #[test]
    fn fields_of_a_newer_version_are_ignored() {
        let spec: ImageAttachmentSpec = serde_json::from_value(
            json!({"image": "r.example/a:1", "targets": {"layers": true}, "verify": {}}),
        )
        .unwrap();
        assert_eq!(spec.targets, Some(Targets::default()));
    }

    #[test]
    fn a_spec_is_serialized_unchanged() {
        let given = json!({
            "image": "registry.example.com/team/app:v1",
            "targets": {"scope": "Platforms", "platforms": ["linux/amd64"], "excludePlatforms": [], "missing": "Ignore"},
            "endOfLife": {
                "whenSuperseded": {"gracePeriod": "720h", "settle": "0s", "unlessTagged": ["*", "!nightly-*"]},
                "artifactType": "a/b", "annotation": "eol", "annotations": {"k": "v"}, "onConflict": "Supersede"
            },
            "interval": "90m", "timeout": "1m30s", "deletionPolicy": "Delete", "referrersMode": "API", "suspend": false,
            "secretRef": {"name": "login"}, "serviceAccountName": "builder"
        });
        let spec: ImageAttachmentSpec = serde_json::from_value(given.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), given);
        let tag_schema: ReferrersMode = serde_json::from_value(Value::from("TagSchema")).unwrap();
        assert_eq!(tag_schema, ReferrersMode::TagSchema);
    }

    #[test]
    fn a_spec_has_a_kind_if_exactly_one_is_set() {
        let spec = |fields: Value| -> ImageAttachmentSpec {
            let mut object = json!({"image": "r.example/a:1"});
            object
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            serde_json::from_value(object).unwrap()
        };
        let artifact = json!({"artifactType": "a/b"});
        assert!(spec(json!({})).kind().is_none());
        assert!(
            spec(json!({"artifact": artifact, "signature": {}}))
                .kind()
                .is_none()
        );
        assert_eq!(
            spec(json!({"signature": {}})).kind().unwrap().to_string(),
            "signature"
        );
        assert_eq!(
            spec(json!({"endOfLife": {}})).kind().unwrap().to_string(),
            "endOfLife"
        );
        assert_eq!(
            spec(json!({"artifact": artifact}))
                .kind()
                .unwrap()
                .to_string(),
            "artifact"
        );
    }
}
