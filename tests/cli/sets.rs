//! Sets without a cluster: `affix plan`, `attach`, `detach` and `pin`.

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::registry::Registry;
use serde_json::{Value, json};

use super::fixture::{BOTH, DATE_KEY, Fixture, LIFECYCLE, code, mark};

const KEY: &str = include_str!("../vectors/signing/cosign/p256.pem");

/// Returns a set over a repository at the registry of the fixture.
fn set(fixture: &Fixture, repository: &str, more: Value) -> Value {
    let mut spec = json!({
        "repositories": [format!("{}/{repository}", fixture.registry.host())],
        "tags": {"semver": ">=1.0.0-0"},
        "lifecycle": {"keep": {"minors": 1}, "gracePeriod": "720h", "settle": "0s"},
        "template": {"spec": {"insecure": true, "endOfLife": {"artifactType": LIFECYCLE, "annotation": DATE_KEY}}}
    });
    let (fields, more) = (spec.as_object_mut().unwrap(), more.as_object().unwrap());
    fields.extend(more.clone());
    fields.retain(|_, value| !value.is_null());
    json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "metadata": {"name": "releases"}, "spec": spec})
}

/// Pushes an image of two platforms, whose parts are named by seeds.
async fn push(fixture: &Fixture, tag: &str, amd64: &str, arm64: &str) -> Pushed {
    let index = Index::new()
        .image(Image::new("linux/amd64", amd64))
        .image(Image::new("linux/arm64", arm64))
        .annotation("version", tag);
    let raw = fixture.registry.raw().unwrap();
    index.push(&raw, "team/app", tag).await.unwrap()
}

async fn marks(fixture: &Fixture, image: &Pushed) -> [usize; 3] {
    let mut counts = [0; 3];
    let digests = [
        image.digest(),
        image.digest_of("linux/amd64").unwrap(),
        image.digest_of("linux/arm64").unwrap(),
    ];
    for (count, digest) in counts.iter_mut().zip(digests) {
        *count = fixture.attached(digest).await.len();
    }
    counts
}

/// Returns the items of an output as JSON of one kind.
fn of_kind<'a>(output: &'a Value, kind: &str) -> Vec<&'a Value> {
    let items = output["items"].as_array();
    let all = items.map_or_else(|| vec![output], |items| items.iter().collect());
    all.into_iter()
        .filter(|item| item["kind"] == kind)
        .collect()
}

#[tokio::test]
async fn a_lifecycle_is_planned_marked_once_and_taken_back() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let old = push(&fixture, "v1.0.0", "b1b1", "c1c1").await;
        let new = push(&fixture, "v1.1.0", "r1r1", "c1c1").await;
        let text = set(
            &fixture,
            "team/app",
            json!({"lifecycle":
            {"keep": {"minors": 1}, "gracePeriod": "720h", "settle": "0s", "unlessTagged": []}}),
        );
        let text = text.to_string();

        let plan = fixture.affix(&["plan", "-f", "-"], &text).await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        for word in [
            "1.1    v1.1.0  1     Alive",
            "1.0    v1.0.0  1     EndOfLife",
            "create",
            "1 images are newly marked",
        ] {
            assert!(plan.out.contains(word), "{word}\n{}", plan.out);
        }
        assert_eq!(
            marks(&fixture, &old).await,
            [0, 0, 0],
            "the plan changed something"
        );

        let attach = fixture
            .affix(&["attach", "-f", "-", "-o", "json"], &text)
            .await;
        assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
        assert_eq!(marks(&fixture, &old).await, [1, 1, 0], "{}", attach.out);
        assert_eq!(marks(&fixture, &new).await, [0, 0, 0]);
        let state = attach.json().unwrap();
        let sets = of_kind(&state, "ImageAttachmentSet");
        assert_eq!(sets[0]["status"]["ready"], "1/1", "{state:#}");
        assert_eq!(
            sets[0]["status"]["repositories"][0]["seen"]["v1.0.0"],
            old.digest()
        );
        let children = of_kind(&state, "ImageAttachment");
        let date = &children[0]["spec"]["endOfLife"]["date"];
        assert_eq!(
            children[0]["metadata"]["annotations"]["affix.dev/tags"],
            "v1.0.0"
        );

        // A run without that state finds the date in the registry, and a run with it keeps it.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        for input in [text.clone(), state.to_string()] {
            let again = fixture
                .affix(&["attach", "-f", "-", "-o", "json"], &input)
                .await;
            assert_eq!(code(&again), 0, "{}{}", again.out, again.err);
            let again = again.json().unwrap();
            let child = of_kind(&again, "ImageAttachment")[0];
            assert_eq!(&child["spec"]["endOfLife"]["date"], date);
            assert_eq!(marks(&fixture, &old).await, [1, 1, 0]);
        }

        // A new tag of the set names the old image: it is back to life.
        let raw = fixture.registry.raw().unwrap();
        let manifest = raw.manifest("team/app", old.digest()).await.unwrap();
        raw.put_manifest(
            "team/app",
            "v1.2.0",
            &old.descriptor.media_type,
            manifest.body.clone(),
        )
        .await
        .unwrap();
        let back = fixture
            .affix(&["attach", "-f", "-"], &state.to_string())
            .await;
        assert!(back.out.contains("withdraw"), "{}{}", back.out, back.err);
        assert_eq!(marks(&fixture, &old).await, [0, 0, 0], "{}", back.out);
    }
}

