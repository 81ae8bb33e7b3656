//! Builds the contents of a pass. All signatures of a pass are made at once, because a key management service signs them in one request.

use bytes::Bytes;

use crate::api::Reason;
use crate::attachment::{Attachment, Created, Desired, DesiredContent, Problem};
use crate::engine::context::Context;
use crate::engine::observe::referrers::Target;
use crate::engine::records::slot::Slot;
use crate::engine::request::signing_key::SigningKey;
use crate::signing::{KeyError, Signed, Signer, TagSigner};

use super::push::PushContent;

/// A signature to be made.
struct Unsigned<'a> {
    target: &'a Target,
    created: Created,
    signer: &'a dyn Signer,
    key: &'a SigningKey,
    form: Form<'a>,
}

enum Form<'a> {
    Referrer,
    /// A layer of the signature tag, with the name of the image in it.
    Tag(&'a dyn TagSigner, &'a str),
}

impl<'a> Unsigned<'a> {
    /// Returns the signature that a target needs, or `None` if its content needs none.
    fn of(
        context: &Context<'a>,
        target: &'a Target,
        created: Created,
    ) -> Result<Option<Self>, Problem> {
        if matches!(target.observed.wanted, DesiredContent::Content { .. })
            || target.unlisted.own.is_some()
        {
            return Ok(None);
        }
        let (Some(signer), Some(key)) = (target.signer.as_deref(), &context.request.key) else {
            return Err(Problem::new(Reason::KeyInvalid, "the key is not open"));
        };
        let desired = &context.request.intent.desired;
        let form = match (&target.slot, signer.tag_signer(), desired) {
            (Slot::Tag, Some(signer), Desired::Signature { identity, .. }) => {
                Form::Tag(signer, identity)
            }
            _ => Form::Referrer,
        };
        Ok(Some(Self {
            target,
            created,
            signer,
            key,
            form,
        }))
    }

    fn message(&self) -> Result<Vec<u8>, Problem> {
        let subject = &self.target.observed.subject;
        match self.form {
            Form::Referrer => self
                .signer
                .message(subject, self.created.instant())
                .map_err(|error| self.problem(error)),
            Form::Tag(signer, identity) => Ok(signer.text(identity, &subject.digest)),
        }
    }

    fn content(&self, signed: &Signed) -> Result<PushContent, Problem> {
        let subject = &self.target.observed.subject;
        match self.form {
            Form::Referrer => {
                let at = self.created.instant();
                let signature = self.signer.attachment(subject, at, signed);
                let signature = signature.map_err(|error| self.key.problem(&error))?;
                let attachment = Attachment::from_manifest(&signature.manifest);
                let blobs = vec![signature.layer.into()];
                Ok(referrer(self.target, attachment, blobs))
            }
            Form::Tag(signer, identity) => {
                let layer = signer.layer(identity, &subject.digest, signed);
                Ok(PushContent::Layer(layer))
            }
        }
    }

    fn problem(&self, error: KeyError) -> Problem {
        self.key.problem(&error.into())
    }
}

fn referrer(target: &Target, attachment: Attachment, blobs: Vec<Bytes>) -> PushContent {
    PushContent::Referrer {
        attachment,
        blobs,
        source: target.source,
    }
}

/// Returns the content of a target that needs no new signature.
fn unsigned_content(target: &Target, created: Created) -> Option<PushContent> {
    match (&target.observed.wanted, &target.unlisted.own) {
        (DesiredContent::Content { content, .. }, _) => {
            let attachment = content.attach_to(&target.observed.subject, created);
            Some(referrer(target, attachment, content.blobs.clone()))
        }
        (DesiredContent::Signature { .. }, Some(own)) => {
            Some(referrer(target, own.clone(), Vec::new()))
        }
        (DesiredContent::Signature { .. }, None) => None,
    }
}

/// Checks that the content of a target can be built, without a signature.
pub(super) fn check(
    context: &Context<'_>,
    target: &Target,
    created: Created,
) -> Result<(), Problem> {
    match Unsigned::of(context, target, created)? {
        Some(unsigned) => unsigned.message().map(drop),
        None => Ok(()),
    }
}

/// Returns the content of each target with its time of creation, in their order.
pub(super) async fn build(
    context: &Context<'_>,
    wanted: &[(&Target, Created)],
) -> Vec<Result<PushContent, Problem>> {
    let mut contents = Vec::new();
    let (mut pending, mut messages) = (Vec::new(), Vec::new());
    for (position, (target, created)) in wanted.iter().enumerate() {
        let prepared = Unsigned::of(context, target, *created).and_then(|unsigned| {
            let message = unsigned.as_ref().map(Unsigned::message).transpose()?;
            Ok(unsigned.zip(message))
        });
        contents.push(match prepared {
            Ok(Some((unsigned, message))) => {
                pending.push((position, unsigned));
                messages.push(message);
                None
            }
            Ok(None) => unsigned_content(target, *created).map(Ok),
            Err(problem) => Some(Err(problem)),
        });
    }
    // All signers of a pass have the same key.
    let signatures = match pending.first() {
        Some((_, unsigned)) => unsigned.signer.sign(&messages).await,
        None => Vec::new(),
    };
    for ((position, unsigned), signature) in pending.iter().zip(signatures) {
        let content = match signature {
            Ok(signature) => unsigned.content(&signature),
            Err(error) => Err(unsigned.key.problem(&error)),
        };
        if let Some(entry) = contents.get_mut(*position) {
            *entry = Some(content);
        }
    }
    let lost = || {
        Err(Problem::new(
            Reason::SigningUnavailable,
            "no signature was made",
        ))
    };
    contents
        .into_iter()
        .map(|content| content.unwrap_or_else(lost))
        .collect()
}
