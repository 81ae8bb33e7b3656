//! `/v2/<name>/blobs/…`: blobs, and uploads in one, two or three steps.

use http::StatusCode;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};

use super::answer::Answer;
use super::digest::Algorithm;
use super::op::Op;
use super::query::Query;
use super::quirk::Deletion;
use super::record::Request;
use super::service::Context;

pub(super) fn read(context: &Context<'_>, name: &str, digest: &str) -> Answer {
    match context.store.blob(name, digest) {
        Some(bytes) => {
            let answer = Answer::new(StatusCode::OK)
                .header(CONTENT_TYPE, "application/octet-stream")
                .bytes(bytes);
            context.digest_header(answer, digest)
        }
        None => Answer::error(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            "blob unknown to registry",
        ),
    }
}

pub(super) fn delete(context: &Context<'_>, name: &str, digest: &str) -> Answer {
    if context.quirks.deletion == Deletion::Disabled {
        return Answer::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "The operation is unsupported.",
        );
    }
    if context.store.delete_blob(name, digest) {
        Answer::new(StatusCode::ACCEPTED)
    } else {
        Answer::error(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            "blob unknown to registry",
        )
    }
}

/// `POST …/uploads/`: mounts, takes a whole blob, or opens an upload.
pub(super) fn start(context: &Context<'_>, request: &Request, name: &str) -> Answer {
    let query = Query::parse(&request.query);
    let mut data = context.store.data();
    if context.quirks.repositories_must_exist && data.repository(name).is_none() {
        return context.name_unknown();
    }
    if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) {
        let blob = data
            .repository(from)
            .and_then(|repository| repository.blobs.get(digest).cloned());
        if let Some(blob) = blob {
            data.repository_or_new(name)
                .blobs
                .insert(digest.to_owned(), blob);
            return created(context, name, digest);
        }
    }
    if let (Some(digest), false) = (query.get("digest"), context.quirks.ignores_monolithic_post) {
        if let Some(refusal) = refusal(digest, &request.body) {
            return refusal;
        }
        data.repository_or_new(name)
            .blobs
            .insert(digest.to_owned(), request.body.clone());
        return created(context, name, digest);
    }
    let id = format!("upload-{}", data.tick());
    data.repository_or_new(name)
        .uploads
        .insert(id.clone(), Vec::new());
    drop(data);
    accepted(context, name, &id, 0)
}

/// GET, PATCH, PUT and DELETE of an upload that was opened.
pub(super) fn upload(context: &Context<'_>, request: &Request, name: &str, id: &str) -> Answer {
    let mut data = context.store.data();
    let Some((uploads, blobs)) = data
        .repository(name)
        .map(|repository| (&mut repository.uploads, &mut repository.blobs))
    else {
        return context.name_unknown();
    };
    let Some(held) = uploads.get_mut(id) else {
        return Answer::error(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            "blob upload unknown to registry",
        );
    };
    let starts = request
        .header(CONTENT_RANGE.as_str())
        .and_then(|range| range.split('-').next()?.parse::<usize>().ok());
    if starts.is_some_and(|at| at != held.len()) {
        return Answer::error(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "BLOB_UPLOAD_INVALID",
            "blob upload out of order",
        );
    }
    match request.op {
        Op::UploadPatch => {
            held.extend_from_slice(&request.body);
            let size = held.len();
            drop(data);
            accepted(context, name, id, size)
        }
        Op::UploadPut => {
            held.extend_from_slice(&request.body);
            let query = Query::parse(&request.query);
            let digest = query.get("digest").unwrap_or_default();
            if let Some(refusal) = refusal(digest, held) {
                return refusal;
            }
            let bytes = uploads.remove(id).unwrap_or_default();
            blobs.insert(digest.to_owned(), bytes.into());
            created(context, name, digest)
        }
        Op::UploadCancel => {
            uploads.remove(id);
            Answer::new(StatusCode::NO_CONTENT)
        }
        _ => {
            let size = held.len();
            drop(data);
            let answer = accepted(context, name, id, size);
            Answer {
                status: StatusCode::NO_CONTENT,
                ..answer
            }
        }
    }
}

fn refusal(digest: &str, bytes: &[u8]) -> Option<Answer> {
    let same = Algorithm::of(digest).is_some_and(|algorithm| algorithm.digest(bytes) == digest);
    (!same).then(|| {
        Answer::error(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "provided digest did not match uploaded content",
        )
    })
}

fn created(context: &Context<'_>, name: &str, digest: &str) -> Answer {
    let location = context.location(
        &super::quirk::Location::Relative,
        &format!("/v2/{name}/blobs/{digest}"),
    );
    context.digest_header(location(Answer::new(StatusCode::CREATED)), digest)
}

fn accepted(context: &Context<'_>, name: &str, id: &str, size: usize) -> Answer {
    // A state in the query, as distribution has it: a client must add its digest to it, not replace it.
    let path = format!("/v2/{name}/blobs/uploads/{id}?_state=of-{id}");
    let location = context.location(&context.quirks.upload_location, &path);
    let answer = location(Answer::new(StatusCode::ACCEPTED))
        .header(RANGE, &format!("0-{}", size.saturating_sub(1)));
    answer.named("docker-upload-uuid", id)
}
