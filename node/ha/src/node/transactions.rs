//! Membership transactions (protocol.md section 6): whoever is primary finishes the one that the State records, and
//! nodes obey what they see published.

use std::collections::BTreeMap;

use ais_meta::state::{Draft, Order, State, Txn, TxnPhase};
use ais_meta::{MemberAction, MemberOptions, NodeId, Refusal, Stamp, VoterId};

use super::lead::Lead;
use super::{Node, Role};
use crate::io::{Action, Halt, Message, Millis};

/// How long a node that left the Smap is still sent the State that says so.
const FAREWELL_MS: u64 = 5000;

/// How long a cluster without a primary that is being stopped waits for its end.
const WINDING_DOWN_MS: u64 = 60_000;

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
        // One that this very draft begins is nobody's yet.
        if draft.state().transaction() != Some(&txn) || !self.is_known_to_all(&txn, lead) {
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
        let seated = |id: &VoterId| state.electorate().iter().any(|v| v.id == *id);
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

    /// The whole cluster is being stopped in order: this process is going to be stopped, too.
    pub(super) fn note_stopping(&mut self, state: &State) {
        self.winding_down = state.head().stopping;
    }

    /// How long this process stands back from an election because it is going to be stopped: electing somebody would
    /// clear the flag, and the rest would leave one by one. A process that starts afterwards finds the flag on its disk
    /// and does not wait; if the stop never comes, the rest elect somebody after this time.
    pub(super) fn stand_back_ms(&self) -> u64 {
        if self.winding_down { WINDING_DOWN_MS } else { 0 }
    }

    /// Ends as the published State tells this process to.
    pub(super) fn obey(&mut self) {
        let order = self.published.as_ref().and_then(|s| s.order(&self.me.id, self.me.run));
        if let Some(halt) = order.map(halt) {
            self.end_with(halt);
        }
    }

    /// Not let in because the disk was given up for lost (section 5): the node may join with a new one only.
    pub(super) fn on_lost_disk(&mut self, options: Option<MemberOptions>, why: &Refusal) {
        let halt = options.map_or_else(|| Halt::SetAside(why.to_string()), decommissioned);
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
        MemberAction::Decommission => decommissioned(order.options),
        _ => Halt::Shutdown,
    }
}

fn decommissioned(options: MemberOptions) -> Halt {
    let MemberOptions { rm_user_data, keep_initial_config, no_shutdown, .. } = options;
    Halt::Decommissioned { rm_user_data, keep_initial_config, no_shutdown }
}
