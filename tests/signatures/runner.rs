//! A local runner: a resource without a cluster, with its spec, its references and its status.
//!
//! Runs passes of the engine one after the other, as the controller does, and can end the process at a chosen moment.

use std::sync::Mutex;

use affix::api::{
    ConditionType, ImageAttachmentSpec, ImageAttachmentStatus, TargetState, find_condition,
};
use affix::engine::{
    Draft, Engine, EngineOptions, Failure, Journal, NoClaims, Outcome, SecretData, Sources,
    deletion, request, status, status_in_progress,
};
use affix_registry::{Keychain, Options, Registries, Secret};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// A registry with an image of two platforms, of which the tests select the first, and the tools of other projects.
pub(crate) struct Fixture {
    pub(crate) registry: Registry,
    pub(crate) image: Pushed,
    pub(crate) peer: Peer,
}

impl Fixture {
    /// Starts a registry with the referrers API and one without it.
    pub(crate) async fn both() -> Vec<Self> {
        let tools = Tools::with(&[Tool::Cosign, Tool::Notation]).await.unwrap();
        let mut fixtures = Vec::new();
        for options in [Registry::ociregistry, Registry::distribution] {
            let registry = options(&tools).basic("ci", "secret").start().await.unwrap();
            let index = Index::new()
                .image(Image::new("linux/amd64", "b1b1"))
                .image(Image::new("linux/arm64", "c1c1"))
                .attestation("linux/amd64");
            let image = index
                .push(&registry.raw().unwrap(), "team/app", "v1")
                .await
                .unwrap();
            let peer = Peer::of(&tools, &registry).unwrap();
            fixtures.push(Self {
                registry,
                image,
                peer,
            });
        }
        fixtures
    }

    /// Returns the digests of the index and the selected platform.
    pub(crate) fn signed(&self) -> [String; 2] {
        [
            self.image.digest().to_owned(),
            self.image.digest_of("linux/amd64").unwrap().to_owned(),
        ]
    }

    /// Returns the digest of the platform that is not selected.
    pub(crate) fn unsigned(&self) -> String {
        self.image.digest_of("linux/arm64").unwrap().to_owned()
    }

    /// Returns the digest of the build attestation.
    pub(crate) fn attestation(&self) -> String {
        let known = [&self.signed()[..], &[self.unsigned()]].concat();
        self.image
            .entries
            .iter()
            .map(|entry| entry.descriptor.digest.clone())
            .find(|digest| !known.contains(digest))
            .unwrap()
    }

    /// Returns the digests that oras lists for a subject.
    pub(crate) async fn listed(&self, subject: &str, artifact_type: &str) -> Vec<String> {
        let subject = self.image.at(subject);
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
        let tree = self.peer.oras(args).await.unwrap().json().unwrap();
        let found = tree["referrers"].as_array().cloned().unwrap_or_default();
        found
            .iter()
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Returns the digests that regctl and oci-client list for a subject.
    pub(crate) async fn listed_by_others(
        &self,
        subject: &str,
        artifact_type: &str,
    ) -> [Vec<String>; 2] {
        let at = self.image.at(subject);
        let args = [
            "artifact",
            "list",
            "--filter-artifact-type",
            artifact_type,
            "--format",
            "{{jsonPretty .}}",
            &at,
        ];
        let list = self.peer.regctl(args).await.unwrap().json().unwrap();
        let regctl = list["descriptors"].as_array().cloned().unwrap_or_default();
        let regctl = regctl
            .iter()
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect();
        // oci-client has no cryptography of its own. A second call has no effect.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = oci_client::client::ClientConfig {
            protocol: oci_client::client::ClientProtocol::Http,
            ..oci_client::client::ClientConfig::default()
        };
        let client = oci_client::Client::new(config);
        let reference: oci_client::Reference = at.parse().unwrap();
        let login = oci_client::secrets::RegistryAuth::Basic("ci".to_owned(), "secret".to_owned());
        client
            .auth(&reference, &login, oci_client::RegistryOperation::Pull)
            .await
            .unwrap();
        let index = client
            .pull_referrers(&reference, Some(artifact_type))
            .await
            .unwrap();
        [
            regctl,
            index
                .manifests
                .into_iter()
                .map(|entry| entry.digest)
                .collect(),
        ]
    }

    /// Returns a spec for the index and the selected platform.
    pub(crate) fn spec(&self, image: &str, wanted: &Value) -> Value {
        let mut spec = json!({
            "image": image, "insecure": true, "secretRef": {"name": "login"}, "targets": {"platforms": ["linux/amd64"]},
        });
        spec.as_object_mut()
            .unwrap()
            .extend(wanted.as_object().unwrap().clone());
        spec
    }
}

/// A resource and its status.
pub(crate) struct Runner {
    engine: Engine,
    pub(crate) sources: Sources,
    pub(crate) spec: ImageAttachmentSpec,
    pub(crate) status: ImageAttachmentStatus,
    generation: i64,
    pub(crate) now: Timestamp,
}

/// The keys and values of a Secret.
pub(crate) type Files<'a> = &'a [(&'a str, &'a [u8])];

/// The moment at which the process ends, after it has saved the status.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    Never,
    BeforePush,
    AfterPush,
}

