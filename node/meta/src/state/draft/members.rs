//! Edits of the Smap: who joins, who leaves, and membership transactions (protocol.md section 6, http-api.md 2.8).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::record::{self, Order, Past, Phase, Txn, TxnPhase};
use super::Draft;
use crate::Extra;
use crate::change::{MemberAction, MemberOptions, Outcome, Refusal};
use crate::id::{DiskId, NodeId, VoterId};
use crate::node::{Kind, Node, Voter, flags};

/// Members of one cluster.
const NODES_MAX: usize = 4096;
/// Remembered nodes that left; beyond it, the ones without flags go first, in name order.
const PAST_MAX: usize = 4096;
/// Orders to end that are remembered; beyond it, the first in name order go: their disks stay lost.
const ORDERS_MAX: usize = 4096;
/// Nodes that a refusal names: it is remembered in the State.
const NAMED_MAX: usize = 8;
/// Disks that are given up for lost.
const LOST_MAX: usize = 16_384;

impl Draft {
    pub(super) fn join(&mut self, node: &Node) -> Result<(), Refusal> {
        if self.work.rmd.lost.contains(&node.disk) {
            let decommissioned = self.work.orders.get(&node.id).filter(|o| o.disk == node.disk);
            let options = decommissioned.map(|o| o.options);
            return Err(Refusal::DiskLost { node: node.id.clone(), options });
        }
        let old = self.work.nodes.get(&node.id).map(|n| n.disk);
        let old = old.or_else(|| self.work.past.get(&node.id).map(|p| p.disk));
        let known = self.work.nodes.get(&node.id).map(|n| n.flags);
        let flags = known.or_else(|| self.work.past.get(&node.id).map(|p| p.flags));
        let mut node = node.clone();
        node.flags = flags.unwrap_or(node.flags & flags::NON_ELECTABLE);
        if self.work.nodes.get(&node.id).is_some_and(|n| **n == node) {
            return Ok(());
        }
        if known.is_none() && self.work.nodes.len() >= NODES_MAX {
            return Err(Refusal::Full(format!("there are {NODES_MAX} members already")));
        }
        if self.work.past.remove(&node.id).is_some() {
            self.touch(record::past_key(&node.id));
        }
        if known.is_none() && node.kind == Kind::Target {
            self.bump_generation();
        }
        if self.work.orders.get(&node.id).is_some_and(|o| o.disk != node.disk) {
            self.take_order_back(&node.id);
        }
        if let Some(disk) = old.filter(|disk| *disk != node.disk) {
            // No process of that disk asks again.
            self.forget_origin(&VoterId::new(node.id.clone(), disk));
        }
        self.put_node(node);
        self.bump_smap(1);
        Ok(())
    }

    /// What an administrator says of a node, before or after it joins. What it says of itself does not change that.
    pub(super) fn admit(&mut self, id: &NodeId, non_electable: bool) -> Result<(), Refusal> {
        let marked = |flags: u64| {
            if non_electable { flags | flags::NON_ELECTABLE } else { flags & !flags::NON_ELECTABLE }
        };
        if let Some(node) = self.work.nodes.get(id).cloned() {
            if node.kind == Kind::Target && non_electable {
                return Err(Refusal::Invalid(format!("{id} is a target, which never leads")));
            }
            if *id == self.work.primary().node && non_electable {
                return Err(Refusal::Invalid(format!("{id} is the primary: make another gateway primary first")));
            }
            if marked(node.flags) != node.flags {
                self.put_node(Node { flags: marked(node.flags), ..(*node).clone() });
                self.bump_smap(1);
            }
            return Ok(());
        }
        let old = self.work.past.get(id).cloned();
        let known = old.is_some();
        let past = old.unwrap_or_else(|| Past { flags: 0, disk: DiskId(0), run: 0, extra: Extra::new() });
        if marked(past.flags) == past.flags && (known || !non_electable) {
            return Ok(());
        }
        if !known && self.work.past.len() >= PAST_MAX {
            return Err(Refusal::Full(format!("{PAST_MAX} nodes that are not members are remembered already")));
        }
        self.work.past.insert(id.clone(), Past { flags: marked(past.flags), ..past });
        self.touch(record::past_key(id));
        Ok(())
    }

