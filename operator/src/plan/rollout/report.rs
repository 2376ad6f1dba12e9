//! What status remembers of a roll-out, and what is told of it.

use ais_crds::{ClusterState, RolloutStatus, UpdateStrategy};
use jiff::SignedDuration;

use super::{CALM_S, Rollout, SLOW_S, Scene, State, TROUBLE_S, order, seconds, since};
use crate::events::Note;
use crate::names::Role;

const ROLLING: &str = "Rolling";
const SUPERVISED: &str = "Supervised";
const STUCK: &str = "Stuck";
/// The last one ended, and there may be another one to begin.
const PENDING: &str = "Pending";
const COMPLETED: &str = "Completed";

const ACTION: &str = "Rollout";

/// The state of a roll-out of which nothing new can be said now.
pub(super) fn remembered(memory: Option<&RolloutStatus>) -> State {
    match memory.map(|m| m.state.as_str()) {
        Some(SUPERVISED) => State::Supervised,
        Some(STUCK) => State::Stuck,
        Some(ROLLING) => State::Rolling,
        _ => State::UpToDate,
    }
}

/// It waits for a person before the primary, and a pod that is away for a moment in the meantime changes nothing.
pub(super) fn rests(s: &Scene<'_>, rollout: &Rollout) -> bool {
    let leads = |old: &[String]| s.leader().is_some_and(|l| *old == [l.node_id.clone()]);
    s.observed.cluster.spec.update.gateways.strategy == UpdateStrategy::Supervised
        && remembered(rollout.memory.as_ref()) == State::Supervised
        && leads(&rollout.old)
}

/// A new roll-out, or the one under way with the newest revisions.
pub(super) fn begin(s: &Scene<'_>, rollout: &mut Rollout, under_way: bool) {
    let text = |role| s.revision(role).unwrap_or_default().to_owned();
    let (gateway_revision, target_revision) = (text(Role::Gateway), text(Role::Target));
    let current = s.observed.pods.iter().filter(|p| s.is_wanted(p) && s.is_current(p)).count();
    let of = Role::ALL.into_iter().map(|r| i64::from(s.replicas.of(r))).sum();
    if !under_way {
        let message = format!("rolling out to {}", rollout.old.join(", "));
        rollout.notes.push(Note::normal("RolloutStarted", ACTION, message));
    }
    let before = rollout.memory.take().filter(|_| under_way).unwrap_or_default();
    let changed = before.gateway_revision != gateway_revision || before.target_revision != target_revision;
    rollout.memory = Some(RolloutStatus {
        started_at: before.started_at.or_else(|| Some(seconds(s.observed.now))),
        finished_at: None,
        updated: i64::try_from(current).unwrap_or(i64::MAX),
        of,
        // Of another template nobody waited for this pod yet.
        waits_for: before.waits_for.filter(|_| !changed),
        waits_since: before.waits_since.filter(|_| !changed),
        gateway_revision,
        target_revision,
        ..before
    });
}

/// Notes for whom it waits, and since when.
pub(super) fn wait_for(s: &Scene<'_>, rollout: &mut Rollout, pod: Option<String>) {
    if rollout.role.is_none() {
        rollout.role = pod.as_deref().and_then(|p| s.valid.names.parse_pod(p)).map(|(role, _)| role);
    }
    let Some(memory) = &mut rollout.memory else { return };
    if pod.is_none() || memory.waits_for != pod {
        memory.waits_since = pod.as_ref().map(|_| seconds(s.observed.now));
        memory.waits_for = pod;
    }
}

/// It waits for the cluster as a whole, and since when.
pub(super) fn wait_for_calm(s: &Scene<'_>, rollout: &mut Rollout) {
    let Some(memory) = &mut rollout.memory else { return };
    if memory.waits_for.take().is_some() || memory.waits_since.is_none() {
        memory.waits_since = Some(seconds(s.observed.now));
    }
}

