//! The schemas of list items and map values that are plain text in Rust.
//!
//! Owns: their limits and rules. A rule that stands at the item makes the API server name the item that is wrong, as in
//! `spec.targets.platforms[1]`. Refuses: values; none of these types is ever made.

use std::borrow::Cow;

use kube::core::{Rule, validate};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::rules;

/// Declares the schema of a text: its longest length in characters, and its rule.
macro_rules! text {
    ($(#[doc = $doc:literal] $name:ident: $max:literal, $rule:expr;)+) => {$(
        #[doc = $doc]
        pub(super) enum $name {}

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                bounded_text($max, $rule)
            }
        }
    )+};
}

text! {
    /// An item of `platforms` and `excludePlatforms`.
    PlatformText: 128, rules::platform();
    /// An item of `previous`.
    DigestText: 135, rules::digest();
    /// An item of `unlessTagged`.
    TagPatternText: 129, rules::tag_pattern();
}

fn bounded_text(max: u32, rule: Rule) -> Schema {
    let mut schema = json_schema!({"type": "string", "maxLength": max});
    // A rule is plain data and always becomes JSON; the corpus test sees each of them refuse something.
    let _ = validate(&mut schema, rule);
    schema
}

/// A map of annotations.
pub(super) enum Annotations {}

impl JsonSchema for Annotations {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Annotations".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": 64,
            "additionalProperties": {"type": "string", "maxLength": 4096},
        })
    }
}
