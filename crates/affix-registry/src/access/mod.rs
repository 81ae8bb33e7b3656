//! Access control: the hosts and addresses that may be dialled, and the credentials that are sent to them.

pub(crate) mod address_policy;
pub(crate) mod auth;
pub(crate) mod authority_bundle;
pub(crate) mod authorize;
pub(crate) mod challenge;
pub(crate) mod denied_server;
pub(crate) mod docker_config;
pub(crate) mod glob;
pub(crate) mod host_pattern;
pub(crate) mod issued_logins;
pub(crate) mod login_source;
pub(crate) mod secret;
pub(crate) mod tokens;
pub(crate) mod upload_policy;
