//! Warnings about a valid ImageAttachment that is risky or has no effect. A check that does not
//! complete in time produces no warning.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::{Instant, timeout_at};

use crate::admission::review::pull_secrets::PullSecrets;
use crate::admission::review::warning_text::{MAX_WARNING_CHARS, truncate, warning};
use crate::api::ImageAttachmentSpec;
use crate::attachment::{EntryKind, Image, Intent};
use affix_registry::oci::Reference;
use affix_registry::{Access, Keychain, Locator, Registries, Session};

/// The annotation of a key Secret that lists the repositories in which the key may sign.
const REPOSITORIES: &str = "affix.dev/repositories";
/// The context of the checks.
#[derive(Clone, Copy)]
pub(crate) struct WarningContext<'a> {
    /// The namespace of the resource.
    pub(crate) namespace: &'a str,
    /// A dry run reads no Secret, so fewer checks run.
    pub(crate) is_dry_run: bool,
    /// Checks that take longer are abandoned.
    pub(crate) deadline: Instant,
}

/// Returns the warnings on a resource.
pub(crate) async fn collect_warnings(
    client: &Client,
    credentials: &PullSecrets,
    registries: &Registries,
    context: WarningContext<'_>,
    (spec, intent): (&ImageAttachmentSpec, &Intent),
) -> Vec<String> {
    let key = async {
        if intent.reference.digest.is_some() {
            return None;
        }
        unbound_key_warning(client, context, spec).await
    };
    let image = async {
        let session =
            open_session(credentials, registries, context, spec, &intent.reference).await?;
        Some(image_warnings(&session.until(context.deadline), intent, context.deadline).await)
    };
    let (key, image) = tokio::join!(
        timeout_at(context.deadline, key),
        timeout_at(context.deadline, image)
    );
    let image = image.ok().flatten().unwrap_or_default();
    exposed_login_warnings(spec, "spec")
        .chain(key.ok().flatten())
        .chain(image)
        .map(|text| truncate(&text, MAX_WARNING_CHARS))
        .collect()
}

/// Returns the warnings on the template of a set. Its ImageAttachments are made by the controller, so their warnings reach no user.
pub(crate) async fn collect_set_warnings(
    client: &Client,
    context: WarningContext<'_>,
    template: &ImageAttachmentSpec,
) -> Vec<String> {
    let key = unbound_key_warning(client, context, template);
    let key = timeout_at(context.deadline, key).await;
    exposed_login_warnings(template, "spec.template.spec")
        .chain(key.ok().flatten())
        .map(|text| truncate(&text, MAX_WARNING_CHARS))
        .collect()
}

/// Returns the warnings on fields by which the user of a resource can read a login (threat T39). `path` is the path of `spec`.
fn exposed_login_warnings(spec: &ImageAttachmentSpec, path: &str) -> impl Iterator<Item = String> {
    let login = if spec.secret_ref.is_some() {
        Some("secretRef")
    } else if spec.service_account_name.is_some() {
        Some("serviceAccountName")
    } else {
        None
    };
    let proxy = (spec.proxy_secret_ref.is_some() && spec.insecure()).then(|| {
        format!("{path}.proxySecretRef: with insecure: true, the proxy can read the login for the registry")
    });
    let authority = login.filter(|_| spec.cert_secret_ref.is_some()).map(|field| {
        format!("{path}.certSecretRef: a server with a certificate of its ca.crt can read the login of {path}.{field}")
    });
    proxy.into_iter().chain(authority)
}

/// Returns a warning if a tag is signed by a key without the annotation. Such a key signs in any
/// repository for every user who can create resources in the namespace (threat T16).
async fn unbound_key_warning(
    client: &Client,
    context: WarningContext<'_>,
    spec: &ImageAttachmentSpec,
) -> Option<String> {
    let (_, secret) = spec.key_secret().filter(|_| !context.is_dry_run)?;
    let name = &secret.name;
    let api: Api<Secret> = Api::namespaced(client.clone(), context.namespace);
    let found = api.get_metadata_opt(name).await.ok()??;
    let bound = found
        .metadata
        .annotations
        .is_some_and(|annotations| annotations.contains_key(REPOSITORIES));
    (!bound).then(|| {
        warning(
            "the key Secret",
            name,
            &format!("signs a tag in any repository: add the annotation {REPOSITORIES}"),
        )
    })
}

/// Opens a session for the registry of the resource. Returns `None` if the resource needs more than its
/// pull secret.
async fn open_session(
    credentials: &PullSecrets,
    registries: &Registries,
    context: WarningContext<'_>,
    spec: &ImageAttachmentSpec,
    reference: &Reference,
) -> Option<Session> {
    if spec.cert_secret_ref.is_some()
        || spec.proxy_secret_ref.is_some()
        || spec.service_account_name.is_some()
    {
        return None;
    }
    let keychain = match &spec.secret_ref {
        None => Keychain::anonymous(),
        Some(_) if context.is_dry_run => return None,
        Some(secret) => {
            let names = std::slice::from_ref(&secret.name);
            let logins = credentials.read(context.namespace, names).await;
            logins.missing.is_none().then_some(logins.keychain)?
        }
    };
    let access = Access {
        tenant: context.namespace.to_owned(),
        credentials: keychain,
        insecure: spec.insecure(),
        ..Access::default()
    };
    registries
        .open(&reference.host, &reference.repository, access)
        .ok()
}

async fn image_warnings(session: &Session, intent: &Intent, deadline: Instant) -> Vec<String> {
    let reference = &intent.reference;
    let tag_warning = async {
        let (tag, digest) = (reference.tag.as_ref()?, reference.digest.as_ref()?);
        let named = session.head(&Locator::Tag(tag.clone())).await.ok()?.digest;
        (named != *digest).then(|| {
            warning(
                "the tag",
                tag.as_str(),
                &format!(
                    "now resolves to sha256:{}…: spec.image keeps its digest",
                    named.short()
                ),
            )
        })
    };
    let selection_warnings = async {
        let fetched = session.manifest(&Locator::of(reference)?).await.ok()?;
        let image = Image::from_manifest(
            &fetched.descriptor(),
            &fetched.manifest,
            &BTreeMap::new(),
            None,
            usize::MAX,
        )
        .ok()?;
        // Nested indexes and image configurations are not read here.
        let is_complete = image.is_index
            && !image
                .entries
                .iter()
                .any(|entry| matches!(entry.kind, EntryKind::Unreadable(_)));
        is_complete.then(|| match intent.selection.choose(&image) {
            Ok((_, notes)) => notes,
            Err(error) => vec![error.to_string()],
        })
    };
    let (tag_warning, selection_warnings) = tokio::join!(
        timeout_at(deadline, tag_warning),
        timeout_at(deadline, selection_warnings)
    );
    tag_warning
        .ok()
        .flatten()
        .into_iter()
        .chain(selection_warnings.ok().flatten().into_iter().flatten())
        .collect()
}
