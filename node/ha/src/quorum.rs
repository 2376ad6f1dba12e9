//! Majorities. Silence and errors are No; the full electorate counts.

use std::collections::BTreeSet;

use ais_meta::{Electorate, VoterId};

/// The voters of a State as a set.
pub type Voters = BTreeSet<VoterId>;

/// The names in an electorate.
#[must_use]
pub fn names(electorate: &Electorate) -> Voters {
    electorate.iter().map(|v| v.id.clone()).collect()
}

/// Whether this voter has a seat.
#[must_use]
pub fn seats(electorate: &Electorate, id: &VoterId) -> bool {
    electorate.iter().any(|v| v.id == *id)
}

/// How many of `size` voters decide.
#[must_use]
pub fn majority(size: usize) -> usize {
    size / 2 + 1
}

/// Whether more than half of `voters` satisfy `yes`. Nobody is no majority.
pub fn decides(voters: &Voters, yes: impl Fn(&VoterId) -> bool) -> bool {
    !voters.is_empty() && voters.iter().filter(|v| yes(v)).count() >= majority(voters.len())
}

/// Whether two successive electorates keep I6: at most one voter differs.
#[must_use]
pub fn one_apart(before: &Voters, after: &Voters) -> bool {
    before.symmetric_difference(after).count() <= 1
}

/// The largest value that a majority reaches, given each voter's value (`None` reaches nothing).
pub fn reached<T: Ord + Copy>(electorate: &Electorate, value: impl Fn(&VoterId) -> Option<T>) -> Option<T> {
    let mut values: Vec<T> = electorate.iter().filter_map(|v| value(&v.id)).collect();
    values.sort_unstable();
    let need = majority(electorate.len());
    if electorate.is_empty() || values.len() < need { None } else { Some(values[values.len() - need]) }
}
