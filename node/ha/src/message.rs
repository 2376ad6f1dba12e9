//! What members say to one another.

use std::sync::Arc;

use ais_meta::{
    Basis, Change, ClusterUuid, Delta, Digest, Electorate, Full, Node as Member, NodeId, Outcome, RequestId, Stamp,
    Voter, VoterId,
};
use serde::{Deserialize, Serialize};

use crate::genesis::{Genesis, Offer};
use crate::io::{Sender, Transferred};
use crate::register::Term;

/// A message with what authenticates and fences it (protocol.md rule 10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    /// The cluster, once known.
    pub uuid: Option<ClusterUuid>,
    /// Raised by recovery of a lost majority.
    pub incarnation: u32,
    /// The epoch that the message is about; for messages of no epoch the sender's effective promise.
    pub epoch: u64,
    /// The sender.
    pub from: Sender,
    /// The content.
    pub message: Message,
}

/// Content of a message between members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// First on every connection, and when something in it changed.
    Hello(Box<Hello>),
    /// The primary lives.
    Heartbeat {
        /// Counts the primary's rounds.
        round: u64,
        /// Newest committed stamp.
        commit: Stamp,
        /// What the primary itself has durably accepted: nobody else is told of that, and it may be what a majority
        /// rests on (protocol.md rule 10).
        #[serde(default)]
        held: Stamp,
    },
    /// To a heartbeat.
    HeartbeatAck {
        /// Of which round.
        round: u64,
        /// Whether this node's durable promise is this epoch (protocol.md rule 8).
        holds: bool,
        /// Newest durably accepted State.
        accepted: Stamp,
        /// Newest published State.
        published: Stamp,
    },
    /// "You are next in line, and the primary is down for me."
    ElectionBegins,
    /// To the suspected primary: do you lead?
    Probe,
    /// I do, in the packet's epoch, or I do not.
    ProbeReply {
        /// Whether.
        leading: bool,
    },
    /// Is it down for you, and would you promise? Nothing is recorded.
    PreVote {
        /// Counts the candidate's rounds.
        round: u64,
    },
    /// To a pre-vote.
    PreVoteReply {
        /// Of which round.
        round: u64,
        /// Answer.
        answer: PreVoteAnswer,
    },
    /// Promise me the packet's epoch.
    Prepare {
        /// Given by the resigning primary.
        token: Option<HandOver>,
    },
    /// Promised, durably.
    Promise {
        /// What this voter has accepted.
        accepted: Option<Accepted>,
    },
    /// Not promised or not accepted; the packet's epoch is the effective promise.
    Refuse {
        /// Which epoch was asked.
        asked: u64,
        /// In how many milliseconds it makes sense to ask again, if known.
        retry_ms: Option<u64>,
    },
    /// Send me your accepted State, if it is at least this.
    Fetch {
        /// Wanted.
        stamp: Stamp,
    },
    /// A body that was fetched.
    Body {
        /// The State.
        full: Arc<Full>,
    },
    /// From the primary: States in order.
    Append {
        /// The round, as of a heartbeat.
        round: u64,
        /// Newest committed stamp.
        commit: Stamp,
        /// Steps to the newest State.
        body: AppendBody,
    },
    /// Durably accepted.
    Appended {
        /// Of which round.
        round: u64,
        /// The newest accepted State.
        stamp: Stamp,
        /// Its digest.
        digest: Digest,
    },
    /// I lack the base: send the whole State.
    NeedFull {
        /// What I have.
        have: Stamp,
    },
    /// Published at this node.
    Published {
        /// Newest.
        stamp: Stamp,
    },
    /// The primary gives up its lease of the packet's epoch for good (protocol.md rule 9).
    Resign {
        /// Who should follow.
        successor: Option<VoterId>,
    },
    /// To the successor: run at once.
    Token(HandOver),
    /// This process will end.
    Stopping,
    /// A mutation on its way to the primary.
    Forward {
        /// Its id.
        request: RequestId,
        /// The gateway waits for nothing below this sequence.
        low: u64,
        /// The mutation.
        change: Change,
        /// What its caller's rights were judged by; `None`: by nothing that changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<Basis>,
    },
    /// To a forward.
    Forwarded {
        /// Which.
        request: RequestId,
        /// How it went.
        reply: ForwardReply,
    },
    /// A hand-over asked of the primary through another gateway.
    TransferAsk {
        /// Names the call at the asking gateway.
        nonce: u64,
        /// To whom.
        to: NodeId,
        /// Refuse unless this is the primary.
        expected_primary: Option<NodeId>,
        /// Refuse unless this is the epoch.
        expected_epoch: Option<u64>,
    },
    /// To a [`Message::TransferAsk`].
    TransferAnswer {
        /// Which.
        nonce: u64,
        /// How it ended, or how far it came.
        result: TransferAnswer,
    },
    /// How new is the newest committed State?
    Pull {
        /// Names the call.
        nonce: u64,
    },
    /// To a pull, under the primary's lease; `None`: not primary.
    PullReply {
        /// Which.
        nonce: u64,
        /// Newest committed.
        stamp: Option<Stamp>,
    },
    /// What this member was shown by an earlier process of the addressed disk (protocol.md rule 10).
    Remembered {
        /// The disk.
        of: VoterId,
        /// Its newest run.
        run: u64,
        /// What it had promised.
        promised: Term,
        /// What it had accepted.
        accepted: Stamp,
    },
    /// Founding: bind to this offer.
    Offer(Box<Offer>),
    /// Founding: bound, durably.
    Bound {
        /// To which.
        offer: u64,
    },
}

