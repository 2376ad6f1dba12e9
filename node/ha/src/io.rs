//! What goes in and what comes out: the core's whole surface besides [`crate::Node`] itself.
//!
//! The driver (daemon, simulator) owns sockets, disk and clock. It feeds [`Input`]s with its monotonic time and
//! carries out [`Action`]s in order. It may reorder, duplicate or lose [`Action::Send`], and may delay
//! [`Action::Persist`], but must answer every persist with [`Input::Persisted`] (or keep trying after
//! [`Input::PersistFailed`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use ais_meta::{
    Addresses, BootId, Change, ClusterUuid, Delta, Digest, Electorate, Full, Kind, Node as Member, NodeId, Outcome,
    RequestId, Stamp, State, Voter, VoterId,
};
use serde::{Deserialize, Serialize};

use crate::genesis::{Genesis, Offer};

/// Milliseconds of the driver's monotonic clock, which counts the time the machine was suspended.
pub type Millis = u64;

/// Timers (protocol.md section 8), milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// Between heartbeats.
    pub heartbeat_ms: u64,
    /// Silence after which the primary is down for a member.
    pub suspect_ms: u64,
    /// How long a heartbeat binds a voter.
    pub lease_ms: u64,
    /// Between the candidates of one election.
    pub stagger_ms: u64,
    /// Silence after which a member leaves the Smap.
    pub evict_smap_ms: u64,
    /// How long a mutation may wait for members to publish it.
    pub publish_wait_ms: u64,
    /// How long a gateway parks a mutation.
    pub park_ms: u64,
    /// How long a planned hand-over waits for the State in flight.
    pub drain_ms: u64,
    /// How long a candidate waits for the suspected primary's word.
    pub probe_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat_ms: 300,
            suspect_ms: 1500,
            lease_ms: 2000,
            stagger_ms: 200,
            evict_smap_ms: 10_000,
            publish_wait_ms: 200,
            park_ms: 15_000,
            drain_ms: 2000,
            probe_ms: 300,
        }
    }
}

/// Who a message is from: a node, its disk, and which process on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sender {
    /// Node and disk.
    pub id: VoterId,
    /// Raised at each start on that disk.
    pub run: u64,
    /// Random per process.
    pub boot: BootId,
}

/// What `AIS_PRIMARY_EP` names; the driver resolves it (own URLs first, then the configured peers).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PrimaryEp {
    /// Not set.
    #[default]
    Unset,
    /// One of our own URLs.
    Us,
    /// A configured peer.
    Peer(NodeId),
    /// Nobody we know.
    Unknown,
}

/// What the configuration says of founding; read again at each attempt ([`Input::Discovery`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Gateways that found together.
    pub initial_voters: Vec<NodeId>,
    /// The operator recorded that the cluster is formed.
    pub formed: bool,
    /// What `AIS_PRIMARY_EP` names.
    pub primary_ep: PrimaryEp,
    /// One gateway alone may found.
    pub standalone: bool,
}

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node as it will stand in the Smap: id, disk, run, kind, addresses, flags (the non-electable bit is used at
    /// the first join only), domain.
    pub member: Member,
    /// This process.
    pub boot: BootId,
    /// The cluster to belong to, if given.
    pub uuid: Option<ClusterUuid>,
    /// The cluster id to give to a cluster that we found, if none is given (random, from the driver).
    pub fresh_uuid: ClusterUuid,
    /// Seed of jitter.
    pub seed: u64,
    /// Largest electorate, 3 or 5.
    pub voters: usize,
    /// Timers.
    pub timers: Timers,
    /// Founding.
    pub discovery: Discovery,
    /// Wall clock at start, unix seconds; used for shown times only.
    pub started_unix_s: i64,
}

/// What a node keeps on disk (protocol.md section 2). `run` is raised by the driver before boot and is in
/// [`Config::member`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HardState {
    /// Promise and for whom.
    pub vote: Vote,
    /// Founding.
    pub genesis: Genesis,
    /// The accepted State.
    pub accepted: Option<Arc<State>>,
    /// The newest committed one that is known: equal or older.
    pub committed: Option<Arc<State>>,
}

