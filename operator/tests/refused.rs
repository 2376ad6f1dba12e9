//! A spec that is refused freezes nothing but what it would have changed.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::facts::VolumeFact;
use ais_operator::names::Role;
use ais_operator::refused::{Refused, refused};
use ais_operator::validate::validate;
use common::{World, round_trip};
use serde_json::json;

/// One pass over it; its status and labels reach the server.
fn look(world: &mut World) -> Refused {
    let why = validate(&world.observed).unwrap_err();
    let refused = refused(&world.observed, &why);
    world.observed.cluster.status = Some(round_trip(&refused.status));
    for (pod, leads) in &refused.marks.primary {
        world.pod(pod).labelled_primary = *leads;
    }
    let ready = condition(&refused, "Ready");
    assert_eq!(ready, ("False".to_owned(), why.reason.to_owned()));
    refused
}

fn condition(refused: &Refused, kind: &str) -> (String, String) {
    let c = refused.status.conditions.iter().find(|c| c.type_ == kind).unwrap();
    (c.status.clone(), c.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

fn misspelt() -> serde_json::Value {
    json!({"gateways": {"template": {"affinity": {"podAntiAfinity": {}}}}})
}

fn labelled(world: &World) -> Vec<&str> {
    world.observed.pods.iter().filter(|p| p.labelled_primary).map(|p| p.name.as_str()).collect()
}

#[test]
fn who_leads_and_whether_it_serves_is_told_under_a_refused_spec() {
    let mut world = World::settled(json!({}));
    world.set_spec(misspelt());
    let pass = look(&mut world);
    assert_eq!(condition(&pass, "Available"), is("True", "Available"));
    assert_eq!(condition(&pass, "Degraded"), is("True", "SpecInvalid"));
    assert!(pass.marks.primary.is_empty(), "nothing moved");

    world.lead("demo-gateway-2", 2);
    let pass = look(&mut world);
    assert_eq!(pass.status.primary.current.as_deref(), Some("demo-gateway-2"));
    assert_eq!((pass.status.smap.version, labelled(&world)), (Some(205), vec!["demo-gateway-2"]));
    assert_eq!(pass.notes.iter().map(|n| n.reason).collect::<Vec<_>>(), ["PrimaryElected"]);
    assert_eq!(pass.finished.len(), 1);

    world.leaderless();
    let pass = look(&mut world);
    assert_eq!((condition(&pass, "Available"), pass.status.primary.current), (is("False", "NoPrimary"), None));

    world.lead("demo-gateway-1", 3);
    world.lose("demo-gateway-0");
    let pass = look(&mut world);
    assert_eq!(condition(&pass, "Available"), is("True", "Available"));
    assert_eq!(condition(&pass, "HighlyAvailable").0, "True", "two voters of five may be away");
    assert_eq!(condition(&pass, "MembershipConverged"), is("False", "Unreachable"));
    assert_eq!((pass.status.gateways.ready, labelled(&world)), (2, vec!["demo-gateway-1"]));
}

#[test]
fn a_refused_spec_at_rest_is_written_once() {
    let mut world = World::settled(json!({}));
    world.set_spec(misspelt());
    let first = look(&mut world).status;
    for seconds in [0, 1, 20, 3600] {
        let pass = look(world.after(seconds));
        assert_eq!(round_trip(&pass.status), round_trip(&first));
        assert!(pass.marks.primary.is_empty() && pass.notes.is_empty() && pass.finished.is_empty());
    }
}

/// What was asked beside the mistake is not done, and what was done is not missed.
#[test]
fn members_are_those_that_were_applied() {
    let mut world = World::settled(json!({}));
    world.set_spec(misspelt());
    world.set_spec(json!({"gateways": {"replicas": 5}, "primary": {"preferred": ["demo-gateway-1"]}}));
    let pass = look(&mut world);
    assert_eq!((pass.status.smap.summary.as_str(), pass.status.nodes.len()), ("5/5", 5));
    let primary = &pass.status.primary;
    assert!(primary.attempt.is_none() && primary.pending_request.is_none(), "nobody is moved by a refused spec");
    assert_eq!(condition(&pass, "PrimaryPreferred"), is("False", "FailbackAvailable"));

    // The ask is followed as soon as the spec can be.
    world.set_spec(json!({"gateways": {"replicas": 3, "template": null}}));
    assert_eq!(world.step().plan.primary.transfer.unwrap().to, "demo-gateway-1");
}

/// Its templates are not written: no pod is of an older one than there is.
#[test]
fn pods_are_as_new_as_what_was_applied() {
    let mut world = World::settled(json!({}));
    world.set_spec(misspelt());
    world.set_spec(json!({"targets": {"template": {"annotations": {"version": "2"}}}}));
    let status = look(&mut world).status;
    assert_eq!((status.gateways.updated, status.targets.updated), (3, 2));
}

/// A move that was under way is judged, also when the spec was broken meanwhile.
#[test]
fn a_move_under_way_ends() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"primary": {"preferred": ["demo-gateway-1"]}}));
    assert!(world.step().plan.primary.transfer.is_some());
    world.set_spec(misspelt());
    assert!(look(&mut world).status.primary.attempt.is_some());
    world.lead("demo-gateway-1", 2);
    let pass = look(&mut world);
    assert_eq!((pass.status.primary.attempt, pass.status.primary.target), (None, None));
    assert_eq!(pass.status.primary.last_transition.unwrap().reason, "Failback");
}

