//! A node that takes no more pods: its primary leaves before it is told to.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Pass, World};
use serde_json::json;

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";
const G2: &str = "demo-gateway-2";

/// A node for each pod; `demo-gateway-0` leads.
fn spread(spec: serde_json::Value) -> World {
    let mut world = World::settled(spec);
    for pod in &mut world.observed.pods {
        pod.node = Some(format!("node-of-{}", pod.name));
    }
    world
}

fn cordon(world: &mut World, pod: &str) {
    world.observed.cordoned.insert(format!("node-of-{pod}"));
}

fn to(pass: &Pass) -> Option<&str> {
    pass.plan.primary.transfer.as_ref().map(|t| t.to.as_str())
}

#[test]
fn the_primary_leaves_a_cordoned_node_once_and_does_not_come_back() {
    let mut world = spread(json!({}));
    assert_eq!(to(&world.step()), None);
    cordon(&mut world, G0);
    let pass = world.step();
    assert_eq!(to(&pass), Some(G1));
    world.lead(G1, 2);
    world.after(1);
    let done = world.step();
    let last = done.status.primary.last_transition.clone().unwrap();
    assert_eq!((last.reason.as_str(), last.result.as_str(), last.from.as_str()), ("Drain", "Succeeded", G0));
    world.observed.cordoned.clear();
    for _ in 0..5 {
        assert_eq!(to(&world.after(60).step()), None);
    }
}

#[test]
fn it_goes_to_whom_is_preferred_and_stays() {
    let mut world = spread(json!({"primary": {"preferred": [G0, G2]}}));
    cordon(&mut world, G0);
    assert_eq!(to(&world.step()), Some(G2));
    let mut world = spread(json!({}));
    cordon(&mut world, G0);
    cordon(&mut world, G1);
    assert_eq!(to(&world.step()), Some(G2), "the next would have to leave, too");
}

/// Neither by a person's word nor by itself: it would only have to leave again.
#[test]
fn nobody_is_moved_to_a_cordoned_node() {
    let spec = json!({"primary": {"preferred": [G1], "failback": "Automatic", "stabilizationSeconds": 30}});
    let mut world = spread(spec);
    cordon(&mut world, G1);
    world.set_spec(json!({"primary": {"request": "now"}}));
    for _ in 0..60 {
        let pass = world.after(10).step();
        assert_eq!(to(&pass), None);
        assert_eq!(pass.condition("PrimaryPreferred").1, "PreferredNotReady");
    }
}

#[test]
fn without_a_better_place_it_stays() {
    type Spoil = fn(&mut World);
    let ways: [Spoil; 4] = [
        |w| cordon(w, G2),
        |w| w.pod(G2).ready = false,
        |w| w.member(G0, G2).non_electable = true,
        |w| w.member(G0, G2).connected = false,
    ];
    for (number, spoil) in ways.into_iter().enumerate() {
        let mut world = spread(json!({}));
        cordon(&mut world, G0);
        cordon(&mut world, G1);
        spoil(&mut world);
        for _ in 0..3 {
            assert_eq!(to(&world.after(2).step()), None, "way {number}");
        }
    }
    // A follower's node is no business of the primary's.
    let mut world = spread(json!({}));
    cordon(&mut world, G1);
    assert_eq!(to(&world.step()), None);
}
