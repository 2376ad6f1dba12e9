//! Every defect that the models can express is put back, one at a time, and must be found: a checker that never failed
//! proves nothing. The switch is a process-wide static, so all of it is one test.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

mod harness;
mod models;

use std::time::Instant;

use ais_ha::mutant::{Mutant, set};
use models::{Found, founding, register, search};

const SECONDS: u64 = 120;

/// About time or heartbeats, which the models do not have. The first needs the simulator; the others break a story.
const TIMED: [Mutant; 6] = [
    Mutant::LeaseFromReply,
    Mutant::ResumesAfterResign,
    Mutant::TimeoutIsEvidence,
    Mutant::LeaseByOwnTimers,
    Mutant::RecoveryTold,
    Mutant::HeartbeatTellsUnwritten,
];

/// The smallest search in which the defect does harm. Unless said otherwise only the chain of committed States and the
/// stamps are judged: the defect must not be found merely because it is one.
fn hunt(mutant: Mutant) -> Found {
    let base = register::Bounds {
        nodes: 3,
        voters: 3,
        epochs: 2,
        writes: 2,
        crashes: 0,
        wipes: 0,
        recoveries: 0,
        honest: false,
        reconfigures: false,
        stands: Some(&[(1, 2), (2, 2)]),
        chain_only: true,
    };
    let bounds = match mutant {
        Mutant::VotesNotPersisted => register::Bounds { crashes: 1, ..base },
        Mutant::AcceptKeepsPromise => register::Bounds { stands: None, ..base },
        Mutant::MajorityOfResponders => register::Bounds { voters: 1, ..base },
        Mutant::CommitOnLocalPersist | Mutant::FenceByVersion | Mutant::NoAdoption => base,
        // Counting one electorate behind keeps the chain as long as it is done always; it breaks the promise that
        // what is published is held by a majority of those who vote now.
        Mutant::CommitInOldElectorate => {
            register::Bounds { voters: 1, nodes: 2, reconfigures: true, chain_only: false, ..base }
        }
        Mutant::WipedKeepsId => register::Bounds { wipes: 1, stands: Some(&[(1, 2)]), ..base },
        Mutant::TwoVotersAtOnce => register::Bounds { reconfigures: true, stands: Some(&[(1, 2)]), ..base },
        Mutant::SecondInFlight | Mutant::OwnElectorate => {
            register::Bounds { reconfigures: true, writes: 3, stands: Some(&[(2, 2)]), ..base }
        }
        // The harm needs five nodes; judged by I6.
        Mutant::FirstWriteDropsPrimary => register::Bounds { chain_only: false, ..base },
        Mutant::EpochReused => register::Bounds { crashes: 1, stands: Some(&[(1, 2)]), ..base },
        Mutant::AnyBoundFounds => {
            return search(founding::Bounds { nodes: 3, crashes: 1, wipes: 0, rivals: false, relists: false }, SECONDS);
        }
        Mutant::LeaseFromReply
        | Mutant::ResumesAfterResign
        | Mutant::TimeoutIsEvidence
        | Mutant::LeaseByOwnTimers
        | Mutant::RecoveryTold
        | Mutant::HeartbeatTellsUnwritten => {
            unreachable!("about time")
        }
    };
    search(bounds, SECONDS)
}

/// One line for `cargo xtask mutants`.
fn say(mutant: Mutant, rung: &str, by: Option<&str>, since: Instant) {
    let word = if by.is_some() { "killed" } else { "missed" };
    println!("{word} | {mutant:?} | {rung} | {} | {:.1}", by.unwrap_or("-"), since.elapsed().as_secs_f64());
}

/// The first story that the defect changes.
fn disturbed(stories: &[(String, String)]) -> Option<&str> {
    let differs = |text: &str| std::panic::catch_unwind(|| harness::tell(text)).map_or(true, |told| told != text);
    stories.iter().find(|(_, text)| differs(text)).map(|(name, _)| name.as_str())
}

fn stories() -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    let read = |f: std::path::PathBuf| {
        let name = f.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(f).unwrap())
    };
    files.into_iter().map(read).collect()
}

#[test]
fn every_defect_is_found() {
    let mut survivors = Vec::new();
    let stories = stories();
    // A story that breaks panics; only which one it was is of interest.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    assert_eq!(disturbed(&stories), None, "without a defect the stories are as recorded");
    for mutant in Mutant::ALL {
        let since = Instant::now();
        set(Some(mutant));
        let story = disturbed(&stories);
        set(None);
        say(mutant, "transcripts", story, since);
        if story.is_none() && TIMED.contains(&mutant) && mutant != Mutant::LeaseFromReply {
            survivors.push((mutant, 0, true));
        }
    }
    std::panic::set_hook(hook);
    for mutant in Mutant::ALL.into_iter().filter(|m| !TIMED.contains(m)) {
        let since = Instant::now();
        set(Some(mutant));
        let found = hunt(mutant);
        set(None);
        match found.broken {
            Some((what, steps)) => {
                let by = format!("{what} ({} states, {} steps)", found.states, steps.lines().count());
                say(mutant, "model", Some(&by.replace('|', "/")), since);
                println!("{steps}");
            }
            None => {
                say(mutant, "model", None, since);
                survivors.push((mutant, found.states, found.complete));
            }
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
