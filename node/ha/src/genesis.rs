//! Bootstrap and founding (protocol.md section 5). Timeless.

use std::collections::BTreeMap;

use ais_meta::{ClusterUuid, MemberOptions, NodeId, Stamp, VoterId, hrw};
use serde::{Deserialize, Serialize};

use crate::io::{Discovery, PrimaryEp};
use crate::mutant::Mutant;

/// An offer to found: unanimous among `voters`, made by one founder disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// Counts the founder disk's offers, from 1.
    pub number: u64,
    /// Identity of the cluster to be.
    pub uuid: ClusterUuid,
    /// Who made it.
    pub founder: VoterId,
    /// All initial voters, sorted, the founder among them.
    pub voters: Vec<VoterId>,
}

impl Offer {
    /// Whether it is for exactly these gateways (sorted).
    #[must_use]
    pub fn names(&self, gateways: &[NodeId]) -> bool {
        self.voters.iter().map(|v| &v.node).eq(gateways)
    }
}

/// The end of a whole cluster, as a disk remembers it that forgot everything else of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ended {
    /// Which cluster.
    pub uuid: ClusterUuid,
    /// The committed State that said so.
    pub stamp: Stamp,
    /// How it was decommissioned.
    pub options: MemberOptions,
}

/// What the disk says of founding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Genesis {
    /// A new disk.
    #[default]
    Unformed,
    /// The founder's own: made and sent, not bound to.
    Offered(Offer),
    /// Bound.
    Bound(Offer),
    /// Member of a formed cluster.
    Formed(ClusterUuid),
    /// The record could not be read and was set aside: may join, never found.
    JoinOnly,
    /// A new disk for every cluster but this one, which was decommissioned as a whole.
    Ended(Ended),
}

impl Genesis {
    /// The offer that is made or bound to.
    #[must_use]
    pub fn offer(&self) -> Option<&Offer> {
        match self {
            Self::Offered(offer) | Self::Bound(offer) => Some(offer),
            _ => None,
        }
    }

    /// The cluster that the record names.
    #[must_use]
    pub fn uuid(&self) -> Option<&ClusterUuid> {
        match self {
            Self::Offered(offer) | Self::Bound(offer) => Some(&offer.uuid),
            Self::Formed(uuid) => Some(uuid),
            Self::Unformed | Self::JoinOnly | Self::Ended(_) => None,
        }
    }

    /// The cluster that this disk saw the end of.
    #[must_use]
    pub fn ended(&self) -> Option<&ClusterUuid> {
        match self {
            Self::Ended(end) => Some(&end.uuid),
            _ => None,
        }
    }

    /// Whether it may take part in the founding of this cluster as a new disk.
    fn is_new_to(&self, uuid: &ClusterUuid) -> bool {
        match self {
            Self::Unformed => true,
            Self::Ended(end) => end.uuid != *uuid,
            _ => false,
        }
    }

    /// Whether the disk belongs to a formed cluster.
    #[must_use]
    pub fn is_formed(&self) -> bool {
        matches!(self, Self::Formed(_))
    }
}

/// What others said of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Members of a formed cluster of our uuid (or of any, when none is set and all agree).
    pub ours: bool,
    /// Formed clusters of another uuid.
    pub foreign: Option<ClusterUuid>,
}

/// What a node does at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Take part as the record says.
    Rejoin,
    /// Ask to be let into the cluster that was found.
    Join,
    /// Found: the initial voters, sorted.
    Found(Vec<NodeId>),
    /// Go on with the offer on the disk.
    GoOn(Offer),
    /// Wait; why.
    Wait(String),
    /// Refuse to take part until somebody changes something; why.
    Refuse(String),
}

