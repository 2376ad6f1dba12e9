//! A hand-over that the operator's own work needs: nobody asked for it, the gates are the same.

use super::attempt::{self, Wish};
use super::record::take_turn;
use super::{Decision, Situation, next_look};
use crate::names::Role;
use crate::plan::gates::{self, Closed};
use crate::view::Leader;

/// The primary must leave a pod. Computed anew in each pass by whoever needs it, for as long as it is needed; while
/// it is there, no other move goes to `away_from` either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// `Rollout`, `ScaleDown` or `Drain`; becomes the transition's reason.
    pub reason: &'static str,
    /// The pod that shall not lead.
    pub away_from: String,
    /// Who may take over, best first; empty: whoever is eligible, the preferred ones and low ordinals first. With
    /// `Rollout` nobody else, since each further move costs; with `Drain` neither, since the others' nodes are drained
    /// too, and it would come back; with `ScaleDown` whoever is eligible if none of these is: the pod goes anyway.
    pub prefer: Vec<String>,
}

/// The reason of gates and back-off while it lasts.
fn word(errand: &Errand) -> &'static str {
    errand.reason
}

/// Away, proven, and nothing under way that could bring it back.
pub(super) fn is_done(s: &Situation<'_>, decision: &Decision) -> bool {
    let elsewhere = |away_from: &str| s.agreement.leader.as_ref().is_some_and(|l| l.node_id != away_from);
    s.errand.is_some_and(|e| elsewhere(&e.away_from))
        && decision.memory.attempt.is_none()
        && s.agreement.split.is_none()
}

/// Starts the move, or says what it waits for. The condition `PrimaryPreferred` goes on speaking of the preference.
pub(super) fn advance(s: &Situation<'_>, decision: &mut Decision, errand: &Errand) {
    take_turn(&mut decision.memory, word(errand));
    let closed = match (receiver(s, errand), gates::backoff(s, &decision.memory, word(errand))) {
        (Ok((leader, to)), Ok(())) => {
            attempt::start(s, decision, leader, &Wish { to: &to, reason: errand.reason, request: "" });
            return;
        }
        (Err(closed), _) | (_, Err(closed)) => closed,
    };
    decision.errand_waits = Some(closed);
    decision.requeue = Some(next_look(s, decision));
}

/// Who leads, and who takes over.
fn receiver<'a>(s: &Situation<'a>, errand: &Errand) -> Result<(&'a Leader, String), Closed> {
    let leader = gates::cluster(s)?;
    let anyone = || {
        let spec = &s.observed.cluster.spec.primary.preferred;
        let ordinals = (0..s.gateways).map(|n| s.valid.names.pod(Role::Gateway, n));
        spec.iter().cloned().chain(ordinals).collect::<Vec<_>>()
    };
    let mut names = errand.prefer.clone();
    if names.is_empty() || errand.reason == "ScaleDown" {
        names.extend(anyone());
    }
    names.retain(|name| *name != errand.away_from);
    let mut first = None;
    for old_revision_too in [false, true] {
        // An old template is no hindrance where the pod goes in any case; in a rollout it would cost another move.
        if old_revision_too && errand.reason == "Rollout" {
            break;
        }
        for name in &names {
            match gates::receiver(s, leader, name, old_revision_too) {
                Ok(()) => return Ok((leader, name.clone())),
                Err(closed) => {
                    first.get_or_insert(closed);
                }
            }
        }
    }
    Err(first.unwrap_or(Closed {
        reason: "PreferredUnknown",
        message: format!("there is no other gateway than {}", errand.away_from),
    }))
}
