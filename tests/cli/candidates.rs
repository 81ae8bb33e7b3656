//! Registries with many referrers of one type, and registries whose listing lags.

use std::time::Duration;

use affix_testbed::hostile::{HostileRegistry, Lag, OciSubject, Quirks};
use serde_json::json;

use super::fixture::{BOTH, Fixture, code, resource};

const SBOM: &str = "application/vnd.demo.sbom";

#[tokio::test]
async fn ten_files_with_one_artifact_type_are_attached_one_after_the_other() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        for nth in 0..10 {
            let file = json!({"name": "sbom.json", "value": format!("{{\"nth\": {nth}}}")});
            let spec = json!({
                "image": fixture.image.pinned(), "targets": {"scope": "Index"},
                "artifact": {"artifactType": SBOM, "files": [file]},
            });
            let text = resource("sbom", spec).to_string();
            let ran = fixture.affix(&["attach", "-f", "-"], &text).await;
            assert_eq!(code(&ran), 0, "file {nth}: {}{}", ran.out, ran.err);
        }
        let attached = fixture.attached(fixture.image.digest()).await;
        assert_eq!(attached, [SBOM; 10]);
    }
}

#[tokio::test]
async fn attach_waits_for_a_listing_that_lags() {
    let fixture = Fixture::new().await;
    let lagging = HostileRegistry::builder()
        .quirks(Quirks {
            oci_subject: OciSubject::Never,
            listing_lag: Lag::time(Duration::from_millis(1500)),
            ..Quirks::default()
        })
        .start()
        .await
        .unwrap();
    let image = lagging
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let spec = json!({
        "image": lagging.reference(&image.name()),
        "artifact": {"artifactType": SBOM, "annotations": {"a": "b"}},
    });
    let text = resource("lagging", spec).to_string();
    let ran = fixture.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&ran), 0, "{}{}", ran.out, ran.err);
    assert_eq!(
        lagging.store().referrers("team/app", &image.digest).len(),
        1
    );
}
