//! A resource without a cluster: its spec, the objects that it references, and the status after each pass.

use std::sync::Mutex;
use std::time::Duration;

use affix::api::{
    ConditionType, ImageAttachmentSpec, ImageAttachmentStatus, TargetState, find_condition,
};
use affix::engine::{
    Deleted, Draft, Engine, EngineOptions, Failure, Journal, Mode, NoClaims, Outcome, Request,
    SecretData, Sources, deletion, due_in, request, status, status_in_progress,
};
use affix_registry::{Options, Registries, Secret};
use affix_testbed::hostile::{HostileRegistry, Image};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::limits;

pub(crate) const TYPE: &str = "application/vnd.demo.artifact";
pub(crate) const MARK: &str = "application/vnd.demo.artifact.lifecycle";
pub(crate) const DATE: &str = "vnd.demo.artifact.lifecycle.end-of-life.date";
pub(crate) const CREATED: &str = "org.opencontainers.image.created";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A resource with its engine.
pub(crate) struct Resource {
    engine: Engine,
    pub(crate) sources: Sources,
    spec: ImageAttachmentSpec,
    pub(crate) status: ImageAttachmentStatus,
    /// The last draft that a pass saved before its end.
    pub(crate) saved: Option<ImageAttachmentStatus>,
    generation: i64,
    /// Whether the user accepts the leftovers of this generation.
    pub(crate) accepts_leftovers: bool,
    pub(crate) now: Timestamp,
}

/// Keeps the drafts of a pass.
struct Saved<'a>(&'a Resource, Mutex<Option<ImageAttachmentStatus>>);

impl Journal for Saved<'_> {
    async fn save(&self, draft: &Draft<'_>) -> Result<(), Failure> {
        *self.1.lock().unwrap() = Some(status_in_progress(
            &self.0.status,
            draft,
            self.0.generation,
            self.0.now,
        ));
        Ok(())
    }
}

impl Resource {
    pub(crate) fn new(spec: Value) -> Self {
        Self::with(spec, EngineOptions::default())
    }

    pub(crate) fn with(spec: Value, options: EngineOptions) -> Self {
        let registries = Registries::new(Options {
            allow_loopback: true,
            ..Options::default()
        });
        Self {
            engine: Engine::new(registries, options),
            sources: Sources::default(),
            spec: parse(spec),
            status: ImageAttachmentStatus::default(),
            saved: None,
            generation: 1,
            accepts_leftovers: false,
            now: "2026-11-23T12:00:00Z".parse().unwrap(),
        }
    }

    /// Changes the spec, which makes a new generation.
    pub(crate) fn change(&mut self, spec: Value) {
        self.spec = parse(spec);
        self.generation += 1;
    }

