//! Sets: reads their repositories, and reports on their children. The computation between them is [`crate::attachment::sets`].

pub(in crate::engine) mod read;
pub(in crate::engine) mod recovered;
pub(in crate::engine) mod status;
