//! What other disks were shown to hold (protocol.md rule 10): a disk that was restored from an older copy forgot what it
//! acknowledged, and is told so. Narrows the hazard: only who was shown it remembers it, and only while its process
//! runs. And copies of the State outside of the state directory (section 7), after that was lost.

use std::collections::{BTreeMap, VecDeque};

use ais_meta::{BootId, Stamp, VoterId};

use super::{Node, PEERS_MAX};
use crate::genesis::Genesis;
use crate::io::{Action, Halt, Message, Packet, Remembered, Sender};
use crate::mutant::Mutant;
use crate::register::Term;

/// Processes of a disk that are known to be earlier ones of it, not copies.
const BOOTS_MAX: usize = 4;

/// What a disk showed.
struct Shown {
    run: u64,
    boot: BootId,
    /// Earlier processes: what they still say is late, and no copy's.
    earlier: VecDeque<BootId>,
    promised: Term,
    accepted: Stamp,
    /// The process that must be told what this disk held, and what that is.
    owed: Option<(BootId, Message)>,
}

/// By disk, bounded.
#[derive(Default)]
pub(super) struct Memory(BTreeMap<VoterId, Shown>);

impl Node {
    /// What a message shows that its sender has made durable.
    pub(super) fn remember(&mut self, packet: &Packet) {
        let term = Term::new(packet.incarnation, packet.epoch);
        let (promised, accepted) = match &packet.message {
            Message::Hello(hello) => (hello.promised, hello.accepted.unwrap_or_default()),
            Message::Promise { accepted } => (term, accepted.as_ref().map(|a| a.stamp).unwrap_or_default()),
            Message::Prepare { .. } => (term, Stamp::default()),
            Message::Heartbeat { held, .. } => (term, *held),
            Message::Appended { stamp, .. } => (Term::from(*stamp), *stamp),
            Message::HeartbeatAck { holds, accepted, .. } => (if *holds { term } else { Term::default() }, *accepted),
            _ => return,
        };
        // These defects are for the models to find; here they would be taken for a restored disk.
        if Mutant::VotesNotPersisted.on() || Mutant::WipedKeepsId.on() {
            return;
        }
        let from = &packet.from;
        if self.memory.0.len() >= PEERS_MAX && !self.memory.0.contains_key(&from.id) {
            let live = &self.live;
            self.memory.0.retain(|id, _| live.is_connected(id));
            if self.memory.0.len() >= PEERS_MAX {
                return;
            }
        }
        let shown = self.memory.0.entry(from.id.clone()).or_insert_with(|| Shown {
            run: from.run,
            boot: from.boot,
            earlier: VecDeque::new(),
            promised,
            accepted,
            owed: None,
        });
        if from.run > shown.run {
            shown.earlier.push_back(shown.boot);
            if shown.earlier.len() > BOOTS_MAX {
                shown.earlier.pop_front();
            }
            (shown.run, shown.boot) = (from.run, from.boot);
        }
        (shown.promised, shown.accepted) = (shown.promised.max(promised), shown.accepted.max(accepted));
    }

    /// A new process of a disk greets: tells it when it holds less than the disk held before, or is not the newest.
    /// What a known earlier process says late is no copy's word.
    pub(super) fn compare(&mut self, packet: &Packet) {
        let (Message::Hello(hello), from) = (&packet.message, &packet.from) else {
            return;
        };
        let Some(shown) = self.memory.0.get_mut(&from.id) else {
            return;
        };
        if from.boot == shown.boot || shown.earlier.contains(&from.boot) {
            return;
        }
        let less = hello.promised < shown.promised || hello.accepted.unwrap_or_default() < shown.accepted;
        if less || from.run <= shown.run {
            let (run, promised, accepted) = (shown.run, shown.promised, shown.accepted);
            let said = Message::Remembered { of: from.id.clone(), run, promised, accepted };
            shown.owed = Some((from.boot, said.clone()));
            self.tell(&from.id.node, said);
        }
    }

    /// Its greeting may have come before it could be told anything.
    pub(super) fn remind(&mut self, peer: &Sender) {
        let owed = self.memory.0.get(&peer.id).and_then(|shown| shown.owed.clone());
        if let Some((_, said)) = owed.filter(|(boot, _)| *boot == peer.boot) {
            self.tell(&peer.id.node, said);
        }
    }

    /// A peer remembers more of this disk than it holds.
    pub(super) fn on_remembered(&mut self, of: &VoterId, run: u64, promised: Term, accepted: Stamp) {
        if !self.is_me(of) {
            return;
        }
        let (holds_promise, holds) = (self.durable.promised, self.durable.accepted);
        if promised > holds_promise || accepted > holds {
            let why = format!(
                "this disk promised {promised} and accepted {accepted} (run {run}), and now holds {holds_promise} and \
                 {holds} (run {}): it is an older copy",
                self.me.run
            );
            self.halted = true;
            self.actions.push(Action::Halt(Halt::SetAside(why)));
        } else if run >= self.me.run {
            let why = format!(
                "refused: run {run} of this disk is known, this process is run {}: a copied volume, or an older copy of it",
                self.me.run
            );
            self.say_why(&why);
        }
    }

    /// The state directory is new, and a copy elsewhere names the cluster that the node belonged to: it may join that
    /// one, and nothing else.
    pub(super) fn with_remembered(mut self, remembered: Option<Remembered>) -> Self {
        let Some(kept) = remembered.filter(|_| !self.genesis.is_formed()) else {
            return self;
        };
        for peer in kept.peers {
            self.hint(peer);
        }
        self.remembered = Some(kept.uuid.clone());
        if self.config.uuid.is_none() {
            self.config.uuid = Some(kept.uuid);
        }
        if self.genesis == Genesis::Unformed {
            self.genesis = Genesis::JoinOnly;
            self.persist(Some(Genesis::JoinOnly), None);
        }
        self
    }
}
