//! The CEL rules of the schema, each with the message that its user reads.
//!
//! Owns: what the API server refuses, and in which words. Each rule says which field is wrong and what to write instead; rules
//! on lists stand at the items, so that the API server names the one that is wrong. Refuses: what needs more than the resource itself to be judged, and the spelling of
//! a reference past its parts (registry, tag, digest), which the controller reports as `InvalidReference`.
//!
//! No rule compares with null: a rule on a null field is not run, and `has(self.x)` is false where `x` is null and the schema
//! says nullable (`unstructuredMap.Find` in the API server). Every text that a rule reads has a `maxLength`, every list a
//! `maxItems`: the API server estimates the cost of a rule from these, and refuses the whole CRD above its budget.

use kube::core::Rule;

use super::duration::DURATION_PATTERN;

/// An RFC 6838 media type, as OCI 1.1 asks for in artifactType.
const MEDIA_TYPE: &str =
    r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$";

/// A digest of an algorithm that affix computes.
const DIGEST: &str = "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$";

/// `os[/arch[/variant]][:os.version]`, where a part may be `*`.
const PLATFORM: &str = r"^([A-Za-z0-9_.-]{1,64}|\\*)(/([A-Za-z0-9_.-]{1,64}|\\*)){0,2}(:([A-Za-z0-9_.+~-]{0,63}[A-Za-z0-9_+~-]|\\*))?$";

/// A DNS subdomain, as names of Secrets, ConfigMaps and ServiceAccounts are.
const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A registry at the beginning of an image.
const REGISTRY: &str = r"self.matches('^([A-Za-z0-9.-]+[.][A-Za-z0-9.-]*(:[0-9]+)?|[A-Za-z0-9.-]+:[0-9]+|localhost|\\[[0-9A-Fa-f:.]+\\](:[0-9]+)?)/[^/]')";

/// A date of the calendar: months with their lengths, 29 February in leap years only.
const DAY: &str = concat!(
    r"([0-9]{4}-(((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01]))|((0[469]|11)-(0[1-9]|[12][0-9]|30))",
    r"|(02-(0[1-9]|1[0-9]|2[0-8])))",
    r"|(([0-9]{2}(0[48]|[2468][048]|[13579][26]))|((0[048]|[2468][048]|[13579][26])00))-02-29)",
);

/// What makes a date an RFC 3339 date-time. Upper case only: `time.Parse` of Go, by which most readers of marks go, takes no other.
const TIME: &str =
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";

fn rule(rule: &str, message: &str) -> Rule {
    Rule::new(rule).message(message)
}

/// Lists that are meant as sets: no item is there twice.
pub(super) fn no_duplicates() -> Rule {
    rule(
        "self.all(x, self.exists_one(y, x == y))",
        "an item is listed twice; remove one of the two",
    )
}

/// `spec.image`: the registry is named.
pub(super) fn image_names_registry() -> Rule {
    rule(
        REGISTRY,
        "image must begin with the name of its registry, without a scheme: no registry is assumed. Write, for example, \
         registry.example.com/team/app:v1, or docker.io/library/nginx:1.29 for an image of Docker Hub",
    )
}

/// `spec.image`: a tag or a digest. Where no registry is named, that is said first, since what stands where is not known.
pub(super) fn image_has_tag_or_digest() -> Rule {
    Rule::new(format!("!{REGISTRY} || self.matches('@[^@]+$') || self.matches('^[^@]*/[^/@]*:[^/@]+$')"))
        .message("image needs a tag or a digest: write …/app:v1 to follow a tag, or …/app@sha256:… for one digest that never moves")
}

/// `spec`: exactly one kind of attachment.
pub(super) fn exactly_one_kind() -> Rule {
    rule(
        "[has(self.endOfLife), has(self.artifact), has(self.signature)].exists_one(x, x)",
        "set exactly one of endOfLife, artifact, signature; for a second attachment to the same image create another \
         ImageAttachment",
    )
}

/// `spec`: the kind of attachment stays.
pub(super) fn kind_never_changes() -> Rule {
    rule(
        "has(self.endOfLife) == has(oldSelf.endOfLife) && has(self.artifact) == has(oldSelf.artifact) \
         && has(self.signature) == has(oldSelf.signature)",
        "which one of endOfLife, artifact, signature is set never changes; create a new ImageAttachment for the other kind, \
         and delete this one",
    )
}

/// `spec`: an end-of-life date is for one digest.
pub(super) fn date_needs_digest() -> Rule {
    rule(
        "!has(self.endOfLife) || !has(self.endOfLife.date) || has(self.endOfLife.whenSuperseded) || self.image.contains('@')",
        "endOfLife.date needs a digest in image, because a tag may already name the next, good image: write \
         …/app:v1@sha256:… (`affix pin` does it), or use endOfLife.whenSuperseded to follow the tag",
    )
    .field_path(".endOfLife.date")
}

