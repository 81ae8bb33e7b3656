//! The TLS certificate of the webhooks: either provided in a folder (cert-manager), or created and
//! rotated by affix.

pub(crate) mod authority;
pub(crate) mod certificate;
pub(crate) mod provided;
pub(crate) mod resolver;
pub(crate) mod rotator;
pub(crate) mod shared_certificate;