/// The promise as the disk has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// Incarnation that it belongs to.
    pub incarnation: u32,
    /// No message of a lower epoch is heeded.
    pub promised: u64,
    /// Whose epoch it is.
    pub voted_for: Option<VoterId>,
}

/// Orders persists; later ones include earlier ones.
pub type Token = u64;

/// One change of the hard state. The driver writes the parts that are there, in token order, and may write several at
/// once; it answers with the highest token that is durable.
#[derive(Clone, Debug)]
pub struct Persist {
    /// Answered by [`Input::Persisted`].
    pub token: Token,
    /// The promise, always whole.
    pub vote: Vote,
    /// Founding, when it changed.
    pub genesis: Option<Genesis>,
    /// The accepted State, when it changed.
    pub accepted: Option<Write>,
    /// The newest committed stamp that is known: written along, never worth a sync of its own.
    pub committed: Stamp,
}

/// An accepted State on its way to the disk.
#[derive(Clone, Debug)]
pub struct Write {
    /// The State.
    pub state: Arc<State>,
    /// How to get there from the one accepted before; `None`: write it whole.
    pub deltas: Vec<Arc<Delta>>,
}

/// What the driver tells the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed ([`crate::Node::deadline`] came).
    Tick,
    /// A message arrived; its sender was authenticated.
    Message(Box<Packet>),
    /// We can send to this process now (our own connection to it was opened).
    Connected {
        /// Whom.
        peer: Sender,
    },
    /// A connection to or from this process ended by EOF or reset (not by a time-out of ours).
    ConnectionEnded {
        /// Whose.
        peer: Sender,
    },
    /// What an immediate redial of the same address said (protocol.md rule 1).
    Redialled {
        /// Whose connection had ended.
        peer: Sender,
        /// What it said.
        result: Redial,
    },
    /// Everything up to this token is durable.
    Persisted {
        /// The highest.
        token: Token,
        /// How long the sync took.
        took_ms: u64,
    },
    /// Writing failed (disk full, IO error); the driver goes on trying.
    PersistFailed {
        /// For the log and `/v1/health`.
        why: String,
    },
    /// A client's mutation, admitted by this gateway. Ends in one [`Action::Reply`].
    Propose {
        /// Its id; [`crate::Node::request_id`] makes one.
        request: RequestId,
        /// The mutation.
        change: Change,
    },
    /// Hand the primary's role to this node; valid at any gateway. Ends in one [`Action::Transferred`].
    Transfer {
        /// Names the call.
        nonce: u64,
        /// To whom.
        to: NodeId,
        /// Refuse unless this is the primary.
        expected_primary: Option<NodeId>,
        /// Refuse unless this is the epoch.
        expected_epoch: Option<u64>,
    },
    /// Make sure that what is published here is not older than now. Ends in one [`Action::Pulled`].
    Pull {
        /// Names the call.
        nonce: u64,
    },
    /// The configuration was read again.
    Discovery(Discovery),
    /// Stop in order: hand over, leave, then [`Action::Halt`].
    Stop,
}

/// What a redial said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redial {
    /// Connection refused: nothing listens there.
    Refused,
    /// Somebody answered with another boot id of the same disk.
    OtherBoot,
    /// The same process answered.
    SameBoot,
    /// Time-out, unreachable, another identity: no evidence.
    Unknown,
}

/// What the core asks of the driver.
#[derive(Clone, Debug)]
pub enum Action {
    /// Make this durable.
    Persist(Persist),
    /// Send to the node; silently lost when there is no connection.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        packet: Box<Packet>,
    },
    /// The end of an [`Input::Propose`].
    Reply {
        /// Which.
        request: RequestId,
        /// How it ended.
        reply: Reply,
    },
    /// The end of an [`Input::Transfer`].
    Transferred {
        /// Which.
        nonce: u64,
        /// How it ended.
        result: Transferred,
    },
    /// The end of an [`Input::Pull`].
    Pulled {
        /// Which.
        nonce: u64,
        /// Whether the published State is now known to be as new as the call.
        fresh: bool,
    },
    /// A committed State to serve from. Stamps only rise.
    Publish(Arc<State>),
    /// [`crate::Node::view`] changed in role, primary, epoch or reason.
    RoleChanged,
    /// The process must end.
    Halt(Halt),
}

