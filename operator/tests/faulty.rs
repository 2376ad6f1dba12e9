//! Nodes that are slow, lie, disagree or talk nonsense, asked by the operator's own calls; what it decides then.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "faulty/daemon.rs"]
mod daemon;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ais_operator::apply::Write;
use ais_operator::hub::{Hub, Watched};
use ais_operator::names::Role;
use ais_operator::perform::{CallError, Node, TransferOutcome, views};
use ais_operator::plan::order::Order;
use ais_operator::view::{NodeView, Report, Stamp};
use common::{Pass, World};
use daemon::{Daemon, Fault, caller};
use proptest::prelude::*;
use serde_json::{Value, json};

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";
const G2: &str = "demo-gateway-2";
const T0: &str = "demo-target-0";
/// A look may take one second; the machine may be busy.
const LOOK_BOUND: Duration = Duration::from_secs(10);

/// A cluster at rest whose nodes are asked by HTTP.
struct Bench {
    world: World,
    daemons: BTreeMap<String, Daemon>,
}

impl Bench {
    async fn new(spec: Value) -> Self {
        let world = World::settled(spec);
        let mut daemons = BTreeMap::new();
        for (pod, report) in &world.observed.reports {
            let daemon = Daemon::start(pod).await;
            daemon.behave(|m| m.view = serde_json::to_value(report.view().unwrap()).unwrap());
            daemons.insert(pod.clone(), daemon);
        }
        Self { world, daemons }
    }

    /// The same, and all gateways wait for a new template.
    async fn rolling() -> Self {
        let mut bench = Self::new(json!({})).await;
        bench.world.set_spec(json!({"gateways": {"template": {"annotations": {"version": "2"}}}}));
        assert!(bench.world.step().plan.marks.removals.is_empty(), "pods would be made from the old one");
        bench
    }

    fn node(&self, pod: &str) -> &Daemon {
        &self.daemons[pod]
    }

    /// What this node says from now on.
    fn says(&self, pod: &str, edit: impl FnOnce(&mut NodeView)) {
        self.node(pod).behave(|m| {
            let mut view: NodeView = serde_json::from_value(m.view.clone()).unwrap();
            edit(&mut view);
            m.view = serde_json::to_value(view).unwrap();
        });
    }

    /// Asks all nodes, as `observe` does before a decision.
    async fn look(&mut self) {
        let nodes = self.daemons.iter().map(|(pod, d)| (pod.clone(), d.node.clone())).collect();
        for (pod, answer) in views(&caller(), nodes).await {
            let report = match answer {
                Ok(view) => Report::of(&pod, view),
                Err(error) => Report::Lost(error.to_string()),
            };
            self.world.observed.reports.insert(pod, report);
        }
    }

    /// A pass with everything it does: looks, writes, status, and the calls.
    async fn pass(&mut self) -> Pass {
        self.look().await;
        let pass = self.world.step();
        if let Some(t) = &pass.plan.primary.transfer {
            let outcome = caller().transfer(&self.node(&t.from).node, &t.from, &t.to, t.epoch, t.timeout).await;
            self.world.observed.outcome = Some(outcome);
        }
        if let (Some(order), Some(leader)) = (&pass.plan.order, &pass.plan.agreement.leader) {
            let outcome = caller().order(&self.node(&leader.node_id).node, order).await;
            self.world.observed.order = Some((order.clone(), outcome));
        }
        pass
    }

    /// What all nodes together were asked to do.
    fn asked(&self) -> Vec<String> {
        self.daemons.values().flat_map(Daemon::asked).collect()
    }
}

/// Nothing but status was written and nobody was asked for anything.
fn nothing_is_done(pass: &Pass) {
    assert!(pass.writes.is_empty(), "{:?}", pass.writes);
    assert!(pass.plan.primary.transfer.is_none() && pass.plan.order.is_none() && pass.plan.config.call.is_none());
}

fn wants_a_move() -> Value {
    json!({"primary": {"preferred": [G1], "timeoutSeconds": 30}})
}