/// What a process says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The node as it would stand in the Smap.
    pub member: Member,
    /// Whether it leads (the packet's epoch); a started process leads nothing.
    pub leading: bool,
    /// Whether it is about to end.
    pub stopping: bool,
    /// Founding.
    pub genesis: Genesis,
    /// Newest accepted State.
    pub accepted: Option<Stamp>,
    /// Effective promise, durable.
    #[serde(default)]
    pub promised: Term,
    /// Who leads, as far as it knows.
    pub primary: Option<Voter>,
}

/// An answer to a pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreVoteAnswer {
    /// It is down for me and I would promise.
    Yes,
    /// Not yet.
    No {
        /// Ask again then (remaining lease, or evidence pending).
        retry_ms: u64,
    },
}

/// The token of a hand-over (protocol.md rule 9).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HandOver {
    /// The epoch that was given up.
    pub epoch: u64,
    /// By whom.
    pub from: VoterId,
    /// For whom.
    pub to: VoterId,
    /// Random.
    pub nonce: u64,
}

/// An accepted State without its body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its stamp.
    pub stamp: Stamp,
    /// Its digest.
    pub digest: Digest,
    /// Its voters, with addresses: the candidate may not know them.
    pub electorate: Electorate,
}

/// How an append brings its State.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AppendBody {
    /// Nothing new: the commit stamp only.
    Commit,
    /// Steps from a State that the member has.
    Deltas(Vec<Arc<Delta>>),
    /// All of it.
    Full(Arc<Full>),
}

/// What became of a forwarded mutation at the node it was sent to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ForwardReply {
    /// Committed and published.
    Settled {
        /// What it did.
        outcome: Outcome,
        /// The State.
        stamp: Stamp,
    },
    /// Not proposed here; who leads, as far as this node knows.
    NotPrimary {
        /// With addresses.
        primary: Option<Voter>,
    },
    /// Proposed here, but this node leads no more: ask the next primary under the same id.
    Lost,
}

/// How far an asked hand-over came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TransferAnswer {
    /// Ended.
    Ended(Transferred),
    /// The old primary resigned its epoch; watch for a higher one.
    Resigned {
        /// The epoch given up.
        epoch: u64,
    },
    /// I do not lead.
    NotPrimary,
}

impl Message {
    /// Whether the message may be large or many: such go beside the connection of heartbeats and votes
    /// (protocol.md section 7).
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self, Self::Append { body, .. } if *body != AppendBody::Commit)
            || matches!(self, Self::Body { .. } | Self::Forward { .. } | Self::Forwarded { .. })
    }

    /// Its name, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Heartbeat { .. } => "heartbeat",
            Self::HeartbeatAck { .. } => "heartbeat_ack",
            Self::ElectionBegins => "election_begins",
            Self::Probe => "probe",
            Self::ProbeReply { .. } => "probe_reply",
            Self::PreVote { .. } => "pre_vote",
            Self::PreVoteReply { .. } => "pre_vote_reply",
            Self::Prepare { .. } => "prepare",
            Self::Promise { .. } => "promise",
            Self::Refuse { .. } => "refuse",
            Self::Fetch { .. } => "fetch",
            Self::Body { .. } => "body",
            Self::Append { .. } => "append",
            Self::Appended { .. } => "appended",
            Self::NeedFull { .. } => "need_full",
            Self::Published { .. } => "published",
            Self::Resign { .. } => "resign",
            Self::Token(_) => "token",
            Self::Stopping => "stopping",
            Self::Forward { .. } => "forward",
            Self::Forwarded { .. } => "forwarded",
            Self::TransferAsk { .. } => "transfer_ask",
            Self::TransferAnswer { .. } => "transfer_answer",
            Self::Pull { .. } => "pull",
            Self::PullReply { .. } => "pull_reply",
            Self::Remembered { .. } => "remembered",
            Self::Offer(_) => "offer",
            Self::Bound { .. } => "bound",
        }
    }
}
