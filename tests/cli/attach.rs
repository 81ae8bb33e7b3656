//! `affix attach` and `affix plan`.

use std::time::Duration;

use affix_testbed::process::Launch;
use affix_testbed::registry::Registry;
use serde_json::{Value, json};

use super::desk::{BOTH, Desk, LIFECYCLE, code, mark, resource, short};

#[tokio::test]
async fn scenario_1_is_planned_attached_once_and_then_adopted() {
    for registry in BOTH {
        let desk = Desk::with(registry).await;
        let (index, amd64, arm64) = (
            desk.image.digest(),
            desk.image.digest_of("linux/amd64").unwrap(),
            desk.image.digest_of("linux/arm64").unwrap(),
        );
        let text = mark(&desk.image.pinned()).to_string();

        let plan = desk.affix(&["plan", "-f", "-"], &text).await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        for line in [
            format!(
                "index        {}  attach              no equal one is there",
                short(index)
            ),
            format!(
                "linux/amd64  {}  attach              no equal one is there",
                short(amd64)
            ),
            format!(
                "linux/arm64  {}  skip                PlatformNotSelected: spec.targets leaves the platform out",
                short(arm64)
            ),
            "AttestationManifest: a build attestation is never a target".to_owned(),
            "2 of 2 targets would be attached".to_owned(),
        ] {
            assert!(plan.out.contains(&line), "{line}\n{}", plan.out);
        }
        for digest in [index, amd64, arm64] {
            assert!(
                desk.attached(digest).await.is_empty(),
                "a plan wrote something to {digest}"
            );
        }

        let attach = desk.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
        assert_eq!(attach.out.matches("made now").count(), 2, "{}", attach.out);
        assert!(
            attach
                .err
                .contains(&format!("default/app-v1: linux/amd64 {amd64} Attached")),
            "{}",
            attach.err
        );
        let again = desk.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(code(&again), 0, "{}{}", again.out, again.err);
        assert_eq!(
            again.out.matches("an equal one was there").count(),
            2,
            "{}",
            again.out
        );
        let plan = desk.affix(&["plan", "-f", "-"], &text).await;
        assert_eq!(
            (code(&plan), plan.out.matches("  adopt  ").count()),
            (0, 2),
            "{}",
            plan.out
        );
        assert!(plan.out.contains("nothing to do"), "{}", plan.out);

        assert_eq!(desk.attached(index).await, [LIFECYCLE]);
        assert_eq!(desk.attached(amd64).await, [LIFECYCLE]);
        assert!(desk.attached(arm64).await.is_empty());
    }
}

