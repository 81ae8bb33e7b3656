//! The configuration of the cluster: that of the kubeconfig, or that of the pod.
//!
//! kube parses `HTTPS_PROXY` and `NO_PROXY` while it reads a kubeconfig, and refuses values that Go accepts, such as the empty item in
//! `a,,b`. The proxy of the environment is chosen in `start/proxy.rs`, so such a kubeconfig is read here without it.

use std::error::Error as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Config;
use kube::config::{AuthInfo, Cluster, Kubeconfig, KubeconfigError};

/// Returns the configuration, without the proxy of the environment if kube cannot parse that.
///
/// # Errors
/// The cause, if there is no configuration or it is malformed.
pub(super) async fn infer() -> Result<Config, String> {
    let error = match Config::infer().await {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    let kubeconfig = error
        .source()
        .and_then(|error| error.downcast_ref::<KubeconfigError>());
    if let Some(KubeconfigError::ParseNoProxy(_) | KubeconfigError::ParseProxyUrl(_)) = kubeconfig {
        let read = Kubeconfig::read().map_err(|error| with_sources(&error))?;
        without_proxy(read)
    } else {
        Err(with_sources(&error))
    }
}

/// Returns an error with its sources, which kube leaves out of its messages.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| (*error).source());
    let mut text = error.to_string();
    for source in sources {
        let source = source.to_string();
        if !text.contains(&source) {
            text = format!("{text}: {source}");
        }
    }
    text
}

/// Returns the configuration of the current context.
fn without_proxy(kubeconfig: Kubeconfig) -> Result<Config, String> {
    let missing = |what: &str| format!("the kubeconfig has no {what}");
    let name = kubeconfig
        .current_context
        .ok_or_else(|| missing("current-context"))?;
    let context = (kubeconfig.contexts.into_iter())
        .find(|named| named.name == name)
        .and_then(|named| named.context)
        .ok_or_else(|| missing(&format!("context {name:?}")))?;
    let cluster = (kubeconfig.clusters.into_iter())
        .find(|named| named.name == context.cluster)
        .and_then(|named| named.cluster)
        .ok_or_else(|| missing(&format!("cluster {:?}", context.cluster)))?;
    let server = (cluster.server.as_deref()).ok_or_else(|| missing("server of the cluster"))?;
    let url = server
        .parse()
        .map_err(|error| format!("the server of the kubeconfig is malformed: {error}"))?;
    let mut auth_info = (kubeconfig.auth_infos.into_iter())
        .find(|named| Some(&named.name) == context.user.as_ref())
        .and_then(|named| named.auth_info)
        .unwrap_or_else(AuthInfo::default);
    if let Some(exec) = auth_info
        .exec
        .as_mut()
        .filter(|exec| exec.provide_cluster_info)
    {
        exec.cluster = Some(
            (&cluster)
                .try_into()
                .map_err(|error: KubeconfigError| with_sources(&error))?,
        );
    }
    let mut config = Config::new(url);
    config.default_namespace = context.namespace.unwrap_or(config.default_namespace);
    config.root_cert = authorities(&cluster)?;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.disable_compression = cluster.disable_compression.unwrap_or(false);
    config.tls_server_name = cluster.tls_server_name;
    config.auth_info = auth_info;
    Ok(config)
}

/// Returns the certificate authorities of a cluster, in DER.
fn authorities(cluster: &Cluster) -> Result<Option<Vec<Vec<u8>>>, String> {
    let invalid = |error: String| {
        format!("the certificate authority of the kubeconfig cannot be read: {error}")
    };
    let pem = match (
        &cluster.certificate_authority_data,
        &cluster.certificate_authority,
    ) {
        (Some(data), _) => STANDARD
            .decode(data)
            .map_err(|error| invalid(error.to_string()))?,
        (None, Some(path)) => {
            std::fs::read(path).map_err(|error| invalid(format!("{path}: {error}")))?
        }
        (None, None) => return Ok(None),
    };
    let parts = pem::parse_many(pem).map_err(|error| invalid(error.to_string()))?;
    let certificates = parts.into_iter().filter(|part| part.tag() == "CERTIFICATE");
    Ok(Some(certificates.map(pem::Pem::into_contents).collect()))
}
