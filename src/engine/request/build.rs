//! The request of one pass, built from a spec and the objects that it references.

use std::time::Duration;

use crate::api::{ImageAttachmentSpec, ImageAttachmentStatus, OnConflict};
use crate::attachment::{Inputs, Intent, Problem};
use crate::signing::Predicate;
use affix_registry::{Access, Priority};

use super::access::access;
use super::predicates;
use super::previous::PreviousState;
use super::secrets::Sources;
use super::signing_key::SigningKey;

/// Selects the writes of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Attach missing attachments.
    #[default]
    Attach,
    /// Plan only.
    Plan,
    /// Find attachments equal to the desired ones, for [`Engine::detach`](crate::engine::Engine::detach).
    Detach,
}

/// The request of one pass for one resource.
#[derive(Debug, Clone)]
pub struct Request {
    /// The parsed spec.
    pub intent: Intent,
    /// The key of a resource that signs.
    pub key: Option<SigningKey>,
    /// The predicates of the spec, in its order.
    pub predicates: Vec<Predicate>,
    /// Credentials, certificates and proxy for the registry.
    pub access: Access,
    /// The reaction to a newer foreign mark.
    pub on_conflict: OnConflict,
    /// True if the user accepts the attachments that the registry refuses to remove, for this generation.
    pub accepts_leftovers: bool,
    /// The state that earlier passes left in status.
    pub previous: PreviousState,
    /// The writes of the pass.
    pub mode: Mode,
    /// True to read the registry's listings even if status says that all is done.
    pub verify: bool,
    /// True to read the tag beside a digest in `spec.image`. The set of a child reads its tags.
    pub reads_tag_drift: bool,
    /// True to ask the registry whether the resource may push, if the pass has adopted an attachment.
    pub asks_push_access: bool,
    /// The priority of the requests at the registry.
    pub priority: Priority,
    /// The time limit of the pass.
    pub timeout: Duration,
}

/// Returns the request of one pass over a resource of `generation`.
///
/// # Errors
/// `InvalidReference`, `InvalidSpec`, `FileMissing`, `StatementInvalid` and `SecretNotFound`, with the field, the value and the way out.
pub fn request(
    spec: &ImageAttachmentSpec,
    status: Option<&ImageAttachmentStatus>,
    generation: i64,
    sources: &Sources,
    verify: bool,
) -> Result<Request, Problem> {
    let intent = Intent::parse(
        spec,
        &Inputs {
            config_maps: sources.config_maps.clone(),
        },
    )?;
    Ok(Request {
        predicates: predicates::parse(&intent.desired)?,
        key: SigningKey::from_spec(spec, &intent.reference, sources)?,
        access: access(spec, [&intent.reference.host], sources)?,
        previous: PreviousState::from_status(status, generation, &intent.reference),
        intent,
        on_conflict: spec
            .end_of_life
            .as_ref()
            .map_or(OnConflict::Report, crate::api::EndOfLife::on_conflict),
        accepts_leftovers: false,
        mode: if spec.dry_run() {
            Mode::Plan
        } else {
            Mode::Attach
        },
        verify,
        reads_tag_drift: true,
        asks_push_access: false,
        priority: Priority::default(),
        timeout: spec.timeout(),
    })
}
