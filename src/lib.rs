//! affix attaches signatures, end-of-life marks and other artifacts to multi-platform images and to their platforms.
//!
//! The rooms, each of which uses only those before it: [`api`] (the custom resource), [`oci`] (wire types), [`attachment`]
//! (what to attach, to what: pure), [`signing`] (signature shapes: pure), [`registry`] (the distribution protocol), [`engine`]
//! (observe, plan, apply), [`service`] (start, health, metrics, signals), [`controller`] (the cluster), [`admission`] (webhooks) and `cli`.

pub mod admission;
pub mod api;
pub mod attachment;
pub mod cli;
pub mod controller;
pub mod engine;
pub mod service;
pub mod signing;
