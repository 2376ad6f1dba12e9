//! Faults as data: what happens when, with all that chance decides drawn beforehand. So a plan can be stored, shrunk,
//! and read.

use serde::{Deserialize, Serialize};

use crate::admin::Ask;
use crate::world::Micros;

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    pub at_us: Micros,
    /// What.
    pub strike: Strike,
}

/// Who is struck; found out when the time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Whoever leads; this node when nobody does.
    Primary(usize),
    /// This node.
    Node(usize),
    /// The node at this place among those that do not lead.
    Other(usize),
}

/// A moment that a kill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// A primary's State just committed: nobody has been told yet.
    Commit,
    /// A primary sends the first answer to a client.
    Answer,
    /// A State was handed to the disk and is not there yet.
    Accept,
    /// A promise was handed to the disk and is not there yet.
    Promise,
    /// A primary gave up its epoch for a successor.
    Resign,
}

/// What happens. Times are microseconds; `lasts_us` until it is over, `back_us` until the process starts again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named for what they are")]
pub enum Strike {
    /// kill -9.
    Kill { who: Who, back_us: Micros },
    /// kill -9 at the next such moment of anybody.
    KillAt { moment: Moment, back_us: Micros },
    /// SIGTERM.
    Stop { who: Who },
    /// SIGTERM, and no restart before the end.
    Leave { who: Who, back_us: Micros },
    /// SIGSTOP, SIGCONT.
    Pause { who: Who, lasts_us: Micros },
    /// SIGSTOP of everybody: the host froze.
    StopTheWorld { lasts_us: Micros },
    /// Every input takes so long.
    Starve { who: Who, step_us: Micros, lasts_us: Micros },
    /// What one says does not reach the other, or neither way.
    Cut { from: Who, to: Who, both: bool, lasts_us: Micros },
    /// One node and all others; `deaf`: it still speaks, `mute`: it still hears.
    Isolate { who: Who, deaf: bool, mute: bool, lasts_us: Micros },
    /// Those whose bit is set and the rest.
    Split { side: u64, lasts_us: Micros },
    /// Connections end although both processes live.
    Reset { a: Who, b: Who },
    /// All connections of a node end, and nothing gets through any more.
    Sever { who: Who, lasts_us: Micros },
    /// What the others answered arrives late; meanwhile they hear nothing new.
    LateAnswers { who: Who, held_us: Micros, after_us: Micros, silent_us: Micros },
    /// Syncs take up to so long.
    SlowDisk { who: Who, high_us: Micros, lasts_us: Micros },
    /// No sync ends.
    HungDisk { who: Who, lasts_us: Micros },
    /// No sync ends ever again; only another process on a mended disk goes on, if it comes before the end.
    DeadDisk { who: Who, back_us: Micros },
    /// No room.
    FullDisk { who: Who, lasts_us: Micros },
    /// A new disk under the old name.
    Wipe { who: Who, back_us: Micros },
    /// New disks under two names at once.
    WipeTwo { a: Who, b: Who, back_us: Micros },
    /// The volume of the next initial voter that binds to an offer is recreated at once.
    Recreate { back_us: Micros },
    /// The record does not read: it is set aside, the node may only join.
    Torn { who: Who, back_us: Micros },
    /// A snapshot of the volume is taken, and comes back later.
    Restore { who: Who, after_us: Micros },
    /// Several processes are killed and started again and again.
    Storm { side: u64, times: u32, gap_us: Micros },
    /// The primary dies while somebody is about to join.
    JoinInElection { who: Who, back_us: Micros },
    /// The node comes back at another address.
    Move { who: Who, back_us: Micros },
    /// Everybody is stopped, in order or not, and started one after the other in an order drawn from `order`.
    AllDown { orderly: bool, down_us: Micros, order: u64 },
    /// A hand-over is asked for at a gateway; `deaf_us`: the successor's word does not reach the old primary.
    HandOver { via: usize, to: usize, deaf_us: Micros },
    /// Several, one after the other.
    HandOvers { times: u32, gap_us: Micros },
    /// A majority of the voters loses its disks; an administrator goes on from the best stamp that is left.
    LoseMajority { order: u64, admin_us: Micros },
    /// Somebody asks for a change at a gateway.
    Ask { via: usize, what: Ask },
}

