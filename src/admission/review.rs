//! Reviews on the wire: bytes to a request, a verdict to an answer (`admission.k8s.io/v1`).
//!
//! Refuses to leave a caller without an answer: what has a uid gets it back, whatever else is wrong with it.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde::Deserialize;
use serde_json::Value;

/// One request for a verdict.
pub(super) type Request = AdmissionRequest<DynamicObject>;

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
        Self { code: 422, reason: "Invalid", message: message.into() }
    }

    /// A policy does not let it in (403).
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self { code: 403, reason: "Forbidden", message: message.into() }
    }
}

impl Verdict {
    /// Refused.
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..Self::default() }
    }

    /// A word for metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self { refusal: Some(_), .. } => "refused",
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
pub(super) fn read(bytes: &[u8]) -> Result<Request, Unreadable> {
    let read: Result<AdmissionReview<DynamicObject>, _> = serde_json::from_slice(bytes);
    match read.map(TryInto::try_into) {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(_)) => Err(Unreadable { uid: None, why: "the review has no request".to_owned() }),
        Err(error) => Err(Unreadable { uid: uid(bytes), why: format!("the review cannot be read: {error}") }),
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
    serde_json::from_slice::<Review>(bytes).ok().map(|review| review.request.uid)
}

impl Unreadable {
    /// The answer: a refusal of the same uid, or the text of an HTTP 400 where there is none.
    pub(super) fn answer(self) -> Result<AdmissionReview<DynamicObject>, String> {
        match self.uid {
            Some(uid) => Ok(answer(&uid, Verdict::refused(Refusal { code: 400, reason: "BadRequest", message: self.why }))),
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
        Some(refusal) => kube::core::Status::failure(&refusal.message, refusal.reason).with_code(refusal.code),
    };
    response.warnings = (!verdict.warnings.is_empty()).then_some(verdict.warnings);
    response.audit_annotations = verdict.audit.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    if verdict.patch.is_empty() {
        return response.into_review();
    }
    let patched = serde_json::from_value(Value::Array(verdict.patch)).ok().and_then(|patch| response.clone().with_patch(patch).ok());
    patched.unwrap_or(response).into_review()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics fails, as it should")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_has_a_uid_gets_it_back_whatever_else_is_wrong() {
        let odd = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u1", "operation": "EXPLODE"}});
        let answer = read(odd.to_string().as_bytes()).unwrap_err().answer().unwrap();
        let answer = serde_json::to_value(answer).unwrap();
        assert_eq!((answer["response"]["uid"].as_str(), answer["response"]["allowed"].as_bool()), (Some("u1"), Some(false)));
        assert!(answer["response"]["status"]["message"].as_str().unwrap().contains("cannot be read"), "{answer}");
        assert_eq!(answer["kind"], "AdmissionReview");
    }

    #[test]
    fn a_patch_is_sent_with_its_type_and_a_refusal_with_code_and_reason() {
        let patch = vec![json!({"op": "replace", "path": "/spec/containers/0/image", "value": "app:v1@sha256:…"})];
        let answer = serde_json::to_value(answer("u", Verdict { patch, ..Verdict::default() })).unwrap();
        assert_eq!((&answer["response"]["patchType"], &answer["response"]["allowed"]), (&json!("JSONPatch"), &json!(true)));
        let refused = serde_json::to_value(super::answer("u", Verdict::refused(Refusal::invalid("spec.image: no")))).unwrap();
        let status = &refused["response"]["status"];
        assert_eq!((&status["code"], &status["reason"], &status["message"]), (&json!(422), &json!("Invalid"), &json!("spec.image: no")));
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