struct StatusJournal<'a> {
    runner: &'a Runner,
    crash: Crash,
    saved: Mutex<Option<ImageAttachmentStatus>>,
}

impl Journal for StatusJournal<'_> {
    async fn save(&self, draft: &Draft<'_>) -> Result<(), Failure> {
        let status = status_in_progress(
            &self.runner.status,
            draft,
            self.runner.generation,
            self.runner.now,
        );
        *self.saved.lock().unwrap() = Some(status);
        match self.crash {
            Crash::BeforePush => Err(Failure::new(
                affix::api::Reason::Progressing,
                "the process has ended",
            )),
            _ => Ok(()),
        }
    }
}

impl Runner {
    pub(crate) fn new(fixture: &Fixture, spec: &Value, secrets: &[(&str, Files<'_>)]) -> Self {
        let registries = Registries::new(Options {
            allow_loopback: true,
            ..Options::default()
        });
        let mut sources = Sources {
            fallback_credentials: Keychain::anonymous(),
            ..Sources::default()
        };
        let login =
            json!({"auths": {fixture.registry.host(): {"username": "ci", "password": "secret"}}})
                .to_string();
        sources.secrets.insert(
            "login".to_owned(),
            secret(&[(".dockerconfigjson", login.as_bytes())]),
        );
        for (name, data) in secrets {
            sources.secrets.insert((*name).to_owned(), secret(data));
        }
        Self {
            engine: Engine::new(registries, EngineOptions::default()),
            sources,
            spec: serde_json::from_value(spec.clone()).unwrap(),
            status: ImageAttachmentStatus::default(),
            generation: 1,
            now: Timestamp::now(),
        }
    }

    pub(crate) fn change_spec(&mut self, spec: &Value) {
        self.spec = serde_json::from_value(spec.clone()).unwrap();
        self.generation += 1;
    }

    /// Replaces the data of a Secret.
    pub(crate) fn replace_secret(&mut self, name: &str, data: Files<'_>) {
        self.sources.secrets.insert(name.to_owned(), secret(data));
    }

    pub(crate) fn advance(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
    }

    /// Runs a pass that lists the referrers.
    pub(crate) async fn pass(&mut self) -> Outcome {
        self.pass_with(true, Crash::Never).await
    }

    /// Runs a pass as after an interval.
    pub(crate) async fn interval_pass(&mut self) -> Outcome {
        self.pass_with(false, Crash::Never).await
    }

    pub(crate) async fn pass_with(&mut self, verify: bool, crash: Crash) -> Outcome {
        let journal = StatusJournal {
            runner: self,
            crash,
            saved: Mutex::new(None),
        };
        let outcome = match request(
            &self.spec,
            Some(&self.status),
            self.generation,
            &self.sources,
            verify,
        ) {
            Ok(request) => {
                self.engine
                    .run(&request, &journal, &NoClaims, self.now)
                    .await
            }
            Err(problem) => Outcome::failed(&problem.into()),
        };
        let saved = journal.saved.into_inner().unwrap();
        self.status = match (crash, saved) {
            (Crash::Never, saved) => {
                let before = saved.unwrap_or_else(|| self.status.clone());
                status(&before, &outcome, self.generation, self.now)
            }
            (_, Some(saved)) => saved,
            (_, None) => panic!("the pass saved no status before its end: {outcome:#?}"),
        };
        outcome
    }

    /// Runs a pass and asserts that it succeeds.
    pub(crate) async fn ready(&mut self) -> Outcome {
        let outcome = self.pass().await;
        assert!(
            outcome.verdict.ready,
            "{:?}\n{:#?}",
            outcome.verdict, self.status
        );
        outcome
    }

    /// Runs a pass, asserts that it fails, and returns the reason and the message.
    pub(crate) async fn refused(&mut self) -> (String, String) {
        let outcome = self.pass().await;
        assert!(!outcome.verdict.ready, "{:#?}", self.status);
        let ready = find_condition(&self.status.conditions, ConditionType::Ready).unwrap();
        (ready.reason.clone(), ready.message.clone())
    }

    /// Removes the attachments of the resource, as after its deletion.
    pub(crate) async fn delete(&self) {
        let deletion = deletion(&self.spec, Some(&self.status), &self.sources).unwrap();
        let deleted = self.engine.delete(&deletion, &NoClaims).await;
        assert!(deleted.failed.is_none(), "{deleted:#?}");
    }

    /// Returns the subjects and attachments in the status.
    pub(crate) fn attachments(&self) -> Vec<(String, String)> {
        let attached = self
            .status
            .targets
            .iter()
            .filter(|row| row.state == TargetState::Attached);
        attached
            .map(|row| (row.digest.clone(), row.attachment.clone().unwrap()))
            .collect()
    }

    pub(crate) fn annotate(&mut self, secret: &str, key: &str, value: &str) {
        self.sources
            .secrets
            .get_mut(secret)
            .unwrap()
            .annotations
            .insert(key.to_owned(), value.to_owned());
    }
}

fn secret(data: Files<'_>) -> SecretData {
    let data = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Secret::new(*value)))
        .collect();
    SecretData {
        data,
        ..SecretData::default()
    }
}
