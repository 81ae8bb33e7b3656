//! `endOfLife.statement`: a signed statement beside each mark. The real cosign verifies the statements, and Kyverno enforces their dates.

use affix::api::{Origin, Reason, TargetState};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cosign::{PASSWORD, cosign, key_pair};
use crate::judges::{documented, kyverno_apply, with_key};
use crate::runner::{Crash, Fixture, Runner};

const MARK: &str = "application/vnd.microsoft.artifact.lifecycle";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PREDICATE: &str = "https://docs.oasis-open.org/openeox/eox-core/v1.0";
const DATE: &str = "2025-03-20";

/// Returns the spec of marks with statements on the index and both platforms.
fn spec(fixture: &Fixture, date: &str) -> Value {
    let statement = json!({"cosign": {"keySecretRef": {"name": "key"}}});
    let wanted = json!({"targets": {}, "endOfLife": {"date": date, "statement": statement}});
    fixture.spec(&fixture.image.pinned(), &wanted)
}

fn runner(fixture: &Fixture, key: &[u8]) -> Runner {
    let files: [(&str, &[u8]); 2] = [
        ("cosign.key", key),
        ("cosign.password", PASSWORD.as_bytes()),
    ];
    Runner::new(fixture, &spec(fixture, DATE), &[("key", &files)])
}

/// Returns the digests of the index and both platforms.
fn subjects(fixture: &Fixture) -> Vec<String> {
    let [index, amd64] = fixture.signed();
    vec![index, amd64, fixture.unsigned()]
}

/// Runs `cosign verify-attestation` and returns the predicates.
async fn verified(fixture: &Fixture, key: &str, digest: &str) -> Result<Vec<Value>, String> {
    let (key, image) = (format!("{key}.pub"), fixture.image.at(digest));
    let args = [
        "verify-attestation",
        "--key",
        &key,
        "--insecure-ignore-tlog",
        "--type",
        PREDICATE,
        &image,
    ];
    let text = cosign(fixture, &args).await?;
    let envelopes = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    Ok(envelopes
        .map(|envelope| {
            let payload = STANDARD.decode(envelope.unwrap()["payload"].as_str().unwrap());
            let statement: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
            let hex = digest.strip_prefix("sha256:").unwrap();
            assert_eq!(statement["subject"][0]["digest"]["sha256"], hex);
            statement["predicate"].clone()
        })
        .collect())
}

/// Returns the numbers of marks and bundles on each target.
async fn counts(fixture: &Fixture) -> Vec<(usize, usize)> {
    let mut counts = Vec::new();
    for subject in subjects(fixture) {
        let marks = fixture.listed(&subject, MARK).await.len();
        counts.push((marks, fixture.listed(&subject, BUNDLE).await.len()));
    }
    counts
}

/// Returns the time of the mark on a target.
fn created(runner: &Runner, digest: &str) -> String {
    let row = (runner.status.targets.iter()).find(|row| row.digest == *digest);
    let created = row.unwrap().created.clone().unwrap().0;
    created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[tokio::test]
async fn cosign_verifies_the_statement_on_the_index_and_each_platform() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let mut runner = runner(&fixture, &key);
        let outcome = runner.ready().await;
        assert_eq!(outcome.attached().as_deref(), Some("3/3"));
        for digest in subjects(&fixture) {
            let document = json!({
                "$schema": "https://docs.oasis-open.org/openeox/eox-core/v1.0/schema/core.json",
                "end_of_life": "2025-03-20T00:00:00Z",
                "end_of_security_support": "2025-03-20T00:00:00Z",
                "last_updated": created(&runner, &digest),
            });
            let found = verified(&fixture, "cosign", &digest).await.unwrap();
            assert_eq!(found, [document]);
            let row = (runner.status.targets.iter()).find(|row| row.digest == digest);
            let [mark, statement] = row.unwrap().formats.as_slice() else {
                panic!("{row:#?}")
            };
            assert_eq!(
                (mark.state, statement.state, statement.origin),
                (
                    TargetState::Attached,
                    TargetState::Attached,
                    Some(Origin::Made)
                )
            );
            let listed = fixture.listed(&digest, BUNDLE).await;
            assert_eq!(statement.reference.as_ref(), listed.first());
        }
        assert!(
            fixture
                .listed(&fixture.attestation(), BUNDLE)
                .await
                .is_empty()
        );
        for _ in 0..3 {
            runner.advance(60);
            runner.ready().await;
        }
        assert_eq!(counts(&fixture).await, [(1, 1); 3]);
        // A resource without status finds both.
        let mut restored = crate::lifecycle::runner(&fixture, &key);
        restored.ready().await;
        let origins = restored
            .status
            .targets
            .iter()
            .filter(|row| row.state == TargetState::Attached);
        for row in origins {
            assert_eq!(row.formats[1].origin, Some(Origin::Adopted), "{row:#?}");
        }
        assert_eq!(counts(&fixture).await, [(1, 1); 3]);
    }
}

