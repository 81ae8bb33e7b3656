//! A hash of a JSON document that does not depend on white space, on the order of fields or on the notation of numbers
//! (docs/decisions/0121).
//!
//! Two documents have the same hash exactly if they state the same. The document is hashed while it is parsed, because the values of a
//! large SBOM would occupy many times its size.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use affix_registry::oci::{Digest, hex, value_bound};

/// The maximum number of values of a document.
pub(super) const MAX_VALUES: usize = 1 << 20;

type Hash = [u8; 32];

/// The integers up to this one are exact as floating-point numbers (RFC 8785, section 3.2.2.3).
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// Returns the hash of a document, or the error at its position.
pub(super) fn hash(json: &[u8]) -> Result<Digest, String> {
    if value_bound(json) > MAX_VALUES {
        return Err(format!("it has more than {MAX_VALUES} values"));
    }
    let Hashed(hash) = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    format!("sha256:{}", hex(&hash))
        .parse()
        .map_err(|_| "it has no hash".to_owned())
}

/// The hash of a value.
struct Hashed(Hash);

impl<'de> Deserialize<'de> for Hashed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Hasher).map(Self)
    }
}

struct Hasher;

/// Returns the hash of a value of a kind. The kind keeps `1` and `"1"` apart.
fn of(kind: u8, content: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[kind]);
    context.update(content);
    finish(context)
}

fn finish(context: Context) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

impl<'de> Visitor<'de> for Hasher {
    type Value = Hash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Hash, E> {
        Ok(of(b'n', &[]))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Hash, E> {
        Ok(of(b'b', &[u8::from(value)]))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Hash, E> {
        Ok(of(b'i', &i128::from(value).to_be_bytes()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Hash, E> {
        Ok(of(b'i', &i128::from(value).to_be_bytes()))
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "the number is whole and below the largest exact one"
    )]
    fn visit_f64<E>(self, value: f64) -> Result<Hash, E> {
        if value.fract() == 0.0 && value.abs() <= MAX_EXACT {
            return Ok(of(b'i', &(value as i128).to_be_bytes()));
        }
        Ok(of(b'f', &value.to_bits().to_be_bytes()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Hash, E> {
        Ok(of(b's', value.as_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Hash, A::Error> {
        let mut context = Context::new(&SHA256);
        context.update(b"a");
        while let Some(Hashed(item)) = items.next_element()? {
            context.update(&item);
        }
        Ok(finish(context))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Hash, A::Error> {
        let mut hashes: Vec<(Hash, Hash)> = Vec::new();
        while let Some((Hashed(name), Hashed(value))) = fields.next_entry()? {
            hashes.push((name, value));
        }
        // Of two fields with one name the last one counts, as for other parsers.
        hashes.reverse();
        hashes.sort_by_key(|(name, _)| *name);
        hashes.dedup_by_key(|(name, _)| *name);
        let mut context = Context::new(&SHA256);
        context.update(b"o");
        for (name, value) in hashes {
            context.update(&name);
            context.update(&value);
        }
        Ok(finish(context))
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        hash(one.as_bytes()).unwrap() == hash(other.as_bytes()).unwrap()
    }

    #[test]
    fn white_space_order_escapes_and_the_notation_of_numbers_do_not_count() {
        for (one, other) in [
            (
                r#"{"a":1,"b":[true,null]}"#,
                "{ \"b\" : [ true,\n null ], \"a\": 1 }",
            ),
            (r#"{"a":"\u003c/"}"#, r#"{"a":"<\/"}"#),
            ("[1, -0, 100]", "[1.0, 0, 1e2]"),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn other_content_has_another_hash() {
        for (one, other) in [
            ("[1,2]", "[2,1]"),
            ("[1]", r#"["1"]"#),
            ("[[],[]]", "[[[]]]"),
            ("{}", "[]"),
            (r#"{"a":null}"#, "{}"),
            (r#"{"a":"b"}"#, r#"{"b":"a"}"#),
            ("[9007199254740992]", "[9007199254740993]"),
            ("[1.5]", "[1.25]"),
            ("[false]", "[null]"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn broken_deep_and_crowded_documents_are_refused() {
        let deep = "[".repeat(10_000);
        let crowded = format!("[{}0]", "0,".repeat(MAX_VALUES));
        for document in ["", "{", "{}{}", "{\"a\":\"\u{0}\"}", &deep, &crowded] {
            assert!(hash(document.as_bytes()).is_err(), "{}", document.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_document_keeps_its_hash_when_it_is_written_again(text in "\\PC{0,20}", number in proptest::num::f64::NORMAL, whole in proptest::num::i64::ANY) {
            let value = serde_json::json!({"z": text, "a": [number, whole, {text.as_str(): null}]});
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            proptest::prop_assert_eq!(hash(&pretty), hash(value.to_string().as_bytes()));
        }
    }
}
