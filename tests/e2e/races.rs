//! T17: many processes write the fallback tag of one subject side by side: affix's own, and other people's tools that write blindly.
//!
//! A short form runs in every test run; `make soak` sets `AFFIX_SOAK` and with it the ten runs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use affix_testbed::hostile::{Account, HostileRegistry, Matcher, Op, Quirks, Stage, fallback_tag};
use affix_testbed::images::Pushed;
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::run::{Ran, Run};
use affix_testbed::tools::Tools;
use base64::Engine as _;
use futures::future::join_all;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{SIGNATURE, attachment, host, push, with};
use crate::support::namespace::Namespace;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

const WRITERS: usize = 20;

/// How often a race is run.
fn runs() -> usize {
    if std::env::var_os("AFFIX_SOAK").is_some() {
        10
    } else {
        2
    }
}

/// One `affix attach` as a process of its own, with a home of its own: what the `nth` of many attaches differs from the others'.
async fn affix(image: &str, nth: usize, login: Option<(&str, String)>) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let mut run = Run::new(env!("CARGO_BIN_EXE_affix"))
        .args(["attach", "-f", "-", "-o", "json"])
        .env("HOME", home.path());
    if let Some((registry, user)) = login {
        let config =
            json!({"auths": {registry: {"username": user, "password": "right"}}}).to_string();
        let file = home.path().join("auth.json");
        std::fs::write(&file, config).unwrap();
        run = run.env("REGISTRY_AUTH_FILE", file);
    }
    let name = format!("writer-{nth}");
    let document = json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec(image, nth),
    });
    run.input(document.to_string()).output().await.unwrap()
}

/// What the `nth` writer attaches.
fn spec(image: &str, nth: usize) -> Value {
    json!({
        "image": image, "insecure": true, "targets": {"scope": "Index"},
        "artifact": {"artifactType": SIGNATURE, "annotations": {"demo.affix.dev/writer": nth.to_string()}},
    })
}

/// What a command that succeeded says that it has attached.
fn attached(ran: Ran) -> String {
    let status = ran.json().unwrap();
    let rows = status["status"]["targets"]
        .as_array()
        .unwrap_or_else(|| panic!("{status:#}"));
    let row = rows.iter().find(|row| row["kind"] == "Index").unwrap();
    assert_eq!(row["state"], "Attached", "{status:#}");
    row["attachment"].as_str().unwrap().to_owned()
}

