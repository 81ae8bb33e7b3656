//! The event of a new leader, as client-go publishes it.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource as _};

use crate::service::{FIELD_MANAGER, with_timeout};

/// Publishes an event about the Lease in the background. A failure is logged.
pub(crate) fn announce_leader(client: &Client, lease: &Lease, identity: &str) {
    let namespace = lease.metadata.namespace.clone().unwrap_or_default();
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let (name, now) = (
        lease.metadata.name.clone().unwrap_or_default(),
        Timestamp::now(),
    );
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        action: Some("LeaderElection".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(format!("{identity} became leader")),
        reason: Some("LeaderElection".to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(Lease::api_version(&()).into_owned()),
            kind: Some(Lease::kind(&()).into_owned()),
            name: lease.metadata.name.clone(),
            namespace: lease.metadata.namespace.clone(),
            uid: lease.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(identity.chars().take(128).collect()),
        type_: Some("Normal".to_owned()),
        ..Event::default()
    };
    tokio::spawn(async move {
        if let Err(error) = with_timeout(events.create(&PostParams::default(), &event)).await {
            tracing::warn!(%error, "cannot publish the event of the new leader");
        }
    });
}
