//! Laws of the State: one content, one digest, however it came about; nothing that is not understood is lost.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use ais_meta::node::flags;
use ais_meta::state::{CLIENTS_MAX, RESULTS_MAX, StateError, TxnPhase};
use ais_meta::{
    BucketName, Change, Delta, Digest, DiskId, Draft, Full, Kind, MemberAction, MemberOptions, NodeId, Outcome,
    Refusal, RequestId, State, Voter, VoterId,
};
use common::{create, destroy, edited, genesis, id, join, next, node, values};
use proptest::prelude::*;

/// A whole State with its digest made right again: what a newer version might send.
fn repaired(mut full: Full) -> Full {
    match State::from_full(&full) {
        Err(StateError::Digest { found, .. }) => full.digest = found,
        other => drop(other.unwrap()),
    }
    full
}

fn entry<'a>(full: &'a mut Full, key: &str) -> &'a mut bytes::Bytes {
    &mut full.entries.iter_mut().find(|(k, _)| k == key).unwrap().1
}

/// Adds a field that this version does not know to an entry.
fn with_field(full: &mut Full, key: &str) {
    let bytes = entry(full, key);
    let mut value: rmpv::Value = rmp_serde::from_slice(bytes).unwrap();
    let rmpv::Value::Map(fields) = &mut value else { panic!("{key} is no map") };
    fields.push(("from_the_future".into(), rmpv::Value::from(7)));
    *bytes = rmp_serde::to_vec_named(&value).unwrap().into();
}

fn has_field(state: &State, key: &str) -> bool {
    let mut full = state.full();
    let value: rmpv::Value = rmp_serde::from_slice(entry(&mut full, key)).unwrap();
    value.as_map().unwrap().iter().any(|(field, _)| field.as_str() == Some("from_the_future"))
}

#[test]
fn a_new_cluster_has_all_initial_voters_in_map_and_electorate() {
    let state = genesis();
    assert_eq!(state.stamp().to_string(), "0.1.1");
    let ids: Vec<_> = state.nodes().keys().map(NodeId::as_str).collect();
    assert_eq!(ids, ["g1", "g2", "g3"]);
    assert_eq!(state.electorate().len(), 3);
    assert_eq!((state.buckets().len(), state.bmd_version(), state.config().version), (0, 0, 1));
    assert_eq!(State::from_full(&state.full()).unwrap(), state);
}

#[test]
fn a_bucket_id_is_never_used_twice() {
    let one = edited(&genesis(), |d| drop(d.change(&create("a"))));
    let two = edited(&one, |d| {
        assert_eq!(d.change(&destroy("a")), Outcome::Done);
        assert_eq!(d.change(&create("a")), Outcome::Done);
    });
    let bid = |s: &State| s.buckets().get(&"a".parse::<BucketName>().unwrap()).unwrap().bid;
    assert!(bid(&two) > bid(&one) && bid(&one) >> 63 == 1);
    assert_eq!(two.bmd_version(), 3);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let state = edited(&genesis(), |d| drop(d.change(&create("a"))));
    let mut draft = state.draft(state.stamp().next());
    let name = "a".parse().unwrap();
    assert_eq!(draft.change(&create("a")), Outcome::Refused(Refusal::BucketExists(name)));
    let missing = "b".parse().unwrap();
    assert_eq!(draft.change(&destroy("b")), Outcome::Refused(Refusal::NoSuchBucket(missing)));
    let gone = Change::Leave { node: id("g9") };
    assert_eq!(draft.change(&gone), Outcome::Refused(Refusal::NoSuchNode(id("g9"))));
    assert!(!draft.is_edited());
}

#[test]
fn flags_outlive_leaving_and_count_at_the_first_join_only() {
    let mut g4 = node("g4", Kind::Gateway, 8);
    g4.flags = flags::NON_ELECTABLE | flags::MAINTENANCE;
    let state = edited(&genesis(), |d| drop(d.change(&join(g4.clone()))));
    let shown = |s: &State| s.nodes().get(&id("g4")).map(|n| n.flags);
    assert_eq!(shown(&state), Some(flags::NON_ELECTABLE), "nobody puts itself into maintenance");
    let left = edited(&state, |d| drop(d.change(&Change::Leave { node: id("g4") })));
    assert_eq!((shown(&left), left.past().contains_key(&id("g4"))), (None, true));
    g4.flags = 0;
    let back = edited(&left, |d| drop(d.change(&join(g4))));
    assert_eq!((shown(&back), back.past().len()), (Some(flags::NON_ELECTABLE), 0));
}

