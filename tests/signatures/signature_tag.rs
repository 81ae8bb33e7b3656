//! Signatures in the format `Tag`, which the real cosign writes and verifies beside affix.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use affix::api::{ImageAttachmentSpec, Origin, Reason};
use affix::engine::{
    Draft, Engine, EngineOptions, Failure, Journal, NoClaims, SecretData, Sources, request,
};
use affix_registry::{Options, Registries, Secret};
use affix_testbed::hostile::{HostileRegistry, Matcher, Op, Quirks};
use affix_testbed::peer::Peer;
use affix_testbed::tools::{Tool, Tools};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::cosign::{PASSWORD, cosign, key_pair, verify};
use crate::runner::{Fixture, Runner};

const KEY: &[u8] = include_bytes!("../vectors/signing/cosign/p256.pem");
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const OLD_FORMAT: &str = "--new-bundle-format=false";

fn runner(fixture: &Fixture, key: &[u8], formats: Value, identity: &str) -> Runner {
    let cosign = json!({"keySecretRef": {"name": "key"}, "formats": formats, "identity": identity});
    let spec = fixture.spec(
        &fixture.image.tagged(),
        &json!({"signature": {"cosign": cosign}}),
    );
    let files: [(&str, &[u8]); 2] = [
        ("cosign.key", key),
        ("cosign.password", PASSWORD.as_bytes()),
    ];
    Runner::new(fixture, &spec, &[("key", &files)])
}

/// Returns the signatures under the signature tag of a digest.
async fn layers(fixture: &Fixture, digest: &str) -> Vec<Value> {
    let raw = fixture.registry.raw().unwrap();
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let manifest = raw.manifest("team/app", &tag).await.unwrap().json();
    manifest.unwrap()["layers"].as_array().unwrap().clone()
}

async fn sign(fixture: &Fixture, key: &str, more: &[&str]) {
    let (key, image) = (format!("{key}.key"), fixture.image.pinned());
    let args = [
        &[
            "sign",
            "--recursive",
            "--key",
            &key,
            "--tlog-upload=false",
            "--use-signing-config=false",
            OLD_FORMAT,
            "--yes",
        ],
        more,
        &[image.as_str()],
    ]
    .concat();
    cosign(fixture, &args).await.unwrap();
}

#[tokio::test]
async fn cosign_verifies_the_tag_alone_and_beside_the_bundle() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let mut runner = runner(&fixture, &key, json!(["Tag"]), "Tag");
        runner.ready().await;
        for digest in fixture.signed() {
            verify(&fixture, "cosign", &digest, &[OLD_FORMAT])
                .await
                .unwrap();
            verify(&fixture, "cosign", &digest, &[]).await.unwrap();
        }
        verify(&fixture, "cosign", &fixture.unsigned(), &[OLD_FORMAT])
            .await
            .unwrap_err();
        let cosign = json!({"keySecretRef": {"name": "key"}, "formats": ["Bundle", "Tag"]});
        let spec = json!({"signature": {"cosign": cosign}});
        runner.change_spec(&fixture.spec(&fixture.image.tagged(), &spec));
        runner.ready().await;
        for digest in fixture.signed() {
            verify(&fixture, "cosign", &digest, &[OLD_FORMAT])
                .await
                .unwrap();
            verify(&fixture, "cosign", &digest, &[]).await.unwrap();
            assert_eq!(layers(&fixture, &digest).await.len(), 1);
        }
        assert_eq!(runner.interval_pass().await.requests, 1);
    }
}

