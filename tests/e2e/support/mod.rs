//! Helpers of the tests; no tests.

pub(crate) mod controller;
pub(crate) mod images;
pub(crate) mod namespace;
pub(crate) mod pods;
pub(crate) mod readers;
pub(crate) mod reports;
