//! Boolean flags as in Go: `--flag`, `--flag=true` and `--flag=false`.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

/// Gives the boolean flags of a command and of its subcommands the syntax of Go.
pub(super) fn with_go_syntax(command: Command) -> Command {
    command
        .mut_args(|arg| if is_boolean(&arg) { go_flag(arg) } else { arg })
        .mut_subcommands(with_go_syntax)
}

fn is_boolean(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::SetTrue)
        && arg.get_value_parser().type_id() == ValueParser::bool().type_id()
}

fn go_flag(arg: Arg) -> Arg {
    let is_off_by_default = matches!(arg.get_action(), ArgAction::SetTrue);
    let arg = arg
        .action(ArgAction::Set)
        .value_name("BOOL")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true");
    if is_off_by_default {
        arg.default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
    } else {
        arg
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_boolean_flag_has_the_syntax_of_go() {
        let mut seen = Vec::new();
        for command in with_go_syntax(Cli::command()).get_subcommands() {
            let required = command
                .get_arguments()
                .filter(|arg| arg.is_required_set())
                .flat_map(|arg| match arg.get_long() {
                    Some(long) => vec![format!("--{long}"), "x".to_owned()],
                    None => vec!["x".to_owned()],
                });
            let mut required: Vec<String> = required.collect();
            // attach requires either an image or files.
            if command.get_name() == "attach" {
                required.push("x".to_owned());
            }
            for flag in command.get_arguments().filter(|arg| is_boolean(arg)) {
                let long = flag.get_long().unwrap();
                let parse = |words: &[&str]| {
                    let words = words.iter().map(|word| (*word).to_owned());
                    let given = std::iter::once(command.get_name().to_owned())
                        .chain(words)
                        .chain(required.clone());
                    command
                        .clone()
                        .try_get_matches_from(given)
                        .map(|found| found.get_one::<bool>(flag.get_id().as_str()).copied())
                };
                for (word, expected) in [("", true), ("=true", true), ("=false", false)] {
                    let word = format!("--{long}{word}");
                    assert_eq!(parse(&[&word]).unwrap(), Some(expected), "{word}");
                }
                assert!(parse(&[&format!("--{long}=maybe")]).is_err(), "{long}");
                seen.push(long.to_owned());
            }
        }
        seen.sort();
        seen.dedup();
        let known = [
            "all-namespaces",
            "allow-loopback",
            "deny-private-networks",
            "dry-run",
            "enable-workload-identity",
            "full-digests",
            "in-place",
            "insecure-allow-http",
            "leader-elect",
            "plain-http",
            "recursive",
            "update",
            "yes",
        ];
        assert_eq!(seen, known);
    }
}
