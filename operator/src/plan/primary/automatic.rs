//! `failback: Automatic`: back to the preferred gateway by itself, not at once and not for ever.
//!
//! # Guarantees
//! The gateway was eligible, under one primary, for `stabilizationSeconds` of this process's own monotonic clock
//! without a break that any pass saw and without a pause in looking; a restarted operator counts from zero. At most
//! [`FAILBACKS_MAX`] rounds an hour; a new ask clears the count.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::attempt::{self, Wish};
use super::record::{conclude, forget_attempts, seconds, seconds_up, smap, take_turn};
use super::{Decision, Situation, next_look, reason_before};
use crate::events::Note;
use crate::plan::gates::{self, Closed};
use crate::view::Leader;

/// In `status.primary.waiting`, and the reason of transitions towards the preferred gateway.
pub(super) const WORD: &str = "Failback";
/// Automatic failbacks within [`WINDOW`].
const FAILBACKS_MAX: usize = 3;
const WINDOW: SignedDuration = SignedDuration::from_secs(3600);
/// Passes come three times a minute at least: after a longer pause nobody knows what was in between.
pub(crate) const LOOK_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a gateway could have led, as this process saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The gateway.
    pub gateway: String,
    /// Incarnation and epoch of the primary that led meanwhile.
    pub reign: (u64, u64),
    /// Since when, on the process's monotonic clock.
    pub since: Duration,
    /// When it was last looked at, on the same clock.
    pub seen: Duration,
    /// Since when by the wall clock, for people.
    pub began: Timestamp,
}

/// A round of attempts failed: the hold begins anew.
pub(super) fn start_over(decision: &mut Decision) {
    forget_attempts(&mut decision.memory);
    decision.hold_over = true;
}

/// Goes on with the hold, or moves when it is over.
pub(super) fn advance(s: &Situation<'_>, decision: &mut Decision, choice: &Result<String, Closed>) {
    let leader = s.agreement.leader.as_ref();
    let (Ok(name), Some(leader)) = (choice, leader) else {
        return skip(s, decision);
    };
    if *name == leader.node_id {
        forget_attempts(&mut decision.memory);
        return;
    }
    take_turn(&mut decision.memory, WORD);
    if let Some(until) = flapping(s, decision) {
        return protect(s, decision, name, until);
    }
    // Between the attempts of one round only the gates count: its hold is over.
    let first = decision.memory.attempts == 0;
    if first && !held_long_enough(s, decision, name, leader) {
        return;
    }
    if let Err(closed) = gates::backoff(s, &decision.memory, WORD) {
        conclude(decision, false, closed.reason, &closed.message);
        decision.requeue = Some(next_look(s, decision));
        return;
    }
    if attempt::start(s, decision, leader, &Wish { to: name, reason: WORD, request: "" }) && first {
        let now = s.observed.now;
        decision.memory.automatic_failbacks.retain(|t| now.duration_since(t.0) < WINDOW);
        decision.memory.automatic_failbacks.push(seconds(now));
    }
}

/// Says until when the gateway has to stay eligible, and whether that is over.
fn held_long_enough(s: &Situation<'_>, decision: &mut Decision, name: &str, leader: &Leader) -> bool {
    let hold = hold(s, decision, name, leader);
    let needed = Duration::from_secs(u64::try_from(s.observed.cluster.spec.primary.stabilization_seconds).unwrap_or(0));
    let left = needed.saturating_sub(s.observed.uptime.saturating_sub(hold.since));
    let due = seconds_up(hold.began + SignedDuration::try_from(needed).unwrap_or(SignedDuration::ZERO));
    if reason_before(s) != Some("Stabilizing") && !left.is_zero() {
        let message =
            format!("{} leads; {name} takes over at {} if it stays eligible; {}", leader.node_id, due.0, smap(s));
        decision.notes.push(Note::normal("FailbackScheduled", "Failback", message));
    }
    let message = format!("{name} takes over from {} at {} if it stays eligible", leader.node_id, due.0);
    conclude(decision, false, "Stabilizing", &message);
    decision.memory.next_attempt_time = Some(due);
    decision.requeue = Some(left);
    decision.hold = Some(hold);
    left.is_zero()
}

/// What this process saw so far, if it is still about the same gateway under the same primary.
fn hold(s: &Situation<'_>, decision: &Decision, name: &str, leader: &Leader) -> Hold {
    let now = s.observed.uptime;
    let same = |h: &&Hold| {
        !decision.hold_over
            && h.gateway == name
            && h.reign == leader.reign
            && now.saturating_sub(h.seen) <= LOOK_PAUSE_MAX
    };
    match s.observed.hold.as_ref().filter(same) {
        Some(hold) => Hold { seen: now, ..hold.clone() },
        None => Hold { gateway: name.to_owned(), reign: leader.reign, since: now, seen: now, began: s.observed.now },
    }
}

/// The preferred gateway cannot lead now; a hold that was under way is over.
fn skip(s: &Situation<'_>, decision: &mut Decision) {
    forget_attempts(&mut decision.memory);
    if reason_before(s) == Some("Stabilizing") && !decision.preferred {
        let to = decision.memory.preferred.as_deref().unwrap_or("nobody");
        let from = decision.memory.current.as_deref().unwrap_or("nobody");
        let message = format!("the failback from {from} to {to} is put off: {}; {}", decision.message, smap(s));
        decision.notes.push(Note::normal("FailbackSkipped", "Failback", message));
    }
}

/// Until when no failback is made by itself: so many within the window mean that the preferred gateway is not well.
fn flapping(s: &Situation<'_>, decision: &Decision) -> Option<Timestamp> {
    // A round under way was counted at its start.
    if decision.memory.attempts > 0 {
        return None;
    }
    let now = s.observed.now;
    let recent = decision.memory.automatic_failbacks.iter().filter(|t| now.duration_since(t.0) < WINDOW);
    let recent: Vec<_> = recent.collect();
    let oldest = recent.len().checked_sub(FAILBACKS_MAX).and_then(|n| recent.get(n))?;
    Some(oldest.0 + WINDOW)
}

fn protect(s: &Situation<'_>, decision: &mut Decision, name: &str, until: Timestamp) {
    let current = s.agreement.leader.as_ref().map_or("nobody", |l| l.node_id.as_str());
    let message = format!(
        "{name} lost the primary again after {FAILBACKS_MAX} failbacks within an hour, {current} leads; none before \
         {until}, except by a new spec.primary.request"
    );
    if reason_before(s) != Some("FlapProtection") {
        let message = format!("{message}; {}", smap(s));
        decision.notes.push(Note::warning("FailbackSkipped", "Failback", message));
    }
    conclude(decision, false, "FlapProtection", &message);
    decision.memory.next_attempt_time = Some(seconds_up(until));
    decision.requeue = Some(until.duration_since(s.observed.now).unsigned_abs());
}
