//! The replicated value: whole, as changes, and as the mutations that make it.

use std::collections::BTreeMap;

use ais_meta::change::{MemberAction, MemberOptions};
use ais_meta::state::{Genesis, Head};
use ais_meta::{
    Address, Addresses, BucketName, Change, ClusterUuid, Delta, DiskId, Full, Kind, Node, Outcome, RequestId, State,
    StateError,
};
use ais_node::disk::frame;
use bytes::Bytes;

/// Cluster of all seeds.
pub(crate) fn uuid() -> ClusterUuid {
    "cluster-1".parse().expect("a good uuid")
}

/// Gateways 1 to 3, targets from 4 on.
pub(crate) fn member(i: u16) -> Node {
    let at = |port| Address { host: "h".into(), port };
    let kind = if i <= 3 { Kind::Gateway } else { Kind::Target };
    Node {
        id: format!("n{i}").parse().expect("a good id"),
        disk: DiskId(u64::from(i)),
        run: 1,
        kind,
        addresses: Addresses { public: at(i), control: at(i), peer: at(i) },
        flags: 0,
        domain: String::new(),
        extra: BTreeMap::new(),
    }
}

fn bucket(name: &str) -> BucketName {
    name.parse().expect("a good name")
}

/// A bucket is made.
pub(crate) fn created(name: &str) -> Change {
    Change::CreateBucket { name: bucket(name), created_ns: 3, props: BTreeMap::new() }
}

fn pair<V>(name: &str, value: V) -> BTreeMap<String, V> {
    BTreeMap::from([(name.to_owned(), value)])
}

/// A mutation of every kind.
fn changes() -> Vec<Change> {
    let copies = || pair("mirror.copies", "2".to_owned());
    let membership =
        |action| Change::Membership { action, nodes: vec![member(4).id], options: MemberOptions::default() };
    let mut all = vec![
        created("c"),
        Change::CreateBucket { name: bucket("d"), created_ns: 3, props: copies() },
        Change::DestroyBucket { name: bucket("a") },
        Change::SetBucketProps { name: bucket("a"), set: copies(), reset: true },
        Change::RenameBucket { from: bucket("a"), to: bucket("e") },
        Change::SetConfig { set: pair("auth.enabled", "true".to_owned()), reset: false },
        Change::RevokeTokens { tokens: pair("00ff", 9), now_s: 5 },
        Change::Join { node: Box::new(member(5)) },
        Change::Leave { node: member(1).id },
        Change::Stopping { stopping: true },
        Change::Decommission { options: MemberOptions::default() },
    ];
    let actions = ["start-maintenance", "stop-maintenance", "shutdown-node", "decommission-node", "rm-unsafe"];
    all.extend(actions.iter().filter_map(|name| MemberAction::named(name)).map(membership));
    all
}

fn request(seq: u64) -> RequestId {
    RequestId::Gateway { origin: member(2).voter_id(), run: 1, seq }
}

/// A State with an entry of every family.
pub(crate) fn base() -> State {
    let nodes: Vec<Node> = (1..=3).map(member).collect();
    let founder = nodes[0].voter_id();
    let first = State::genesis(Genesis { uuid: uuid(), nodes, founder, run: 1, lease_ms: 2000, created_s: 5 })
        .expect("encodes");
    let mut draft = first.draft(first.stamp().next());
    for change in
        [created("a"), created("b"), Change::Join { node: Box::new(member(4)) }, Change::Leave { node: member(3).id }]
    {
        draft.change(&change);
    }
    draft.settle(&request(1), 0, Outcome::Done);
    draft.settle(&RequestId::Client("c".to_owned()), 0, Outcome::Done);
    draft.finish().expect("encodes").0
}

/// The State after [`base`], and how to get there.
pub(crate) fn next() -> (State, Delta) {
    let base = base();
    let mut draft = base.draft(base.stamp().next());
    draft.change(&Change::DestroyBucket { name: bucket("a") });
    draft.settle(&request(2), 1, Outcome::Done);
    draft.finish().expect("encodes")
}

fn pack<T: serde::Serialize>(value: &T) -> Vec<u8> {
    frame::encode("fuzz", value).expect("a value encodes")
}

/// Everything that a State shows, as text: values may hold what does not equal itself.
fn shown(state: &State) -> String {
    let origins: Vec<_> = (1..=5).map(|i| state.origin(&member(i).voter_id()).cloned()).collect();
    format!(
        "{state:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {:?} {origins:?}",
        state.head(),
        state.electorate(),
        state.smap(),
        state.nodes(),
        state.past(),
        state.buckets(),
        state.config(),
        state.rmd(),
        state.tokens(),
        state.bmd_version(),
        state.clients(),
    )
}

