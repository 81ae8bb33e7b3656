//! A registry client of a few plain requests, independent of affix's: what tests push with and look into registries with.
//! Refuses to be clever: no retries, no caching but of one token a repository.

use std::collections::HashMap;

use anyhow::{Context, bail};
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::http_client;

/// Every manifest type that the testbed pushes.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// The client.
#[derive(Debug)]
pub struct RawClient {
    http: reqwest::Client,
    base: Url,
    credentials: Option<(String, String)>,
    tokens: Mutex<HashMap<String, String>>,
}

/// What a registry answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// A header's value, where it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// Where it is not JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!(
                "{} with a body that is not JSON: {}",
                self.status,
                self.text()
            )
        })
    }

    /// The answer itself, if it is a success.
    ///
    /// # Errors
    ///
    /// Where it is not; the message has the body.
    pub fn ok(self) -> anyhow::Result<Self> {
        if !self.status.is_success() {
            bail!("the registry answered {}: {}", self.status, self.text());
        }
        Ok(self)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RawClient {
    /// A client for the registry at `url` (`http://HOST:PORT`), trusting `ca_pem`, with a name and password.
    ///
    /// # Errors
    ///
    /// Where the address or the certificate make no sense.
    pub fn new(
        url: &str,
        ca_pem: Option<&str>,
        credentials: Option<(&str, &str)>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            http: http_client::client(ca_pem)?,
            base: Url::parse(url)?,
            credentials: credentials.map(|(user, password)| (user.to_owned(), password.to_owned())),
            tokens: Mutex::default(),
        })
    }

    /// `HOST:PORT`, as references begin.
    pub fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Reads a manifest by tag or digest.
    ///
    /// # Errors
    ///
    /// Where no answer comes. One that is no success is returned as it is; so it is with the other methods, but for [`Self::blob`].
    pub async fn manifest(&self, repository: &str, reference: &str) -> anyhow::Result<Answer> {
        self.send(
            Method::GET,
            repository,
            &format!("manifests/{reference}"),
            "",
            Bytes::new(),
        )
        .await
    }

    /// Writes a manifest under a tag or a digest.
    ///
    /// # Errors
    ///
    /// Where no answer comes.
    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        self.send(
            Method::PUT,
            repository,
            &format!("manifests/{reference}"),
            media_type,
            body.into(),
        )
        .await
    }

    /// Deletes a manifest (by digest) or a tag.
    ///
    /// # Errors
    ///
    /// Where no answer comes.
    pub async fn delete_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> anyhow::Result<Answer> {
        self.send(
            Method::DELETE,
            repository,
            &format!("manifests/{reference}"),
            "",
            Bytes::new(),
        )
        .await
    }

    /// Asks for the first page of a digest's referrers.
    ///
    /// # Errors
    ///
    /// Where no answer comes.
    pub async fn referrers(&self, repository: &str, digest: &str) -> anyhow::Result<Answer> {
        self.send(
            Method::GET,
            repository,
            &format!("referrers/{digest}"),
            "",
            Bytes::new(),
        )
        .await
    }

    /// Makes sure that a blob is there.
    ///
    /// # Errors
    ///
    /// Where the registry refuses it.
    pub async fn blob(
        &self,
        repository: &str,
        digest: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<()> {
        let there = self
            .send(
                Method::HEAD,
                repository,
                &format!("blobs/{digest}"),
                "",
                Bytes::new(),
            )
            .await?;
        if there.status == StatusCode::OK {
            return Ok(());
        }
        let begun = self
            .send(Method::POST, repository, "blobs/uploads/", "", Bytes::new())
            .await?
            .ok()?;
        let location = begun
            .header(LOCATION.as_str())
            .context("an upload was begun without a Location")?;
        let mut url = self.base.join(location)?;
        url.query_pairs_mut().append_pair("digest", digest);
        self.request(
            Method::PUT,
            repository,
            url,
            "application/octet-stream",
            body.into(),
        )
        .await?
        .ok()
        .map(drop)
    }

    /// Sends any request about a repository, `rest` being what follows its name: `tags/list`.
    ///
    /// # Errors
    ///
    /// Where no answer comes.
    pub async fn send(
        &self,
        method: Method,
        repository: &str,
        rest: &str,
        media_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let url = self.base.join(&format!("/v2/{repository}/{rest}"))?;
        self.request(method, repository, url, media_type, body)
            .await
    }

    async fn request(
        &self,
        method: Method,
        repository: &str,
        url: Url,
        media_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let token = self.tokens.lock().await.get(repository).cloned();
        let answer = self.once(&method, &url, media_type, &body, token).await?;
        let challenge = answer
            .header(WWW_AUTHENTICATE.as_str())
            .and_then(|value| value.strip_prefix("Bearer "));
        let (StatusCode::UNAUTHORIZED, Some(challenge)) = (answer.status, challenge) else {
            return Ok(answer);
        };
        let token = self.token(repository, challenge).await?;
        self.tokens
            .lock()
            .await
            .insert(repository.to_owned(), token.clone());
        self.once(&method, &url, media_type, &body, Some(token))
            .await
    }

    async fn once(
        &self,
        method: &Method,
        url: &Url,
        media_type: &str,
        body: &Bytes,
        token: Option<String>,
    ) -> anyhow::Result<Answer> {
        let mut request = self
            .http
            .request(method.clone(), url.clone())
            .header(ACCEPT, MANIFESTS)
            .body(body.clone());
        if !media_type.is_empty() {
            request = request.header(CONTENT_TYPE, media_type);
        }
        request = match (token, &self.credentials) {
            (Some(token), _) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            (None, Some((user, password))) => request.basic_auth(user, Some(password)),
            (None, None) => request,
        };
        let answer = request
            .send()
            .await
            .with_context(|| format!("{method} {url} got no answer"))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Answer {
            status,
            headers,
            body: answer.bytes().await?,
        })
    }

    /// Fetches a token that may do everything to one repository.
    async fn token(&self, repository: &str, challenge: &str) -> anyhow::Result<String> {
        let parameter = |name: &str| {
            challenge
                .split(',')
                .find_map(|part| {
                    part.trim()
                        .strip_prefix(name)?
                        .strip_prefix("=\"")?
                        .strip_suffix('"')
                })
                .with_context(|| format!("no {name} in the challenge `{challenge}`"))
        };
        let scope = format!("repository:{repository}:pull,push,delete");
        let mut url = Url::parse(parameter("realm")?)?;
        url.query_pairs_mut()
            .append_pair("service", parameter("service")?)
            .append_pair("scope", &scope);
        let mut request = self.http.get(url);
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, Some(password));
        }
        let answer: Value =
            serde_json::from_slice(&request.send().await?.error_for_status()?.bytes().await?)?;
        answer
            .get("token")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .context("a token answer without a token")
    }
}
