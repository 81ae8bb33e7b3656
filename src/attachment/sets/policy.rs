//! The parsed spec of a set.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{ImageAttachmentSetSpec, Keep, Lifecycle, Reason, SetTemplate, TagSelection};
use crate::attachment::supersession::TagFilter;
use crate::attachment::{EndOfLifeDate, Problem, parse_reference};
use affix_registry::glob;
use affix_registry::oci::{Host, Reference, Repository, Tag};

use super::range::{VersionRange, version_of};

/// The parsed spec of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct SetPolicy {
    /// The repositories, in the order of the spec.
    pub repositories: Vec<SetRepository>,
    /// The selection of tags.
    pub tags: TagSelector,
    /// The maximum number of selected tags of a repository.
    pub limit: usize,
    /// True if a tag is resolved once.
    pub immutable: bool,
    /// The lifecycle, if there is one.
    pub lifecycle: Option<LifecyclePolicy>,
    /// The template of the children.
    pub template: SetTemplate,
}

/// A repository of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetRepository {
    /// The repository as in the spec.
    pub name: String,
    /// The registry.
    pub host: Host,
    /// The repository within the registry.
    pub repository: Repository,
}

/// The parsed `spec.tags`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagSelector {
    semver: Option<VersionRange>,
    include: Option<Vec<String>>,
    exclude: Vec<String>,
}

/// The parsed `spec.lifecycle`.
#[derive(Debug, Clone, PartialEq)]
pub struct LifecyclePolicy {
    /// The versions that stay alive.
    pub keep: Keep,
    /// Tags that `keep` never puts out of life.
    pub alive: Vec<String>,
    /// The calendar.
    pub cycles: Vec<(VersionRange, EndOfLifeDate)>,
    /// The time from the end of life to the date of the mark.
    pub grace: Duration,
    /// The time from the end of life to the mark.
    pub settle: Duration,
    /// The tags that keep an image in use although they are not selected.
    pub unless_tagged: TagFilter,
    /// The maximum number of new marks at once.
    pub max_new_marks: usize,
}

impl SetPolicy {
    /// Returns the registries of the repositories.
    pub fn registries(&self) -> impl Iterator<Item = &Host> {
        self.repositories.iter().map(|repository| &repository.host)
    }

    /// Parses a spec.
    ///
    /// # Errors
    /// `InvalidSpec` and `InvalidReference`, with the field, the value and the way out.
    pub fn parse(spec: &ImageAttachmentSetSpec) -> Result<Self, Problem> {
        let repositories: Result<Vec<SetRepository>, Problem> = spec
            .repositories
            .iter()
            .map(|name| repository(name))
            .collect();
        let repositories = repositories?;
        let place = |of: &SetRepository| {
            let host = of.host.api_host().to_ascii_lowercase();
            (host, of.repository.clone())
        };
        let distinct: BTreeSet<_> = repositories.iter().map(place).collect();
        if repositories.is_empty() || distinct.len() < repositories.len() {
            return Err(invalid(
                "spec.repositories: name at least one repository, and each only once",
            ));
        }
        let mark = spec.template.spec.shared().end_of_life.as_ref();
        let is_complete = match (&spec.lifecycle, mark) {
            (Some(_), Some(mark)) => mark.date.is_none() && mark.when_superseded.is_none(),
            (Some(_), None) => false,
            (None, Some(mark)) => mark.date.is_some() && mark.when_superseded.is_none(),
            (None, None) => true,
        };
        if !is_complete {
            return Err(invalid(
                "spec.template.spec.endOfLife: with spec.lifecycle it has neither date nor whenSuperseded; without, it has a date",
            ));
        }
        Ok(Self {
            repositories,
            tags: TagSelector::parse(spec.tags.as_ref())?,
            limit: spec.limit(),
            immutable: spec.immutable(),
            lifecycle: spec
                .lifecycle
                .as_ref()
                .map(LifecyclePolicy::parse)
                .transpose()?,
            template: spec.template.clone(),
        })
    }

    /// Returns whether the digest of a tag matters: the tag is selected, or it keeps its image in use.
    #[must_use]
    pub fn considers(&self, tag: &Tag) -> bool {
        self.tags.selects(tag) || self.keeps_in_use(tag)
    }

