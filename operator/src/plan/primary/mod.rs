//! Who leads, who should, and the one move that may follow. Pure.
//!
//! # Flow
//! Three may want a move, in this order: an *errand* (the operator's own work needs the primary away from a pod), an
//! *ask* (a change of `spec.primary.preferred` or `.request`, hence a new request key), and, with
//! `failback: Automatic`, the preference itself once it could be followed for `stabilizationSeconds` without a break.
//! Each waits at the same gates, becomes one attempt, and ends. An ask ends for good: succeeded, failed, rejected or
//! expired; after that nothing moves until the next one.
//! # Guarantees
//! At most one attempt at a time; it is in status before the call is made; it is done when a majority of
//! the electorate, read back, acknowledges the successor in a later epoch; it is never forced and never
//! reversed. An ask that waits while something else moves is kept.
//! # Caveats
//! An attempt whose answer got lost is only observed until its time-out, never repeated before. One that was refused
//! began nothing, and is repeated soon.

mod ask;
mod attempt;
mod automatic;
mod errand;
mod follow;
mod record;

pub use automatic::Hold;
pub(crate) use automatic::LOOK_PAUSE_MAX;
pub use errand::Errand;
pub(crate) use follow::nobody_leads;

use std::time::Duration;

use ais_crds::{Failback, PrimarySpec, PrimaryStatus, Transition};
use sha2::{Digest, Sha256};

use super::gates::{self, Closed};
use crate::events::Note;
use crate::facts::Observed;
use crate::validate::{Valid, hex};
use crate::view::{Agreement, Leader};
use record::{conclude, forget_attempts, settle};

/// How often a move under way is read back.
const READ_BACK: Duration = Duration::from_millis(250);
/// How often a closed gate is looked at, besides every event.
const GATE_POLL: Duration = Duration::from_secs(2);

/// What the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The validated cluster.
    pub valid: &'a Valid,
    /// Everything read.
    pub observed: &'a Observed,
    /// What the nodes agree on.
    pub agreement: &'a Agreement,
    /// The cluster was founded.
    pub formed: bool,
    /// Gateways there are.
    pub gateways: i32,
    /// The operator's own work needs the primary elsewhere.
    pub errand: Option<&'a Errand>,
    /// The gateways' StatefulSet does not have the template of this pass's spec yet: all their pods are of an old one.
    pub outdated: bool,
}

/// The call to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Who leads; the call goes there.
    pub from: String,
    /// Who shall lead.
    pub to: String,
    /// The epoch that must still be current.
    pub epoch: u64,
    /// Time for it.
    pub timeout: Duration,
}

/// What was decided.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// What status remembers from now on.
    pub memory: PrimaryStatus,
    /// Whether the preferred gateway leads (or none is preferred).
    pub preferred: bool,
    /// Reason of condition `PrimaryPreferred`.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
    /// The call to make, once status is written.
    pub transfer: Option<Transfer>,
    /// The primary is away from the errand's pod, and nothing moves it.
    pub errand_done: bool,
    /// What the errand waits for.
    pub errand_waits: Option<Closed>,
    /// A move is overdue, and nobody leads who could prove or disprove it.
    pub unproven: bool,
    /// A move is due, but views were not read in this pass: the next one must, at once.
    pub wants_fresh: bool,
    /// The hold under way (`failback: Automatic`), which this process remembers until the next pass.
    pub hold: Option<Hold>,
    /// What was held so far does not count any more.
    hold_over: bool,
    /// Events.
    pub notes: Vec<Note>,
    /// Changes that ended in this pass, for the metrics.
    pub finished: Vec<Transition>,
    /// Look again no later.
    pub requeue: Option<Duration>,
}

/// Key of an ask.
#[must_use]
pub fn request_key(spec: &PrimarySpec) -> String {
    let text = serde_json::json!([spec.preferred, spec.request]).to_string();
    hex(&Sha256::digest(text), 8)
}

/// True if a decision about a move is at hand, so that views must be read live.
#[must_use]
pub fn at_hand(observed_spec: &PrimarySpec, memory: Option<&PrimaryStatus>) -> bool {
    memory.is_some_and(|m| m.attempt.is_some() || m.handled_request.as_deref() != Some(&request_key(observed_spec)))
}

/// Decides.
#[must_use]
pub fn decide(s: &Situation<'_>) -> Decision {
    let (mut decision, choice) = look(s);
    let Some(choice) = choice else { return decision };
    if s.observed.cluster.spec.paused {
        if !decision.preferred {
            conclude(&mut decision, false, "Paused", "spec.paused is set");
        }
        return decision;
    }
    take_turns(s, &mut decision, &choice, request_key(&s.observed.cluster.spec.primary));
    decision.errand_done = errand::is_done(s, &decision);
    decision
}

/// What is true whatever the spec asks for: who leads, what became of a move under way. None begins.
#[must_use]
pub fn follow(s: &Situation<'_>) -> Decision {
    look(s).0
}