#[tokio::test]
async fn a_new_date_replaces_the_mark_and_the_statement() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let mut runner = runner(&fixture, &key);
        runner.ready().await;
        // Back to the first date: both are made again.
        for date in ["2026-01-01", DATE] {
            runner.advance(60);
            runner.change_spec(&spec(&fixture, date));
            runner.ready().await;
            assert!(runner.status.leftovers.is_empty(), "{:#?}", runner.status);
            assert_eq!(counts(&fixture).await, [(1, 1); 3]);
            for digest in subjects(&fixture) {
                let found = verified(&fixture, "cosign", &digest).await.unwrap();
                assert_eq!(found[0]["end_of_life"], format!("{date}T00:00:00Z"));
                assert_eq!(found[0]["last_updated"], created(&runner, &digest));
            }
        }
    }
}

#[tokio::test]
async fn a_rotated_key_signs_the_statements_again_and_keeps_the_marks() {
    for fixture in Fixture::both().await {
        let old = key_pair(&fixture, "old").await;
        let new = key_pair(&fixture, "new").await;
        let mut runner = runner(&fixture, &old);
        runner.ready().await;
        let marks = runner.attachments();
        runner.replace_secret(
            "key",
            &[
                ("cosign.key", &new),
                ("cosign.password", PASSWORD.as_bytes()),
            ],
        );
        runner.advance(60);
        // The pass after an interval detects the other key.
        let outcome = runner.interval_pass().await;
        assert!(outcome.verdict.ready, "{:#?}", runner.status);
        assert_eq!(runner.attachments(), marks);
        assert_eq!(counts(&fixture).await, [(1, 1); 3]);
        for digest in subjects(&fixture) {
            verified(&fixture, "new", &digest).await.unwrap();
            verified(&fixture, "old", &digest).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_lost_mark_or_statement_is_put_back() {
    let fixture = Fixture::both().await.remove(0);
    let key = key_pair(&fixture, "cosign").await;
    let mut runner = runner(&fixture, &key);
    runner.ready().await;
    let raw = fixture.registry.raw().unwrap();
    for kind in [MARK, BUNDLE] {
        let lost = fixture.listed(fixture.image.digest(), kind).await;
        raw.delete_manifest("team/app", &lost[0])
            .await
            .unwrap()
            .ok()
            .unwrap();
        runner.advance(60);
        let outcome = runner.ready().await;
        let restored = outcome
            .notes
            .iter()
            .any(|note| note.reason == Reason::Restored);
        assert!(restored, "{kind}: {:#?}", outcome.notes);
        assert_eq!(counts(&fixture).await, [(1, 1); 3], "{kind}");
        let found = verified(&fixture, "cosign", fixture.image.digest()).await;
        let updated = created(&runner, fixture.image.digest());
        assert_eq!(found.unwrap()[0]["last_updated"], updated);
    }
}

#[tokio::test]
async fn a_crash_leaves_one_mark_and_one_statement() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        for (nth, crash) in [Crash::BeforePush, Crash::AfterPush]
            .into_iter()
            .enumerate()
        {
            let mut runner = runner(&fixture, &key);
            runner.advance(60 * nth as i64);
            runner.change_spec(&spec(&fixture, &format!("203{nth}-01-01")));
            runner.pass_with(true, crash).await;
            runner.advance(60);
            runner.ready().await;
            assert!(runner.status.leftovers.is_empty(), "{:#?}", runner.status);
            let both = (1 + nth, 1 + nth);
            assert_eq!(counts(&fixture).await, [both; 3]);
        }
    }
}

#[tokio::test]
async fn a_conflict_keeps_mark_and_statement_in_step() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let mut runner = runner(&fixture, &key);
        runner.ready().await;
        runner.advance(3600);
        // Someone else marks the index with another date.
        let annotations = [
            "vnd.microsoft.artifact.lifecycle.end-of-life.date=2040-01-01".to_owned(),
            format!(
                "org.opencontainers.image.created={}",
                runner.now.strftime("%FT%TZ")
            ),
        ];
        let image = fixture.image.pinned();
        let args = [
            "attach",
            "--artifact-type",
            MARK,
            "--annotation",
            &annotations[0],
            "--annotation",
            &annotations[1],
            &image,
        ];
        fixture.peer.oras(args).await.unwrap().stdout().unwrap();
        let before = verified(&fixture, "cosign", fixture.image.digest())
            .await
            .unwrap();
        runner.advance(60);
        let (reason, message) = runner.refused().await;
        assert_eq!(reason, "PartiallyAttached", "{message}");
        let conflict = &runner.status.targets[0];
        assert_eq!(
            conflict.reason.as_deref(),
            Some("Conflict"),
            "{conflict:#?}"
        );
        let after = verified(&fixture, "cosign", fixture.image.digest())
            .await
            .unwrap();
        assert_eq!(after, before);

        let mut supersede = spec(&fixture, DATE);
        supersede["endOfLife"]["onConflict"] = json!("Supersede");
        runner.advance(60);
        runner.change_spec(&supersede);
        runner.ready().await;
        assert_eq!(counts(&fixture).await, [(2, 1), (1, 1), (1, 1)]);
        let after = verified(&fixture, "cosign", fixture.image.digest())
            .await
            .unwrap();
        assert_ne!(after, before);
        assert_eq!(
            after[0]["last_updated"],
            created(&runner, fixture.image.digest())
        );
    }
}

