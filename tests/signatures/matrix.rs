//! Which verifier accepts which signatures: the verifiers' own answers for each format, kind of key, subject and registry.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};

use crate::judges::{Answer, Judge, Question, Trusted};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/signing/cosign/");

/// A kind of key: its name in the table, the file of the private key, and the file of the public key that the policies trust.
struct Key {
    title: &'static str,
    name: &'static str,
    private: &'static str,
    public: &'static str,
}

const KEYS: [Key; 7] = [
    key("P-256", "p256", "p256.pem", "p256.pub"),
    key("P-384", "p384", "p384.pem", "p384.pub"),
    key("P-521", "p521", "p521.pem", "p521.pub"),
    key("Ed25519", "ed25519", "ed25519.pem", "ed25519.pub"),
    key("RSA 2048", "rsa-2048", "rsa.pem", "rsa.pub"),
    key("RSA 3072", "rsa-3072", "rsa-3072.pkcs1.pem", "rsa-3072.pub"),
    key("RSA 4096", "rsa-4096", "rsa-4096.pem", "rsa-4096.pub"),
];

/// The control: another key signs than the policies trust, so no verifier may accept it.
const OTHER: Key = key("another key", "other", "p256.pem", "rsa.pub");

const fn key(
    title: &'static str,
    name: &'static str,
    private: &'static str,
    public: &'static str,
) -> Key {
    Key {
        title,
        name,
        private,
        public,
    }
}

/// A format of signatures, with the signer that writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    /// A bundle as referrer, by affix.
    Bundle,
    /// The image tag `sha256-<hex>.sig`, by cosign: it proves that a verifier that refuses bundles is set up correctly.
    Tag,
}

impl Format {
    /// The last part of the repository.
    fn name(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Tag => "tag",
        }
    }
}

impl Judge {
    /// Returns why the verifier must refuse a format: a part of its message. None: it must accept it.
    fn refuses(self, format: Format) -> Option<&'static str> {
        match (self, format) {
            (Self::Podman | Self::PodmanRepository, Format::Bundle) => {
                Some("A signature was required, but no signature exists")
            }
            // cosign signs the repository without a tag.
            (Self::Podman, Format::Tag) => Some("is not accepted"),
            _ => None,
        }
    }
}

/// A registry with a signed image per key and format.
struct Signed {
    registry: Registry,
    peer: Peer,
    images: Vec<(&'static Key, Format, Pushed)>,
}

impl Signed {
    /// Pushes the images and signs them: the bundles with one run of affix, the tags with cosign.
    async fn new(tools: &Tools, registry: Registry) -> Self {
        let peer = Peer::of(tools, &registry).unwrap();
        let mut signed = Self {
            registry,
            peer,
            images: Vec::new(),
        };
        let mut resources = Vec::new();
        for key in KEYS.iter().chain([&OTHER]) {
            let private = std::fs::read_to_string(format!("{VECTORS}{}", key.private)).unwrap();
            let image = signed.push(key, Format::Bundle).await;
            resources.push(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": key.name},
                "stringData": {"cosign.key": private},
            }));
            resources.push(json!({
                "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
                "metadata": {"name": key.name},
                "spec": {
                    "image": image, "insecure": true,
                    "signature": {"cosign": {"keySecretRef": {"name": key.name}}},
                },
            }));
        }
        let resources: Vec<String> = resources.iter().map(Value::to_string).collect();
        Run::new(env!("CARGO_BIN_EXE_affix"))
            .args(["attach", "-f", "-"])
            .env("DOCKER_CONFIG", signed.peer.file(""))
            .input(resources.join("\n---\n"))
            .output()
            .await
            .unwrap()
            .stdout()
            .unwrap();
        for key in [&KEYS[0], &OTHER] {
            let image = signed.push(key, Format::Tag).await;
            signed.cosign(&image).await;
        }
        signed
    }

    /// Pushes an image with digests of its own, so that no cache of a verifier answers for another.
    async fn push(&mut self, key: &'static Key, format: Format) -> String {
        let repository = format!("matrix/{}/{}", key.name, format.name());
        let index = Index::new()
            .image(Image::new("linux/amd64", &repository))
            .image(Image::new("linux/arm64", &format!("{repository} arm64")));
        let raw = self.registry.raw().unwrap();
        let image = index.push(&raw, &repository, "v1").await.unwrap();
        let tagged = image.tagged();
        self.images.push((key, format, image));
        tagged
    }

    /// Signs the index and the platforms with cosign and the first of the keys.
    async fn cosign(&self, image: &str) {
        let key = format!("{VECTORS}p256.key");
        let sign = ["sign", "--yes", "--recursive", "--key", &key];
        let format = [
            "--tlog-upload=false",
            "--use-signing-config=false",
            "--new-bundle-format=false",
        ];
        let run = self
            .peer
            .run(Tool::Cosign)
            .unwrap()
            .env("COSIGN_PASSWORD", "affix");
        let run = run.args(sign).args(format).args([image]);
        run.output().await.unwrap().stdout().unwrap();
    }

    /// Returns the keys with the repositories that they sign.
    fn keys(&self) -> Vec<Trusted<'static>> {
        (KEYS.iter().chain([&OTHER]))
            .map(|key| Trusted {
                name: key.name,
                prefix: format!("{}/matrix/{}", self.registry.host(), key.name),
                pem: std::fs::read_to_string(format!("{VECTORS}{}", key.public)).unwrap(),
            })
            .collect()
    }
}

