//! The Dockerfile and the image that `release/image.sh` builds without a container engine.

use std::path::Path;

use affix_testbed::registry::Registry;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};

use crate::support::golden::{read, repository};

/// The libraries of the base image besides the dynamic linker, from Debian's libc6 and libgcc-s1.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];

/// Returns the value of a line such as `ARG VERSION=0.1.0`.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let found = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name}"));
    found
        .split([' ', '"'])
        .find(|part| !part.is_empty())
        .unwrap_or_default()
}

#[tokio::test]
async fn the_binary_needs_only_libraries_that_the_base_image_has() {
    let binary = env!("CARGO_BIN_EXE_affix");
    let printed = Run::new("readelf")
        .args(["--dynamic", binary])
        .output()
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let needed: Vec<&str> = printed
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert!(needed.contains(&"libc.so.6"), "{printed}");
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|name| !LIBRARIES.contains(name) && !name.starts_with("ld-linux-"))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_image_has_current_versions_and_an_unprivileged_user() {
    let dockerfile = read("Dockerfile");
    let toolchain = value(&read("rust-toolchain.toml"), "channel = ").to_owned();
    assert!(
        dockerfile.contains(&format!("ARG BUILDER=rust:{toolchain}-slim-")),
        "{toolchain}"
    );
    assert_eq!(value(&dockerfile, "ENV RUSTUP_TOOLCHAIN="), toolchain);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(value(&dockerfile, "ARG VERSION="), version);
    assert_eq!(
        value(&read("charts/affix/Chart.yaml"), "appVersion: "),
        version
    );
    assert!(
        dockerfile.contains("USER 65532:65532")
            && !read("config/install.yaml").contains("runAsUser")
    );
}