    /// A node of the Smap, and its seat, if it has one: addresses and flags of a voter follow its Smap entry.
    fn put_node(&mut self, node: Node) {
        let fresh = Voter::from(&node);
        if self.work.electorate.iter().any(|v| v.id == fresh.id && *v != fresh) {
            self.add_voter(fresh);
        }
        self.touch(record::node_key(&node.id));
        self.work.nodes.insert(node.id.clone(), Arc::new(node));
    }

    pub(super) fn leave(&mut self, id: &NodeId) -> Result<(), Refusal> {
        let Some(node) = self.work.nodes.get(id).cloned() else {
            return Err(Refusal::NoSuchNode(id.clone()));
        };
        if node.is_set_aside() {
            // Its place is kept while it is down (http-api.md 2.8).
            return Ok(());
        }
        self.remove_node(&node, node.flags);
        if node.kind == Kind::Target {
            self.bump_generation();
        }
        self.bump_smap(1);
        Ok(())
    }

    /// Out of the Smap; `flags` is what a return finds.
    fn remove_node(&mut self, node: &Node, flags: u64) {
        self.work.nodes.remove(&node.id);
        self.touch(record::node_key(&node.id));
        let past = Past { flags, disk: node.disk, run: node.run, extra: Extra::new() };
        self.work.past.insert(node.id.clone(), past);
        self.touch(record::past_key(&node.id));
        if self.work.past.len() > PAST_MAX {
            let with = |flags: u64| {
                self.work.past.iter().find(|(id, p)| p.flags == flags && **id != node.id).map(|(id, _)| id.clone())
            };
            // Then those that may not lead: gateways whose names change with each pod say so again when they join.
            if let Some(victim) = with(0).or_else(|| with(flags::NON_ELECTABLE)) {
                self.work.past.remove(&victim);
                self.touch(record::past_key(&victim));
            }
        }
    }

    fn take_order_back(&mut self, id: &NodeId) {
        if self.work.orders.remove(id).is_some() {
            self.touch(record::order_key(id));
        }
    }

    /// Begins a membership transaction: sets flags and records what is to become of them. Nothing is edited unless all
    /// of it is lawful.
    pub(super) fn membership(
        &mut self,
        action: MemberAction,
        nodes: &[NodeId],
        options: MemberOptions,
    ) -> Result<Outcome, Refusal> {
        let batch = self.lawful(action, nodes, options)?;
        if batch.is_empty() {
            return Ok(Outcome::Done);
        }
        let moves = !options.skip_rebalance && batch.iter().any(|n| n.kind == Kind::Target);
        for node in &batch {
            self.flag(action, node);
        }
        if moves {
            self.bump_generation();
            self.set_phase(Phase::Moving);
        }
        self.bump_smap(1);
        let rebalance = if moves { format!("g{}", self.work.rmd.generation) } else { String::new() };
        if action == MemberAction::RemoveUnsafe {
            self.lose_disks(&batch);
        } else {
            let nodes = batch.iter().map(|n| n.id.clone()).collect();
            let (began, phase) = (self.work.stamp(), TxnPhase::Flags);
            let txn = Txn { began, action, nodes, options, phase, rebalance: rebalance.clone(), extra: Extra::new() };
            self.set_txn(Some(txn));
        }
        Ok(if rebalance.is_empty() { Outcome::Done } else { Outcome::Began(rebalance) })
    }

