//! What takes the place of records that count no more, and copies elsewhere (protocol.md sections 2, 5 and 7).
#![allow(clippy::unwrap_used, reason = "helpers outside of test functions fail tests too")]

mod kit;

use std::fs;
use std::sync::Arc;

use ais_ha::{Ended, Genesis, HardState};
use ais_meta::{DiskId, Stamp, VoterId};
use ais_node::disk::frame::FileKind;
use ais_node::disk::{DiskError, Wanted, aside, copies, open};
use ais_node::inspect::{Options, inspect};
use kit::{Dir, filled, first_genesis, first_state, g1, next_state, opened, path, whole, work};

#[test]
fn set_aside_records_are_bounded_and_the_newest_are_kept() {
    let dir = Dir::new();
    let mut last = Vec::new();
    for round in 0..aside::SETS_MAX + 3 {
        let mut disk = opened(&dir.state());
        disk.store.write(&work(Some(whole(&first_state())), Stamp::default())).unwrap();
        drop(disk);
        let file = path(&dir.state(), FileKind::Vote);
        let mut bytes = fs::read(&file).unwrap();
        bytes[20] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert!(opened(&dir.state()).set_aside.is_some());
        last = aside::names(&dir.state()).unwrap();
        assert_eq!(last.len(), 4 * (round + 1).min(aside::SETS_MAX), "{last:?}");
        // Nothing else is ever taken for one of them.
        fs::write(dir.state().join("notes.bad-1"), "mine").unwrap();
    }
    let newest = fs::read(dir.state().join(last.iter().rfind(|n| n.starts_with("vote")).unwrap())).unwrap();
    assert!(newest.starts_with(b"AISvote"));
    assert!(dir.state().join("notes.bad-1").exists());
}

