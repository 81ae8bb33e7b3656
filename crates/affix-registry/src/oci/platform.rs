//! Platforms of index entries (image-spec, image-index.md, `platform`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A platform as it is stored in a registry. Absent fields are empty strings.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's notation, for example `amd64`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub architecture: String,
    /// Operating system in Go's notation, for example `linux`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub os: String,
    /// Version of the operating system. Windows images need it.
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Variant of the CPU, for example `v8`.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Maximum length of a platform's field in an image config, in bytes.
const MAX_FIELD_LENGTH: usize = 255;

impl Platform {
    /// Reads the platform from an image config (image-spec, config.md). Returns `None` if the
    /// config states none or a field exceeds 255 bytes. Other fields of the config are not kept.
    #[must_use]
    pub fn from_config(bytes: &[u8]) -> Option<Self> {
        let bytes = super::values::without_bom(bytes);
        // serde_json's error for another JSON type would quote the whole document.
        let is_object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let named: Self = is_object
            .then(|| serde_json::from_slice(bytes).ok())
            .flatten()?;
        let longest = [
            &named.os,
            &named.architecture,
            &named.os_version,
            &named.variant,
        ]
        .map(String::len)
        .into_iter()
        .max();
        (longest <= Some(MAX_FIELD_LENGTH)).then_some(named)
    }

    /// Returns true if neither the operating system nor the architecture is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }

    /// Returns true for `unknown/unknown`, by which BuildKit marks entries that are not images.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// Returns the platform with the names of containerd's package `platforms`. An absent variant
    /// becomes the implied one: v8 for arm64, v7 for arm, v1 for amd64.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let (architecture, variant) = normalise_architecture(&self.architecture, &self.variant);
        let variant = if variant.is_empty() {
            implied_variant(&architecture).to_owned()
        } else {
            variant
        };
        Self {
            architecture,
            os: normalise_os(&self.os),
            os_version: self.os_version.clone(),
            variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        if !self.os_version.is_empty() {
            write!(f, ":{}", self.os_version)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Platform {
    type Err = std::convert::Infallible;

    /// Parses the form that [`Display`](fmt::Display) prints. Missing parts are empty.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, os_version) = text.split_once(':').unwrap_or((text, ""));
        let mut parts = path.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Ok(Self {
            os: next(),
            architecture: next(),
            variant: next(),
            os_version: os_version.to_owned(),
        })
    }
}

pub(super) fn normalise_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// Resolves aliases of architectures. The aliases armhf and armel imply a variant.
pub(super) fn normalise_architecture(architecture: &str, variant: &str) -> (String, String) {
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match architecture.to_ascii_lowercase().as_str() {
        "i386" => ("386".to_owned(), String::new()),
        "x86_64" | "x86-64" => ("amd64".to_owned(), variant),
        "aarch64" => ("arm64".to_owned(), variant),
        "armhf" => ("arm".to_owned(), "v7".to_owned()),
        "armel" => ("arm".to_owned(), "v6".to_owned()),
        other => (other.to_owned(), variant),
    };
    let variant = match (architecture.as_str(), variant.as_str()) {
        ("arm64", "8" | "v8.0" | "8.0") => "v8".to_owned(),
        ("arm64", "9" | "v9.0" | "9.0") => "v9".to_owned(),
        ("arm", short @ ("5" | "6" | "7" | "8")) => format!("v{short}"),
        ("amd64", short @ ("1" | "2" | "3" | "4")) => format!("v{short}"),
        _ => variant,
    };
    (architecture, variant)
}

fn implied_variant(architecture: &str) -> &'static str {
    match architecture {
        "arm64" => "v8",
        "arm" => "v7",
        "amd64" => "v1",
        _ => "",
    }
}
