//! Flags that are on or off, all alike and as Go's programs have them: `--flag`, `--flag=true` and `--flag=false`.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

/// Makes all flags of a command, and of its subcommands, that are on or off alike.
pub(super) fn alike(command: Command) -> Command {
    command
        .mut_args(|arg| if is_switch(&arg) { like_go(arg) } else { arg })
        .mut_subcommands(alike)
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::SetTrue)
        && arg.get_value_parser().type_id() == ValueParser::bool().type_id()
}

fn like_go(arg: Arg) -> Arg {
    let is_off = matches!(arg.get_action(), ArgAction::SetTrue);
    let arg = arg
        .action(ArgAction::Set)
        .value_name("BOOL")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true");
    if is_off {
        arg.default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
    } else {
        arg
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that unwraps fails, as it should"
    )]

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_switch_is_set_alone_or_after_an_equals_sign_and_takes_no_word_after_a_blank() {
        let mut seen = Vec::new();
        for command in alike(Cli::command()).get_subcommands() {
            let required = command
                .get_arguments()
                .filter(|arg| arg.is_required_set())
                .flat_map(|arg| match arg.get_long() {
                    Some(long) => vec![format!("--{long}"), "x".to_owned()],
                    None => vec!["x".to_owned()],
                });
            let required: Vec<String> = required.collect();
            for switch in command.get_arguments().filter(|arg| is_switch(arg)) {
                let long = switch.get_long().unwrap();
                let parse = |words: &[&str]| {
                    let words = words.iter().map(|word| (*word).to_owned());
                    let given = std::iter::once(command.get_name().to_owned())
                        .chain(words)
                        .chain(required.clone());
                    command
                        .clone()
                        .try_get_matches_from(given)
                        .map(|found| found.get_one::<bool>(switch.get_id().as_str()).copied())
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
            "allow-loopback",
            "deny-private-networks",
            "full-digests",
            "insecure-allow-http",
            "leader-elect",
            "plain-http",
            "yes",
        ];
        assert_eq!(seen, known);
    }
}
