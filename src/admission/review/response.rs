//! Verdicts and the answers to reviews (`admission.k8s.io/v1`).

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, AdmissionReview};
use serde_json::Value;

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Why not; `None`: admitted.
    pub(crate) refusal: Option<Refusal>,
    /// What the user reads beside the answer.
    pub(crate) warnings: Vec<String>,
    /// What the audit log keeps; the API server puts the webhook's name before each key.
    pub(crate) audit: BTreeMap<&'static str, String>,
    /// JSON patch; empty: none.
    pub(crate) patch: Vec<Value>,
}

/// A refusal, as the API server passes it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP code.
    pub(crate) code: u16,
    /// Reason of a Kubernetes `Status`.
    pub(crate) reason: &'static str,
    /// What is wrong and the way out.
    pub(crate) message: String,
}

impl Refusal {
    /// The object breaks a rule of its own (422).
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: 422,
            reason: "Invalid",
            message: message.into(),
        }
    }

    /// A policy does not let it in (403).
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self {
            code: 403,
            reason: "Forbidden",
            message: message.into(),
        }
    }
}

impl Verdict {
    /// Refused.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self {
            refusal: Some(refusal),
            ..Self::default()
        }
    }

    /// A word for metrics.
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

/// The answer to the request of `uid`.
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
}
