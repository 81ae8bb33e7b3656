//! The transit engine of OpenBao and Vault.
//!
//! The ServiceAccount's token is exchanged for a token of Vault by the JWT or the Kubernetes method, whose requests are the same. ECDSA and
//! RSA sign the hash of a message, so that its content stays here. Ed25519 signs the message itself.

use std::sync::Arc;
use std::time::Duration;

use affix_registry::{LoginAnswer, Registries, Secret, Service, ServiceAccess, TlsOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderName;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cache::Shared;
use super::error::SigningError;
use super::keys::{KmsRequest, Parts, text};
use super::vault_answers::{
    KeyData, KeyDocument, LoginDocument, SignDocument, Signed, errors, public_der,
};
use crate::signing::error::KeyError;
use crate::signing::keys::{RemoteKey, Scheme};

/// The size of the messages in one request, in base64. The default limit of the server is 32 MiB.
const MAX_REQUEST: usize = 24 << 20;
/// The greatest time before the end of a login in which it is not used.
const MAX_MARGIN: Duration = Duration::from_mins(5);
/// The use of a login that has no end.
const NO_END: Duration = Duration::from_hours(1);

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Without it, agents and proxies of Vault may refuse a request.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// A key of a transit engine.
#[derive(Debug, Clone, Default)]
pub struct VaultKey {
    /// The name of the key.
    pub name: String,
    /// The URL of the server.
    pub address: String,
    /// The namespace, if it is not the root namespace.
    pub namespace: Option<String>,
    /// The path of the transit engine.
    pub mount: String,
    /// The path of the auth method.
    pub auth_mount: String,
    /// The role of the login.
    pub role: String,
    /// The audience of the ServiceAccount's token.
    pub audience: String,
    /// Certificates.
    pub tls: TlsOptions,
}

impl VaultKey {
    pub(super) fn identify_login(&self, parts: &mut Parts) {
        let client = self.tls.client.as_ref();
        for part in [
            Some(self.address.as_bytes()),
            self.namespace.as_deref().map(str::as_bytes),
            Some(self.auth_mount.as_bytes()),
            Some(self.role.as_bytes()),
            Some(self.audience.as_bytes()),
            self.tls.ca_pem.as_deref(),
            client.map(|client| client.certificate_pem.as_slice()),
            client.map(|client| client.key_pem.expose()),
        ] {
            parts.add(part);
        }
    }

    pub(super) fn identify_key(&self, parts: &mut Parts) {
        parts.add(Some(self.mount.as_bytes()));
        parts.add(Some(self.name.as_bytes()));
    }
}

/// A token of Vault.
#[derive(Clone)]
pub(super) struct Login {
    token: Secret,
    issued: Instant,
    until: Instant,
}

/// The newest version of a key.
#[derive(Clone)]
pub(super) struct KnownKey {
    version: u64,
    kind: String,
    /// The public key as a SubjectPublicKeyInfo, or empty if the key has none.
    pub(super) public_der: Vec<u8>,
    /// The time of the request that read it.
    pub(super) read_at: Instant,
}

/// One pass at a server.
pub(super) struct Session {
    service: Service,
    request: KmsRequest,
    login: Arc<Shared<Login>>,
    deadline: Instant,
    begun: Instant,
}

impl Session {
    /// Opens the way to the server. It sends no request.
    pub(super) fn open(
        registries: &Registries,
        request: &KmsRequest,
        login: Arc<Shared<Login>>,
        deadline: Instant,
    ) -> Result<Self, SigningError> {
        let access = ServiceAccess {
            tenant: request.identity.account.namespace.clone(),
            tls: request.key.tls.clone(),
            // The proxy of a resource is for its registry. The server is usually in the cluster.
            proxy: None,
            ..ServiceAccess::default()
        };
        let service = registries.open_service(&request.key.address, access)?;
        Ok(Self {
            service: service.until(deadline),
            request: request.clone(),
            login,
            deadline,
            begun: Instant::now(),
        })
    }

    fn key(&self) -> &super::VaultKey {
        &self.request.key
    }

    /// Reads the newest version of the key.
    pub(super) async fn read_key(&self) -> Result<KnownKey, SigningError> {
        let read_at = Instant::now();
        let key = self.key();
        let path = format!("/v1/{}/keys/{}", key.mount, key.name);
        let answer = self.send(&path, None).await?;
        if answer.status == 404 {
            let message = format!(
                "{} has no key {:?} in {}: create it there",
                answer.host, key.name, key.mount
            );
            return Err(SigningError::Unavailable(message));
        }
        let KeyData {
            kind,
            latest_version,
            derived,
            keys,
        } = self
            .parse::<KeyDocument>(&answer, "does not show the key")?
            .data;
        let version = keys.get(&latest_version.to_string());
        let public_key = version.and_then(|version| version.get("public_key")?.as_str());
        let public_der = public_key
            .filter(|_| !derived)
            .and_then(|text| public_der(&kind, text));
        Ok(KnownKey {
            version: latest_version,
            kind,
            public_der: public_der.unwrap_or_default(),
            read_at,
        })
    }

    /// Returns the error for a key that cosign cannot use.
    pub(super) fn unsupported(&self, known: &KnownKey) -> KeyError {
        KeyError::UnsupportedServiceKey {
            key: format!("{} at {}", self.key().name, self.service.host()),
            found: known.kind.clone(),
            supported: "ecdsa-p256, ecdsa-p384, ecdsa-p521, ed25519 without derivation, or rsa of 2048, 3072 or 4096 bits",
        }
    }

    /// Sends a request with a login. A login of an earlier pass that the server refuses is replaced once.
    async fn send(&self, path: &str, body: Option<&Value>) -> Result<LoginAnswer, SigningError> {
        let body = body.map(ToString::to_string);
        loop {
            let login = self.login().await?;
            self.service.redact(&login.token);
            let mut headers = self.headers();
            headers.push((TOKEN, text(&login.token)));
            let answer = self.in_time(async {
                match &body {
                    Some(body) => Ok(self.service.post(path, &headers, body.clone()).await?),
                    None => Ok(self.service.get(path, &headers).await?),
                }
            });
            let answer = answer.await?;
            let is_old = login.issued < self.begun;
            if answer.status != 403 || !is_old {
                return Ok(answer);
            }
            self.login
                .expire_if(|cached| cached.issued == login.issued)
                .await;
        }
    }

    fn headers(&self) -> Vec<(HeaderName, &str)> {
        let mut headers = vec![(REQUEST, "true"), (CONTENT_TYPE, "application/json")];
        let namespace = self.key().namespace.as_deref();
        headers.extend(namespace.map(|namespace| (NAMESPACE, namespace)));
        headers
    }

    /// Returns the login of the ServiceAccount.
    async fn login(&self) -> Result<Login, SigningError> {
        let is_usable = |login: &Login| Instant::now() < login.until;
        let login = self.login.get(self.begun, is_usable, || self.log_in());
        self.in_time(login).await
    }

    async fn log_in(&self) -> Result<Login, SigningError> {
        let (key, identity) = (self.key(), &self.request.identity);
        let account = &identity.account;
        let jwt = identity
            .identities
            .tokens()
            .token(account, &key.audience)
            .await?;
        self.service.redact(&jwt);
        let issued = Instant::now();
        let path = format!("/v1/auth/{}/login", key.auth_mount);
        let body =
            zeroize::Zeroizing::new(json!({"role": key.role, "jwt": text(&jwt)}).to_string());
        let answer = self
            .service
            .post(&path, &self.headers(), body.as_bytes().to_vec())
            .await?;
        if !answer.is_success() {
            let action = format!(
                "refuses the role {:?} at auth/{} to {account}",
                key.role, key.auth_mount
            );
            let error = SigningError::refused(&self.service, &answer, &action, &errors(&answer));
            // A wrong role or audience is a 400.
            return Err(SigningError::IdentityRefused(error.to_string()));
        }
        let auth = self
            .parse::<LoginDocument>(&answer, "does not log in")?
            .auth;
        tracing::debug!(
            namespace = account.namespace,
            service_account = account.name,
            host = self.service.host(),
            "logged in to a key management service"
        );
        let lifetime = match auth.lease_duration {
            0 => NO_END,
            seconds => Duration::from_secs(seconds),
        };
        Ok(Login {
            token: auth.client_token.into(),
            issued,
            until: issued + (lifetime - (lifetime / 4).min(MAX_MARGIN)),
        })
    }

    /// Parses a successful answer.
    fn parse<T: DeserializeOwned>(
        &self,
        answer: &LoginAnswer,
        action: &str,
    ) -> Result<T, SigningError> {
        if !answer.is_success() {
            let key = self.key();
            let mut text = errors(answer);
            if answer.status == 403 {
                text = format!(
                    "{text}: grant the role {:?} read on {1}/keys/{2} and update on {1}/sign/{2}",
                    key.role, key.mount, key.name
                );
            }
            return Err(SigningError::refused(&self.service, answer, action, &text));
        }
        // The error of serde could quote a token.
        serde_json::from_slice(answer.body()).map_err(|_| {
            let message = format!("{} {action}: its answer is malformed", answer.host);
            SigningError::Unavailable(message)
        })
    }

    /// Runs a request until the deadline.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, SigningError>>,
    ) -> Result<T, SigningError> {
        match tokio::time::timeout_at(self.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(SigningError::Unavailable(format!(
                "{} did not answer within spec.timeout",
                self.service.host()
            ))),
        }
    }
}

