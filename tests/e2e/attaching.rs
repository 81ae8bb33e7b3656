//! The main job: what is applied is attached, and what others see is what status names.

use affix::api::{Origin, TargetState};
use affix_testbed::images::Descriptor;
use affix_testbed::peer::Peer;
use serde_json::json;

use crate::support::controller::Controller;
use crate::support::images::{
    DATE, END_OF_LIFE, LIFECYCLE, SIGNATURE, attachment, mark, push, registries, summary,
};
use crate::support::namespace::Namespace;
use crate::support::readers::{self, CREATED};

/// The empty descriptor as every reader expects it.
const EMPTY: &str = r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="}"#;

/// The manifest that `oras attach` writes, byte for byte.
fn manifest(artifact_type: &str, layers: &str, subject: &Descriptor, annotations: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"{artifact_type}","config":{EMPTY},"layers":[{layers}],"subject":{{"mediaType":"{}","digest":"{}","size":{}}},"annotations":{{{annotations}}}}}"#,
        subject.media_type, subject.digest, subject.size
    )
}

#[tokio::test]
async fn an_end_of_life_mark_goes_to_the_index_and_to_the_one_platform_that_is_named() {
    let namespace = Namespace::new("mark").await;
    let registries = registries(&namespace.tools).await;
    let _controller = Controller::start(&namespace).await;
    for (registry, mode) in &registries {
        let image = push(registry, "team/app", "v1").await;
        let name = format!("mark-{}", mode.to_lowercase());
        namespace.apply(&name, mark(&image.pinned())).await;

        let status = namespace.ready(&name).await;
        assert_eq!(
            summary(&status.targets),
            [
                "Index - Attached -",
                "Platform linux/amd64 Attached -",
                "Platform linux/arm64 Skipped PlatformNotSelected",
                "Platform - Skipped AttestationManifest",
            ]
        );
        assert_eq!(status.attached.as_deref(), Some("2/2"));
        assert_eq!(status.artifact_type.as_deref(), Some(LIFECYCLE));
        assert_eq!(
            serde_json::to_value(status.referrers_mode).unwrap(),
            json!(mode)
        );
        assert_eq!(status.image.as_ref().unwrap().reference, image.pinned());
        assert!(
            status
                .targets
                .iter()
                .take(2)
                .all(|row| row.origin == Some(Origin::Made))
        );

        let peer = Peer::of(&namespace.tools, registry).unwrap();
        readers::see_what_status_names(&peer, &image, &status, LIFECYCLE).await;
        for row in status
            .targets
            .iter()
            .filter(|row| row.state == TargetState::Attached)
        {
            for (reader, seen) in readers::all(&peer, &image, &row.digest, LIFECYCLE).await {
                assert_eq!(seen[0].annotations[END_OF_LIFE], DATE, "{reader}");
            }
            let subject = if row.digest == image.digest() {
                &image.descriptor
            } else {
                &image.entry("linux/amd64").unwrap().descriptor
            };
            let created = row
                .created
                .as_ref()
                .unwrap()
                .0
                .strftime("%Y-%m-%dT%H:%M:%SZ");
            let annotations = format!(r#""{CREATED}":"{created}","{END_OF_LIFE}":"{DATE}""#);
            let raw = registry.raw().unwrap();
            let answer = raw
                .manifest("team/app", row.attachment.as_deref().unwrap())
                .await
                .unwrap()
                .ok()
                .unwrap();
            assert_eq!(
                String::from_utf8_lossy(&answer.body),
                manifest(LIFECYCLE, EMPTY, subject, &annotations)
            );
        }
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn each_signature_file_goes_to_its_own_target_and_is_read_back_whole() {
    let namespace = Namespace::new("files").await;
    let registries = registries(&namespace.tools).await;
    let _controller = Controller::start(&namespace).await;
    namespace
        .config_map("sigs", json!({"b1b1.sig": "signature of b1b1"}))
        .await;
    // 0xff is no text in any encoding of Kubernetes' `data`.
    namespace
        .apply_object(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "binary"}, "binaryData": {"c1c1.sig": "/wD+"}
        }))
        .await;
    for (registry, mode) in &registries {
        let image = push(registry, "team/app", "v1").await;
        let name = format!("files-{}", mode.to_lowercase());
        let (amd64, arm64) = (
            image.digest_of("linux/amd64").unwrap(),
            image.digest_of("linux/arm64").unwrap(),
        );
        namespace
            .apply(
                &name,
                json!({"image": image.pinned(), "insecure": true, "artifact": {"artifactType": SIGNATURE, "files": [
                    {"name": "a1a1.sig", "target": "index", "value": "signature of a1a1"},
                    {"name": "b1b1.sig", "target": "linux/amd64", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "b1b1.sig"}}},
                    {"name": "c1c1.sig", "target": arm64, "mediaType": "application/pgp-signature",
                        "valueFrom": {"configMapKeyRef": {"name": "binary", "key": "c1c1.sig"}}},
                ]}}),
            )
            .await;

        let status = namespace.ready(&name).await;
        assert_eq!(status.attached.as_deref(), Some("3/3"));
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        readers::see_what_status_names(&peer, &image, &status, SIGNATURE).await;
        let expected: [(&str, &str, &[u8]); 3] = [
            (image.digest(), "a1a1.sig", b"signature of a1a1"),
            (amd64, "b1b1.sig", b"signature of b1b1"),
            (arm64, "c1c1.sig", b"\xff\x00\xfe"),
        ];
        for (subject, file, content) in expected {
            let folder = format!("pulled-{file}-{mode}");
            let pulled = image.at(attachment(&status.targets, subject));
            peer.oras(["pull", "--output", &folder, &pulled])
                .await
                .unwrap()
                .stdout()
                .unwrap();
            let files: Vec<_> = std::fs::read_dir(peer.file(&folder))
                .unwrap()
                .map(|file| file.unwrap().file_name())
                .collect();
            assert_eq!(files, [file], "{mode}: what is attached to {subject}");
            assert_eq!(
                std::fs::read(peer.file(&folder).join(file)).unwrap(),
                content
            );
        }
        let layer = registry
            .raw()
            .unwrap()
            .manifest("team/app", attachment(&status.targets, arm64))
            .await
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(layer["layers"][0]["mediaType"], "application/pgp-signature");
        assert_eq!(
            layer["layers"][0]["annotations"],
            json!({"org.opencontainers.image.title": "c1c1.sig"})
        );
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn what_oras_attached_by_hand_before_is_adopted_and_not_doubled() {
    let namespace = Namespace::new("adopted").await;
    let registries = registries(&namespace.tools).await;
    let _controller = Controller::start(&namespace).await;
    for (registry, mode) in &registries {
        let image = push(registry, "team/app", "v1").await;
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        let date = format!("{END_OF_LIFE}={DATE}");
        let by_hand = [
            "attach",
            "--artifact-type",
            LIFECYCLE,
            "--annotation",
            &date,
        ];
        // `--platform` copies the platform into the subject, which affix does not.
        for target in [
            vec![image.pinned()],
            vec![
                "--platform".to_owned(),
                "linux/amd64".to_owned(),
                image.pinned(),
            ],
        ] {
            peer.oras(by_hand.iter().map(|part| (*part).to_owned()).chain(target))
                .await
                .unwrap()
                .stdout()
                .unwrap();
        }
        let name = format!("adopted-{}", mode.to_lowercase());
        let spec = json!({
            "image": image.pinned(), "insecure": true,
            "endOfLife": {"date": DATE, "artifactType": LIFECYCLE, "annotation": END_OF_LIFE},
        });
        let mark = registry.mark().unwrap();
        namespace.apply(&name, spec).await;

        let status = namespace.ready(&name).await;
        let origins: Vec<_> = status.targets.iter().map(|row| row.origin).collect();
        assert_eq!(
            origins,
            [
                Some(Origin::Adopted),
                Some(Origin::Adopted),
                Some(Origin::Made),
                None
            ],
            "{mode}"
        );
        readers::see_what_status_names(&peer, &image, &status, LIFECYCLE).await;
        let made = attachment(&status.targets, image.digest_of("linux/arm64").unwrap());
        let manifests: Vec<String> = registry
            .requests_since(mark)
            .unwrap()
            .into_iter()
            .filter(|request| {
                request.method == "PUT" && request.path.contains("/manifests/sha256:")
            })
            .map(|request| request.path)
            .collect();
        assert_eq!(
            manifests,
            [format!("/v2/team/app/manifests/{made}")],
            "{mode}: only the platform without a mark is written"
        );
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_tag_is_attached_to_by_what_it_names_and_kubectl_waits_for_it() {
    let namespace = Namespace::new("kubectl").await;
    let registries = registries(&namespace.tools).await;
    let _controller = Controller::start(&namespace).await;
    for (registry, mode) in &registries {
        let image = push(registry, "team/app", "v1").await;
        let yaml = format!(
            "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: tag-{mode}, namespace: {namespace}}}\nspec:\n  \
             image: {image}\n  insecure: true\n  artifact: {{artifactType: {SIGNATURE}, annotations: {{demo.affix.dev/note: hello}}}}\n",
            mode = mode.to_lowercase(),
            namespace = namespace.name,
            image = image.tagged(),
        );
        let kubectl = namespace.plane;
        kubectl
            .kubectl_with(["apply", "-f", "-"], yaml.clone())
            .await
            .unwrap()
            .stdout()
            .unwrap();
        let name = format!("ia/tag-{}", mode.to_lowercase());
        let wait = [
            "wait",
            "--for=condition=Ready",
            "--timeout=120s",
            "-n",
            &namespace.name,
            &name,
        ];
        kubectl.kubectl(wait).await.unwrap().stdout().unwrap();
        let table = kubectl
            .kubectl(["get", "ia", "-n", &namespace.name])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        let row = table
            .lines()
            .find(|line| line.starts_with(&name[3..]))
            .unwrap_or_else(|| panic!("{table}"));
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            cells[1..5],
            [&image.tagged(), "3/3", "True", "Attached"],
            "{table}"
        );

        let status = namespace.status(&name[3..]).await;
        assert_eq!(status.image.as_ref().unwrap().digest, image.digest());
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        readers::see_what_status_names(&peer, &image, &status, SIGNATURE).await;
        let seen = readers::oras(&peer, &image, image.digest(), SIGNATURE).await;
        assert_eq!(seen[0].annotations["demo.affix.dev/note"], "hello");
    }
    namespace.check_rules().await;
}
