//! Making the next State: the only place where metadata is edited.

mod buckets;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::record::{self, Bmd, Client, Config, Head, Origin, Rmd, Smap, Tokens};
use super::{Delta, FORMAT, State, StateError};
use crate::Extra;
use crate::change::{Change, Outcome, Refusal};
use crate::id::{ClusterUuid, DiskId, NodeId, RequestId, Stamp, VoterId};
use crate::node::{Node, Voter};

/// Version jump of the Smap at a new primary, AIStore's.
const TAKEOVER_JUMP: u64 = 100;
/// Remembered results of clients' own ids: a gateway parks a request for 15 s, and a thousand others may be settled in
/// each of them. (With 1,024 a create that a paused primary had committed was answered "exists" 12 s later: found by
/// the soak.)
pub const CLIENTS_MAX: usize = 16_384;
/// Bytes of a State beyond which no bucket is made or grows: a State is handed over in one packet, which holds twice as
/// much. What is left over is for what has bounds of its own: tokens, members, results of requests.
pub const BYTES_MAX: usize = 32 << 20;
/// Gateways' disks whose requests are remembered: twice as many as there are members, so that those that left last
/// can still ask what became of theirs.
pub const ORIGINS_MAX: usize = 8192;
/// Results that one gateway may have unacknowledged; it stops admitting before (protocol.md rule 13).
pub const RESULTS_MAX: usize = 4096;

/// The next State in the making. Edits go to a copy; [`Draft::finish`] encodes what they touched.
pub struct Draft {
    base: State,
    work: State,
    dirty: BTreeSet<String>,
    /// Bytes that edits since the base may have added, at most.
    grown: usize,
    /// The primary's wall clock.
    now_s: Option<i64>,
}

impl Draft {
    pub(super) fn new(base: &State, stamp: Stamp) -> Self {
        let mut draft = Self { base: base.clone(), work: base.clone(), dirty: BTreeSet::new(), grown: 0, now_s: None };
        Arc::make_mut(&mut draft.work.head).stamp = stamp;
        draft.touch(record::HEAD.to_owned());
        draft
    }

    /// Says what the wall clock of the primary shows, unix seconds. It decides nothing by itself: a gateway whose clock
    /// is ahead of it makes nobody forget what the primary's would keep.
    pub fn at(&mut self, now_s: i64) {
        self.now_s = Some(now_s);
    }

