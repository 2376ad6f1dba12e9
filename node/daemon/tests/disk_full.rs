//! Disks without room or without permission (protocol.md section 11), on small file systems of their own. Needs root.
#![allow(clippy::unwrap_used, reason = "helpers outside of test functions fail tests too")]

mod kit;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ais_ha::{Persist, Write};
use ais_meta::{Stamp, State};
use ais_node::disk::frame::FileKind;
use ais_node::disk::load::{self, Files, Found};
use ais_node::disk::{Report, Wanted, Work, Writer, open};
use ais_node::hooks::NoHooks;
use kit::{Dir, filled, first_state, g1, next_state, opened, path, vote, whole, work};

/// A file system in memory that goes away with the test.
struct Small(Dir);

impl Small {
    fn new(kib: usize) -> Self {
        let small = Self(Dir::new());
        small.mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]);
        small
    }
    fn mount(&self, args: &[&str]) {
        let status = Command::new("mount").args(args).arg(&self.0.0).status().unwrap();
        assert!(status.success(), "mount {args:?}: {status}");
    }
    fn state(&self) -> PathBuf {
        self.0.state()
    }
    /// Leaves no room at all.
    fn fill(&self) {
        let block = vec![1; 4096];
        let mut out = fs::File::create(self.0.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut out, &block).is_ok() {}
    }
    fn make_room(&self) {
        fs::remove_file(self.0.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0.0).status());
    }
}

fn one(write: Write) -> Work {
    work(Some(write), Stamp::default())
}

#[test]
fn a_full_disk_fails_writes_until_there_is_room_and_loses_nothing() {
    let disk = Small::new(256);
    let mut open = opened(&disk.state());
    let mut state = Arc::new(first_state());
    open.store.write(&one(whole(&state))).unwrap();
    disk.fill();
    // What is left of the last block is still written to; then comes a write that does not fit.
    let refused = (0..10_000).find_map(|i| {
        let write = next_state(&state, &format!("bucket-{i:050}"));
        match open.store.write(&one(write.clone())) {
            Ok(()) => {
                state = write.state;
                None
            }
            Err(error) => Some((write, error)),
        }
    });
    let (write, error) = refused.unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    // Promises need no room: they are written in place.
    let mut promise = work(None, Stamp::default());
    promise.vote = vote(7);
    open.store.write(&promise).unwrap();
    let on_disk = || {
        let Found::Good(records) = load::examine(&Files::read(&disk.state()).unwrap()).unwrap() else {
            panic!("reads")
        };
        load::hard_state(&records)
    };
    assert_eq!((on_disk().accepted, on_disk().vote), (Some(state), vote(7)));
    disk.make_room();
    let mut again = one(write.clone());
    again.vote = vote(7);
    open.store.write(&again).unwrap();
    drop(open);
    let hard = opened(&disk.state()).hard;
    assert_eq!((hard.accepted, hard.vote), (Some(write.state), vote(7)));
}

#[test]
fn the_disk_thread_goes_on_when_there_is_room_again() {
    let disk = Small::new(256);
    let open = opened(&disk.state());
    let (reports_in, mut reports) = tokio::sync::mpsc::channel(64);
    let writer = Writer::start(open.store, reports_in, Arc::new(NoHooks)).unwrap();
    disk.fill();
    let mut state: Arc<State> = Arc::new(first_state());
    let mut token = 0;
    let mut submit = |write: Write| {
        token += 1;
        let vote = load::promise_of(&write.state);
        writer.submit(Persist { token, vote, genesis: None, accepted: Some(write), committed: Stamp::default() });
        token
    };
    submit(whole(&state));
    let why = loop {
        match reports.blocking_recv() {
            Some(Report::Persisted { .. }) => {
                let write = next_state(&state, &format!("bucket-{}", state.stamp().seq));
                state = write.state.clone();
                submit(write);
            }
            Some(Report::Failed { why }) => break why,
            None => panic!("the thread ended"),
        }
    };
    assert!(why.contains("No space left"), "{why}");
    assert!(writer.waiting_since().is_some());
    let write = next_state(&state, "one-more");
    let last = submit(write.clone());
    disk.make_room();
    while !matches!(reports.blocking_recv().unwrap(), Report::Persisted { token, .. } if token == last) {}
    assert!(writer.close(Duration::from_secs(10)));
    drop(open.lock);
    assert_eq!(opened(&disk.state()).hard.accepted, Some(write.state));
}

