//! Events: each once per transition, after the status that tells of it is written.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

use ais_crds::AISCluster;

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
#[derive(Clone)]
pub struct Teller(Recorder);

impl Teller {
    /// `instance` is the pod of this operator.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: "aiscluster-operator".into(), instance: Some(instance) };
        Self(Recorder::new(client, reporter))
    }

    /// Tells one. A lost event is no reason to stop: what it says is in status too.
    pub async fn tell(&self, cluster: &AISCluster, note: &Note) {
        let mut text = note.message.clone();
        // The server refuses more than 1 kB.
        text.truncate(text.floor_char_boundary(1000));
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            note: Some(text),
            action: note.action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, &cluster.object_ref(&())).await {
            tracing::warn!(%error, reason = note.reason, "an event could not be told");
        }
    }
}
