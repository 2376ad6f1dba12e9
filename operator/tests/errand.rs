//! Hand-overs for the operator's own work: same gates, same proof, and no ask is lost.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::perform::TransferOutcome;
use ais_operator::plan::primary::Errand;
use common::{Pass, World};
use serde_json::json;

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";
const G2: &str = "demo-gateway-2";

fn errand(reason: &'static str, prefer: &[&str]) -> Errand {
    Errand { reason, away_from: G0.into(), prefer: prefer.iter().map(|p| (*p).to_owned()).collect() }
}

fn to(pass: &Pass) -> Option<&str> {
    pass.plan.primary.transfer.as_ref().map(|t| t.to.as_str())
}

fn waits(pass: &Pass) -> &'static str {
    pass.plan.primary.errand_waits.as_ref().map_or("", |closed| closed.reason)
}

#[test]
fn an_errand_needs_no_ask_and_is_recorded_with_its_reason() {
    let mut world = World::settled(json!({}));
    let errand = errand("Rollout", &[G2]);
    let start = world.step_with(&errand);
    assert_eq!((to(&start), start.events()), (Some(G2), vec!["SwitchoverStarted"]));
    assert!(!start.plan.primary.errand_done);
    assert_eq!(start.status.primary.waiting.as_deref(), Some("Rollout"));
    world.lead(G2, 2);
    let done = world.step_with(&errand);
    assert!(done.plan.primary.errand_done);
    assert_eq!(done.events(), ["SwitchoverCompleted"]);
    let last = done.status.primary.last_transition.as_ref().unwrap();
    assert_eq!((last.from.as_str(), last.to.as_str(), last.reason.as_str()), (G0, G2, "Rollout"));
    assert_eq!((last.result.as_str(), done.status.primary.waiting.as_ref()), ("Succeeded", None));
    assert!(world.step().events().is_empty());
}

#[test]
fn current_primary_leaves_by_scale_down_or_drain() {
    // The first eligible preferred one, else the lowest eligible.
    let world = World::settled(json!({"primary": {"preferred": [G0, G2]}}));
    assert_eq!(to(&world.pass_with(Some(&errand("ScaleDown", &[])))), Some(G2));
    let mut world = World::settled(json!({}));
    assert_eq!(to(&world.pass_with(Some(&errand("Drain", &[])))), Some(G1));
    world.lose(G1);
    assert_eq!(to(&world.pass_with(Some(&errand("Drain", &[])))), Some(G2));
    assert_eq!(to(&world.pass_with(Some(&errand("ScaleDown", &[G1])))), Some(G2), "the pod goes anyway");
    assert_eq!(to(&world.pass_with(Some(&errand("Drain", &[G1])))), None, "nobody else is on a node that stays");
    for pod in ["demo-target-0", "demo-target-1"] {
        world.member(G0, pod).connected = false;
    }
    let pass = world.pass_with(Some(&errand("Drain", &[])));
    assert_eq!((to(&pass), waits(&pass)), (None, "MembersUnreachable"), "never without a majority");
    world.leaderless();
    assert_eq!(waits(&world.pass_with(Some(&errand("Drain", &[])))), "ClusterBusy");
}

#[test]
fn a_rollout_moves_to_nobody_else_than_it_said() {
    let mut world = World::settled(json!({}));
    world.pod(G1).ready = false;
    let pass = world.pass_with(Some(&errand("Rollout", &[G1])));
    assert_eq!((to(&pass), waits(&pass)), (None, "PreferredNotReady"));
    world.pod(G2).revision = "old".into();
    let pass = world.pass_with(Some(&errand("Rollout", &[])));
    assert_eq!((to(&pass), waits(&pass)), (None, "PreferredNotReady"), "the other one would be restarted next");
    assert_eq!(to(&world.pass_with(Some(&errand("Drain", &[])))), Some(G2), "a drain cannot choose");
}

#[test]
fn replicas_one_has_nobody_to_hand_over_to() {
    let world = World::settled(json!({"gateways": {"replicas": 1}}));
    let pass = world.pass_with(Some(&errand("Rollout", &[])));
    assert_eq!((to(&pass), waits(&pass)), (None, "PreferredUnknown"));
    assert!(!pass.plan.primary.errand_done);
}

