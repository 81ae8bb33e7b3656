//! The kubeconfig files of the testbed. JSON, which is YAML.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::certificates::{Authority, write as write_file};

/// Writes a kubeconfig with one cluster and one user who has a bearer token.
///
/// # Errors
///
/// Where the file cannot be written.
pub(super) fn write(
    path: &Path,
    url: &str,
    ca_pem: &str,
    token: &str,
    namespace: &str,
) -> anyhow::Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": {
            "server": url,
            "certificate-authority-data": STANDARD.encode(ca_pem),
        }}],
        "users": [{"name": "testbed", "user": {"token": token}}],
        "contexts": [{"name": "testbed", "context": {
            "cluster": "testbed", "user": "testbed", "namespace": namespace,
        }}],
    });
    write_file(path, &format!("{config:#}\n"))
}

/// Writes the configuration of admission with a client certificate for all webhooks, and returns its path.
///
/// # Errors
///
/// Where a file cannot be written.
pub(super) fn write_webhook_client(dir: &Path, authority: &Authority) -> anyhow::Result<PathBuf> {
    let (certificate, key) = authority.client("kube-apiserver")?;
    let clients = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": "*", "user": {
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        }}],
    });
    let kubeconfig = dir.join("webhook-clients");
    write_file(&kubeconfig, &format!("{clients:#}\n"))?;
    let plugin = |name: &str| {
        json!({"name": name, "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": kubeconfig,
        }})
    };
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [plugin("ValidatingAdmissionWebhook"), plugin("MutatingAdmissionWebhook")],
    });
    let path = dir.join("admission.yaml");
    write_file(&path, &format!("{configuration:#}\n"))?;
    Ok(path)
}
