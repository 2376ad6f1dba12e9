//! Laws of quorums, stamps and the register, on random input (rung 2).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

use std::collections::BTreeSet;

use ais_ha::quorum::{self, Voters};
use ais_ha::register::{Ballot, INCARNATION_SLOTS, Proposal, Register, Slot, Term, next_incarnation};
use ais_meta::{Digest, DiskId, Stamp, VoterId};
use proptest::prelude::*;

fn voter(n: u8) -> VoterId {
    VoterId::new(format!("n{n}").parse().unwrap(), DiskId(u64::from(n)))
}

fn seat(n: u8) -> ais_meta::Voter {
    let at = |port| ais_meta::Address { host: "n".into(), port };
    let addresses = ais_meta::Addresses { public: at(1), control: at(2), peer: at(3) };
    ais_meta::Voter { id: voter(n), kind: ais_meta::Kind::Gateway, electable: true, addresses }
}

fn voters(set: &BTreeSet<u8>) -> Voters {
    set.iter().map(|n| voter(*n)).collect()
}

fn slot(epoch: u64, seq: u64, set: &BTreeSet<u8>) -> Slot {
    let stamp = Stamp::new(0, epoch, seq);
    Slot { stamp, digest: Digest(u128::from(epoch << 8 | seq)), voters: voters(set) }
}

fn set() -> impl Strategy<Value = BTreeSet<u8>> {
    prop::collection::btree_set(0_u8..7, 0..7)
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (0_u32..3, 0_u64..5, 0_u64..5).prop_map(|(i, e, s)| Stamp::new(i, e, s))
}

#[derive(Clone, Debug)]
enum Op {
    Promise(u64, u8),
    Accept(u64, u64, u8),
    Commit(u64, u64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0_u64..6, 0_u8..3).prop_map(|(e, v)| Op::Promise(e, v)),
        (0_u64..6, 0_u64..6, 0_u8..3).prop_map(|(e, s, v)| Op::Accept(e, s, v)),
        (0_u64..6, 0_u64..6).prop_map(|(e, s)| Op::Commit(e, s)),
        Just(Op::Restart),
    ]
}

