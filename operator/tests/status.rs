//! Founding, and every condition with two values.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::conditions::notes;
use ais_operator::facts::VolumeFact;
use ais_operator::names::Role;
use ais_operator::plan::founding::founding_size;
use ais_operator::validate::{UuidSource, validate};
use ais_operator::view::{NodeView, Report};
use common::{Pass, World};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

fn is(pass: &Pass, kind: &str, status: &str, reason: &str) {
    assert_eq!(pass.condition(kind), (status.to_owned(), reason.to_owned()), "{kind}: {}", pass.message(kind));
}

fn unformed(world: &mut World, pods: &[&str]) {
    world.observed.reports.clear();
    for pod in pods {
        let view = NodeView { node_id: (*pod).into(), role: "founding".into(), ..NodeView::default() };
        world.observed.reports.insert((*pod).into(), Report::Live(Box::new(view)));
    }
}

#[test]
fn a_settled_cluster_is_all_well() {
    let pass = World::settled(json!({})).pass();
    for (kind, status, reason) in [
        ("Ready", "True", "Ready"),
        ("Available", "True", "Available"),
        ("Progressing", "False", "Idle"),
        ("HighlyAvailable", "True", "HighlyAvailable"),
        ("Degraded", "False", "AsExpected"),
        ("PrimaryPreferred", "True", "NoPreference"),
        ("MembershipConverged", "True", "Converged"),
        ("RolloutPending", "False", "UpToDate"),
        ("ScaleDownBlocked", "False", "NotAsked"),
        ("StorageResized", "True", "AsAsked"),
        ("Paused", "False", "Active"),
    ] {
        is(&pass, kind, status, reason);
    }
    let text = serde_json::to_string_pretty(&pass.status).unwrap();
    expect_test::expect_file!["snapshots/status.json"].assert_eq(&text);
}

#[test]
fn founding_sizes() {
    assert_eq!([1, 2, 3, 4, 5, 6].map(founding_size), [1, 2, 3, 3, 5, 5]);
}

#[test]
fn the_full_list_waits_then_shortens_and_is_never_touched_once_bound() {
    let mut world = World::new(json!({}));
    let first = world.step();
    is(&first, "Available", "False", "Starting");
    assert_eq!(first.status.phase.as_deref(), Some("Creating"));
    world.start_pods();
    unformed(&mut world, &["demo-gateway-0", "demo-gateway-2"]);
    let wait = world.after(30).step();
    is(&wait, "Available", "False", "Founding");
    is(&wait, "Progressing", "True", "Bootstrapping");
    assert!(wait.message("Available").contains("demo-gateway-1"));
    assert_eq!(wait.plan.founding.initial_voters.len(), 3);
    world.view("demo-gateway-2").bound = true;
    assert_eq!(world.after(60).step().plan.founding.initial_voters.len(), 3);
    world.view("demo-gateway-2").bound = false;
    let short = world.step();
    assert_eq!(short.plan.founding.initial_voters, ["demo-gateway-0", "demo-gateway-2"]);
    assert_eq!(short.plan.poke, ["demo-gateway-0", "demo-gateway-2"]);
    assert_eq!(short.plan.marks.discovery.len(), 3);
    assert_eq!(world.observed.discovery.as_ref().unwrap().initial_voters.len(), 2);
    // The third comes back: the list stays, it joins later.
    unformed(&mut world, &["demo-gateway-0", "demo-gateway-1", "demo-gateway-2"]);
    let pass = world.step();
    assert_eq!(pass.plan.founding.initial_voters.len(), 2);
    assert!(pass.writes.is_empty());
}

#[test]
fn a_minority_does_not_found() {
    let mut world = World::new(json!({}));
    world.step();
    world.start_pods();
    unformed(&mut world, &["demo-gateway-0"]);
    assert_eq!(world.after(600).step().plan.founding.initial_voters.len(), 3);
}

#[test]
fn formed_is_recorded_everywhere_and_never_taken_back() {
    let mut world = World::settled(json!({}));
    assert!(world.observed.discovery.as_ref().unwrap().formed);
    assert!(world.observed.volumes.iter().all(|v| v.formed));
    assert_eq!(world.pass().status.primary.last_transition.unwrap().reason, "Founding");
    unformed(&mut world, &["demo-gateway-0", "demo-gateway-1", "demo-gateway-2"]);
    world.observed.discovery = None;
    world.observed.cluster.status = None;
    let pass = world.after(600).pass();
    assert!(pass.plan.founding.formed && pass.status.formed);
}

