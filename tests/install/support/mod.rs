//! Helpers of the tests.

pub(crate) mod calls;
pub(crate) mod cluster;
pub(crate) mod golden;
pub(crate) mod helm;
pub(crate) mod mount;
pub(crate) mod objects;
pub(crate) mod operator;