/// The pod, or the cluster, had its time.
pub(super) fn is_overdue(s: &Scene<'_>, rollout: &Rollout, pod: Option<&str>) -> bool {
    let Some(waits_since) = rollout.memory.as_ref().and_then(|m| m.waits_since.as_ref()) else { return false };
    let Some(pod) = pod else {
        // Whoever ends all pods on purpose keeps nobody waiting.
        let ends = s.agreement.stopping || s.observed.cluster.spec.state == ClusterState::Stopped;
        return !ends && since(s, waits_since) >= SignedDuration::from_secs(CALM_S);
    };
    let fact = s.observed.pod(pod);
    let spec = &s.observed.cluster.spec;
    let grace = match s.valid.names.parse_pod(pod) {
        Some((Role::Gateway, _)) => spec.gateways.template.termination_grace_period_seconds,
        _ => spec.targets.template.termination_grace_period_seconds,
    };
    // A pod that crashes again and again looks well for a moment each time: once it was given up, only whole it counts.
    if remembered(rollout.memory.as_ref()) == State::Stuck
        && since(s, waits_since) >= SignedDuration::from_secs(TROUBLE_S)
    {
        return true;
    }
    let bound = if fact.is_some_and(|p| p.trouble.is_some() && !p.deleting) { TROUBLE_S } else { SLOW_S + grace };
    since(s, waits_since) >= SignedDuration::from_secs(bound)
}

/// A gateway that shall lead again could not for as long as a user's request would live.
pub(super) fn waited_too_long_for(s: &Scene<'_>, memory: Option<&RolloutStatus>, pod: &str) -> bool {
    let waits = memory.filter(|m| m.waits_for.as_deref() == Some(pod)).and_then(|m| m.waits_since.as_ref());
    let most = SignedDuration::from_secs(s.observed.cluster.spec.primary.request_ttl_seconds);
    waits.is_some_and(|at| since(s, at) >= most)
}

/// The primary leaves this gateway for the roll-out only: if it is the preferred one, it shall lead again afterwards.
pub(super) fn remember_home(s: &Scene<'_>, rollout: &mut Rollout, leader: &str) {
    let Some(memory) = &mut rollout.memory else { return };
    let home = memory.return_to.as_deref();
    if home != Some(leader) && order::is_better(s, leader, home.unwrap_or_default()) {
        memory.return_to = Some(leader.to_owned());
    }
}

/// Turns the decision into the words of status, and tells of a change of them.
pub(super) fn conclude_state(s: &Scene<'_>, rollout: &mut Rollout) {
    let Some(memory) = &mut rollout.memory else { return };
    let (before, now) = (memory.state.clone(), word(rollout.state));
    now.clone_into(&mut memory.state);
    let message = &rollout.message;
    let note = match rollout.state {
        State::UpToDate => {
            memory.finished_at = Some(seconds(s.observed.now));
            memory.return_to = None;
            let took = memory.started_at.as_ref().map_or(0, |at| since(s, at).as_secs());
            let (updated, of, moves) = (memory.updated, memory.of, memory.moves);
            let message = format!(
                "{updated} of {of} pods are of the newest template after {took} s; {moves} planned moves of the primary"
            );
            Some(Note::normal("RolloutCompleted", ACTION, message))
        }
        State::Supervised => Some(Note::normal("RolloutPaused", ACTION, message.clone())),
        State::Stuck => Some(Note::warning("RolloutPaused", ACTION, message.clone())),
        State::Rolling if before == STUCK || before == SUPERVISED => {
            Some(Note::normal("RolloutResumed", ACTION, message.clone()))
        }
        State::Rolling | State::Paused | State::Due | State::Unseen => None,
    };
    rollout.notes.extend(note.filter(|_| before != now));
}

/// No roll-out is under way: what the last one is called.
pub(super) fn rest(rollout: &mut Rollout) {
    let state = match rollout.state {
        State::UpToDate => COMPLETED,
        _ => PENDING,
    };
    if let Some(memory) = &mut rollout.memory {
        state.clone_into(&mut memory.state);
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::UpToDate => COMPLETED,
        State::Due | State::Unseen => PENDING,
        State::Supervised => SUPERVISED,
        State::Stuck => STUCK,
        State::Rolling | State::Paused => ROLLING,
    }
}