/// `spec`: only a tag can be superseded.
pub(super) fn when_superseded_needs_tag() -> Rule {
    rule(
        "!has(self.endOfLife) || !has(self.endOfLife.whenSuperseded) || has(self.endOfLife.date) || !self.image.contains('@')",
        "endOfLife.whenSuperseded follows a tag, so image needs a tag and no digest: write …/app:v1; for one digest use \
         endOfLife.date",
    )
    .field_path(".endOfLife.whenSuperseded")
}

/// `spec`: files made for one target are made for one digest.
pub(super) fn file_target_needs_digest() -> Rule {
    rule(
        "!has(self.artifact) || !has(self.artifact.files) || self.image.contains('@') \
         || !self.artifact.files.exists(f, has(f.target))",
        "a file with a target needs a digest in image, because a tag may move to an image that the file was not made for: \
         write …/app:v1@sha256:… (`affix pin` does it)",
    )
    .field_path(".artifact.files")
}

/// `targets`: platforms are chosen only where platforms are targets.
pub(super) fn platforms_not_with_scope_index() -> Rule {
    rule(
        "!has(self.scope) || self.scope != 'Index' || (!has(self.platforms) && !has(self.excludePlatforms))",
        "platforms and excludePlatforms do not go with scope Index, which attaches to the index only; remove them, or use \
         scope All or Platforms",
    )
}

/// `targets.platforms`: an empty list could mean all or none.
pub(super) fn platforms_not_empty() -> Rule {
    rule(
        "size(self) > 0",
        "platforms must not be an empty list; remove the field for every platform, or use scope Index for the index only",
    )
}

/// A platform of a list.
pub(super) fn platform() -> Rule {
    Rule::new(format!("self.matches('{PLATFORM}')")).message(
        "not a platform: write os[/arch[/variant]][:os.version], for example linux/amd64, linux/arm/v7, */arm64 or \
         windows/amd64:10.0.20348",
    )
}

/// `endOfLife`: a date now, or one that a move of the tag makes.
pub(super) fn date_or_when_superseded() -> Rule {
    rule(
        "has(self.date) != has(self.whenSuperseded)",
        "set exactly one of date, whenSuperseded: a date marks the digest in image, whenSuperseded marks what the tag leaves \
         behind",
    )
}

/// `endOfLife`: the date stands in one place.
pub(super) fn annotations_leave_the_date_alone() -> Rule {
    rule(
        "!has(self.annotations) || !((has(self.annotation) ? self.annotation : \
         'vnd.microsoft.artifact.lifecycle.end-of-life.date') in self.annotations)",
        "annotations must not hold the end-of-life annotation itself; affix writes it from date or whenSuperseded",
    )
    .field_path(".annotations")
}

/// `endOfLife.date`.
pub(super) fn date() -> Rule {
    Rule::new(format!("self.matches('^{DAY}({TIME})?$')")).message(
        "not a date of the calendar in RFC 3339: write a date and time such as 2025-03-20T01:20:30Z or \
         2025-03-20T01:20:30.5+01:00, with T and Z in upper case, or a date such as 2025-03-20, which begins at 00:00 UTC",
    )
}

/// A digest of a list.
pub(super) fn digest() -> Rule {
    Rule::new(format!("self.matches('{DIGEST}')")).message(
        "not a digest: write sha256: and 64 lower-case hexadecimal digits, or sha512: and 128",
    )
}

/// A glob of tags, of the list `unlessTagged`.
pub(super) fn tag_pattern() -> Rule {
    rule(
        "self.matches('^!?[A-Za-z0-9_.*?-]{1,128}$')",
        "not a pattern of tags: write a tag where * stands for any text and ? for one character, such as v1.*, with ! in \
         front to leave tags out",
    )
}

/// Media types, and artifactType, which is one.
pub(super) fn media_type() -> Rule {
    Rule::new(format!("self.matches('{MEDIA_TYPE}')")).message(
        "not a media type: write type/subtype, for example application/vnd.demo.test.signature",
    )
}

/// An annotation's key.
pub(super) fn annotation_key() -> Rule {
    rule(
        r"self.matches('^[^\\s\\v\\x{85}\\pZ]+$')",
        "not an annotation key: it must not hold white space; write one such as vnd.example.end-of-life.date",
    )
}

/// `endOfLife.annotation`: the time of the mark is another thing than its date.
pub(super) fn annotation_is_not_created() -> Rule {
    rule(
        "self != 'org.opencontainers.image.created'",
        "org.opencontainers.image.created is the time of the mark itself; name another annotation for the date",
    )
}

