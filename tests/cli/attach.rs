//! `affix attach` and `affix plan`.

use std::time::Duration;

use affix_testbed::hostile::{HostileRegistry, Location, Quirks};
use affix_testbed::process::Launch;
use affix_testbed::registry::Registry;
use serde_json::{Value, json};

use super::fixture::{BOTH, Fixture, LIFECYCLE, code, mark, resource, short};

#[tokio::test]
async fn scenario_1_is_planned_attached_and_adopted() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let (index, amd64, arm64) = (
            fixture.image.digest(),
            fixture.image.digest_of("linux/amd64").unwrap(),
            fixture.image.digest_of("linux/arm64").unwrap(),
        );
        let text = mark(&fixture.image.pinned()).to_string();

        let plan = fixture.affix(&["plan", "-f", "-"], &text).await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        for line in [
            format!(
                "index        {}  attach              no equal attachment exists",
                short(index)
            ),
            format!(
                "linux/amd64  {}  attach              no equal attachment exists",
                short(amd64)
            ),
            format!(
                "linux/arm64  {}  skip                PlatformNotSelected: spec.targets excludes the platform",
                short(arm64)
            ),
            "AttestationManifest: a build attestation is never a target".to_owned(),
            "2 of 2 targets would be attached".to_owned(),
        ] {
            assert!(plan.out.contains(&line), "{line}\n{}", plan.out);
        }
        for digest in [index, amd64, arm64] {
            assert!(
                fixture.attached(digest).await.is_empty(),
                "the plan changed {digest}"
            );
        }

        let attach = fixture.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
        assert_eq!(
            attach.out.matches("created now").count(),
            2,
            "{}",
            attach.out
        );
        assert!(
            attach
                .err
                .contains(&format!("default/app-v1: linux/amd64 {amd64} Attached")),
            "{}",
            attach.err
        );
        let again = fixture.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(code(&again), 0, "{}{}", again.out, again.err);
        assert_eq!(
            again.out.matches("an equal attachment existed").count(),
            2,
            "{}",
            again.out
        );
        let plan = fixture.affix(&["plan", "-f", "-"], &text).await;
        assert_eq!(
            (code(&plan), plan.out.matches("  adopt  ").count()),
            (0, 2),
            "{}",
            plan.out
        );
        assert!(plan.out.contains("nothing to do"), "{}", plan.out);

        assert_eq!(fixture.attached(index).await, [LIFECYCLE]);
        assert_eq!(fixture.attached(amd64).await, [LIFECYCLE]);
        assert!(fixture.attached(arm64).await.is_empty());
    }
}

