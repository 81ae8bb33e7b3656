//! TLS: trusted authorities, client certificates, and the text of failures.

use affix_registry::{Access, ClientIdentity, ErrorKind, TlsOptions};
use affix_testbed::hostile::{
    Authority, Certificate, Fault, HostileRegistry, Location, Matcher, Op, Quirks,
};
use http::Version;

use crate::support::{access, image, open, open_with, options, refused, tag};

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named_and_http_2_is_spoken() {
    let registry = HostileRegistry::builder().tls().start().await.unwrap();
    image(&registry);
    open(&registry).manifest(&tag("v1")).await.unwrap();
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.version == Version::HTTP_2),
        "{}",
        registry.transcript()
    );
    let stranger = open_with(
        &registry,
        options(),
        Access {
            tls: TlsOptions {
                ca_pem: Some(Authority::new().unwrap().pem().into()),
                client: None,
            },
            ..Access::default()
        },
    );
    let error = refused(
        stranger.manifest(&tag("v1")).await,
        ErrorKind::CertificateInvalid,
        &[
            "GET manifest v1 at",
            "not trusted: name it in ca.crt of certSecretRef",
        ],
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_without_the_time_of_day() {
    for (certificate, expected) in [
        (
            Certificate::Expired,
            "the registry's certificate has expired",
        ),
        (
            Certificate::OtherName,
            "the registry's certificate is for another host name",
        ),
        (
            Certificate::SelfSigned,
            "signed by an authority that is not trusted",
        ),
    ] {
        let registry = HostileRegistry::builder()
            .tls_with(&Authority::new().unwrap(), certificate)
            .start()
            .await
            .unwrap();
        let error = refused(
            open(&registry).manifest(&tag("v1")).await,
            ErrorKind::CertificateInvalid,
            &[expected],
        );
        assert_eq!(
            error,
            refused(
                open(&registry).manifest(&tag("v1")).await,
                ErrorKind::CertificateInvalid,
                &[expected]
            )
        );
    }
}

fn with_client(registry: &HostileRegistry) -> Access {
    let (certificate, key) = registry.authority().unwrap().client("affix").unwrap();
    let client = ClientIdentity {
        certificate_pem: certificate.into(),
        key_pem: key.into(),
    };
    Access {
        tls: TlsOptions {
            client: Some(client),
            ..access(registry).tls
        },
        ..Access::default()
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_registry_and_to_no_other_origin() {
    let authority = Authority::new().unwrap();
    let registry = HostileRegistry::builder()
        .tls_with(&authority, Certificate::Good)
        .client_certificate_required()
        .start()
        .await
        .unwrap();
    let other = HostileRegistry::builder()
        .tls_with(&authority, Certificate::Good)
        .store(&registry.store())
        .start()
        .await
        .unwrap();
    image(&registry);
    let session = open_with(&registry, options(), with_client(&registry));
    session.manifest(&tag("v1")).await.unwrap();
    registry.fault(
        Matcher::on(Op::BlobGet),
        Fault::RedirectToHost(307, other.url()),
    );
    session
        .blob(&affix_registry::oci::Descriptor::empty(), 10)
        .await
        .unwrap();
    registry.quirks(|quirks| {
        *quirks = Quirks {
            upload_location: Location::Under(other.url()),
            ..Quirks::distribution()
        }
    });
    session.put_blob("content".into()).await.unwrap();
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.client_certificate)
    );
    assert!(
        other.requests().len() >= 2 && other.with_credentials().is_empty(),
        "{}",
        other.transcript()
    );
    let bare = open_with(&registry, options(), access(&registry));
    refused(
        bare.manifest(&tag("v1")).await,
        ErrorKind::CertificateInvalid,
        &["asks for a client certificate: name it in tls.crt and tls.key"],
    );
}

#[tokio::test]
async fn plain_http_against_tls_and_vice_versa_are_reported() {
    let plain = HostileRegistry::start().await.unwrap();
    let session = open_with(&plain, options(), Access::default());
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::RegistryUnavailable,
        &["does not speak TLS", "insecure: true"],
    );
}