#[test]
fn whole_records_that_others_know_to_be_stale_are_set_aside() {
    let dir = Dir::new();
    let (hard, disk) = filled(&dir.state());
    let held = opened(&dir.state());
    aside::set_aside(&dir.state(), &g1(), &held.lock).unwrap();
    drop(held);
    let next = opened(&dir.state());
    assert_ne!(next.disk, disk);
    assert_eq!((next.hard.genesis.clone(), next.hard.accepted.clone()), (Genesis::JoinOnly, None));
    assert_eq!(next.join.as_ref(), hard.accepted.as_ref().map(|s| s.uuid()));
    assert_eq!(aside::names(&dir.state()).unwrap().len(), 4);
    // Decommissioned, nothing is kept of it, and still it may only join.
    aside::empty(&dir.state(), &g1(), &next.lock, None).unwrap();
    drop(next);
    let last = opened(&dir.state());
    assert_eq!((last.hard.genesis, last.join.is_some()), (Genesis::JoinOnly, true));
    assert_eq!(aside::names(&dir.state()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_disk_keeps_of_a_decommissioned_cluster_that_it_ended() {
    let dir = Dir::new();
    let (hard, disk) = filled(&dir.state());
    let state = hard.accepted.unwrap();
    let ended = Ended { uuid: state.uuid().clone(), stamp: state.stamp(), options: Default::default() };
    let held = opened(&dir.state());
    aside::empty(&dir.state(), &g1(), &held.lock, Some(&ended)).unwrap();
    drop(held);
    let next = opened(&dir.state());
    assert_ne!(next.disk, disk);
    assert_eq!(next.hard, HardState { genesis: Genesis::Ended(ended), ..HardState::default() });
    assert_eq!((next.join, aside::names(&dir.state()).unwrap()), (None, Vec::new()));
}

#[test]
fn a_lost_directory_joins_what_copies_elsewhere_name_and_nothing_else() {
    let uuid = |text: &str| text.parse::<ais_meta::ClusterUuid>().unwrap();
    let (ours, foreign, node) = (uuid("test-cluster"), uuid("other-cluster"), g1());
    let disks = Dir::new();
    let mountpaths = [disks.0.join("a"), disks.0.join("b"), disks.0.join("c")];
    for mountpath in &mountpaths {
        fs::create_dir(mountpath).unwrap();
    }
    let wanted = Wanted { mountpaths: &mountpaths, ..Wanted::of(&node) };
    let start = |dir: &Dir, wanted: &Wanted<'_>| open(&dir.state(), wanted);
    let me = VoterId::new("t9".parse().unwrap(), DiskId(1));
    let (one, two) = (first_state(), next_state(&first_state(), "two").state);
    copies::write(&mountpaths[0], &me, &two).unwrap();
    copies::write(&mountpaths[1], &me, &one).unwrap();

    let dir = Dir::new();
    let refused = Wanted { cluster: Some(&foreign), ..wanted.clone() };
    assert!(matches!(start(&dir, &refused), Err(DiskError::Foreign { .. })));
    assert!(!path(&dir.state(), FileKind::Identity).exists(), "a foreign disk is never formatted");
    let fresh = start(&dir, &wanted).unwrap();
    assert_eq!((fresh.fresh, &fresh.hard.genesis, fresh.join.as_ref()), (true, &Genesis::JoinOnly, Some(&ours)));
    let remembered = fresh.hard.remembered.clone().unwrap();
    assert_eq!((&remembered.uuid, remembered.peers.len()), (&ours, 1));
    assert_eq!(
        fresh.hard,
        HardState { genesis: Genesis::JoinOnly, remembered: Some(remembered.clone()), ..HardState::default() }
    );
    drop(fresh);
    // A second start still knows, whom to ask included.
    let again = start(&dir, &wanted).unwrap();
    assert_eq!((again.fresh, again.hard.remembered.as_ref()), (false, Some(&remembered)));
    drop(again);

    // One is damaged, at any byte: the other one is used; both: nothing is known, and nothing is made up.
    let file = mountpaths[0].join(".ais.state");
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&file, &bad).unwrap();
        assert_eq!(copies::recall(&mountpaths).unwrap().unwrap().uuid, ours, "byte {at}");
        fs::write(&file, &good[..at]).unwrap();
        assert!(copies::read(&mountpaths[0]).is_err(), "cut at {at}");
    }
    copies::write(&mountpaths[0], &me, &two).unwrap();
    assert_eq!(fs::read(&file).unwrap().len(), good.len(), "healed");
    // A foreign disk among them decides nothing, and does not stop a node whose records are good.
    let mut other = first_genesis();
    other.uuid = foreign.clone();
    copies::write(&mountpaths[2], &me, &ais_meta::State::genesis(other).unwrap()).unwrap();
    assert!(matches!(start(&Dir::new(), &wanted), Err(DiskError::Copies(_))));
    let dir = Dir::new();
    let (hard, _) = filled(&dir.state());
    assert_eq!(start(&dir, &wanted).unwrap().hard, hard);
}

#[test]
fn copies_go_to_two_disks_and_a_disk_that_fails_is_replaced() {
    let disks = Dir::new();
    let mountpaths: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| disks.0.join(name)).collect();
    for mountpath in &mountpaths[1..] {
        fs::create_dir(mountpath).unwrap();
    }
    let (me, state) = (VoterId::new(g1(), DiskId(1)), Arc::new(first_state()));
    let mut slots = copies::Slot::divide(&mountpaths);
    assert_eq!(slots.len(), 2);
    for slot in &mut slots {
        assert!(slot.write(&me, &state));
    }
    let holds = |i: usize| copies::read(&mountpaths[i]).unwrap().map(|copy| (copy.id, copy.state.stamp()));
    let copy = Some((me.clone(), state.stamp()));
    // The first disk is not there: the third one takes its place.
    assert_eq!([holds(0), holds(1), holds(2), holds(3)], [None, copy.clone(), copy, None]);
    let text = inspect(&Options { dir: mountpaths[1].clone(), ..Options::default() }).unwrap();
    assert!(text.contains(&state.stamp().to_string()) && text.contains("a copy never votes"), "{text}");
    let beside = Options { dir: disks.0.clone(), mountpaths: mountpaths[2..].to_vec(), ..Options::default() };
    let beside = inspect(&beside).unwrap();
    assert!(beside.contains("test-cluster") && beside.contains("d: none"), "{beside}");
    for mountpath in &mountpaths {
        copies::remove(mountpath).unwrap();
    }
    assert!(copies::recall(&mountpaths).unwrap().is_none());
}
