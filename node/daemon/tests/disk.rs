//! The state directory on a real file system: what a crash or damage may and may not do (protocol.md section 2).
#![allow(clippy::unwrap_used, reason = "helpers outside of test functions fail tests too")]

mod kit;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ais_ha::{Genesis, HardState, Offer, Persist};
use ais_meta::{Stamp, VoterId};
use ais_node::disk::frame::{self, FileKind, Header};
use ais_node::disk::load::{self, Files, Found};
use ais_node::disk::{DiskError, Lock, Report, Wanted, Work, Writer, aside, open};
use ais_node::hooks::NoHooks;
use ais_node::inspect::{Options, inspect};
use kit::{Dir, filled, first_state, g1, next_state, opened, path, vote, whole, work};
use proptest::prelude::*;

#[test]
fn everything_written_is_there_after_a_restart_and_the_run_is_raised() {
    let dir = Dir::new();
    let (hard, disk) = filled(&dir.state());
    for run in 2..5 {
        let again = opened(&dir.state());
        assert_eq!((again.run, again.disk, again.set_aside, again.fresh), (run, disk, None, false));
        assert_eq!(again.hard, hard);
    }
}

#[test]
fn an_accepted_state_implies_its_promise_and_that_its_cluster_is_formed() {
    let dir = Dir::new();
    let mut first = opened(&dir.state());
    let state = first_state();
    first.store.write(&work(Some(whole(&state)), Stamp::default())).unwrap();
    drop(first);
    let hard = opened(&dir.state()).hard;
    assert_eq!(hard.vote, load::promise_of(&state));
    assert_eq!(hard.genesis, Genesis::Formed(state.uuid().clone()));
    assert_eq!(hard.committed, None);
}

#[test]
fn no_flipped_byte_goes_unnoticed_or_changes_what_is_read() {
    let dir = Dir::new();
    let (hard, _) = filled(&dir.state());
    for file in [FileKind::Identity, FileKind::Vote, FileKind::Genesis, FileKind::State] {
        let mut files = Files::read(&dir.state()).unwrap();
        let (mut healed, mut bad) = (0, 0);
        let length = bytes_of(&mut files, file).len();
        for at in 0..length {
            for mask in [1 << (at % 8), 0xff] {
                bytes_of(&mut files, file)[at] ^= mask;
                match load::examine(&files).unwrap() {
                    Found::Good(records) => {
                        assert_eq!(load::hard_state(&records), hard, "{} byte {at}", file.name());
                        healed += 1;
                    }
                    Found::Bad(_) => bad += 1,
                    Found::Fresh => panic!("{} byte {at} flipped makes a disk new", file.name()),
                }
                bytes_of(&mut files, file)[at] ^= mask;
            }
        }
        assert!(bad > 0, "{}: {healed} healed", file.name());
        assert_eq!(healed > 0, file == FileKind::Vote, "only votes have a twin");
    }
}

fn bytes_of(files: &mut Files, file: FileKind) -> &mut Vec<u8> {
    let bytes = match file {
        FileKind::Identity => &mut files.identity,
        FileKind::Vote => &mut files.vote,
        FileKind::Genesis => &mut files.genesis,
        FileKind::State => &mut files.state,
        FileKind::Copy => panic!("not in this directory"),
    };
    bytes.as_mut().unwrap()
}

#[test]
fn an_append_cut_short_anywhere_costs_only_itself_and_a_shorter_file_is_noticed() {
    let dir = Dir::new();
    let (hard, _) = filled(&dir.state());
    let before = Files::read(&dir.state()).unwrap();
    let durable = before.state.as_ref().unwrap().len();
    let four = next_state(hard.accepted.as_ref().unwrap(), "four");
    let mut last = opened(&dir.state());
    last.store.write(&work(Some(four.clone()), Stamp::default())).unwrap();
    drop(last);
    let after = fs::read(path(&dir.state(), FileKind::State)).unwrap();
    // The vote file as it was before the append: it was never acknowledged.
    let mut files = before;
    for cut in 0..after.len() {
        for zeros in [false, true] {
            let mut torn = after[..cut].to_vec();
            if zeros {
                torn.resize(after.len(), 0);
            }
            files.state = Some(torn);
            match load::examine(&files).unwrap() {
                Found::Good(records) => {
                    assert!(cut >= durable, "cut at {cut} of {durable} durable bytes was not noticed");
                    assert_eq!(records.state.accepted, hard.accepted, "cut at {cut}");
                    assert_eq!(records.state.length, durable as u64);
                }
                Found::Bad(_) => assert!(cut < durable, "cut at {cut} costs the disk, {durable} bytes were durable"),
                Found::Fresh => panic!("cut at {cut} makes the disk new"),
            }
        }
    }
    files.state = Some(after);
    let Found::Good(records) = load::examine(&files).unwrap() else { panic!("the whole append reads") };
    assert_eq!(records.state.accepted, Some(four.state));
}

