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

#[tokio::test]
async fn update_moves_a_digest_to_the_image_that_the_tag_names_now() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let (tagged, digest) = (fixture.image.tagged(), fixture.image.digest());
    let stale = format!("sha256:{}", "0".repeat(64));
    let repository = tagged.rsplit_once(':').unwrap().0;
    let text = format!(
        "# kept\napiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: a}}\nspec:\n  image: {tagged}@{stale} # why\n  \
         insecure: true\n  artifact: {{artifactType: a/b}}\n---\napiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: \
         b}}\nspec: {{image: \"{repository}@{stale}\", insecure: true, artifact: {{artifactType: a/b}}}}\n"
    );
    let pin = fixture.affix(&["pin", "-f", "-"], &text).await;
    assert_eq!((code(&pin), &pin.out), (0, &text), "{}", pin.err);
    let pin = fixture.affix(&["pin", "--update", "-f", "-"], &text).await;
    assert_eq!(code(&pin), 0, "{}{}", pin.out, pin.err);
    let expected = text.replacen(
        &format!("{tagged}@{stale}"),
        &format!("{tagged}@{digest}"),
        1,
    );
    assert_eq!(pin.out, expected);
    assert!(
        pin.err
            .contains("spec.image stays, because it has the digest"),
        "{}",
        pin.err
    );
}

#[tokio::test]
async fn in_place_writes_only_the_images_of_files_in_all_subfolders() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let (tagged, digest) = (fixture.image.tagged(), fixture.image.digest());
    let resource = format!(
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: NAME}}\nspec:\n    image:   '{tagged}'   # the tag\n    insecure: true\n    \
         artifact: {{artifactType: a/b}}\n"
    );
    let others = "# other documents stay\r\n---\napiVersion: v1\nkind: Service\nmetadata: {name: x}   \n---\n";
    let texts = [
        ("config/a.yaml", format!("{others}{}", resource.replace("NAME", "a"))),
        ("config/deep/b.yml", resource.replace("NAME", "b")),
        ("config/kustomization.yaml", "resources: [a.yaml]\n".to_owned()),
        (
            "config/secret.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: 'ENC[AES256_GCM,data:x]'}\nsops: {version: 3.9.0}\n".to_owned(),
        ),
        ("config/patch.json", "[{\"op\": \"remove\", \"path\": \"/spec\"}]\n".to_owned()),
        ("config/values.yaml", "{{ if .Values.x }}\na: [\n".to_owned()),
    ];
    let paths: Vec<String> = texts
        .iter()
        .map(|(name, text)| fixture.file(name, text))
        .collect();
    let folder = paths[0].strip_suffix("/a.yaml").unwrap();
    let pin = fixture
        .affix(&["pin", "--in-place", "-R", "-f", folder], "")
        .await;
    assert_eq!(code(&pin), 0, "{}{}", pin.out, pin.err);
    assert!(pin.out.is_empty(), "{}", pin.out);
    for (path, (name, text)) in paths.iter().zip(&texts) {
        let expected = text.replace(&tagged, &format!("{tagged}@{digest}"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected, "{name}");
    }
    for name in [
        "kustomization.yaml",
        "secret.yaml",
        "patch.json",
        "values.yaml",
    ] {
        let skipped = pin.err.lines().any(|line| {
            line.starts_with("notice: ") && line.contains(name) && line.contains("skipped")
        });
        assert!(skipped, "{name}: {}", pin.err);
    }
    let again = fixture
        .affix(&["pin", "--in-place", "-R", "-f", folder], "")
        .await;
    assert_eq!(code(&again), 0, "{}{}", again.out, again.err);
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    let files = fixture.files();
    assert!(
        !files
            .iter()
            .any(|file| file.to_string_lossy().contains(".affix-pin")),
        "{files:?}"
    );
    let stdin = fixture
        .affix(&["pin", "--in-place", "-f", "-"], &texts[1].1)
        .await;
    assert_eq!(code(&stdin), 2, "{}{}", stdin.out, stdin.err);
}

#[tokio::test]
async fn a_broken_file_of_affix_in_a_folder_is_an_error() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let good = fixture.file(
        "broken/a.yaml",
        &super::fixture::mark(&fixture.image.pinned()).to_string(),
    );
    for text in [
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {name: [\n",
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachments\nmetadata: {name: a}\n",
    ] {
        fixture.file("broken/b.yaml", text);
        let folder = good.strip_suffix("/a.yaml").unwrap();
        let pin = fixture.affix(&["pin", "-f", folder], "").await;
        assert_eq!(code(&pin), 2, "{}{}", pin.out, pin.err);
        assert!(
            pin.out.is_empty() && pin.err.contains("b.yaml"),
            "{}{}",
            pin.out,
            pin.err
        );
    }
}
