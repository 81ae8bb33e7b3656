//! The reference pages of the documentation, from the CRDs, the command line, the chart and the table of reasons.

use std::fmt::Write as _;

use affix::api::Reason;
use affix::cli::Cli;
use clap::{Arg, Command, CommandFactory as _};
use serde_json::{Value, json};

use super::values_table;
use crate::support::golden::hold;

const NOTE: &str = "<!-- Made by make generate. Do not edit. -->\n";

/// Returns text for a cell of a table. Angle brackets outside of code would be HTML.
fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = text.split('`').enumerate().map(|(position, part)| {
        if position % 2 == 0 {
            part.replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('*', "\\*")
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("`").replace('|', "\\|")
}

/// Returns the type of a field as users know it.
fn type_of(schema: &Value) -> String {
    let choices = [&schema["enum"], &schema["allOf"][0]["enum"]];
    if let Some(choices) = choices.into_iter().find_map(Value::as_array) {
        let choices = choices.iter().filter_map(Value::as_str);
        return choices
            .map(|choice| format!("`{choice}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if !schema["items"].is_null() {
        return format!("list of {}", type_of(&schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        return format!("map of {}", type_of(&schema["additionalProperties"]));
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (_, Some("date-time")) => "time".to_owned(),
        (Some(name), _) => name.to_owned(),
        (None, _) => "any".to_owned(),
    }
}

/// Writes a row for each field below a schema. A field that refers to another one has no rows for the fields below it.
fn fields(schema: &Value, path: &str, page: &mut String) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let about = cell(field["description"].as_str().unwrap_or_default());
        writeln!(page, "| `{path}` | {} | {about} |", type_of(field)).unwrap();
        if about.ends_with("As in signature.cosign.") {
            continue;
        }
        fields(field, &path, page);
        fields(&field["items"], &format!("{path}[]"), page);
    }
}

/// Collects the messages of all rules below a schema.
fn rules(schema: &Value, found: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let message = rule["message"].as_str().unwrap_or_default();
        if !message.is_empty() && !found.iter().any(|known| known == message) {
            found.push(message.to_owned());
        }
    }
    for field in schema["properties"].as_object().into_iter().flatten() {
        rules(field.1, found);
    }
    if schema["items"].is_object() {
        rules(&schema["items"], found);
    }
}

#[test]
fn the_reference_lists_every_field_of_the_resources() {
    let mut page = format!(
        "{NOTE}\n# Resources\n\nAll fields of the custom resources. `kubectl explain` shows the same texts.\n"
    );
    for crd in crate::support::objects::parse(&affix::api::crds_yaml()) {
        let names = &crd["spec"]["names"];
        let kind = names["kind"].as_str().unwrap();
        let short = names["shortNames"][0].as_str().unwrap_or_default();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            // The fields and rules of a template are those of the ImageAttachment above.
            if let Some(template) =
                schema.pointer_mut("/properties/spec/properties/template/properties/spec")
            {
                *template = json!({"type": "object", "description": template["description"]});
            }
            writeln!(
                page,
                "\n## {kind}\n\n`apiVersion: {}/{}`, `kind: {kind}`, short name `{short}`.\n",
                crd["spec"]["group"].as_str().unwrap(),
                version["name"].as_str().unwrap()
            )
            .unwrap();
            for part in ["spec", "status"] {
                write!(
                    page,
                    "### {kind} {part}\n\n| field | type | |\n| --- | --- | --- |\n"
                )
                .unwrap();
                fields(&schema["properties"][part], part, &mut page);
                page.push('\n');
            }
            let mut messages = Vec::new();
            rules(&schema["properties"]["spec"], &mut messages);
            if !messages.is_empty() {
                write!(
                    page,
                    "### {kind} rules\n\nThe API server refuses a spec with these messages:\n\n"
                )
                .unwrap();
                for message in messages {
                    writeln!(page, "- {}", cell(&message)).unwrap();
                }
            }
        }
    }
    hold("docs/reference/resources.md", &page);
}

/// Returns the flag as a user writes it.
fn flag(arg: &Arg) -> String {
    let value = arg
        .get_value_names()
        .and_then(<[_]>::first)
        .filter(|_| arg.get_action().takes_values());
    let name = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => arg
            .get_value_names()
            .and_then(<[_]>::first)
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    match value {
        Some(value) if !arg.is_positional() => format!("`{name} {value}`"),
        _ => format!("`{name}`"),
    }
}

/// Returns the default of a flag, and its possible values.
fn default_of(arg: &Arg) -> String {
    let defaults = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy());
    let default = defaults.collect::<Vec<_>>().join(",");
    if default.is_empty() || !arg.get_action().takes_values() {
        String::new()
    } else {
        format!("`{default}`")
    }
}

fn write_command(command: &Command, name: &str, page: &mut String) {
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().bin_name(name).render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    write!(
        page,
        "\n## {name}\n\n{}.\n\n```text\n{usage}\n```\n",
        about.trim().trim_end_matches('.')
    )
    .unwrap();
    let mut args: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && arg.get_id() != "help" && arg.get_id() != "version")
        .filter(|arg| !arg.is_global_set() || name == "affix")
        .collect();
    args.sort_by_key(|arg| !arg.is_positional());
    if !args.is_empty() {
        page.push_str("\n| argument or flag | default | |\n| --- | --- | --- |\n");
    }
    for arg in args {
        let mut about = arg
            .get_long_help()
            .or_else(|| arg.get_help())
            .map(ToString::to_string)
            .unwrap_or_default();
        let values: Vec<_> = arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set() && arg.get_action().takes_values())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !values.is_empty() && !values.contains(&"`true`".to_owned()) {
            write!(about, " ({})", values.join(", ")).unwrap();
        }
        writeln!(
            page,
            "| {} | {} | {} |",
            flag(arg),
            default_of(arg),
            cell(&about)
        )
        .unwrap();
    }
    if let Some(examples) = command.get_after_long_help() {
        let examples = examples.to_string();
        let (examples, rest) = examples
            .split_once("\n\nExit codes")
            .unwrap_or((&examples, ""));
        let examples = examples.trim_start_matches("Examples:\n");
        let lines: Vec<&str> = examples
            .lines()
            .map(|line| line.strip_prefix("  ").unwrap_or(line))
            .collect();
        write!(page, "\n```sh\n{}\n```\n", lines.join("\n")).unwrap();
        if !rest.is_empty() {
            write!(page, "\nExit codes{rest}\n").unwrap();
        }
    }
}