/// Returns the references under which a verifier sees an image: the index by its tag, and a platform by its digest. A pull judges
/// the platform under the reference of the index.
fn references(judge: Judge, image: &Pushed) -> Vec<(String, Option<String>)> {
    let platform = image.digest_of("linux/amd64").unwrap();
    let mut references = vec![(image.tagged(), None), (image.at(platform), None)];
    if judge.pulls() {
        references.push((image.tagged(), Some(platform.to_owned())));
        references.push((image.pinned(), Some(platform.to_owned())));
    }
    references
}

#[tokio::test]
#[ignore = "needs podman's library, which takes a minute to build"]
async fn every_verifier_accepts_the_formats_that_it_reads() {
    let tools: Vec<Tool> = Judge::ALL.into_iter().map(Judge::tool).collect();
    let tools = Tools::with(&tools).await.unwrap();
    let mut answers: BTreeMap<(usize, Format, &str), Vec<(String, Answer)>> = BTreeMap::new();
    for options in [Registry::ociregistry, Registry::distribution] {
        let registry = options(&tools).basic("ci", "secret").start().await.unwrap();
        let signed = Signed::new(&tools, registry).await;
        let keys = signed.keys();
        for (row, judge) in Judge::ALL.into_iter().enumerate() {
            let mut questions = Vec::new();
            let mut cells = Vec::new();
            for (key, format, image) in &signed.images {
                let trusted = keys
                    .iter()
                    .find(|trusted| trusted.name == key.name)
                    .unwrap();
                for (image, instance) in references(judge, image) {
                    cells.push((row, *format, key.title));
                    questions.push(Question {
                        key: trusted,
                        image,
                        instance,
                    });
                }
            }
            let found = judge.judge(&signed.peer, &questions).await;
            for ((cell, question), answer) in cells.into_iter().zip(questions).zip(found) {
                let image = format!("{} {:?}", question.image, question.instance);
                answers.entry(cell).or_default().push((image, answer));
            }
        }
    }
    let mut wrong = String::new();
    for ((row, format, key), answers) in &answers {
        let judge = Judge::ALL[*row];
        let reason = judge.refuses(*format);
        for (image, answer) in answers {
            let right = match (answer, reason) {
                _ if *key == OTHER.title => answer.is_err(),
                (Ok(()), None) => true,
                (Err(said), Some(reason)) => said.contains(reason),
                _ => false,
            };
            if !right {
                writeln!(
                    wrong,
                    "{judge:?} {format:?} {key} {image}, wanted {reason:?}: {answer:?}"
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