#[test]
fn targets_coming_and_going_raise_the_placement_generation() {
    let state = genesis();
    let with = edited(&state, |d| drop(d.change(&join(node("t1", Kind::Target, 9)))));
    let without = edited(&with, |d| drop(d.change(&Change::Leave { node: id("t1") })));
    let gateway = edited(&without, |d| drop(d.change(&join(node("g4", Kind::Gateway, 9)))));
    let generations = [&state, &with, &without, &gateway].map(|s| s.rmd().generation);
    assert_eq!(generations, [0, 1, 2, 2]);
}

#[test]
fn a_new_primary_is_seen_by_the_jump_of_the_map() {
    let state = genesis();
    let taken = edited(&state, |d| d.take_over("g2/0000000000000007".parse().unwrap(), 4, 2000));
    assert_eq!(taken.smap().version, state.smap().version + 100);
    assert_eq!((taken.primary().node.as_str(), taken.head().run), ("g2", 4));
    assert_eq!(taken.electorate(), state.electorate());
}

#[test]
fn a_voters_addresses_follow_its_place_in_the_map() {
    let mut moved = node("g2", Kind::Gateway, 7);
    moved.addresses.peer.port = 99;
    let state = edited(&genesis(), |d| drop(d.change(&join(moved))));
    let voter = state.electorate().iter().find(|v| v.id.node.as_str() == "g2").unwrap();
    assert_eq!(voter.addresses.peer.port, 99);
    let other_disk = edited(&state, |d| drop(d.change(&join(node("g2", Kind::Gateway, 1)))));
    assert_eq!(other_disk.electorate(), state.electorate(), "another disk is another voter");
}

#[test]
fn unknown_entries_and_fields_survive_edits_deltas_and_copies() {
    let order = |action| Change::Membership { action, nodes: vec![id("t7")], options: MemberOptions::default() };
    let base = edited(&genesis(), |d| {
        d.change(&create("a"));
        d.change(&join(node("t7", Kind::Target, 7)));
        d.change(&order(MemberAction::Shutdown));
        d.finish_transaction();
        d.change(&order(MemberAction::StartMaintenance));
        d.change(&order(MemberAction::Decommission));
    });
    let mut full = base.full();
    full.entries.push(("txn/one".to_owned(), bytes::Bytes::from_static(b"not even messagepack")));
    full.entries.sort();
    let kept = [
        "head",
        "smap",
        "bmd",
        "config",
        "rmd",
        "tokens",
        "smap/node/g2",
        "bmd/bucket//a",
        "txn/current",
        "txn/order/t7",
    ];
    for key in kept {
        with_field(&mut full, key);
    }
    let newer = State::from_full(&repaired(full)).unwrap();
    let (edited, delta) = next(&newer, |d| {
        d.change(&create("b"));
        let set = values(&[("mirror.copies", "3")]);
        d.change(&Change::SetBucketProps { name: "a".parse().unwrap(), set, reset: true });
        d.change(&Change::SetConfig { set: values(&[("log.level", "warn")]), reset: false });
        let tokens = BTreeMap::from([("0".repeat(64), 9)]);
        d.change(&Change::RevokeTokens { tokens, now_s: 1 });
        d.advance_transaction(TxnPhase::Seats);
        d.change(&join(node("t1", Kind::Target, 3)));
        d.take_over(VoterId::new(id("g2"), DiskId(7)), 2, 2000);
    });
    for state in [&edited, &newer.apply(&delta).unwrap(), &State::from_full(&edited.full()).unwrap()] {
        for key in kept {
            assert!(has_field(state, key), "{key}");
        }
        assert!(state.full().entries.iter().any(|(key, bytes)| key == "txn/one" && bytes.starts_with(b"not even")));
    }
}