fn deleted(pass: &Pass) -> Vec<&str> {
    let mut names = Vec::new();
    for write in &pass.writes {
        if let Write::DeletePod { name, .. } = write {
            names.push(name.as_str());
        }
    }
    names
}

/// The primary answers, but after the deadline: it counts as silent, and what needs it waits.
#[tokio::test]
async fn a_slow_primary_is_silent_and_everything_waits_for_it() {
    let mut bench = Bench::new(json!({})).await;
    bench.node(G0).behave(|m| m.looks = Fault::Late(Duration::from_secs(30)));
    bench.world.set_spec(wants_a_move());
    let began = Instant::now();
    let pass = bench.pass().await;
    assert!(began.elapsed() < LOOK_BOUND, "{:?}", began.elapsed());
    assert!(matches!(&bench.world.observed.reports[G0], Report::Lost(why) if why.contains("time-out")));
    nothing_is_done(&pass);
    assert_eq!(pass.plan.agreement.leader.as_ref().unwrap().node_id, G0, "its followers still acknowledge it");
    assert_eq!(pass.condition("PrimaryPreferred").1, "MembersUnreachable");
    // In time again, it is moved.
    bench.node(G0).behave(|m| m.looks = Fault::None);
    assert!(bench.pass().await.plan.primary.transfer.is_some());

    let mut bench = Bench::rolling().await;
    bench.node(G0).behave(|m| m.looks = Fault::Late(Duration::from_secs(30)));
    let pass = bench.pass().await;
    assert!(deleted(&pass).is_empty());
    assert!(pass.plan.rollout.message.contains("does not answer"), "{}", pass.plan.rollout.message);
    bench.node(G0).behave(|m| m.looks = Fault::None);
    assert_eq!(deleted(&bench.pass().await).len(), 1);
}

/// A call that is never answered, or never ends, takes the time it was given.
#[tokio::test]
async fn calls_end_at_their_deadlines() {
    let daemon = Daemon::start(G0).await;
    for fault in [Fault::Never, Fault::Drip] {
        daemon.behave(|m| (m.looks, m.acts) = (fault.clone(), fault));
        let (caller, node, began) = (caller(), &daemon.node, Instant::now());
        let (look, outcome) =
            tokio::join!(caller.view(node), caller.transfer(node, G0, G1, 3, Duration::from_millis(300)));
        assert!(matches!(look, Err(CallError::Transport(_))), "{look:?}");
        assert!(matches!(outcome, TransferOutcome::Unknown(_)), "{outcome:?}");
        assert!(began.elapsed() < LOOK_BOUND, "{:?}", began.elapsed());
    }
}

/// "Done" without an effect: nothing is believed, nothing is repeated in haste, and it ends.
#[tokio::test]
async fn a_move_that_was_only_said_to_be_done_is_not() {
    let mut bench = Bench::new(json!({})).await;
    bench.world.set_spec(wants_a_move());
    assert!(bench.pass().await.plan.primary.transfer.is_some());
    assert_eq!(bench.world.observed.outcome, Some(TransferOutcome::Answered));
    let asked = bench.asked();
    assert!(asked.len() == 1 && asked[0].contains("expected-primary=demo-gateway-0&expected-epoch=1"), "{asked:?}");
    for _ in 0..10 {
        let pass = bench.pass().await;
        nothing_is_done(&pass);
        assert_eq!(pass.condition("PrimaryPreferred").1, "SwitchingPrimary");
        assert_eq!(pass.status.primary.current.as_deref(), Some(G0));
        bench.world.after(2);
    }
    let pass = bench.world.after(11).pass();
    assert_eq!((pass.status.primary.attempts, pass.status.primary.attempt.is_none()), (1, true));
    assert!(bench.pass().await.plan.primary.transfer.is_none(), "it backs off");
    assert_eq!(bench.asked().len(), 1);
    bench.world.observed.outcome = None;
    for _ in 0..400 {
        bench.world.after(10);
        bench.pass().await;
    }
    let status = bench.world.observed.cluster.status.clone().unwrap();
    assert_eq!(bench.asked().len(), 5, "as often as an ask is tried");
    assert!(status.primary.attempt.is_none() && status.primary.pending_request.is_none());
    assert_eq!(status.primary.last_transition.unwrap().result, "Failed");
}