#[test]
fn a_torn_tail_is_cut_off_before_the_next_append() {
    let dir = Dir::new();
    let (hard, _) = filled(&dir.state());
    let file = path(&dir.state(), FileKind::State);
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(&[3, 0, 0, 0, 5, 1]);
    fs::write(&file, &bytes).unwrap();
    let mut again = opened(&dir.state());
    assert_eq!(again.hard, hard);
    let four = next_state(hard.accepted.as_ref().unwrap(), "four");
    again.store.write(&work(Some(four.clone()), Stamp::default())).unwrap();
    drop(again);
    assert_eq!(opened(&dir.state()).hard.accepted, Some(four.state));
}

/// After a failed sync the system takes the pages for clean: a process that only syncs what it read would answer with
/// what the disk never got.
#[test]
fn what_a_start_reads_is_written_again_before_it_counts() {
    let dir = Dir::new();
    filled(&dir.state());
    let state = path(&dir.state(), FileKind::State);
    let before = fs::read(&state).unwrap();
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1);
    fs::File::options().write(true).open(&state).unwrap().set_modified(long_ago).unwrap();
    drop(opened(&dir.state()));
    assert_ne!(fs::metadata(&state).unwrap().modified().unwrap(), long_ago, "it was only synced");
    assert_eq!(fs::read(&state).unwrap(), before);
}

#[test]
fn a_vote_cut_short_leaves_the_one_before() {
    let dir = Dir::new();
    let (hard, _) = filled(&dir.state());
    let mut next = opened(&dir.state());
    let before = fs::read(path(&dir.state(), FileKind::Vote)).unwrap();
    let mut higher = work(None, Stamp::default());
    higher.vote = vote(9);
    next.store.write(&higher).unwrap();
    drop(next);
    let after = fs::read(path(&dir.state(), FileKind::Vote)).unwrap();
    let mut files = Files::read(&dir.state()).unwrap();
    let changed: Vec<usize> = (0..after.len()).filter(|i| before[*i] != after[*i]).collect();
    let (first, last) = (changed[0], *changed.last().unwrap());
    for cut in first..=last {
        let mut torn = after[..cut].to_vec();
        torn.extend_from_slice(&before[cut..]);
        files.vote = Some(torn);
        let Found::Good(records) = load::examine(&files).unwrap() else { panic!("cut at {cut} costs the disk") };
        let promised = load::hard_state(&records).vote;
        assert!(promised == hard.vote || promised == vote(9), "cut at {cut}: {promised:?}");
    }
}

#[test]
fn damaged_records_are_set_aside_and_the_disk_only_joins() {
    for file in [FileKind::Identity, FileKind::Vote, FileKind::Genesis, FileKind::State] {
        let dir = Dir::new();
        let (_, disk) = filled(&dir.state());
        let mut bytes = fs::read(path(&dir.state(), file)).unwrap();
        bytes[20] ^= 0x10;
        fs::write(path(&dir.state(), file), &bytes).unwrap();
        let fresh = opened(&dir.state());
        assert!(fresh.set_aside.is_some(), "{}", file.name());
        assert_ne!(fresh.disk, disk);
        assert_eq!(fresh.hard, HardState { genesis: Genesis::JoinOnly, ..HardState::default() });
        let names = aside::names(&dir.state()).unwrap();
        assert_eq!(names.len(), 4, "every file is kept: {names:?}");
        let known = (file != FileKind::Genesis || fresh.join.is_some()).then(|| "test-cluster".parse().unwrap());
        assert_eq!(fresh.join, known, "{}: the others name the cluster", file.name());
        let disk = fresh.disk;
        drop(fresh);
        let again = opened(&dir.state());
        assert_eq!((again.disk, again.set_aside, again.hard.genesis), (disk, None, Genesis::JoinOnly));
    }
}