#[tokio::test]
async fn the_statement_goes_with_its_field_and_with_the_resource() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let mut runner = runner(&fixture, &key);
        runner.ready().await;
        let marks = runner.attachments();
        let mut plain = spec(&fixture, DATE);
        plain["endOfLife"]
            .as_object_mut()
            .unwrap()
            .remove("statement");
        runner.advance(60);
        runner.change_spec(&plain);
        runner.ready().await;
        assert_eq!(runner.attachments(), marks);
        assert_eq!(counts(&fixture).await, [(1, 0); 3]);
        runner.advance(60);
        runner.change_spec(&spec(&fixture, DATE));
        runner.ready().await;
        assert_eq!(counts(&fixture).await, [(1, 1); 3]);
        runner.delete().await;
        assert_eq!(counts(&fixture).await, [(0, 0); 3]);
    }
}

#[tokio::test]
async fn an_unusable_key_prevents_the_mark_too() {
    let fixture = Fixture::both().await.remove(0);
    let mut runner = runner(&fixture, b"canary");
    let (reason, message) = runner.refused().await;
    assert_eq!(reason, "KeyInvalid");
    assert!(
        message.contains("spec.endOfLife.statement.cosign.keySecretRef"),
        "{message}"
    );
    assert!(!message.contains("canary"), "{message}");
    assert_eq!(counts(&fixture).await, [(0, 0); 3]);
}

/// Runs a subcommand of affix on resources from standard input.
async fn affix(peer: &Peer, command: &[&str], resources: &[Value]) -> affix_testbed::run::Ran {
    let resources: Vec<String> = resources.iter().map(Value::to_string).collect();
    Run::new(env!("CARGO_BIN_EXE_affix"))
        .args(command.iter().copied())
        .args(["-f", "-"])
        .env("DOCKER_CONFIG", peer.file(""))
        .input(resources.join("\n---\n"))
        .output()
        .await
        .unwrap()
}

fn secret(peer: &Peer, name: &str) -> Value {
    let key = std::fs::read_to_string(peer.file(&format!("{name}.key"))).unwrap();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"cosign.key": key, "cosign.password": PASSWORD},
    })
}