/// The same of a member that is to leave, of a stop, and of settings.
#[tokio::test]
async fn nobody_goes_because_a_node_said_so() {
    let mut bench = Bench::new(json!({})).await;
    bench.world.set_spec(json!({"gateways": {"replicas": 2}}));
    for _ in 0..6 {
        let pass = bench.pass().await;
        bench.world.after(3);
        assert_eq!((pass.plan.replicas.of(Role::Gateway), pass.plan.scale.dropped.len()), (3, 0));
    }
    assert_eq!(bench.world.observed.order, Some((Order::Decommission(G2.into()), TransferOutcome::Answered)));

    let mut bench = Bench::new(json!({})).await;
    bench.world.set_spec(json!({"state": "Stopped"}));
    for pod in [G0, G1] {
        for _ in 0..3 {
            let pass = bench.pass().await;
            bench.world.after(3);
            assert_eq!((pass.plan.order, pass.plan.replicas.of(Role::Gateway)), (Some(Order::Stopping(true)), 3));
        }
        // Two of five say that they know: no majority.
        bench.says(pod, |v| v.cluster_stopping = true);
    }
    let asked = bench.asked();
    assert!(!asked.is_empty() && asked.iter().all(|call| call.contains("/v1/ha/stopping")), "{asked:?}");
}

/// A follower that calls itself primary: in the reign there is, everything stops; in one of its own, nobody follows.
#[tokio::test]
async fn one_that_claims_to_lead_is_not_followed() {
    let mut bench = Bench::new(json!({})).await;
    bench.world.set_spec(wants_a_move());
    let claims = |v: &mut NodeView| (v.role, v.primary) = ("primary".into(), Some(G2.into()));
    bench.says(G2, claims);
    let pass = bench.pass().await;
    nothing_is_done(&pass);
    assert_eq!(pass.condition("PrimaryPreferred").1, "SplitBrainSuspected");
    assert_eq!(pass.condition("Degraded"), ("True".into(), "SplitBrainSuspected".into()));
    let mut rolling = Bench::rolling().await;
    rolling.says(G2, claims);
    assert!(deleted(&rolling.pass().await).is_empty());

    bench.says(G2, |v| v.stamp = Some(Stamp { incarnation: 0, epoch: 9, seq: 1 }));
    let endpoint = bench.world.observed.primary_map.clone();
    let pass = bench.pass().await;
    assert_eq!(pass.plan.agreement.leader.as_ref().unwrap().node_id, G0);
    assert_eq!(pass.plan.primary.transfer.as_ref().map(|t| t.from.as_str()), Some(G0));
    assert_eq!((bench.world.observed.primary_map.clone(), pass.plan.marks.primary.len()), (endpoint, 0));
}

/// Two halves with a primary each, and no majority: what is recorded stays, and nobody is moved or replaced.
#[tokio::test]
async fn two_views_without_a_majority_are_no_primary() {
    let mut bench = Bench::new(json!({})).await;
    bench.world.set_spec(wants_a_move());
    let mut rolling = Bench::rolling().await;
    let endpoint = bench.world.observed.primary_map.clone();
    for bench in [&bench, &rolling] {
        for pod in [G1, T0] {
            let stamp = Some(Stamp { incarnation: 0, epoch: 2, seq: 1 });
            bench.says(pod, |v| (v.stamp, v.primary) = (stamp, Some(G1.into())));
        }
        bench.says(G1, |v| v.role = "primary".into());
        bench.node(G2).behave(|m| m.looks = Fault::Cut);
    }
    let pass = bench.pass().await;
    nothing_is_done(&pass);
    assert!(pass.plan.agreement.leader.is_none());
    assert_eq!(pass.condition("Available"), ("False".into(), "NoPrimary".into()));
    assert_eq!(pass.condition("PrimaryPreferred").1, "ClusterBusy");
    assert!(deleted(&rolling.pass().await).is_empty());
    assert_eq!(bench.world.observed.primary_map, endpoint);
    // One more voter decides it.
    bench.node(G2).behave(|m| m.looks = Fault::None);
    bench.says(G2, |v| (v.stamp, v.primary) = (Some(Stamp { incarnation: 0, epoch: 2, seq: 1 }), Some(G1.into())));
    let pass = bench.pass().await;
    assert_eq!(pass.plan.agreement.leader.unwrap().node_id, G1);
}

