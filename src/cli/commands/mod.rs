//! The subcommands.

pub(super) mod attach;
pub(super) mod cluster;
pub(super) mod controller;
pub(super) mod crd;
pub(super) mod detach;
mod image;
pub(super) mod pin;
pub(super) mod plan;
pub(super) mod shell;
pub(super) mod tree;
pub(super) mod version;
pub(super) mod webhook;
