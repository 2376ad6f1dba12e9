//! Rule 13, "the gateway stops admitting first": how much one gateway takes while nobody leads, what it says then, and
//! that all of it is free again.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

use std::collections::BTreeSet;

use ais_ha::{Action, Config, Discovery, HardState, Input, Millis, Node, Reply, Timers};
use ais_meta::{Address, Addresses, BootId, Change, DiskId, Extra, Kind, Node as Member, RequestId};

/// Ids that a gateway gives out before the first is answered.
const OWN_MAX: usize = 1024;
/// Mutations that it parks, those with ids of clients among them.
const PARKED_MAX: usize = 2048;
const BEGIN_MS: Millis = 10_000;
const PARK_MS: Millis = 15_000;

/// A gateway that waits for two others to found with: nobody leads.
fn alone() -> Node {
    let at = |port| Address { host: "g1".into(), port };
    let member = Member {
        id: "g1".parse().unwrap(),
        disk: DiskId(1),
        run: 1,
        kind: Kind::Gateway,
        addresses: Addresses { public: at(1), control: at(2), peer: at(3) },
        flags: 0,
        domain: String::new(),
        extra: Extra::new(),
    };
    let initial_voters = ["g1", "g2", "g3"].map(|name| name.parse().unwrap()).to_vec();
    let config = Config {
        member,
        boot: BootId(1),
        uuid: None,
        fresh_uuid: "uuid-generated".parse().unwrap(),
        seed: 1,
        voters: 3,
        timers: Timers { park_ms: PARK_MS, ..Timers::default() },
        discovery: Discovery { initial_voters, ..Discovery::default() },
        started_unix_s: 0,
    };
    let mut node = Node::boot(config, HardState::default(), BEGIN_MS);
    assert!(replies(&mut node, BEGIN_MS, Input::Tick).is_empty());
    node
}

/// What is answered in this step.
fn replies(node: &mut Node, now: Millis, input: Input) -> Vec<(RequestId, Reply)> {
    let answer = |action| match action {
        Action::Reply { request, reply } => Some((request, reply)),
        _ => None,
    };
    node.step(now, input).into_iter().filter_map(answer).collect()
}

fn propose(node: &mut Node, now: Millis, request: RequestId) -> Vec<(RequestId, Reply)> {
    let change = Change::DestroyBucket { name: "b".parse().unwrap() };
    replies(node, now, Input::Propose { request, change, basis: None })
}

fn named(number: usize) -> RequestId {
    RequestId::Client(format!("client-{number}"))
}

/// All that is parked since `BEGIN_MS` is answered 503, each once, when its time is over and not before.
fn all_expire(node: &mut Node, count: usize) {
    let until = BEGIN_MS + PARK_MS;
    assert!(node.deadline().is_some_and(|at| at <= until), "it wants to be called by then");
    assert!(replies(node, until - 1, Input::Tick).is_empty());
    let over = replies(node, until, Input::Tick);
    assert!(over.iter().all(|(_, reply)| matches!(reply, Reply::Unavailable)), "nothing was proposed: never 504");
    let distinct: BTreeSet<_> = over.iter().map(|(request, _)| request).collect();
    assert_eq!((over.len(), distinct.len()), (count, count));
}

#[test]
fn a_gateway_without_a_primary_gives_out_so_many_ids_and_no_more() {
    let mut node = alone();
    for number in 0..OWN_MAX {
        let request = node.request_id().unwrap_or_else(|| panic!("no id for mutation {number}"));
        assert!(propose(&mut node, BEGIN_MS, request).is_empty(), "mutation {number} is parked");
    }
    assert_eq!(node.request_id(), None);
    all_expire(&mut node, OWN_MAX);
    let again = BEGIN_MS + PARK_MS;
    for number in 0..OWN_MAX {
        let request = node.request_id().unwrap_or_else(|| panic!("no id for mutation {number} of the second lot"));
        assert!(propose(&mut node, again, request).is_empty());
    }
    assert_eq!(node.request_id(), None);
}

/// An id that was given out takes its place before the proposal comes.
#[test]
fn ids_that_are_given_out_count() {
    let mut node = alone();
    let ids: Vec<RequestId> = (0..OWN_MAX).map_while(|_| node.request_id()).collect();
    assert_eq!((ids.len(), node.request_id()), (OWN_MAX, None));
    for request in ids {
        assert!(propose(&mut node, BEGIN_MS, request).is_empty());
    }
    assert_eq!(node.request_id(), None, "parked, they count once");
    all_expire(&mut node, OWN_MAX);
    assert!(node.request_id().is_some());
}

/// Clients' own ids are taken beyond that, up to a bound of their own; what is over it is refused at once, and what was
/// parked before stays.
#[test]
fn clients_own_ids_have_a_bound_too() {
    let mut node = alone();
    for number in 0..PARKED_MAX {
        assert!(propose(&mut node, BEGIN_MS, named(number)).is_empty(), "mutation {number} is parked");
    }
    assert_eq!(node.request_id(), None);
    let refused = propose(&mut node, BEGIN_MS, named(PARKED_MAX));
    assert!(matches!(refused.as_slice(), [(request, Reply::Unavailable)] if *request == named(PARKED_MAX)));
    all_expire(&mut node, PARKED_MAX);
    let again = BEGIN_MS + PARK_MS;
    assert!(propose(&mut node, again, named(PARKED_MAX)).is_empty(), "there is room");
    assert!(node.request_id().is_some());
}

/// Half and half: ids of the gateway's own leave room for clients that bring theirs.
#[test]
fn a_client_with_its_own_id_finds_room_when_the_gateway_gives_out_none() {
    let mut node = alone();
    for request in (0..OWN_MAX).map_while(|_| node.request_id()).collect::<Vec<_>>() {
        assert!(propose(&mut node, BEGIN_MS, request).is_empty());
    }
    assert_eq!(node.request_id(), None);
    for number in OWN_MAX..PARKED_MAX {
        assert!(propose(&mut node, BEGIN_MS, named(number)).is_empty(), "mutation {number} is parked");
    }
    assert_eq!(propose(&mut node, BEGIN_MS, named(0)).len(), 1);
    all_expire(&mut node, PARKED_MAX);
}