    /// The nodes that the action changes. AIStore's rules: all or nothing, one at a time.
    fn lawful(
        &self,
        action: MemberAction,
        nodes: &[NodeId],
        options: MemberOptions,
    ) -> Result<Vec<Arc<Node>>, Refusal> {
        if let Some(txn) = self.work.transaction() {
            let names: Vec<&str> = txn.nodes.iter().map(NodeId::as_str).take(NAMED_MAX).collect();
            let more = if txn.nodes.len() > NAMED_MAX { ", ..." } else { "" };
            let text =
                format!("{} of {}{more} is in progress; one membership change at a time", txn.action, names.join(", "));
            return Err(Refusal::Busy(text));
        }
        let invalid = |text: String| Err(Refusal::Invalid(text));
        if nodes.is_empty() {
            return invalid(format!("{action} names no node"));
        }
        if nodes.iter().collect::<BTreeSet<_>>().len() < nodes.len() {
            return invalid(format!("{action} names a node twice"));
        }
        if action == MemberAction::RemoveUnsafe && !options.skip_rebalance {
            return invalid("rm-unsafe needs skip_rebalance: what the node holds is given up".to_owned());
        }
        let mut batch = Vec::with_capacity(nodes.len());
        for id in nodes {
            let node = self.work.nodes.get(id).ok_or_else(|| Refusal::NoSuchNode(id.clone()))?;
            if *id == self.work.primary().node {
                return invalid(format!("{id} is the primary: make another gateway primary first"));
            }
            if self.changes(action, node)? {
                batch.push(node.clone());
            }
        }
        self.survivable(action, &batch)?;
        Ok(batch)
    }

    /// Whether the action changes this node; refused if it makes no sense there.
    fn changes(&self, action: MemberAction, node: &Node) -> Result<bool, Refusal> {
        let (maintenance, leaving) = (node.flags & flags::MAINTENANCE != 0, node.flags & flags::DECOMMISSION != 0);
        if leaving && action != MemberAction::RemoveUnsafe {
            return Err(Refusal::Invalid(format!("node {} is being decommissioned", node.id)));
        }
        match action {
            MemberAction::StartMaintenance => Ok(!maintenance),
            MemberAction::StopMaintenance if !maintenance => {
                Err(Refusal::Invalid(format!("node {} is not in maintenance", node.id)))
            }
            MemberAction::StopMaintenance | MemberAction::Decommission | MemberAction::RemoveUnsafe => Ok(true),
            MemberAction::Shutdown => Ok(self.work.order(&node.voter_id(), node.run).is_none()),
        }
    }

    /// What can never work: processes would end although the majority needs them.
    fn survivable(&self, action: MemberAction, batch: &[Arc<Node>]) -> Result<(), Refusal> {
        if self.work.rmd.lost.len() + batch.len() > LOST_MAX {
            return Err(Refusal::Full(format!("{LOST_MAX} disks are given up for lost already")));
        }
        if action != MemberAction::Shutdown || batch.iter().all(|n| !self.seated(n)) {
            return Ok(());
        }
        let ends: BTreeSet<_> = batch.iter().map(|n| n.voter_id()).collect();
        let told = |v: &Voter| self.work.orders.get(&v.id.node).is_some_and(|o| o.disk == v.id.disk);
        let seats = self.work.electorate.len();
        let left = self.work.electorate.iter().filter(|v| !ends.contains(&v.id) && !told(v)).count();
        if left > seats / 2 {
            return Ok(());
        }
        let text = format!(
            "{left} of {seats} voters would be left, fewer than a majority: shut down fewer nodes at a time, or decommission"
        );
        Err(Refusal::Invalid(text))
    }

    fn seated(&self, node: &Node) -> bool {
        let id = node.voter_id();
        self.work.electorate.iter().any(|v| v.id == id)
    }

