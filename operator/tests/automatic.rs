//! `failback: Automatic`, and the edge cases of aiscluster.md 1.5 by their names.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::perform::TransferOutcome;
use common::{Pass, World};
use serde_json::json;

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";
const G2: &str = "demo-gateway-2";

fn preferred(pass: &Pass) -> (String, String) {
    pass.condition("PrimaryPreferred")
}

fn no(reason: &str) -> (String, String) {
    ("False".into(), reason.into())
}

fn automatic(hold: i64) -> World {
    World::settled(json!({"primary": {"preferred": [G0], "failback": "Automatic", "stabilizationSeconds": hold}}))
}

/// Gateway 1 took over; gateway 0 is back.
fn failed_over(hold: i64) -> World {
    let mut world = automatic(hold);
    world.lead(G1, 2);
    world
}

fn moves(pass: &Pass) -> Option<&str> {
    pass.plan.primary.transfer.as_ref().map(|t| t.to.as_str())
}

/// Looks every ten seconds, as long as nothing moves; how long that was.
fn hold_of(world: &mut World, at_most: i64) -> Option<i64> {
    for waited in 0..=at_most / 10 {
        if moves(&world.step()).is_some() {
            return Some(waited * 10);
        }
        world.after(10);
    }
    None
}

#[test]
fn after_a_failover_it_returns_by_itself_when_the_hold_is_over() {
    let mut world = failed_over(300);
    let first = world.step();
    assert_eq!(first.events(), ["PrimaryElected", "FailbackScheduled"]);
    assert_eq!(preferred(&first), no("Stabilizing"));
    assert_eq!(first.plan.primary.requeue.unwrap().as_secs(), 300);
    let due = first.status.primary.next_attempt_time.clone().unwrap().0;
    assert_eq!(due.duration_since(world.observed.now).as_secs(), 300);
    assert!(first.message("PrimaryPreferred").contains(&due.to_string()), "{}", first.message("PrimaryPreferred"));
    // Nothing moves by itself meanwhile: not the status either.
    for _ in 0..6 {
        let pass = world.after(45).step();
        assert!(moves(&pass).is_none() && pass.events().is_empty() && pass.status.primary.next_attempt_time.is_some());
        assert_eq!(pass.status.primary, first.status.primary);
    }
    let late = world.after(29).step();
    assert_eq!((moves(&late), late.plan.primary.requeue.unwrap().as_secs()), (None, 1));
    let start = world.after(1).step();
    assert_eq!((moves(&start), start.events()), (Some(G0), vec!["SwitchoverStarted"]));
    assert_eq!(start.status.primary.automatic_failbacks.len(), 1);
    world.lead(G0, 3);
    let done = world.step();
    assert_eq!(done.condition("PrimaryPreferred"), ("True".into(), "PreferredIsPrimary".into()));
    assert_eq!(done.status.primary.last_transition.as_ref().unwrap().reason, "Failback");
    assert_eq!(done.status.primary.next_attempt_time, None);
    assert!(moves(&world.after(3600).step()).is_none());
}

#[test]
fn the_hold_begins_anew_whenever_the_preferred_stops_being_eligible() {
    let mut world = failed_over(60);
    world.step();
    world.after(50).step();
    world.pod(G0).ready = false;
    let broken = world.after(1).step();
    assert_eq!((preferred(&broken), broken.events()), (no("PreferredNotReady"), vec!["FailbackSkipped"]));
    assert_eq!(broken.status.primary.next_attempt_time, None);
    world.pod(G0).ready = true;
    let again = world.after(1).step();
    assert_eq!(again.events(), ["FailbackScheduled"]);
    assert_eq!(hold_of(&mut world, 120), Some(60));
}

#[test]
fn election_happens_during_the_hold() {
    let mut world = failed_over(60);
    world.step();
    world.after(50).step();
    // Over before anybody looked: another reign tells it.
    world.lead(G2, 3);
    let pass = world.after(5).step();
    assert_eq!((moves(&pass), preferred(&pass)), (None, no("Stabilizing")));
    assert_eq!(hold_of(&mut world, 120), Some(60));
    // And one that lasts.
    let mut world = failed_over(60);
    world.step();
    world.after(50).step();
    world.leaderless();
    assert_eq!(preferred(&world.after(1).step()), no("ClusterBusy"));
    world.lead(G1, 4);
    assert_eq!(hold_of(&mut world, 120), Some(60));
}

