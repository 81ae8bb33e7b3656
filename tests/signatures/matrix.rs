//! Which verifier accepts which signatures of affix: the matrix of `docs/signatures.md`, from the verifiers' own answers.
//!
//! `AFFIX_UPDATE=1` writes the table instead of comparing it.

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
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/signatures.md");

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

/// The control: signed by another key than the policies trust, so that no verifier may accept it.
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

/// What the signer is told: a column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    Bundle,
    Tag,
    TagOfRepository,
    Both,
}

impl Format {
    const ALL: [Self; 4] = [Self::Bundle, Self::Tag, Self::TagOfRepository, Self::Both];

    fn title(self) -> &'static str {
        match self {
            Self::Bundle => "`[Bundle]`",
            Self::Tag => "`[Tag]`",
            Self::TagOfRepository => "`[Tag]`, `identity: Repository`",
            Self::Both => "`[Bundle, Tag]`",
        }
    }

    /// The last part of the repository.
    fn name(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Tag => "tag",
            Self::TagOfRepository => "repository",
            Self::Both => "both",
        }
    }

    /// The fields of `signature.cosign` beside the key.
    fn fields(self) -> Value {
        match self {
            Self::Bundle => json!({}),
            Self::Tag => json!({"formats": ["Tag"]}),
            Self::TagOfRepository => json!({"formats": ["Tag"], "identity": "Repository"}),
            Self::Both => json!({"formats": ["Bundle", "Tag"]}),
        }
    }
}

impl Judge {
    /// Returns why the verifier must refuse a format: a part of its message. None: it must accept it.
    fn refuses(self, format: Format) -> Option<&'static str> {
        match (self, format) {
            (Self::PolicyControllerBundle, _) => Some("the authority must be keyless"),
            (Self::KyvernoTag | Self::PolicyController, Format::Bundle) => {
                Some("no signatures found")
            }
            (Self::KyvernoBundle, Format::Tag | Format::TagOfRepository) => {
                Some("no matching signatures found")
            }
            (Self::Podman | Self::PodmanRepository, Format::Bundle) => {
                Some("A signature was required, but no signature exists")
            }
            (Self::Podman, Format::TagOfRepository) => Some("is not accepted"),
            _ => None,
        }
    }

    fn title(self) -> String {
        let version = self.tool().version().unwrap();
        let version = version.trim_start_matches('v');
        match self {
            Self::Cosign => format!("cosign {version}"),
            Self::KyvernoTag => {
                format!("Kyverno {version}, ClusterPolicy (default `type: Cosign`)")
            }
            Self::KyvernoBundle => {
                format!("Kyverno {version}, ClusterPolicy, `type: SigstoreBundle`")
            }
            Self::KyvernoValidating | Self::KyvernoAttestation => {
                format!("Kyverno {version}, ImageValidatingPolicy")
            }
            Self::PolicyController => format!("policy-controller {version}"),
            Self::PolicyControllerBundle => {
                format!("policy-controller {version}, `signatureFormat: bundle`")
            }
            Self::Podman => {
                format!("podman, skopeo, CRI-O, OpenShift (`go.podman.io/image` {version})")
            }
            Self::PodmanRepository => "the same with `matchRepository`".to_owned(),
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
    /// Pushes the images and signs each with one run of affix.
    async fn new(tools: &Tools, registry: Registry) -> Self {
        let peer = Peer::of(tools, &registry).unwrap();
        let raw = registry.raw().unwrap();
        let mut images = Vec::new();
        let mut resources = Vec::new();
        for key in KEYS.iter().chain([&OTHER]) {
            let private = std::fs::read_to_string(format!("{VECTORS}{}", key.private)).unwrap();
            resources.push(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": key.name},
                "stringData": {"cosign.key": private},
            }));
            for format in Format::ALL {
                let repository = format!("matrix/{}/{}", key.name, format.name());
                // Each image has digests of its own, so that no cache of a verifier answers for another.
                let index = Index::new()
                    .image(Image::new("linux/amd64", &repository))
                    .image(Image::new("linux/arm64", &format!("{repository} arm64")));
                let image = index.push(&raw, &repository, "v1").await.unwrap();
                let mut cosign = format.fields();
                cosign["keySecretRef"] = json!({"name": key.name});
                resources.push(json!({
                    "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
                    "metadata": {"name": format!("{}-{}", key.name, format.name())},
                    "spec": {"image": image.tagged(), "insecure": true, "signature": {"cosign": cosign}},
                }));
                images.push((key, format, image));
            }
        }
        let resources: Vec<String> = resources.iter().map(Value::to_string).collect();
        Run::new(env!("CARGO_BIN_EXE_affix"))
            .args(["attach", "-f", "-"])
            .env("DOCKER_CONFIG", peer.file(""))
            .input(resources.join("\n---\n"))
            .output()
            .await
            .unwrap()
            .stdout()
            .unwrap();
        Self {
            registry,
            peer,
            images,
        }
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
/// the platform under the reference of the index. In a cluster, Kyverno adds the digest to a tag before it asks an
/// ImageValidatingPolicy, which refuses a mere tag; its CLI does not.
fn references(judge: Judge, image: &Pushed) -> Vec<(String, Option<String>)> {
    let platform = image.digest_of("linux/amd64").unwrap();
    let index = match judge {
        Judge::KyvernoValidating => image.pinned(),
        _ => image.tagged(),
    };
    let mut references = vec![(index, None), (image.at(platform), None)];
    if judge.pulls() {
        references.push((image.tagged(), Some(platform.to_owned())));
        references.push((image.pinned(), Some(platform.to_owned())));
    }
    references
}

#[tokio::test]
#[ignore = "needs Kyverno, policy-controller and podman's library, which take minutes to build"]
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
    hold(&table(&answers));
}

