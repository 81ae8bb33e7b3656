//! Warnings about an ImageAttachment that is allowed and unwise: what its registry and its key say of it. Nothing here refuses,
//! and what cannot be found out in time is left unsaid.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::{Instant, timeout_at};

use crate::admission::review::image_name::warning;
use crate::admission::review::pull_secrets::Credentials;
use crate::api::ImageAttachmentSpec;
use crate::attachment::{EntryKind, Image, Intent};
use affix_registry::oci::Reference;
use affix_registry::{Access, Keychain, Locator, Registries, Session};

/// The annotation of a key's Secret that says what it may sign.
const REPOSITORIES: &str = "affix.dev/repositories";
/// Most characters of a warning.
const MOST: usize = 120;

/// For whom advice is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The resource's namespace.
    pub(crate) namespace: &'a str,
    /// On a dry run no Secret is read, so less is said.
    pub(crate) is_dry: bool,
    /// What is not known by then is not said.
    pub(crate) deadline: Instant,
}

/// Warnings on a resource.
pub(crate) async fn advise(
    client: &Client,
    credentials: &Credentials,
    registries: &Registries,
    asker: Asker<'_>,
    (spec, intent): (&ImageAttachmentSpec, &Intent),
) -> Vec<String> {
    let key = async {
        if asker.is_dry {
            None
        } else {
            unbound_key(client, asker.namespace, spec, &intent.reference).await
        }
    };
    let image = async {
        let session = open(credentials, registries, asker, spec, &intent.reference).await?;
        Some(of_image(&session.until(asker.deadline), intent, asker.deadline).await)
    };
    let (key, image) = tokio::join!(
        timeout_at(asker.deadline, key),
        timeout_at(asker.deadline, image)
    );
    let image = image.ok().flatten().unwrap_or_default();
    key.ok()
        .flatten()
        .into_iter()
        .chain(image)
        .map(|text| cut(&text))
        .collect()
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MOST {
        text.to_owned()
    } else {
        text.chars().take(MOST - 1).chain("…".chars()).collect()
    }
}

/// A tag is signed whatever it comes to name: without the annotation the key signs in any repository, for whoever may make
/// resources here (threat T16).
async fn unbound_key(
    client: &Client,
    namespace: &str,
    spec: &ImageAttachmentSpec,
    reference: &Reference,
) -> Option<String> {
    let signature = spec
        .signature
        .as_ref()
        .filter(|_| reference.digest.is_none())?;
    let cosign = signature
        .cosign
        .as_ref()
        .map(|cosign| &cosign.key_secret_ref);
    let name = &cosign
        .or_else(|| {
            signature
                .notation
                .as_ref()
                .map(|notation| &notation.key_secret_ref)
        })?
        .name;
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = api.get_metadata_opt(name).await.ok()??;
    let bound = found
        .metadata
        .annotations
        .is_some_and(|annotations| annotations.contains_key(REPOSITORIES));
    (!bound).then(|| {
        warning(
            "a tag is signed with the key",
            name,
            &format!("which lacks {REPOSITORIES}: it signs anywhere"),
        )
    })
}

/// The way to the resource's registry, by its own login; `None` where it takes more than that.
async fn open(
    credentials: &Credentials,
    registries: &Registries,
    asker: Asker<'_>,
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
        Some(_) if asker.is_dry => return None,
        Some(secret) => credentials
            .read(asker.namespace, std::slice::from_ref(&secret.name))
            .await
            .ok()?,
    };
    let access = Access {
        credentials: keychain,
        insecure: spec.insecure(),
        ..Access::default()
    };
    registries
        .open(&reference.host, &reference.repository, access)
        .ok()
}

async fn of_image(session: &Session, intent: &Intent, deadline: Instant) -> Vec<String> {
    let reference = &intent.reference;
    let moved = async {
        let (tag, digest) = (reference.tag.as_ref()?, reference.digest.as_ref()?);
        let named = session.head(&Locator::Tag(tag.clone())).await.ok()?.digest;
        (named != *digest).then(|| {
            warning(
                "the tag",
                tag.as_str(),
                &format!(
                    "names sha256:{}… by now; the digest in image decides",
                    named.short()
                ),
            )
        })
    };
    let selected = async {
        let fetched = session.manifest(&Locator::of(reference)?).await.ok()?;
        let image = Image::lay_out(
            &fetched.descriptor(),
            &fetched.manifest,
            &BTreeMap::new(),
            None,
            usize::MAX,
        )
        .ok()?;
        // What a nested index or a config holds is not looked at here.
        let whole = image.is_index
            && !image
                .entries
                .iter()
                .any(|entry| matches!(entry.kind, EntryKind::Unreadable(_)));
        whole.then(|| match intent.selection.choose(&image) {
            Ok((_, notes)) => notes,
            Err(error) => vec![error.to_string()],
        })
    };
    let (moved, selected) =
        tokio::join!(timeout_at(deadline, moved), timeout_at(deadline, selected));
    moved
        .ok()
        .flatten()
        .into_iter()
        .chain(selected.ok().flatten().into_iter().flatten())
        .collect()
}
