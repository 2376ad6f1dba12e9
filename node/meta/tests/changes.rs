//! What each mutation of buckets, configuration, tokens and membership does, and what it refuses.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use ais_meta::node::flags;
use ais_meta::state::{Phase, TxnPhase};
use ais_meta::{BucketName, Change, Kind, MemberAction, MemberOptions, Node, Outcome, Refusal, State, VoterId};
use common::{changed, create, edited, genesis, id, join, node, values};

fn refusal(state: &State, change: &Change) -> Refusal {
    let mut draft = state.draft(state.stamp().next());
    match draft.change(change) {
        Outcome::Refused(why) if !draft.is_edited() => why,
        other => panic!("{change:?}: {other:?}, edited: {}", draft.is_edited()),
    }
}

fn bucket(name: &str) -> BucketName {
    name.parse().unwrap()
}

fn set_props(name: &str, pairs: &[(&str, &str)], reset: bool) -> Change {
    Change::SetBucketProps { name: bucket(name), set: values(pairs), reset }
}

fn set_config(pairs: &[(&str, &str)]) -> Change {
    Change::SetConfig { set: values(pairs), reset: false }
}

fn prop(state: &State, name: &str, prop: &str) -> String {
    state.buckets().get(&bucket(name)).unwrap().prop(prop).unwrap()
}

#[test]
fn properties_are_set_together_or_not_at_all() {
    let state = changed(&genesis(), create("a"));
    let set =
        changed(&state, set_props("a", &[("mirror.enabled", "yes"), ("mirror.copies", "3"), ("access", "0x3")], false));
    assert_eq!(["mirror.enabled", "mirror.copies", "access"].map(|p| prop(&set, "a", p)), ["true", "3", "3"]);
    assert_eq!((set.bmd_version(), prop(&set, "a", "versioning.enabled")), (2, "true".to_owned()));
    assert_eq!(changed(&set, set_props("a", &[("mirror.copies", "3")], false)).bmd_version(), 2, "it is so already");
    let half = refusal(&set, &set_props("a", &[("mirror.copies", "4"), ("mirror.enabld", "true")], false));
    assert!(half.to_string().contains("did you mean 'mirror.enabled'"), "{half}");
    let bad = refusal(&set, &set_props("a", &[("mirror.copies", "1")], false));
    assert!(bad.to_string().contains("mirror.copies of 2 or more"), "{bad}");
    assert_eq!(refusal(&set, &set_props("b", &[], true)), Refusal::NoSuchBucket(bucket("b")));
}

#[test]
fn new_buckets_take_the_clusters_defaults_and_a_reset_goes_back_to_them() {
    let state = changed(&genesis(), set_config(&[("checksum.type", "md5"), ("versioning.enabled", "off")]));
    let state = changed(&state, create("a"));
    assert_eq!(["checksum.type", "versioning.enabled"].map(|p| prop(&state, "a", p)), ["md5", "false"]);
    let props = values(&[("versioning.enabled", "on"), ("lru.dont_evict_time", "90s")]);
    let given = Change::CreateBucket { name: bucket("b"), created_ns: 1, props };
    let state = changed(&state, given);
    let shown =
        |state: &State| ["checksum.type", "versioning.enabled", "lru.dont_evict_time"].map(|p| prop(state, "b", p));
    assert_eq!(shown(&state), ["md5", "true", "1m30s"]);
    let later = changed(&state, set_config(&[("checksum.type", "sha256")]));
    assert_eq!(shown(&later), ["md5", "true", "1m30s"], "a bucket keeps what it was made with");
    let reset = changed(&later, set_props("b", &[("lru.dont_evict_time", "1h")], true));
    assert_eq!(shown(&reset), ["sha256", "false", "1h"]);
    let bad = Change::CreateBucket { name: bucket("c"), created_ns: 1, props: values(&[("mirror.copies", "x")]) };
    assert!(matches!(refusal(&reset, &bad), Refusal::Setting(_)));
}

