//! Workload identity: logins for cloud registries that are issued for the token of a ServiceAccount.
//!
//! The token has one audience and a life of 10 minutes, and it goes to the token service of the cloud only (threat T27). The
//! ServiceAccount is always one that the caller names; there is no fallback to another identity (threat T5). The HTTP requests
//! use the proxy and the address rules of the registry's session, and trust no certificate authority of the resource. Caching and
//! single flight are those of the registry client ([`affix_registry::LoginSource`]). See
//! `docs/decisions/0141-let-the-registry-client-cache-issued-logins.md`.
//!
//! This layer does not know Kubernetes: a [`TokenIssuer`] requests the tokens.

mod account;
mod answer;
mod aws;
mod azure;
mod cloud_login;
mod gcp;
mod sigv4;

pub use account::{Account, TokenError, TokenIssuer};
pub use cloud_login::{CloudLogin, Endpoints, Identities, WrongRegistry};
