//! The fixture of these tests: a registry with an image, a home folder, and the binary.

use std::path::PathBuf;

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::registry::{Options, Registry};
use affix_testbed::run::{Ran, Run};
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};

pub(crate) const LIFECYCLE: &str = "application/vnd.demo.artifact.lifecycle";
pub(crate) const DATE_KEY: &str = "vnd.demo.artifact.lifecycle.end-of-life.date";

/// A registry with the referrers API, and one without it.
pub(crate) const BOTH: [fn(&Tools) -> Options; 2] = [Registry::ociregistry, Registry::distribution];

pub(crate) struct Fixture {
    pub(crate) tools: Tools,
    pub(crate) registry: Registry,
    /// `team/app:v1`: linux/amd64, linux/arm64 and a build attestation of the first.
    pub(crate) image: Pushed,
    home: Home,
}

/// A folder that is removed with the fixture.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Fixture {
    pub(crate) async fn with(options: impl FnOnce(&Tools) -> Options) -> Self {
        let tools = Tools::core().await.unwrap();
        let registry = options(&tools).start().await.unwrap();
        let index = Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .image(Image::new("linux/arm64", "c1c1"));
        let image = index
            .attestation("linux/amd64")
            .push(&registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap();
        let unique = format!(
            "affix-cli-{}-{}",
            std::process::id(),
            registry.host().replace([':', '.'], "-")
        );
        let home = Home(std::env::temp_dir().join(unique));
        std::fs::create_dir_all(home.0.join(".docker")).unwrap();
        Self {
            tools,
            registry,
            image,
            home,
        }
    }

    pub(crate) async fn new() -> Self {
        Self::with(Registry::ociregistry).await
    }

    /// Writes a file into the home folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a login to the registry into the docker configuration.
    pub(crate) fn log_in(&self, user: &str, password: &str) {
        let login = json!({"username": user, "password": password});
        self.file(
            ".docker/config.json",
            &json!({"auths": {self.registry.host(): login}}).to_string(),
        );
    }

    /// Runs the binary with `text` on its stdin.
    pub(crate) async fn affix(&self, args: &[&str], text: &str) -> Ran {
        self.run(args).input(text).output().await.unwrap()
    }

    /// Prepares a run of the binary.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::new(env!("CARGO_BIN_EXE_affix"))
            .args(args.iter().copied())
            .env("HOME", &self.home.0)
    }

    /// Prepares a run of another tool in the same home folder.
    pub(crate) fn tool(&self, tool: Tool, args: &[&str]) -> Run {
        self.program(self.tools.path(tool).unwrap(), args)
    }

    /// Prepares a run of any program in the same home folder.
    pub(crate) fn program(&self, program: impl Into<PathBuf>, args: &[&str]) -> Run {
        Run::new(program)
            .args(args.iter().copied())
            .env("HOME", &self.home.0)
    }

    /// Returns the paths of all files in the home folder.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.home.0.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files.sort();
        files
    }

    /// Returns the artifact types of the referrers of a digest, as the registry lists them.
    pub(crate) async fn attached(&self, digest: &str) -> Vec<String> {
        let raw = self.registry.raw().unwrap();
        let api = raw.referrers("team/app", digest).await.unwrap();
        let answer = if api.status == 200 {
            api
        } else {
            raw.manifest("team/app", &digest.replace(':', "-"))
                .await
                .unwrap()
        };
        let listed = answer
            .json()
            .map(|index| index["manifests"].clone())
            .unwrap_or_default();
        listed
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| entry["artifactType"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Returns a resource for a registry over plain HTTP.
pub(crate) fn resource(name: &str, mut spec: Value) -> Value {
    spec["insecure"] = json!(true);
    json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec})
}

/// Returns an end-of-life mark for the index and linux/amd64.
pub(crate) fn mark(image: &str) -> Value {
    let end_of_life =
        json!({"date": "2025-03-20T01:20:30Z", "artifactType": LIFECYCLE, "annotation": DATE_KEY});
    resource(
        "app-v1",
        json!({"image": image, "targets": {"platforms": ["linux/amd64"]}, "endOfLife": end_of_life}),
    )
}

pub(crate) fn code(ran: &Ran) -> i32 {
    ran.status
        .code()
        .unwrap_or_else(|| panic!("no exit code: {}\n{}{}", ran.status, ran.out, ran.err))
}

/// Returns a digest as tables and trees show it.
pub(crate) fn short(digest: &str) -> &str {
    &digest[..digest.find(':').unwrap() + 13]
}