#[test]
fn erasure_coding_needs_targets() {
    let state = changed(&changed(&genesis(), create("a")), join(node("t1", Kind::Target, 1)));
    let coded = set_props("a", &[("ec.enabled", "true")], false);
    let why = refusal(&state, &coded).to_string();
    assert_eq!(why, "not enough targets: ec of 1:1 needs 3, there are 1");
    let three = ["t2", "t3"].iter().fold(state, |state, t| changed(&state, join(node(t, Kind::Target, 1))));
    let set = changed(&three, coded);
    let fewer = changed(&set, Change::Leave { node: id("t1") });
    assert_eq!(
        prop(&changed(&fewer, set_props("a", &[("access", "1")], false)), "a", "access"),
        "1",
        "others may be set"
    );
    assert!(matches!(refusal(&fewer, &set_props("a", &[("ec.parity_slices", "2")], false)), Refusal::Invalid(_)));
}

#[test]
fn renaming_keeps_everything_but_the_name() {
    let state = changed(&changed(&genesis(), create("a")), create("b"));
    let state = changed(&state, set_props("a", &[("mirror.copies", "5")], false));
    let rename = |from: &str, to: &str| Change::RenameBucket { from: bucket(from), to: bucket(to) };
    let after = changed(&state, rename("a", "c"));
    let (old, new) = (state.buckets()[&bucket("a")].clone(), after.buckets()[&bucket("c")].clone());
    assert_eq!((old.bid, old.created_ns, &old.props), (new.bid, new.created_ns, &new.props));
    assert!(new.name == bucket("c") && !after.buckets().contains_key(&bucket("a")));
    assert_eq!(refusal(&state, &rename("a", "b")), Refusal::BucketExists(bucket("b")));
    assert_eq!(refusal(&state, &rename("a", "a")), Refusal::BucketExists(bucket("a")));
    assert_eq!(refusal(&state, &rename("x", "y")), Refusal::NoSuchBucket(bucket("x")));
    let reused = changed(&after, create("a"));
    assert_ne!(reused.buckets()[&bucket("a")].bid, new.bid);
}

#[test]
fn configuration_is_checked_as_a_whole() {
    let state = changed(
        &genesis(),
        set_config(&[("auth.client_auth_required", "yes"), ("auth.required_claims.aud", "ais, x")]),
    );
    let config = state.config();
    assert!(config.version == 2 && config.is_on("auth.client_auth_required"));
    assert_eq!(config.list("auth.required_claims.aud").collect::<Vec<_>>(), ["ais", "x"]);
    assert_eq!((config.value("log.level"), config.value("no.such")), ("info", ""));
    assert_eq!(changed(&state, set_config(&[("auth.client_auth_required", "true")])).config().version, 2);
    assert!(matches!(refusal(&state, &set_config(&[("ha.lease_ms", "1000")])), Refusal::Setting(_)));
    let slow = changed(&state, set_config(&[("ha.lease_ms", "4000")]));
    assert!(matches!(refusal(&slow, &set_config(&[("ha.suspect_ms", "4000")])), Refusal::Setting(_)));
    let reset = changed(&slow, Change::SetConfig { set: values(&[("log.level", "warn")]), reset: true });
    assert_eq!(reset.config().settings, values(&[("log.level", "warn")]));
}

fn revoke(tokens: &[(u64, i64)], now_s: i64) -> Change {
    let tokens = tokens.iter().map(|(n, until_s)| (format!("{n:064x}"), *until_s)).collect();
    Change::RevokeTokens { tokens, now_s }
}

const DAY_S: i64 = 24 * 3600;

#[test]
fn revoked_tokens_are_remembered_until_a_day_after_they_expire() {
    let state = changed(&genesis(), revoke(&[(1, 100), (2, 200), (3, 5)], 10));
    let known = |state: &State| state.tokens().revoked.values().copied().collect::<Vec<_>>();
    assert_eq!((known(&state), state.tokens().version), (vec![100, 200, 5], 1));
    let same = changed(&state, revoke(&[(1, 100)], 11));
    assert_eq!(same.tokens().version, 1);
    let later = changed(&same, revoke(&[(4, 300)], 100 + DAY_S));
    assert_eq!((known(&later), later.tokens().version), (vec![200, 300], 2));
    let named = Change::RevokeTokens { tokens: BTreeMap::from([("A".repeat(64), 9)]), now_s: 0 };
    assert!(matches!(refusal(&later, &named), Refusal::Invalid(_)));
    let many: Vec<(u64, i64)> = (0..100_001).map(|n| (n, 1000)).collect();
    assert!(matches!(refusal(&later, &revoke(&many, 10)), Refusal::Full(_)));
}

