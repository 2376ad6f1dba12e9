//! Clients that write all the time, what they were told, and the judgement of it (protocol.md section 12, rung 5).
//!
//! Every mutation's answer carries the stamp of the State that settled it. Stamps are totally ordered, so the check is
//! one walk over the history and no search for a possible order.

mod check;
mod clients;
mod pool;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ais_meta::Stamp;

pub use self::check::{Report, check};
pub use self::clients::{Load, Options, Random, Watch, Watched};
pub use self::pool::Pool;
pub use self::views::Views;
use crate::client::View;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make the bucket.
    Create,
    /// Destroy the bucket.
    Delete,
    /// Is it there?
    Head,
    /// Is it in the list?
    List,
}

impl Action {
    /// Whether it changes something.
    pub fn is_mutation(self) -> bool {
        matches!(self, Self::Create | Self::Delete)
    }
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 2xx.
    Done,
    /// 409.
    Exists,
    /// 404, or not in the list.
    Missing,
    /// 503: never proposed, never takes effect.
    Refused,
    /// 504, or the connection ended before an answer.
    Unknown,
    /// Anything else, which no rule allows.
    Failed(u16),
}

/// One call about one bucket. All calls about a bucket are one client's, one after the other.
#[derive(Debug, Clone)]
pub struct Op {
    /// What.
    pub action: Action,
    /// On which bucket.
    pub bucket: String,
    /// Through which gateway.
    pub gateway: String,
    /// The client's own id of the request.
    pub request: Option<String>,
    /// When it was sent, since the load began.
    pub invoked: Duration,
    /// When the answer was there.
    pub returned: Duration,
    /// The answer.
    pub answer: Answer,
    /// The State that settled it.
    pub stamp: Option<Stamp>,
    /// What was said when it is not certain whether or that it took effect.
    pub said: String,
}

/// A node's view with its time.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the load began.
    pub at: Duration,
    /// The view; members and electorate are left out.
    pub view: View,
}

/// All that is judged.
#[derive(Debug, Default)]
pub struct History {
    /// All calls.
    pub ops: Vec<Op>,
    /// Samples of views, in the order they were taken.
    pub samples: Vec<Sample>,
    /// The buckets that each node has in its metadata at the end, when all agree.
    pub finals: BTreeMap<String, BTreeSet<String>>,
    /// Only buckets of this prefix are the clients'.
    pub prefix: String,
    /// Gateways that were paused or cut: their own lists may be old for a while (protocol.md rule 12).
    pub slow: BTreeSet<String>,
}

#[cfg(test)]
mod fake_tests;
