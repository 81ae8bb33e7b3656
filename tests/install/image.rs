//! The Dockerfile, as far as it can be proven without a container engine.

use std::path::Path;

use affix_testbed::run::Run;

use crate::support::golden::{read, repository};

/// The libraries of Debian's that the base image has besides the dynamic linker: libc6 and libgcc-s1.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];

/// The value of a line such as `ARG VERSION=0.1.0`.
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
fn the_image_has_the_versions_of_the_toolchain_and_of_the_package_and_no_rights() {
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
fn each_stage_declares_what_it_is_told_from_outside() {
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
            .map(|rest| rest.split('}').next().unwrap().to_owned())
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
async fn what_the_build_of_the_image_is_given_is_a_whole_package() {
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
    // Crates of other platforms were never downloaded.
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