#[test]
fn what_does_not_decode_is_refused_and_never_trimmed() {
    let state = genesis();
    for key in ["head", "smap", "smap/node/g2"] {
        let mut full = state.full();
        *entry(&mut full, key) = bytes::Bytes::from_static(b"\xc1");
        assert!(matches!(State::from_full(&full), Err(StateError::Decode { .. })), "{key}");
    }
    let mut full = state.full();
    full.entries.push(("smap/node/a b".to_owned(), bytes::Bytes::new()));
    assert!(matches!(State::from_full(&full), Err(StateError::Decode { .. })));
    let mut full = state.full();
    full.entries.retain(|(key, _)| key != "head");
    assert!(matches!(State::from_full(&full), Err(StateError::Missing("head"))));
    let mut full = state.full();
    let mut head: ais_meta::state::Head = rmp_serde::from_slice(entry(&mut full, "head")).unwrap();
    head.format = ais_meta::state::FORMAT + 1;
    *entry(&mut full, "head") = rmp_serde::to_vec_named(&head).unwrap().into();
    assert!(matches!(State::from_full(&full), Err(StateError::Format(_))));
}

#[test]
fn a_delta_fits_only_what_it_starts_from() {
    let state = genesis();
    let (after, delta) = next(&state, |d| drop(d.change(&create("a"))));
    assert_eq!(state.apply(&delta).unwrap(), after);
    assert!(matches!(after.apply(&delta), Err(StateError::Base { .. })));
    let lying = Delta { base_digest: Digest(1), ..delta.clone() };
    assert!(matches!(state.apply(&lying), Err(StateError::Base { .. })), "a stamp alone is not enough");
    let torn = Delta { digest: Digest(1), ..delta.clone() };
    assert!(matches!(state.apply(&torn), Err(StateError::Digest { .. })));
    let mut short = delta;
    short.changes.pop();
    assert!(matches!(state.apply(&short), Err(StateError::Digest { .. } | StateError::Base { .. })));
}

fn gateway_request(run: u64, seq: u64) -> RequestId {
    RequestId::Gateway { origin: VoterId::new(id("g2"), DiskId(7)), run, seq }
}

#[test]
fn a_request_is_remembered_until_its_gateway_waits_for_it_no_more() {
    let refused = Outcome::Refused(Refusal::NoSuchNode(id("g9")));
    let state = edited(&genesis(), |d| {
        d.settle(&gateway_request(3, 1), 0, Outcome::Done);
        d.settle(&gateway_request(3, 2), 0, refused.clone());
    });
    let draft = state.draft(state.stamp().next());
    assert_eq!(draft.settled(&gateway_request(3, 1)), Some(Outcome::Done));
    assert_eq!(draft.settled(&gateway_request(3, 2)), Some(refused));
    assert_eq!(draft.settled(&gateway_request(3, 3)), None);
    assert_eq!(draft.settled(&gateway_request(4, 1)), None, "a later run of the same disk counts from 1 again");
    let stale = Some(Outcome::Refused(Refusal::Stale));
    assert_eq!(draft.settled(&gateway_request(2, 9)), stale, "an earlier run waits for nothing");

    let later = edited(&state, |d| d.settle(&gateway_request(3, 3), 2, Outcome::Done));
    let draft = later.draft(later.stamp().next());
    assert_eq!(draft.settled(&gateway_request(3, 1)), stale, "below the low mark");
    assert!(draft.settled(&gateway_request(3, 2)).is_some());

    let restarted = edited(&later, |d| d.settle(&gateway_request(4, 1), 0, Outcome::Done));
    let draft = restarted.draft(restarted.stamp().next());
    assert_eq!(draft.settled(&gateway_request(3, 3)), stale);
    assert_eq!(draft.settled(&gateway_request(4, 1)), Some(Outcome::Done));
}

#[test]
fn what_is_remembered_of_requests_is_bounded() {
    let many = edited(&genesis(), |d| {
        for seq in 1..=5000 {
            d.settle(&gateway_request(1, seq), 0, Outcome::Done);
        }
    });
    let origin = many.origin(&VoterId::new(id("g2"), DiskId(7))).unwrap();
    assert_eq!((origin.results.len(), origin.low), (RESULTS_MAX, 5001 - 4096));
    // What a gateway may park must be remembered: 15 s of a thousand a second.
    let half = CLIENTS_MAX / 2;
    const { assert!(CLIENTS_MAX >= 15_000) };
    let mut state = genesis();
    for round in 0..3 {
        state = edited(&state, |d| {
            for i in 0..half {
                d.settle(&RequestId::Client(format!("{round}-{i}")), 0, Outcome::Done);
            }
        });
    }
    assert_eq!(state.clients().len(), CLIENTS_MAX);
    let last = |round: usize| state.client(&format!("{round}-{}", half - 1)).is_some();
    assert_eq!([last(0), last(1), last(2)], [false, true, true], "the oldest go first");
}

