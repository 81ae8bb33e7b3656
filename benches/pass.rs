//! The steps of a pass that take processor time and no request: `cargo bench --bench pass`.
//!
//! A pass repeats them: a plan and a manifest per target, an index per image, a list of referrers per subject.
//! `cargo bench --bench pass -- --quick` takes seconds. docs/benchmarks.md has the figures of one run.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;

use affix::api::OnConflict;
use affix::attachment::{
    Created, DesiredContent, Image, LastApplied, MarkKeys, Observed, Selection, TargetContent, plan,
};
use affix_registry::oci::{Descriptor, Manifest, RawDocument, RawEntry, media_type};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

const TYPE: &str = "application/vnd.microsoft.artifact.lifecycle";
const KEY: &str = "vnd.microsoft.artifact.lifecycle.end-of-life.date";
const DATE: &str = "2025-03-20T01:20:30Z";
const NOW: &str = "2026-11-23T12:00:00Z";

fn created(second: usize) -> Created {
    let now: Created = NOW.parse().unwrap();
    Created::at(now.instant() - std::time::Duration::from_secs(second as u64 + 1))
}

fn mark(date: &str) -> TargetContent {
    let annotations = BTreeMap::from([(KEY.to_owned(), date.to_owned())]);
    TargetContent {
        artifact_type: TYPE.parse().unwrap(),
        annotations,
        layers: Vec::new(),
        blobs: Vec::new(),
    }
}

fn subject() -> Descriptor {
    Descriptor::of(media_type::OCI_MANIFEST, b"a platform")
}

/// Returns a target with a number of foreign marks, all older than the desired one.
fn observed(others: usize) -> Observed {
    let marks = (0..others).map(|nth| {
        mark(&format!("2024-{:02}-{:02}", nth % 12 + 1, nth % 28 + 1))
            .attach_to(&subject(), created(nth + 1))
    });
    let ours = mark(DATE).attach_to(&subject(), created(0));
    let listing = marks
        .map(|mark| mark.listed)
        .chain((others > 0).then_some(ours.listed));
    Observed {
        subject: subject(),
        wanted: DesiredContent::Content {
            content: mark(DATE),
            mark: Some(MarkKeys {
                annotation: KEY.to_owned(),
                date: DATE.parse().unwrap(),
            }),
        },
        listing: Ok(listing.collect()),
        fetched: BTreeMap::new(),
        known: LastApplied::default(),
        ours: BTreeSet::new(),
    }
}

/// Returns the bytes of an index with a number of platforms.
fn index(platforms: usize) -> Vec<u8> {
    let manifests: Vec<Value> = (0..platforms)
        .map(|nth| {
            let entry = Descriptor::of(media_type::OCI_MANIFEST, format!("platform {nth}").as_bytes());
            json!({
                "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size,
                "platform": {"os": "linux", "architecture": format!("machine{nth}")}, "annotations": {"org.opencontainers.image.version": "1.2.3"},
            })
        })
        .collect();
    serde_json::to_vec(
        &json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests}),
    )
    .unwrap()
}

/// Returns the bytes of a fallback tag with a number of entries.
fn fallback_tag(entries: usize) -> Vec<u8> {
    let mut index = RawDocument::empty_index();
    index.entries = (0..entries)
        .map(|nth| {
            RawEntry::from(
                &mark(&format!("{nth}"))
                    .attach_to(&subject(), created(nth))
                    .listed,
            )
        })
        .collect();
    index.to_bytes()
}

fn planning(criterion: &mut Criterion) {
    let now = NOW.parse().unwrap();
    for others in [0, 10, 100, 1000] {
        let observed = observed(others);
        criterion.bench_function(
            &format!("plan a target with {others} foreign marks"),
            |bench| {
                bench.iter(|| plan(black_box(&observed), OnConflict::Report, now));
            },
        );
    }
}

fn manifests(criterion: &mut Criterion) {
    let (content, subject, created) = (mark(DATE), subject(), created(0));
    criterion.bench_function("the manifest of a mark and its digest", |bench| {
        bench.iter(|| black_box(&content).attach_to(black_box(&subject), created));
    });
    criterion.bench_function("the hash of the desired content", |bench| {
        bench.iter(|| black_box(&content).hash());
    });
}

fn indexes(criterion: &mut Criterion) {
    let bytes = index(100);
    let mut group = criterion.benchmark_group("an index of 100 platforms");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("parse", |bench| {
        bench.iter(|| Manifest::parse(Some(media_type::OCI_INDEX), black_box(&bytes)).unwrap());
    });
    group.finish();
    let (media_type, manifest) = Manifest::parse(Some(media_type::OCI_INDEX), &bytes).unwrap();
    let root = Descriptor::of(media_type, &bytes);
    let selection = Selection::default();
    criterion.bench_function(
        "an index of 100 platforms: list the entries and select targets",
        |bench| {
            bench.iter(|| {
                let image =
                    Image::from_manifest(black_box(&root), &manifest, &BTreeMap::new(), None, 1000)
                        .unwrap();
                selection.choose(&image).unwrap().0.len()
            });
        },
    );
}

fn fallback_tags(criterion: &mut Criterion) {
    let bytes = fallback_tag(500);
    let ours = mark("ours").attach_to(&subject(), created(0)).listed;
    let mut group = criterion.benchmark_group("a fallback tag of 500 entries");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("parse", |bench| {
        bench.iter(|| RawDocument::parse(black_box(&bytes), RawDocument::MANIFESTS).unwrap());
    });
    let parsed = RawDocument::parse(&bytes, RawDocument::MANIFESTS).unwrap();
    group.bench_function("add an entry and encode it", |bench| {
        bench.iter_batched(
            || parsed.clone(),
            |mut index| {
                if !index.contains(&ours.digest) {
                    index.entries.push(RawEntry::from(&ours));
                }
                index.to_bytes()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, planning, manifests, indexes, fallback_tags);
criterion_main!(benches);
