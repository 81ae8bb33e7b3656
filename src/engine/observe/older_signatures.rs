//! Signatures and attestations in tags that verifiers stop reading once a bundle is listed.
//!
//! cosign 3 and Kyverno read the tags `.sig` and `.att` of an image only while no bundle is listed for it. The first bundle therefore
//! hides signatures by other keys there (docs/decisions/0092).

use std::collections::BTreeSet;

use futures::future::join_all;

use crate::attachment::{Action, TargetPlan};
use crate::engine::context::Context;
use crate::engine::observe::referrers::Target;
use crate::signing::MAX_INSPECTED_BYTES;
use affix_registry::SignatureLayer;
use affix_registry::oci::{Digest, Tag};

/// Maximum number of signed texts of one tag that are read.
const MAX_TEXTS: usize = 20;
/// Maximum number of tags in a message.
const MAX_NAMED: usize = 4;

/// The tags with content by other keys on targets without a bundle.
#[derive(Debug, Default)]
pub(in crate::engine) struct OlderSignatures {
    /// Each tag, with the target that it is about.
    tags: Vec<(Digest, String)>,
    /// The cause for which the tags are unknown.
    unknown: Option<String>,
}

/// Finds the tags that the first bundle of a target hides. It costs one listing of tags, for targets that get their first bundle.
pub(in crate::engine) async fn find(
    context: &Context<'_>,
    targets: &[Target],
    plans: &[TargetPlan],
) -> OlderSignatures {
    let is_first = |(target, plan): &(&Target, &TargetPlan)| {
        matches!(plan.action, Action::Attach { .. })
            && target.is_bundle()
            && target.size.bundles == 0
    };
    let mut first: Vec<&Digest> = targets
        .iter()
        .zip(plans)
        .filter(is_first)
        .map(|(target, _)| &target.observed.subject.digest)
        .collect();
    first.dedup();
    if first.is_empty() {
        return OlderSignatures::default();
    }
    let listed = context.session.list_tags(usize::MAX, Tag::is_referrers_tag);
    let listed: BTreeSet<String> = match context.in_time(listed).await {
        Ok(Ok(tags)) => tags.iter().map(ToString::to_string).collect(),
        Ok(Err(error)) => {
            return OlderSignatures {
                unknown: Some(error.to_string()),
                ..OlderSignatures::default()
            };
        }
        Err(_) => return OlderSignatures::default(),
    };
    let checks = first.into_iter().map(|subject| async {
        let (signatures, attestations) = (
            subject.signature_tag(),
            format!("{}.att", subject.fallback_tag()),
        );
        let has_foreign = listed.contains(&signatures) && has_foreign(context, subject).await;
        let signatures = has_foreign.then_some(signatures);
        let attestations = Some(attestations).filter(|tag| listed.contains(tag));
        let tags = signatures.into_iter().chain(attestations);
        tags.map(|tag| (subject.clone(), tag)).collect::<Vec<_>>()
    });
    OlderSignatures {
        tags: join_all(checks).await.into_iter().flatten().collect(),
        unknown: None,
    }
}

/// Returns true unless this key made every signature in the signature tag of a target.
async fn has_foreign(context: &Context<'_>, subject: &Digest) -> bool {
    let Some(signer) = context.open_signer().and_then(|signer| signer.tag_signer()) else {
        return true;
    };
    let Ok(Ok(Some(tag))) = context
        .in_time(context.session.signature_tag(subject))
        .await
    else {
        return true;
    };
    let texts: BTreeSet<&Digest> = tag
        .layers
        .iter()
        .filter(|layer| layer.descriptor.size <= MAX_INSPECTED_BYTES as u64)
        .map(|layer| &layer.descriptor.digest)
        .collect();
    if tag.layers.is_empty() || texts.len() > MAX_TEXTS {
        return !tag.layers.is_empty();
    }
    let is_foreign = |layer: &SignatureLayer| {
        let descriptor = layer.descriptor.clone();
        let layer = layer.clone();
        async move {
            let text = context
                .session
                .blob(&descriptor, MAX_INSPECTED_BYTES as u64);
            match context.in_time(text).await {
                Ok(Ok(text)) => !signer.made_layer(&layer, &text),
                Ok(Err(_)) | Err(_) => true,
            }
        }
    };
    let foreign = join_all(tag.layers.iter().take(MAX_TEXTS).map(is_foreign)).await;
    tag.layers.len() > MAX_TEXTS || foreign.contains(&true)
}

impl OlderSignatures {
    /// Returns the remark before the first bundle is pushed.
    pub(in crate::engine) fn remark(&self) -> Option<String> {
        if let Some(cause) = &self.unknown {
            return Some(format!(
                "whether tags .sig or .att of other keys exist, which cosign 3 and Kyverno stop reading at the first bundle, is \
                 unknown: {cause}"
            ));
        }
        let tags = named(self.tags.iter().map(|(_, tag)| tag.as_str()))?;
        Some(format!(
            "cosign 3 and Kyverno stop reading {tags}, with signatures or attestations by other keys, once a bundle is listed: {WAY_OUT}"
        ))
    }

    /// Returns the message after bundles were pushed to the targets that `is_done` holds for.
    pub(in crate::engine) fn event(&self, is_done: impl Fn(&Digest) -> bool) -> Option<String> {
        let done = self.tags.iter().filter(|(subject, _)| is_done(subject));
        let tags = named(done.map(|(_, tag)| tag.as_str()))?;
        Some(format!(
            "cosign 3 and Kyverno no longer read {tags}, with signatures or attestations by other keys, since a bundle is listed now: \
             {WAY_OUT}"
        ))
    }
}

const WAY_OUT: &str = "sign and attest again with those keys as bundles (cosign sign, cosign attest), or use formats: [Tag] instead; \
                       formats: [Bundle, Tag] serves verifiers that read the tag only";

/// Returns the first tags as a text, or `None` if there is none.
fn named<'a>(tags: impl Iterator<Item = &'a str>) -> Option<String> {
    let tags: Vec<&str> = tags.collect();
    let (first, more) = tags.split_at(tags.len().min(MAX_NAMED));
    let plural = if tags.len() == 1 { "" } else { "s" };
    let mut text = format!("the tag{plural} {}", first.join(", "));
    if !more.is_empty() {
        text.push_str(&format!(" and {} more", more.len()));
    }
    (!tags.is_empty()).then_some(text)
}
