//! The pass of `endOfLife.whenSuperseded`: marks the images that the tag has left once a move has settled, except for manifests in use.
//! A manifest that is in use again loses its mark.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::identity;
use std::iter;
use std::time::Duration;

use futures::future::try_join_all;

use crate::api::{Reason, Superseded, SupersededState};
use crate::attachment::supersession::{self, Disposition, Supersession};
use crate::attachment::{DesiredContent, EndOfLifeDate, Entry, Image};
use crate::engine::claims::Claims;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::journal::Journal;
use crate::engine::observe::mark_in_use::marks_in_use;
use crate::engine::observe::recovered_dates::recover;
use crate::engine::observe::referrers::DesiredTarget;
use crate::engine::observe::tags_in_use::reached_by_tags;
use crate::engine::records::slot::Slot;
use crate::engine::records::table::fit_earlier;
use crate::engine::records::target::TargetRecord;
use crate::engine::report::event::PassEvent;
use crate::engine::report::outcome::Report;
use crate::engine::report::verdict::Verdict;
use affix_registry::oci::{Digest, Tag};

use super::reconcile_targets::{DesiredState, Resolution, begin, reconcile_targets};
use super::statements;
use super::superseded_images::{
    SupersededImage, SupersededImages, conclude, conclude_from, is_done, read,
};

/// Marks the superseded images.
pub(in crate::engine) async fn supersede(
    context: &Context<'_>,
    wanted: &Supersession,
    resolution: &Resolution<'_>,
    journal: &impl Journal,
    claims: &impl Claims,
) -> Result<Report, Failure> {
    let previous = &context.request.previous;
    let resolved = &resolution.resolved;
    let mut report = begin(context, resolved);
    let current = &resolved.root.digest;
    let mut history = supersession::observe(
        &previous.superseded,
        previous.followed.as_ref(),
        current,
        &wanted.previous,
        context.now,
    );
    let forgotten = supersession::forgotten(&previous.superseded, &history, current);
    report.events.extend(forgotten.map(forgotten_event));
    let mut images = context.in_time(read(context, wanted, &mut history)).await?;

    for remark in marks_in_use(context, wanted, &resolved.image).await {
        let event = PassEvent::warning(Reason::StillInUse, remark.clone());
        report.events.push(event);
        report.remarks.push(remark);
    }

    // A mark of an earlier move on a settling image is removed, even if that move will settle.
    let mut entries: Vec<Entry> = resolved.image.entries.clone();
    let settling = images.settling.iter().flatten();
    entries.extend(settling.flat_map(|image| image.entries.iter().cloned()));
    let use_of = find_use(
        context,
        wanted,
        &resolved.image,
        &entries,
        &mut images,
        &mut history,
    )
    .await;
    for image in &images.marked {
        if let Some(known) = history.get_mut(image.position) {
            known.date = Some(image.date.to_string());
        }
    }
    sort_by_age(&mut images.marked, &history);
    let (mut records, targets) =
        desired_targets(context, wanted, &images, &use_of.digests, &history);
    if images.has_unread {
        keep_earlier(&previous.targets, &mut records, &resolved.image);
    }
    entries.extend(
        images
            .marked
            .iter()
            .flat_map(|image| image.image.entries.iter().cloned()),
    );
    report.superseded = Some(history.clone());
    let desired = DesiredState {
        records,
        targets,
        entries: &entries,
    };
    let mut report =
        reconcile_targets(context, report, desired, resolution, journal, claims).await?;
    for image in &images.marked {
        conclude_from(&mut history, image, report.targets(), use_of.tags.as_ref());
    }
    report.remarks.extend(use_of.remark);
    let retry_after = use_of.retry_after.max(images.retry_after);
    report.verdict = judge(&report, &history, images.waiting, retry_after);
    report.superseded = Some(history);
    Ok(report)
}

/// The manifests in use.
struct Use {
    digests: BTreeSet<Digest>,
    /// A tag that reaches each manifest, if the tags were read.
    tags: Option<BTreeMap<Digest, Tag>>,
    /// The cause for which the tags could not be read, if that prevents no mark.
    remark: Option<String>,
    /// The delay that the registry asked for, if the tags could not be read.
    retry_after: Option<Duration>,
}