#[test]
fn the_reference_lists_every_command_and_flag() {
    let mut page = format!(
        "{NOTE}\n# Commands and flags\n\n`affix COMMAND --help` prints the same texts. As in Go, a boolean flag is written `--flag`, `--flag=true` or `--flag=false`.\n"
    );
    let mut affix = Cli::command();
    affix.build();
    write_command(&affix, "affix", &mut page);
    for command in affix
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        write_command(command, &format!("affix {}", command.get_name()), &mut page);
    }
    hold("docs/reference/commands.md", &page);
}

#[test]
fn the_reference_lists_every_value_of_the_chart() {
    let page = format!(
        "{NOTE}\n# Helm values\n\nThe values of the chart `charts/affix`. A schema rejects misspelt values. [Install](../install.md#helm) shows the commands.\n\n{}",
        values_table()
    );
    hold("docs/reference/helm-values.md", &page);
}

#[test]
fn the_reference_lists_every_reason() {
    let mut page = format!(
        "{NOTE}\n# Reasons\n\nA reason is the same in conditions, targets, events, log lines and metrics. Each name leads to the section of the \
troubleshooting page.\n\n| reason | affix then | |\n| --- | --- | --- |\n"
    );
    for reason in Reason::ALL {
        let name = reason.as_str();
        let next = match (reason.is_stalled(), reason.is_retried()) {
            (true, _) => "waits for you (Stalled)",
            (_, true) => "retries with back-off",
            _ => "",
        };
        writeln!(
            page,
            "| [{name}](../troubleshooting.md#{}) | {next} | {} |",
            name.to_lowercase(),
            cell(reason.about())
        )
        .unwrap();
    }
    hold("docs/reference/reasons.md", &page);
}
