pub(crate) mod blobs;
pub(crate) mod error_body;
pub(crate) mod fallback_tag;
pub(crate) mod link;
pub(crate) mod manifests;
pub(crate) mod pages;
pub(crate) mod referrers;
pub(crate) mod tags;
