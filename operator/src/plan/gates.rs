//! What must hold before the primary is moved to a gateway. Pure.

use std::time::Duration;

use ais_crds::PrimaryStatus;

use crate::names::Role;
use crate::view::{Leader, majority};

use super::primary::{Errand, Situation};

/// Why not. The reason becomes that of condition `PrimaryPreferred`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Reason.
    pub reason: &'static str,
    /// For people; without numbers that move by themselves.
    pub message: String,
}

pub(super) fn closed(reason: &'static str, message: impl Into<String>) -> Closed {
    Closed { reason, message: message.into() }
}

/// Updates by which a successor may be behind: the hand-over drains and waits for it anyway.
pub(super) const BEHIND_MAX: u64 = 100;

/// Gates of the whole cluster.
pub(super) fn cluster<'a>(s: &Situation<'a>) -> Result<&'a Leader, Closed> {
    if let Some(split) = &s.agreement.split {
        return Err(closed("SplitBrainSuspected", format!("no move while {split}")));
    }
    if s.agreement.stopping {
        return Err(closed("ClusterBusy", "the cluster is being stopped"));
    }
    let Some(leader) = &s.agreement.leader else {
        return Err(closed("ClusterBusy", "no primary is acknowledged by a majority now"));
    };
    let needed = majority(leader.electorate.len());
    let reached = leader
        .electorate
        .iter()
        .filter(|v| v.node_id == leader.node_id || leader.member(&v.node_id).is_some_and(|m| m.connected))
        .count();
    if leader.members.is_empty() || reached < needed {
        return Err(closed("MembersUnreachable", "the primary does not reach a majority of the voters"));
    }
    Ok(leader)
}

/// Gates of a gateway that a user prefers.
pub(super) fn preferred(s: &Situation<'_>, leader: &Leader, name: &str) -> Result<(), Closed> {
    match s.errand {
        Some(Errand { reason: "Rollout", away_from, .. }) if away_from == name => {
            Err(closed("RolloutInProgress", format!("{name} is about to be restarted")))
        }
        Some(Errand { away_from, .. }) if away_from == name => {
            Err(closed("ClusterBusy", format!("{name} is about to go")))
        }
        // It would only have to leave again.
        _ if s.observed.pod(name).and_then(|p| p.node.as_ref()).is_some_and(|n| s.observed.cordoned.contains(n)) => {
            Err(closed("PreferredNotReady", format!("{name} is on a node that takes no more pods")))
        }
        _ => receiver(s, leader, name, false),
    }
}

/// Gates of whoever receives the primary; `old_revision_too` lets one pass that waits for its rollout.
pub(super) fn receiver(s: &Situation<'_>, leader: &Leader, name: &str, old_revision_too: bool) -> Result<(), Closed> {
    let exists = matches!(s.valid.names.parse_pod(name), Some((Role::Gateway, n)) if n < s.gateways);
    if !exists {
        return Err(closed("PreferredUnknown", format!("{name} is no gateway of this cluster")));
    }
    let Some(pod) = s.observed.pod(name) else {
        return Err(closed("PreferredNotReady", format!("{name} has no pod")));
    };
    if pod.deleting || !pod.ready {
        let why = if pod.deleting { "is being deleted" } else { "is not ready" };
        return Err(closed("PreferredNotReady", format!("{name} {why}")));
    }
    let Some(member) = leader.member(name) else {
        return Err(closed("PreferredNotJoined", format!("{name} is not in the cluster map")));
    };
    if member.non_electable {
        return Err(closed("PreferredNotElectable", format!("{name} is non-electable")));
    }
    if member.maintenance {
        return Err(closed("PreferredInMaintenance", format!("{name} is in maintenance")));
    }
    if let Some(set) = s.observed.sets.get(&Role::Gateway)
        && !old_revision_too
        && (s.outdated || set.revision.is_empty() || pod.revision != set.revision)
    {
        return Err(closed("RolloutInProgress", format!("{name} runs an old revision of the pod template")));
    }
    synced(s, leader, name)
}

fn synced(s: &Situation<'_>, leader: &Leader, name: &str) -> Result<(), Closed> {
    let view = |pod: &str| s.observed.reports.get(pod).and_then(|r| r.view());
    let (Some(own), Some(primary)) = (view(name), view(&leader.node_id)) else {
        return Err(closed("PreferredNotSynced", format!("{name} or the primary does not answer")));
    };
    let stamp = own.stamp.unwrap_or_default();
    let current = own.ready
        && stamp.reign() == leader.reign
        && stamp.seq.saturating_add(BEHIND_MAX) >= leader.stamp.seq
        && own.smap_version == primary.smap_version
        && own.config_version == primary.config_version;
    if current {
        Ok(())
    } else {
        Err(closed("PreferredNotSynced", format!("{name} does not hold the newest metadata yet")))
    }
}

/// Waiting after an attempt that failed; `who` waits, in the words of `status.primary.waiting`.
pub(super) fn backoff(s: &Situation<'_>, memory: &PrimaryStatus, who: &str) -> Result<(), Closed> {
    if memory.waiting.as_deref() == Some(who) && pause_left(s, memory).is_some() {
        return Err(closed(
            "BackingOff",
            format!("attempt {} failed; the next one follows by itself", memory.attempts),
        ));
    }
    Ok(())
}

/// What is left of the pause after an attempt that failed.
pub(super) fn pause_left(s: &Situation<'_>, memory: &PrimaryStatus) -> Option<Duration> {
    let due = memory.next_attempt_time.as_ref().filter(|_| memory.attempts > 0)?;
    Duration::try_from(due.0.duration_since(s.observed.now)).ok().filter(|left| !left.is_zero())
}
