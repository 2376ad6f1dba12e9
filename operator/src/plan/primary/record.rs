//! What status remembers of asks, attempts and their ends.

use ais_crds::{PrimaryStatus, Transition};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::{Decision, Situation};
use crate::view::Leader;

const HISTORY_MAX: usize = 5;

pub(super) fn conclude(decision: &mut Decision, preferred: bool, reason: &'static str, message: &str) {
    decision.preferred = preferred;
    decision.reason = reason;
    message.clone_into(&mut decision.message);
}

/// The ask of this key is over.
pub(super) fn settle(decision: &mut Decision, key: String) {
    settle_pending(decision);
    end_attempt(&mut decision.memory);
    decision.memory.handled_request = Some(key);
}

pub(super) fn settle_pending(decision: &mut Decision) {
    decision.memory.pending_request = None;
    decision.memory.pending_since = None;
    if decision.memory.attempt.is_none() {
        forget_attempts(&mut decision.memory);
    }
}

pub(super) fn end_attempt(memory: &mut PrimaryStatus) {
    memory.target = None;
    memory.attempt = None;
    forget_attempts(memory);
}

pub(super) fn forget_attempts(memory: &mut PrimaryStatus) {
    memory.waiting = None;
    (memory.attempts, memory.refusals) = (0, 0);
    memory.next_attempt_time = None;
}

/// Attempts and pauses of one who waits are not those of another.
pub(super) fn take_turn(memory: &mut PrimaryStatus, word: &str) {
    if memory.waiting.as_deref() != Some(word) {
        forget_attempts(memory);
        memory.waiting = Some(word.to_owned());
    }
}

pub(super) fn record(decision: &mut Decision, transition: Transition) {
    decision.memory.history.insert(0, transition.clone());
    decision.memory.history.truncate(HISTORY_MAX);
    decision.memory.last_transition = Some(transition.clone());
    decision.finished.push(transition);
}

pub(super) fn ended(s: &Situation<'_>, leader: &Leader, from: &str, reason: &str) -> Transition {
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

/// What ended without a new primary.
pub(super) struct Fruitless<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) reason: &'a str,
    pub(super) started_at: Option<&'a MicroTime>,
    pub(super) result: &'a str,
    pub(super) message: String,
}

pub(super) fn ended_without(s: &Situation<'_>, what: Fruitless<'_>) -> Transition {
    Transition {
        from: what.from.to_owned(),
        to: what.to.to_owned(),
        reason: what.reason.to_owned(),
        started_at: what.started_at.cloned(),
        finished_at: Some(MicroTime(s.observed.now)),
        smap_version: s.agreement.leader.as_ref().map(|l| l.smap_version),
        result: what.result.to_owned(),
        message: what.message,
    }
}

/// Ends a message: which cluster map it speaks of.
pub(super) fn smap(s: &Situation<'_>) -> String {
    s.agreement.leader.as_ref().map_or_else(|| "no Smap agreed on".to_owned(), |l| format!("Smap v{}", l.smap_version))
}

/// Times in status have whole seconds; a finer one would differ from what the server gives back.
pub(super) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The same, half a second earlier or later at most: a pause of one second is neither none nor two.
pub(super) fn seconds_near(at: Timestamp) -> Time {
    seconds(at + SignedDuration::from_millis(500))
}

/// The same, never earlier than `at`.
pub(super) fn seconds_up(at: Timestamp) -> Time {
    let whole = seconds(at);
    if whole.0 < at { seconds(at + SignedDuration::from_secs(1)) } else { whole }
}
