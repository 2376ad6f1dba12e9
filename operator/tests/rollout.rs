//! Roll-outs: their order, what stops them, how they go on, and that they always end.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "rollout/sim.rs"]
mod sim;

use ais_operator::apply::Write;
use ais_operator::facts::Kind;
use ais_operator::names::Role;
use ais_operator::plan::rollout::State;
use common::{Pass, World, round_trip};
use proptest::prelude::*;
use serde_json::json;
use sim::{G0, Phase, Sim};

const G1: &str = "demo-gateway-1";
const G2: &str = "demo-gateway-2";
const T0: &str = "demo-target-0";
const T1: &str = "demo-target-1";

fn is(pass: &Pass, kind: &str, status: &str, reason: &str) {
    assert_eq!(pass.condition(kind), (status.to_owned(), reason.to_owned()), "{kind}: {}", pass.message(kind));
}

#[test]
fn without_a_vote_first_then_voters_the_primary_last_after_one_move() {
    let mut sim = Sim::new(json!({"targets": {"replicas": 3}}), G0);
    sim.change("2");
    let first = sim.step();
    is(&first, "Progressing", "True", "RollingTargets");
    is(&first, "RolloutPending", "True", "RollingOut");
    is(&first, "Ready", "False", "RollingOut");
    assert_eq!(first.status.phase.as_deref(), Some("Updating"));
    let last = sim.run(40);
    // Five vote: the three gateways and the first two targets.
    assert_eq!(sim.removed, ["demo-target-2", T1, T0, G2, G1, G0]);
    assert_eq!(sim.moves, [G1]);
    assert_eq!(sim.told(), ["RolloutStarted", "RolloutCompleted"]);
    let rollout = last.status.rollout.clone().unwrap();
    assert_eq!((rollout.state.as_str(), rollout.moves, rollout.updated, rollout.of), ("Completed", 1, 6, 6));
    is(&last, "RolloutPending", "False", "UpToDate");
    is(&last, "Ready", "True", "Ready");
    let history = &last.status.primary.history;
    assert_eq!((history[0].reason.as_str(), history[0].to.as_str()), ("Rollout", G1));
    assert!(sim.step().writes.is_empty());
}

/// Regression: the operator waited for five voters before the primary's own process, the last one, knew of five.
#[test]
fn another_number_of_voters_reaches_every_pod() {
    for terse in [false, true] {
        let mut sim = Sim::new(json!({"ha": {"voters": 3}, "targets": {"replicas": 3}}), G0);
        sim.terse = terse;
        for (voters, moves) in [(5, 1), (3, 2)] {
            assert_ne!(sim.views[G0].electorate.len(), voters);
            sim.world.set_spec(json!({"ha": {"voters": voters}}));
            let last = sim.run(60);
            assert!(sim.is_done(), "{voters} voters: {}", last.message("RolloutPending"));
            assert_eq!((sim.views[G0].electorate.len(), sim.moves.len()), (voters, moves));
        }
    }
}

#[test]
fn an_electorate_that_never_gets_complete_is_told_as_stuck() {
    let mut sim = Sim::new(json!({"ha": {"voters": 3}}), G0);
    (sim.frozen, *sim.voters.get_mut(G0).unwrap()) = (true, 5);
    sim.publish();
    sim.change("2");
    is(&sim.run(500), "RolloutPending", "True", "RollingOut");
    let stuck = sim.run(200);
    is(&stuck, "RolloutPending", "True", "RolloutStuck");
    assert!(stuck.message("Degraded").contains("3 members vote on the way to 5"), "{}", stuck.message("Degraded"));
    assert!(sim.removed.is_empty());
    let before = sim.world.observed.cluster.status.clone();
    sim.run(50);
    assert_eq!(sim.world.observed.cluster.status, before, "a stuck roll-out is calm");
    sim.frozen = false;
    sim.run(60);
    assert!(sim.is_done());
}