#[test]
fn clocks() {
    // The wall clock jumps an hour ahead: no failback comes early.
    let mut world = failed_over(60);
    world.step();
    world.observed.now += jiff::SignedDuration::from_hours(1);
    assert_eq!(moves(&world.step()), None);
    assert_eq!(hold_of(&mut world, 120), Some(60));
    // And back: none comes late.
    let mut world = failed_over(60);
    world.step();
    world.observed.now -= jiff::SignedDuration::from_hours(1);
    assert_eq!(hold_of(&mut world, 120), Some(60));
}

#[test]
fn an_operator_that_could_not_look_counts_anew() {
    let mut world = failed_over(300);
    world.step();
    assert_eq!(moves(&world.after(1000).step()), None);
    assert_eq!(hold_of(&mut world, 400), Some(300));
}

#[test]
fn operator_restarts_during_the_hold() {
    let mut world = failed_over(60);
    world.step();
    world.after(50).step();
    world.restart_operator();
    let pass = world.after(20).step();
    assert_eq!((moves(&pass), pass.events()), (None, vec![]));
    assert_eq!(hold_of(&mut world, 120), Some(60));
}

#[test]
fn operator_restarts_mid_move() {
    let mut world = failed_over(30);
    assert_eq!(hold_of(&mut world, 60), Some(30));
    world.restart_operator();
    let pass = world.after(1).step();
    assert!(moves(&pass).is_none() && pass.status.primary.target.as_deref() == Some(G0));
    world.lead(G0, 3);
    assert_eq!(world.step().events(), ["SwitchoverCompleted"]);
}

#[test]
fn preferred_down_for_good() {
    let mut world = failed_over(30);
    world.lose(G0);
    let first = world.step();
    assert_eq!((preferred(&first), first.events()), (no("PreferredNotReady"), vec!["PrimaryElected"]));
    for _ in 0..20 {
        let pass = world.after(600).step();
        assert!(pass.events().is_empty() && moves(&pass).is_none());
        assert_eq!(pass.condition("Available").0, "True");
    }
}

#[test]
fn the_next_of_the_list_leads_until_the_first_is_back() {
    let mut world = World::settled(
        json!({"primary": {"preferred": [G0, G1], "failback": "Automatic", "stabilizationSeconds": 30}}),
    );
    world.lead(G2, 2);
    world.pod(G0).ready = false;
    assert_eq!(hold_of(&mut world, 60), Some(30));
    world.lead(G1, 3);
    let pass = world.step();
    assert_eq!(pass.condition("PrimaryPreferred").0, "True", "the best that can");
    world.pod(G0).ready = true;
    assert_eq!(hold_of(&mut world, 60), Some(30));
    assert_eq!(world.observed.cluster.status.as_ref().unwrap().primary.target.as_deref(), Some(G0));
}

#[test]
fn preference_changes_during_a_move() {
    let mut world = failed_over(30);
    assert_eq!(hold_of(&mut world, 60), Some(30));
    world.set_spec(json!({"primary": {"preferred": [G2]}}));
    let busy = world.after(1).step();
    assert!(moves(&busy).is_none() && busy.status.primary.target.as_deref() == Some(G0));
    world.lead(G0, 3);
    // The running one is finished, then the new one is evaluated: asked just now, hence at once.
    assert_eq!(moves(&world.step()), Some(G2));
}

#[test]
fn an_ask_goes_at_once() {
    let mut world = failed_over(300);
    world.step();
    world.set_spec(json!({"primary": {"request": "now"}}));
    assert_eq!(moves(&world.after(1).step()), Some(G0));
}

#[test]
fn target_vanishes_mid_way() {
    let mut world = failed_over(30);
    assert_eq!(hold_of(&mut world, 60), Some(30));
    world.observed.pods.retain(|p| p.name != G0);
    let pass = world.after(1).step();
    assert_eq!((pass.status.primary.target.as_ref(), preferred(&pass)), (None, no("PreferredNotReady")));
}