#[tokio::test]
async fn a_plan_uses_the_status_of_the_resource() {
    let fixture = Fixture::new().await;
    let (index, amd64) = (
        fixture.image.digest(),
        fixture.image.digest_of("linux/amd64").unwrap(),
    );
    let note = |text: &str| {
        resource(
            "app-v1",
            json!({"image": fixture.image.pinned(), "artifact": {"artifactType": LIFECYCLE, "annotations": {"k": text}}}),
        )
    };
    let attach = fixture
        .affix(
            &["attach", "-f", "-", "-o", "json"],
            &note("one").to_string(),
        )
        .await;
    let mut object: Value = serde_json::from_str(&attach.out).unwrap();
    let attachment = |digest: &str| {
        let targets = object["status"]["targets"].as_array().unwrap();
        targets
            .iter()
            .find(|target| target["digest"] == digest)
            .unwrap()["attachment"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (on_index, on_amd64) = (attachment(index), attachment(amd64));
    let plan = fixture
        .affix(&["plan", "-f", "-"], &object.to_string())
        .await;
    assert_eq!(
        (code(&plan), plan.out.matches("  keep  ").count()),
        (0, 3),
        "{}{}",
        plan.out,
        plan.err
    );

    // The new spec excludes amd64. Unknown fields of the status are ignored.
    object["status"]["news"] = json!(["of a newer version"]);
    object["spec"] = note("two")["spec"].clone();
    object["spec"]["targets"] = json!({"excludePlatforms": ["linux/amd64"]});
    let plan = fixture
        .affix(&["plan", "-f", "-"], &object.to_string())
        .await;
    assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
    let line = |name: &str, digest: &str, attachment: &str| {
        let why = "this resource created it and no longer wants it";
        format!(
            "{name:<11}  {}  remove  {}  {why}",
            short(digest),
            short(attachment)
        )
    };
    for line in [
        line("index", index, &on_index),
        line("linux/amd64", amd64, &on_amd64),
    ] {
        assert!(plan.out.contains(&line), "{line}\n{}", plan.out);
    }
    assert!(
        plan.out
            .contains("2 of 2 targets would be attached; 3 attachments would be removed"),
        "{}",
        plan.out
    );
    let plan = fixture
        .affix(&["plan", "-f", "-", "-o", "json"], &object.to_string())
        .await;
    let planned: Value = serde_json::from_str(&plan.out).unwrap();
    let leftovers = planned["status"]["leftovers"].as_array().unwrap();
    assert_eq!(leftovers.len(), 3, "{planned:#}");
    assert!(
        leftovers
            .iter()
            .all(|leftover| leftover["reason"] == "Planned"),
        "{planned:#}"
    );

    // Another resource has the attachments in its status and would take them over.
    let mut other = object.clone();
    other["metadata"]["name"] = json!("other");
    other["spec"] = note("one")["spec"].clone();
    let plan = fixture
        .affix(&["plan", "-f", "-"], &format!("{object}\n{other}"))
        .await;
    assert!(
        !plan.out.contains("  remove  ") && plan.out.matches("  keep  ").count() == 3,
        "{}{}",
        plan.out,
        plan.err
    );

    // Only a plan reads the status.
    let mut wrong = object.clone();
    wrong["status"] = json!({"observedGeneration": "one", "targets": [{"kind": "Index", "digest": 1, "state": "Gone"}]});
    let plan = fixture
        .affix(&["plan", "-f", "-"], &wrong.to_string())
        .await;
    assert_eq!(code(&plan), 2, "{}{}", plan.out, plan.err);
    for said in [
        "status.observedGeneration: it is \"one\", and must be a whole number",
        "status.targets[0].state: \"Gone\" is not one of",
        "remove the field status",
    ] {
        assert!(plan.err.contains(said), "{said}\n{}", plan.err);
    }
    assert_eq!(
        code(
            &fixture
                .affix(&["attach", "-f", "-"], &wrong.to_string())
                .await
        ),
        0
    );
}

#[tokio::test]
async fn scenario_2_attaches_each_signature_to_its_own_target() {
    let fixture = Fixture::new().await;
    let (index, amd64) = (
        fixture.image.digest(),
        fixture.image.digest_of("linux/amd64").unwrap(),
    );
    let file = |name: &str, target: &str| json!({"name": name, "target": target, "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": name}}});
    let files = [
        file("a1a1.sig", "index"),
        file("b1b1.sig", "linux/amd64"),
        file("c1c1.sig", "linux/arm64"),
    ];
    let artifact = json!({"artifactType": "application/vnd.demo.test.signature", "files": files});
    let signatures = resource(
        "signatures",
        json!({"image": fixture.image.pinned(), "artifact": artifact}),
    );
    fixture.file("config/a.json", &signatures.to_string());
    fixture.file(
        "config/kustomization.yaml",
        "resources: [a.json, sigs.yaml]\n",
    );
    fixture.file("config/README.md", "# not read\n");
    let folder =
        fixture.file("config/sigs.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sigs}\ndata: {a1a1.sig: a, b1b1.sig: b}\n");
    let folder = folder.strip_suffix("/sigs.yaml").unwrap();

    let missing = fixture.affix(&["attach", "-f", folder], "").await;
    assert_eq!(code(&missing), 2, "{}{}", missing.out, missing.err);
    assert!(
        missing
            .err
            .contains("the ConfigMap \"sigs\" has no key \"c1c1.sig\""),
        "{}",
        missing.err
    );
    assert!(
        fixture.attached(index).await.is_empty(),
        "the input is checked before the first push"
    );

    fixture.file(
        "config/sigs.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sigs}\ndata: {a1a1.sig: a, b1b1.sig: b}\nbinaryData: {c1c1.sig: AP8=}\n",
    );
    let before = fixture.files();
    let attach = fixture
        .affix(&["attach", "-o", "json", "-f", folder], "")
        .await;
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
    assert!(
        attach.err.contains("kustomization.yaml, document 1 (line 1): skipped, because apiVersion and kind are missing"),
        "{}",
        attach.err
    );
    let object: Value = serde_json::from_str(&attach.out).unwrap();
    assert_eq!(
        (
            &object["status"]["attached"],
            &object["status"]["referrersMode"]
        ),
        (&json!("3/3"), &json!("API")),
        "{object:#}"
    );
    assert_eq!(object["status"]["conditions"][0]["type"], "Ready");
    assert_eq!(
        (
            &object["status"]["conditions"][0]["status"],
            object["status"]["conditions"].as_array().unwrap().len()
        ),
        (&json!("True"), 3)
    );
    assert_eq!(
        fixture.attached(amd64).await,
        ["application/vnd.demo.test.signature"]
    );
    assert_eq!(
        fixture.files(),
        before,
        "the command writes nothing to disk"
    );
}