/// Renders the answers about the kinds of keys.
fn table(answers: &BTreeMap<(usize, Format, &str), Vec<(String, Answer)>>) -> String {
    let mut text = "| verifier |".to_owned();
    for format in Format::ALL {
        write!(text, " {} |", format.title()).unwrap();
    }
    text.push_str(" policy |\n| --- |");
    text.push_str(&" --- |".repeat(Format::ALL.len() + 1));
    text.push('\n');
    for (row, judge) in Judge::ALL.into_iter().enumerate() {
        write!(text, "| {} |", judge.title()).unwrap();
        for format in Format::ALL {
            let accepted: Vec<&str> = (KEYS.iter())
                .filter(|key| {
                    answers[&(row, format, key.title)]
                        .iter()
                        .all(|(_, answer)| answer.is_ok())
                })
                .map(|key| key.title)
                .collect();
            let cell = match accepted.len() {
                0 => "no".to_owned(),
                all if all == KEYS.len() => "yes".to_owned(),
                _ => accepted.join(", "),
            };
            write!(text, " {cell} |").unwrap();
        }
        match judge
            .policy()
            .filter(|_| judge != Judge::PolicyControllerBundle)
        {
            Some(file) => writeln!(text, " [{file}](policies/{file}) |").unwrap(),
            None => text.push_str(" |\n"),
        }
    }
    text
}

/// Compares the table in the document, or writes it with `AFFIX_UPDATE`.
fn hold(table: &str) {
    const BEGIN: &str = "<!-- verifiers: make verifiers -->\n";
    const END: &str = "<!-- end of verifiers -->\n";
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    if std::env::var_os("AFFIX_UPDATE").is_some() {
        std::fs::write(DOCUMENT, format!("{before}{BEGIN}\n{table}\n{END}{after}")).unwrap();
    } else {
        assert_eq!(
            found.trim(),
            table.trim(),
            "docs/signatures.md is not current: make verifiers"
        );
    }
}