impl Strike {
    /// Its kind: one of [`KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill { back_us, .. } if *back_us < 50_000 => "bounce",
            Self::Kill { .. } => "kill",
            Self::KillAt { moment: Moment::Commit, .. } => "kill at commit",
            Self::KillAt { moment: Moment::Answer, .. } => "kill at answer",
            Self::KillAt { moment: Moment::Accept, .. } => "kill at accept",
            Self::KillAt { moment: Moment::Promise, .. } => "kill at promise",
            Self::KillAt { moment: Moment::Resign, .. } => "kill at resign",
            Self::Stop { .. } => "stop",
            Self::Leave { .. } => "leave",
            Self::Pause { .. } => "pause",
            Self::StopTheWorld { .. } => "stop the world",
            Self::Starve { .. } => "starve",
            Self::Cut { both: false, .. } => "cut one way",
            Self::Cut { .. } => "cut both ways",
            Self::Isolate { deaf: false, mute: false, .. } => "isolate",
            Self::Isolate { .. } => "isolate one way",
            Self::Split { .. } => "split",
            Self::Reset { .. } => "reset",
            Self::Sever { .. } => "reset and isolate",
            Self::LateAnswers { .. } => "late answers",
            Self::SlowDisk { .. } => "slow disk",
            Self::HungDisk { .. } => "hung disk",
            Self::DeadDisk { .. } => "disk hung for ever",
            Self::FullDisk { .. } => "full disk",
            Self::Wipe { .. } => "wipe",
            Self::WipeTwo { .. } => "wipe of two",
            Self::Recreate { .. } => "recreated volume",
            Self::Torn { .. } => "torn record",
            Self::Restore { .. } => "restored snapshot",
            Self::Storm { .. } => "restart storm",
            Self::JoinInElection { .. } => "join in election",
            Self::Move { .. } => "address change",
            Self::AllDown { orderly: true, .. } => "orderly stop of all",
            Self::AllDown { .. } => "kill of all",
            Self::HandOver { .. } => "hand-over",
            Self::HandOvers { .. } => "hand-overs",
            Self::LoseMajority { .. } => "lost majority",
            Self::Ask { what: Ask::Config(_), .. } => "configuration",
            Self::Ask { what: Ask::Revoke(_), .. } => "revoked token",
            Self::Ask { what: Ask::Member(action, _), .. } => action.as_str(),
        }
    }
}

/// All kinds, each with how often per thousand seeds it must have struck at least.
pub const KINDS: [(&str, u64); 44] = [
    ("kill", 400),
    ("bounce", 250),
    ("kill at commit", 100),
    ("kill at answer", 100),
    ("kill at accept", 100),
    ("kill at promise", 100),
    ("kill at resign", 5),
    ("stop", 400),
    ("leave", 100),
    ("pause", 500),
    ("stop the world", 100),
    ("starve", 100),
    ("cut one way", 120),
    ("cut both ways", 120),
    ("isolate", 300),
    ("isolate one way", 150),
    ("split", 150),
    ("reset", 120),
    ("reset and isolate", 200),
    ("late answers", 180),
    ("slow disk", 200),
    ("hung disk", 300),
    ("disk hung for ever", 50),
    ("full disk", 200),
    ("wipe", 200),
    ("wipe of two", 10),
    ("torn record", 50),
    ("recreated volume", 20),
    ("restored snapshot", 10),
    ("restart storm", 100),
    ("join in election", 100),
    ("address change", 100),
    ("orderly stop of all", 50),
    ("kill of all", 50),
    ("hand-over", 500),
    ("hand-overs", 100),
    ("lost majority", 5),
    ("configuration", 100),
    ("revoked token", 50),
    ("start-maintenance", 50),
    ("stop-maintenance", 20),
    ("shutdown-node", 20),
    ("decommission-node", 20),
    ("rm-unsafe", 20),
];
