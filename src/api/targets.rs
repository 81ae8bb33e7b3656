//! `spec.targets`: the manifests of the image that get the attachment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The manifests of the image that get the attachment.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Targets {
    /// All is the index and its platforms, Index the index only, Platforms the platforms only. Default: All.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,

    /// The platforms to attach to, as os[/arch[/variant]][:os.version]; a part may be *, an omitted part matches any. An empty
    /// list is refused. Default: every platform. At most 64. Examples: linux/amd64, linux/arm/v7, windows/amd64:10.0.20348.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub platforms: Option<Vec<String>>,

    /// Platforms to leave out, written as in platforms. Default: none. At most 64. Example: linux/386.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub exclude_platforms: Option<Vec<String>>,

    /// Only these manifests of the image, and the indexes that hold one of them, as far as scope allows. Not with platforms. Default:
    /// every manifest. At least 1, at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(max = 135)))]
    pub digests: Option<Vec<String>>,

    /// Tagged: also attach to every index that a tag of the repository names and that holds the image. The repository may have at most
    /// 500 tags. Not with whenSuperseded. Default: no other index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<Parents>,

    /// The reaction to an image that lacks one of platforms or digests, or where nothing is selected: Fail attaches nothing and
    /// reports it, Ignore attaches to the rest. Default: Fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// The parts of the image that get the attachment.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum Scope {
    /// The index and its platforms.
    #[default]
    All,
    /// The index only.
    Index,
    /// The platforms only.
    Platforms,
}

/// The indexes above the image that get the attachment too.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum Parents {
    /// The indexes that tags of the repository name.
    Tagged,
}

/// The reaction to an index that lacks a requested platform.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum Missing {
    /// Attach nothing, and report it.
    #[default]
    Fail,
    /// Attach to the platforms that exist.
    Ignore,
}

impl Targets {
    /// Returns the parts of the image that get the attachment.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope.unwrap_or_default()
    }

    /// Returns the reaction to an index that lacks a requested platform.
    #[must_use]
    pub fn missing(&self) -> Missing {
        self.missing.unwrap_or_default()
    }

    /// Returns the excluded platforms.
    #[must_use]
    pub fn exclude_platforms(&self) -> &[String] {
        self.exclude_platforms.as_deref().unwrap_or_default()
    }
}
