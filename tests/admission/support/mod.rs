//! Fixtures and helpers of the tests.

pub(crate) mod abusive_clients;
pub(crate) mod direct;
pub(crate) mod invalid_specs;
pub(crate) mod load;
pub(crate) mod marked_images;
pub(crate) mod namespace;
pub(crate) mod process;
pub(crate) mod replicas;