proptest! {
    /// Twice the yes-sayers are more than all: counted the dumb way.
    #[test]
    fn a_majority_is_more_than_half(all in set(), yes in set()) {
        let twin = 2 * all.iter().filter(|n| yes.contains(n)).count() > all.len();
        prop_assert_eq!(quorum::decides(&voters(&all), |v| voters(&yes).contains(v)), twin);
    }

    /// Two majorities of electorates that differ by at most one voter have a voter in common: what rule 7 rests on.
    #[test]
    fn majorities_one_apart_meet(all in set(), change in 0_u8..7, one in set(), two in set()) {
        let mut other = all.clone();
        if !other.remove(&change) {
            other.insert(change);
        }
        prop_assert!(quorum::one_apart(&voters(&all), &voters(&other)));
        let both = quorum::decides(&voters(&all), |v| voters(&one).contains(v))
            && quorum::decides(&voters(&other), |v| voters(&two).contains(v));
        prop_assert!(!both || one.intersection(&two).any(|n| all.contains(n) && other.contains(n)));
    }

    #[test]
    fn one_apart_counts_the_difference(one in set(), two in set()) {
        let twin = one.difference(&two).count() + two.difference(&one).count() <= 1;
        prop_assert_eq!(quorum::one_apart(&voters(&one), &voters(&two)), twin);
    }

    /// The value that a majority reaches: the largest x such that more than half have at least x.
    #[test]
    fn reached_is_the_largest_that_a_majority_has(values in prop::collection::vec(prop::option::of(0_u8..9), 1..7)) {
        let all: ais_meta::Electorate = (0_u8..).zip(&values).map(|(n, _)| seat(n)).collect();
        let value = |v: &VoterId| values[usize::try_from(v.disk.0).unwrap()];
        let has = |x: u8| 2 * values.iter().flatten().filter(|v| **v >= x).count() > values.len();
        let twin = (0..9).rev().find(|x| has(*x));
        prop_assert_eq!(quorum::reached(&all, value), twin);
    }

    /// Stamps are ordered by incarnation, then epoch, then sequence; the next one is greater and of the same epoch.
    #[test]
    fn stamps_are_ordered(a in stamp(), b in stamp()) {
        let twin = (a.incarnation, a.epoch, a.seq).cmp(&(b.incarnation, b.epoch, b.seq));
        prop_assert_eq!(a.cmp(&b), twin);
        prop_assert!(a.next() > a && a.next().epoch == a.epoch && a.next().incarnation == a.incarnation);
    }

    /// I2 and rule 6 over any history, restarts from what the disk has included.
    #[test]
    fn the_register_never_goes_back(ops in prop::collection::vec(op(), 0..40)) {
        let mut r = Register::default();
        let mut primary = voter(0);
        for op in ops {
            let before = r.clone();
            match op {
                Op::Promise(epoch, to) => {
                    let given = r.promise(Term::new(0, epoch), &voter(to)).is_ok();
                    prop_assert!(!given || (r.promised() == Term::new(0, epoch) && r.voted_for() == Some(&voter(to))));
                    prop_assert!(given || r == before);
                    let same = before.promised() == Term::new(0, epoch) && before.voted_for() != Some(&voter(to));
                    prop_assert!(!(given && same), "an epoch was promised to two");
                }
                Op::Accept(epoch, seq, by) => {
                    let new = slot(epoch, seq, &BTreeSet::from([0, 1, 2]));
                    let taken = r.accept(&new, &voter(by)).is_ok();
                    if taken {
                        primary = voter(by);
                        prop_assert_eq!(r.accepted(), Some(&new));
                        prop_assert_eq!(r.promised(), Term::new(0, epoch), "accepting raises the promise");
                        prop_assert_eq!(r.voted_for(), Some(&voter(by)));
                    } else {
                        prop_assert!(r == before);
                    }
                    prop_assert!(!(taken && epoch < before.promised().epoch), "a delayed accept was taken");
                }
                Op::Commit(epoch, seq) => {
                    let stamp = Stamp::new(0, epoch, seq);
                    prop_assert_eq!(r.commit(stamp), stamp > before.committed());
                }
                Op::Restart => {
                    let accepted = r.accepted().map(|a| (a.clone(), primary.clone()));
                    // The promise may be written before or after the State that raised it.
                    let promise = if r.accepted().is_some_and(|a| Term::from(a.stamp) == r.promised()) { Term::default() } else { r.promised() };
                    let again = Register::load(promise, r.voted_for().cloned(), accepted, r.committed());
                    prop_assert_eq!(again.promised(), r.promised());
                    prop_assert_eq!(again.accepted(), r.accepted());
                    r = again;
                }
            }
            prop_assert!(r.promised() >= before.promised());
            prop_assert!(r.accepted().map(|a| a.stamp) >= before.accepted().map(|a| a.stamp));
            prop_assert!(r.committed() >= before.committed());
        }
    }

    /// Rule 5: the highest State that was given, counted in its own electorate, in whatever order promises come.
    #[test]
    fn a_ballot_counts_in_what_it_adopts(
        given in prop::collection::btree_map(0_u8..7, prop::option::of((1_u64..4, 1_u64..4)), 0..7),
        electorates in prop::collection::vec(set(), 16),
    ) {
        let of = |(e, s): (u64, u64)| slot(e, s, &electorates[usize::try_from(e * 4 + s).unwrap() % 16]);
        let mut ballot = Ballot::new(9, None);
        for (from, accepted) in &given {
            ballot.promise(voter(*from), accepted.map(of));
        }
        let best = given.values().flatten().max().copied().map(of);
        prop_assert_eq!(ballot.adopted(), best.as_ref());
        let promised: Voters = given.keys().map(|n| voter(*n)).collect();
        let twin = best.is_some_and(|b| 2 * b.voters.intersection(&promised).count() > b.voters.len());
        prop_assert_eq!(ballot.won(), twin);
    }

    /// Rule 6: acknowledgements of another stamp, another content, or by others than the voters inside do not count.
    #[test]
    fn a_proposal_counts_its_own_voters(all in set(), acks in prop::collection::vec((0_u8..7, 1_u64..3, any::<bool>()), 0..12)) {
        let new = slot(1, 1, &all);
        let mut proposal = Proposal::new(new.clone());
        for (from, seq, same) in &acks {
            let digest = if *same { new.digest } else { Digest(0) };
            proposal.ack(&voter(*from), Stamp::new(0, 1, *seq), digest);
        }
        let good: BTreeSet<u8> = acks.iter().filter(|(_, seq, same)| *seq == 1 && *same).map(|(n, ..)| *n).collect();
        prop_assert_eq!(proposal.committed(), 2 * all.intersection(&good).count() > all.len());
    }
}

#[test]
fn two_slots_never_share_an_incarnation() {
    assert_eq!((next_incarnation(0, 1), next_incarnation(0, 2)), (Some(1), Some(2)));
    assert_eq!(next_incarnation(2, 1), Some(INCARNATION_SLOTS + 1));
    assert_eq!(next_incarnation(0, 0), Some(INCARNATION_SLOTS));
    for (known, slot) in (0..300).flat_map(|known| (0..INCARNATION_SLOTS).map(move |slot| (known, slot))) {
        let next = next_incarnation(known, slot).unwrap();
        assert!(next > known && next % INCARNATION_SLOTS == slot && next - known <= INCARNATION_SLOTS);
    }
    assert_eq!(next_incarnation(u32::MAX, 1), None);
}