#[tokio::test]
async fn a_layer_of_cosign_is_adopted_and_cosign_appends_to_one_of_affix() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        key_pair(&fixture, "other").await;
        sign(&fixture, "cosign", &[]).await;
        let mut runner = runner(&fixture, &key, json!(["Tag"]), "Repository");
        runner.ready().await;
        for digest in fixture.signed() {
            assert_eq!(layers(&fixture, &digest).await.len(), 1);
            let mut rows = runner.status.targets.iter();
            let row = rows.find(|row| row.digest == digest).unwrap();
            assert_eq!(row.origin, Some(Origin::Adopted));
        }
        // Another identity is another statement.
        let mut tagged = crate::signature_tag::runner(&fixture, &key, json!(["Tag"]), "Tag");
        tagged.ready().await;
        sign(&fixture, "other", &["-a", "by=other"]).await;
        for digest in fixture.signed() {
            assert_eq!(layers(&fixture, &digest).await.len(), 3);
            for (key, more) in [
                ("cosign", &[OLD_FORMAT][..]),
                ("other", &[OLD_FORMAT, "-a", "by=other"]),
            ] {
                verify(&fixture, key, &digest, more).await.unwrap();
            }
        }
        // A rotation removes the layer of affix alone.
        let new = key_pair(&fixture, "new").await;
        let files: [(&str, &[u8]); 2] = [
            ("cosign.key", &new),
            ("cosign.password", PASSWORD.as_bytes()),
        ];
        tagged.replace_secret("key", &files);
        tagged.advance(60);
        tagged.ready().await;
        for digest in fixture.signed() {
            assert_eq!(layers(&fixture, &digest).await.len(), 3);
            for key in ["cosign", "new", "other"] {
                verify(&fixture, key, &digest, &[OLD_FORMAT]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn tags_of_other_keys_that_a_bundle_hides_are_told_before_and_after() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        key_pair(&fixture, "other").await;
        sign(&fixture, "other", &[]).await;
        let digest = &fixture.signed()[0];
        verify(&fixture, "other", digest, &[]).await.unwrap();
        let mut runner = runner(&fixture, &key, json!(["Bundle"]), "Tag");
        let outcome = runner.ready().await;
        // The real cosign does not read the tag of the other key any more.
        verify(&fixture, "other", digest, &[]).await.unwrap_err();
        let is_told = |text: &str| text.contains(".sig") && text.contains("formats: [Tag]");
        let mut events = outcome.notes.iter();
        assert!(
            events
                .any(|note| note.reason == Reason::OlderSignaturesHidden && is_told(&note.message)),
            "{outcome:#?}"
        );
        assert!(
            outcome
                .resolved
                .unwrap()
                .iter()
                .any(|remark| is_told(remark))
        );
        let again = runner.ready().await;
        assert!(again.notes.is_empty(), "{again:#?}");
    }
}

/// A journal without a status.
struct Forgets;

impl Journal for Forgets {
    async fn save(&self, _: &Draft<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// One write of the tag: the signatures that it lists, and whether affix wrote it.
struct Write {
    layers: BTreeSet<String>,
    is_affix: bool,
}

fn signatures(manifest: &Value) -> BTreeSet<String> {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    layers
        .map(|layer| layer["annotations"][SIGNATURE].as_str().unwrap().to_owned())
        .collect()
}

/// Ten processes of affix and ten of cosign sign one image. Returns the writes of its tag, and what is left of them.
async fn race(tools: &Tools, quirks: Quirks) -> (Vec<Write>, BTreeSet<String>) {
    let registry = HostileRegistry::builder()
        .quirks(quirks)
        .start()
        .await
        .unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let mut peer = Peer::new(tools).unwrap();
    peer.know_plain(&registry.host()).unwrap();
    std::fs::write(peer.file("cosign.key"), KEY).unwrap();
    let cosign = |args: Vec<String>| {
        let run = peer.run(Tool::Cosign).unwrap().env("COSIGN_PASSWORD", "");
        run.args(args).output()
    };
    let import = [
        "import-key-pair",
        "--key",
        "cosign.key",
        "--output-key-prefix",
        "theirs",
    ];
    cosign(import.map(str::to_owned).to_vec())
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let writes: Arc<Mutex<Vec<Write>>> = Arc::default();
    let seen = Arc::clone(&writes);
    registry.on_request(
        Matcher::on(Op::ManifestPut).reference("*.sig"),
        move |request| {
            let manifest: Value = serde_json::from_slice(&request.body).unwrap();
            let agent = request.header("user-agent").unwrap_or_default();
            seen.lock().unwrap().push(Write {
                layers: signatures(&manifest),
                is_affix: agent.contains("affix"),
            });
            std::future::ready(())
        },
    );
    let name = registry.reference("team/app:v1");
    let affix = (0..10).map(|nth| {
        let spec = json!({
            "image": name, "insecure": true, "targets": {"scope": "Index"}, "timeout": "5m",
            "signature": {"cosign": {"keySecretRef": {"name": "key"}, "formats": ["Tag"], "annotations": {"nth": format!("{nth}")}}},
        });
        let spec: ImageAttachmentSpec = serde_json::from_value(spec).unwrap();
        let mut sources = Sources::default();
        let data = [("cosign.key".to_owned(), Secret::new(KEY))];
        let key = SecretData { data: data.into(), ..SecretData::default() };
        sources.secrets.insert("key".to_owned(), key);
        tokio::spawn(async move {
            // A process of its own shares no locks and no knowledge.
            let options = Options { allow_loopback: true, ..Options::default() };
            let engine = Engine::new(Registries::new(options), EngineOptions::default());
            let request = request(&spec, None, 1, &sources, true).unwrap();
            engine.run(&request, &Forgets, &NoClaims, Timestamp::now()).await
        })
    });
    let affix: Vec<_> = affix.collect();
    let at = registry.reference(&format!("team/app@{}", image.digest));
    let theirs = (0..10).map(|nth| {
        let args = [
            "sign",
            "--key",
            "theirs.key",
            "--tlog-upload=false",
            "--use-signing-config=false",
            OLD_FORMAT,
            "--yes",
            "-a",
            &format!("nth={nth}"),
            &at,
        ];
        cosign(args.map(str::to_owned).to_vec())
    });
    for ran in futures::future::join_all(theirs).await {
        ran.unwrap().stdout().unwrap();
    }
    for outcome in futures::future::join_all(affix).await {
        let verdict = outcome.unwrap().verdict;
        assert!(verdict.ready, "{verdict:?}");
    }
    let tag = format!("{}.sig", image.digest.replace(':', "-"));
    let left = signatures(&registry.store().manifest("team/app", &tag).unwrap().json());
    let writes = std::mem::take(&mut *writes.lock().unwrap());
    (writes, left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_writers_lose_no_signature_of_affix_and_none_of_cosign_by_affix() {
    let tools = Tools::with(&[Tool::Cosign]).await.unwrap();
    for quirks in [Quirks::default(), Quirks::distribution()] {
        let (writes, left) = race(&tools, quirks).await;
        let (mut before, mut affix, mut cosign) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut lost_by_cosign = BTreeSet::new();
        for Write { layers, is_affix } in &writes {
            let own = if *is_affix { &mut affix } else { &mut cosign };
            let new = layers
                .difference(&before)
                .filter(|new| !lost_by_cosign.contains(*new));
            own.extend(new.cloned());
            if !is_affix {
                lost_by_cosign.extend(before.difference(layers).cloned());
            }
            lost_by_cosign.retain(|lost| !layers.contains(lost));
            before.clone_from(layers);
        }
        println!(
            "{} writes, {} by affix, {} by cosign, {} lost by cosign",
            writes.len(),
            affix.len(),
            cosign.len(),
            lost_by_cosign.len()
        );
        assert!(
            affix.len() >= 10 && cosign.len() >= 10,
            "{} and {}",
            affix.len(),
            cosign.len()
        );
        let missing: Vec<_> = affix.difference(&left).collect();
        assert!(
            missing.is_empty(),
            "{} signatures of affix are lost",
            missing.len()
        );
        let missing: Vec<_> = cosign
            .difference(&left)
            .filter(|lost| !lost_by_cosign.contains(*lost))
            .collect();
        assert!(
            missing.is_empty(),
            "affix lost {} signatures of cosign",
            missing.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_writers_on_real_registries_lose_no_signature_of_affix() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        key_pair(&fixture, "theirs").await;
        let mut runners: Vec<Runner> = (0..10)
            .map(|nth| {
                let cosign = json!({
                    "keySecretRef": {"name": "key"}, "formats": ["Tag"], "annotations": {"nth": nth.to_string()},
                });
                let spec = json!({"signature": {"cosign": cosign}, "timeout": "5m"});
                let spec = fixture.spec(&fixture.image.tagged(), &spec);
                let files: [(&str, &[u8]); 2] = [
                    ("cosign.key", &key),
                    ("cosign.password", PASSWORD.as_bytes()),
                ];
                Runner::new(&fixture, &spec, &[("key", &files)])
            })
            .collect();
        let theirs = (0..10).map(|nth| {
            let (nth, fixture) = (format!("nth={nth}"), &fixture);
            async move { sign(fixture, "theirs", &["-a", &nth]).await }
        });
        futures::join!(
            futures::future::join_all(runners.iter_mut().map(Runner::ready)),
            futures::future::join_all(theirs)
        );
        for digest in fixture.signed() {
            println!("{} of 20 signatures", layers(&fixture, &digest).await.len());
        }
        for runner in &mut runners {
            let again = runner.ready().await;
            assert!(again.changes.is_empty(), "{:?}", again.changes);
        }
    }
}
