//! `/v2/<name>/manifests/<reference>`: GET, HEAD, PUT and DELETE.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG};
use serde_json::{Value, json};

use super::answer::Answer;
use super::digest::{Algorithm, is_fallback_tag};
use super::quirk::{Deletion, OciSubject, Referrers, Refusal};
use super::record::Request;
use super::service::Context;
use super::store::{Data, Manifest};

/// The largest manifest that is taken.
const LARGEST: usize = 4 << 20;

pub(super) fn read(
    context: &Context<'_>,
    request: &Request,
    name: &str,
    reference: &str,
) -> Answer {
    let mut data = context.store.data();
    let Some(repository) = data.repository(name) else {
        return context.name_unknown();
    };
    let as_digest = reference.replacen('-', ":", 1);
    let swapped = context.quirks.reads_fallback_tag_as_digest && is_fallback_tag(reference);
    let digest = if swapped && repository.manifests.contains_key(&as_digest) {
        Some(as_digest)
    } else if reference.contains(':') {
        if Algorithm::of(reference).is_none() {
            return Answer::error(
                StatusCode::BAD_REQUEST,
                "DIGEST_INVALID",
                "provided digest did not match",
            );
        }
        Some(reference.to_owned())
    } else {
        repository
            .tags
            .get_mut(reference)
            .and_then(super::store::Tag::read)
    };
    let held = digest.and_then(|digest| repository.manifests.get(&digest));
    let Some(manifest) = held.map(|held| held.manifest.clone()) else {
        return Answer::error(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "manifest unknown",
        );
    };
    drop(data);
    let accepted = request
        .headers
        .get_all("accept")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>();
    let named = accepted
        .join(",")
        .split(',')
        .any(|range| range.split(';').next().map(str::trim) == Some(&*manifest.media_type));
    if context.quirks.needs_accept && !named {
        let message = format!(
            "found, but accept header does not support {}",
            manifest.media_type
        );
        return Answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", &message);
    }
    let answer = Answer::new(StatusCode::OK)
        .header(CONTENT_TYPE, &manifest.media_type)
        .header(ETAG, &format!("\"{}\"", manifest.digest))
        .bytes(manifest.bytes);
    context.digest_header(answer, &manifest.digest)
}

pub(super) fn put(context: &Context<'_>, request: &Request, name: &str, reference: &str) -> Answer {
    let tag = (!reference.contains(':')).then_some(reference);
    let algorithm = Algorithm::of(reference);
    if tag.is_none() && algorithm.is_none() {
        return Answer::error(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "provided digest did not match",
        );
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Answer::error(
            StatusCode::BAD_REQUEST,
            "TAG_INVALID",
            "manifest tag did not match",
        );
    }
    if request.body.len() > LARGEST {
        return Answer::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "MANIFEST_INVALID",
            "manifest too large",
        );
    }
    let media_type = request
        .header("content-type")
        .unwrap_or_default()
        .to_owned();
    let digest = algorithm.unwrap_or_default().digest(&request.body);
    if tag.is_none() && digest != reference {
        return Answer::error(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "provided digest did not match uploaded content",
        );
    }
    let manifest = Manifest {
        digest,
        media_type,
        bytes: request.body.clone(),
    };
    let json = manifest.json();
    let own = json.get("mediaType").and_then(Value::as_str);
    if !json.is_object()
        || manifest.media_type.is_empty()
        || own.is_some_and(|own| own != manifest.media_type)
    {
        return Answer::error(
            StatusCode::BAD_REQUEST,
            "MANIFEST_INVALID",
            "manifest invalid",
        );
    }
    let mut data = context.store.data();
    let refusal = refusal(context, &mut data, name, tag, &manifest, &json);
    if let Some(refusal) = refusal {
        return refusal;
    }
    let digest = manifest.digest.clone();
    data.insert(
        name,
        tag,
        manifest,
        (context.quirks.listing_lag, context.quirks.tag_lag),
    );
    drop(data);
    let location = context.location(
        &context.quirks.manifest_location,
        &format!("/v2/{name}/manifests/{digest}"),
    );
    let answer = context.digest_header(location(Answer::new(StatusCode::CREATED)), &digest);
    let subject = json.pointer("/subject/digest").and_then(Value::as_str);
    let processed = subject.and_then(|subject| match &context.quirks.oci_subject {
        OciSubject::WithApi => (context.quirks.referrers == Referrers::Api).then_some(subject),
        OciSubject::Always => Some(subject),
        OciSubject::Never => None,
        OciSubject::Lie(other) => Some(other),
    });
    match processed {
        Some(subject) => answer.named("oci-subject", subject),
        None => answer,
    }
}