/// The bootstrap table: one match over our own record, what discovery found, and `AIS_PRIMARY_EP`. Silence is never a
/// vote: when in doubt, wait.
#[must_use]
pub fn determine_role(
    me: &VoterId,
    uuid: Option<&ClusterUuid>,
    record: &Genesis,
    seen: &Seen,
    discovery: &Discovery,
) -> Start {
    match (record, seen.ours, &seen.foreign) {
        _ if record.uuid().is_some_and(|ours| uuid.is_some_and(|u| u != ours)) => Start::Refuse(format!(
            "the state directory belongs to cluster {}, AIS_CLUSTER_UUID is {}: correct one of them",
            record.uuid().map_or("", ClusterUuid::as_str),
            uuid.map_or("", ClusterUuid::as_str)
        )),
        (Genesis::Ended(end), ..) if uuid == Some(&end.uuid) => Start::Refuse(format!(
            "this node forgot cluster {}, which was decommissioned as a whole: a new cluster needs another uuid",
            end.uuid
        )),
        (Genesis::Ended(_), ..) => determine_role(me, uuid, &Genesis::Unformed, seen, discovery),
        (Genesis::Formed(_), ..) => Start::Rejoin,
        (_, true, _) => Start::Join,
        (Genesis::JoinOnly, false, _) => Start::Wait(
            "the record of this disk was set aside; waiting for a formed cluster to join, never founding".to_owned(),
        ),
        // Whoever saw it formed saw it declared, which this disk does not remember: it is a copy from before.
        (Genesis::Offered(offer) | Genesis::Bound(offer), false, _) if offer.founder == *me && discovery.formed => {
            Start::Wait(
                "the cluster is recorded as formed, this disk only as about to found it; waiting to join".to_owned(),
            )
        }
        (Genesis::Offered(offer), false, _) if offer.founder == *me => Start::GoOn(offer.clone()),
        (Genesis::Bound(offer) | Genesis::Offered(offer), false, _) => {
            if offer.founder == *me || Mutant::AnyBoundFounds.on() {
                Start::GoOn(offer.clone())
            } else {
                Start::Wait(format!("bound to founding offer {} of {}; waiting for it", offer.number, offer.founder))
            }
        }
        (Genesis::Unformed, false, Some(other)) => {
            Start::Refuse(format!("only a cluster with another uuid ({other}) was found; not joining and not founding"))
        }
        (Genesis::Unformed, false, None) if discovery.formed => {
            Start::Wait("the cluster is recorded as formed; waiting for a member to join, never founding".to_owned())
        }
        (Genesis::Unformed, false, None) => founder(&me.node, discovery),
    }
}

/// Who founds, when nobody is formed.
fn founder(me: &NodeId, discovery: &Discovery) -> Start {
    let voters = &discovery.initial_voters;
    if voters.is_empty() {
        return match (&discovery.primary_ep, discovery.standalone) {
            (PrimaryEp::Unset | PrimaryEp::Us, true) => Start::Found(vec![me.clone()]),
            _ => {
                Start::Wait("no initial voters are configured and --standalone is not set; waiting to join".to_owned())
            }
        };
    }
    let mut order = voters.clone();
    hrw::succession(&mut order, |id| id.as_str());
    let named = match &discovery.primary_ep {
        PrimaryEp::Us if voters.contains(me) => me,
        PrimaryEp::Peer(peer) if voters.contains(peer) => peer,
        _ => &order[0],
    };
    if named == me {
        let mut voters = voters.clone();
        voters.sort();
        voters.dedup();
        Start::Found(voters)
    } else {
        Start::Wait(format!("waiting for {named} to found the cluster"))
    }
}

/// The founder's side: unanimous, one offer, declared by the founder alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Founding {
    /// What was offered; on the founder's disk before anybody hears of it.
    pub offer: Offer,
    bound: BTreeMap<VoterId, u64>,
}

/// What a founder's next offer depends on.
pub struct Attempt<'a> {
    /// The founder's disk.
    pub me: &'a VoterId,
    /// Its record.
    pub record: &'a Genesis,
    /// The cluster to be, unless an offer names it already.
    pub uuid: &'a ClusterUuid,
    /// The configured initial voters, as read for this attempt.
    pub list: &'a [NodeId],
    /// What is known of the other gateways that can be talked to: their disk, and what it says of founding.
    pub heard: &'a BTreeMap<NodeId, (VoterId, Genesis)>,
}

