//! The pass of `endOfLife.whenSuperseded`: what the tag has left, once a move has settled, is marked where nothing in use
//! reaches it; what has come back into use loses its mark.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt as _, stream};

use crate::api::{Reason, Superseded, TargetState, TargetStatus};
use crate::attachment::supersession::{self, Fate, Supersession};
use crate::attachment::{EndOfLifeDate, Entry, Image, ImageError, Listed, Problem};
use affix_registry::oci::{Descriptor, Digest, Manifest};
use affix_registry::{ErrorKind, Locator};

use super::claims::Claims;
use super::failure::Failure;
use super::observe::{self, Resolved};
use super::outcome::{Note, Outcome, Severity, Verdict};
use super::pass::{Journal, Pass};
use super::rows;

/// How many tags are read to find what is in use; with more, nothing is marked.
const MOST_TAGS: usize = 500;
/// How many images of other tags are looked into at once.
const AT_ONCE: usize = 16;

/// An image that the tag has left and whose move has settled.
pub(super) struct Left {
    /// Its place in the history.
    pub(super) nth: usize,
    pub(super) image: Image,
    pub(super) date: EndOfLifeDate,
    digests: BTreeSet<Digest>,
}

/// The images left that a pass can read.
struct Lefts {
    /// Those whose manifests have rows in this pass.
    images: Vec<Left>,
    /// Those that only say until when their manifests were in use.
    aside: Vec<Left>,
    /// Those whose move has not settled, or why one of them cannot be read: they count as in use until then.
    settling: Result<Vec<Image>, Failure>,
    /// Whether one of them could not be read: then what status says of it still holds.
    unread: bool,
    /// How many wait until marks of other moves are made.
    waiting: usize,
    /// How long the registry asked to wait, where one could not be read.
    retry_after: Option<Duration>,
}

