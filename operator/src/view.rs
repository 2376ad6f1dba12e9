//! What nodes say of themselves (`GET /v1/ha/view`), and what a majority of them agrees on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::bounds::bounded;

/// Order of committed states.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(default)]
pub struct Stamp {
    /// Raised by a recovery only.
    pub incarnation: u64,
    /// Raised by each new primary.
    pub epoch: u64,
    /// Raised by each update.
    pub seq: u64,
}

impl Stamp {
    /// The reign it belongs to.
    #[must_use]
    pub fn reign(self) -> (u64, u64) {
        (self.incarnation, self.epoch)
    }
}

/// A voter.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Voter {
    /// Node id, which is the pod's name.
    pub node_id: String,
    /// Its disk.
    pub disk_id: String,
    /// `gateway` or `target`.
    pub kind: String,
}

/// A member as the primary sees it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(default)]
pub struct Member {
    /// Node id.
    pub node_id: String,
    /// Its disk.
    pub disk_id: String,
    /// `gateway` or `target`.
    pub kind: String,
    /// It votes.
    pub voter: bool,
    /// The primary reaches it.
    pub connected: bool,
    /// Newest state it made durable.
    pub acked: Option<Stamp>,
    /// It may not lead.
    pub non_electable: bool,
    /// It is in maintenance.
    pub maintenance: bool,
    /// It is being decommissioned.
    pub decommission: bool,
    /// It has a place in the cluster map; the primary also knows voters and joiners that have none.
    pub in_smap: bool,
}

impl Default for Member {
    /// An older daemon says of nobody that it has no place.
    fn default() -> Self {
        Self {
            node_id: String::new(),
            disk_id: String::new(),
            kind: String::new(),
            voter: false,
            connected: false,
            acked: None,
            non_electable: false,
            maintenance: false,
            decommission: false,
            in_smap: true,
        }
    }
}

/// Which secrets and certificates a node has read, by their digests.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Credentials {
    /// Secrets that it accepts; the first one signs.
    pub secrets: Vec<String>,
    /// Where its ports speak TLS.
    pub tls: Option<TlsView>,
}

/// A node's certificate and whom it trusts.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct TlsView {
    /// Digest of its certificate.
    pub certificate: Option<String>,
    /// Digests of the authorities, sorted.
    pub authorities: Vec<String>,
    /// Why others do not accept its certificate.
    pub problem: Option<String>,
}

/// What one node says. Unknown fields are ignored, absent ones are empty: a newer or older daemon
/// must not blind the operator.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct NodeView {
    /// Node id.
    pub node_id: String,
    /// Its disk.
    pub disk_id: String,
    /// Version of the daemon.
    pub version: String,
    /// UUID of the cluster it belongs to.
    pub cluster_uuid: Option<String>,
    /// It holds the record of a founded cluster.
    pub formed: bool,
    /// It promised itself to a founder.
    pub bound: bool,
    /// primary, candidate, follower, learner, founding, joining, waiting, stopping.
    pub role: String,
    /// What it waits for.
    pub reason: String,
    /// Newest committed state it published.
    pub stamp: Option<Stamp>,
    /// Highest epoch it promised.
    pub promised: Option<u64>,
    /// Who leads, as it knows.
    pub primary: Option<String>,
    /// Since when, in Unix milliseconds.
    pub primary_since_ms: Option<i64>,
    /// Who votes.
    pub electorate: Vec<Voter>,
    /// Largest electorate that this process makes when it leads; absent from an older daemon.
    pub voters_max: Option<usize>,
    /// Version of the cluster map.
    pub smap_version: i64,
    /// Version of the bucket metadata.
    pub bmd_version: i64,
    /// Version of the configuration.
    pub config_version: i64,
    /// Settings of the cluster that were set, by dotted name; absent from an older daemon.
    pub settings: Option<BTreeMap<String, String>>,
    /// It serves.
    pub ready: bool,
    /// This process is stopping.
    pub stopping: bool,
    /// The whole cluster is being stopped.
    pub cluster_stopping: bool,
    /// Every member; filled by the primary only.
    pub members: Vec<Member>,
    /// Which secrets and certificates it has.
    pub credentials: Credentials,
}

impl NodeView {
    /// The view without what moves with every update: two equal ones need no reconcile.
    #[must_use]
    pub fn without_progress(&self) -> Self {
        let calm = |stamp: Stamp| Stamp { seq: 0, ..stamp };
        let mut view = self.clone();
        view.stamp = view.stamp.map(calm);
        view.bmd_version = 0;
        for member in &mut view.members {
            member.acked = member.acked.map(calm);
        }
        view
    }
}

/// What is known of one pod's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It answers; this is what it said last.
    Live(Box<NodeView>),
    /// It does not answer.
    Lost(String),
}

impl Report {
    /// What was answered at a pod's address. That may be another pod's by now: what it says is not this one's word.
    #[must_use]
    pub fn of(pod: &str, view: NodeView) -> Self {
        if view.node_id != pod {
            return Self::Lost(format!("{:.80} answers at its address", view.node_id));
        }
        match bounded(view) {
            Ok(view) => Self::Live(Box::new(view)),
            Err(why) => Self::Lost(why.to_owned()),
        }
    }

    /// The view of a node that answers.
    #[must_use]
    pub fn view(&self) -> Option<&NodeView> {
        match self {
            Self::Live(view) => Some(view),
            Self::Lost(_) => None,
        }
    }
}

/// Reports by pod.
pub type Reports = BTreeMap<String, Report>;

