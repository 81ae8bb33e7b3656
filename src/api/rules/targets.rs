//! Rules of `spec.targets`.

use super::pattern::PLATFORM;
use super::{Rule, get, has, has_no_duplicates};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::new(
            &["spec.targets"],
            "!has(self.scope) || self.scope != 'Index' || (!has(self.platforms) && !has(self.excludePlatforms))",
            |targets| {
                get(targets, "scope").is_none_or(|scope| scope != "Index")
                    || (!has(targets, "platforms") && !has(targets, "excludePlatforms"))
            },
            "platforms and excludePlatforms do not go with scope Index, which attaches to the index only; remove them, or use \
             scope All or Platforms",
        ),
        Rule::new(
            &["spec.targets"],
            "!has(self.digests) || !has(self.platforms)",
            |targets| !has(targets, "digests") || !has(targets, "platforms"),
            "digests and platforms do not go together; remove one of the two",
        )
        .not_in_templates(),
        Rule::new(
            &["spec"],
            "!has(self.targets) || !has(self.targets.parents) || !has(self.endOfLife) || !has(self.endOfLife.whenSuperseded)",
            |spec| {
                get(spec, "targets").is_none_or(|targets| !has(targets, "parents"))
                    || get(spec, "endOfLife").is_none_or(|mark| !has(mark, "whenSuperseded"))
            },
            "targets.parents does not go with whenSuperseded: an image that a tagged index holds is in use; remove parents, or set \
             endOfLife.date",
        ),
        Rule::new(
            &["spec.targets.digests"],
            "size(self) >= 1",
            |digests| digests.as_array().is_none_or(|digests| !digests.is_empty()),
            "digests must not be an empty list; remove the field for every manifest",
        ),
        // An empty list could mean all platforms or none.
        Rule::new(
            &["spec.targets.platforms"],
            "size(self) > 0",
            |platforms| {
                platforms
                    .as_array()
                    .is_none_or(|platforms| !platforms.is_empty())
            },
            "platforms must not be an empty list; remove the field for every platform, or use scope Index for the index only",
        ),
        Rule::new(
            &[
                "spec.targets.platforms",
                "spec.targets.excludePlatforms",
                "spec.targets.digests",
                "spec.endOfLife.whenSuperseded.previous",
                "spec.signature.cosign.formats",
                "spec.attestation.fromBuild.predicateTypes",
            ],
            "self.all(x, self.exists_one(y, x == y))",
            has_no_duplicates,
            "an item is listed twice; remove one of the two",
        ),
        Rule::matches(
            &[
                "spec.targets.platforms[]",
                "spec.targets.excludePlatforms[]",
            ],
            &PLATFORM,
            "not a platform: write os[/arch[/variant]][:os.version], for example linux/amd64, linux/arm/v7, */arm64 or \
             windows/amd64:10.0.20348",
        ),
    ]
}
