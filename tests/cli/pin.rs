//! `affix pin`.

use affix_testbed::registry::Registry;

use super::fixture::{BOTH, Fixture, code};

#[tokio::test]
async fn a_tag_gets_its_digest_and_the_rest_of_the_text_stays() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let (tagged, digest) = (fixture.image.tagged(), fixture.image.digest());
        let text = format!(
            "# The first line.\napiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata:\n    name: app # why\nspec:\n    \
             image:   '{tagged}'   # followed\n    insecure: true\n    endOfLife: {{date: 2025-03-20}}\n---\napiVersion: v1\nkind: ConfigMap\n\
             metadata: {{name: x}}\n---\napiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: pinned}}\nspec: {{image: \
             {tagged}@{digest}, insecure: true, endOfLife: {{date: \"2025-03-20\"}}}}\n"
        );
        let before = fixture.registry.mark().unwrap();
        let pin = fixture.affix(&["pin", "-f", "-"], &text).await;
        assert_eq!(code(&pin), 0, "{}{}", pin.out, pin.err);
        assert_eq!(
            pin.out,
            text.replacen(&tagged, &format!("{tagged}@{digest}"), 1)
        );
        let requests = fixture.registry.requests_since(before).unwrap();
        assert_eq!(
            requests
                .iter()
                .map(|request| request.method.as_str())
                .collect::<Vec<_>>(),
            ["HEAD"],
            "{requests:?}"
        );
        // A date needs a digest, so only the pinned resource can be attached.
        assert_eq!(code(&fixture.affix(&["attach", "-f", "-"], &text).await), 2);
        assert_eq!(
            code(&fixture.affix(&["attach", "-f", "-"], &pin.out).await),
            0
        );
    }
}

#[tokio::test]
async fn a_missing_tag_prints_nothing_and_fails() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let image = fixture.image.tagged().replace(":v1", ":v2");
    let text = format!(
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: a}}\nspec: {{image: \"{image}\", insecure: true, artifact: \
         {{artifactType: a/b}}}}\n"
    );
    let pin = fixture.affix(&["pin", "-f", "-"], &text).await;
    assert_eq!(code(&pin), 1, "{}{}", pin.out, pin.err);
    assert!(
        pin.out.is_empty() && pin.err.contains("stdin, document 1 (line 1): spec.image: "),
        "{}{}",
        pin.out,
        pin.err
    );
}

#[tokio::test]
async fn an_image_whose_tag_is_followed_stays() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let (tagged, digest) = (fixture.image.tagged(), fixture.image.digest());
    let text = format!(
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: follows}}\nspec:\n  image: {tagged} # the tag\n  insecure: \
         true\n  endOfLife: {{whenSuperseded: {{gracePeriod: 720h}}}}\n---\napiVersion: affix.dev/v1alpha1\nkind: \
         ImageAttachment\nmetadata: {{name: dated}}\nspec: {{image: \"{tagged}\", insecure: true, endOfLife: {{date: \
         \"2025-03-20\"}}}}\n"
    );
    let pin = fixture.affix(&["pin", "-f", "-"], &text).await;
    assert_eq!(code(&pin), 0, "{}{}", pin.out, pin.err);
    assert_eq!(
        pin.out,
        text.replacen(
            &format!("\"{tagged}\""),
            &format!("\"{tagged}@{digest}\""),
            1
        )
    );
    assert!(
        pin.err
            .contains("stdin, document 1 (line 1): spec.image stays, because "),
        "{}",
        pin.err
    );
    assert_eq!(
        code(&fixture.affix(&["plan", "-f", "-"], &pin.out).await),
        0
    );
}

#[tokio::test]
async fn pin_and_plan_need_no_pull_secret() {
    let fixture =
        Fixture::with(|tools| Registry::distribution(tools).basic("alice", "secret")).await;
    fixture.log_in("alice", "secret");
    let (tagged, digest) = (fixture.image.tagged(), fixture.image.digest());
    for login in ["secretRef: {name: login}", "serviceAccountName: builder"] {
        let text = format!(
            "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: a}}\nspec:\n  image: {tagged}\n  insecure: true\n  \
             {login}\n  artifact: {{artifactType: a/b}}\n"
        );
        let pin = fixture.affix(&["pin", "-f", "-"], &text).await;
        assert_eq!(code(&pin), 0, "{}{}", pin.out, pin.err);
        assert!(
            pin.out.contains(&format!("{tagged}@{digest}")),
            "{}",
            pin.out
        );
        let plan = fixture.affix(&["plan", "-f", "-"], &text).await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        let attach = fixture.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(code(&attach), 2, "{}{}", attach.out, attach.err);
    }
}
