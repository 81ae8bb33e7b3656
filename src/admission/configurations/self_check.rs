//! The self-check: a dry run that the webhook for ImageAttachments must refuse. It shows that calls of
//! the API server arrive (docs/decisions/0105-prove-the-webhook-by-a-refused-dry-run.md).

use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::admission::review::request::SELF_CHECK_NAME;
use crate::api::ImageAttachment;
use crate::service::ApiServerError;

/// The webhook that refuses the dry run.
pub(crate) const CHECKED_WEBHOOK: &str = "imageattachments.affix.dev";
/// Time limit of one dry run. The API server waits at most 30 s for a webhook.
const TIMEOUT: Duration = Duration::from_secs(40);
/// Interval between two attempts of [`wait_for_refusal`].
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The result of one dry run.
#[derive(Debug)]
pub(crate) enum SelfCheck {
    /// The webhook refused it, as it must.
    Refused,
    /// The API server admitted it, or could not call the webhook. The text has the cause.
    NotCalled(String),
    /// The dry run failed for another reason, such as a missing permission.
    Inconclusive(String),
}

/// Sends one dry run of an invalid ImageAttachment to `namespace`.
pub(crate) async fn self_check(client: &Client, namespace: &str) -> SelfCheck {
    let resource = ApiResource::erase::<ImageAttachment>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    // The schema admits the image, and the webhook does not: a repository has no upper case.
    let object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": SELF_CHECK_NAME, "namespace": namespace},
        "spec": {
            "image": "registry.example.com/Self-Check/image:v1",
            "signature": {"cosign": {"keySecretRef": {"name": SELF_CHECK_NAME}}},
        },
    });
    // A server-side apply names the object in its URL, so RBAC can restrict it to this name.
    let params = PatchParams::apply(SELF_CHECK_NAME).force().dry_run();
    let patch = Patch::Apply(&object);
    let sent = timeout(TIMEOUT, api.patch(SELF_CHECK_NAME, &params, &patch));
    match sent
        .await
        .map(|answer| answer.map_err(ApiServerError::from))
    {
        Ok(Ok(_)) => SelfCheck::NotCalled(
            "the API server admitted an ImageAttachment that affix refuses".to_owned(),
        ),
        Ok(Err(error)) => classify(&error),
        Err(_) => SelfCheck::Inconclusive(ApiServerError::TimedOut(TIMEOUT).to_string()),
    }
}

fn classify(error: &ApiServerError) -> SelfCheck {
    let text = error.to_string();
    if text.contains(&format!(
        "admission webhook \"{CHECKED_WEBHOOK}\" denied the request"
    )) {
        SelfCheck::Refused
    } else if text.contains(&format!("failed calling webhook \"{CHECKED_WEBHOOK}\"")) {
        SelfCheck::NotCalled(text)
    } else {
        SelfCheck::Inconclusive(text)
    }
}

/// Repeats the dry run until the webhook refuses it.
///
/// # Errors
/// The webhook does not refuse it within `patience`. The text has the last result.
pub(crate) async fn wait_for_refusal(
    client: &Client,
    namespace: &str,
    patience: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        let cause = match self_check(client, namespace).await {
            SelfCheck::Refused => return Ok(()),
            SelfCheck::NotCalled(cause) => format!("no call of the API server arrives: {cause}"),
            SelfCheck::Inconclusive(cause) => format!("the self-check is not possible: {cause}"),
        };
        if Instant::now() >= deadline {
            return Err(cause);
        }
        sleep(RETRY_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_by_the_webhook_itself_passes_the_check() {
        let answered = |code: u16, message: &str| {
            let status = kube::core::Status {
                code,
                message: message.to_owned(),
                ..Default::default()
            };
            classify(&ApiServerError::Refused(Box::new(status)))
        };
        let refused = answered(
            422,
            "admission webhook \"imageattachments.affix.dev\" denied the request: spec.image: malformed",
        );
        assert!(matches!(refused, SelfCheck::Refused), "{refused:?}");
        let failed = answered(
            500,
            "Internal error occurred: failed calling webhook \"imageattachments.affix.dev\": no endpoints available",
        );
        assert!(
            matches!(&failed, SelfCheck::NotCalled(cause) if cause.contains("no endpoints")),
            "{failed:?}"
        );
        for (code, message) in [
            (
                403,
                "imageattachments.affix.dev \"affix-self-check\" is forbidden: User \"x\" cannot patch",
            ),
            (
                400,
                "admission webhook \"policy.example.com\" denied the request: no",
            ),
        ] {
            let other = answered(code, message);
            assert!(matches!(other, SelfCheck::Inconclusive(_)), "{other:?}");
        }
    }
}