#[test]
fn a_file_that_is_gone_or_another_disks_costs_the_disk() {
    for file in [FileKind::Identity, FileKind::Vote, FileKind::Genesis, FileKind::State] {
        let dir = Dir::new();
        let (_, disk) = filled(&dir.state());
        fs::remove_file(path(&dir.state(), file)).unwrap();
        let fresh = opened(&dir.state());
        assert!(fresh.disk != disk && fresh.hard.genesis == Genesis::JoinOnly, "{} gone", file.name());

        let (ours, theirs) = (Dir::new(), Dir::new());
        filled(&ours.state());
        filled(&theirs.state());
        fs::copy(path(&theirs.state(), file), path(&ours.state(), file)).unwrap();
        assert_eq!(opened(&ours.state()).hard.genesis, Genesis::JoinOnly, "{} of another disk", file.name());
    }
}

#[test]
fn a_crash_while_formatting_leaves_a_new_disk() {
    let dir = Dir::new();
    drop(opened(&dir.state()));
    // As formatting leaves it before its last step: the run was not raised yet either.
    let other = Dir::new();
    fs::create_dir(other.state()).unwrap();
    let files = [FileKind::State, FileKind::Genesis];
    for file in files {
        fs::copy(path(&dir.state(), file), path(&other.state(), file)).unwrap();
        let again = opened(&other.state());
        assert!(again.fresh && again.hard == HardState::default());
        for file in [FileKind::Identity, FileKind::Vote, FileKind::Genesis, FileKind::State] {
            fs::remove_file(path(&other.state(), file)).unwrap();
        }
    }
}

#[test]
fn a_newer_format_stops_the_process_and_is_left_alone() {
    let dir = Dir::new();
    filled(&dir.state());
    let file = path(&dir.state(), FileKind::State);
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 2;
    let sum = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&sum.to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(open(&dir.state(), &Wanted::of(&g1())), Err(DiskError::Newer(_))));
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn one_process_at_a_time_and_one_node_for_ever() {
    let dir = Dir::new();
    let first = opened(&dir.state());
    assert!(matches!(open(&dir.state(), &Wanted::of(&g1())), Err(DiskError::Locked(_))));
    assert!(matches!(Lock::shared(&dir.state()), Err(DiskError::Locked(_))));
    drop(first);
    assert!(Lock::shared(&dir.state()).unwrap().is_some());
    assert!(matches!(open(&dir.state(), &Wanted::of(&"g2".parse().unwrap())), Err(DiskError::WrongNode { .. })));
}

#[test]
fn inspect_prints_the_records_and_writes_nothing() {
    let dir = Dir::new();
    let (hard, disk) = filled(&dir.state());
    let list = || {
        let mut names: Vec<_> = fs::read_dir(dir.state()).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names.into_iter().map(|p| (fs::read(&p).unwrap(), p)).collect::<Vec<_>>()
    };
    let before = list();
    let plain = Options { dir: dir.state(), ..Options::default() };
    let text = inspect(&plain).unwrap();
    assert_eq!(list(), before);
    let json = inspect(&Options { json: true, ..plain.clone() }).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let accepted = hard.accepted.as_ref().unwrap().stamp().to_string();
    assert_eq!(json["disk"]["accepted"]["stamp"], accepted);
    assert_eq!(json["disk"]["committed"], hard.committed.as_ref().unwrap().stamp().to_string());
    assert_eq!((&json["verdict"], &json["disk"]["effective_promise"]), (&"good".into(), &4.into()));
    assert_eq!(json["disk"]["accepted"]["electorate"][0]["node_id"], "g1");
    let command = format!("ais-node recover http://127.0.0.1:2 --stamp {accepted} --secret-file FILE");
    assert_eq!(json["command"], command);
    assert!(text.contains(&command), "{text}");
    let encrypted = inspect(&Options { ca_file: Some("/etc/ais/tls/ca.crt".into()), ..plain.clone() }).unwrap();
    let command = format!(
        "ais-node recover https://127.0.0.1:2 --stamp {accepted} --secret-file FILE --ca-file /etc/ais/tls/ca.crt"
    );
    assert!(encrypted.contains(&command), "{encrypted}");
    for part in [
        disk.to_string(),
        "effective promise 4".to_owned(),
        hard.accepted.unwrap().stamp().to_string(),
        "test-cluster".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} in\n{text}");
    }
    let held = opened(&dir.state());
    assert!(inspect(&plain).is_err());
    drop(held);
}

