//! The simulator's own checks, each made to fail: a world in which something is wrong that the core cannot help, and the
//! same world without it.

use ais_ha::invariant::Violation;

use crate::fault::{Fault, Strike, Who};
use crate::plan::{Class, Plan};
use crate::run::{Report, run_plan};
use crate::seen::Seen;
use crate::world::{World, ms};

/// Founded, and somebody leads.
fn founded(plan: Plan) -> World {
    let mut world = World::new(plan, false);
    world.run_until(ms(5000)).expect("a healthy world");
    assert!(world.primary().is_some(), "somebody leads");
    world
}

fn follower(world: &World) -> usize {
    let primary = world.primary().expect("somebody leads");
    (0..world.hosts.len()).find(|n| *n != primary).expect("more than one node")
}

fn named(violation: Option<&Violation>) -> Option<&'static str> {
    violation.map(|v| v.invariant)
}

#[test]
fn i7_a_wiped_voter_that_goes_on_acknowledging() {
    let mut world = founded(Plan::healthy(1, 3, 0));
    let mut beside = founded(Plan::healthy(1, 3, 0));
    let node = follower(&world);
    let voter = world.hosts[node].voter();

    // The record is told of a wipe that the process did not notice.
    world.record.wiped(&voter);
    let broken = world.run_until(ms(8000)).expect_err("its next heartbeat is answered");
    assert_eq!(broken.invariant, "I7", "{broken}");

    let disk = ais_meta::DiskId(voter.disk.0 ^ 1);
    beside.record.wiped(&ais_meta::VoterId::new(voter.node, disk));
    beside.run_until(ms(8000)).expect("that disk does not vote");
}

#[test]
fn l5_a_fresh_read_that_misses_a_bucket() {
    let plan = Plan { clients: 4, ..Plan::healthy(2, 3, 0) };
    let (mut world, mut beside) = (founded(plan.clone()), founded(plan));
    // Readers are to find what no State ever held.
    world.clients.created.push("never-made".parse().expect("a name"));
    let broken = world.run_until(ms(40_000)).expect_err("somebody reads");
    assert_eq!(broken.invariant, "L5", "{broken}");

    beside.run_until(ms(40_000)).expect("nothing is missing");
    assert!(beside.counts.of(Seen::FreshRead) > 0, "somebody read");
}

#[test]
fn l3_a_preferred_gateway_that_does_not_come_to_lead() {
    // Two gateways and a witness: one is left that may be preferred, and a majority without it.
    let (mut world, mut beside) = (founded(Plan::healthy(3, 2, 1)), founded(Plan::healthy(3, 2, 1)));
    let primary = world.primary().expect("somebody leads");
    let other = 1 - primary;
    for node in (0..world.hosts.len()).filter(|n| *n != other) {
        world.cut(node, other);
        world.cut(other, node);
    }
    let broken = world.prefer().expect_err("nobody reaches it");
    assert_eq!((broken.invariant, world.primary()), ("L3", Some(primary)), "{broken}");

    beside.prefer().expect("it takes over");
    assert_eq!((beside.counts.of(Seen::Preferred), beside.primary()), (1, Some(other)));

    let nobody = World::new(Plan::healthy(3, 2, 1), false).prefer().expect_err("nobody leads yet");
    assert_eq!(nobody.invariant, "L3");
}

/// A benign plan with one fault: a kill of this one, which is back after two seconds.
fn benign(who: Who) -> Report {
    let faults = vec![Fault { at_us: ms(13_000), strike: Strike::Kill { who, back_us: ms(2000) } }];
    let plan = Plan { class: Class::Benign, clients: 4, heal_us: Some(ms(20_000)), faults, ..Plan::healthy(4, 3, 2) };
    run_plan(plan, false)
}

#[test]
fn l4_a_primary_that_a_benign_plan_kills() {
    let report = benign(Who::Primary(0));
    assert_eq!(named(report.violation.as_ref()), Some("L4"), "{:?}", report.violation);
    assert_eq!(report.counts.of(Seen::Undeposed), 0);

    for other in 0..4 {
        let report = benign(Who::Other(other));
        assert_eq!(named(report.violation.as_ref()), None, "{:?}", report.violation);
        assert_eq!(report.counts.of(Seen::Undeposed), 1);
    }
}
