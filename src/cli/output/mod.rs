//! Output for people and programs.

pub(super) mod images;
pub(super) mod report;
pub(super) mod sets;
pub(super) mod status;
pub(super) mod table;
pub(super) mod text;