/// Regression: for a moment after a new template status said of its generation that everything was up to date.
#[test]
fn nothing_is_complete_of_a_template_that_its_controller_has_not_seen() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    sim.run(40);
    let done = sim.world.observed.cluster.status.clone().unwrap().rollout.unwrap();
    let state = |pass: &Pass| pass.status.rollout.clone().unwrap().state;
    for version in ["3", "4"] {
        sim.world.set_spec(json!({"targets": {"template": {"annotations": {"version": version}}}}));
        let written = sim.world.step();
        assert_eq!(written.status.observed_generation, sim.world.observed.cluster.metadata.generation);
        is(&written, "RolloutPending", "True", "Applying");
        is(&written, "Progressing", "True", "Applying");
        assert_eq!((state(&written).as_str(), written.status.phase.as_deref()), ("Pending", Some("Updating")));
        assert_eq!((written.status.targets.updated, written.status.gateways.updated), (0, 3));
        let newest = std::mem::take(&mut sim.world.observed.sets.get_mut(&Role::Target).unwrap().revision);
        let unseen = sim.world.step();
        is(&unseen, "RolloutPending", "Unknown", "Applying");
        is(&unseen, "Progressing", "True", "Applying");
        assert!(state(&unseen) == "Pending" && unseen.events().is_empty(), "{:?}", unseen.events());
        sim.world.observed.sets.get_mut(&Role::Target).unwrap().revision = newest;
        let seen = sim.step();
        is(&seen, "RolloutPending", "True", "RollingOut");
        assert_eq!(state(&seen), "Rolling");
        sim.run(40);
        assert!(sim.is_done());
    }
    // Of as many pods as before, or others, nobody knows for a moment; that is no roll-out.
    let (told, ended) = (sim.told().len(), done.finished_at);
    let last = sim.world.observed.cluster.status.clone().unwrap().rollout;
    assert_ne!(last.as_ref().unwrap().finished_at, ended);
    let seen = sim.world.observed.sets.clone();
    sim.world.observed.sets.get_mut(&Role::Gateway).unwrap().revision.clear();
    let unseen = sim.world.step();
    is(&unseen, "RolloutPending", "Unknown", "Applying");
    assert_eq!(state(&unseen), "Pending");
    sim.world.observed.sets = seen;
    is(&sim.step(), "RolloutPending", "False", "UpToDate");
    assert_eq!((sim.world.observed.cluster.status.clone().unwrap().rollout, sim.told().len()), (last, told));
}

/// The same of a template that is not even written, and of one that mends what is stuck.
#[test]
fn what_was_judged_of_another_template_is_not_told_of_the_newest() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    sim.run(40);
    let template = |version: &str| json!({"template": {"annotations": {"version": version}}});
    sim.world.set_spec(json!({"paused": true, "gateways": template("3")}));
    for _ in 0..2 {
        let paused = sim.world.pass();
        sim.world.observed.cluster.status = Some(round_trip(&paused.status));
        is(&paused, "RolloutPending", "True", "Paused");
        assert_eq!(paused.message("RolloutPending"), "spec.paused is set; a new template is not written");
        assert_eq!(paused.status.rollout.clone().unwrap().state, "Pending");
        assert!(paused.plan.requeue.as_secs() > 5, "nothing to look for every second");
    }
    sim.world.set_spec(json!({"paused": false, "gateways": template("2")}));
    is(&sim.step(), "RolloutPending", "False", "UpToDate");
    assert_eq!(sim.told(), ["RolloutStarted", "RolloutCompleted"]);
    sim.bad.insert(String::new());
    sim.change("broken");
    sim.bad = Role::ALL.map(|r| sim.revision(r)).into();
    is(&sim.run(40), "Degraded", "True", "RolloutStuck");
    sim.world.set_spec(json!({"gateways": template("mended"), "targets": template("mended")}));
    let written = sim.step();
    is(&written, "Degraded", "False", "AsExpected");
    is(&written, "RolloutPending", "True", "RollingOut");
    assert_eq!(written.status.rollout.clone().unwrap().state, "Rolling");
    sim.run(60);
    assert!(sim.is_done());
    let last = ["RolloutStarted", "RolloutPaused", "RolloutResumed", "RolloutCompleted"];
    assert_eq!(sim.told()[2..], last);
}

/// A set's controller may find another revision by itself, of a template that nobody changed.
#[test]
fn a_revision_that_nobody_asked_for_is_pending_while_paused() {
    let mut sim = Sim::new(json!({"paused": false}), G0);
    sim.change("2");
    sim.run(40);
    sim.world.set_spec(json!({"paused": true}));
    sim.world.observed.sets.get_mut(&Role::Target).unwrap().revision = "another".into();
    let paused = sim.world.pass();
    is(&paused, "RolloutPending", "True", "Paused");
    assert_eq!(paused.status.rollout.clone().unwrap().state, "Pending");
}

