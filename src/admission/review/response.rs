//! Verdicts and AdmissionReview responses (`admission.k8s.io/v1`).

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, AdmissionReview};
use serde_json::Value;

/// The result of a review.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Verdict {
    /// `None`: the object is admitted.
    pub(crate) refusal: Option<Refusal>,
    /// Warnings for the user.
    pub(crate) warnings: Vec<String>,
    /// Audit annotations. The API server prefixes each key with the name of the webhook.
    pub(crate) audit: BTreeMap<&'static str, String>,
    /// JSON patch operations.
    pub(crate) patch: Vec<Value>,
}

/// A refusal, which the API server forwards to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status code.
    pub(crate) code: u16,
    /// Reason of the Kubernetes `Status`.
    pub(crate) reason: &'static str,
    /// The cause and the way out.
    pub(crate) message: String,
}

impl Refusal {
    /// Returns a refusal of an invalid object (422).
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: 422,
            reason: "Invalid",
            message: message.into(),
        }
    }

    /// Returns a refusal by a policy (403).
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self {
            code: 403,
            reason: "Forbidden",
            message: message.into(),
        }
    }
}

impl Verdict {
    /// Returns a verdict that refuses the object.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self {
            refusal: Some(refusal),
            ..Self::default()
        }
    }

    /// Returns the `verdict` label for metrics.
    pub(crate) fn name(&self) -> &'static str {
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

/// Returns the response to the request `uid`.
pub(crate) fn answer(uid: &str, verdict: Verdict) -> AdmissionReview<DynamicObject> {
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
    fn a_patch_has_its_type_and_a_refusal_has_code_and_reason() {
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
}