/// Maps of annotations: the time of creation decides which of two attachments stays, so it must be one. The first and the last days of
/// four digits of years are beyond some clocks.
pub(super) fn created_is_a_time() -> Rule {
    Rule::new(format!(
        "!('org.opencontainers.image.created' in self) || (self['org.opencontainers.image.created'].matches('^{DAY}{TIME}$') && \
         !self['org.opencontainers.image.created'].matches('^(0000-01-01|9999-12-3)'))"
    ))
    .message(
        "the annotation org.opencontainers.image.created must be a date and time in RFC 3339, such as 2025-03-20T01:20:30Z; without it, \
         affix writes the time of the attachment",
    )
}

/// Maps of annotations: the keys.
pub(super) fn annotation_keys() -> Rule {
    rule(
        "self.all(k, size(k) > 0 && size(k) <= 256)",
        "an annotation's key must have 1 to 256 characters",
    )
}

/// `artifact.files[]`: where the bytes come from.
pub(super) fn value_or_value_from() -> Rule {
    rule(
        "has(self.value) != has(self.valueFrom)",
        "set exactly one of value, valueFrom in each file",
    )
}

/// `artifact.files[].name`: a file name that no reader refuses to write, or writes outside of its folder.
pub(super) fn file_name() -> Rule {
    rule(
        r"self.matches('^[^/\\\\:\\x00-\\x1f\\x7f-\\x{9f}]+$') && !self.matches('^[.][.]?$')",
        "not a file name: whoever pulls the artifact writes the layer under this name, so it must be bare: without a folder (/), backslashes, \
         colons and control characters, and neither . nor .., for example b1b1.sig",
    )
}

/// `artifact.files[].name`: file systems count bytes.
pub(super) fn file_name_fits() -> Rule {
    rule(
        "size(bytes(self)) <= 255",
        "too long for a file name: at most 255 bytes in UTF-8",
    )
}

/// `artifact.files[].target`. A digest, also one of an unknown algorithm, is no platform with an os.version.
pub(super) fn file_target() -> Rule {
    Rule::new(format!(
        "self == 'index' || self.matches('{DIGEST}') || \
         (!self.matches('^sha(256|512):|^[^:]*:[0-9A-Fa-f]{{32,}}$') && self.matches('{PLATFORM}'))"
    ))
    .message(
        "target must be index, a platform such as linux/amd64, or a whole digest (sha256: and 64 lower-case hexadecimal \
         digits); remove it to give the file to every target",
    )
}

/// `artifact.files`: two layers of one manifest have two names. Whether two different patterns of platforms overlap is more than a rule
/// can tell: the controller reports it as `InvalidSpec`, and the webhook refuses it.
pub(super) fn file_names_differ() -> Rule {
    rule(
        "self.all(f, self.exists_one(g, g.name == f.name && (!has(g.target) || !has(f.target) || g.target == f.target)))",
        "two files of the same target have the same name, and a file without a target goes to every target; give each its own name, \
         or targets that differ",
    )
}

/// `signature`: one key, one format.
pub(super) fn cosign_or_notation() -> Rule {
    rule(
        "has(self.cosign) != has(self.notation)",
        "set exactly one of cosign, notation; to sign with both create two ImageAttachments",
    )
}

/// Names of Secrets, ConfigMaps and ServiceAccounts.
pub(super) fn object_name() -> Rule {
    Rule::new(format!("self.matches('{OBJECT_NAME}')")).message(
        "not a name of an object: write lower-case letters, digits, - and ., beginning and ending with a letter or digit; \
         an object of another namespace cannot be used",
    )
}

/// Keys of ConfigMaps.
pub(super) fn config_map_key() -> Rule {
    rule(
        "self.matches('^[-._A-Za-z0-9]+$')",
        "not a key of a ConfigMap: write letters, digits, -, _ and . only",
    )
}

/// Durations: the pattern once more, in words.
pub(super) fn duration() -> Rule {
    Rule::new(format!(
        "self.matches('{}')",
        DURATION_PATTERN.replace('\\', r"\\")
    ))
    .message(
        "not a duration: write numbers with a unit of ms, s, m or h, for example 90s, 10m or 1h30m",
    )
}

/// Durations that may be nothing at all. The limit keeps a date that is computed from one within the years that RFC 3339 has.
pub(super) fn at_most_a_century() -> Rule {
    duration_where(
        "duration(self) <= duration('876000h')",
        "must be at most 876000h (100 years); for example 720h",
    )
}

/// Durations that must not make a busy loop.
pub(super) fn at_least_one_second() -> Rule {
    duration_where(
        "(duration(self) >= duration('1s') && duration(self) <= duration('876000h'))",
        "must be at least 1s and at most 876000h (100 years); for example 10m",
    )
}

/// A rule on the value of a duration, which holds for what is none: that is said once.
fn duration_where(condition: &str, message: &str) -> Rule {
    Rule::new(format!("!({}) || {condition}", duration().rule)).message(message)
}
