//! `affix pin`.

use affix_testbed::registry::Registry;

use super::desk::{BOTH, Desk, code};

#[tokio::test]
async fn a_tag_becomes_a_tag_with_its_digest_and_all_else_stays_as_written() {
    for registry in BOTH {
        let desk = Desk::with(registry).await;
        let (tagged, digest) = (desk.image.tagged(), desk.image.digest());
        let text = format!(
            "# The first line.\napiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata:\n    name: app # why\nspec:\n    \
             image:   '{tagged}'   # followed\n    insecure: true\n    endOfLife: {{date: 2025-03-20}}\n---\napiVersion: v1\nkind: ConfigMap\n\
             metadata: {{name: x}}\n---\napiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: pinned}}\nspec: {{image: \
             {tagged}@{digest}, insecure: true, endOfLife: {{date: \"2025-03-20\"}}}}\n"
        );
        let before = desk.registry.mark().unwrap();
        let pin = desk.affix(&["pin", "-f", "-"], &text).await;
        assert_eq!(code(&pin), 0, "{}{}", pin.out, pin.err);
        assert_eq!(
            pin.out,
            text.replacen(&tagged, &format!("{tagged}@{digest}"), 1)
        );
        let requests = desk.registry.requests_since(before).unwrap();
        assert_eq!(
            requests
                .iter()
                .map(|request| request.method.as_str())
                .collect::<Vec<_>>(),
            ["HEAD"],
            "{requests:?}"
        );
        // What was refused for its bare tag can now be attached.
        assert_eq!(code(&desk.affix(&["attach", "-f", "-"], &text).await), 2);
        assert_eq!(code(&desk.affix(&["attach", "-f", "-"], &pin.out).await), 0);
    }
}

#[tokio::test]
async fn a_tag_that_is_not_there_prints_nothing_and_ends_with_1() {
    let desk = Desk::with(Registry::ociregistry).await;
    let image = desk.image.tagged().replace(":v1", ":v2");
    let text = format!(
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: a}}\nspec: {{image: \"{image}\", insecure: true, artifact: \
         {{artifactType: a/b}}}}\n"
    );
    let pin = desk.affix(&["pin", "-f", "-"], &text).await;
    assert_eq!(code(&pin), 1, "{}{}", pin.out, pin.err);
    assert!(
        pin.out.is_empty() && pin.err.contains("stdin, document 1 (line 1): spec.image: "),
        "{}{}",
        pin.out,
        pin.err
    );
}

#[tokio::test]
async fn what_follows_its_tag_to_mark_what_it_leaves_is_left_as_written_and_said() {
    let desk = Desk::with(Registry::ociregistry).await;
    let (tagged, digest) = (desk.image.tagged(), desk.image.digest());
    let text = format!(
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: follows}}\nspec:\n  image: {tagged} # the tag\n  insecure: \
         true\n  endOfLife: {{whenSuperseded: {{gracePeriod: 720h}}}}\n---\napiVersion: affix.dev/v1alpha1\nkind: \
         ImageAttachment\nmetadata: {{name: dated}}\nspec: {{image: \"{tagged}\", insecure: true, endOfLife: {{date: \
         \"2025-03-20\"}}}}\n"
    );
    let pin = desk.affix(&["pin", "-f", "-"], &text).await;
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
            .contains("stdin, document 1 (line 1): spec.image is left as it is: "),
        "{}",
        pin.err
    );
    assert_eq!(code(&desk.affix(&["plan", "-f", "-"], &pin.out).await), 0);
}
