//! The operations of the distribution specification, as methods of [`Session`](crate::Session).

pub(crate) mod blobs;
pub(crate) mod error_body;
pub(crate) mod fallback_tag;
pub(crate) mod link;
pub(crate) mod manifests;
pub(crate) mod pages;
pub(crate) mod push_access;
pub(crate) mod referrers;
mod signature_config;
pub(crate) mod signature_tag;
pub(crate) mod tag_document;
pub(crate) mod tags;
