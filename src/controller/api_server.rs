//! The field manager of the controller, and its calls to the API server.

pub(crate) use crate::service::{ApiServerError, with_timeout};

/// The field manager of every write to the API server, and the reporting controller of events.
pub(crate) const FIELD_MANAGER: &str = "affix";