#[test]
fn a_start_on_a_full_disk_works_if_it_was_formatted_and_says_why_if_not() {
    let disk = Small::new(256);
    let (hard, id) = filled(&disk.state());
    disk.fill();
    let again = opened(&disk.state());
    assert_eq!((&again.hard, again.disk), (&hard, id));
    drop(again);
    // Damaged now: what takes its place does not fit, so nothing is touched.
    let file = path(&disk.state(), FileKind::Vote);
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = open(&disk.state(), &Wanted::of(&g1())).err().unwrap();
    assert!(error.to_string().contains("No space left"), "{error}");
    disk.make_room();
    let fresh = opened(&disk.state());
    assert!(fresh.set_aside.is_some() && fresh.disk != id);
    drop(fresh);

    let disk = Small::new(64);
    disk.fill();
    let error = open(&disk.state(), &Wanted::of(&g1())).err().unwrap();
    assert!(error.to_string().contains("No space left"), "{error}");
    disk.make_room();
    assert!(opened(&disk.state()).fresh);
}

#[test]
fn compaction_without_room_is_put_off_and_done_when_there_is_some() {
    let disk = Small::new(4096);
    let mut open = opened(&disk.state());
    let mut state = Arc::new(first_state());
    open.store.write(&one(whole(&state))).unwrap();
    let mut write_all = |open: &mut ais_node::disk::Opened, count: usize| {
        for _ in 0..count {
            let mut group = Work::default();
            for _ in 0..50 {
                let write = next_state(&state, &format!("bucket-{:050}", state.stamp().seq));
                state = write.state.clone();
                group.vote = load::promise_of(&state);
                group.writes.push(write);
            }
            open.store.write(&group).unwrap();
        }
        Arc::clone(&state)
    };
    let generation = || {
        let Found::Good(records) = load::examine(&Files::read(&disk.state()).unwrap()).unwrap() else {
            panic!("reads")
        };
        (records.state.generation, records.state.length)
    };
    // Almost as much as makes it compact; then room for the rest of the changes, not for a second file.
    while generation().1 < (1 << 20) - 40_000 {
        write_all(&mut open, 1);
    }
    disk.fill();
    let filler = disk.0.0.join("filler");
    let length = fs::metadata(&filler).unwrap().len();
    fs::File::options().write(true).open(&filler).unwrap().set_len(length - 160_000).unwrap();
    let before = generation();
    assert_eq!(before.0, 1);
    let held = write_all(&mut open, 4);
    assert_eq!(generation().0, 1, "there was no room for a second file");
    assert!(generation().1 > 1 << 20, "and it was due");
    assert!(!disk.state().join("state.tmp").exists(), "what did not fit takes no room");
    disk.make_room();
    drop(open);
    let mut open = opened(&disk.state());
    assert_eq!(open.hard.accepted, Some(held));
    let last = write_all(&mut open, 1);
    assert_eq!(generation().0, 2, "compacted once there is room");
    drop(open);
    assert_eq!(opened(&disk.state()).hard.accepted, Some(last));
}

#[test]
fn a_read_only_disk_is_named() {
    let disk = Small::new(256);
    let (hard, _) = filled(&disk.state());
    disk.mount(&["-o", "remount,ro"]);
    let error = open(&disk.state(), &Wanted::of(&g1())).err().unwrap().to_string();
    assert!(error.contains("Read-only file system") && error.contains(&*disk.state().to_string_lossy()), "{error}");
    disk.mount(&["-o", "remount,rw"]);
    assert_eq!(opened(&disk.state()).hard, hard);
}