#[test]
fn a_gateway_with_a_fast_clock_makes_nobody_forget_a_revoked_token() {
    let state = changed(&genesis(), revoke(&[(1, 100)], 10));
    let known = |state: &State| state.tokens().revoked.values().copied().collect::<Vec<_>>();
    // An hour ahead; it revokes a token that it takes for expired, too.
    let hour = changed(&state, revoke(&[(2, 200)], 3600));
    assert_eq!(known(&hour), [100, 200]);
    // Years ahead: the primary's clock counts.
    let mut draft = hour.draft(hour.stamp().next());
    draft.at(50);
    assert_eq!(draft.change(&revoke(&[(3, 300)], i64::MAX)), Outcome::Done);
    assert_eq!(known(&draft.finish().unwrap().0), [100, 200, 300]);
    // Nor does naming a token again shorten its time.
    assert_eq!(known(&changed(&hour, revoke(&[(1, 1)], 20))), [100, 200]);
}

/// Three gateways, of which g1 leads, and three targets.
fn cluster() -> State {
    ["t1", "t2", "t3"]
        .iter()
        .zip(11..)
        .fold(genesis(), |state, (t, disk)| changed(&state, join(node(t, Kind::Target, disk))))
}

fn member(action: MemberAction, nodes: &[&str], options: MemberOptions) -> Change {
    Change::Membership { action, nodes: nodes.iter().map(|n| id(n)).collect(), options }
}

fn plain(action: MemberAction, nodes: &[&str]) -> Change {
    member(action, nodes, MemberOptions::default())
}

fn shown(state: &State, node: &str) -> Option<u64> {
    state.nodes().get(&id(node)).map(|n| n.flags)
}

fn finished(state: &State) -> State {
    edited(state, |draft| draft.finish_transaction())
}

use MemberAction::{Decommission, RemoveUnsafe, Shutdown, StartMaintenance, StopMaintenance};

#[test]
fn maintenance_is_flagged_recorded_and_finished() {
    let state = cluster();
    let mut draft = state.draft(state.stamp().next());
    assert_eq!(draft.change(&plain(StartMaintenance, &["t1", "g2"])), Outcome::Began("g4".to_owned()));
    let (begun, _) = draft.finish().unwrap();
    assert_eq!((shown(&begun, "t1"), shown(&begun, "g2")), (Some(4), Some(4)));
    assert_eq!((begun.rmd().generation, begun.rmd().phase), (state.rmd().generation + 1, Phase::Moving));
    assert_eq!(begun.smap().version, state.smap().version + 1, "one map for the batch");
    let txn = begun.transaction().unwrap();
    assert_eq!(
        (txn.action, txn.phase, txn.began, txn.rebalance.as_str()),
        (StartMaintenance, TxnPhase::Flags, begun.stamp(), "g4")
    );
    let seat = begun.electorate().iter().find(|v| v.id.node == id("g2")).unwrap();
    assert!(!seat.electable, "a voter's flags follow");
    assert!(matches!(refusal(&begun, &plain(StopMaintenance, &["t1"])), Refusal::Busy(_)));
    let done = finished(&begun);
    assert_eq!((shown(&done, "t1"), shown(&done, "g2"), done.transaction()), (Some(20), Some(20), None));
    assert_eq!((done.rmd().phase, done.rmd().generation), (Phase::Done, begun.rmd().generation));
    let again = changed(&done, plain(StartMaintenance, &["t1"]));
    assert!(again.transaction().is_none() && shown(&again, "t1") == Some(20), "nothing to do");
    let back = finished(&changed(&done, plain(StopMaintenance, &["t1", "g2"])));
    assert_eq!((shown(&back, "t1"), shown(&back, "g2")), (Some(0), Some(0)));
    assert_eq!(back.electorate(), state.electorate());
}

#[test]
fn a_batch_is_lawful_or_refused_as_a_whole() {
    let state = cluster();
    let leaving = finished(&changed(&state, plain(StartMaintenance, &["t3"])));
    for (change, wanted) in [
        (plain(StartMaintenance, &["t1", "t9"]), "node t9 is not in the cluster map"),
        (plain(StartMaintenance, &["t1", "g1"]), "g1 is the primary"),
        (plain(Shutdown, &[]), "names no node"),
        (plain(Decommission, &["t1", "t1"]), "names a node twice"),
        (plain(StopMaintenance, &["t3", "t1"]), "node t1 is not in maintenance"),
        (plain(RemoveUnsafe, &["t1"]), "needs skip_rebalance"),
        (plain(Shutdown, &["g2", "g3"]), "1 of 3 voters would be left"),
    ] {
        let why = refusal(&leaving, &change).to_string();
        assert!(why.contains(wanted), "{why}");
    }
    let skip = MemberOptions { skip_rebalance: true, ..MemberOptions::default() };
    let still = changed(&state, member(StartMaintenance, &["t1"], skip));
    assert_eq!((still.rmd().generation, still.rmd().phase), (state.rmd().generation, Phase::Done));
    assert_eq!(changed(&state, plain(StartMaintenance, &["g2"])).rmd().generation, state.rmd().generation);
}

