//! The verifiers of other projects, each with a policy of `docs/policies` that users copy.
//!
//! A policy names `registry.example.com/team` and a file with the key. The test replaces both and nothing else.

use affix_testbed::peer::Peer;
use affix_testbed::run::{Ran, Run};
use affix_testbed::tools::Tool;
use futures::{StreamExt as _, stream};

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
    Podman,
    PodmanRepository,
}

impl Judge {
    pub(crate) const ALL: [Self; 3] = [Self::Cosign, Self::Podman, Self::PodmanRepository];

    pub(crate) fn tool(self) -> Tool {
        match self {
            Self::Cosign => Tool::Cosign,
            Self::Podman | Self::PodmanRepository => Tool::ContainersImage,
        }
    }

    /// The file of the policy in `docs/policies`; none for a verifier without one.
    pub(crate) fn policy(self) -> Option<&'static str> {
        match self {
            Self::Cosign => None,
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
        let storage = peer.file(&format!("{name}.registries.d"));
        std::fs::create_dir_all(&storage).unwrap();
        let text = documented("podman-registries.d.yaml")
            .replace("registry.example.com/team", &key.prefix);
        std::fs::write(storage.join("team.yaml"), text).unwrap();
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
        let instance = question.instance.clone().unwrap_or_default();
        run.args([
            format!("--policy={self:?}-{name}.policy"),
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
        text.replace("registry.example.com/team", &key.prefix)
            .replace("/etc/containers/cosign.pub", &format!("{}.pub", key.name))
    }
}

/// Returns the text of a file in `docs/policies`.
fn documented(file: &str) -> String {
    let path = format!("{}/docs/policies/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn answer(ran: &Ran) -> Answer {
    if ran.status.success() {
        Ok(())
    } else {
        Err(format!("{}{}", ran.out, ran.err))
    }
}