#[test]
fn the_state_file_is_compacted_and_keeps_the_committed_state() {
    let dir = Dir::new();
    let mut first = opened(&dir.state());
    let mut state = Arc::new(first_state());
    first.store.write(&work(Some(whole(&state)), Stamp::default())).unwrap();
    let mut committed = state.clone();
    for batch in 0..120 {
        let mut group = Work::default();
        for i in 0..50 {
            let write = next_state(&state, &format!("bucket-{batch:03}-{i:050}"));
            (committed, state) = (state, write.state.clone());
            group.vote = load::promise_of(&state);
            group.writes.push(write);
        }
        group.committed = committed.stamp();
        first.store.write(&group).unwrap();
    }
    drop(first);
    let Found::Good(records) = load::examine(&Files::read(&dir.state()).unwrap()).unwrap() else { panic!("reads") };
    assert!(records.state.generation > 1 && records.state.records.len() < 6000, "{:?}", records.state.generation);
    let hard = opened(&dir.state()).hard;
    assert_eq!((hard.accepted, hard.committed), (Some(state), Some(committed)));
}

#[test]
fn the_disk_thread_reports_the_highest_token_and_recovers_from_failures() {
    let dir = Dir::new();
    let first = opened(&dir.state());
    let (reports_in, mut reports) = tokio::sync::mpsc::channel(64);
    let writer = Writer::start(first.store, reports_in, Arc::new(NoHooks)).unwrap();
    let persist = |token, genesis: Option<Genesis>| Persist {
        token,
        vote: vote(token),
        genesis,
        accepted: None,
        committed: Stamp::default(),
    };
    for token in 1..=100 {
        writer.submit(persist(token, None));
    }
    let mut last = 0;
    while last < 100 {
        let Some(Report::Persisted { token, .. }) = reports.blocking_recv() else { panic!("no failure here") };
        assert!(token > last);
        last = token;
    }
    // No place for a new file: as good as a full disk.
    let moved = dir.0.join("moved");
    fs::rename(dir.state(), &moved).unwrap();
    let offer = Offer {
        number: 1,
        uuid: "test-cluster".parse().unwrap(),
        founder: VoterId::new(g1(), first.disk),
        voters: Vec::new(),
    };
    writer.submit(persist(101, Some(Genesis::Bound(offer.clone()))));
    assert!(matches!(reports.blocking_recv(), Some(Report::Failed { .. })));
    writer.submit(persist(102, None));
    fs::rename(&moved, dir.state()).unwrap();
    assert!(matches!(reports.blocking_recv(), Some(Report::Persisted { token: 102, .. })));
    writer.close(Duration::from_secs(5));
    drop(first.lock);
    let hard = opened(&dir.state()).hard;
    assert_eq!((hard.vote, hard.genesis), (vote(102), Genesis::Bound(offer)));
}

#[derive(Clone, Debug)]
enum Step {
    Promise,
    Accept { whole: bool },
    Jump,
    Commit,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Promise),
        6 => any::<bool>().prop_map(|whole| Step::Accept { whole }),
        1 => Just(Step::Jump),
        3 => Just(Step::Commit),
        2 => Just(Step::Reopen),
    ]
}

/// All files of a disk whose `state` begins with a committed and an accepted snapshot, with changes after them.
fn compacted() -> (Files, HardState) {
    let dir = Dir::new();
    let (mut hard, disk) = filled(&dir.state());
    let mut files = Files::read(&dir.state()).unwrap();
    let (committed, accepted) = (hard.committed.clone().unwrap(), hard.accepted.clone().unwrap());
    let mut bytes = Header { disk, generation: 2 }.encode(FileKind::State).to_vec();
    let mut push = |kind, payload: Vec<u8>| frame::push_record(&mut bytes, kind, &payload).unwrap();
    push(frame::kind::COMMITTED, frame::encode("state", &committed.full()).unwrap());
    push(frame::kind::FULL, frame::encode("state", &accepted.full()).unwrap());
    let mut state = accepted;
    for name in ["four", "five"] {
        let write = next_state(&state, name);
        push(frame::kind::DELTA, frame::encode("state", &*write.deltas[0]).unwrap());
        state = write.state;
    }
    files.state = Some(bytes);
    hard.accepted = Some(state);
    (files, hard)
}