/// The same, and the gateway that should lead; without it nothing else may be decided now.
fn look(s: &Situation<'_>) -> (Decision, Option<Result<String, Closed>>) {
    let memory = s.observed.cluster.status.as_ref().map(|st| st.primary.clone()).unwrap_or_default();
    let mut decision = Decision { memory, ..Decision::default() };
    follow::follow_leader(s, &mut decision);
    let spec = &s.observed.cluster.spec.primary;
    if !s.formed {
        settle(&mut decision, request_key(spec));
        decision.memory.preferred = spec.preferred.first().cloned();
        conclude(&mut decision, spec.preferred.is_empty(), "Founding", "the cluster is being founded");
        if spec.preferred.is_empty() {
            decision.reason = "NoPreference";
        }
        return (decision, None);
    }
    if decision.memory.attempt.is_some() && !attempt::judge(s, &mut decision) {
        return (decision, None);
    }
    let choice = choose(s, spec);
    decision.memory.preferred = choice.as_ref().ok().or(spec.preferred.first()).cloned();
    describe(s, &mut decision, &choice);
    (decision, Some(choice))
}

/// One of those who want a move gets to try; a waiting ask keeps its place.
fn take_turns(s: &Situation<'_>, decision: &mut Decision, choice: &Result<String, Closed>, key: String) {
    let asked = ask::register(s, decision, choice, &key);
    let needed = s.errand.filter(|e| s.agreement.leader.as_ref().is_none_or(|l| l.node_id == e.away_from));
    if asked {
        // Where an ask leads away from the errand's pod, one move does for both.
        let serves_both = || choice.is_ok() && gates::backoff(s, &decision.memory, ask::WORD).is_ok();
        if needed.is_none() || serves_both() {
            ask::advance(s, decision, choice, key);
            return;
        }
        conclude(decision, false, "ClusterBusy", "the operator moves the primary for its own work first");
    }
    if let Some(errand) = needed {
        errand::advance(s, decision, errand);
    } else if s.observed.cluster.spec.primary.failback == Failback::Automatic {
        automatic::advance(s, decision, choice);
    } else {
        forget_attempts(&mut decision.memory);
    }
}

/// The first of the list that leads already or could.
fn choose(s: &Situation<'_>, spec: &PrimarySpec) -> Result<String, Closed> {
    if spec.preferred.is_empty() {
        return Err(Closed { reason: "NoPreference", message: "spec.primary.preferred is empty".to_owned() });
    }
    let leader = gates::cluster(s)?;
    let mut first = None;
    for name in &spec.preferred {
        if *name == leader.node_id {
            return Ok(name.clone());
        }
        match gates::preferred(s, leader, name) {
            Ok(()) => return Ok(name.clone()),
            Err(closed) => {
                first.get_or_insert(closed);
            }
        }
    }
    Err(first.unwrap_or(Closed { reason: "NoPreference", message: String::new() }))
}

/// The condition when nothing is asked.
fn describe(s: &Situation<'_>, decision: &mut Decision, choice: &Result<String, Closed>) {
    let current = s.agreement.leader.as_ref().map(|l| l.node_id.as_str());
    match choice {
        Ok(name) if current == Some(name) => {
            conclude(decision, true, "PreferredIsPrimary", &format!("{name} leads"));
        }
        Ok(name) => {
            let message = format!(
                "{name} could lead, {} does; change spec.primary.request to move it",
                current.unwrap_or("nobody")
            );
            conclude(decision, false, "FailbackAvailable", &message);
        }
        Err(closed) => {
            // A list whose later entry leads while an earlier one cannot is handled by `choose`; the
            // first choice leading while the cluster's gates are closed is still the preferred one.
            let leads =
                current.is_some() && s.observed.cluster.spec.primary.preferred.first().map(String::as_str) == current;
            if leads {
                conclude(decision, true, "PreferredIsPrimary", &format!("{} leads", current.unwrap_or_default()));
            } else {
                conclude(decision, closed.reason == "NoPreference", closed.reason, &closed.message);
            }
        }
    }
}

/// The reason that condition `PrimaryPreferred` had before this pass. Decides about events only, never about moves.
fn reason_before<'a>(s: &Situation<'a>) -> Option<&'a str> {
    let conditions = s.observed.cluster.status.as_ref().map(|st| st.conditions.as_slice()).unwrap_or_default();
    conditions.iter().find(|c| c.type_ == "PrimaryPreferred").map(|c| c.reason.as_str())
}

/// When a closed gate is looked at again: a pause ends in its own time, not with the next look of many.
fn next_look(s: &Situation<'_>, decision: &Decision) -> Duration {
    gates::pause_left(s, &decision.memory).map_or(GATE_POLL, |left| left.min(GATE_POLL))
}

fn epoch(leader: &Leader) -> i64 {
    i64::try_from(leader.reign.1).unwrap_or(i64::MAX)
}
