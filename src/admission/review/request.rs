//! Reviews on the wire: bytes to a request, a verdict to an answer (`admission.k8s.io/v1`).
//!
//! Refuses to leave a caller without an answer: what has a uid gets it back, whatever else is wrong with it. Refuses also to make
//! anything of an object but what a verdict needs: objects stay text, of which each webhook reads its part. A tree of a whole
//! object takes many times its bytes, and the bytes are all that a caller pays.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionReview, Operation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::admission::review::response::{Refusal, Verdict, answer};

/// Most values of a review: what is read of it takes memory and time by their number. An object as large as the API server keeps
/// them, twice, stays far below.
pub(crate) const MOST_VALUES: usize = 200_000;

/// One request for a verdict.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request<'a> {
    /// What the answer repeats.
    pub(crate) uid: String,
    /// What the object is.
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    pub(crate) operation: Operation,
    #[serde(default)]
    dry_run: Option<bool>,
    /// As it is to be.
    #[serde(borrow, default)]
    pub(crate) object: Option<&'a RawValue>,
    /// As it was before an update.
    #[serde(borrow, default)]
    pub(crate) old_object: Option<&'a RawValue>,
}

/// The part of a GroupVersionKind that verdicts need.
#[derive(Debug, Deserialize)]
pub(crate) struct Kind {
    pub(crate) kind: String,
}

/// What verdicts need of an object's metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<IgnoredAny>,
}

impl Metadata {
    /// Reads it from a whole object.
    pub(crate) fn of(object: &RawValue) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            metadata: Option<Metadata>,
        }
        let object: Object = serde_json::from_str(object.get())?;
        Ok(object.metadata.unwrap_or_default())
    }

    /// Whether the object is being deleted.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

impl Request<'_> {
    /// Whether nothing will be kept, so that nothing may be done on the way.
    pub(crate) fn is_dry(&self) -> bool {
        self.dry_run.unwrap_or_default()
    }

    /// Whether an object is made or changed by it.
    pub(crate) const fn writes(&self) -> bool {
        matches!(self.operation, Operation::Create | Operation::Update)
    }
}

/// Why bytes are no review.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The uid, where one could be read.
    uid: Option<String>,
    why: String,
}

/// Reads a review.
pub(crate) fn parse(bytes: &[u8]) -> Result<Request<'_>, Unreadable> {
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
    pub(crate) fn answer(self) -> Result<AdmissionReview<DynamicObject>, String> {
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
        let answer = parse(odd.to_string().as_bytes())
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
        let request = parse(review.as_bytes()).unwrap();
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

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_request_or_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            if let Err(unreadable) = parse(&bytes) {
                let _ = unreadable.answer();
            }
        }
    }
}