impl Attempt<'_> {
    /// The offer to make durable and then known; `None`: go on with the one on the disk. The first one names the list;
    /// a later one (k = 1 + max(own, reported)) names the same gateways with the disks that they have now, or, while
    /// nobody is bound, another list.
    ///
    /// # Errors
    /// What the founding waits for.
    pub fn offer(&self) -> Result<Option<Offer>, String> {
        let own = self.record.offer().filter(|o| o.founder == *self.me);
        let bound_self = matches!(self.record, Genesis::Bound(_));
        let mut names: Vec<NodeId> = self.list.to_vec();
        names.extend(Some(self.me.node.clone()).filter(|n| !names.contains(n)));
        names.sort();
        names.dedup();
        if let Some(own) = own.filter(|o| !o.names(&names)) {
            self.may_rename(own, bound_self)?;
        }
        let reported = self.reported();
        let known = own.map_or(0, |o| o.number).max(reported);
        let missing = names.iter().find(|n| **n != self.me.node && !self.heard.contains_key(*n));
        if let Some(own) = own.filter(|o| o.names(&names) && o.number == known) {
            let gone = |v: &&VoterId| self.heard.get(&v.node).is_some_and(|(id, _)| id != *v);
            if !own.voters.iter().any(|v| gone(&v)) {
                return Ok(None);
            }
        }
        if let Some(missing) = missing {
            return Err(format!("founding: waiting for gateway {missing}"));
        }
        let mut voters = vec![self.me.clone()];
        for name in names.iter().filter(|n| **n != self.me.node) {
            let Some((id, said)) = self.heard.get(name) else { continue };
            match said {
                new if new.is_new_to(own.map_or(self.uuid, |o| &o.uuid)) => {}
                Genesis::Bound(offer) if offer.founder == *self.me => {}
                Genesis::Bound(offer) => {
                    let (number, founder) = (offer.number, &offer.founder);
                    return Err(format!(
                        "founding: {name} is bound to offer {number} of {founder}; if that disk is gone for good, found anew (refound)"
                    ));
                }
                other => return Err(format!("founding: {name} cannot take part, its disk says {other:?}")),
            }
            voters.push(id.clone());
        }
        voters.sort();
        let uuid = own.map_or(self.uuid, |o| &o.uuid).clone();
        Ok(Some(Offer { number: known + 1, uuid, founder: self.me.clone(), voters }))
    }

    /// The highest number of this founder disk that anybody is bound to.
    fn reported(&self) -> u64 {
        let numbers = self.heard.values().filter_map(|(_, said)| match said {
            Genesis::Bound(offer) if offer.founder == *self.me => Some(offer.number),
            _ => None,
        });
        numbers.max().unwrap_or_default()
    }

    /// The list may change freely while nobody is bound: everybody whom the offer names must say so.
    fn may_rename(&self, own: &Offer, bound_self: bool) -> Result<(), String> {
        let free = |v: &&VoterId| {
            let said = self.heard.get(&v.node).map(|(_, said)| said);
            if v.node == self.me.node { !bound_self } else { said.is_some_and(|said| said.is_new_to(&own.uuid)) }
        };
        match own.voters.iter().find(|v| !free(v)) {
            None => Ok(()),
            Some(bound) => Err(format!(
                "founding: the list of initial voters changed, but {} is or may be bound to offer {}: put the list back, or found anew (refound)",
                bound.node, own.number
            )),
        }
    }
}

/// What the founder does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for these to bind.
    Ask(Vec<VoterId>),
    /// All others have bound: bind oneself.
    BindSelf,
    /// Everybody has bound: declare the cluster formed.
    Declare,
}

impl Founding {
    /// Goes on with (or starts) an offer.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        Self { offer, bound: BTreeMap::new() }
    }

    /// Whether this voter has said that it is bound to the offer.
    #[must_use]
    pub fn is_bound(&self, voter: &VoterId) -> bool {
        self.bound.get(voter) == Some(&self.offer.number)
    }

    /// A voter has bound, durably.
    pub fn bind(&mut self, from: VoterId, number: u64) {
        self.bound.insert(from, number);
    }

    /// What to do.
    #[must_use]
    pub fn next(&self) -> Next {
        let missing = |v: &&VoterId| self.bound.get(*v) != Some(&self.offer.number);
        let open: Vec<VoterId> = self.offer.voters.iter().filter(missing).cloned().collect();
        match open.as_slice() {
            [] => Next::Declare,
            [only] if *only == self.offer.founder => Next::BindSelf,
            _ => Next::Ask(open.into_iter().filter(|v| *v != self.offer.founder).collect()),
        }
    }
}

/// Whether a node whose disk says `record` may bind to `offer`.
///
/// # Errors
/// Why not, for the log.
pub fn may_bind(me: &VoterId, uuid: Option<&ClusterUuid>, record: &Genesis, offer: &Offer) -> Result<(), String> {
    if uuid.is_some_and(|u| *u != offer.uuid) {
        return Err(format!("offer is for cluster {}, we belong to another", offer.uuid));
    }
    if !offer.voters.contains(me) {
        return Err("offer does not name this disk".to_owned());
    }
    match record {
        new if new.is_new_to(&offer.uuid) => Ok(()),
        Genesis::Bound(bound) | Genesis::Offered(bound) if bound == offer => Ok(()),
        Genesis::Bound(bound) if bound.founder == offer.founder && bound.number < offer.number => Ok(()),
        Genesis::Bound(bound) | Genesis::Offered(bound) => {
            Err(format!("bound to offer {} of {}", bound.number, bound.founder))
        }
        Genesis::Formed(uuid) => Err(format!("member of formed cluster {uuid}")),
        Genesis::JoinOnly => Err("the record was set aside: may only join".to_owned()),
        Genesis::Unformed | Genesis::Ended(_) => Err(format!("cluster {} was decommissioned", offer.uuid)),
    }
}
