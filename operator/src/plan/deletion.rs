//! The end of a resource. Pure.
//!
//! # Flow
//! Retain: the pods are ended in order, as with `state: Stopped`, and the resource goes; volumes stay for a resource of
//! the same name. Delete: the pods are ended, then the volume claims of this cluster are deleted, then the resource
//! goes.
//! # Guarantees
//! With Retain the finalizer goes after `deletionTimeoutSeconds` at the latest, whatever answers or does not. With
//! Delete it stays until the claims are gone or the policy is set back to Retain: it is all that remembers them. Only
//! claims with this cluster's uuid are deleted, each by its uid.

use std::time::Duration;

use ais_crds::DeletionPolicy;
use jiff::SignedDuration;
use jiff::Timestamp;

use super::order::Order;
use super::{Removal, stop};
use crate::events::Note;
use crate::facts::{Observed, PodFact};
use crate::names::Role;
use crate::view::{Agreement, agree};

const STEP: Duration = Duration::from_secs(1);
/// How often a deletion that takes too long is looked at.
const STUCK_STEP: Duration = Duration::from_secs(10);

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deletion {
    /// What the nodes agree on.
    pub agreement: Agreement,
    /// StatefulSets that get no replicas: name and uid.
    pub emptied: Vec<(String, String)>,
    /// Pods without a set that could end them: it was deleted and is not made again.
    pub orphans: Vec<Removal>,
    /// Claims to delete: name and uid.
    pub claims: Vec<(String, String)>,
    /// The call to make.
    pub order: Option<Order>,
    /// The finalizer goes.
    pub release: bool,
    /// It takes longer than `deletionTimeoutSeconds`.
    pub overdue: bool,
    /// What is waited for.
    pub waits_for: String,
    /// Events.
    pub notes: Vec<Note>,
    /// Look again no later.
    pub requeue: Duration,
}

/// The deletion took longer than it may, as far as the resource alone can say.
#[must_use]
pub fn is_overdue(cluster: &ais_crds::AISCluster, now: Timestamp) -> bool {
    let since = cluster.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    let limit = SignedDuration::from_secs(cluster.spec.deletion_timeout_seconds);
    since.is_some_and(|since| now.duration_since(since) > limit)
}

/// Decides.
#[must_use]
pub fn deletion(observed: &Observed) -> Deletion {
    let uuid = uuid(observed);
    let mut deletion = Deletion {
        agreement: agree(&uuid, &observed.reports),
        overdue: is_overdue(&observed.cluster, observed.now),
        requeue: STEP,
        ..Deletion::default()
    };
    match observed.cluster.spec.deletion_policy {
        DeletionPolicy::Retain => retain(observed, &mut deletion),
        DeletionPolicy::Delete => delete(observed, &uuid, &mut deletion),
    }
    if deletion.overdue && !deletion.release {
        deletion.requeue = STUCK_STEP;
    }
    deletion
}

fn uuid(observed: &Observed) -> String {
    let recorded = observed.primary_map.as_ref().map(|m| m.cluster_uuid.clone()).filter(|u| !u.is_empty());
    let status = || observed.cluster.status.as_ref().and_then(|s| s.cluster_id.clone());
    recorded.or_else(status).unwrap_or_default()
}

fn retain(observed: &Observed, deletion: &mut Deletion) {
    let kept = observed.claims.len();
    let message = format!("{kept} volume claims are kept; a cluster of the same name adopts them");
    let retained = Note::normal("VolumesRetained", "Delete", message);
    if observed.pods.is_empty() || observed.cluster.spec.paused {
        deletion.release = true;
        return deletion.notes.push(retained);
    }
    if deletion.overdue {
        let pods: Vec<&str> = observed.pods.iter().map(|p| p.name.as_str()).collect();
        let seconds = observed.cluster.spec.deletion_timeout_seconds;
        let message = format!("let go after {seconds} s, although these pods had not ended: {}", pods.join(", "));
        deletion.release = true;
        // The others end with their sets, which belong to the resource.
        deletion.orphans = orphans(observed);
        return deletion.notes.extend([Note::warning("DeletionTimedOut", "Delete", message), retained]);
    }
    let formed = observed.discovery.as_ref().is_some_and(|d| d.formed);
    let since = observed.cluster.metadata.deletion_timestamp.as_ref().map_or(observed.now, |t| t.0);
    let end = stop::end(observed, &deletion.agreement, formed, observed.now.duration_since(since));
    deletion.order = end.order;
    deletion.waits_for = end.waits_for;
    if end.no_pods {
        deletion.emptied = sets(observed);
        deletion.orphans = orphans(observed);
    }
}

fn delete(observed: &Observed, uuid: &str, deletion: &mut Deletion) {
    if observed.cluster.spec.paused {
        deletion.waits_for = "spec.paused to be false: nothing is deleted before".to_owned();
        return;
    }
    // Also a set that has made none yet: its pods would hold on to the claims.
    deletion.emptied = sets(observed);
    deletion.orphans = orphans(observed);
    if !observed.pods.is_empty() || !deletion.emptied.is_empty() {
        deletion.waits_for = "the pods to end".to_owned();
        return;
    }
    let ours: Vec<_> = observed.claims.iter().filter(|c| c.cluster_id.as_deref() == Some(uuid)).collect();
    if ours.is_empty() {
        deletion.release = true;
        let message = "the volume claims of the cluster are gone, and its data with them";
        return deletion.notes.push(Note::normal("DataDeleted", "Delete", message));
    }
    if ours.iter().all(|c| !c.deleting) {
        let message = format!("deleting {} volume claims with all data of cluster {uuid}", ours.len());
        deletion.notes.push(Note::normal("DataDeletionConfirmed", "Delete", message));
    }
    deletion.claims = ours.iter().filter(|c| !c.deleting).map(|c| (c.name.clone(), c.uid.clone())).collect();
    deletion.waits_for = format!("{} volume claims to go", ours.len());
}

/// Sets that still ask for pods.
fn sets(observed: &Observed) -> Vec<(String, String)> {
    let names = observed.names();
    let asks = |role: Role| observed.sets.get(&role).filter(|s| s.replicas > 0 && !s.deleting);
    Role::ALL.into_iter().filter_map(|role| Some((names.set(role), asks(role)?.uid.clone()))).collect()
}

/// Pods that no set ends.
fn orphans(observed: &Observed) -> Vec<Removal> {
    let orphaned = |pod: &&PodFact| !pod.deleting && pod.role.is_some_and(|role| !observed.sets.contains_key(&role));
    let removal = |pod: &PodFact| Removal {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        reason: "of a cluster that goes, and without a StatefulSet",
    };
    observed.pods.iter().filter(orphaned).map(removal).collect()
}