#[tokio::test]
async fn a_set_signs_every_release_and_detach_removes_the_signatures() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let first = push(&fixture, "v1.0.0", "a", "b").await;
        push(&fixture, "v1.1.0", "c", "d").await;
        let template = json!({"spec": {"insecure": true, "signature": {"cosign": {"keySecretRef": {"name": "key"}}}}});
        let set = set(
            &fixture,
            "team/app",
            json!({"lifecycle": null, "template": template}),
        );
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"},
            "stringData": {"cosign.key": KEY}});
        let file = fixture.file("set.json", &format!("{set}\n{secret}"));

        let plan = fixture
            .affix(&["plan", "-f", &file, "-o", "json"], "")
            .await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        assert_eq!(of_kind(&plan.json().unwrap(), "ImageAttachment").len(), 2);
        let attach = fixture.affix(&["attach", "-f", &file], "").await;
        assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
        assert_eq!(marks(&fixture, &first).await, [1, 1, 1]);
        let detach = fixture.affix(&["detach", "-f", &file, "--yes"], "").await;
        assert_eq!(code(&detach), 0, "{}{}", detach.out, detach.err);
        assert_eq!(marks(&fixture, &first).await, [0, 0, 0], "{}", detach.out);
    }
}

#[tokio::test]
async fn more_new_marks_than_the_limit_need_their_number() {
    let fixture = Fixture::new().await;
    for n in 0..4 {
        push(
            &fixture,
            &format!("v1.{n}.0"),
            &format!("a{n}"),
            &format!("b{n}"),
        )
        .await;
    }
    let lifecycle =
        json!({"keep": {"minors": 1}, "gracePeriod": "0s", "settle": "0s", "maxNewMarks": 2});
    let mut set = set(&fixture, "team/app", json!({"lifecycle": lifecycle}));
    for command in ["plan", "attach"] {
        let held = fixture.affix(&[command, "-f", "-"], &set.to_string()).await;
        assert_eq!(code(&held), 1, "{}{}", held.out, held.err);
        assert!(
            held.out.contains("TooManyMarks: 3 images")
                && held.out.contains("affix.dev/confirm: \"3\""),
            "{}",
            held.out
        );
    }
    set["metadata"]["annotations"] = json!({"affix.dev/confirm": "3"});
    let done = fixture
        .affix(&["attach", "-f", "-"], &set.to_string())
        .await;
    assert_eq!(code(&done), 0, "{}{}", done.out, done.err);
    assert!(done.out.contains("3 resources: 3 ok"), "{}", done.out);
    // The children are in the order of the table.
    let (_, children) = done.out.split_once("CHILD").unwrap();
    let order = ["v1.2.0", "v1.1.0", "v1.0.0"].map(|tag| children.find(tag).unwrap());
    assert!(order.is_sorted(), "{}", done.out);
}

