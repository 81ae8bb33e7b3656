//! Dates of moves that status does not hold, recovered from the marks of an earlier pass.
//!
//! A date is fixed once and kept in status. Status may be lost: a cluster is restored, or the command line runs without one. A newly computed
//! date would then put a second mark on every manifest that has one.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use futures::future::try_join_all;

use crate::attachment::supersession::{self, Supersession};
use crate::attachment::{Created, EndOfLifeDate, Image};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use affix_registry::oci::{Digest, annotation};

use super::candidates::{WAVE, read_wave};

/// Returns the date of the move whose image is `image` if marks exist there. `computed` is the date that the move would get now.
/// Manifests `in_use` get no mark, so they are not read.
pub(in crate::engine) async fn recover(
    context: &Context<'_>,
    wanted: &Supersession,
    image: &Image,
    computed: &EndOfLifeDate,
    in_use: &BTreeSet<Digest>,
) -> Result<Option<EndOfLifeDate>, Failure> {
    let chosen = context.request.intent.selection.judge(image);
    let subjects = chosen
        .iter()
        .filter(|chosen| chosen.skip.is_none())
        .map(|chosen| &chosen.entry.subject.digest);
    let reads = subjects
        .filter(|subject| !in_use.contains(*subject))
        .map(|subject| date_on(context, wanted, subject).boxed());
    let found = try_join_all(reads).await?;
    Ok(supersession::date_found(
        found.into_iter().flatten(),
        computed,
    ))
}

/// Returns the date of a mark on `subject` with the form that affix writes, by any owner.
async fn date_on(
    context: &Context<'_>,
    wanted: &Supersession,
    subject: &Digest,
) -> Result<Option<EndOfLifeDate>, Failure> {
    let mut marks = context
        .session
        .referrers(subject, Some(&wanted.artifact_type))
        .await?
        .entries;
    // A registry that lists annotations lists the date.
    marks.retain(|entry| {
        entry.annotations.is_empty() || entry.annotations.contains_key(&wanted.annotation)
    });
    // Attachments in status belong to a move in status, which has a date of its own.
    let owned = context.request.previous.owned_on(subject);
    marks.retain(|entry| !owned.contains(&entry.digest));
    marks.sort_by(|a, b| {
        b.annotations
            .get(annotation::CREATED)
            .cmp(&a.annotations.get(annotation::CREATED))
    });
    let digests: Vec<Digest> = marks.into_iter().map(|entry| entry.digest).collect();
    let mut newest: Option<(Created, EndOfLifeDate)> = None;
    for wave in digests.chunks(WAVE) {
        let read = read_wave(context.session, wave).await?;
        let manifests = read.iter().filter_map(|(_, manifest)| manifest.as_ref());
        let found = wanted.date_among(subject, manifests, context.now);
        newest = newest
            .into_iter()
            .chain(found)
            .max_by_key(|(created, date)| (*created, date.instant()));
    }
    Ok(newest.map(|(_, date)| date))
}