#[test]
fn each_stage_declares_its_build_arguments() {
    let dockerfile = read("Dockerfile");
    let (global, stages) = dockerfile.split_once("\nFROM ").unwrap();
    let declares = |text: &str, name: &str| {
        text.lines().any(|line| {
            line.trim_start()
                .strip_prefix("ARG ")
                .is_some_and(|rest| rest.split('=').next() == Some(name))
        })
    };
    let names = |text: &str| {
        text.split("${")
            .skip(1)
            .map(|rest| rest.split(['}', '#']).next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut used = 0;
    for stage in stages.split("\nFROM ") {
        let (base, instructions) = stage.split_once('\n').unwrap();
        let undeclared = |name: &String| !declares(instructions, name);
        assert!(
            names(base).iter().all(|name| declares(global, name)),
            "FROM {base}"
        );
        let undeclared: Vec<String> = names(instructions)
            .into_iter()
            .inspect(|_| used += 1)
            .filter(undeclared)
            .collect();
        assert_eq!(
            undeclared,
            Vec::<String>::new(),
            "these are empty in the stage of {base}"
        );
    }
    assert!(used >= 3, "{used}");
}

#[tokio::test]
async fn the_build_context_of_the_image_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    for kept in read(".dockerignore")
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
    {
        if !repository(kept).exists() {
            continue;
        }
        let target = dir.path().join(kept);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let copied = Run::new("cp")
            .args([Path::new("-r"), &repository(kept), &target])
            .output()
            .await;
        copied.unwrap().stdout().unwrap();
    }
    let rust = |program: &str| {
        let names = ["HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];
        let set = names
            .into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        set.fold(Run::new(program).dir(dir.path()), |run, (name, value)| {
            run.env(name, value)
        })
    };
    // The tests download no crates of other platforms.
    let version = rust("rustc")
        .args(["-vV"])
        .output()
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let host = value(&version, "host: ");
    let metadata = rust(env!("CARGO")).args([
        "metadata",
        "--locked",
        "--offline",
        "--format-version",
        "1",
        "--filter-platform",
        host,
    ]);
    metadata.output().await.unwrap().stdout().unwrap();
}

/// Runs `release/image.sh` and returns the digest reference that it prints.
async fn make_image(tools: &Tools, image: &str, base: &str) -> String {
    let script = repository("release/image.sh");
    let home = tempfile::tempdir().unwrap();
    let run = Run::new("bash")
        .args([script.as_os_str()])
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.path())
        .env("CRANE", tools.path(Tool::Crane).unwrap())
        .env("BINARY", env!("CARGO_BIN_EXE_affix"))
        .env("IMAGE", image)
        .env("BASE", base)
        .env("REVISION", "0123abc")
        .env("SOURCE", "https://git.example.com/affix")
        .env("SOURCE_DATE_EPOCH", "1763942400");
    let printed = run.output().await.unwrap().stdout().unwrap();
    printed.trim().to_owned()
}

#[tokio::test]
async fn an_image_without_a_container_engine_has_the_layout_of_the_dockerfile() {
    let tools = Tools::core().await.unwrap();
    let registry = Registry::distribution(&tools).start().await.unwrap();
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("etc")).unwrap();
    std::fs::write(base.path().join("etc/base-file"), "base").unwrap();
    let image = format!("{}/team/affix:v1", registry.host());
    let pinned = make_image(&tools, &image, base.path().to_str().unwrap()).await;
    let again = make_image(&tools, &image, base.path().to_str().unwrap()).await;
    assert_eq!(pinned, again, "the same input gives the same image");

    let crane = async |args: &[&str]| {
        let run = Run::new(tools.path(Tool::Crane).unwrap()).args(args.iter().copied());
        run.output().await.unwrap().stdout().unwrap()
    };
    let config: Value = serde_json::from_str(&crane(&["config", &pinned]).await).unwrap();
    let config = &config["config"];
    let dockerfile = read("Dockerfile");
    assert_eq!(config["User"], value(&dockerfile, "USER "));
    let entrypoint = value(&dockerfile, "ENTRYPOINT [");
    assert_eq!(config["Entrypoint"], json!([entrypoint]));
    for port in dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("EXPOSE "))
        .unwrap()
        .split(' ')
    {
        assert!(config["ExposedPorts"][format!("{port}/tcp")].is_object());
    }
    let mut labels = 0;
    for line in dockerfile.lines() {
        let Some((name, wanted)) = line
            .trim_start_matches("LABEL")
            .trim()
            .split_once("=\"")
            .filter(|(name, _)| name.starts_with("org.opencontainers.image."))
        else {
            continue;
        };
        labels += 1;
        let wanted = wanted
            .trim_end_matches(['\\', ' ', '"'])
            .replace("${VERSION}", env!("CARGO_PKG_VERSION"))
            .replace("${REVISION}", "0123abc")
            .replace("${CREATED}", "2025-11-24T00:00:00Z")
            .replace("${SOURCE}", "https://git.example.com/affix")
            .replace("${BASE}", "scratch");
        assert_eq!(config["Labels"][name], wanted, "{config:#}");
    }
    assert!(labels >= 8, "{labels}");
    assert!(dockerfile.contains("AFFIX_COMMIT=") && dockerfile.contains("AFFIX_DATE="));

    // A second image on the first, by digest: its layers are those of the base and one more.
    let second = make_image(&tools, &image.replace(":v1", ":v2"), &pinned).await;
    let layers = async |image: &str| {
        let manifest: Value = serde_json::from_str(&crane(&["manifest", image]).await).unwrap();
        manifest["layers"].as_array().unwrap().clone()
    };
    let (below, above) = (layers(&pinned).await, layers(&second).await);
    assert_eq!(above[..below.len()], below);
    assert_eq!(above.len(), below.len() + 1);

    let dir = tempfile::tempdir().unwrap();
    let all = dir.path().join("all.tar");
    crane(&["export", &pinned, all.to_str().unwrap()]).await;
    let list = Run::new("tar").args(["-tf".as_ref(), all.as_os_str()]);
    let files = list.output().await.unwrap().stdout().unwrap();
    let copied = dockerfile.lines().filter_map(|line| {
        line.strip_prefix("COPY ")
            .and_then(|rest| rest.rsplit(' ').next())
            .filter(|target| target.starts_with('/'))
    });
    for file in copied.chain(["/etc/base-file"]) {
        let file = file.trim_start_matches('/');
        assert!(
            files
                .lines()
                .any(|line| line.trim_start_matches("./") == file),
            "no {file} in\n{files}"
        );
    }
}
