//! Random worlds against the decision about the primary: whatever happens, never two moves at once, never one without
//! a majority or to a gateway that may not lead, and it always ends.
#![allow(clippy::unwrap_used)]

mod common;

use ais_crds::PrimaryStatus;
use ais_operator::names::Role;
use ais_operator::perform::TransferOutcome;
use ais_operator::plan::primary::{Decision, Errand, Situation, Transfer, decide, request_key};
use ais_operator::plan::{Plan, plan};
use ais_operator::status;
use ais_operator::validate::validate;
use common::{World, round_trip};
use proptest::prelude::*;
use serde_json::json;

const GATEWAYS: usize = 3;
/// Three gateways and two targets vote.
const VOTERS: usize = 5;

#[derive(Clone, Debug)]
enum Act {
    Tick(i64),
    Elect(usize),
    Leaderless,
    Alive(usize, bool),
    Ready(usize, bool),
    NonElectable(usize, bool),
    Maintenance(usize, bool),
    Prefer(Vec<usize>),
    Request(u8),
    Expect(Option<usize>),
    Automatic(bool),
    Errand(Option<(u8, usize)>),
    Complete,
    Refuse,
    Unknown,
    Paused(bool),
    Fresh(bool),
    LoseStatus,
    RestartOperator,
    Reapply,
}

fn act() -> impl Strategy<Value = Act> {
    let g = 0..GATEWAYS;
    prop_oneof![
        4 => (1i64..60).prop_map(Act::Tick),
        1 => (60i64..4000).prop_map(Act::Tick),
        2 => g.clone().prop_map(Act::Elect),
        1 => Just(Act::Leaderless),
        2 => (g.clone(), any::<bool>()).prop_map(|(n, is)| Act::Alive(n, is)),
        2 => (g.clone(), any::<bool>()).prop_map(|(n, is)| Act::Ready(n, is)),
        1 => (g.clone(), any::<bool>()).prop_map(|(n, is)| Act::NonElectable(n, is)),
        1 => (g.clone(), any::<bool>()).prop_map(|(n, is)| Act::Maintenance(n, is)),
        2 => Just((0..GATEWAYS).collect::<Vec<_>>()).prop_shuffle()
            .prop_flat_map(|all| (0..=GATEWAYS).prop_map(move |n| Act::Prefer(all[..n].to_vec()))),
        2 => (0u8..3).prop_map(Act::Request),
        1 => proptest::option::of(g.clone()).prop_map(Act::Expect),
        1 => any::<bool>().prop_map(Act::Automatic),
        2 => proptest::option::of((0u8..3, g)).prop_map(Act::Errand),
        4 => Just(Act::Complete),
        2 => Just(Act::Refuse),
        1 => Just(Act::Unknown),
        1 => any::<bool>().prop_map(Act::Paused),
        1 => any::<bool>().prop_map(Act::Fresh),
        1 => Just(Act::LoseStatus),
        1 => Just(Act::RestartOperator),
        1 => Just(Act::Reapply),
    ]
}

fn name(n: usize) -> String {
    format!("demo-gateway-{n}")
}