/// Why a manifest is not taken.
fn refusal(
    context: &Context<'_>,
    data: &mut Data,
    name: &str,
    tag: Option<&str>,
    manifest: &Manifest,
    json: &Value,
) -> Option<Answer> {
    if context.quirks.repositories_must_exist && data.repository(name).is_none() {
        return Some(context.name_unknown());
    }
    let repository = data.repository_or_new(name);
    let moved = tag
        .and_then(|tag| repository.tags.get(tag))
        .is_some_and(|tag| tag.digest() != manifest.digest);
    let immutable = context
        .quirks
        .immutable_tags
        .as_ref()
        .filter(|rule| tag.is_some_and(|tag| super::glob(&rule.pattern, tag)));
    if let (true, Some(rule)) = (moved, immutable) {
        let (status, code) = match rule.refusal {
            Refusal::TagInvalid => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            Refusal::Precondition => (StatusCode::PRECONDITION_FAILED, "PRECONDITION"),
            Refusal::Conflict => (StatusCode::CONFLICT, "CONFLICT"),
            Refusal::Forbidden => (StatusCode::FORBIDDEN, "DENIED"),
        };
        let message = format!("the tag {} is immutable", tag.unwrap_or_default());
        return Some(Answer::error(status, code, &message));
    }
    if !context.quirks.accepts_missing_children {
        let missing = manifest
            .children()
            .into_iter()
            .filter(|child| !repository.manifests.contains_key(child));
        if let Some(refusal) = blob_unknown(missing) {
            return Some(refusal);
        }
    }
    if context.quirks.accepts_missing_blobs {
        return None;
    }
    let layers = json
        .get("layers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let named = layers
        .chain(json.get("config"))
        .filter_map(|blob| blob.get("digest")?.as_str().map(str::to_owned));
    blob_unknown(named.filter(|blob| !repository.blobs.contains_key(blob)))
}

/// 400 `MANIFEST_BLOB_UNKNOWN`, one error for each digest, as distribution has it. `None` where nothing is missing.
fn blob_unknown(missing: impl Iterator<Item = String>) -> Option<Answer> {
    let error = |digest| json!({"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": digest});
    let errors: Vec<Value> = missing.map(error).collect();
    (!errors.is_empty()).then(|| {
        let body = Bytes::from(json!({"errors": errors}).to_string());
        Answer::new(StatusCode::BAD_REQUEST)
            .header(CONTENT_TYPE, "application/json")
            .bytes(body)
    })
}

pub(super) fn delete(context: &Context<'_>, name: &str, reference: &str) -> Answer {
    if context.quirks.deletion == Deletion::Disabled {
        return Answer::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "The operation is unsupported.",
        );
    }
    let mut data = context.store.data();
    let Some(repository) = data.repository(name) else {
        return context.name_unknown();
    };
    if context.quirks.deletion == Deletion::RefusedWhereReferenced
        && repository.references(reference)
    {
        let message = "Requested image referenced by manifest list";
        return Answer::error(StatusCode::FORBIDDEN, "DENIED", message);
    }
    let is_digest = reference.contains(':');
    let gone = if is_digest {
        repository.remove(reference)
    } else {
        repository.tags.remove(reference).is_some()
    };
    if gone {
        Answer::new(StatusCode::ACCEPTED)
    } else {
        Answer::error(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "manifest unknown",
        )
    }
}

/// The specification's grammar of a tag.
fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
}
