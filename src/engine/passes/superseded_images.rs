//! The superseded images: those that the tag has left, as far as a pass can read and mark them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;

use crate::api::{Reason, Superseded, SupersededState, TargetState};
use crate::attachment::supersession::{self, Supersession};
use crate::attachment::{EndOfLifeDate, Image, Problem};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::observe::resolve::{self, Resolved};
use crate::engine::records::target::TargetRecord;
use affix_registry::oci::{Digest, Tag};

/// A superseded image whose move has settled.
pub(in crate::engine) struct SupersededImage {
    /// The position of its move in the history.
    pub(in crate::engine) position: usize,
    pub(in crate::engine) image: Image,
    pub(in crate::engine) date: EndOfLifeDate,
    /// Every manifest that the image reaches.
    pub(in crate::engine) digests: BTreeSet<Digest>,
}

/// The superseded images of a pass.
pub(in crate::engine) struct SupersededImages {
    /// Images with records in this pass.
    pub(in crate::engine) marked: Vec<SupersededImage>,
    /// Images without records, since the targets of a pass are limited. They date the manifests that they share with others.
    pub(in crate::engine) unmarked: Vec<SupersededImage>,
    /// Images whose move has not settled, which count as in use, or the failure to read one of them.
    pub(in crate::engine) settling: Result<Vec<Image>, Failure>,
    /// True if an image could not be read, so that its records in status stay.
    pub(in crate::engine) has_unread: bool,
    /// The number of moves that wait until the marks of other moves are made.
    pub(in crate::engine) waiting: usize,
    /// The delay that the registry asked for.
    pub(in crate::engine) retry_after: Option<Duration>,
}

/// Reads the superseded images. An image that is gone from the registry is done. Open moves are read first, then images in use, then done
/// ones, the newest first: the marks on older images stay and are not verified anymore.
pub(in crate::engine) async fn read(
    context: &Context<'_>,
    wanted: &Supersession,
    history: &mut [Superseded],
) -> SupersededImages {
    let present = history
        .iter()
        .enumerate()
        .filter(|(_, image)| image.state != SupersededState::Withdrawn);
    let (settled, settling): (Vec<_>, Vec<_>) =
        present.partition(|(_, image)| supersession::is_settled(image, wanted.settle, context.now));
    let (done, mut ordered): (Vec<_>, Vec<_>) = settled
        .into_iter()
        .partition(|(_, image)| supersession::is_done(image));
    let (marked, in_use): (Vec<_>, Vec<_>) = done
        .into_iter()
        .rev()
        .partition(|(_, image)| supersession::is_marked(image));
    ordered.extend(in_use.into_iter().chain(marked));
    let settled: Vec<(usize, Digest, EndOfLifeDate)> = ordered
        .into_iter()
        .filter_map(|(position, image)| {
            let date = supersession::date_of(image, wanted.grace);
            Some((position, image.digest.parse().ok()?, date))
        })
        .collect();
    // Settling images matter only if there are marks or images to mark.
    let is_needed = !settled.is_empty() || !context.request.previous.owned().is_empty();
    let settling: Vec<Digest> = settling
        .into_iter()
        .filter(|_| is_needed)
        .filter_map(|(_, image)| image.digest.parse().ok())
        .collect();
    let reference = &context.request.intent.reference;
    let fetch = |digest: &Digest| {
        let reference = reference.at(digest);
        async move { resolve::resolve(context.session, &reference, context.limits).await }
    };
    let (images, settling) = tokio::join!(
        join_all(settled.iter().map(|(_, digest, _)| fetch(digest))),
        join_all(settling.iter().map(fetch))
    );
    let mut result = SupersededImages {
        marked: Vec::new(),
        unmarked: Vec::new(),
        settling: settling.into_iter().filter_map(settling_image).collect(),
        has_unread: false,
        waiting: 0,
        retry_after: None,
    };
    let mut targets = BTreeSet::new();
    for ((position, _, date), image) in settled.into_iter().zip(images) {
        let read = image.and_then(|resolved| Ok((resolved.image.reaches()?, resolved.image)));
        match read {
            Ok((digests, image)) => {
                let image = SupersededImage {
                    position,
                    image,
                    date,
                    digests,
                };
                result.add(context, history, image, &mut targets);
            }
            Err(failure) if failure.problem.reason == Reason::NotFound => {
                let problem = Problem::new(Reason::NotFound, "the image is gone from the registry");
                conclude(
                    history,
                    position,
                    SupersededState::Withdrawn,
                    Some(&problem),
                );
            }
            Err(failure) => {
                result.has_unread = true;
                result.retry_after = result.retry_after.max(failure.retry_after);
                conclude(
                    history,
                    position,
                    SupersededState::Failed,
                    Some(&failure.problem),
                );
            }
        }
    }
    result
}

