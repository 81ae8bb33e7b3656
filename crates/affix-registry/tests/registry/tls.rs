//! TLS: trusted authorities, client certificates, and the text of failures.

use affix_registry::{Access, ClientIdentity, ErrorKind, RegistryError, TlsOptions};
use affix_testbed::hostile::{
    Authority, Certificate, Fault, HostileRegistry, Location, Matcher, Op, Quirks,
};
use affix_testbed::peer::Peer;
use affix_testbed::tools::Tools;
use http::Version;

use crate::support::{NAME, access, image, open, open_with, options, refused, tag, uploads_to};

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

/// Runs openssl in a folder of its own. Returns the certificate and the key that it makes.
fn openssl(arguments: &str) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem";
    let line = format!("req -x509 {new_key} -out crt.pem -subj /CN=registry {arguments}");
    let made = std::process::Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    (read("crt.pem"), read("key.pem"))
}

/// Reads a manifest of a registry with this certificate, with `ca_pem` as the authorities.
async fn read_with(
    (certificate, key): &(String, String),
    ca_pem: &str,
) -> Result<(), RegistryError> {
    let registry = HostileRegistry::builder()
        .tls_files(certificate, key)
        .start()
        .await
        .unwrap();
    image(&registry);
    let access = Access {
        tls: TlsOptions {
            ca_pem: Some(ca_pem.into()),
            client: None,
        },
        ..Access::default()
    };
    let session = open_with(&registry, options(), access);
    session.manifest(&tag("v1")).await.map(|_| ())
}

#[tokio::test]
async fn a_self_signed_certificate_of_openssl_is_accepted_when_it_is_in_ca_crt() {
    let made = openssl("-days 30 -addext subjectAltName=IP:127.0.0.1,DNS:localhost");
    read_with(&made, &made.0).await.unwrap();
    let odd = "-----BEGIN CERTIFICATE-----\nodd\n-----END CERTIFICATE-----\n";
    read_with(&made, &format!("{odd}{}", made.0)).await.unwrap();
    let other = openssl("-days 30 -addext subjectAltName=IP:127.0.0.1");
    refused(
        read_with(&made, &other.0).await,
        ErrorKind::CertificateInvalid,
        &["(CA:TRUE) and is not trusted: name this certificate itself in ca.crt"],
    );
    // oras and crane read from such a registry, too.
    let registry = HostileRegistry::builder()
        .tls_files(&made.0, &made.1)
        .start()
        .await
        .unwrap();
    image(&registry);
    let mut peer = Peer::new(&Tools::core().await.unwrap()).unwrap();
    peer.know_tls(&registry.host(), &made.0).unwrap();
    let name = format!("{}/{NAME}:v1", registry.host());
    let read = peer.oras(["manifest", "fetch", &name]).await.unwrap();
    read.stdout().unwrap();
}

#[tokio::test]
async fn each_refusal_of_a_certificate_in_ca_crt_names_its_cause() {
    let san = "-addext subjectAltName=IP:127.0.0.1";
    for (arguments, expected) in [
        ("-days 30", "has no subject alternative name (SAN)"),
        (
            "-days 30 -addext subjectAltName=DNS:other.example.com",
            "is for another host name (it is for other.example.com)",
        ),
        (
            &*format!("-days 30 {san} -addext extendedKeyUsage=clientAuth"),
            "the registry's certificate is not for servers",
        ),
    ] {
        let made = openssl(arguments);
        let result = read_with(&made, &made.0).await;
        refused(result, ErrorKind::CertificateInvalid, &[expected]);
    }
    for (begin, end, expected) in [
        (2020, 2021, "the registry's certificate has expired"),
        (2090, 2091, "the registry's certificate is not valid yet"),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(begin, 1, 1);
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        let result = read_with(&(certificate.clone(), key.serialize_pem()), &certificate).await;
        refused(result, ErrorKind::CertificateInvalid, &[expected]);
    }
}

#[tokio::test]
async fn a_signature_with_sha_1_is_named_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let made = std::process::Command::new("openssl")
            .args(line.split_whitespace())
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    std::fs::write(dir.path().join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    run(
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=authority -days 30",
    );
    run("req -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem -subj /CN=registry");
    run(
        "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -sha1 -days 30 -extfile san -out crt.pem",
    );
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    refused(
        read_with(&(read("crt.pem"), read("key.pem")), &read("ca.pem")).await,
        ErrorKind::CertificateInvalid,
        &["is signed with SHA-1 or MD5: issue it again with SHA-256"],
    );
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
    let session = open_with(&registry, uploads_to(&other), with_client(&registry));
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
