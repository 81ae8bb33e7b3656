//! Rules of an ImageAttachmentSet. Its template has the rules of an ImageAttachment.

use std::time::Duration;

use serde_json::Value;

use super::duration::{DURATION, is_between, on_durations};
use super::end_of_life::{DATE, TAG_PATTERN};
use super::pattern::Pattern;
use super::{Rule, get, has, has_no_duplicates};

/// A repository: a registry and a path, without tag and digest.
static REPOSITORY: Pattern = Pattern::new(
    r"^([A-Za-z0-9.-]+[.][A-Za-z0-9.-]*(:[0-9]+)?|[A-Za-z0-9.-]+:[0-9]+|localhost|\[[0-9A-Fa-f:.]+\](:[0-9]+)?)(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$",
);

/// A glob of tags.
static GLOB: Pattern = Pattern::new("^[A-Za-z0-9_.*?-]{1,128}$");

/// A version of a range, where parts may be absent or a wildcard.
macro_rules! version {
    () => {
        r"v?([0-9]+|[xX*])(\.([0-9]+|[xX*])){0,2}(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z.-]+)?"
    };
}

/// A comparison, or a range with a hyphen.
macro_rules! comparison {
    () => {
        concat!(
            "((=|!=|>|<|>=|=>|<=|=<|~|~>|\\^)? *",
            version!(),
            "|",
            version!(),
            " +- +",
            version!(),
            ")"
        )
    };
}

/// A range of semantic versions in the syntax of Masterminds/semver: comparisons that must all hold, and `||` between alternatives.
static VERSION_RANGE: Pattern = Pattern::new(concat!(
    "^ *",
    comparison!(),
    "(( +| *, *| *\\|\\| *)",
    comparison!(),
    ")* *$"
));

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = selection();
    rules.extend(lifecycle());
    rules.extend(durations());
    rules.extend(template());
    rules
}

fn selection() -> Vec<Rule> {
    vec![
        Rule::new(
            &["spec.repositories"],
            "size(self) > 0",
            |list| list.as_array().is_none_or(|list| !list.is_empty()),
            "name at least one repository, for example registry.example.com/team/app",
        ),
        Rule::matches(
            &["spec.repositories[]"],
            &REPOSITORY,
            "not a repository: write its registry and its path without a scheme, a tag or a digest, for example \
             registry.example.com/team/app, or docker.io/library/nginx for Docker Hub; tags are selected in spec.tags",
        ),
        Rule::new(
            &[
                "spec.repositories",
                "spec.tags.include",
                "spec.tags.exclude",
                "spec.lifecycle.alive",
            ],
            "self.all(x, self.exists_one(y, x == y))",
            has_no_duplicates,
            "an item is listed twice; remove one of the two",
        ),
        // An empty list could mean all tags or none.
        Rule::new(
            &["spec.tags.include"],
            "self.size() > 0",
            |list| list.as_array().is_none_or(|list| !list.is_empty()),
            "include must not be an empty list; remove the field to select every tag",
        ),
        Rule::matches(
            &[
                "spec.tags.include[]",
                "spec.tags.exclude[]",
                "spec.lifecycle.alive[]",
            ],
            &GLOB,
            "not a pattern of tags: write a tag where * stands for any text and ? for one character, such as v1.*",
        ),
        Rule::matches(
            &["spec.lifecycle.unlessTagged[]"],
            &TAG_PATTERN,
            "not a pattern of tags: write a tag where * stands for any text and ? for one character, such as v1.*, with ! in \
             front to leave tags out",
        ),
        Rule::matches(
            &["spec.tags.semver", "spec.lifecycle.cycles[].versions"],
            &VERSION_RANGE,
            "not a range of semantic versions: write comparisons such as >=1.0.0, ~1.8.0, ^2.1.0 or 1.8.x, with a blank or a comma \
             between those that must all hold and || between alternatives",
        ),
    ]
}