#[test]
fn one_shutdown_after_the_other_cannot_take_the_majority() {
    let one = finished(&changed(&cluster(), plain(Shutdown, &["g2"])));
    assert!(matches!(refusal(&one, &plain(Shutdown, &["g3"])), Refusal::Invalid(_)), "g2 is down already");
    let back = finished(&changed(&one, plain(StopMaintenance, &["g2"])));
    assert!(back.orders().is_empty());
    assert!(
        finished(&changed(&back, plain(Shutdown, &["g3"])))
            .order(&VoterId::new(id("g3"), ais_meta::DiskId(7)), 1)
            .is_some()
    );
}

#[test]
fn an_order_is_for_the_runs_that_were_meant() {
    let done = finished(&changed(&cluster(), plain(Shutdown, &["t1"])));
    let t1 = done.nodes()[&id("t1")].voter_id();
    assert!(done.order(&t1, 1).is_some() && done.order(&t1, 2).is_none(), "the next start goes on");
    let again = changed(&done, plain(Shutdown, &["t1"]));
    assert!(again.transaction().is_none(), "it is told already");
    let later = Node { run: 2, ..(*done.nodes()[&id("t1")]).clone() };
    let restarted = changed(&done, join(later));
    assert_eq!(shown(&restarted, "t1"), Some(flags::MAINTENANCE | flags::MAINTENANCE_POST_REBALANCE));
    let told = finished(&changed(&restarted, plain(Shutdown, &["t1"])));
    assert!(told.order(&t1, 2).is_some());
}

#[test]
fn a_node_in_maintenance_keeps_its_place() {
    let state = changed(&cluster(), plain(StartMaintenance, &["t1"]));
    let left = changed(&state, Change::Leave { node: id("t1") });
    assert_eq!((shown(&left, "t1"), left.smap().version), (Some(4), state.smap().version));
}

#[test]
fn the_decommissioned_return_as_new_ones_only() {
    let options = MemberOptions { rm_user_data: true, ..MemberOptions::default() };
    let begun = changed(&cluster(), member(Decommission, &["t1", "g3"], options));
    assert_eq!((shown(&begun, "t1"), shown(&begun, "g3")), (Some(8), Some(8)));
    let waits = edited(&begun, |draft| draft.advance_transaction(TxnPhase::Seats));
    assert_eq!(waits.transaction().map(|t| t.phase), Some(TxnPhase::Seats));
    let done = finished(&waits);
    assert_eq!((shown(&done, "t1"), shown(&done, "g3"), done.transaction()), (None, None, None));
    let old = node("t1", Kind::Target, 11);
    assert_eq!(done.order(&old.voter_id(), 99).map(|o| o.options), Some(options), "for every run of that disk");
    let lost = Refusal::DiskLost { node: id("t1"), options: Some(options) };
    assert_eq!(refusal(&done, &join(old)), lost);
    let new = changed(&done, join(node("t1", Kind::Target, 12)));
    assert_eq!(shown(&new, "t1"), Some(0), "no flag of its former life");
    assert!(!new.orders().contains_key(&id("t1")) && new.orders().contains_key(&id("g3")));
    assert!(matches!(refusal(&new, &join(node("t1", Kind::Target, 11))), Refusal::DiskLost { options: None, .. }));
}

#[test]
fn what_an_administrator_says_of_a_node_counts_whenever_it_joins() {
    let admit = |node: &str, non_electable| Change::Admit { node: id(node), non_electable };
    let state = changed(&genesis(), admit("g4", true));
    let joined = changed(&state, join(node("g4", Kind::Gateway, 4)));
    assert_eq!(shown(&joined, "g4"), Some(flags::NON_ELECTABLE));
    let taken_back = changed(&joined, admit("g4", false));
    assert_eq!((shown(&taken_back, "g4"), taken_back.smap().version), (Some(0), joined.smap().version + 1));
    let marked = changed(&state, admit("g2", true));
    assert!(!marked.electorate().iter().any(|v| v.id.node == id("g2") && v.electable));
    assert_eq!(changed(&genesis(), admit("g5", false)).past().len(), 0, "as any other");
    assert!(matches!(refusal(&cluster(), &admit("g1", true)), Refusal::Invalid(_)));
    assert!(matches!(refusal(&cluster(), &admit("t1", true)), Refusal::Invalid(_)));
}

