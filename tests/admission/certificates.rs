//! The webhook's certificates: two replicas in this process, with a clock that moves.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use affix::admission::{self, CertificateSource, Clock, Options, SelfManaged, ServerLimits};
use affix::service::Addresses;
use affix_testbed::{http_client, port};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::direct::{lookups, review};
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
        lookups: lookups(),
        registries: affix_registry::Options::default(),
    }
}

impl Replicas {
    async fn start(about: &str, ahead: i64) -> Self {
        let place = Place::new(about, json!({})).await;
        let (ahead, stop) = (Arc::new(AtomicI64::new(ahead)), CancellationToken::new());
        let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", port::free().unwrap()));
        for address in &addresses {
            let moved = Arc::clone(&ahead);
            let clock: Clock = Arc::new(move || {
                Timestamp::from_second(Timestamp::now().as_second() + moved.load(Ordering::Relaxed))
                    .unwrap()
            });
            let (options, client, stop) =
                (options(&place, address), place.client.clone(), stop.clone());
            tokio::spawn(async move {
                admission::serve(options, client, clock, stop)
                    .await
                    .unwrap()
            });
        }
        Self {
            place,
            addresses,
            ahead,
            _stop: stop.drop_guard(),
        }
    }

    async fn secret(&self) -> Option<Value> {
        self.place
            .kubectl(&["get", "secret", SECRET, "-o", "json"])
            .await
            .json()
            .ok()
    }

    async fn part(&self, key: &str) -> String {
        self.secret()
            .await
            .map(|secret| secret["data"][key].as_str().unwrap_or_default().to_owned())
            .unwrap_or_default()
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
    let params = kube::api::PostParams {
        dry_run: true,
        ..Default::default()
    };
    api.create(&params, &object)
        .await
        .is_err_and(|error| error.to_string().contains("is malformed"))
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

/// Calls a second of the load.
const RATE: u64 = 250;
/// Calls of one API server at once.
const AT_ONCE: usize = 32;

/// Calls of two API servers to both replicas, all the while: each trusts the `caBundle` that its configuration has at the moment, opens
/// new connections all the time, and tries once more where one that it kept was closed.
struct Load {
    failures: Arc<Mutex<Vec<String>>>,
    answered: Arc<AtomicU64>,
    began: Instant,
    stop: CancellationToken,
}

impl Load {
    fn start(place: &Place, addresses: &[String; 2]) -> Self {
        let (failures, answered, stop) = (
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::<AtomicU64>::default(),
            CancellationToken::new(),
        );
        for address in addresses {
            let (place, url) = (
                place.clone(),
                format!("https://{address}/validate-imageattachment"),
            );
            let (failures, answered, stop) =
                (Arc::clone(&failures), Arc::clone(&answered), stop.clone());
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(
                    Duration::from_secs(1) * 2 / u32::try_from(RATE).unwrap(),
                );
                // A machine that is too slow for the rate gets fewer calls, and not more and more at once.
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let places = Arc::new(Semaphore::new(AT_ONCE));
                let mut client = caller(&place).await;
                let mut nth = 0_u64;
                while !stop.is_cancelled() {
                    ticks.tick().await;
                    nth += 1;
                    // A new connection each quarter of a second, by what the configuration says then.
                    if nth.is_multiple_of(RATE / 8) {
                        client = caller(&place).await;
                    }
                    let place = Arc::clone(&places).acquire_owned().await.unwrap();
                    let (client, url, failures, answered) = (
                        client.clone(),
                        url.clone(),
                        Arc::clone(&failures),
                        Arc::clone(&answered),
                    );
                    tokio::spawn(async move {
                        let _place = place;
                        match call(&client, &url).await {
                            Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Err(why) => failures.lock().unwrap().push(why),
                        }
                    });
                }
            });
        }
        Self {
            failures,
            answered,
            began: Instant::now(),
            stop,
        }
    }

    /// Ends it. Every call was answered; how many there were a second depends on the machine too, so a slow one is told of and not
    /// held against anybody.
    async fn end(self) {
        self.stop.cancel();
        let (answered, took) = (self.answered.load(Ordering::Relaxed), self.began.elapsed());
        let rate = answered as f64 / took.as_secs_f64();
        println!("{answered} calls in {took:?} while certificates changed: {rate:.0} a second");
        if rate < 200.0 {
            println!(
                "this machine was too slow for 200 calls a second: what was shown holds for {rate:.0}"
            );
        }
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty() && answered > 0,
            "{} of {} failed: {:#?}",
            failures.len(),
            failures.len() as u64 + answered,
            *failures
        );
    }
}

