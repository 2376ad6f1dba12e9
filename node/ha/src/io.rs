//! What goes in and what comes out: the core's whole surface besides [`crate::Node`] itself.
//!
//! The driver (daemon, simulator) owns sockets, disk and clock. It feeds [`Input`]s with its monotonic time and
//! carries out [`Action`]s in order. It may reorder, duplicate or lose [`Action::Send`], and may delay
//! [`Action::Persist`], but must answer every persist with [`Input::Persisted`] (or keep trying after
//! [`Input::PersistFailed`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use ais_meta::{
    Addresses, Basis, BootId, Change, ClusterUuid, Delta, Kind, Node as Member, NodeId, Outcome, RequestId, Stamp,
    State, Voter, VoterId,
};
use serde::{Deserialize, Serialize};

use crate::genesis::{Ended, Genesis};
pub use crate::message::*;
use crate::register::Term;

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
    /// Silence after which a voter's seat goes to somebody else.
    pub evict_voter_ms: u64,
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
            evict_voter_ms: 60_000,
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
    /// Wall clock at start, unix seconds; for shown times, and for how long revoked tokens are remembered.
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
    /// What a copy outside of the state directory remembers (protocol.md section 7), when the directory itself is new.
    pub remembered: Option<Remembered>,
}

/// What a target's mountpaths remember of the cluster after its state directory was lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The cluster: the node may join it, and nothing else.
    pub uuid: ClusterUuid,
    /// Whom to ask.
    pub peers: Vec<Voter>,
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
        /// What its caller's rights were judged by. When that has changed where the mutation comes to be applied, it is
        /// refused as [`ais_meta::Refusal::Outdated`]. `None`: rights that do not change.
        basis: Option<Basis>,
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
    /// An administrator confirms that the majority is lost for good and that the cluster goes on from this stamp
    /// (protocol.md section 4). Ends in one [`Action::Recovered`].
    Recover {
        /// Names the call.
        nonce: u64,
        /// The stamp that this node must hold: the best that the survivors report.
        stamp: Stamp,
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
    /// The end of an [`Input::Recover`].
    Recovered {
        /// Which.
        nonce: u64,
        /// The first stamp of the new incarnation, durable, or why not.
        result: Result<Stamp, RecoverRefused>,
    },
    /// For the log: the State accepted before is dropped for one of a recovered line; what only it held is gone.
    Abandoned {
        /// Accepted before.
        held: Stamp,
        /// Accepted now.
        by: Stamp,
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
    /// A peer remembers more of this disk than the disk does: it was restored from an older copy and forgot what it
    /// acknowledged (protocol.md rule 10). The driver sets the records aside (`.bad-<unix seconds>`); the next start
    /// has a new disk id and [`Genesis::JoinOnly`]. The text says what is missing.
    SetAside(String),
    /// The cluster told this process to end (`shutdown-node`); its place is kept, and a later start finds it in
    /// maintenance.
    Shutdown,
    /// The node was decommissioned: it is no member any more, and its disk is given up for lost. The driver removes the
    /// records (and what the options say).
    Decommissioned {
        /// Objects too.
        rm_user_data: bool,
        /// Keep the configuration that the node was first started with.
        keep_initial_config: bool,
        /// Do not end the process.
        no_shutdown: bool,
        /// So was the whole cluster: the record that takes the place of the old one, [`Genesis::Ended`]. Otherwise
        /// that is [`Genesis::JoinOnly`].
        ended: Option<Ended>,
    },
}

/// Why a lost majority is not recovered from here; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverRefused {
    /// The disk belongs to no formed cluster.
    #[error("this node is not a member of a formed cluster: there is nothing to recover")]
    NotFormed,
    /// The confirmed stamp is not the one that is held here.
    #[error("the confirmed stamp {confirmed} is not what this node holds ({})", held.map_or("nothing".to_owned(), |s| s.to_string()))]
    Stamp {
        /// As asked.
        confirmed: Stamp,
        /// Newest durably accepted stamp here.
        held: Option<Stamp>,
    },
    /// Only an electable gateway can lead what comes out of it.
    #[error(
        "this node cannot lead (a target, non-electable, or in maintenance): recover at an electable gateway; if only \
         nodes like this one hold the newest State, one with an empty state directory takes it over"
    )]
    NotElectable,
    /// Somebody leads.
    #[error("primary {primary} is alive (epoch {epoch}): nothing is lost")]
    PrimaryHeard {
        /// Who.
        primary: NodeId,
        /// Its epoch.
        epoch: u64,
    },
    /// An election can still succeed.
    #[error("a majority can be reached ({reached} of {of} voters): an election will do, nothing is lost")]
    Majority {
        /// Voters that can be talked to, this node included.
        reached: usize,
        /// Size of the electorate.
        of: usize,
    },
    /// A reachable member holds more than was confirmed: going on from here would lose it.
    #[error(
        "{node} holds {held}, which is newer than the confirmed {confirmed}: recover there; if it cannot lead, start \
         this node with an empty state directory, wait for 2 x evict_smap_ms until it has {held}, and confirm that"
    )]
    Newer {
        /// Who.
        node: NodeId,
        /// What it holds.
        held: Stamp,
        /// As asked.
        confirmed: Stamp,
    },
    /// Not now.
    #[error("not now: {0}")]
    Busy(String),
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
    pub promised: Term,
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