/// An answer that breaks off is none: of a look the node is silent, of a move nobody knows.
#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let mut bench = Bench::new(json!({})).await;
    bench.node(G0).behave(|m| m.acts = Fault::Cut);
    bench.world.set_spec(wants_a_move());
    bench.pass().await;
    assert!(matches!(bench.world.observed.outcome, Some(TransferOutcome::Unknown(_))));
    let pass = bench.pass().await;
    nothing_is_done(&pass);
    assert_eq!(pass.condition("PrimaryPreferred").1, "SwitchingPrimary");
    bench.node(G1).behave(|m| m.looks = Fault::Cut);
    bench.look().await;
    assert!(bench.world.observed.reports[G1].view().is_none());

    // Of the stream as well: what came whole counts, then the node is asked, and then it is lost.
    let (hub, _triggers) = Hub::new();
    let key = ("ns".to_owned(), "demo".to_owned());
    let watched = Watched { pod: G1.into(), uid: "1".into(), node: bench.node(G1).node.clone() };
    hub.sync(&key, daemon::SECRET, &caller(), vec![watched]);
    let reports = hub.reports(&key, LOOK_BOUND).await;
    assert!(reports[G1].view().is_none(), "{reports:?}");
    hub.forget(&key);
}

/// A body without an end is given up after the largest answer there may be.
#[tokio::test]
async fn a_huge_body_is_not_read_to_its_end() {
    /// What is read, and what lies in the buffers of two sockets.
    const TAKEN_MAX: usize = 64 << 20;
    let daemon = Daemon::start(G0).await;
    daemon.behave(|m| (m.looks, m.acts) = (Fault::Huge, Fault::Huge));
    let error = caller().view(&daemon.node).await.unwrap_err();
    assert!(matches!(&error, CallError::Body(why) if why.contains("larger")), "{error}");
    let outcome = caller().transfer(&daemon.node, G0, G1, 1, LOOK_BOUND).await;
    assert!(matches!(outcome, TransferOutcome::Unknown(_)), "{outcome:?}");
    let mut stream = caller().watch(&daemon.node).await.unwrap();
    assert!(matches!(stream.next().await, Err(CallError::Body(_))));
    assert!(daemon.taken() < TAKEN_MAX, "{} bytes were taken", daemon.taken());
}

