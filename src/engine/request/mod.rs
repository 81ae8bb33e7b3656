//! The input of a pass: the spec with the objects that it references, and the state of the previous pass.

pub(in crate::engine) mod access;
pub(in crate::engine) mod build;
pub(in crate::engine) mod file_subjects;
pub(in crate::engine) mod key_cache;
pub(in crate::engine) mod key_policy;
mod kms;
pub(in crate::engine) mod predicates;
pub(in crate::engine) mod previous;
pub(in crate::engine) mod references;
pub(in crate::engine) mod secrets;
pub(in crate::engine) mod signing_key;