#[test]
fn snapshots_and_changes_are_checked_at_every_offset() {
    let (mut files, hard) = compacted();
    let Found::Good(whole) = load::examine(&files).unwrap() else { panic!("the file reads") };
    assert_eq!(load::hard_state(&whole), hard);
    assert_eq!(
        whole.state.records.iter().map(|r| r.0).collect::<Vec<_>>(),
        [frame::kind::COMMITTED, frame::kind::FULL, frame::kind::DELTA, frame::kind::DELTA]
    );
    let good = files.state.clone().unwrap();
    for at in 0..good.len() {
        for mask in [1 << (at % 8), 0xff] {
            files.state.as_mut().unwrap()[at] ^= mask;
            assert!(matches!(load::examine(&files), Ok(Found::Bad(_))), "byte {at} flipped by {mask:x}");
            files.state.as_mut().unwrap()[at] ^= mask;
        }
        for zeros in [false, true] {
            let mut torn = good[..at].to_vec();
            torn.resize(if zeros { good.len() } else { at }, 0);
            files.state = Some(torn);
            match load::examine(&files).unwrap() {
                // Nothing noted the length of this generation: a shorter one reads as what was there before.
                Found::Good(records) => {
                    let read = records.state.accepted.map(|s| s.stamp());
                    assert!(read <= hard.accepted.as_ref().map(|s| s.stamp()), "cut at {at}: {read:?}");
                }
                Found::Bad(_) => assert!(at < frame::HEADER, "cut at {at} is what a crash leaves"),
                Found::Fresh => panic!("cut at {at} makes the disk new"),
            }
            files.state = Some(good.clone());
        }
    }
}

#[test]
fn a_vote_cut_short_in_either_pair_leaves_the_one_before() {
    let dir = Dir::new();
    filled(&dir.state());
    let mut disk = opened(&dir.state());
    let mut pairs = std::collections::BTreeSet::new();
    for promised in 9..13 {
        let before = fs::read(path(&dir.state(), FileKind::Vote)).unwrap();
        let mut higher = work(None, Stamp::default());
        higher.vote = vote(promised);
        disk.store.write(&higher).unwrap();
        let after = fs::read(path(&dir.state(), FileKind::Vote)).unwrap();
        let changed: Vec<usize> = (0..after.len()).filter(|i| before[*i] != after[*i]).collect();
        let (first, last) = (changed[0], *changed.last().unwrap());
        pairs.insert(first / 8192);
        let mut files = Files::read(&dir.state()).unwrap();
        for cut in first..=last {
            for rest in [&before[cut..], &vec![0; before.len() - cut][..]] {
                let mut torn = [&after[..cut], rest].concat();
                // The other pair is not touched by this write.
                let other = if first < 3 * 4096 { 3 * 4096..5 * 4096 } else { 4096..3 * 4096 };
                torn[other.clone()].copy_from_slice(&before[other]);
                files.vote = Some(torn);
                let Found::Good(records) = load::examine(&files).unwrap() else {
                    panic!("cut at {cut} costs the disk")
                };
                let read = load::hard_state(&records).vote.promised;
                assert!(read == promised || read + 1 == promised || promised == 9 && read == 4, "cut at {cut}: {read}");
            }
        }
    }
    assert_eq!(pairs.len(), 2, "both pairs were written");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_back_as_it_was_written(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = Dir::new();
        let mut open = Some(opened(&dir.state()));
        let mut hard = HardState::default();
        let mut state = first_state();
        for (i, step) in steps.into_iter().enumerate() {
            let mut work = Work { vote: hard.vote.clone(), committed: hard.committed.as_ref().map(|s| s.stamp()).unwrap_or_default(), ..Work::default() };
            match step {
                Step::Promise => {
                    hard.vote = vote(hard.vote.promised + 1);
                    work.vote = hard.vote.clone();
                }
                Step::Accept { .. } | Step::Jump => {
                    // A primary of the promised epoch writes.
                    let write = next_state(&state, &format!("b{i}"));
                    let write = if hard.accepted.is_none() || matches!(step, Step::Jump | Step::Accept { whole: true }) { whole(&write.state) } else { write };
                    state = (*write.state).clone();
                    let implied = load::promise_of(&state);
                    if implied.promised >= hard.vote.promised {
                        hard.vote = implied;
                    }
                    hard.genesis = Genesis::Formed(state.uuid().clone());
                    hard.accepted = Some(write.state.clone());
                    work.vote = hard.vote.clone();
                    work.writes.push(write);
                }
                Step::Commit => {
                    hard.committed = hard.accepted.clone();
                    work.committed = hard.committed.as_ref().map(|s| s.stamp()).unwrap_or_default();
                }
                Step::Reopen => {
                    drop(open.take());
                    open = Some(opened(&dir.state()));
                    prop_assert_eq!(&open.as_ref().unwrap().hard, &hard);
                    continue;
                }
            }
            open.as_mut().unwrap().store.write(&work).unwrap();
        }
        drop(open.take());
        prop_assert_eq!(opened(&dir.state()).hard, hard);
    }
}