fn resource(name: &str, image: &Pushed, key: &str, date: &str) -> Value {
    let statement = json!({"cosign": {"keySecretRef": {"name": key}}});
    json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name},
        "spec": {"image": image.pinned(), "insecure": true, "endOfLife": {"date": date, "statement": statement}},
    })
}

#[tokio::test]
async fn the_command_attaches_shows_and_detaches_statements() {
    for fixture in Fixture::both().await {
        key_pair(&fixture, "cosign").await;
        let objects = [
            secret(&fixture.peer, "cosign"),
            resource("app", &fixture.image, "cosign", DATE),
        ];
        let peer = &fixture.peer;
        let plan = affix(peer, &["plan"], &objects[1..]).await;
        assert!(
            plan.out.contains("without the key"),
            "{}{}",
            plan.out,
            plan.err
        );
        affix(peer, &["plan"], &objects).await.stdout().unwrap();
        assert_eq!(counts(&fixture).await, [(0, 0); 3]);
        affix(peer, &["attach"], &objects).await.stdout().unwrap();
        affix(peer, &["attach"], &objects).await.stdout().unwrap();
        assert_eq!(counts(&fixture).await, [(1, 1); 3]);
        for digest in subjects(&fixture) {
            verified(&fixture, "cosign", &digest).await.unwrap();
        }
        let tree = Run::new(env!("CARGO_BIN_EXE_affix"))
            .args(["tree", "--plain-http", &fixture.image.pinned()])
            .env("DOCKER_CONFIG", peer.file(""));
        let tree = tree.output().await.unwrap().stdout().unwrap();
        assert_eq!(tree.matches(PREDICATE).count(), 3, "{tree}");
        affix(peer, &["detach", "--yes"], &objects)
            .await
            .stdout()
            .unwrap();
        assert_eq!(counts(&fixture).await, [(0, 0); 3]);
    }
}

#[tokio::test]
#[ignore = "needs Kyverno, which takes minutes to build"]
async fn kyverno_refuses_a_passed_date_of_the_key_and_admits_all_else() {
    let tools = Tools::with(&[Tool::Cosign, Tool::Kyverno]).await.unwrap();
    for options in [Registry::ociregistry, Registry::distribution] {
        let registry = options(&tools).basic("ci", "secret").start().await.unwrap();
        let peer = Peer::of(&tools, &registry).unwrap();
        for name in ["release", "other"] {
            let args = ["generate-key-pair", "--output-key-prefix", name];
            let run = peer.run(Tool::Cosign).unwrap().args(args);
            run.env("COSIGN_PASSWORD", PASSWORD)
                .output()
                .await
                .unwrap()
                .stdout()
                .unwrap();
        }
        let mut objects = vec![secret(&peer, "release"), secret(&peer, "other")];
        let mut images = Vec::new();
        for (name, key, date) in [
            ("passed", "release", "2025-03-20T01:20:30Z"),
            ("ahead", "release", "9998-12-31"),
            ("foreign", "other", "2025-03-20"),
            ("unmarked", "", ""),
        ] {
            let index = Index::new().image(Image::new("linux/amd64", name));
            let index = index.image(Image::new("linux/arm64", name));
            let repository = format!("team/{name}");
            let image = index
                .push(&registry.raw().unwrap(), &repository, "v1")
                .await
                .unwrap();
            if !key.is_empty() {
                objects.push(resource(name, &image, key, date));
            }
            images.push(image.tagged());
        }
        affix(&peer, &["attach"], &objects).await.stdout().unwrap();
        let pem = std::fs::read_to_string(peer.file("release.pub")).unwrap();
        let policy = documented("kyverno-end-of-life.yaml").replace(
            "registry.example.com/team",
            &format!("{}/team", registry.host()),
        );
        let file = peer.file("policy.yaml");
        std::fs::write(&file, with_key(&policy, &pem)).unwrap();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        let answers = kyverno_apply(&peer, &images, &[file]).await;
        let [passed, others @ ..] = answers.as_slice() else {
            unreachable!("four answers")
        };
        let refusal = passed.as_ref().unwrap_err();
        assert!(
            refusal.contains("the image has reached its end of life"),
            "{refusal}"
        );
        assert!(others.iter().all(Result::is_ok), "{answers:#?}");
    }
}