/// A primary that a majority of its electorate acknowledges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Node id, which is the pod's name.
    pub node_id: String,
    /// Incarnation and epoch of its reign.
    pub reign: (u64, u64),
    /// Newest stamp a member of its reign published.
    pub stamp: Stamp,
    /// Version of the cluster map.
    pub smap_version: i64,
    /// Since when it leads, as it says itself.
    pub since_ms: Option<i64>,
    /// Who votes.
    pub electorate: Vec<Voter>,
    /// Voters that answer and acknowledge it.
    pub acknowledged: usize,
    /// Every member, as it says itself.
    pub members: Vec<Member>,
}

impl Leader {
    /// What the leader says of a node.
    #[must_use]
    pub fn member(&self, node_id: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.node_id == node_id)
    }
}

/// What the nodes agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The primary, if a majority acknowledges one.
    pub leader: Option<Leader>,
    /// Some node says that the cluster is founded.
    pub formed: bool,
    /// Two primaries of one reign: they must not exist.
    pub split: Option<String>,
    /// Nodes of another cluster, with its uuid.
    pub strangers: Vec<(String, String)>,
    /// The cluster is being stopped.
    pub stopping: bool,
    /// Nodes that answered.
    pub answered: usize,
}

/// Smallest majority of `voters`.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Finds the newest reign that a majority of its own electorate acknowledges. A deposed primary that
/// does not know it yet loses by its lower epoch, and a new one counts only once a majority follows. Who votes is not
/// for one node alone to say, see [`is_outvoted`].
#[must_use]
pub fn agree(uuid: &str, reports: &Reports) -> Agreement {
    let mut agreement = Agreement::default();
    let mut own: Vec<&NodeView> = Vec::new();
    for (pod, report) in reports {
        let Some(view) = report.view() else { continue };
        agreement.answered += 1;
        match &view.cluster_uuid {
            Some(other) if other != uuid => agreement.strangers.push((pod.clone(), other.clone())),
            _ => own.push(view),
        }
    }
    agreement.formed = own.iter().any(|v| v.formed && v.cluster_uuid.as_deref() == Some(uuid));
    agreement.split = split(&own);

    let mut reigns: Vec<((u64, u64), &str)> =
        own.iter().filter_map(|v| Some((v.stamp?.reign(), v.primary.as_deref()?))).collect();
    reigns.sort_unstable();
    reigns.dedup();
    agreement.leader = reigns.iter().rev().find_map(|(reign, primary)| leader(&own, *reign, primary));
    // Whoever was cut off since may not know that it goes on after all.
    let counts = |v: &&NodeView| match &agreement.leader {
        Some(leader) => v.node_id == leader.node_id,
        None => true,
    };
    agreement.stopping = own.iter().copied().filter(counts).any(|v| v.cluster_stopping);
    agreement
}

fn leader(own: &[&NodeView], reign: (u64, u64), primary: &str) -> Option<Leader> {
    let followers: Vec<&&NodeView> = own
        .iter()
        .filter(|v| v.primary.as_deref() == Some(primary) && v.stamp.map(Stamp::reign) == Some(reign))
        .collect();
    // Among equals the primary itself: it has seen what it committed.
    let newest = followers.iter().max_by_key(|v| (v.stamp, v.node_id == primary))?;
    let acknowledged =
        newest.electorate.iter().filter(|voter| followers.iter().any(|v| v.node_id == voter.node_id)).count();
    if newest.electorate.is_empty() || acknowledged < majority(newest.electorate.len()) {
        return None;
    }
    if is_outvoted(own, &followers, acknowledged) {
        return None;
    }
    let itself = followers.iter().find(|v| v.node_id == primary);
    Some(Leader {
        node_id: primary.to_owned(),
        reign,
        stamp: newest.stamp.unwrap_or_default(),
        smap_version: newest.smap_version,
        since_ms: itself.and_then(|v| v.primary_since_ms),
        electorate: newest.electorate.clone(),
        acknowledged,
        members: itself.map(|v| v.members.clone()).unwrap_or_default(),
    })
}

/// A node that claims an epoch, and an electorate of itself to prove it, has the majority of that. It is not believed
/// while more voters stand by another electorate, whoever leads or does not lead them, and too few of those acknowledge
/// the claim. An electorate changes by one voter at a time with a majority of it, so a true reign takes them along.
///
/// # Caveats
/// While nobody else answers, a node's own word is all there is: a cluster may have one voter.
fn is_outvoted(own: &[&NodeView], followers: &[&&NodeView], acknowledged: usize) -> bool {
    let mut backers: BTreeMap<BTreeSet<&str>, usize> = BTreeMap::new();
    for view in own {
        let names: BTreeSet<&str> = view.electorate.iter().map(|v| v.node_id.as_str()).collect();
        if names.contains(view.node_id.as_str()) {
            *backers.entry(names).or_default() += 1;
        }
    }
    let follow = |id: &&&str| followers.iter().any(|v| v.node_id == **id);
    backers.iter().any(|(names, backers)| {
        let needed = majority(names.len());
        *backers >= needed && *backers > acknowledged && names.iter().filter(follow).count() < needed
    })
}

fn split(own: &[&NodeView]) -> Option<String> {
    let mut primaries: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    for view in own.iter().filter(|v| v.role == "primary") {
        // A new primary's first state may not be published yet: what it promised tells its reign.
        let Some((incarnation, epoch)) = view.stamp.map(Stamp::reign) else { continue };
        let reign = (incarnation, epoch.max(view.promised.unwrap_or(0)));
        if let Some(other) = primaries.insert(reign, &view.node_id) {
            return Some(format!("{other} and {} both lead in epoch {}.{}", view.node_id, reign.0, reign.1));
        }
    }
    None
}
