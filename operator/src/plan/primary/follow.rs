//! Keeps `current`, `since` and the history true, whoever moved the primary.

use ais_crds::PrimaryStatus;
use jiff::Timestamp;

use super::record::{ended, record, seconds};
use super::{Decision, Situation, epoch};
use crate::events::Note;
use crate::facts::Observed;
use crate::names::Role;
use crate::validate::derive_uuid;
use crate::view::Leader;

pub(super) fn follow_leader(s: &Situation<'_>, decision: &mut Decision) {
    let Some(leader) = &s.agreement.leader else {
        // Nodes that run may be silent towards us and not without a primary: then what was known stays.
        if s.agreement.answered > 0 || !s.observed.runs() {
            nobody_leads(&mut decision.memory);
        }
        return;
    };
    let first = first_of_its_life(s.observed);
    let known = decision.memory.current.clone().or_else(|| if first { None } else { recorded_primary(s) });
    let moved_by_us =
        decision.memory.attempt.as_ref().is_some_and(|a| a.to == leader.node_id && epoch(leader) > a.epoch);
    match known {
        Some(old) if old != leader.node_id && !moved_by_us => {
            let message = format!("{} leads now, {old} did before; Smap v{}", leader.node_id, leader.smap_version);
            decision.notes.push(Note::warning("PrimaryElected", "Elect", message));
            record(decision, ended(s, leader, &old, "Failover"));
        }
        None if first => first_leader(s, decision, leader),
        _ => {}
    }
    let same_reign = decision.memory.current.as_deref() == Some(leader.node_id.as_str())
        && decision.memory.epoch == Some(epoch(leader));
    if !same_reign || decision.memory.since.is_none() {
        let since = leader.since_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(s.observed.now);
        decision.memory.since = Some(seconds(since));
    }
    decision.memory.current = Some(leader.node_id.clone());
    decision.memory.current_node_id = Some(leader.node_id.clone());
    decision.memory.epoch = Some(epoch(leader));
}

/// What status says while there is no primary.
pub(crate) fn nobody_leads(memory: &mut PrimaryStatus) {
    (memory.current, memory.current_node_id, memory.since, memory.epoch) = (None, None, None, None);
}

/// Status is there but never named a primary. Without any status it may just be lost: then nothing is told.
fn first_of_its_life(observed: &Observed) -> bool {
    observed.cluster.status.as_ref().is_some_and(|st| st.cluster_id.is_some() && st.primary.last_transition.is_none())
}

/// Whoever founds may lose the primary before anybody hears of it: the epoch does not tell a founding from an adoption.
fn first_leader(s: &Situation<'_>, decision: &mut Decision, leader: &Leader) {
    if is_founded_here(s) {
        let message =
            format!("founded cluster {} with primary {}; Smap v{}", s.valid.uuid, leader.node_id, leader.smap_version);
        decision.notes.push(Note::normal("ClusterFormed", "Found", message));
        record(decision, ended(s, leader, "", "Founding"));
    } else {
        let message =
            format!("{} leads the adopted cluster {}; Smap v{}", leader.node_id, s.valid.uuid, leader.smap_version);
        decision.notes.push(Note::normal("PrimaryElected", "Elect", message));
        record(decision, ended(s, leader, "", "Start"));
    }
}

/// By the resource that its uuid is made of. One that is given by `spec.clusterID` does not say: state volumes that are
/// older than the resource hold a cluster that was there before.
fn is_founded_here(s: &Situation<'_>) -> bool {
    let cluster = &s.observed.cluster;
    if s.valid.uuid == derive_uuid(s.observed.uid(), s.valid.founding_attempt) {
        return true;
    }
    let made = cluster.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let older = s.observed.volumes.iter().any(|v| v.created.zip(made).is_some_and(|(volume, made)| volume < made));
    cluster.spec.cluster_id.as_ref() == Some(&s.valid.uuid) && !older
}

/// While nobody led, status named nobody; the ConfigMap still has the last one.
fn recorded_primary(s: &Situation<'_>) -> Option<String> {
    let formed = s.observed.discovery.as_ref().is_some_and(|d| d.formed);
    let endpoint = &s.observed.primary_map.as_ref().filter(|_| formed)?.endpoint;
    // With TLS turned on or off since, it is still the same gateway.
    let is_at =
        |pod: &String| ["http", "https"].iter().any(|scheme| s.valid.names.gateway_url(pod, scheme) == *endpoint);
    (0..s.gateways).map(|n| s.valid.names.pod(Role::Gateway, n)).find(is_at)
}