/// The nodes tell that they are formed one by one: the news may come before a majority does.
#[test]
fn founding_is_told_once_also_when_formed_is_seen_before_the_primary() {
    let mut world = World::new(json!({}));
    world.step();
    world.start_pods();
    world.lead("demo-gateway-0", 1);
    let reports = world.observed.reports.clone();
    world.observed.reports.retain(|pod, _| pod == "demo-gateway-0");
    assert!(world.step().plan.founding.formed);
    world.observed.reports = reports;
    assert_eq!(world.step().events(), ["ClusterFormed"]);
    assert!(world.step().events().is_empty());
}

/// Found by a review: a founder that lost the primary at once made its cluster an adopted one.
#[test]
fn founding_is_told_once_in_any_epoch_and_an_adoption_is_none() {
    let first = |spec: serde_json::Value, epoch: u64, volume_age_s: i64| {
        let mut world = World::new(spec);
        let made = world.observed.now;
        world.observed.cluster.metadata.creation_timestamp = Some(Time(made));
        world.step();
        world.start_pods();
        for volume in &mut world.observed.volumes {
            volume.created = Some(made - jiff::SignedDuration::from_secs(volume_age_s));
        }
        world.lead("demo-gateway-1", epoch);
        let told = world.step().events();
        world.lead("demo-gateway-0", epoch + 1);
        assert_eq!(world.step().events(), ["PrimaryElected"]);
        assert_eq!(world.step().status.primary.history.len(), 2);
        told
    };
    for epoch in [1, 2, 3, 4, 50] {
        assert_eq!(first(json!({}), epoch, 0), ["ClusterFormed"], "epoch {epoch}");
        assert_eq!(first(json!({"clusterID": "given-cluster"}), epoch, -5), ["ClusterFormed"], "epoch {epoch}");
        assert_eq!(first(json!({"clusterID": "given-cluster"}), epoch, 60), ["PrimaryElected"], "epoch {epoch}");
    }
}

#[test]
fn the_uuid_has_one_order() {
    let mut world = World::new(json!({"clusterID": "given-cluster"}));
    let source = |w: &World| validate(&w.observed).map(|v| (v.uuid, v.uuid_source)).map_err(|e| e.reason);
    assert_eq!(source(&world), Ok(("given-cluster".into(), UuidSource::Spec)));
    let volume = |n: i32, id: &str| VolumeFact {
        name: format!("state-demo-gateway-{n}"),
        cluster_id: Some(id.into()),
        formed: true,
        ..VolumeFact::default()
    };
    world.observed.volumes = vec![volume(0, "retained1"), volume(1, "retained1")];
    assert_eq!(source(&world), Ok(("retained1".into(), UuidSource::Volumes)));
    let pass = world.step();
    assert_eq!(pass.events(), ["ClusterAdopted"]);
    assert!(pass.status.formed, "a label on the volumes says so");
    assert!(world.step().events().is_empty());
    world.start_pods();
    world.lead("demo-gateway-1", 9);
    let pass = world.step();
    assert_eq!(
        (pass.events(), pass.status.primary.last_transition.unwrap().reason.as_str()),
        (vec!["PrimaryElected"], "Start")
    );
    world.observed.volumes.retain(|v| v.formed && v.name.contains("gateway"));
    world.observed.volumes.truncate(2);
    world.observed.volumes.push(volume(2, "another11"));
    assert_eq!(source(&world), Err("ForeignVolumes"));
    world.observed.volumes = vec![volume(0, "another11")];
    assert_eq!(source(&world), Err("ForeignVolumes"));
    world.observed.volumes.clear();
    assert_eq!(source(&world), Ok(("retained1".into(), UuidSource::Recorded)));
    let derived = validate(&World::new(json!({})).observed).unwrap();
    assert_eq!((derived.uuid_source, derived.uuid.len()), (UuidSource::Derived, 16));
}