#[test]
fn what_is_stuck_stays_so_while_nothing_new_can_be_said() {
    let mut sim = Sim::new(json!({}), G0);
    sim.bad.insert(String::new());
    sim.change("broken");
    sim.bad = Role::ALL.map(|r| sim.revision(r)).into();
    is(&sim.run(40), "RolloutPending", "True", "RolloutStuck");
    let told = sim.told().len();
    let seen = sim.world.observed.sets.clone();
    sim.world.observed.sets.get_mut(&Role::Target).unwrap().revision.clear();
    let unseen = sim.world.step();
    is(&unseen, "RolloutPending", "True", "RolloutStuck");
    assert_eq!(unseen.status.rollout.clone().unwrap().state, "Stuck");
    assert!(unseen.plan.requeue.as_secs() <= 1, "{:?}", unseen.plan.requeue);
    sim.world.observed.sets = seen;
    is(&sim.step(), "RolloutPending", "True", "RolloutStuck");
    assert!(unseen.events().is_empty() && sim.told().len() == told);
}

#[test]
fn without_pods_none_is_to_be_replaced() {
    is(&World::new(json!({})).pass(), "RolloutPending", "False", "UpToDate");
}

#[test]
fn pods_whose_set_is_gone_are_of_a_template_that_is_to_be_written() {
    let mut world = World::settled(json!({}));
    world.observed.live.remove(&(Kind::StatefulSet, "demo-target".to_owned()));
    world.observed.sets.remove(&Role::Target);
    let pass = world.pass();
    is(&pass, "RolloutPending", "True", "Applying");
    assert_eq!((pass.status.targets.updated, pass.status.gateways.updated), (0, 3));
}

/// Regression: until the template was written pods were taken for new ones, and the primary moved to one that was about
/// to be replaced.
#[test]
fn a_preferred_gateway_of_a_template_that_is_to_be_replaced_does_not_lead_before() {
    let mut sim = Sim::new(json!({"primary": {"preferred": [G0]}}), G0);
    let template = json!({"template": {"annotations": {"version": "2"}}});
    sim.world.set_spec(json!({"primary": {"preferred": [G2]}, "gateways": template}));
    let pass = sim.step();
    is(&pass, "PrimaryPreferred", "False", "RolloutInProgress");
    assert!(pass.plan.primary.transfer.is_none() && sim.moves.is_empty());
}

#[test]
fn only_the_role_that_changed_is_rolled() {
    let mut sim = Sim::new(json!({}), G2);
    sim.change_role("targets", "2");
    is(&sim.step(), "Progressing", "True", "RollingTargets");
    sim.run(20);
    assert_eq!((sim.removed.join(" "), sim.moves.len()), (format!("{T1} {T0}"), 0));
    sim.change_role("gateways", "2");
    is(&sim.step(), "Progressing", "True", "RollingGateways");
    sim.run(30);
    assert_eq!((&sim.removed[2..], sim.moves.clone()), (&[G1, G0, G2].map(str::to_owned)[..], vec![G0.to_owned()]));
    assert!(sim.is_done());
}

#[test]
fn the_preferred_primary_leads_again_after_two_moves() {
    let mut sim = Sim::new(json!({"primary": {"preferred": [G1, G0]}}), G1);
    sim.change("2");
    let last = sim.run(40);
    assert_eq!(sim.moves, [G0, G1], "to the next of the list, and back");
    assert_eq!(last.status.rollout.as_ref().unwrap().moves, 2);
    assert_eq!(last.status.primary.current.as_deref(), Some(G1));
    assert!(sim.is_done());
    is(&last, "PrimaryPreferred", "True", "PreferredIsPrimary");
}

#[test]
fn a_preferred_gateway_that_did_not_lead_receives_the_one_move() {
    let mut sim = Sim::new(json!({"primary": {"preferred": [G2]}}), G0);
    sim.change("2");
    sim.run(40);
    assert_eq!(sim.moves, [G2]);
    assert!(sim.is_done());
}

#[test]
fn the_way_back_is_given_up_when_it_stays_closed() {
    let mut sim = Sim::new(json!({"primary": {"preferred": [G0], "requestTTLSeconds": 60}}), G0);
    sim.change("2");
    while sim.moves.is_empty() || sim.removed.last().map(String::as_str) != Some(G0) {
        sim.step();
        sim.come_up();
    }
    for view in sim.views.values_mut() {
        view.members.iter_mut().filter(|m| m.node_id == G0).for_each(|m| m.non_electable = true);
    }
    sim.run(30);
    assert!(!sim.is_done());
    sim.run(60);
    assert_eq!(sim.moves, [G1]);
    assert!(sim.is_done());
}

