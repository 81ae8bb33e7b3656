//! The API server accepts the status after any answer of a registry. A refused status would be refused on every retry.

use affix::api::{ImageAttachmentSetStatus, ImageAttachmentStatus, TargetState, crd, set_crd};
use affix_testbed::hostile::{Fault, HostileRegistry, Matcher, Op};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::resource::{CREATED, Resource, TYPE, attach, note};

/// Returns the fields of a status that exceed the limits of the schema.
pub(crate) fn exceeded(status: &ImageAttachmentStatus) -> Vec<String> {
    exceeded_of(crd(), serde_json::to_value(status).unwrap())
}

/// Returns the fields of the status of a set that exceed the limits of the schema.
pub(crate) fn exceeded_of_set(status: &ImageAttachmentSetStatus) -> Vec<String> {
    exceeded_of(set_crd(), serde_json::to_value(status).unwrap())
}

fn exceeded_of(crd: CustomResourceDefinition, status: Value) -> Vec<String> {
    let crd = serde_json::to_value(crd).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let mut wrong = Vec::new();
    compare("status", &status, schema, &mut wrong);
    wrong
}

fn compare(at: &str, value: &Value, schema: &Value, wrong: &mut Vec<String>) {
    let mut limit = |name: &str, count: usize| {
        if schema[name]
            .as_u64()
            .is_some_and(|most| count as u64 > most)
        {
            wrong.push(format!("{at}: {count}, and {name} is {}", schema[name]));
        }
    };
    match value {
        Value::String(text) => {
            limit("maxLength", text.chars().count());
            // The API server accepts RFC 3339 with a year of four digits.
            let is_time = text.len() == 20
                && text.ends_with('Z')
                && text.as_bytes()[..4].iter().all(u8::is_ascii_digit);
            if schema["format"] == "date-time" && !is_time {
                wrong.push(format!("{at}: {text} is no time"));
            }
        }
        Value::Array(items) => {
            limit("maxItems", items.len());
            for (nth, item) in items.iter().enumerate() {
                compare(&format!("{at}[{nth}]"), item, &schema["items"], wrong);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                compare(
                    &format!("{at}.{name}"),
                    value,
                    &schema["properties"][name],
                    wrong,
                );
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[tokio::test]
async fn an_index_with_oversized_values_leaves_a_valid_status() {
    let registry = HostileRegistry::start().await.unwrap();
    let long = "\u{1f4a3}".repeat(300);
    let parts = registry
        .image("team/app", "parts")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let mut image = registry.image("team/app", "v1");
    for nth in 0..300 {
        let mut entry = parts.children[nth % 2].entry.clone();
        entry["platform"] = json!({"os": format!("{long}{}", nth % 40), "architecture": long, "variant": long, "os.version": long});
        if nth > 80 {
            entry["digest"] = json!(format!("sha512:{nth:0128x}"));
            entry["mediaType"] = json!(format!("application/{long}"));
        }
        entry["annotations"] = json!({long.as_str(): long});
        image = image.entry(&entry);
    }
    let image = image.push();
    for fault in [
        None,
        Some(Op::ReferrersList),
        Some(Op::ManifestPut),
        Some(Op::ManifestGet),
    ] {
        registry.calm();
        if let Some(op) = fault {
            let longer = long.repeat(30);
            let body = json!({"errors": [{"code": longer, "message": longer, "detail": longer}]})
                .to_string();
            registry.fault(
                Matcher::on(op),
                Fault::from(affix_testbed::hostile::Reply::body(
                    403,
                    "application/json",
                    body,
                )),
            );
        }
        let mut resource = Resource::new(note(
            &registry.reference(&image.name()),
            &format!("{fault:?}"),
        ));
        resource.pass().await;
        resource.pass().await;
        assert_eq!(
            resource.verdict().0 == "Attached",
            fault.is_none(),
            "{fault:?}: {:?}",
            resource.verdict()
        );
    }
}

#[tokio::test]
async fn an_equal_attachment_with_an_invalid_year_is_adopted_without_its_time() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let mut spec = note(&registry.reference(&image.name()), "hello");
    spec["targets"] = json!({"scope": "Index"});
    let theirs = attach(
        &registry,
        &image,
        TYPE,
        json!({"demo/note": "hello", CREATED: "-000009-01-01T00:00:00Z"}),
    );
    let mut resource = Resource::new(spec);
    resource.ready().await;
    let row = &resource.status.targets[0];
    assert_eq!(
        (row.state, row.attachment.as_deref(), &row.created),
        (TargetState::Attached, Some(theirs.as_str()), &None)
    );
}

#[tokio::test]
async fn kept_records_of_many_moves_of_large_images_fit_into_status() {
    let registry = HostileRegistry::start().await.unwrap();
    let platforms: Vec<String> = (0..99).map(|nth| format!("linux/p{nth}")).collect();
    let push = |seed: &str| {
        registry
            .image("team/app", "v1")
            .seed(seed)
            .platforms(platforms.iter().map(String::as_str))
            .push()
    };
    let unread = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let when = json!({"gracePeriod": "720h", "settle": "0s", "unlessTagged": []});
    let mut resource = Resource::new(
        json!({"image": registry.reference("team/app:v1"), "endOfLife": {"whenSuperseded": when, "artifactType": TYPE}}),
    );
    resource.ready().await;
    registry.fault(
        Matcher::on(Op::ManifestGet).reference(&unread.digest),
        Fault::status(403),
    );
    for seed in ["one", "two", "three", "four"] {
        push(seed);
        resource.pass().await;
    }
    let attached = resource
        .status
        .targets
        .iter()
        .filter(|row| row.state == TargetState::Attached)
        .count();
    assert!(
        attached > 100,
        "no record of earlier moves was kept: {attached}"
    );
}