#[test]
fn a_lost_gateway_shows_at_once_and_degrades_after_a_minute() {
    let mut world = World::settled(json!({"gateways": {"replicas": 3}, "targets": {"replicas": 1}}));
    world.lose("demo-gateway-2");
    let pass = world.step();
    is(&pass, "Ready", "False", "NodesNotReady");
    is(&pass, "Available", "True", "Available");
    is(&pass, "HighlyAvailable", "False", "VoterDown");
    is(&pass, "MembershipConverged", "False", "Unreachable");
    is(&pass, "Degraded", "False", "AsExpected");
    assert_eq!(pass.status.gateways.summary, "2/3");
    let pass = world.after(61).step();
    is(&pass, "Degraded", "True", "NodesMissing");
    assert_eq!(pass.status.phase.as_deref(), Some("Degraded"));
}

#[test]
fn five_voters_bear_one_loss() {
    let mut world = World::settled(json!({"gateways": {"replicas": 5}}));
    world.lose("demo-gateway-4");
    is(&world.step(), "HighlyAvailable", "True", "HighlyAvailable");
    world.lose("demo-gateway-3");
    is(&world.step(), "HighlyAvailable", "False", "VoterDown");
}

#[test]
fn small_clusters_say_what_they_lack() {
    let world = World::settled(json!({"gateways": {"replicas": 1}}));
    is(&world.pass(), "HighlyAvailable", "False", "SingleGateway");
    let mut world = World::settled(json!({"gateways": {"replicas": 2}, "targets": {"replicas": 1}}));
    is(&world.pass(), "HighlyAvailable", "True", "HighlyAvailable");
    for pod in ["demo-gateway-0", "demo-gateway-1", "demo-target-0"] {
        world.view(pod).electorate.truncate(2);
    }
    is(&world.step(), "HighlyAvailable", "False", "NotEnoughVoters");
}

#[test]
fn no_target_no_service() {
    let mut world = World::settled(json!({}));
    world.lose("demo-target-0");
    world.lose("demo-target-1");
    is(&world.step(), "Available", "False", "NoTargets");
    let mut world = World::settled(json!({}));
    for n in 0..3 {
        world.pod(&format!("demo-gateway-{n}")).ready = false;
    }
    is(&world.step(), "Available", "False", "NoGateways");
}

#[test]
fn an_operator_that_hears_nobody_does_not_call_the_cluster_dead() {
    let mut world = World::settled(json!({}));
    let before = world.observed.cluster.status.clone().unwrap();
    for report in world.observed.reports.values_mut() {
        *report = Report::Lost("time-out".into());
    }
    let pass = world.step();
    is(&pass, "Available", "Unknown", "Unreachable");
    assert_eq!(pass.status.primary.current, before.primary.current);
    assert_eq!(pass.status.smap.version, before.smap.version);
    assert_eq!(pass.status.smap.agreeing, 0);
    assert!(pass.events().is_empty());
}

#[test]
fn another_map_and_another_cluster_are_seen() {
    let mut world = World::settled(json!({}));
    world.view("demo-target-1").smap_version = 1;
    let pass = world.pass();
    is(&pass, "MembershipConverged", "False", "Diverged");
    is(&pass, "Ready", "False", "Diverged");
    assert_eq!(pass.status.smap.summary, "4/5");
    world.view("demo-target-1").cluster_uuid = Some("strangers".into());
    is(&world.pass(), "Degraded", "True", "ForeignCluster");
}

#[test]
fn two_primaries_of_one_reign_stop_everything_and_a_deposed_one_does_not() {
    let mut world = World::settled(json!({}));
    world.view("demo-gateway-1").role = "primary".into();
    let pass = world.pass();
    is(&pass, "Degraded", "True", "SplitBrainSuspected");
    let before = world.observed.cluster.status.clone().unwrap().conditions;
    let told: Vec<_> = notes(&before, &pass.status.conditions).into_iter().map(|n| n.reason).collect();
    assert_eq!(told, ["SplitBrainSuspected"]);
    assert!(notes(&pass.status.conditions, &pass.status.conditions).is_empty());
    // Gateway 0 was stopped and still thinks it leads epoch 1.
    let mut world = World::settled(json!({}));
    let old = world.observed.reports["demo-gateway-0"].clone();
    world.lead("demo-gateway-1", 2);
    world.observed.reports.insert("demo-gateway-0".into(), old);
    let pass = world.pass();
    is(&pass, "Degraded", "False", "AsExpected");
    assert_eq!(pass.status.primary.current.as_deref(), Some("demo-gateway-1"));
}