    /// Returns whether a tag that is not selected keeps its image in use.
    #[must_use]
    pub fn keeps_in_use(&self, tag: &Tag) -> bool {
        self.lifecycle
            .as_ref()
            .is_some_and(|lifecycle| lifecycle.unless_tagged.counts(tag))
    }

    /// Returns the time for which a vanished tag counts as present.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.lifecycle
            .as_ref()
            .map_or(Lifecycle::DEFAULT_SETTLE, |lifecycle| lifecycle.settle)
    }
}

impl SetRepository {
    /// Returns a reference to the repository, without tag and digest.
    #[must_use]
    pub fn reference(&self) -> Reference {
        Reference {
            host: self.host.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: None,
        }
    }
}

impl TagSelector {
    fn parse(tags: Option<&TagSelection>) -> Result<Self, Problem> {
        let Some(tags) = tags else {
            return Ok(Self::default());
        };
        Ok(Self {
            semver: tags
                .semver
                .as_deref()
                .map(|text| range("spec.tags.semver", text))
                .transpose()?,
            include: tags.include.clone(),
            exclude: tags.exclude.clone().unwrap_or_default(),
        })
    }

    /// Returns whether a tag is selected. Tags that hold referrers or signatures never are.
    #[must_use]
    pub fn selects(&self, tag: &Tag) -> bool {
        let text = tag.as_str();
        let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, text));
        !tag.is_referrers_tag()
            && self.include.as_deref().is_none_or(any)
            && !any(&self.exclude)
            && self
                .semver
                .as_ref()
                .is_none_or(|range| version_of(tag).is_some_and(|version| range.matches(&version)))
    }
}

impl LifecyclePolicy {
    fn parse(lifecycle: &Lifecycle) -> Result<Self, Problem> {
        let cycles = lifecycle.cycles.iter().flatten().enumerate();
        let cycles: Result<Vec<_>, Problem> = cycles
            .map(|(nth, cycle)| {
                let field = format!("spec.lifecycle.cycles[{nth}]");
                let versions = range(&format!("{field}.versions"), &cycle.versions)?;
                let date: EndOfLifeDate = cycle
                    .date
                    .parse()
                    .map_err(|error| invalid(format_args!("{field}.date: {error}")))?;
                Ok((versions, date))
            })
            .collect();
        if lifecycle.keep.is_some() && lifecycle.grace_period.is_none() {
            return Err(invalid("spec.lifecycle.gracePeriod: keep needs it"));
        }
        Ok(Self {
            keep: lifecycle.keep.unwrap_or_default(),
            alive: lifecycle.alive.clone().unwrap_or_default(),
            cycles: cycles?,
            grace: lifecycle.grace_period(),
            settle: lifecycle.settle(),
            unless_tagged: TagFilter::new(lifecycle.unless_tagged()),
            max_new_marks: lifecycle.max_new_marks(),
        })
    }

    /// Returns the date of an image that went out of life at `since`.
    #[must_use]
    pub fn date(&self, since: Timestamp) -> EndOfLifeDate {
        EndOfLifeDate::at(super::after(since, self.grace))
    }

    /// Returns whether what happened at `since` has settled by `now`.
    #[must_use]
    pub fn is_settled(&self, since: Timestamp, now: Timestamp) -> bool {
        super::after(since, self.settle) <= now
    }
}

fn repository(name: &str) -> Result<SetRepository, Problem> {
    // A reference without tag and digest is no image, so that one is added to parse it.
    let reference = parse_reference(&format!("{name}:tag")).ok();
    let reference = reference.filter(|_| !name.contains('@'));
    match reference {
        Some(reference) if reference.name() == name => Ok(SetRepository {
            name: name.to_owned(),
            host: reference.host,
            repository: reference.repository,
        }),
        _ => Err(Problem::new(
            Reason::InvalidReference,
            format_args!(
                "spec.repositories: {name:?} is not a repository: write its registry and its path without a tag or a digest, for example \
                 registry.example.com/team/app"
            ),
        )),
    }
}

fn range(field: &str, text: &str) -> Result<VersionRange, Problem> {
    text.parse()
        .map_err(|error| invalid(format_args!("{field}: {error}")))
}

fn invalid(message: impl std::fmt::Display) -> Problem {
    Problem::new(Reason::InvalidSpec, message)
}
