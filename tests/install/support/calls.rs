//! Calls of the webhook in the way of the API server: by the name of its Service, with the caBundle of its configuration.

use std::net::SocketAddr;

use affix_testbed::http_client;
use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::helm::NAMESPACE;

/// A client of the webhook.
pub(crate) struct Caller {
    client: reqwest::Client,
    url: String,
}

impl Caller {
    /// Creates a client from the current webhook configuration.
    pub(crate) async fn new(cluster: &Cluster, port: u16) -> Self {
        let configuration = cluster
            .get(&["validatingwebhookconfiguration", "affix-webhook"])
            .await;
        let call = &configuration["webhooks"][0]["clientConfig"];
        assert_eq!(
            (
                call["service"]["namespace"].as_str(),
                call["service"]["port"].as_u64()
            ),
            (Some(NAMESPACE), Some(443))
        );
        let bundle = base64::engine::general_purpose::STANDARD
            .decode(call["caBundle"].as_str().unwrap())
            .unwrap();
        let name = format!(
            "{}.{NAMESPACE}.svc",
            call["service"]["name"].as_str().unwrap()
        );
        let client = http_client::client_of(
            &String::from_utf8(bundle).unwrap(),
            &name,
            SocketAddr::from(([127, 0, 0, 1], port)),
        );
        Self {
            client: client.unwrap(),
            url: format!("https://{name}:{port}/validate-pods"),
        }
    }

    /// Reviews a pod of `namespace` with `image` and the pull secret `login`.
    pub(crate) async fn pod(&self, namespace: &str, image: &str) -> Result<Value, String> {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "operation": "CREATE", "namespace": namespace, "name": "pod", "dryRun": false,
            "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
            "userInfo": {"username": "somebody"},
            "object": {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": namespace},
                "spec": {"imagePullSecrets": [{"name": "login"}], "containers": [{"name": "app", "image": image}]},
            },
        }});
        let answer = self
            .client
            .post(&self.url)
            .json(&review)
            .send()
            .await
            .map_err(|error| format!("{error:?}"))?;
        let answer: Value = answer
            .error_for_status()
            .map_err(|error| error.to_string())?
            .json()
            .await
            .map_err(|error| error.to_string())?;
        Ok(answer["response"].clone())
    }
}
