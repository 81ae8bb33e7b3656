//! The commands that read the cluster of the kubeconfig.

pub(in crate::cli) mod report;
pub(in crate::cli) mod status;