#[derive(Debug, Clone)]
enum Edit {
    Change(Change),
    TakeOver(u8),
    AddVoter(u8),
    RemoveVoter(u8),
    Settle(u8, u64),
    Advance,
    Finish,
}

/// Values that fit and values that do not.
fn settings() -> impl Strategy<Value = Change> {
    let some = prop::sample::select(vec![
        ("mirror.copies", "3"),
        ("mirror.enabled", "yes"),
        ("checksum.type", "MD5"),
        ("versioning.enabled", "false"),
        ("versioning.synchronize", "true"),
        ("access", "0x3"),
        ("lru.dont_evict_time", "90m"),
        ("ha.suspect_ms", "1600"),
        ("ha.suspect_ms", "5000"),
        ("auth.required_claims.aud", "a, b"),
        ("nonsense", "1"),
    ]);
    let set = prop::collection::vec(some, 0..4).prop_map(|pairs| values(&pairs));
    let name = |n: u8| format!("n{n}").parse::<BucketName>().unwrap();
    let tokens = prop::collection::btree_map(0u8..4, 0i64..200, 0..4);
    let hex = |n: u8| format!("{n:064x}");
    prop_oneof![
        (0u8..6, set.clone(), any::<bool>()).prop_map(move |(n, set, reset)| Change::SetBucketProps {
            name: name(n),
            set,
            reset
        }),
        (0u8..6, set.clone()).prop_map(move |(n, props)| Change::CreateBucket { name: name(n), created_ns: 1, props }),
        (0u8..6, 0u8..6).prop_map(move |(from, to)| Change::RenameBucket { from: name(from), to: name(to) }),
        (set, any::<bool>()).prop_map(|(set, reset)| Change::SetConfig { set, reset }),
        (tokens, 0i64..200).prop_map(move |(tokens, now_s)| Change::RevokeTokens {
            tokens: tokens.into_iter().map(|(n, until_s)| (hex(n), until_s)).collect(),
            now_s,
        }),
    ]
}

fn memberships() -> impl Strategy<Value = Change> {
    let action = prop::sample::select(vec![
        MemberAction::StartMaintenance,
        MemberAction::StopMaintenance,
        MemberAction::Shutdown,
        MemberAction::Decommission,
        MemberAction::RemoveUnsafe,
    ]);
    (action, prop::collection::vec(0u8..6, 0..3), any::<bool>()).prop_map(|(action, nodes, skip_rebalance)| {
        let nodes = nodes.iter().map(|n| id(&format!("n{n}"))).collect();
        Change::Membership { action, nodes, options: MemberOptions { skip_rebalance, ..MemberOptions::default() } }
    })
}

fn edits() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let named = |n: u8| format!("n{n}");
    let change = prop_oneof![
        (0u8..6).prop_map(move |n| create(&named(n))),
        (0u8..6).prop_map(move |n| destroy(&named(n))),
        (0u8..6, 0u64..2).prop_map(move |(n, disk)| {
            join(node(&named(n), if n % 2 == 0 { Kind::Gateway } else { Kind::Target }, disk))
        }),
        (0u8..6).prop_map(move |n| Change::Leave { node: id(&named(n)) }),
        any::<bool>().prop_map(|stopping| Change::Stopping { stopping }),
        (0u8..6, any::<bool>())
            .prop_map(move |(n, non_electable)| Change::Admit { node: id(&named(n)), non_electable }),
        settings(),
        memberships(),
    ];
    let edit = prop_oneof![
        30 => change.prop_map(Edit::Change),
        1 => Just(Edit::Change(Change::Decommission { options: MemberOptions::default() })),
        5 => (0u8..6).prop_map(Edit::TakeOver),
        5 => (0u8..6).prop_map(Edit::AddVoter),
        5 => (0u8..6).prop_map(Edit::RemoveVoter),
        10 => (0u8..3, 1u64..9).prop_map(|(n, seq)| Edit::Settle(n, seq)),
        5 => Just(Edit::Advance),
        5 => Just(Edit::Finish),
    ];
    prop::collection::vec(prop::collection::vec(edit, 0..5), 1..8)
}