/// A version of a key, for one pass.
pub(super) struct RemoteVaultKey {
    session: Session,
    shared: Arc<Shared<KnownKey>>,
    known: KnownKey,
}

impl RemoteVaultKey {
    pub(super) const fn new(
        session: Session,
        shared: Arc<Shared<KnownKey>>,
        known: KnownKey,
    ) -> Self {
        Self {
            session,
            shared,
            known,
        }
    }

    /// Signs the inputs of one request.
    async fn sign_batch(
        &self,
        inputs: &[String],
        scheme: Scheme,
    ) -> Result<Vec<Result<Vec<u8>, SigningError>>, SigningError> {
        let key = self.session.key();
        let inputs: Vec<Value> = inputs.iter().map(|input| json!({"input": input})).collect();
        let mut body = json!({"batch_input": inputs, "key_version": self.known.version});
        if let (Some(body), Some(hash)) = (body.as_object_mut(), scheme.hash()) {
            body.insert("prehashed".to_owned(), true.into());
            body.insert("hash_algorithm".to_owned(), hash.vault_name().into());
            body.insert("marshaling_algorithm".to_owned(), "asn1".into());
            body.insert("signature_algorithm".to_owned(), "pkcs1v15".into());
        }
        let path = format!("/v1/{}/sign/{}", key.mount, key.name);
        let answer = self.session.send(&path, Some(&body)).await?;
        let host = &answer.host;
        let action = format!("does not sign with the key {:?}", key.name);
        // Vault answers 400 if one of the messages was not signed, with the results of all.
        let results = match serde_json::from_slice::<SignDocument>(answer.body()) {
            Ok(document) if matches!(answer.status, 200 | 400) => document.data.batch_results,
            _ => {
                self.session
                    .parse::<SignDocument>(&answer, &action)?
                    .data
                    .batch_results
            }
        };
        let signature = |signed: Signed| {
            let signature = signed.signature.rsplit_once(':');
            let signature = signature.and_then(|(_, text)| STANDARD.decode(text).ok());
            signature.ok_or_else(|| {
                let text = self.session.service.clean(&signed.error);
                SigningError::Unavailable(format!("{host} {action}: {text}"))
            })
        };
        Ok(results.into_iter().map(signature).collect())
    }

