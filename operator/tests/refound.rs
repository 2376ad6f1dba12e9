//! A founding that cannot be completed is named, shortened where that is safe, and can be given up.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::apply::Write;
use ais_operator::facts::Trouble;
use ais_operator::names::{ANNOTATION_REFOUND, Role};
use ais_operator::view::{NodeView, Report};
use common::{Pass, World};
use serde_json::json;

fn says(world: &mut World, pod: &str, bound: bool) {
    let view = NodeView { node_id: pod.into(), role: "founding".into(), bound, ..NodeView::default() };
    world.observed.reports.insert(pod.into(), Report::Live(Box::new(view)));
}

/// Gateways 0 and 1 are bound to an offer; gateway 2 lost its disk and cannot come back.
fn stuck() -> World {
    let mut world = World::new(json!({}));
    world.step();
    world.start_pods();
    for pod in world.observed.pods.clone() {
        says(&mut world, &pod.name, pod.name == "demo-gateway-0" || pod.name == "demo-gateway-1");
    }
    world.observed.reports.remove("demo-gateway-2");
    let pod = world.pod("demo-gateway-2");
    (pod.running, pod.ready) = (false, false);
    let message = "0/1 nodes are available: 1 node had a volume node affinity conflict".to_owned();
    pod.trouble = Some(Trouble { reason: "Unschedulable".into(), message });
    world
}

fn ask(world: &mut World, attempt: &str) {
    world.observed.cluster.metadata.annotations = Some([(ANNOTATION_REFOUND.to_owned(), attempt.to_owned())].into());
}

fn wiped(pass: &Pass) -> usize {
    pass.writes.iter().filter(|w| matches!(w, Write::DeleteClaim { .. })).count()
}

#[test]
fn an_unschedulable_gateway_is_named_and_does_not_block_for_ever() {
    let mut world = stuck();
    for pod in ["demo-gateway-0", "demo-gateway-1"] {
        says(&mut world, pod, false);
    }
    let pass = world.after(30).step();
    assert_eq!(pass.condition("Available"), ("False".into(), "Founding".into()));
    let message = pass.message("Available");
    assert!(message.contains("demo-gateway-2 (Unschedulable: 0/1 nodes"), "{message}");
    assert!(message.contains("found without it after 2026-01-01T00:01:00Z"), "{message}");
    // Nothing moves by itself meanwhile.
    assert!(world.after(10).pass().writes.is_empty());
    assert_eq!(world.pass().status, pass.status);
    let pass = world.after(30).step();
    assert_eq!(pass.plan.founding.initial_voters, ["demo-gateway-0", "demo-gateway-1"]);
}

#[test]
fn every_way_not_to_come_has_its_words() {
    let mut world = stuck();
    world.step();
    assert!(world.pass().message("Available").contains("use `ais-operator refound`"));
    world.pod("demo-gateway-2").trouble = None;
    assert!(world.pass().message("Available").contains("demo-gateway-2 (starts)"));
    world.pod("demo-gateway-2").running = true;
    assert!(world.pass().message("Available").contains("demo-gateway-2 (does not answer)"));
    world.observed.pods.retain(|p| p.name != "demo-gateway-2");
    assert!(world.pass().message("Available").contains("demo-gateway-2 (no pod)"));
    for pod in ["demo-gateway-0", "demo-gateway-1"] {
        world.observed.reports.remove(pod);
    }
    assert!(world.after(61).pass().message("Available").contains("too few run"));
}

/// Step by step; a status that is lost in between, or an operator replaced, changes nothing.
#[test]
fn a_founding_is_given_up_in_order() {
    for forgetful in [false, true] {
        let mut world = stuck();
        let old = world.step().valid.uuid;
        ask(&mut world, "2");
        let mut next = |change: fn(&mut World)| {
            change(&mut world);
            if forgetful {
                world.observed.cluster.status = None;
                world.restart_operator();
            }
            let pass = world.after(5).step();
            (pass, world.observed.sets.len(), world.observed.volumes.len())
        };
        let (pass, sets, volumes) = next(|_| ());
        assert_eq!((pass.events(), sets, volumes), (vec!["RefoundStarted"], 0, 5));
        assert_eq!(pass.condition("Available"), ("False".into(), "Refounding".into()));
        let (pass, sets, volumes) = next(|_| ());
        assert_eq!((wiped(&pass), sets, volumes), (0, 0, 5), "pods still hold their volumes");
        assert!(forgetful || pass.events().is_empty());
        let (pass, _, volumes) = next(|w| {
            w.observed.pods.clear();
            w.observed.reports.clear();
        });
        assert_eq!((wiped(&pass), volumes, &pass.valid.uuid), (5, 0, &old));
        let (pass, sets, _) = next(|_| ());
        assert_ne!(pass.valid.uuid, old);
        assert_eq!((sets, pass.status.founding_attempt), (2, 2));
        assert_eq!(pass.plan.founding.initial_voters.len(), 3);
        let map = world.observed.primary_map.clone().unwrap();
        assert_eq!((map.cluster_uuid.as_str(), map.founding_attempt), (pass.valid.uuid.as_str(), 2));
        // The wish is done: nothing is given up again, also not when the cluster is founded.
        world.start_pods();
        world.lead("demo-gateway-0", 1);
        for _ in 0..3 {
            let pass = world.step();
            assert_eq!((pass.plan.refound.as_ref(), pass.status.founding_attempt), (None, 2));
        }
        assert!(world.pass().writes.is_empty() && world.pass().status.formed);
    }
}

#[test]
fn what_was_founded_is_never_given_up() {
    let mut world = World::settled(json!({}));
    ask(&mut world, "2");
    let pass = world.pass();
    assert!(pass.plan.refound.is_none() && pass.writes.is_empty());
    // Whatever remembers it: the label of one volume is enough.
    let mut world = stuck();
    ask(&mut world, "2");
    world.observed.volumes[3].formed = true;
    assert!(world.pass().plan.refound.is_none());
    let mut world = stuck();
    ask(&mut world, "2");
    world.view("demo-target-1").formed = true;
    assert!(world.pass().plan.refound.is_none());
}

#[test]
fn a_node_that_runs_in_silence_may_have_founded() {
    let mut world = stuck();
    ask(&mut world, "2");
    world.observed.reports.remove("demo-gateway-1");
    let pass = world.step();
    assert_eq!(pass.condition("Available"), ("False".into(), "Refounding".into()));
    assert!(pass.message("Available").contains("demo-gateway-1 runs and does not answer"));
    assert_eq!(world.observed.sets.len(), Role::ALL.len());
}

#[test]
fn a_given_uuid_cannot_be_founded_anew() {
    let mut world = World::new(json!({"clusterID": "given-cluster"}));
    world.step();
    ask(&mut world, "2");
    let pass = world.step();
    assert_eq!((pass.condition("Available").1.as_str(), pass.events()), ("RefoundRefused", vec!["RefoundRefused"]));
    assert!(world.step().events().is_empty());
    assert_eq!(world.observed.sets.len(), Role::ALL.len());
}

#[test]
fn a_wish_that_is_no_number_or_an_old_one_is_none() {
    for text in ["", "1", "0", "-3", "two"] {
        let mut world = stuck();
        ask(&mut world, text);
        assert!(world.pass().plan.refound.is_none(), "{text}");
    }
}
