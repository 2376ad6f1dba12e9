//! Who leads, who should, and the one move that may follow. Pure.
//!
//! # Flow
//! A change of `spec.primary.preferred` or `.request` is an *ask* (a new request key). An ask waits at
//! gates, becomes one attempt, and ends: succeeded, failed, rejected or expired. After that nothing moves
//! until the next ask.
//! # Guarantees
//! At most one attempt at a time; it is in status before the call is made; it is done when a majority of
//! the electorate, read back, acknowledges the successor in a later epoch; it is never forced and never
//! reversed.
//! # Caveats
//! An attempt whose answer got lost is only observed until its time-out, never repeated before.

use std::time::Duration;

use ais_crds::{MoveAttempt, PrimarySpec, PrimaryStatus, Transition};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use sha2::{Digest, Sha256};

use super::gates::{self, Closed};
use crate::events::Note;
use crate::facts::Observed;
use crate::names::Role;
use crate::perform::TransferOutcome;
use crate::validate::{Valid, hex};
use crate::view::{Agreement, Leader};

const ATTEMPTS_MAX: i64 = 5;
const HISTORY_MAX: usize = 5;
const BACKOFF_FIRST_S: i64 = 5;
const BACKOFF_MAX_S: i64 = 300;
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
    let memory = s.observed.cluster.status.as_ref().map(|st| st.primary.clone()).unwrap_or_default();
    let mut decision = Decision { memory, ..Decision::default() };
    follow_leader(s, &mut decision);
    let spec = &s.observed.cluster.spec.primary;
    let key = request_key(spec);
    if !s.formed {
        settle(&mut decision, key);
        decision.memory.preferred = spec.preferred.first().cloned();
        conclude(&mut decision, spec.preferred.is_empty(), "Founding", "the cluster is being founded");
        if spec.preferred.is_empty() {
            decision.reason = "NoPreference";
        }
        return decision;
    }
    if decision.memory.attempt.is_some() && !judge_attempt(s, &mut decision) {
        return decision;
    }
    if spec.preferred.is_empty() {
        settle(&mut decision, key);
        decision.memory.preferred = None;
        conclude(&mut decision, true, "NoPreference", "spec.primary.preferred is empty");
        return decision;
    }
    let choice = choose(s, spec);
    decision.memory.preferred = choice.as_ref().ok().or(spec.preferred.first()).cloned();
    if s.observed.cluster.spec.paused {
        describe(s, &mut decision, &choice);
        if !decision.preferred {
            conclude(&mut decision, false, "Paused", "spec.paused is set");
        }
        return decision;
    }
    if decision.memory.handled_request.as_deref() == Some(&key) {
        settle(&mut decision, key);
    } else {
        handle_ask(s, &mut decision, &choice, key);
        if decision.memory.attempt.is_some() || decision.memory.pending_request.is_some() {
            return decision;
        }
    }
    describe(s, &mut decision, &choice);
    decision
}