#[test]
fn a_template_that_does_not_work_stops_at_the_first_pod_and_is_mended_there() {
    let mut sim = Sim::new(json!({}), G0);
    sim.bad.insert(String::new());
    sim.change("broken");
    sim.bad = Role::ALL.map(|r| sim.revision(r)).into();
    sim.run(18);
    is(&sim.step(), "Degraded", "False", "AsExpected");
    let stuck = sim.run(10);
    is(&stuck, "Degraded", "True", "RolloutStuck");
    is(&stuck, "RolloutPending", "True", "RolloutStuck");
    is(&stuck, "Progressing", "False", "RolloutStuck");
    assert!(stuck.plan.requeue.as_secs() >= 5, "no reason to look every second");
    assert!(stuck.message("Degraded").contains(T1) && stuck.message("Degraded").contains("ImagePullBackOff"));
    assert_eq!((sim.removed.clone(), sim.moves.len(), sim.leader.as_str()), (vec![T1.to_owned()], 0, G0));
    let before = sim.world.observed.cluster.status.clone();
    assert!(sim.run(300).writes.is_empty());
    assert_eq!(sim.world.observed.cluster.status, before, "a stuck roll-out is calm");
    // Found by a review: a container that crashes again and again runs for a moment each time, which looked like a new
    // start: conditions and events went to and fro.
    let waited = before.as_ref().and_then(|st| st.rollout.as_ref()?.waits_since.clone()).unwrap();
    sim.world.observed.now = waited.0 + jiff::SignedDuration::from_secs(60);
    let pod = sim.world.pod(T1);
    (pod.trouble, pod.running) = (None, true);
    let runs = sim.world.step();
    is(&runs, "Degraded", "True", "RolloutStuck");
    assert!(runs.events().is_empty(), "{:?}", runs.events());
    sim.publish();
    sim.change("mended");
    sim.run(50);
    assert_eq!(sim.removed[1], T1, "the broken one goes first, at once");
    assert_eq!(sim.told(), ["RolloutStarted", "RolloutPaused", "RolloutResumed", "RolloutCompleted"]);
    assert!(sim.is_done());
    assert_eq!(sim.moves.len(), 1);
}

/// Regression: the removal of a member waited for a broken voter, and its mended template for the removal.
#[test]
fn a_removal_that_waits_for_a_broken_pod_lets_it_be_mended() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change_role("gateways", "broken");
    sim.bad.insert(sim.revision(Role::Gateway));
    sim.run(10);
    assert_eq!(sim.removed, [G2]);
    sim.world.set_spec(json!({"targets": {"replicas": 1}}));
    let blocked = sim.run(3).plan.scale.removal.unwrap();
    assert_eq!((blocked.pod.as_str(), blocked.blocked), (T1, Some("VoterDown")));
    sim.change_role("gateways", "mended");
    sim.step();
    assert_eq!(sim.removed, [G2, G2]);
    sim.run(3);
    assert_eq!(sim.removed, [G2, G2], "whoever leaves goes before the rest of the roll-out");
}

/// Regression: without a majority nobody tells how a move ended, and pods that were needed for one stayed broken.
#[test]
fn a_move_that_nobody_can_judge_lets_broken_pods_be_mended() {
    let mut world = Sim::new(json!({}), G0).world;
    world.set_spec(json!({"primary": {"preferred": [G1]}}));
    assert!(world.step().status.primary.attempt.is_some());
    world.set_spec(json!({"gateways": {"template": {"annotations": {"version": "2"}}}}));
    world.step();
    for pod in [G1, G2] {
        world.lose(pod);
        world.pod(pod).running = false;
    }
    world.leaderless();
    let gone = |pass: &Pass| pass.writes.iter().any(|w| matches!(w, Write::DeletePod { .. }));
    assert!(!gone(&world.after(30).pass()), "the move may still end");
    let late = world.after(31).pass();
    assert!(gone(&late) && late.status.primary.attempt.is_some(), "its end is told by whoever leads next");
}