/// The digests on the fallback tag, in their order.
async fn listed(registry: &Registry, image: &Pushed) -> Vec<String> {
    let tag = registry
        .raw()
        .unwrap()
        .manifest("team/app", &image.digest().replace(':', "-"))
        .await
        .unwrap()
        .json()
        .unwrap();
    tag["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_processes_side_by_side_all_exit_0_and_all_are_listed() {
    let tools = Tools::core().await.unwrap();
    let registry = Registry::distribution(&tools).start().await.unwrap();
    for run in 0..runs() {
        let image = push(&registry, "team/app", &format!("run-{run}")).await;
        let pinned = image.pinned();
        let writers = (0..WRITERS).map(|nth| affix(&pinned, nth, None));
        let made: BTreeSet<String> = join_all(writers).await.into_iter().map(attached).collect();
        let listed = listed(&registry, &image).await;
        let missing: Vec<_> = made
            .iter()
            .filter(|digest| !listed.contains(digest))
            .collect();
        assert!(
            made.len() == WRITERS && listed.len() == WRITERS && missing.is_empty(),
            "run {run}: {} are listed, {missing:?} not",
            listed.len()
        );
        println!("run {run}: {} of {WRITERS} are listed", listed.len());
    }
}

/// What another tool attaches without a look at who else writes.
async fn blindly(peer: &Peer, image: &Pushed, nth: usize) {
    let reference = image.pinned();
    if nth.is_multiple_of(2) {
        let note = format!("n={nth}");
        peer.oras([
            "attach",
            "--artifact-type",
            "foreign/oras",
            "--annotation",
            &note,
            &reference,
        ])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    } else {
        let (subject, note) = (
            format!("--subject={reference}"),
            format!("--annotation=n={nth}"),
        );
        peer.regctl([
            "artifact",
            "put",
            "--artifact-type=foreign/regctl",
            &subject,
            &note,
        ])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_other_tools_no_entry_is_missing_after_the_next_pass() {
    let tools = Tools::core().await.unwrap();
    let registry = Registry::distribution(&tools).start().await.unwrap();
    let peer = Peer::of(&tools, &registry).unwrap();
    for run in 0..runs() {
        let image = push(&registry, "team/app", &format!("mixed-{run}")).await;
        let pinned = image.pinned();
        // These everybody has read who writes.
        for nth in 100..103 {
            blindly(&peer, &image, nth).await;
        }
        let before = listed(&registry, &image).await;
        let ours = join_all((0..WRITERS).map(|nth| affix(&pinned, nth, None)));
        let theirs = join_all((0..20).map(|nth| blindly(&peer, &image, nth)));
        let (ours, _) = tokio::join!(ours, theirs);
        let made: Vec<String> = ours.into_iter().map(attached).collect();
        let lost = listed(&registry, &image).await;
        let lost = made.iter().filter(|digest| !lost.contains(digest)).count();

        // The next pass: a blind write that came last may have taken ours away, and each command puts its own back.
        let again = join_all((0..WRITERS).map(|nth| affix(&pinned, nth, None))).await;
        let again: Vec<String> = again.into_iter().map(attached).collect();
        assert_eq!(
            again, made,
            "run {run}: each found its own again, by its content"
        );
        let after = listed(&registry, &image).await;
        let missing: Vec<_> = made
            .iter()
            .chain(&before)
            .filter(|digest| !after.contains(digest))
            .collect();
        assert!(
            missing.is_empty(),
            "run {run}: {missing:?} are missing of ours and of what was there before, in {after:#?}"
        );
        println!(
            "run {run}: other tools took {lost} of ours away before the next pass; {} are listed after it",
            after.len()
        );
    }
}

/// Puts the tag back to what it was, as a tool does that had read it then, with one entry of its own.
async fn overwrite(registry: &Registry, image: &Pushed, stale: &Value) -> String {
    let raw = registry.raw().unwrap();
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": affix_registry::oci::Digest::sha256(b"{}"), "size": 2});
    let own = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "foreign/stale", "config": empty, "layers": [empty],
        "subject": {"mediaType": image.descriptor.media_type, "digest": image.digest(), "size": image.descriptor.size}})
    .to_string();
    let digest = affix_registry::oci::Digest::sha256(own.as_bytes()).to_string();
    let size = own.len();
    raw.put_manifest("team/app", &digest, MANIFEST, own)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let mut index = stale.clone();
    let entry = json!({"mediaType": MANIFEST, "digest": digest, "size": size, "artifactType": "foreign/stale", "x-kept": [1.50]});
    index["manifests"].as_array_mut().unwrap().push(entry);
    let tag = image.digest().replace(':', "-");
    raw.put_manifest(
        "team/app",
        &tag,
        "application/vnd.oci.image.index.v1+json",
        index.to_string(),
    )
    .await
    .unwrap()
    .ok()
    .unwrap();
    digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_next_pass_of_the_controller_no_entry_is_missing_or_lost() {
    let namespace = Namespace::new("races").await;
    let registry = Registry::distribution(&namespace.tools)
        .start()
        .await
        .unwrap();
    let (peer, raw) = (
        Peer::of(&namespace.tools, &registry).unwrap(),
        registry.raw().unwrap(),
    );
    let controller = Controller::start(&namespace).await;
    for run in 0..runs().div_ceil(2) {
        let image = push(&registry, "team/app", &format!("controller-{run}")).await;
        let (pinned, tag) = (image.pinned(), image.digest().replace(':', "-"));
        blindly(&peer, &image, 100).await;
        blindly(&peer, &image, 101).await;
        let stale = raw
            .manifest("team/app", &tag)
            .await
            .unwrap()
            .json()
            .unwrap();

        // The race: affix's command, and tools that write blindly.
        let ours = join_all((0..WRITERS).map(|nth| affix(&pinned, nth, None)));
        let theirs = join_all(
            (0..15).map(|nth| blindly(&peer, &image, if nth < 10 { 2 * nth } else { 2 * nth + 1 })),
        );
        let (ours, _) = tokio::join!(ours, theirs);
        ours.into_iter().map(attached).for_each(drop);
        let read = listed(&registry, &image).await;

        // The controller's pass over the same twenty.
        let resource = |nth: usize| format!("run-{run}-writer-{nth}");
        for nth in 0..WRITERS {
            namespace
                .apply(
                    &resource(nth),
                    with(spec(&pinned, nth), json!({"interval": "1h"})),
                )
                .await;
        }
        let mut known = Vec::new();
        for nth in 0..WRITERS {
            known.push(
                attachment(
                    &namespace.ready(&resource(nth)).await.targets,
                    image.digest(),
                )
                .to_owned(),
            );
        }
        let after = listed(&registry, &image).await;
        let missing: Vec<_> = known
            .iter()
            .chain(&read)
            .filter(|digest| !after.contains(digest))
            .collect();
        assert!(
            missing.is_empty(),
            "run {run}: {missing:?} are missing in {after:#?}\n{}",
            controller.log()
        );
        let lost = (0..WRITERS)
            .filter(|nth| !read.contains(&known[*nth]))
            .count();

        // What chance seldom does: a tool that had read the tag before all of that writes it now.
        let blind = overwrite(&registry, &image, &stale).await;
        let read = listed(&registry, &image).await;
        assert!(
            read.contains(&blind) && known.iter().all(|digest| !read.contains(digest)),
            "{read:#?}"
        );
        for (nth, known) in known.iter().enumerate() {
            namespace
                .request(&resource(nth), "after the overwrite")
                .await;
            let status = namespace.ready(&resource(nth)).await;
            assert_eq!(
                attachment(&status.targets, image.digest()),
                known,
                "the same bytes are put back"
            );
        }
        let after = listed(&registry, &image).await;
        let missing: Vec<_> = known
            .iter()
            .chain(&read)
            .filter(|digest| !after.contains(digest))
            .collect();
        assert!(
            missing.is_empty(),
            "run {run}: {missing:?} are missing after the overwrite in {after:#?}\n{}",
            controller.log()
        );
        println!(
            "run {run}: {lost} had to be put back after the race, {WRITERS} after the overwrite; {} are listed",
            after.len()
        );
        for nth in 0..WRITERS {
            namespace
                .attachments()
                .delete(&resource(nth), &DeleteParams::default())
                .await
                .unwrap();
        }
    }
    namespace.check_rules().await;
}

/// What each process has read last, as digests.
type Reads = Arc<Mutex<HashMap<String, HashSet<String>>>>;

fn digests(index: &[u8]) -> HashSet<String> {
    let index: Value = serde_json::from_slice(index).unwrap_or_default();
    let entries = index["manifests"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| entry["digest"].as_str().map(str::to_owned))
        .collect()
}

/// Who asks: each process has a login of its own, so that its reads and writes can be told from those of others.
fn user(request: &affix_testbed::hostile::Request) -> Option<String> {
    let login = request.header("authorization")?.strip_prefix("Basic ")?;
    let login = String::from_utf8(
        base64::engine::general_purpose::STANDARD
            .decode(login)
            .ok()?,
    )
    .ok()?;
    Some(login.split_once(':')?.0.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_writes_a_list_without_an_entry_that_was_in_it_when_it_last_read() {
    for run in 0..runs() {
        let accounts = (0..WRITERS).map(|nth| Account::new(&format!("writer-{nth}"), "right"));
        let registry = HostileRegistry::builder()
            .quirks(Quirks::distribution())
            .passwords(accounts)
            .start()
            .await
            .unwrap();
        let image = host(&registry, "v1");
        let tag = fallback_tag(&image.digest);
        let (reads, lost): (Reads, Arc<Mutex<Vec<String>>>) = Default::default();

        // Others add entries between our reads and our writes, and know nothing of ours.
        let (store, subject) = (registry.store(), image.digest.clone());
        let foreign = move |nth: u64| {
            let child = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "foreign": nth,
                "config": {"mediaType": "foreign/type", "digest": format!("sha256:{}", "a".repeat(64)), "size": 1}, "layers": []});
            let digest = store.put_manifest(
                "team/app",
                None,
                "application/vnd.oci.image.manifest.v1+json",
                child.to_string(),
            );
            let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": child.to_string().len(), "x": [1.50]});
            store.append_fallback("team/app", &subject, entry);
        };
        // Writes of others come between an answer and this look at the store, so the answer itself says what was read.
        registry.hook_at(
            Stage::After,
            Matcher::on(Op::ManifestGet).reference(&*tag),
            {
                let (reads, store) = (Arc::clone(&reads), registry.store());
                move |request| {
                    let served = request
                        .served
                        .as_deref()
                        .and_then(|digest| store.manifest("team/app", digest));
                    if let Some(user) = user(&request) {
                        reads.lock().unwrap().insert(
                            user,
                            served
                                .map(|served| digests(&served.bytes))
                                .unwrap_or_default(),
                        );
                    }
                    if request.id.is_multiple_of(7) {
                        foreign(request.id);
                    }
                    async {}
                }
            },
        );
        registry.on_request(Matcher::on(Op::ManifestPut).reference(&*tag), {
            let (reads, lost) = (Arc::clone(&reads), Arc::clone(&lost));
            move |request| {
                let (user, written) = (user(&request).unwrap_or_default(), digests(&request.body));
                let read = reads
                    .lock()
                    .unwrap()
                    .get(&user)
                    .cloned()
                    .unwrap_or_default();
                let gone = read
                    .difference(&written)
                    .map(|digest| format!("{user} left out {digest}"));
                lost.lock().unwrap().extend(gone);
                async {}
            }
        });
        let (registry_host, reference) = (registry.host(), registry.reference(&image.pinned()));
        let writers = (0..WRITERS).map(|nth| {
            affix(
                &reference,
                nth,
                Some((&registry_host, format!("writer-{nth}"))),
            )
        });
        let made: Vec<String> = join_all(writers).await.into_iter().map(attached).collect();
        assert_eq!(
            *lost.lock().unwrap(),
            Vec::<String>::new(),
            "run {run}\n{}",
            registry.transcript()
        );
        let reads = reads.lock().unwrap().clone();
        assert!(
            reads.len() == WRITERS && reads.values().all(|read| !read.is_empty()),
            "run {run}: whose reads were not seen? {reads:?}"
        );
        let writes = registry
            .requests_that(&Matcher::on(Op::ManifestPut).reference(&*tag))
            .len();
        let listed = digests(&registry.store().raw_tag("team/app", &tag).unwrap());
        assert!(
            writes >= WRITERS && made.iter().all(|digest| listed.contains(digest)),
            "run {run}: {writes} writes, {listed:?}"
        );
        println!("run {run}: {writes} writes, {} are listed", listed.len());
    }
}
