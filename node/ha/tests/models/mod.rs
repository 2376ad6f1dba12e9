//! Exhaustive models of the timeless layer (rung 3), in the production types.
//!
//! `register`: promises, adoption, reconfiguration, crashes, wiped disks. `genesis`: founding.

#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod founding;
pub mod register;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model};

/// A state that remembers which invariant the step to it broke.
pub trait Judged {
    fn broken(&self) -> Option<&'static str>;
}

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub depth: usize,
    /// Whether everything within the bounds was seen.
    pub complete: bool,
    /// Whether what should happen somewhere did: a search that never got anywhere proves nothing.
    pub reached: bool,
    /// The broken invariant and the steps to it.
    pub broken: Option<(&'static str, String)>,
}

/// Breadth first, so that a counterexample is a shortest one.
pub fn search<M>(model: M, seconds: u64) -> Found
where
    M: Model + Send + Sync + 'static,
    M::State: Judged + Debug + Hash + Clone + Send + Sync + PartialEq,
    M::Action: Debug + Clone + PartialEq,
{
    let start = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let checker = model
        .checker()
        .threads(threads)
        .timeout(Duration::from_secs(seconds))
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let broken = checker.discovery("invariants").map(|path| {
        let steps: Vec<String> =
            path.clone().into_actions().into_iter().enumerate().map(|(i, a)| format!("{:>3} {a:?}", i + 1)).collect();
        (path.last_state().broken().unwrap_or("?"), steps.join("\n"))
    });
    let reached =
        checker.model().properties().iter().all(|p| {
            !matches!(p.expectation, stateright::Expectation::Sometimes) || checker.discovery(p.name).is_some()
        });
    Found {
        reached,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        complete: start.elapsed() < Duration::from_secs(seconds) && broken.is_none(),
        broken,
    }
}