impl Pass<'_> {
    /// Marks what the tag has left; `resolved` is what it names now.
    pub(super) async fn supersede(
        &self,
        wanted: &Supersession,
        resolved: &Resolved,
        empty_is_there: bool,
        journal: &impl Journal,
        claims: &impl Claims,
    ) -> Result<Outcome, Failure> {
        let memory = &self.request.memory;
        let mut outcome = self.begin(resolved);
        let current = &resolved.root.digest;
        let mut history = supersession::observe(
            &memory.superseded,
            memory.followed.as_ref(),
            current,
            &wanted.previous,
            self.now,
        );
        outcome
            .notes
            .extend(supersession::forgotten(&memory.superseded, &history, current).map(forgotten));
        let Lefts {
            images: mut lefts,
            aside,
            settling,
            mut unread,
            waiting,
            retry_after,
        } = self.in_time(self.images_left(wanted, &mut history)).await?;

        // What an earlier move left marked there goes, whatever becomes of the move that is settling.
        let mut entries: Vec<Entry> = resolved.image.entries.clone();
        entries.extend(
            settling
                .iter()
                .flatten()
                .flat_map(|image| image.entries.iter().cloned()),
        );
        let mut in_use: BTreeSet<Digest> = entries
            .iter()
            .map(|entry| entry.subject.digest.clone())
            .collect();
        // An image without rows was not looked at last time, and a changed spec may count other tags: what is in use has to be asked
        // again.
        let unfinished = |history: &[Superseded], left: &Left| {
            let has_rows = left
                .image
                .root()
                .is_some_and(|root| memory.row(&root.subject.digest).is_some());
            !has_rows
                || !memory.current
                || history
                    .get(left.nth)
                    .is_some_and(|left| !supersession::is_done(left))
        };
        let spared = memory
            .rows
            .iter()
            .filter(|row| row.reason.as_deref() == Some(Reason::StillInUse.as_str()));
        let spared = spared.filter_map(|row| row.digest.parse().ok());
        let mut trouble = None;
        if lefts.iter().any(|left| unfinished(&history, left)) {
            // The tags are read at a move only, and so are the marks that were made when status knew of it.
            let look = async {
                // What the tag itself names, or named until just now, may hold more than can be read.
                resolved.image.reaches()?;
                settling.as_ref().map_err(Clone::clone)?;
                let mut used = in_use.clone();
                used.extend(self.reached_by_tags(wanted).await?);
                let undated = |left: &&Left| {
                    history
                        .get(left.nth)
                        .is_some_and(|known| !supersession::is_dated(known))
                };
                let dates = self
                    .dates_there(wanted, lefts.iter().filter(undated), &used)
                    .await?;
                Ok((used, dates))
            };
            match self.in_time(look).await.and_then(std::convert::identity) {
                Ok((used, mut dates)) => {
                    in_use = used;
                    for left in &mut lefts {
                        left.date = dates.remove(&left.nth).unwrap_or_else(|| left.date.clone());
                    }
                }
                Err(failure) => {
                    let (done, open): (Vec<Left>, Vec<Left>) = lefts
                        .into_iter()
                        .partition(|left| !unfinished(&history, left));
                    for left in open {
                        conclude(
                            &mut history,
                            left.nth,
                            TargetState::Failed,
                            Some((failure.problem.reason, &failure.problem.message)),
                        );
                    }
                    lefts = done;
                    unread = true;
                    in_use.extend(spared);
                    trouble = Some(failure);
                }
            }
        } else {
            in_use.extend(spared);
        }
        for left in &lefts {
            if let Some(known) = history.get_mut(left.nth) {
                known.date = Some(left.date.to_string());
            }
        }
        // The oldest first: what several images share takes the date of the last one left. Of those first seen together the dates tell.
        let age = |left: &Left| {
            (
                history.get(left.nth).map(|known| known.moved_at.0),
                left.date.instant(),
                left.nth,
            )
        };
        lefts.sort_by_key(age);
        let mut dated: Vec<&Left> = lefts.iter().chain(&aside).collect();
        dated.sort_by_key(|left| age(left));
        let fates = supersession::fates(
            dated.into_iter().map(|left| (&left.date, &left.digests)),
            &in_use,
        );
        let (mut table, targets) = self.rows_of(wanted, &lefts, &fates);
        if unread {
            let known: BTreeSet<String> = table.iter().map(|row| row.digest.clone()).collect();
            let back: BTreeSet<String> = resolved
                .image
                .entries
                .iter()
                .map(|entry| entry.subject.digest.to_string())
                .collect();
            let stays = |row: &&TargetStatus| {
                !known.contains(&row.digest)
                    && (row.state == TargetState::Skipped || !back.contains(&row.digest))
            };
            // What this resource made there is remembered also without its row.
            let mut earlier: Vec<TargetStatus> =
                memory.rows.iter().filter(stays).cloned().collect();
            rows::fit(&mut earlier, &table);
            table.extend(earlier);
        }
        entries.extend(
            lefts
                .iter()
                .flat_map(|left| left.image.entries.iter().cloned()),
        );
        outcome.superseded = Some(history.clone());
        let mut outcome = self
            .settle(
                outcome,
                table,
                targets,
                &entries,
                empty_is_there,
                journal,
                claims,
            )
            .await?;

        let rows = outcome.rows.as_deref().unwrap_or_default();
        for left in &lefts {
            settle_move(&mut history, left, rows);
        }
        if rows.is_empty() && outcome.verdict.ready {
            outcome.verdict = Verdict::watching(&history);
        } else if rows.is_empty() && outcome.verdict.reason == Reason::Planned {
            outcome.verdict.message = format!(
                "dry run: nothing to do: {}",
                Verdict::watching(&history).message
            );
        }
        // What one move could not do is the verdict, unless the rows already say worse.
        let failed = history
            .iter()
            .find(|left| left.state == TargetState::Failed && left.message.is_some());
        if let (true, Some(failed)) = (outcome.verdict.ready, failed) {
            let reason = failed
                .reason
                .as_deref()
                .and_then(|reason| reason.parse().ok())
                .unwrap_or(Reason::RegistryUnavailable);
            let message = format!(
                "{} is not marked: {}",
                failed.digest,
                failed.message.as_deref().unwrap_or_default()
            );
            let retry_after = trouble
                .and_then(|failure| failure.retry_after)
                .max(retry_after);
            outcome.verdict = Verdict {
                ready: false,
                reason,
                message,
                retry_after,
            };
        }
        if outcome.verdict.ready && waiting > 0 {
            let message =
                format!("{waiting} moves of the tag wait until the marks of others are made");
            outcome.verdict = Verdict {
                ready: false,
                reason: Reason::Progressing,
                message,
                retry_after: None,
            };
        }
        outcome.superseded = Some(history);
        Ok(outcome)
    }

    /// Fetches the images that the tag has left. One that is gone from the registry has nothing left to mark. What is to be marked
    /// comes first, then the newest of what is done: the marks on older images stay, and nobody looks after them any more.
    async fn images_left(&self, wanted: &Supersession, history: &mut [Superseded]) -> Lefts {
        let limits = &self.engine.registries().options().limits;
        let there = history
            .iter()
            .enumerate()
            .filter(|(_, left)| left.state != TargetState::Skipped);
        let (settled, settling): (Vec<_>, Vec<_>) =
            there.partition(|(_, left)| supersession::is_settled(left, wanted.settle, self.now));
        let (done, mut looked): (Vec<_>, Vec<_>) = settled
            .into_iter()
            .partition(|(_, left)| supersession::is_done(left));
        looked.extend(done.into_iter().rev());
        let settled: Vec<(usize, Digest, EndOfLifeDate)> = looked
            .into_iter()
            .filter_map(|(nth, left)| {
                Some((
                    nth,
                    left.digest.parse().ok()?,
                    supersession::date_of(left, wanted.grace),
                ))
            })
            .collect();
        // With nothing marked and nothing to mark, nobody need know what they hold.
        let is_needless = settled.is_empty() && self.request.memory.made().is_empty();
        let settling: Vec<Digest> = settling
            .into_iter()
            .filter(|_| !is_needless)
            .filter_map(|(_, left)| left.digest.parse().ok())
            .collect();
        let reference = &self.request.intent.reference;
        let read = |digest: &Digest| {
            let reference = reference.at(digest);
            async move { observe::resolve(self.session, &reference, limits).await }
        };
        let (images, settling) = tokio::join!(
            join_all(settled.iter().map(|(_, digest, _)| read(digest))),
            join_all(settling.iter().map(read))
        );
        let settling = settling.into_iter().filter_map(|image| match image {
            Ok(resolved) => Some(
                resolved
                    .image
                    .reaches()
                    .map(|_| resolved.image)
                    .map_err(Failure::from),
            ),
            Err(failure) if failure.problem.reason == Reason::NotFound => None,
            Err(failure) => Some(Err(failure)),
        });
        let settling = settling.collect();
        let mut lefts = Lefts {
            images: Vec::new(),
            aside: Vec::new(),
            settling,
            unread: false,
            waiting: 0,
            retry_after: None,
        };
        let mut targets = BTreeSet::new();
        for ((nth, _, date), image) in settled.iter().zip(images) {
            let read = image.and_then(|resolved| Ok((resolved.image.reaches()?, resolved.image)));
            match read {
                Ok((digests, image)) => {
                    let is_open = history
                        .get(*nth)
                        .is_some_and(|left| !supersession::is_done(left));
                    let room = self.room_for(&image, &mut targets);
                    let left = Left {
                        nth: *nth,
                        image,
                        date: date.clone(),
                        digests,
                    };
                    match room {
                        Ok(true) => lefts.images.push(left),
                        Ok(false) => {
                            lefts.aside.push(left);
                            if is_open {
                                lefts.waiting += 1;
                                let why = (
                                    Reason::Progressing,
                                    "it waits until the marks of other moves are made",
                                );
                                conclude(history, *nth, TargetState::Pending, Some(why));
                            }
                        }
                        Err(problem) => {
                            lefts.unread |= !problem.reason.is_stalled();
                            conclude(
                                history,
                                *nth,
                                TargetState::Failed,
                                Some((problem.reason, &problem.message)),
                            );
                        }
                    }
                }
                Err(failure) if failure.problem.reason == Reason::NotFound => {
                    conclude(
                        history,
                        *nth,
                        TargetState::Skipped,
                        Some((Reason::NotFound, "the image is gone from the registry")),
                    );
                }
                Err(failure) => {
                    lefts.unread = true;
                    lefts.retry_after = lefts.retry_after.max(failure.retry_after);
                    conclude(
                        history,
                        *nth,
                        TargetState::Failed,
                        Some((failure.problem.reason, &failure.problem.message)),
                    );
                }
            }
        }
        lefts
    }

    /// Whether the targets of one more image fit beside `targets`, which they then join.
    fn room_for(&self, image: &Image, targets: &mut BTreeSet<Digest>) -> Result<bool, Problem> {
        let most = self.engine.options.most_targets;
        let (chosen, _) = self
            .request
            .intent
            .selection
            .choose(image)
            .map_err(|error| Problem::new(error.reason(), format_args!("spec.{error}")))?;
        let own: BTreeSet<Digest> = chosen
            .iter()
            .filter(|chosen| chosen.skip.is_none())
            .map(|chosen| chosen.entry.subject.digest.clone())
            .collect();
        if own.len() > most {
            let message = format!(
                "spec.targets selects {} manifests of the image, more than {most}: narrow platforms",
                own.len()
            );
            return Err(Problem::new(Reason::LimitExceeded, message));
        }
        let all: BTreeSet<Digest> = targets.union(&own).cloned().collect();
        let fits = all.len() <= most;
        if fits {
            *targets = all;
        }
        Ok(fits)
    }

    /// Every manifest that a tag of `unlessTagged` reaches, the followed tag aside. Each image is looked into once, however many
    /// tags name it.
    async fn reached_by_tags(&self, wanted: &Supersession) -> Result<BTreeSet<Digest>, Failure> {
        let mut reached = BTreeSet::new();
        if wanted.unless_tagged.is_empty() {
            return Ok(reached);
        }
        let own = self.request.intent.reference.tag.as_ref();
        let tags = self
            .session
            .list_tags(MOST_TAGS, |tag| {
                Some(tag) != own && wanted.unless_tagged.counts(tag)
            })
            .await?;
        let heads: Vec<_> = stream::iter(tags)
            .map(|tag| async move { self.session.head(&Locator::Tag(tag)).await })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut roots = BTreeSet::new();
        for head in heads {
            match head {
                Ok(head) => {
                    roots.insert(head.digest);
                }
                // A tag that was deleted meanwhile holds nothing in use.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let looks: Vec<Result<BTreeSet<Digest>, Failure>> = stream::iter(roots)
            .map(|root| self.reach(root))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for look in looks {
            reached.extend(look?);
        }
        Ok(reached)
    }

    /// What an image consists of. What is no image reaches itself only; what cannot be read is an error, never "nothing".
    async fn reach(&self, root: Digest) -> Result<BTreeSet<Digest>, Failure> {
        let limits = &self.engine.registries().options().limits;
        let fetched = match self.session.manifest(&Locator::Digest(root.clone())).await {
            Ok(fetched) => fetched,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::UnsupportedMediaType
                ) =>
            {
                return Ok(BTreeSet::from([root]));
            }
            Err(error) => return Err(error.into()),
        };
        let nested = match &fetched.manifest {
            Manifest::Index(index) => observe::walk(self.session, index, limits).await?,
            Manifest::Image(_) => BTreeMap::new(),
        };
        match Image::lay_out(
            &fetched.descriptor(),
            &fetched.manifest,
            &nested,
            None,
            limits.index_entries,
        ) {
            Ok(image) => Ok(image.reaches()?),
            // A referrer that has a tag of its own.
            Err(ImageError::Attachment(_)) => Ok(match &fetched.manifest {
                Manifest::Index(index) => index
                    .manifests
                    .iter()
                    .map(|entry| entry.digest.clone())
                    .chain([root])
                    .collect(),
                Manifest::Image(_) => BTreeSet::from([root]),
            }),
            Err(error) => Err(Failure::new(
                Reason::LimitExceeded,
                format_args!("{root}, which another tag names: {error}"),
            )),
        }
    }

    /// One row for each manifest of the images left, and what is wanted on those that are marked.
    fn rows_of(
        &self,
        wanted: &Supersession,
        lefts: &[Left],
        fates: &BTreeMap<Digest, Fate>,
    ) -> (Vec<TargetStatus>, Vec<(usize, Descriptor, Listed)>) {
        let mut table: Vec<TargetStatus> = Vec::new();
        let mut targets = Vec::new();
        let mut seen = BTreeSet::new();
        for left in lefts {
            let Ok((chosen, _)) = self.request.intent.selection.choose(&left.image) else {
                continue;
            };
            for chosen in chosen {
                let entry = chosen.entry;
                if !seen.insert(entry.subject.digest.clone()) {
                    continue;
                }
                let row = match (chosen.skip, fates.get(&entry.subject.digest)) {
                    (Some(reason), _) => rows::skipped(entry, reason),
                    (None, Some(Fate::Mark(date))) => {
                        let (content, keys) = wanted.mark(date);
                        targets.push((
                            table.len(),
                            entry.subject.clone(),
                            Listed::Content {
                                content,
                                mark: Some(keys),
                            },
                        ));
                        rows::known(
                            rows::pending(entry),
                            self.request.memory.row(&entry.subject.digest),
                        )
                    }
                    (None, _) => rows::skipped(entry, Reason::StillInUse),
                };
                table.push(row);
            }
        }
        (table, targets)
    }
}

