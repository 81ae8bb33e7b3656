//! The choice of files for each target.

use affix_testbed::hostile::HostileRegistry;
use serde_json::json;

use crate::resource::{Resource, TYPE};

#[tokio::test]
async fn a_file_for_the_index_goes_to_every_index_and_one_for_a_digest_to_one_target() {
    let registry = HostileRegistry::start().await.unwrap();
    let inner = registry
        .image("team/app", "inner")
        .platform("linux/arm64")
        .push();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .entry(&inner.descriptor())
        .push();
    let file = |name: &str, target: &str| json!({"name": name, "target": target, "value": name});
    let files = [
        file("a", "index"),
        file("b", "linux/amd64"),
        file("c", "linux/arm64"),
        file("n", &inner.digest),
    ];
    let spec = json!({"image": registry.reference(&image.pinned()), "artifact": {"artifactType": TYPE, "files": files}});
    let mut resource = Resource::new(spec);
    resource.ready().await;
    assert_eq!(
        resource.rows(),
        [
            "index Attached -",
            "linux/amd64 Attached -",
            "index Attached -",
            "linux/arm64 Attached -"
        ]
    );
    for (digest, expected) in [
        (image.digest.as_str(), &["a"][..]),
        (image.platform("linux/amd64"), &["b"]),
        (&inner.digest, &["a", "n"]),
        (inner.platform("linux/arm64"), &["c"]),
    ] {
        let attached = registry
            .store()
            .manifest("team/app", resource.attachment(digest))
            .unwrap()
            .json();
        let layers = attached["layers"].as_array().unwrap().iter();
        let titles: Vec<&str> = layers
            .map(|layer| {
                layer["annotations"]["org.opencontainers.image.title"]
                    .as_str()
                    .unwrap()
            })
            .collect();
        assert_eq!(titles, expected);
    }
    assert_eq!(
        resource.look().await.requests,
        0,
        "the fast path distinguishes nested indexes from platforms"
    );
}
