//! The webhook's certificates: two replicas in this process, with a clock that moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use affix::admission::{self, CertificateSource, Clock, Lookups, Options, SelfManaged, ServerLimits};
use affix::service::Addresses;
use affix_testbed::port;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::place::{Place, wait};

const SECRET: &str = "affix-webhook-tls";
const HOUR: i64 = 3600;

/// Two replicas behind one configuration each, and their clock.
struct Replicas {
    place: Place,
    addresses: [String; 2],
    /// Seconds by which their clock is ahead.
    ahead: Arc<AtomicI64>,
    _stop: tokio_util::sync::DropGuard,
}

fn options(place: &Place, address: &str) -> Options {
    Options {
        listen_addr: address.parse().unwrap(),
        addresses: Addresses::default(),
        shutdown_delay: Duration::ZERO,
        certificate: CertificateSource::SelfManaged(SelfManaged {
            secret: SECRET.to_owned(),
            namespace: Some(place.name.clone()),
            service: "affix-webhook".to_owned(),
            names: vec!["127.0.0.1".to_owned()],
            validating: Some(place.name.clone()),
            mutating: Some(place.name.clone()),
        }),
        limits: ServerLimits::default(),
        lookups: Lookups {
            lifecycle_types: vec!["application/vnd.microsoft.artifact.lifecycle".parse().unwrap()],
            warn_before: Duration::from_hours(720),
            trusted_namespaces: Vec::new(),
            cache_ttl: Duration::from_mins(5),
            timeout: Duration::from_secs(1),
            insecure_registries: Vec::new(),
        },
        registries: affix::registry::Options::default(),
    }
}

impl Replicas {
    async fn start(about: &str, ahead: i64) -> Self {
        let place = Place::new(about, json!({})).await;
        let (ahead, stop) = (Arc::new(AtomicI64::new(ahead)), CancellationToken::new());
        let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", port::free().unwrap()));
        for address in &addresses {
            let moved = Arc::clone(&ahead);
            let clock: Clock =
                Arc::new(move || Timestamp::from_second(Timestamp::now().as_second() + moved.load(Ordering::Relaxed)).unwrap());
            let (options, client, stop) = (options(&place, address), place.client.clone(), stop.clone());
            tokio::spawn(async move { admission::serve(options, client, clock, stop).await.unwrap() });
        }
        Self { place, addresses, ahead, _stop: stop.drop_guard() }
    }

    async fn secret(&self) -> Option<Value> {
        self.place.kubectl(&["get", "secret", SECRET, "-o", "json"]).await.json().ok()
    }

    async fn part(&self, key: &str) -> String {
        self.secret().await.map(|secret| secret["data"][key].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    }

    fn secrets(&self) -> Api<k8s_openapi::api::core::v1::Secret> {
        Api::namespaced(self.place.client.clone(), &self.place.name)
    }

    /// Whether the API server is refused by this replica's verdict, which shows that it trusts the certificate.
    async fn refuses(&self) -> bool {
        refuses(&self.place).await
    }

    /// Waits until both replicas serve the leaf of the Secret.
    async fn agree(&self) {
        wait("two replicas that serve what is shared", async || {
            let shared = self.part("tls.crt").await;
            let mut agreed = !shared.is_empty();
            for address in &self.addresses {
                agreed &= served(address).await.as_deref() == Some(&shared);
            }
            agreed
        })
        .await;
    }
}

async fn refuses(place: &Place) -> bool {
    let spec = json!({"image": "registry.example.com/Team/app:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}});
    let api: Api<affix::api::ImageAttachment> = Api::namespaced(place.client.clone(), &place.name);
    let object = serde_json::from_value(Place::attachment("odd", &spec)).unwrap();
    let params = kube::api::PostParams { dry_run: true, ..Default::default() };
    api.create(&params, &object).await.is_err_and(|error| error.to_string().contains("is malformed"))
}

/// The certificate that a handshake gets, as the Secret has it.
async fn served(address: &str) -> Option<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let output = tokio::process::Command::new("sh")
        .args(["-c", &format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 2>/dev/null")])
        .output()
        .await
        .unwrap();
    (!output.stdout.is_empty()).then(|| STANDARD.encode(output.stdout))
}

#[tokio::test]
async fn two_replicas_agree_and_no_admission_fails_while_everything_is_rotated() {
    let replicas = Replicas::start("rotated", 0).await;
    replicas.place.configure(&replicas.addresses[0]).await;
    replicas.agree().await;

    // 200 requests a second, all the while.
    let (failed, made, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let load = {
        let (failed, made, stop, place) = (Arc::clone(&failed), Arc::clone(&made), stop.clone(), replicas.place.clone());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            let turns = Arc::new(tokio::sync::Semaphore::new(64));
            while !stop.is_cancelled() {
                ticks.tick().await;
                let (turn, failed, made, place) =
                    (Arc::clone(&turns).acquire_owned().await, Arc::clone(&failed), Arc::clone(&made), place.clone());
                tokio::spawn(async move {
                    let _turn = turn;
                    made.fetch_add(1, Ordering::Relaxed);
                    if !refuses(&place).await {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        })
    };
    let params = PatchParams::default();

    // The leaf is lost: a new one of the same authority.
    let (leaf, ca) = (replicas.part("tls.crt").await, replicas.part("ca.crt").await);
    replicas.secrets().patch(SECRET, &params, &Patch::Merge(json!({"data": {"tls.crt": ""}}))).await.unwrap();
    wait("a new leaf", async || !matches!(replicas.part("tls.crt").await, part if part.is_empty() || part == leaf)).await;
    assert_eq!(replicas.part("ca.crt").await, ca);
    replicas.agree().await;

    // Deleted: all is new, and the former authority stays trusted.
    replicas.secrets().delete(SECRET, &DeleteParams::default()).await.unwrap();
    wait("a new Secret", async || !matches!(replicas.part("ca.crt").await, part if part.is_empty() || part == ca)).await;
    replicas.agree().await;

    // Cut in half.
    for key in ["tls.key", "tls.crt", "ca.key", "ca.crt"] {
        let whole = replicas.part(key).await;
        let half = whole[..whole.len() / 8 * 4].to_owned();
        replicas.secrets().patch(SECRET, &params, &Patch::Merge(json!({"data": {key: half}}))).await.unwrap();
        wait(key, async || !matches!(replicas.part(key).await, part if part.is_empty() || part == half)).await;
        replicas.agree().await;
    }
    stop.cancel();
    load.await.unwrap();
    wait("an answer", async || replicas.refuses().await).await;
    let (failed, made) = (failed.load(Ordering::Relaxed), made.load(Ordering::Relaxed));
    println!("{made} requests during rotations, {failed} failed");
    assert!(failed == 0 && made > 200, "{failed} of {made} failed");
}

#[tokio::test]
async fn a_clock_that_moves_by_30_days_leads_to_a_new_certificate() {
    // Their clock is 30 days behind: what they make ended weeks ago for everybody else.
    let replicas = Replicas::start("late", -30 * 24 * HOUR).await;
    wait("a first certificate", async || !replicas.part("tls.crt").await.is_empty()).await;
    replicas.agree().await;
    let (leaf, ca) = (replicas.part("tls.crt").await, replicas.part("ca.crt").await);
    replicas.ahead.store(0, Ordering::Relaxed);
    wait("a new leaf", async || replicas.part("tls.crt").await != leaf).await;
    assert_eq!(replicas.part("ca.crt").await, ca, "the authority is good for a year");
    replicas.agree().await;
    replicas.place.configure(&replicas.addresses[1]).await;
    assert!(replicas.refuses().await);
}
