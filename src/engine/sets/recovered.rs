//! Dates of images out of life that neither a child nor status holds, recovered from the marks of an earlier pass.
//!
//! A date is fixed once (docs/decisions/0111). A cluster may be restored without children, and the command line has none. A newly computed
//! date would put a second mark on every manifest that has one.

use std::collections::BTreeMap;
use std::time::Duration;

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::attachment::EndOfLifeDate;
use crate::attachment::sets::TagState;
use crate::attachment::supersession::{Supersession, TagFilter};
use crate::engine::failure::Failure;
use crate::engine::observe::candidates::{WAVE, read_wave};
use crate::engine::observe::tags_in_use::CONCURRENCY;
use affix_registry::Session;
use affix_registry::oci::Digest;

use super::read::RepositoryReading;

/// Returns the dates of marks with the form that affix writes, on images out of life without a child.
///
/// It reads nothing where so many images are new that they wait for a confirmation.
pub(super) async fn dates(
    session: &Session,
    reading: &RepositoryReading<'_>,
    state: &TagState,
    marked: &BTreeSet<Digest>,
) -> Result<BTreeMap<Digest, EndOfLifeDate>, Failure> {
    let Some(lifecycle) = &reading.policy.lifecycle else {
        return Ok(BTreeMap::new());
    };
    // Owned, since a stream of references is not Send in every caller.
    let undated: Vec<(Digest, EndOfLifeDate)> = (state.undated(marked))
        .map(|(root, date)| (root.clone(), date.clone()))
        .collect();
    let is_held = undated.len() > lifecycle.max_new_marks && reading.confirmed.is_none();
    let (Some(form), false) = (form(reading), is_held) else {
        return Ok(BTreeMap::new());
    };
    let form = &form;
    let found: Vec<Option<(Digest, EndOfLifeDate)>> = stream::iter(undated)
        .map(|(root, computed)| async move {
            let date = date_on(session, reading, form, &root).await?;
            let date = date.filter(|date| date.instant() <= computed.instant());
            Ok::<_, Failure>(date.map(|date| (root, date)))
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// Returns the form of the marks of a set.
fn form(reading: &RepositoryReading<'_>) -> Option<Supersession> {
    let mark = reading.policy.template.spec.shared().end_of_life.as_ref()?;
    Some(Supersession {
        artifact_type: mark.artifact_type().parse().ok()?,
        annotation: mark.annotation().to_owned(),
        annotations: mark.annotations.clone(),
        grace: Duration::ZERO,
        settle: Duration::ZERO,
        unless_tagged: TagFilter::new([]),
        previous: Vec::new(),
    })
}

/// Returns the date of the newest mark on `subject`, by any owner.
async fn date_on(
    session: &Session,
    reading: &RepositoryReading<'_>,
    form: &Supersession,
    subject: &Digest,
) -> Result<Option<EndOfLifeDate>, Failure> {
    let mut marks = session
        .referrers(subject, Some(&form.artifact_type))
        .await?
        .entries;
    // A registry that lists annotations lists the date.
    marks.retain(|entry| {
        entry.annotations.is_empty() || entry.annotations.contains_key(&form.annotation)
    });
    let digests: Vec<Digest> = marks.into_iter().map(|entry| entry.digest).collect();
    let mut newest = None;
    for wave in digests.chunks(WAVE) {
        let read = read_wave(session, wave).await?;
        let manifests = read.iter().filter_map(|(_, manifest)| manifest.as_ref());
        let found = form.date_among(subject, manifests, reading.now);
        newest = newest
            .into_iter()
            .chain(found)
            .max_by_key(|(created, date): &(_, EndOfLifeDate)| (*created, date.instant()));
    }
    Ok(newest.map(|(_, date)| date))
}
