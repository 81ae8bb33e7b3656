//! The verifiers of other projects, each with a policy of `docs/policies` that users copy.
//!
//! A policy in the documentation names `registry.example.com/team` and has a placeholder for the key. The test replaces both and
//! nothing else.

use std::path::PathBuf;

use affix_testbed::peer::Peer;
use affix_testbed::run::{Ran, Run};
use affix_testbed::tools::Tool;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

/// Two judges at a time: more would only wait for each other on a small machine.
const PARALLEL: usize = 2;

/// A public key, in a repository of its own.
pub(crate) struct Trusted<'a> {
    /// The name of the key, which is also the last part of `HOST/matrix/NAME`.
    pub(crate) name: &'a str,
    /// `HOST/matrix/NAME`: the images below it must be signed by the key.
    pub(crate) prefix: String,
    /// The public key in PEM.
    pub(crate) pem: String,
}

/// An image that a verifier accepts or refuses.
pub(crate) struct Question<'a> {
    pub(crate) key: &'a Trusted<'a>,
    /// `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@DIGEST`.
    pub(crate) image: String,
    /// The digest of the platform that a pull of the image selects. Only podman's library judges that.
    pub(crate) instance: Option<String>,
}

/// `Err` has the reason of the verifier.
pub(crate) type Answer = Result<(), String>;

/// A verifier with its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judge {
    Cosign,
    KyvernoTag,
    KyvernoBundle,
    KyvernoValidating,
    /// Reads signed statements. It is not one of [`ALL`](Self::ALL), which judge signatures.
    KyvernoAttestation,
    PolicyController,
    PolicyControllerBundle,
    Podman,
    PodmanRepository,
}

impl Judge {
    pub(crate) const ALL: [Self; 8] = [
        Self::Cosign,
        Self::KyvernoValidating,
        Self::KyvernoBundle,
        Self::KyvernoTag,
        Self::PolicyController,
        Self::PolicyControllerBundle,
        Self::Podman,
        Self::PodmanRepository,
    ];

    pub(crate) fn tool(self) -> Tool {
        match self {
            Self::Cosign => Tool::Cosign,
            Self::KyvernoTag
            | Self::KyvernoBundle
            | Self::KyvernoValidating
            | Self::KyvernoAttestation => Tool::Kyverno,
            Self::PolicyController | Self::PolicyControllerBundle => Tool::PolicyController,
            Self::Podman | Self::PodmanRepository => Tool::ContainersImage,
        }
    }