#[test]
fn rm_unsafe_is_done_at_once() {
    let skip = MemberOptions { skip_rebalance: true, ..MemberOptions::default() };
    let state = changed(&cluster(), plain(Decommission, &["t1"]));
    assert!(matches!(refusal(&state, &member(RemoveUnsafe, &["t2"], skip)), Refusal::Busy(_)));
    let done = changed(&cluster(), member(RemoveUnsafe, &["t2"], skip));
    assert_eq!((shown(&done, "t2"), done.transaction()), (None, None));
    assert!(matches!(refusal(&done, &join(node("t2", Kind::Target, 12))), Refusal::DiskLost { options: None, .. }));
}

#[test]
fn gateways_with_a_new_name_each_time_do_not_fill_the_memory() {
    let state = edited(&genesis(), |draft| {
        for n in 0..4200 {
            let name = format!("access-{n}");
            let node = ais_meta::Node { flags: ais_meta::node::flags::NON_ELECTABLE, ..node(&name, Kind::Gateway, n) };
            assert_eq!(draft.change(&join(node)), Outcome::Done);
            assert_eq!(draft.change(&Change::Leave { node: id(&name) }), Outcome::Done);
        }
    });
    assert_eq!(state.past().len(), 4096);
    assert!(state.past().contains_key(&id("access-4199")), "who left last is known");
}

/// What `g2` of this disk asked for, settled.
fn asked(state: &State, gateway: &str, disk: u64) -> State {
    let origin = VoterId::new(id(gateway), ais_meta::DiskId(disk));
    let mut draft = state.draft(state.stamp().next());
    draft.settle(&ais_meta::RequestId::Gateway { origin, run: 1, seq: 1 }, 1, Outcome::Done);
    draft.finish().unwrap().0
}

fn remembers(state: &State, gateway: &str, disk: u64) -> bool {
    let known = state.origin(&VoterId::new(id(gateway), ais_meta::DiskId(disk))).is_some();
    let key = format!("request/{}", VoterId::new(id(gateway), ais_meta::DiskId(disk)));
    assert_eq!(known, state.full().entries.iter().any(|(k, _)| *k == key), "{key}");
    known
}

#[test]
fn what_a_disk_asked_for_is_forgotten_when_another_one_takes_its_place() {
    let state = changed(&genesis(), join(node("g9", Kind::Gateway, 71)));
    let state = asked(&asked(&state, "g9", 71), "g2", 2);
    assert!(remembers(&state, "g9", 71));
    let same = changed(&state, join(Node { run: 2, ..node("g9", Kind::Gateway, 71) }));
    assert!(remembers(&same, "g9", 71), "a restart");
    let left = changed(&same, Change::Leave { node: id("g9") });
    assert!(remembers(&left, "g9", 71), "it may be back");
    let other = changed(&left, join(node("g9", Kind::Gateway, 72)));
    assert!(!remembers(&other, "g9", 71) && remembers(&other, "g2", 2));
}

#[test]
fn what_removed_gateways_asked_for_is_forgotten_at_the_next_removal() {
    let remove = |name: &str| Change::Membership {
        action: RemoveUnsafe,
        nodes: vec![id(name)],
        options: MemberOptions { skip_rebalance: true, ..MemberOptions::default() },
    };
    let state = [("g8", 81), ("g9", 91)]
        .iter()
        .fold(genesis(), |state, (name, disk)| changed(&state, join(node(name, Kind::Gateway, *disk))));
    let state = asked(&asked(&state, "g8", 81), "g9", 91);
    let first = changed(&state, remove("g8"));
    assert!(remembers(&first, "g8", 81), "it may not have heard of it and ask again");
    let second = changed(&first, remove("g9"));
    assert!(!remembers(&second, "g8", 81) && remembers(&second, "g9", 91));
}

