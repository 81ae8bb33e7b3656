//! The table of the lifecycle: the release cycles of a repository and their state.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;

use crate::api::{CycleState, CycleStatus};
use crate::attachment::EndOfLifeDate;
use affix_registry::oci::{Digest, Tag};

use super::state::{Life, TagRecord, TagState};

/// The tags of a cycle with their versions.
type CycleTags<'a> = Vec<(&'a Version, &'a Tag, &'a TagRecord)>;

/// Returns the cycles of a repository, the newest first. `dates` are the dates of the images out of life.
pub(super) fn cycles(
    repository: &str,
    state: &TagState,
    dates: &BTreeMap<Digest, EndOfLifeDate>,
) -> Vec<CycleStatus> {
    if !state.has_lifecycle {
        return Vec::new();
    }
    let mut cycles: BTreeMap<(u64, u64), CycleTags<'_>> = BTreeMap::new();
    for (tag, record) in &state.tags {
        if let (Some(version), Some(_), None) = (&record.version, &record.life, record.vanished) {
            let cycle = cycles.entry((version.major, version.minor)).or_default();
            cycle.push((version, tag, record));
        }
    }
    let is_alive = |record: &&TagRecord| matches!(record.life, Some(Life::Alive(_)) | None);
    let alive = state.tags.values().filter(is_alive);
    let alive: BTreeSet<&Digest> = alive.map(|record| &record.digest).collect();
    let status = |((major, minor), tags): ((u64, u64), CycleTags<'_>)| {
        let newest = tags
            .iter()
            .max_by_key(|(version, tag, _)| (*version, *tag))?;
        let state_of = |(_, _, record): &(&Version, &Tag, &TagRecord)| match &record.life {
            Some(Life::Alive(_)) | None => CycleState::Alive,
            Some(Life::Ended(_)) => CycleState::EndOfLife,
            // The most alive of the tags of an image decides.
            Some(Life::Fallen(_)) if alive.contains(&record.digest) => CycleState::Alive,
            Some(Life::Fallen(_)) if dates.contains_key(&record.digest) => CycleState::EndOfLife,
            Some(Life::Fallen(_)) => CycleState::Settling,
        };
        let states: Vec<CycleState> = tags.iter().map(state_of).collect();
        let state = [CycleState::Alive, CycleState::Settling]
            .into_iter()
            .find(|state| states.contains(state))
            .unwrap_or(CycleState::EndOfLife);
        let date = match state {
            CycleState::Alive => tags
                .iter()
                .filter_map(|(_, _, record)| match &record.life {
                    Some(Life::Alive(date)) => date.as_ref(),
                    _ => None,
                })
                .max_by_key(|date| date.instant()),
            CycleState::Settling => None,
            CycleState::EndOfLife => tags
                .iter()
                .filter_map(|(_, _, record)| match &record.life {
                    Some(Life::Ended(date)) => Some(date),
                    _ => dates.get(&record.digest),
                })
                .max_by_key(|date| date.instant()),
        };
        Some(CycleStatus {
            repository: repository.to_owned(),
            cycle: format!("{major}.{minor}"),
            newest: newest.1.to_string(),
            tags: i64::try_from(tags.len()).unwrap_or(i64::MAX),
            state,
            date: date.map(ToString::to_string),
        })
    };
    cycles.into_iter().rev().filter_map(status).collect()
}