/// Failover and failback, a given time apart.
fn flap(world: &mut World, epoch: &mut u64) -> Option<i64> {
    *epoch += 1;
    world.lead(G1, *epoch);
    let held = hold_of(world, 60)?;
    *epoch += 1;
    world.lead(G0, *epoch);
    world.after(10).step();
    Some(held)
}

#[test]
fn the_flap_breaker_opens_after_three_in_an_hour_and_a_request_closes_it() {
    let mut world = automatic(30);
    let mut epoch = 1;
    for _ in 0..3 {
        assert_eq!(flap(&mut world, &mut epoch), Some(30));
    }
    epoch += 1;
    world.lead(G1, epoch);
    let pass = world.step();
    assert_eq!(preferred(&pass), no("FlapProtection"));
    assert_eq!(pass.condition("Degraded"), ("True".into(), "PrimaryFlapping".into()));
    assert_eq!(pass.events(), ["PrimaryElected", "FailbackSkipped"]);
    assert!(pass.status.primary.next_attempt_time.is_some());
    assert!(world.after(30).step().events().is_empty());
    assert_eq!(hold_of(&mut world, 2000), None);
    // A restart of the operator forgets nothing.
    world.restart_operator();
    assert_eq!(preferred(&world.step()), no("FlapProtection"));
    let mut asked = world;
    asked.set_spec(json!({"primary": {"request": "it is well again"}}));
    assert_eq!(moves(&asked.step()), Some(G0));
    epoch += 1;
    asked.lead(G0, epoch);
    asked.step();
    assert!(asked.observed.cluster.status.as_ref().unwrap().primary.automatic_failbacks.is_empty());
    assert_eq!(flap(&mut asked, &mut epoch), Some(30));
}

#[test]
fn the_flap_breaker_closes_after_an_hour() {
    let mut world = automatic(30);
    let mut epoch = 1;
    for _ in 0..3 {
        flap(&mut world, &mut epoch);
    }
    world.after(3400);
    assert_eq!(flap(&mut world, &mut epoch), None, "the oldest is not an hour old");
    world.after(120);
    assert_eq!(hold_of(&mut world, 60), Some(30));
}

#[test]
fn a_round_that_fails_starts_over_with_its_hold_and_counts() {
    let mut world = failed_over(30);
    let mut told = Vec::new();
    for round in 1..=3 {
        assert_eq!(hold_of(&mut world, 60), Some(30), "round {round}");
        for attempt in 1..=8 {
            world.observed.outcome = Some(TransferOutcome::Refused("busy (409)".into()));
            let pass = world.after(1).step();
            told.extend(pass.events());
            world.observed.outcome = None;
            if attempt < 8 {
                assert_eq!(preferred(&pass), no("BackingOff"));
                assert!(moves(&world.after(64).step()).is_some(), "between attempts there is no hold");
            }
        }
    }
    assert_eq!(told.iter().filter(|e| **e == "SwitchoverFailed").count(), 3);
    assert_eq!(preferred(&world.step()), no("FlapProtection"));
}

#[test]
fn stabilizing_ends_with_the_policy_and_the_preference() {
    let mut world = failed_over(60);
    world.step();
    world.set_spec(json!({"primary": {"failback": "Manual"}}));
    let pass = world.after(1).step();
    assert_eq!(preferred(&pass), no("FailbackAvailable"));
    assert_eq!((pass.status.primary.next_attempt_time.as_ref(), pass.status.primary.waiting.as_ref()), (None, None));
    assert_eq!(hold_of(&mut world, 600), None);
}

#[test]
fn paused_breaks_the_hold() {
    let mut world = failed_over(60);
    world.step();
    world.set_spec(json!({"paused": true}));
    assert_eq!(preferred(&world.after(30).step()), no("Paused"));
    world.set_spec(json!({"paused": false}));
    assert_eq!(hold_of(&mut world, 120), Some(60));
}

#[test]
fn a_due_failback_looks_at_the_nodes_first() {
    let mut world = failed_over(30);
    world.step();
    world.observed.fresh = false;
    let pass = world.after(30).step();
    assert!(moves(&pass).is_none() && pass.plan.primary.wants_fresh);
    assert_eq!((preferred(&pass), pass.plan.requeue.as_millis()), (no("Stabilizing"), 0));
    world.observed.fresh = true;
    assert_eq!(moves(&world.step()), Some(G0));
}
