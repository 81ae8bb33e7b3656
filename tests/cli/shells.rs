//! Completion in real shells, completion for kubectl, and manual pages.

use std::collections::BTreeSet;

use affix_testbed::run::Run;
use affix_testbed::tools::Tool;

use crate::fixture::Fixture;

/// Returns true if a shell is installed. Not every machine has zsh and fish.
async fn is_installed(shell: &str) -> bool {
    let run = Run::new(shell).args(["-c", "exit 0"]).output().await;
    let installed = run.is_ok_and(|ran| ran.status.success());
    if !installed {
        println!("{shell} is not installed: its completion is not checked");
    }
    installed
}

/// Asks a shell for the completions of a command line. `SCRIPT` is the completion script of affix.
async fn complete(fixture: &Fixture, shell: &str, program: &str) -> BTreeSet<String> {
    let script = fixture
        .affix(&["completion", shell], "")
        .await
        .stdout()
        .unwrap();
    let script = fixture.file(&format!("completion.{shell}"), &script);
    let run = fixture
        .program(shell, &["-c", program])
        .env("SCRIPT", script)
        .env("TERM", "dumb");
    let ran = run.output().await.unwrap();
    assert_eq!(ran.err, "", "{shell}");
    let words = ran.stdout().unwrap();
    words
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn has(words: &BTreeSet<String>, wanted: &[&str]) {
    for word in wanted {
        assert!(words.contains(*word), "{word}: {words:?}");
    }
}

#[tokio::test]
async fn bash_completes_commands_flags_and_values() {
    let fixture = Fixture::new().await;
    let ask = |words: &str, current: &str| {
        format!(
            "source \"$SCRIPT\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _affix affix {current} x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
    };
    let words = complete(&fixture, "bash", &ask("affix p", "p")).await;
    has(&words, &["pin", "plan"]);
    assert!(!words.contains("attach"), "{words:?}");
    let words = complete(&fixture, "bash", &ask("affix attach --end", "--end")).await;
    has(&words, &["--end-of-life"]);
    let words = complete(&fixture, "bash", &ask("affix completion ''", "''")).await;
    has(&words, &["bash", "zsh", "fish"]);
}

#[tokio::test]
async fn zsh_completes_commands() {
    if !is_installed("zsh").await {
        return;
    }
    let fixture = Fixture::new().await;
    // zsh completes in an interactive shell only, so a second one runs in a terminal of its own.
    let program = r#"
        zmodload zsh/zpty
        mkdir -p $HOME/functions && cp $SCRIPT $HOME/functions/_affix
        print -l 'PS1="> "' 'fpath=($HOME/functions $fpath)' 'autoload -U compinit && compinit -u -d $HOME/dump' \
          'zstyle ":completion:*" list-prompt ""' 'LISTMAX=1000' > $HOME/.zshrc
        zpty -b z zsh -i
        zpty -w z 'bindkey "^X" list-choices; echo re"ady"'
        zpty -r z answer '*ready*'
        zpty -n -w z $'affix p\x18'
        zpty -r z answer '*plan*--*'
        print -r -- $answer
        zpty -d z"#;
    let words = complete(&fixture, "zsh", program).await;
    has(&words, &["pin", "plan"]);
}

#[tokio::test]
async fn fish_completes_commands_flags_and_values() {
    if !is_installed("fish").await {
        return;
    }
    let fixture = Fixture::new().await;
    let ask = |line: &str| format!("source $SCRIPT; complete --do-complete '{line}'");
    let words = complete(&fixture, "fish", &ask("affix p")).await;
    has(&words, &["pin", "plan"]);
    assert!(!words.contains("attach"), "{words:?}");
    let words = complete(&fixture, "fish", &ask("affix attach --end")).await;
    has(&words, &["--end-of-life"]);
    let words = complete(&fixture, "fish", &ask("affix tree --log-level ")).await;
    has(&words, &["trace", "warn"]);
}

#[tokio::test]
async fn kubectl_completes_the_plugin() {
    let fixture = Fixture::new().await;
    let bin = std::path::Path::new(&fixture.file("bin/.keep", "")).with_file_name("");
    let link = |target: &std::path::Path, name: &str| {
        std::os::unix::fs::symlink(target, bin.join(name)).unwrap();
    };
    link(
        std::path::Path::new(env!("CARGO_BIN_EXE_affix")),
        "kubectl-affix",
    );
    link(fixture.tools.path(Tool::Kubectl).unwrap(), "kubectl");
    let completer = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/release/kubectl_complete-affix"
    );
    link(std::path::Path::new(completer), "kubectl_complete-affix");
    fixture.file("resources/app.yaml", "");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", bin.display());
    let kubectl = async |words: &[&str]| {
        let run = fixture.tool(Tool::Kubectl, words).env("PATH", &path);
        let answer = run
            .dir(bin.join(".."))
            .output()
            .await
            .unwrap()
            .stdout()
            .unwrap();
        answer.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let version = kubectl(&["affix", "version"]).await;
    assert!(
        version[0].contains(env!("CARGO_PKG_VERSION")),
        "{version:?}"
    );
    let words = kubectl(&["__complete", "affix", "p"]).await;
    let names: Vec<_> = words
        .iter()
        .filter_map(|word| word.split('\t').next())
        .collect();
    assert_eq!(names, ["plan", "pin", ":4"], "{words:?}");
    let words = kubectl(&["__complete", "affix", "attach", "--sign"]).await;
    assert!(words[0].starts_with("--sign-with\t"), "{words:?}");
    let words = kubectl(&["__complete", "affix", "tree", "--log-level", "w"]).await;
    assert!(words[0].starts_with("warn\t"), "{words:?}");
    let words = kubectl(&["__complete", "affix", "plan", "-f", "reso"]).await;
    assert_eq!(words, ["resources/", ":6"]);
}

#[tokio::test]
async fn there_is_a_manual_page_for_each_command() {
    let fixture = Fixture::new().await;
    let folder = std::path::Path::new(&fixture.file("man/.keep", "")).with_file_name("");
    let folder = folder.to_str().unwrap();
    fixture.affix(&["man", folder], "").await.stdout().unwrap();
    for command in [
        "",
        "-attach",
        "-plan",
        "-tree",
        "-pin",
        "-status",
        "-detach",
        "-controller",
        "-webhook",
    ] {
        let page = std::fs::read_to_string(format!("{folder}/affix{command}.1")).unwrap();
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains("Examples"),
            "{page}"
        );
    }
    let page = std::fs::read_to_string(format!("{folder}/affix-attach.1")).unwrap();
    assert!(page.contains("\\-\\-end\\-of\\-life"), "{page}");
    // Hidden commands have no page.
    assert!(!std::path::Path::new(&format!("{folder}/affix-man.1")).exists());
    let missing = fixture.affix(&["man", "/nonexistent/folder"], "").await;
    assert!(
        !missing.status.success() && missing.err.contains("/nonexistent/folder"),
        "{}",
        missing.err
    );
}
