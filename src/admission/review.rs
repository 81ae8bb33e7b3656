//! Reviews on the wire: bytes to a request, a verdict to an answer (`admission.k8s.io/v1`).
//!
//! Refuses to leave a caller without an answer: what has a uid gets it back, whatever else is wrong with it. Refuses also to make
//! anything of an object but what a verdict needs: objects stay text, of which each webhook reads its part. A tree of a whole
//! object takes many times its bytes, and the bytes are all that a caller pays.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, AdmissionReview, Operation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

/// Most values of a review: what is read of it takes memory and time by their number. An object as large as the API server keeps
/// them, twice, stays far below.
pub(super) const MOST_VALUES: usize = 200_000;

/// One request for a verdict.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    /// What the answer repeats.
    pub(super) uid: String,
    /// What the object is.
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    pub(super) operation: Operation,
    #[serde(default)]
    dry_run: Option<bool>,
    /// As it is to be.
    #[serde(borrow, default)]
    pub(super) object: Option<&'a RawValue>,
    /// As it was before an update.
    #[serde(borrow, default)]
    pub(super) old_object: Option<&'a RawValue>,
}

/// The part of a GroupVersionKind that verdicts need.
#[derive(Debug, Deserialize)]
pub(super) struct Kind {
    pub(super) kind: String,
}

/// What verdicts need of an object's metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<IgnoredAny>,
}

impl Metadata {
    /// Reads it from a whole object.
    pub(super) fn of(object: &RawValue) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            metadata: Option<Metadata>,
        }
        let object: Object = serde_json::from_str(object.get())?;
        Ok(object.metadata.unwrap_or_default())
    }

    /// Whether the object is being deleted.
    pub(super) const fn is_leaving(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

impl Request<'_> {
    /// Whether nothing will be kept, so that nothing may be done on the way.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run.unwrap_or_default()
    }

    /// Whether an object is made or changed by it.
    pub(super) const fn writes(&self) -> bool {
        matches!(self.operation, Operation::Create | Operation::Update)
    }
}

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Verdict {
    /// Why not; `None`: admitted.
    pub(super) refusal: Option<Refusal>,
    /// What the user reads beside the answer.
    pub(super) warnings: Vec<String>,
    /// What the audit log keeps; the API server puts the webhook's name before each key.
    pub(super) audit: BTreeMap<&'static str, String>,
    /// JSON patch; empty: none.
    pub(super) patch: Vec<Value>,
}

/// A refusal, as the API server passes it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP code.
    pub(super) code: u16,
    /// Reason of a Kubernetes `Status`.
    pub(super) reason: &'static str,
    /// What is wrong and the way out.
    pub(super) message: String,
}

impl Refusal {
    /// The object breaks a rule of its own (422).
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: 422,
            reason: "Invalid",
            message: message.into(),
        }
    }

    /// A policy does not let it in (403).
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self {
            code: 403,
            reason: "Forbidden",
            message: message.into(),
        }
    }
}

impl Verdict {
    /// Refused.
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self {
            refusal: Some(refusal),
            ..Self::default()
        }
    }

    /// A word for metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self {
                refusal: Some(_), ..
            } => "refused",
            Self { patch, .. } if !patch.is_empty() => "patched",
            Self { warnings, .. } if !warnings.is_empty() => "warned",
            Self { .. } => "admitted",
        }
    }
}

/// Why bytes are no review.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// The uid, where one could be read.
    uid: Option<String>,
    why: String,
}

/// Reads a review.
pub(super) fn read(bytes: &[u8]) -> Result<Request<'_>, Unreadable> {
    #[derive(Deserialize)]
    struct Review<'a> {
        #[serde(borrow)]
        request: Option<Request<'a>>,
    }
    match serde_json::from_slice::<Review<'_>>(bytes) {
        Ok(Review {
            request: Some(request),
        }) => Ok(request),
        Ok(Review { request: None }) => Err(Unreadable {
            uid: None,
            why: "the review has no request".to_owned(),
        }),
        Err(error) => Err(Unreadable {
            uid: uid(bytes),
            why: format!("the review cannot be read: {error}"),
        }),
    }
}

