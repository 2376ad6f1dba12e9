//! Disks for tests.
#![allow(dead_code, reason = "every test program uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ais_ha::{Genesis, HardState, Persist, Vote, Write};
use ais_meta::state::Genesis as Founding;
use ais_meta::{Address, Addresses, BucketName, Change, DiskId, Kind, Node, NodeId, Stamp, State, VoterId};
use ais_node::disk::frame::FileKind;
use ais_node::disk::{Opened, Wanted, Work, load, open};

/// A directory that goes away with the test.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ais-disk-{:016x}", getrandom::u64().unwrap()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

pub fn g1() -> NodeId {
    "g1".parse().unwrap()
}

pub fn opened(directory: &Path) -> Opened {
    open(directory, &Wanted::of(&g1())).unwrap()
}

pub fn first_state() -> State {
    State::genesis(first_genesis()).unwrap()
}

pub fn first_genesis() -> Founding {
    let at = |port| Address { host: "127.0.0.1".into(), port };
    let node = Node {
        id: g1(),
        disk: DiskId(7),
        run: 1,
        kind: Kind::Gateway,
        addresses: Addresses { public: at(1), control: at(2), peer: at(3) },
        flags: 0,
        domain: String::new(),
        extra: ais_meta::Extra::new(),
    };
    let founder = node.voter_id();
    Founding { uuid: "test-cluster".parse().unwrap(), nodes: vec![node], founder, run: 1, lease_ms: 2000, created_s: 5 }
}

/// The State after `state`, with one more bucket, and the way there.
pub fn next_state(state: &State, name: &str) -> Write {
    let mut draft = state.draft(state.stamp().next());
    draft.change(&Change::CreateBucket {
        name: BucketName::new("", name).unwrap(),
        created_ns: 1,
        props: Default::default(),
    });
    let (state, delta) = draft.finish().unwrap();
    Write { state: Arc::new(state), deltas: vec![Arc::new(delta)] }
}

pub fn whole(state: &State) -> Write {
    Write { state: Arc::new(state.clone()), deltas: Vec::new() }
}

pub fn work(write: Option<Write>, committed: Stamp) -> Work {
    let mut work = Work::default();
    let vote = write.as_ref().map(|w| load::promise_of(&w.state)).unwrap_or_default();
    work.add(Persist { token: 1, vote, genesis: None, accepted: write, committed });
    work
}

pub fn vote(promised: u64) -> Vote {
    Vote { incarnation: 0, promised, voted_for: Some(VoterId::new("g2".parse().unwrap(), DiskId(9))) }
}

/// A directory with a promise, an offer, three accepted States of which the second is committed.
pub fn filled(directory: &Path) -> (HardState, DiskId) {
    let mut first = opened(directory);
    let disk = first.disk;
    let one = first_state();
    let two = next_state(&one, "two");
    let three = next_state(&two.state, "three");
    first.store.write(&work(Some(whole(&one)), Stamp::default())).unwrap();
    first.store.write(&work(Some(two.clone()), one.stamp())).unwrap();
    first.store.write(&work(Some(three.clone()), two.state.stamp())).unwrap();
    let genesis = Genesis::Formed("test-cluster".parse().unwrap());
    let mut last = work(None, two.state.stamp());
    (last.vote, last.genesis) = (vote(4), Some(genesis.clone()));
    first.store.write(&last).unwrap();
    let hard =
        HardState { vote: vote(4), genesis, accepted: Some(three.state), committed: Some(two.state), remembered: None };
    (hard, disk)
}

pub fn path(directory: &Path, file: FileKind) -> PathBuf {
    directory.join(file.name())
}
