//! Membership transactions (protocol.md section 6): whoever is primary finishes the one that the State records, and
//! nodes obey what they see published.

use std::collections::BTreeMap;

use ais_meta::state::{Draft, Order, State, Txn, TxnPhase};
use ais_meta::{MemberAction, MemberOptions, NodeId, Refusal, Stamp, VoterId};

use super::lead::Lead;
use super::{Node, Role};
use crate::genesis::Ended;
use crate::io::{Action, Halt, Message, Millis};
use crate::quorum;

/// How long a node that left the Smap is still sent the State that says so.
const FAREWELL_MS: u64 = 5000;

/// How long a transaction waits for members that are heard and do not publish it.
const KNOWN_MS_MAX: u64 = 30_000;

/// How long a cluster without a primary that is being stopped waits for its end.
const WINDING_DOWN_MS: u64 = 60_000;

/// What this process does about the end of the whole cluster.
#[derive(Default)]
pub(super) struct WindingDown {
    /// It published a State with the `stopping` flag.
    stopping: bool,
    /// When it published that the cluster is decommissioned.
    ended_at: Option<Millis>,
}

/// Nodes that left the Smap by a transaction, until they know.
#[derive(Default)]
pub(super) struct Farewells(BTreeMap<NodeId, Farewell>);

struct Farewell {
    id: VoterId,
    /// The State that says so.
    stamp: Stamp,
    until: Millis,
}

impl Farewells {
    /// Whom to keep as members for that long.
    pub(super) fn members(&self) -> impl Iterator<Item = (NodeId, VoterId)> {
        self.0.iter().map(|(node, f)| (node.clone(), f.id.clone()))
    }
}

impl Node {
    /// The primary's next step of the transaction in progress, if one is due, as part of the next State.
    pub(super) fn edit_transaction(&mut self, draft: &mut Draft) {
        let Role::Leading(lead) = &self.role else { return };
        let Some(txn) = lead.committed().and_then(|s| s.transaction()).cloned() else { return };
        if draft.state().head().ended.is_some() {
            return;
        }
        // One that this very draft begins is nobody's yet.
        if draft.state().transaction() != Some(&txn) {
            return;
        }
        let told = lead.telling.filter(|(began, _)| *began == txn.began).unwrap_or((txn.began, self.now));
        let waits = self.now < told.1 + KNOWN_MS_MAX && !self.is_known_to_all(&txn, lead);
        if let Some(lead) = self.lead() {
            lead.telling = Some(told);
        }
        if waits {
            return;
        }
        if self.holds_needed_seats(&txn, draft.state()) {
            return draft.advance_transaction(TxnPhase::Seats);
        }
        let gone = |id: &NodeId| draft.state().nodes().get(id).map(|n| (id.clone(), n.voter_id()));
        let leaving: Vec<(NodeId, VoterId)> = match txn.action {
            MemberAction::Decommission => txn.nodes.iter().filter_map(gone).collect(),
            _ => Vec::new(),
        };
        draft.finish_transaction();
        self.stats.transactions += 1;
        let (stamp, until) = (draft.state().stamp(), self.now + FAREWELL_MS);
        if let Some(lead) = self.lead() {
            let told = leaving.into_iter().map(|(node, id)| (node, Farewell { id, stamp, until }));
            lead.farewells.0.extend(told);
        }
    }

    /// Every member that can be reached has published the flags. A primary that is new gives members the time to
    /// connect.
    fn is_known_to_all(&self, txn: &Txn, lead: &Lead) -> bool {
        let suspect_ms = self.config.timers.suspect_ms;
        let fresh = self.now < lead.since() + suspect_ms;
        lead.tip().nodes().values().filter(|n| !self.is_me(&n.voter_id())).all(|n| {
            let (id, progress) = (n.voter_id(), lead.members.get(&n.id));
            let heard = progress.and_then(|p| p.heard).unwrap_or(lead.since());
            let silent = self.now >= heard + suspect_ms;
            let out_of_reach = silent || (!self.live.is_connected(&id) && !fresh) || self.live.is_dead(&id, n.run);
            out_of_reach || progress.is_some_and(|p| p.id == id && p.published >= Some(txn.began))
        })
    }

    /// A voter that will end gives its seat up first, while it can still acknowledge that. One that is dead already
    /// cannot, and ends nothing. (A shutdown is admitted only if the majority can spare it, so its seats stay.)
    fn holds_needed_seats(&self, txn: &Txn, state: &State) -> bool {
        let seated = |id: &VoterId| quorum::seats(state.electorate(), id);
        let ends = txn.nodes.iter().filter_map(|id| state.nodes().get(id)).map(|n| (n.voter_id(), n.run));
        txn.action == MemberAction::Decommission
            && ends
                .into_iter()
                .any(|(id, run)| seated(&id) && self.live.is_connected(&id) && !self.live.is_dead(&id, run))
    }