/// Signed nonsense is no view, whatever it is.
#[tokio::test]
async fn nonsense_is_no_view() {
    let daemon = Daemon::start(G0).await;
    let deep = "[".repeat(100_000);
    let texts =
        ["", "null", "7", "[]", "{", "\"x\"", r#"{"node_id": 5}"#, r#"{"stamp": {"epoch": -1}}"#, "\u{0}", &deep];
    for text in texts {
        daemon.behave(|m| m.looks = Fault::Instead(text.to_owned()));
        let answer = caller().view(&daemon.node).await;
        let silent = match answer {
            Ok(view) => Report::of(G0, view).view().is_none(),
            Err(error) => matches!(error, CallError::Body(_)),
        };
        assert!(silent, "{text:.40}");
    }
}

/// Nodes of another cluster count for nothing, however many they are.
#[tokio::test]
async fn nodes_of_another_cluster_do_not_count() {
    let mut bench = Bench::new(json!({})).await;
    bench.says(G2, |v| v.cluster_uuid = Some("another".into()));
    let pass = bench.pass().await;
    nothing_is_done(&pass);
    assert_eq!(pass.plan.agreement.leader.as_ref().unwrap().acknowledged, 4);
    assert_eq!(pass.plan.agreement.strangers, [(G2.to_owned(), "another".to_owned())]);
    assert_eq!(pass.condition("Degraded").0, "True");
    // If any pod goes now, it is this one: another one would be a second that is not there.
    let mut rolling = Bench::rolling().await;
    rolling.says(G2, |v| v.cluster_uuid = Some("another".into()));
    assert!(deleted(&rolling.pass().await).iter().all(|pod| *pod == G2));
    for pod in [G0, G1] {
        bench.says(pod, |v| v.cluster_uuid = Some("another".into()));
    }
    let pass = bench.pass().await;
    assert!(pass.plan.agreement.leader.is_none() && deleted(&pass).is_empty());
}

/// A pod's address may be another pod's by now: what its node says is not said by this one.
#[tokio::test]
async fn a_node_that_answers_for_another_pod_is_not_that_pods() {
    let mut bench = Bench::new(json!({})).await;
    let view = serde_json::to_value(bench.world.observed.reports[G0].view().unwrap()).unwrap();
    bench.node(G2).behave(|m| m.view = view);
    bench.look().await;
    let report = &bench.world.observed.reports[G2];
    assert!(matches!(report, Report::Lost(why) if why.contains(G0)), "{report:?}");
}

/// A successor whose stamps are of another reign, or behind, does not hold what the primary holds; and neither does a
/// voter that the primary has not heard of it.
#[tokio::test]
async fn wrong_stamps_close_the_gates() {
    let stamp = |epoch, seq| Some(Stamp { incarnation: 0, epoch, seq });
    for wrong in [None, stamp(0, 7), stamp(9, 7), Some(Stamp { incarnation: 3, epoch: 1, seq: 7 })] {
        let mut bench = Bench::new(json!({})).await;
        bench.says(G1, |v| v.stamp = wrong);
        bench.world.set_spec(wants_a_move());
        let pass = bench.pass().await;
        nothing_is_done(&pass);
        assert_eq!(pass.condition("PrimaryPreferred").1, "PreferredNotSynced", "{wrong:?}");
    }
    for wrong in [None, stamp(0, 7), stamp(9, 7)] {
        let mut bench = Bench::rolling().await;
        bench.says(G0, |v| v.members.iter_mut().filter(|m| m.node_id == T0).for_each(|m| m.acked = wrong));
        let pass = bench.pass().await;
        assert!(deleted(&pass).is_empty(), "{wrong:?}");
        let told = pass.plan.rollout.message;
        assert!(told.contains("demo-target-0 votes, and has not caught up"), "{wrong:?}: {told}");
    }
}

/// Found by the test below: a sum over a stamp's number that a node can choose ended the process.
#[test]
fn the_largest_stamp_is_only_a_large_stamp() {
    let mut world = World::settled(json!({"targets": {"replicas": 3}}));
    let largest = Some(Stamp { incarnation: 0, epoch: 1, seq: u64::MAX });
    world.view(G1).stamp = largest;
    world.member(G0, T0).acked = largest;
    world.set_spec(json!({"gateways": {"template": {"annotations": {"version": "2"}}}}));
    world.step();
    assert_eq!(world.step().plan.rollout.old.len(), 3);
    let mut world = World::settled(json!({}));
    world.view(G1).stamp = largest;
    world.set_spec(wants_a_move());
    assert!(world.pass().plan.primary.transfer.is_some(), "it is ahead, and not behind");
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(7), Just(u64::MAX - 50), Just(u64::MAX)]
}

fn signed() -> impl Strategy<Value = i64> {
    prop_oneof![Just(i64::MIN), Just(-1), Just(0), Just(105), Just(i64::MAX)]
}

fn name() -> impl Strategy<Value = String> {
    let names = [G0, G1, G2, T0, "demo-gateway-99999999999", "demo-target-", "", "\u{1f600}\u{0}"];
    prop::sample::select(names.map(str::to_owned).to_vec())
}

