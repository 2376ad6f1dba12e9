//! A user's ask: a new value of `spec.primary.preferred` or `.request`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::attempt::{self, Wish};
use super::record::{Fruitless, conclude, ended_without, record, seconds, settle, settle_pending, smap, take_turn};
use super::{Decision, Situation, automatic, next_look, reason_before};
use crate::events::Note;
use crate::plan::gates::{self, Closed};

/// In `status.primary.waiting`.
pub(super) const WORD: &str = "Request";

/// Takes notice of the ask in spec. True if it still wants a move.
pub(super) fn register(s: &Situation<'_>, decision: &mut Decision, choice: &Result<String, Closed>, key: &str) -> bool {
    let spec = &s.observed.cluster.spec.primary;
    if decision.memory.handled_request.as_deref() == Some(key) {
        if decision.memory.pending_request.is_some() {
            settle_pending(decision);
        }
        return false;
    }
    let current = s.agreement.leader.as_ref().map(|l| l.node_id.as_str());
    let there = current.is_some() && choice.as_ref().ok().map(String::as_str) == current;
    let unexpected = unexpected(s);
    // Without a record (status was lost) nobody may have asked at all: a mismatch is no refusal then.
    let lost = decision.memory.handled_request.is_none();
    if decision.memory.pending_request.as_deref() != Some(key) {
        // Whoever asks has looked at it: the breaker is closed again.
        decision.memory.automatic_failbacks.clear();
    }
    if spec.preferred.is_empty() || there || (lost && unexpected) {
        settle(decision, key.to_owned());
        return false;
    }
    if decision.memory.pending_request.as_deref() != Some(key) {
        settle_pending(decision);
        decision.memory.pending_request = Some(key.to_owned());
        decision.memory.pending_since = Some(seconds(s.observed.now));
    }
    if left(s, decision) <= SignedDuration::ZERO {
        let because = choice.as_ref().err().map_or("attempts failed", |closed| closed.message.as_str());
        let why = format!("not possible within {} s: {because}", spec.request_ttl_seconds);
        refuse(s, decision, choice, "Expired", why, key);
        return false;
    }
    if unexpected {
        let why = format!("the primary is {}, not {} as expected", current.unwrap_or_default(), spec.expected_current);
        refuse(s, decision, choice, "Rejected", why, key);
        return false;
    }
    true
}

/// `spec.primary.expectedCurrent` names somebody else than who leads.
fn unexpected(s: &Situation<'_>) -> bool {
    let expected = &s.observed.cluster.spec.primary.expected_current;
    !expected.is_empty() && s.agreement.leader.as_ref().is_some_and(|l| l.node_id != *expected)
}

/// Time until the ask expires.
fn left(s: &Situation<'_>, decision: &Decision) -> SignedDuration {
    let now: Timestamp = s.observed.now;
    let since = decision.memory.pending_since.as_ref().map_or(now, |t| t.0);
    SignedDuration::from_secs(s.observed.cluster.spec.primary.request_ttl_seconds) - now.duration_since(since)
}

/// Starts the move, or says what it waits for.
pub(super) fn advance(s: &Situation<'_>, decision: &mut Decision, choice: &Result<String, Closed>, key: String) {
    take_turn(&mut decision.memory, WORD);
    let left = left(s, decision).unsigned_abs();
    let closed = match (choice, gates::backoff(s, &decision.memory, WORD)) {
        (Ok(to), Ok(())) => match &s.agreement.leader {
            Some(leader) => {
                attempt::start(s, decision, leader, &Wish { to, reason: automatic::WORD, request: &key });
                return;
            }
            None => Closed { reason: "ClusterBusy", message: "there is no primary".to_owned() },
        },
        (Err(closed), _) => closed.clone(),
        (_, Err(closed)) => closed,
    };
    if closed.reason == "PreferredNotElectable" && reason_before(s) != Some(closed.reason) {
        let message = format!("{}; {}", closed.message, smap(s));
        decision.notes.push(Note::warning("SwitchoverWaiting", "Switchover", message));
    }
    conclude(decision, false, closed.reason, &closed.message);
    decision.requeue = Some(next_look(s, decision).min(left.max(Duration::from_millis(1))));
}

fn refuse(
    s: &Situation<'_>,
    decision: &mut Decision,
    choice: &Result<String, Closed>,
    result: &str,
    why: String,
    key: &str,
) {
    let preferred = &s.observed.cluster.spec.primary.preferred;
    let to = choice.as_ref().ok().or(preferred.first()).cloned().unwrap_or_default();
    let from = s.agreement.leader.as_ref().map(|l| l.node_id.clone()).unwrap_or_default();
    let who = if from.is_empty() { "nobody" } else { &from };
    let message = format!("the primary is not moved from {who} to {to}: {why}; {}", smap(s));
    decision.notes.push(Note::warning("SwitchoverRejected", "Switchover", message));
    let what = Fruitless { from: &from, to: &to, reason: automatic::WORD, started_at: None, result, message: why };
    record(decision, ended_without(s, what));
    settle(decision, key.to_owned());
}
