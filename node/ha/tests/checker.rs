//! The checker itself. Each check is shown a history that breaks its invariant, and the same history without the breach:
//! a check that never failed proves nothing.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

use ais_ha::invariant::{self, Disk, Verdict, World};
use ais_ha::register::Term;
use ais_meta::state::Genesis;
use ais_meta::{
    Address, Addresses, BucketName, Change, DiskId, Extra, Kind, Node, Outcome, Stamp, State, Voter, VoterId,
};

fn node(name: &str, disk: u64) -> Node {
    let at = |port| Address { host: name.into(), port };
    Node {
        id: name.parse().unwrap(),
        disk: DiskId(disk),
        run: 1,
        kind: Kind::Gateway,
        addresses: Addresses { public: at(1), control: at(2), peer: at(3) },
        flags: 0,
        domain: String::new(),
        extra: Extra::new(),
    }
}

fn voter(name: &str, disk: u64) -> VoterId {
    node(name, disk).voter_id()
}

/// State(1,1) of three gateways.
fn founded(uuid: &str) -> State {
    let nodes = ["g1", "g2", "g3"].map(|name| node(name, 7)).to_vec();
    let founder = nodes[0].voter_id();
    State::genesis(Genesis { uuid: uuid.parse().unwrap(), nodes, founder, run: 1, lease_ms: 2000, created_s: 5 })
        .unwrap()
}

fn after(state: &State, change: &Change) -> State {
    let mut draft = state.draft(state.stamp().next());
    assert_eq!(draft.change(change), Outcome::Done);
    draft.finish().unwrap().0
}

fn bucket() -> BucketName {
    "b".parse().unwrap()
}

fn create() -> Change {
    Change::CreateBucket { name: bucket(), created_ns: 1, props: Default::default() }
}

fn destroy() -> Change {
    Change::DestroyBucket { name: bucket() }
}

/// Written, and on the disks of two voters of three.
fn commit(world: &mut World, state: &State, parent: Option<Stamp>) {
    let stamp = state.stamp();
    world.wrote(state, parent).unwrap();
    for name in ["g1", "g2"] {
        let now = Disk { promised: stamp.into(), accepted: stamp, committed: Stamp::default() };
        world.stored(&voter(name, 7), now, Some(state)).unwrap();
    }
    assert_eq!(world.newest(), stamp, "it is committed");
}

/// A cluster, and after it one with a bucket that somebody was told is there.
fn with_a_bucket() -> (World, State, State) {
    let mut world = World::default();
    let empty = founded("cluster-1");
    commit(&mut world, &empty, None);
    world.asks_create(&bucket());
    let holds = after(&empty, &create());
    commit(&mut world, &holds, Some(empty.stamp()));
    world.done(&bucket(), true, holds.stamp()).unwrap();
    (world, empty, holds)
}

#[track_caller]
fn breaks(invariant: &str, verdict: Verdict) {
    let violation = verdict.expect_err(invariant);
    assert_eq!(violation.invariant, invariant, "{violation}");
}

#[test]
fn i7_a_wiped_disk_that_acknowledges() {
    let mut world = World::default();
    let state = founded("cluster-1");
    commit(&mut world, &state, None);
    let (stamp, old, new) = (state.stamp(), voter("g2", 7), voter("g2", 8));
    let said = |world: &mut World, who: &VoterId| world.acknowledged(who, stamp.into(), Some((stamp, None)));
    said(&mut world, &old).unwrap();

    world.wiped(&old);
    // Its disk would still hold what it says: only the wipe speaks against it.
    breaks("I7", said(&mut world, &old));
    breaks("I7", world.acknowledged(&old, Term::default(), None));
    said(&mut world, &voter("g1", 7)).unwrap();
    // The same node with its new disk, once that has accepted the State.
    let now = Disk { promised: stamp.into(), accepted: stamp, committed: Stamp::default() };
    world.stored(&new, now, Some(&state)).unwrap();
    said(&mut world, &new).unwrap();
}

#[test]
fn l5_a_read_that_misses_a_bucket_answered_before() {
    let (world, empty, holds) = with_a_bucket();
    let (by, known) = (voter("g3", 7), [bucket()]);
    world.read(&by, &holds, &known, &[]).unwrap();
    breaks("L5", world.read(&by, &empty, &known, &[]));
    // Nothing was answered before this read began.
    world.read(&by, &empty, &[], &[]).unwrap();
}