/// Finds the manifests in use and recovers the dates of undated moves. The tags are read while a move is open and at each verification;
/// otherwise the previous pass has recorded the manifests in use. If the tags cannot be read, the open moves fail and lose their place in
/// this pass.
async fn find_use(
    context: &Context<'_>,
    wanted: &Supersession,
    current: &Image,
    entries: &[Entry],
    images: &mut SupersededImages,
    history: &mut [Superseded],
) -> Use {
    let previous = &context.request.previous;
    // An image without a record of its root was not read last time, and a changed spec may count other tags.
    let is_open = |history: &[Superseded], image: &SupersededImage| {
        let root = image.image.root();
        !previous.is_current
            || !is_done(history, image.position)
            || root.is_none_or(|root| previous.target(&root.subject.digest).is_none())
    };
    let mut digests: BTreeSet<Digest> = entries
        .iter()
        .map(|entry| entry.subject.digest.clone())
        .collect();
    let recorded = previous.targets.iter().filter(|target| target.is_in_use());
    let recorded = recorded.map(|target| target.digest.clone());
    let is_due = |image: &SupersededImage| context.request.verify || is_open(history, image);
    if !images.marked.iter().any(is_due) {
        digests.extend(recorded);
        return Use {
            digests,
            tags: None,
            remark: None,
            retry_after: None,
        };
    }
    let reads = read_use(context, wanted, current, &digests, images, history);
    match context.in_time(reads).await.and_then(identity) {
        Ok((mut tags, mut dates)) => {
            for image in &mut images.marked {
                if let Some(date) = dates.remove(&image.position) {
                    image.date = date;
                }
            }
            digests.extend(tags.keys().cloned());
            if let Some(followed) = context.request.intent.reference.followed() {
                for entry in &current.entries {
                    let digest = entry.subject.digest.clone();
                    tags.entry(digest).or_insert_with(|| followed.clone());
                }
            }
            Use {
                digests,
                tags: Some(tags),
                remark: None,
                retry_after: None,
            }
        }
        Err(failure) => {
            let (open, done): (Vec<_>, Vec<_>) = std::mem::take(&mut images.marked)
                .into_iter()
                .partition(|image| is_open(history, image));
            let remark = open.is_empty().then(|| {
                let message = &failure.problem.message;
                format!("the images in use are those of an earlier pass, since the tags could not be read: {message}")
            });
            for image in open {
                conclude(
                    history,
                    image.position,
                    SupersededState::Failed,
                    Some(&failure.problem),
                );
            }
            images.marked = done;
            images.has_unread = true;
            digests.extend(recorded);
            Use {
                digests,
                tags: None,
                remark,
                retry_after: failure.retry_after,
            }
        }
    }
}

/// Reads the manifests that tags use, and the dates of undated moves by their position in the history.
async fn read_use(
    context: &Context<'_>,
    wanted: &Supersession,
    current: &Image,
    known: &BTreeSet<Digest>,
    images: &SupersededImages,
    history: &[Superseded],
) -> Result<(BTreeMap<Digest, Tag>, BTreeMap<usize, EndOfLifeDate>), Failure> {
    // The current image and the settling ones may reach more manifests than can be read.
    current.reaches()?;
    images.settling.as_ref().map_err(Clone::clone)?;
    let tags = reached_by_tags(context, wanted).await?;
    let mut in_use = known.clone();
    in_use.extend(tags.keys().cloned());
    let is_undated = |image: &&SupersededImage| {
        history
            .get(image.position)
            .is_some_and(|known| !supersession::is_dated(known))
    };
    let in_use_ref = &in_use;
    let undated = images
        .marked
        .iter()
        .filter(is_undated)
        .map(|image| async move {
            let date = recover(context, wanted, &image.image, &image.date, in_use_ref).await?;
            Ok::<_, Failure>(date.map(|date| (image.position, date)))
        });
    let dates = try_join_all(undated).await?.into_iter().flatten().collect();
    Ok((tags, dates))
}

/// Sorts images by the time of their move, then by date.
fn sort_by_age(images: &mut [SupersededImage], history: &[Superseded]) {
    images.sort_by_key(|image| age(image, history));
}

fn age(image: &SupersededImage, history: &[Superseded]) -> impl Ord + use<> {
    let moved_at = history.get(image.position).map(|known| known.moved_at.0);
    (moved_at, image.date.instant(), image.position)
}

