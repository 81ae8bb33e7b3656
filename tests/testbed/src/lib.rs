//! The testbed: everything real that affix is tested against, on one machine and without containers.
//!
//! | | |
//! | --- | --- |
//! | [`tools`] | the Go programs of `tests/testbed/go`, built once into a cache that outlives the checkout |
//! | [`control_plane`] | kube-apiserver with etcd, kubectl, and kube-controller-manager for those who need it |
//! | [`registry`] | a registry with the referrers API, distribution without it, one that lies; users, tokens, TLS |
//! | [`peer`] | oras, crane, regctl, cosign and the others, each with a home of its own |
//! | [`hostile`] | a registry that is correct until it is told otherwise |
//! | [`distance`] | a proxy that puts a registry further away |
//! | [`proxy`] | an HTTP proxy with a login, for CONNECT and for forwarding |
//! | [`go_module`] | files of other projects |
//! | [`images`] | multi-platform images, pushed with plain HTTP |
//! | [`openbao`] | OpenBao with TLS and an audit log |
//! | [`node`] | a node that runs pods, in namespaces of its own |
//! | [`sigstore`] | Fulcio with its log of certificates, Rekor v2 and a timestamp authority |
//! | [`site`] | the static site of the documentation |
//! | [`process`] | a child process that never outlives the test that started it |
//!
//! One call starts a thing, and dropping its value ends it. Ports are free ones of the loopback address, and data is in temporary
//! folders. The crate refuses to know affix: what it reads and writes, it does with code of its own or with other people's tools.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use affix_testbed::{control_plane::ControlPlane, images::{Image, Index}, registry::Registry, tools::Tools};
//!
//! let tools = Tools::core().await?;
//! let cluster = ControlPlane::start(&tools).await?;
//! let registry = Registry::distribution(&tools).basic("alice", "secret").start().await?;
//! let pushed = Index::new()
//!     .image(Image::new("linux/amd64", "b1b1"))
//!     .image(Image::new("linux/arm64", "c1c1"))
//!     .push(&registry.raw()?, "team/app", "v1")
//!     .await?;
//! println!("{}", pushed.pinned());
//! cluster.kubectl(["get", "namespaces"]).await?.stdout()?;
//! # Ok(())
//! # }
//! ```

pub mod certificates;
pub mod cloud;
pub mod control_plane;
pub mod distance;
pub mod go_module;
pub mod hostile;
pub mod http_client;
pub mod images;
pub mod node;
pub mod openbao;
pub mod peer;
pub mod port;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod run;
pub mod sigstore;
pub mod site;
pub mod tools;
