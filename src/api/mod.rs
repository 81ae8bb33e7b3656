//! The custom resource: what users write and what they read back.
//!
//! Owns: spec, status, conditions, reasons, and the rules that a spec follows, in the schema first. Knows neither registries
//! nor a cluster. The contract is that of Kubernetes' users: defaults are applied here in code and never written into a
//! spec, unknown fields are let through, and an explicit `null` is as good as an absent field.

#[allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct, pub and all, inside a function; gone when it drops the pub"
)]
mod attachment;
mod condition;
mod crd;
mod duration;
mod items;
mod reason;
#[allow(unreachable_pub, reason = "as for attachment")]
mod reference;
mod rules;
#[allow(unreachable_pub, reason = "as for attachment")]
#[allow(
    clippy::duplicated_attributes,
    reason = "each printer column has a type_"
)]
mod spec;
#[allow(unreachable_pub, reason = "as for attachment")]
mod status;
mod status_rules;

pub use attachment::{
    Artifact, ArtifactFile, ConfigMapFiles, CosignSigner, EndOfLife, NotationSigner, OnConflict,
    Signature, ValueSource, WhenSuperseded,
};
pub use condition::{
    ConditionType, Conditions, MESSAGE_MAX_BYTES, cut as cut_message, find as find_condition,
};
pub use crd::{crd, crd_yaml};
pub use duration::{DurationError, GoDuration};
pub use reason::{Reason, UnknownReason};
pub use reference::{ConfigMapKeyRef, LocalObjectReference};
pub use spec::{
    AttachmentKind, DeletionPolicy, ImageAttachment, ImageAttachmentSpec, Missing, ReferrersMode,
    Scope, Targets,
};
pub use status::{
    ImageAttachmentStatus, ImageStatus, Leftover, Origin, Superseded, SupportedMode, TargetKind,
    TargetState, TargetStatus,
};
pub use status_rules::check_status_rules;