#[derive(Clone, Debug)]
struct Lie {
    stamp: Option<(u64, u64, u64)>,
    promised: Option<u64>,
    primary: Option<String>,
    role: &'static str,
    numbers: (i64, i64, Option<i64>),
    voters: Vec<String>,
    members: Vec<(String, Option<u64>, bool, bool)>,
    flags: (bool, bool, bool),
}

fn lie() -> impl Strategy<Value = Lie> {
    let stamp = prop::option::of((number(), number(), number()));
    let role = prop::sample::select(vec!["primary", "follower", "founding", ""]);
    let members = prop::collection::vec((name(), prop::option::of(number()), any::<bool>(), any::<bool>()), 0..4);
    (
        (stamp, prop::option::of(number()), prop::option::of(name()), role),
        (signed(), signed(), prop::option::of(signed())),
        (prop::collection::vec(name(), 0..4), members, any::<(bool, bool, bool)>()),
    )
        .prop_map(|((stamp, promised, primary, role), numbers, (voters, members, flags))| Lie {
            stamp,
            promised,
            primary,
            role,
            numbers,
            voters,
            members,
            flags,
        })
}

fn tell(view: &mut NodeView, lie: &Lie) {
    let stamp = |(incarnation, epoch, seq)| Stamp { incarnation, epoch, seq };
    view.stamp = lie.stamp.map(stamp);
    view.promised = lie.promised;
    view.primary.clone_from(&lie.primary);
    view.role = lie.role.into();
    (view.smap_version, view.config_version, view.primary_since_ms) = lie.numbers;
    (view.formed, view.ready, view.cluster_stopping) = lie.flags;
    let voter = |n: &String| json!({"node_id": n, "disk_id": "d", "kind": "gateway"});
    view.electorate = lie.voters.iter().map(|n| serde_json::from_value(voter(n)).unwrap()).collect();
    let member = |(n, seq, a, b): &(String, Option<u64>, bool, bool)| {
        let acked = seq.map(|seq| json!({"incarnation": 0, "epoch": 1, "seq": seq}));
        serde_json::from_value(json!({"node_id": n, "acked": acked, "connected": a, "maintenance": b})).unwrap()
    };
    view.members = lie.members.iter().map(member).collect();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever two nodes of five say: a pass ends, a second pass over the same says the same, and nobody's volume goes.
    #[test]
    fn no_lie_ends_the_process(lies in prop::collection::vec((name(), lie()), 1..3), what in 0..4) {
        let mut world = World::settled(json!({}));
        match what {
            0 => world.set_spec(wants_a_move()),
            1 => world.set_spec(json!({"gateways": {"replicas": 2}})),
            2 => world.set_spec(json!({"state": "Stopped"})),
            _ => world.set_spec(json!({"gateways": {"template": {"annotations": {"version": "2"}}}})),
        }
        for (pod, lie) in lies.iter().filter(|(pod, _)| world.observed.pod(pod).is_some()).cloned().collect::<Vec<_>>() {
            tell(world.view(&pod), &lie);
        }
        for _ in 0..3 {
            let pass = world.step();
            let status = serde_json::to_string(&pass.status).unwrap();
            prop_assert!(status.len() < 100_000);
            let lost = pass.writes.iter().any(|w| matches!(w, Write::DeleteClaim { .. }));
            prop_assert!(!lost, "{:?}", pass.writes);
            world.after(1);
        }
    }
}

/// Calls to nodes that are not there end at once and harm nobody.
#[tokio::test]
async fn nobody_at_that_address() {
    let dead = Node { address: "127.0.0.1:1".into(), host: "x".into() };
    assert!(matches!(caller().view(&dead).await, Err(CallError::Transport(_))));
    let outcome = caller().order(&dead, &Order::Stopping(true)).await;
    assert!(matches!(outcome, TransferOutcome::Unknown(_)), "{outcome:?}");
}
