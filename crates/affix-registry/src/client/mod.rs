pub(crate) mod clients;
pub(crate) mod observer;
pub(crate) mod options;
pub(crate) mod session;
