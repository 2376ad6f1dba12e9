//! Founding anew: the way out when the founding under way can never be completed (protocol.md section 5). Pure.
//!
//! # Flow
//! The annotation `aiscluster.dev/refound` names the next founding. The workloads go, then the state volumes, then the
//! ConfigMap gets the new number and the uuid made from it, and everything is built as for a new cluster. Each pass
//! finds out anew how far that is, so an operator may be replaced at any point.
//! # Guarantees
//! Never once anything says that the cluster is formed; not while a node runs that does not answer: it may be the
//! founder that completed it. A node bound to the old offer is what this is for: its volume goes, and its uuid with it.

use crate::events::Note;
use crate::facts::Observed;
use crate::names::{ANNOTATION_REFOUND, Role};

/// How far a new founding is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refound {
    /// It cannot be made; why.
    Refused(String),
    /// Something has to end first.
    Waits(String),
    /// The workloads go; these pods are still there.
    Stops(Vec<String>),
    /// The pods are gone; these state volumes go.
    Wipes(Vec<String>),
}

impl Refound {
    /// The workloads are not wanted now.
    #[must_use]
    pub fn stops_workloads(&self) -> bool {
        matches!(self, Self::Stops(_) | Self::Wipes(_))
    }
}

/// Number of the founding that the ConfigMap speaks of.
fn recorded(observed: &Observed) -> i64 {
    observed.primary_map.as_ref().map_or(1, |m| m.founding_attempt.max(1))
}

/// Number of the founding that is asked for, if it is a later one.
fn asked(observed: &Observed) -> Option<i64> {
    let text = observed.cluster.metadata.annotations.as_ref()?.get(ANNOTATION_REFOUND)?;
    text.parse().ok().filter(|attempt| *attempt > recorded(observed))
}

/// Anything that says the cluster was founded.
fn formed(observed: &Observed) -> bool {
    observed.discovery.as_ref().is_some_and(|d| d.formed)
        || observed.volumes.iter().any(|v| v.formed)
        || observed.cluster.status.as_ref().is_some_and(|s| s.formed)
        || observed.reports.values().filter_map(|r| r.view()).any(|v| v.formed)
}

/// The workloads, their pods and the state volumes are gone: the next founding can begin.
fn cleared(observed: &Observed) -> bool {
    Role::ALL.iter().all(|role| !observed.sets.contains_key(role))
        && observed.pods.is_empty()
        && observed.volumes.is_empty()
}

/// Number of the founding that is under way or was made; part of a derived uuid.
#[must_use]
pub fn founding_attempt(observed: &Observed) -> i64 {
    asked(observed).filter(|_| begins_anew(observed)).unwrap_or_else(|| recorded(observed))
}

/// True in the pass that begins the next founding: what is recorded of the old one does not count any more.
#[must_use]
pub fn begins_anew(observed: &Observed) -> bool {
    asked(observed).is_some() && observed.cluster.spec.cluster_id.is_none() && !formed(observed) && cleared(observed)
}

/// How far it is; `None` when none is asked for, or the next one has begun.
#[must_use]
pub fn refound(observed: &Observed) -> Option<Refound> {
    asked(observed)?;
    if formed(observed) || begins_anew(observed) {
        return None;
    }
    if observed.cluster.spec.cluster_id.is_some() {
        let why = "spec.clusterID fixes the uuid, and a founding that was given up must not share it".to_owned();
        return Some(Refound::Refused(why));
    }
    let silent = |pod: &str| observed.reports.get(pod).is_none_or(|r| r.view().is_none());
    let unknown: Vec<&str> =
        observed.pods.iter().filter(|p| p.running && !p.deleting && silent(&p.name)).map(|p| p.name.as_str()).collect();
    let workloads = Role::ALL.iter().any(|role| observed.sets.contains_key(role));
    if workloads && !unknown.is_empty() {
        let who = unknown.join(", ");
        return Some(Refound::Waits(format!("{who} runs and does not answer: it may have completed the founding")));
    }
    if workloads || !observed.pods.is_empty() {
        return Some(Refound::Stops(observed.pods.iter().map(|p| p.name.clone()).collect()));
    }
    Some(Refound::Wipes(observed.volumes.iter().map(|v| v.name.clone()).collect()))
}

impl Refound {
    /// For people, as the condition's message.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Refused(why) => why.clone(),
            Self::Waits(why) => format!("to be founded anew: {why}"),
            Self::Stops(pods) => format!("to be founded anew: these pods end first: {}", pods.join(", ")),
            Self::Wipes(volumes) => {
                format!("to be founded anew: volumes of the founding before go: {}", volumes.join(", "))
            }
        }
    }

    /// Reason of the condition `Available`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(_) => "RefoundRefused",
            _ => "Refounding",
        }
    }
}

/// Told once: when it begins, and when it is refused.
#[must_use]
pub fn note(observed: &Observed, refound: &Refound) -> Option<Note> {
    let conditions = observed.cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    if conditions.iter().any(|c| c.type_ == "Available" && c.reason == refound.reason()) {
        return None;
    }
    let event = if matches!(refound, Refound::Refused(_)) { "RefoundRefused" } else { "RefoundStarted" };
    Some(Note::warning(event, "Refound", refound.message()))
}