/// The uid alone, from a review whose rest cannot be read.
fn uid(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Review {
        request: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        uid: String,
    }
    serde_json::from_slice::<Review>(bytes)
        .ok()
        .map(|review| review.request.uid)
}

impl Unreadable {
    /// The answer: a refusal of the same uid, or the text of an HTTP 400 where there is none.
    pub(super) fn answer(self) -> Result<AdmissionReview<DynamicObject>, String> {
        match self.uid {
            Some(uid) => Ok(answer(
                &uid,
                Verdict::refused(Refusal {
                    code: 400,
                    reason: "BadRequest",
                    message: self.why,
                }),
            )),
            None => Err(self.why),
        }
    }
}

/// The answer to the request of `uid`.
pub(super) fn answer(uid: &str, verdict: Verdict) -> AdmissionReview<DynamicObject> {
    let mut response = AdmissionResponse::invalid("");
    uid.clone_into(&mut response.uid);
    response.allowed = verdict.refusal.is_none();
    response.result = match verdict.refusal {
        None => kube::core::Status::default(),
        Some(refusal) => {
            kube::core::Status::failure(&refusal.message, refusal.reason).with_code(refusal.code)
        }
    };
    response.warnings = (!verdict.warnings.is_empty()).then_some(verdict.warnings);
    response.audit_annotations = verdict
        .audit
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    if verdict.patch.is_empty() {
        return response.into_review();
    }
    let patched = serde_json::from_value(Value::Array(verdict.patch))
        .ok()
        .and_then(|patch| response.clone().with_patch(patch).ok());
    patched.unwrap_or(response).into_review()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_has_a_uid_gets_it_back_whatever_else_is_wrong() {
        let odd = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u1", "operation": "EXPLODE"}});
        let answer = read(odd.to_string().as_bytes())
            .unwrap_err()
            .answer()
            .unwrap();
        let answer = serde_json::to_value(answer).unwrap();
        assert_eq!(
            (
                answer["response"]["uid"].as_str(),
                answer["response"]["allowed"].as_bool()
            ),
            (Some("u1"), Some(false))
        );
        assert!(
            answer["response"]["status"]["message"]
                .as_str()
                .unwrap()
                .contains("cannot be read"),
            "{answer}"
        );
        assert_eq!(answer["kind"], "AdmissionReview");
    }

    #[test]
    fn of_an_object_only_what_a_verdict_needs_is_read() {
        let review = json!({
            "request": {
                "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "UPDATE", "dryRun": true, "oldObject": null,
                "object": {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "annotations": {"a": "b"}}, "spec": [[[]]]}
            }
        })
        .to_string();
        let request = read(review.as_bytes()).unwrap();
        assert!(
            request.is_dry()
                && request.writes()
                && request.old_object.is_none()
                && request.namespace.is_none()
        );
        let metadata = Metadata::of(request.object.unwrap()).unwrap();
        assert!(metadata.is_leaving() && metadata.annotations.unwrap()["a"] == "b");
        for without in [r#"{"metadata":null}"#, "{}"] {
            assert!(
                !Metadata::of(serde_json::from_str(without).unwrap())
                    .unwrap()
                    .is_leaving()
            );
        }
    }

    #[test]
    fn a_patch_is_sent_with_its_type_and_a_refusal_with_code_and_reason() {
        let patch = vec![
            json!({"op": "replace", "path": "/spec/containers/0/image", "value": "app:v1@sha256:…"}),
        ];
        let answer = serde_json::to_value(answer(
            "u",
            Verdict {
                patch,
                ..Verdict::default()
            },
        ))
        .unwrap();
        assert_eq!(
            (
                &answer["response"]["patchType"],
                &answer["response"]["allowed"]
            ),
            (&json!("JSONPatch"), &json!(true))
        );
        let refused = serde_json::to_value(super::answer(
            "u",
            Verdict::refused(Refusal::invalid("spec.image: no")),
        ))
        .unwrap();
        let status = &refused["response"]["status"];
        assert_eq!(
            (&status["code"], &status["reason"], &status["message"]),
            (&json!(422), &json!("Invalid"), &json!("spec.image: no"))
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_request_or_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            if let Err(unreadable) = read(&bytes) {
                let _ = unreadable.answer();
            }
        }
    }
}