/// Why the process must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Asked to, and done.
    Stopped,
    /// An invariant is broken; the text names it.
    Broken(String),
}

/// How a mutation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Settled by a committed State.
    Settled {
        /// What it did.
        outcome: Outcome,
        /// The State.
        stamp: Stamp,
    },
    /// Not proposed within the time that mutations are parked; it will never take effect: 503 + Retry-After.
    Unavailable,
    /// Proposed, fate unknown: 504 naming the id.
    Unknown,
}

/// How a hand-over ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transferred {
    /// The node leads; its first State is committed (or it led already).
    Done {
        /// Its epoch.
        epoch: u64,
        /// Version of the Smap.
        smap_version: u64,
    },
    /// Not in the Smap.
    UnknownNode,
    /// Another hand-over runs, or the State in flight did not commit in time; the old primary still leads.
    Busy(String),
    /// Precondition failed; this is how it is.
    Precondition {
        /// Who leads.
        primary: NodeId,
        /// In which epoch.
        epoch: u64,
    },
    /// The node may not or cannot lead now.
    NotEligible(String),
    /// Nobody leads.
    NoPrimary,
    /// The old primary gave up its epoch, and nobody was seen to lead in time.
    Unknown,
}

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
            Self::Offer(_) => "offer",
            Self::Bound { .. } => "bound",
        }
    }
}

/// What the node looks like from outside the core.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// What it does.
    pub role: RoleName,
    /// Why it is not ready, or what it waits for; empty when fine.
    pub reason: String,
    /// The cluster, once known.
    pub uuid: Option<ClusterUuid>,
    /// Founding.
    pub genesis: Genesis,
    /// Newest published State.
    pub published: Option<Arc<State>>,
    /// Newest accepted stamp.
    pub accepted: Option<Stamp>,
    /// Effective promise.
    pub promised: u64,
    /// Who leads as far as this node knows and believes (not while it is down).
    pub primary: Option<Voter>,
    /// Its epoch.
    pub epoch: u64,
    /// A committed Smap is known that holds this process (readiness).
    pub ready: bool,
    /// The node is about to end.
    pub stopping: bool,
    /// Whether the last write to disk succeeded.
    pub disk_ok: bool,
    /// Only at the primary: what it knows of the members, by node.
    pub members: BTreeMap<NodeId, MemberView>,
    /// Whom to keep a connection with, by node: members, voters, whoever asked to join.
    pub peers: BTreeMap<NodeId, Peer>,
}

/// What the primary knows of a member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberView {
    /// Node and disk.
    pub id: VoterId,
    /// Gateway or target.
    pub kind: Kind,
    /// Whether it votes.
    pub voter: bool,
    /// Whether there is a connection.
    pub connected: bool,
    /// Newest durably accepted.
    pub acked: Option<Stamp>,
    /// Newest published.
    pub published: Option<Stamp>,
    /// When its last answer came.
    pub heard: Option<Millis>,
}

/// Somebody to dial.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Where.
    pub addresses: Addresses,
    /// Gateway or target.
    pub kind: Kind,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleName {
    /// Leads; its first State is committed.
    Primary,
    /// Asks for votes, or waits for its first State to commit.
    Candidate,
    /// Votes and follows.
    Follower,
    /// Follows.
    Learner,
    /// Founds a cluster.
    Founding,
    /// Wants into a cluster.
    Joining,
    /// Waits for somebody; the reason says for whom.
    Waiting,
    /// Ends.
    Stopping,
}

impl RoleName {
    /// Lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Candidate => "candidate",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Founding => "founding",
            Self::Joining => "joining",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
        }
    }
}