/// A client as an API server builds one from the configuration.
async fn caller(place: &Place) -> reqwest::Client {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(place.client.clone());
    let found = api.get(&place.name).await.unwrap();
    let bundle = found
        .webhooks
        .unwrap()
        .remove(0)
        .client_config
        .ca_bundle
        .unwrap();
    http_client::multiplexing(std::str::from_utf8(&bundle.0).unwrap()).unwrap()
}

async fn call(client: &reqwest::Client, url: &str) -> Result<(), String> {
    let spec = json!({"image": "registry.example.com/Team/app:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}});
    let body = review("ImageAttachment", &Place::attachment("odd", &spec));
    let mut answer = client.post(url).body(body.clone()).send().await;
    if answer
        .as_ref()
        .is_err_and(|error| !error.is_connect() && !error.is_timeout())
    {
        answer = client.post(url).body(body).send().await;
    }
    let answer: Value = answer
        .map_err(|error| format!("{error:?}"))?
        .json()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let message = answer["response"]["status"]["message"]
        .as_str()
        .unwrap_or_default();
    if message.contains("is malformed") {
        Ok(())
    } else {
        Err(answer.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_agree_and_no_admission_fails_while_everything_is_rotated() {
    let replicas = Replicas::start("rotated", 0).await;
    replicas.place.configure(&replicas.addresses[0]).await;
    replicas.agree().await;

    let load = Load::start(&replicas.place, &replicas.addresses);
    // The real API server asks too.
    let (failed, made, stop) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicU32::new(0)),
        CancellationToken::new(),
    );
    let asking = {
        let (failed, made, stop, place) = (
            Arc::clone(&failed),
            Arc::clone(&made),
            stop.clone(),
            replicas.place.clone(),
        );
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                made.fetch_add(1, Ordering::Relaxed);
                if !refuses(&place).await {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };
    let params = PatchParams::default();

    // The leaf is lost: a new one of the same authority.
    let (leaf, ca) = (
        replicas.part("tls.crt").await,
        replicas.part("ca.crt").await,
    );
    replicas
        .secrets()
        .patch(
            SECRET,
            &params,
            &Patch::Merge(json!({"data": {"tls.crt": ""}})),
        )
        .await
        .unwrap();
    wait(
        "a new leaf",
        async || !matches!(replicas.part("tls.crt").await, part if part.is_empty() || part == leaf),
    )
    .await;
    assert_eq!(replicas.part("ca.crt").await, ca);
    replicas.agree().await;

    // Deleted: all is new, and the former authority stays trusted.
    replicas
        .secrets()
        .delete(SECRET, &DeleteParams::default())
        .await
        .unwrap();
    wait(
        "a new Secret",
        async || !matches!(replicas.part("ca.crt").await, part if part.is_empty() || part == ca),
    )
    .await;
    replicas.agree().await;

    // Cut in half.
    for key in ["tls.key", "tls.crt", "ca.key", "ca.crt"] {
        let whole = replicas.part(key).await;
        let half = whole[..whole.len() / 8 * 4].to_owned();
        replicas
            .secrets()
            .patch(SECRET, &params, &Patch::Merge(json!({"data": {key: half}})))
            .await
            .unwrap();
        wait(
            key,
            async || !matches!(replicas.part(key).await, part if part.is_empty() || part == half),
        )
        .await;
        replicas.agree().await;
    }
    load.end().await;
    stop.cancel();
    asking.await.unwrap();
    let (failed, made) = (failed.load(Ordering::Relaxed), made.load(Ordering::Relaxed));
    println!("{made} requests of the API server, {failed} failed");
    assert!(failed == 0 && made > 100, "{failed} of {made} failed");
}

#[tokio::test]
async fn a_clock_that_moves_by_30_days_leads_to_a_new_certificate() {
    // Their clock is 30 days behind: what they make ended weeks ago for everybody else.
    let replicas = Replicas::start("late", -30 * 24 * HOUR).await;
    wait("a first certificate", async || {
        !replicas.part("tls.crt").await.is_empty()
    })
    .await;
    replicas.agree().await;
    let (leaf, ca) = (
        replicas.part("tls.crt").await,
        replicas.part("ca.crt").await,
    );
    replicas.ahead.store(0, Ordering::Relaxed);
    wait("a new leaf", async || {
        replicas.part("tls.crt").await != leaf
    })
    .await;
    assert_eq!(
        replicas.part("ca.crt").await,
        ca,
        "the authority is good for a year"
    );
    replicas.agree().await;
    replicas.place.configure(&replicas.addresses[1]).await;
    assert!(replicas.refuses().await);
}