#[test]
fn gateways_that_come_and_go_are_remembered_up_to_a_bound() {
    let state = genesis();
    let own = state.nodes().get(&id("g1")).unwrap().voter_id();
    let mut draft = state.draft(state.stamp().next());
    let mut settle = |origin: VoterId| {
        draft.settle(&ais_meta::RequestId::Gateway { origin, run: 1, seq: 1 }, 1, Outcome::Done);
    };
    settle(own.clone());
    for disk in 0..ais_meta::state::ORIGINS_MAX as u64 + 10 {
        settle(VoterId::new(id(&format!("a{disk}")), ais_meta::DiskId(1000 + disk)));
    }
    let state = draft.finish().unwrap().0;
    let kept = state.full().entries.iter().filter(|(key, _)| key.starts_with("request/")).count();
    assert_eq!(kept, ais_meta::state::ORIGINS_MAX);
    assert!(state.origin(&own).is_some(), "members keep their place");
}

/// A State with an entry of a newer version that is this large.
fn with_bytes(state: &State, len: usize) -> State {
    let mut full = state.full();
    full.entries.push(("zzz".to_owned(), vec![0; len].into()));
    let wrong = State::from_full(&full).unwrap_err();
    let ais_meta::state::StateError::Digest { found, .. } = wrong else { panic!("{wrong}") };
    full.digest = found;
    State::from_full(&full).unwrap()
}

#[test]
fn a_state_that_could_not_be_handed_over_takes_no_more_buckets() {
    let small = changed(&genesis(), create("a"));
    let sum = |state: &State| state.full().entries.iter().map(|(k, bytes)| k.len() + bytes.len()).sum::<usize>();
    assert_eq!(small.bytes(), sum(&small));
    let room = ais_meta::state::BYTES_MAX - small.bytes() - 3;
    let large = with_bytes(&small, room - 400);
    assert_eq!(large.bytes(), sum(&large));
    // Both of them in one State: what was edited and is not encoded yet counts.
    let mut draft = large.draft(large.stamp().next());
    assert_eq!(draft.change(&create("b")), Outcome::Done);
    let Outcome::Refused(Refusal::Full(why)) = draft.change(&create("c")).clone() else { panic!("it fits") };
    assert!(why.contains("32 MiB"), "{why}");
    let full = with_bytes(&small, room);
    let props = Change::SetBucketProps { name: bucket("a"), set: values(&[("mirror.copies", "3")]), reset: false };
    assert!(matches!(refusal(&full, &props), Refusal::Full(_)));
    let mask =
        |access: &str| Change::SetBucketProps { name: bucket("a"), set: values(&[("access", access)]), reset: false };
    changed(&with_bytes(&changed(&small, mask("1")), room), mask("2"));
    changed(&full, Change::RenameBucket { from: bucket("a"), to: bucket("b") });
    // What makes room, or has a bound of its own, goes on.
    let told = changed(&full, revoke(&[(1, 100)], 10));
    let smaller =
        changed(&changed(&told, Change::DestroyBucket { name: bucket("a") }), set_config(&[("log.level", "warn")]));
    assert_eq!(smaller.bytes(), sum(&smaller));
}

#[test]
fn rights_are_judged_by_the_configuration_the_tokens_and_the_mask_of_the_bucket() {
    let state = changed(&genesis(), create("a"));
    let destroy = |name: &str| Change::DestroyBucket { name: bucket(name) };
    let rename = |to: &str| Change::RenameBucket { from: bucket("a"), to: bucket(to) };
    let mask =
        |access: &str| Change::SetBucketProps { name: bucket("a"), set: values(&[("access", access)]), reset: false };
    let moved = |by: Change, change: Change| changed(&state, by).basis(&change) != state.basis(&change);
    // Whether a change of the first kind on its way in is a reason to judge the second one again.
    let table = [
        (set_config(&[("log.level", "warn")]), create("b"), true),
        (revoke(&[(1, 100)], 10), create("b"), true),
        (create("c"), create("b"), false),
        (create("c"), destroy("a"), false),
        (mask("1"), destroy("a"), true),
        (mask("1"), rename("b"), true),
        (mask("1"), mask("2"), true),
        (mask("1"), create("b"), false),
        (destroy("a"), destroy("a"), true),
        (create("b"), destroy("b"), true),
        (create("b"), create("b"), false),
    ];
    for (by, change, expected) in table {
        assert_eq!(moved(by.clone(), change.clone()), expected, "{by:?} before {change:?}");
    }
}
