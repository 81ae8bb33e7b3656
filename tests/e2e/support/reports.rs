//! The definitions of the APIs for reports, from the Go modules of their projects.

use std::time::Duration;

use affix_testbed::go_module;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use super::namespace::{Namespace, PATIENCE};

/// Module and file of each definition, and its name.
const DEFINITIONS: [(&str, &str, &str); 2] = [
    (
        "github.com/openreports/reports-api@v0.2.1",
        "config/crd/openreports.io_reports.yaml",
        "crd/reports.openreports.io",
    ),
    (
        "github.com/kyverno/kyverno@v1.19.1",
        "config/crds/policyreport/wgpolicyk8s.io_policyreports.yaml",
        "crd/policyreports.wgpolicyk8s.io",
    ),
];

/// Installs both definitions once into the shared control plane.
pub(crate) async fn define(namespace: &Namespace) {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    DEFINED
        .get_or_init(|| async {
            for (module, file, name) in DEFINITIONS {
                let file = go_module::folder(module).await.unwrap().join(file);
                let apply = ["apply", "--server-side", "-f", file.to_str().unwrap()];
                let applied = namespace.plane.kubectl(apply).await.unwrap();
                applied.stdout().unwrap();
                let wait = ["wait", "--for=condition=Established", "--timeout=60s", name];
                let deadline = Instant::now() + PATIENCE;
                while let Err(error) = namespace.plane.kubectl(wait).await.unwrap().stdout() {
                    assert!(Instant::now() < deadline, "{error:#}");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        })
        .await;
}