#[tokio::test]
async fn a_resource_that_fails_does_not_stop_the_others() {
    let fixture = Fixture::new().await;
    let good = mark(&fixture.image.pinned());
    let note = |name: &str, image: String| {
        resource(
            name,
            json!({"image": image, "artifact": {"artifactType": "application/vnd.x"}}),
        )
    };
    let absent = note("absent", fixture.image.tagged().replace(":v1", ":v2"));
    let platform = {
        let mut spec = note("platform", fixture.image.tagged());
        spec["spec"]["targets"] = json!({"platforms": ["linux/s390x"]});
        spec
    };
    let text = [good, absent, platform]
        .map(|object| object.to_string())
        .join("\n");
    let attach = fixture.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&attach), 1, "{}{}", attach.out, attach.err);
    for said in [
        "3 resources: 1 ok, 2 failed",
        "default/app-v1  ",
        "2 targets attached",
        "default/absent  ",
        "  NotFound: ",
        "  NoMatchingPlatform: ",
        "linux/s390x",
    ] {
        assert!(attach.out.contains(said), "{said}\n{}", attach.out);
    }
    let plan = fixture
        .affix(&["plan", "-f", "-", "-o", "yaml"], &text)
        .await;
    assert_eq!(code(&plan), 1);
    assert_eq!(
        plan.out.matches("kind: ImageAttachment").count(),
        3,
        "{}",
        plan.out
    );
    assert!(
        plan.out.contains("reason: NoMatchingPlatform") && plan.out.contains("\n---\n"),
        "{}",
        plan.out
    );
}

#[tokio::test]
async fn the_login_of_the_user_is_used_if_the_resource_names_none() {
    let fixture =
        Fixture::with(|tools| Registry::distribution(tools).basic("alice", "secret")).await;
    let object = mark(&fixture.image.pinned());
    let text = object.to_string();
    let anonymous = fixture.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&anonymous), 1, "{}{}", anonymous.out, anonymous.err);
    assert!(
        anonymous.out.contains("AuthenticationFailed"),
        "{}",
        anonymous.out
    );

    fixture.log_in("alice", "secret");
    let attach = fixture.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);

    // The Secret of a resource takes precedence over the user's login.
    let mut named = object;
    named["spec"]["secretRef"] = json!({"name": "login"});
    let config =
        json!({"auths": {fixture.registry.host(): {"username": "alice", "password": "wrong"}}})
            .to_string();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {".dockerconfigjson": config}});
    let wrong = fixture
        .affix(&["attach", "-f", "-"], &format!("{named}\n{secret}"))
        .await;
    assert_eq!(code(&wrong), 1, "{}{}", wrong.out, wrong.err);
    assert!(
        wrong.out.contains("AuthenticationFailed")
            && !(wrong.out + &wrong.err).contains("secret\""),
        "a login was shown"
    );

    fixture.file(
        ".docker/config.json",
        &json!({"auths": {fixture.registry.host(): {}}, "credsStore": "desktop"}).to_string(),
    );
    let helper = fixture.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&helper), 1);
    // A helper may ask its user, so it runs once.
    let warnings = helper
        .err
        .matches("docker-credential-desktop is not on the PATH");
    assert_eq!(warnings.count(), 1, "{}", helper.err);
}

#[tokio::test]
async fn a_suspended_resource_and_a_dry_run_push_nothing() {
    let fixture = Fixture::new().await;
    for (field, said) in [
        ("suspend", "Suspended: spec.suspend is set"),
        (
            "dryRun",
            "Planned: dry run: 2 of 2 targets would be attached",
        ),
    ] {
        let mut object = mark(&fixture.image.pinned());
        object["spec"][field] = json!(true);
        let ran = fixture
            .affix(&["attach", "-f", "-"], &object.to_string())
            .await;
        assert_eq!(code(&ran), 1, "{}{}", ran.out, ran.err);
        assert!(ran.out.contains(said), "{}", ran.out);
        assert!(fixture.attached(fixture.image.digest()).await.is_empty());
    }
}

