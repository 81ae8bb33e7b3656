//! What a user downloads: the archive of a release, the plugin of krew, and the action for workflows. Each is used as a user would, with
//! files on this machine in place of a release.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::registry::Registry;
use affix_testbed::run::{Ran, Run};
use affix_testbed::tools::{Tool, Tools};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::golden::{read, repository};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A folder that is served as the releases of a repository: `v0.1.0/` with the archive for this machine and `SHA256SUMS`.
struct Release {
    dir: TempDir,
    archive: PathBuf,
}

impl Release {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(format!("v{VERSION}"));
        let ran = Run::new("bash")
            .args([
                repository("release/archive.sh"),
                env!("CARGO_BIN_EXE_affix").into(),
                folder.clone(),
            ])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .await
            .unwrap();
        let archive = PathBuf::from(ran.stdout().unwrap().trim());
        let sums = format!(
            "{}  {}\n",
            sum(&archive),
            archive.file_name().unwrap().to_str().unwrap()
        );
        std::fs::write(folder.join("SHA256SUMS"), sums).unwrap();
        Self { dir, archive }
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir.path().display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn sum(file: &Path) -> String {
    let bytes = std::fs::read(file).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

async fn image(tools: &Tools) -> (Registry, Pushed) {
    let registry = Registry::ociregistry(tools).start().await.unwrap();
    let index = Index::new()
        .image(Image::new("linux/amd64", "b1b1"))
        .image(Image::new("linux/arm64", "c1c1"));
    let image = index
        .push(&registry.raw().unwrap(), "team/app", "v1")
        .await
        .unwrap();
    (registry, image)
}

#[tokio::test]
async fn an_archive_has_the_binary_manual_pages_and_completion_and_is_reproducible() {
    let (first, second) = (Release::new().await, Release::new().await);
    assert_eq!(sum(&first.archive), sum(&second.archive));
    let list = Run::new("tar").args(["-tzf".as_ref(), first.archive.as_os_str()]);
    let files = list.output().await.unwrap().stdout().unwrap();
    for file in [
        "affix",
        "LICENSE",
        "man/affix.1",
        "man/affix-attach.1",
        "completions/affix.bash",
        "completions/_affix",
        "completions/affix.fish",
        "completions/kubectl_complete-affix",
    ] {
        assert!(files.lines().any(|line| line == file), "{file}: {files}");
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn krew_installs_the_plugin_from_the_manifest_of_a_release() {
    let tools = Tools::with(&[Tool::Krew]).await.unwrap();
    let release = Release::new().await;
    let manifest = async |archive: &Path| {
        let run = Run::new(repository("release/krew.sh")).args([
            VERSION.as_ref(),
            "https://git.example.com/affix".as_ref(),
            "https://git.example.com/affix/releases/download/v0.1.0".as_ref(),
            archive.as_os_str(),
        ]);
        run.output().await.unwrap().stdout().unwrap()
    };
    let file = release.path("affix.yaml");
    std::fs::write(&file, manifest(&release.archive).await).unwrap();
    let krew_root = release.path("krew");
    let path = format!(
        "{}:{}",
        krew_root.join("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let krew = async |archive: &Path| -> Ran {
        let run = Run::new(tools.path(Tool::Krew).unwrap()).args([
            "install".into(),
            format!("--manifest={}", file.display()),
            format!("--archive={}", archive.display()),
        ]);
        let run = run
            .env("KREW_ROOT", &krew_root)
            .env("HOME", release.dir.path());
        run.env("PATH", &path)
            .env("KREW_NO_UPGRADE_CHECK", "1")
            .output()
            .await
            .unwrap()
    };

    // An archive with other bytes than the manifest's checksum is refused.
    let other = release.path("other.tar.gz");
    let mut bytes = std::fs::read(&release.archive).unwrap();
    bytes.push(0);
    std::fs::write(&other, bytes).unwrap();
    let refused = krew(&other).await;
    assert!(
        !refused.status.success() && refused.err.contains("checksum"),
        "{}",
        refused.err
    );

    let installed = krew(&release.archive).await;
    assert!(
        installed.status.success(),
        "{}{}",
        installed.out,
        installed.err
    );
    let kubectl =
        Run::new(tools.path(Tool::Kubectl).unwrap()).args(["affix", "version", "-o", "json"]);
    let version = kubectl
        .env("PATH", &path)
        .env("HOME", release.dir.path())
        .output()
        .await
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(version["version"], VERSION);
}

/// The steps of `action.yml`.
fn action() -> Value {
    serde_saphyr::from_str(&read("action.yml")).unwrap()
}

/// Runs the steps of the action as a runner does: each script in bash, with the step's environment and the paths that earlier steps added.
async fn run_action(release: &Release, inputs: &[(&str, &str)]) -> Result<String, String> {
    let action = action();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for (name, input) in action["inputs"].as_object().unwrap() {
        values.insert(
            name.clone(),
            input["default"].as_str().unwrap_or_default().to_owned(),
        );
    }
    for (name, value) in inputs {
        assert!(
            values
                .insert((*name).to_owned(), (*value).to_owned())
                .is_some(),
            "{name} is no input"
        );
    }
    let mut path = std::env::var("PATH").unwrap();
    let mut output = String::new();
    for (number, step) in action["runs"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        assert_eq!(step["shell"], "bash");
        let added = release.path(&format!("path-{number}"));
        std::fs::write(&added, "").unwrap();
        let script = release.path(&format!("step-{number}.sh"));
        std::fs::write(&script, step["run"].as_str().unwrap()).unwrap();
        // As the runner starts bash.
        let mut run = Run::new("bash").args([
            "--noprofile",
            "--norc",
            "-eo",
            "pipefail",
            script.to_str().unwrap(),
        ]);
        for (name, expression) in step["env"].as_object().unwrap() {
            let expression = expression
                .as_str()
                .unwrap()
                .trim_start_matches("${{")
                .trim_end_matches("}}")
                .trim();
            // `inputs.NAME`, or `inputs.NAME || …`, where the test gives the input.
            let name_of_input = expression
                .strip_prefix("inputs.")
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            run = run.env(name, &values[name_of_input]);
        }
        let machine = if cfg!(target_arch = "aarch64") {
            "ARM64"
        } else {
            "X64"
        };
        let system = if cfg!(target_os = "macos") {
            "macOS"
        } else {
            "Linux"
        };
        let run = run
            .env("RUNNER_OS", system)
            .env("RUNNER_ARCH", machine)
            .env("RUNNER_TEMP", release.path("temp"))
            .env("GITHUB_PATH", &added)
            .env("GITHUB_STEP_SUMMARY", release.path("summary.md"))
            .env("HOME", release.dir.path())
            .env("PATH", &path);
        let ran = run.dir(release.dir.path()).output().await.unwrap();
        output.push_str(&ran.out);
        output.push_str(&ran.err);
        if !ran.status.success() {
            return Err(output);
        }
        for folder in std::fs::read_to_string(&added).unwrap().lines() {
            path = format!("{folder}:{path}");
        }
    }
    Ok(output)
}

async fn marks(registry: &Registry, digest: &str) -> usize {
    let listed = registry
        .raw()
        .unwrap()
        .referrers("team/app", digest)
        .await
        .unwrap()
        .json()
        .unwrap();
    // This registry lists none as null.
    listed["manifests"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn the_action_attaches_files_and_flags_with_a_verified_archive() {
    let tools = Tools::core().await.unwrap();
    let (registry, image) = image(&tools).await;
    let release = Release::new().await;
    std::fs::create_dir(release.path("temp")).unwrap();
    let url = release.url();

    // By flags, on one platform.
    let by_flags = [
        ("base-url", url.as_str()),
        ("image", &image.at(image.digest())),
        (
            "args",
            "--plain-http --end-of-life=2025-03-20\n--platform linux/amd64",
        ),
    ];
    let output = run_action(&release, &by_flags).await.unwrap();
    assert!(output.contains("linux/amd64"), "{output}");
    assert_eq!(
        marks(&registry, image.digest_of("linux/amd64").unwrap()).await,
        1,
        "{output}"
    );
    assert_eq!(
        marks(&registry, image.digest_of("linux/arm64").unwrap()).await,
        0,
        "{output}"
    );
    let summary = std::fs::read_to_string(release.path("summary.md")).unwrap();
    assert!(
        summary.starts_with("```text\n") && summary.contains("linux/amd64"),
        "{summary}"
    );

    // By files.
    let resource = format!(
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: scan}}\nspec:\n  image: {}\n  insecure: true\n  \
         artifact: {{artifactType: application/vnd.example.scan, annotations: {{a: b}}}}\n",
        image.at(image.digest())
    );
    std::fs::write(release.path("scan.yaml"), resource).unwrap();
    let by_files = [
        ("base-url", url.as_str()),
        ("files", "scan.yaml"),
        ("version", &format!("v{VERSION}")),
    ];
    run_action(&release, &by_files).await.unwrap();
    assert_eq!(
        marks(&registry, image.digest_of("linux/arm64").unwrap()).await,
        1
    );

    // The exit code of affix is that of the step, and the summary says why.
    std::fs::write(
        release.path("bad.yaml"),
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAtachment\n",
    )
    .unwrap();
    let error = run_action(&release, &[("base-url", &url), ("files", "bad.yaml")])
        .await
        .unwrap_err();
    assert!(error.contains("ImageAtachment"), "{error}");

    // Neither files nor image: the action installs affix and does nothing.
    run_action(&release, &[("base-url", &url)]).await.unwrap();
}

#[tokio::test]
async fn the_action_refuses_an_archive_with_another_checksum() {
    let release = Release::new().await;
    std::fs::create_dir(release.path("temp")).unwrap();
    let url = release.url();
    let wrong = "0".repeat(64);
    let pinned = [("base-url", url.as_str()), ("sha256", &wrong)];
    let error = run_action(&release, &pinned).await.unwrap_err();
    assert!(
        error.contains("::error::the SHA-256 of") && error.contains(&wrong),
        "{error}"
    );

    let sums = release.archive.with_file_name("SHA256SUMS");
    for (text, cause) in [
        (
            format!(
                "{wrong}  {}\n",
                release.archive.file_name().unwrap().to_str().unwrap()
            ),
            wrong.as_str(),
        ),
        (String::new(), "one in SHA256SUMS"),
    ] {
        std::fs::write(&sums, text).unwrap();
        let error = run_action(&release, &[("base-url", &url)])
            .await
            .unwrap_err();
        assert!(error.contains(cause), "{error}");
    }
    // No release of that version.
    let error = run_action(&release, &[("base-url", &url), ("version", "9.9.9")])
        .await
        .unwrap_err();
    assert!(error.contains("curl"), "{error}");
}

#[test]
fn the_action_installs_the_version_of_this_release() {
    assert_eq!(action()["inputs"]["version"]["default"], VERSION);
}

/// Returns the workflow of docs/ci.md, with the action of this checkout.
fn documented_workflow() -> String {
    let page = read("docs/ci.md");
    let blocks = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let workflow = blocks
        .into_iter()
        .find(|block| block.contains("jobs:"))
        .unwrap();
    workflow.replace(&format!("OWNER/affix@v{VERSION}"), "./")
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn actionlint_accepts_the_documented_workflow_and_knows_the_inputs_of_the_action() {
    let tools = Tools::with(&[Tool::Actionlint]).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join(".git")).unwrap();
    std::fs::create_dir_all(dir.path().join(".github/workflows")).unwrap();
    std::fs::copy(repository("action.yml"), dir.path().join("action.yml")).unwrap();
    let lint = async |workflow: &str| {
        std::fs::write(dir.path().join(".github/workflows/attach.yml"), workflow).unwrap();
        let run = Run::new(tools.path(Tool::Actionlint).unwrap()).args([
            "-no-color",
            "-shellcheck=",
            "-pyflakes=",
        ]);
        run.dir(dir.path()).output().await.unwrap()
    };
    let workflow = documented_workflow();
    assert!(workflow.contains("uses: ./"), "{workflow}");
    lint(&workflow).await.stdout().unwrap();
    let misspelt = lint(&workflow.replace("        files:", "        file:")).await;
    assert!(
        !misspelt.status.success() && misspelt.out.contains("\"file\""),
        "{}",
        misspelt.out
    );
}
