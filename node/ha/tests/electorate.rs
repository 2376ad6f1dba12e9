//! Section 4 of the protocol: who votes next. The table's rows are data; a row is played until nothing is left to do.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

use std::fmt::Write as _;

use ais_ha::electorate::{Inputs, Newcomer, Seat, Standing, Step, next_step};
use ais_ha::quorum;
use ais_meta::{Address, Addresses, DiskId, Kind, Voter, VoterId};
use expect_test::expect_file;
use proptest::prelude::*;

/// `g1`, `t2/7` (disk 7), `t2@east` (domain east); a last letter out of `marks` is given back.
fn member(word: &str, marks: &str) -> (Voter, String, Option<char>) {
    let mark = word.chars().last().filter(|c| marks.contains(*c));
    let word = word.trim_end_matches(|c| Some(c) == mark);
    let (word, domain) = word.split_once('@').unwrap_or((word, ""));
    let (name, disk) = word.split_once('/').unwrap_or((word, "1"));
    let kind = if name.starts_with('t') { Kind::Target } else { Kind::Gateway };
    let at = Address { host: name.into(), port: 1 };
    let addresses = Addresses { public: at.clone(), control: at.clone(), peer: at };
    let id = VoterId::new(name.parse().unwrap(), DiskId(disk.parse().unwrap()));
    let electable = kind == Kind::Gateway && mark != Some('-') && mark != Some('~');
    (Voter { id, kind, electable, addresses }, domain.to_owned(), mark)
}

fn seat(word: &str) -> Seat {
    let (voter, domain, mark) = member(word, "?!~-");
    let standing = match mark {
        Some('!') => Standing::Gone,
        Some('~') => Standing::Leaving,
        Some('-') => Standing::Unfit,
        _ => Standing::Good,
    };
    Seat { voter, domain, standing, current: !matches!(mark, Some('?' | '!')) }
}

fn newcomer(word: &str) -> Newcomer {
    let (voter, domain, mark) = member(word, "?");
    Newcomer { voter, domain, fit: mark.is_none() }
}

fn show(id: &VoterId) -> String {
    if id.disk == DiskId(1) { id.node.to_string() } else { format!("{}/{}", id.node, id.disk.0) }
}

/// The State that takes the step is committed.
fn take(inputs: &mut Inputs, step: &Step) {
    match step {
        Step::Add(voter) => {
            let at = inputs.newcomers.iter().position(|n| n.voter.id == voter.id).unwrap();
            let Newcomer { voter, domain, fit } = inputs.newcomers.remove(at);
            assert!(fit, "{} was not at hand", show(&voter.id));
            let taken = inputs.seats.iter().any(|s| s.voter.id.node == voter.id.node);
            assert!(!taken, "two seats of {}", voter.id.node);
            inputs.seats.push(Seat { voter, domain, standing: Standing::Good, current: true });
        }
        Step::Remove(id) => {
            assert_ne!(*id, inputs.me, "the primary's own seat");
            let at = inputs.seats.iter().position(|s| s.voter.id == *id).unwrap();
            let seat = inputs.seats.remove(at);
            if seat.standing == Standing::Good {
                let Seat { voter, domain, .. } = seat;
                inputs.newcomers.push(Newcomer { voter, domain, fit: true });
            }
        }
    }
    let here = inputs.seats.iter().filter(|s| s.current || s.voter.id == inputs.me).count();
    assert!(here >= quorum::majority(inputs.seats.len()), "a step left no majority");
}

/// Plays until nothing is due; the steps on the way.
fn play(inputs: &mut Inputs) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some(step) = next_step(inputs) {
        take(inputs, &step);
        steps.push(match step {
            Step::Add(voter) => format!("+{}", show(&voter.id)),
            Step::Remove(id) => format!("-{}", show(&id)),
        });
        assert!(steps.len() < 20, "goes round: {steps:?}");
    }
    steps
}

#[test]
fn the_table_of_steps() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/electorate.txt");
    let (mut out, mut rows) = (String::new(), 0);
    for line in std::fs::read_to_string(file).unwrap().lines() {
        if line.is_empty() || line.starts_with('#') {
            let _ = writeln!(out, "{line}");
            continue;
        }
        rows += 1;
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let mut inputs = Inputs {
            me: member(columns[1], "").0.id,
            voters_max: columns[0].parse().unwrap(),
            seats: columns[2].split_whitespace().map(seat).collect(),
            newcomers: columns[3].split_whitespace().map(newcomer).collect(),
        };
        let steps = play(&mut inputs);
        let steps = if steps.is_empty() { "stays".to_owned() } else { steps.join(" ") };
        let mut left: Vec<String> = inputs.seats.iter().map(|s| show(&s.voter.id)).collect();
        left.sort();
        let _ = writeln!(out, "{} | {steps} | {}", columns[..4].join(" | "), left.join(" "));
    }
    assert!(rows >= 30, "rows are missing");
    expect_file![file].assert_eq(&out);
}

fn any_world() -> impl Strategy<Value = Inputs> {
    let mark = prop::sample::select(vec!["", "", "", "", "?", "!", "~", "-"]);
    let domain = prop::sample::select(vec!["", "@east", "@west"]);
    let seats = prop::collection::vec((any::<bool>(), mark, domain.clone()), 1..7);
    let fit = prop::sample::select(vec!["", "", "?"]);
    let newcomers = prop::collection::vec((any::<bool>(), fit, domain), 0..6);
    let name = |gateway: bool, at: usize| format!("{}{at}", if gateway { "g" } else { "t" });
    (seats, newcomers, prop::sample::select(vec![1, 3, 5]), 0..8_usize).prop_map(move |(seats, newcomers, max, me)| {
        let words = |gateway: bool, at: usize, domain: &str, mark: &str| {
            format!("{}{domain}{}", name(gateway, at), if mark == "-" && !gateway { "" } else { mark })
        };
        let seats: Vec<Seat> =
            seats.iter().enumerate().map(|(at, (g, mark, domain))| seat(&words(*g, at, domain, mark))).collect();
        let known = seats.iter().map(|s| s.voter.id.clone()).collect::<Vec<_>>();
        let newcomers: Vec<Newcomer> = newcomers
            .iter()
            .enumerate()
            .map(|(at, (g, fit, domain))| newcomer(&words(*g, at + 10, domain, fit)))
            .collect();
        // The primary is a voter, or a learner that won.
        let me = known.get(me).cloned().unwrap_or_else(|| member("g99", "").0.id);
        let mut seats = seats;
        for s in seats.iter_mut().filter(|s| s.voter.id == me) {
            (s.current, s.standing) = (true, s.standing.min(Standing::Leaving));
        }
        Inputs { me, voters_max: max, seats, newcomers }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// From wherever: one voter at a time, safe at each step, never the primary, and it comes to rest (`play` and
    /// `take` assert that).
    #[test]
    fn steps_are_lawful_and_come_to_an_end(mut world in any_world()) {
        let before = world.clone();
        play(&mut world);
        // A living voter that stays is not traded for another of its kind. (It may go when there are too many.)
        let same_size = before.seats.len() == world.seats.len();
        let all_good = before.seats.iter().all(|s| s.standing == Standing::Good && s.voter.electable);
        let odd = before.seats.len() % 2 == 1 && before.seats.len() <= before.voters_max;
        if all_good && odd && same_size && before.seats.len() > 1 {
            let names = |i: &Inputs| i.seats.iter().map(|s| s.voter.id.clone()).collect::<std::collections::BTreeSet<_>>();
            prop_assert_eq!(names(&before), names(&world));
        }
    }
}