    async fn sign_all(
        &self,
        messages: &[Vec<u8>],
        scheme: Scheme,
    ) -> Vec<Result<Vec<u8>, SigningError>> {
        let input = |message: &Vec<u8>| match scheme.hash() {
            Some(hash) => STANDARD.encode(hash.digest(message)),
            None => STANDARD.encode(message),
        };
        let inputs: Vec<String> = messages.iter().map(input).collect();
        let mut signatures = Vec::new();
        for batch in batches(&inputs) {
            let mut results = match self.sign_batch(batch, scheme).await {
                Ok(results) => results,
                Err(error) => vec![Err(error); batch.len()],
            };
            let missing = || {
                let host = self.session.service.host();
                SigningError::Unavailable(format!("{host} left a signature out of its answer"))
            };
            results.resize_with(batch.len(), || Err(missing()));
            signatures.extend(results);
        }
        signatures
    }
}

/// Splits inputs so that each request has at most [`MAX_REQUEST`] bytes, or one input.
fn batches(inputs: &[String]) -> Vec<&[String]> {
    let mut batches = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (position, input) in inputs.iter().enumerate() {
        if size > 0 && size + input.len() > MAX_REQUEST {
            batches.extend(inputs.get(start..position));
            (start, size) = (position, 0);
        }
        size += input.len();
    }
    batches.extend(inputs.get(start..).filter(|rest| !rest.is_empty()));
    batches
}

impl RemoteKey for RemoteVaultKey {
    fn sign<'a>(
        &'a self,
        messages: &'a [Vec<u8>],
        scheme: Scheme,
    ) -> BoxFuture<'a, Vec<Result<Vec<u8>, SigningError>>> {
        self.sign_all(messages, scheme).boxed()
    }

    fn expire(&self) -> BoxFuture<'_, ()> {
        let read_at = self.known.read_at;
        let is_ours = move |known: &KnownKey| known.read_at == read_at;
        self.shared.expire_if(is_ours).boxed()
    }

    fn describe(&self) -> String {
        let key = self.session.key();
        format!("{} (key {:?})", self.session.service.host(), key.name)
    }
}