    fn flag(&mut self, action: MemberAction, node: &Node) {
        let kept = node.flags & !(flags::MAINTENANCE | flags::MAINTENANCE_POST_REBALANCE);
        let flags = match action {
            MemberAction::StartMaintenance => node.flags | flags::MAINTENANCE,
            MemberAction::Shutdown => kept | flags::MAINTENANCE,
            MemberAction::StopMaintenance => kept,
            MemberAction::Decommission => kept | flags::DECOMMISSION,
            MemberAction::RemoveUnsafe => {
                self.take_order_back(&node.id);
                return self.remove_node(node, node.flags & flags::NON_ELECTABLE);
            }
        };
        if action == MemberAction::StopMaintenance {
            self.take_order_back(&node.id);
        }
        self.put_node(Node { flags, ..node.clone() });
    }

    fn lose_disks(&mut self, nodes: &[Arc<Node>]) {
        // Of those that were lost before: who is removed now may not have heard of it, and ask for something again.
        let lost = |(_, disk): &&(NodeId, DiskId)| self.work.rmd.lost.contains(disk);
        let gone: Vec<_> = self.work.origins.keys().filter(lost).cloned().collect();
        for (node, disk) in gone {
            self.forget_origin(&VoterId::new(node, disk));
        }
        let rmd = Arc::make_mut(&mut self.work.rmd);
        rmd.lost.extend(nodes.iter().map(|n| n.disk));
        rmd.version += 1;
        self.touch(record::RMD.to_owned());
    }

    fn set_phase(&mut self, phase: Phase) {
        let rmd = Arc::make_mut(&mut self.work.rmd);
        if rmd.phase != phase {
            rmd.phase = phase;
            rmd.version += 1;
            self.touch(record::RMD.to_owned());
        }
    }

    fn set_txn(&mut self, txn: Option<Txn>) {
        self.work.txn = txn.map(Arc::new);
        self.touch(record::TXN.to_owned());
    }

    /// Records how far the transaction in progress is.
    pub fn advance_transaction(&mut self, phase: TxnPhase) {
        if let Some(txn) = self.work.transaction().filter(|t| t.phase != phase).cloned() {
            self.set_txn(Some(Txn { phase, ..txn }));
        }
    }

    /// The finishing State of the transaction in progress: maintenance says that its rebalance is done, who is
    /// decommissioned leaves the Smap, who is to end is told so.
    pub fn finish_transaction(&mut self) {
        let Some(txn) = self.work.transaction().cloned() else { return };
        let batch: Vec<Arc<Node>> = txn.nodes.iter().filter_map(|id| self.work.nodes.get(id).cloned()).collect();
        for node in &batch {
            match txn.action {
                MemberAction::StartMaintenance | MemberAction::Shutdown => {
                    let flags = node.flags | flags::MAINTENANCE_POST_REBALANCE;
                    self.put_node(Node { flags, ..(**node).clone() });
                }
                MemberAction::Decommission | MemberAction::RemoveUnsafe => {
                    self.remove_node(node, node.flags & flags::NON_ELECTABLE);
                }
                MemberAction::StopMaintenance => {}
            }
            if matches!(txn.action, MemberAction::Shutdown | MemberAction::Decommission) {
                self.give_order(node, &txn);
            }
        }
        if txn.action == MemberAction::Decommission {
            self.lose_disks(&batch);
        }
        if txn.action != MemberAction::StopMaintenance && !batch.is_empty() {
            self.bump_smap(1);
        }
        if !txn.rebalance.is_empty() {
            self.set_phase(Phase::Done);
        }
        self.set_txn(None);
    }

    fn give_order(&mut self, node: &Node, txn: &Txn) {
        let order =
            Order { disk: node.disk, run: node.run, action: txn.action, options: txn.options, extra: Extra::new() };
        self.work.orders.insert(node.id.clone(), Arc::new(order));
        self.touch(record::order_key(&node.id));
        if self.work.orders.len() > ORDERS_MAX
            && let Some(first) = self.work.orders.keys().next().cloned()
        {
            self.take_order_back(&first);
        }
    }
}