/// Returns a record for each manifest of the superseded images, and the desired marks. A manifest of several images takes the date of the
/// last one.
fn desired_targets(
    context: &Context<'_>,
    wanted: &Supersession,
    images: &SupersededImages,
    in_use: &BTreeSet<Digest>,
    history: &[Superseded],
) -> (Vec<TargetRecord>, Vec<DesiredTarget>) {
    let mut dated: Vec<&SupersededImage> = images.marked.iter().chain(&images.unmarked).collect();
    dated.sort_by_key(|image| age(image, history));
    let dispositions = supersession::dispositions(
        dated.into_iter().map(|image| (&image.date, &image.digests)),
        in_use,
    );
    let mut records: Vec<TargetRecord> = Vec::new();
    let mut targets = Vec::new();
    let mut seen = BTreeSet::new();
    for image in &images.marked {
        let Ok((chosen, _)) = context.request.intent.selection.choose(&image.image) else {
            continue;
        };
        for chosen in chosen {
            let entry = chosen.entry;
            let digest = &entry.subject.digest;
            if !seen.insert(digest.clone()) {
                continue;
            }
            records.push(match (chosen.skip, dispositions.get(digest)) {
                (Some(reason), _) => TargetRecord::skipped(entry, reason),
                (None, Some(Disposition::Mark(date))) => {
                    let known = context.request.previous.target(digest);
                    let slots: Vec<Slot> = iter::once(Slot::Referrer)
                        .chain(statements::slot(context))
                        .collect();
                    let mut record = TargetRecord::pending(entry).with_slots(&slots, known);
                    if let Err(problem) = statements::check(context) {
                        record.fail(&problem.into());
                        records.push(record);
                        continue;
                    }
                    let (content, keys) = wanted.mark(date);
                    targets.push(DesiredTarget {
                        slot: Slot::Referrer,
                        signer: None,
                        position: records.len(),
                        subject: entry.subject.clone(),
                        wanted: DesiredContent::Content {
                            content,
                            mark: Some(keys),
                        },
                    });
                    record
                }
                (None, _) => TargetRecord::skipped(entry, Reason::StillInUse),
            });
        }
    }
    (records, targets)
}

/// Adds the previous records of images that could not be read. Leftovers hold the attachments of records that do not fit.
fn keep_earlier(previous: &[TargetRecord], records: &mut Vec<TargetRecord>, current: &Image) {
    let known: BTreeSet<&Digest> = records.iter().map(|record| &record.digest).collect();
    let back: BTreeSet<&Digest> = current
        .entries
        .iter()
        .map(|entry| &entry.subject.digest)
        .collect();
    let stays = |record: &&TargetRecord| {
        !known.contains(&record.digest) && (!record.is_selected() || !back.contains(&record.digest))
    };
    let mut earlier: Vec<TargetRecord> = previous.iter().filter(stays).cloned().collect();
    fit_earlier(&mut earlier, records);
    records.extend(earlier);
}

/// Returns the verdict: that of the targets, or that of the moves if the targets are ready.
fn judge(
    report: &Report,
    history: &[Superseded],
    waiting: usize,
    retry_after: Option<Duration>,
) -> Verdict {
    let mut verdict = report.verdict.clone();
    let is_watching = !report.targets().iter().any(TargetRecord::is_selected);
    if is_watching && verdict.ready {
        verdict = Verdict::watching(history);
    } else if is_watching && verdict.reason == Reason::Planned {
        verdict.message = format!(
            "dry run: nothing to do: {}",
            Verdict::watching(history).message
        );
    }
    if !verdict.ready {
        return verdict;
    }
    let failed = history
        .iter()
        .find(|image| image.state == SupersededState::Failed && image.message.is_some());
    if let Some(failed) = failed {
        let reason = failed
            .reason
            .as_deref()
            .and_then(|reason| reason.parse().ok());
        let message = format!(
            "{} is not marked: {}",
            failed.digest,
            failed.message.as_deref().unwrap_or_default()
        );
        return Verdict::not_ready(
            reason.unwrap_or(Reason::RegistryUnavailable),
            message,
            retry_after,
        );
    }
    if waiting > 0 {
        let message = format!("{waiting} moves of the tag wait until the marks of others are made");
        return Verdict::not_ready(Reason::Progressing, message, None);
    }
    verdict
}

/// Returns the event of a move whose image will not be marked.
fn forgotten_event(image: &Superseded) -> PassEvent {
    let message = format!(
        "{} is not marked: {} moves of the tag are open already, as many as status remembers: shorten \
         spec.endOfLife.whenSuperseded.settle, or mark it with a resource that names its digest and a date",
        image.digest,
        supersession::MAX_MOVES
    );
    PassEvent::warning(Reason::LimitExceeded, message)
}
