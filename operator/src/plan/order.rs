//! What the operator asks of the primary besides moves of the primary. Pure.

use std::fmt;

/// One call. What it did is read back from the nodes' views; its answer is for people only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Out of the cluster map and the electorate for good. The process stays, idle, until its pod goes: a restart would
    /// make it join as a new node.
    Decommission(String),
    /// Out of service, with its place kept.
    StartMaintenance(String),
    /// Back into service.
    StopMaintenance(String),
    /// Whether the whole cluster is being stopped in order: nobody takes over, nobody leaves.
    Stopping(bool),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decommission(node) => write!(f, "decommission of {node}"),
            Self::StartMaintenance(node) => write!(f, "maintenance of {node}"),
            Self::StopMaintenance(node) => write!(f, "end of maintenance of {node}"),
            Self::Stopping(true) => f.write_str("stop of the cluster"),
            Self::Stopping(false) => f.write_str("end of the cluster's stop"),
        }
    }
}