    /// The file of the policy in `docs/policies`; none for a verifier without one.
    pub(crate) fn policy(self) -> Option<&'static str> {
        match self {
            Self::Cosign => None,
            Self::KyvernoTag => Some("kyverno-clusterpolicy-tag.yaml"),
            Self::KyvernoBundle => Some("kyverno-clusterpolicy-bundle.yaml"),
            Self::KyvernoValidating => Some("kyverno-imagevalidatingpolicy.yaml"),
            Self::KyvernoAttestation => Some("kyverno-attestation.yaml"),
            Self::PolicyController | Self::PolicyControllerBundle => {
                Some("policy-controller-clusterimagepolicy.yaml")
            }
            Self::Podman => Some("podman-policy.json"),
            Self::PodmanRepository => Some("podman-policy-repository.json"),
        }
    }

    /// Whether the verifier judges one platform under the reference that was pulled.
    pub(crate) fn pulls(self) -> bool {
        matches!(self, Self::Podman | Self::PodmanRepository)
    }

    /// Asks the verifier about images of one registry.
    pub(crate) async fn judge(self, peer: &Peer, questions: &[Question<'_>]) -> Vec<Answer> {
        if self.tool() == Tool::Kyverno {
            return self.kyverno(peer, questions).await;
        }
        // Before the first run, because the runs read the files side by side.
        for question in questions {
            self.write_files(peer, question.key);
        }
        stream::iter(questions)
            .map(|question| async move {
                let ran = self.run(peer, question).output().await.unwrap();
                answer(&ran)
            })
            .buffered(PARALLEL)
            .collect()
            .await
    }

    /// Writes the key and what the verifier needs to know about it into the home of the tools.
    fn write_files(self, peer: &Peer, key: &Trusted<'_>) {
        let name = key.name;
        std::fs::write(peer.file(&format!("{name}.pub")), &key.pem).unwrap();
        if self == Self::Cosign {
            return;
        }
        let policy = peer.file(&format!("{self:?}-{name}.policy"));
        std::fs::write(policy, self.adapted(key)).unwrap();
        if self.pulls() {
            let storage = peer.file(&format!("{name}.registries.d"));
            std::fs::create_dir_all(&storage).unwrap();
            let text = documented("podman-registries.d.yaml")
                .replace("registry.example.com/team", &key.prefix);
            std::fs::write(storage.join("team.yaml"), text).unwrap();
        }
    }

    /// Prepares the judgement of one image.
    fn run(self, peer: &Peer, question: &Question<'_>) -> Run {
        let name = question.key.name;
        let run = peer.run(self.tool()).unwrap();
        if self == Self::Cosign {
            let key = format!("{name}.pub");
            let verify = ["verify", "--key", &key, "--insecure-ignore-tlog"];
            return run.args(verify).args([&question.image]);
        }
        let policy = format!("--policy={self:?}-{name}.policy");
        if !self.pulls() {
            return run.args([policy, format!("--image={}", question.image)]);
        }
        let instance = question.instance.clone().unwrap_or_default();
        run.args([
            policy,
            format!("--registries-d={name}.registries.d"),
            "--authfile=config.json".to_owned(),
            format!("--instance={instance}"),
            "--plain-http".to_owned(),
            question.image.clone(),
        ])
    }

    /// Returns the policy for the images and the key of a test.
    fn adapted(self, key: &Trusted<'_>) -> String {
        let text = documented(self.policy().unwrap());
        assert!(text.contains("registry.example.com/team"), "{text}");
        let text = text
            .replace("registry.example.com/team", &key.prefix)
            .replace("/etc/containers/cosign.pub", &format!("{}.pub", key.name));
        let text = with_key(&text, &key.pem);
        if self == Self::PolicyControllerBundle {
            return text.replace(
                "  - name: cosign-key\n",
                "  - name: cosign-key\n    signatureFormat: bundle\n",
            );
        }
        text
    }

    /// Judges all images in one run, because Kyverno takes long to start. Each image is a pod, and each key a policy.
    async fn kyverno(self, peer: &Peer, questions: &[Question<'_>]) -> Vec<Answer> {
        let mut policies = Vec::new();
        for question in questions {
            let name = format!("signed-images-{}", question.key.name);
            let file = peer.file(&format!("{self:?}-{}.yaml", question.key.name));
            if !policies.contains(&file) {
                let policy = self.adapted(question.key);
                let named = policy.replace("name: signed-images\n", &format!("name: {name}\n"));
                std::fs::write(&file, named).unwrap();
                policies.push(file);
            }
        }
        let images: Vec<&str> = questions.iter().map(|of| of.image.as_str()).collect();
        kyverno_apply(peer, &images, &policies).await
    }
}

/// Judges a pod for each image by policies of Kyverno, in one run.
pub(crate) async fn kyverno_apply(
    peer: &Peer,
    images: &[&str],
    policies: &[PathBuf],
) -> Vec<Answer> {
    let pods = peer.file("pods.yaml");
    let text: Vec<String> = (images.iter().enumerate())
        .map(|(number, image)| pod(number, image).to_string())
        .collect();
    std::fs::write(&pods, text.join("\n---\n")).unwrap();
    let ran = peer
        .run(Tool::Kyverno)
        .unwrap()
        .args([
            "apply",
            "--registry",
            "--remove-color",
            "--continue-on-fail",
        ])
        .args(["--policy-report", "--output-format=json", "--resource"])
        .args([pods])
        .args(policies)
        .timeout(std::time::Duration::from_mins(10));
    let ran = ran.output().await.unwrap();
    let report: Value = ran
        .out
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find(Value::is_object)
        .unwrap_or_else(|| panic!("Kyverno printed no report\n{}{}", ran.out, ran.err));
    (0..images.len())
        .map(|number| verdict(&report, &format!("pod-{number}")))
        .collect()
}

/// Returns the text of a policy with a public key in place of the placeholder, if it has one.
pub(crate) fn with_key(text: &str, pem: &str) -> String {
    let Some((before, rest)) = text.split_once("-----BEGIN PUBLIC KEY-----") else {
        return text.to_owned();
    };
    let (_, after) = rest.split_once("-----END PUBLIC KEY-----").unwrap();
    let indent = before.rsplit('\n').next().unwrap();
    let pem: Vec<&str> = pem.trim().lines().collect();
    format!("{before}{}{after}", pem.join(&format!("\n{indent}")))
}

/// Returns the text of a file in `docs/policies`.
pub(crate) fn documented(file: &str) -> String {
    let path = format!("{}/docs/policies/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn pod(number: usize, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{number}"), "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": image}]},
    })
}

/// Returns the verdict of a report of Kyverno about a pod. A pod without any result was not checked, which is no acceptance.
fn verdict(report: &Value, pod: &str) -> Answer {
    let results: Vec<&Value> = (report["results"].as_array().into_iter().flatten())
        .filter(|result| result["resources"][0]["name"] == pod && result["result"] != "skip")
        .collect();
    let refusals: Vec<String> = (results.iter())
        .filter(|result| result["result"] != "pass")
        .map(|result| format!("{}: {}", result["result"], result["message"]))
        .collect();
    match (results.len(), refusals.len()) {
        (0, _) => Err("no policy checked the image".to_owned()),
        (_, 0) => Ok(()),
        _ => Err(refusals.join("\n")),
    }
}

fn answer(ran: &Ran) -> Answer {
    if ran.status.success() {
        Ok(())
    } else {
        Err(format!("{}{}", ran.out, ran.err))
    }
}
