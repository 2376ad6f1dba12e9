//! Small States to try things on.

#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use std::collections::BTreeMap;

use ais_meta::state::Genesis;
use ais_meta::{Address, Addresses, Change, Delta, DiskId, Draft, Kind, Node, NodeId, Outcome, State};

pub fn node(id: &str, kind: Kind, disk: u64) -> Node {
    let at = |port| Address { host: format!("{id}.example").into(), port };
    Node {
        id: id.parse().unwrap(),
        disk: DiskId(disk),
        run: 1,
        kind,
        addresses: Addresses { public: at(1), control: at(2), peer: at(3) },
        flags: 0,
        domain: String::new(),
        extra: Default::default(),
    }
}

pub fn genesis() -> State {
    let nodes = ["g1", "g2", "g3"].map(|id| node(id, Kind::Gateway, 7)).to_vec();
    let founder = nodes[0].voter_id();
    State::genesis(Genesis { uuid: "cluster-1".parse().unwrap(), nodes, founder, run: 1, lease_ms: 2000, created_s: 5 })
        .unwrap()
}

pub fn next(state: &State, edit: impl FnOnce(&mut Draft)) -> (State, Delta) {
    let mut draft = state.draft(state.stamp().next());
    edit(&mut draft);
    draft.finish().unwrap()
}

pub fn edited(state: &State, edit: impl FnOnce(&mut Draft)) -> State {
    next(state, edit).0
}

pub fn create(name: &str) -> Change {
    Change::CreateBucket { name: name.parse().unwrap(), created_ns: 1, props: Default::default() }
}

pub fn destroy(name: &str) -> Change {
    Change::DestroyBucket { name: name.parse().unwrap() }
}

pub fn join(node: Node) -> Change {
    Change::Join { node: Box::new(node) }
}

pub fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

/// Dotted names and values.
pub fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The State after a change that must not be refused.
pub fn changed(state: &State, change: Change) -> State {
    edited(state, |draft| match draft.change(&change) {
        Outcome::Refused(why) => panic!("{change:?} was refused: {why}"),
        Outcome::Done | Outcome::Began(_) => {}
    })
}