fn lifecycle() -> Vec<Rule> {
    vec![
        Rule::new(
            &["spec.lifecycle"],
            "has(self.keep) || (has(self.cycles) && size(self.cycles) > 0)",
            |lifecycle| {
                has(lifecycle, "keep")
                    || get(lifecycle, "cycles")
                        .and_then(Value::as_array)
                        .is_some_and(|cycles| !cycles.is_empty())
            },
            "set keep, cycles or both: keep counts the versions that stay alive, cycles is a calendar",
        ),
        Rule::new(
            &["spec.lifecycle.keep"],
            "has(self.majors) || has(self.minors) || has(self.patches)",
            |keep| ["majors", "minors", "patches"].iter().any(|level| has(keep, level)),
            "set at least one of majors, minors, patches",
        ),
        Rule::new(
            &["spec.lifecycle"],
            "!has(self.keep) || has(self.gracePeriod)",
            |lifecycle| !has(lifecycle, "keep") || has(lifecycle, "gracePeriod"),
            "keep needs gracePeriod, the time for which an image stays supported after it fell out of keep; for example 720h, or 0s",
        ),
        Rule::matches(
            &["spec.lifecycle.cycles[].date"],
            &DATE,
            "not a date of the calendar in RFC 3339: write a date such as 2026-06-30, which begins at 00:00 UTC, or a date and time such \
             as 2026-06-30T12:00:00Z, with T and Z in upper case",
        ),
        Rule::new(
            &["spec"],
            "!has(self.lifecycle) || has(self.template.spec.endOfLife)",
            |spec| !has(spec, "lifecycle") || mark(spec).is_some(),
            "lifecycle decides which images are marked as out of life, so template.spec must be an endOfLife; for signatures and other \
             artifacts create a set without lifecycle",
        ),
        Rule::new(
            &["spec"],
            "!has(self.lifecycle) || !has(self.template.spec.endOfLife) || !has(self.template.spec.endOfLife.date)",
            |spec| {
                !has(spec, "lifecycle") || mark(spec).is_none_or(|mark| !has(mark, "date"))
            },
            "lifecycle gives each image its date; remove template.spec.endOfLife.date",
        )
        .at(".template.spec.endOfLife.date"),
        Rule::new(
            &["spec"],
            "has(self.lifecycle) || !has(self.template.spec.endOfLife) || has(self.template.spec.endOfLife.date) \
             || has(self.template.spec.endOfLife.whenSuperseded)",
            |spec| {
                has(spec, "lifecycle")
                    || mark(spec).is_none_or(|mark| has(mark, "date") || has(mark, "whenSuperseded"))
            },
            "an endOfLife needs lifecycle, which decides what is out of life and since when, or a date for every selected image",
        )
        .at(".template.spec.endOfLife"),
        Rule::new(
            &["spec.template.spec.endOfLife"],
            "!has(self.whenSuperseded)",
            |mark| !has(mark, "whenSuperseded"),
            "whenSuperseded follows one tag and does not go into a set; use lifecycle, which also marks what a tag leaves behind",
        )
        .at(".whenSuperseded"),
        Rule::new(
            &["spec"],
            "!has(self.lifecycle) || !has(self.template.spec.targets) || !has(self.template.spec.targets.platforms)",
            |spec| {
                !has(spec, "lifecycle")
                    || targets(spec).is_none_or(|targets| !has(targets, "platforms"))
            },
            "lifecycle selects the manifests that nothing alive reaches, which does not go together with platforms; use \
             excludePlatforms",
        )
        .at(".template.spec.targets.platforms"),
    ]
}

fn durations() -> Vec<Rule> {
    vec![
        Rule::matches(
            &[
                "spec.interval",
                "spec.lifecycle.gracePeriod",
                "spec.lifecycle.settle",
            ],
            &DURATION,
            "not a duration: write numbers with a unit of ms, s, m or h, for example 90s, 10m or 1h30m",
        ),
        Rule::new(
            &["spec.lifecycle.gracePeriod", "spec.lifecycle.settle"],
            on_durations("duration(self) <= duration('876000h')"),
            |value| is_between(value, Duration::ZERO),
            "must be at most 876000h (100 years); for example 720h",
        ),
        Rule::new(
            &["spec.interval"],
            on_durations(
                "(duration(self) >= duration('1s') && duration(self) <= duration('876000h'))",
            ),
            |value| is_between(value, Duration::from_secs(1)),
            "must be at least 1s and at most 876000h (100 years); for example 10m",
        ),
    ]
}

fn template() -> Vec<Rule> {
    vec![
        Rule::new(
            &[
                "spec.template.metadata.labels",
                "spec.template.metadata.annotations",
            ],
            "!self.exists(k, k.startsWith('affix.dev/'))",
            |texts| {
                texts
                    .as_object()
                    .is_none_or(|texts| !texts.keys().any(|key| key.starts_with("affix.dev/")))
            },
            "keys that begin with affix.dev/ are written by affix; remove them",
        ),
        Rule::new(
            &[
                "spec.template.metadata.labels",
                "spec.template.metadata.annotations",
            ],
            format!("self.all(k, {})", KEY.expression_on("k")),
            |texts| {
                texts
                    .as_object()
                    .is_none_or(|texts| texts.keys().all(|key| KEY.is_match(key)))
            },
            "not a key of Kubernetes: write a name of at most 63 letters, digits, -, _ and ., with an optional DNS prefix such as \
             example.com/",
        ),
        Rule::new(
            &["spec.template.metadata.labels"],
            format!("self.all(k, {})", LABEL_VALUE.expression_on("self[k]")),
            |labels| {
                labels.as_object().is_none_or(|labels| {
                    labels.values().all(|value| {
                        value
                            .as_str()
                            .is_none_or(|value| LABEL_VALUE.is_match(value))
                    })
                })
            },
            "not a value of a label: write at most 63 letters, digits, -, _ and ., beginning and ending with a letter or digit",
        ),
    ]
}

/// A key of a label or an annotation.
static KEY: Pattern = Pattern::new(
    "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$",
);

/// A value of a label.
static LABEL_VALUE: Pattern = Pattern::new("^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$");

/// Returns `spec.template.spec.endOfLife`.
fn mark(spec: &Value) -> Option<&Value> {
    get(get(get(spec, "template")?, "spec")?, "endOfLife")
}

/// Returns `spec.template.spec.targets`.
fn targets(spec: &Value) -> Option<&Value> {
    get(get(get(spec, "template")?, "spec")?, "targets")
}
