//! Messages of others: fenced, then dispatched (protocol.md rule 10).

use ais_meta::{NodeId, Stamp};

use super::{Heard, Node, Role};
use crate::genesis::Genesis;
use crate::io::{Hello, Message, Packet, Sender};

impl Node {
    pub(super) fn on_connected(&mut self, peer: &Sender) {
        if self.live.connected(peer) {
            self.greet(&peer.id.node.clone());
            self.remind(peer);
            self.reconnected(peer);
            self.ask_soon();
        }
    }

    pub(super) fn greet(&mut self, to: &NodeId) {
        let hello = Hello {
            member: self.config.member.clone(),
            leading: matches!(self.role, Role::Leading(_)),
            stopping: self.stop.is_some(),
            genesis: self.durable.genesis.clone(),
            accepted: Some(self.durable.accepted).filter(|s| *s != Stamp::default()),
            promised: self.durable.promised,
            primary: self.believed_primary(),
        };
        self.tell(to, Message::Hello(Box::new(hello)));
    }

    /// Rule 10: fences, then dispatches.
    pub(super) fn receive(&mut self, packet: Packet) {
        if let Message::Hello(hello) = &packet.message
            && let Genesis::Ended(end) = &hello.genesis
        {
            self.hear_end(end);
        }
        let foreign = matches!((self.uuid(), &packet.uuid), (Some(ours), Some(theirs)) if ours != theirs);
        if foreign {
            if let Message::Hello(hello) = packet.message {
                self.hellos
                    .insert(packet.from.id.node.clone(), Heard { from: packet.from, hello: *hello, uuid: packet.uuid });
            }
            return;
        }
        let second = packet.from.id.node == self.me.id.node;
        if !second && self.uuid().is_some() && self.uuid() == packet.uuid.as_ref() {
            self.compare(&packet);
        }
        if second || !self.live.heard(&packet.from, self.now) || !self.same_incarnation(&packet) {
            return;
        }
        self.remember(&packet);
        self.epoch_seen = self.epoch_seen.max(packet.epoch);
        let (from, epoch) = (packet.from, packet.epoch);
        match packet.message {
            Message::Hello(hello) => self.on_hello(from, packet.uuid, epoch, *hello),
            Message::Offer(offer) => self.on_offer(&from, *offer),
            Message::Bound { offer } => self.on_bound(from, offer),
            Message::Append { round, commit, body } => self.on_append(from, epoch, packet.uuid, round, commit, body),
            Message::Stopping => self.live.ending(&from),
            Message::Remembered { of, run, promised, accepted } => self.on_remembered(&of, run, promised, accepted),
            Message::Forwarded { request, reply } => self.on_forwarded(&from, request, reply),
            Message::Forward { request, low, change, basis } => self.on_forward(from, request, low, change, basis),
            Message::Body { full } if !self.genesis.is_formed() => self.on_told(&full),
            message if self.genesis.is_formed() => self.member_message(from, epoch, message),
            _ => {}
        }
    }

    fn member_message(&mut self, from: Sender, epoch: u64, message: Message) {
        match message {
            Message::Heartbeat { round, commit, .. } => self.on_heartbeat(&from, epoch, round, commit),
            Message::HeartbeatAck { round, holds, accepted, published } => {
                self.on_heartbeat_ack(&from, epoch, round, holds, accepted, published);
            }
            Message::ElectionBegins => self.on_election_begins(),
            Message::Probe => {
                let leading = matches!(self.role, Role::Leading(_));
                self.tell(&from.id.node, Message::ProbeReply { leading });
            }
            Message::ProbeReply { leading } => self.on_probe_reply(&from, epoch, leading),
            Message::PreVote { round } => self.on_pre_vote(&from, epoch, round),
            Message::PreVoteReply { round, answer } => self.on_pre_vote_reply(&from, round, answer),
            Message::Prepare { token } => self.on_prepare(&from, epoch, token),
            Message::Promise { accepted } => self.on_promise(from, epoch, accepted),
            Message::Refuse { asked, retry_ms } => self.on_refuse(&from, epoch, asked, retry_ms),
            Message::Fetch { stamp } => self.on_fetch(&from, stamp),
            Message::Body { full } => {
                self.on_survivor(&from, full.stamp);
                self.on_body(&full);
            }
            Message::Appended { round, stamp, digest } => self.on_appended(&from, epoch, round, stamp, digest),
            Message::NeedFull { have } => self.on_need_full(&from, have),
            Message::Published { stamp } => self.on_member_published(&from, stamp),
            Message::Resign { successor } => self.on_resign(&from, epoch, successor),
            Message::Token(token) => self.on_token(&from, token),
            Message::TransferAsk { nonce, to, expected_primary, expected_epoch } => {
                self.on_transfer_ask(&from, nonce, to, expected_primary, expected_epoch);
            }
            Message::TransferAnswer { nonce, result } => self.on_transfer_answer(nonce, result),
            Message::Pull { nonce } => self.on_pull_ask(&from, nonce),
            Message::PullReply { nonce, stamp } => self.on_pull_reply(nonce, stamp),
            // Dispatched by `receive` already.
            Message::Hello(_)
            | Message::Offer(_)
            | Message::Bound { .. }
            | Message::Append { .. }
            | Message::Stopping
            | Message::Remembered { .. }
            | Message::Forward { .. }
            | Message::Forwarded { .. } => {}
        }
    }
}