    /// Once a heartbeat: who has heard of its leave, or cannot, is told no more.
    pub(super) fn keep_farewells(&mut self) {
        let now = self.now;
        let Role::Leading(lead) = &mut self.role else { return };
        let (members, live) = (&lead.members, &self.live);
        lead.farewells.0.retain(|node, f| {
            let knows = members.get(node).is_some_and(|p| p.id == f.id && p.published >= Some(f.stamp));
            now < f.until && !knows && live.is_connected(&f.id)
        });
    }

    // ---- every node

    /// The whole cluster is being stopped in order, or decommissioned: this process is going to end, too.
    pub(super) fn note_stopping(&mut self, state: &State) {
        self.winding_down.stopping = state.head().stopping;
        let ended_at = self.winding_down.ended_at.unwrap_or(self.now);
        self.winding_down.ended_at = state.head().ended.map(|_| ended_at);
    }

    /// How long this process stands back from an election because it is going to be stopped: electing somebody would
    /// clear the flag, and the rest would leave one by one. A process that starts afterwards finds the flag on its disk
    /// and does not wait; if the stop never comes, the rest elect somebody after this time.
    pub(super) fn stand_back_ms(&self) -> u64 {
        if self.winding_down.stopping { WINDING_DOWN_MS } else { 0 }
    }

    /// Ends as the published State tells this process to.
    pub(super) fn obey(&mut self) {
        let Some(state) = self.published.clone() else { return };
        let order = state.order(&self.me.id, self.me.run).map(halt);
        if let Some(halt) = order.or_else(|| self.end_of_cluster(&state)) {
            self.end_with(halt);
        }
    }

    /// The cluster is decommissioned, and nobody needs this process any more: its clients have their answers, and, if
    /// it leads, whoever can be reached knows. (Who forgets the cluster is as good as dead for good: what is left can
    /// only go on from this very State, which says so, or has no majority. So nothing depends on the wait.)
    fn end_of_cluster(&self, state: &State) -> Option<Halt> {
        let options = state.head().ended?;
        let waits = self.now < self.farewell_until();
        if waits && (!self.requests.is_empty() || self.must_tell(state.stamp())) {
            return None;
        }
        Some(end_of(Ended { uuid: state.uuid().clone(), stamp: state.stamp(), options }))
    }

    fn must_tell(&self, stamp: Stamp) -> bool {
        let Role::Leading(lead) = &self.role else { return false };
        lead.members.values().any(|p| p.published < Some(stamp) && self.live.is_connected(&p.id))
    }

    /// A process that starts with that State on its disk has nobody to wait for.
    fn farewell_until(&self) -> Millis {
        self.winding_down.ended_at.map_or(0, |at| at + FAREWELL_MS)
    }

    pub(super) fn farewell_due(&self) -> Option<Millis> {
        self.winding_down.ended_at.map(|at| at + FAREWELL_MS)
    }

    /// A disk that obeyed says that our cluster was decommissioned while this node was away, and nobody is left who
    /// could show the State. It speaks of what was committed. (An administrator may have let a remnant go on in a
    /// higher incarnation: that is not what it saw the end of.)
    pub(super) fn hear_end(&mut self, end: &Ended) {
        if self.genesis.uuid() == Some(&end.uuid) && self.incarnation <= end.stamp.incarnation {
            self.end_with(end_of(end.clone()));
        }
    }

    /// Not let in because the disk was given up for lost (section 5): the node may join with a new one only.
    /// Also when it was to stay idle after its decommission: that was said to the process of then.
    pub(super) fn on_lost_disk(&mut self, options: Option<MemberOptions>, why: &Refusal) {
        let options = options.map(|given| MemberOptions { no_shutdown: false, ..given });
        let halt = options.map_or_else(|| Halt::SetAside(why.to_string()), |options| decommissioned(options, None));
        self.end_with(halt);
    }

    /// Says that this process ends, and ends.
    pub(super) fn end_with(&mut self, halt: Halt) {
        let peers: Vec<NodeId> = self.live.everybody().cloned().collect();
        for peer in peers {
            self.tell(&peer, Message::Stopping);
        }
        self.halted = true;
        self.actions.push(Action::Halt(halt));
    }
}

fn halt(order: &Order) -> Halt {
    match order.action {
        MemberAction::Decommission => decommissioned(order.options, None),
        _ => Halt::Shutdown,
    }
}

fn end_of(end: Ended) -> Halt {
    decommissioned(end.options, Some(end))
}

fn decommissioned(options: MemberOptions, ended: Option<Ended>) -> Halt {
    let MemberOptions { rm_user_data, keep_initial_config, no_shutdown, .. } = options;
    Halt::Decommissioned { rm_user_data, keep_initial_config, no_shutdown, ended }
}
