//! The end-of-life mark on the image that the followed tag names. After a restore without status, the marks of the former cluster remain.

use k8s_openapi::jiff::Timestamp;

use crate::attachment::Image;
use crate::attachment::supersession::Supersession;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use affix_registry::oci::{Digest, annotation, cut};

use super::candidates::{WAVE, read_wave};

/// Returns a remark for each mark on the image that the tag names, or on its platforms if the index is not a target. Marks that this
/// resource made do not count, because this pass removes them.
pub(in crate::engine) async fn marks_in_use(
    context: &Context<'_>,
    wanted: &Supersession,
    image: &Image,
) -> Vec<String> {
    let chosen = context.request.intent.selection.judge(image);
    let targets: Vec<&Digest> = chosen
        .iter()
        .filter(|chosen| chosen.skip.is_none())
        .map(|chosen| &chosen.entry.subject.digest)
        .collect();
    let root = image.root().map(|root| &root.subject.digest);
    let subjects = match root.filter(|root| targets.contains(root)) {
        Some(root) => vec![root],
        None => targets,
    };
    let tag = context.request.intent.reference.followed();
    let tag = tag.map(ToString::to_string).unwrap_or_default();
    let reads = subjects
        .into_iter()
        .take(context.options.max_targets)
        .map(|subject| async move { (subject, newest_mark(context, wanted, subject).await) });
    let mut remarks = Vec::new();
    for (subject, mark) in futures::future::join_all(reads).await {
        match mark {
            Ok(None) => {}
            Ok(Some((mark, date))) => remarks.push(format!(
                "the tag {tag} names an image with an end-of-life mark: {subject} has the date {:?} ({mark}), which another owner set; \
                 remove the mark if the image is in use",
                cut(&date)
            )),
            Err(failure) => remarks.push(format!(
                "the end-of-life marks on {subject}, which the tag {tag} names, could not be read: {}",
                failure.problem.message
            )),
        }
    }
    remarks
}

/// Returns the newest foreign mark on a subject and its date.
async fn newest_mark(
    context: &Context<'_>,
    wanted: &Supersession,
    subject: &Digest,
) -> Result<Option<(Digest, String)>, Failure> {
    let listing = context
        .in_time(
            context
                .session
                .referrers(subject, Some(&wanted.artifact_type)),
        )
        .await??;
    let owned = context.request.previous.owned_on(subject);
    let mut marks = listing.entries;
    marks.retain(|entry| {
        entry.artifact_type.is_empty() || entry.artifact_type == wanted.artifact_type.as_str()
    });
    marks.retain(|entry| !owned.contains(&entry.digest));
    let mut found: Vec<(Timestamp, Digest, String)> = Vec::new();
    let mut consider = |digest: &Digest, created: Option<&String>, date: Option<&String>| {
        let created = created.and_then(|created| created.parse().ok());
        let created: Timestamp = created.unwrap_or(Timestamp::MIN);
        if let Some(date) = date
            && created <= context.now
        {
            found.push((created, digest.clone(), date.clone()));
        }
    };
    // A registry that lists annotations lists the date.
    let (described, bare): (Vec<_>, Vec<_>) = marks
        .into_iter()
        .partition(|entry| !entry.annotations.is_empty());
    for entry in &described {
        let get = |key: &str| entry.annotations.get(key);
        consider(
            &entry.digest,
            get(annotation::CREATED),
            get(&wanted.annotation),
        );
    }
    let unread: Vec<Digest> = bare.into_iter().map(|entry| entry.digest).collect();
    for wave in unread.chunks(WAVE) {
        for (digest, manifest) in context.in_time(read_wave(context.session, wave)).await?? {
            let Some(manifest) = manifest else { continue };
            let get = |key: &str| manifest.annotations.get(key);
            consider(&digest, get(annotation::CREATED), get(&wanted.annotation));
        }
    }
    Ok(found
        .into_iter()
        .max()
        .map(|(_, digest, date)| (digest, date)))
}