#[tokio::test]
async fn without_a_status_the_settle_time_begins_with_the_run() {
    let fixture = Fixture::with(Registry::distribution).await;
    push(&fixture, "v1.0.0", "a", "b").await;
    push(&fixture, "v1.1.0", "c", "d").await;
    let lifecycle = json!({"keep": {"minors": 1}, "gracePeriod": "720h"});
    let set = set(&fixture, "team/app", json!({"lifecycle": lifecycle})).to_string();
    let attach = fixture.affix(&["attach", "-f", "-"], &set).await;
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
    assert!(attach.out.contains("Settling"), "{}", attach.out);
    assert!(
        attach.err.contains("lifecycle.settle begins with this run"),
        "{}",
        attach.err
    );
    let state = fixture
        .affix(&["plan", "-f", "-", "-o", "json"], &set)
        .await
        .json()
        .unwrap();
    assert!(
        state["status"]["repositories"][0]["outOfLife"]["v1.0.0"].is_string(),
        "{state:#}"
    );
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_fails_alone_and_says_why() {
    let fixture = Fixture::new().await;
    push(&fixture, "v1.0.0", "a", "b").await;
    push(&fixture, "v1.1.0", "c", "d").await;
    let host = fixture.registry.host();
    let repositories = json!([format!("{host}/team/absent"), format!("{host}/team/app")]);
    let set = set(&fixture, "", json!({"repositories": repositories})).to_string();
    let attach = fixture.affix(&["attach", "-f", "-"], &set).await;
    assert_eq!(code(&attach), 1, "{}{}", attach.out, attach.err);
    assert!(attach.out.contains("NotFound"), "{}", attach.out);
    assert!(attach.out.contains("created now"), "{}", attach.out);
}

#[tokio::test]
async fn mistakes_in_a_set_are_bad_input_that_names_the_field() {
    let fixture = Fixture::new().await;
    let before = fixture.registry.mark().unwrap();
    for (more, expected) in [
        (
            json!({"repositories": []}),
            "spec.repositories: name at least one repository",
        ),
        (
            json!({"repositories": ["app"]}),
            "spec.repositories[0]: \"app\": not a repository",
        ),
        (
            json!({"repositories": ["r.example.com/app:v1"]}),
            "tags are selected in spec.tags",
        ),
        (
            json!({"tags": {"semver": ">=latest"}}),
            "spec.tags.semver: \">=latest\": not a range of semantic versions",
        ),
        (
            json!({"tags": {"limit": 0}}),
            "spec.tags.limit: 0 is less than 1",
        ),
        (
            json!({"tags": {"limit": 5000}}),
            "spec.tags.limit: 5000 is more than 4000",
        ),
        (
            json!({"lifecycle": {"gracePeriod": "1h"}}),
            "spec.lifecycle: set keep, cycles or both",
        ),
        (
            json!({"lifecycle": {"keep": {}, "gracePeriod": "1h"}}),
            "spec.lifecycle.keep: set at least one of majors, minors, patches",
        ),
        (
            json!({"lifecycle": {"keep": {"minors": 3}}}),
            "spec.lifecycle: keep needs gracePeriod",
        ),
        (
            json!({"lifecycle": {"cycles": [{"versions": "1.x", "date": "2026-02-30"}]}}),
            "spec.lifecycle.cycles[0].date: \"2026-02-30\": not a date",
        ),
        (
            json!({"lifecycle": null}),
            "spec.template.spec.endOfLife: an endOfLife needs lifecycle",
        ),
        (
            json!({"template": {"spec": {"image": "r.example.com/a:1", "endOfLife": {}}}}),
            "spec.template.spec.image: there is no such field",
        ),
        (
            json!({"template": {"spec": {"endOfLife": {"date": "2026-01-01"}}}}),
            "spec.template.spec.endOfLife.date: lifecycle gives each image its date",
        ),
        (
            json!({"template": {"metadata": {"labels": {"affix.dev/set": "x"}}, "spec": {"endOfLife": {}}}}),
            "are written by affix",
        ),
        (
            json!({"template": {"spec": {"artifact": {"artifactType": "a/b"}}}}),
            "so template.spec must be an endOfLife",
        ),
    ] {
        let refused = fixture
            .affix(
                &["plan", "-f", "-"],
                &set(&fixture, "team/app", more).to_string(),
            )
            .await;
        assert_eq!(
            code(&refused),
            2,
            "{expected}\n{}{}",
            refused.out,
            refused.err
        );
        assert!(
            refused.err.contains(expected),
            "{expected}\n{}",
            refused.err
        );
    }
    let of_lifecycle = set(&fixture, "team/app", json!({})).to_string();
    let detach = fixture
        .affix(&["detach", "-f", "-", "--yes"], &of_lifecycle)
        .await;
    assert_eq!(code(&detach), 2, "{}{}", detach.out, detach.err);
    assert!(
        detach.err.contains("give those with -f instead of the set"),
        "{}",
        detach.err
    );
    assert!(fixture.registry.requests_since(before).unwrap().is_empty());
}

#[tokio::test]
async fn pin_leaves_sets_alone() {
    let fixture = Fixture::new().await;
    let mut resource = mark(&fixture.image.tagged());
    resource["spec"]["endOfLife"] = Value::Null;
    resource["spec"]["artifact"] = json!({"artifactType": "a/b"});
    let text = format!(
        "{}\n---\n{resource}\n",
        set(&fixture, "team/app", json!({}))
    );
    let file = fixture.file("both.yaml", &text);
    let pin = fixture.affix(&["pin", "-f", &file], "").await;
    assert_eq!(code(&pin), 0, "{}{}", pin.out, pin.err);
    let pinned = format!("{}@{}", fixture.image.tagged(), fixture.image.digest());
    assert_eq!(pin.out, text.replace(&fixture.image.tagged(), &pinned));
    assert!(
        pin.err.contains("the set default/releases stays"),
        "{}",
        pin.err
    );
}