#[test]
fn an_ask_that_serves_the_errand_is_the_one_move() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"primary": {"preferred": [G2]}}));
    let errand = errand("Drain", &[]);
    let start = world.step_with(&errand);
    assert_eq!(to(&start), Some(G2));
    world.lead(G2, 2);
    let done = world.step_with(&errand);
    assert!(done.plan.primary.errand_done && done.plan.primary.transfer.is_none());
    assert_eq!(done.status.primary.last_transition.as_ref().unwrap().reason, "Failback");
}

#[test]
fn an_ask_that_waits_is_kept_while_the_errand_moves() {
    let mut world = World::settled(json!({}));
    world.pod(G1).ready = false;
    world.set_spec(json!({"primary": {"preferred": [G1]}}));
    let errand = errand("ScaleDown", &[]);
    let start = world.step_with(&errand);
    assert_eq!(to(&start), Some(G2));
    assert!(start.status.primary.pending_request.is_some());
    world.pod(G1).ready = true;
    // Never two at once, whoever could go now.
    let busy = world.after(1).step_with(&errand);
    assert!(busy.plan.primary.transfer.is_none() && busy.status.primary.target.as_deref() == Some(G2));
    world.lead(G2, 2);
    let next = world.step_with(&errand);
    assert_eq!((to(&next), next.plan.primary.errand_done), (Some(G1), false), "the ask goes on");
    world.lead(G1, 3);
    let done = world.step_with(&errand);
    assert!(done.plan.primary.errand_done && done.status.primary.pending_request.is_none());
}

#[test]
fn nobody_moves_to_the_pod_that_goes() {
    for (reason, closed) in [("Rollout", "RolloutInProgress"), ("ScaleDown", "ClusterBusy")] {
        let mut world = World::settled(json!({}));
        world.lead(G1, 2);
        world.step();
        world.set_spec(json!({"primary": {"preferred": [G0], "request": "now"}}));
        let errand = errand(reason, &[]);
        let pass = world.step_with(&errand);
        assert_eq!((to(&pass), pass.condition("PrimaryPreferred").1.as_str()), (None, closed));
        assert!(pass.plan.primary.errand_done);
        assert_eq!(to(&world.step()), Some(G0), "once the errand is over");
    }
}

#[test]
fn a_failed_errand_backs_off_and_says_so_twice() {
    let mut world = World::settled(json!({}));
    let errand = errand("Drain", &[]);
    let mut told = Vec::new();
    for attempt in 1..=16i64 {
        let pass = world.step_with(&errand);
        assert!(pass.plan.primary.transfer.is_some(), "attempt {attempt}");
        told.extend(pass.events());
        // First refusals, then what is unknown: both patiences end, which is one end of it.
        let refused = TransferOutcome::Refused("busy (409)".into());
        let (outcome, after_s) =
            if attempt <= 10 { (refused, 1) } else { (TransferOutcome::Unknown("time-out".into()), 61) };
        world.observed.outcome = Some(outcome);
        let pass = world.after(after_s).step_with(&errand);
        told.extend(pass.events());
        world.observed.outcome = None;
        assert_eq!((pass.status.primary.attempts, waits(&pass)), (attempt, "BackingOff"));
        assert!(world.step_with(&errand).plan.primary.transfer.is_none());
        world.after(300);
    }
    assert_eq!(told, ["SwitchoverStarted", "SwitchoverRejected", "SwitchoverFailed"]);
    // Withdrawn: nothing of it is left.
    let pass = world.step();
    assert_eq!((pass.status.primary.attempts, pass.status.primary.waiting.as_ref()), (0, None));
}

#[test]
fn a_move_begins_with_a_look_of_this_very_moment() {
    let mut world = World::settled(json!({}));
    world.observed.fresh = false;
    let errand = errand("Rollout", &[]);
    let pass = world.step_with(&errand);
    assert!(pass.plan.primary.transfer.is_none() && pass.plan.primary.wants_fresh);
    assert_eq!(pass.status.primary.target, None);
    world.observed.fresh = true;
    assert_eq!(to(&world.step_with(&errand)), Some(G1));
}

#[test]
fn paused_runs_no_errand() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"paused": true}));
    assert_eq!(to(&world.pass_with(Some(&errand("Drain", &[])))), None);
}
