//! What one run is: a world and the faults that come over it. Data: drawn from a seed ([`crate::draw`]), or read from
//! a file that keeps its meaning when the drawing changes.

use ais_meta::Kind;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::world::{Micros, ms};

/// Virtual time of the faults.
pub const FAULTS_END: Micros = ms(47_000);

/// What a run is about; some checks make sense in some classes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Everything at once.
    #[default]
    Chaos,
    /// Faults that must not depose the primary (L4): one member besides it at a time.
    Benign,
    /// Voters stay away for long, lose their disks, and are replaced.
    Electorate,
    /// A majority loses its disks for good.
    Recovery,
}

/// A world in advance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Of chance: latencies, syncs, clients.
    pub seed: u64,
    /// What it is about.
    #[serde(default)]
    pub class: Class,
    /// Gateways.
    pub gateways: usize,
    /// Targets.
    pub targets: usize,
    /// Largest electorate.
    pub voters: usize,
    /// Gateways that found together.
    pub initial: Vec<usize>,
    /// When each node first comes up.
    pub starts: Vec<Micros>,
    /// Clocks run this much too fast or too slow, at most.
    pub drift_ppm: u64,
    /// One way.
    pub latency_us: (Micros, Micros),
    /// Some packets take much longer.
    pub spikes: bool,
    /// Packets lost, per mille.
    pub loss: u64,
    /// Packets that arrive twice, per mille.
    pub duplicates: u64,
    /// One sync of a disk.
    pub sync_us: (Micros, Micros),
    /// Disks replay from bytes.
    pub bytes: bool,
    /// `AIS_CLUSTER_UUID` is set.
    pub uuid_given: bool,
    /// Whom `AIS_PRIMARY_EP` names.
    pub primary_ep: Option<usize>,
    /// Every node is configured with the addresses of all.
    pub whole_book: bool,
    /// This gateway never leads.
    pub non_electable: Option<usize>,
    /// Silence after which a voter is replaced.
    #[serde(default = "sixty_seconds")]
    pub evict_voter_ms: u64,
    /// How long a lease each node gives and counts, milliseconds; empty: all the same. They differ while a cluster is
    /// rolled to another value, and after a disk was lost.
    #[serde(default)]
    pub leases_ms: Vec<u64>,
    /// Clients.
    pub clients: usize,
    /// Mean pause between a client's calls.
    pub pause_us: Micros,
    /// Who was stopped in order is started again.
    pub restart_stopped: bool,
    /// Wall clocks are wrong, and step at every start; nothing may depend on them.
    #[serde(default)]
    pub wall_steps: bool,
    /// The faults end then; `None`: when enough happened.
    #[serde(default)]
    pub heal_us: Option<Micros>,
    /// What comes over it, in order of time.
    pub faults: Vec<Fault>,
}

fn sixty_seconds() -> u64 {
    60_000
}

impl Plan {
    /// A healthy world: 1 ms one way, 2 ms a sync, no faults but those that a scenario makes.
    #[must_use]
    pub fn healthy(seed: u64, gateways: usize, targets: usize) -> Self {
        let founders = founders(gateways, 5);
        Self {
            seed,
            class: Class::Chaos,
            gateways,
            targets,
            voters: 5,
            initial: (0..founders).collect(),
            starts: vec![0; gateways + targets],
            drift_ppm: 100,
            latency_us: (1000, 1000),
            spikes: false,
            loss: 0,
            duplicates: 0,
            sync_us: (2000, 2000),
            bytes: false,
            uuid_given: true,
            primary_ep: None,
            whole_book: true,
            non_electable: None,
            evict_voter_ms: sixty_seconds(),
            leases_ms: Vec::new(),
            clients: 0,
            pause_us: ms(600),
            restart_stopped: false,
            wall_steps: false,
            heal_us: None,
            faults: Vec::new(),
        }
    }

    /// How many nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.gateways + self.targets
    }

    /// Kind and name of a node.
    #[must_use]
    pub fn name(&self, at: usize) -> (Kind, String) {
        if at < self.gateways {
            (Kind::Gateway, format!("g{}", at + 1))
        } else {
            (Kind::Target, format!("t{}", at + 1 - self.gateways))
        }
    }
}

/// How many gateways found together: the largest odd number there is room for; two stay two.
pub(crate) fn founders(gateways: usize, voters: usize) -> usize {
    match gateways.min(voters) {
        2 => 2,
        most => most.div_ceil(2) * 2 - 1,
    }
}
