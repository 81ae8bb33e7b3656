//! AdmissionReview requests (`admission.k8s.io/v1`).
//!
//! Objects stay unparsed text, of which each webhook reads the parts that it needs. A parsed tree of a
//! whole object takes a multiple of the memory of its text.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionReview, Operation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::admission::review::response::{Refusal, Verdict, answer};

/// Maximum number of JSON values in a review, which bounds the memory and time of parsing. Two objects
/// of the maximum size of the API server stay far below.
pub(crate) const MAX_VALUES: usize = 200_000;

/// The name of the object in the dry run of the self-check.
pub(crate) const SELF_CHECK_NAME: &str = "affix-self-check";

/// The request of an AdmissionReview.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request<'a> {
    /// The identifier that the response repeats.
    pub(crate) uid: String,
    /// The kind of the object.
    pub(crate) kind: Kind,
    /// The resource of the request, such as deployments.
    #[serde(default)]
    pub(crate) resource: Option<Resource>,
    #[serde(default)]
    pub(crate) sub_resource: Option<String>,
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    pub(crate) operation: Operation,
    #[serde(default)]
    user_info: UserInfo,
    #[serde(default)]
    dry_run: Option<bool>,
    /// The new object.
    #[serde(borrow, default)]
    pub(crate) object: Option<&'a RawValue>,
    /// The old object of an update.
    #[serde(borrow, default)]
    pub(crate) old_object: Option<&'a RawValue>,
}

/// The needed part of a GroupVersionKind.
#[derive(Debug, Deserialize)]
pub(crate) struct Kind {
    pub(crate) kind: String,
}

/// The needed part of UserInfo.
#[derive(Debug, Default, Deserialize)]
struct UserInfo {
    #[serde(default)]
    username: Option<String>,
}

/// The needed part of a GroupVersionResource.
#[derive(Debug, Deserialize)]
pub(crate) struct Resource {
    pub(crate) resource: String,
}

/// The needed part of ObjectMeta.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<IgnoredAny>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// The needed part of an owner reference.
#[derive(Debug, Deserialize)]
struct OwnerReference {
    controller: Option<bool>,
}

impl Metadata {
    /// Reads the metadata of an object.
    pub(crate) fn of(object: &RawValue) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            metadata: Option<Metadata>,
        }
        let object: Object = serde_json::from_str(object.get())?;
        Ok(object.metadata.unwrap_or_default())
    }

    /// Returns whether another object controls this one, as a Deployment does with its ReplicaSets.
    pub(crate) fn is_controlled(&self) -> bool {
        let owners = self.owner_references.iter().flatten();
        owners
            .filter_map(|owner| owner.controller)
            .any(|controls| controls)
    }

    /// Returns whether the object is being deleted.
    pub(crate) const fn is_being_deleted(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

impl Request<'_> {
    /// Returns whether the request is a dry run, which must have no side effects.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run.unwrap_or_default()
    }

    /// Returns the name of the user who sent the request to the API server.
    pub(crate) fn user(&self) -> &str {
        self.user_info.username.as_deref().unwrap_or_default()
    }

    /// Returns whether this is the dry run of a self-check.
    pub(crate) fn is_self_check(&self) -> bool {
        self.is_dry_run() && self.name.as_deref() == Some(SELF_CHECK_NAME)
    }

    /// Returns whether the request creates or changes an object.
    pub(crate) const fn writes(&self) -> bool {
        matches!(self.operation, Operation::Create | Operation::Update)
    }
}

/// A body that is not a valid AdmissionReview.
#[derive(Debug)]
pub(crate) struct ParseError {
    /// The identifier of the request, if it could be read.
    uid: Option<String>,
    message: String,
}

/// Parses an AdmissionReview.
pub(crate) fn parse(bytes: &[u8]) -> Result<Request<'_>, ParseError> {
    #[derive(Deserialize)]
    struct Review<'a> {
        #[serde(borrow)]
        request: Option<Request<'a>>,
    }
    match serde_json::from_slice::<Review<'_>>(bytes) {
        Ok(Review {
            request: Some(request),
        }) => Ok(request),
        Ok(Review { request: None }) => Err(ParseError {
            uid: None,
            message: "the AdmissionReview has no request".to_owned(),
        }),
        Err(error) => Err(ParseError {
            uid: uid(bytes),
            message: format!("cannot parse the AdmissionReview: {error}"),
        }),
    }
}

/// Reads only the uid, from a review that is otherwise invalid.
fn uid(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Review {
        request: NamedSubjects,
    }
    #[derive(Deserialize)]
    struct NamedSubjects {
        uid: String,
    }
    serde_json::from_slice::<Review>(bytes)
        .ok()
        .map(|review| review.request.uid)
}

impl ParseError {
    /// Returns a refusal with the uid, or the text of an HTTP 400 response if there is no uid.
    pub(crate) fn answer(self) -> Result<AdmissionReview<DynamicObject>, String> {
        match self.uid {
            Some(uid) => Ok(answer(
                &uid,
                Verdict::refused(Refusal {
                    code: 400,
                    reason: "BadRequest",
                    message: self.message,
                }),
            )),
            None => Err(self.message),
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
    fn an_invalid_review_with_a_uid_gets_a_response_with_that_uid() {
        let invalid = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u1", "operation": "EXPLODE"}});
        let answer = parse(invalid.to_string().as_bytes())
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
                .contains("cannot parse"),
            "{answer}"
        );
        assert_eq!(answer["kind"], "AdmissionReview");
    }

    #[test]
    fn only_the_needed_fields_of_an_object_are_parsed() {
        let review = json!({
            "request": {
                "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "UPDATE", "dryRun": true, "oldObject": null,
                "object": {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "annotations": {"a": "b"}}, "spec": [[[]]]}
            }
        })
        .to_string();
        let request = parse(review.as_bytes()).unwrap();
        assert!(
            request.is_dry_run()
                && request.writes()
                && request.old_object.is_none()
                && request.namespace.is_none()
        );
        let metadata = Metadata::of(request.object.unwrap()).unwrap();
        assert!(metadata.is_being_deleted() && metadata.annotations.unwrap()["a"] == "b");
        for without in [r#"{"metadata":null}"#, "{}"] {
            assert!(
                !Metadata::of(serde_json::from_str(without).unwrap())
                    .unwrap()
                    .is_being_deleted()
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_or_get_a_response(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            if let Err(error) = parse(&bytes) {
                let _ = error.answer();
            }
        }
    }
}