fn foreign(n: i32, id: &str) -> VolumeFact {
    let name = format!("state-demo-gateway-{n}");
    VolumeFact { name, cluster_id: Some(id.into()), formed: true, ..VolumeFact::default() }
}

#[test]
fn volumes_of_others_do_not_make_a_new_cluster_a_founded_one() {
    let mut world = World::new(json!({}));
    world.observed.volumes = vec![foreign(0, "another11"), foreign(1, "another22")];
    let pass = look(&mut world);
    assert_eq!(condition(&pass, "Degraded"), is("True", "ForeignVolumes"));
    assert_eq!(condition(&pass, "Available"), is("False", "ForeignVolumes"));
    assert!(!pass.status.formed && pass.status.cluster_id.is_none());
    world.observed.volumes.clear();
    world.step();
    world.start_pods();
    world.lead("demo-gateway-0", 1);
    assert_eq!(world.step().events(), ["ClusterFormed"]);
}

#[test]
fn a_foreign_volume_beside_a_running_cluster_freezes_nothing() {
    let mut world = World::settled(json!({}));
    world.observed.volumes.push(foreign(7, "another11"));
    world.lead("demo-gateway-1", 2);
    let pass = look(&mut world);
    assert_eq!(condition(&pass, "Degraded"), is("True", "ForeignVolumes"));
    assert_eq!(condition(&pass, "Available"), is("True", "Available"));
    assert_eq!(pass.status.primary.current.as_deref(), Some("demo-gateway-1"));
    assert_eq!(labelled(&world), ["demo-gateway-1"]);
}

/// Two that lead in one epoch are worse than any spec.
#[test]
fn a_split_is_told_under_a_refused_spec() {
    let mut world = World::settled(json!({}));
    world.set_spec(misspelt());
    world.view("demo-gateway-1").role = "primary".into();
    assert_eq!(condition(&look(&mut world), "Degraded"), is("True", "SplitBrainSuspected"));
}

#[test]
fn a_stopped_cluster_stays_a_stopped_one() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"state": "Stopped"}));
    for role in Role::ALL {
        world.observed.sets.get_mut(&role).unwrap().replicas = 0;
    }
    world.observed.pods.clear();
    world.observed.reports.clear();
    world.step();
    world.set_spec(misspelt());
    assert_eq!(condition(&look(&mut world), "Available"), is("False", "Stopped"));
}
