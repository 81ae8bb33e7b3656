//! The certificates of the webhooks.

pub(crate) mod authority;
pub(crate) mod certificate;
pub(crate) mod provided;
pub(crate) mod resolver;
pub(crate) mod rotator;
pub(crate) mod shared_certificate;