#[test]
fn taking_a_broken_template_back_replaces_only_the_broken_pod() {
    let mut sim = Sim::new(json!({}), G0);
    let good = Role::ALL.map(|r| sim.revision(r));
    let template = json!({"template": {"annotations": {"version": "broken"}}});
    sim.world.set_spec(json!({"gateways": template, "targets": template}));
    sim.step();
    sim.bad = Role::ALL.map(|r| sim.revision(r)).into();
    sim.run(30);
    let template = json!({"template": {"annotations": null}});
    sim.world.set_spec(json!({"gateways": template, "targets": template}));
    sim.run(20);
    assert_eq!(Role::ALL.map(|r| sim.revision(r)), good);
    assert_eq!(sim.removed, [T1, T1]);
    assert!(sim.is_done() && sim.moves.is_empty());
}

#[test]
fn a_pod_that_never_gets_ready_is_waited_for_longer_without_kubernetes_word() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    sim.step();
    for _ in 0..320 {
        sim.step();
    }
    is(&sim.step(), "Degraded", "False", "AsExpected");
    for _ in 0..20 {
        sim.step();
    }
    is(&sim.step(), "Degraded", "True", "RolloutStuck");
    sim.run(40);
    assert!(sim.is_done(), "it came up after all");
}

#[test]
fn a_broken_pod_of_the_old_template_goes_first_and_needs_no_move() {
    let mut sim = Sim::new(json!({}), G0);
    sim.phases.insert(G1.into(), Phase::Starting);
    sim.publish();
    sim.change("2");
    sim.step();
    assert_eq!(sim.removed, [G1]);
    // One that runs and is not ready: only as long as the others have a majority.
    let mut sim = Sim::new(json!({}), G0);
    for pod in [G1, G2] {
        sim.phases.insert(pod.into(), Phase::Running);
    }
    sim.publish();
    sim.change("2");
    sim.step();
    assert_eq!(sim.removed, [G2]);
    sim.step();
    assert_eq!(sim.removed, [G2], "the other one waits until that one's process runs");
}

#[test]
fn supervised_waits_before_the_primary_and_each_way_on_works() {
    type Way = fn(&mut Sim);
    let ways: [Way; 3] = [
        |s| s.world.set_spec(json!({"update": {"gateways": {"strategy": "Unsupervised"}}})),
        |s| s.world.set_spec(json!({"primary": {"preferred": [G2]}})),
        |s| {
            // Its pod was deleted: another gateway was elected.
            s.world.observed.pods.retain(|p| p.name != G0);
            s.phases.insert(G0.into(), Phase::Starting);
            (s.leader, s.epoch) = (G2.into(), s.epoch + 1);
            s.publish();
        },
    ];
    for way in ways {
        let mut sim = Sim::new(json!({"update": {"gateways": {"strategy": "Supervised"}}}), G0);
        sim.change("2");
        let waits = sim.run(40);
        is(&waits, "RolloutPending", "True", "Supervised");
        is(&waits, "Progressing", "False", "Supervised");
        is(&waits, "Degraded", "False", "AsExpected");
        assert!(waits.message("RolloutPending").contains("spec.update.gateways.strategy"));
        assert_eq!((sim.removed.len(), sim.moves.len()), (4, 0));
        assert!(waits.plan.requeue.as_secs() >= 5, "no reason to look every second");
        let before = sim.world.observed.cluster.status.clone();
        assert!(sim.run(100).writes.is_empty());
        assert_eq!(sim.world.observed.cluster.status, before, "waiting for a person is calm");
        way(&mut sim);
        sim.run(30);
        assert!(sim.is_done() && sim.leader != G0, "{:?} {:?}", sim.removed, sim.moves);
        assert_eq!(sim.told(), ["RolloutStarted", "RolloutPaused", "RolloutResumed", "RolloutCompleted"]);
    }
}

#[test]
fn paused_takes_no_pod() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    sim.run(3);
    let removed = sim.removed.len();
    sim.world.set_spec(json!({"paused": true}));
    let pass = sim.run(20);
    is(&pass, "RolloutPending", "True", "Paused");
    assert_eq!(sim.removed.len(), removed);
    sim.world.set_spec(json!({"paused": false}));
    sim.run(40);
    assert!(sim.is_done());
}

#[test]
fn one_gateway_is_restarted_without_a_move() {
    let mut sim = Sim::new(json!({"gateways": {"replicas": 1}, "targets": {"replicas": 2}}), G0);
    sim.change("2");
    sim.run(30);
    assert_eq!((sim.removed.clone(), sim.moves.len()), ([T1, T0, G0].map(str::to_owned).to_vec(), 0));
    assert!(sim.is_done());
}

