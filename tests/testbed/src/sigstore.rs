//! A private Sigstore instance: Fulcio with its certificate transparency log, Rekor v2 and a timestamp authority. Owns their keys
//! and the two files that describe the instance to its clients; refuses to use the public instance.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ED25519,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::certificates::write;
use crate::control_plane::ControlPlane;
use crate::http_client;
use crate::port;
use crate::process::{Launch, Process};
use crate::run::Run;
use crate::tools::{Tool, Tools};

/// How long a service may take to start.
const START: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(50);
/// The audience of the tokens that Fulcio takes.
pub const AUDIENCE: &str = "sigstore";
/// The start of the validity of every key of the instance.
const VALID_FROM: &str = "start-time=2020-01-01T00:00:00Z";

/// A running instance. Dropping it ends its processes and removes its data.
#[derive(Debug)]
pub struct Sigstore {
    /// The certificate authority, and its log of certificates; none without an issuer of tokens.
    fulcio: Option<Service>,
    ct_log: Option<Service>,
    rekor: Service,
    timestamps: Service,
    trusted_root: String,
    signing_config: String,
    dir: TempDir,
}

#[derive(Debug)]
struct Service {
    process: Process,
    launch: Launch,
    url: String,
    /// A path that answers with success once the service is up.
    health: &'static str,
}

/// A service of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate authority.
    Fulcio,
    /// The transparency log.
    Rekor,
    /// The timestamp authority.
    Timestamps,
}

impl Sigstore {
    /// Starts all services. The control plane is the issuer of tokens.
    ///
    /// # Errors
    ///
    /// Where a service does not start; the message has the end of its log.
    pub async fn start(tools: &Tools, issuer: &ControlPlane) -> anyhow::Result<Self> {
        Self::start_with(tools, Some(issuer)).await
    }

    /// Starts the transparency log and the timestamp authority, for signatures with keys.
    ///
    /// # Errors
    ///
    /// Where a service does not start; the message has the end of its log.
    pub async fn start_without_fulcio(tools: &Tools) -> anyhow::Result<Self> {
        Self::start_with(tools, None).await
    }

    async fn start_with(tools: &Tools, issuer: Option<&ControlPlane>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("affix-sigstore-")
            .tempdir()?;
        let path = dir.path();
        let mut root = Vec::new();
        let mut config = Vec::new();
        let rekor = rekor(tools, path)?;
        let timestamps = timestamps(tools, path)?;
        let (ct_log, fulcio) = match issuer {
            Some(issuer) => {
                authority(path)?;
                let ct_log = ct_log(tools, path)?;
                let fulcio = fulcio(tools, path, issuer, &ct_log.url).await?;
                (Some(ct_log), Some(fulcio))
            }
            None => (None, None),
        };
        let mut instance = Self {
            fulcio,
            ct_log,
            rekor,
            timestamps,
            trusted_root: String::new(),
            signing_config: String::new(),
            dir,
        };
        for service in instance.services() {
            service.ready().await?;
        }
        let path = instance.dir.path();
        write(
            &path.join("timestamps.pem"),
            &get(&format!(
                "{}/api/v1/timestamp/certchain",
                instance.timestamps.url
            ))
            .await?,
        )?;
        let service = |url: &str| format!("url={url},api-version=1,{VALID_FROM},operator=testbed");
        if let (Some(fulcio), Some(ct_log)) = (&instance.fulcio, &instance.ct_log) {
            root.push(format!(
                "--fulcio=url={},certificate-chain=fulcio.pem",
                fulcio.url
            ));
            root.push(format!(
                "--ctfe=url={},public-key=ct-log.pub,{VALID_FROM}",
                ct_log.url
            ));
            config.push(format!("--fulcio={}", service(&fulcio.url)));
        }
        root.push(format!(
            "--rekor=url={},public-key=rekor.pub,{VALID_FROM},origin=localhost",
            instance.rekor.url
        ));
        root.push(format!(
            "--tsa=url={},certificate-chain=timestamps.pem",
            instance.timestamps.url
        ));
        let log = service(&instance.rekor.url).replace("api-version=1", "api-version=2");
        config.push(format!("--rekor={log}"));
        config.push("--rekor-config=ANY".to_owned());
        let timestamp_url = format!("{}/api/v1/timestamp", instance.timestamps.url);
        config.push(format!("--tsa={}", service(&timestamp_url)));
        config.push("--tsa-config=ANY".to_owned());
        instance.trusted_root = create(tools, path, "trusted-root", root).await?;
        instance.signing_config = create(tools, path, "signing-config", config).await?;
        Ok(instance)
    }

    fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        let log = [&mut self.rekor, &mut self.timestamps];
        self.ct_log.iter_mut().chain(&mut self.fulcio).chain(log)
    }

    fn part(&mut self, part: Part) -> anyhow::Result<&mut Service> {
        Ok(match part {
            Part::Fulcio => self.fulcio.as_mut().context("it was started without")?,
            Part::Rekor => &mut self.rekor,
            Part::Timestamps => &mut self.timestamps,
        })
    }

    /// The JSON of `trusted_root.json`: the keys and certificates of the instance, for verifiers.
    pub fn trusted_root(&self) -> &str {
        &self.trusted_root
    }

    /// The JSON of `signing_config.json` (v0.2): the addresses of the services, for signers.
    pub fn signing_config(&self) -> &str {
        &self.signing_config
    }

    /// The file `trusted_root.json`, as the option of cosign names it.
    pub fn trusted_root_file(&self) -> PathBuf {
        self.dir.path().join("trusted-root.json")
    }

    /// The file `signing_config.json`, as the option of cosign names it.
    pub fn signing_config_file(&self) -> PathBuf {
        self.dir.path().join("signing-config.json")
    }

    /// The certificates of the timestamp authority as PEM, from the one that signs to the root.
    ///
    /// # Errors
    ///
    /// Where the file is gone.
    pub fn timestamp_chain(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(
            self.dir.path().join("timestamps.pem"),
        )?)
    }

    /// The URL of a service, without a path.
    ///
    /// # Errors
    ///
    /// Where the instance has no Fulcio.
    pub fn url(&mut self, part: Part) -> anyhow::Result<String> {
        Ok(self.part(part)?.url.clone())
    }

    /// Freezes a service: connections open, and nobody answers.
    ///
    /// # Errors
    ///
    /// Where the instance has no Fulcio.
    pub fn pause(&mut self, part: Part) -> anyhow::Result<()> {
        self.part(part)?.process.pause();
        Ok(())
    }

    /// Lets a frozen service go on.
    ///
    /// # Errors
    ///
    /// Where the instance has no Fulcio.
    pub fn resume(&mut self, part: Part) -> anyhow::Result<()> {
        self.part(part)?.process.resume();
        Ok(())
    }

    /// Kills a service.
    ///
    /// # Errors
    ///
    /// Where it is not gone in time.
    pub async fn kill(&mut self, part: Part) -> anyhow::Result<()> {
        self.part(part)?.process.kill().await.map(drop)
    }

    /// Starts a killed service again with its data. The timestamp authority has a new key then, which the trusted root does not have.
    ///
    /// # Errors
    ///
    /// Where it does not start.
    pub async fn start_again(&mut self, tools: &Tools, part: Part) -> anyhow::Result<()> {
        let service = self.part(part)?;
        service.process = service.launch.start(tools)?;
        service.ready().await
    }
}

impl Service {
    fn start(
        tools: &Tools,
        launch: Launch,
        url: String,
        health: &'static str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            process: launch.start(tools)?,
            launch,
            url,
            health,
        })
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        let url = format!("{}{}", self.url, self.health);
        loop {
            if get(&url).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.ended()? {
                let name = self.process.name();
                bail!("{name} ended with {status}:\n{}", self.process.log()?);
            }
            if Instant::now() > deadline {
                bail!("{url} does not answer:\n{}", self.process.log()?);
            }
            sleep(POLL).await;
        }
    }
}

async fn get(url: &str) -> anyhow::Result<String> {
    let answer = http_client::client(None)?.get(url).send().await?;
    Ok(answer.error_for_status()?.text().await?)
}

fn launch(tools: &Tools, tool: Tool, name: &str, dir: &Path) -> anyhow::Result<Launch> {
    Ok(Launch::new(name, tools.path(tool)?, dir.join(format!("{name}.log"))).orphans_folder(dir))
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}

/// The log. Its origin is the host of its URL, without the port.
fn rekor(tools: &Tools, dir: &Path) -> anyhow::Result<Service> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    write(&dir.join("rekor.key"), &key.serialize_pem())?;
    write(&dir.join("rekor.pub"), &key.public_key_pem())?;
    let storage = dir.join("rekor");
    std::fs::create_dir(&storage)?;
    let port = port::free()?;
    let launch = launch(tools, Tool::Rekor, "rekor", dir)?
        .args([
            "serve",
            "--hostname=localhost",
            "--persistent-antispam=true",
        ])
        .args(["--checkpoint-interval=2s", "--batch-max-age=100ms"])
        .arg(format!("--http-port={port}"))
        .arg(format!("--grpc-port={}", port::free()?))
        .arg(format!("--http-metrics-port={}", port::free()?))
        .arg(flag("--storage-dir=", &storage))
        .arg(flag("--signer-filepath=", &dir.join("rekor.key")));
    Service::start(
        tools,
        launch,
        format!("http://localhost:{port}"),
        "/healthz",
    )
}

fn timestamps(tools: &Tools, dir: &Path) -> anyhow::Result<Service> {
    let port = port::free()?;
    let launch =
        launch(tools, Tool::TimestampAuthority, "timestamps", dir)?.arg(format!("-port={port}"));
    let url = format!("http://127.0.0.1:{port}");
    Service::start(tools, launch, url, "/ping")
}

