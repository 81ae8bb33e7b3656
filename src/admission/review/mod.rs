//! Reviews: requests, answers, and the verdict on an `ImageAttachment`.

pub(crate) mod image_attachment;
pub(crate) mod image_name;
pub(crate) mod pull_secrets;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod single_flight;
pub(crate) mod warnings;
