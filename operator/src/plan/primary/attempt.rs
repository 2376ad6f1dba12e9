//! One attempt: its start, its proof, and every other end of it.

use std::time::Duration;

use ais_crds::{MoveAttempt, PrimaryStatus};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::record::{
    Fruitless, conclude, end_attempt, ended, ended_without, record, seconds_near, settle, smap, take_turn,
};
use super::{Decision, GATE_POLL, READ_BACK, Situation, Transfer, ask, automatic, epoch};
use crate::events::Note;
use crate::perform::TransferOutcome;
use crate::view::Leader;

/// How attempts that end in one way are repeated: each pause is twice the one before.
struct Patience {
    /// After so many an ask has failed, and an automatic failback starts over with its hold.
    attempts_max: i64,
    /// The first pause.
    first_s: i64,
}

/// Refused: an answer, and nothing was begun. Mostly the successor lacked what was committed just then, or another
/// hand-over ran; a moment later neither is so. What refuses for good gets more attempts for the shorter pauses, 127 s
/// in all: no less than anything else, so that who would take over in a minute is waited for in either case.
const REFUSED: Patience = Patience { attempts_max: 8, first_s: 1 };
/// Unknown, overdue, or overtaken by something else: the cluster has to come to rest first. 75 s in all, and the
/// attempts themselves.
const OTHERWISE: Patience = Patience { attempts_max: 5, first_s: 5 };
const PAUSE_MAX_S: i64 = 300;

impl Patience {
    /// The pause after so many.
    fn pause(&self, attempts: i64) -> SignedDuration {
        let doubled = self.first_s.saturating_mul(1 << (attempts - 1).clamp(0, 10));
        SignedDuration::from_secs(doubled.min(PAUSE_MAX_S))
    }
}

/// Each way has a count of its own: a quick refusal takes nothing from the patience with what is unknown.
fn is_over(memory: &PrimaryStatus) -> bool {
    memory.refusals >= REFUSED.attempts_max || memory.attempts - memory.refusals >= OTHERWISE.attempts_max
}

/// Who wants a move, and where to.
pub(super) struct Wish<'a> {
    pub(super) to: &'a str,
    /// Becomes the transition's reason.
    pub(super) reason: &'a str,
    /// Key of the ask; empty for moves that nobody asked for.
    pub(super) request: &'a str,
}

/// Who waits, in the words of `status.primary.waiting`.
fn word(attempt: &MoveAttempt) -> &str {
    if attempt.request.is_empty() { &attempt.reason } else { ask::WORD }
}

/// Begins an attempt. False if that has to wait for a look at the nodes of this very moment.
pub(super) fn start(s: &Situation<'_>, decision: &mut Decision, leader: &Leader, wish: &Wish<'_>) -> bool {
    if !s.observed.fresh {
        decision.wants_fresh = true;
        decision.requeue = Some(Duration::ZERO);
        return false;
    }
    let (from, to) = (leader.node_id.clone(), wish.to.to_owned());
    decision.memory.target = Some(to.clone());
    decision.memory.next_attempt_time = None;
    let attempt = MoveAttempt {
        from: from.clone(),
        to: to.clone(),
        reason: wish.reason.to_owned(),
        epoch: epoch(leader),
        smap_version: leader.smap_version,
        request: wish.request.to_owned(),
        started_at: MicroTime(s.observed.now),
    };
    take_turn(&mut decision.memory, word(&attempt));
    decision.memory.attempt = Some(attempt);
    let message = format!("moving the primary from {from} to {to} ({}); {}", wish.reason, smap(s));
    if decision.memory.attempts == 0 {
        decision.notes.push(Note::normal("SwitchoverStarted", "Switchover", message.clone()));
    }
    conclude(decision, false, "SwitchingPrimary", &message);
    let timeout = u64::try_from(s.observed.cluster.spec.primary.timeout_seconds).unwrap_or(60);
    decision.transfer = Some(Transfer { from, to, epoch: leader.reign.1, timeout: Duration::from_secs(timeout) });
    decision.requeue = Some(READ_BACK);
    true
}

/// True when the attempt ended and the rest of the decision may follow.
pub(super) fn judge(s: &Situation<'_>, decision: &mut Decision) -> bool {
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
    decision.unproven = overdue && leader.is_none() && s.agreement.split.is_none();
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
    let mut transition = ended(s, leader, &attempt.from, &attempt.reason);
    transition.started_at = Some(attempt.started_at.clone());
    record(decision, transition);
    if attempt.request.is_empty() {
        end_attempt(&mut decision.memory);
    } else {
        settle(decision, attempt.request.clone());
    }
}

fn fail(s: &Situation<'_>, decision: &mut Decision, attempt: &MoveAttempt, refused: bool, why: String) {
    take_turn(&mut decision.memory, word(attempt));
    let was_over = is_over(&decision.memory);
    let attempts = decision.memory.attempts + 1;
    decision.memory.attempts = attempts;
    decision.memory.refusals += i64::from(refused);
    decision.memory.target = None;
    decision.memory.attempt = None;
    let text = format!("the primary was not moved from {} to {}: {why}; {}", attempt.from, attempt.to, smap(s));
    if is_over(&decision.memory) && !was_over {
        let last = format!("{text}; given up after {attempts} attempts");
        decision.notes.push(Note::warning("SwitchoverFailed", "Switchover", last));
        let what = Fruitless {
            from: &attempt.from,
            to: &attempt.to,
            reason: &attempt.reason,
            started_at: Some(&attempt.started_at),
            result: "Failed",
            message: why,
        };
        record(decision, ended_without(s, what));
        if !attempt.request.is_empty() {
            settle(decision, attempt.request.clone());
            return;
        }
        if attempt.reason == automatic::WORD {
            automatic::start_over(decision);
            return;
        }
    } else if attempts == 1 {
        let reason = if refused { "SwitchoverRejected" } else { "SwitchoverFailed" };
        decision.notes.push(Note::warning(reason, "Switchover", format!("{text}; it will be tried again")));
    }
    let refusals = decision.memory.refusals;
    let pause = if refused { REFUSED.pause(refusals) } else { OTHERWISE.pause(attempts - refusals) };
    decision.memory.next_attempt_time = Some(seconds_near(s.observed.now + pause));
}
