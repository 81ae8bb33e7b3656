//! Existing signatures in the signature tag of a target.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;

use crate::attachment::{Created, Desired, DesiredContent, Existing, Observed};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::report::remarks::ListingSize;
use crate::engine::request::build::Mode;
use crate::signing::{self, Signer, TagSigner};
use affix_registry::oci::{Descriptor, Digest};
use affix_registry::{ErrorKind, ListingSource, SignatureLayer};

use super::found::Found;
use super::signatures::Unlisted;

/// The number of signed texts of one subject that are read at once.
const WAVE: usize = 20;

/// Reads the signature tag, and finds the signatures that are equal to the desired one. The text that this resource signs is known, so
/// only other texts are read, in waves until one of their signatures is equal; a pass that detaches reads all of them.
pub(super) async fn read(
    context: &Context<'_>,
    signer: Option<&dyn Signer>,
    observed: &mut Observed,
) -> Result<Found, Failure> {
    let subject = &observed.subject.digest;
    let tag = context.session.signature_tag(subject).await?;
    let layers = tag.map(|tag| tag.layers).unwrap_or_default();
    let listed = |id: &Digest| layers.iter().any(|layer| layer.id() == *id);
    let mut unlisted = Unlisted::default();
    let last = observed.known.attachment.clone();
    // A signature that an earlier pass saved and did not write, or that another writer removed.
    if let Some(last) = last.as_ref().filter(|last| !listed(last)) {
        unlisted.absent.push(last.clone());
    }
    let (Some(signer), Desired::Signature { identity, .. }, DesiredContent::Signature { .. }) = (
        signer.and_then(Signer::tag_signer),
        &context.request.intent.desired,
        &observed.wanted,
    ) else {
        return Ok(found(unlisted));
    };
    let search = Search {
        context,
        signer,
        identity,
        subject,
    };
    let is_same = observed.known.content == Some(signer.tag_fingerprint(identity));
    let valid = last.filter(|last| is_same && listed(last));
    let mut equal = search.own_text(&layers);
    equal.extend(valid.clone());
    if equal.is_empty() || context.request.mode == Mode::Detach {
        equal.extend(search.other_texts(&layers).await?);
    }
    // Layers have no time. All equal ones get the same, so that every writer keeps the one with the lowest identity.
    let known = observed.known.created.filter(|_| valid.is_some());
    let created = known.unwrap_or_else(|| Created::at(context.now));
    let existing = |digest| Existing {
        digest,
        created: Some(created),
    };
    let entry = |layer: &SignatureLayer| Descriptor::plain("", layer.id(), 0);
    observed.listing = Ok(layers.iter().map(entry).collect());
    if let DesiredContent::Signature { verified, .. } = &mut observed.wanted {
        *verified = equal.into_iter().map(existing).collect();
    }
    Ok(found(unlisted))
}

fn found(unlisted: Unlisted) -> Found {
    Found {
        source: ListingSource::FallbackTag,
        unlisted,
        size: ListingSize::default(),
    }
}

struct Search<'a> {
    context: &'a Context<'a>,
    signer: &'a dyn TagSigner,
    identity: &'a str,
    subject: &'a Digest,
}

impl Search<'_> {
    fn is_equal(&self, layer: &SignatureLayer, text: &[u8]) -> bool {
        self.signer
            .is_equal_layer(layer, text, self.identity, self.subject)
    }

    /// Returns the equal signatures over the text that this resource signs.
    fn own_text(&self, layers: &[SignatureLayer]) -> Vec<Digest> {
        let text = self.signer.text(self.identity, self.subject);
        let own = Digest::sha256(&text);
        layers
            .iter()
            .filter(|layer| layer.descriptor.digest == own && self.is_equal(layer, &text))
            .map(SignatureLayer::id)
            .collect()
    }

    /// Returns the equal signatures over other texts. Signatures of several keys may share a text.
    async fn other_texts(&self, layers: &[SignatureLayer]) -> Result<Vec<Digest>, Failure> {
        let own = Digest::sha256(&self.signer.text(self.identity, self.subject));
        let mut texts: BTreeMap<&Digest, Vec<&SignatureLayer>> = BTreeMap::new();
        for layer in layers.iter().filter(|layer| {
            layer.descriptor.digest != own
                && layer.descriptor.size <= signing::MAX_INSPECTED_BYTES as u64
        }) {
            texts
                .entry(&layer.descriptor.digest)
                .or_default()
                .push(layer);
        }
        let texts: Vec<Vec<&SignatureLayer>> = texts.into_values().collect();
        let mut equal = Vec::new();
        for wave in texts.chunks(WAVE) {
            let reads = wave.iter().map(|layers| self.text(layers));
            for (layers, text) in wave.iter().zip(join_all(reads).await) {
                let Some(text) = text? else { continue };
                let verified = layers.iter().filter(|layer| self.is_equal(layer, &text));
                equal.extend(verified.map(|layer| layer.id()));
            }
            if !equal.is_empty() && self.context.request.mode != Mode::Detach {
                break;
            }
        }
        Ok(equal)
    }

    /// Reads the text of layers that share it. `None` if the registry does not have it.
    async fn text(&self, layers: &[&SignatureLayer]) -> Result<Option<Bytes>, Failure> {
        let Some(layer) = layers.first() else {
            return Ok(None);
        };
        let descriptor = &layer.descriptor;
        match self.context.session.blob(descriptor, descriptor.size).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::DigestMismatch => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