#[tokio::test]
async fn a_plan_reads_from_status_what_a_resource_keeps_and_what_it_would_remove() {
    let desk = Desk::new().await;
    let (index, amd64) = (
        desk.image.digest(),
        desk.image.digest_of("linux/amd64").unwrap(),
    );
    let note = |text: &str| {
        resource(
            "app-v1",
            json!({"image": desk.image.pinned(), "artifact": {"artifactType": LIFECYCLE, "annotations": {"k": text}}}),
        )
    };
    let attach = desk
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
    let plan = desk.affix(&["plan", "-f", "-"], &object.to_string()).await;
    assert_eq!(
        (code(&plan), plan.out.matches("  keep  ").count()),
        (0, 3),
        "{}{}",
        plan.out,
        plan.err
    );

    // The spec was changed, and leaves amd64 out. What it knows of a newer affix is passed over.
    object["status"]["news"] = json!(["of a newer affix"]);
    object["spec"] = note("two")["spec"].clone();
    object["spec"]["targets"] = json!({"excludePlatforms": ["linux/amd64"]});
    let plan = desk.affix(&["plan", "-f", "-"], &object.to_string()).await;
    assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
    let line = |name: &str, digest: &str, attachment: &str| {
        let why = "this resource made it, and does not want it any more";
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
    let plan = desk
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

    // Another resource has it in its status, so it would go on as that one's.
    let mut other = object.clone();
    other["metadata"]["name"] = json!("other");
    other["spec"] = note("one")["spec"].clone();
    let plan = desk
        .affix(&["plan", "-f", "-"], &format!("{object}\n{other}"))
        .await;
    assert!(
        !plan.out.contains("  remove  ") && plan.out.matches("  keep  ").count() == 3,
        "{}{}",
        plan.out,
        plan.err
    );

    // Only a plan reads it.
    let mut wrong = object.clone();
    wrong["status"] = json!({"observedGeneration": "one", "targets": [{"kind": "Index", "digest": 1, "state": "Gone"}]});
    let plan = desk.affix(&["plan", "-f", "-"], &wrong.to_string()).await;
    assert_eq!(code(&plan), 2, "{}{}", plan.out, plan.err);
    for said in [
        "status.observedGeneration: it is \"one\", and must be a whole number",
        "status.targets[0].state: \"Gone\" is not one of",
        "without the field status",
    ] {
        assert!(plan.err.contains(said), "{said}\n{}", plan.err);
    }
    assert_eq!(
        code(&desk.affix(&["attach", "-f", "-"], &wrong.to_string()).await),
        0
    );
}

#[tokio::test]
async fn scenario_2_puts_each_signature_on_its_own_target_from_files_and_folders() {
    let desk = Desk::new().await;
    let (index, amd64) = (
        desk.image.digest(),
        desk.image.digest_of("linux/amd64").unwrap(),
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
        json!({"image": desk.image.pinned(), "artifact": artifact}),
    );
    desk.file("config/a.json", &signatures.to_string());
    desk.file(
        "config/kustomization.yaml",
        "resources: [a.json, sigs.yaml]\n",
    );
    desk.file("config/README.md", "# not read\n");
    let folder =
        desk.file("config/sigs.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sigs}\ndata: {a1a1.sig: a, b1b1.sig: b}\n");
    let folder = folder.strip_suffix("/sigs.yaml").unwrap();

    let missing = desk.affix(&["attach", "-f", folder], "").await;
    assert_eq!(code(&missing), 2, "{}{}", missing.out, missing.err);
    assert!(
        missing
            .err
            .contains("the ConfigMap \"sigs\" has no key \"c1c1.sig\""),
        "{}",
        missing.err
    );
    assert!(
        desk.attached(index).await.is_empty(),
        "nothing is pushed before the whole input is known to be good"
    );

    desk.file(
        "config/sigs.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sigs}\ndata: {a1a1.sig: a, b1b1.sig: b}\nbinaryData: {c1c1.sig: AP8=}\n",
    );
    let before = desk.files();
    let attach = desk
        .affix(&["attach", "-o", "json", "-f", folder], "")
        .await;
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
    assert!(
        attach.err.contains("kustomization.yaml, document 1 (line 1): a document without apiVersion and kind is passed over"),
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
        desk.attached(amd64).await,
        ["application/vnd.demo.test.signature"]
    );
    assert_eq!(desk.files(), before, "the command writes nothing to disk");
}

#[tokio::test]
async fn several_resources_go_side_by_side_and_one_that_fails_stops_no_other() {
    let desk = Desk::new().await;
    let good = mark(&desk.image.pinned());
    let note = |name: &str, image: String| {
        resource(
            name,
            json!({"image": image, "artifact": {"artifactType": "application/vnd.x"}}),
        )
    };
    let absent = note("absent", desk.image.tagged().replace(":v1", ":v2"));
    let platform = {
        let mut spec = note("platform", desk.image.tagged());
        spec["spec"]["targets"] = json!({"platforms": ["linux/s390x"]});
        spec
    };
    let text = [good, absent, platform]
        .map(|object| object.to_string())
        .join("\n");
    let attach = desk.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&attach), 1, "{}{}", attach.out, attach.err);
    for said in [
        "default/app-v1  ",
        "2 targets attached",
        "default/absent  ",
        "  NotFound: ",
        "  NoMatchingPlatform: ",
        "linux/s390x",
    ] {
        assert!(attach.out.contains(said), "{said}\n{}", attach.out);
    }
    let plan = desk.affix(&["plan", "-f", "-", "-o", "yaml"], &text).await;
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
async fn the_users_own_login_is_used_where_the_resource_names_none() {
    let desk = Desk::with(|tools| Registry::distribution(tools).basic("alice", "secret")).await;
    let object = mark(&desk.image.pinned());
    let text = object.to_string();
    let anonymous = desk.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&anonymous), 1, "{}{}", anonymous.out, anonymous.err);
    assert!(
        anonymous.out.contains("AuthenticationFailed"),
        "{}",
        anonymous.out
    );

    desk.log_in("alice", "secret");
    let attach = desk.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);

    // A resource that names a Secret gets that one, and not the user's.
    let mut named = object;
    named["spec"]["secretRef"] = json!({"name": "login"});
    let config =
        json!({"auths": {desk.registry.host(): {"username": "alice", "password": "wrong"}}})
            .to_string();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {".dockerconfigjson": config}});
    let wrong = desk
        .affix(&["attach", "-f", "-"], &format!("{named}\n{secret}"))
        .await;
    assert_eq!(code(&wrong), 1, "{}{}", wrong.out, wrong.err);
    assert!(
        wrong.out.contains("AuthenticationFailed")
            && !(wrong.out + &wrong.err).contains("secret\""),
        "a login was shown"
    );

    desk.file(
        ".docker/config.json",
        &json!({"auths": {desk.registry.host(): {}}, "credsStore": "desktop"}).to_string(),
    );
    let helper = desk.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&helper), 1);
    assert!(
        helper
            .err
            .contains("credential helper \"desktop\", which affix does not run"),
        "{}",
        helper.err
    );
}

