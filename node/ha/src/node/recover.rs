//! Incarnations: going on after a majority was lost for good, on an administrator's word (protocol.md section 4), and
//! fencing what is left of the line before.
//!
//! Only a *State* of the new incarnation takes a node into it: States of one incarnation all descend from the one that
//! its recovery wrote. Merely hearing of a higher incarnation ends whatever the node does in the lower one, and makes
//! it say so to others; it neither stands nor leads until it was given a State.

use std::sync::Arc;

use ais_meta::{Change, DiskId, Stamp, State, Voter};

use super::{Leader, Node, Role};
use crate::io::{Action, Message, Millis, Packet, RecoverRefused, Sender};
use crate::mutant::Mutant;
use crate::pacemaker::Lease;
use crate::quorum;
use crate::register::{INCARNATION_SLOTS, Term, next_incarnation};

/// Survivors that are asked what they hold; voters first.
const ASKED_MAX: usize = 64;

/// An administrator's call that waits for what other survivors hold.
pub(super) struct Asked {
    nonce: u64,
    confirmed: Stamp,
    until: Millis,
}

/// By the disk alone: survivors whose States differ are just those of which two may be recovered.
fn slot_of(disk: DiskId) -> u32 {
    u32::try_from(disk.0 % u64::from(INCARNATION_SLOTS)).unwrap_or_default()
}

impl Node {
    /// An epoch of the incarnation that is known of.
    pub(super) fn term(&self, epoch: u64) -> Term {
        Term::new(self.incarnation, epoch)
    }

    /// The effective promise within that incarnation.
    pub(super) fn promised_epoch(&self) -> u64 {
        let promised = self.register.promised();
        if promised.incarnation == self.incarnation { promised.epoch } else { 0 }
    }

    /// The cluster went on without this node, which has no State of the new incarnation yet.
    pub(super) fn is_left_behind(&self) -> bool {
        self.genesis.is_formed() && self.newest().is_some_and(|s| s.stamp().incarnation < self.incarnation)
    }

    /// Fences (rule 10): learns of a higher incarnation, refuses a lower one and says so. A greeting, a last word and a
    /// wish to join come from any.
    pub(super) fn same_incarnation(&mut self, packet: &Packet) -> bool {
        let known = self.uuid();
        let ours = packet.uuid.is_some() && (known.is_none() || known == packet.uuid.as_ref());
        if packet.incarnation > self.incarnation && ours {
            self.enter(packet.incarnation);
        }
        let free = match &packet.message {
            Message::Hello(_) | Message::Stopping | Message::Remembered { .. } => true,
            Message::Forward { change, .. } => matches!(change, Change::Join { .. }),
            _ => false,
        };
        if packet.incarnation < self.incarnation && !free {
            self.fence(&packet.from, packet.epoch);
            return false;
        }
        true
    }

    fn fence(&mut self, to: &Sender, asked: u64) {
        if self.genesis.is_formed() {
            self.tell(&to.id.node, Message::Refuse { asked, retry_ms: None });
        }
    }

    /// Somebody said that there is a higher incarnation.
    fn enter(&mut self, incarnation: u32) {
        self.turn_to(incarnation);
        if self.is_left_behind() {
            self.say_why(&format!("a lost majority was recovered as incarnation {incarnation}: waiting for its State"));
            self.join.retry_now(self.now);
            self.announce();
        }
    }

    /// A recovery of this node's own that its disk does not hold yet.
    pub(super) fn is_recovery_secret(&self) -> bool {
        !Mutant::RecoveryTold.on() && self.recovery.is_some() && self.durable.promised.incarnation < self.incarnation
    }

    /// Whatever this process was in the lower incarnation is over: leads, leases and waits.
    fn turn_to(&mut self, incarnation: u32) {
        self.incarnation = incarnation;
        self.epoch_seen = 0;
        self.heard_commit = Stamp::default();
        (self.lease, self.promised_at) = (Lease::default(), None);
        self.follow();
        (self.leader, self.alone_since) = (None, self.now);
    }

    /// A State of a higher incarnation replaced the accepted one: whatever that held beyond the recovered line is gone.
    pub(super) fn note_abandoned(&mut self, held: Option<Stamp>, by: &State) {
        if let Some(held) = held.filter(|h| h.incarnation < by.stamp().incarnation) {
            self.stats.abandoned += 1;
            self.reason.clear();
            self.actions.push(Action::Abandoned { held, by: by.stamp() });
        }
    }

    // ---- an administrator's word

    pub(super) fn on_recover(&mut self, nonce: u64, confirmed: Stamp) {
        let may = match &self.asked {
            Some(_) => Err(RecoverRefused::Busy("another call is asking the survivors what they hold".to_owned())),
            None => self.may_recover(confirmed),
        };
        match may {
            Ok(state) => {
                self.ask_survivors(&state, confirmed.next());
                self.asked = Some(Asked { nonce, confirmed, until: self.now + self.config.timers.probe_ms });
            }
            Err(why) => self.actions.push(Action::Recovered { nonce, result: Err(why) }),
        }
    }

    /// What they said when they connected may be old: they went on while there was a majority. Who holds no more does
    /// not answer.
    fn ask_survivors(&mut self, state: &State, newer: Stamp) {
        let reached = self.hellos.values().map(|h| &h.from.id).filter(|id| self.live.is_connected(id)).cloned();
        let (voters, others): (Vec<_>, Vec<_>) = reached.partition(|id| quorum::seats(state.electorate(), id));
        for survivor in voters.into_iter().chain(others).take(ASKED_MAX) {
            self.tell(&survivor.node, Message::Fetch { stamp: newer });
        }
    }

