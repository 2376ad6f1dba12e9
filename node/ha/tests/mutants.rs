//! Every defect that the models can express is put back, one at a time, and must be found: a checker that never failed
//! proves nothing. The switch is a process-wide static, so all of it is one test.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

mod harness;
mod models;

use ais_ha::mutant::{Mutant, set};
use models::{Found, founding, register, search};

const SECONDS: u64 = 120;

/// About time, which the models do not have. The first needs the simulator; the others break a story's expectation.
const TIMED: [Mutant; 3] = [Mutant::LeaseFromReply, Mutant::ResumesAfterResign, Mutant::TimeoutIsEvidence];
const STORIES: [(Mutant, &str); 2] = [
    (Mutant::ResumesAfterResign, include_str!("transcripts/53-successor-dies.txt")),
    (Mutant::TimeoutIsEvidence, include_str!("transcripts/12-time-out-is-no-evidence.txt")),
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
        Mutant::LeaseFromReply | Mutant::ResumesAfterResign | Mutant::TimeoutIsEvidence => {
            unreachable!("about time")
        }
    };
    search(bounds, SECONDS)
}

#[test]
fn every_defect_is_found() {
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL.into_iter().filter(|m| !TIMED.contains(m)) {
        set(Some(mutant));
        let found = hunt(mutant);
        set(None);
        match found.broken {
            Some((what, steps)) => {
                println!("{mutant:?}: {what} ({} states, {} steps)\n{steps}", found.states, steps.lines().count());
            }
            None => survivors.push((mutant, found.states, found.complete)),
        }
    }
    for (mutant, story) in STORIES {
        set(Some(mutant));
        let told = std::panic::catch_unwind(|| harness::tell(story));
        set(None);
        println!("{mutant:?}: its story {}", if told.is_err() { "breaks" } else { "goes on as if nothing were" });
        if told.is_ok() {
            survivors.push((mutant, 0, true));
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