/// Writes the certificate and the key of the certificate authority.
fn authority(dir: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "fulcio");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "testbed");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let key = KeyPair::generate()?;
    write(&dir.join("fulcio.pem"), &params.self_signed(&key)?.pem())?;
    write(&dir.join("fulcio.key"), &key.serialize_pem())
}

/// The log of certificates, which gives each certificate a promise to log it.
fn ct_log(tools: &Tools, dir: &Path) -> anyhow::Result<Service> {
    let key = KeyPair::generate()?;
    write(&dir.join("ct-log.key"), &sec1_pem(&key)?)?;
    write(&dir.join("ct-log.pub"), &key.public_key_pem())?;
    let storage = dir.join("ct-log");
    std::fs::create_dir(&storage)?;
    let port = port::free()?;
    let launch = launch(tools, Tool::CtLog, "ct-log", dir)?
        .args(["--origin=localhost", "--ext_key_usages=CodeSigning"])
        .arg("--enable_publication_awaiter=false")
        .arg(format!("--http_endpoint=127.0.0.1:{port}"))
        .arg(flag("--private_key=", &dir.join("ct-log.key")))
        .arg(flag("--storage_dir=", &storage))
        .arg(flag("--roots_pem_file=", &dir.join("fulcio.pem")));
    let url = format!("http://127.0.0.1:{port}");
    Service::start(tools, launch, url, "/ct/v1/get-roots")
}

/// The certificate authority. It asks the issuer for its keys without a login.
async fn fulcio(
    tools: &Tools,
    dir: &Path,
    issuer: &ControlPlane,
    ct_log: &str,
) -> anyhow::Result<Service> {
    let binding = [
        "create",
        "clusterrolebinding",
        "issuer-discovery",
        "--clusterrole=system:service-account-issuer-discovery",
        "--group=system:unauthenticated",
    ];
    let bound = issuer.kubectl(binding).await?;
    ensure!(
        bound.status.success() || bound.err.contains("already exists"),
        "{}",
        bound.err
    );
    let url = issuer.url();
    let certificate = issuer.ca_pem().replace('\n', "\n      ");
    let config = format!(
        "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: {AUDIENCE}\n    type: kubernetes\n    ca-cert: |\n      {certificate}\n"
    );
    write(&dir.join("fulcio.yaml"), &config)?;
    let port = port::free()?;
    let launch = launch(tools, Tool::Fulcio, "fulcio", dir)?
        .args([
            "serve",
            "--ca=fileca",
            "--host=127.0.0.1",
            "--grpc-host=127.0.0.1",
        ])
        .args(["--fileca-watch=false", "--fileca-key-passwd="])
        .arg(format!("--ct-log-url={ct_log}"))
        .arg(format!("--port={port}"))
        .arg(format!("--grpc-port={}", port::free()?))
        .arg(format!("--metrics-port={}", port::free()?))
        .arg(format!("--legacy-unix-domain-socket=@affix-fulcio-{port}"))
        .arg(flag("--config-path=", &dir.join("fulcio.yaml")))
        .arg(flag("--fileca-cert=", &dir.join("fulcio.pem")))
        .arg(flag("--fileca-key=", &dir.join("fulcio.key")))
        .env("HOME", dir);
    let url = format!("http://127.0.0.1:{port}");
    Service::start(tools, launch, url, "/healthz")
}

/// The key in the form of SEC 1, the only one that the log of certificates reads.
fn sec1_pem(key: &KeyPair) -> anyhow::Result<String> {
    /// The start of an `ECPrivateKey` up to its secret: the version and the header of an octet string of 32 bytes.
    const START: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    /// The parameters: P-256.
    const CURVE: [u8; 12] = [
        0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    let der = key.serialize_der();
    let start = der.windows(START.len()).position(|window| window == START);
    let secret = start
        .and_then(|start| der.get(start + START.len()..start + START.len() + 32))
        .context("the key is no P-256 key")?;
    let sec1 = [&[0x30, 0x31], START.as_slice(), secret, &CURVE].concat();
    let text = STANDARD.encode(sec1);
    let label = "EC PRIVATE KEY";
    let lines: Vec<String> = text
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    Ok(format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    ))
}

/// Lets cosign write one of the two files, and returns it.
async fn create(
    tools: &Tools,
    dir: &Path,
    file: &str,
    parts: Vec<String>,
) -> anyhow::Result<String> {
    let out = format!("{file}.json");
    Run::new(tools.path(Tool::Cosign)?)
        .dir(dir)
        .env("HOME", dir)
        .args([file, "create", "--out", out.as_str()])
        .args(parts)
        .output()
        .await?
        .stdout()?;
    Ok(std::fs::read_to_string(dir.join(out))?)
}
