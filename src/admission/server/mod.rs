//! The HTTPS server: connections, request bodies, routes and the dispatch to the reviewers.

pub(crate) mod body;
pub(crate) mod connections;
pub(crate) mod https;
pub(crate) mod reviewer;
pub(crate) mod routes;
pub(crate) mod tls;