#[test]
fn l5_a_read_that_shows_a_bucket_destroyed_before() {
    let (mut world, _, holds) = with_a_bucket();
    let (by, known) = (voter("g3", 7), [bucket()]);
    world.asks_destroy(&bucket());
    let gone = after(&holds, &destroy());
    commit(&mut world, &gone, Some(holds.stamp()));
    world.done(&bucket(), false, gone.stamp()).unwrap();
    world.read(&by, &gone, &[], &known).unwrap();
    breaks("L5", world.read(&by, &holds, &[], &known));
    // Whoever was told of its creation knows that somebody asked for its end.
    world.read(&by, &gone, &known, &[]).unwrap();
}

#[test]
fn i5_more_is_acknowledged_than_the_disk_holds() {
    let mut world = World::default();
    let state = founded("cluster-1");
    commit(&mut world, &state, None);
    let (stamp, holds, lacks) = (state.stamp(), voter("g1", 7), voter("g3", 7));
    world.acknowledged(&holds, stamp.into(), Some((stamp, Some(state.digest())))).unwrap();
    breaks("I5", world.acknowledged(&lacks, Term::default(), Some((stamp, None))));
    breaks("I5", world.acknowledged(&holds, Term::new(0, stamp.epoch + 1), None));
}

#[test]
fn i8_what_is_served_is_committed_and_never_goes_back() {
    let (mut world, empty, holds) = with_a_bucket();
    let process = |run| (voter("g3", 7), run);
    world.published(process(1), &empty).unwrap();
    world.published(process(1), &holds).unwrap();
    breaks("I8", world.published(process(1), &empty));
    world.published(process(2), &empty).unwrap();
    breaks("I8", world.published(process(2), &after(&holds, &destroy())));
}

#[test]
fn i8_a_disk_that_forgot_what_it_said_counts_and_one_that_said_nothing_does_not() {
    let (begun, _, last) = with_a_bucket();
    let next = after(&last, &destroy());
    let disk = |state: &State| Disk { promised: state.stamp().into(), accepted: state.stamp(), ..Disk::default() };
    let (told, other) = (voter("g1", 7), voter("g2", 7));
    let history = |said: bool| {
        let mut world = begun.clone();
        world.asks_destroy(&bucket());
        world.wrote(&next, Some(last.stamp())).unwrap();
        world.stored(&told, disk(&next), Some(&next)).unwrap();
        if said {
            world.acknowledged(&told, next.stamp().into(), Some((next.stamp(), None))).unwrap();
        }
        world.forgot(&told, disk(&last));
        world.stored(&other, disk(&next), Some(&next)).unwrap();
        world.published((other.clone(), 1), &next)
    };
    history(true).unwrap();
    breaks("I8", history(false));
}

#[test]
fn i9_two_leases_at_one_time() {
    let one = (voter("g1", 7), 4);
    invariant::i9(std::slice::from_ref(&one)).unwrap();
    breaks("I9", invariant::i9(&[one, (voter("g2", 7), 5)]));
}

#[test]
fn i10_answered_and_lost() {
    let (mut world, _, holds) = with_a_bucket();
    world.settle().unwrap();
    breaks("I10", world.never(&bucket()));
    // Gone, although nobody asked for that.
    let gone = after(&holds, &destroy());
    world.wrote(&gone, Some(holds.stamp())).unwrap();
    let now = Disk { promised: gone.stamp().into(), accepted: gone.stamp(), committed: Stamp::default() };
    world.stored(&voter("g1", 7), now, Some(&gone)).unwrap();
    breaks("I10", world.stored(&voter("g2", 7), now, Some(&gone)));
    breaks("I10", world.settle());
}

#[test]
fn i11_a_second_founding() {
    let mut world = World::default();
    let first = founded("cluster-1");
    world.wrote(&first, None).unwrap();
    world.wrote(&first, None).unwrap();
    breaks("I11", world.wrote(&founded("cluster-2"), None));
    World::default().wrote(&founded("cluster-2"), None).unwrap();
}

#[test]
fn i4_two_contents_under_one_stamp() {
    let (mut world, empty, holds) = with_a_bucket();
    let other = empty.draft(holds.stamp()).finish().unwrap().0;
    world.wrote(&holds, Some(empty.stamp())).unwrap();
    breaks("I4", world.wrote(&other, Some(empty.stamp())));
    breaks("I4", world.published((voter("g3", 7), 1), &other));
}

#[test]
fn i6_two_voters_change_at_once() {
    let state = founded("cluster-1");
    let mut world = World::default();
    commit(&mut world, &state, None);
    let next = |added: &[&str]| {
        let mut draft = state.draft(state.stamp().next());
        for name in added {
            draft.add_voter(Voter::from(&node(name, 9)));
        }
        draft.finish().unwrap().0
    };
    world.clone().wrote(&next(&["g4"]), Some(state.stamp())).unwrap();
    breaks("I6", world.wrote(&next(&["g4", "g5"]), Some(state.stamp())));
}