#[test]
fn a_changed_template_is_pending_and_counted() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"image": "localhost/aiscluster:next"}));
    world.step();
    let pass = world.step();
    is(&pass, "RolloutPending", "True", "RollingOut");
    is(&pass, "Ready", "False", "RollingOut");
    assert_eq!((pass.status.gateways.updated, pass.status.targets.updated), (0, 0));
    world.start_pods();
    assert_eq!(world.step().status.targets.updated, 1);
}

#[test]
fn raising_is_done_and_lowering_waits_for_whole_voters() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"gateways": {"replicas": 4}, "targets": {"replicas": 3}}));
    let pass = world.step();
    assert_eq!(pass.plan.replicas.of(Role::Gateway), 4);
    is(&pass, "Progressing", "True", "NodesJoining");
    assert_eq!(pass.status.phase.as_deref(), Some("Scaling"));
    world.start_pods();
    world.lead("demo-gateway-0", 1);
    is(&world.step(), "Progressing", "False", "Idle");
    assert_eq!(world.observed.discovery.as_ref().unwrap().peers.len(), 7);
    world.set_spec(json!({"gateways": {"replicas": 3}}));
    world.step();
    is(&world.pass(), "ScaleDownBlocked", "False", "GoesOn");
    world.lose("demo-gateway-1");
    let before = world.observed.cluster.status.clone().unwrap().conditions;
    let pass = world.step();
    is(&pass, "ScaleDownBlocked", "True", "VoterDown");
    assert!(pass.writes.is_empty() && pass.plan.replicas.of(Role::Gateway) == 4);
    assert_eq!(notes(&before, &pass.status.conditions)[0].reason, "ScaleDownBlocked");
}

#[test]
fn times_of_conditions_move_with_their_value_only() {
    let mut world = World::settled(json!({}));
    let time = |p: &Pass| p.status.conditions.iter().find(|c| c.type_ == "Ready").unwrap().last_transition_time.clone();
    let first = time(&world.after(100).step());
    world.lose("demo-target-0");
    let lost = time(&world.after(100).step());
    assert_ne!(first, lost);
    assert_eq!(time(&world.after(100).step()), lost);
}

/// Found by a review: the pass that wrote a new template, and those until Kubernetes had seen it, said that it was done.
#[test]
fn a_new_spec_is_not_ready_before_it_is_applied_and_seen() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"targets": {"template": {"annotations": {"version": "2"}}}}));
    let pass = world.step();
    assert_eq!(pass.status.observed_generation, Some(2));
    is(&pass, "Ready", "False", "Applying");
    assert!(pass.message("Ready").contains("demo-target"), "{}", pass.message("Ready"));
    let set = world.observed.sets.get_mut(&Role::Target).unwrap();
    let newest = std::mem::take(&mut set.revision);
    is(&world.step(), "Ready", "False", "Applying");
    world.observed.sets.get_mut(&Role::Target).unwrap().revision = newest;
    is(&world.step(), "Ready", "False", "RollingOut");
}

#[test]
fn a_paused_cluster_that_is_not_as_its_spec_says_is_not_ready() {
    let mut world = World::settled(json!({"paused": true}));
    is(&world.step(), "Ready", "True", "Ready");
    world.set_spec(json!({"targets": {"replicas": 3}}));
    is(&world.pass(), "Ready", "False", "PausedBySpec");
}

/// Another operator knows nothing of what was applied, and what the server writes its own way is no news.
#[test]
fn drift_and_a_new_operator_are_no_news() {
    let mut world = World::settled(json!({"gateways": {"template": {"resources": {"limits": {"cpu": "1000m"}}}}}));
    world.memo = ais_operator::apply::Memo::default();
    let pass = world.pass();
    assert!(!pass.writes.is_empty(), "it writes what it does not know to be the same");
    is(&pass, "Ready", "True", "Ready");
}

#[test]
fn a_cluster_with_a_member_to_remove_is_not_ready() {
    let mut world = World::settled(json!({"targets": {"replicas": 3}}));
    world.set_spec(json!({"targets": {"replicas": 2}}));
    for _ in 0..3 {
        is(&world.step(), "Ready", "False", "ScalingDown");
        world.after(40);
    }
    // A node that is away for a moment meanwhile is not missing yet.
    world.pod("demo-gateway-2").ready = false;
    let now = world.observed.now;
    world.pod("demo-gateway-2").unready_since = Some(now);
    is(&world.pass(), "Degraded", "False", "AsExpected");
    world.after(70);
    is(&world.pass(), "Degraded", "True", "NodesMissing");
}