/// Keeps `current`, `since` and the history true.
fn follow_leader(s: &Situation<'_>, decision: &mut Decision) {
    let Some(leader) = &s.agreement.leader else {
        // The nodes are silent towards us, not without a primary: what was known stays.
        if s.agreement.answered > 0 {
            decision.memory.current = None;
            decision.memory.current_node_id = None;
            decision.memory.since = None;
            decision.memory.epoch = None;
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

/// Status is there but never named a primary. Without any status it may just be lost: then nothing is told.
fn first_of_its_life(observed: &Observed) -> bool {
    observed.cluster.status.as_ref().is_some_and(|st| st.cluster_id.is_some() && st.primary.last_transition.is_none())
}

/// Epoch 1 is the founding; its founder may have to tell it again, in epoch 2. Later ones were adopted.
fn first_leader(s: &Situation<'_>, decision: &mut Decision, leader: &Leader) {
    if leader.reign.1 <= 2 {
        let message = format!("founded cluster {} with primary {}", s.valid.uuid, leader.node_id);
        decision.notes.push(Note::normal("ClusterFormed", "Found", message));
        record(decision, ended(s, leader, "", "Founding"));
    } else {
        let message = format!("{} leads the adopted cluster {}", leader.node_id, s.valid.uuid);
        decision.notes.push(Note::normal("PrimaryElected", "Elect", message));
        record(decision, ended(s, leader, "", "Start"));
    }
}

/// While nobody led, status named nobody; the ConfigMap still has the last one.
fn recorded_primary(s: &Situation<'_>) -> Option<String> {
    let formed = s.observed.discovery.as_ref().is_some_and(|d| d.formed);
    let endpoint = &s.observed.primary_map.as_ref().filter(|_| formed)?.endpoint;
    (0..s.gateways).map(|n| s.valid.names.pod(Role::Gateway, n)).find(|p| s.valid.names.gateway_url(p) == *endpoint)
}

/// True when the attempt ended and the rest of the decision may follow.
fn judge_attempt(s: &Situation<'_>, decision: &mut Decision) -> bool {
    let Some(attempt) = decision.memory.attempt.clone() else { return true };
    let now = s.observed.now;
    let timeout = s.observed.cluster.spec.primary.timeout_seconds;
    let overdue = now.duration_since(attempt.started_at.0) > SignedDuration::from_secs(timeout);
    let leader = s.agreement.leader.as_ref();
    if let Some(leader) = leader
        && s.agreement.split.is_none()
    {
        let later = epoch(leader) > attempt.epoch;
        if later && leader.node_id == attempt.to && leader.smap_version >= attempt.smap_version {
            succeed(s, decision, &attempt, leader);
            return true;
        }
        if later && leader.node_id != attempt.from && leader.node_id != attempt.to {
            fail(s, decision, &attempt, false, format!("{} was elected meanwhile", leader.node_id));
            return true;
        }
        if leader.node_id == attempt.from {
            if let Some(TransferOutcome::Refused(why)) = &s.observed.outcome {
                fail(s, decision, &attempt, true, why.clone());
                return true;
            }
            if s.observed.pod(&attempt.to).is_none() {
                fail(s, decision, &attempt, false, format!("the pod of {} is gone", attempt.to));
                return true;
            }
            if overdue {
                let why = format!("{} still leads after {timeout} s", attempt.from);
                fail(s, decision, &attempt, false, why);
                return true;
            }
        }
    }
    if s.agreement.split.is_some() {
        let message = s.agreement.split.clone().unwrap_or_default();
        conclude(decision, false, "SplitBrainSuspected", &message);
    } else {
        let message = format!("moving the primary from {} to {}", attempt.from, attempt.to);
        conclude(decision, false, "SwitchingPrimary", &message);
    }
    decision.requeue = Some(if overdue { GATE_POLL } else { READ_BACK });
    false
}

fn succeed(s: &Situation<'_>, decision: &mut Decision, attempt: &MoveAttempt, leader: &Leader) {
    let took = s.observed.now.duration_since(attempt.started_at.0).as_millis();
    let message = format!(
        "moved the primary from {} to {} in {}.{:03} s; Smap v{}",
        attempt.from,
        attempt.to,
        took / 1000,
        took % 1000,
        leader.smap_version
    );
    decision.notes.push(Note::normal("SwitchoverCompleted", "Switchover", message));
    let mut transition = ended(s, leader, &attempt.from, "Failback");
    transition.started_at = Some(attempt.started_at.clone());
    record(decision, transition);
    settle(decision, attempt.request.clone());
}

fn fail(s: &Situation<'_>, decision: &mut Decision, attempt: &MoveAttempt, refused: bool, why: String) {
    let attempts = decision.memory.attempts + 1;
    decision.memory.attempts = attempts;
    decision.memory.target = None;
    decision.memory.attempt = None;
    let text = format!("the primary was not moved from {} to {}: {why}", attempt.from, attempt.to);
    if attempts >= ATTEMPTS_MAX {
        let last = format!("{text}; given up after {attempts} attempts");
        decision.notes.push(Note::warning("SwitchoverFailed", "Switchover", last));
        record(decision, ended_without(s, &attempt.from, &attempt.to, Some(&attempt.started_at), "Failed", why));
        settle(decision, attempt.request.clone());
        return;
    }
    if attempts == 1 {
        let reason = if refused { "SwitchoverRejected" } else { "SwitchoverFailed" };
        decision.notes.push(Note::warning(reason, "Switchover", format!("{text}; it will be tried again")));
    }
    let wait = BACKOFF_FIRST_S.saturating_mul(1 << (attempts - 1).clamp(0, 10)).min(BACKOFF_MAX_S);
    decision.memory.next_attempt_time = Some(seconds(s.observed.now + SignedDuration::from_secs(wait)));
}

fn handle_ask(s: &Situation<'_>, decision: &mut Decision, choice: &Result<String, Closed>, key: String) {
    let spec = &s.observed.cluster.spec.primary;
    let now = s.observed.now;
    let current = s.agreement.leader.as_ref().map(|l| l.node_id.clone());
    let there = current.is_some() && choice.as_ref().ok() == current.as_ref();
    let expected = &spec.expected_current;
    let unexpected = !expected.is_empty() && current.as_ref().is_some_and(|c| c != expected);
    // Without a record (status was lost) nobody may have asked at all: a mismatch is no refusal then.
    let lost = decision.memory.handled_request.is_none();
    if there || (lost && unexpected) {
        settle(decision, key);
        return;
    }
    if decision.memory.pending_request.as_deref() != Some(&key) {
        settle_pending(decision);
        decision.memory.pending_request = Some(key.clone());
        decision.memory.pending_since = Some(seconds(now));
    }
    let to = choice.as_ref().ok().or(spec.preferred.first()).cloned().unwrap_or_default();
    let from = current.clone().unwrap_or_default();
    let since = decision.memory.pending_since.as_ref().map_or(now, |t| t.0);
    let left = SignedDuration::from_secs(spec.request_ttl_seconds) - now.duration_since(since);
    if left <= SignedDuration::ZERO {
        let why = format!("not possible within {} s: {}", spec.request_ttl_seconds, closed_text(choice));
        refuse(s, decision, (&from, &to), "Expired", why, key);
        return;
    }
    if unexpected {
        refuse(
            s,
            decision,
            (&from, &to),
            "Rejected",
            format!("the primary is {from}, not {expected} as expected"),
            key,
        );
        return;
    }
    let waits = match (choice, gates::backoff(s, &decision.memory)) {
        (Err(closed), _) => Some(closed.clone()),
        (Ok(_), Err(closed)) => Some(closed),
        (Ok(_), Ok(())) => None,
    };
    match (waits, &s.agreement.leader) {
        (None, Some(leader)) => start(s, decision, leader, to, key),
        (waits, _) => {
            let closed = waits.unwrap_or(Closed { reason: "ClusterBusy", message: "there is no primary".into() });
            if closed.reason == "PreferredNotElectable" && !said_before(s, &closed) {
                decision.notes.push(Note::warning("SwitchoverWaiting", "Switchover", closed.message.clone()));
            }
            conclude(decision, false, closed.reason, &closed.message);
            decision.requeue = Some(GATE_POLL.min(left.unsigned_abs()));
        }
    }
}

fn start(s: &Situation<'_>, decision: &mut Decision, leader: &Leader, to: String, key: String) {
    let from = leader.node_id.clone();
    decision.memory.target = Some(to.clone());
    decision.memory.next_attempt_time = None;
    decision.memory.attempt = Some(MoveAttempt {
        from: from.clone(),
        to: to.clone(),
        epoch: epoch(leader),
        smap_version: leader.smap_version,
        request: key,
        started_at: MicroTime(s.observed.now),
    });
    let message = format!("moving the primary from {from} to {to}; Smap v{}", leader.smap_version);
    if decision.memory.attempts == 0 {
        decision.notes.push(Note::normal("SwitchoverStarted", "Switchover", message.clone()));
    }
    conclude(decision, false, "SwitchingPrimary", &message);
    let timeout = u64::try_from(s.observed.cluster.spec.primary.timeout_seconds).unwrap_or(60);
    decision.transfer = Some(Transfer { from, to, epoch: leader.reign.1, timeout: Duration::from_secs(timeout) });
    decision.requeue = Some(READ_BACK);
}

fn refuse(s: &Situation<'_>, d: &mut Decision, (from, to): (&str, &str), result: &str, why: String, key: String) {
    let message = format!("the primary is not moved to {to}: {why}");
    d.notes.push(Note::warning("SwitchoverRejected", "Switchover", message));
    record(d, ended_without(s, from, to, None, result, why));
    settle(d, key);
}

/// The first of the list that leads already or could.
fn choose(s: &Situation<'_>, spec: &PrimarySpec) -> Result<String, Closed> {
    let leader = gates::cluster(s)?;
    let mut first = None;
    for name in &spec.preferred {
        if *name == leader.node_id {
            return Ok(name.clone());
        }
        match gates::gateway(s, leader, name) {
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
                conclude(decision, false, closed.reason, &closed.message);
            }
        }
    }
}

fn said_before(s: &Situation<'_>, closed: &Closed) -> bool {
    let conditions = s.observed.cluster.status.as_ref().map(|st| st.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "PrimaryPreferred" && c.reason == closed.reason)
}

fn conclude(decision: &mut Decision, preferred: bool, reason: &'static str, message: &str) {
    decision.preferred = preferred;
    decision.reason = reason;
    message.clone_into(&mut decision.message);
}

fn closed_text(choice: &Result<String, Closed>) -> String {
    match choice {
        Ok(_) => "attempts failed".to_owned(),
        Err(closed) => closed.message.clone(),
    }
}

fn settle(decision: &mut Decision, key: String) {
    settle_pending(decision);
    decision.memory.target = None;
    decision.memory.attempt = None;
    decision.memory.handled_request = Some(key);
}

fn settle_pending(decision: &mut Decision) {
    decision.memory.pending_request = None;
    decision.memory.pending_since = None;
    decision.memory.attempts = 0;
    decision.memory.next_attempt_time = None;
}

fn record(decision: &mut Decision, transition: Transition) {
    decision.memory.history.insert(0, transition.clone());
    decision.memory.history.truncate(HISTORY_MAX);
    decision.memory.last_transition = Some(transition.clone());
    decision.finished.push(transition);
}

fn ended(s: &Situation<'_>, leader: &Leader, from: &str, reason: &str) -> Transition {
    Transition {
        from: from.to_owned(),
        to: leader.node_id.clone(),
        reason: reason.to_owned(),
        started_at: None,
        finished_at: Some(MicroTime(s.observed.now)),
        smap_version: Some(leader.smap_version),
        result: "Succeeded".to_owned(),
        message: String::new(),
    }
}

fn ended_without(
    s: &Situation<'_>,
    from: &str,
    to: &str,
    started_at: Option<&MicroTime>,
    result: &str,
    message: String,
) -> Transition {
    Transition {
        from: from.to_owned(),
        to: to.to_owned(),
        reason: "Failback".to_owned(),
        started_at: started_at.cloned(),
        finished_at: Some(MicroTime(s.observed.now)),
        smap_version: s.agreement.leader.as_ref().map(|l| l.smap_version),
        result: result.to_owned(),
        message,
    }
}

fn epoch(leader: &Leader) -> i64 {
    i64::try_from(leader.reign.1).unwrap_or(i64::MAX)
}

/// Times in status have whole seconds; a finer one would differ from what the server gives back.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
