//! The kubeconfig files of the testbed. JSON, which is YAML.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

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
    crate::certificates::write(path, &format!("{config:#}\n"))
}
