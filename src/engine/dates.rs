//! The dates of moves that status does not know: where marks of an earlier pass are there, theirs. Reads only.
//!
//! A date is fixed once and kept in status. When that is lost, as with a cluster that was restored or a command that keeps none, a
//! date that was counted anew would make a second mark on everything that is marked already.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;

use crate::attachment::supersession::{self, Supersession};
use crate::attachment::{EndOfLifeDate, MOST_CANDIDATES};
use affix_registry::oci::{Digest, annotation};

use super::failure::Failure;
use super::pass::Pass;
use super::supersede::Left;

impl Pass<'_> {
    /// The dates of those `lefts` for which marks are there already, by their place in the history. What is `in_use` is not to be marked,
    /// so it tells nothing.
    pub(super) async fn dates_there<'a>(
        &self,
        wanted: &Supersession,
        lefts: impl Iterator<Item = &'a Left>,
        in_use: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<usize, EndOfLifeDate>, Failure> {
        let moves = lefts.map(|left| async move {
            let chosen = self.request.intent.selection.judge(&left.image);
            let subjects = chosen
                .iter()
                .filter(|chosen| chosen.skip.is_none())
                .map(|chosen| &chosen.entry.subject.digest);
            let looks = subjects
                .filter(|subject| !in_use.contains(*subject))
                .map(|subject| self.date_on(wanted, subject));
            let found = try_join_all(looks).await?;
            Ok::<_, Failure>(
                supersession::date_found(found.into_iter().flatten(), &left.date)
                    .map(|date| (left.nth, date)),
            )
        });
        Ok(try_join_all(moves).await?.into_iter().flatten().collect())
    }

    /// The date of the mark on `subject` that is as affix would write it, whoever made it.
    async fn date_on(
        &self,
        wanted: &Supersession,
        subject: &Digest,
    ) -> Result<Option<EndOfLifeDate>, Failure> {
        let listing = self
            .session
            .referrers(subject, Some(&wanted.artifact_type))
            .await?;
        let mut marks = listing.entries;
        // A registry that lists annotations lists this one, and not all may be read.
        marks.retain(|entry| {
            entry.annotations.is_empty() || entry.annotations.contains_key(&wanted.annotation)
        });
        // What status knows of is of a move that status knows too, and that one has its own date.
        let known = self.request.memory.ours(subject);
        marks.retain(|entry| !known.contains(&entry.digest));
        marks.sort_by(|a, b| {
            b.annotations
                .get(annotation::CREATED)
                .cmp(&a.annotations.get(annotation::CREATED))
        });
        marks.truncate(MOST_CANDIDATES);
        let read = self.read(&marks).await?;
        Ok(wanted.date_among(
            subject,
            read.iter().filter_map(|(_, manifest)| manifest.as_ref()),
            self.now,
        ))
    }
}