#[tokio::test]
async fn a_suspended_resource_is_left_alone_and_a_dry_run_writes_nothing() {
    let desk = Desk::new().await;
    for (field, said) in [
        ("suspend", "Suspended: spec.suspend is set"),
        (
            "dryRun",
            "Planned: dry run: 2 of 2 targets would be attached",
        ),
    ] {
        let mut object = mark(&desk.image.pinned());
        object["spec"][field] = json!(true);
        let ran = desk
            .affix(&["attach", "-f", "-"], &object.to_string())
            .await;
        assert_eq!(code(&ran), 1, "{}{}", ran.out, ran.err);
        assert!(ran.out.contains(said), "{}", ran.out);
        assert!(desk.attached(desk.image.digest()).await.is_empty());
    }
}

#[tokio::test]
async fn a_signal_ends_the_command_cleanly_while_a_registry_does_not_answer() {
    let mut desk = Desk::new().await;
    let file = desk.file("mark.json", &mark(&desk.image.pinned()).to_string());
    desk.registry.pause();
    let launch = Launch::new("affix", env!("CARGO_BIN_EXE_affix"), desk.file("log", ""));
    let mut process = launch
        .args(["attach", "-f", &file])
        .start(&desk.tools)
        .unwrap();
    let began = |log: &str| log.contains("default/app-v1: attaching").then_some(());
    process
        .wait_for(Duration::from_mins(2), "first line", began)
        .await
        .unwrap();
    let status = process.stop().await.unwrap();
    desk.registry.resume();
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
async fn a_reader_that_has_seen_enough_does_not_hide_a_failure() {
    let desk = Desk::new().await;
    let image = desk.image.tagged().replace(":v1", ":v2");
    let absent = resource(
        "absent",
        json!({"image": image, "artifact": {"artifactType": "application/vnd.x"}}),
    );
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_affix"))
        .args([
            "attach",
            "-f",
            &desk.file("absent.json", &absent.to_string()),
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
async fn where_every_artifact_is_listed_as_an_empty_config_runs_leave_one_attachment_that_tree_names_and_detach_finds()
 {
    let desk = Desk::with(Registry::liar).await;
    let text = mark(&desk.image.pinned()).to_string();
    let targets = [
        desk.image.digest(),
        desk.image.digest_of("linux/amd64").unwrap(),
    ];
    for said in [
        "made now",
        "an equal one was there",
        "an equal one was there",
    ] {
        let attach = desk.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(
            (code(&attach), attach.out.matches(said).count()),
            (0, 2),
            "{}{}",
            attach.out,
            attach.err
        );
        for digest in targets {
            assert_eq!(
                desk.attached(digest).await,
                ["application/vnd.oci.empty.v1+json"],
                "after {said:?}"
            );
        }
    }
    let tree = desk
        .affix(&["tree", "--plain-http", &desk.image.tagged()], "")
        .await;
    assert_eq!(
        tree.out.matches(LIFECYCLE).count(),
        2,
        "{}{}",
        tree.out,
        tree.err
    );

    let removed = desk.affix(&["detach", "-f", "-", "--yes"], &text).await;
    assert!(
        removed.out.contains("2 attachments removed"),
        "{}{}",
        removed.out,
        removed.err
    );
    for digest in targets {
        assert!(desk.attached(digest).await.is_empty());
    }
}
