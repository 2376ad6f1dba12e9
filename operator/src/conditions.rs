//! Conditions, and the events that some of their changes deserve. Pure.

use ais_crds::AISClusterStatus;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::bounds::cut;
use crate::desired;
use crate::events::Note;
use crate::facts::Observed;
use crate::names::Role;
use crate::plan::Plan;
use crate::plan::deletion::Deletion;
use crate::plan::rollout::State;
use crate::validate::{Invalid, Valid};
use crate::view::majority;

/// The API server repeats whole objects in its words.
const REFUSAL_CHARS_MAX: usize = 500;
/// Some name every pod of a large cluster.
const MESSAGE_CHARS_MAX: usize = 2000;

/// How long a node may be away before a person should look.
const MISSING_S: i64 = 60;

/// One condition without its times.
pub(crate) struct Verdict {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn verdict(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict { kind, status: if holds { "True" } else { "False" }, reason, message: message.into() }
}

/// All conditions of a cluster that can be built; `status` has everything else already.
pub(crate) fn all(valid: &Valid, observed: &Observed, plan: &Plan, status: &AISClusterStatus) -> Vec<Condition> {
    let available = if plan.stop.asked { stopped("Available", plan) } else { available(observed, plan, status) };
    let missing = missing(plan, status);
    let degraded = degraded(observed, plan, &missing);
    let converged = converged(&valid.uuid, observed, plan, status);
    let behind = behind(valid, observed, plan);
    let ready = ready(plan, &available, &degraded, &converged, behind, &missing);
    let verdicts = vec![
        ready,
        available,
        progressing(plan, status),
        if plan.stop.asked { stopped("HighlyAvailable", plan) } else { highly_available(plan, status) },
        degraded,
        verdict("PrimaryPreferred", plan.primary.preferred, plan.primary.reason, plan.primary.message.clone()),
        converged,
        verdict("ConfigValid", plan.config.valid, plan.config.reason, plan.config.message.clone()),
        rollout(plan),
        scale_down(plan),
        storage(plan),
        certificates(observed),
        paused(observed),
    ];
    stamp(observed, verdicts)
}

/// Conditions of a cluster that goes; the others stay as they were.
pub(crate) fn deleting(observed: &Observed, deletion: &Deletion) -> Vec<Condition> {
    let waits = &deletion.waits_for;
    let message = if waits.is_empty() { "the end of the resource".to_owned() } else { format!("waits for {waits}") };
    let mut verdicts = vec![
        verdict("Ready", false, "Deleting", message.clone()),
        verdict("Available", false, "Deleting", message.clone()),
        verdict("HighlyAvailable", false, "Deleting", message.clone()),
        verdict("Progressing", true, "Deleting", message.clone()),
        paused(observed),
    ];
    if deletion.overdue {
        let seconds = observed.cluster.spec.deletion_timeout_seconds;
        verdicts.push(verdict("Degraded", true, "DeletionStuck", format!("more than {seconds} s: {message}")));
    }
    beside(observed, verdicts)
}

fn beside(observed: &Observed, verdicts: Vec<Verdict>) -> Vec<Condition> {
    let changed: Vec<_> = verdicts.iter().map(|v| v.kind).collect();
    let kept = previous(observed).iter().filter(|c| !changed.contains(&c.type_.as_str())).cloned();
    let mut conditions: Vec<Condition> = kept.collect();
    conditions.extend(stamp(observed, verdicts));
    conditions
}

/// Conditions of a cluster whose spec is refused: what its nodes do goes on; what was said about specs before stays.
pub(crate) fn refused(
    applied: &Observed,
    plan: &Plan,
    status: &AISClusterStatus,
    why: &Invalid,
    certificates: Verdict,
) -> Vec<Condition> {
    let unborn = !plan.founding.formed && applied.pods.is_empty();
    let (serves, spare) = if plan.stop.over {
        (stopped("Available", plan), stopped("HighlyAvailable", plan))
    } else if unborn {
        (verdict("Available", false, why.reason, why.message.clone()), highly_available(plan, status))
    } else {
        (available(applied, plan, status), highly_available(plan, status))
    };
    let degraded = match &plan.agreement.split {
        Some(split) => verdict("Degraded", true, "SplitBrainSuspected", split.clone()),
        None => verdict("Degraded", true, why.reason, why.message.clone()),
    };
    let verdicts = vec![
        verdict("Ready", false, why.reason, why.message.clone()),
        serves,
        verdict("Progressing", false, why.reason, "nothing is changed"),
        spare,
        degraded,
        verdict("PrimaryPreferred", plan.primary.preferred, plan.primary.reason, plan.primary.message.clone()),
        converged(status.cluster_id.as_deref().unwrap_or_default(), applied, plan, status),
        certificates,
        paused(applied),
    ];
    beside(applied, verdicts)
}

/// The API server refused an object. Whatever is worse keeps its reason.
pub(crate) fn not_applied(observed: &Observed, conditions: &mut [Condition], why: &str) {
    let reason = "ApplyFailed";
    let message: String = why.chars().take(REFUSAL_CHARS_MAX).collect();
    let holds = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    let mut verdicts = Vec::new();
    if !holds("Degraded") {
        verdicts.push(verdict("Degraded", true, reason, message.clone()));
        if holds("Available") {
            verdicts.push(verdict("Ready", false, reason, message));
        }
    }
    for told in stamp(observed, verdicts) {
        conditions.iter_mut().filter(|c| c.type_ == told.type_).for_each(|c| *c = told.clone());
    }
}

/// All that happens is that a template is being written, or about to be seen.
pub(crate) fn applies(conditions: &[Condition]) -> bool {
    conditions.iter().any(|c| c.type_ == "Progressing" && c.reason == "Applying")
}

fn previous(observed: &Observed) -> &[Condition] {
    observed.cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default()
}

/// The time of a transition moves only when the status value does.
fn stamp(observed: &Observed, verdicts: Vec<Verdict>) -> Vec<Condition> {
    let now = Timestamp::from_second(observed.now.as_second()).unwrap_or(observed.now);
    verdicts
        .into_iter()
        .map(|v| {
            let before = previous(observed).iter().find(|c| c.type_ == v.kind && c.status == v.status);
            Condition {
                type_: v.kind.to_owned(),
                status: v.status.to_owned(),
                reason: v.reason.to_owned(),
                message: cut(v.message, MESSAGE_CHARS_MAX),
                last_transition_time: before.map_or(Time(now), |c| c.last_transition_time.clone()),
                observed_generation: observed.cluster.metadata.generation,
            }
        })
        .collect()
}

/// Pods that are not ready, or whose node is not in the cluster map; apart from those that shall go.
fn missing(plan: &Plan, status: &AISClusterStatus) -> Vec<String> {
    let leaves = |pod: &str| plan.stop.asked || is_leaving(plan, pod);
    status.nodes.iter().filter(|n| (!n.ready || !n.in_smap) && !leaves(&n.pod)).map(|n| n.pod.clone()).collect()
}

fn is_leaving(plan: &Plan, pod: &str) -> bool {
    plan.scale.removal.as_ref().is_some_and(|r| r.pod == pod)
}

fn stopped(kind: &'static str, plan: &Plan) -> Verdict {
    if plan.stop.over {
        return verdict(kind, false, "Stopped", "spec.state is Stopped; Running continues with the same data");
    }
    verdict(kind, false, "Stopping", format!("the end of the cluster waits for {}", plan.stop.waits_for))
}

fn available(observed: &Observed, plan: &Plan, status: &AISClusterStatus) -> Verdict {
    let kind = "Available";
    let agreement = &plan.agreement;
    if let Some(refound) = &plan.refound {
        return verdict(kind, false, refound.reason(), refound.message());
    }
    if !plan.founding.formed {
        // A pod that waits for the scheduler is worth more words than that none runs.
        if observed.pods.iter().all(|p| !p.running && p.trouble.is_none()) {
            return verdict(kind, false, "Starting", "no pod runs yet");
        }
        return verdict(kind, false, "Founding", plan.founding.message.clone());
    }
    let Some(leader) = &agreement.leader else {
        if observed.pods.iter().all(|p| !p.running) {
            return verdict(kind, false, "Starting", "no pod runs");
        }
        if agreement.answered == 0 && observed.pods.iter().any(|p| p.ready) {
            return Verdict {
                kind,
                status: "Unknown",
                reason: "Unreachable",
                message: "pods are ready but no node answers the operator".to_owned(),
            };
        }
        return verdict(kind, false, "NoPrimary", "no primary is acknowledged by a majority of the voters");
    };
    if status.gateways.ready == 0 {
        return verdict(kind, false, "NoGateways", "no gateway is ready");
    }
    if status.targets.ready == 0 {
        return verdict(kind, false, "NoTargets", "no target is ready");
    }
    verdict(kind, true, "Available", format!("{} leads, acknowledged by a majority of the voters", leader.node_id))
}

/// What is seen is not yet of this generation of the spec: nobody may take it for done.
fn behind(valid: &Valid, observed: &Observed, plan: &Plan) -> Option<Verdict> {
    let kind = "Ready";
    let due = desired::unapplied(valid, observed, plan);
    if !due.is_empty() && observed.cluster.spec.paused {
        let message = format!("spec.paused is set, and not as the spec says: StatefulSet {}", due.join(", "));
        return Some(verdict(kind, false, "PausedBySpec", message));
    }
    if !due.is_empty() {
        return Some(verdict(kind, false, "Applying", format!("to be written: StatefulSet {}", due.join(", "))));
    }
    let unseen = observed.sets.values().any(|set| set.revision.is_empty());
    unseen.then(|| verdict(kind, false, "Applying", "the StatefulSet controller has not seen the newest template yet"))
}

fn ready(
    plan: &Plan,
    available: &Verdict,
    degraded: &Verdict,
    converged: &Verdict,
    behind: Option<Verdict>,
    missing: &[String],
) -> Verdict {
    let kind = "Ready";
    if available.status != "True" {
        return verdict(kind, false, available.reason, available.message.clone());
    }
    if degraded.status == "True" {
        return verdict(kind, false, degraded.reason, degraded.message.clone());
    }
    if let Some(behind) = behind {
        return behind;
    }
    if plan.rollout.state != State::UpToDate {
        return verdict(kind, false, "RollingOut", plan.rollout.message.clone());
    }
    if let Some(removal) = &plan.scale.removal {
        let message = format!("{} is to be removed; waits for {}", removal.pod, removal.waits_for);
        return verdict(kind, false, "ScalingDown", message);
    }
    if !missing.is_empty() {
        return verdict(kind, false, "NodesNotReady", format!("not ready: {}", missing.join(", ")));
    }
    if converged.status != "True" {
        return verdict(kind, false, converged.reason, converged.message.clone());
    }
    verdict(kind, true, "Ready", "all nodes are ready and agree")
}

fn progressing(plan: &Plan, status: &AISClusterStatus) -> Verdict {
    let kind = "Progressing";
    if plan.stop.asked && !plan.stop.over {
        return verdict(kind, true, "Stopping", format!("waits for {}", plan.stop.waits_for));
    }
    if plan.stop.asked {
        return verdict(kind, false, "Stopped", "spec.state is Stopped");
    }
    if !plan.founding.formed {
        return verdict(kind, true, "Bootstrapping", "the cluster is being founded");
    }
    if let Some(to) = &plan.primary.memory.target {
        return verdict(kind, true, "SwitchingPrimary", format!("the primary is being moved to {to}"));
    }
    if let Some(why) = &plan.credentials.rotating {
        return verdict(kind, true, "RotatingSecret", format!("the member secret is being rotated: {why}"));
    }
    if let Some(removal) = &plan.scale.removal {
        let message = format!("{} is removed; waits for {}", removal.pod, removal.waits_for);
        return verdict(kind, true, "ScalingDown", message);
    }
    if plan.stop.starting {
        return verdict(kind, true, "Starting", "the pods are coming back");
    }
    let rolling = &plan.rollout;
    match rolling.state {
        State::Rolling => {
            let reason = if rolling.role == Some(Role::Target) { "RollingTargets" } else { "RollingGateways" };
            return verdict(kind, true, reason, rolling.message.clone());
        }
        State::Supervised => return verdict(kind, false, "Supervised", rolling.message.clone()),
        State::Stuck => return verdict(kind, false, "RolloutStuck", rolling.message.clone()),
        State::Due | State::Unseen => return verdict(kind, true, "Applying", rolling.message.clone()),
        State::Paused | State::UpToDate => {}
    }
    // Before the first agreement, and after `replicas` was raised: nodes that never were in the map.
    let joined = status.nodes.iter().filter(|n| n.in_smap).count();
    let pods = status.gateways.replicas + status.targets.replicas;
    if plan.agreement.leader.is_some() && (joined < status.nodes.len() || pods < crate::status::wanted_nodes(plan)) {
        return verdict(kind, true, "NodesJoining", "nodes are being added to the cluster map");
    }
    verdict(kind, false, "Idle", "nothing is being changed")
}

fn highly_available(plan: &Plan, status: &AISClusterStatus) -> Verdict {
    let kind = "HighlyAvailable";
    let Some(leader) = &plan.agreement.leader else {
        return verdict(kind, false, "NoPrimary", "there is no primary");
    };
    let electable = leader
        .members
        .iter()
        .filter(|m| {
            m.kind == Role::Gateway.as_str() && !m.non_electable && (m.connected || m.node_id == leader.node_id)
        })
        .count();
    let voters = status.electorate.len();
    let connected = status.electorate.iter().filter(|v| v.connected).count();
    if plan.replicas.members(Role::Gateway) < 2 {
        return verdict(kind, false, "SingleGateway", "with one gateway nobody can take over");
    }
    if voters < 3 {
        return verdict(kind, false, "NotEnoughVoters", format!("{voters} vote; three are needed to lose one"));
    }
    if electable < 2 || connected.saturating_sub(1) < majority(voters) {
        let down: Vec<_> = status.electorate.iter().filter(|v| !v.connected).map(|v| v.pod.as_str()).collect();
        let message = format!("another loss could stop the cluster; not reached: {}", down.join(", "));
        return verdict(kind, false, "VoterDown", message);
    }
    verdict(kind, true, "HighlyAvailable", "any one voter may be lost")
}

fn degraded(observed: &Observed, plan: &Plan, missing: &[String]) -> Verdict {
    let kind = "Degraded";
    if let Some(split) = &plan.agreement.split {
        return verdict(kind, true, "SplitBrainSuspected", split.clone());
    }
    if let Some((pod, uuid)) = plan.agreement.strangers.first() {
        return verdict(kind, true, "ForeignCluster", format!("{pod} holds a record of cluster {uuid}"));
    }
    if plan.primary.reason == "FlapProtection" {
        return verdict(kind, true, "PrimaryFlapping", plan.primary.message.clone());
    }
    if plan.rollout.state == State::Stuck {
        return verdict(kind, true, "RolloutStuck", plan.rollout.message.clone());
    }
    // A roll-out keeps the cluster from being Ready for longer than any one pod is away, and judges those itself.
    let long = !matches!(plan.rollout.state, State::Rolling | State::Supervised)
        && previous(observed).iter().find(|c| c.type_ == "Ready" && c.status != "True").is_some_and(|c| {
            observed.now.duration_since(c.last_transition_time.0) >= SignedDuration::from_secs(MISSING_S)
        })
        && missing.iter().any(|pod| is_long_away(observed, pod));
    // While it was stopped, nobody was missed.
    let returns = plan.stop.operation.as_ref().filter(|_| plan.stop.starting).and_then(|o| o.since.as_ref());
    let returns = returns.is_some_and(|t| observed.now.duration_since(t.0) < SignedDuration::from_secs(MISSING_S));
    if let Some(removal) = plan.scale.removal.as_ref().filter(|r| r.stuck) {
        let seconds = observed.cluster.spec.scale_down.timeout_seconds;
        let message = format!("{} is not removed after {seconds} s: {}", removal.pod, removal.waits_for);
        return verdict(kind, true, "DecommissionStuck", message);
    }
    if plan.founding.formed && !missing.is_empty() && long && !returns {
        return verdict(
            kind,
            true,
            "NodesMissing",
            format!("not ready for more than {MISSING_S} s: {}", missing.join(", ")),
        );
    }
    verdict(kind, false, "AsExpected", "nothing needs a person")
}

/// A pod may be away for a moment while something else keeps the cluster from being Ready for hours.
fn is_long_away(observed: &Observed, pod: &str) -> bool {
    let since = observed.pod(pod).and_then(|p| p.unready_since);
    since.is_none_or(|at| observed.now.duration_since(at) >= SignedDuration::from_secs(MISSING_S))
}

fn converged(uuid: &str, observed: &Observed, plan: &Plan, status: &AISClusterStatus) -> Verdict {
    let kind = "MembershipConverged";
    if plan.agreement.leader.is_none() {
        return verdict(kind, false, "NoPrimary", "there is no committed cluster map to compare with");
    }
    let (mut unreachable, mut diverged) = (Vec::new(), Vec::new());
    for node in &status.nodes {
        match observed.reports.get(&node.pod).and_then(|r| r.view()) {
            None => unreachable.push(node.pod.as_str()),
            Some(v) if v.cluster_uuid.as_deref() == Some(uuid) && Some(v.smap_version) == status.smap.version => {}
            Some(_) => diverged.push(node.pod.as_str()),
        }
    }
    if !diverged.is_empty() {
        return verdict(kind, false, "Diverged", format!("another cluster map: {}", diverged.join(", ")));
    }
    if !unreachable.is_empty() {
        return verdict(kind, false, "Unreachable", format!("no answer: {}", unreachable.join(", ")));
    }
    verdict(kind, true, "Converged", "all nodes report the same cluster map")
}

fn rollout(plan: &Plan) -> Verdict {
    let kind = "RolloutPending";
    let rollout = &plan.rollout;
    match rollout.state {
        State::UpToDate => verdict(kind, false, "UpToDate", "every pod has the current template"),
        State::Due => verdict(kind, true, "Applying", rollout.message.clone()),
        State::Unseen => Verdict { kind, status: "Unknown", reason: "Applying", message: rollout.message.clone() },
        State::Paused => verdict(kind, true, "Paused", rollout.message.clone()),
        State::Rolling => verdict(kind, true, "RollingOut", rollout.message.clone()),
        State::Supervised => verdict(kind, true, "Supervised", rollout.message.clone()),
        State::Stuck => verdict(kind, true, "RolloutStuck", rollout.message.clone()),
    }
}

fn scale_down(plan: &Plan) -> Verdict {
    let kind = "ScaleDownBlocked";
    match &plan.scale.removal {
        Some(removal) => match removal.blocked {
            Some(reason) => verdict(kind, true, reason, format!("{} stays: {}", removal.pod, removal.waits_for)),
            None => {
                verdict(kind, false, "GoesOn", format!("{} is removed; waits for {}", removal.pod, removal.waits_for))
            }
        },
        None => verdict(kind, false, "NotAsked", "no member is to be removed"),
    }
}

fn storage(plan: &Plan) -> Verdict {
    let kind = "StorageResized";
    if let Some((claim, why)) = plan.storage.refused.first() {
        return verdict(kind, false, "ClassDoesNotExpand", format!("volume claim {claim} may not grow: {why}"));
    }
    let resizing = plan.storage.resizes.iter().map(|r| &r.claim).chain(&plan.storage.growing);
    let mut resizing: Vec<&str> = resizing.map(String::as_str).collect();
    resizing.sort_unstable();
    resizing.dedup();
    if resizing.is_empty() {
        return verdict(kind, true, "AsAsked", "every volume has at least the size asked for");
    }
    verdict(kind, false, "Resizing", format!("not as large as asked for yet: {}", resizing.join(", ")))
}

pub(crate) fn certificates(observed: &Observed) -> Verdict {
    let (holds, reason, message) = crate::tls::verdict(observed);
    verdict("CertificatesValid", holds, reason, message)
}

fn paused(observed: &Observed) -> Verdict {
    if observed.cluster.spec.paused {
        verdict("Paused", true, "PausedBySpec", "spec.paused is set: only status is written")
    } else {
        verdict("Paused", false, "Active", "the operator acts")
    }
}

/// Changes of conditions that a person should hear of, each once.
#[must_use]
pub fn notes(before: &[Condition], after: &[Condition]) -> Vec<Note> {
    let turned = |kind: &str, reason: &str| {
        let now = after.iter().find(|c| c.type_ == kind && c.status == "True" && c.reason == reason)?;
        let was = before.iter().any(|c| c.type_ == kind && c.status == "True" && c.reason == reason);
        (!was).then(|| now.message.clone())
    };
    let fell = |kind: &str| {
        let now = after.iter().find(|c| c.type_ == kind && c.status == "False")?;
        let was = before.iter().any(|c| c.type_ == kind && c.status == "False" && c.message == now.message);
        (!was).then(|| now.message.clone())
    };
    let became = |kind: &str| {
        let now = after.iter().find(|c| c.type_ == kind && c.status == "True")?;
        let was = before.iter().any(|c| c.type_ == kind && c.status == "True");
        (!was).then(|| now.message.clone())
    };
    let table: [(&str, &str, &'static str); 8] = [
        ("Degraded", "ApplyFailed", "ApplyFailed"),
        ("Degraded", "DecommissionStuck", "DecommissionStuck"),
        ("Degraded", "DeletionStuck", "DeletionStuck"),
        ("Degraded", "SplitBrainSuspected", "SplitBrainSuspected"),
        ("Degraded", "ForeignVolumes", "ForeignVolumes"),
        ("Degraded", "ForeignCluster", "ForeignCluster"),
        ("Degraded", "NameConflict", "NameConflict"),
        ("Degraded", "SpecInvalid", "SpecInvalid"),
    ];
    let blocked = became("ScaleDownBlocked").map(|text| Note::warning("ScaleDownBlocked", "ScaleDown", text));
    let of = |list: &[Condition]| {
        let failed = |c: &&Condition| c.type_ == "CertificatesValid" && c.status == "False";
        list.iter().find(failed).map(|c| (c.reason.clone(), c.message.clone()))
    };
    let certificates = of(after).filter(|(reason, _)| of(before).is_none_or(|(was, _)| was != *reason));
    let certificates = certificates
        .map(|(reason, message)| Note::warning("CertificatesInvalid", "Observe", format!("{reason}: {message}")));
    let mut notes: Vec<Note> = table
        .into_iter()
        .filter_map(|(kind, reason, event)| Some(Note::warning(event, "Observe", turned(kind, reason)?)))
        .collect();
    notes.extend(fell("ConfigValid").map(|message| Note::warning("ConfigInvalid", "Validate", message)));
    notes.extend(blocked);
    let fixed = |all: &[Condition]| {
        all.iter().find(|c| c.type_ == "StorageResized" && c.reason == "ClassDoesNotExpand").map(|c| c.message.clone())
    };
    if let Some(message) = fixed(after).filter(|_| fixed(before).is_none()) {
        notes.push(Note::warning("StorageResizeRefused", "Resize", message));
    }
    notes.extend(certificates);
    notes
}
