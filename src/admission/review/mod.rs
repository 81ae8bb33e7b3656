//! Requests and responses of the admission API, and the review of `ImageAttachment` and `ImageAttachmentSet` resources.

pub(crate) mod budget;
pub(crate) mod cloud_identity;
pub(crate) mod image_attachment;
pub(crate) mod image_attachment_set;
pub(crate) mod pull_secrets;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod single_flight;
pub(crate) mod warning_text;
pub(crate) mod warnings;