    /// The State as edited so far.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.work
    }

    /// Whether anything but the stamp was edited.
    #[must_use]
    pub fn is_edited(&self) -> bool {
        self.dirty.len() > 1
    }

    fn touch(&mut self, key: String) {
        self.dirty.insert(key);
    }

    /// Makes `primary` the writer: AIStore's version jump shows outside that there is a new one.
    pub fn take_over(&mut self, primary: VoterId, run: u64, lease_ms: u64) {
        let head = Arc::make_mut(&mut self.work.head);
        (head.primary, head.run, head.lease_ms) = (primary, run, lease_ms);
        head.stopping = head.ended.is_some();
        self.bump_smap(TAKEOVER_JUMP);
    }

    /// The administrator who recovers what is left of a cluster wants it to go on, whatever was written last.
    pub fn go_on(&mut self) {
        let head = Arc::make_mut(&mut self.work.head);
        (head.stopping, head.ended) = (false, None);
    }

    fn bump_smap(&mut self, by: u64) {
        Arc::make_mut(&mut self.work.smap).version += by;
        self.touch(record::SMAP.to_owned());
    }

    fn bump_generation(&mut self) {
        let rmd = Arc::make_mut(&mut self.work.rmd);
        rmd.version += 1;
        rmd.generation += 1;
        self.touch(record::RMD.to_owned());
    }

    fn edit_electorate(&mut self, edit: impl FnOnce(&mut Vec<Voter>)) {
        let voters = Arc::make_mut(&mut self.work.electorate);
        edit(voters);
        voters.sort_by(|a, b| a.id.cmp(&b.id));
        self.touch(record::ELECTORATE.to_owned());
    }

    /// Adds a voter. The caller sees to protocol.md rule 7 (one at a time).
    pub fn add_voter(&mut self, voter: Voter) {
        self.edit_electorate(|voters| {
            voters.retain(|v| v.id != voter.id);
            voters.push(voter);
        });
    }

    /// Removes a voter. The caller sees to protocol.md rule 7 (one at a time, never the primary).
    pub fn remove_voter(&mut self, id: &VoterId) {
        self.edit_electorate(|voters| voters.retain(|v| v.id != *id));
    }

    /// Applies one mutation.
    pub fn change(&mut self, change: &Change) -> Outcome {
        if self.work.head.ended.is_some() {
            return Outcome::Refused(Refusal::Busy("the whole cluster is being decommissioned".to_owned()));
        }
        let result = match change {
            Change::CreateBucket { name, created_ns, props } => self.create_bucket(name, *created_ns, props),
            Change::DestroyBucket { name } => self.destroy_bucket(name),
            Change::SetBucketProps { name, set, reset } => self.set_bucket_props(name, set, *reset),
            Change::RenameBucket { from, to } => self.rename_bucket(from, to),
            Change::SetConfig { set, reset } => self.set_config(set, *reset),
            Change::RevokeTokens { tokens, now_s } => self.revoke_tokens(tokens, *now_s),
            Change::Membership { action, nodes, options } => match self.membership(*action, nodes, *options) {
                Ok(outcome) => return outcome,
                Err(refusal) => Err(refusal),
            },
            Change::Admit { node, non_electable } => self.admit(node, *non_electable),
            Change::Join { node } => self.join(node),
            Change::Leave { node } => self.leave(node),
            Change::Stopping { stopping } => {
                Arc::make_mut(&mut self.work.head).stopping = *stopping;
                Ok(())
            }
            Change::Decommission { options } => {
                let head = Arc::make_mut(&mut self.work.head);
                (head.stopping, head.ended) = (true, Some(*options));
                Ok(())
            }
        };
        match result {
            Ok(()) => Outcome::Done,
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// What an earlier State says of this request, if it settled it.
    #[must_use]
    pub fn settled(&self, request: &RequestId) -> Option<Outcome> {
        match request {
            RequestId::Client(id) => self.work.clients.get(id).map(|c| c.outcome.clone()),
            RequestId::Gateway { origin, run, seq } => {
                let known = self.work.origin(origin)?;
                if *run < known.run || (*run == known.run && *seq < known.low) {
                    return Some(Outcome::Refused(Refusal::Stale));
                }
                if *run > known.run { None } else { known.results.get(seq).cloned() }
            }
        }
    }

    /// Remembers what became of a request. `low`: the gateway waits for nothing below it.
    pub fn settle(&mut self, request: &RequestId, low: u64, outcome: Outcome) {
        match request {
            RequestId::Client(id) => {
                let stamp = self.work.stamp();
                self.work.put_client(id.clone(), Some(Client { stamp, outcome, extra: Extra::new() }));
                self.touch(record::client_key(id));
                self.bound_clients();
            }
            RequestId::Gateway { origin, run, seq } => {
                let fresh = || Arc::new(Origin { run: *run, low: 0, results: BTreeMap::new(), extra: Extra::new() });
                let entry = self.work.origins.entry((origin.node.clone(), origin.disk)).or_insert_with(fresh);
                if entry.run != *run {
                    *entry = fresh();
                }
                // Copied once per draft, not once per request.
                let known = Arc::make_mut(entry);
                if low > known.low {
                    known.low = low;
                    known.results = known.results.split_off(&low);
                }
                known.results.insert(*seq, outcome);
                while known.results.len() > RESULTS_MAX {
                    if let Some((oldest, _)) = known.results.pop_first() {
                        known.low = oldest + 1;
                    }
                }
                self.touch(record::origin_key(origin));
                self.bound_origins(origin);
            }
        }
    }

    /// Makes room for so many bytes more.
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes > 0 && self.base.bytes() + self.grown + bytes > BYTES_MAX {
            let text = format!("the metadata of all buckets takes {} MiB already; destroy some first", BYTES_MAX >> 20);
            return Err(Refusal::Full(text));
        }
        self.grown += bytes;
        Ok(())
    }

    fn forget_origin(&mut self, id: &VoterId) {
        if self.work.origins.remove(&(id.node.clone(), id.disk)).is_some() {
            self.touch(record::origin_key(id));
        }
    }

    /// Gateways that are members keep their place.
    fn bound_origins(&mut self, last: &VoterId) {
        while self.work.origins.len() > ORIGINS_MAX {
            let member = |(node, disk): &(NodeId, DiskId)| {
                (node, disk) == (&last.node, &last.disk) || self.work.nodes.get(node).is_some_and(|n| n.disk == *disk)
            };
            let gone = self.work.origins.keys().find(|key| !member(key)).cloned();
            let Some((node, disk)) = gone else { return };
            self.forget_origin(&VoterId::new(node, disk));
        }
    }

    fn bound_clients(&mut self) {
        while self.work.clients.len() > CLIENTS_MAX {
            let Some((_, id)) = self.work.ages.get_min().cloned() else { return };
            self.work.put_client(id.clone(), None);
            self.touch(record::client_key(&id));
        }
    }

    /// Encodes what was touched.
    ///
    /// # Errors
    /// [`StateError::Decode`] if an entry does not encode, which would be a defect.
    pub fn finish(self) -> Result<(State, Delta), StateError> {
        let mut changes = Vec::with_capacity(self.dirty.len());
        let mut state = self.base.clone();
        for key in &self.dirty {
            let bytes = encode(&self.work, key)?;
            if bytes.as_ref() == self.base.entries.get(key.as_str()).map(|e| &e.bytes) {
                continue;
            }
            match &bytes {
                Some(bytes) => state.set(key, bytes.clone())?,
                None => state.unset(key),
            }
            changes.push((key.clone(), bytes));
        }
        let delta = Delta {
            base: self.base.stamp(),
            base_digest: self.base.digest(),
            stamp: state.stamp(),
            digest: state.digest(),
            changes,
        };
        Ok((state, delta))
    }
}

