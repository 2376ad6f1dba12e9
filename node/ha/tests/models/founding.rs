//! Founding (section 5), over `determine_role`, `may_bind`, `Founding` and the record `Genesis`.
//!
//! What a process knows of the others is what they said when it heard them last: it may be old. A crash forgets it; a
//! wipe forgets the record too and gives the node a new disk id.

use std::collections::BTreeMap;
use std::sync::Arc;

use ais_ha::genesis::{Attempt, Founding, Genesis, Next, Offer, Seen, Start, determine_role, may_bind};
use ais_ha::mutant::Mutant;
use ais_ha::{Discovery, PrimaryEp};
use ais_meta::{ClusterUuid, DiskId, NodeId, VoterId};
use stateright::{Model, Property};

use super::Judged;

#[derive(Clone, Debug)]
pub struct Bounds {
    /// Initial voters.
    pub nodes: usize,
    pub crashes: u8,
    pub wipes: u8,
    /// Everybody is told to be the founder (`AIS_PRIMARY_EP` names each node itself), not only the first.
    pub rivals: bool,
    /// At any moment the last gateway may be struck from the configured list.
    pub relists: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Msg {
    Offer {
        from: VoterId,
        offer: Offer,
    },
    Bound {
        from: VoterId,
        number: u64,
        founder: VoterId,
    },
    /// State(1,1), by its founder.
    Told {
        from: VoterId,
        offer: Offer,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    me: VoterId,
    record: Genesis,
    /// What the others said last.
    heard: BTreeMap<NodeId, (VoterId, Genesis)>,
    founding: Option<Founding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    nodes: Vec<Process>,
    net: Vec<Arc<Msg>>,
    /// Who declared the cluster formed, by which offer.
    completions: Vec<(VoterId, Offer)>,
    crashes: u8,
    wipes: u8,
    relisted: bool,
    /// An offer was made after another.
    reoffers: bool,
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The first hears from the second how it stands.
    Hear(usize, usize),
    /// Looks at the bootstrap table and does what it says.
    Look(usize),
    Deliver(usize, Arc<Msg>),
    Crash(usize),
    Wipe(usize),
    Relist,
}

impl Judged for World {
    fn broken(&self) -> Option<&'static str> {
        self.broken
    }
}

fn uuid() -> ClusterUuid {
    "uuid-of-model".parse().unwrap()
}

fn name(node: usize) -> NodeId {
    ["a", "b", "c"][node].parse().unwrap()
}

impl World {
    fn send(&mut self, msg: Msg) {
        if !self.net.iter().any(|m| **m == msg) {
            self.net.push(Arc::new(msg));
            self.net.sort_by_cached_key(|m| format!("{m:?}"));
        }
    }
}

impl Bounds {
    fn discovery(&self, w: &World, node: usize) -> Discovery {
        Discovery {
            initial_voters: (0..self.nodes - usize::from(w.relisted)).map(name).collect(),
            formed: false,
            primary_ep: if self.rivals || node == 0 { PrimaryEp::Us } else { PrimaryEp::Peer(name(0)) },
            standalone: false,
        }
    }

    fn start(&self, w: &World, node: usize) -> Start {
        let p = &w.nodes[node];
        let seen = Seen { ours: p.heard.values().any(|(_, g)| g.is_formed()), foreign: None };
        determine_role(&p.me, Some(&uuid()), &p.record, &seen, &self.discovery(w, node))
    }

    fn look(&self, w: &mut World, node: usize) -> Option<()> {
        match self.start(w, node) {
            Start::Found(_) => self.attempt(w, node),
            Start::GoOn(offer) if offer.founder == w.nodes[node].me => self.attempt(w, node),
            Start::GoOn(offer) => self.go_on(w, node, offer),
            Start::Join if !w.nodes[node].record.is_formed() => {
                w.nodes[node].record = Genesis::Formed(uuid());
                w.nodes[node].founding = None;
                Some(())
            }
            Start::Join | Start::Rejoin | Start::Wait(_) | Start::Refuse(_) => None,
        }
    }

    fn attempt(&self, w: &mut World, node: usize) -> Option<()> {
        let (list, uuid) = (self.discovery(w, node).initial_voters, uuid());
        let p = &mut w.nodes[node];
        let bound = |id: &VoterId| p.founding.as_ref().filter(|f| f.is_bound(id)).map(|f| f.offer.clone());
        let said =
            |(id, said): &(VoterId, Genesis)| (id.clone(), bound(id).map_or_else(|| said.clone(), Genesis::Bound));
        let heard = p.heard.iter().map(|(name, known)| (name.clone(), said(known))).collect();
        match (
            Attempt { me: &p.me, record: &p.record, uuid: &uuid, list: &list, heard: &heard }.offer().ok()?,
            p.record.offer(),
        ) {
            (None, Some(own)) => {
                let own = own.clone();
                self.go_on(w, node, own)
            }
            (None, None) => None,
            (Some(offer), _) => {
                w.reoffers |= offer.number > 1;
                (p.record, p.founding) = (Genesis::Offered(offer), None);
                Some(())
            }
        }
    }