    /// A survivor shows its State.
    pub(super) fn on_survivor(&mut self, from: &Sender, held: Stamp) {
        if let Some(Asked { nonce, confirmed, .. }) = self.asked.take_if(|asked| held > asked.confirmed) {
            let why = RecoverRefused::Newer { node: from.id.node.clone(), held, confirmed };
            self.actions.push(Action::Recovered { nonce, result: Err(why) });
        }
    }

    pub(super) fn recovery_due(&self) -> Option<Millis> {
        self.asked.as_ref().map(|asked| asked.until)
    }

    /// Nobody who can be reached holds more.
    pub(super) fn advance_recovery(&mut self) {
        let Some(Asked { nonce, confirmed, .. }) = self.asked.take_if(|asked| self.now >= asked.until) else {
            return;
        };
        let result = self.may_recover(confirmed).and_then(|state| self.recover(nonce, &state));
        if let Err(why) = result {
            self.actions.push(Action::Recovered { nonce, result: Err(why) });
        }
    }

    fn may_recover(&self, confirmed: Stamp) -> Result<Arc<State>, RecoverRefused> {
        let state = self.accepted.clone().filter(|_| self.genesis.is_formed()).ok_or(RecoverRefused::NotFormed)?;
        if self.stop.is_some() || !self.disk_ok {
            return Err(RecoverRefused::Busy("this node is stopping, or cannot write its state directory".to_owned()));
        }
        self.nobody_leads()?;
        let held = self.durable.accepted;
        if held != confirmed || state.stamp() != confirmed {
            return Err(RecoverRefused::Stamp { confirmed, held: Some(held).filter(|s| *s != Stamp::default()) });
        }
        if !self.electable() {
            return Err(RecoverRefused::NotElectable);
        }
        let heard = self.hellos.values().filter(|h| h.uuid.as_ref() == self.uuid());
        let newer =
            heard.filter_map(|h| Some((h.from.id.node.clone(), h.hello.accepted?))).find(|(_, s)| *s > confirmed);
        if let Some((node, held)) = newer {
            return Err(RecoverRefused::Newer { node, held, confirmed });
        }
        let voters = quorum::names(state.electorate());
        // Without a primary an electable node asks the voters all the time: whoever lives has just answered.
        let lately = self.now.saturating_sub(self.config.timers.suspect_ms);
        let reached = voters.iter().filter(|v| self.is_me(v) || self.live.heard_since(v, lately)).count();
        if reached >= quorum::majority(voters.len()) {
            return Err(RecoverRefused::Majority { reached, of: voters.len() });
        }
        if let Err(left_ms) = self.would_promise(&self.me, None) {
            return Err(RecoverRefused::Busy(format!("the last primary's lease runs for {left_ms} ms more")));
        }
        Ok(state)
    }

    fn nobody_leads(&self) -> Result<(), RecoverRefused> {
        if let Role::Leading(lead) = &self.role {
            return Err(RecoverRefused::PrimaryHeard { primary: self.me.id.node.clone(), epoch: lead.epoch() });
        }
        match &self.leader {
            Some(Leader { who, epoch, .. }) if self.down().is_none() => {
                Err(RecoverRefused::PrimaryHeard { primary: who.id.node.clone(), epoch: *epoch })
            }
            _ => {
                let listened_ms = self.now.saturating_sub(self.alone_since);
                let left_ms = self.config.timers.suspect_ms.saturating_sub(listened_ms);
                let listening = self.leader.is_none() && left_ms > 0;
                let why = || format!("listening for a primary for {left_ms} ms more");
                if listening { Err(RecoverRefused::Busy(why())) } else { Ok(()) }
            }
        }
    }

    /// Writes the first State of a new incarnation: the accepted one, with this node alone to decide.
    fn recover(&mut self, nonce: u64, state: &Arc<State>) -> Result<(), RecoverRefused> {
        let slot = slot_of(self.me.id.disk);
        let incarnation = next_incarnation(self.incarnation, slot)
            .ok_or_else(|| RecoverRefused::Busy("no incarnation is left".to_owned()))?;
        let epoch = self.epoch_seen.max(self.register.promised().epoch) + 1;
        // Nobody may hear of it before it is on the disk: a process that ends before would leave a name of which no State
        // is ever made, and all who heard it would wait for one.
        self.recovery = Some(nonce);
        self.turn_to(incarnation);
        let me = self.me.id.clone();
        if self.register.promise(self.term(epoch), &me).is_err() {
            self.recovery = None;
            return Err(RecoverRefused::Busy("the new incarnation is promised already".to_owned()));
        }
        self.epoch_seen = epoch;
        let mut draft = state.draft(Stamp::new(incarnation, epoch, state.stamp().seq + 1));
        draft.go_on();
        draft.take_over(me.clone(), self.me.run, self.config.timers.lease_ms);
        draft.change(&Change::Join { node: Box::new(self.config.member.clone()) });
        let known =
            draft.state().nodes().get(&me.node).map_or_else(|| Voter::from(&self.config.member), |n| Voter::from(&**n));
        for voter in quorum::names(state.electorate()) {
            draft.remove_voter(&voter);
        }
        draft.add_voter(known);
        self.reason.clear();
        self.start_leading(state.clone(), epoch);
        self.write(draft, Vec::new());
        Ok(())
    }

    /// The first State of the new incarnation is committed, or this node led no more before it was.
    pub(super) fn recovery_ended(&mut self, result: Result<Stamp, RecoverRefused>) {
        if let Some(nonce) = self.recovery.take() {
            self.actions.push(Action::Recovered { nonce, result });
        }
    }
}