fn conclude(
    history: &mut [Superseded],
    nth: usize,
    state: TargetState,
    why: Option<(Reason, &str)>,
) {
    if let Some(left) = history.get_mut(nth) {
        supersession::conclude(left, state, why);
    }
}

/// A move is done when every manifest of its image is marked or spared.
fn settle_move(history: &mut [Superseded], left: &Left, rows: &[TargetStatus]) {
    let own = || {
        rows.iter().filter(|row| {
            row.digest
                .parse()
                .is_ok_and(|digest: Digest| left.digests.contains(&digest))
        })
    };
    let open = own().find(|row| !matches!(row.state, TargetState::Attached | TargetState::Skipped));
    match open {
        Some(row) => {
            let reason = row
                .reason
                .as_deref()
                .and_then(|reason| reason.parse().ok())
                .unwrap_or(Reason::Progressing);
            conclude(
                history,
                left.nth,
                row.state,
                Some((reason, row.message.as_deref().unwrap_or("not marked yet"))),
            );
        }
        None => conclude(history, left.nth, TargetState::Attached, None),
    }
}

/// Tells of a move whose image will not be marked.
fn forgotten(left: &Superseded) -> Note {
    let message = format!(
        "{} is not marked: {} moves of the tag wait already, as many as status remembers: shorten \
         spec.endOfLife.whenSuperseded.settle, or mark it with a resource that names its digest and a date",
        left.digest,
        supersession::MOST_MOVES
    );
    Note {
        severity: Severity::Warning,
        reason: Reason::LimitExceeded,
        message,
    }
}