/// The cluster, told by a model much simpler than the code.
struct Model {
    world: World,
    epoch: u64,
    leader: Option<usize>,
    alive: [bool; GATEWAYS],
    ready: [bool; GATEWAYS],
    non_electable: [bool; GATEWAYS],
    maintenance: [bool; GATEWAYS],
    errand: Option<Errand>,
    /// Called, and nothing is known of it yet.
    outstanding: Option<Transfer>,
    /// It was refused: it will never happen.
    refused: bool,
    moves: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            world: World::settled(json!({"primary": {"stabilizationSeconds": 60}})),
            epoch: 1,
            leader: Some(0),
            alive: [true; GATEWAYS],
            ready: [true; GATEWAYS],
            non_electable: [false; GATEWAYS],
            maintenance: [false; GATEWAYS],
            errand: None,
            outstanding: None,
            refused: false,
            moves: 0,
        }
    }

    /// Facts as this model has them.
    fn tell(&mut self) {
        let leader = self.leader.filter(|n| self.alive[*n] && self.majority());
        let said = name(leader.unwrap_or(0));
        self.world.lead(&said, self.epoch);
        for n in 0..GATEWAYS {
            self.world.pod(&name(n)).ready = self.ready[n] && self.alive[n];
            let (non_electable, maintenance) = (self.non_electable[n], self.maintenance[n]);
            let member = self.world.member(&said, &name(n));
            (member.non_electable, member.maintenance) = (non_electable, maintenance);
        }
        if leader.is_none() {
            self.world.leaderless();
        }
        for n in (0..GATEWAYS).filter(|n| !self.alive[*n]) {
            self.world.lose(&name(n));
        }
    }

    fn majority(&self) -> bool {
        VOTERS - self.alive.iter().filter(|a| !**a).count() > VOTERS / 2
    }

    fn may_lead(&self, n: usize) -> bool {
        self.alive[n] && self.ready[n] && !self.non_electable[n] && !self.maintenance[n]
    }

    fn memory(&self) -> PrimaryStatus {
        self.world.observed.cluster.status.as_ref().map(|s| s.primary.clone()).unwrap_or_default()
    }

    fn elect(&mut self, n: usize) {
        if self.alive[n] && self.majority() {
            self.epoch += 1;
            self.leader = Some(n);
        }
    }

    /// The call under way takes effect, if the cluster is still as it expects.
    fn complete(&mut self) {
        let Some(transfer) = self.outstanding.take() else { return };
        let to = (0..GATEWAYS).find(|n| name(*n) == transfer.to).unwrap();
        let as_expected = self.leader.map(name) == Some(transfer.from) && self.epoch == transfer.epoch;
        if as_expected && self.alive[to] && !self.refused {
            self.elect(to);
            self.moves += 1;
        }
    }

    fn act(&mut self, act: &Act) {
        let gateways = |list: &[usize]| list.iter().map(|n| name(*n)).collect::<Vec<_>>();
        match act {
            Act::Tick(s) => {
                self.world.after(*s);
            }
            Act::Elect(n) => self.elect(*n),
            Act::Leaderless => self.leader = None,
            Act::Alive(n, is) => self.alive[*n] = *is,
            Act::Ready(n, is) => self.ready[*n] = *is,
            Act::NonElectable(n, is) => self.non_electable[*n] = *is,
            Act::Maintenance(n, is) => self.maintenance[*n] = *is,
            Act::Prefer(list) => self.world.set_spec(json!({"primary": {"preferred": gateways(list)}})),
            Act::Request(n) => self.world.set_spec(json!({"primary": {"request": n.to_string()}})),
            Act::Expect(n) => {
                self.world.set_spec(json!({"primary": {"expectedCurrent": n.map(name).unwrap_or_default()}}));
            }
            Act::Automatic(is) => {
                let policy = if *is { "Automatic" } else { "Manual" };
                self.world.set_spec(json!({"primary": {"failback": policy}}));
            }
            Act::Errand(errand) => {
                self.errand = errand.map(|(reason, n)| Errand {
                    reason: ["Rollout", "ScaleDown", "Drain"][usize::from(reason)],
                    away_from: name(n),
                    prefer: Vec::new(),
                });
            }
            Act::Complete => self.complete(),
            Act::Refuse if self.outstanding.is_some() => {
                self.refused = true;
                self.world.observed.outcome = Some(TransferOutcome::Refused("busy (409)".into()));
            }
            Act::Unknown => self.world.observed.outcome = Some(TransferOutcome::Unknown("time-out".into())),
            Act::Paused(is) => self.world.set_spec(json!({"paused": is})),
            Act::Fresh(is) => self.world.observed.fresh = *is,
            Act::LoseStatus => self.world.observed.cluster.status = None,
            Act::RestartOperator => self.world.restart_operator(),
            Act::Refuse | Act::Reapply => {}
        }
        self.tell();
    }

    /// One pass, and everything that must hold of it.
    fn pass(&mut self) -> Decision {
        let before = self.memory();
        let observed = &self.world.observed;
        let valid = validate(observed).unwrap();
        let mut plan: Plan = plan(&valid, observed);
        plan.primary = decide(&Situation {
            valid: &valid,
            observed,
            agreement: &plan.agreement,
            formed: plan.founding.formed,
            gateways: plan.replicas.of(Role::Gateway),
            errand: self.errand.as_ref(),
            outdated: false,
        });
        let status = round_trip(&status::status(&valid, observed, &plan));
        let decision = plan.primary;
        if let Some(transfer) = &decision.transfer {
            self.check(&before, transfer, &decision);
            self.outstanding = Some(transfer.clone());
            self.refused = false;
            self.world.observed.outcome = None;
        }
        assert_eq!(status.primary.target.is_some(), status.primary.attempt.is_some());
        assert!(status.primary.history.len() <= 5 && status.primary.automatic_failbacks.len() <= 3);
        if let Some(errand) = self.errand.as_ref().filter(|_| decision.errand_done) {
            assert_ne!(self.leader.map(name), Some(errand.away_from.clone()), "done is away");
        }
        self.world.observed.hold.clone_from(&decision.hold);
        self.world.observed.cluster.status = Some(status);
        decision
    }

    fn check(&self, before: &PrimaryStatus, transfer: &Transfer, decision: &Decision) {
        let spec = &self.world.observed.cluster.spec;
        assert!(!spec.paused && self.world.observed.fresh);
        assert!(self.majority(), "a move without a majority");
        assert_eq!((self.leader.map(name), self.epoch), (Some(transfer.from.clone()), transfer.epoch));
        let to = (0..GATEWAYS).find(|n| name(*n) == transfer.to).unwrap();
        assert!(self.may_lead(to) && transfer.to != transfer.from, "a move to {}", transfer.to);
        assert_eq!(decision.memory.target.as_ref(), Some(&transfer.to), "in status before it is done");
        if let Some(old) = &before.attempt {
            let overdue =
                self.world.observed.now.duration_since(old.started_at.0).as_secs() > spec.primary.timeout_seconds;
            let over = overdue || self.refused || i64::try_from(self.epoch).unwrap() > old.epoch;
            assert!(over, "two moves at once: {old:?} and {transfer:?}");
        }
        let errand = self.errand.as_ref();
        assert!(errand.is_none_or(|e| e.away_from != transfer.to), "a move to the pod that goes");
        let asked = before.handled_request.as_deref() != Some(&request_key(&spec.primary));
        let needed = errand.is_some_and(|e| e.away_from == transfer.from);
        let automatic = spec.primary.failback == ais_crds::Failback::Automatic;
        assert!(asked || needed || automatic, "nobody wanted {transfer:?}");
    }

    /// Everybody is back, calls succeed: how it is after a while.
    fn heal(&mut self) {
        (self.alive, self.ready) = ([true; GATEWAYS], [true; GATEWAYS]);
        (self.non_electable, self.maintenance) = ([false; GATEWAYS], [false; GATEWAYS]);
        self.errand = None;
        self.leader = self.leader.or(Some(1));
        self.epoch += 1;
        self.world.observed.fresh = true;
        self.act(&Act::Paused(false));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn moves_are_one_at_a_time_safe_and_end(acts in prop::collection::vec(act(), 1..60)) {
        let mut model = Model::new();
        for act in &acts {
            model.act(act);
            model.pass();
        }
        model.heal();
        // An hour of flap protection, a hold, and a back-off or two.
        for _ in 0..150 {
            model.pass();
            model.complete();
            model.act(&Act::Tick(30));
        }
        let (memory, spec) = (model.memory(), model.world.observed.cluster.spec.primary.clone());
        prop_assert!(memory.attempt.is_none() && memory.pending_request.is_none() && memory.target.is_none());
        prop_assert_eq!(memory.handled_request, Some(request_key(&spec)));
        let current = model.leader.map(name);
        if spec.failback == ais_crds::Failback::Automatic {
            prop_assert!(spec.preferred.first() == current.as_ref() || spec.preferred.is_empty());
        }
        // At rest nothing moves, also when the same manifest is applied again.
        let (moves, status) = (model.moves, model.world.observed.cluster.status.clone());
        for _ in 0..10 {
            model.act(&Act::Reapply);
            model.act(&Act::Tick(30));
            let decision = model.pass();
            prop_assert!(decision.transfer.is_none() && decision.notes.is_empty());
        }
        prop_assert_eq!(model.moves, moves);
        prop_assert_eq!(model.world.observed.cluster.status, status);
    }
}
