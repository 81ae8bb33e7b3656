//! The TLS server: connections, bodies, routes.

pub(crate) mod body;
pub(crate) mod connections;
pub(crate) mod https;
pub(crate) mod reviewer;
pub(crate) mod routes;