    fn go_on(&self, w: &mut World, node: usize, offer: Offer) -> Option<()> {
        let p = &mut w.nodes[node];
        let mut founding = p.founding.clone().filter(|f| f.offer == offer).unwrap_or_else(|| {
            let mut founding = Founding::new(offer.clone());
            if matches!(p.record, Genesis::Bound(_)) {
                founding.bind(p.me.clone(), offer.number);
            }
            founding
        });
        let me = p.me.clone();
        match founding.next() {
            Next::Ask(_) => {
                p.founding = Some(founding);
                w.send(Msg::Offer { from: me, offer });
            }
            Next::BindSelf => {
                p.record = Genesis::Bound(offer.clone());
                founding.bind(me.clone(), offer.number);
                p.founding = Some(founding);
                w.send(Msg::Bound { from: me, number: offer.number, founder: offer.founder });
            }
            Next::Declare => {
                p.record = Genesis::Formed(uuid());
                p.founding = None;
                w.send(Msg::Told { from: me.clone(), offer: offer.clone() });
                w.completions.push((me, offer));
                if w.completions.len() > 1 {
                    w.broken = Some("I11: two foundings completed");
                }
            }
        }
        Some(())
    }

    fn deliver(&self, w: &mut World, node: usize, msg: &Msg) -> Option<()> {
        let p = &mut w.nodes[node];
        match msg {
            Msg::Offer { from, offer } if *from == offer.founder && !p.record.is_formed() => {
                may_bind(&p.me, Some(&uuid()), &p.record, offer).ok()?;
                p.record = Genesis::Bound(offer.clone());
                let (from, founder) = (p.me.clone(), offer.founder.clone());
                w.send(Msg::Bound { from, number: offer.number, founder });
            }
            Msg::Bound { from, number, founder } => {
                let listens = *founder == p.me || Mutant::AnyBoundFounds.on();
                let founding = p.founding.as_mut().filter(|f| listens && f.offer.voters.contains(from))?;
                founding.bind(from.clone(), *number);
            }
            Msg::Told { from, offer } => {
                let ours = matches!(&p.record, Genesis::Bound(b) if b.uuid == offer.uuid && p.me != *from);
                if !ours {
                    return None;
                }
                (p.record, p.founding) = (Genesis::Formed(uuid()), None);
            }
            Msg::Offer { .. } => return None,
        }
        Some(())
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let fresh = |node| Process {
            me: VoterId::new(name(node), DiskId(0)),
            record: Genesis::Unformed,
            heard: BTreeMap::new(),
            founding: None,
        };
        let nodes = (0..self.nodes).map(fresh).collect();
        vec![World {
            nodes,
            net: Vec::new(),
            completions: Vec::new(),
            crashes: 0,
            wipes: 0,
            relisted: false,
            reoffers: false,
            broken: None,
        }]
    }

    fn actions(&self, w: &World, out: &mut Vec<Step>) {
        if w.broken.is_some() {
            return;
        }
        for node in 0..self.nodes {
            out.push(Step::Look(node));
            out.extend((0..self.nodes).filter(|other| *other != node).map(|other| Step::Hear(node, other)));
            out.extend(w.net.iter().map(|m| Step::Deliver(node, m.clone())));
            if w.crashes < self.crashes {
                out.push(Step::Crash(node));
            }
            if w.wipes < self.wipes {
                out.push(Step::Wipe(node));
            }
        }
        if self.relists && !w.relisted {
            out.push(Step::Relist);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut w = world.clone();
        match step {
            Step::Hear(node, other) => {
                let said = (w.nodes[other].me.clone(), w.nodes[other].record.clone());
                // A formed node listens no more; who cannot found now cares for formed clusters only.
                let p = &w.nodes[node];
                let founds = self.rivals || node == 0;
                if p.record.is_formed() || !(founds || said.1.is_formed()) {
                    return None;
                }
                w.nodes[node].heard.insert(name(other), said);
            }
            Step::Look(node) => self.look(&mut w, node)?,
            Step::Deliver(node, msg) => self.deliver(&mut w, node, &msg)?,
            Step::Crash(node) => {
                w.crashes += 1;
                let p = &mut w.nodes[node];
                (p.heard, p.founding) = (BTreeMap::new(), None);
            }
            Step::Relist => w.relisted = true,
            Step::Wipe(node) => {
                w.wipes += 1;
                let disk = if Mutant::WipedKeepsId.on() { 0 } else { u64::from(w.wipes) };
                let me = VoterId::new(name(node), DiskId(disk));
                w.nodes[node] = Process { me, record: Genesis::Unformed, heard: BTreeMap::new(), founding: None };
            }
        }
        for p in &mut w.nodes {
            // Neither a formed node nor one that waits for another's offer listens to who is not formed.
            let waits = p.record.offer().is_some_and(|o| o.founder != p.me);
            p.heard.retain(|_, (_, said)| !p.record.is_formed() && (said.is_formed() || !waits));
        }
        (w != *world).then_some(w)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("invariants", |_, w: &World| w.broken.is_none()),
            Property::sometimes("everybody is of the formed cluster", |_, w: &World| {
                w.nodes.iter().all(|p| p.record.is_formed())
            }),
            Property::sometimes("a later offer completes", |m: &Self, w: &World| {
                let later = w.completions.iter().any(|(_, offer)| offer.number > 1);
                later || (m.wipes == 0 && !m.relists)
            }),
        ]
    }
}