#[test]
fn several_targets_without_a_vote_may_go_together() {
    let spec = json!({"targets": {"replicas": 6}, "update": {"targets": {"maxUnavailable": 3}}});
    let mut sim = Sim::new(spec, G0);
    sim.change_role("targets", "2");
    sim.step();
    assert_eq!(sim.removed, ["demo-target-5", "demo-target-4", "demo-target-3"]);
    sim.run(30);
    assert_eq!(sim.removed[3..], ["demo-target-2", T1, T0].map(str::to_owned));
    assert!(sim.is_done());
}

#[test]
fn a_lost_status_changes_nothing_but_what_is_told() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    for _ in 0..40 {
        sim.world.observed.cluster.status.as_mut().unwrap().rollout = None;
        sim.step();
        sim.come_up();
    }
    sim.run(3);
    assert_eq!((sim.removed.len(), sim.moves.len()), (5, 1));
    assert!(sim.world.observed.pods.iter().all(|p| p.revision == sim.revision(p.role.unwrap())));
}

#[test]
fn no_pod_goes_in_a_pass_that_writes_objects_or_knows_no_revision() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    let template = json!({"template": {"annotations": {"version": "3"}}});
    sim.world.set_spec(json!({"gateways": template, "targets": template}));
    let pass = sim.world.pass();
    assert!(pass.writes.iter().any(|w| matches!(w, Write::Apply(_))));
    assert!(!pass.writes.iter().any(|w| matches!(w, Write::DeletePod { .. })));
    sim.step();
    sim.world.observed.sets.get_mut(&Role::Gateway).unwrap().revision = String::new();
    let pass = sim.step();
    assert_eq!(pass.plan.rollout.state, State::Unseen);
    assert!(sim.removed.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens in between (elections, restarts of nodes, a lost status), pods go one at a time, a majority
    /// stays, and everything is of the newest template at the end.
    #[test]
    fn a_roll_out_always_ends_and_never_takes_a_majority(
        gateways in 1..5i32, targets in 1..5i32, max_unavailable in 1..3i32, preferred in proptest::option::of(0..4i32),
        leader in 0..4i32, faults in proptest::collection::vec((0..40usize, 0..4u8, 0..8usize), 0..6),
    ) {
        let mut spec = json!({
            "gateways": {"replicas": gateways}, "targets": {"replicas": targets},
            "update": {"targets": {"maxUnavailable": max_unavailable}},
        });
        let preferred = preferred.map(|n| format!("demo-gateway-{}", n % gateways));
        if let Some(name) = &preferred {
            spec["primary"] = json!({"preferred": [name], "requestTTLSeconds": 30});
        }
        let leader = format!("demo-gateway-{}", leader % gateways);
        let mut sim = Sim::new(spec, &leader);
        // An ask that was open at the start is none of the roll-out's moves.
        sim.run(5);
        let (first, asked) = (sim.leader.clone(), sim.moves.len());
        sim.change("2");
        for step in 0..100 {
            for (_, fault, at) in faults.iter().filter(|(when, ..)| *when == step) {
                let pods: Vec<String> = sim.phases.keys().cloned().collect();
                let pod = &pods[at % pods.len()];
                match fault {
                    0 if *pod != sim.leader => { sim.phases.insert(pod.clone(), Phase::Running); }
                    1 if *pod != sim.leader => { sim.phases.insert(pod.clone(), Phase::Starting); }
                    2 if pod.contains("gateway") && sim.phases[pod] == Phase::Whole => {
                        (sim.leader, sim.epoch) = (pod.clone(), sim.epoch + 1);
                    }
                    3 => sim.world.observed.cluster.status.as_mut().unwrap().rollout = None,
                    _ => {}
                }
                sim.publish();
            }
            sim.step();
            if step % 2 == 0 { sim.come_up(); }
        }
        prop_assert!(sim.world.observed.pods.iter().all(|p| p.revision == sim.revision(p.role.unwrap())),
            "removed {:?}, moves {:?}, {:?}", sim.removed, sim.moves, sim.world.observed.cluster.status);
        if faults.is_empty() {
            let expected = if gateways == 1 { 0 } else if preferred.as_deref() == Some(first.as_str()) { 2 } else { 1 };
            prop_assert_eq!(sim.moves.len() - asked, expected);
            prop_assert_eq!(sim.removed.len(), usize::try_from(gateways + targets).unwrap());
            prop_assert!(sim.is_done());
        }
    }
}