/// What a member holds, its disk gives back and another member understands: the same, entry by entry and as typed.
pub(crate) fn assert_reloads(state: &State) {
    let again: Full = frame::decode("full", &pack(&state.full())).expect("what is held is written and read");
    let again = State::from_full(&again).expect("what is held loads again");
    assert_eq!(&again, state);
    assert_eq!(shown(&again), shown(state));
}

/// Puts stamp and digest right.
fn mended(mut full: Full) -> Full {
    full.entries.sort();
    full.entries.dedup_by(|a, b| a.0 == b.0);
    if let Some((_, head)) = full.entries.iter().find(|(key, _)| key == "head") {
        full.stamp = frame::decode::<Head>("head", head).map_or(full.stamp, |head| head.stamp);
    }
    if let Err(StateError::Digest { found, .. }) = State::from_full(&full) {
        full.digest = found;
    }
    full
}

fn mended_delta(base: &State, mut delta: Delta) -> Delta {
    (delta.base, delta.base_digest) = (base.stamp(), base.digest());
    if let Some((_, Some(head))) = delta.changes.iter().rfind(|(key, _)| key == "head") {
        delta.stamp = frame::decode::<Head>("head", head).map_or(delta.stamp, |head| head.stamp);
    }
    if let Err(StateError::Digest { found, .. }) = base.apply(&delta) {
        delta.digest = found;
    }
    delta
}

/// Mends records of a state file so that each builds on the one before it.
pub(crate) fn mend(records: &mut [(u8, Vec<u8>)]) {
    let mut last: Option<State> = None;
    for (kind, payload) in records {
        if *kind == frame::kind::DELTA {
            let (Some(base), Ok(delta)) = (&last, frame::decode::<Delta>("delta", payload)) else { return };
            let delta = mended_delta(base, delta);
            *payload = pack(&delta);
            last = base.apply(&delta).ok();
        } else {
            let Ok(full) = frame::decode::<Full>("full", payload) else { return };
            let full = mended(full);
            *payload = pack(&full);
            last = State::from_full(&full).ok();
        }
    }
}

pub(crate) fn full(data: &[u8]) {
    let Ok(full) = frame::decode::<Full>("full", data) else { return };
    if let Ok(state) = State::from_full(&mended(full)) {
        assert_reloads(&state);
    }
}

pub(crate) fn full_seeds() -> Vec<Vec<u8>> {
    vec![pack(&base().full()), pack(&next().0.full())]
}

/// Entries of a change on top of [`base`].
pub(crate) fn delta(data: &[u8]) {
    let Ok(changes) = frame::decode::<Vec<(String, Option<Bytes>)>>("changes", data) else { return };
    let (base, (_, like)) = (base(), next());
    let delta = mended_delta(&base, Delta { changes, ..like });
    if let Ok(state) = base.apply(&delta) {
        assert_reloads(&state);
    }
}

pub(crate) fn delta_seeds() -> Vec<Vec<u8>> {
    let entries: Vec<_> = base().full().entries.into_iter().map(|(key, bytes)| (key, Some(bytes))).collect();
    let removed: Vec<_> = entries.iter().map(|(key, _)| (key.clone(), None::<Bytes>)).collect();
    let mut seeds = vec![pack(&next().1.changes), pack(&entries)];
    seeds.extend(removed.chunks(1).map(|one| pack(&one)));
    seeds
}

/// Mutations as a gateway forwards them.
pub(crate) fn change(data: &[u8]) {
    let Ok(calls) = frame::decode::<Vec<(RequestId, u64, Change)>>("calls", data) else { return };
    let base = base();
    let mut draft = base.draft(base.stamp().next());
    for (request, low, change) in &calls {
        if draft.settled(request).is_none() {
            let outcome = draft.change(change);
            draft.settle(request, *low, outcome);
        }
    }
    let meant = shown(draft.state());
    let (state, delta) = draft.finish().expect("what was taken encodes");
    assert_eq!(base.apply(&delta).expect("the change leads from its base to its State"), state);
    assert_eq!(shown(&state)[header(&state)..], meant[header_of(&meant)..], "what was answered is what is committed");
    assert_reloads(&state);
}

/// Where the typed parts begin: the digest before them is made by finishing.
fn header(state: &State) -> usize {
    header_of(&shown(state))
}

fn header_of(shown: &str) -> usize {
    shown.find(") ").unwrap_or(0)
}

pub(crate) fn change_seeds() -> Vec<Vec<u8>> {
    let call = |(i, change): (usize, Change)| (request(u64::try_from(i).unwrap_or_default() + 2), 1u64, change);
    let mut calls: Vec<_> = changes().into_iter().enumerate().map(call).collect();
    let mut seeds: Vec<_> = calls.iter().map(|call| pack(&[call])).collect();
    calls.push((RequestId::Client("id".to_owned()), 0, created("c")));
    calls.push((request(2), 1, created("c")));
    seeds.push(pack(&calls));
    seeds
}
