//! A plain HTTP client for the tests: it follows nothing, adds nothing, and decodes nothing.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::hostile::{HostileRegistry, Matcher};

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const EMPTY: &str =
    "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
pub(super) const NAME: &str = "team/app";

pub(super) struct Client {
    http: reqwest::Client,
    base: String,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of the first error.
    pub(super) fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {self:?}"))
            .to_owned()
    }

    /// The digests of a listing.
    pub(super) fn digests(&self) -> Vec<String> {
        let json = self.json();
        json["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect()
    }
}

pub(super) fn builder() -> reqwest::ClientBuilder {
    // A second installation fails, which is as good as the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_mins(2))
}

impl Client {
    pub(super) fn new(registry: &HostileRegistry) -> Self {
        Self::with(registry, builder())
    }

    pub(super) fn with(registry: &HostileRegistry, mut builder: reqwest::ClientBuilder) -> Self {
        if registry.authority().is_some() {
            let ca = reqwest::Certificate::from_pem(registry.ca_pem().as_bytes()).unwrap();
            builder = builder.tls_certs_only([ca]);
        }
        Self {
            http: builder.build().unwrap(),
            base: registry.url(),
        }
    }

    pub(super) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> reqwest::Result<Seen> {
        let url = if path.contains("://") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        let mut request = self.http.request(method, url).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Seen {
            status,
            headers,
            body: response.bytes().await?,
        })
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Seen {
        self.try_send(method, path, headers, body)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    pub(super) async fn get(&self, path: &str) -> Seen {
        self.send(Method::GET, path, &[], "").await
    }

    pub(super) async fn try_get(&self, path: &str) -> reqwest::Result<Seen> {
        self.try_send(Method::GET, path, &[], "").await
    }

    pub(super) async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        body: &Value,
    ) -> Seen {
        let path = format!("/v2/{NAME}/manifests/{reference}");
        self.send(
            Method::PUT,
            &path,
            &[("content-type", media_type)],
            body.to_string(),
        )
        .await
    }

    pub(super) async fn put_empty_blob(&self) {
        let path = format!("/v2/{NAME}/blobs/uploads/?digest={EMPTY}");
        assert_eq!(self.send(Method::POST, &path, &[], "{}").await.status, 201);
    }

    pub(super) async fn referrers(&self, subject: &str) -> Seen {
        self.get(&format!("/v2/{NAME}/referrers/{subject}")).await
    }

    /// Pushes an attachment of this type and number to `subject`, with the empty blob. Gives its digest and the answer.
    pub(super) async fn attach(
        &self,
        subject: &str,
        artifact_type: &str,
        number: usize,
    ) -> (String, Seen) {
        self.put_empty_blob().await;
        let manifest = attachment(subject, artifact_type, number);
        let digest = crate::hostile::digest(manifest.to_string().as_bytes());
        let seen = self.put_manifest(&digest, MANIFEST, &manifest).await;
        assert_eq!(seen.status, 201, "{seen:?}");
        (digest, seen)
    }
}

pub(super) fn attachment(subject: &str, artifact_type: &str, number: usize) -> Value {
    let empty = serde_json::json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2});
    serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type, "config": empty, "layers": [empty],
        "subject": {"mediaType": INDEX, "digest": subject, "size": 1}, "annotations": {"number": number.to_string()},
    })
}

/// Sends `text` on a connection of its own and gives all that comes back, and how the connection ended.
pub(super) async fn raw(registry: &HostileRegistry, text: &str) -> (String, std::io::Result<()>) {
    let mut stream = TcpStream::connect(registry.address()).await.unwrap();
    let mut seen = Vec::new();
    let end = async {
        stream.write_all(text.as_bytes()).await?;
        stream.read_to_end(&mut seen).await.map(|_| ())
    };
    let end = tokio::time::timeout(Duration::from_mins(1), end)
        .await
        .expect("an end within a minute");
    (String::from_utf8_lossy(&seen).into_owned(), end)
}

/// Makes one more request, which must have no answer a while after it has come.
pub(super) async fn unanswered<T: std::fmt::Debug>(
    registry: &HostileRegistry,
    request: impl Future<Output = T>,
) {
    let before = registry.requests().len();
    let silence = async {
        registry
            .wait_for(&Matcher::any(), before + 1, Duration::from_mins(1))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    tokio::select! {
        answer = request => panic!("it was answered: {answer:?}"),
        () = silence => {}
    }
}