/// All of the typed view that a mutation may edit.
fn untouched(s: &State) -> impl PartialEq + std::fmt::Debug {
    let members = (s.nodes().clone(), s.past().clone(), s.electorate().clone(), s.smap().clone(), s.orders().clone());
    let rest = (s.config().clone(), s.rmd().clone(), s.tokens().clone(), s.transaction().cloned(), s.head().clone());
    (members, s.buckets().clone(), s.bmd_version(), rest)
}

fn carry_out(draft: &mut Draft, edit: &Edit) {
    let voter = |n: &u8| VoterId::new(id(&format!("n{n}")), DiskId(1));
    match edit {
        Edit::Change(change) => {
            let before = draft.state().clone();
            if let Outcome::Refused(why) = draft.change(change) {
                assert_eq!(
                    untouched(draft.state()),
                    untouched(&before),
                    "{change:?} was refused ({why}) and did something"
                );
            }
        }
        Edit::Advance => draft.advance_transaction(TxnPhase::Seats),
        Edit::Finish => draft.finish_transaction(),
        Edit::TakeOver(n) => draft.take_over(voter(n), 2, 2000),
        Edit::AddVoter(n) => draft.add_voter(Voter::from(&node(&format!("n{n}"), Kind::Gateway, 1))),
        Edit::RemoveVoter(n) => draft.remove_voter(&voter(n)),
        Edit::Settle(n, seq) => {
            let request = RequestId::Gateway { origin: voter(n), run: 1, seq: *seq };
            draft.settle(&request, seq.saturating_sub(3), Outcome::Done);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// By deltas, as a whole, or by editing: the same stamp has the same digest and the same typed view.
    #[test]
    fn however_a_state_came_about_its_digest_is_that_of_its_content(rounds in edits()) {
        let mut state = genesis();
        let mut follower = state.clone();
        for round in rounds {
            let (after, delta) = next(&state, |draft| round.iter().for_each(|edit| carry_out(draft, edit)));
            let wire = rmp_serde::to_vec_named(&delta).unwrap();
            follower = follower.apply(&rmp_serde::from_slice(&wire).unwrap()).unwrap();
            let wire = rmp_serde::to_vec_named(&after.full()).unwrap();
            let whole = State::from_full(&rmp_serde::from_slice(&wire).unwrap()).unwrap();
            for other in [&follower, &whole] {
                prop_assert_eq!(other, &after);
                prop_assert_eq!(other.full(), after.full());
                prop_assert_eq!(untouched(other), untouched(&after));
            }
            prop_assert!(after.smap().version >= state.smap().version && after.bmd_version() >= state.bmd_version());
            prop_assert!(after.electorate().is_sorted_by(|a, b| a.id < b.id));
            state = after;
        }
    }

    /// One byte changed anywhere in a whole State is noticed.
    #[test]
    fn a_changed_byte_never_passes(at: prop::sample::Index, which: prop::sample::Index, bit in 0u8..8) {
        let state = edited(&genesis(), |d| drop(d.change(&create("a"))));
        let mut full = state.full();
        let i = which.index(full.entries.len());
        let mut bytes = full.entries[i].1.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        full.entries[i].1 = bytes.into();
        prop_assert!(State::from_full(&full).is_err());
    }

    /// Bytes that nobody vouches for are refused, not a panic.
    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(full) = rmp_serde::from_slice::<Full>(&bytes) {
            drop(State::from_full(&full));
        }
        let mut full = genesis().full();
        full.entries.push(("bmd/bucket//x".to_owned(), bytes.into()));
        prop_assert!(State::from_full(&full).is_err());
    }
}

/// Found by the fuzz target `state_change`: a forwarded name that no entry can have was answered as done, and gone.
#[test]
fn a_bucket_whose_name_no_entry_can_have_is_refused() {
    let state = edited(&genesis(), |d| drop(d.change(&create("a"))));
    let odd = |namespace: &str, name: &str| BucketName { namespace: namespace.to_owned(), name: name.to_owned() };
    for to in [odd("", "\""), odd("a/b", "c"), odd("", "")] {
        let Change::CreateBucket { created_ns, props, .. } = create("a") else { panic!("another change") };
        let made = Change::CreateBucket { name: to.clone(), created_ns, props };
        let renamed = Change::RenameBucket { from: "a".parse().unwrap(), to };
        for change in [made, renamed] {
            let mut draft = state.draft(state.stamp().next());
            assert!(matches!(draft.change(&change), Outcome::Refused(Refusal::Invalid(_))), "{change:?}");
            assert!(!draft.is_edited());
        }
    }
}