/// Returns the image of a settling move, which is in use. An image that is gone is not.
fn settling_image(image: Result<Resolved, Failure>) -> Option<Result<Image, Failure>> {
    match image {
        Ok(resolved) => Some(
            resolved
                .image
                .reaches()
                .map(|_| resolved.image)
                .map_err(Failure::from),
        ),
        Err(failure) if failure.problem.reason == Reason::NotFound => None,
        Err(failure) => Some(Err(failure)),
    }
}

impl SupersededImages {
    /// Adds an image. It gets records if its targets fit beside `targets`.
    fn add(
        &mut self,
        context: &Context<'_>,
        history: &mut [Superseded],
        image: SupersededImage,
        targets: &mut BTreeSet<Digest>,
    ) {
        let position = image.position;
        match reserve(context, &image.image, targets) {
            Ok(true) => self.marked.push(image),
            Ok(false) => {
                self.unmarked.push(image);
                if !is_done(history, position) {
                    self.waiting += 1;
                    let message = "it waits until the marks of other moves are made";
                    let problem = Problem::new(Reason::Progressing, message);
                    conclude(history, position, SupersededState::Pending, Some(&problem));
                }
            }
            Err(problem) => {
                self.has_unread |= !problem.reason.is_stalled();
                conclude(history, position, SupersededState::Failed, Some(&problem));
            }
        }
    }
}

/// Adds the targets of an image to `targets`, and returns whether they fit the limit of a pass.
fn reserve(
    context: &Context<'_>,
    image: &Image,
    targets: &mut BTreeSet<Digest>,
) -> Result<bool, Problem> {
    let limit = context.options.max_targets;
    let selection = &context.request.intent.selection;
    let (chosen, _) = selection
        .choose(image)
        .map_err(|error| Problem::new(error.reason(), format_args!("spec.{error}")))?;
    let own: BTreeSet<Digest> = chosen
        .iter()
        .filter(|chosen| chosen.skip.is_none())
        .map(|chosen| chosen.entry.subject.digest.clone())
        .collect();
    if own.len() > limit {
        let message = format!(
            "spec.targets selects {} manifests of the image, more than {limit}: narrow platforms",
            own.len()
        );
        return Err(Problem::new(Reason::LimitExceeded, message));
    }
    let all: BTreeSet<Digest> = targets.union(&own).cloned().collect();
    let fits = all.len() <= limit;
    if fits {
        *targets = all;
    }
    Ok(fits)
}

/// Returns whether the move at `position` is done.
pub(in crate::engine) fn is_done(history: &[Superseded], position: usize) -> bool {
    history.get(position).is_none_or(supersession::is_done)
}

/// Sets the state of the move at `position`.
pub(in crate::engine) fn conclude(
    history: &mut [Superseded],
    position: usize,
    state: SupersededState,
    problem: Option<&Problem>,
) {
    if let Some(image) = history.get_mut(position) {
        let cause = problem.map(|problem| (problem.reason, problem.message.as_str()));
        supersession::conclude(image, state, cause);
    }
}

/// Sets the state of a move from the records of its image. The move is done when every manifest is marked or in use. `tags` are the tags
/// that were read, by the manifests that they reach; `None` keeps the tag in the history.
pub(in crate::engine) fn conclude_from(
    history: &mut [Superseded],
    image: &SupersededImage,
    records: &[TargetRecord],
    tags: Option<&BTreeMap<Digest, Tag>>,
) {
    let position = image.position;
    let own = || {
        let mut own = records.iter();
        std::iter::from_fn(move || own.find(|record| image.digests.contains(&record.digest)))
    };
    if let Some(record) = own().find(|record| !record.is_done()) {
        let message = record.message.as_deref().unwrap_or("not marked yet");
        let problem = Problem::new(record.reason.unwrap_or(Reason::Progressing), message);
        let state = match record.state {
            TargetState::Pending => SupersededState::Pending,
            TargetState::Planned => SupersededState::Planned,
            _ => SupersededState::Failed,
        };
        conclude(history, position, state, Some(&problem));
    } else if own().any(|record| record.state == TargetState::Attached) {
        conclude(history, position, SupersededState::Attached, None);
    } else if let Some(in_use) = own().find(|record| record.is_in_use()) {
        let before = history.get(position).and_then(|known| known.tag.clone());
        let root = image.image.root().map(|root| &root.subject.digest);
        let tag = match tags {
            Some(tags) => root
                .and_then(|root| tags.get(root))
                .or_else(|| tags.get(&in_use.digest))
                .map(ToString::to_string),
            None => before,
        };
        conclude(history, position, SupersededState::StillInUse, None);
        if let Some(known) = history.get_mut(position) {
            known.tag = tag;
        }
    } else {
        let message = "targets selects nothing of the image";
        let problem = Problem::new(Reason::NoMatchingPlatform, message);
        conclude(
            history,
            position,
            SupersededState::Withdrawn,
            Some(&problem),
        );
    }
}
