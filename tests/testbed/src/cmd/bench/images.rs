//! The images that are measured with.

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::registry::Registry;

/// The platforms that official images are built for.
pub(super) const PLATFORMS: [&str; 8] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/386",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
];

/// An index of the eight platforms that official images are built for.
pub(super) fn official(seed: &str) -> Index {
    PLATFORMS.iter().fold(Index::new(), |index, platform| {
        index.image(Image::new(platform, seed))
    })
}

/// An index of so many images, each for a platform of its own.
pub(super) fn with_platforms(count: usize, seed: &str) -> Index {
    (0..count).fold(Index::new(), |index, nth| {
        index.image(Image::new(&format!("linux/machine{nth}"), seed))
    })
}

/// Every manifest of an image, the index first.
pub(super) fn manifests(image: &Pushed) -> Vec<String> {
    std::iter::once(image.digest())
        .chain(
            image
                .entries
                .iter()
                .map(|entry| entry.descriptor.digest.as_str()),
        )
        .map(str::to_owned)
        .collect()
}

/// Pushes an image as `v1` into a repository.
pub(super) async fn push(
    index: &Index,
    registry: &Registry,
    repository: &str,
) -> anyhow::Result<Pushed> {
    index.push(&registry.raw()?, repository, "v1").await
}