    pub(crate) fn secret(&mut self, name: &str, files: &[(&str, &[u8])]) {
        let data = files
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Secret::new(*value)))
            .collect();
        self.sources.secrets.insert(
            name.to_owned(),
            SecretData {
                data,
                ..SecretData::default()
            },
        );
    }

    pub(crate) fn later(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
    }

    /// Runs a pass that reads the listings.
    pub(crate) async fn pass(&mut self) -> Outcome {
        self.run(true).await
    }

    /// Runs a pass as at the interval.
    pub(crate) async fn look(&mut self) -> Outcome {
        self.run(false).await
    }

    async fn run(&mut self, verify: bool) -> Outcome {
        let saved = Saved(self, Mutex::new(None));
        let outcome = match request(
            &self.spec,
            Some(&self.status),
            self.generation,
            &self.sources,
            verify,
        ) {
            Ok(request) => {
                let request = Request {
                    accepts_leftovers: self.accepts_leftovers,
                    ..request
                };
                self.engine.run(&request, &saved, &NoClaims, self.now).await
            }
            Err(problem) => Outcome::failed(&problem.into()),
        };
        let saved = saved.1.into_inner().unwrap();
        self.status = status(
            saved.as_ref().unwrap_or(&self.status),
            &outcome,
            self.generation,
            self.now,
        );
        for status in saved.iter().chain([&self.status]) {
            let wrong = limits::exceeded(status);
            assert!(
                wrong.is_empty(),
                "the API server would refuse the status:\n{}",
                wrong.join("\n")
            );
        }
        self.saved = saved.or(self.saved.take());
        outcome
    }

    /// Runs a pass over another status than that of the resource.
    pub(crate) async fn pass_over(
        &self,
        status: &ImageAttachmentStatus,
        journal: &impl Journal,
    ) -> Outcome {
        let request = request(
            &self.spec,
            Some(status),
            self.generation,
            &self.sources,
            true,
        );
        let request = request.unwrap();
        self.engine
            .run(&request, journal, &NoClaims, self.now)
            .await
    }

    /// Removes the attachments of the resource, as after its deletion.
    pub(crate) async fn delete(&self) -> Deleted {
        let deletion = deletion(&self.spec, Some(&self.status), &self.sources).unwrap();
        self.engine.delete(&deletion, &NoClaims).await
    }

    /// Removes all equal attachments.
    pub(crate) async fn detach(&self) -> Outcome {
        let request = request(&self.spec, None, self.generation, &self.sources, true).unwrap();
        let request = Request {
            mode: Mode::Detach,
            ..request
        };
        let saved = Saved(self, Mutex::new(None));
        let found = self.engine.run(&request, &saved, &NoClaims, self.now).await;
        self.engine.detach(&request, found).await
    }

    /// Runs a pass that must end Ready.
    pub(crate) async fn ready(&mut self) -> Outcome {
        let outcome = self.pass().await;
        assert!(
            outcome.verdict.ready,
            "{:?}\n{:#?}",
            outcome.verdict, self.status
        );
        outcome
    }

    /// Returns the time until the resource is due without a change in the registry.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        due_in(&self.spec, &self.status, self.now)
    }

    /// Returns the reason and message of Ready.
    pub(crate) fn verdict(&self) -> (&str, &str) {
        let ready = find_condition(&self.status.conditions, ConditionType::Ready).unwrap();
        (&ready.reason, &ready.message)
    }

    /// Returns the message of the condition Resolved.
    pub(crate) fn resolved(&self) -> &str {
        &find_condition(&self.status.conditions, ConditionType::Resolved)
            .unwrap()
            .message
    }

    /// Returns `target state reason` of each target.
    pub(crate) fn rows(&self) -> Vec<String> {
        let text = |row: &affix::api::TargetStatus| {
            format!(
                "{} {:?} {}",
                row.platform.as_deref().unwrap_or("index"),
                row.state,
                row.reason.as_deref().unwrap_or("-")
            )
        };
        self.status.targets.iter().map(text).collect()
    }

    /// Returns the attachment of the target with a digest.
    pub(crate) fn attachment(&self, digest: &str) -> &str {
        let row = self
            .status
            .targets
            .iter()
            .find(|row| row.digest == digest && row.state == TargetState::Attached);
        row.and_then(|row| row.attachment.as_deref())
            .unwrap_or_else(|| panic!("{digest} is not attached: {:#?}", self.status.targets))
    }
}

fn parse(mut spec: Value) -> ImageAttachmentSpec {
    spec["insecure"] = json!(true);
    serde_json::from_value(spec).unwrap()
}

/// Returns the spec of a note on the whole image.
pub(crate) fn note(image: &str, text: &str) -> Value {
    json!({"image": image, "artifact": {"artifactType": TYPE, "annotations": {"demo/note": text}}})
}

/// Returns the spec of a mark on the index.
pub(crate) fn mark(image: &str, date: &str, on_conflict: &str) -> Value {
    json!({
        "image": image, "targets": {"scope": "Index"},
        "endOfLife": {"date": date, "artifactType": MARK, "annotation": DATE, "onConflict": on_conflict},
    })
}

/// Stores a foreign attachment and returns its digest.
pub(crate) fn attach(
    registry: &HostileRegistry,
    image: &Image,
    artifact_type: &str,
    annotations: Value,
) -> String {
    let empty = json!({
        "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "data": "e30=",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    });
    // The subject has annotations, as `oras attach --platform` writes it, so that no listing proves its content.
    let mut subject =
        json!({"mediaType": image.media_type, "digest": image.digest, "size": image.size});
    subject["annotations"] = json!({"by": "another owner"});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type, "config": empty, "layers": [empty],
        "subject": subject, "annotations": annotations,
    });
    registry
        .store()
        .put_manifest(&image.repository, None, MANIFEST, manifest.to_string())
}