#[tokio::test]
async fn a_signal_stops_the_command_while_a_registry_hangs() {
    let mut fixture = Fixture::new().await;
    let file = fixture.file("mark.json", &mark(&fixture.image.pinned()).to_string());
    fixture.registry.pause();
    let launch = Launch::new(
        "affix",
        env!("CARGO_BIN_EXE_affix"),
        fixture.file("log", ""),
    );
    let mut process = launch
        .args(["attach", "-f", &file])
        .start(&fixture.tools)
        .unwrap();
    let began = |log: &str| log.contains("default/app-v1: attaching").then_some(());
    process
        .wait_for(Duration::from_mins(2), "first line", began)
        .await
        .unwrap();
    let status = process.stop().await.unwrap();
    fixture.registry.resume();
    assert_eq!(status.code(), Some(130), "{status}");
    assert!(
        process
            .log()
            .unwrap()
            .contains("interrupted: run the command again"),
        "{}",
        process.log().unwrap()
    );
}

#[tokio::test]
async fn a_closed_pipe_does_not_hide_a_failure() {
    let fixture = Fixture::new().await;
    let image = fixture.image.tagged().replace(":v1", ":v2");
    let absent = resource(
        "absent",
        json!({"image": image, "artifact": {"artifactType": "application/vnd.x"}}),
    );
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_affix"))
        .args([
            "attach",
            "-f",
            &fixture.file("absent.json", &absent.to_string()),
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(
        tokio::task::spawn_blocking(move || child.wait())
            .await
            .unwrap()
            .unwrap()
            .code(),
        Some(1)
    );
}

#[tokio::test]
async fn a_registry_that_lists_wrong_artifact_types_gets_one_attachment() {
    let fixture = Fixture::with(Registry::liar).await;
    let text = mark(&fixture.image.pinned()).to_string();
    let targets = [
        fixture.image.digest(),
        fixture.image.digest_of("linux/amd64").unwrap(),
    ];
    for said in [
        "created now",
        "an equal attachment existed",
        "an equal attachment existed",
    ] {
        let attach = fixture.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(
            (code(&attach), attach.out.matches(said).count()),
            (0, 2),
            "{}{}",
            attach.out,
            attach.err
        );
        for digest in targets {
            assert_eq!(
                fixture.attached(digest).await,
                ["application/vnd.oci.empty.v1+json"],
                "after {said:?}"
            );
        }
    }
    let tree = fixture
        .affix(&["tree", "--plain-http", &fixture.image.tagged()], "")
        .await;
    assert_eq!(
        tree.out.matches(LIFECYCLE).count(),
        2,
        "{}{}",
        tree.out,
        tree.err
    );

    let removed = fixture.affix(&["detach", "-f", "-", "--yes"], &text).await;
    assert!(
        removed.out.contains("2 attachments removed"),
        "{}{}",
        removed.out,
        removed.err
    );
    for digest in targets {
        assert!(fixture.attached(digest).await.is_empty());
    }
}

#[tokio::test]
async fn t38_an_upload_to_a_store_on_another_port_needs_a_rule_on_a_desk_too() {
    let fixture = Fixture::new().await;
    let registry = HostileRegistry::start().await.unwrap();
    let store = HostileRegistry::builder()
        .store(&registry.store())
        .start()
        .await
        .unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    registry.quirks(|quirks| {
        *quirks = Quirks {
            upload_location: Location::Under(store.url()),
            ..Quirks::distribution()
        }
    });
    let artifact =
        json!({"artifactType": "application/vnd.demo", "files": [{"name": "a", "value": "b"}]});
    let spec = json!({"image": registry.reference(&image.pinned()), "insecure": true, "artifact": artifact});
    let text = resource("store", spec).to_string();
    let refused = fixture.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&refused), 1, "{}{}", refused.out, refused.err);
    let all = format!("{}{}", refused.out, refused.err);
    assert!(
        all.contains("HostNotAllowed") && all.contains("--upload-hosts"),
        "{all}"
    );
    assert_eq!(store.connections(), 0);
    let flags = ["attach", "--upload-hosts", &store.host(), "-f", "-"];
    let attached = fixture.affix(&flags, &text).await;
    assert_eq!(code(&attached), 0, "{}{}", attached.out, attached.err);
}
