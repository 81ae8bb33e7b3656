//! The custom resources: spec, status, conditions, reasons, and the validation rules of the spec.
//!
//! Three properties of the API hold for every field. Defaults are applied in code and never written into a spec. Unknown fields are ignored.
//! An explicit `null` means the same as an absent field.

mod annotations;
mod attachment;
mod condition;
mod crd;
mod duration;
mod raw;
mod reason;
mod reference;
mod rules;
#[allow(
    clippy::duplicated_attributes,
    unreachable_pub,
    reason = "each printer column has a type_, and KubeSchema repeats each struct with its pub inside a function"
)]
mod set;
#[allow(
    clippy::duplicated_attributes,
    reason = "each printer column has a type_"
)]
mod spec;
#[allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct with its pub inside a function"
)]
mod status;
mod status_rules;
mod targets;
mod validation;

pub use attachment::{
    Artifact, ArtifactFile, Attestation, ConfigMapFiles, ConfigMapPredicates, CosignSigner,
    EndOfLife, FromBuild, Keyless, Kms, LifecycleStatement, NotationSigner, OnConflict,
    PredicateDocument, Signature, SignatureFormat, SignatureIdentity, StatementSigner,
    TimestampService, Transparency, ValueSource, Vault, WhenSuperseded,
};
/// The annotation whose value is the generation for which the user accepts attachments that the registry refuses to remove.
pub const ACCEPT_LEFTOVERS: &str = "affix.dev/accept-leftovers";

pub use condition::{
    ConditionType, Conditions, MESSAGE_MAX_BYTES, cut as truncate_message, find as find_condition,
};
pub use crd::{crd, crd_yaml, crds_yaml, set_crd, set_crd_yaml};
pub use duration::{DurationError, GoDuration};
pub use raw::RawAttachment;
pub use reason::{Reason, UnknownReason};
pub use reference::{ConfigMapKeyRef, LocalObjectReference};
pub use set::{
    CONFIRM_ANNOTATION, Cycle, CycleState, CycleStatus, ImageAttachmentSet, ImageAttachmentSetSpec,
    ImageAttachmentSetStatus, Keep, LeftImage, Lifecycle, RepositoryStatus, SET_LABEL, SetTemplate,
    TAGS_ANNOTATION, TagSelection, TemplateMetadata, TemplateSpec,
};
pub use spec::{
    AttachmentKind, DeletionPolicy, ImageAttachment, ImageAttachmentSpec, Provider, ReferrersMode,
};
pub use status::{
    FormatStatus, ImageAttachmentStatus, ImageStatus, Leftover, Origin, PushAccess, Superseded,
    SupersededState, SupportedMode, TagDrift, TargetKind, TargetState, TargetStatus,
};
pub use status_rules::{check_set_status_rules, check_status_rules};
pub use targets::{Missing, Parents, Scope, Targets};
pub use validation::{Pinned, check_set_spec, check_set_status, check_spec, check_status};

pub(crate) use rules::is_object_name;