fn pack<T: Serialize>(key: &str, value: &T) -> Result<Bytes, StateError> {
    crate::pack::write(value)
        .map(Bytes::from)
        .map_err(|e| StateError::Decode { key: key.to_owned(), why: e.to_string() })
}

fn encode(state: &State, key: &str) -> Result<Option<Bytes>, StateError> {
    let found = match key {
        record::HEAD => Some(pack(key, &*state.head)?),
        record::ELECTORATE => Some(pack(key, &*state.electorate)?),
        record::SMAP => Some(pack(key, &*state.smap)?),
        record::BMD => {
            let extra = old_bmd_extra(state);
            Some(pack(key, &Bmd { version: state.bmd_version, next_bid: state.next_bid, extra })?)
        }
        record::CONFIG => Some(pack(key, &*state.config)?),
        record::RMD => Some(pack(key, &*state.rmd)?),
        record::TOKENS => Some(pack(key, &*state.tokens)?),
        record::TXN => state.txn.as_ref().map(|t| pack(key, &**t)).transpose()?,
        _ => return encode_item(state, key),
    };
    Ok(found)
}

/// Unknown fields of the `bmd` entry live in its bytes only.
fn old_bmd_extra(state: &State) -> Extra {
    let bytes = state.entries.get(record::BMD).map(|e| e.bytes.clone()).unwrap_or_default();
    super::decode::<Bmd>(record::BMD, &bytes).map(|b| b.extra).unwrap_or_default()
}

fn encode_item(state: &State, key: &str) -> Result<Option<Bytes>, StateError> {
    let item = |value: Option<Result<Bytes, StateError>>| value.transpose();
    let Some(kind) = record::item(key) else {
        return Ok(None);
    };
    match kind {
        record::Item::Node(id) => item(state.nodes.get(&id).map(|n| pack(key, &**n))),
        record::Item::Past(id) => item(state.past.get(&id).map(|p| pack(key, p))),
        record::Item::Bucket(name) => item(state.buckets.get(&name).map(|b| pack(key, &**b))),
        record::Item::Origin(id) => item(state.origin(&id).map(|o| pack(key, &**o))),
        record::Item::Client(id) => item(state.clients.get(&id).map(|c| pack(key, c))),
        record::Item::Order(id) => item(state.orders.get(&id).map(|o| pack(key, &**o))),
    }
}

/// What a new cluster starts from.
pub struct Genesis {
    /// Its identity.
    pub uuid: ClusterUuid,
    /// All initial voters, the founder among them.
    pub nodes: Vec<Node>,
    /// The founder.
    pub founder: VoterId,
    /// The founder's run.
    pub run: u64,
    /// How long a lease the founder counts, milliseconds.
    pub lease_ms: u64,
    /// Wall clock, unix seconds; shown only.
    pub created_s: i64,
}

impl State {
    /// State(1,1) of a new cluster: an empty BMD, and a Smap that holds all initial voters (protocol.md section 5).
    ///
    /// # Errors
    /// [`StateError::Decode`] if an entry does not encode, which would be a defect.
    pub fn genesis(genesis: Genesis) -> Result<Self, StateError> {
        let stamp = Stamp::new(0, 1, 1);
        let head = Head {
            format: FORMAT,
            uuid: genesis.uuid,
            stamp,
            primary: genesis.founder,
            run: genesis.run,
            lease_ms: genesis.lease_ms,
            stopping: false,
            ended: None,
            extra: Extra::new(),
        };
        let mut draft = Self::empty(head).draft(stamp);
        draft.work.smap = Arc::new(Smap { version: 0, created_s: genesis.created_s, extra: Extra::new() });
        draft.work.config = Arc::new(Config { version: 1, ..Config::default() });
        draft.work.rmd = Arc::new(Rmd::default());
        draft.work.tokens = Arc::new(Tokens::default());
        for key in [record::BMD, record::CONFIG, record::RMD, record::TOKENS, record::SMAP, record::ELECTORATE] {
            draft.touch(key.to_owned());
        }
        for node in &genesis.nodes {
            // A refusal is impossible: the list is shorter than NODES_MAX and its ids are unique.
            draft.change(&Change::Join { node: Box::new(node.clone()) });
            draft.add_voter(Voter::from(node));
        }
        draft.finish().map(|(state, _)| state)
    }
}
