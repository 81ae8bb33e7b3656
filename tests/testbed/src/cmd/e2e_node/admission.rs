//! The checks of what an enforcing namespace permits, and of what it tells before an outage.

use anyhow::ensure;

use super::checks::ENDED;
use super::lab::{Lab, ROLLOUT};

/// A namespace with pods that are older than its label.
const LEGACY: &str = "--namespace legacy";
/// A label that enforces the end of life.
const ENFORCE: &str = "affix.dev/end-of-life=enforce";

impl Lab {
    /// A label on a namespace, and each change that creates pods, warn of an outage.
    pub(super) async fn outage(&mut self) -> anyhow::Result<()> {
        let old = self.old.tagged();
        self.kubectl("create namespace legacy").await?;
        self.kubectl(&format!("create deployment legacy {LEGACY} --image {old}"))
            .await?;
        self.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: pair, namespace: legacy}}
spec: {{containers: [{{name: a, image: \"{old}\"}}, {{name: b, image: \"{old}\"}}]}}
"
        ))
        .await?;
        self.kubectl(&format!(
            "rollout status deployment/legacy {LEGACY} {ROLLOUT}"
        ))
        .await?;
        let expected = "Warning: 2 of 2 pods in this namespace run images past their end of life: new pods like them will be refused here";
        self.warns(expected, async |_| {
            self.kubectl("label namespace legacy affix.dev/end-of-life-")
                .await?;
            Ok(format!("label namespace legacy {ENFORCE}"))
        })
        .await?;
        let expected = format!("Warning: image {old} {ENDED}: its pods will be refused here");
        for change in [
            "set env deployment/legacy A=COUNT",
            "rollout restart deployment/legacy",
            "scale deployment/legacy --replicas=COUNT",
        ] {
            self.warns(&expected, async |count| {
                let change = change.replace("COUNT", &count.to_string());
                Ok(format!("{change} {LEGACY}"))
            })
            .await?;
        }
        Ok(())
    }

    /// Repeats a command, with a count that begins at 2, until it succeeds with a warning.
    async fn warns(
        &self,
        expected: &str,
        command: impl AsyncFn(u32) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let mut count = 1;
        self.until(expected, async || {
            count += 1;
            let ran = self.kubectl_ran(&command(count).await?).await?;
            let warns = ran.status.success() && ran.err.contains(expected);
            Ok(if warns { Ok(()) } else { Err(ran.err) })
        })
        .await
    }

    /// A pod with two old containers can be repaired one by one, and debugged.
    pub(super) async fn repair(&mut self) -> anyhow::Result<()> {
        let (old, good) = (self.old.tagged(), self.good.tagged());
        let warning = format!("Warning: image {old} {ENDED}");
        let debug = "debug pair --container debugger --attach=false --profile=general";
        for change in [
            format!("set image pod/pair b={good}"),
            format!("{debug} --image {good}"),
        ] {
            let ran = self.kubectl_ran(&format!("{change} {LEGACY}")).await?;
            ensure!(
                ran.status.success() && ran.err.contains(&warning),
                "{change}: {}{}",
                ran.out,
                ran.err
            );
        }
        let again = format!("set image pod/pair b={old} {LEGACY}");
        let refused = self.kubectl_ran(&again).await?.failure()?;
        ensure!(refused.contains(ENDED), "{refused}");
        Ok(())
    }

    /// A label on kube-system refuses none of its pods.
    pub(super) async fn system(&mut self) -> anyhow::Result<()> {
        let old = self.old.tagged();
        for command in [
            format!("label namespace kube-system {ENFORCE}"),
            format!("run old --namespace kube-system --image {old}"),
        ] {
            let ran = self.kubectl_ran(&command).await?;
            let quiet = ran.status.success() && !ran.err.contains("Warning");
            ensure!(quiet, "{command}: {}{}", ran.out, ran.err);
        }
        self.kubectl("label namespace kube-system affix.dev/end-of-life-")
            .await?;
        self.kubectl("delete pod old --namespace kube-system --now")
            .await
            .map(drop)
    }

    /// Tightened flags keep existing resources suspendable, and an exempt image runs.
    pub(super) async fn tighten(&mut self) -> anyhow::Result<()> {
        let old = self.old.tagged();
        self.upgrade(&format!(
            "--set registries.allowed={{registry.example.com}} --set webhook.exemptImages={{{old}}}"
        ))
        .await?;
        // Replicas with the former flags still answer until they end.
        self.until("end of former replicas", async || {
            let pods = self.pods().await?;
            Ok(if pods.len() == 3 {
                Ok(())
            } else {
                Err(pods.join(" "))
            })
        })
        .await?;
        for change in [r#"{"suspend":true}"#, r#"{"deletionPolicy":"Retain"}"#] {
            let patch = format!(r#"--type merge --patch {{"spec":{change}}}"#);
            let ran = self
                .kubectl_ran(&format!(
                    "patch imageattachment signed --namespace apps {patch}"
                ))
                .await?;
            ensure!(
                ran.status.success()
                    && ran
                        .err
                        .contains("Warning: admitted, but still invalid: spec.image: "),
                "{change}: {}{}",
                ran.out,
                ran.err
            );
        }
        let run = format!("run exempt --namespace shop --image {old}");
        let ran = self.kubectl_ran(&run).await?;
        let quiet = ran.status.success() && !ran.err.contains("Warning");
        ensure!(quiet, "{}{}", ran.out, ran.err);
        Ok(())
    }
}
