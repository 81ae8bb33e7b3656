//! The field manager of the controller, and its calls to the API server.

pub(crate) use crate::service::{ApiServerError, FIELD_MANAGER, with_timeout};
