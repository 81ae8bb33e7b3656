//! What every long-running part of affix shares: health, metrics over HTTP, and an orderly end.
//!
//! Owns the plain HTTP addresses that only the kubelet and a monitoring system ask, and the signals. Knows neither what is
//! measured nor what is waited for.

mod health;
mod signals;

pub(crate) use health::{Readiness, health_routes, metrics_routes, serve};
pub(crate) use signals::stop_on_signal;
