//! Events: each once per transition, after the status that tells of it is written.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Resource};

use ais_crds::AISCluster;

use crate::names::MANAGER;

/// An event to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A person should look.
    pub warning: bool,
    /// Reason.
    pub reason: &'static str,
    /// What was done.
    pub action: &'static str,
    /// For people.
    pub message: String,
}

impl Note {
    /// All is well.
    #[must_use]
    pub fn normal(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, action, message: message.into() }
    }

    /// A person should look.
    #[must_use]
    pub fn warning(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, action, message: message.into() }
    }
}

/// Tells events to the API server.
///
/// Each is an object of its own: kube's recorder would fold a second failover into the event of the first one and
/// keep the first one's message, but the message is what names the nodes.
#[derive(Clone)]
pub struct Teller {
    client: Client,
    instance: String,
}

impl Teller {
    /// `instance` is the pod of this operator.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Tells one. A lost event is no reason to stop: what it says is in status too.
    pub async fn tell(&self, cluster: &AISCluster, note: &Note) {
        self.tell_about(&cluster.metadata, note).await;
    }

    /// The same, of a cluster of which nothing but the metadata is known.
    pub async fn tell_about(&self, cluster: &ObjectMeta, note: &Note) {
        let mut text = note.message.clone();
        // The server refuses more than 1 kB.
        text.truncate(text.floor_char_boundary(1000));
        let now = Timestamp::now();
        let namespace = cluster.namespace.clone().unwrap_or_default();
        let name = cluster.name.clone().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                // As unique as client-go's own events, whose names end in the time too.
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.to_owned()),
            action: Some(note.action.to_owned()),
            note: Some(text),
            regarding: Some(ObjectReference {
                api_version: Some(AISCluster::api_version(&()).into_owned()),
                kind: Some(AISCluster::kind(&()).into_owned()),
                name: Some(name),
                namespace: Some(namespace.clone()),
                uid: cluster.uid.clone(),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::warn!(%error, reason = note.reason, "an event could not be told");
        }
    }
}
